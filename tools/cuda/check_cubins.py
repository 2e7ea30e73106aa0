#!/usr/bin/env python3
"""Assembles every kernel for each architecture and judges the machine code.

    tools/cuda/check_cubins.py [--nvcc NVCC] [--prebuilt | --built FOLDER] [--arch 80,86,89,90] [--write | --check] [FILE.cu ...]

Fails on a register spill, on a stack frame, and on a kernel shaped like a matrix product (conv_*, gemm_*, linear_*,
attention_*) whose main loop has no HMMA. Prints a table: registers, static plus dynamic shared memory, stack, spilled bytes; of
the main loop (the shortest of the loops with the most HMMA) its instructions, HMMA, and instructions per HMMA; blocks and warps
that fit onto one multiprocessor.

--write puts the table into kernels/resources.csv, or only the rows of the files given; --check fails where it differs from that
file, and says how. Both need the nvcc that tools/cuda/install_nvcc.sh installs. --prebuilt takes the PTX in kernels/prebuilt/
instead of compiling the sources; --built the machine code that cargo has made with NVCC set, from the build script's OUT_DIR.
"""

import argparse
import csv
import gzip
import os
import re
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cuda_toolkit import (
    KERNEL_LINE,
    KERNELS,
    MULTIPROCESSORS,
    PREBUILT,
    assemble,
    compile_ptx,
    fail,
    find_nvcc,
    occupancy,
    pinned_version,
    usages,
    version,
)

TABLE = KERNELS / "resources.csv"
COLUMNS = [
    "kernel", "architecture", "registers", "shared_bytes", "stack_bytes", "spill_bytes",
    "loop_instructions", "loop_hmma", "blocks_per_multiprocessor", "warps_per_multiprocessor",
]  # fmt: skip
MATRIX = re.compile(r"^(conv|gemm|linear|attention)_(?!.*depthwise)")


def kernels_of(sources):
    """{kernel: (threads, dynamic shared bytes)}"""
    return {name: (int(threads), int(shared)) for s in sources for name, _, threads, shared in KERNEL_LINE.findall(s.read_text())}


def merged(committed, rows, kernels):
    """The table with these rows in place of its own of the same kernels, and without those of kernels that are no more."""
    fresh = {row["kernel"] for row in rows}
    kept = [row for row in committed if row["kernel"] in kernels and row["kernel"] not in fresh]
    return sorted(kept + rows, key=lambda row: (row["kernel"], int(row["architecture"].removeprefix("sm_"))))


def built_by_cargo(nvcc, sources, architectures, folder):
    """[Usage] of the machine code in the build script's folder."""

    def one(source):
        image, said = folder / f"{source.stem}.fatbin", folder / f"{source.stem}.ptxas"
        if not (image.is_file() and said.is_file()):
            fail(f"{image} or {said} is not there: was NVCC set when cargo built it?")
        return [u for u in usages(nvcc, said.read_text(), image) if u.architecture in architectures]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [u for found in pool.map(one, sources) for u in found]


def assembled(nvcc, sources, architectures, prebuilt):
    """[Usage] of what is compiled and assembled here."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def ptx(source):
            target = Path(folder) / f"{source.stem}.ptx"
            if prebuilt:
                target.write_bytes(gzip.decompress((PREBUILT / f"{target.name}.gz").read_bytes()))
            else:
                compile_ptx(nvcc, source, target)
            return target

        # The longest first, so that no core waits for the other at the end.
        texts = sorted(pool.map(ptx, sources), key=lambda path: -path.stat().st_size)
        jobs = [(text, architecture) for text in texts for architecture in architectures]
        return [u for found in pool.map(lambda job: assemble(nvcc, *job, folder), jobs) for u in found]


def table(sources, found):
    """Rows of the table, sorted, as dictionaries by column."""
    lines = kernels_of(sources)
    rows = []
    for u in sorted(found, key=lambda u: (u.kernel, u.architecture)):
        if u.kernel not in lines:
            fail(f"the PTX has a kernel {u.kernel}, the sources have no KERNEL line of that name")
        threads, dynamic = lines[u.kernel]
        shared = u.shared + dynamic
        fit = occupancy(u.architecture, threads, u.registers, shared)
        values = [u.kernel, f"sm_{u.architecture}", u.registers, shared, u.stack, u.spills, u.instructions, u.hmma, *fit]
        rows.append(dict(zip(COLUMNS, values)))
    missing = sorted(set(lines) - {u.kernel for u in found})
    if missing:
        fail(f"the PTX has no kernel {', '.join(missing)}")
    return rows


def unfit(row):
    """What no kernel may do."""
    who = f"{row['kernel']} ({row['architecture']})"
    if row["spill_bytes"] or row["stack_bytes"]:
        yield f"{who}: {row['spill_bytes']} bytes spilled, {row['stack_bytes']} bytes of stack"
    if MATRIX.match(row["kernel"]) and not row["loop_hmma"]:
        yield f"{who}: no HMMA in its main loop"
    if not row["blocks_per_multiprocessor"]:
        yield f"{who}: not even one block fits onto a multiprocessor"


def changes(committed, fresh):
    """One line per row that differs between two tables (lists of dictionaries)."""
    key = lambda row: (row["kernel"], row["architecture"])
    old = {key(row): {column: str(row.get(column)) for column in COLUMNS} for row in committed}
    new = {key(row): {column: str(row[column]) for column in COLUMNS} for row in fresh}
    for name, architecture in sorted(old.keys() | new.keys()):
        before, after = old.get((name, architecture)), new.get((name, architecture))
        who = f"{name} ({architecture})"
        if before is None or after is None:
            yield f"{who}: {'not in the file' if before is None else 'in the file, but no such kernel'}"
        elif before != after:
            yield f"{who}: " + ", ".join(f"{c} {before[c]} -> {after[c]}" for c in COLUMNS if before[c] != after[c])


def show(rows):
    head = ["registers", "shared", "stack", "spills", "loop", "HMMA", "per HMMA", "blocks", "warps"]
    print(f"{'kernel':<28} {'arch':>5} " + " ".join(f"{h:>{max(6, len(h))}}" for h in head))
    for row in rows:
        kernel, architecture, registers, shared, stack, spills, length, hmma, blocks, warps = (row[c] for c in COLUMNS)
        loop = [length, hmma, f"{length / hmma:.2f}"] if hmma else ["-", "-", "-"]
        values = [registers, shared, stack, spills, *loop, blocks, warps]
        print(f"{kernel:<28} {architecture:>5} " + " ".join(f"{v:>{max(6, len(h))}}" for h, v in zip(head, values)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc")
    made = parser.add_mutually_exclusive_group()
    made.add_argument("--prebuilt", action="store_true")
    made.add_argument("--built", type=Path)
    parser.add_argument("--arch", default=",".join(map(str, MULTIPROCESSORS)))
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--write", action="store_true")
    action.add_argument("--check", action="store_true")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    nvcc = find_nvcc(options.nvcc)
    architectures = [int(a) for a in options.arch.split(",")]
    unknown = [str(a) for a in architectures if a not in MULTIPROCESSORS]
    if unknown:
        fail(f"--arch knows {', '.join(map(str, MULTIPROCESSORS))}, not {', '.join(unknown)}")
    if (options.write or options.check) and set(architectures) != set(MULTIPROCESSORS):
        fail("--write and --check are about all architectures: give no --arch")
    if options.check and options.files:
        fail("--check is about all kernels: give no files")
    if (options.write or options.check) and version(nvcc) != pinned_version():
        fail(f"{nvcc} is {version(nvcc)}, {TABLE.name} is by {pinned_version()}: run tools/cuda/install_nvcc.sh")

    sources = sorted(options.files or KERNELS.glob("*.cu"))
    if options.built:
        found = built_by_cargo(nvcc, sources, architectures, options.built)
    else:
        found = assembled(nvcc, sources, architectures, options.prebuilt)
    rows = table(sources, found)
    show(rows)
    problems = [problem for row in rows for problem in unfit(row)]
    if options.write:
        if options.files:
            with TABLE.open(newline="") as file:
                rows = merged(list(csv.DictReader(file)), rows, kernels_of(KERNELS.glob("*.cu")))
        with TABLE.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    if options.check:
        with TABLE.open(newline="") as file:
            found = list(changes(csv.DictReader(file), rows))
        if found:
            problems += [f"kernels/{TABLE.name}: {line}" for line in found]
            problems.append("if that is meant, run tools/cuda/check_cubins.py --write and commit it")
    for problem in problems:
        print(f"check_cubins: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
