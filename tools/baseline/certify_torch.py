#!/usr/bin/env python3
"""Cohen's `certify` of a denoised classifier as a plain PyTorch loop, to compare counts and speed with `rampart certify`.

Per image n0 draws choose the class and n further ones bound its share, in batches of one image repeated, as the published code has
it (locuslab/smoothing; ethz-spylab/diffusion_denoised_smoothing). Eager, float32, channels_last, noise from torch.randn.

  certify_torch.py --model resnet50-w16.safetensors --denoiser unet-small.safetensors --data FOLDER --sigma 0.25 --limit 20 \\
                   --n 1000 --out torch.jsonl --beside RUN/certify/certified.jsonl

Writes a line per image: image, label, chosen, k, n, votes, seconds. With --beside it compares the shares of the chosen class image by
image with those of a run of ours: the largest difference in standard errors, and the p value of all together (chi-square).
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
from diffusion_reference import denoise
from resnet_reference import load_classifier
from sweep_torch import Normalised, channels_last, load_defence, load_images


@torch.inference_mode()
def counts(net, defence, sigma, x, draws, batch, classes):
    """How many of `draws` noisy copies of one image [1,3,H,W] are for which class."""
    found = np.zeros(classes, int)
    for first in range(0, draws, batch):
        copies = x.repeat(min(batch, draws - first), 1, 1, 1)
        noise = torch.randn_like(copies)
        if defence:
            copies = (denoise(*defence, sigma, *channels_last(copies, noise)) + 1) / 2
        else:
            copies = copies + sigma * noise
        found += np.bincount(net(*channels_last(copies)).argmax(1).numpy(), minlength=classes)
    return found


def compare(ours, lines, model, sigma):
    """Shares of the chosen class, ours and theirs, in standard errors of their difference."""
    rows = [json.loads(line) for line in open(ours)]
    rows = {row["image"]: row for row in rows if row["model"] == model and row["sigma"] == sigma}
    apart = []
    for line in lines:
        row = rows.get(line["image"])
        if row is None or row["chosen"] != line["chosen"]:
            print(f"image {line['image']}: chosen {row and row['chosen']} and {line['chosen']}")
            continue
        p = (row["k"] + line["k"]) / (row["n"] + line["n"])
        error = math.sqrt(p * (1 - p) * (1 / row["n"] + 1 / line["n"]))
        apart.append((row["k"] / row["n"] - line["k"] / line["n"]) / error if error > 0 else 0.0)
    total = sum(z * z for z in apart)
    free = sum(z != 0 for z in apart)
    # Wilson & Hilferty 1931: near enough for a verdict.
    normal = ((total / free) ** (1 / 3) - (1 - 2 / (9 * free))) / math.sqrt(2 / (9 * free)) if free else 0.0
    p = 0.5 * math.erfc(normal / math.sqrt(2))
    worst = max(map(abs, apart), default=0.0)
    print(f"{len(apart)} images: largest difference {worst:.2f} standard errors, all together p = {p:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--denoiser")
    parser.add_argument("--dataset", choices=["fashion-mnist", "cifar10"], default="fashion-mnist")
    parser.add_argument("--data", required=True)
    parser.add_argument("--sigma", type=float, default=0.25)
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--n0", type=int, default=100)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out")
    parser.add_argument("--beside")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    images, labels = load_images(args.dataset, args.data, args.limit)
    defence = load_defence(args.denoiser) if args.denoiser else None
    net, meta = load_classifier(args.model)
    net = Normalised(net, json.loads(meta["mean"]), json.loads(meta["std"]))
    with torch.inference_mode():
        classes = net(images[:1]).shape[1]
    lines = []
    for at, (x, label) in enumerate(zip(images.split(1), labels.tolist())):
        begin = time.perf_counter()
        chosen = int(counts(net, defence, args.sigma, x, args.n0, args.batch, classes).argmax())
        votes = counts(net, defence, args.sigma, x, args.n, args.batch, classes)
        seconds = time.perf_counter() - begin
        lines.append(dict(image=at, label=label, chosen=chosen, k=int(votes[chosen]), n=args.n, votes=votes.tolist(), seconds=seconds))
        if args.out:
            with open(args.out, "a" if at else "w") as file:
                file.write(json.dumps(lines[-1]) + "\n")
    seconds = sorted(line["seconds"] for line in lines)
    print(f"{len(lines)} images, {args.n0} + {args.n} draws: median {seconds[len(seconds) // 2]:.3f} s per image")
    if args.beside:
        compare(args.beside, lines, Path(args.model).stem, args.sigma)


if __name__ == "__main__":
    main()
