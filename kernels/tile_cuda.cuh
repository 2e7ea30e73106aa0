// The CUDA half of tile.cuh. A block's warps each keep WM x WN of C in registers and multiply 64 bytes of K at a time with
// mma.sync, from a ring of STAGES tiles in shared memory that cp.async fills (tile_copy.cuh: who copies what).
//
// The ring, here in the step that multiplies stage 0; then every role moves on to the stage at its right:
//
//     stage 0             stage 1             stage 2
//     +--------+--------+ +--------+--------+ +--------+--------+
//     | BM rows| BN rows| | A      | B      | | A      | B      |      A, B: 64 bytes of K per row
//     |  of A  |  of B  | |        |        | |        |        |
//     +--------+--------+ +--------+--------+ +--------+--------+
//      ldmatrix, mma.sync  under way since     cp.async begins
//                          the last step       (was multiplied in the last step)
//
// The swizzle within a stage. A row is four 16-byte words, and 128 bytes, all 32 banks, hold two rows; word w of row r lies at place
// w ^ (r / 2 % 4) of its row. What is shown is w:
//
//     bank      0   4   8  12    16  20  24  28
//              --------------------------------
//     row 0    0   1   2   3  |  0   1   2   3   row 1         ldmatrix reads one word of 8 rows. Word 0 lies in banks
//     row 2    1   0   3   2  |  1   0   3   2   row 3         0, 16, 4, 20, 8, 24, 12, 28 of rows 0 to 7: each bank once.
//     row 4    2   3   0   1  |  2   3   0   1   row 5         A copy writes rows 2i and 2i + 1 whole: each bank once too.
//     row 6    3   2   1   0  |  3   2   1   0   row 7
#pragma once
#include "ptx.cuh"

namespace tile {

// What one block computes, with 2 x WARPS_N warps. TF32_PRODUCTS: float32 as that many tensor core products, 3 (error like
// float32) or 1.
template <int BM_, int BN_, int WARPS_N_ = 2, int TF32_PRODUCTS_ = 3> struct Shape {
  static constexpr int BM = BM_, BN = BN_, TF32_PRODUCTS = TF32_PRODUCTS_;
  static constexpr int WARPS_M = 2, WARPS_N = WARPS_N_, THREADS = WARPS_M * WARPS_N * 32;
  static constexpr int WM = BM / WARPS_M, WN = BN / WARPS_N;  // of one warp
  static constexpr int MT = WM / 16, NT = WN / 8;             // tensor core tiles of one warp
  static constexpr int ROW = 64;                              // bytes of K per row and stage: half a line of memory
  static constexpr int STAGES = 3;                            // two tiles under way while one is multiplied
  static constexpr int A_BYTES = BM * ROW, STAGE = (BM + BN) * ROW, SHARED = STAGES * STAGE;
  static constexpr int RUNS = WN / 8;      // runs of 8 columns per warp
  static constexpr int STAGED_ROWS = 32;   // rows of C that a warp passes through shared memory at a time

  static_assert(BM % (WARPS_M * 16) == 0 && BN % (WARPS_N * 16) == 0, "ldmatrix.x4 loads two 8-column tiles of B at once");
  static_assert(BM % (THREADS / 4) == 0 && BN % (THREADS / 4) == 0, "4 threads copy a row, each thread equally many rows");
  static_assert(THREADS / 4 % 8 == 0, "all rows of a thread share one swizzle");
  static_assert(RUNS == 4 || RUNS == 8, "the staging swizzle is worked out for these");
  static_assert(WM % STAGED_ROWS == 0 && WARPS_M * WARPS_N * STAGED_ROWS * WN * 4 <= SHARED, "staging reuses the ring");
  static_assert(TF32_PRODUCTS == 1 || TF32_PRODUCTS == 3, "one product, or big*big + big*small + small*big");
};

// Whether the numbers of a KERNEL line serve a shape.
template <class S> constexpr bool fits(int threads, int shared) { return threads == S::THREADS && shared >= S::SHARED; }

// 16-byte word `word` of row `row` lies at this offset of a stage: the words of 8 rows fall into all banks once, for copies
// (rows 2i and 2i + 1 whole) as for ldmatrix (one word of 8 rows).
DEVICE uint32_t swizzled(uint32_t row, uint32_t word) { return row * 64 + (word ^ (row >> 1 & 3)) * 16; }

}  // namespace tile

#include "tile_copy.cuh"

namespace tile {

template <class S> using Accumulators = float[S::MT][S::NT][4];

// Operands of one step along K (32 bytes): MT tiles of A, NT tiles of B in pairs.
template <class S> struct Fragments {
  uint32_t a[S::MT][4], b[S::NT / 2][4];

  // `a_from`, `b_from`: where this lane's row of the warp's first tile lies.
  DEVICE void load(uint32_t a_from, uint32_t b_from) {
    UNROLL for (int i = 0; i < S::MT; ++i) ptx::load_matrices(a[i], a_from + i * 16 * S::ROW);
    UNROLL for (int j = 0; j < S::NT / 2; ++j) ptx::load_matrices(b[j], b_from + j * 16 * S::ROW);
  }
};

// float32 = big + small + at most one unit in its last place; big is rounded to TF32, of small the tensor core takes the leading
// bits. Integer arithmetic is cheaper than cvt.rna; where it turns a NaN into 0, small is still NaN.
DEVICE void split(uint32_t x, uint32_t& big, uint32_t& small) {
  big = (x + 0x1000) & 0xffffe000u;
  small = float_to_bits(bits_to_float(x) - bits_to_float(big));
}

// Rounded to TF32; 0 * x keeps a NaN that the integer sum would lose.
DEVICE uint32_t rounded(uint32_t x) {
  return float_to_bits(fused_multiply_add(bits_to_float(x), 0.f, bits_to_float(x + 0x1000)));
}

template <class T, class S> DEVICE void multiply(Accumulators<S>& acc, const Fragments<S>& f) {
  if constexpr (sizeof(T) == 2) {
    UNROLL for (int i = 0; i < S::MT; ++i)
      UNROLL for (int j = 0; j < S::NT; ++j)
        ptx::mma_bf16(acc[i][j], f.a[i], f.b[j / 2][j % 2 * 2], f.b[j / 2][j % 2 * 2 + 1], acc[i][j]);
  } else if constexpr (S::TF32_PRODUCTS == 1) {
    uint32_t b[S::NT][2];
    UNROLL for (int j = 0; j < S::NT; ++j)
      UNROLL for (int e = 0; e < 2; ++e) b[j][e] = rounded(f.b[j / 2][j % 2 * 2 + e]);
    UNROLL for (int i = 0; i < S::MT; ++i) {
      uint32_t a[4];
      UNROLL for (int e = 0; e < 4; ++e) a[e] = rounded(f.a[i][e]);
      UNROLL for (int j = 0; j < S::NT; ++j) ptx::mma_tf32(acc[i][j], a, b[j][0], b[j][1], acc[i][j]);
    }
  } else {
    // Tensor cores truncate their sums: each step starts from 0, small terms first, and is added with rounding.
    const float zero[4] = {};
    uint32_t b_big[S::NT][2], b_small[S::NT][2];
    UNROLL for (int j = 0; j < S::NT; ++j)
      UNROLL for (int e = 0; e < 2; ++e) split(f.b[j / 2][j % 2 * 2 + e], b_big[j][e], b_small[j][e]);
    UNROLL for (int i = 0; i < S::MT; ++i) {
      uint32_t a_big[4], a_small[4];
      UNROLL for (int e = 0; e < 4; ++e) split(f.a[i][e], a_big[e], a_small[e]);
      constexpr int GROUP = 4;  // independent sums in flight
      UNROLL for (int j0 = 0; j0 < S::NT; j0 += GROUP) {
        float sum[GROUP][4];
        UNROLL for (int j = 0; j < GROUP; ++j) ptx::mma_tf32(sum[j], a_small, b_big[j0 + j][0], b_big[j0 + j][1], zero);
        UNROLL for (int j = 0; j < GROUP; ++j) ptx::mma_tf32(sum[j], a_big, b_small[j0 + j][0], b_small[j0 + j][1], sum[j]);
        UNROLL for (int j = 0; j < GROUP; ++j) ptx::mma_tf32(sum[j], a_big, b_big[j0 + j][0], b_big[j0 + j][1], sum[j]);
        UNROLL for (int j = 0; j < GROUP; ++j)
          UNROLL for (int e = 0; e < 4; ++e) acc[i][j0 + j][e] += sum[j][e];
      }
    }
  }
}

// The main loop. Fragments of the next step are loaded while this one is multiplied; a stage is two steps.
template <class T, class S, bool ALIGNED, class RowOf>
DEVICE void accumulate(const Block& block, const Operands<T>& p, RowOf row, int m0, int n0, Accumulators<S>& acc) {
  const uint32_t shared = ptx::shared_address(block.shared), lane = block.thread % 32, warp = block.thread / 32;
  Copier<T, S, ALIGNED> copier(block, p, row, m0, n0, shared);
  int left = p.taps.r * p.taps.s * ((p.channels * int(sizeof(T)) + S::ROW - 1) / S::ROW);  // stages to multiply
  int to_copy = left;
  UNROLL for (int stage = 0; stage < S::STAGES - 1; ++stage) {
    copier.copy(stage * S::STAGE, to_copy > 0);
    copier.step(p);
    --to_copy;
    ptx::commit();
  }
  ptx::wait<S::STAGES - 2>();
  block::barrier();

  // Tile rows of A lie 0-7, 8-15 by word 0, then 1; tile columns of B by word 0, 1, then the next 8 columns.
  const uint32_t a_first = shared + swizzled(warp / S::WARPS_N * S::WM + lane % 16, lane / 16);
  const uint32_t b_first = shared + S::A_BYTES + swizzled(warp % S::WARPS_N * S::WN + lane % 8 + lane / 16 * 8, lane / 8 % 2);
  Fragments<S> even, odd;
  even.load(a_first, b_first);
  uint32_t stage = 0, free = (S::STAGES - 1) * S::STAGE;  // offsets of the stage in use and of the one to fill
  for (; left > 0; --left) {
    odd.load((a_first + stage) ^ 32, (b_first + stage) ^ 32);
    copier.copy(free, to_copy > 0);
    multiply<T, S>(acc, even);
    ptx::commit();
    ptx::wait<S::STAGES - 2>();
    block::barrier();
    copier.step(p);
    --to_copy;
    free = stage;
    const uint32_t next = stage == (S::STAGES - 1) * S::STAGE ? 0 : stage + S::STAGE;
    stage = left > 1 ? next : stage;  // after the last stage: harmless loads
    even.load(a_first + stage, b_first + stage);
    multiply<T, S>(acc, odd);
  }
  ptx::wait<0>();
  block::barrier();
}

// Passes the warp's part of C through shared memory, so that a lane gets runs of 8 columns and neighbouring lanes neighbouring
// runs. Within a row the left halves of all runs come first, swizzled so that neither side meets a bank conflict.
template <class S, class Out>
DEVICE void deliver(const Block& block, const Accumulators<S>& acc, int m, int n, int m0, int n0, Out out) {
  const uint32_t lane = block.thread % 32, warp = block.thread / 32;
  unsigned char* staged = block.shared + warp * S::STAGED_ROWS * S::WN * 4;
  auto half = [&](uint32_t row, uint32_t run, uint32_t h) {  // 16 bytes
    const uint32_t turn = (row & (S::RUNS - 1)) ^ (S::RUNS == 8 ? h << 2 : (row & 1) << 2);
    return staged + row * S::WN * 4 + ((h * S::RUNS + run) ^ turn) * 16;
  };
  const int column = n0 + warp % S::WARPS_N * S::WN + lane % S::RUNS * 8;
  // `out` is long: the loops around it stay loops, and only the stores, whose registers have fixed names, are written out.
#pragma unroll 1
  for (int part = 0; part < S::WM; part += S::STAGED_ROWS) {
    UNROLL for (int tile = 0; tile < S::MT; ++tile) {
      if (tile / (S::STAGED_ROWS / 16) * S::STAGED_ROWS != part) continue;
      UNROLL for (int j = 0; j < S::NT; ++j)
        UNROLL for (int e = 0; e < 2; ++e) {
          const float* c = acc[tile][j] + 2 * e;
          const auto to = half(tile * 16 % S::STAGED_ROWS + e * 8 + lane / 4, j, lane % 4 / 2) + lane % 2 * 8;
          *reinterpret_cast<float2*>(to) = make_float2(c[0], c[1]);
        }
    }
    __syncwarp();
    const int row = m0 + warp / S::WARPS_N * S::WM + part;
#pragma unroll 1
    for (int r = lane / S::RUNS; r < S::STAGED_ROWS; r += 32 / S::RUNS) {
      if (row + r >= m || column >= n) continue;
      const float4 lo = *reinterpret_cast<const float4*>(half(r, lane % S::RUNS, 0));
      const float4 hi = *reinterpret_cast<const float4*>(half(r, lane % S::RUNS, 1));
      out(row + r)(column, Lanes{lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w}, n - column < 8 ? n - column : 8);
    }
    __syncwarp();
  }
}

template <class T, class S, class RowOf, class Out>
DEVICE void product(const Block& block, const Operands<T>& p, RowOf row, Out out) {
  static_assert(Lanes::SIZE == 8, "deliver hands over runs of 8 columns");
  const int columns = (p.n + S::BN - 1) / S::BN;
  const int m0 = int(block.index.x / uint32_t(columns)) * S::BM, n0 = int(block.index.x % uint32_t(columns)) * S::BN;
  Accumulators<S> acc = {};
  // The same choice in every block of a launch; row offsets are multiples of `channels`.
  const int64_t runs = (p.channels | p.taps.step_r | p.taps.step_s) * int64_t(sizeof(T));
  const bool aligned = (runs | int64_t(reinterpret_cast<uintptr_t>(p.a))) % 16 == 0;
  // Without taps, as in a gradient between strides, nothing would fill the stage that the loop reads ahead.
  if (p.taps.r * p.taps.s > 0) {
    if (aligned) accumulate<T, S, true>(block, p, row, m0, n0, acc);
    else accumulate<T, S, false>(block, p, row, m0, n0, acc);
  }
  deliver<S>(block, acc, p.m, p.n, m0, n0, out);
  block::barrier();
}

}  // namespace tile
