#!/usr/bin/env python3
"""The experiment in plain PyTorch, to compare results and speed with `rampart sweep`.

Channel 1, no defence. PGD L-inf: 10 steps of eps/4 from a uniform random start in the eps ball, sign of the gradient of the
cross-entropy, projected to the ball and to [0,1]; no early stop; accuracy at the last iterate. Channel 2, with --denoiser: the
same images noised and denoised in one shot for each sigma, then classified; with several draws by majority vote, ties to the
lowest class. Eager, float32, channels_last. Prints one line per cell and at the end the total seconds, loading excluded.

  sweep_torch.py --models resnet50-w16.safetensors resnet50-cbam-w16.safetensors --denoiser unet-small.safetensors \\
                 --dataset fashion-mnist --data FOLDER --limit 256

The start of image i is row i of numpy's PCG64(seed).uniform(-1, 1), its noise in draw d is row i of
PCG64(noise seed + d).standard_normal: neither depends on batch, limit, model, eps or sigma. The attack does not see the defence.
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

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
from diffusion_reference import denoise, step_of
from resnet_reference import load_classifier
from unet_reference import load_denoiser


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
        (grad,) = torch.autograd.grad(F.cross_entropy(net(adv), y, reduction="sum"), adv)
        adv = adv.detach() + eps / 4 * grad.sign()
        adv = torch.minimum(torch.maximum(adv, x - eps), x + eps).clamp(0, 1)
    return adv.detach()


def channels_last(*tensors):
    return [t.contiguous(memory_format=torch.channels_last) for t in tensors]


def attack(net, x, y, start, eps, steps, batch):
    """All images, attacked batch by batch."""
    parts = zip(x.split(batch), y.split(batch), start.split(batch))
    return torch.cat([pgd(net, *channels_last(xb), yb, *channels_last(sb), eps, steps) for xb, yb, sb in parts])


@torch.inference_mode()
def predictions(net, x, batch):
    return torch.cat([net(*channels_last(xb)).argmax(1) for xb in x.split(batch)])


@torch.inference_mode()
def defended_predictions(net, defence, sigma, x, noises, batch):
    """noises: one tensor of the shape of x per draw -> the class most draws vote for, [N]"""
    votes = []
    for noise in noises:
        parts = [denoise(*defence, sigma, *channels_last(xb, zb)) for xb, zb in zip(x.split(batch), noise.split(batch))]
        votes.append(predictions(net, (torch.cat(parts) + 1) / 2, batch))
    votes = torch.stack(votes, 1)  # [N,draws]
    counts = F.one_hot(votes, int(votes.max()) + 1).sum(1).numpy()
    return torch.from_numpy(counts.argmax(1))  # the first of equals


def load_defence(path):
    """-> arguments of `denoise` up to tau_scale: network, schedule, steps, tau_scale"""
    net, meta = load_denoiser(path)
    missing = {"schedule", "steps", "tau_scale"} - set(meta)
    if missing:
        raise ValueError(f"{path}: {', '.join(sorted(missing))} missing in the metadata")
    return net.to(memory_format=torch.channels_last), meta["schedule"], int(meta["steps"]), float(meta["tau_scale"])


def sweep(args):
    x, y = load_images(args.dataset, args.data, args.limit)
    start = np.random.Generator(np.random.PCG64(args.seed)).uniform(-1, 1, x.shape)
    start = torch.from_numpy(start.astype(np.float32))
    defence = load_defence(args.denoiser) if args.denoiser else None
    sigmas = args.sigma if defence else []
    noises = [
        np.random.Generator(np.random.PCG64(args.noise_seed + d)).standard_normal(x.shape) for d in range(args.draws if defence else 0)
    ]
    noises = [torch.from_numpy(z.astype(np.float32)) for z in noises]
    for sigma in sigmas:
        step_of(*defence[1:3], sigma)  # refuses a sigma beyond the schedule
    nets = []
    for path in args.models:
        net, meta = load_classifier(path)
        if "mean" not in meta or "std" not in meta:
            raise ValueError(f"{path}: mean and std are missing in the metadata")
        nets.append((Path(path).stem, Normalised(net, json.loads(meta["mean"]), json.loads(meta["std"]))))
    print("model,eps,sigma,channel,n,correct,accuracy,seconds")
    begin = since = time.perf_counter()

    def cell(name, eps, sigma, channel, predicted):
        nonlocal since
        now, correct = time.perf_counter(), int((predicted == y).sum())
        print(f"{name},{eps:g},{sigma},{channel},{len(x)},{correct},{correct / len(x):.4f},{now - since:.2f}", flush=True)
        since = now

    for name, net in nets:
        for eps in args.eps:
            attacked = attack(net, x, y, start, eps, args.steps, args.batch)
            cell(name, eps, "", 1, predictions(net, attacked, args.batch))  # its seconds include the attack
            for sigma in sigmas:
                cell(name, eps, f"{sigma:g}", 2, defended_predictions(net, defence, sigma, attacked, noises, args.batch))
    print(f"total_seconds {time.perf_counter() - begin:.2f}  (threads {args.threads}, batch {args.batch}, torch {torch.__version__})")


def number_list(text):
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
    parser.add_argument("--eps", type=number_list, default="0,0.005,0.01,0.02,0.03,0.06", help="comma-separated (default: %(default)s)")
    parser.add_argument("--denoiser", metavar="FILE", help=".safetensors of a U-Net with its schedule: adds channel 2")
    parser.add_argument("--sigma", type=number_list, default="0.25,0.5", help="noise levels of channel 2 (default: %(default)s)")
    parser.add_argument("--draws", type=int, default=1, help="noise draws that vote (default: %(default)s)")
    parser.add_argument("--limit", type=int, default=256, metavar="IMAGES")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1001, help="of the random start")
    parser.add_argument("--noise-seed", type=int, default=2002, help="of draw 0, the next draws count up from it")
    args = parser.parse_args()
    if min(args.draws, args.limit, args.batch, args.threads) < 1 or args.steps < 0:
        parser.error("--draws, --limit, --batch and --threads must be at least 1, --steps at least 0")
    torch.set_num_threads(args.threads)
    try:
        sweep(args)
        return 0
    except (ValueError, OSError, RuntimeError, SafetensorError) as e:
        print(f"sweep_torch: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
