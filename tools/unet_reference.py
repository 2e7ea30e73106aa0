#!/usr/bin/env python3
"""The diffusion U-Net of improved-diffusion and guided-diffusion in plain PyTorch, for any width and depth.

Parameter names are those of the two projects, so that their public checkpoints load unchanged. x is in [-1,1];
`t` is the number given to the timestep embedding, after any rescaling.

  unet_reference.py --check-golden [--only cifar]     compare with the published golden values (float64)
"""
import argparse
import json
import math
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import safe_open

from resnet_reference import fill_state, fill_tensor, load_state

DEFAULTS = {"channels": 128, "channel_mult": [1, 2, 2, 2], "res_blocks": 3, "attention_factors": [2, 4], "heads": 4,
            "resblock_updown": False, "out_channels": 6}
CIFAR = dict(DEFAULTS)
IMAGENET = {"channels": 256, "channel_mult": [1, 1, 2, 2, 4, 4], "res_blocks": 2, "attention_factors": [8, 16, 32],
            "head_channels": 64, "resblock_updown": True, "out_channels": 6}
GROUPS = 32


def timestep_embedding(t, dim, max_period=10000):
    """t [N] -> cosines, then sines [N,dim], in the precision of t: float32 is the published recipe, float64 near exact."""
    half = dim // 2
    freqs = torch.exp(-math.log(max_period) * torch.arange(half, dtype=t.dtype) / half)
    angles = t[:, None] * freqs[None]
    return torch.cat((torch.cos(angles), torch.sin(angles)), 1)


def attend(q, k, v, scale, bias=None):
    """q [B,H,N,D], k and v [B,H,M,D], bias [1 or B,H,N,M] -> [B,H,N,D]"""
    logits = (q * scale) @ k.transpose(-1, -2)
    return (logits if bias is None else logits + bias).softmax(-1) @ v


# ------------------------------------------------------------------------------------------------ blocks
class Downsample(nn.Module):
    """Convolution 3x3 of stride 2: [N,C,H,W] -> [N,C,H/2,W/2]"""

    def __init__(self, channels):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x):
        return self.op(x)


class Upsample(nn.Module):
    """Nearest neighbour and convolution 3x3: [N,C,H,W] -> [N,C,2H,2W]"""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


RESAMPLE = {
    "plain": lambda x: x,
    "down": lambda x: F.avg_pool2d(x, 2),
    "up": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
}


class ResBlock(nn.Module):
    """Two 3x3 convolutions with a scale and shift from the timestep; `mode` resamples both branches before the first."""

    def __init__(self, c_in, c_emb, c_out, mode="plain"):
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(GROUPS, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(c_emb, 2 * c_out))
        self.out_layers = nn.Sequential(nn.GroupNorm(GROUPS, c_out), nn.SiLU(), nn.Dropout(0.0), nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        self.resample = RESAMPLE[mode]

    def forward(self, x, emb):
        norm, silu, conv = self.in_layers
        h = conv(self.resample(silu(norm(x))))
        scale, shift = self.emb_layers(emb)[:, :, None, None].chunk(2, 1)
        norm, silu, _, conv = self.out_layers
        return self.skip_connection(self.resample(x)) + conv(silu(norm(h) * (1 + scale) + shift))


class AttentionBlock(nn.Module):
    """Self-attention over the pixels; the channels of qkv are head-major: q, k and v of head 0, then of head 1, ..."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        n, c = x.shape[:2]
        qkv = self.qkv(self.norm(x).flatten(2)).view(n, self.heads, 3, c // self.heads, -1)
        q, k, v = qkv.transpose(3, 4).unbind(2)                                          # each [N,heads,pixels,D]
        y = attend(q, k, v, (c // self.heads) ** -0.5).transpose(2, 3).reshape(n, c, -1)
        return x + self.proj_out(y).view_as(x)


class Stage(nn.Sequential):
    """One numbered block of the network: its layers in order, the timestep given to those that take it."""

    def forward(self, x, emb):
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class UNet(nn.Module):
    """x [N,3,H,W], t [N] -> [N,out_channels,H,W]; H and W multiples of 2^(levels-1)."""

    def __init__(self, channels, channel_mult, res_blocks, attention_factors, resblock_updown, out_channels, heads=None, head_channels=None):
        super().__init__()
        self.channels, c_emb = channels, 4 * channels

        def attention(c, factor=None):
            """An attention block where the factor has one, and always without a factor."""
            wanted = factor is None or factor in attention_factors
            return [AttentionBlock(c, c // head_channels if head_channels else heads)] if wanted else []

        self.time_embed = nn.Sequential(nn.Linear(channels, c_emb), nn.SiLU(), nn.Linear(c_emb, c_emb))
        c, factor = channel_mult[0] * channels, 1
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(3, c, 3, padding=1))])
        skips = [c]
        for level, mult in enumerate(channel_mult):
            if level > 0:
                self.input_blocks.append(Stage(ResBlock(c, c_emb, c, "down") if resblock_updown else Downsample(c)))
                skips.append(c)
                factor *= 2
            for _ in range(res_blocks):
                block = ResBlock(c, c_emb, mult * channels)
                c = mult * channels
                self.input_blocks.append(Stage(block, *attention(c, factor)))
                skips.append(c)
        self.middle_block = Stage(ResBlock(c, c_emb, c), *attention(c), ResBlock(c, c_emb, c))
        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(channel_mult))):
            for i in range(res_blocks + 1):
                block = ResBlock(c + skips.pop(), c_emb, mult * channels)
                c = mult * channels
                layers = [block, *attention(c, factor)]
                if level > 0 and i == res_blocks:
                    layers.append(ResBlock(c, c_emb, c, "up") if resblock_updown else Upsample(c))
                    factor //= 2
                self.output_blocks.append(Stage(*layers))
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, c), nn.SiLU(), nn.Conv2d(c, out_channels, 3, padding=1))

    def forward(self, x, t):
        emb = self.time_embed(timestep_embedding(t, self.channels).to(x.dtype))
        h, skips = x, []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat((h, skips.pop()), 1), emb)
        return self.out(h)


def build(config):
    """U-Net in eval mode, parameters frozen, from a `config` object; missing keys take the values of the CIFAR-10 net."""
    unknown = set(config) - set(DEFAULTS) - {"head_channels"}
    if unknown or {"heads", "head_channels"} <= set(config):
        raise ValueError(f"unknown config keys {sorted(unknown)}, or both heads and head_channels; known: {sorted([*DEFAULTS, 'head_channels'])}")
    config = {**DEFAULTS, **config}
    if "head_channels" in config:
        del config["heads"]
    return UNet(**config).eval().requires_grad_(False)


def load_denoiser(path):
    """A .safetensors file with `arch` and `config` in its metadata -> (float32 model in eval mode, metadata)."""
    with safe_open(path, "pt") as f:
        meta, tensors = f.metadata() or {}, {k: f.get_tensor(k).float() for k in f.keys()}
    if meta.get("arch") != "unet" or "config" not in meta:
        raise ValueError(f"{path}: metadata must hold arch=unet and config, got arch={meta.get('arch')!r}")
    return load_state(build(json.loads(meta["config"])), tensors), meta
