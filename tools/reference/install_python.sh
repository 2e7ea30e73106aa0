#!/bin/sh
# Prints a python that has what the PyTorch dumps need: the one that PYTHON names, else that of a virtual environment, which is
# made and filled where it is missing (PyTorch with its CUDA libraries: gigabytes).
#
#     "$(tools/reference/install_python.sh DIRECTORY)" tools/reference/dump_reference.py ...
set -eu
[ $# -eq 1 ] || { echo "usage: $0 DIRECTORY" >&2; exit 2; }
if [ -n "${PYTHON:-}" ]; then
    "$PYTHON" -c 'import numpy, safetensors, torch' >&2 || { echo "PYTHON is $PYTHON, which lacks torch, numpy or safetensors" >&2; exit 1; }
    echo "$PYTHON"
    exit
fi
[ -x "$1/bin/python" ] || python3 -m venv "$1"
"$1/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$(dirname "$0")/../requirements.txt" >&2
echo "$1/bin/python"
