#!/usr/bin/env python3
"""Rebuilds kernels/prebuilt/: the compressed PTX of every kernels/*.cu, for machines with a driver but without nvcc.

    tools/cuda/prebuilt.py [--nvcc NVCC] [--check]

With --check nothing is written: the committed files are compared with a fresh build, and the first line that differs is
named. Needs the nvcc that tools/cuda/install_nvcc.sh installs: another release writes other PTX.
"""

import argparse
import gzip
import os
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path

from cuda_toolkit import KERNELS, PREBUILT, ROOT, compile_ptx, fail, find_nvcc, pinned_version, portable, version


def difference(name, committed, fresh):
    """One line that says where two texts part, or None."""
    for number, (old, new) in enumerate(zip_longest(committed.split("\n"), fresh.split("\n")), 1):
        if old != new:
            show = lambda line: "the end of the file" if line is None else f"`{line.strip()}`"
            return f"{name} is out of date: line {number} is {show(old)}, a fresh build has {show(new)}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    nvcc = find_nvcc(options.nvcc)
    if version(nvcc) != pinned_version():
        fail(f"{nvcc} is {version(nvcc)}, the prebuilt PTX is by {pinned_version()}: run tools/cuda/install_nvcc.sh")

    sources = sorted(KERNELS.glob("*.cu"))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def build(source):
            target = Path(folder) / f"{source.stem}.ptx"
            compile_ptx(nvcc, source, target)
            return portable(target.read_text())

        texts = list(pool.map(build, sources))
    fresh = {PREBUILT / f"{source.stem}.ptx.gz": text for source, text in zip(sources, texts)}
    left_over = sorted(set(PREBUILT.glob("*")) - set(fresh))

    problems = []
    for path, text in fresh.items():
        name = str(path.relative_to(ROOT))
        try:
            committed = gzip.decompress(path.read_bytes()).decode()
        except (OSError, EOFError, ValueError, zlib.error) as problem:
            committed = None
            problems.append(f"{name}: {problem}" if options.check else None)
        if options.check:
            problems.append(difference(name, committed, text) if committed is not None else None)
        elif committed != text:
            # An unchanged file keeps its bytes even where zlib would now compress it differently.
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
            print(f"wrote {name}")
    for path in left_over:
        name = str(path.relative_to(ROOT))
        if options.check:
            problems.append(f"{name} belongs to no kernels/*.cu")
        else:
            path.unlink()
            print(f"removed {name}")

    problems = [p for p in problems if p]
    if problems:
        print("\n".join(problems + ["run tools/cuda/prebuilt.py and commit what it writes"]), file=sys.stderr)
        sys.exit(1)
    size = sum(path.stat().st_size for path in fresh)
    print(f"{len(fresh)} files, {size / 1e3:.0f} kB ({sum(map(len, texts)) / 1e6:.1f} MB of PTX), as nvcc {pinned_version()} builds them")


if __name__ == "__main__":
    main()
