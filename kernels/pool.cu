// Max, average and global average pooling and their input gradients, NHWC.
//
//   max      y[n,p,q,c] = max x[n,h,v,c] over the window h = p*stride_h - pad_h + r, v = q*stride_w - pad_w + s inside the image
//            The first of equal values in scan order wins; a NaN wins over every number. Kept for the gradient: its tap, a byte.
//   average  y[n,p,q,c] = sum over the same window / divisor: the taps inside the image, or with count_padding those inside
//            the padded image
//   global   y[n,c] = mean of act(x[n,:,:,c])
//
// The gradients gather: dx[n,h,v,c] sums over the windows that cover (h, v), in ascending order. One writer per output, no
// atomics. Sums in float32.
#include "activation.cuh"
#include "block.cuh"

namespace pool {

// One axis: the taps of window i that lie inside, [lo, hi) as positions of x, and how many positions its divisor counts.
struct Span {
  int lo, hi, counted;
};

DEVICE Span span(int i, int length, int window, int stride, int pad) {
  const int from = i * stride - pad, to = from + window, end = length + pad;
  return {from > 0 ? from : 0, to < length ? to : length, (to < end ? to : end) - from};
}

// The windows that cover position h: [first, last].
DEVICE int first_window(int h, int window, int stride, int pad) {
  const int past = h + pad - window + 1;
  return past <= 0 ? 0 : (past + stride - 1) / stride;
}
DEVICE int last_window(int h, int windows, int stride, int pad) {
  const int last = (h + pad) / stride;
  return last < windows ? last : windows - 1;
}

DEVICE float divisor(const PoolArgs& a, Span rows, Span cols) {
  return a.count_padding ? float(rows.counted * cols.counted) : float((rows.hi - rows.lo) * (cols.hi - cols.lo));
}

template <class T> DEVICE void max(const Block& block, const PoolArgs& a) {
  const int n = block.index.x / a.p, p = block.index.x % a.p;
  const Span rows = span(p, a.h, a.r, a.stride_h, a.pad_h);
  const T* x = static_cast<const T*>(a.x) + int64_t(n) * a.h * a.w * a.c;  // (h, w, c)
  const int64_t out = int64_t(block.index.x) * a.q * a.c;
  block::for_each_run(block, a.q, a.c, [&](int q, int c, int count) {
    const Span cols = span(q, a.w, a.s, a.stride_w, a.pad_w);
    const int top = p * a.stride_h - a.pad_h, left = q * a.stride_w - a.pad_w;
    Lanes best = lanes::fill(-INFINITY), tap = lanes::fill(float((rows.lo - top) * a.s + cols.lo - left));
    for (int h = rows.lo; h < rows.hi; ++h) {
      for (int v = cols.lo; v < cols.hi; ++v) {
        const Lanes value = lanes::load(x + (int64_t(h) * a.w + v) * a.c + c, count);
        const uint32_t better = lanes::greater(value, best) | (lanes::nan(value) & ~lanes::nan(best));
        best = lanes::select(better, value, best);
        tap = lanes::select(better, lanes::fill(float((h - top) * a.s + v - left)), tap);
      }
    }
    const int64_t at = out + int64_t(q) * a.c + c;
    lanes::store(static_cast<T*>(a.y) + at, best, count);
    if (a.taps) lanes::store_bytes(a.taps + at, tap, count);
  });
}

template <class T> DEVICE void average(const Block& block, const PoolArgs& a) {
  const int n = block.index.x / a.p, p = block.index.x % a.p;
  const Span rows = span(p, a.h, a.r, a.stride_h, a.pad_h);
  const T* x = static_cast<const T*>(a.x) + int64_t(n) * a.h * a.w * a.c;                            // (h, w, c)
  T* y = static_cast<T*>(a.y) + int64_t(block.index.x) * a.q * a.c;                                  // (q, c)
  block::for_each_run(block, a.q, a.c, [&](int q, int c, int count) {
    const Span cols = span(q, a.w, a.s, a.stride_w, a.pad_w);
    Lanes sum = lanes::fill(0.f);
    for (int h = rows.lo; h < rows.hi; ++h)
      for (int v = cols.lo; v < cols.hi; ++v) sum = sum + lanes::load(x + (int64_t(h) * a.w + v) * a.c + c, count);
    lanes::store(y + int64_t(q) * a.c + c, sum / lanes::fill(divisor(a, rows, cols)), count);
  });
}

// Here x is dy (N, p, q, c) and y is dx (N, h, w, c); f(at, window row, window column, tap) gives a run of dy's contribution.
template <class T, class F> DEVICE void gather(const Block& block, const PoolArgs& a, F f) {
  const int n = block.index.x / a.h, h = block.index.x % a.h, bit_row = lanes::mask_stride(a.c);
  const int p0 = first_window(h, a.r, a.stride_h, a.pad_h), p1 = last_window(h, a.p, a.stride_h, a.pad_h);
  const int64_t from = int64_t(n) * a.p * a.q * a.c;
  block::for_each_run(block, a.w, a.c, [&](int v, int c, int count) {
    const int q0 = first_window(v, a.s, a.stride_w, a.pad_w), q1 = last_window(v, a.q, a.stride_w, a.pad_w);
    Lanes sum = lanes::fill(0.f);
    for (int p = p0; p <= p1; ++p) {
      for (int q = q0; q <= q1; ++q) {
        const int tap = (h + a.pad_h - p * a.stride_h) * a.s + v + a.pad_w - q * a.stride_w;
        sum = sum + f(from + (int64_t(p) * a.q + q) * a.c + c, p, q, tap, count);
      }
    }
    const int64_t pixel = int64_t(block.index.x) * a.w + v, at = pixel * a.c + c;
    if (a.residual) sum = sum + lanes::load(static_cast<const T*>(a.residual) + at, count);
    if (a.keep) sum = lanes::select(lanes::load_bits(a.keep + pixel * bit_row, c), sum, lanes::fill(0.f));
    lanes::store(static_cast<T*>(a.y) + at, sum, count);
  });
}

template <class T> DEVICE void max_grad(const Block& block, const PoolArgs& a) {
  gather<T>(block, a, [&](int64_t at, int, int, int tap, int count) {
    const uint32_t won = lanes::equal_bytes(a.taps + at, uint8_t(tap), count);
    return lanes::select(won, lanes::load(static_cast<const T*>(a.x) + at, count), lanes::fill(0.f));
  });
}

template <class T> DEVICE void average_grad(const Block& block, const PoolArgs& a) {
  gather<T>(block, a, [&](int64_t at, int p, int q, int, int count) {
    const Span rows = span(p, a.h, a.r, a.stride_h, a.pad_h), cols = span(q, a.w, a.s, a.stride_w, a.pad_w);
    return lanes::load(static_cast<const T*>(a.x) + at, count) / lanes::fill(divisor(a, rows, cols));
  });
}

template <class T> DEVICE void global(const Block& block, const GlobalPoolArgs& a) {
  const int n = block.index.y;
  const auto own = block::share(block.index.x, a.per_block, a.c);
  const T* x = static_cast<const T*>(a.x) + int64_t(n) * a.pixels * a.c + own.first;  // (pixels, c)
  T* y = static_cast<T*>(a.y) + int64_t(n) * a.c + own.first;
  block::fold_columns(
      block, block.shared + REDUCE_BYTES, a.pixels, own.count,
      fold::Columns{
          fold::Start{lanes::Sum{}},
          fold::Step{[&](lanes::Sum& sum, int r, int c, int count) {
            sum.add(activation::apply(a.act, lanes::load(x + int64_t(r) * a.c + c, count)), r);
          }},
          fold::Merge{[](lanes::Sum& sum, const lanes::Sum& later) { sum.merge(later); }},
          fold::Finish{[&](int c, int count, const lanes::Sum& sum) {
            lanes::store(y + c, sum.total() / lanes::fill(float(a.pixels)), count);
          }},
      });
}

template <class T> DEVICE void global_grad(const Block& block, const GlobalPoolGradArgs& a) {
  const int n = block.index.y, bit_row = lanes::mask_stride(a.c);
  const auto own = block::share(block.index.x, a.per_block, a.pixels);
  const T* dy = static_cast<const T*>(a.dy) + int64_t(n) * a.c;
  block::for_each_run(block, own.count, a.c, [&](int r, int c, int count) {
    const int64_t pixel = int64_t(n) * a.pixels + own.first + r, at = pixel * a.c + c;
    Lanes v = lanes::load(dy + c, count) / lanes::fill(float(a.pixels));
    if (a.act) v = v * activation::slope(a.act, lanes::load(static_cast<const T*>(a.x) + at, count));
    if (a.residual) v = v + lanes::load(static_cast<const T*>(a.residual) + at, count);
    if (a.keep) v = lanes::select(lanes::load_bits(a.keep + pixel * bit_row, c), v, lanes::fill(0.f));
    lanes::store(static_cast<T*>(a.dx) + at, v, count);
  });
}

}  // namespace pool

// grid (N * p)
KERNEL(max_pool_f32, PoolArgs, 256, 1024) { pool::max<float>(block, a); }
KERNEL(max_pool_bf16, PoolArgs, 256, 1024) { pool::max<bf16>(block, a); }
KERNEL(avg_pool_f32, PoolArgs, 256, 1024) { pool::average<float>(block, a); }
KERNEL(avg_pool_bf16, PoolArgs, 256, 1024) { pool::average<bf16>(block, a); }

// grid (N * h)
KERNEL(max_pool_grad_f32, PoolArgs, 256, 1024) { pool::max_grad<float>(block, a); }
KERNEL(max_pool_grad_bf16, PoolArgs, 256, 1024) { pool::max_grad<bf16>(block, a); }
KERNEL(avg_pool_grad_f32, PoolArgs, 256, 1024) { pool::average_grad<float>(block, a); }
KERNEL(avg_pool_grad_bf16, PoolArgs, 256, 1024) { pool::average_grad<bf16>(block, a); }

// grid (ceil(c / per_block), N); shared: a sum of two runs of 8 values per thread
KERNEL(global_pool_f32, GlobalPoolArgs, 256, 16640) { pool::global<float>(block, a); }
KERNEL(global_pool_bf16, GlobalPoolArgs, 256, 16640) { pool::global<bf16>(block, a); }

// grid (ceil(pixels / per_block), N)
KERNEL(global_pool_grad_f32, GlobalPoolGradArgs, 256, 1024) { pool::global_grad<float>(block, a); }
KERNEL(global_pool_grad_bf16, GlobalPoolGradArgs, 256, 1024) { pool::global_grad<bf16>(block, a); }
