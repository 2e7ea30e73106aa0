#!/usr/bin/env python3
"""DDN and FMN of foolbox 3.3.4 beside the records of `rampart sweep --method ddn` or `fmn`: the smallest perturbation of every image.

  rampart sweep --method fmn --norm l2 --eps 3 --no-defense --limit 64 --out RUN ...
  min_norm_torch.py --model resnet50-w16.safetensors --data FOLDER --records RUN/records.jsonl

Which attack and norm is read from the records. Prints, of the images that both break within the largest budget, how far their smallest
perturbations are apart, which ones only one side breaks, the accuracy over some budgets of both, and seconds.

Runs with `--profile foolbox` follow foolbox, whose L2FMNAttack does not project: where it should shrink a perturbation to the radius it
divides the length of the image by itself. Other runs of FMN in L2 are compared with the projection put right here. They differ all the
same: until it has found a wrong point, the engine's own FMN adds the distance that it estimates to the radius, foolbox to what the box
leaves of it; where the box cuts much, that stands still in front of the boundary and finds nothing.

  min_norm_torch.py --known

prints the radii that tests/engine/fmn.rs expects, of foolbox in float64 on the small network of those tests.

Needs foolbox 3.3.4 (`pip install --no-deps foolbox==3.3.4 eagerpy GitPython gitdb smmap requests`).
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
from autoattack_torch import philox
from resnet_reference import load_classifier
from sweep_torch import Normalised, load_images

NOISE = 3  # the purpose of the numbers that the small network is made of
QUANTILES = (0.5, 0.9, 1.0)


def published(method, norm, profile, steps):
    """foolbox's attack of that name."""
    from foolbox import attacks

    class Projected(attacks.L2FMNAttack):
        """With the projection onto the ball."""

        def project(self, x, x0, epsilon):
            offset = (x - x0).raw
            length = offset.flatten(1).norm(dim=1).clamp(min=1e-12)
            factor = (epsilon.raw / length).clamp(max=1).view(-1, *[1] * (offset.ndim - 1))
            return x0 + type(x0)(offset * factor)

    kinds = {
        ("fmn", "linf", "foolbox"): attacks.LInfFMNAttack,
        ("ddn", "l2", "native"): attacks.DDNAttack,
        ("fmn", "linf", "native"): attacks.LInfFMNAttack,
        ("fmn", "l2", "foolbox"): attacks.L2FMNAttack,
        ("fmn", "l2", "native"): Projected,
    }
    if (method, norm, profile) not in kinds:
        raise ValueError(f"expected ddn or fmn, found {method} in {norm}, profile {profile}")
    return kinds[method, norm, profile](steps=steps)


def radii(net, attack, norm, x, y):
    """The smallest perturbation found of each image, in `norm`; infinite where none was, 0 where it is wrong when clean."""
    from foolbox import Misclassification, PyTorchModel

    model = PyTorchModel(net, bounds=(0, 1), device="cpu")
    found = attack.run(model, x, Misclassification(y))
    with torch.no_grad():
        wrong = net(found).argmax(1) != y
        clean = net(x).argmax(1) != y
    offset = (found - x).flatten(1)
    far = offset.abs().amax(1) if norm == "linf" else offset.norm(dim=1)
    return torch.where(clean, 0, torch.where(wrong, far, torch.inf))


def engine(records, model):
    """-> the attack's label and norm, the largest budget, {image: (label, radius)} as in `radii`"""
    found, said = {}, set()
    with open(records) as lines:
        for line in map(json.loads, lines):
            if line.get("model") == model and line.get("channel") == 1:
                said.add((line["attack"], line["norm"], line["eps"]))
                radius = line.get("radius", np.inf) if line["correct_clean"] else 0.0
                found[line["image"]] = (line["label"], radius)
    if len(said) != 1:
        raise ValueError(f"{records}: expected one attack at one eps on {model}, found {sorted(said) or 'none'}")
    return *said.pop(), found


def compare(args):
    label, norm, most, own = engine(args.records, args.name)
    profile, _, method = label.rpartition("-")
    net, meta = load_classifier(args.model)
    net = Normalised(net, json.loads(meta["mean"]), json.loads(meta["std"])).eval()
    net.requires_grad_(False)
    ids = sorted(own)
    x, y = load_images(args.dataset, args.data, ids[-1] + 1)
    x, y = x[ids], y[ids]
    if y.tolist() != [own[i][0] for i in ids]:
        raise ValueError(f"{args.records}: labels are not those of {args.data}")
    attack = published(method, norm, profile or "native", args.steps)
    begin = time.perf_counter()
    theirs = torch.cat([radii(net, attack, norm, *part) for part in zip(x.split(args.batch), y.split(args.batch))]).numpy()
    seconds = time.perf_counter() - begin
    ours = np.array([own[i][1] for i in ids])
    theirs[theirs > most] = np.inf
    both = np.isfinite(ours) & np.isfinite(theirs) & (ours > 0)
    wrong = (ours == 0).sum()
    print(f"{args.name}, {label} in {norm}, {args.steps} steps, {len(ids)} images, {wrong} wrong when clean; foolbox {seconds:.1f} s")
    alone = [(np.isfinite(one) & np.isinf(other)).sum() for one, other in ((ours, theirs), (theirs, ours))]
    print(f"  broken within {most:g} by both {both.sum()}, by the engine alone {alone[0]}, by foolbox alone {alone[1]}")
    if not both.any():
        return
    apart = np.abs(ours[both] / theirs[both] - 1)
    print("  apart: " + ", ".join(f"{np.quantile(apart, q):.1e} at quantile {q:g}" for q in QUANTILES))
    nearer = [(one[both] < 0.999 * other[both]).sum() for one, other in ((ours, theirs), (theirs, ours))]
    medians = [f"{np.median(side[both]):.6g}" for side in (ours, theirs)]
    print(f"  nearer by more than 0.1 %: engine {nearer[0]}, foolbox {nearer[1]}; median {medians[0]}, foolbox {medians[1]}")
    for part in (0.125, 0.25, 0.5, 0.75, 1):
        print(f"  right at {part * most:g}: {(ours > part * most).sum()}, foolbox {(theirs > part * most).sum()}")


class Small(torch.nn.Module):
    """The network of tests/engine/network.rs: images [N,3,5,4] -> logits of five classes, in float64."""

    def __init__(self):
        super().__init__()
        self.first = (0.8 * (2 * numbers(16 * 60, 101) - 1)).view(16, 60)
        self.second = (2 * (2 * numbers(5 * 16, 102) - 1)).view(5, 16)

    def forward(self, x):
        flat = x.permute(0, 2, 3, 1).flatten(1)
        return torch.tanh((flat - 0.5) @ self.first.T) @ self.second.T


def numbers(n, seed):
    counter = np.broadcast_arrays(np.arange(-(-n // 4)), 0, 0, NOISE << 26)
    words = np.stack(philox(counter, (seed, 0)), -1).reshape(-1)[:n]
    return torch.from_numpy((words >> np.uint64(8)).astype(np.float64) * 2**-24)


def known():
    net = Small().eval()
    x = (1.2 * numbers(12 * 60, 7) - 0.1).clamp(0, 1).float().double().view(12, 5, 4, 3).permute(0, 3, 1, 2)
    y = net(x).argmax(1)
    for kind in (("ddn", "l2", "native"), ("fmn", "l2", "foolbox"), ("fmn", "linf", "foolbox")):
        print(*kind, [float(f"{r:.6g}") for r in radii(net, published(*kind, 100), kind[1], x, y)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--known", action="store_true", help="print the values of a test instead")
    parser.add_argument("--model", metavar="FILE", help=".safetensors with arch, config, mean and std")
    parser.add_argument("--name", help="of the model in the records (default: the file's)")
    parser.add_argument("--dataset", choices=("fashion-mnist", "cifar10"), default="fashion-mnist")
    parser.add_argument("--data", metavar="FOLDER", help="t10k*-ubyte.gz files, or test_batch.bin")
    parser.add_argument("--records", metavar="FILE", help="records.jsonl of a sweep with --method ddn or fmn")
    parser.add_argument("--steps", type=int, default=100, help="of the run (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.known:
        return known()
    missing = [flag for flag in ("model", "data", "records") if getattr(args, flag) is None]
    if missing:
        parser.error("expected --known, or a value for " + ", ".join(f"--{flag}" for flag in missing))
    args.name = args.name or Path(args.model).stem
    try:
        compare(args)
    except (OSError, ValueError, KeyError) as e:
        sys.exit(f"min_norm_torch.py: {e}")


if __name__ == "__main__":
    main()
