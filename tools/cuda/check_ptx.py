#!/usr/bin/env python3
"""Whether ptxas takes every PTX file of a folder, and each instruction of a list first for the `.version` and `.target` that it says: what
the emulator's own cases must be, to say anything of PTX.

tools/cuda/check_ptx.py FOLDER [LIST]
"""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cuda_toolkit import beside, fail, find_nvcc, run

TARGET = re.compile(r"^\s*\.target\s+(sm_\w+)", re.M)


def target(text):
    """The architecture that a text is for."""
    found = TARGET.search(text)
    return found and found[1]


# Of ptxas 13.0: its targets, each with its first version, and its versions that have any of them.
TARGETS = {75: (6, 3), 80: (7, 0), 86: (7, 1), 87: (7, 4), 89: (7, 8), 90: (7, 8), 100: (8, 6)}
VERSIONS = [(6, 3), (6, 4), (6, 5), *((7, n) for n in range(9)), *((8, n) for n in range(9)), (9, 0)]


def since(ptxas, names, line):
    """What ptxas says otherwise of a line `7.0 sm_80 redux.sync.add.u32 r, r0, r1;`, or None."""
    version, name, instruction = line.split(" ", 2)
    version, least = tuple(map(int, version.split("."))), int(name.removeprefix("sm_"))
    of_ptxas = min(t for t in TARGETS if t >= least)
    first = max(version, TARGETS[of_ptxas])

    def takes(version, target):
        head = f".version {version[0]}.{version[1]}\n.target sm_{target}\n.address_size 64\n.visible .entry k(.param .u64 a) {{ {names}"
        command = [ptxas, "-arch", f"sm_{target}", "-O0", "-o", "/dev/null", "-"]
        return not subprocess.run(command, input=f"{head}\n{instruction}\nret; }}\n", capture_output=True, text=True).returncode

    if not takes(first, of_ptxas):
        return f"{line}: refused for .version {first[0]}.{first[1]}, sm_{of_ptxas}"
    older = [v for v in VERSIONS if TARGETS[of_ptxas] <= v < version]
    if older and takes(older[-1], of_ptxas):
        return f"{line}: taken for .version {older[-1][0]}.{older[-1][1]}"
    lower = [t for t in TARGETS if t < least]
    return f"{line}: taken for sm_{lower[-1]}" if lower and takes(VERSIONS[-1], lower[-1]) else None


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: check_ptx.py FOLDER [LIST]")
    files = sorted(Path(sys.argv[1]).glob("*.ptx"))
    if not files:
        fail(f"{sys.argv[1]} has no .ptx")
    ptxas = beside(find_nvcc(), "ptxas")
    for file in files:
        arch = target(file.read_text()) or fail(f"{file} has no .target")
        run([ptxas, "-arch", arch, file, "-o", "/dev/null"], f"ptxas refuses {file}")
    print(f"ptxas takes {len(files)} files")
    if len(sys.argv) == 3:
        text = [line for line in Path(sys.argv[2]).read_text().splitlines() if not line.startswith("#")]
        names = "".join(line[1:] for line in text if line.startswith(":"))
        lines = [line for line in text if not line.startswith(":")]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            wrong = [w for w in pool.map(lambda line: since(ptxas, names, line), lines) if w]
        if wrong or not lines:
            fail("\n".join(wrong) or f"{sys.argv[2]} has no instruction")
        print(f"ptxas has {len(lines)} instructions since the same version and target")


if __name__ == "__main__":
    main()
