"""What bfloat16 alone costs: operations and networks replayed in PyTorch with bfloat16 weights and activations.

Two ways, and an engine may lie between them. `plain` is PyTorch's own bfloat16: every operation rounds its output.
`folded` folds each batch norm into the convolution before it in float64, rounds the folded weights, computes in float32 and
rounds what is stored: an operation's output after its activation, and each gradient of such an output.
"""

import torch
import torch.nn as nn

import resnet_reference as resnet
from reference_ops import ACTIVATIONS, convolve, differentiable, group_norm, replay, run_feature_map, run_model, run_pgd


class Store(torch.autograd.Function):
    """Values as bfloat16 stores them, and on the way back their gradients."""

    @staticmethod
    def forward(ctx, x):
        return rounded(x)

    @staticmethod
    def backward(ctx, gradient):
        return rounded(gradient)


class StoreGradient(torch.autograd.Function):
    """Values that stay in registers, and on the way back their gradients as bfloat16 stores them."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return rounded(gradient)


def rounded(t):
    """The nearest values that bfloat16 holds, in the dtype of `t`."""
    return t.bfloat16().to(t.dtype) if t.is_floating_point() else t


def fold(weight, gamma, beta, mean, var, eps):
    """Weight [O,...] and batch norm [O] -> rounded weight and bias of one convolution, float32."""
    gamma, beta, mean, var = (t.double() for t in (gamma, beta, mean, var))
    scale = gamma / torch.sqrt(var + eps)
    return rounded((weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))).float()), (beta - mean * scale).float()


def folded_conv2d_bn(attrs, ins, w):
    weight, bias = fold(w["weight"], *(w[f"bn.{k}"] for k in ("weight", "bias", "running_mean", "running_var")), attrs["eps"])
    y = convolve(attrs, Store.apply(ins["x"]), weight, bias)
    if "residual" in ins:
        y = y + Store.apply(ins["residual"])
    return Store.apply(ACTIVATIONS[attrs.get("activation")](Store.apply(y)))


def fused_attention(attrs, ins, w):
    """Attention whose scores never leave the registers: they and the softmax are float32, the weights enter a product rounded."""
    q, k, v = (Store.apply(ins[name]) for name in ("q", "k", "v"))
    scores = q @ k.transpose(-1, -2) * attrs.get("scale", q.shape[-1] ** -0.5)
    if "bias" in ins:
        scores = scores + ins["bias"]
    return Store.apply(Store.apply(StoreGradient.apply(scores).softmax(-1)) @ v)


def folded_network(attrs, weights):
    """The network in float32 that rounds what it stores; the attention gates keep float32 weights and maps."""
    net = resnet.load_state(resnet.build(attrs["config"]), weights)

    def store(module, args, y):
        return Store.apply(y)

    for name, bn in list(net.named_modules()):
        if isinstance(bn, nn.BatchNorm2d) and "spatial" not in name:
            conv = net.get_submodule(name.replace("bn", "conv") if "bn" in name else name[:-1] + "0")
            weight, bias = fold(conv.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var, bn.eps)
            conv.weight, conv.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
            net.set_submodule(name, nn.Identity())
            conv.register_forward_hook(store)
    net.register_forward_pre_hook(lambda module, args: (Store.apply(args[0]),))
    for name, module in net.named_modules():
        if isinstance(module, (nn.ReLU, resnet.CBAM)) and "mlp" not in name:
            module.register_forward_hook(store)
    net.fc.weight = nn.Parameter(rounded(net.fc.weight), False)
    net.fc.register_forward_pre_hook(lambda module, args: (Store.apply(args[0]),))
    net.fc.register_forward_hook(store)
    return net


FOLDED = {
    "conv2d_bn": differentiable(folded_conv2d_bn),
    "group_norm": differentiable(lambda attrs, ins, w: Store.apply(group_norm(attrs, {**ins, "x": Store.apply(ins["x"])}, w)), ["x"]),
    "attention": differentiable(fused_attention, ["q", "k", "v"]),
    "model": lambda attrs, ins, w: run_model(folded_network(attrs, w), ins),  # of classifiers
    "feature_map": lambda attrs, ins, w: run_feature_map(folded_network(attrs, w), attrs["layer"], ins),
    "pgd": lambda attrs, ins, w: run_pgd(folded_network(attrs, w), torch.float32, attrs, ins),
}
# These compute in float32 whatever their inputs are.
FLOAT32_OPS = {"cross_entropy", "dlr_loss", "resize", "timestep_embedding", "pgd_step"}
# Nothing is stored before a batch norm or within a group norm, no score of attention is; images stay float32.
FOLDED_ONLY = {"conv2d_bn", "group_norm", "attention", "pgd"}


def bf16_outputs(op, attrs, inputs, weights):
    """-> {way: {name: output}}; empty for FLOAT32_OPS."""
    ways = {}
    if op not in FLOAT32_OPS | FOLDED_ONLY:
        ways["plain"] = replay(op, attrs, inputs, weights, torch.bfloat16)
    if op in FOLDED and attrs.get("arch", "resnet") == "resnet":
        ways["folded"] = replay(op, attrs, inputs, weights, torch.float32, FOLDED[op])
    return ways
