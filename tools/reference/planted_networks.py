#!/usr/bin/env python3
"""Small classifiers of the demo's images, one sound and the others with a gradient that misleads an attack, for tests/fixtures/planted.

python tools/reference/planted_networks.py tests/fixtures/planted

All are the same ridge regression on pixels averaged over 4x4, fitted to the demo's own 512 images.
  sound      logits as they come
  saturated  logits times 1e4: the cross-entropy is exactly 0 and has no gradient
  shattered  pixels quantised to 16 levels before anything reads them: their gradient is zero nearly everywhere
  zero       logits quantised: as above, at the other end
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).resolve().parents[2]
LEVELS = 16
STEEP = 1e6


def demo():
    """Images (N, 3, 32, 32) in [0, 1] and labels of the embedded set."""
    folder = ROOT / "assets/demo"
    with gzip.open(folder / "t10k-first512-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)
    with gzip.open(folder / "t10k-first512-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8)
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2))).astype(np.float64) / 255
    return np.repeat(padded[:, None], 3, 1), labels


def regression():
    """Weights (10, 192) and bias (10) of ridge regression to one-hot labels, stretched so that the cross-entropy has a slope."""
    images, labels = demo()
    pooled = images.reshape(len(images), 3, 8, 4, 8, 4).mean((3, 5)).reshape(len(images), -1)
    mean = pooled.mean(0)
    centred, wanted = pooled - mean, np.eye(10)[labels] - 0.1
    weights = np.linalg.solve(centred.T @ centred + 3 * np.eye(centred.shape[1]), centred.T @ wanted).T
    scores = centred @ weights.T
    print(f"{np.mean(scores.argmax(1) == labels):.3f} of the demo's images right")
    return 10 * weights, -10 * weights @ mean


def staircase(source, out, low, high):
    """Nodes that quantise values of [low, high] to LEVELS steps."""
    nodes, slope = [], STEEP / (high - low)
    for level in range(LEVELS):
        at = low + (level + 0.5) / LEVELS * (high - low)
        shift = 0.5 - slope * at
        nodes.append(helper.make_node("HardSigmoid", [source], [f"{out}{level}"], alpha=slope, beta=shift))
    nodes.append(helper.make_node("Sum", [f"{out}{level}" for level in range(LEVELS)], [f"{out}_sum"]))
    nodes.append(helper.make_node("Mul", [f"{out}_sum", f"{out}_width"], [f"{out}_scaled"]))
    nodes.append(helper.make_node("Add", [f"{out}_scaled", f"{out}_low"], [out]))
    constants = {f"{out}_width": (high - low) / LEVELS, f"{out}_low": low}
    return nodes, constants


def network(weights, bias, factor=1.0, pixels=False, logits=False):
    nodes, constants = staircase("x", "steps", 0.0, 1.0) if pixels else ([], {})
    nodes.append(helper.make_node("AveragePool", ["steps" if pixels else "x"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "w", "b"], ["z" if logits else "logits"], transB=1))
    if logits:
        more, other = staircase("z", "logits", -8.0, 8.0)
        nodes, constants = nodes + more, constants | other
    values = [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()]
    values += [numpy_helper.from_array((factor * array).astype(np.float32), name) for name, array in [("w", weights), ("b", bias)]]
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        values,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    weights, bias = regression()
    made = {
        "sound": network(weights, bias),
        "saturated": network(weights, bias, factor=1e4),
        "shattered": network(weights, bias, pixels=True),
        "zero": network(weights, bias, logits=True),
    }
    for name, model in made.items():
        onnx.save(model, out / f"{name}.onnx")


if __name__ == "__main__":
    main()
