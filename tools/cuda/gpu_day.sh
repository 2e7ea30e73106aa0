#!/usr/bin/env bash
# What a machine with a GPU has to say, in ten minutes: parity, the sanitizers, every network beside PyTorch, Nsight Compute's view of the
# largest kernels, two sweeps. Needs python3 there, and uses PyTorch, ncu, compute-sanitizer where they are; no Rust, no network.
#
#   tools/cuda/gpu_day.sh --pack gpu-day.tar.gz     builds the program with nvcc, and packs it with all that the day needs
#   tools/cuda/gpu_day.sh [--minutes 10]            there, in the unpacked folder: gpu-day/day.json and day.md
#   tools/cuda/gpu_day.sh --emulated                the same on the emulated GPU, small, with any built program
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
if [ "${1:-}" != --pack ]; then
  exec python3 "$root/tools/cuda/gpu_day.py" "$@"
fi

archive=${2:?usage: gpu_day.sh --pack ARCHIVE.tar.gz}
case $archive in /*) ;; *) archive=$PWD/$archive ;; esac
cd "$root"
nvcc=$(tools/cuda/install_nvcc.sh target/nvcc-venv | tail -n 1)
# In a folder of its own: another kind of build than the one that is tested.
NVCC=$nvcc RAMPART_HOST_ARCH=all CARGO_PROFILE_RELEASE_STRIP=symbols cargo build --release --locked --package rampart --target-dir target/gpu-day
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
bundle=$stage/rampart-gpu-day
mkdir -p "$bundle/target/release" "$bundle/tests"
cp target/gpu-day/release/rampart "$bundle/target/release/"
cp -r kernels "$bundle/"
cp -r tests/fixtures "$bundle/tests/"
mkdir "$bundle/tools"
cp -r tools/cuda tools/baseline tools/reference tools/import "$bundle/tools/"
rm -rf "$bundle/kernels/prebuilt"
tar -C "$stage" -czf "$archive" rampart-gpu-day
du -h "$bundle/target/release/rampart" "$archive"
