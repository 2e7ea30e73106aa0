#!/usr/bin/env python3
"""Several processes on one run: killed at random, or started at one moment, they lose nothing, do nothing twice and mix nothing.

    python3 tools/cluster/kills.py target/release/rampart [--kills 40] [--starts 50] [--seed 1]

kills   four parts of a sweep in one folder, SIGKILL to one of them at a random moment, which is then started again, so many times; the
        parts are joined, and every file must be that of one process
starts  two processes on one new folder at one moment, so many times, with the system's locks and without (RAMPART_LOCKS=files): one has
        the folder, or one after the other, and the records are those of one
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from same import Failed, compare

CONFIG = """name = "kills"
limit = 24
batch = 1
device = "host"
[defense]
sigma = [0.25]
[[models]]
weights = "demo:resnet50-w16"
[attack]
eps = [0, 0.01, 0.02, 0.03]
steps = 4
"""
PARTS = 4


class Place:
    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        (folder / "c.toml").write_text(CONFIG)
        self.environment = {**os.environ, "RAYON_NUM_THREADS": "1"}

    def start(self, out, *words, **more):
        command = [self.program, "sweep", "--config", str(self.folder / "c.toml"), "--no-checks", "--out", str(out), *words]
        environment = {**self.environment, **more}
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)

    def end(self, process, expected):
        stderr = process.communicate(timeout=600)[1]
        if process.returncode not in expected or "panicked" in stderr:
            raise Failed(f"ended with {process.returncode}: {stderr}")
        return stderr


def kills(place, count, dice):
    place.end(place.start(place.folder / "whole"), [0])
    out = place.folder / "parts"
    start = lambda part: place.start(out, "--shard", f"{part}/{PARTS}")
    going = {part: start(part) for part in range(1, PARTS + 1)}
    done = 0
    while done < count:
        time.sleep(dice.random() * 0.6)
        part = dice.choice(list(going))
        # One that ended is done; a run of its kind that has nothing left ends at once.
        going[part].send_signal(signal.SIGKILL)
        place.end(going[part], [0, -signal.SIGKILL])
        going[part] = start(part)
        done += 1
    for process in going.values():
        place.end(process, [0])
    ran = subprocess.run(
        [place.program, "merge", "--no-checks", str(out)], capture_output=True, text=True, env=place.environment, check=False
    )
    if ran.returncode:
        raise Failed(f"merge ended with {ran.returncode}: {ran.stderr}")
    print(f"{count} kills over {PARTS} parts: {compare(place.folder / 'whole', out)} files, the same bytes")


def starts(place, count):
    words = ["--limit", "1", "--eps", "0"]
    place.end(place.start(place.folder / "one", *words), [0])
    refused = 0
    for number in range(count):
        more = {"RAMPART_LOCKS": "files"} if number % 2 else {}
        out = place.folder / "two"
        two = [place.start(out, *words, **more) for _ in range(2)]
        said = [place.end(process, [0, 2]) for process in two]
        codes = sorted(process.returncode for process in two)
        if codes != [0, 2]:
            raise Failed(f"try {number}: ended with {codes}: {said}")
        refused += sum("is working on" in text for text in said)
        compare(place.folder / "one", out)
        shutil.rmtree(out)
    print(f"{count} times two at one moment: never mixed; {refused} refused while the other worked, {count - refused} behind it")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--starts", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Place(str(Path(args.program).resolve()), Path(folder))
        try:
            if args.kills:
                kills(place, args.kills, random.Random(args.seed))
            if args.starts:
                starts(place, args.starts)
        except Failed as e:
            print(f"kills.py (seed {args.seed}): {e}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
