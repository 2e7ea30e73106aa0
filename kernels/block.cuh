// Block-collective primitives. Each is called by the whole block, visits every index exactly once, and ends in a barrier:
// what one phase wrote, the next may read. A kernel built from them names no thread. First, what cuts work into blocks.
#pragma once
#include "lanes.cuh"

DEVICE int at_most(int limit, int v) { return v < limit ? v : limit; }

// A NaN stays.
DEVICE float clamp(float v, float low, float high) { return v < low ? low : v > high ? high : v; }

// The named parts of block::fold_columns and block::fold_rows, whose state S goes from run to run.
namespace fold {

template <class S> struct Start { S state; };   // before the first row of a column, the first run of a row
template <class F> struct Step : F {};          // step(s, r, c, count): takes the `count` columns at c of row r into s
template <class F> struct Collapse : F {};      // t = collapse(s), of 4-byte words: of rows, what is left of the lanes of s
template <class F> struct Merge : F {};         // merge(s, other): joins what CUDA threads that share a fold have, see below
template <class F> struct Finish : F {};        // of columns finish(c, count, s), of rows finish(r, t): once per fold
template <class S> Start(S) -> Start<S>;
template <class F> Step(F) -> Step<F>;
template <class F> Collapse(F) -> Collapse<F>;
template <class F> Merge(F) -> Merge<F>;
template <class F> Finish(F) -> Finish<F>;

// Step takes rows in ascending order, merge a state of later rows.
template <class S, class A, class M, class F> struct Columns {
  Start<S> start;
  Step<A> step;
  Merge<M> merge;
  Finish<F> finish;
};
template <class S, class A, class M, class F> Columns(Start<S>, Step<A>, Merge<M>, Finish<F>) -> Columns<S, A, M, F>;

// Merge takes what was collapsed of other runs of the row, in any order.
template <class S, class A, class C, class M, class F> struct Rows {
  Start<S> start;
  Step<A> step;
  Collapse<C> collapse;
  Merge<M> merge;
  Finish<F> finish;
};
template <class S, class A, class C, class M, class F>
Rows(Start<S>, Step<A>, Collapse<C>, Merge<M>, Finish<F>) -> Rows<S, A, C, M, F>;

}  // namespace fold

namespace block {

// The part of n things that falls to block number `index` where each takes `per_block`: [first, first + count).
template <class N> struct Share {
  N first;
  int count;
};
template <class N> DEVICE Share<N> share(uint32_t index, int per_block, N n) {
  const N first = N(index) * per_block, left = n - first;
  return {first, int(left < per_block ? left : per_block)};
}

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

// Folds every run of columns of a sheet. `scratch` is shared memory for one S per CUDA thread.
template <class S, class Step, class Merge, class Finish>
DEVICE void fold_columns([[maybe_unused]] const Block& b, [[maybe_unused]] void* scratch, int rows, int cols,
                         const fold::Columns<S, Step, Merge, Finish>& fold) {
  const int runs = (cols + lanes::SIZE - 1) / lanes::SIZE;
  auto count = [&](int run) { return cols - run * lanes::SIZE < lanes::SIZE ? cols - run * lanes::SIZE : lanes::SIZE; };
#if TARGET_CUDA
  S* all = static_cast<S*>(scratch);
  for (int first = 0; first < runs; first += b.threads) {
    const int here = runs - first < int(b.threads) ? runs - first : int(b.threads), parts = b.threads / here;
    const int part = b.thread / here, run = first + b.thread % here;
    S s = fold.start.state;
    if (part < parts) {
      const int last = int(int64_t(rows) * (part + 1) / parts);
      for (int r = int(int64_t(rows) * part / parts); r < last; ++r) fold.step(s, r, run * lanes::SIZE, count(run));
      all[b.thread] = s;
    }
    barrier();
    if (part == 0) {
      for (int p = 1; p < parts; ++p) fold.merge(s, all[p * here + b.thread]);
      fold.finish(run * lanes::SIZE, count(run), s);
    }
    barrier();
  }
#else
  constexpr int WIDTH = 4;  // neighbouring runs at a time, so that memory is read in longer pieces
  int run = 0;
  for (; run + WIDTH <= runs && count(run + WIDTH - 1) == lanes::SIZE; run += WIDTH) {
    S s[WIDTH];
    UNROLL for (int k = 0; k < WIDTH; ++k) s[k] = fold.start.state;
    for (int r = 0; r < rows; ++r)
      UNROLL for (int k = 0; k < WIDTH; ++k) fold.step(s[k], r, (run + k) * lanes::SIZE, lanes::SIZE);
    UNROLL for (int k = 0; k < WIDTH; ++k) fold.finish((run + k) * lanes::SIZE, lanes::SIZE, s[k]);
  }
  for (; run < runs; ++run) {
    S s = fold.start.state;
    for (int r = 0; r < rows; ++r) fold.step(s, r, run * lanes::SIZE, count(run));
    fold.finish(run * lanes::SIZE, count(run), s);
  }
#endif
}

// Folds every row of a sheet. On CUDA a warp shares a row.
template <class S, class Step, class Collapse, class Merge, class Finish>
DEVICE void fold_rows([[maybe_unused]] const Block& b, int rows, int cols, const fold::Rows<S, Step, Collapse, Merge, Finish>& fold) {
  const int runs = (cols + lanes::SIZE - 1) / lanes::SIZE;
  auto count = [&](int run) { return cols - run * lanes::SIZE < lanes::SIZE ? cols - run * lanes::SIZE : lanes::SIZE; };
#if TARGET_CUDA
  for (int r = b.thread / 32; r < rows; r += b.threads / 32) {
    S s = fold.start.state;
    for (int run = b.thread % 32; run < runs; run += 32) fold.step(s, r, run * lanes::SIZE, count(run));
    auto t = fold.collapse(s);
    for (int m = 16; m; m >>= 1) {
      auto u = t;
      uint32_t* words = reinterpret_cast<uint32_t*>(&u);
      UNROLL for (int w = 0; w < int(sizeof(u) / 4); ++w) words[w] = __shfl_xor_sync(~0u, words[w], m);
      fold.merge(t, u);
    }
    if (b.thread % 32 == 0) fold.finish(r, t);
  }
  barrier();
#else
  constexpr int HEIGHT = 4;  // rows at a time: as many independent chains of additions
  const int full = runs && count(runs - 1) < lanes::SIZE ? runs - 1 : runs;
  int r = 0;
  for (; r + HEIGHT <= rows; r += HEIGHT) {
    S s[HEIGHT];
    UNROLL for (int k = 0; k < HEIGHT; ++k) s[k] = fold.start.state;
    for (int run = 0; run < full; ++run)
      UNROLL for (int k = 0; k < HEIGHT; ++k) fold.step(s[k], r + k, run * lanes::SIZE, lanes::SIZE);
    if (full < runs)
      UNROLL for (int k = 0; k < HEIGHT; ++k) fold.step(s[k], r + k, full * lanes::SIZE, count(full));
    UNROLL for (int k = 0; k < HEIGHT; ++k) fold.finish(r + k, fold.collapse(s[k]));
  }
  for (; r < rows; ++r) {
    S s = fold.start.state;
    for (int run = 0; run < runs; ++run) fold.step(s, r, run * lanes::SIZE, count(run));
    fold.finish(r, fold.collapse(s));
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
