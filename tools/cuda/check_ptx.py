#!/usr/bin/env python3
"""Whether ptxas takes every PTX file of a folder: what the emulator's own cases must be, to say anything of PTX.

tools/cuda/check_ptx.py FOLDER
"""

import re
import sys
from pathlib import Path

from cuda_toolkit import beside, fail, find_nvcc, run

TARGET = re.compile(r"^\s*\.target\s+(sm_\w+)", re.M)


def target(text):
    """The architecture that a text is for."""
    found = TARGET.search(text)
    return found and found[1]


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: check_ptx.py FOLDER")
    files = sorted(Path(sys.argv[1]).glob("*.ptx"))
    if not files:
        fail(f"{sys.argv[1]} has no .ptx")
    ptxas = beside(find_nvcc(), "ptxas")
    for file in files:
        arch = target(file.read_text()) or fail(f"{file} has no .target")
        run([ptxas, "-arch", arch, file, "-o", "/dev/null"], f"ptxas refuses {file}")
    print(f"ptxas takes {len(files)} files")


if __name__ == "__main__":
    main()
