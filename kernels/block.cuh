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
template <class F> DEVICE float sum([[maybe_unused]] const Block& b, int rows, int cols, F f) {
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

// The sum of f(r, c, count) over the runs of a sheet, where lanes from `count` on must be 0.
template <class F> DEVICE float sum_runs(const Block& b, int rows, int cols, F f) {
  Lanes v = lanes::fill(0.f);
  for_each_run(b, rows, cols, [&](int r, int c, int count) { v = v + f(r, c, count); });
  return combine(b, lanes::sum(v), [](float x, float y) { return x + y; });
}

// Folds every column of a sheet: S s = start; step(s, r, c, count) for ascending r, where s belongs to the run of `count`
// columns at c; then finish(c, count, s). On CUDA a run may be folded in parts by several threads: merge(s, later) joins
// the part of later rows to s, and `scratch` is shared memory for one S per thread.
template <class S, class Step, class Merge, class Finish>
DEVICE void fold_columns([[maybe_unused]] const Block& b, [[maybe_unused]] void* scratch, int rows, int cols, S start, Step step,
                         [[maybe_unused]] Merge merge, Finish finish) {
  const int runs = (cols + lanes::SIZE - 1) / lanes::SIZE;
  auto count = [&](int run) { return cols - run * lanes::SIZE < lanes::SIZE ? cols - run * lanes::SIZE : lanes::SIZE; };
#if TARGET_CUDA
  S* all = static_cast<S*>(scratch);
  for (int first = 0; first < runs; first += b.threads) {
    const int here = runs - first < int(b.threads) ? runs - first : int(b.threads), parts = b.threads / here;
    const int part = b.thread / here, run = first + b.thread % here;
    S s = start;
    if (part < parts) {
      const int last = int(int64_t(rows) * (part + 1) / parts);
      for (int r = int(int64_t(rows) * part / parts); r < last; ++r) step(s, r, run * lanes::SIZE, count(run));
      all[b.thread] = s;
    }
    barrier();
    if (part == 0) {
      for (int p = 1; p < parts; ++p) merge(s, all[p * here + b.thread]);
      finish(run * lanes::SIZE, count(run), s);
    }
    barrier();
  }
#else
  constexpr int WIDTH = 4;  // neighbouring runs at a time, so that memory is read in longer pieces
  int run = 0;
  for (; run + WIDTH <= runs && count(run + WIDTH - 1) == lanes::SIZE; run += WIDTH) {
    S s[WIDTH];
    UNROLL for (int k = 0; k < WIDTH; ++k) s[k] = start;
    for (int r = 0; r < rows; ++r)
      UNROLL for (int k = 0; k < WIDTH; ++k) step(s[k], r, (run + k) * lanes::SIZE, lanes::SIZE);
    UNROLL for (int k = 0; k < WIDTH; ++k) finish((run + k) * lanes::SIZE, lanes::SIZE, s[k]);
  }
  for (; run < runs; ++run) {
    S s = start;
    for (int r = 0; r < rows; ++r) step(s, r, run * lanes::SIZE, count(run));
    finish(run * lanes::SIZE, count(run), s);
  }
#endif
}

// Folds every row of a sheet: S s = start; step(s, r, c, count) over the runs of row r; t = collapse(s); then finish(r, t).
// On CUDA a warp shares a row: merge(t, u) joins what two of its threads collapsed, in any order. T consists of 4-byte words.
template <class S, class Step, class Collapse, class Merge, class Finish>
DEVICE void fold_rows([[maybe_unused]] const Block& b, int rows, int cols, S start, Step step, Collapse collapse,
                      [[maybe_unused]] Merge merge, Finish finish) {
  const int runs = (cols + lanes::SIZE - 1) / lanes::SIZE;
  auto count = [&](int run) { return cols - run * lanes::SIZE < lanes::SIZE ? cols - run * lanes::SIZE : lanes::SIZE; };
#if TARGET_CUDA
  for (int r = b.thread / 32; r < rows; r += b.threads / 32) {
    S s = start;
    for (int run = b.thread % 32; run < runs; run += 32) step(s, r, run * lanes::SIZE, count(run));
    auto t = collapse(s);
    for (int m = 16; m; m >>= 1) {
      auto u = t;
      uint32_t* words = reinterpret_cast<uint32_t*>(&u);
      UNROLL for (int w = 0; w < int(sizeof(u) / 4); ++w) words[w] = __shfl_xor_sync(~0u, words[w], m);
      merge(t, u);
    }
    if (b.thread % 32 == 0) finish(r, t);
  }
  barrier();
#else
  constexpr int HEIGHT = 4;  // rows at a time: as many independent chains of additions
  const int full = runs && count(runs - 1) < lanes::SIZE ? runs - 1 : runs;
  int r = 0;
  for (; r + HEIGHT <= rows; r += HEIGHT) {
    S s[HEIGHT];
    UNROLL for (int k = 0; k < HEIGHT; ++k) s[k] = start;
    for (int run = 0; run < full; ++run)
      UNROLL for (int k = 0; k < HEIGHT; ++k) step(s[k], r + k, run * lanes::SIZE, lanes::SIZE);
    if (full < runs)
      UNROLL for (int k = 0; k < HEIGHT; ++k) step(s[k], r + k, full * lanes::SIZE, count(full));
    UNROLL for (int k = 0; k < HEIGHT; ++k) finish(r + k, collapse(s[k]));
  }
  for (; r < rows; ++r) {
    S s = start;
    for (int run = 0; run < runs; ++run) step(s, r, run * lanes::SIZE, count(run));
    finish(r, collapse(s));
  }
#endif
}

// The largest f(i), i < n, and the lowest i that has it; a NaN counts as larger than every number. {-infinity, n} when n is 0.
struct Ranked {
  float value;
  int32_t index;
};

DEVICE bool before(Ranked a, Ranked b) {
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  if (a_nan != b_nan) return a_nan;
  return a.value > b.value || ((a_nan || a.value == b.value) && a.index < b.index);
}

template <class F> DEVICE Ranked argmax(const Block& b, int n, F f) {
  Ranked best = {-INFINITY, n};
  for_each(b, 1, n, [&](int, int i) {
    const Ranked here = {f(i), i};
    if (before(here, best)) best = here;
  });
#if TARGET_CUDA
  Ranked* scratch = reinterpret_cast<Ranked*>(b.shared);
  for (int m = 16; m; m >>= 1) {
    const Ranked other = {__shfl_xor_sync(~0u, best.value, m), __shfl_xor_sync(~0u, best.index, m)};
    if (before(other, best)) best = other;
  }
  if (b.thread % 32 == 0) scratch[b.thread / 32] = best;
  barrier();
  best = scratch[0];
  for (uint32_t w = 1; w < b.threads / 32; ++w)
    if (before(scratch[w], best)) best = scratch[w];
  barrier();
#endif
  return best;
}

}  // namespace block
