"""What the tools that judge CUDA kernels share: nvcc, PTX as text, machine code and what it uses, occupancy."""

import os
import re
import shutil
import subprocess
import sys
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "kernels"
PREBUILT = KERNELS / "prebuilt"
FLAGS = ["-std=c++17", "-O3", "-lineinfo", "-fmad=false"]  # as in build/cuda.rs
PTX_ARCH = "compute_80"
KERNEL_LINE = re.compile(r"^KERNEL\((\w+),\s*(\w+),\s*(\d+),\s*(\d+)\)", re.M)


def find_nvcc(given=None):
    """nvcc from an option, NVCC, CUDA_HOME, CUDA_PATH or PATH."""
    places = [given, os.environ.get("NVCC")]
    places += [os.path.join(os.environ[v], "bin", "nvcc") for v in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(v)]
    for place in places:
        if place:
            return str(place)
    return shutil.which("nvcc") or fail("no nvcc; set NVCC or run tools/cuda/install_nvcc.sh")


def fail(message):
    sys.exit(f"{Path(sys.argv[0]).stem}: {message}")


def beside(nvcc, tool):
    """Another program of nvcc's toolkit."""
    return shutil.which(tool, path=str(Path(nvcc).parent)) or tool


def run(command, what):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        fail(f"{Path(str(command[0])).name} failed on {what}\n{done.stderr}{done.stdout}")
    return done.stdout + done.stderr


def pinned_version():
    """The version of nvcc that tools/cuda/install_nvcc.sh installs and the files in kernels/prebuilt/ come from."""
    return re.search(r"nvidia-cuda-nvcc==([\d.]+)", (ROOT / "tools/cuda/install_nvcc.sh").read_text())[1]


def version(nvcc):
    return re.search(r"\bV([\d.]+)", run([nvcc, "--version"], "--version"))[1]


def compile_ptx(nvcc, source, target, *more, flags=FLAGS):
    """Writes the PTX of a .cu file to `target`."""
    run([nvcc, *flags, f"-arch={PTX_ARCH}", "-ptx", "-I", KERNELS, *more, "-o", target, source], Path(source).name)


def portable(ptx):
    """PTX of ours without what depends on the machine, as build/ptx.rs does it.

    Files get relative names (kernels/conv.cu; cuda/NAME for the toolkit's headers). The names of inlined functions, a
    tenth of the text, shrink to an empty one: a `.loc` with `inlined_at` must name a function, nothing of ours reads it.
    """
    ptx = re.sub(r'^(\s*\.file\s+\d+\s+)"([^"]*)"', lambda m: f'{m[1]}"{portable_path(m[2])}"', ptx, flags=re.M)
    code, debug, _ = ptx.partition("\t.section\t.debug_str\n")
    if debug:
        code = re.sub(r"function_name \$L__info_string\d+", "function_name $L__name", code)
        ptx = f"{code}{debug}\t{{\n$L__name:\n.b8 0\n\t}}\n"
    return "".join(line + "\n" for line in ptx.split("\n") if line.strip())


def portable_path(path):
    *_, folder, name = ["", *re.split(r"[/\\]", path)]
    return f"kernels/{name}" if folder == "kernels" else f"cuda/{name}"


@dataclass
class Usage:
    """What one kernel uses on one architecture; `instructions`, `hmma` and `whole` as `main_loop` gives them."""

    kernel: str
    architecture: int
    registers: int
    shared: int  # static, bytes
    stack: int
    spills: int
    instructions: int
    hmma: int
    whole: int


def assemble(nvcc, ptx, architecture, folder):
    """[Usage] of every kernel of a PTX file."""
    cubin = Path(folder) / f"{Path(ptx).stem}.sm_{architecture}.cubin"
    command = [beside(nvcc, "ptxas"), f"-arch=sm_{architecture}", "-v", "--fmad", "false", "--generate-line-info", "-o", cubin, ptx]
    return usages(nvcc, run(command, f"{Path(ptx).name} for sm_{architecture}"), cubin)


def usages(nvcc, log, image):
    """[Usage] of every kernel and architecture in a cubin or fatbin, with what `ptxas -v` said of it."""
    sass = run([beside(nvcc, "cuobjdump"), "-sass", image], Path(image).name)
    code = {}
    # split: [before, architecture, its functions, architecture ...]; these: [before, name, code, name ...]
    images = re.split(r"^\s*code for sm_(\d+)\n", sass, flags=re.M)
    for architecture, functions in zip(images[1::2], images[2::2]):
        parts = re.split(r"^\s*Function : (\S+)\n", functions, flags=re.M)
        code.update({(name, architecture): text for name, text in zip(parts[1::2], parts[2::2])})
    found = []
    entry = r"Compiling entry function '(\S+)' for 'sm_(\d+)'"
    for name, architecture, info in re.findall(rf"{entry}(.*?)(?=Compiling entry function|\Z)", log, re.S):
        number = lambda pattern, info=info: int((re.search(pattern, info) or [0, 0])[1])
        registers, spills = number(r"Used (\d+) registers"), number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
        if (name, architecture) not in code or not registers:
            fail(f"cannot read what ptxas and cuobjdump say about {name} (sm_{architecture})")
        shared, stack = number(r"(\d+) bytes smem"), number(r"(\d+) bytes stack frame")
        loop = main_loop(code[name, architecture])
        found.append(Usage(name, int(architecture), registers, shared, stack, spills, *loop))
    if len(found) != len(code):
        fail(f"{Path(image).name} has the code of {len(code)} kernels, ptxas told of {len(found)}")
    return found


def main_loop(sass):
    """(instructions, HMMA, instructions with side paths) of the shortest loop among those with the most HMMA, or zeros.

    A loop's instructions lie between the target of its backward branch and that branch. Side paths are blocks that the
    compiler moved out of there, such as what happens only between two taps of a convolution.
    """
    code = [(int(at, 16), text) for at, text in re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", sass, re.M)]
    addresses = [at for at, _ in code]
    hmma = [0]  # in front of each instruction
    for _, text in code:
        hmma.append(hmma[-1] + ("HMMA" in text))
    before = [[] for _ in code]  # which instructions come before each one
    loops = []
    for i, (_, text) in enumerate(code):
        jump = re.search(r"\bBRA(?:\.\w+)*\s+(?:!?U?P\w+,\s*)?`?\(?(?:0x)?([0-9a-f]+)\)?", text)
        if jump:
            target = bisect_left(addresses, int(jump[1], 16))
            before[target].append(i)
            if target < i:
                loops.append((hmma[i + 1] - hmma[target], target - i - 1, target, i))
        if i + 1 < len(code) and not re.match(r"(BRA|EXIT|RET)\b", text):
            before[i + 1].append(i)
    # A loop around another has at least its HMMA; the inner one is shorter.
    most, _, first, last = max(loops, default=(0, 0, 0, 0))
    if not most:
        return 0, 0, 0
    # The natural loop: whatever reaches the branch without passing the first instruction.
    inside, waiting = {first}, [last]
    while waiting:
        i = waiting.pop()
        if i not in inside:
            inside.add(i)
            waiting += before[i]
    return last + 1 - first, most, len(inside)


@dataclass(frozen=True)
class Multiprocessor:
    """Limits of one multiprocessor (CUDA C++ programming guide, compute capabilities)."""

    shared: int  # bytes, of which a block can have all but its reserved part
    threads: int
    blocks: int
    registers: int = 64 << 10


MULTIPROCESSORS = {
    80: Multiprocessor(shared=164 << 10, threads=2048, blocks=32),
    86: Multiprocessor(shared=100 << 10, threads=1536, blocks=16),
    89: Multiprocessor(shared=100 << 10, threads=1536, blocks=24),
    90: Multiprocessor(shared=228 << 10, threads=2048, blocks=32),
}


def up(value, granularity):
    return -(-value // granularity) * granularity


def occupancy(architecture, threads, registers, shared):
    """(blocks, warps) of a kernel that fit onto one multiprocessor, as cuda_occupancy.h counts them.

    Registers are handed out 256 at a time per warp, from four equal parts of the register file; shared memory 128 bytes at
    a time, 1 KiB more per block for the system.
    """
    limits = MULTIPROCESSORS[architecture]
    warps = -(-threads // 32)
    per_part = limits.registers // 4 // up(registers * 32, 256)
    blocks = min(
        limits.blocks,
        limits.threads // 32 // warps,
        per_part * 4 // warps,
        limits.shared // up(shared + 1024, 128),
    )
    return blocks, blocks * warps
