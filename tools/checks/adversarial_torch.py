#!/usr/bin/env python3
"""Adversarial images between this program and PyTorch, both ways, on a classifier of resnet_reference.py.

  adversarial_torch.py ours WEIGHTS.safetensors RUN/adversarial/FILE     what was saved here has the same predictions in PyTorch
  adversarial_torch.py theirs WEIGHTS.safetensors FILE OUT.pt --images 4   attacks FILE's clean images by torchattacks, as it saves them

`theirs` wants torchattacks beside PyTorch; `rampart evaluate OUT.pt --model WEIGHTS.safetensors` then scores its file.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
import resnet_reference


class Normalised(torch.nn.Module):
    """The classifier on pixels in [0, 1]."""

    def __init__(self, path):
        super().__init__()
        self.net, metadata = resnet_reference.load_classifier(path)
        self.net.eval()
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(json.loads(metadata[key])).view(1, 3, 1, 1))

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


def read(path):
    """-> arrays and what the file says of them"""
    if path.endswith(".npz"):
        with np.load(path) as file:
            return {name: torch.from_numpy(file[name]) for name in file.files if name != "about.json"}, json.loads(file["about.json"])
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()["about"])


def ours(model, path):
    arrays, about = read(path)
    with torch.no_grad():
        attacked, clean = (model(arrays[name]).argmax(1) for name in ("x", "clean"))
    same = {"predictions": attacked, "clean_predictions": clean}
    differ = {name: int((found != arrays[name]).sum()) for name, found in same.items()}
    linf = (arrays["x"].double() - arrays["clean"].double()).abs().flatten(1).amax(1)
    inside = bool(((arrays["x"] >= 0) & (arrays["x"] <= 1)).all())
    within = about["norm"] != "linf" or bool((linf <= about["eps"] + 1e-6).all())
    right = int((attacked == arrays["y"]).sum())
    print(f"{path}: {len(attacked)} images, {right} right, linf at most {linf.max():.6f}, predictions that differ: {differ}")
    if any(differ.values()) or not inside or not within:
        sys.exit(f"{path}: not what its run says")


def theirs(model, path, out, images, eps):
    import torchattacks

    arrays, _ = read(path)
    data = torch.utils.data.TensorDataset(arrays["clean"][:images], arrays["y"][:images])
    torch.manual_seed(0)
    attack = torchattacks.PGD(model, eps=eps, alpha=eps / 4, steps=10)
    loader = torch.utils.data.DataLoader(data, batch_size=images)
    # Predictions are there only where it prints as well.
    attack.save(loader, save_path=out, save_predictions=True, save_clean_inputs=True, verbose=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("ours", "theirs"))
    parser.add_argument("weights")
    parser.add_argument("file")
    parser.add_argument("out", nargs="?")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--eps", type=float, default=4 / 255)
    args = parser.parse_args()
    model = Normalised(args.weights)
    if args.what == "ours":
        return ours(model, args.file)
    if not args.out:
        parser.error("theirs: expected OUT.pt")
    return theirs(model, args.file, args.out, args.images, args.eps)


if __name__ == "__main__":
    main()
