#!/usr/bin/env python3
"""Turns a public checkpoint into a safetensors file with the metadata that the engine reads, or says why not.

  convert_checkpoint.py cifar10_uncond_50M_500K.pt unet.safetensors --model improved-diffusion-cifar10
  convert_checkpoint.py resnet50.pth resnet50.safetensors --model resnet50-imagenet
  convert_checkpoint.py model.safetensors coatnet.safetensors --model coatnet-rmlp-2-rw-384
  convert_checkpoint.py --seeded unet.safetensors --model guided-diffusion-imagenet256     the deterministic weights of the tests
  convert_checkpoint.py --list                                  the models, with their configs

Every tensor must have the name and shape that the model's has, and nothing may be left over. Pickles are read by PyTorch's
tensors-only unpickler: no code of the file runs. A .safetensors file whose values already have the wanted type needs no PyTorch.
"""

import argparse
import difflib
import hashlib
import json
import math
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors_file
from checkpoint_tables import MODELS, TABLES

WRAPPERS = ("module.", "_orig_mod.")  # DataParallel, compile
NESTED = ("state_dict", "model_state_dict", "model", "ema")
FLOATS = ("F64", "F32", "F16", "BF16")
SHOWN = 5  # names of each kind in a message


@dataclass
class Tensor:
    """A tensor of the source; `convert(dtype)` gives its bytes, or raises ValueError."""

    dtype: str
    shape: tuple
    convert: Callable


# ------------------------------------------------------------------------------------------------ reading
def torch_module():
    try:
        import torch
    except ImportError:
        raise ValueError("this needs PyTorch: pip install -r tools/requirements.txt") from None
    return torch


def torch_bytes(torch, tensor, dtype):
    """Little-endian bytes of the values as `dtype`; refuses what is not finite before or after."""
    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    values = tensor.detach().to(kind).contiguous()
    if not torch.isfinite(values).all():
        raise ValueError(f"holds a value that is not finite as {dtype}")
    return bytes(values.reshape(-1).view(torch.uint8).numpy().data)


def from_torch(path, key):
    """The state dict of a PyTorch file, at `key` or wherever it lies -> {name: Tensor}"""
    torch = torch_module()
    names = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        raise ValueError(
            f"{path}: expected tensors only, found other objects, such as a pickled module: save its state_dict() and convert "
            f"that ({str(e).splitlines()[0]})"
        ) from None
    except (RuntimeError, EOFError) as e:
        raise ValueError(f"{path}: expected a PyTorch file: {str(e).splitlines()[0]}") from None
    state = descend(path, content, key)
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            raise ValueError(f"{path}: {name!r}: expected a tensor, found {type(value).__name__}")
    return {
        name: Tensor(names.get(t.dtype, str(t.dtype)), tuple(t.shape), lambda dtype, t=t: torch_bytes(torch, t, dtype))
        for name, t in state.items()
    }


def descend(path, content, key=None):
    """The mapping that holds the tensors: under `key`, under one of the usual keys, or the whole content."""
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping from names to tensors, found {type(content).__name__}")
    found = [key] if key else [k for k in NESTED if isinstance(content.get(k), dict)]
    if len(found) > 1:
        raise ValueError(f"{path}: {' and '.join(found)} both hold tensors: choose with --key")
    if found:
        if not isinstance(content.get(found[0]), dict):
            raise ValueError(f"{path}: no mapping at {found[0]!r}; top-level keys: {', '.join(map(str, list(content)[:8]))}")
        return content[found[0]]
    if "param_groups" in content:
        raise ValueError(f"{path}: expected a network's tensors, found the state of an optimizer")
    return content


def from_safetensors(path):
    entries, _ = safetensors_file.read_header(path)

    def converter(dtype, shape, first, count):
        def convert(wanted):
            data = safetensors_file.read_bytes(path, first, count)
            if wanted == dtype:
                return data
            torch = torch_module()
            kind = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
            return torch_bytes(torch, torch.frombuffer(bytearray(data), dtype=kind), wanted)

        return convert

    return {name: Tensor(dtype, shape, converter(dtype, shape, first, count)) for name, (dtype, shape, first, count) in entries.items()}


# ------------------------------------------------------------------------------------------------ checking
def unwrap(names):
    """{stripped name: name}: what wrappers put in front of every name is taken off, once per wrapper."""
    names, left = {name: name for name in names}, list(WRAPPERS)
    while True:
        prefix = next((p for p in left if any(name.startswith(p) for name in names)), None)
        if prefix is None:
            return names
        plain = next((name for name in names if not name.startswith(prefix)), None)
        if plain is not None:
            wrapped = next(name for name in names if name.startswith(prefix))
            raise ValueError(f"some names start with {prefix!r} ({wrapped!r}) and some do not ({plain!r})")
        names = {name[len(prefix) :]: original for name, original in names.items()}
        left.remove(prefix)


def some(names):
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def differences(found, table):
    """found: {name: (dtype, shape)} -> sentences, none where the tensors are exactly those of the table."""

    def counter(name):
        return name.endswith("num_batches_tracked")

    missing = [name for name in table if name not in found and not counter(name)]
    unknown = [name for name in found if name not in table]
    sentences = []
    if missing:
        sentences.append(f"missing {some(missing)}")
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], missing or list(table), 1, 0)
        hint = f" (the nearest it has is {nearest[0]})" if nearest else ""
        sentences.append(f"unknown {some(unknown)}{hint}")
    shapes = [
        f"{name} is {list(found[name][1])}, expected {list(shape)}"
        for name, shape in table.items()
        if name in found and tuple(found[name][1]) != shape
    ]
    if shapes:
        sentences.append("shapes: " + some(shapes))
    kinds = [f"{name} is {found[name][0]}" for name in table if name in found and not counter(name) and found[name][0] not in FLOATS]
    if kinds:
        sentences.append("expected floating-point values: " + some(kinds))
    return sentences


def match(path, found, model):
    """Refuses tensors that are not the model's, and names the models that they do fit."""
    try:
        table = TABLES[model["arch"]](model["config"])
    except (KeyError, IndexError, TypeError) as e:
        raise ValueError(f"the config describes no {model['arch']}: {e!r}") from None
    problems = differences(found, table)
    if problems:
        fits = [name for name, m in MODELS.items() if not differences(found, TABLES[m["arch"]](m["config"]))]
        hint = f"\n  these are the tensors of --model {' or '.join(fits)}" if fits else ""
        raise ValueError(f"{path}: not the tensors of this {model['arch']}:\n  " + "\n  ".join(problems) + hint)
    return table


def target_dtype(name, wanted):
    """Statistics of batch norms stay float32: half precision cannot hold their range."""
    return "F32" if name.rpartition(".")[2].startswith("running_") else wanted


# ------------------------------------------------------------------------------------------------ writing
def metadata_of(name, model, source):
    digest = hashlib.sha256()
    with open(source, "rb") as f:
        while block := f.read(1 << 22):
            digest.update(block)
    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in model.items()}
    return {**values, "model": name, "source": Path(source).name, "source_sha256": digest.hexdigest()}


def convert(source, target, name, model, dtype="F32", key=None):
    """Writes `target`; returns (tensors, values)."""
    if str(source).endswith(".safetensors"):
        if key:
            raise ValueError(f"{source}: --key is for PyTorch files")
        tensors = from_safetensors(source)
    else:
        tensors = from_torch(source, key)
    try:
        tensors = {stripped: tensors[original] for stripped, original in unwrap(tensors).items()}
    except ValueError as e:
        raise ValueError(f"{source}: {e}") from None
    table = match(source, {k: (t.dtype, t.shape) for k, t in tensors.items()}, model)

    def data(entry, kind):
        def get():
            try:
                return tensors[entry].convert(kind)
            except ValueError as e:
                raise ValueError(f"{source}: tensor {entry!r}: {e}") from None

        return get

    entries = [
        (entry, kind, shape, data(entry, kind))
        for entry, shape in table.items()
        if not entry.endswith("num_batches_tracked")
        for kind in [target_dtype(entry, dtype)]
    ]
    safetensors_file.write(target, entries, metadata_of(name, model, source))
    return len(entries), sum(math.prod(shape) for _, _, shape, _ in entries)


def seed(target, name, model, dtype="F32"):
    """Writes `target` with the weights that depend on the tensors' names only; returns (tensors, values)."""
    torch = torch_module()
    sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
    from resnet_reference import fill_tensor

    try:
        table = TABLES[model["arch"]](model["config"])
    except (KeyError, IndexError, TypeError) as e:
        raise ValueError(f"the config describes no {model['arch']}: {e!r}") from None
    entries = [
        (entry, kind, shape, lambda entry=entry, shape=shape, kind=kind: torch_bytes(torch, fill_tensor(entry, shape), kind))
        for entry, shape in table.items()
        if not entry.endswith("num_batches_tracked")
        for kind in [target_dtype(entry, dtype)]
    ]
    values = {k: v if isinstance(v, str) else json.dumps(v) for k, v in model.items()}
    safetensors_file.write(target, entries, {**values, "model": name, "source": "seeded"})
    return len(entries), sum(math.prod(shape) for _, _, shape, _ in entries)


def chosen_model(args):
    model = dict(MODELS[args.model])
    if args.config:
        changes = json.loads(args.config)
        if not isinstance(changes, dict):
            raise ValueError(f"--config: expected a JSON object, found {args.config}")
        unknown = set(changes) - set(model["config"]) - {"heads", "head_channels"}
        if unknown:
            raise ValueError(f"--config: unknown keys {sorted(unknown)}; known: {sorted(model['config'])}")
        rivals = {"heads": "head_channels", "head_channels": "heads"}
        kept = {k: v for k, v in model["config"].items() if rivals.get(k) not in changes}
        model["config"] = {**kept, **changes}
    for key in ("mean", "std"):
        if getattr(args, key):
            if key not in model:
                raise ValueError(f"--{key} is for classifiers, not for {args.model}")
            model[key] = getattr(args, key)
    return model


def triple(text):
    """'0.5,0.5,0.5' -> floats"""
    values = [float(v) for v in text.split(",")]
    if len(values) != 3 or not all(map(math.isfinite, values)):
        raise ValueError
    return values


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, metavar="IN", help=".pt, .pth, .pth.tar or .safetensors")
    parser.add_argument("target", nargs="?", type=Path, metavar="OUT", help=".safetensors")
    parser.add_argument("--model", choices=MODELS, help="what the file holds")
    parser.add_argument("--config", metavar="JSON", help="keys of the config that differ, e.g. '{\"classes\": 100}'")
    parser.add_argument("--mean", type=triple, metavar="R,G,B", help="of the classifier's input, where it differs")
    parser.add_argument("--std", type=triple, metavar="R,G,B")
    parser.add_argument("--dtype", choices=("f32", "f16"), default="f32", help="of the weights (default: %(default)s)")
    parser.add_argument("--key", help="where in the file the tensors lie, if there is a choice")
    parser.add_argument("--seeded", type=Path, metavar="OUT", help="write deterministic weights instead of converting a file")
    parser.add_argument("--list", action="store_true", help="print the models and exit")
    args = parser.parse_args()
    if args.list:
        for name, model in MODELS.items():
            print(f"{name:30} {model['arch']:8} {json.dumps(model['config'])}")
        return 0
    if args.seeded is None and None in (args.source, args.target, args.model):
        parser.error("IN, OUT and --model are needed")
    if args.seeded is not None and (args.source is not None or args.key or args.model is None):
        parser.error("--seeded OUT takes --model, and no IN or --key")
    try:
        if args.seeded is not None:
            count, values = seed(args.seeded, args.model, chosen_model(args), args.dtype.upper())
        else:
            count, values = convert(args.source, args.target, args.model, chosen_model(args), args.dtype.upper(), args.key)
        print(f"{args.seeded or args.target}: {count} tensors, {values} values, {args.dtype}")
        return 0
    except (ValueError, OSError) as e:
        print(f"convert_checkpoint: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
