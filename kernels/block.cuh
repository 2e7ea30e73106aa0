// Block-collective primitives. Each is called by the whole block, visits every index exactly once, and ends in a barrier:
// what one phase wrote, the next may read. A kernel built from them names no thread.
#pragma once
#include "lanes.cuh"

namespace block {

DEVICE void barrier() {
#if TARGET_CUDA
  __syncthreads();
#endif
}

// f(r, c) for every r < rows, c < cols; neighbouring threads take neighbouring c.
template <class F> DEVICE void for_each([[maybe_unused]] const Block& b, int rows, int cols, F f) {
#if TARGET_CUDA
  // Threads tile a (rows x cols) sheet; per-thread steps are added, never divided.
  const int dr = b.threads / cols, dc = b.threads % cols;
  int r = b.thread / cols, c = b.thread % cols;
  while (r < rows) {
    f(r, c);
    r += dr, c += dc;
    if (c >= cols) c -= cols, ++r;
  }
#else
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < cols; ++c) f(r, c);
#endif
  barrier();
}

// f(r, c, count) for runs of `count` <= Lanes::SIZE neighbouring columns that start at c: the vector form of for_each.
template <class F> DEVICE void for_each_run(const Block& b, int rows, int cols, F f) {
  const int runs = (cols + lanes::SIZE - 1) / lanes::SIZE;
  for_each(b, rows, runs, [&](int r, int k) {
    const int c = k * lanes::SIZE, left = cols - c;
    f(r, c, left < lanes::SIZE ? left : lanes::SIZE);
  });
}

// Combines one value per thread with op, in a fixed tree; every thread gets the result.
template <class Op> DEVICE float combine([[maybe_unused]] const Block& b, float v, [[maybe_unused]] Op op) {
#if TARGET_CUDA
  float* scratch = reinterpret_cast<float*>(b.shared);
  for (int m = 16; m; m >>= 1) v = op(v, __shfl_xor_sync(~0u, v, m));
  if (b.thread % 32 == 0) scratch[b.thread / 32] = v;
  barrier();
  v = scratch[0];
  for (uint32_t w = 1; w < b.threads / 32; ++w) v = op(v, scratch[w]);
  barrier();  // scratch may be reused at once
#endif
  return v;
}

// The sum of f(r, c) over the sheet, the same value in every thread; independent of timing.
template <class F> DEVICE float sum(const Block& b, int rows, int cols, F f) {
#if TARGET_CUDA
  float v = 0;
  for_each(b, rows, cols, [&](int r, int c) { v += f(r, c); });
  return combine(b, v, [](float x, float y) { return x + y; });
#else
  constexpr int PARTS = 16;  // independent partial sums: the compiler may use vectors without reordering any of them
  float part[PARTS] = {};
  for (int r = 0; r < rows; ++r) {
    int c = 0;
    for (; c + PARTS <= cols; c += PARTS)
      for (int l = 0; l < PARTS; ++l) part[l] += f(r, c + l);
    for (; c < cols; ++c) part[(r + c) % PARTS] += f(r, c);
  }
  for (int m = PARTS / 2; m; m >>= 1)
    for (int l = 0; l < m; ++l) part[l] += part[l + m];
  return part[0];
#endif
}

// The largest f(r, c) over the sheet, at least `least`.
template <class F> DEVICE float max(const Block& b, int rows, int cols, float least, F f) {
  float v = least;
  for_each(b, rows, cols, [&](int r, int c) {
    const float x = f(r, c);
    v = x > v ? x : v;
  });
  return combine(b, v, [](float x, float y) { return x > y ? x : y; });
}

}  // namespace block
