#!/usr/bin/env python3
"""Seconds of one image in each cell of the demo sweep, as they pass on this machine: what tools/cluster/simulate.py starts from.

python3 tools/cluster/cells.py target/release/rampart --images 16 > cells.csv
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--images", type=int, default=16)
    args = parser.parse_args()
    ends, begun, last = {}, None, None
    with tempfile.TemporaryDirectory() as place:
        flags = ["--limit", str(args.images), "--batch", str(args.images), "--no-checks", "--device", "host"]
        words = ["sweep", *flags, "--shard", "1/1", "--out", "run"]
        process = subprocess.Popen([str(Path(args.program).resolve()), *words], cwd=place, stderr=subprocess.DEVNULL)
        records = Path(place) / "run/records-1-of-1.jsonl"
        while process.poll() is None:
            # Where the file of settings is there, the first batch begins.
            lines = records.read_text().splitlines()[1:] if records.exists() else []
            now = time.monotonic()
            if begun is None and records.exists():
                begun = now
            if lines and lines[-1] != last:
                last = lines[-1]
                try:
                    record = json.loads(last)
                except json.JSONDecodeError:
                    continue
                ends[record["model"], record["eps"]] = now
            time.sleep(0.02)
        if process.returncode:
            raise SystemExit(f"cells.py: rampart ended with {process.returncode}")
    rows = csv.writer(sys.stdout)
    rows.writerow(["model", "eps", "seconds"])
    for (model, eps), end in ends.items():
        rows.writerow([model, eps, f"{(end - begun) / args.images:.5f}"])
        begun = end
    return 0


if __name__ == "__main__":
    sys.exit(main())
