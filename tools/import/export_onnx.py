#!/usr/bin/env python3
"""Writes a network of PyTorch as ONNX with what the engine wants to know of it, and a dump that proves it computes the same.

  export_onnx.py resnet50 resnet50.onnx --weights resnet50.pth            torchvision's, or timm's if it has no such model
  export_onnx.py timm:resnet26 net.onnx --weights net.safetensors --strip module.
  export_onnx.py mine.py:make_net net.onnx --size 32x32 --mean 0.49 0.48 0.45 --std 0.2 0.2 0.2
  rampart parity net.parity.safetensors                                   the proof

FILE.py:FUNCTION names a function that returns a torch.nn.Module. Checkpoints may be wrapped in `state_dict`, `model`, `net` or, with
--ema, `ema`, `model_ema`, `state_dict_ema`; --strip takes a prefix off the names. Logits, losses and the gradient of the dump are computed
in float64. Without --weights the network keeps the weights that its constructor gave it, after torch.manual_seed(--seed).
"""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
import kink_margin

WRAPPERS = ("state_dict", "model", "net", "model_state_dict")
EMA = ("ema", "model_ema", "state_dict_ema")


def fail(message):
    sys.exit(f"export_onnx.py: {message}")


def make(name, classes):
    """-> a module, and what its source says of images: a dict of mean, std, input_size, interpolation, crop_pct"""
    library, _, base = name.rpartition(":")
    if library.endswith(".py"):
        spec = importlib.util.spec_from_file_location("network", library)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not hasattr(module, base):
            fail(f"{library} has no `{base}`")
        return getattr(module, base)(), {}
    if library in ("", "torchvision"):
        import torchvision.models

        if base in torchvision.models.list_models():
            extra = {} if classes is None else {"num_classes": classes}
            return torchvision.models.get_model(base, weights=None, **extra), {
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
            }
        if library:
            fail(f"torchvision has no `{base}`")
    import timm

    if not timm.is_model(base):
        fail(f"neither torchvision nor timm has `{base}`")
    extra = {} if classes is None else {"num_classes": classes}
    model = timm.create_model(base, pretrained=False, **extra)
    said = timm.data.resolve_data_config({}, model=model)
    keys = ("mean", "std", "input_size", "interpolation", "crop_pct", "crop_mode")
    return model, {key: said[key] for key in keys if key in said}


def state_of(path, ema, strip):
    """-> tensors by the network's own names"""
    state = load_file(path) if str(path).endswith(".safetensors") else torch.load(path, map_location="cpu", weights_only=True)
    if ema:
        found = [key for key in EMA if isinstance(state, dict) and isinstance(state.get(key), dict)]
        if not found:
            fail(f"{path} has none of {', '.join(EMA)}: without --ema its own weights are taken")
        state = state[found[0]]
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if strip:
        state = {name.removeprefix(strip): value for name, value in state.items() if name.startswith(strip)}
        if not state:
            fail(f"no name in {path} begins with `{strip}`")
    return state


def proof(model, x, labels):
    """-> logits, loss per image, and the gradient of the summed loss, computed in float64; and how near the next kink is"""
    # Its usual eps is that of the weights' own type, which in float64 would be another network's.
    for part in model.modules():
        if isinstance(part, torch.nn.RMSNorm) and part.eps is None:
            part.eps = torch.finfo(next(part.parameters(), torch.zeros(())).dtype).eps
    model = model.double()
    x = x.double().requires_grad_()
    with kink_margin.Watch() as watch:
        logits = model(x)
    # Of probabilities the loss is that of the logits behind them, which the engine attacks.
    probabilities = bool((logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones(()).to(logits), atol=1e-6))
    loss = F.cross_entropy(logits.log() if probabilities else logits, labels, reduction="none")
    loss.sum().backward()
    return logits.detach(), loss.detach(), x.grad, min(watch.margins, default=1.0)


def dump(model, onnx_file, target, image, images, classes, seed, tries=8):
    """Of some seeded inputs the one that keeps farthest from points where the gradient jumps."""
    best = None
    for attempt in range(tries):
        generator = torch.Generator().manual_seed(seed + attempt)
        x = torch.rand(images, *image, generator=generator)
        labels = torch.randint(0, classes, (images,), generator=generator)
        found = proof(model, x, labels)
        if best is None or found[3] > best[2][3]:
            best = (x, labels, found)
    x, labels, (logits, loss, dx, _) = best
    arrays = {"in.x": x, "in.labels": labels, "out.logits": logits.float(), "out.loss": loss.float(), "out.dx": dx.float()}
    metadata = {"op": "onnx", "attrs": json.dumps({"file": Path(onnx_file).name}), "torch": torch.__version__}
    save_file({key: np.ascontiguousarray(value.numpy()) for key, value in arrays.items()}, target, metadata=metadata)


def write(model, target, image, metadata, opset, legacy):
    x = torch.zeros(2, *image)
    model = model.float().eval()
    if legacy:
        axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(
            model, (x,), target, dynamo=False, opset_version=opset, input_names=["input"], output_names=["logits"], dynamic_axes=axes
        )
    else:
        shapes = ({0: torch.export.Dim("batch", min=1)},)
        program = torch.onnx.export(
            model,
            (x,),
            dynamo=True,
            opset_version=opset,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=shapes,
            verbose=False,
        )
        program.save(target, external_data=False)
    import onnx

    graph = onnx.load(target)
    for key, value in metadata.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    # Where each node comes from is for the exporter's own debugging.
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.save(graph, target)


def export(model, target, *, size, metadata, channels=3, opset=18, legacy=False, images=2, seed=0, parity=None, tries=8):
    """Writes the graph and, with `parity`, its dump; returns the number of logits."""
    model, image = model.eval(), (channels, *size)
    with torch.no_grad():
        classes = model.float()(torch.zeros(2, *image)).shape[1]
    write(model, str(target), image, metadata, opset, legacy)
    if parity:
        dump(model, target, str(parity), image, images, classes, seed, tries)
    return classes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="NAME, torchvision:NAME, timm:NAME or FILE.py:FUNCTION")
    parser.add_argument("target", help="MODEL.onnx")
    parser.add_argument("--weights", help="a checkpoint, .pth or .safetensors")
    parser.add_argument("--strip", default="", metavar="PREFIX", help="only tensors with this prefix, without it")
    parser.add_argument("--ema", action="store_true", help="the averaged weights of the checkpoint")
    parser.add_argument("--classes", type=int)
    parser.add_argument("--size", metavar="HxW", help="of the images; else what the network was trained on, else 224x224")
    parser.add_argument("--channels", type=int, choices=(1, 2, 3, 4), help="of the images; else what the network was trained on, else 3")
    parser.add_argument("--mean", type=float, nargs="+", metavar="NUMBER", help="per channel")
    parser.add_argument("--std", type=float, nargs="+", metavar="NUMBER", help="per channel")
    parser.add_argument("--dataset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=2, help="in the dump")
    parser.add_argument("--opset", type=int, default=18)
    parser.add_argument("--legacy", action="store_true", help="PyTorch's older exporter, for networks that the newer one refuses")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model, said = make(options.network, options.classes)
    if options.weights:
        missing = model.load_state_dict(state_of(options.weights, options.ema, options.strip), strict=False)
        if missing.missing_keys or missing.unexpected_keys:
            first = (missing.missing_keys or missing.unexpected_keys)[0]
            what = "lacks" if missing.missing_keys else "has"
            fail(f"{options.weights} {what} `{first}`, unlike {options.network}: --strip PREFIX changes names")
    if options.size:
        sides = options.size.lower().split("x")
        if len(sides) != 2 or not all(side.isdigit() and int(side) > 0 for side in sides):
            fail(f"--size: expected HxW such as 32x32, found `{options.size}`")
        size = tuple(map(int, sides))
    else:
        size = tuple(said.get("input_size", (3, 224, 224))[1:])
    metadata = {key: list(value) if isinstance(value, tuple) else value for key, value in said.items() if key != "input_size"}
    channels = options.channels or said.get("input_size", (3,))[0]
    metadata["input_size"] = [channels, *size]
    for key in ("mean", "std"):
        found = getattr(options, key)
        if found is not None and len(found) != channels:
            fail(f"--{key}: expected {channels} numbers, one per channel, found {len(found)}")
    for key in ("mean", "std", "dataset"):
        if getattr(options, key) is not None:
            metadata[key] = getattr(options, key)
    target = Path(options.target)
    parity = target.with_suffix(".parity.safetensors")
    classes = export(
        model,
        target,
        size=size,
        metadata=metadata,
        channels=channels,
        opset=options.opset,
        legacy=options.legacy,
        images=options.images,
        seed=options.seed,
        parity=parity,
    )
    print(f"{target}: {classes} logits of {size[0]}x{size[1]} images; `rampart parity {parity}` compares")


if __name__ == "__main__":
    main()
