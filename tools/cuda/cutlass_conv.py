#!/usr/bin/env python3
"""Compares the main loops of our convolutions with those of CUTLASS for the same tile, from their machine code.

    tools/cuda/cutlass_conv.py [--nvcc NVCC] [--folder target/cutlass]

Builds CUTLASS's implicit-GEMM forward convolution (NHWC, optimised iterator, f32 accumulation, sm_80, 128x128 outputs per
block, 3 stages) in bfloat16 (depth 32, 64x64 per warp) and in float32 as three TF32 products (depth 16, 64x32 per warp). Its
headers come from the package nvidia-cutlass and stay in --folder. Prints, beside conv_bf16 and conv_f32: registers, static plus
dynamic shared memory, stack, spilled bytes; of the main loop instructions, HMMA, and instructions per HMMA; then the same with
the paths that the compiler moved out of the loop and that not every round takes (ours change the tap there; CUTLASS's loop does
that without a branch). Exits with 1 when one of ours, even with these, needs more than 1.25 times CUTLASS's instructions per
HMMA.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cuda_toolkit import KERNEL_LINE, KERNELS, ROOT, assemble, compile_ptx, fail, find_nvcc

PACKAGE = "nvidia-cutlass==4.2.0.0"
ARCHITECTURE = 80
MOST = 1.25
PAIRS = {"conv_bf16": "cutlass_conv_bf16", "conv_f32": "cutlass_conv_f32"}

SOURCE = r"""
#include "cutlass/cutlass.h"
#include "cutlass/conv/kernel/default_conv2d_fprop.h"
#include "cutlass/epilogue/thread/linear_combination.h"
#include "cutlass/gemm/threadblock/threadblock_swizzle.h"

using namespace cutlass;

// Element, depth of a step, columns per warp, depth of one HMMA, and what an HMMA does with its operands.
template <class Element, int K, int WarpN, int HmmaK, class Operation>
using Convolution = typename conv::kernel::DefaultConv2dFprop<
    Element, layout::TensorNHWC, Element, layout::TensorNHWC, Element, layout::TensorNHWC, float,
    arch::OpClassTensorOp, arch::Sm80,
    gemm::GemmShape<128, 128, K>, gemm::GemmShape<64, WarpN, K>, gemm::GemmShape<16, 8, HmmaK>,
    epilogue::thread::LinearCombination<Element, 128 / sizeof_bits<Element>::value, float, float>,
    gemm::threadblock::GemmIdentityThreadblockSwizzle<>, 3, Operation, conv::IteratorAlgorithm::kOptimized>::Kernel;

// As cutlass::Kernel starts it (no launch bounds), under a name of its own.
#define KERNEL(name, ...)                                                             \
  using name##_type = __VA_ARGS__;                                                    \
  extern "C" __device__ const int name##_shared = sizeof(name##_type::SharedStorage); \
  extern "C" __global__ void name(name##_type::Params params) {                       \
    extern __shared__ int shared[];                                                   \
    name##_type()(params, *reinterpret_cast<name##_type::SharedStorage*>(shared));    \
  }

KERNEL(cutlass_conv_bf16, Convolution<bfloat16_t, 32, 64, 16, arch::OpMultiplyAdd>)
KERNEL(cutlass_conv_f32, Convolution<float, 16, 32, 8, arch::OpMultiplyAddFastF32>)
"""


def headers(folder):
    """The include folder of CUTLASS, installed when it is not there yet."""
    stamp = folder / PACKAGE.replace("==", "-")
    if not stamp.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade",
                   "--target", str(folder), PACKAGE]  # fmt: skip
        if subprocess.run(command, stdout=sys.stderr).returncode:
            fail(f"pip could not install {PACKAGE} into {folder}")
        stamp.touch()
    found = folder / "cutlass_library" / "source" / "include"
    return found if found.is_dir() else fail(f"{PACKAGE} has no {found}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nvcc")
    parser.add_argument("--folder", type=Path, default=ROOT / "target" / "cutlass")
    options = parser.parse_args()
    nvcc = find_nvcc(options.nvcc)
    include = headers(options.folder)

    shared = {name: int(size) for name, _, _, size in KERNEL_LINE.findall((KERNELS / "conv.cu").read_text())}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        source = Path(folder) / "cutlass_conv.cu"
        source.write_text(SOURCE)

        def usages(source, *more):
            ptx = Path(folder) / f"{source.stem}.ptx"
            compile_ptx(nvcc, source, ptx, *more, flags=["-std=c++17", "-O3"])
            for name, size in re.findall(r"\b(\w+)_shared = (\d+);", ptx.read_text()):
                shared[name] = int(size)
            return assemble(nvcc, ptx, ARCHITECTURE, folder)

        theirs = pool.submit(usages, source, "-I", include, "--expt-relaxed-constexpr")
        ours = pool.submit(usages, KERNELS / "conv.cu", "-lineinfo", "-fmad=false")
        found = {usage.kernel: usage for usage in ours.result() + theirs.result()}

    print(f"{PACKAGE}, sm_{ARCHITECTURE}")
    head = ["registers", "shared", "stack", "spills", "loop", "HMMA", "per HMMA", "with side paths", "per HMMA"]
    print(f"{'kernel':<18} " + " ".join(f"{h:>{max(6, len(h))}}" for h in head))
    problems = []
    for mine, reference in PAIRS.items():
        per = {}
        for name in (mine, reference):
            u = found.get(name) or fail(f"the PTX has no kernel {name}")
            if not u.hmma:
                fail(f"no HMMA in the main loop of {name}")
            per[name] = u.whole / u.hmma
            values = [u.registers, u.shared + shared[name], u.stack, u.spills]
            values += [u.instructions, u.hmma, f"{u.instructions / u.hmma:.2f}", u.whole, f"{per[name]:.2f}"]
            print(f"{name:<18} " + " ".join(f"{v:>{max(6, len(h))}}" for h, v in zip(head, values)))
        ratio = per[mine] / per[reference]
        print(f"  {mine} needs {ratio:.2f} of CUTLASS's instructions per HMMA (at most {MOST})")
        if not ratio <= MOST:
            problems.append(f"{mine} needs {ratio:.2f} times CUTLASS's instructions per HMMA, more than {MOST}")
    for problem in problems:
        print(f"cutlass_conv: {problem}", file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
