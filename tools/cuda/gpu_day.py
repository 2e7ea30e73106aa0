#!/usr/bin/env python3
"""Everything there is to learn on a machine with a GPU, within a number of minutes: one JSON object and one Markdown table.

  gpu_day.py                            in the repository, or in the folder that `gpu_day.sh --pack` made
  gpu_day.py --emulated                 the same stages on the emulated GPU, at small sizes
  gpu_day.py --only parity benches      some of the stages

Stages run in the order of the table STAGES, each within its share of what time is left; what is cut off, or has no tool here, says so in
the results. day.json and day.md are written anew after every stage. Exit status 1 if anything that ran went wrong.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path += [str(Path(__file__).resolve().parents[1] / folder) for folder in ("baseline", "import")]
import bench_torch
from checkpoint_tables import MODELS

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"


class NotRun(Exception):
    """Why a stage, or a part of it, has no result."""


class Day:
    """Where the program is, on which device it works, and how much time is left."""

    def __init__(self, args):
        self.rampart, self.emulated, self.out = args.rampart, args.emulated, args.out
        self.ends = time.monotonic() + 60 * args.minutes
        self.stage_ends = self.ends

    @property
    def device(self):
        return "emulated" if self.emulated else "cuda"

    def run(self, command, most=None):
        """Runs a command -> (exit status, stdout, stderr), for `most` seconds at most."""
        left = min(self.stage_ends - time.monotonic(), most or float("inf"))
        if left <= 1:
            raise NotRun("no time left")
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=left, cwd=self.out, check=False)
        except subprocess.TimeoutExpired:
            raise NotRun(f"cut off after {left:.0f} s") from None
        return done.returncode, done.stdout, done.stderr

    def program(self, *args, before=(), most=None):
        """Runs rampart -> (exit status, stdout, stderr)."""
        return self.run([*before, self.rampart, *map(str, args)], most)


def ran(status, err):
    """Raises unless a command went well."""
    if status != 0:
        last = [line for line in err.strip().splitlines() if line.strip()][-1:]
        raise RuntimeError(f"exit status {status}: {''.join(last)}")


def tool(name):
    """The path of one of the toolkit's programs."""
    for at in (shutil.which(name), f"/usr/local/cuda/bin/{name}"):
        if at and os.access(at, os.X_OK):
            return at
    raise NotRun(f"{name} is not there")


def has_torch():
    """Whether PyTorch is there for `sys.executable`."""
    return subprocess.run([sys.executable, "-c", "import torch"], capture_output=True, check=False).returncode == 0


def machine(day):
    """Device, driver, the kernels' machine code."""
    status, out, err = day.program("info")
    ran(status, err)
    kept = ("host kernels:", "CUDA images:", "host", "cuda", "emulated")
    lines = [(key, line.strip()) for line in out.split("\n\nkernel")[0].splitlines() for key in kept if line.strip().startswith(key)]
    found = {}
    for key, line in lines:
        found.setdefault(key.rstrip(":"), line.removeprefix(key).strip())
    try:
        _, smi, _ = day.run([tool("nvidia-smi"), "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"])
        found["nvidia-smi"] = smi.strip()
    except NotRun as e:
        found["nvidia-smi"] = str(e)
    if not day.emulated and "not available" in found.get("cuda", ""):
        raise RuntimeError(found["cuda"])
    return [{"what": key, "result": value} for key, value in found.items()]


def dumps(day):
    """All dumps, or when emulated the smallest of each op."""
    if not day.emulated:
        return [FIXTURES]
    return reduced()


def reduced():
    """The smallest dump of each op, networks and whole attacks left out: what fits under a sanitizer."""
    folders = [at for at in sorted(FIXTURES.iterdir()) if at.is_dir() and at.name not in ("model", "onnx", "dds", "pgd", "cbam")]
    smallest = [min(at.glob("*.safetensors"), key=lambda file: file.stat().st_size, default=None) for at in folders]
    # A planted network or a checkpoint is no dump.
    return [file for file in smallest if file and file.parent.name not in ("planted", "torch", "adversarial", "imagenet")]


def parity(day):
    """Every dump of PyTorch's, replayed in each precision."""
    rows = []
    for precision in ("f32", "bf16", "tf32"):
        status, out, err = day.program("parity", *dumps(day), "--device", day.device, "--precision", precision, "--json")
        found = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        if not found:
            ran(status or 1, err)
        wrong = [Path(row["file"]).stem for row in found if row.get("worst") and not row["worst"]["passed"]]
        compared = [row for row in found if row["status"] == "compared"]
        worst = max((one["rel_err"] / one["limit"] for row in compared for one in row["all"]), default=0)
        rows.append(
            {
                "what": f"parity {precision}",
                "dumps": len(found),
                "compared": len(compared),
                "wrong": wrong,
                "worst_of_limit": round(worst, 3),
                "failed": status != 0,
                "result": f"{len(compared) - len(wrong)} of {len(compared)} within their limits, worst at {worst:.2f} of it",
            }
        )
    return rows


def sanitizers(day):
    """A dump of each op under every tool of compute-sanitizer; on the emulated GPU under its own checkers."""
    rows = []
    for name in ("memcheck", "racecheck", "initcheck", "synccheck"):
        before = [] if day.emulated else [tool("compute-sanitizer"), "--tool", name, "--error-exitcode", "86"]
        args = ("parity", *reduced(), "--device", day.device, *(("--emulator-checks", "on") if day.emulated else ()))
        try:
            status, out, err = day.program(*args, before=before)
            last = next((line for line in reversed(out.splitlines()) if "ERROR SUMMARY" in line or " passed, " in line), "")
            rows.append({"what": name, "status": status, "failed": status != 0, "result": last.strip("= ") or (err or out).strip()[-200:]})
        except NotRun as e:
            rows.append({"what": name, "result": f"not run: {e}"})
        if day.emulated:
            rows[-1]["what"] = "the emulator's checkers"
            break
    return rows


SMALL_UNET = {"channels": 32, "channel_mult": [1, 1], "res_blocks": 1, "attention_factors": [2], "out_channels": 6}
SMALL_COATNET = {
    "stem": [16, 16],
    "dims": [16, 32, 64, 128],
    "depths": [1, 1, 1, 1],
    "head_dim": 16,
    "rel_pos_hidden": 32,
    "image": 64,
    "classes": 10,
}

DEFAULTS = {
    "resnet": {"depth": 50, "stem": "cifar", "width": 64, "attention": "none", "reduction": 16, "classes": 10},
    "unet": bench_torch.UNET,
    "coatnet": bench_torch.COATNET,
}

# Network, architecture, what differs from its defaults, side, batch; then side, batch and what differs on the emulated GPU.
NETWORKS = (
    ("ResNet-50", "resnet", {}, 32, 256, (16, 1, {"depth": 18, "width": 8})),
    ("ResNet-50 with CBAM", "resnet", {"attention": "cbam"}, 32, 256, (16, 1, {"depth": 18, "width": 8})),
    ("U-Net of CIFAR-10", "unet", {}, 32, 64, (16, 1, {**SMALL_UNET, "heads": 2})),
    ("CoAtNet", "coatnet", {}, 384, 16, (64, 1, SMALL_COATNET)),
    ("U-Net of ImageNet", "unet", MODELS["guided-diffusion-imagenet256"]["config"], 256, 4, (16, 1, {**SMALL_UNET, "head_channels": 16})),
)


def workload(day, network):
    """(name, arguments of `bench_torch.py` and `rampart bench` but the config, the config)"""
    name, arch, config, side, batch, small = network
    if day.emulated:
        side, batch, less = small
        config = {**config, **less}
    defaults = DEFAULTS[arch]
    if "head_channels" in config:
        defaults = {key: value for key, value in defaults.items() if key != "heads"}
    config = {**defaults, **config}
    return name, ["--arch", arch, "--size", f"{side}x{side}", "--batch", str(batch)], config


def benches(day):
    """Every network forward and its gradient, PyTorch on the same GPU by turns."""
    torch = has_torch() and not day.emulated
    rows = []
    for network in NETWORKS:
        name, args, config = workload(day, network)
        for what in ("forward", "gradient"):
            for precision in ("f32", "bf16") if day.emulated else ("f32", "tf32", "bf16"):
                row = {"what": f"{name}, {what}, {precision}"}
                rows.append(row)
                try:
                    row.update(beside(day, torch, what, precision, args, config))
                except NotRun as e:
                    row["result"] = f"not run: {e}"
                except RuntimeError as e:
                    row.update(result=str(e), failed=True)
    return rows


def beside(day, torch, what, precision, args, config):
    """One network, one pass: medians of two rounds."""
    runs = "1" if day.emulated else "10"
    common = ["--what", what, "--precision", precision, *args, "--config", json.dumps(config), "--runs", runs]
    worker = [sys.executable, ROOT / "tools" / "baseline" / "bench_torch.py", "--worker", "torch", "--device", "cuda", *common]
    ours, theirs = [], []
    for _ in range(1 if day.emulated else 2):
        status, out, err = day.program("bench", *common, "--device", day.device, "--json", most=120)
        ran(status, err)
        ours.append(json.loads(out.strip().splitlines()[-1]))
        if torch:
            status, out, err = day.run(worker, most=120)
            ran(status, err)
            theirs.append(json.loads(out.strip().splitlines()[-1]))
    median = min(one["median_s"] for one in ours)
    row = {"median_s": median, "peak_bytes": max(one["peak_bytes"] for one in ours), "rounds": ours, "pytorch": theirs}
    row["result"] = f"{1000 * median:.2f} ms"
    if theirs:
        reference = min(one["median_s"] for one in theirs)
        row["ratio"] = reference / median
        row["result"] += f", PyTorch {1000 * reference:.2f} ms, ratio {row['ratio']:.2f}"
    elif not day.emulated:
        row["result"] += ", no PyTorch here"
    return row


METRICS = {
    "gpu__time_duration.sum": "time",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "sm_percent",
    "gpu__compute_memory_throughput.avg.pct_of_peak_sustained_elapsed": "memory_percent",
    "dram__bytes.sum": "dram_bytes",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy_percent",
    "launch__registers_per_thread": "registers",
}
NANOSECONDS = {"nsecond": 1, "ns": 1, "usecond": 1e3, "us": 1e3, "msecond": 1e6, "ms": 1e6, "second": 1e9, "s": 1e9}
BYTES = {"byte": 1, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}


def ncu_rows(text):
    """Launches of `ncu --csv --page raw` -> [{kernel, time (ns), ...}]; what comes before the table is skipped."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    if start is None:
        raise RuntimeError(f"ncu printed no table: {' '.join(lines[-3:])[-300:]}")
    header, units, *rows = csv.reader(lines[start:])
    found = []
    for row in rows:
        values = dict(zip(header, row, strict=True))
        unit = dict(zip(header, units, strict=True))
        launch = {"kernel": values["Kernel Name"].split("(")[0]}
        for metric, name in METRICS.items():
            if values.get(metric):
                scale = NANOSECONDS.get(unit[metric], 1) if name == "time" else BYTES.get(unit[metric], 1)
                launch[name] = float(values[metric].replace(",", "")) * scale
        found.append(launch)
    return found


def largest(launches, count=8):
    """The kernels that take longest in all, shares weighted by time."""
    of = defaultdict(list)
    for launch in launches:
        of[launch["kernel"]].append(launch)
    total = sum(launch["time"] for launch in launches) or 1
    rows = []
    for kernel, all_of in sorted(of.items(), key=lambda item: -sum(one["time"] for one in item[1]))[:count]:
        spent = sum(one["time"] for one in all_of)
        row = {"kernel": kernel, "launches": len(all_of), "time_ns": spent, "share": spent / total}
        for name in ("sm_percent", "memory_percent", "occupancy_percent"):
            row[name] = sum(one.get(name, 0) * one["time"] for one in all_of) / (spent or 1)
        row["dram_bytes"] = sum(one.get("dram_bytes", 0) for one in all_of)
        row["registers"] = max(one.get("registers", 0) for one in all_of)
        rows.append(row)
    return rows


def kernels(day):
    """The eight largest kernels of each network's gradient: Nsight Compute's counters, or the emulator's estimate."""
    rows = []
    for network in NETWORKS[:4]:
        name, args, config = workload(day, network)
        for precision in ("bf16",) if day.emulated else ("f32", "bf16"):
            common = ["--what", "gradient", "--precision", precision, *args, "--config", json.dumps(config)]
            title = f"{name}, {precision}"
            try:
                rows += profiled(day, title, common) if day.emulated else counted(day, title, common)
            except NotRun as e:
                rows.append({"what": title, "result": f"not run: {e}"})
            except RuntimeError as e:
                rows.append({"what": title, "result": str(e), "failed": True})
    return rows


def counted(day, title, common):
    """By Nsight Compute: 600 launches from the first on, those of the pass that warms up among them."""
    before = [tool("ncu"), "--csv", "--page", "raw", "--metrics", ",".join(METRICS), "--launch-count", "600"]
    status, out, err = day.program("bench", *common, "--device", "cuda", "--runs", "1", before=before, most=90)
    if "ERR_NVGPUCTRPERM" in out + err:
        raise NotRun("the driver lets only root read performance counters")
    ran(status, err or out)
    rows = largest(ncu_rows(out))
    for row in rows:
        row["what"] = f"{title}: {row['kernel']}"
        row["result"] = (
            f"{row['launches']} launches, {row['time_ns'] / 1e6:.2f} ms ({100 * row['share']:.0f} %), SM {row['sm_percent']:.0f} %, memory "
            f"{row['memory_percent']:.0f} %, occupancy {row['occupancy_percent']:.0f} %, {row['registers']:.0f} registers"
        )
    return rows


def profiled(day, title, common):
    """By `rampart profile`: executed instructions."""
    at = day.out / "profile.json"
    status, _, err = day.program("profile", *common, "--json", at, most=120)
    ran(status, err)
    found = json.loads(at.read_text())["kernels"]
    found = [{**one, **one.pop("total")} for one in found]
    found.sort(key=lambda one: -one["instructions"])
    total = sum(one["instructions"] for one in found) or 1
    return [
        {
            "what": f"{title}: {one['kernel']}",
            **{key: one[key] for key in ("kernel", "launches", "instructions", "registers", "estimates")},
            "result": f"{one['launches']} launches, {one['instructions']} warp instructions ({100 * one['instructions'] / total:.0f} %)",
        }
        for one in found[:8]
    ]


def seconds_of(run):
    """Seconds per phase of a run directory."""
    return json.loads((run / "timings.json").read_text()) if (run / "timings.json").exists() else None


def swept(day, name, *args):
    """One sweep -> a row with its seconds and results."""
    out = day.out / name
    shutil.rmtree(out, ignore_errors=True)
    begin = time.monotonic()
    status, _, err = day.program("sweep", *args, "--device", day.device, "--out", out)
    ran(status, err)
    with open(out / "results.csv", newline="") as file:
        cells = list(csv.DictReader(file))
    seconds = time.monotonic() - begin
    return {"what": name, "seconds": seconds, "timings": seconds_of(out), "cells": cells, "result": f"{seconds:.1f} s, {len(cells)} cells"}


def demo(day):
    """The demo sweep as the README has it; emulated a step of it."""
    if not day.emulated:
        return [swept(day, "demo")]
    small = day.out / "demo.toml"
    small.write_text('limit = 1\n[[models]]\nweights = "demo:resnet50-w16"\n')
    flags = "--eps 0.03 --steps 1 --sigma 0.25 --noise-seeds 1 --no-checks --precision bf16"
    return [swept(day, "demo", "--config", small, *flags.split())]


CONFIG = """limit = {images}
batch = {batch}
[dataset]
kind = "imagenet"
path = "photos"
labels = "labels.csv"
size = [{side}, {side}]
[[models]]
weights = "classifier.safetensors"
[attack]
norm = "linf"
eps = [0, "2/255"]
steps = {steps}
[defense]
weights = "denoiser.safetensors"
sigma = [0.25]
draws = 1
seeds = 1
"""


def imagenet(day):
    """CoAtNet and the denoiser of ImageNet with seeded weights on photographs of the fixtures: the time is real, accuracies are not."""
    if not has_torch():
        raise NotRun("no PyTorch here, which makes the seeded weights")
    small = day.emulated
    convert = ROOT / "tools" / "import" / "convert_checkpoint.py"
    for file, model, config in (
        ("classifier", "coatnet-rmlp-2-rw-384", {**SMALL_COATNET, "classes": 1000} if small else {}),
        ("denoiser", "guided-diffusion-imagenet256", {**SMALL_UNET, "head_channels": 16} if small else {}),
    ):
        at = day.out / f"{file}.safetensors"
        command = [sys.executable, convert, "--seeded", at, "--model", model, "--config", json.dumps(config), "--dtype", "f16"]
        if not at.exists():
            status, _, err = day.run(command)
            ran(status, err)
    photos = day.out / "photos"
    photos.mkdir(exist_ok=True)
    images = 2 if small else 32
    source = FIXTURES / "imagenet" / "colour.jpg"
    with open(day.out / "labels.csv", "w") as labels:
        for image in range(images):
            shutil.copy(source, photos / f"{image}.jpg")
            labels.write(f"{image}.jpg,{image}\n")
    sizes = dict(images=images, batch=images if small else 16, side=64 if small else 384, steps=1 if small else 10)
    (day.out / "imagenet.toml").write_text(CONFIG.format(**sizes))
    rows = []
    for precision in ("bf16",) if small else ("f32", "bf16"):
        args = ("--config", day.out / "imagenet.toml", "--precision", precision, "--no-checks")
        rows.append(swept(day, f"imagenet-{precision}", *args))
    return rows


# Name, what is done, its share of the time that is left when its turn comes.
STAGES = (
    ("machine", machine, 0.1),
    ("parity", parity, 0.25),
    ("benches", benches, 0.45),
    ("demo", demo, 0.4),
    ("sanitizers", sanitizers, 0.5),
    ("kernels", kernels, 0.5),
    ("imagenet", imagenet, 1.0),
)


def markdown(results):
    """All stages as one table."""
    lines = ["| stage | what | result |", "|---|---|---|"]
    for stage, rows in results.items():
        for row in rows:
            text = " ".join(str(row["result"]).split()).replace("|", "\\|")
            lines.append(f"| {stage} | {row['what']} | {'**failed**: ' if row.get('failed') else ''}{text} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [name for name, _, _ in STAGES]
    parser.add_argument("--rampart", default=ROOT / "target" / "release" / "rampart", type=Path, help="default: %(default)s")
    parser.add_argument("--out", default=Path("gpu-day"), type=Path, help="folder for day.json, day.md and the runs (default: %(default)s)")
    parser.add_argument("--minutes", default=10.0, type=float, help="for all stages (default: %(default)s)")
    parser.add_argument("--emulated", action="store_true", help="on the emulated GPU, at small sizes")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="STAGE", help=f"of {', '.join(names)}")
    args = parser.parse_args()
    args.rampart, args.out = args.rampart.resolve(), args.out.resolve()
    if not os.access(args.rampart, os.X_OK):
        parser.error(f"--rampart: {args.rampart} is no program; build it with `cargo build --release`")
    if not args.minutes > 0:
        parser.error("--minutes: expected a number above 0")
    args.out.mkdir(parents=True, exist_ok=True)
    day, results, failed = Day(args), {}, False
    for name, stage, share in STAGES:
        if name not in args.only:
            continue
        begin = time.monotonic()
        day.stage_ends = begin + share * (day.ends - begin)
        try:
            rows = stage(day)
        except NotRun as e:
            rows = [{"what": stage.__doc__.splitlines()[0], "result": f"not run: {e}"}]
        except (RuntimeError, OSError, KeyError, ValueError) as e:
            rows = [{"what": stage.__doc__.splitlines()[0], "result": f"{type(e).__name__}: {e}", "failed": True}]
        failed |= any(row.get("failed") for row in rows)
        results[name] = rows
        print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
        (args.out / "day.json").write_text(json.dumps(results, indent=1) + "\n")
        (args.out / "day.md").write_text(markdown(results))
    print((args.out / "day.md").read_text(), end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
