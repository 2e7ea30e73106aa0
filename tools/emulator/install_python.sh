#!/bin/sh
# Makes a virtual environment with NVRTC, NVIDIA's bindings, numba-cuda and Triton as PyPI has them, and prints its python: what
# frameworks.py runs on the emulator. No GPU, no driver.
#
#     PYTHON="$(tools/emulator/install_python.sh DIRECTORY)"
set -eu
[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
[ -x "$1/bin/python" ] || python3 -m venv "$1"
"$1/bin/python" -m pip install --quiet --disable-pip-version-check -r "$(dirname "$0")/requirements.txt" >&2
echo "$1/bin/python"
