#!/usr/bin/env python3
"""Writes emulator/src/driver/header.rs: the driver functions that the toolkit's cuda.h declares and the emulator does not have.

    tools/cuda/driver_functions.py [--check] [CUDA_H]

cuda.h is that of the toolkit of nvcc (NVCC, CUDA_HOME or PATH) unless it is given. --check compares and writes nothing.
"""

import argparse
import re
from pathlib import Path

from cuda_toolkit import ROOT, fail, find_nvcc

DRIVER = ROOT / "emulator" / "src" / "driver"
TARGET = DRIVER / "header.rs"
DECLARED = re.compile(r"\bCUDAAPI\s+(cu[A-Z]\w*)\s*\(")
RENAMED = re.compile(r"^\s*#\s*define\s+(cu[A-Z]\w*)\s+(?:(__CUDA_API_PT[DS][SZ])\()?\s*(cu[A-Z]\w*)\)?\s*$", re.M)
TABLE = re.compile(r"^table! \{(.*?)^\}", re.M | re.S)


def declared(header):
    """All symbols of the driver's library that a header declares: names, and what its macros make of them."""
    names = set(DECLARED.findall(header))
    for _, stream, target in RENAMED.findall(header):
        names.add(target)
        if stream:
            names.add(target + ("_ptds" if stream.endswith("PTDS") else "_ptsz"))
    return names


def implemented(source):
    """The functions in the table of proc_address.rs, those that are refused with a reason included."""
    table = TABLE.search(source) or fail("proc_address.rs has no `table! {`")
    return set(table[1].split())


def text(names):
    listed = "".join(f"    {name}\n" for name in sorted(names))
    return (
        "//! What cuda.h declares beyond what the emulator does: each function says its name once and answers\n"
        "//! `CUDA_ERROR_NOT_SUPPORTED`. Written by tools/cuda/driver_functions.py.\n\n"
        "super::unsupported::not_emulated! {\n" + listed + "}\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    parser.add_argument("header", nargs="?", type=Path)
    options = parser.parse_args()
    header = options.header or Path(find_nvcc()).resolve().parents[1] / "include" / "cuda.h"
    if not header.is_file():
        fail(f"no {header}; name the toolkit's cuda.h")
    written = text(declared(header.read_text()) - implemented((DRIVER / "proc_address.rs").read_text()))
    if not options.check:
        TARGET.write_text(written)
    elif TARGET.read_text() != written:
        fail(f"{TARGET.relative_to(ROOT)} is not what {header.name} gives: run {Path(__file__).name}")


if __name__ == "__main__":
    main()
