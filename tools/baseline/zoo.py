#!/usr/bin/env python3
"""Well-known architectures through the ONNX importer: the same numbers as PyTorch, and how long they take beside PyTorch and ONNX Runtime.

  zoo.py export FOLDER [--only NAME]                         graphs with seeded weights, and dumps of op `onnx` in float64
  zoo.py check FOLDER --rampart target/release/rampart       logits and input gradient against the dumps, and PyTorch's float32
  zoo.py times FOLDER --rampart target/release/rampart       milliseconds per image, forward and gradient; ONNX Runtime forward alone

Weights are the libraries' own initial ones after torch.manual_seed(0), batch norms moved away from 0 and 1. One image of 224x224, or 32x32
for the networks of CIFAR. Times are of --threads threads, one side after the other; on a loaded machine they mean nothing.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import safe_open

sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("import", "reference")]
import export_onnx
from onnx_fixtures import MEAN, STD, settle


class PreactBlock(nn.Module):
    """Batch norm and ReLU before each convolution (He et al. 2016, Identity Mappings); also the block of wide ResNets."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(c_in), nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(c_out), nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(c_in, c_out, 1, stride, bias=False) if stride != 1 or c_in != c_out else None

    def forward(self, x):
        y = F.relu(self.bn1(x))
        short = x if self.shortcut is None else self.shortcut(y)
        return short + self.conv2(F.relu(self.bn2(self.conv1(y))))


class Preact(nn.Module):
    """A stem, stages of blocks, a last batch norm, mean and classifier, for 32x32 images."""

    def __init__(self, widths, strides, blocks, classes=10):
        super().__init__()
        stem = widths[0]
        layers, c_in = [], stem
        for width, stride in zip(widths[1:], strides, strict=True):
            for i in range(blocks):
                layers.append(PreactBlock(c_in, width, stride if i == 0 else 1))
                c_in = width
        self.stem, self.blocks = nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.Sequential(*layers)
        self.bn, self.fc = nn.BatchNorm2d(c_in), nn.Linear(c_in, classes)

    def forward(self, x):
        return self.fc(F.relu(self.bn(self.blocks(self.stem(x)))).mean((2, 3)))


def named(name):
    return lambda: export_onnx.make(name, None)[0]


# name: how it is made, side of the images
NETWORKS = {
    "resnet50": (named("torchvision:resnet50"), 224),
    "wide_resnet50_2": (named("torchvision:wide_resnet50_2"), 224),
    "resnext50_32x4d": (named("torchvision:resnext50_32x4d"), 224),
    "vgg16_bn": (named("torchvision:vgg16_bn"), 224),
    "densenet121": (named("torchvision:densenet121"), 224),
    "squeezenet1_1": (named("torchvision:squeezenet1_1"), 224),
    "mobilenet_v2": (named("torchvision:mobilenet_v2"), 224),
    "mobilenet_v3_small": (named("torchvision:mobilenet_v3_small"), 224),
    "efficientnet_b0": (named("torchvision:efficientnet_b0"), 224),
    "regnet_y_400mf": (named("torchvision:regnet_y_400mf"), 224),
    "convnext_tiny": (named("torchvision:convnext_tiny"), 224),
    "shufflenet_v2_x1_0": (named("torchvision:shufflenet_v2_x1_0"), 224),
    "vit_tiny_patch16_224": (named("timm:vit_tiny_patch16_224"), 224),
    "deit_tiny_patch16_224": (named("timm:deit_tiny_patch16_224"), 224),
    "swin_t": (named("torchvision:swin_t"), 224),
    "coatnet_0_rw_224": (named("timm:coatnet_0_rw_224"), 224),
    "maxvit_tiny_tf_224": (named("timm:maxvit_tiny_tf_224"), 224),
    "preact_resnet18": (lambda: Preact((64, 64, 128, 256, 512), (1, 2, 2, 2), 2), 32),
    "wide_resnet_28_10": (lambda: Preact((16, 160, 320, 640), (1, 2, 2), 4), 32),
    "mixer_s16_224": (named("timm:mixer_s16_224"), 224),
    "poolformer_s12": (named("timm:poolformer_s12"), 224),
}


def build(name):
    torch.manual_seed(0)
    model = NETWORKS[name][0]().eval()
    with torch.no_grad():
        settle(model)
    return model


def export(folder, name, tries):
    target = folder / f"{name}.onnx"
    side = NETWORKS[name][1]
    metadata = {"mean": MEAN, "std": STD}
    parity = target.with_suffix(".safetensors")
    export_onnx.export(build(name), target, size=(side, side), metadata=metadata, images=1, parity=parity, tries=tries)
    print(f"{target}: {target.stat().st_size / 1e6:.0f} MB", flush=True)


def pytorch(folder, name):
    """-> errors of PyTorch's own float32 against the dump, by tensor"""
    with safe_open(folder / f"{name}.safetensors", "pt") as file:
        given = {key: file.get_tensor(key) for key in file.keys()}
    x = given["in.x"].requires_grad_()
    logits = build(name)(x)
    F.cross_entropy(logits, given["in.labels"], reduction="sum").backward()
    found = {"logits": logits.detach(), "dx": x.grad}
    return {
        key: ((value - given[f"out.{key}"]).double().norm() / given[f"out.{key}"].double().norm()).item() for key, value in found.items()
    }


def check(folder, name, rampart):
    """A row of the table."""
    told = subprocess.run([rampart, "info", folder / f"{name}.onnx"], capture_output=True, text=True, check=False)
    if told.returncode:
        return f"| {name} | {told.stderr.strip()[:300]} |"
    keys = ("nodes", "simplified", "op calls", "products", "parameters")
    numbers = [re.search(rf"^\s*{key}\s+([\d.]+)", told.stdout, re.MULTILINE)[1] for key in keys]
    said = subprocess.run(
        [rampart, "parity", folder / f"{name}.safetensors", "--device", "host", "--json"], capture_output=True, text=True, check=False
    )
    if not said.stdout.startswith("{"):
        return f"| {name} | {said.stderr.strip()[:300]} |"
    ours = {one["tensor"].removeprefix("out."): one["rel_err"] for one in json.loads(said.stdout.splitlines()[0])["all"]}
    theirs = pytorch(folder, name)
    errors = [f"{side[key]:.1e}" for key in ("logits", "dx") for side in (ours, theirs)]
    return "| " + " | ".join([name, *numbers, *errors]) + " |"


def timed(work, rounds):
    work()
    spent = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        spent.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(spent)


def times(folder, name, rampart, batch, threads, rounds):
    import onnxruntime

    side = NETWORKS[name][1]
    model = build(name).requires_grad_(False).to(memory_format=torch.channels_last)
    x = torch.rand(batch, 3, side, side).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(batch, dtype=torch.long)

    def gradient():
        y = x.detach().requires_grad_()
        F.cross_entropy(model(y), labels, reduction="sum").backward()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.contiguous().numpy()}
    torch.set_num_threads(threads)
    with torch.no_grad():
        forward = timed(lambda: model(x), rounds)
    rows = {"PyTorch": (forward, timed(gradient, rounds)), "ONNX Runtime": (timed(lambda: session.run(None, feed), rounds), None)}
    ours = []
    for what in ("forward", "gradient"):
        command = [
            rampart,
            "bench",
            "--weights",
            folder / f"{name}.onnx",
            "--what",
            what,
            "--batch",
            str(batch),
            "--size",
            f"{side}x{side}",
        ]
        said = subprocess.run([*command, "--runs", str(rounds), "--device", "host", "--json"], capture_output=True, text=True, check=True)
        ours.append(1e3 * json.loads(said.stdout)["median_s"])
    rows["Rampart"] = tuple(ours)
    cells = [f"{value / batch:.2f}" for pair in rows.values() for value in pair if value is not None]
    return "| " + " | ".join([name, *cells]) + " |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("export", "check", "times"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=sorted(NETWORKS), action="append")
    parser.add_argument("--rampart", default="target/release/rampart")
    parser.add_argument("--tries", type=int, default=8, help="seeded images, of which the one that keeps farthest from kinks is taken")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.what == "check":
        titles = ("network", "nodes", "simplified", "op calls", "GFLOP", "M parameters", "logits", "PyTorch f32", "dx", "PyTorch f32")
        print(f"| {' | '.join(titles)} |\n{'|---' * len(titles)}|")
    if options.what == "times":
        print("| network | PyTorch forward | gradient | ONNX Runtime forward | Rampart forward | gradient |\n|---|---|---|---|---|---|")
    for name in options.only or NETWORKS:
        if options.what == "export":
            export(options.folder, name, options.tries)
        elif options.what == "check":
            print(check(options.folder, name, options.rampart), flush=True)
        else:
            print(times(options.folder, name, options.rampart, options.batch, options.threads, options.rounds), flush=True)


if __name__ == "__main__":
    main()
