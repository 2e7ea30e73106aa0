"""The parity cases: one line each. Sizes are odd, prime or 1 where nothing else is the point, H != W, C != K."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

import coatnet_reference as coatnet
import resnet_reference as resnet
import resnet_study_reference as resnet_study
from bf16_reference import rounded
from settled_network import GAPS, settle

ONE, PAIR = (1, 1), (2, 2)


@dataclass(frozen=True)
class Case:
    """One dump. `make(rng)` returns (inputs, weights), float32 tensors by name, without `dout`."""

    op: str
    name: str
    attrs: dict
    make: Callable
    seed: int = 0
    weight_dtype: torch.dtype = torch.float32  # of weights with two or more dimensions
    exact: bool = True  # inputs and weights are values that bfloat16 holds
    without: tuple = ()  # outputs that are left out

    @property
    def path(self):
        return f"{self.op}/{self.name}"


def normal(rng, shape, scale=1.0):
    """Normal float32 tensor."""
    return torch.from_numpy((scale * rng.standard_normal(shape)).astype(np.float32))


def fan_in_normal(rng, shape):
    """Weight [O,...] that keeps the variance."""
    return normal(rng, shape, 1 / math.sqrt(math.prod(shape[1:])))


def stored(t, dtype, exact):
    """The values a dump holds: weights with two or more dimensions in `dtype`; if `exact`, values that bfloat16 holds."""
    if not t.is_floating_point():
        return t
    t = t.to(dtype) if t.dim() > 1 else t
    return rounded(t) if exact else t


def batch_norm_state(rng, channels, prefix=""):
    """Random affine parameters and running statistics, each [channels]."""
    return {
        prefix + "weight": 1 + normal(rng, (channels,), 0.2),
        prefix + "bias": normal(rng, (channels,), 0.2),
        prefix + "running_mean": normal(rng, (channels,), 0.2),
        prefix + "running_var": torch.from_numpy(rng.uniform(0.5, 1.5, channels).astype(np.float32)),
    }


def optional(**attrs):
    return {k: v for k, v in attrs.items() if v is not None}


# ------------------------------------------------------------------------------------------------ builders
def conv(name, x, w, stride=ONE, padding=(0, 0), dilation=ONE, groups=1, bias=False, activation=None, **case):
    """x (N,C,H,W), w (O,kh,kw)"""

    def make(rng):
        weights = {"weight": fan_in_normal(rng, (w[0], x[1] // groups, *w[1:]))}
        if bias:
            weights["bias"] = normal(rng, (w[0],), 0.3)
        return {"x": normal(rng, x)}, weights

    attrs = dict(stride=stride, padding=padding, dilation=dilation, groups=groups, **optional(activation=activation))
    return Case("conv2d", name, attrs, make, **case)


def conv_bn(name, x, w, stride=ONE, padding=(0, 0), groups=1, eps=1e-5, activation=None, residual=False, **case):
    """x (N,C,H,W), w (O,kh,kw)"""

    def make(rng):
        inputs = {"x": normal(rng, x)}
        if residual:
            size = [(d + 2 * p - k) // s + 1 for d, p, k, s in zip(x[2:], padding, w[1:], stride)]
            inputs["residual"] = normal(rng, (x[0], w[0], *size))
        return inputs, {"weight": fan_in_normal(rng, (w[0], x[1] // groups, *w[1:])), **batch_norm_state(rng, w[0], "bn.")}

    attrs = dict(stride=stride, padding=padding, groups=groups, eps=eps, **optional(activation=activation))
    return Case("conv2d_bn", name, attrs, make, **case)


def linear(name, x, outputs, bias=True, activation=None, **case):
    def make(rng):
        weights = {"weight": fan_in_normal(rng, (outputs, x[-1]))}
        if bias:
            weights["bias"] = normal(rng, (outputs,), 0.3)
        return {"x": normal(rng, x)}, weights

    return Case("linear", name, optional(activation=activation), make, **case)


def matmul(name, a, b, **case):
    return Case("matmul", name, {}, lambda rng: ({"a": normal(rng, a), "b": normal(rng, b)}, {}), **case)


def batch_norm(name, x, eps=1e-5, tracked=False, **case):
    def make(rng):
        weights = batch_norm_state(rng, x[1])
        if tracked:  # as in a full state_dict: to be ignored
            weights["num_batches_tracked"] = torch.tensor(7)
        return {"x": normal(rng, x)}, weights

    return Case("batch_norm", name, {"eps": eps}, make, **case)


def on_x(op, name, x, spread=1.0, shift=0.0, integers=False, seed=0, **attrs):
    """An op of one tensor; `integers` rounds the input, which makes ties and exact zeros."""

    def make(rng):
        values = normal(rng, x, spread) + shift
        return {"x": values.round() if integers else values}, {}

    return Case(op, name, attrs, make, seed)


def pool(op, name, x, kernel, stride, padding=(0, 0), ceil_mode=False, integers=False, shift=0.0, **attrs):
    def make(rng):
        values = normal(rng, x) + shift
        return {"x": values.round() if integers else values}, {}

    return Case(op, name, dict(kernel=kernel, stride=stride, padding=padding, ceil_mode=ceil_mode, **attrs), make)


def resize(name, x, size, mode, antialias):
    return on_x("resize", name, x, size=size, mode=mode, antialias=antialias, align_corners=False)


def gate(op, name, x, seed=0, **attrs):
    """channel_gate, spatial_gate or cbam, with the parameter names of the module."""

    def make(rng):
        module = {
            "channel_gate": lambda: resnet.ChannelGate(x[1], attrs["reduction"]),
            "spatial_gate": lambda: resnet.SpatialGate(attrs["kernel"], attrs["eps"]),
            "cbam": lambda: resnet.CBAM(x[1], **attrs),
        }[op]()
        weights = {}
        for key, t in module.state_dict().items():
            if "running_var" in key:
                weights[key] = torch.from_numpy(rng.uniform(0.5, 1.5, t.shape).astype(np.float32))
            elif t.dim() > 1:
                weights[key] = fan_in_normal(rng, tuple(t.shape))
            elif t.is_floating_point():
                weights[key] = normal(rng, tuple(t.shape), 0.3) + (1 if key.endswith("bn.weight") else 0)
        return {"x": normal(rng, x)}, weights

    return Case(op, name, attrs, make, seed)


def loss(op, name, n, classes, scale=2.0, targets=False, seed=0, **attrs):
    def make(rng):
        labels = torch.from_numpy(rng.integers(0, classes, n))
        inputs = {"logits": rounded(normal(rng, (n, classes), scale)), "labels": labels}
        labels[::3] = inputs["logits"][::3].argmax(1)  # every third is classified correctly
        if targets:
            inputs["targets"] = (labels + torch.from_numpy(rng.integers(1, classes, n))) % classes
        return inputs, {}

    return Case(op, name, attrs, make, seed)


def vote(name, rows, classes, seed=0):
    """`rows` says how many draws each image has."""

    def make(rng):
        image = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(rows))
        return {"logits": rounded(normal(rng, (sum(rows), classes), 2.0)), "image": image}, {}

    return Case("vote", name, {"images": len(rows)}, make, seed)


def network_weights(config, tracked=False, family=resnet):
    """State of the network by the deterministic fill, `num_batches_tracked` only if `tracked`."""
    state = resnet.fill_state(family.build(config)).state_dict()
    return {k: t for k, t in state.items() if tracked or not k.endswith("num_batches_tracked")}


def settled_weights(config, x, rng, dtype, tracked=False, gaps=GAPS, family=resnet):
    """The same with biases for which no pre-activation of x comes close to zero, and with weaker branches and gates."""
    weights = network_weights(config, tracked, family)
    last = ".bn3.weight" if config.get("depth", 50) == 50 else ".bn2.weight"
    for key, t in weights.items():
        if key.endswith(last) or "mlp." in key:
            t *= 0.5
    net = family.build(config).double()
    resnet.load_state(net, {k: stored(t, dtype, True).to(net.state_dict()[k].dtype) for k, t in weights.items()})
    state = settle(net, rounded(x).double(), rng, gaps).state_dict()
    return {k: state[k].float() if t.is_floating_point() else t for k, t in weights.items()}


def model(name, x, seed, dtype=torch.float16, tracked=False, **config):
    config = {**resnet.DEFAULTS, **config}

    def make(rng):
        inputs = {"x": normal(rng, x), "labels": torch.from_numpy(rng.integers(0, config["classes"], x[0]))}
        return inputs, settled_weights(config, inputs["x"], rng, dtype, tracked)

    return Case("model", name, {"arch": "resnet", "config": config}, make, seed, dtype)


def study(name, x, seed, **config):
    def make(rng):
        inputs = {"x": normal(rng, x), "labels": torch.from_numpy(rng.integers(0, config["classes"], x[0]))}
        return inputs, settled_weights(config, inputs["x"], rng, torch.float16, family=resnet_study)

    return Case("model", name, {"arch": "resnet_study", "config": config}, make, seed, torch.float16)


def coatnet_model(name, n, dtype, seed=0, **config):
    def make(rng):
        x = normal(rng, (n, 3, config["image"], config["image"]))
        labels = torch.from_numpy(rng.integers(0, config["classes"], n))
        return {"x": x, "labels": labels}, network_weights(config, family=coatnet)

    return Case("model", name, {"arch": "coatnet", "config": config}, make, seed, dtype)


def layer_norm(name, x, dim, eps=1e-6, affine=True, spread=1.0, shift=0.0, **case):
    def make(rng):
        c = x[1] if dim == "channel" else x[-1]
        weights = {"weight": 1 + normal(rng, (c,), 0.3), "bias": normal(rng, (c,), 0.3)} if affine else {}
        return {"x": normal(rng, x, spread) + shift}, weights

    return Case("layer_norm", name, {"eps": eps, "dim": dim}, make, **case)


def feature_map(name, x, layer, **config):
    config = {**resnet.DEFAULTS, **config}

    def make(rng):
        return {"x": normal(rng, x)}, network_weights(config)

    return Case("feature_map", name, {"arch": "resnet", "config": config, "layer": layer}, make, 0, torch.float16)


def coatnet_map(name, n, layer, dtype=torch.float16, sharpness=2.0, **config):
    """A `feature_map` of a CoAtNet; queries and keys are scaled up by `sharpness`, or else its attention would be almost uniform."""

    def make(rng):
        weights = network_weights(config, family=coatnet)
        for key, t in weights.items():
            if "attn.qkv" in key:
                t *= sharpness
        return {"x": normal(rng, (n, 3, config["image"], config["image"]))}, weights

    return Case("feature_map", name, {"arch": "coatnet", "config": config, "layer": layer}, make, 0, dtype)


def images(rng, shape):
    """8-bit pixels as float32 in [0,1]"""
    return torch.from_numpy(rng.integers(0, 256, shape).astype(np.float32) / np.float32(255))


def start_in_ball(rng, x, norm, eps):
    """A random start within eps of x and within [0,1]."""
    if norm == "linf":
        offset = rng.uniform(-1, 1, x.shape)
    else:
        offset = rng.standard_normal(x.shape)
        radius = rng.uniform(0, 1, (len(x), 1, 1, 1)) ** (1 / x[0].numel())
        offset *= radius / np.sqrt((offset**2).sum((1, 2, 3), keepdims=True))
    return (x + torch.from_numpy((eps * offset).astype(np.float32))).clamp(0, 1)


def pgd_step(name, x, norm, eps, step_size, inside=1.0):
    """Image 0 has no gradient at all, image 1 a tiny one; `inside` places x at that part of the ball."""

    def make(rng):
        clean = images(rng, x)
        grad = normal(rng, x, 0.01)
        grad[0] = 0
        if x[0] > 1:
            grad[1] *= 1e-33  # its squares underflow
            grad[1, :, ::2] = 0
        return {"x": start_in_ball(rng, clean, norm, inside * eps), "x_clean": clean, "grad": grad}, {}

    return Case("pgd_step", name, dict(norm=norm, eps=eps, step_size=step_size), make, exact=False)


def apgd_step(name, x, norm, eps, share):
    """Step sizes are halved from image to image."""

    def make(rng):
        clean = images(rng, x)
        points = {k: start_in_ball(rng, clean, norm, eps) for k in ("x", "prev")}
        eta = torch.tensor([2 * eps / 2**i for i in range(x[0])], dtype=torch.float32)
        return {**points, "x_clean": clean, "grad": normal(rng, x, 0.01), "eta": eta}, {}

    return Case("apgd_step", name, dict(norm=norm, eps=eps, share=share), make, exact=False)


def fab_step(name, x, norm, reach):
    """`reach` is the distance to the plane in parts of sum |w|, on either side in turn: 0.9 and more is beyond the box."""

    def make(rng):
        clean, w = images(rng, x), normal(rng, x)
        w[:, 0, 0, 0] = 0
        sign = torch.tensor([(-1.0) ** i for i in range(x[0])])
        return {"x": start_in_ball(rng, clean, "linf", 0.1), "x_clean": clean, "w": w, "df": sign * reach * w.abs().flatten(1).sum(1)}, {}

    return Case("fab_step", name, dict(norm=norm), make, exact=False)


def min_norm_step(name, x, norm, eps, step_size, sphere=False):
    """Image 0 stands at the clean one, where its boundary is estimated; image 1 has no gradient; image 2 may go beyond the box."""

    def make(rng):
        clean = images(rng, x)
        start, grad = start_in_ball(rng, clean, norm, eps), normal(rng, x, 0.01)
        rows = torch.tensor([[eps / 2**i, 0.0] for i in range(x[0])], dtype=torch.float32)
        start[0], rows[0] = clean[0], torch.tensor([0.0, 0.02])
        if x[0] > 2:
            grad[1], rows[2, 0] = 0, 1e6
        return {"x": start, "x_clean": clean, "grad": grad, "rows": rows}, {}

    return Case("min_norm_step", name, dict(norm=norm, step_size=step_size, sphere=sphere), make, exact=False)


def square_step(name, x, norm, eps, side):
    """Windows apart, overlapping and the same; the first at a corner."""

    def make(rng):
        clean = images(rng, x)
        places = rng.integers(0, (x[2] - side + 1, x[3] - side + 1) * 2, (x[0], 4))
        places[0] = (0, 0, x[2] - side, x[3] - side)
        if x[0] > 1:
            places[1, 2:] = places[1, :2]
        windows = np.concatenate([places, rng.integers(0, (1 << x[1], 2), (x[0], 2))], 1)
        best = start_in_ball(rng, clean, norm, 0.8 * eps)
        return {"best": best, "x_clean": clean, "windows": torch.from_numpy(windows)}, {}

    return Case("square_step", name, dict(norm=norm, eps=eps, side=side), make, exact=False)


def pgd(name, x, norm, eps, step_size, steps, seed, gaps, **config):
    """`gaps` wide enough for the attack not to cross them often."""
    config = {**resnet.DEFAULTS, **config}
    mean, std = [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]
    attrs = dict(
        arch="resnet", config=config, mean=mean, std=std, norm=norm, eps=eps, step_size=step_size, steps=steps, loss="cross_entropy"
    )

    def make(rng):
        clean = images(rng, x)
        labels = torch.from_numpy(rng.integers(0, config["classes"], x[0]))
        inputs = {"x": clean, "labels": labels, "start": start_in_ball(rng, clean, norm, eps)}
        normalised = (clean - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)
        return inputs, settled_weights(config, normalised, rng, torch.float16, gaps=gaps)

    return Case("pgd", name, attrs, make, seed, torch.float16, exact=False)


# ------------------------------------------------------------------------------------------------ the table
ELEMENTWISE = [
    case
    for op in ("relu", "silu", "gelu", "gelu_tanh", "sigmoid", "tanh")
    for case in (
        on_x(op, "odd", (2, 3, 5, 7)),
        on_x(op, "one", (1, 1, 1, 1)),
        on_x(op, "flat", (259,)),
        on_x(op, "wide_range", (3, 67), spread=30.0, seed=6),
        on_x(op, "zeros", (2, 5, 3, 3), integers=True),
    )
]

CASES = [
    conv("one_element", (1, 1, 1, 1), (1, 1, 1)),
    conv("1x1", (2, 5, 7, 3), (11, 1, 1), bias=True),
    conv("1x1_stride2", (2, 7, 9, 6), (13, 1, 1), stride=PAIR),
    conv("1x1_pad1", (1, 3, 4, 5), (5, 1, 1), padding=ONE, bias=True),
    conv("1x1_deep", (1, 259, 3, 2), (6, 1, 1)),
    conv("1x1_many_pixels", (3, 4, 11, 13), (5, 1, 1)),
    conv("1x1_64_to_128", (1, 64, 3, 2), (128, 1, 1), weight_dtype=torch.float16),
    conv("1x1_128_to_64_stride2", (1, 128, 5, 3), (64, 1, 1), stride=PAIR, weight_dtype=torch.float16),
    conv("3x3_pad1", (2, 5, 7, 11), (3, 3, 3), padding=ONE),
    conv("3x3_no_padding_to_one_pixel", (3, 7, 3, 3), (5, 3, 3), bias=True),
    conv("3x3_stride2_pad1", (2, 6, 9, 7), (10, 3, 3), stride=PAIR, padding=ONE),
    conv("3x3_stride2_unused_border", (1, 3, 8, 6), (5, 3, 3), stride=PAIR),
    conv("3x3_64_to_64", (1, 64, 4, 5), (64, 3, 3), padding=ONE, weight_dtype=torch.float16),
    conv("3x3_17_to_33", (1, 17, 5, 4), (33, 3, 3), padding=ONE, bias=True),
    conv("3x3_pad3", (1, 2, 3, 5), (3, 3, 3), padding=(3, 3)),
    conv("3x3_one_row", (2, 3, 1, 17), (5, 3, 3), padding=ONE),
    conv("3x3_one_pixel", (2, 9, 1, 1), (4, 3, 3), padding=ONE),
    conv("3x3_dilation2", (1, 5, 11, 9), (7, 3, 3), padding=PAIR, dilation=PAIR),
    conv("3x3_stem", (1, 3, 17, 13), (8, 3, 3), padding=ONE),
    conv("7x7_stem_stride2", (1, 3, 23, 19), (16, 7, 7), stride=PAIR, padding=(3, 3)),
    conv("7x7_two_to_one", (2, 2, 9, 5), (1, 7, 7), padding=(3, 3)),
    conv("5x5_stride2_dilation2", (1, 3, 13, 11), (4, 5, 5), stride=PAIR, padding=(3, 3), dilation=PAIR),
    conv("3x5_stride1x2_dilation2x1", (2, 4, 9, 10), (6, 3, 5), stride=(1, 2), padding=(2, 1), dilation=(2, 1), bias=True),
    conv("2x2_stride3_gaps", (1, 5, 11, 8), (3, 2, 2), stride=(3, 3)),
    conv("2x4_even_window", (2, 3, 7, 9), (5, 2, 4), padding=(1, 2)),
    conv("pad_four_sides", (2, 3, 7, 6), (5, 3, 3), padding=(1, 2, 0, 3)),
    conv("pad_four_sides_stride2", (1, 4, 8, 9), (7, 3, 3), stride=PAIR, padding=(0, 1, 0, 1), bias=True),
    conv("groups2", (2, 6, 5, 7), (4, 3, 3), padding=ONE, groups=2),
    conv("groups_of_3", (2, 12, 7, 5), (8, 3, 3), padding=ONE, groups=4, bias=True),
    conv("groups_of_5_stride2", (1, 15, 9, 8), (9, 3, 3), stride=PAIR, padding=ONE, groups=3),
    conv("groups_of_4_1x1", (2, 32, 3, 5), (64, 1, 1), groups=8),
    conv("groups_of_32_dilation2", (1, 64, 5, 4), (64, 3, 3), padding=PAIR, dilation=PAIR, groups=2, weight_dtype=torch.float16),
    conv("depthwise", (2, 7, 6, 9), (7, 3, 3), padding=ONE, groups=7, bias=True),
    conv("depthwise_stride2", (2, 13, 9, 7), (13, 3, 3), stride=PAIR, padding=ONE, groups=13),
    conv("depthwise_64_5x5", (1, 64, 3, 4), (64, 5, 5), padding=PAIR, groups=64),
    conv("depthwise_multiplier2", (2, 5, 7, 4), (10, 3, 3), padding=ONE, groups=5),
    conv("relu", (2, 5, 7, 6), (9, 3, 3), padding=ONE, bias=True, activation="relu"),
    conv("silu", (1, 7, 5, 9), (6, 3, 3), padding=ONE, bias=True, activation="silu"),
    conv("gelu_stride2", (2, 4, 9, 7), (5, 3, 3), stride=PAIR, padding=ONE, activation="gelu"),
    conv("gelu_tanh_1x1", (2, 9, 3, 5), (17, 1, 1), bias=True, activation="gelu_tanh"),
    conv("silu_depthwise", (2, 11, 6, 5), (11, 3, 3), padding=ONE, groups=11, activation="silu"),
    conv("3x3_float32", (2, 19, 5, 6), (23, 3, 3), padding=ONE, bias=True, exact=False),
    conv("1x1_float32", (2, 35, 3, 5), (18, 1, 1), exact=False),
    conv("depthwise_float32", (1, 9, 7, 5), (9, 3, 3), padding=ONE, groups=9, exact=False),
    conv_bn("one_element", (1, 1, 1, 1), (1, 1, 1)),
    conv_bn("3x3_relu", (2, 5, 7, 6), (9, 3, 3), padding=ONE, activation="relu"),
    conv_bn("3x3_stride2_relu", (2, 6, 9, 7), (11, 3, 3), stride=PAIR, padding=ONE, activation="relu"),
    conv_bn("1x1_stride2_no_activation", (2, 10, 7, 5), (20, 1, 1), stride=PAIR),
    conv_bn("1x1_residual_relu", (2, 7, 3, 5), (28, 1, 1), activation="relu", residual=True),
    conv_bn("3x3_residual_relu", (1, 9, 7, 5), (9, 3, 3), padding=ONE, activation="relu", residual=True),
    conv_bn("3x3_residual_no_activation", (2, 3, 5, 7), (5, 3, 3), padding=ONE, residual=True),
    conv_bn("3x3_stride2_residual_silu", (2, 4, 7, 9), (6, 3, 3), stride=PAIR, padding=ONE, activation="silu", residual=True),
    conv_bn("7x7_stem_relu", (1, 3, 21, 17), (8, 7, 7), stride=PAIR, padding=(3, 3), activation="relu", seed=35),
    conv_bn("1x1_64_residual_relu", (2, 64, 3, 2), (64, 1, 1), activation="relu", residual=True, weight_dtype=torch.float16),
    conv_bn("pad_four_sides_gelu", (1, 5, 6, 7), (3, 3, 3), stride=PAIR, padding=(0, 1, 0, 1), activation="gelu"),
    conv_bn("groups_of_3_gelu_tanh", (2, 9, 5, 4), (6, 3, 3), padding=ONE, groups=3, activation="gelu_tanh"),
    conv_bn("depthwise_silu", (2, 13, 7, 5), (13, 3, 3), padding=ONE, groups=13, activation="silu"),
    conv_bn("eps_1e-2", (2, 5, 4, 3), (7, 1, 1), eps=1e-2),
    conv_bn("3x3_float32", (1, 7, 6, 5), (12, 3, 3), padding=ONE, residual=True, exact=False),
    linear("one_element", (1, 1), 1),
    linear("odd", (5, 7), 3),
    linear("no_bias", (3, 17), 11, bias=False),
    linear("three_dims", (2, 3, 37), 13),
    linear("classifier", (2, 512), 10),
    linear("64_to_128", (9, 64), 128, weight_dtype=torch.float16),
    linear("relu", (6, 19), 23, activation="relu"),
    linear("silu", (7, 13), 31, activation="silu"),
    linear("gelu", (5, 33), 17, activation="gelu"),
    linear("gelu_tanh", (3, 5, 9), 65, activation="gelu_tanh"),
    linear("float32", (5, 67), 21, exact=False),
    matmul("one_element", (1, 1), (1, 1)),
    matmul("odd", (5, 7), (7, 3)),
    matmul("row_by_matrix", (1, 37), (37, 19)),
    matmul("outer_product", (13, 1), (1, 11)),
    matmul("deep", (3, 515), (515, 2)),
    matmul("64", (32, 64), (64, 32)),
    matmul("batch", (3, 17, 9), (3, 9, 13)),
    matmul("heads", (2, 3, 7, 5), (2, 3, 5, 11)),
    matmul("float32", (3, 17, 37), (3, 37, 13), exact=False),
    batch_norm("one_element", (1, 1, 1, 1)),
    batch_norm("odd", (2, 5, 7, 3)),
    batch_norm("one_pixel", (3, 17, 1, 1)),
    batch_norm("64_channels", (2, 64, 3, 2)),
    batch_norm("eps_1e-3_tracked", (2, 3, 4, 5), eps=1e-3, tracked=True),
    layer_norm("odd", (3, 5, 7), "last"),
    layer_norm("three_values", (2, 4, 3), "last", eps=1e-2),
    layer_norm("plain", (4, 33), "last", affine=False),
    layer_norm("wide", (2, 1024), "last"),
    layer_norm("many_rows", (1, 130, 19), "last"),
    layer_norm("channels", (2, 48, 3, 5), "channel"),
    layer_norm("channels_one_pixel", (2, 7, 1, 1), "channel", eps=1e-5),
    layer_norm("low_variance", (2, 64, 3, 2), "channel", spread=1e-3),
    layer_norm("low_variance_last", (3, 40), "last", spread=2e-3),
    layer_norm("far_from_zero", (2, 96, 2, 3), "channel", shift=32.0),
    layer_norm("float32", (5, 37), "last", exact=False),
    *ELEMENTWISE,
    on_x("leaky_relu", "odd", (2, 3, 5, 7), slope=0.01),
    on_x("leaky_relu", "one", (1, 1, 1, 1), slope=0.3),
    on_x("leaky_relu", "flat", (259,), slope=0.125),
    on_x("leaky_relu", "negative_slope", (3, 67), spread=30.0, slope=-0.5),
    on_x("leaky_relu", "zeros", (2, 5, 3, 3), integers=True, slope=0.2),
    on_x("softmax", "odd", (3, 7)),
    on_x("softmax", "one_class", (3, 1)),
    on_x("softmax", "attention", (2, 3, 5, 37), spread=3.0),
    on_x("softmax", "thousand", (1, 1000)),
    on_x("softmax", "large_values", (5, 11), shift=200.0),
    pool("max_pool2d", "one_element", (1, 1, 1, 1), ONE, ONE),
    pool("max_pool2d", "3x3_stride2_pad1", (2, 5, 9, 7), (3, 3), PAIR, ONE),
    pool("max_pool2d", "3x3_stride2_pad1_negative", (2, 3, 8, 6), (3, 3), PAIR, ONE, shift=-5.0),
    pool("max_pool2d", "2x2", (2, 7, 6, 9), PAIR, PAIR),
    pool("max_pool2d", "3x3_overlapping", (1, 3, 5, 7), (3, 3), ONE, ONE),
    pool("max_pool2d", "2x3_stride1x2", (2, 4, 7, 8), (2, 3), (1, 2), (1, 1)),
    pool("max_pool2d", "ceil", (2, 3, 8, 10), (3, 3), PAIR, ceil_mode=True),
    pool("max_pool2d", "ceil_pad1", (1, 5, 7, 8), (2, 2), (3, 3), ONE, ceil_mode=True),
    pool("max_pool2d", "ties", (2, 3, 9, 8), (3, 3), PAIR, ONE, integers=True),
    pool("avg_pool2d", "one_element", (1, 1, 1, 1), ONE, ONE, count_include_pad=True),
    pool("avg_pool2d", "2x2", (2, 5, 6, 9), PAIR, PAIR, count_include_pad=True),
    pool("avg_pool2d", "3x3_pad1_counted", (2, 3, 9, 7), (3, 3), PAIR, ONE, count_include_pad=True),
    pool("avg_pool2d", "3x3_pad1_not_counted", (2, 3, 9, 7), (3, 3), PAIR, ONE, count_include_pad=False),
    pool("avg_pool2d", "ceil_counted", (1, 5, 8, 6), (3, 3), PAIR, ONE, ceil_mode=True, count_include_pad=True),
    pool("avg_pool2d", "ceil_not_counted", (1, 5, 8, 6), (3, 3), PAIR, ONE, ceil_mode=True, count_include_pad=False),
    pool("avg_pool2d", "2x3_stride1x2", (2, 7, 5, 8), (2, 3), (1, 2), (1, 1), count_include_pad=False),
    on_x("global_avg_pool", "one_element", (1, 1, 1, 1)),
    on_x("global_avg_pool", "odd", (2, 5, 7, 3)),
    on_x("global_avg_pool", "one_row", (3, 17, 1, 9)),
    on_x("global_avg_pool", "64_channels", (2, 64, 4, 4)),
    on_x("upsample_nearest", "scale1", (1, 3, 2, 5), scale=1),
    on_x("upsample_nearest", "scale2", (2, 5, 3, 7), scale=2),
    on_x("upsample_nearest", "scale3", (1, 3, 4, 1), scale=3),
    *[
        resize(f"{mode}_{'antialias_' if antialias else ''}{what}", x, size, mode, antialias)
        for mode in ("bilinear", "bicubic")
        for antialias in (False, True)
        for what, x, size in (("up", (1, 3, 5, 7), (11, 16)), ("down", (1, 3, 17, 13), (5, 4)), ("mixed", (1, 2, 4, 19), (9, 7)))
    ],
    resize("bicubic_antialias_same_size", (1, 3, 5, 4), (5, 4), "bicubic", True),
    resize("bilinear_from_one_pixel", (2, 3, 1, 1), (3, 5), "bilinear", False),
    resize("bicubic_antialias_to_one_pixel", (2, 3, 7, 5), (1, 1), "bicubic", True),
    gate("channel_gate", "one_element", (1, 1, 1, 1), reduction=16),
    gate("channel_gate", "one_hidden", (2, 5, 7, 3), reduction=16),
    gate("channel_gate", "64_channels", (2, 64, 3, 2), reduction=16),
    gate("channel_gate", "reduction8", (3, 24, 3, 7), reduction=8),
    gate("spatial_gate", "one_element", (1, 1, 1, 1), kernel=7, eps=1e-5),
    gate("spatial_gate", "odd", (2, 5, 11, 9), kernel=7, eps=1e-5),
    gate("spatial_gate", "smaller_than_window", (3, 7, 4, 2), kernel=7, eps=1e-5),
    gate("spatial_gate", "64_channels_eps_1e-3", (1, 64, 3, 5), kernel=7, eps=1e-3),
    gate("spatial_gate", "kernel5", (2, 3, 6, 7), kernel=5, eps=1e-5),
    gate("cbam", "one_element", (1, 1, 1, 1), reduction=16, kernel=7, eps=1e-5),
    gate("cbam", "one_hidden", (2, 13, 9, 7), reduction=16, kernel=7, eps=1e-5),
    gate("cbam", "64_channels", (2, 64, 2, 3), reduction=16, kernel=7, eps=1e-5),
    gate("cbam", "reduction4", (1, 20, 8, 5), reduction=4, kernel=7, eps=1e-5),
    gate("cbam", "one_pixel", (3, 32, 1, 1), reduction=16, kernel=7, eps=1e-5),
    vote("ten", [5, 0, 7, 1], 10),
    vote("thousand", [3, 2], 1000),
    loss("cross_entropy", "one_class", 3, 1, label_smoothing=0.0),
    loss("cross_entropy", "ten", 7, 10, label_smoothing=0.0),
    loss("cross_entropy", "smoothed", 5, 10, label_smoothing=0.1),
    loss("cross_entropy", "thousand", 2, 1000, label_smoothing=0.0),
    loss("cross_entropy", "large_logits", 5, 3, scale=60.0, label_smoothing=0.0),
    loss("dlr_loss", "ten", 9, 10),
    loss("dlr_loss", "three", 5, 3),
    loss("dlr_loss", "thousand", 2, 1000),
    loss("dlr_loss", "targeted", 9, 10, targets=True),
    loss("dlr_loss", "targeted_four", 5, 4, targets=True),
    pgd_step("linf", (4, 3, 7, 5), "linf", 8 / 255, 2 / 255),
    pgd_step("linf_step_beyond_ball", (3, 3, 5, 4), "linf", 0.03, 0.05),
    pgd_step("linf_eps0", (2, 1, 3, 5), "linf", 0.0, 0.01),
    pgd_step("l2", (4, 3, 7, 5), "l2", 0.5, 0.1),
    pgd_step("l2_inside_ball", (3, 3, 5, 7), "l2", 1.0, 0.2, inside=0.3),
    pgd_step("l2_step_beyond_ball", (3, 3, 5, 4), "l2", 0.25, 1.0),
    apgd_step("linf", (4, 3, 7, 5), "linf", 8 / 255, 0.75),
    apgd_step("linf_first", (3, 3, 5, 4), "linf", 0.03, 1.0),
    apgd_step("l2", (4, 3, 7, 5), "l2", 0.5, 0.75),
    apgd_step("l2_first", (1, 1, 3, 2), "l2", 0.25, 1.0),
    fab_step("linf", (4, 3, 7, 5), "linf", 0.05),
    fab_step("linf_walls", (3, 3, 5, 4), "linf", 0.5),
    fab_step("linf_beyond_the_box", (2, 3, 5, 4), "linf", 2.0),
    fab_step("l2", (4, 3, 7, 5), "l2", 0.05),
    fab_step("l2_walls", (3, 3, 5, 4), "l2", 0.25),
    fab_step("l2_beyond_the_box", (2, 3, 5, 4), "l2", 2.0),
    min_norm_step("ddn", (4, 3, 7, 5), "l2", 0.5, 0.7, sphere=True),
    min_norm_step("fmn_l2", (4, 3, 7, 5), "l2", 0.5, 0.3),
    min_norm_step("fmn_l2_two", (2, 1, 5, 3), "l2", 0.25, 0.02),
    min_norm_step("fmn_linf", (4, 3, 7, 5), "linf", 0.05, 0.4),
    square_step("linf", (3, 3, 9, 7), "linf", 8 / 255, 4),
    square_step("linf_one_pixel", (2, 1, 5, 3), "linf", 0.03, 1),
    square_step("l2", (4, 3, 9, 7), "l2", 0.5, 5),
    square_step("l2_small", (3, 1, 5, 4), "l2", 0.25, 3),
    pgd_step("l2_one_element", (1, 1, 1, 1), "l2", 0.1, 0.05),
    pgd("linf", (2, 3, 16, 16), "linf", 4 / 255, 1 / 255, 5, seed=9, gaps=(0.1, 0.3), depth=18, width=3),
    pgd("l2", (2, 3, 16, 16), "l2", 0.1, 0.03, 5, seed=36, gaps=(0.15, 0.4), depth=18, width=3),
    model("resnet18_w4_tracked", (2, 3, 32, 32), seed=10, depth=18, width=4, tracked=True),
    model("resnet18_w3_odd_size", (3, 3, 19, 17), seed=7, depth=18, width=3, classes=7, dtype=torch.float32),
    model("resnet18_imagenet_cbam_w4", (2, 3, 45, 37), seed=10, depth=18, stem="imagenet", width=4, attention="cbam", reduction=8),
    model("resnet34_cbam_w3_bf16_weights", (2, 3, 32, 32), seed=34, depth=34, width=3, attention="cbam", dtype=torch.bfloat16),
    model("resnet50_w8", (2, 3, 32, 32), seed=2, width=8),
    model("resnet50_cbam_w8", (2, 3, 32, 32), seed=37, width=8, attention="cbam"),
    model("resnet50_imagenet_w3", (1, 3, 64, 48), seed=20, stem="imagenet", width=3, classes=13),
    study("study_w4", (2, 3, 48, 40), seed=41, attention="none", classes=10, width=4),
    study("study_cbam_w4", (1, 3, 64, 48), seed=26, attention="cbam", classes=10, width=4),
    coatnet_model(
        "coatnet_w8",
        2,
        torch.float16,
        stem=[4, 8],
        dims=[8, 16, 24, 32],
        depths=[1, 2, 2, 1],
        types="CCTT",
        head_dim=8,
        rel_pos_hidden=16,
        image=64,
        classes=11,
    ),
    coatnet_model(
        "coatnet_two_stages",
        1,
        torch.bfloat16,
        stem=[3, 16],
        dims=[16, 24],
        depths=[2, 3],
        types="CT",
        head_dim=8,
        rel_pos_hidden=7,
        image=72,
        classes=5,
    ),
    feature_map("block", (2, 3, 16, 16), "layer2.0", depth=18, width=3),
    feature_map("cbam", (2, 3, 16, 16), "layer2.1.cbam", depth=18, width=3, attention="cbam"),
    feature_map("cbam_channel_gate", (2, 3, 16, 16), "layer2.1.cbam.channel_gate", depth=18, width=3, attention="cbam"),
    feature_map("cbam_spatial_gate", (2, 3, 16, 16), "layer2.1.cbam.spatial_gate", depth=18, width=3, attention="cbam"),
    coatnet_map(
        "coatnet_attention",
        2,
        "stages.1.blocks.1.attn.weights",
        stem=[4, 8],
        dims=[8, 16],
        depths=[1, 2],
        types="CT",
        head_dim=8,
        rel_pos_hidden=16,
        image=48,
        classes=3,
    ),
    coatnet_map(
        "coatnet_rollout",
        2,
        "stages.1.attention_rollout",
        stem=[4, 8],
        dims=[8, 16, 16],
        depths=[1, 3, 1],
        types="CTT",
        head_dim=8,
        rel_pos_hidden=16,
        image=48,
        classes=3,
    ),
]
