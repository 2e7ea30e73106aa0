#!/usr/bin/env python3
"""How evenly 64 GPUs end with the split of `--shard I/N`, simulated from measured times per cell.

    python3 tools/cluster/simulate.py benches/results/DATE-HOST/cells.csv [--gpus 64] [--images 50000] [--batch 64] [--spread 0.3]

The file has a row per model, budget and image: `model,eps,seconds`, the seconds of one image as a run at hand took. Every image's own time
is drawn around its cell's (log-normal, of the given relative spread: early stops, points that are known already), and a batch takes what
its images take and a fixed part. Load balance is the mean time over the longest. Beside the split that is used stand two that are not:
blocks of images, and whole cells dealt out; and what a queue that all share would reach, for which machines would have to talk to each
other.
"""

import argparse
import csv
import math
import random
import sys
from pathlib import Path


def cells(path):
    with Path(path).open() as file:
        rows = [(row["model"], float(row["eps"]), float(row["seconds"])) for row in csv.DictReader(file)]
    if not rows:
        raise SystemExit(f"simulate.py: {path}: expected a row per cell, found none")
    return [seconds for _, _, seconds in rows]


def batches(images, seconds, args, dice):
    """Seconds of the batches that a process makes of these images of a cell."""
    sigma = math.sqrt(math.log(1 + args.spread**2))
    times = []
    for first in range(0, images, args.batch):
        count = min(args.batch, images - first)
        own = sum(seconds * dice.lognormvariate(-(sigma**2) / 2, sigma) for _ in range(count))
        # A batch that is not full is not as much faster.
        times.append(own + args.fixed * seconds * args.batch)
    return times


def share(images, gpu, gpus, begin):
    """How many of a cell's images a GPU takes where units are dealt out one by one; `begin` units came before."""
    first = (gpu - begin) % gpus
    return (images - first + gpus - 1) // gpus if first < images else 0


def balance(loads):
    return sum(loads) / len(loads) / max(loads)


def simulate(seconds, args):
    dice = random.Random(args.seed)
    dealt, blocks, whole = ([0.0] * args.gpus for _ in range(3))
    pool = []
    for number, cell in enumerate(seconds):
        for gpu in range(args.gpus):
            times = batches(share(args.images, gpu, args.gpus, number * args.images), cell, args, dice)
            dealt[gpu] += sum(times)
            pool += times
            # A block of the images has as many, and those of one class take longer than those of another.
            lean = 1 + args.spread * math.sin(2 * math.pi * gpu / args.gpus) / 2
            blocks[gpu] += sum(times) * lean
        whole[number % args.gpus] += sum(batches(args.images, cell, args, dice))
    queue = [0.0] * args.gpus
    for time in pool:
        at = min(range(args.gpus), key=queue.__getitem__)
        queue[at] += time
    return {
        "every 64th image of every cell (--shard)".replace("64", str(args.gpus)): dealt,
        "blocks of images": blocks,
        "whole cells": whole,
        "one queue for all": queue,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cells")
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--images", type=int, default=50000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--spread", type=float, default=0.3)
    parser.add_argument("--fixed", type=float, default=0.1, help="fixed part of a batch, as a share of a full one")
    parser.add_argument("--speed", type=float, default=1.0, help="how many times as fast as the machine that was measured")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--least", type=float, help="fail where --shard is below this balance")
    args = parser.parse_args()
    seconds = [value / args.speed for value in cells(args.cells)]
    found = simulate(seconds, args)
    for name, loads in found.items():
        print(f"{name:<42} balance {100 * balance(loads):5.1f} %, {max(loads) / 3600:.2f} h")
    first = balance(next(iter(found.values())))
    if args.least is not None and first < args.least:
        print(f"simulate.py: expected a balance of at least {args.least}, found {first:.4f}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
