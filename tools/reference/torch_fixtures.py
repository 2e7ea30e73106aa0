#!/usr/bin/env python3
"""Writes tests/fixtures/torch/: small checkpoints as PyTorch saves them, for the reader that runs none of their code.

  tools/reference/torch_fixtures.py tests/fixtures/torch

Values are counted, not drawn, so that a test can say them: tensor number k holds k, k + 1/4, k + 1/2, ...
"""

import argparse
import sys
from collections import OrderedDict
from pathlib import Path

import torch


def counted(first, shape, dtype=torch.float32):
    n = torch.Size(shape).numel()
    return (first + torch.arange(n, dtype=torch.float64) / 4).reshape(shape).to(dtype)


def tensors():
    base = counted(5, (4, 3))
    state = OrderedDict(
        f32=counted(1, (2, 3)),
        f16=counted(2, (3,), torch.float16),
        bf16=counted(3, (3,), torch.bfloat16),
        f64=counted(4, (2,), torch.float64),
        shared=base,
        rows=base[1:3],
        transposed=base.t(),
        every_other=base[::2],
        count=torch.tensor(7),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(counted(6, (2, 2))),
    )
    # As state_dict() has it: an attribute that is no entry.
    state._metadata = OrderedDict({"": {"version": 1}})
    return state


class Trainer:
    """What lies beside tensors in many checkpoints."""

    def __init__(self):
        self.rate = 0.1


def nested():
    return {
        "epoch": 3,
        "best": 0.5,
        "args": argparse.Namespace(lr=0.1, data=Path("x")),
        "trainer": Trainer(),
        "state_dict": OrderedDict({"module.a.weight": counted(1, (2, 2)), "module.b.bias": counted(2, (2,))}),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(tensors(), folder / "tensors.pth")
    torch.save(tensors(), folder / "before-1.6.pth", _use_new_zipfile_serialization=False)
    torch.save(nested(), folder / "nested.pt")
    torch.save(torch.nn.Linear(2, 1), folder / "module.pt")
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), folder / "script.pt")
    for path in sorted(folder.iterdir()):
        print(f"{path.name}: {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
