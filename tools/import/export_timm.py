#!/usr/bin/env python3
"""Writes a timm model as the safetensors file that the engine reads: its tensors, config, normalisation and classes.

  export_timm.py coatnet_rmlp_2_rw_384.sw_in12k_ft_in1k coatnet.safetensors --weights model.safetensors
  export_timm.py resnet50 resnet50.safetensors --weights resnet50.pth
  export_timm.py coatnet_rmlp_2_rw_384 seeded.safetensors --seeded      the deterministic weights of the tests
  export_timm.py --list                                                 what it knows

Weights come from a file of that model; nothing is downloaded. A name that timm knows and the engine does not is refused.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from timm.models.maxxvit import model_cfgs

import safetensors_file
from checkpoint_tables import TABLES
from convert_checkpoint import differences, torch_bytes

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
from resnet_reference import fill_state

RESNETS = {"resnet18": 18, "resnet34": 34, "resnet50": 50}
COATNETS = (
    "coatnet_rmlp_nano_rw",
    "coatnet_rmlp_0_rw",
    "coatnet_rmlp_1_rw",
    "coatnet_rmlp_1_rw2",
    "coatnet_rmlp_2_rw",
    "coatnet_rmlp_3_rw",
)


def describe(name, model):
    """-> (arch, config) of a model that the engine has, or None"""
    base = name.partition(".")[0]
    if base in RESNETS:
        config = {
            "depth": RESNETS[base],
            "stem": "imagenet",
            "width": 64,
            "attention": "none",
            "reduction": 16,
            "classes": model.num_classes,
        }
        return "resnet", config
    plain = base.rpartition("_")[0] if base.rpartition("_")[2].isdigit() else base
    if plain not in COATNETS:
        return None
    cfg = model_cfgs[plain]
    transformer = cfg.transformer_cfg
    config = {
        "stem": list(cfg.stem_width),
        "dims": list(cfg.embed_dim),
        "depths": list(cfg.depths),
        "types": "".join(cfg.block_type),
        "head_dim": transformer.dim_head,
        "rel_pos_hidden": transformer.rel_pos_dim,
        "image": model.pretrained_cfg["input_size"][1],
        "classes": model.num_classes,
    }
    return "coatnet", config


def known():
    """Names of timm whose tensors are those of the engine's network, and that compute the same."""
    names = [*RESNETS, *(n for n in timm.list_models("coatnet_rmlp_*") if same_form(n))]
    return sorted(names)


def same_form(name):
    """Whether a CoAtNet differs from the engine's in nothing but its sizes."""
    base = name.partition(".")[0]
    plain = base.rpartition("_")[0] if base.rpartition("_")[2].isdigit() else base
    if plain not in COATNETS:
        return False
    cfg, own = model_cfgs[plain], model_cfgs["coatnet_rmlp_2_rw"]

    def form(cfg):
        sizes = {"dim_head", "rel_pos_dim", "window_size", "grid_size", "partition_ratio"}
        return (
            vars(cfg.conv_cfg),
            {k: v for k, v in vars(cfg.transformer_cfg).items() if k not in sizes},
            cfg.head_hidden_size,
            cfg.stem_bias,
        )

    return form(cfg) == form(own) and all(isinstance(kind, str) and kind in "CT" for kind in cfg.block_type)


def read_state(path):
    if str(path).endswith(".safetensors"):
        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state.get("state_dict", state)


def export(name, target, weights):
    """Writes `target`; returns the number of tensors. Without `weights` the deterministic fill."""
    base = name.partition(".")[0]
    if base not in RESNETS and not same_form(base):
        hint = "timm has it, the engine does not" if timm.is_model(base) else "timm has no such model"
        raise ValueError(f"{name}: {hint}; known: {', '.join(known())}")
    model = timm.create_model(name, pretrained=False).eval()
    arch, config = describe(name, model)
    if weights:
        model.load_state_dict(read_state(weights))
    else:
        fill_state(model)
    state = model.state_dict()
    problems = differences({k: ("F32", tuple(t.shape)) for k, t in state.items()}, TABLES[arch](config))
    if problems:
        raise ValueError(f"{name}: not the tensors of the engine's {arch}: {'; '.join(problems)}")
    pre = model.pretrained_cfg
    metadata = {
        "arch": arch,
        "config": json.dumps(config),
        "mean": json.dumps(list(pre["mean"])),
        "std": json.dumps(list(pre["std"])),
        "classes": str(config["classes"]),
        "dataset": "imagenet",
        "model": f"timm {name}",
        "timm": timm.__version__,
        "source": os.path.basename(weights) if weights else "seeded",
    }
    metadata["input_size"] = json.dumps(list(pre["input_size"]))
    metadata.update({k: str(pre[k]) for k in ("interpolation", "crop_pct", "crop_mode") if k in pre})
    entries = [
        (k, "F32", tuple(t.shape), lambda t=t: torch_bytes(torch, t, "F32"))
        for k, t in state.items()
        if not k.endswith("num_batches_tracked")
    ]
    safetensors_file.write(target, entries, metadata)
    return len(entries), sum(math.prod(shape) for _, _, shape, _ in entries)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="timm's name of the model, with or without the tag of its weights")
    parser.add_argument("target", nargs="?", metavar="OUT", help=".safetensors")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--weights", metavar="FILE", help=".safetensors, .pt or .pth with the model's state dict")
    source.add_argument("--seeded", action="store_true", help="deterministic weights instead")
    parser.add_argument("--list", action="store_true", help="print the names it knows and exit")
    args = parser.parse_args()
    if args.list:
        print("\n".join(known()))
        return 0
    if args.name is None or args.target is None or not (args.weights or args.seeded):
        parser.error("NAME, OUT and either --weights or --seeded are needed")
    try:
        count, values = export(args.name, args.target, args.weights)
    except (ValueError, RuntimeError, OSError, KeyError) as e:
        print(f"export_timm: {e}", file=sys.stderr)
        return 1
    print(f"{args.target}: {count} tensors, {values} values")
    return 0


if __name__ == "__main__":
    sys.exit(main())
