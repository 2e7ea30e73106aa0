#!/usr/bin/env python3
"""How much faster two processes with a thread each are than one, on the same images: a sweep in two parts beside it as one, in turns.

    python3 tools/cluster/throughput.py target/release/rampart [--limit 64] [--rounds 3] [--least 1.9]

With --least it fails where the median of the rounds' ratios is below that. The files must be the same, byte for byte. For two cores with
nothing else to do.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from same import Failed, compare


class Place:
    def __init__(self, program, folder, limit):
        self.folder = folder
        self.sweep = [program, "sweep", "--no-checks", "--limit", str(limit), "--device", "host"]
        self.environment = {**os.environ, "RAYON_NUM_THREADS": "1"}

    def start(self, *words, command=None):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*(command or self.sweep), *words], env=self.environment, cwd=self.folder, **quiet)

    def end(self, *processes):
        for process in processes:
            stderr = process.communicate()[1]
            if process.returncode:
                raise Failed(f"{' '.join(process.args)} ended with {process.returncode}: {stderr}")


def seconds(what):
    begin = time.perf_counter()
    what()
    return time.perf_counter() - begin


def measure(place, rounds):
    ratios = []
    for number in range(1, rounds + 1):
        # Of one process until its records are there, as of a part: pictures and page are the business of whoever joins.
        one = seconds(lambda: place.end(place.start("--out", "one", "--shard", "1/1")))
        two = seconds(lambda: place.end(*[place.start("--out", "two", "--shard", f"{part}/2") for part in (1, 2)]))
        for out in ("one", "two"):
            place.end(place.start("--no-checks", out, command=[place.sweep[0], "merge"]))
        same = compare(place.folder / "one", place.folder / "two")
        ratios.append(one / two)
        print(f"round {number}: one process {one:.2f} s, two {two:.2f} s: {one / two:.3f} times; {same} files, the same bytes", flush=True)
        for out in ("one", "two"):
            shutil.rmtree(place.folder / out)
    return statistics.median(ratios)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--limit", type=int, default=64, help="images (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--least", type=float, help="fail where the median ratio is below")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(str(Path(args.program).resolve()), Path(folder), args.limit)
        try:
            ratio = measure(place, args.rounds)
            print(f"median: {ratio:.3f} times the throughput of one")
            if args.least and ratio < args.least:
                raise Failed(f"expected at least {args.least} times, found {ratio:.3f}")
        except Failed as e:
            print(f"throughput.py: {e}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
