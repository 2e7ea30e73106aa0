#!/usr/bin/env python3
"""A million records over 64 parts: joined, and a page made of them, within so many seconds and megabytes.

    python3 tools/cluster/million.py target/release/rampart [--records 1000000] [--parts 64] [--seconds 20] [--megabytes 500]

The records are those of a run of one image, repeated with other numbers of images and outcomes that differ.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(program, place, *words):
    """Seconds and megabytes that it took."""
    begin = time.monotonic()
    process = subprocess.Popen([program, *words], cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    stderr = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"million.py: rampart {' '.join(words)} ended with {os.waitstatus_to_exitcode(status)}: {stderr}")
    return time.monotonic() - begin, usage.ru_maxrss / 1024


def fill(folder, parts, wanted, dice):
    """Writes the parts; how many records they have."""
    first = folder / f"records-1-of-{parts}.jsonl"
    header = first.read_text().splitlines()[0]
    card = json.loads(first.with_suffix(".json").read_text())
    others = [path.read_text().splitlines()[1:] for path in sorted(folder.glob("records-*-of-*.jsonl"))]
    template = [json.loads(line) for lines in others for line in lines]
    for path in folder.glob("records-*"):
        path.unlink()
    groups = []
    for record in template:
        group = (record["model"], record["eps"])
        if group not in groups:
            groups.append(group)
    groups.sort(key=lambda group: (0 if group[0] == template[0]["model"] else 1, group[1]))
    of_group = {group: [r for r in template if (r["model"], r["eps"]) == group] for group in groups}
    for records in of_group.values():
        records.sort(key=lambda r: (r["channel"], r["sigma"] or 0))
    images = wanted // len(template)
    labels = [dice.randrange(10) for _ in range(images)]
    split = json.loads((folder / ".shards.json").read_text())
    split["images"]["ids"], split["images"]["labels"] = list(range(images)), labels
    (folder / ".shards.json").write_text(json.dumps(split))
    files = [(folder / f"records-{i + 1}-of-{parts}.jsonl").open("w") for i in range(parts)]
    for file in files:
        file.write(header + "\n")
    count, counts = 0, [0] * parts
    for number, group in enumerate(groups):
        for image in range(images):
            part = (number * images + image) % parts
            file = files[part]
            for record in of_group[group]:
                record = {**record, "image": image, "label": labels[image]}
                right = dice.random() < 0.6
                record["prediction"] = labels[image] if right else (labels[image] + 1) % 10
                if record["channel"] == 1:
                    record.update(
                        correct_clean=True, correct_last=right, correct_any=right, margin=dice.random() if right else -dice.random()
                    )
                else:
                    record.update(correct=right, correct_draws=record["draws"] if right else 0)
                file.write(json.dumps(record, separators=(",", ":")) + "\n")
                count += 1
                counts[part] += 1
    for part, file in enumerate(files):
        file.close()
        path, own = Path(file.name), counts[part]
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        told = {**card, "shard": f"{part + 1}/{parts}", "done": True, "of": own, "records": own, "before": 0}
        path.with_suffix(".json").write_text(json.dumps({**told, "bytes": path.stat().st_size, "sha256": sha256}))
    return count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--parts", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--megabytes", type=float, default=500)
    args = parser.parse_args()
    program = str(Path(args.program).resolve())
    with tempfile.TemporaryDirectory() as place:
        flags = ["--limit", "1", "--eps", "0,0.005,0.01,0.02,0.03,0.06", "--set", "attack.steps=1", "--no-checks", "--device", "host"]
        # Of one image each group is one part's.
        for part in range(1, 13):
            run(program, place, "sweep", *flags, "--out", "run", "--shard", f"{part}/{args.parts}")
        count = fill(Path(place) / "run", args.parts, args.records, random.Random(1))
        size = sum(path.stat().st_size for path in (Path(place) / "run").glob("records-*")) / 1e6
        merged = run(program, place, "merge", "--records", "run")
        page = run(program, place, "report", "run")
        packed = run(program, place, "merge", "--records", "--compress", "run")
        smaller = (Path(place) / "run/records.jsonl.zst").stat().st_size / 1e6
        again = run(program, place, "report", "run")
    told = lambda found: f"{found[0]:.1f} s, {found[1]:.0f} MB"
    print(f"{count} records over {args.parts} parts, {size:.0f} MB: joined with results and page {told(merged)}; page alone {told(page)}")
    print(f"compressed to {smaller:.0f} MB in {packed[0]:.1f} s; page of that {told(again)}")
    if merged[0] > args.seconds or max(merged[1], page[1], again[1]) > args.megabytes:
        print(f"million.py: expected at most {args.seconds} s and {args.megabytes} MB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
