#!/usr/bin/env python3
"""AutoAttack `standard` (L-inf) as published, in PyTorch, beside the records of `rampart sweep --method autoattack`: image by image.

The stages are torchattacks' attacks with the settings under which they are fra31/auto-attack's: APGD and APGDT with 100 steps, FAB
multi-targeted with 100 steps, Square with 5000 queries, not rescaled. torchattacks' own AutoAttack is another attack, of 10 steps and
with a rescaled schedule: `--profile torchattacks`, of the sweep as here. Each stage sees the images that still stand. Random starts of
APGD are those of the engine, computed here from the same counters; the windows of Square are torch's own, one for the whole batch, as
its authors have it.

  rampart sweep --method autoattack --eps 0.005,0.01 --no-defense --limit 64 --out RUN ...
  autoattack_torch.py --model resnet50-w16.safetensors --data FOLDER --records RUN/records.jsonl

Prints the flags after each stage on both sides, and every image that they differ in with the margins. A difference is explained where
the side that breaks the image does so by a margin below 1e-4, or the other side comes as near to it; any other one makes the exit
code 1. Needs torchattacks 3.5.1 (`pip install --no-deps torchattacks==3.5.1; pip install scipy requests`).
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
from resnet_reference import load_classifier
from sweep_torch import Normalised, load_images

STAGES = ("apgd-ce", "apgd-t", "fab-t", "square")
START = 1  # the purpose of a random start among the streams of the engine
NEAR = 1e-4


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011): counter, four uint32 arrays of one shape; key, two ints -> four uint32 arrays"""
    a, b, c, d = (np.asarray(v, np.uint64) for v in counter)
    low, high = np.uint64(key[0]), np.uint64(key[1])
    mask, word = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p, q = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (q >> word) ^ b ^ low, q & mask, (p >> word) ^ d ^ high, p & mask
        low, high = (low + np.uint64(0x9E3779B9)) & mask, (high + np.uint64(0xBB67AE85)) & mask
    return a, b, c, d


def uniforms(seed, ids, restart, shape):
    """The engine's uniforms in [0, 1) of a random start: shape (C,H,W) -> float32 [N,C,H,W]"""
    c, h, w = shape
    quads = -(-c * h * w // 4)
    counter = np.broadcast_arrays(
        np.arange(quads)[None],
        np.array([i & 0xFFFFFFFF for i in ids])[:, None],
        np.array([i >> 32 for i in ids])[:, None],
        restart << 16 | START << 26,
    )
    words = np.stack(philox(counter, (seed & 0xFFFFFFFF, seed >> 32)), -1).reshape(len(ids), -1)[:, : c * h * w]
    values = (words >> np.uint64(8)).astype(np.float32) * np.float32(2**-24)
    return torch.from_numpy(values.reshape(len(ids), h, w, c).transpose(0, 3, 1, 2).copy())


def margins(net, x, y):
    """Logit of the label less the largest other one, per image."""
    with torch.no_grad():
        z = net(x)
    own = z.gather(1, y[:, None])[:, 0]
    return own - z.scatter(1, y[:, None], -torch.inf).max(1).values


def attacks(net, eps, seed, ids_of, steps=100):
    """The four stages as functions of images and labels to attacked images."""
    import torchattacks

    def started(cls):
        """`cls` with the random starts of the engine."""

        class Started(cls):
            def attack_single_run(self, x, y):
                restart = getattr(self, "target_class", 2) - 2
                draw, own = torch.rand, uniforms(seed, ids_of(x), restart, x.shape[1:])
                torch.rand = lambda *_: own
                try:
                    return super().attack_single_run(x, y)
                finally:
                    torch.rand = draw

        return Started

    apgd = started(torchattacks.APGD)(net, norm="Linf", eps=eps, steps=steps, seed=seed)
    targeted = started(torchattacks.APGDT)(net, norm="Linf", eps=eps, steps=steps, seed=seed, n_classes=10)
    fab = torchattacks.FAB(net, norm="Linf", eps=eps, steps=steps, multi_targeted=True, n_classes=10, seed=seed)
    square = torchattacks.Square(net, norm="Linf", eps=eps, n_queries=5000, resc_schedule=steps == 10, seed=seed)
    return [lambda x, y: apgd.perturb(x, y)[1], lambda x, y: targeted.perturb(x, y)[1], fab, square]


def published(net, x, y, ids, eps, seed, batch, steps):
    """-> per image the stage that breaks it (-1 when wrong from the start, len(STAGES) when none does), the margin it ends at, seconds"""
    known = {row.numpy().tobytes(): i for row, i in zip(x, ids)}
    stages = attacks(net, eps, seed, lambda rows: [known[row.numpy().tobytes()] for row in rows.detach()], steps)
    margin = margins(net, x, y)
    stage = torch.where(margin > 0, len(STAGES), -1)
    seconds = []
    for number, attack in enumerate(stages):
        begin = time.perf_counter()
        standing = (stage == len(STAGES)).nonzero()[:, 0]
        for part in standing.split(batch) if len(standing) else ():
            found = margins(net, attack(x[part], y[part]), y[part])
            stage[part[found < 0]], margin[part[found < 0]] = number, found[found < 0]
        seconds.append(time.perf_counter() - begin)
    return stage.tolist(), margin.tolist(), seconds


def engine(records, model, eps, attack):
    """The same of the engine: {image: (label, stage, margin)}"""
    found = {}
    with open(records) as lines:
        for line in map(json.loads, lines):
            if line.get("model") == model and line.get("eps") == eps and line.get("channel") == 1:
                if line["attack"] != attack or line["norm"] != "linf":
                    raise ValueError(f"{records}: expected {attack} in linf, found {line['attack']} in {line['norm']}")
                stage = line.get("stage", len(STAGES)) if line["correct_clean"] else -1
                found[line["image"]] = (line["label"], stage, line["margin"])
    if not found:
        raise ValueError(f"{records}: expected records of model {model} at eps {eps:g}, found none")
    return found


def compare(args, net, eps):
    """Prints one epsilon -> the number of differences that nothing explains"""
    profile = {"published": ("autoattack", 100), "torchattacks": ("torchattacks-autoattack", 10)}
    attack, steps = profile[args.profile]
    own = engine(args.records, args.name, eps, attack)
    ids = sorted(own)
    x, y = load_images(args.dataset, args.data, ids[-1] + 1)
    x, y = x[ids], y[ids]
    if y.tolist() != [own[i][0] for i in ids]:
        raise ValueError(f"{args.records}: labels are not those of {args.data}")
    stage, margin, seconds = published(net, x, y, ids, eps, args.seed, args.batch, steps)
    print(f"{args.name}, eps {eps:g}, {len(ids)} images")
    print(f"  {'':10}{'engine':>8}{'torch':>8}{'differ':>8}{'torch s':>10}")
    for number, name in enumerate(STAGES):
        after = [[s > number for s in side] for side in ([own[i][1] for i in ids], stage)]
        differ = sum(a != b for a, b in zip(*after))
        print(f"  {name:10}{sum(after[0]):8}{sum(after[1]):8}{differ:8}{seconds[number]:10.1f}")
    bad = 0
    names = {-1: "clean", len(STAGES): "stands", **dict(enumerate(STAGES))}
    for i, theirs, there in zip(ids, stage, margin):
        _, ours, here = own[i]
        if ours != theirs:
            explained = min(abs(here), abs(there)) < NEAR
            bad += not explained
            words = "explained" if explained else "NOT EXPLAINED"
            print(f"  image {i}: engine {names[ours]} margin {here:.2e}, torch {names[theirs]} margin {there:.2e}: {words}")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="FILE", help=".safetensors with arch, config, mean and std")
    parser.add_argument("--name", help="of the model in the records (default: the file's)")
    parser.add_argument("--dataset", choices=("fashion-mnist", "cifar10"), default="fashion-mnist")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="t10k*-ubyte.gz files, or test_batch.bin")
    parser.add_argument("--records", required=True, metavar="FILE", help="records.jsonl of a sweep with --method autoattack")
    parser.add_argument("--profile", choices=("published", "torchattacks"), default="published", help="of the sweep (default: %(default)s)")
    parser.add_argument("--eps", default="0.005,0.01", help="comma-separated (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the sweep (default: %(default)s)")
    args = parser.parse_args()
    args.name = args.name or Path(args.model).stem
    torch.set_num_threads(args.threads)
    try:
        net, meta = load_classifier(args.model)
        net = Normalised(net, json.loads(meta["mean"]), json.loads(meta["std"])).eval()
        net.requires_grad_(False)
        bad = sum(compare(args, net, float(eps)) for eps in args.eps.split(","))
    except (OSError, ValueError, KeyError) as e:
        sys.exit(f"autoattack_torch.py: {e}")
    print("every difference is explained" if not bad else f"{bad} differences are not explained")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
