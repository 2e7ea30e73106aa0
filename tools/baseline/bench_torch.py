#!/usr/bin/env python3
"""Times a network and its input gradient in PyTorch and, with --rampart, in the engine beside it.

  bench_torch.py                                            PyTorch alone, a ResNet-50
  bench_torch.py --rampart target/release/rampart           both, interleaved, with the ratio PyTorch / Rampart
  bench_torch.py --arch unet --batch 8                      the denoiser of CIFAR-10, 52.5 M parameters
  bench_torch.py --arch coatnet --size 384x384 --batch 2    timm's CoAtNet
  bench_torch.py --device cuda --rampart rampart            both on the GPU; tf32 beside f32 and bf16 is there too
  bench_torch.py --openvino --what forward                  OpenVINO's CPU plugin as a third side
  bench_torch.py --arch unet --config '{"channels": 32, "channel_mult": [1, 2, 2], "res_blocks": 2, "out_channels": 3}'

PyTorch runs eager, channels_last, with frozen parameters, on seeded weights; bf16 is model.to(bfloat16). `forward` is the
logits or the denoiser's output; `gradient` is forward, summed cross-entropy (denoiser: the sum of the output times random
values) and the gradient with respect to the input. The keys of --config are those of a checkpoint's metadata. Every measurement is a
process of its own that warms up and then times --runs runs; the two sides take turns for --rounds rounds. Medians are over
all runs (PyTorch) or over the rounds' medians (Rampart). Peak RSS is that of the whole process, libraries included; "own" is
what the work itself took: growth of the peak RSS from before the network was built (PyTorch; on a GPU the peak of its allocator),
peak_bytes (Rampart). On a GPU f32 is float32 throughout, tf32 lets products be TF32.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
MiB = 2**20


def peak_rss():
    """Largest resident size of this process so far, in bytes (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(args):
    """One PyTorch measurement in this process -> dict with the keys of `rampart bench --json`, and all times."""
    import torch
    import torch.nn.functional as F

    import coatnet_reference
    import resnet_reference
    import resnet_study_reference
    import unet_reference
    from resnet_reference import fill_state, fill_tensor

    torch.set_num_threads(args.threads)
    before = peak_rss()
    place = "cuda" if args.device == "cuda" else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.precision[0] == "tf32"
    dtype = torch.bfloat16 if args.precision[0] == "bf16" else torch.float32
    build = {"resnet": resnet_reference, "resnet_study": resnet_study_reference, "coatnet": coatnet_reference, "unet": unet_reference}[
        args.arch
    ].build
    net = fill_state(build(args.config)).to(place, dtype).to(memory_format=torch.channels_last)
    x = fill_tensor("input", (args.batch, 3, *args.size)).to(place, dtype).contiguous(memory_format=torch.channels_last)
    if args.arch == "unet":
        tau = torch.full((args.batch,), 289.5, device=place)  # of sigma 0.25 in the CIFAR-10 checkpoint
        shape = (args.batch, args.config["out_channels"], *args.size)
        upstream = fill_tensor("upstream", shape).to(place, dtype).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(args.batch, device=place) % args.config.get("classes", 1)

    def run_network(x):
        return net(x, tau) if args.arch == "unet" else net(x)

    def forward():
        with torch.inference_mode():
            return run_network(x)

    def gradient():
        leaf = x.detach().requires_grad_(True)
        y = run_network(leaf)
        if args.arch == "unet":
            return torch.autograd.grad(y, leaf, upstream)[0]
        return torch.autograd.grad(F.cross_entropy(y.float(), labels, reduction="sum"), leaf)[0]

    run, times = {"forward": forward, "gradient": gradient}[args.what[0]], []
    for i in range(args.warmup + args.runs):
        since = time.perf_counter()
        run()
        if place == "cuda":
            torch.cuda.synchronize()
        if i >= args.warmup:
            times.append(time.perf_counter() - since)
    return {
        "times": times,
        "median_s": statistics.median(times),
        "min_s": min(times),
        "max_s": max(times),
        "peak_bytes": torch.cuda.max_memory_allocated() if place == "cuda" else peak_rss() - before,
        "torch": torch.__version__,
    }


def measure_openvino(args):
    """One measurement of OpenVINO's CPU plugin on the same seeded network, as `measure`; forward only."""
    import openvino
    import torch

    import coatnet_reference
    import resnet_reference
    import resnet_study_reference
    import unet_reference
    from resnet_reference import fill_state, fill_tensor

    build = {"resnet": resnet_reference, "resnet_study": resnet_study_reference, "coatnet": coatnet_reference, "unet": unet_reference}[
        args.arch
    ].build
    inputs = [fill_tensor("input", (args.batch, 3, *args.size))]
    if args.arch == "unet":
        inputs.append(torch.full((args.batch,), 289.5))
    before = peak_rss()
    with torch.no_grad():
        # Traced and then reshaped, the U-Net's graph ends OpenVINO 2026.4 by a signal when it is compiled.
        model = openvino.convert_model(torch.export.export(fill_state(build(args.config)).eval(), tuple(inputs)))
    compiled = openvino.compile_model(
        model, "CPU", {"INFERENCE_NUM_THREADS": args.threads, "INFERENCE_PRECISION_HINT": args.precision[0], "PERFORMANCE_HINT": "LATENCY"}
    )
    request, times = compiled.create_infer_request(), []
    feed = {i: x.numpy() for i, x in enumerate(inputs)}
    for i in range(args.warmup + args.runs):
        since = time.perf_counter()
        request.infer(feed, share_inputs=True)
        if i >= args.warmup:
            times.append(time.perf_counter() - since)
    return {
        "times": times,
        "median_s": statistics.median(times),
        "min_s": min(times),
        "max_s": max(times),
        "peak_bytes": peak_rss() - before,
        "openvino": openvino.__version__,
    }


UNET = {
    "channels": 128,
    "channel_mult": [1, 2, 2, 2],
    "res_blocks": 3,
    "attention_factors": [2, 4],
    "heads": 4,
    "resblock_updown": False,
    "out_channels": 6,
}
COATNET = {
    "stem": [64, 128],
    "dims": [128, 256, 512, 1024],
    "depths": [2, 6, 14, 2],
    "types": "CCTT",
    "head_dim": 32,
    "rel_pos_hidden": 512,
    "image": 384,
    "classes": 1000,
}


def config_of(args):
    """The whole config: the options of the architecture, then what --config says."""
    given = json.loads(args.config or "{}")
    if not isinstance(given, dict):
        raise ValueError(f"--config: expected a JSON object, found {args.config}")
    if args.arch == "coatnet":
        return {**COATNET, **given}
    if args.arch == "resnet_study":
        return {"attention": args.attention, "classes": args.classes, "width": args.width, **given}
    if args.arch == "unet":
        config = {**UNET, **given}
        return {k: v for k, v in config.items() if k != "heads" or "head_channels" not in given}
    return {
        "depth": args.depth,
        "stem": args.stem,
        "width": args.width,
        "attention": args.attention,
        "reduction": 16,
        "classes": args.classes,
        **given,
    }


def run_child(command, env=None):
    """Runs a command that prints one JSON object as its last line -> (object, peak RSS in bytes)."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    with child.stdout:
        output = child.stdout.read().decode()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"exit status {child.returncode} from: {' '.join(command)}")
    try:
        return json.loads(output.strip().splitlines()[-1]), usage.ru_maxrss * 1024
    except (IndexError, ValueError):
        raise RuntimeError(f"no JSON object at the end of the output of: {' '.join(command)}") from None


def torch_command(args, what, precision, side="torch"):
    return [
        sys.executable,
        os.path.abspath(__file__),
        "--worker",
        side,
        "--what",
        what,
        "--precision",
        precision,
        "--arch",
        args.arch,
        "--config",
        json.dumps(args.config),
        "--batch",
        str(args.batch),
        "--size",
        "x".join(map(str, args.size)),
        "--threads",
        str(args.threads),
        "--runs",
        str(args.runs),
        "--warmup",
        str(args.warmup),
        "--device",
        args.device,
    ]


def rampart_command(args, what, precision):
    return [
        args.rampart,
        "bench",
        "--arch",
        args.arch,
        "--config",
        json.dumps(args.config),
        "--batch",
        str(args.batch),
        "--size",
        "x".join(map(str, args.size)),
        "--what",
        what,
        "--precision",
        precision,
        "--device",
        args.device,
        "--runs",
        str(args.runs),
        "--json",
    ]


def summary(results):
    """[(object, peak RSS)] of all rounds -> (median, min, max seconds, peak RSS, own peak bytes)"""
    times = [t for r, _ in results for t in r.get("times", [r["median_s"]])]
    return (
        statistics.median(times),
        min(r["min_s"] for r, _ in results),
        max(r["max_s"] for r, _ in results),
        max(rss for _, rss in results),
        max(r["peak_bytes"] for r, _ in results),
    )


def compare(args):
    env = {**os.environ, "RAYON_NUM_THREADS": str(args.threads)}
    print(
        f"{args.arch} {json.dumps(args.config)}, batch {args.batch}, "
        f"{args.size[0]}x{args.size[1]}, {args.threads} threads, {args.rounds} rounds of {args.runs} runs"
    )
    print(
        f"{'what':9} {'prec':5} {'side':8} {'median s':>9} {'min s':>9} {'max s':>9} {'images/s':>9} "
        f"{'peak RSS MiB':>13} {'own MiB':>8} {'PyTorch / side':>16}"
    )
    for what in args.what:
        for precision in args.precision:
            sides = {"PyTorch": []}
            if args.openvino and what == "forward":
                sides["OpenVINO"] = []
            if args.rampart:
                sides["Rampart"] = []
            for _ in range(args.rounds):
                sides["PyTorch"].append(run_child(torch_command(args, what, precision)))
                if "OpenVINO" in sides:
                    sides["OpenVINO"].append(run_child(torch_command(args, what, precision, "openvino")))
                if args.rampart:
                    sides["Rampart"].append(run_child(rampart_command(args, what, precision), env))
            reference = summary(sides["PyTorch"])[0]
            for side, results in sides.items():
                median, low, high, rss, own = summary(results)
                ratio = f"{reference / median:16.2f}" if side != "PyTorch" else f"{'':16}"
                print(
                    f"{what:9} {precision:5} {side:8} {median:9.4f} {low:9.4f} {high:9.4f} {args.batch / median:9.1f} "
                    f"{rss / MiB:13.0f} {own / MiB:8.0f} {ratio}",
                    flush=True,
                )


def size(text):
    """'32x48' -> (32, 48)"""
    height, _, width = text.partition("x")
    return int(height), int(width or height)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rampart", metavar="BINARY", help="the engine to time beside PyTorch")
    parser.add_argument("--what", nargs="+", choices=("forward", "gradient"), default=["forward", "gradient"])
    parser.add_argument("--precision", nargs="+", choices=("f32", "tf32", "bf16"), default=["f32", "bf16"])
    parser.add_argument("--arch", choices=("resnet", "resnet_study", "coatnet", "unet"), default="resnet")
    parser.add_argument("--config", metavar="JSON", help="config keys that differ from the defaults, as in a checkpoint's metadata")
    parser.add_argument("--depth", type=int, choices=(18, 34, 50), default=50)
    parser.add_argument("--stem", choices=("cifar", "imagenet"), default="cifar")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--attention", choices=("none", "cbam"), default="none")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=size, default=(32, 32), metavar="HxW")
    parser.add_argument("--device", choices=("host", "cuda"), default="host", help="of both sides (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5, help="timed runs per round and side")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--openvino", action="store_true", help="OpenVINO's forward pass too (pip install openvino==2026.4.1)")
    parser.add_argument("--worker", choices=("torch", "openvino"), help="one measurement in this process, as JSON")
    args = parser.parse_args()
    if min(args.width, args.classes, args.batch, *args.size, args.threads, args.runs, args.rounds) < 1 or args.warmup < 0:
        parser.error("sizes and counts must be at least 1")
    try:
        args.config = config_of(args)
        if args.worker:
            print(json.dumps({"torch": measure, "openvino": measure_openvino}[args.worker](args)))
        else:
            compare(args)
        return 0
    except (ValueError, RuntimeError, OSError) as e:
        print(f"bench_torch: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
