#!/usr/bin/env python3
"""Builds every kernels/*.cu for each architecture and judges the machine code.

    tools/check_cubins.py [--nvcc NVCC] [--arch 80,86,89,90] [FILE.cu ...]

Fails on a register spill, on a stack frame, and on a kernel shaped like a matrix product (conv_*, gemm_*, linear_*,
attention_*) whose main loop has no HMMA. Prints a table: registers, static plus dynamic shared memory, spilled bytes, and of the
main loop (the shortest of the loops with the most HMMA) its instructions, HMMA, and instructions per HMMA.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-std=c++17", "-O3", "-lineinfo", "-fmad=false"]  # as in build/cuda.rs
MATRIX = re.compile(r"^(conv|gemm|linear|attention)_")
NOT_MATRIX = re.compile(r"depthwise")


def find_nvcc(given):
    places = [given, os.environ.get("NVCC")]
    places += [os.path.join(os.environ[v], "bin", "nvcc") for v in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(v)]
    for place in places:
        if place:
            return place
    return shutil.which("nvcc") or sys.exit("check_cubins: no nvcc; set NVCC or run tools/install_nvcc.sh")


def dynamic_shared(sources):
    lines = re.findall(r"^KERNEL\((\w+),\s*\w+,\s*\d+,\s*(\d+)\)", "\n".join(s.read_text() for s in sources), re.M)
    return {name: int(size) for name, size in lines}


def main_loop(sass):
    """(instructions, HMMA) of the shortest loop among those with the most HMMA."""
    code = [(int(at, 16), text) for at, text in re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", sass, re.M)]
    loops = []
    for i, (at, text) in enumerate(code):
        jump = re.search(r"\bBRA(?:\.\w+)*\s+(?:!?U?P\w+,\s*)?`?\(?(?:0x)?([0-9a-f]+)\)?", text)
        if jump and int(jump[1], 16) < at:
            body = [t for a, t in code[: i + 1] if a >= int(jump[1], 16)]
            loops.append((sum("HMMA" in t for t in body), len(body)))
    # A loop around another has at least its HMMA; the inner one is shorter.
    most, length = max(loops, key=lambda l: (l[0], -l[1]), default=(0, 0))
    return (length, most) if most else (0, 0)


def check(nvcc, source, arch, folder, shared):
    cubin = folder / f"{source.stem}.sm_{arch}.cubin"
    command = [nvcc, *FLAGS, "-gencode", f"arch=compute_80,code=sm_{arch}", "-Xptxas", "-v", "-cubin", "-o", str(cubin), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"check_cubins: nvcc failed on {source.name} for sm_{arch}\n{done.stderr}")
    cuobjdump = shutil.which("cuobjdump", path=str(Path(nvcc).parent)) or "cuobjdump"
    sass = subprocess.run([cuobjdump, "-sass", str(cubin)], capture_output=True, text=True, check=True).stdout
    functions = {m[0]: m[1] for m in re.findall(r"Function : (\w+)\n(.*?)(?=\n\s*Function : |\Z)", sass, re.S)}

    rows, problems = [], []
    for name, info in re.findall(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry function|\Z)", done.stderr, re.S):
        number = lambda pattern: int((re.search(pattern, info) or [0, 0])[1])
        stack, registers = number(r"(\d+) bytes stack frame"), number(r"Used (\d+) registers")
        spills = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
        static = number(r"(\d+) bytes smem")
        length, hmma = main_loop(functions.get(name, ""))
        if spills or stack:
            problems.append(f"{name} (sm_{arch}): {spills} bytes spilled, {stack} bytes of stack")
        if MATRIX.match(name) and not NOT_MATRIX.search(name) and not hmma:
            problems.append(f"{name} (sm_{arch}): no HMMA in its main loop")
        rows.append((name, arch, registers, static + shared.get(name, 0), spills, length, hmma))
    return rows, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc")
    parser.add_argument("--arch", default="80,86,89,90")
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    nvcc = find_nvcc(options.nvcc)
    sources = sorted(options.files or (ROOT / "kernels").glob("*.cu"))
    shared = dynamic_shared(sources)
    jobs = [(source, arch) for source in sources for arch in options.arch.split(",")]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda job: check(nvcc, *job, Path(folder), shared), jobs))

    print(f"{'kernel':<28} {'arch':>5} {'registers':>9} {'shared':>7} {'spills':>6} {'loop':>5} {'HMMA':>5} {'per HMMA':>8}")
    for name, arch, registers, size, spills, length, hmma in sorted(row for rows, _ in results for row in rows):
        loop = f"{length:>5} {hmma:>5} {length / hmma:>8.2f}" if hmma else f"{'-':>5} {'-':>5} {'-':>8}"
        print(f"{name:<28} {'sm_' + arch:>5} {registers:>9} {size:>7} {spills:>6} {loop}")
    problems = [p for _, found in results for p in found]
    for problem in problems:
        print(f"check_cubins: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
