#!/usr/bin/env python3
"""Small networks of several families as ONNX graphs with dumps, for tests/fixtures/onnx. Weights are PyTorch's own, seeded.

python tools/reference/onnx_fixtures.py tests/fixtures/onnx [--only NAME]
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
import torchvision.models as tv

sys.path.append(str(Path(__file__).resolve().parents[1] / "import"))
from export_onnx import dump, export, write

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Subsampled(nn.Module):
    """A residual block whose shortcut subsamples and pads channels with zeros, normalisation inside, two fully connected layers."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.down, self.bn2 = nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16)
        self.hidden, self.last = nn.Linear(16 * 4 * 4, 24), nn.Linear(24, 7)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, x):
        x = F.relu(self.bn(self.stem((x - self.mean) / self.std)))
        y = self.bn2(self.down(x)) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        y = F.avg_pool2d(F.relu(y), 2)
        return self.last(F.relu(self.hidden(y.flatten(1))))


class Cifar(nn.Module):
    """Ten classes of 32x32 images; a softmax at the end, which is cut."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.fc = nn.Linear(12, 10)

    def forward(self, x):
        return F.softmax(self.fc(F.relu(self.b(F.relu(self.a(x)))).mean((2, 3))), 1)


class Grey(nn.Module):
    """One channel of 28x28, as MNIST's networks take it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 12, 3, stride=2)
        self.hidden, self.fc = nn.Linear(12 * 6 * 6, 16), nn.Linear(16, 10)

    def forward(self, x):
        x = F.avg_pool2d(F.silu(self.a((x - 0.1307) / 0.3081)), 2)
        return self.fc(F.silu(self.hidden(F.silu(self.b(x)).flatten(1))))


class Two(nn.Module):
    """Two channels, as radar's polarisations."""

    def __init__(self, channels=2):
        super().__init__()
        self.a, self.b = nn.Conv2d(channels, 8, 3, stride=2, padding=1), nn.Conv2d(8, 12, 3)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(F.silu(self.b(F.silu(self.a(x)))).mean((2, 3)))


class Flat(nn.Module):
    """Fully connected layers, whose graph takes images as rows of values."""

    def __init__(self, values, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(values, 12), nn.SiLU(), nn.Linear(12, classes))

    def forward(self, x):
        return self.layers(x.flatten(1))


def vit():
    return tv.VisionTransformer(image_size=16, patch_size=4, num_layers=2, num_heads=2, hidden_dim=24, mlp_dim=48, num_classes=6)


def densenet():
    return tv.DenseNet(growth_rate=6, block_config=(2, 2), num_init_features=12, bn_size=2, num_classes=6)


def shufflenet():
    return tv.ShuffleNetV2([1, 1, 1], [8, 16, 24, 32, 32], num_classes=6)


def mobilenet_v2():
    return tv.MobileNetV2(num_classes=6, width_mult=0.1, inverted_residual_setting=[[1, 16, 1, 1], [4, 24, 2, 2]], round_nearest=4)


def mobilenet_v3():
    block = partial(tv.mobilenetv3.InvertedResidualConfig, width_mult=1.0)
    settings = [block(8, 3, 16, 8, True, "RE", 2, 1), block(8, 5, 24, 16, True, "HS", 2, 1)]
    return tv.MobileNetV3(settings, last_channel=24, num_classes=6)


def efficientnet():
    block = tv.efficientnet.MBConvConfig
    settings = [block(1, 3, 1, 8, 8, 1, 1.0, 1.0), block(4, 3, 2, 8, 16, 2, 1.0, 1.0)]
    return tv.EfficientNet(settings, dropout=0.0, stochastic_depth_prob=0.0, num_classes=6, last_channel=32)


def convnext():
    block = tv.convnext.CNBlockConfig
    return tv.ConvNeXt([block(8, 16, 1), block(16, None, 1)], stochastic_depth_prob=0.0, num_classes=6)


def swin():
    """Shifted windows, whose masks are written part by part, and a merge of patches."""
    return tv.SwinTransformer([2, 2], 8, [2, 2], [2, 2], [2, 2], stochastic_depth_prob=0.0, num_classes=6)


def regnet():
    params = tv.regnet.BlockParams([1, 1], [8, 16], [4, 4], [1.0, 1.0], [2, 2], se_ratio=0.25)
    return tv.RegNet(params, num_classes=6, stem_width=8)


def resnext():
    """Bottlenecks whose convolutions have groups of 4 channels."""

    def block(c_in, planes, stride):
        short = nn.Sequential(nn.Conv2d(c_in, 4 * planes, 1, stride, bias=False), nn.BatchNorm2d(4 * planes))
        return tv.resnet.Bottleneck(c_in, planes, stride, short, groups=4, base_width=256 // planes)

    stem = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, block(16, 8, 1), block(32, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 6))


# name: how it is made, size, opset, exporter
CASES = {
    "subsampled": (Subsampled, (16, 16), 18, "new"),
    "subsampled_old": (Subsampled, (16, 16), 11, "legacy"),
    "cifar": (Cifar, (32, 32), 18, "new"),
    "grey": (Grey, (28, 28), 18, "new"),
    "two": (Two, (10, 14), 18, "new"),
    "four": (partial(Two, 4), (12, 12), 18, "new"),
    "flat": (partial(Flat, 14 * 14, 10), (14, 14), 18, "new"),
    "flat_colour": (partial(Flat, 3 * 8 * 8, 6), (8, 8), 18, "new"),
    "vit": (vit, (16, 16), 18, "new"),
    "vit_old": (vit, (16, 16), 14, "legacy"),
    "densenet": (densenet, (24, 24), 18, "new"),
    "shufflenet": (shufflenet, (24, 24), 18, "new"),
    "mobilenet_v2": (mobilenet_v2, (24, 24), 18, "new"),
    "mobilenet_v3": (mobilenet_v3, (24, 24), 18, "new"),
    "efficientnet": (efficientnet, (24, 24), 18, "new"),
    "convnext": (convnext, (16, 16), 18, "new"),
    "swin": (swin, (16, 16), 18, "new"),
    "regnet": (regnet, (24, 24), 18, "new"),
    "resnext": (resnext, (24, 24), 18, "new"),
}


# Of other images than three channels: how many.
CHANNELS = {"grey": 1, "two": 2, "four": 4, "flat": 1}


def settle(model):
    """Statistics and scales away from their starting values, so that nothing of a batch norm is 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(0.2 * torch.randn(module.num_features, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.num_features, generator=generator))
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm2d)) and module.weight is not None:
            module.weight.data.copy_(0.7 + 0.6 * torch.rand(module.weight.shape, generator=generator))
            module.bias.data.copy_(0.2 * torch.randn(module.bias.shape, generator=generator))
    for parameter in model.parameters():
        if parameter.abs().max() == 0:
            parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only")
    options = parser.parse_args()
    for name, (build, size, opset, exporter) in CASES.items():
        if options.only and name != options.only:
            continue
        torch.manual_seed(0)
        model = build().eval()
        settle(model)
        target = options.folder / f"{name}.onnx"
        channels = CHANNELS.get(name, 3)
        metadata = {"mean": [0.0] * channels, "std": [1.0] * channels} if name in CHANNELS else {"mean": MEAN, "std": STD}
        parity = options.folder / f"{name}.safetensors"
        if isinstance(model, Flat):
            image = (channels, *size)
            write(model.layers, str(target), (model.layers[0].in_features,), metadata, opset, exporter == "legacy")
            dump(model, target, str(parity), image, images=2, classes=model.layers[-1].out_features, seed=0)
        else:
            export(
                model,
                target,
                size=size,
                metadata=metadata,
                channels=channels,
                opset=opset,
                legacy=exporter == "legacy",
                parity=parity,
            )
        print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
