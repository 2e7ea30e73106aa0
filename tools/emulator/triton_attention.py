"""The forward pass of FlashAttention-2 (Dao 2023, algorithm 1) for Triton, compiled for sm_80: the yardstick of attention_counts.py.

Written for counting: queries and keys in whole tiles, rows of D values that are whole 16-byte words, no mask, no bias.
"""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def flash_attention(q, k, v, y, scale_log2, queries, keys, D: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """softmax(scale q k^T) v of bf16, heads of (tokens, D) one after another; scale_log2 is the scale times log2(e)."""
    head, d = tl.program_id(1), tl.arange(0, D)
    row, column = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    own = row[:, None] * D + d[None, :]
    tile_q = tl.load(q + head * queries * D + own)
    at_k = k + head * keys * D + column[None, :] * D + d[:, None]
    at_v = v + head * keys * D + column[:, None] * D + d[None, :]
    top = tl.full((ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sums = tl.zeros((ROWS, D), tl.float32)
    for _ in range(0, keys, COLUMNS):
        s = tl.dot(tile_q, tl.load(at_k))
        new = tl.maximum(top, tl.max(s, 1) * scale_log2)
        p = tl.math.exp2(s * scale_log2 - new[:, None])
        alpha = tl.math.exp2(top - new)
        total = total * alpha + tl.sum(p, 1)
        sums = tl.dot(p.to(tl.bfloat16), tl.load(at_v), sums * alpha[:, None])
        top = new
        at_k += COLUMNS * D
        at_v += COLUMNS * D
    tl.store(y + head * queries * D + own, (sums / total[:, None]).to(tl.bfloat16))


def compiled(d, rows, columns):
    """For heads of `d`, tiles of `rows` queries and `columns` keys, four warps, two stages of keys and values in shared memory."""
    pointers, sizes = dict.fromkeys(("q", "k", "v", "y"), "*bf16"), dict.fromkeys(("queries", "keys"), "i32")
    signature = pointers | {"scale_log2": "fp32"} | sizes
    constants = {"D": d, "ROWS": rows, "COLUMNS": columns}
    # As where Triton is called with tensors: addresses and sizes that 16 divides are compiled as such.
    names = list(signature)
    divisible = {(names.index(name),): [["tt.divisibility", 16]] for name in (*pointers, *sizes)}
    source = ASTSource(flash_attention, signature | dict.fromkeys(constants, "constexpr"), constants, divisible)
    return triton.compile(source, target=GPUTarget("cuda", 80, 32), options={"num_warps": 4, "num_stages": 2})
