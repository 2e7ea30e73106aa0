#!/usr/bin/env python3
"""AutoAttack's own code beside `rampart sweep --method autoattack`: accuracy after each stage, and seconds, in one run by turns.

The code is its authors' (Croce and Hein 2020), as the package pyautoattack 0.2.0 of PyPI has it. Random starts and windows are
torch's there and the engine's here, so that an image near the border may fall on either side; accuracies are to agree but for those.

  autoattack_published.py --program target/release/rampart --model resnet50-w16.safetensors --dataset cifar10 --data FOLDER
      [--norm l2] [--eps 0.2] [--version plus] [--stages square] [--limit 64] [--rounds 3] [--threads 2]

Exit code 1 where more images than `--apart` are right on one side alone after the last stage.
Needs `pip install --no-deps pyautoattack==0.2.0`.
"""

import argparse
import json
import logging
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "reference"))
from resnet_reference import load_classifier
from sweep_torch import Normalised, load_images

STAGES = {
    "standard": ("apgd-ce", "apgd-t", "fab-t", "square"),
    "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
}
METHODS = {"standard": "autoattack", "plus": "autoattack-plus"}


class Lines(logging.Handler):
    """The seconds of each stage, which AutoAttack only logs."""

    def __init__(self):
        super().__init__()
        self.total = {}

    def emit(self, record):
        found = re.match(r"robust accuracy after (\S+): .*total time ([\d.]+) s", record.getMessage())
        if found:
            self.total[found[1].lower()] = float(found[2])


def published(net, x, y, options, stages):
    """-> the images that stand after the last stage, seconds of each stage, seconds in all"""
    from pyautoattack import AutoAttack

    logger, lines = logging.getLogger("auto-attack"), Lines()
    logger.handlers, logger.propagate = [lines], False
    logger.setLevel(logging.DEBUG)
    norm = {"linf": "Linf", "l2": "L2"}[options.norm]
    attack = AutoAttack(net, norm=norm, eps=options.eps, version=options.version, seed=options.seed)
    attack.attacks_to_run = list(stages)
    begin = time.perf_counter()
    adversarial, _ = attack.run_standard_evaluation(x, y, batch_size=options.batch)
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        stands = net(adversarial).argmax(1) == y
    standing = {i for i in range(len(y)) if stands[i]}
    each, before = {}, 0.0
    for stage in stages:
        total = lines.total.get(stage, before)
        each[stage], before = total - before, total
    return standing, each, seconds


def ours(options, stages, folder):
    """The same of the engine."""
    config = folder / "config.toml"
    kind, data = options.dataset, Path(options.data).resolve()
    weights = Path(options.model).resolve()
    config.write_text(f'[dataset]\nkind = "{kind}"\npath = "{data}"\n\n[[models]]\nweights = "{weights}"\nname = "net"\n')
    method = METHODS[options.version] if len(stages) > 1 else stages[0]
    out = folder / f"run{len(list(folder.glob('run*')))}"
    flags = ["--no-defense", "--no-checks", "--device", "host", "--method", method, "--norm", options.norm, "--eps", f"{options.eps}"]
    flags += ["--limit", str(options.limit), "--batch", str(options.batch), "--out", str(out)]
    command = [options.program, "sweep", "--config", str(config), *flags]
    subprocess.run(command, check=True, capture_output=True, env={"RAYON_NUM_THREADS": str(options.threads), "PATH": "/usr/bin:/bin"})
    times = dict(json.loads((out / "timings.json").read_text()))
    standing = set()
    for line in (out / "records.jsonl").read_text().splitlines()[1:]:
        record = json.loads(line)
        if record["channel"] == 1 and record["correct_clean"] and record["correct_any"]:
            standing.add(record["image"])
    each = {stage: times.get(stage, 0.0) for stage in stages}
    return standing, each, times["attack on the classifiers"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True)
    parser.add_argument("--model", required=True, metavar="FILE", help=".safetensors with arch, config, mean and std")
    parser.add_argument("--dataset", choices=("fashion-mnist", "cifar10"), default="cifar10")
    parser.add_argument("--data", required=True, metavar="FOLDER", help="t10k*-ubyte.gz files, or test_batch.bin")
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument("--eps", type=float, default=0.005)
    parser.add_argument("--version", choices=tuple(STAGES), default="standard")
    parser.add_argument("--stages", help="one of them alone, as in square")
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the published code (default: %(default)s)")
    parser.add_argument("--apart", type=int, default=1, help="images that may be right on one side alone (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    stages = (options.stages,) if options.stages else STAGES[options.version]
    net, meta = load_classifier(options.model)
    net = Normalised(net, json.loads(meta["mean"]), json.loads(meta["std"])).eval().requires_grad_(False)
    x, y = load_images(options.dataset, options.data, options.limit)
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            rounds.append((ours(options, stages, Path(folder)), published(net, x, y, options, stages)))
    (here, _, _), (there, _, _) = rounds[0]
    median = lambda side, of: statistics.median(of(pair[side]) for pair in rounds)
    about = f"{options.norm} {options.eps:g}, {', '.join(stages)}: {options.limit} images, {options.rounds} rounds"
    print(f"{Path(options.model).stem}, {about}")
    print(f"  {'':12}{'ours s':>10}{'theirs s':>10}{'ratio':>8}")
    for stage in (*stages, "all"):
        of = (lambda found: found[2]) if stage == "all" else (lambda found, stage=stage: found[1][stage])
        own, other = median(0, of), median(1, of)
        ratio = f"{other / own:8.2f}" if own > 0 and other > 0 else f"{'':>8}"
        print(f"  {stage:12}{own:10.2f}{other:10.2f}{ratio}")
    alone = sorted(here ^ there)
    print(f"  stand: ours {len(here)}, theirs {len(there)}, on one side alone {alone}")
    sys.exit(1 if len(alone) > options.apart else 0)


if __name__ == "__main__":
    main()
