#!/usr/bin/env python3
"""The diffusion U-Net of improved-diffusion and guided-diffusion in plain PyTorch, for any width and depth.

Parameter names are those of the two projects, so that their public checkpoints load unchanged. x is in [-1,1];
`t` is the number given to the timestep embedding, after any rescaling.

  unet_reference.py --check-golden [--only cifar]     compare with the golden values (float64; imagenet takes 5 GB)
"""

import argparse
import fnmatch
import json
import math
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors import safe_open

from diffusion_reference import denoise, step_of
from resnet_reference import fill_state, fill_tensor, load_state
from unet_golden import DEFENCES, NETWORKS

DEFAULTS = {
    "channels": 128,
    "channel_mult": [1, 2, 2, 2],
    "res_blocks": 3,
    "attention_factors": [2, 4],
    "heads": 4,
    "resblock_updown": False,
    "out_channels": 6,
}
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
        q, k, v = qkv.transpose(3, 4).unbind(2)  # each [N,heads,pixels,D]
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

    def __init__(
        self, channels, channel_mult, res_blocks, attention_factors, resblock_updown, out_channels, heads=None, head_channels=None
    ):
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
        known = sorted([*DEFAULTS, "head_channels"])
        raise ValueError(f"unknown config keys {sorted(unknown)}, or both heads and head_channels; known: {known}")
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


# ------------------------------------------------------------------------------------------------ golden values
# The timestep embedding is float32, whose exp differs in the last bit between processors; an angle of hundreds makes that
# up to 6e-7 at the output (rms 0.5), and changes nothing where the frequencies happen to agree.
GOLDEN_LIMIT = 1.5e-6


def seeded(config):
    """The network in float64 with the deterministic fill of its parameters' names."""
    return fill_state(build(config)).double()


def rms(x):
    return x.square().mean().sqrt().item()


def nearest_rows(y, want):
    """-> (what, worst difference, allowed) of each published figure of an output y [N,C,H,W]"""
    h, w = y.shape[2:]
    got = {
        "mean": y.mean((2, 3)),
        "rms": y.square().mean((2, 3)).sqrt(),
        "first": y[:, 0, 0, :6],
        "middle": y[:, 2, h // 2, w // 2 : w // 2 + 4],
        "last": y[:, -1, -1, -1:],
    }
    rows = []
    for name in got.keys() & want.keys():
        expected = torch.tensor(want[name], dtype=torch.float64)
        rows.append((name, (got[name][: len(expected)] - expected).abs().max().item(), GOLDEN_LIMIT))
    return sorted(rows)


def check_network(case):
    """-> rows (what, difference, allowed)"""
    net, trace = seeded(case["config"]), []
    rows = []
    if "params" in case:
        rows.append(("parameters", abs(sum(p.numel() for p in net.parameters()) - case["params"]), 0))
        rows.append(("state entries", abs(len(net.state_dict()) - case["entries"]), 0))
    for module in (net.time_embed, *net.input_blocks, net.middle_block, *net.output_blocks, net.out):
        module.register_forward_hook(lambda module, args, y: trace.append(rms(y[0])))
    y = net(fill_tensor("input", case["shape"]).double(), torch.tensor(case["tau"]))
    rows += nearest_rows(y, case)
    if len(trace) != len(case["trace"]):
        raise ValueError(f"{case['name']}: {len(trace)} blocks, want {len(case['trace'])}")
    rows.append((f"trace of {len(trace)} blocks", max(abs(a - b) for a, b in zip(trace, case["trace"])), GOLDEN_LIMIT))
    return rows


def check_defence(case):
    schedule, steps, tau_scale, sigma = case["schedule"]
    x, noise = 0.5 + 0.5 * fill_tensor("input", case["shape"]).double(), fill_tensor("noise", case["shape"]).double()
    # The golden values take the timestep embedding by the float32 recipe.
    net = seeded(case["config"])
    x0 = denoise(lambda noisy, tau: net(noisy, tau.float()), schedule, steps, tau_scale, sigma, x, noise)
    rows = [
        ("t", abs(step_of(schedule, steps, sigma) - case["t"]), 0),
        ("clipped", abs(int((x0.abs() == 1).sum()) - case["clipped"]), 0),
        *nearest_rows(x0, case),
    ]
    if "resized" in case:
        size, *want = case["resized"]
        up = F.interpolate(x0, size=(size, size), mode="bicubic", antialias=True)
        got = up.min().item(), up.max().item(), up.mean().item()
        rows.append((f"min, max, mean at {size}", max(abs(a - b) for a, b in zip(got, want)), GOLDEN_LIMIT))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check-golden", action="store_true", help="compare with the golden values; exit 1 on a difference")
    parser.add_argument("--only", default="*", metavar="PATTERN", help=f"of {', '.join(c['name'] for c in NETWORKS + DEFENCES)}")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    checks = [(c, check_network) for c in NETWORKS] + [(c, check_defence) for c in DEFENCES]
    checks = [(c, check) for c, check in checks if fnmatch.fnmatch(c["name"], args.only)]
    if not args.check_golden or not checks:
        parser.error(f"no golden values match {args.only!r}" if args.check_golden else "nothing to do: pass --check-golden")
    torch.set_num_threads(args.threads)
    failed = 0
    for case, check in checks:
        for what, difference, allowed in check(case):
            ok = difference <= allowed
            failed += not ok
            print(f"{'ok  ' if ok else 'FAIL'}  {case['name']:22} {what:24} {difference:.1e} of {allowed:.1e}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
