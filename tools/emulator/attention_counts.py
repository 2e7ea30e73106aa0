#!/usr/bin/env python3
"""Counts executed instructions per tensor core instruction: kernels/attention.cu beside FlashAttention-2 as Triton compiles it.

    ptx-emu run --counters --no-checks -- "$(tools/emulator/install_python.sh DIRECTORY)" tools/emulator/attention_counts.py

Both run on the emulated GPU, in bfloat16, on the shapes of the networks; results are compared with NumPy. What is counted are warp
instructions of PTX, not of machine code; moves stand apart, for ptxas removes nearly all of them. Ours runs from
kernels/prebuilt/, once as it is and once with a table of positions.
"""

import ctypes
import gzip
import json
import math
import re
from pathlib import Path

import numpy as np

import triton_attention
from driver import Driver

KERNELS = Path(__file__).resolve().parents[2] / "kernels"
# Heads, side of the map, values per head: CoAtNet's two stages at 384x384, and a map of whole tiles for the yardstick; the U-Nets of
# CIFAR-10 and ImageNet.
SHAPES = [(2, 24, 32), (2, 12, 32), (1, 32, 32), (1, 16, 64), (1, 32, 64)]
YARDSTICKS = [(128, 64), (128, 128), (64, 64)]  # queries and keys of a tile
QUERIES = 128  # of a block of ours


class TokensView(ctypes.Structure):
    _fields_ = [("at", ctypes.c_uint64), ("batch", ctypes.c_int64), ("head", ctypes.c_int64), ("token", ctypes.c_int64)]


class AttentionArgs(ctypes.Structure):
    """As in kernels/args.h."""

    _fields_ = [
        *((name, TokensView) for name in "qkvy"),
        *((name, ctypes.c_uint64) for name in ("bias", "table", "lse")),
        ("bias_batch", ctypes.c_int64),
        ("map_w", ctypes.c_uint32 * 3),
        *((name, ctypes.c_int32) for name in ("map_h", "heads", "queries", "keys", "d")),
        ("scale", ctypes.c_float),
        ("reserved", ctypes.c_int32),
    ]


def divisor(n):
    """args.h's Divisor of n."""
    shift = (n - 1).bit_length()
    return (ctypes.c_uint32 * 3)(n, (2**32 * (2**shift - n) // n + 1) % 2**32, shift)


def to_bf16(x):
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32)


def softmax_product(q, k, v, bias, scale):
    s = scale * np.einsum("hnd,hmd->hnm", q.astype(np.float64), k.astype(np.float64)) + bias
    p = np.exp(s - s.max(-1, keepdims=True))
    return np.einsum("hnm,hmd->hnd", p / p.sum(-1, keepdims=True), v.astype(np.float64))


def counts(driver):
    """Those of the launches since the last call."""
    take = driver.library.ptx_emulator_profile
    take.restype = ctypes.c_char_p
    return json.loads(take())


class Work:
    """One shape, on the device."""

    def __init__(self, driver, heads, side, d):
        random = np.random.default_rng(0)
        self.driver, self.heads, self.side, self.d, self.tokens = driver, heads, side, d, side * side
        self.host = [to_bf16(random.standard_normal((heads, self.tokens, d))) for _ in range(3)]
        self.table = random.standard_normal((heads, 2 * side - 1, 2 * side - 1), np.float32)
        self.scale = d**-0.5
        self.out = np.zeros_like(self.host[0])
        self.q, self.k, self.v, self.y = (driver.upload(x) for x in (*self.host, self.out))

    def bias(self):
        token = np.arange(self.tokens)
        down = token[None] // self.side - token[:, None] // self.side + self.side - 1
        across = token[None] % self.side - token[:, None] % self.side + self.side - 1
        return self.table[:, down, across]

    def judge(self, what, bias):
        """Ends one launch: what was counted, if the result is right."""
        found = from_bf16(self.driver.download(self.y, self.out))
        right = softmax_product(*(from_bf16(x) for x in self.host), bias, self.scale)
        error = np.linalg.norm(found - right) / np.linalg.norm(right)
        if not error <= 1e-2:
            raise SystemExit(f"{what}: the error is {error}, at most 1e-2 is right")
        (launch,) = counts(self.driver)
        classes, mma = launch["classes"], launch["classes"]["matrix"]
        issued = launch["total"]["instructions"] - classes.get("move", 0)
        largest = sorted(((n, name) for name, n in classes.items() if name not in ("matrix", "move")), reverse=True)[:6]
        parts = ", ".join(f"{name} {n / mma:.2f}" for n, name in largest)
        shape = f"{self.heads} x {self.tokens} x {self.d}"
        print(f"{what:<34} {shape:>18} {mma:>8} {issued / mma:>8.2f} {classes.get('move', 0) / mma:>6.2f}  {parts}")

    def ours(self, ptx, lines, positions):
        name = f"attention_bf16_{32 if self.d <= 32 else 64}"
        view = lambda at: TokensView(at.value, 0, self.tokens * self.d, self.d)
        lse = self.driver.upload(np.zeros((self.heads, self.tokens, 2), np.float32))
        table = self.driver.upload(self.table)
        args = AttentionArgs(*map(view, (self.q, self.k, self.v, self.y)), lse=lse.value, scale=self.scale)
        args.table = table.value if positions else 0
        args.map_w, args.map_h, args.heads, args.d = divisor(self.side), self.side, self.heads, self.d
        args.queries = args.keys = self.tokens
        threads, shared = lines[name]
        grid = (math.ceil(self.tokens / QUERIES), self.heads, 1)
        self.driver.launch(self.driver.function(ptx, name), grid, (threads, 1, 1), shared, args)
        self.judge(name + (" with positions" if positions else ""), self.bias() if positions else 0)
        self.driver.free(lse, table)

    def yardstick(self, rows, columns):
        kernel = triton_attention.compiled(self.d, rows, columns)
        ptx = kernel.asm["ptx"]
        i32 = ctypes.c_int32
        arguments = (self.q, self.k, self.v, self.y, ctypes.c_float(self.scale * math.log2(math.e)), i32(self.tokens), i32(self.tokens))
        # Scratch memory comes last, of which this kernel has none.
        scratch = ptx.count(".param .", 0, ptx.index(".reqntid")) - len(arguments)
        arguments = (*arguments, *(ctypes.c_uint64(0) for _ in range(scratch)))
        function = self.driver.function(ptx, "flash_attention")
        self.driver.launch(function, (self.tokens // rows, self.heads, 1), (128, 1, 1), kernel.metadata.shared, *arguments)
        self.judge(f"FlashAttention-2, Triton, {rows}x{columns}", 0)

    def close(self):
        self.driver.free(self.q, self.k, self.v, self.y)


def main():
    driver = Driver()
    ptx = gzip.decompress((KERNELS / "prebuilt" / "attention.ptx.gz").read_bytes()).decode()
    found = re.findall(r"^KERNEL\((\w+), \w+, (\d+), (\d+)\)", (KERNELS / "attention.cu").read_text(), re.M)
    lines = {name: (int(threads), int(shared)) for name, threads, shared in found}
    print(f"{'kernel':<34} {'heads x tokens x d':>18} {'mma':>8} {'instr/mma':>8} {'moves':>6}  most of it")
    for shape in SHAPES:
        work = Work(driver, *shape)
        for positions in (False, True):
            work.ours(ptx, lines, positions)
        for rows, columns in YARDSTICKS:
            if work.tokens % rows == 0 and work.tokens % columns == 0:
                work.yardstick(rows, columns)
        work.close()
    driver.close()


if __name__ == "__main__":
    main()
