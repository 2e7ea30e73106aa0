#!/usr/bin/env python3
"""Parts of a run on nodes of two levels of processor, forced by flag: refused with both levels named; at the level that the first part
began with, they are one run, byte for byte.

    python3 tools/cluster/levels.py PROGRAM       # of a build with RAMPART_HOST_ARCH=all
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from same import Failed, compare

CONFIG = """limit = 2
device = "host"
[defense]
sigma = [0.25]
[[models]]
weights = "demo:resnet50-w16"
[attack]
eps = [0, 0.01]
steps = 2
"""


def check(program, place):
    (place / "c.toml").write_text(CONFIG)

    def run(*words, expected=0):
        ran = subprocess.run([program, *words], capture_output=True, text=True, cwd=place, check=False)
        if ran.returncode != expected:
            raise Failed(f"rampart {' '.join(words)} ended with {ran.returncode}, not {expected}: {ran.stderr}")
        return ran.stdout + ran.stderr

    info = run("info")
    found = re.search(r"^host kernels: (.*); running (\S+)$", info, flags=re.M)
    if not found:
        raise Failed(f"`rampart info` names no levels:\n{info}")
    levels, highest = [name.strip() for name in re.split(r"[, ]+", found[1])], found[2]
    lowest = levels[0]
    if lowest == highest:
        print(f"one level runs here, {lowest}: nothing to compare")
        return
    sweep = ["sweep", "--config", "c.toml", "--no-checks", "--out"]
    run(*sweep, "whole", "--host-level", lowest)
    run(*sweep, "parts", "--shard", "1/2", "--host-level", lowest)
    said = run(*sweep, "parts", "--shard", "2/2", "--host-level", highest, expected=2)
    if lowest not in said or highest not in said:
        raise Failed(f"expected both {lowest} and {highest} in the refusal, found: {said}")
    # Without a word it computes as the run does.
    run(*sweep, "parts", "--shard", "2/2")
    run("merge", "--no-checks", "parts")
    print(f"{lowest} and {highest} are refused; at {lowest} {compare(place / 'whole', place / 'parts')} files, the same bytes")


def main():
    program = str(Path(sys.argv[1]).resolve())
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(program, Path(folder))
        except Failed as e:
            print(f"levels.py: {e}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
