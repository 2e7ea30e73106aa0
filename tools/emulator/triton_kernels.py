"""Triton kernels, compiled for sm_80: a vector addition, a sum with atomics, a softmax over rows, a product of matrices."""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def add(x, y, o, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    mask = i < n
    tl.store(o + i, tl.load(x + i, mask=mask) + tl.load(y + i, mask=mask), mask=mask)


@triton.jit
def total(x, o, n, B: tl.constexpr):
    i = tl.program_id(0) * B + tl.arange(0, B)
    tl.atomic_add(o, tl.sum(tl.load(x + i, mask=i < n, other=0.0)))


@triton.jit
def softmax(x, o, n, B: tl.constexpr):
    row, i = tl.program_id(0) * n, tl.arange(0, B)
    v = tl.load(x + row + i, mask=i < n, other=-float("inf"))
    e = tl.exp(v - tl.max(v, 0))
    tl.store(o + row + i, e / tl.sum(e, 0), mask=i < n)


@triton.jit
def matmul(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    m = tl.program_id(0) * BM + tl.arange(0, BM)
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    sums = tl.zeros((BM, BN), tl.float32)
    for s in range(0, K, BK):
        k = s + tl.arange(0, BK)
        x = tl.load(a + m[:, None] * K + k[None, :], mask=(m[:, None] < M) & (k[None, :] < K), other=0.0)
        y = tl.load(b + k[:, None] * N + n[None, :], mask=(k[:, None] < K) & (n[None, :] < N), other=0.0)
        sums = tl.dot(x, y, sums)
    tl.store(c + m[:, None] * N + n[None, :], sums, mask=(m[:, None] < M) & (n[None, :] < N))


def compiled():
    """Each kernel by its name."""
    f32, f16 = "*fp32", "*fp16"
    block = {"B": 256}
    shapes = dict.fromkeys(("M", "N", "K"), "i32")
    cases = [
        (add, {"x": f32, "y": f32, "o": f32, "n": "i32"}, block),
        (total, {"x": f32, "o": f32, "n": "i32"}, block),
        (softmax, {"x": f32, "o": f32, "n": "i32"}, {"B": 128}),
        (matmul, {"a": f16, "b": f16, "c": f32} | shapes, {"BM": 64, "BN": 64, "BK": 32}),
    ]
    target = GPUTarget("cuda", 80, 32)
    return {
        f.__name__: triton.compile(ASTSource(f, signature | dict.fromkeys(constants, "constexpr"), constants), target=target)
        for f, signature, constants in cases
    }
