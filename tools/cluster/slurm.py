#!/usr/bin/env python3
"""A sweep as an array of six tasks on a Slurm of its own: one is cancelled, one killed with -9, both are sent again, and the job behind the
array joins all. Every file must be that of one process, byte for byte.

    python3 tools/cluster/slurm.py target/release/rampart

As root, with Slurm and MUNGE installed (tools/cluster/install_slurm.sh).
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from local import Slurm, wait
from same import Failed, compare

CONFIG = """name = "parts"
limit = 12
batch = 1
device = "host"
[defense]
sigma = [0.25]
[attack]
eps = [0, 0.02]
steps = 10
"""
PARTS = 6


def run(program, *words, env=None):
    ran = subprocess.run([program, *words], capture_output=True, text=True, env=env, check=False)
    if ran.returncode:
        raise Failed(f"rampart {' '.join(words)} ended with {ran.returncode}: {ran.stderr}")
    return ran.stdout


def begun(out, part):
    """The process that works on a part, once it has recorded something."""
    card, records = out / f"records-{part}-of-{PARTS}.json", out / f"records-{part}-of-{PARTS}.jsonl"
    if not card.exists() or not records.exists() or records.read_bytes().count(b"\n") < 3:
        return None
    found = json.loads(card.read_text())
    if found["done"]:
        raise Failed(f"part {part} was done before it could be disturbed")
    return found["process"]


def jobs(text):
    return re.findall(r"^job (\d+)", text, flags=re.M)


def check(program, place, slurm):
    environment = {**slurm.environment, "RAYON_NUM_THREADS": "1"}
    config, out = place / "c.toml", place / "parts"
    config.write_text(CONFIG)
    begin = time.monotonic()
    run(program, "sweep", "--config", str(config), "--out", str(place / "whole"), "--no-checks")
    print(f"one process: {time.monotonic() - begin:.0f} s")

    flags = ["--config", str(config), "--out", str(out), "--shards", str(PARTS), "--throttle", "2", "--cpus", "1", "--time", "10:00"]
    array, merge = jobs(run(program, "submit", *flags, "--", "--no-checks", env=environment))
    killed = wait(lambda: begun(out, 1), 60, "part 1 is under way")
    os.kill(killed, signal.SIGKILL)
    wait(lambda: begun(out, 2), 60, "part 2 is under way")
    slurm.call("scancel", f"{array}_2")
    states = slurm.ended(array, 240)
    print("first: " + ", ".join(f"{task} {state}" for task, state in sorted(states.items())))
    lost = {task for task, state in states.items() if state != "COMPLETED"}
    if lost != {"1", "2"} or states["1"] != "FAILED" or states["2"] != "CANCELLED":
        raise Failed(f"expected tasks 1 failed and 2 cancelled, found {states}")
    # The job behind the array never begins.
    wait(lambda: slurm.states(merge).get("N/A") in (None, "CANCELLED"), 30, "the first merge is cancelled")
    status = run(program, "status", str(out))
    print(status.splitlines()[-1])
    if "4 done, 2 stopped" not in status:
        raise Failed(f"expected 4 parts done and 2 stopped, found:\n{status}")

    again, merge = jobs(run(program, "submit", "--out", str(out), "--", "--no-checks", env=environment))
    states = slurm.ended(again, 240)
    if states != {"1": "COMPLETED", "2": "COMPLETED"}:
        raise Failed(f"expected tasks 1 and 2 alone, and completed, found {states}")
    states = slurm.ended(merge, 240)
    if set(states.values()) != {"COMPLETED"}:
        raise Failed(f"the merge ended as {states}: {(out / '.slurm/merge.log').read_text()}")
    print(f"sent again and joined: {compare(place / 'whole', out)} files, the same bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    program = str(Path(parser.parse_args().program).resolve())
    if os.geteuid():
        print("slurm.py: expected to be root: munged and slurmd are started", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="rampart-slurm-") as folder:
        place = Path(folder)
        try:
            with Slurm(place / "slurm", 2) as slurm:
                check(program, place, slurm)
        except (Failed, RuntimeError, TimeoutError) as e:
            print(f"slurm.py: {e}", file=sys.stderr)
            for log in sorted(place.glob("slurm/*.log")) + sorted(place.glob("parts/.slurm/*.log")):
                print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]), file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
