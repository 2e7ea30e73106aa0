#!/usr/bin/env python3
"""Judges the results of the demo sweep: do they say what this attack on these networks must say?

  check_demo.py RESULTS_CSV [--models FOLDER]      one line per check; exit 1 if one fails

FOLDER holds the checkpoints (default: assets/demo), whose metadata names each network and its accuracy on the whole test
set. Needs nothing but Python.
"""

import argparse
import csv
import json
import math
import sys
from pathlib import Path

COLUMNS = "model,dataset,attack,norm,eps,steps,step_size,sigma,channel,n,correct,accuracy,ci_low,ci_high,seed,device,precision".split(",")
NUMBERS = ("eps", "n", "correct", "accuracy", "ci_low", "ci_high")
MIN_EPSILONS, MIN_IMAGES, BROKEN = 6, 256, 0.05  # accuracy below BROKEN at the largest eps
DIGITS = 2e-6  # results are printed with six

# What plain PyTorch got on the first 500 test images with other random draws: {(model, sigma, eps): accuracy}.
REFERENCE_IMAGES = 500
REFERENCE = {
    (model, sigma, eps): percent / 100
    for model, table in {
        "resnet50-w16": {0.25: (89.2, 88.2, 85.4, 74.4, 64.0, 44.2), 0.5: (79.8, 77.2, 75.2, 69.0, 63.2, 49.2)},
        "resnet50-cbam-w16": {0.25: (91.0, 89.6, 87.8, 80.4, 69.0, 43.2), 0.5: (82.8, 81.0, 78.2, 71.8, 67.0, 51.2)},
    }.items()
    for sigma, row in table.items()
    for eps, percent in zip((0, 0.005, 0.01, 0.02, 0.03, 0.06), row)
}


def clean_accuracies(folder):
    """{model: accuracy on its whole test set} from the headers of FOLDER/*.safetensors"""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as f:
            size = int.from_bytes(f.read(8), "little")
            if not 0 < size <= path.stat().st_size - 8:
                raise ValueError(f"{path}: no safetensors file: a header of {size} bytes")
            meta = json.loads(f.read(size)).get("__metadata__", {})
        if meta.get("arch") == "unet":
            continue  # the denoiser classifies nothing
        if "clean_test_accuracy" not in meta:
            raise ValueError(f"{path}: no clean_test_accuracy in the metadata")
        found[meta.get("model", path.stem)] = float(meta["clean_test_accuracy"])
    if not found:
        raise ValueError(f"no *.safetensors in {folder}")
    return found


def read_results(path):
    """({model: its undefended rows}, {model: {sigma: its denoised rows}}), eps ascending, numbers parsed"""
    with path.open(newline="") as f:
        reader = csv.DictReader(f)
        if missing := [c for c in COLUMNS if c not in (reader.fieldnames or [])]:
            raise ValueError(f"{path}: no column {', '.join(missing)}")
        models, denoised = {}, {}
        for row in reader:
            for column in NUMBERS:
                try:
                    row[column] = float(row[column])
                except (TypeError, ValueError):
                    raise ValueError(f"{path}, line {reader.line_num}: {column} is {row[column]!r}, want a number") from None
                if not math.isfinite(row[column]):
                    raise ValueError(f"{path}, line {reader.line_num}: {column} is not finite")
            if row["channel"] == "1":
                models.setdefault(row["model"], []).append(row)
            else:
                denoised.setdefault(row["model"], {}).setdefault(float(row["sigma"]), []).append(row)
    ascending = lambda rows: sorted(rows, key=lambda r: r["eps"])
    return (
        {name: ascending(rows) for name, rows in models.items()},
        {name: {sigma: ascending(rows) for sigma, rows in by.items()} for name, by in denoised.items()},
    )


def wilson(k, n, z=1.959964):
    """Both ends of the 95 % interval for k of n."""
    centre, half = k / n + z * z / (2 * n), z * math.sqrt(k / n * (1 - k / n) / n + z * z / (4 * n * n))
    return max(0.0, (centre - half) / (1 + z * z / n)), min(1.0, (centre + half) / (1 + z * z / n))


def sound(row):
    """Counts, accuracy and interval of one row belong together."""
    if not (row["n"] >= 1 and 0 <= row["correct"] <= row["n"]):
        return False
    want = (row["correct"] / row["n"], *wilson(row["correct"], row["n"]))
    return all(abs(row[k] - w) <= DIGITS for k, w in zip(("accuracy", "ci_low", "ci_high"), want))


def judge(rows, test_accuracy):
    """Yields (passed, what) for one model."""
    epsilons = [r["eps"] for r in rows]
    yield (
        len(set(epsilons)) >= MIN_EPSILONS and len(set(epsilons)) == len(epsilons) and epsilons[0] >= 0,
        f"{len(set(epsilons))} epsilons in {len(epsilons)} rows, want at least {MIN_EPSILONS}, each once",
    )
    yield (min(r["n"] for r in rows) >= MIN_IMAGES, f"{min(r['n'] for r in rows):.0f} images, want at least {MIN_IMAGES}")
    unsound = [f"{r['eps']:g}" for r in rows if not sound(r)]
    yield (not unsound, "counts, accuracies and Wilson intervals agree" + (f", but not at eps {', '.join(unsound)}" if unsound else ""))
    if epsilons[0] != 0:
        yield False, "clean accuracy: no row with eps 0"
    else:
        clean = rows[0]
        yield (
            clean["ci_low"] <= test_accuracy <= clean["ci_high"],
            f"clean accuracy {clean['accuracy']:.4f} [{clean['ci_low']:.4f}, {clean['ci_high']:.4f}], "
            f"on the whole test set {test_accuracy:.4f}",
        )
    rises = [
        f"{b['eps']:g} ({b['accuracy']:.4f}, at {a['eps']:g} at most {a['ci_high']:.4f})"
        for i, a in enumerate(rows)
        for b in rows[i + 1 :]
        if b["accuracy"] > a["ci_high"]
    ]
    yield not rises, "accuracy falls with eps" + (f", but rises at eps {'; '.join(rises)}" if rises else "")
    last = rows[-1]
    yield last["accuracy"] < BROKEN, f"accuracy {last['accuracy']:.4f} at eps {last['eps']:g}, want below {BROKEN}"


def judge_denoised(model, rows, undefended, sigma):
    """Yields (passed, what) for one model at one sigma, beside what the attack left of it undefended."""
    at = {r["eps"]: r for r in undefended}
    yield (
        [r["eps"] for r in rows] == [r["eps"] for r in undefended] and all(sound(r) for r in rows),
        f"sigma {sigma:g}: the same epsilons, counts and intervals agree",
    )
    middle = [r for r in rows if at.get(r["eps"], {"accuracy": 1})["accuracy"] < 0.6]
    above = [r for r in middle if r["ci_low"] > at[r["eps"]]["ci_high"]]
    yield (
        bool(middle) and above == middle,
        f"sigma {sigma:g}: clearly above the undefended channel at {len(above)} of {len(middle)} epsilons that break it",
    )
    # Two samples: the reference's 500 images, and these.
    far = []
    for r in rows:
        want = REFERENCE.get((model, sigma, r["eps"]))
        if want is not None:
            lo, hi = wilson(round(want * REFERENCE_IMAGES), REFERENCE_IMAGES)
            if r["ci_high"] < lo or r["ci_low"] > hi:
                far.append(f"eps {r['eps']:g}: {r['accuracy']:.3f} against {want:.3f}")
    known = sum((model, sigma, r["eps"]) in REFERENCE for r in rows)
    yield not far, f"sigma {sigma:g}: {known} cells agree with plain PyTorch" + (f", but not {'; '.join(far)}" if far else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, metavar="RESULTS_CSV")
    parser.add_argument("--models", type=Path, metavar="FOLDER", default=Path(__file__).resolve().parents[2] / "assets" / "demo")
    args = parser.parse_args()
    try:
        expected, (results, denoised) = clean_accuracies(args.models), read_results(args.results)
    except (ValueError, OSError) as e:
        print(f"check_demo: {e}", file=sys.stderr)
        return 1
    checks = [(set(results) == set(expected), f"models {', '.join(sorted(results)) or '(none)'}, want {', '.join(sorted(expected))}")]
    for name in sorted(set(results) & set(expected)):
        checks += [(passed, f"{name}: {what}") for passed, what in judge(results[name], expected[name])]
        by_sigma = denoised.get(name, {})
        checks.append(
            (set(by_sigma) >= {0.25, 0.5}, f"{name}: denoised at sigma {', '.join(f'{s:g}' for s in sorted(by_sigma)) or '(none)'}")
        )
        for sigma, rows in sorted(by_sigma.items()):
            checks += [(passed, f"{name}: {what}") for passed, what in judge_denoised(name, rows, results[name], sigma)]
    for passed, what in checks:
        print(f"{'ok  ' if passed else 'FAIL'}  {what}")
    failed = sum(not passed for passed, _ in checks)
    if failed:
        print(f"check_demo: {failed} of {len(checks)} checks failed for {args.results}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
