#!/bin/sh
# Installs the pinned nvcc (compiler, assembler, disassembler; no driver, no GPU needed) from Python packages into a virtual
# environment, and prints the path of nvcc.
#
#     export NVCC="$(tools/cuda/install_nvcc.sh DIRECTORY)"
set -eu
[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
[ -x "$1/bin/python" ] || python3 -m venv "$1"
"$1/bin/python" -m pip install --quiet --disable-pip-version-check \
    nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96 \
    nvidia-cuda-cccl==13.0.85 nvidia-cuda-cuobjdump==13.2.86 nvidia-cuda-nvdisasm==13.2.86 >&2
"$1/bin/python" -c 'import pathlib, sysconfig
print(pathlib.Path(sysconfig.get_path("purelib"), "nvidia", "cu13", "bin", "nvcc"))'
