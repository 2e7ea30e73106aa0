"""One-shot diffusion denoised smoothing in plain PyTorch: noise schedules, the step of a sigma, noising, the defence."""

import math
from functools import lru_cache

import numpy as np
import torch


@lru_cache
def alpha_bar(schedule, steps):
    """The cumulative products of 1 - beta, float64 [steps]."""
    if schedule == "cosine":

        def f(u):
            return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

        betas = np.array([min(1 - f((i + 1) / steps) / f(i / steps), 0.999) for i in range(steps)])
    elif schedule == "linear":
        betas = np.linspace(1e-4 * 1000 / steps, 0.02 * 1000 / steps, steps)
    else:
        raise ValueError(f"unknown schedule {schedule!r}; known: cosine, linear")
    return np.cumprod(1 - betas)


def step_of(schedule, steps, sigma):
    """The first step from 1 on whose noise-to-signal ratio reaches 2 * sigma; 0 for sigma 0."""
    if sigma == 0:
        return 0
    ab = alpha_bar(schedule, steps)
    reached = np.nonzero(np.sqrt(1 - ab[1:]) / np.sqrt(ab[1:]) >= 2 * sigma)[0]
    if not len(reached):
        raise ValueError(f"sigma {sigma} is more noise than the {schedule} schedule of {steps} steps has")
    return int(reached[0]) + 1


def column(values, like):
    """float64 values [N] rounded to float32, as [N,1,1,1] in the dtype of `like`."""
    return torch.from_numpy(np.asarray(values).astype(np.float32)).to(like.dtype).view(-1, 1, 1, 1)


def q_sample(schedule, steps, x0, noise, t):
    """x0 and noise [N,C,H,W], steps t [N] -> sqrt(ab) * x0 + sqrt(1 - ab) * noise"""
    ab = alpha_bar(schedule, steps)[t.numpy()]
    return column(np.sqrt(ab), x0) * x0 + column(np.sqrt(1 - ab), x0) * noise


def estimate(net, schedule, steps, tau_scale, sigma, x, noise):
    """Images x [N,3,H,W] in [0,1] -> their estimate in [-1,1] before the clamp."""
    t = step_of(schedule, steps, sigma)
    ab = alpha_bar(schedule, steps)[t]
    noisy = q_sample(schedule, steps, 2 * x - 1, noise, torch.full((len(x),), t))
    tau = torch.full((len(x),), float(np.float32(t) * np.float32(tau_scale)), dtype=torch.promote_types(x.dtype, torch.float32))
    eps = net(noisy, tau)[:, :3]
    return column([math.sqrt(1 / ab)], x) * noisy - column([math.sqrt(1 / ab - 1)], x) * eps


def denoise(net, schedule, steps, tau_scale, sigma, x, noise):
    """Images [N,3,H,W] in [0,1], noise, -> denoised images in [-1,1]."""
    return estimate(net, schedule, steps, tau_scale, sigma, x, noise).clamp(-1, 1)
