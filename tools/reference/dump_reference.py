#!/usr/bin/env python3
"""Writes and checks parity dumps: what PyTorch computes for every operation and network of the engine.

  dump_reference.py OUT_DIR [--only PATTERN]          write OUT_DIR/OP/NAME.safetensors for every case
  dump_reference.py DIR --check [--only PATTERN]      replay the dumps in float32 and in bfloat16 and compare
  dump_reference.py OUT_DIR --large [--only PATTERN]  write whole U-Nets at 32 channels, 3 to 17 MB each
  dump_reference.py --find-seed 300 --only PATTERN    of that many, the seed that serves each case best: clear of
                                                      the kinks of its gradient, then the least error in bfloat16

A map of one's own network, to be replayed by `rampart parity FILE`: a safetensors file with `w.*` the state dict, `in.x` [N,3,H,W],
`out.y` what a hook on one module saw, and the metadata op=feature_map, attrs={"arch", "config", "layer"}, where `layer` is the module's
path. Gates of CBAM and attention of CoAtNet have paths too, see `run_feature_map` in reference_ops.py.

References are computed in float64 from inputs and weights that the file holds exactly, and stored as float32.
PATTERN is a shell pattern for OP/NAME, e.g. 'conv2d/*' or 'model/resnet50*'.
"""

import argparse
import fnmatch
import json
import math
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from bf16_reference import bf16_outputs
from diffusion_cases import DIFFUSION_CASES, LARGE_CASES
from kink_margin import kink_margin
from reference_cases import CASES, stored
from reference_ops import replay

CASES = CASES + DIFFUSION_CASES

# Inputs of these are compared as stored, no rounding comes first, or no gradient is taken.
NO_GRADIENT = {"feature_map", "timestep_embedding"}
NO_MARGIN = {"relu", "max_pool2d", "feature_map", "pgd", "pgd_step", "apgd_step", "fab_step", "min_norm_step", "square_step", "vote"}
MARGIN = {"model": 3e-6}  # a network has too many activations for more
DEFAULT_MARGIN = 1e-5

# Limits of the float32 replay, relative to the norm of the reference: (outputs, gradients).
LIMITS = {"model": (5e-6, 2e-5), "dds": (5e-6, 2e-5), "feature_map": (5e-6, 5e-6), "pgd": (1e-2, 0)}
DEFAULT_LIMITS = (2e-6, 3e-6)
# Limits of the bfloat16 replay: clear of the engine's, 1e-2 for one operation, 3e-2 and 8e-2 for networks.
BF16_LIMITS = {"model": (1.5e-2, 4e-2), "dds": (1.5e-2, 4e-2), "feature_map": (1.5e-2, 4e-2), "pgd": (5e-3, 0)}
DEFAULT_BF16_LIMITS = (7e-3, 7e-3)
# PyTorch rounds the filter positions and the angles to float32: up to 3e-5.
FLOAT64_REPLAY = {"resize", "timestep_embedding"}


def make(case, seed):
    """-> (inputs with `dout`, weights, outputs in float64); the weights in the dtype they are stored in."""
    rng = np.random.default_rng([seed, zlib.crc32(case.path.encode())])
    inputs, weights = case.make(rng)
    weights = {k: stored(t, case.weight_dtype, case.exact) for k, t in weights.items()}
    inputs = {k: stored(t, torch.float32, case.exact and k != "t") for k, t in inputs.items()}
    outputs = replay(case.op, case.attrs, inputs, weights)
    y = outputs.get("y", outputs.get("x0"))
    if y is not None and case.op not in NO_GRADIENT and "dout" not in inputs:
        dout = rng.standard_normal(tuple(y.shape)).astype(np.float32)
        inputs["dout"] = stored(torch.from_numpy(dout), torch.float32, case.exact)
        outputs = replay(case.op, case.attrs, inputs, weights)
    outputs = {k: t for k, t in outputs.items() if k not in case.without}
    return inputs, weights, outputs


def margin_of(case, inputs, weights, outputs):
    if case.op == "pgd" and (outputs["x"] - inputs["start"]).abs().max() < 1e-3:
        return 0.0  # a dead network: the attack goes nowhere
    if case.op in NO_MARGIN:
        return float("inf")
    return kink_margin(lambda: replay(case.op, case.attrs, inputs, weights))


def relative_error(got, want):
    """||got - want|| / ||want||, and ||got|| where the reference is zero; NaN where got is not finite."""
    got, want = got.double(), want.double()
    if got.shape != want.shape or not torch.isfinite(got).all():
        return float("nan")
    scale = want.norm().item()
    return (got - want).norm().item() / scale if scale > 0 else got.norm().item()


def error_of(op, got, want):
    """The relative error; for `pgd` the share of pixels that differ, for rounding decides the sign of a gradient near zero."""
    if op == "pgd":
        return (~((got - want).abs() <= 1e-4)).double().mean().item()  # a NaN differs
    return relative_error(got, want)


def limit_of(op, name, limits, default):
    """`limits` by op, else `default`: (outputs, gradients)"""
    return limits.get(op, default)[name.startswith("d")]


def bf16_rows(op, attrs, inputs, weights, outputs):
    """-> (passed, way and tensor, error, limit) of every output as bfloat16 computes it"""
    rows = []
    for way, got in bf16_outputs(op, attrs, inputs, weights).items():
        for name, want in outputs.items():
            error, limit = error_of(op, got[name], want), limit_of(op, name, BF16_LIMITS, DEFAULT_BF16_LIMITS)
            rows.append((error <= limit, f"{way} bf16 {name}", error, limit))
    return rows


def worst_of(rows):
    """The row that fails, else the one nearest to its limit."""
    return min(rows, key=lambda r: (r[0], -r[2] / r[3]))


def serialise(tensors, metadata):
    """Safetensors bytes with a sorted header: the library writes the metadata in random order."""
    data = save({k: t.contiguous() for k, t in tensors.items()}, metadata)
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def write(case, folder):
    """Writes one dump; returns its size in bytes."""
    inputs, weights, outputs = make(case, case.seed)
    margin, wanted = margin_of(case, inputs, weights, outputs), MARGIN.get(case.op, DEFAULT_MARGIN)
    if not margin >= wanted:
        raise ValueError(f"{case.path}: an activation lies {margin:.1e} from a kink, want {wanted:.1e}: try --find-seed")
    for passed, what, error, limit in bf16_rows(case.op, case.attrs, inputs, weights, outputs):
        if not passed:
            raise ValueError(f"{case.path}: {what} is {error:.1e} away, want {limit:.1e}: try --find-seed")
    tensors = {f"in.{k}": t for k, t in inputs.items()}
    tensors.update({f"w.{k}": t for k, t in weights.items()})
    tensors.update({f"out.{k}": t.float() if t.is_floating_point() else t for k, t in outputs.items()})
    for name, t in tensors.items():
        if not torch.isfinite(t).all():
            raise ValueError(f"{case.path}: {name} is not finite")
    metadata = {
        "op": case.op,
        "attrs": json.dumps(case.attrs),
        "torch": torch.__version__,
        "seed": str(case.seed),
        "command": f"python tools/reference/dump_reference.py OUT_DIR --only {case.path}",
    }
    path = folder / f"{case.path}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.write_bytes(serialise(tensors, metadata))


def read(path):
    """-> (op, attrs, {"in": {...}, "w": {...}, "out": {...}})"""
    groups = {"in": {}, "w": {}, "out": {}}
    with safe_open(path, "pt") as f:
        meta = f.metadata() or {}
        for key in f.keys():
            group, _, name = key.partition(".")
            if group not in groups or not name:
                raise ValueError(f"{path}: tensor {key!r} is not in.*, w.* or out.*")
            groups[group][name] = f.get_tensor(key)
    if "op" not in meta or not groups["out"]:
        raise ValueError(f"{path}: no op in the metadata or no out.* tensor")
    return meta["op"], json.loads(meta.get("attrs", "{}")), groups


def check(path):
    """Replays one dump; returns (passed, worst tensor, its error, its limit)."""
    op, attrs, groups = read(path)
    dtype = torch.float64 if op in FLOAT64_REPLAY else torch.float32
    outputs = replay(op, attrs, groups["in"], groups["w"], dtype)
    rows = bf16_rows(op, attrs, groups["in"], groups["w"], groups["out"])
    for name, want in groups["out"].items():
        if name not in outputs:
            raise ValueError(f"{path}: out.{name} is not an output of {op}")
        error, limit = error_of(op, outputs[name], want), limit_of(op, name, LIMITS, DEFAULT_LIMITS)
        rows.append((error <= limit, f"out.{name}", error, limit))
    return worst_of(rows)


def check_all(folder, pattern):
    paths = [p for p in sorted(folder.rglob("*.safetensors")) if fnmatch.fnmatch(f"{p.parent.name}/{p.stem}", pattern)]
    if not paths:
        raise ValueError(f"no dump in {folder} matches {pattern!r}")
    failed = 0
    for path in paths:
        passed, tensor, error, limit = check(path)
        failed += not passed
        print(f"{'ok  ' if passed else 'FAIL'}  {path.parent.name + '/' + path.stem:48} {tensor:14} {error:.1e} of {limit:.1e}")
    print(f"{len(paths) - failed} passed, {failed} failed")
    return 1 if failed else 0


def quality(case, seed):
    """-> (far enough from kinks, -worst bfloat16 error over its limit, distance from a kink): the larger the better"""
    inputs, weights, outputs = make(case, seed)
    margin = margin_of(case, inputs, weights, outputs)
    ratios = [error / limit for _, _, error, limit in bf16_rows(case.op, case.attrs, inputs, weights, outputs)]
    worst = max((math.inf if math.isnan(r) else r for r in ratios), default=0.0)
    return margin >= MARGIN.get(case.op, DEFAULT_MARGIN), -worst, margin


def find_seed(cases, count):
    for case in cases:
        clear, worst, margin, seed = max((*quality(case, seed), seed) for seed in range(count))
        print(
            f"{case.path}: seed {seed} (now {case.seed}): {-worst:.2f} of the bfloat16 limit, {margin:.1e} from a kink"
            f"{'' if clear else ', which is too close'}",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", metavar="OUT_DIR")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cases to take, as OP/NAME (default: all)")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="compare the dumps in OUT_DIR with a float32 and a bfloat16 replay")
    action.add_argument("--find-seed", type=int, metavar="COUNT", help="try this many seeds and print the best")
    parser.add_argument("--large", action="store_true", help="take the large cases, and only those")
    args = parser.parse_args()
    if args.folder is None and args.find_seed is None:
        parser.error("OUT_DIR is missing")
    torch.set_num_threads(1)  # the same summation order on every machine
    try:
        if args.check:
            return check_all(args.folder, args.only)
        cases = [c for c in (LARGE_CASES if args.large else CASES) if fnmatch.fnmatch(c.path, args.only)]
        if not cases:
            parser.error(f"no case matches {args.only!r}")
        if args.find_seed is not None:
            find_seed(cases, args.find_seed)
            return 0
        sizes = [write(case, args.folder) for case in cases]
        print(f"{len(sizes)} dumps, {sum(sizes)} bytes, in {args.folder}")
        return 0
    except (ValueError, RuntimeError, OSError, SafetensorError) as e:
        print(f"dump_reference: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
