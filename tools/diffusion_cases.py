"""The parity cases of the denoiser: its operations, its U-Nets and the whole defence. `Case` and rules as in reference_cases."""
import torch

from reference_cases import Case, normal, on_x, optional, resize


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


# ------------------------------------------------------------------------------------------------ the table
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
    *[resize(f"{mode}_antialias_{what}", x, size, mode, True) for mode in ("bilinear", "bicubic") for what, x, size in (
        ("7x", (1, 3, 4, 4), (28, 28)), ("up_3_to_2", (2, 3, 8, 6), (12, 9)), ("down_8_to_7", (1, 3, 16, 24), (14, 21)))],

    q_sample("cosine", (2, 3, 5, 7), [1158, 1984], "cosine", 4000),
    q_sample("cosine_ends", (3, 1, 3, 5), [0, 2000, 3999], "cosine", 4000),
    q_sample("linear", (3, 3, 4, 5), [0, 145, 999], "linear", 1000),
    q_sample("linear_50_steps", (2, 2, 3, 7), [0, 31], "linear", 50),
    q_sample("one_element", (1, 1, 1, 1), [573], "cosine", 4000),
]
