#!/usr/bin/env python3
"""Crash loops: a sweep that is killed, starved of disk or attacked by a second one, and resumed, ends with the same bytes.

    python3 tools/checks/crash.py target/release/rampart [--rounds 200] [--seed 1] [--only kill,strace,fault,disk,writers]

Per round one of:

kill     SIGKILL after a random time
strace   SIGKILL at a random call that renames or syncs (needs strace)
fault    ENOSPC or EIO from a random write, sync or rename (needs strace)
disk     a limit on the size of files, which stands in for a full disk
writers  two processes on one folder, of which one has failing writes (needs strace); and `report` beside them

After each the run is resumed until it ends; then `records.jsonl`, as a set of lines, `results.csv` and the page, but for its times, must be
those of an undisturbed run. Needs nothing but Python; what needs strace is left out, and told, where strace is missing or may not trace.
"""

import argparse
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """limit = 12
batch = 3
[defense]
sigma = [0.25]
[[models]]
weights = "demo:resnet50-w16"
[attack]
eps = [0, 0.01]
steps = 2
"""
KINDS = ["kill", "strace", "fault", "disk", "writers"]
RENAMES = "rename,renameat,renameat2,fsync,fdatasync"
WRITES = "write,fsync,fdatasync,rename,renameat,renameat2,openat"


class Failed(Exception):
    pass


def page(folder):
    """The page without its marked block of times, and without the command and date that began the run."""
    text = (folder / "report.html").read_text()
    text, blocks = re.subn(r"<!-- times.*?<!-- end of times -->", "", text, flags=re.S)
    if blocks != 1:
        raise Failed(f"{folder}: expected one block of times, found {blocks}")
    return re.sub(r"<dt>(begun \(UTC\)|command)</dt><dd>.*?</dd>", "", text)


def result(folder):
    lines = (folder / "records.jsonl").read_text().splitlines()
    return lines[0], sorted(lines[1:]), (folder / "results.csv").read_bytes(), page(folder)


class Loops:
    def __init__(self, program, place, seed):
        self.program, self.place = str(Path(program).resolve()), place
        self.random = random.Random(seed)
        (place / "c.toml").write_text(CONFIG)
        self.strace = shutil.which("strace")
        if self.strace and subprocess.run([self.strace, "-f", "true"], capture_output=True, check=False).returncode:
            self.strace = None
        begin = time.monotonic()
        self.finish(place / "whole")
        self.seconds = time.monotonic() - begin
        self.whole = result(place / "whole")

    def command(self, out):
        words = [self.program, "sweep", "--config", str(self.place / "c.toml"), "--device", "host", "--no-checks"]
        return [*words, "--out", str(out), "--resume"]

    def start(self, words, **more):
        return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=self.place, **more)

    def finish(self, out):
        process = self.start(self.command(out))
        stderr = process.communicate(timeout=600)[1]
        if process.returncode:
            raise Failed(f"resuming {out.name} ended with {process.returncode}: {stderr}")

    def ended(self, process, expected):
        """A process ends by itself, by a signal of ours, or with an exit code that says what went wrong."""
        stderr = process.communicate(timeout=600)[1]
        if "panicked" in stderr or process.returncode not in expected:
            raise Failed(f"ended with {process.returncode}: {stderr}")

    def traced(self, words, inject):
        return [self.strace, "-f", "-qq", "-o", "/dev/null", *[f"-einject={i}" for i in inject], *words]

    def kill(self, out):
        process = self.start(self.command(out))
        time.sleep(self.random.random() * self.seconds)
        process.send_signal(signal.SIGKILL)
        self.ended(process, [0, -9])

    def at_call(self, out):
        nth = self.random.randint(1, 25)
        process = self.start(self.traced(self.command(out), [f"{RENAMES}:signal=SIGKILL:when={nth}"]))
        self.ended(process, [0, -9, 137])

    def fault(self, out):
        error, nth = self.random.choice(["ENOSPC", "EIO"]), self.random.randint(1, 60)
        last = nth + self.random.randint(0, 3)
        call = self.random.choice(WRITES.split(","))
        process = self.start(self.traced(self.command(out), [f"{call}:error={error}:when={nth}..{last}"]))
        # openat fails for libraries as well: the loader then says so, with 127.
        self.ended(process, [0, 1, 2, 127] if call == "openat" else [0, 1, 2])

    def disk(self, out):
        blocks = self.random.randint(1, 40)
        process = self.start(["sh", "-c", f'trap \'\' XFSZ; ulimit -f {blocks}; exec "$0" "$@"', *self.command(out)])
        self.ended(process, [0, 1, 2])

    def writers(self, out):
        first = self.command(out)
        if self.strace:
            nth = self.random.randint(5, 40)
            first = self.traced(first, [f"write:error=ENOSPC:when={nth}..{nth + 2}"])
        two = [self.start(first), self.start(self.command(out))]
        time.sleep(self.random.random() * self.seconds)
        two.append(self.start([self.program, "report", str(out)]))
        for process in two:
            self.ended(process, [0, 1, 2])

    def round(self, kind, number):
        out = self.place / f"run-{number}"
        disturb = {"kill": self.kill, "strace": self.at_call, "fault": self.fault, "disk": self.disk, "writers": self.writers}
        for _ in range(self.random.randint(1, 3)):
            disturb[kind](out)
        self.finish(out)
        header, records, csv, html = result(out)
        for what, found, want in [
            ("header", header, self.whole[0]),
            ("records", records, self.whole[1]),
            ("results.csv", csv, self.whole[2]),
            ("report.html", html, self.whole[3]),
        ]:
            if found != want:
                raise Failed(f"{what} of {out} differs from that of an undisturbed run")
        left = [p.name for p in out.rglob(".*.tmp")]
        shutil.rmtree(out)
        return left


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default=",".join(KINDS))
    args = parser.parse_args()
    kinds = args.only.split(",")
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        parser.error(f"--only: expected some of {', '.join(KINDS)}, found {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as folder:
        loops = Loops(args.program, Path(folder), args.seed)
        if not loops.strace:
            kinds = [kind for kind in kinds if kind not in ("strace", "fault")]
            print("strace is missing or may not trace: no kills at system calls, no injected errors")
        done = dict.fromkeys(kinds, 0)
        for number in range(args.rounds):
            kind = kinds[number % len(kinds)]
            try:
                loops.round(kind, number)
            except Failed as e:
                print(f"round {number} ({kind}, seed {args.seed}): {e}", file=sys.stderr)
                return 1
            done[kind] += 1
        print(", ".join(f"{count} x {kind}" for kind, count in done.items()) + ": same bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
