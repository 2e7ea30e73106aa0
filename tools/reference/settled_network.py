"""Networks whose ReLU masks survive rounding: biases chosen so that no pre-activation of given images lies near zero.

A narrow network with random weights is no test of bfloat16: a few of its many thousand pre-activations change sign, and
each such flip changes the input gradient far more than rounding does. Here every batch norm before a ReLU gets, channel
by channel, the bias that puts zero into a gap between the channel's sorted pre-activations.
"""

import math

import torch

from bf16_reference import rounded

GAPS = (0.05, 0.18)  # wanted distance at the first and the last ReLU: rounding adds up
SHARES = (0.1, 0.3, 0.5, 0.7)  # of a channel that should be negative


def place_zero(z, bias, shares, gap, limit=math.inf, inertia=0):
    """New biases [C], bfloat16 values, that shift z [N,C,H,W] so that `shares` [C] are negative, or as near as a gap allows.

    `gap` is the wanted distance from zero in standard deviations, `limit` the largest bias to give;
    `inertia` makes large shifts unattractive.
    """
    v = z.movedim(1, 0).flatten(1).sort(1).values  # [C,M]
    count, spread = v.shape[1], v.std(1, keepdim=True)
    spread = torch.maximum(spread, spread.mean())
    ends = 1.5 * gap * spread
    zeros = torch.cat((0 * ends, v[:, :1] - ends, (v[:, 1:] + v[:, :-1]) / 2, v[:, -1:] + ends), 1)  # candidates [C,M+2]
    zeros = bias[:, None] - rounded((bias[:, None] - zeros).float()).double()  # as the rounded bias puts them
    rank = torch.searchsorted(v, zeros)
    below = torch.where(rank > 0, zeros - v.gather(1, (rank - 1).clamp(min=0)), torch.inf)
    above = torch.where(rank < count, v.gather(1, rank.clamp(max=count - 1)) - zeros, torch.inf)
    lack = (1 - torch.minimum(below, above) / (gap * spread)).clamp(min=0)
    cost = (rank / count - shares[:, None]).abs() + 10 * lack + inertia * zeros.abs() / spread
    best = (cost + 100 * ((bias[:, None] - zeros).abs() > limit)).argmin(1, keepdim=True)
    return bias - zeros.gather(1, best)[:, 0]


@torch.no_grad()
def settle(net, x, rng, gaps=GAPS):
    """Settles a float64 ResNet on x; its classifier is scaled by a power of two to logits of about 1."""
    blocks = [block for level in (net.layer1, net.layer2, net.layer3, net.layer4) for block in level]
    relus, met = 1 + sum(3 if hasattr(b, "bn3") else 2 for b in blocks), 0

    def next_gap():
        nonlocal met
        met += 1
        return gaps[0] + (gaps[1] - gaps[0]) * (met - 1) / (relus - 1)

    def shares(channels):
        return torch.from_numpy(rng.choice(SHARES, channels))

    def activate(bn, y, shortcut=0):
        """relu(y + shortcut) with a new bias for bn, whose output is y."""
        bias = bn.bias.clone()
        bn.bias.copy_(place_zero(y + shortcut, bias, shares(len(bias)), next_gap()))
        return torch.relu(y + (bn.bias - bias)[:, None, None] + shortcut)

    def activate_gated(bn, y, gates, shortcut):
        """relu(gates(y) + shortcut): a shift of y changes the gates too, so in a few rounds."""
        wanted, gap = shares(y.shape[1]), next_gap()
        for attempt in range(8):
            factor = gates(y) / y  # in (0,1)
            bias = bn.bias.clone()
            bn.bias.copy_(place_zero(y + shortcut / factor, bias, wanted, gap, 3.0, min(attempt, 1)))
            y = y + (bn.bias - bias)[:, None, None]
        return torch.relu(gates(y) + shortcut)

    h = net.maxpool(activate(net.bn1, net.bn1(net.conv1(x))))
    for block in blocks:
        shortcut = h if block.downsample is None else block.downsample(h)
        h = activate(block.bn1, block.bn1(block.conv1(h)))
        last, y = block.bn2, block.bn2(block.conv2(h))
        if hasattr(block, "bn3"):
            h = activate(block.bn2, y)
            last, y = block.bn3, block.bn3(block.conv3(h))
        h = activate(last, y, shortcut) if block.cbam is None else activate_gated(last, y, block.cbam, shortcut)
    rms = net.fc(h.mean((2, 3))).square().mean().sqrt().item()
    net.fc.weight.mul_(2.0 ** -round(math.log2(rms)))
    return net
