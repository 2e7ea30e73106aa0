"""Every operation of a parity dump, computed by PyTorch from the contents of the dump alone.

`replay(op, attrs, inputs, weights, dtype)` is both how a reference is made (float64) and how a stored dump is checked
(float32). `inputs` and `weights` map the names behind `in.` and `w.` to tensors; the result maps the names behind
`out.`. Activations are NCHW, kernels OIHW.
"""

import torch
import torch.nn.functional as F

import coatnet_reference as coatnet
import diffusion_reference as diffusion
import resnet_reference as resnet
import resnet_study_reference as resnet_study
import unet_reference as unet

ACTIVATIONS = {
    None: lambda x: x,
    "relu": torch.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def replay(op, attrs, inputs, weights, dtype=torch.float64, compute=None):
    """-> {name: output}, in `dtype` except where the operation is defined in float32 (`pgd_step`, `pgd`).

    Timesteps never become coarser than float32. `compute(attrs, inputs, weights)` stands in for the operation's own.
    """
    if op not in OPS:
        raise ValueError(f"unknown op {op!r}; known: {', '.join(sorted(OPS))}")

    def cast(tensors):
        kinds = {k: torch.promote_types(dtype, torch.float32) if k == "t" else dtype for k in tensors}
        return {k: t.to(kinds[k]) if t.is_floating_point() else t for k, t in tensors.items()}

    compute = compute or OPS[op]
    return {k: t.detach() for k, t in compute(attrs, cast(inputs), cast(weights)).items()}


def differentiable(forward, wanted=None, result="y"):
    """Makes an op of result = forward(attrs, inputs, weights): adds the gradients of sum(result * dout) if `dout` is given.

    They are taken with respect to the inputs `wanted`, or to all.
    """

    def op(attrs, inputs, weights):
        leaves = {k: inputs[k].requires_grad_(True) for k in wanted or inputs if k != "dout"}
        y = forward(attrs, inputs, weights)
        out = {result: y}
        if "dout" in inputs:
            grads = torch.autograd.grad(y, list(leaves.values()), inputs["dout"])
            out.update({f"d{k}": g for k, g in zip(leaves, grads)})
        return out

    return op


# ------------------------------------------------------------------------------------------------ products
def convolve(attrs, x, weight, bias=None):
    """x [N,C,H,W], weight [O,C/g,kh,kw] -> [N,O,P,Q]; padding [vertical, horizontal] or [top, bottom, left, right]."""
    pad = attrs["padding"]
    top, bottom, left, right = pad if len(pad) == 4 else (pad[0], pad[0], pad[1], pad[1])
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, bias, attrs["stride"], 0, attrs.get("dilation", 1), attrs["groups"])


def conv2d(attrs, ins, w):
    return ACTIVATIONS[attrs.get("activation")](convolve(attrs, ins["x"], w["weight"], w.get("bias")))


def normalise(x, w, eps, prefix=""):
    """Batch norm with running statistics, x [N,C,H,W]."""
    mean, var, weight, bias = (w[prefix + k] for k in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)


def conv2d_bn(attrs, ins, w):
    """activation(bn(conv(x)) + residual)"""
    y = normalise(convolve(attrs, ins["x"], w["weight"]), w, attrs["eps"], "bn.")
    if "residual" in ins:
        y = y + ins["residual"]
    return ACTIVATIONS[attrs.get("activation")](y)


def linear(attrs, ins, w):
    """x [...,K], weight [O,K] -> [...,O]"""
    return ACTIVATIONS[attrs.get("activation")](F.linear(ins["x"], w["weight"], w.get("bias")))


# ------------------------------------------------------------------------------------------------ pooling, resampling
def max_pool2d(attrs, ins, w):
    return F.max_pool2d(ins["x"], attrs["kernel"], attrs["stride"], attrs["padding"], ceil_mode=attrs["ceil_mode"])


def avg_pool2d(attrs, ins, w):
    return F.avg_pool2d(ins["x"], attrs["kernel"], attrs["stride"], attrs["padding"], attrs["ceil_mode"], attrs["count_include_pad"])


def upsample_nearest(attrs, ins, w):
    return F.interpolate(ins["x"], scale_factor=attrs["scale"], mode="nearest")


def resize(attrs, ins, w):
    return F.interpolate(
        ins["x"], size=attrs["size"], mode=attrs["mode"], align_corners=attrs["align_corners"], antialias=attrs["antialias"]
    )


# ------------------------------------------------------------------------------------------------ attention gates
def gate(module, w, x):
    """Runs a module of resnet_reference with the dump's weights."""
    return resnet.load_state(module.to(x.dtype).eval().requires_grad_(False), w)(x)


def channel_gate(attrs, ins, w):
    return gate(resnet.ChannelGate(ins["x"].shape[1], attrs["reduction"]), w, ins["x"])


def spatial_gate(attrs, ins, w):
    return gate(resnet.SpatialGate(attrs["kernel"], attrs["eps"]), w, ins["x"])


def cbam(attrs, ins, w):
    return gate(resnet.CBAM(ins["x"].shape[1], attrs["reduction"], attrs["kernel"], attrs["eps"]), w, ins["x"])


# ------------------------------------------------------------------------------------------------ diffusion
def group_norm(attrs, ins, w):
    """activation(gn(x) * (1 + scale) + shift); scale and shift [N,C]"""
    y = F.group_norm(ins["x"], attrs["groups"], w.get("weight"), w.get("bias"), attrs["eps"])
    if "scale" in ins:
        y = y * (1 + ins["scale"][:, :, None, None])
    if "shift" in ins:
        y = y + ins["shift"][:, :, None, None]
    return ACTIVATIONS[attrs.get("activation")](y)


def layer_norm(attrs, ins, w):
    """over the last dimension, or with dim `channel` over C of x [N,C,H,W]"""
    x = ins["x"].movedim(1, -1) if attrs["dim"] == "channel" else ins["x"]
    y = F.layer_norm(x, x.shape[-1:], w.get("weight"), w.get("bias"), attrs["eps"])
    return y.movedim(-1, 1) if attrs["dim"] == "channel" else y


def attention(attrs, ins, w):
    return unet.attend(ins["q"], ins["k"], ins["v"], attrs.get("scale", ins["q"].shape[-1] ** -0.5), ins.get("bias"))


def timestep_embedding(attrs, ins, w):
    return {"y": unet.timestep_embedding(ins["t"], attrs["dim"], attrs["max_period"])}


def q_sample(attrs, ins, w):
    return diffusion.q_sample(attrs["schedule"], attrs["steps"], ins["x0"], ins["noise"], ins["t"])


def schedule_of(attrs):
    return [attrs[k] for k in ("schedule", "steps", "tau_scale", "sigma")]


def dds(attrs, ins, w):
    """t: the step of sigma; x0 in [-1,1] and, if `dout` is given, dx through clamp, U-Net and noising"""
    net = unet.load_state(unet.build(attrs["config"]).to(ins["x"].dtype), w)
    run = differentiable(lambda attrs, ins, w: diffusion.denoise(net, *schedule_of(attrs), ins["x"], ins["noise"]), ["x"], "x0")
    return {"t": torch.tensor(diffusion.step_of(*schedule_of(attrs)[:2], attrs["sigma"])), **run(attrs, ins, w)}


# ------------------------------------------------------------------------------------------------ losses
def with_dlogits(loss_of):
    """Makes an op of loss [N] = loss_of(attrs, logits [N,K], inputs): adds the gradient of the summed loss."""

    def op(attrs, ins, w):
        logits = ins["logits"].requires_grad_(True)
        loss = loss_of(attrs, logits, ins)
        return {"loss": loss, "dlogits": torch.autograd.grad(loss.sum(), logits)[0]}

    return op


def cross_entropy(attrs, logits, ins):
    return F.cross_entropy(logits, ins["labels"], reduction="none", label_smoothing=attrs["label_smoothing"])


def dlr_loss(attrs, logits, ins):
    """-(z_y - z_other) / (spread of the sorted logits + 1e-12); other = best wrong class, or the target."""
    ranked, order = logits.sort(1, descending=True)
    z_y = logits.gather(1, ins["labels"][:, None])[:, 0]
    if "targets" in ins:
        other = logits.gather(1, ins["targets"][:, None])[:, 0]
        spread = ranked[:, 0] - 0.5 * (ranked[:, 2] + ranked[:, 3])
    else:
        other = torch.where(order[:, 0] == ins["labels"], ranked[:, 1], ranked[:, 0])
        spread = ranked[:, 0] - ranked[:, 2]
    return -(z_y - other) / (spread + 1e-12)


# ------------------------------------------------------------------------------------------------ networks
ARCHITECTURES = {"resnet": resnet, "resnet_study": resnet_study, "coatnet": coatnet, "unet": unet}


def network(attrs, w):
    if attrs["arch"] not in ARCHITECTURES:
        raise ValueError(f"unknown arch {attrs['arch']!r}; known: {', '.join(ARCHITECTURES)}")
    dtype = max((t.dtype for t in w.values() if t.is_floating_point()), key=lambda d: d.itemsize)
    return resnet.load_state(ARCHITECTURES[attrs["arch"]].build(attrs["config"]).to(dtype), w)


def model(attrs, ins, w):
    """Classifiers as `run_model`; U-Nets: x [N,3,H,W], t [N] -> y and, if `dout` is given, dx"""
    net = network(attrs, w)
    if attrs["arch"] != "unet":
        return run_model(net, ins)
    return differentiable(lambda attrs, ins, w: net(ins["x"], ins["t"]), ["x"])(attrs, ins, w)


def run_model(net, ins):
    """x [N,3,H,W], labels [N] -> logits, loss [N] and the gradient of the summed loss; the loss in float32 or better"""
    x = ins["x"].requires_grad_(True)
    logits = net(x)
    loss = F.cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), ins["labels"], reduction="none")
    return {"logits": logits, "loss": loss, "dx": torch.autograd.grad(loss.sum(), x)[0]}


# A CBAM module multiplies by its gates without naming them: the part whose sigmoid (of the sum over its calls) is the gate.
GATES = {"channel_gate": "ChannelGate.mlp", "spatial_gate": "SpatialGate.spatial"}


def attention_weights(net, blocks, x):
    """Of timm's attention in each of the named blocks for x [N,3,H,W]: the softmax, mean over the heads, [N,T,T]"""
    kept = []
    for block in blocks:
        attention = net.get_submodule(f"{block}.attn")
        attention.fused_attn = False  # the fused product never has the softmax
        attention.attn_drop.register_forward_hook(lambda module, args, y: kept.append(y.mean(1)))
    net(x)
    return kept


def attention_rollout(net, stage, x):
    """Abnar & Zuidema 2020 over the blocks of a stage: the product of (A + I) / 2, rows summing to 1; the mean over queries [N,1,H,W]"""
    sizes = []
    net.get_submodule(stage).register_forward_hook(lambda module, args, y: sizes.append(y.shape[2:]))
    blocks = [f"{stage}.blocks.{i}" for i in range(len(net.get_submodule(f"{stage}.blocks")))]
    product = None
    for weights in attention_weights(net, blocks, x):
        layer = (weights + torch.eye(weights.shape[-1], dtype=weights.dtype)) / 2
        layer = layer / layer.sum(-1, keepdim=True)
        product = layer if product is None else layer @ product
    return product.mean(1).unflatten(1, (1, *sizes[0]))


def run_feature_map(net, layer, ins):
    """y: the output of the module at the path `layer`, or of a gate: `layer1.0.cbam.channel_gate` [N,C], `.spatial_gate` [N,1,H,W];
    of a CoAtNet also `stages.2.blocks.0.attn.weights` [N,T,T] and `stages.2.attention_rollout` [N,1,H,W]"""
    kept = []
    owner, _, gate = layer.rpartition(".")
    if gate == "weights":
        return {"y": attention_weights(net, [owner.removesuffix(".attn")], ins["x"])[0]}
    if gate == "attention_rollout":
        return {"y": attention_rollout(net, owner, ins["x"])}
    module = net.get_submodule(f"{owner}.{GATES[gate]}" if gate in GATES else layer)
    module.register_forward_hook(lambda module, args, y: kept.append(y.clone()))
    net(ins["x"])
    return {"y": torch.sigmoid(sum(kept)) if gate in GATES else kept[0]}


# ------------------------------------------------------------------------------------------------ attack
def norm_per_image(v):
    """L2 norm over all but the first axis, kept for broadcasting; scaled so that tiny values do not underflow."""
    flat = v.flatten(1)
    peak = flat.abs().amax(1, keepdim=True)
    scaled = flat / torch.where(peak > 0, peak, torch.ones_like(peak))
    return (peak * scaled.norm(dim=1, keepdim=True)).view(-1, *[1] * (v.dim() - 1))


def step(attrs, x, clean, grad):
    """One PGD step on float32 images [N,C,H,W] in [0,1], in the order the specification writes it."""
    eps, size = (torch.tensor(attrs[k], dtype=torch.float32) for k in ("eps", "step_size"))
    if attrs["norm"] == "linf":
        moved = x + size * grad.sign()
        return (clean + torch.clamp(moved - clean, -eps, eps)).clamp(0, 1)
    length = norm_per_image(grad)
    direction = torch.where(length > 0, grad / torch.where(length > 0, length, torch.ones_like(length)), torch.zeros_like(grad))
    offset = (x + size * direction).clamp(0, 1) - clean
    reach = norm_per_image(offset)
    return clean + torch.where(reach > eps, offset * (eps / reach), offset)


def pgd_step(attrs, ins, w):
    return {"x": step(attrs, ins["x"].float(), ins["x_clean"].float(), ins["grad"].float())}


def lengths(v):
    """L2 norm of each image, to be broadcast."""
    return v.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def apgd_project(norm, eps, v, clean):
    w = v - clean
    if norm == "linf":
        return (clean + w.clamp(-eps, eps)).clamp(0, 1)
    n = lengths(w)
    return (clean + w / (n + 1e-12) * n.clamp(max=eps)).clamp(0, 1)


def apgd_step(attrs, ins, w):
    """One step of APGD (Croce & Hein 2020) with a step size per image; `share` of it, the rest is momentum."""
    x, clean, g, eta = (ins[k].double() for k in ("x", "x_clean", "grad", "eta"))
    norm, eps, share = attrs["norm"], attrs["eps"], attrs["share"]
    direction = g.sign() if norm == "linf" else g / (lengths(g) + 1e-12)
    z = apgd_project(norm, eps, x + eta.view(-1, 1, 1, 1) * direction, clean)
    mixed = x + (z - x) * share + (x - ins["prev"].double()) * (1 - share)
    return {"x": apgd_project(norm, eps, mixed, clean).float()}


def min_norm_step(attrs, ins, w):
    """One step of DDN (Rony et al. 2019; `sphere`) or FMN (Pintor et al. 2021); rows are (radius, gap in the loss)."""
    x, clean, g, rows = (ins[k].double() for k in ("x", "x_clean", "grad", "rows"))
    order, dual = (torch.inf, 1) if attrs["norm"] == "linf" else (2, 2)
    length = g.flatten(1).norm(dim=1)
    gap = torch.where(rows[:, 1] > 0, rows[:, 1] / g.flatten(1).norm(p=dual, dim=1), 0)
    most = torch.maximum(clean, 1 - clean).flatten(1).norm(p=order, dim=1)
    radius = torch.minimum(rows[:, 0] + gap, most)
    each = [-1, 1, 1, 1]
    z = x - clean + attrs["step_size"] * g / torch.where(length > 0, length, 1).view(each)
    if attrs["norm"] == "linf":
        z = z.clamp(-radius.view(each), radius.view(each))
    else:
        far = z.flatten(1).norm(dim=1)
        factor = torch.where(far > 0, radius / far, 1)
        z = z * (factor if attrs["sphere"] else factor.clamp(max=1)).view(each)
    return {"x": (clean + z).clamp(0, 1).float(), "radius": radius.float(), "length": length.float()}


def fab_projection(norm, w, v, r):
    """The shortest s with w.s = -r and v + s in [0, 1], of one image; as far as the box goes where that is too far.

    `lam` by bisection, in float64.
    """
    w = w * (1 if r >= 0 else -1)
    size = w.abs() if norm == "linf" else torch.where(w.abs() <= 1e-8, 0.0, w.abs())
    room = torch.where(w > 0, v, 1 - v)

    def moved(lam):
        free = torch.full_like(size, lam) if norm == "linf" else lam * size
        return torch.where(size > 0, torch.minimum(free, room), 0.0)

    low, high = 0.0, 1.0
    while (size * moved(high)).sum() < abs(r) and high < 1e12:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (size * moved(middle)).sum() < abs(r) else (low, middle)
    return -w.sign() * moved(high)


def fab_step(attrs, ins, w):
    """One step of FAB (Croce & Hein 2020) with eta 1.05 and at most a tenth of the way from the image."""
    out = []
    for x, clean, g, df in zip(*(ins[k].double() for k in ("x", "x_clean", "w", "df"))):
        s1 = fab_projection(attrs["norm"], g, x, df)
        s2 = fab_projection(attrs["norm"], g, clean, df + (g * (clean - x)).sum())
        a1, a2 = (s.flatten().norm(p=torch.inf if attrs["norm"] == "linf" else 2).clamp(min=1e-8) for s in (s1, s2))
        al = (a1 / (a1 + a2)).clamp(max=0.1)
        out.append(((x + 1.05 * s1) * (1 - al) + (clean + 1.05 * s2) * al).clamp(0, 1))
    return {"x": torch.stack(out).float()}


def square_tile(side):
    """A hill above a valley, of length 1 (Andriushchenko et al. 2020)."""

    def hill(rows, columns):
        out = torch.zeros(rows, columns, dtype=torch.float64)
        r0, c0 = rows // 2, columns // 2
        for k in range(max(r0, c0) + 1):
            out[max(r0 - k, 0) : r0 + k + 1, max(c0 - k, 0) : c0 + k + 1] += 1 / (k + 1) ** 2
        return out / out.norm()

    tile = torch.cat([hill(side // 2, side), -hill(side - side // 2, side)])
    return tile / tile.norm()


def vote(attrs, ins, w):
    """logits [R,K], image [R] -> how many rows of each image have their largest logit at each class [images,K]"""
    logits = ins["logits"]
    counts = torch.zeros(attrs["images"], logits.shape[1], dtype=logits.dtype)
    counts.index_put_((ins["image"], logits.argmax(1)), torch.ones(len(logits), dtype=logits.dtype), accumulate=True)
    return {"counts": counts}


def square_step(attrs, ins, w):
    """A candidate of Square attack; a window, its signs and the turn of its tile for each image."""
    eps, side = attrs["eps"], attrs["side"]
    out = []
    for best, clean, numbers in zip(ins["best"].double(), ins["x_clean"].double(), ins["windows"].long().tolist()):
        (ra, ca, rb, cb, bits, turned), channels = numbers, len(best)
        sign = torch.tensor([1.0 if bits >> c & 1 else -1.0 for c in range(channels)], dtype=torch.float64).view(-1, 1, 1)
        a, b = (slice(None), slice(ra, ra + side), slice(ca, ca + side)), (slice(None), slice(rb, rb + side), slice(cb, cb + side))
        if attrs["norm"] == "linf":
            moved = best.clone()
            moved[a] += 2 * eps * sign
            out.append((clean + (moved - clean).clamp(-eps, eps)).clamp(0, 1))
            continue
        delta = best - clean
        inside = torch.zeros_like(delta)
        inside[a] = inside[b] = 1

        def of_channel(v):
            return v.flatten(1).norm(dim=1).view(-1, 1, 1)

        tile = square_tile(side)
        v = (tile.T if turned else tile) * sign + delta[a] / (1e-12 + of_channel(delta[a]))
        left = max(eps**2 - float(delta.norm()) ** 2, 0) / channels
        v = v / (1e-12 + of_channel(v)) * (left + of_channel(delta * inside) ** 2).sqrt()
        delta = delta.clone()
        delta[b] = 0
        delta[a] = v
        out.append((clean + eps * delta / (delta.norm() + 1e-12)).clamp(0, 1))
    return {"x": torch.stack(out).float()}


def run_pgd(net, dtype, attrs, ins):
    """The last of `steps` iterates from `start`; the network's gradients in `dtype`, iterates and steps in float32."""
    if attrs["loss"] != "cross_entropy":
        raise ValueError(f"unknown loss {attrs['loss']!r}; known: cross_entropy")
    mean, std = (torch.tensor(attrs[k], dtype=torch.float32).to(dtype).view(1, -1, 1, 1) for k in ("mean", "std"))
    clean, x = ins["x"].float(), ins["start"].float()
    for _ in range(attrs["steps"]):
        leaf = x.to(dtype).requires_grad_(True)
        loss = F.cross_entropy(net((leaf - mean) / std), ins["labels"], reduction="sum")
        x = step(attrs, x, clean, torch.autograd.grad(loss, leaf)[0].float())
    return {"x": x}


OPS = {
    "conv2d": differentiable(conv2d),
    "conv2d_bn": differentiable(conv2d_bn),
    "linear": differentiable(linear),
    "matmul": differentiable(lambda attrs, ins, w: ins["a"] @ ins["b"]),
    "batch_norm": differentiable(lambda attrs, ins, w: normalise(ins["x"], w, attrs["eps"])),
    "relu": differentiable(lambda attrs, ins, w: torch.relu(ins["x"])),
    "silu": differentiable(lambda attrs, ins, w: F.silu(ins["x"])),
    "gelu": differentiable(lambda attrs, ins, w: F.gelu(ins["x"])),
    "gelu_tanh": differentiable(lambda attrs, ins, w: F.gelu(ins["x"], approximate="tanh")),
    "sigmoid": differentiable(lambda attrs, ins, w: torch.sigmoid(ins["x"])),
    "tanh": differentiable(lambda attrs, ins, w: torch.tanh(ins["x"])),
    "leaky_relu": differentiable(lambda attrs, ins, w: F.leaky_relu(ins["x"], attrs["slope"])),
    "softmax": differentiable(lambda attrs, ins, w: ins["x"].softmax(-1)),
    "max_pool2d": differentiable(max_pool2d),
    "avg_pool2d": differentiable(avg_pool2d),
    "global_avg_pool": differentiable(lambda attrs, ins, w: ins["x"].mean((2, 3))),
    "upsample_nearest": differentiable(upsample_nearest),
    "resize": differentiable(resize),
    "channel_gate": differentiable(channel_gate),
    "spatial_gate": differentiable(spatial_gate),
    "cbam": differentiable(cbam),
    "group_norm": differentiable(group_norm, ["x"]),
    "layer_norm": differentiable(layer_norm),
    "attention": differentiable(attention, ["q", "k", "v"]),
    "timestep_embedding": timestep_embedding,
    "q_sample": differentiable(q_sample, ["x0", "noise"]),
    "dds": dds,
    "cross_entropy": with_dlogits(cross_entropy),
    "dlr_loss": with_dlogits(dlr_loss),
    "vote": vote,
    "model": model,
    "feature_map": lambda attrs, ins, w: run_feature_map(network(attrs, w), attrs["layer"], ins),
    "pgd_step": pgd_step,
    "apgd_step": apgd_step,
    "fab_step": fab_step,
    "min_norm_step": min_norm_step,
    "square_step": square_step,
    "pgd": lambda attrs, ins, w: run_pgd(network(attrs, w), w["conv1.weight"].dtype, attrs, ins),
}
