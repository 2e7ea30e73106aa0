"""The parity cases of the denoiser: its operations, its U-Nets and the whole defence. `Case` and rules as in reference_cases."""

from functools import lru_cache

import numpy as np
import torch

import resnet_reference as resnet
import unet_reference as unet
from bf16_reference import rounded
from diffusion_reference import alpha_bar, estimate, step_of
from reference_cases import Case, normal, on_x, optional, resize, settled_weights, stored
from reference_ops import replay
from unet_golden import IMAGENET


# ------------------------------------------------------------------------------------------------ builders
def group_norm(name, x, groups, affine=True, scale_shift=False, activation=None, eps=1e-5, mean=0.0, **case):
    """x (N,C,H,W), moved by `mean`, which a one-pass variance does not survive"""

    def make(rng):
        inputs = {"x": normal(rng, x) + mean}
        if scale_shift:
            inputs.update(scale=normal(rng, x[:2], 0.5), shift=normal(rng, x[:2], 0.5))
        weights = {"weight": 1 + normal(rng, x[1:2], 0.2), "bias": normal(rng, x[1:2], 0.2)} if affine else {}
        return inputs, weights

    return Case("group_norm", name, dict(groups=groups, eps=eps, **optional(activation=activation)), make, **case)


def attention(name, q, keys=None, bias=None, spread=1.0, scale=None, masked=0, shift=0, **case):
    """q (B,H,N,D), `keys` of them where not N, bias of so many images (1 or B).

    `masked` first keys get a bias of -1000, all others `shift`; then values are coarse so that the scores stay exact.
    """
    b, h, n, d = q
    m = keys or n

    def make(rng):
        inputs = {"q": normal(rng, q, spread), "k": normal(rng, (b, h, m, d)), "v": normal(rng, (b, h, m, d))}
        if bias:
            inputs["bias"] = normal(rng, (bias, h, n, m))
            inputs["bias"][..., :masked] = -1000
        if shift:
            inputs = {key: (4 * t).round() / 4 for key, t in inputs.items()}
            inputs["bias"][..., masked:] = shift
        return inputs, {}

    return Case("attention", name, optional(scale=scale), make, **case)


def timestep_embedding(name, t, dim, max_period=10000):
    return Case("timestep_embedding", name, dict(dim=dim, max_period=max_period), lambda rng: ({"t": torch.tensor(t)}, {}))


def q_sample(name, x, t, schedule, steps):
    """x (N,C,H,W), one step for each image"""

    def make(rng):
        return {"x0": normal(rng, x).clamp(-1, 1), "noise": normal(rng, x), "t": torch.tensor(t)}, {}

    return Case("q_sample", name, dict(schedule=schedule, steps=steps), make)


def unet_weights(config):
    return unet.fill_state(unet.build(config)).state_dict()


def model(name, x, tau, seed=0, **config):
    """A U-Net by the deterministic fill; x (N,3,H,W), one number for the embedding per image"""

    def make(rng):
        return {"x": normal(rng, x), "t": torch.tensor(tau)}, unet_weights(config)

    return Case("model", name, {"arch": "unet", "config": config}, make, seed, torch.float16)


def unclamped_noise(rng, attrs, x, weights, margin=0.05):
    """Noise for which no value of the estimate lies within `margin` of the clamp: there bfloat16 would decide the gradient."""
    net = unet.load_state(unet.build(attrs["config"]).double(), weights)
    schedule = [attrs[k] for k in ("schedule", "steps", "tau_scale", "sigma")]
    ab = alpha_bar(attrs["schedule"], attrs["steps"])[step_of(attrs["schedule"], attrs["steps"], attrs["sigma"])]
    noise = rounded(normal(rng, tuple(x.shape)))
    for _ in range(200):
        x0 = estimate(net, *schedule, x.double(), noise.double())
        beyond = x0.abs() - 1
        if (beyond.abs() >= margin).all():
            return noise
        wanted = x0.sign() * (1 + 1.5 * margin * beyond.sign())
        moved = noise + (wanted - x0) / np.sqrt(1 / ab - 1)
        noise = torch.where(beyond.abs() < margin, rounded(moved.float()), noise)
    raise ValueError("no noise keeps the estimate clear of the clamp")


def dds_inputs(rng, attrs, x):
    """-> inputs, weights; images x (N,3,H,W) of values that bfloat16 holds"""
    weights = {k: stored(t, torch.float16, True) for k, t in unet_weights(attrs["config"]).items()}
    images = rounded(torch.from_numpy(rng.uniform(0, 1, x).astype(np.float32)))
    return {"x": images, "noise": unclamped_noise(rng, attrs, images, weights)}, weights


def dds(name, x, schedule, steps, tau_scale, sigma, **config):
    attrs = dict(config=config, schedule=schedule, steps=steps, tau_scale=tau_scale, sigma=sigma)
    return Case("dds", name, attrs, lambda rng: dds_inputs(rng, attrs, x), 0, torch.float16)


def defended(name, x, classes, attrs, seed):
    """Two dumps of one pipeline: `model` is a classifier of the normalised output of `dds`, whose `dout` is the classifier's gradient.

    So `out.dx` of `dds` is the gradient of the summed cross-entropy through classifier, clamp, U-Net and noising.
    """
    config = {**resnet.DEFAULTS, "depth": 18, "width": 3, "classes": classes}
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]))

    @lru_cache
    def pipeline(seed):
        rng = np.random.default_rng(seed)
        inputs, weights = dds_inputs(rng, attrs, x)
        x0 = replay("dds", attrs, dict(inputs), weights)["x0"]
        normalised = (((x0 + 1) / 2 - mean) / std).float()
        classifier = settled_weights(config, normalised, rng, torch.float16)
        labels = torch.from_numpy(rng.integers(0, classes, x[0]))
        wanted = {"x": normalised, "labels": labels}
        gradient = replay("model", {"arch": "resnet", "config": config}, dict(wanted), classifier)["dx"]
        return {**inputs, "dout": (gradient / (2 * std)).float()}, weights, wanted, classifier

    exact = dict(seed=seed, weight_dtype=torch.float16, exact=False)

    def part(first):
        return lambda rng: tuple(map(dict, pipeline(seed)[first : first + 2]))

    return [
        Case("dds", name, attrs, part(0), **exact),
        Case("model", f"resnet18_w3_{name}", {"arch": "resnet", "config": config}, part(2), **exact),
    ]


# ------------------------------------------------------------------------------------------------ the table
SMALL = dict(channels=32, res_blocks=1, attention_factors=[2])
ONE_LEVEL = dict(channels=32, channel_mult=[1], res_blocks=1, attention_factors=[], resblock_updown=False)

DIFFUSION_CASES = [
    group_norm("three_elements", (1, 1, 1, 3), 1),
    group_norm("plain", (2, 6, 5, 7), 3, affine=False),
    group_norm("one_group", (2, 5, 3, 7), 1),
    group_norm("one_channel_each", (1, 7, 5, 3), 7),
    group_norm("silu", (2, 10, 7, 5), 5, activation="silu"),
    group_norm("scale_shift", (3, 9, 4, 5), 3, scale_shift=True),
    group_norm("scale_shift_silu", (2, 64, 3, 5), 32, scale_shift=True, activation="silu"),
    group_norm("scale_shift_silu_no_affine", (2, 12, 3, 5), 4, affine=False, scale_shift=True, activation="silu"),
    group_norm("32_channels", (2, 32, 5, 4), 32, activation="silu"),
    group_norm("96_channels", (2, 96, 3, 4), 32, scale_shift=True, activation="silu"),
    group_norm("96_channels_no_activation", (1, 96, 5, 3), 32),
    group_norm("160_channels", (1, 160, 2, 3), 32, activation="silu"),
    group_norm("384_channels", (1, 384, 3, 2), 32, scale_shift=True, activation="silu"),
    group_norm("768_channels", (1, 768, 2, 1), 32, activation="silu"),
    group_norm("many_pixels", (1, 4, 31, 29), 2, activation="silu"),
    group_norm("one_pixel", (3, 160, 1, 1), 32, scale_shift=True, activation="silu"),
    group_norm("eps_1e-2", (2, 8, 3, 4), 4, eps=1e-2),
    group_norm("far_from_zero", (1, 8, 9, 7), 2, mean=32.0),
    group_norm("float32", (2, 33, 5, 3), 11, scale_shift=True, activation="silu", exact=False),
    # With one key the weight is 1 whatever q and k are: the gradients are 0, but for rounding.
    attention("d8_one_token", (1, 1, 1, 8), without=("dq", "dk")),
    attention("d8_7", (2, 3, 7, 8)),
    attention("d8_256", (1, 1, 256, 8)),
    attention("d16_16", (1, 2, 16, 16), spread=3.0),
    attention("d16_100", (1, 1, 100, 16), scale=0.5),
    attention("d32_49", (1, 1, 49, 32)),
    attention("d32_64", (1, 1, 64, 32), spread=4.0),
    attention("d64_7", (1, 2, 7, 64)),
    attention("d64_33", (1, 1, 33, 64)),
    attention("d128_16", (1, 1, 16, 128)),
    attention("d128_7_queries_19_keys", (1, 1, 7, 128), keys=19),
    attention("d128_one_token", (2, 1, 1, 128), without=("dq", "dk")),
    attention("d8_bias_49", (1, 2, 49, 8), bias=1),
    attention("d16_bias_7", (2, 3, 7, 16), bias=2),
    attention("d16_bias_64", (1, 1, 64, 16), bias=1),
    attention("d32_bias_16", (2, 1, 16, 32), bias=1, scale=0.25),
    attention("d32_7_queries_100_keys", (1, 1, 7, 32), keys=100),
    attention("d16_64_queries_one_key", (1, 1, 64, 16), keys=1, without=("dq", "dk")),
    attention("d16_49_queries_7_keys_bias", (2, 1, 49, 16), keys=7, bias=2),
    attention("d24", (1, 2, 17, 24)),
    attention("first_keys_masked", (1, 1, 5, 8), keys=150, bias=1, masked=131),
    attention("large_scores", (1, 1, 49, 16), bias=1, shift=160, scale=1.0),
    attention("float32", (1, 2, 33, 16), bias=1, exact=False),
    timestep_embedding("dim2", [0.0, 1.0, 2.5], 2),
    timestep_embedding("128", [0.0, 56.25, 289.5, 496.0, 999.0], 128),
    timestep_embedding("32", [1158.0, 1984.0, 3999.0], 32),
    timestep_embedding("256_one", [145.0], 256),
    timestep_embedding("odd_half_max_period", [7.25, 100.0], 18, 100),
    on_x("upsample_nearest", "scale2_64_channels", (1, 64, 3, 2), scale=2),
    *[
        resize(f"{mode}_antialias_{what}", x, size, mode, True)
        for mode in ("bilinear", "bicubic")
        for what, x, size in (
            ("7x", (1, 3, 4, 4), (28, 28)),
            ("up_3_to_2", (2, 3, 8, 6), (12, 9)),
            ("down_8_to_7", (1, 3, 16, 24), (14, 21)),
        )
    ],
    q_sample("cosine", (2, 3, 5, 7), [1158, 1984], "cosine", 4000),
    q_sample("cosine_ends", (3, 1, 3, 5), [0, 2000, 3999], "cosine", 4000),
    q_sample("linear", (3, 3, 4, 5), [0, 145, 999], "linear", 1000),
    q_sample("linear_50_steps", (2, 2, 3, 7), [0, 31], "linear", 50),
    q_sample("one_element", (1, 1, 1, 1), [573], "cosine", 4000),
    model("unet_strided", (2, 3, 8, 8), [289.5, 7.25], **SMALL, channel_mult=[2, 1], heads=4, resblock_updown=False, out_channels=6),
    model(
        "unet_updown", (1, 3, 8, 12), [145.0], seed=5, **SMALL, channel_mult=[1, 1], head_channels=8, resblock_updown=True, out_channels=6
    ),
    dds("linear", (2, 3, 8, 10), "linear", 1000, 1, 0.5, **ONE_LEVEL, heads=2, out_channels=3),
    *defended(
        "defended",
        (2, 3, 16, 16),
        10,
        dict(config={**ONE_LEVEL, "head_channels": 8, "out_channels": 6}, schedule="cosine", steps=4000, tau_scale=0.25, sigma=0.25),
        seed=0,
    ),
]

# Whole architectures at 32 channels: written on request, for their weights are large.
LARGE_CASES = [
    model(
        "unet_demo",
        (2, 3, 32, 32),
        [1158.0, 1984.0],
        channels=32,
        channel_mult=[1, 2, 2],
        res_blocks=2,
        attention_factors=[2, 4],
        heads=4,
        resblock_updown=False,
        out_channels=3,
    ),
    model("unet_cifar_w32", (1, 3, 32, 32), [289.5], **{**unet.DEFAULTS, "channels": 32}),
    model("unet_imagenet_w32", (1, 3, 64, 32), [145.0], **{**IMAGENET, "channels": 32, "head_channels": 32}),
]
