#!/usr/bin/env python3
"""The undefended experiment in plain PyTorch, to compare results and speed with `rampart sweep`.

PGD L-inf: 10 steps of eps/4 from a uniform random start in the eps ball, sign of the gradient of the cross-entropy,
projected to the ball and to [0,1]; no early stop; accuracy at the last iterate. Eager, float32, channels_last. Prints one
line per model and eps and at the end the total seconds, loading excluded.

  sweep_torch.py --models resnet50-w16.safetensors resnet50-cbam-w16.safetensors --dataset fashion-mnist --data FOLDER --limit 256

The start of image i is row i of numpy's PCG64(seed).uniform(-1, 1), so it does not depend on batch or limit.
"""
import argparse
import gzip
import json
import struct
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError

from resnet_reference import load_classifier


def read_idx(path, dims):
    """An IDX .gz file of bytes with `dims` dimensions -> uint8 array."""
    with gzip.open(path) as f:
        data = f.read()
    size = 4 + 4 * dims
    if len(data) < size or struct.unpack(">I", data[:4])[0] != 0x800 + dims:
        raise ValueError(f"{path}: not an IDX file of bytes with {dims} dimensions")
    shape = struct.unpack(f">{dims}I", data[4:size])
    if len(data) - size != int(np.prod(shape)):
        raise ValueError(f"{path}: expected {int(np.prod(shape))} bytes after the header, got {len(data) - size}")
    return np.frombuffer(data, np.uint8, offset=size).reshape(shape)


def one_file(folder, pattern):
    found = sorted(Path(folder).glob(pattern))
    if len(found) != 1:
        raise ValueError(f"{folder}: expected one file like {pattern}, found {len(found)}")
    return found[0]


def load_images(dataset, folder, limit):
    """The first `limit` test images -> float32 [N,3,32,32] in [0,1], int64 labels [N]."""
    if dataset == "fashion-mnist":
        x = read_idx(one_file(folder, "t10k*images-idx3-ubyte.gz"), 3)
        y = read_idx(one_file(folder, "t10k*labels-idx1-ubyte.gz"), 1)
        x = np.pad(x[:limit], ((0, 0), (2, 2), (2, 2)))[:, None].repeat(3, axis=1)
    else:
        records = np.fromfile(Path(folder) / "test_batch.bin", np.uint8)
        if records.size == 0 or records.size % 3073:
            raise ValueError(f"{folder}/test_batch.bin: size {records.size} is no multiple of 3073")
        records = records.reshape(-1, 3073)
        x, y = records[:limit, 1:].reshape(-1, 3, 32, 32), records[:, 0]
    return torch.from_numpy(x.astype(np.float32) / np.float32(255)), torch.from_numpy(y[:limit].astype(np.int64))


class Normalised(torch.nn.Module):
    """(x - mean) / std, then the network: images [N,3,H,W] in [0,1] -> logits."""

    def __init__(self, net, mean, std):
        super().__init__()
        self.net = net.to(memory_format=torch.channels_last)
        self.mean, self.std = (torch.tensor(v).view(1, -1, 1, 1) for v in (mean, std))

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


def pgd(net, x, y, start, eps, steps):
    """x [N,3,H,W] in [0,1], start in [-1,1] -> the last iterate"""
    adv = (x + eps * start).clamp(0, 1)
    for _ in range(steps if eps > 0 else 0):
        adv.requires_grad_(True)
        grad, = torch.autograd.grad(F.cross_entropy(net(adv), y, reduction="sum"), adv)
        adv = adv.detach() + eps / 4 * grad.sign()
        adv = torch.minimum(torch.maximum(adv, x - eps), x + eps).clamp(0, 1)
    return adv.detach()


def correct_after_attack(net, x, y, start, eps, steps, batch):
    """Number of images still classified correctly."""
    correct = 0
    for xb, yb, sb in zip(x.split(batch), y.split(batch), start.split(batch)):
        xb, sb = (t.contiguous(memory_format=torch.channels_last) for t in (xb, sb))
        adv = pgd(net, xb, yb, sb, eps, steps)
        with torch.no_grad():
            correct += int((net(adv).argmax(1) == yb).sum())
    return correct


def sweep(args):
    x, y = load_images(args.dataset, args.data, args.limit)
    start = np.random.Generator(np.random.PCG64(args.seed)).uniform(-1, 1, x.shape)
    start = torch.from_numpy(start.astype(np.float32))
    nets = []
    for path in args.models:
        net, meta = load_classifier(path)
        if "mean" not in meta or "std" not in meta:
            raise ValueError(f"{path}: mean and std are missing in the metadata")
        nets.append((Path(path).stem, Normalised(net, json.loads(meta["mean"]), json.loads(meta["std"]))))
    print("model,eps,n,correct,accuracy,seconds")
    begin = time.perf_counter()
    for name, net in nets:
        for eps in args.eps:
            since = time.perf_counter()
            correct = correct_after_attack(net, x, y, start, eps, args.steps, args.batch)
            print(f"{name},{eps:g},{len(x)},{correct},{correct / len(x):.4f},{time.perf_counter() - since:.2f}", flush=True)
    print(f"total_seconds {time.perf_counter() - begin:.2f}  (threads {args.threads}, batch {args.batch}, torch {torch.__version__})")


def eps_list(text):
    """'0,0.005,2/255' -> floats"""
    values = [float(a) / float(b or 1) for a, _, b in (v.partition("/") for v in text.split(","))]
    if min(values) < 0:
        raise ValueError
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, metavar="FILE", help=".safetensors with arch, config, mean and std")
    parser.add_argument("--dataset", choices=("fashion-mnist", "cifar10"), default="fashion-mnist")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="t10k*-ubyte.gz files, or test_batch.bin")
    parser.add_argument("--eps", type=eps_list, default="0,0.005,0.01,0.02,0.03,0.06", help="comma-separated (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=256, metavar="IMAGES")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1001, help="of the random start")
    args = parser.parse_args()
    if min(args.limit, args.batch, args.threads) < 1 or args.steps < 0:
        parser.error("--limit, --batch and --threads must be at least 1, --steps at least 0")
    torch.set_num_threads(args.threads)
    try:
        sweep(args)
        return 0
    except (ValueError, OSError, RuntimeError, SafetensorError) as e:
        print(f"sweep_torch: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
