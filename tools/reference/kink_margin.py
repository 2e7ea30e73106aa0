"""How far a computation stays from the points where its gradient jumps.

A ReLU switches at 0, a maximum where its two largest values meet, a clamp at its ends. An activation closer to such a point than rounding
errors may fall on either side of it, and the input gradients of two correct implementations then differ by far more
than rounding. Parity dumps are therefore made from inputs that keep a distance.
"""

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

RELUS = (torch.relu, torch.relu_, F.relu, torch.Tensor.relu)


def lead(values):
    """values [...,K] -> how far the largest leads the second; exact ties are left out: scan order decides them."""
    if values.shape[-1] < 2:
        return values.new_empty(0)
    top = values.topk(2, -1).values
    gap = top[..., 0] - top[..., 1]
    return gap[gap > 0]


def pool_windows(x, kernel, stride=None, padding=0, **_):
    """x [N,C,H,W] -> the windows of a max pool, [N,C,P,Q,kh*kw]"""
    # As PyTorch has it, a stride that is not said is the window.
    kernel, stride, padding = ((v, v) if isinstance(v, int) else v for v in (kernel, stride or kernel, padding))
    x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=torch.finfo(x.dtype).min)
    return x.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1]).flatten(4)


class Watch(TorchFunctionMode):
    """Collects, for every ReLU and maximum that runs, the smallest distance relative to the rms of its input."""

    def __init__(self):
        super().__init__()
        self.margins = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with torch.no_grad():
            gap = None
            if function in RELUS:
                gap = args[0].abs()
            elif function is torch.Tensor.max and len(args) > 1:
                gap = lead(args[0].movedim(args[1], -1))
            elif function is torch.Tensor.sort:  # equal values too: their order is nobody's
                ranked = args[0].sort(-1, descending=True).values[..., :4]
                gap = ranked[..., :-1] - ranked[..., 1:]
            elif function in (torch.clamp, torch.Tensor.clamp):
                gap = torch.minimum((args[0] - args[1]).abs(), (args[0] - args[2]).abs())
            elif function is F.max_pool2d or function is torch.max_pool2d:
                gap = lead(pool_windows(*args[:4], **kwargs))
            if gap is not None and gap.numel():
                self.margins.append((gap.min() / args[0].square().mean().sqrt()).item())
        return function(*args, **kwargs)


def kink_margin(run):
    """Calls run() and returns the smallest relative distance met; infinite where nothing can switch."""
    with Watch() as watch:
        run()
    return min(watch.margins, default=float("inf"))
