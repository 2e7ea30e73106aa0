#!/usr/bin/env python3
"""ResNet-18/34/50 in plain PyTorch: CIFAR or ImageNet stem, any width, with or without CBAM.

Parameter names are those of torchvision and, for CBAM, of Jongchan/attention-module, so that public checkpoints
load unchanged. Inputs are already normalised: mean and std are not part of the network.

  resnet_reference.py --check-golden     compare with the published golden values (float64, about half a minute)
"""

import argparse
import json
import math
import sys

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import safe_open

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
DEFAULTS = {"depth": 50, "stem": "cifar", "width": 64, "attention": "none", "reduction": 16, "classes": 10}


# ------------------------------------------------------------------------------------------------ attention
class ChannelGate(nn.Module):
    """x [N,C,H,W] * sigmoid(mlp(mean over H,W) + mlp(max over H,W)) [N,C,1,1]; the MLP is shared, C -> C/r -> C."""

    def __init__(self, channels, reduction=16):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.mlp = nn.Sequential(nn.Flatten(), nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))

    def forward(self, x):
        mean, peak = x.mean((2, 3)), x.flatten(2).max(2).values  # both [N,C]; max: one arg-max gets the gradient
        return x * torch.sigmoid(self.mlp(mean) + self.mlp(peak))[:, :, None, None]


class SpatialConv(nn.Module):
    """The spatial gate's convolution [N,2,H,W] -> [N,1,H,W] with batch norm and no activation."""

    def __init__(self, kernel, eps):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=(kernel - 1) // 2, bias=False)
        self.bn = nn.BatchNorm2d(1, eps=eps, momentum=0.01)

    def forward(self, x):
        return self.bn(self.conv(x))


class SpatialGate(nn.Module):
    """x [N,C,H,W] * sigmoid(bn(conv(max and mean over C, in this order))) [N,1,H,W]."""

    def __init__(self, kernel=7, eps=1e-5):
        super().__init__()
        self.spatial = SpatialConv(kernel, eps)

    def forward(self, x):
        pooled = torch.cat((x.max(1, keepdim=True).values, x.mean(1, keepdim=True)), 1)  # [N,2,H,W]
        return x * torch.sigmoid(self.spatial(pooled))


class CBAM(nn.Module):
    """Channel gate, then spatial gate."""

    def __init__(self, channels, reduction=16, kernel=7, eps=1e-5):
        super().__init__()
        self.ChannelGate = ChannelGate(channels, reduction)
        self.SpatialGate = SpatialGate(kernel, eps)

    def forward(self, x):
        return self.SpatialGate(self.ChannelGate(x))


# ------------------------------------------------------------------------------------------------ blocks
def downsample(c_in, c_out, stride):
    """Projection of the shortcut where the shape changes, else None."""
    if stride == 1 and c_in == c_out:
        return None
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False), nn.BatchNorm2d(c_out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; CBAM after bn2, before the addition."""

    expansion = 1

    def __init__(self, c_in, planes, stride, attention, reduction):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample(c_in, planes, stride)
        self.cbam = CBAM(planes, reduction) if attention else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.bn2(self.conv2(h))
        if self.cbam is not None:
            h = self.cbam(h)
        h += x if self.downsample is None else self.downsample(x)
        return self.relu(h)


class Bottleneck(nn.Module):
    """1x1, 3x3 (carries the stride), 1x1 to 4 * planes; CBAM after bn3, before the addition."""

    expansion = 4

    def __init__(self, c_in, planes, stride, attention, reduction):
        super().__init__()
        c_out = planes * self.expansion
        self.conv1 = nn.Conv2d(c_in, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.downsample = downsample(c_in, c_out, stride)
        self.cbam = CBAM(c_out, reduction) if attention else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.relu(self.bn1(self.conv1(x)))
        h = self.relu(self.bn2(self.conv2(h)))
        h = self.bn3(self.conv3(h))
        if self.cbam is not None:
            h = self.cbam(h)
        h += x if self.downsample is None else self.downsample(x)
        return self.relu(h)


class ResNet(nn.Module):
    """x [N,3,H,W] -> logits [N,classes]. `width` is the number of stem channels, 64 in the published models."""

    def __init__(self, depth=50, stem="cifar", width=64, attention="none", reduction=16, classes=10):
        super().__init__()
        if depth not in BLOCKS or stem not in ("cifar", "imagenet") or attention not in ("none", "cbam"):
            raise ValueError(f"no such ResNet: depth {depth}, stem {stem!r}, attention {attention!r}")
        block = Bottleneck if depth == 50 else BasicBlock
        if stem == "cifar":
            self.conv1, self.maxpool = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.Identity()
        else:
            self.conv1, self.maxpool = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        c_in = width
        for level, count in enumerate(BLOCKS[depth]):
            blocks, planes = [], width << level
            for i in range(count):
                stride = 2 if level > 0 and i == 0 else 1
                blocks.append(block(c_in, planes, stride, attention == "cbam", reduction))
                c_in = planes * block.expansion
            setattr(self, f"layer{level + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(c_in, classes)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def build(config):
    """ResNet in eval mode, parameters frozen, from a `config` object; missing keys take the published values."""
    unknown = set(config) - set(DEFAULTS)
    if unknown:
        raise ValueError(f"unknown config keys {sorted(unknown)}; known: {sorted(DEFAULTS)}")
    return ResNet(**{**DEFAULTS, **config}).eval().requires_grad_(False)


def load_state(model, tensors):
    """Copies NAME -> tensor into the model; every name must match, but `num_batches_tracked` may be missing."""
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [k for k in missing if not k.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(f"weights do not fit: missing {missing[:3]}, unexpected {unexpected[:3]}")
    return model


def load_classifier(path):
    """A .safetensors file with `arch` and `config` in its metadata -> (float32 model in eval mode, metadata)."""
    with safe_open(path, "pt") as f:
        meta, tensors = f.metadata() or {}, {k: f.get_tensor(k).float() for k in f.keys()}
    if meta.get("arch") != "resnet" or "config" not in meta:
        raise ValueError(f"{path}: metadata must hold arch=resnet and config, got arch={meta.get('arch')!r}")
    return load_state(build(json.loads(meta["config"])), tensors), meta


# ------------------------------------------------------------------------------------------------ seeded weights
def fill_values(name, count):
    """`count` pseudo-random float32 in [-1,1) that depend on the tensor's name only (FNV-1a, then SplitMix64)."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.int64) - 2**23).astype(np.float32) / np.float32(2**23)


def fill_tensor(name, shape):
    """Deterministic float32 tensor for a checkpoint key: well scaled weights, plausible statistics."""
    count = math.prod(shape)
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    v, f32 = fill_values(name, count), np.float32
    if name.endswith("running_var"):
        v = f32(1) + f32(0.5) * v
    elif name.endswith(("running_mean", ".bias")):
        v = f32(0.2) * v
    elif name.endswith(".gamma"):
        v = f32(0.5) + f32(0.2) * v
    elif name.endswith(".weight"):
        v = v * f32(math.sqrt(3 * shape[0] / count)) if len(shape) > 1 else f32(1) + f32(0.2) * v
    return torch.from_numpy(v).reshape(shape)


def fill_state(model):
    """Overwrites every entry of the model's state with its deterministic value; returns the model."""
    model.load_state_dict({k: fill_tensor(k, tuple(t.shape)) for k, t in model.state_dict().items()})
    return model


# ------------------------------------------------------------------------------------------------ golden values
GOLDEN = [
    dict(
        name="CIFAR ResNet-50",
        config={},
        shape=(2, 3, 32, 32),
        labels=(3, 7),
        params=23_520_842,
        entries=320,
        logits=[
            [-1.09792680, -1.44352970, 1.71093318, -1.70643584, -2.18303551, 2.07351144, -0.41299150, 2.63088814, 2.00142394, -0.10041855],
            [-1.03264336, -1.42894625, 1.72558410, -1.76083897, -2.19196823, 2.01740956, -0.44047754, 2.63286608, 1.90448053, -0.08416625],
        ],
        loss=3.1395902427,
        grad_sum=-1.8715566553e-01,
        grad_l1=5.9654331442e00,
        grad_l2=1.0454663801e-01,
        signs=-132,
        grad=[-3.64456930e-04, -1.85589468e-03, 9.79614303e-05, -9.45761058e-04],
    ),
    dict(
        name="CIFAR ResNet-50 + CBAM",
        config={"attention": "cbam"},
        shape=(2, 3, 32, 32),
        labels=(3, 7),
        params=26_053_434,
        entries=480,
        logits=[
            [-0.29635303, -0.06372332, 0.14376961, -0.60420894, -0.33036120, 0.33549745, 0.03536109, 0.40084854, 0.11602757, -0.22309891],
            [-0.31404283, -0.10655054, 0.14911883, -0.61694286, -0.30010531, 0.35962846, 0.02234426, 0.37356899, 0.11996429, -0.19525078],
        ],
        loss=2.4119522000,
        grad_sum=-5.9452907574e-02,
        grad_l1=1.5146609280e00,
        grad_l2=3.7123085508e-02,
        signs=-36,
        grad=[-2.03162460e-03, -1.01868174e-03, 1.75255754e-04, 5.55816827e-04],
    ),
    dict(
        name="ImageNet ResNet-50",
        config={"stem": "imagenet", "classes": 1000},
        shape=(1, 3, 224, 224),
        labels=(3,),
        params=25_557_032,
        entries=320,
        logits=[
            [-1.72270256, -2.16012604, 2.54466348, -2.34772841, -4.02047626, 2.86269280, -0.50419815, 3.55460491, 3.16773491, -0.09364437]
        ],
        loss=11.1433369030,
        grad_l1=45.305065485,
        grad_l2=0.15366960211,
        signs=-2652,
    ),
]


def check_golden(case):
    """Runs one golden case in float64; returns a list of (what, got, want, within the printed digits)."""
    model = fill_state(build(case["config"]))
    params, entries = sum(p.numel() for p in model.parameters()), len(model.state_dict())
    model.double()
    x = fill_tensor("input", case["shape"]).double().requires_grad_(True)
    logits = model(x)
    loss = F.cross_entropy(logits, torch.tensor(case["labels"]))
    (g,) = torch.autograd.grad(loss, x)
    want_logits = torch.tensor(case["logits"], dtype=torch.float64)
    worst = (logits.detach()[:, :10] - want_logits).abs().max().item()
    rows = [
        ("parameters", params, case["params"], params == case["params"]),
        ("state entries", entries, case["entries"], entries == case["entries"]),
        ("logits, worst difference", worst, 0.0, worst <= 1.1e-8),
    ]
    got = dict(loss=loss, grad_sum=g.sum(), grad_l1=g.abs().sum(), grad_l2=g.norm())
    rows += [(k, v.item(), case[k], abs(v.item() - case[k]) <= 1e-9 * abs(case[k])) for k, v in got.items() if k in case]
    signs = int(g.sign().sum())
    rows.append(("sum of gradient signs", signs, case["signs"], signs == case["signs"]))
    for i, want in enumerate(case.get("grad", [])):
        rows.append((f"gradient [0,0,0,{i}]", g[0, 0, 0, i].item(), want, abs(g[0, 0, 0, i].item() - want) <= 1e-8 * abs(want)))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check-golden", action="store_true", help="compare with the golden values; exit 1 on a difference")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not args.check_golden:
        parser.error("nothing to do: pass --check-golden")
    torch.set_num_threads(args.threads)
    failed = 0
    for case in GOLDEN:
        print(case["name"])
        for what, got, want, ok in check_golden(case):
            failed += not ok
            print(f"  {'ok  ' if ok else 'FAIL'}  {what:26} {got!r}  want {want!r}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
