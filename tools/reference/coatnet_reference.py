#!/usr/bin/env python3
"""timm's CoAtNet with an MLP of log coordinates (`coatnet_rmlp_*_rw`), built by timm itself from a config, for any width and depth.

Parameter names are timm's. Inputs are already normalised.

  coatnet_reference.py --check-golden     compare with the known values of the full network (float64, about a minute)
"""

import argparse
import sys
from dataclasses import replace

import torch
import torch.nn.functional as F
from timm.models.maxxvit import MaxxVit, model_cfgs

from resnet_reference import fill_state, fill_tensor

DEFAULTS = {
    "stem": [64, 128],
    "dims": [128, 256, 512, 1024],
    "depths": [2, 6, 14, 2],
    "types": "CCTT",
    "head_dim": 32,
    "rel_pos_hidden": 512,
    "image": 384,
    "classes": 1000,
}


def build(config):
    """CoAtNet in eval mode, parameters frozen, from a `config` object; missing keys take the values of the published network."""
    unknown = set(config) - set(DEFAULTS)
    if unknown:
        raise ValueError(f"unknown config keys {sorted(unknown)}; known: {sorted(DEFAULTS)}")
    config = {**DEFAULTS, **config}
    full = model_cfgs["coatnet_rmlp_2_rw"]
    transformer = replace(full.transformer_cfg, dim_head=config["head_dim"], rel_pos_dim=config["rel_pos_hidden"])
    cfg = replace(
        full,
        embed_dim=tuple(config["dims"]),
        depths=tuple(config["depths"]),
        block_type=tuple(config["types"]),
        stem_width=tuple(config["stem"]),
        transformer_cfg=transformer,
    )
    return MaxxVit(cfg, img_size=config["image"], num_classes=config["classes"]).eval().requires_grad_(False)


# ------------------------------------------------------------------------------------------------ golden values
GOLDEN = dict(
    params=73_881_264,
    entries=480,
    logits=[0.48987495, -1.15438643, -0.56136803, -2.47306807, -0.95518668, -1.29714756, 1.04585022, 0.72637393, -0.30850573, 1.45300774],
    sum=-31.23692045,
    squares=1078.47142858,
    loss=9.8715357017,
    grad_sum=-6.5382786996e-01,
    grad_l1=9.5390133290,
    grad_l2=1.9372567912e-02,
    grad=[-3.71266086e-05, 3.52023658e-05, -4.34398810e-05, 1.16096839e-05],
)


def check_golden():
    """-> rows (what, relative difference, allowed): the printed digits"""
    net = fill_state(build({}))
    rows = [
        ("parameters", abs(sum(p.numel() for p in net.parameters()) - GOLDEN["params"]), 0),
        ("state entries", abs(len(net.state_dict()) - GOLDEN["entries"]), 0),
    ]
    net.double()
    x = fill_tensor("input", (1, 3, 384, 384)).double().requires_grad_(True)
    logits = net(x)
    loss = F.cross_entropy(logits, torch.tensor([3]))
    (g,) = torch.autograd.grad(loss, x)
    got = dict(
        logits=logits[0, :10],
        sum=logits.sum(),
        squares=logits.square().sum(),
        loss=loss,
        grad_sum=g.sum(),
        grad_l1=g.abs().sum(),
        grad_l2=g.norm(),
        grad=g[0, 0, 0, :4],
    )
    for what, value in got.items():
        want = torch.tensor(GOLDEN[what], dtype=torch.float64)
        rows.append((what, ((value.detach() - want).norm() / want.norm()).item(), 2e-8))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check-golden", action="store_true", help="compare with the golden values; exit 1 on a difference")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not args.check_golden:
        parser.error("nothing to do: pass --check-golden")
    torch.set_num_threads(args.threads)
    failed = 0
    for what, difference, allowed in check_golden():
        failed += not difference <= allowed
        print(f"{'ok  ' if difference <= allowed else 'FAIL'}  {what:14} {difference:.1e} of {allowed:.1e}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
