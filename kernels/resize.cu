// Separable resampling along one axis, nearest upsampling, and their input gradients.
//
//   y[o, i, c] = sum_{j < count[i]} weight[i, j] * x[o, first[i] + j, c]         o: outer, i: along the axis, c: inner
//
// One kernel serves both axes and both directions: the horizontal pass of an image has (N*H, W, C) as (outer, axis, inner), the
// vertical one (N, H, W*C), and the gradient is the same sum over transposed tables. src/ops/resize.rs makes the tables.
//
//   y[n, h, v, c]  = x[n, h / scale, v / scale, c]
//   dx[n, h, v, c] = sum of dy over the scale x scale pixels made from it
//
// Sums in float32, in ascending order. One writer per output, no atomics.
#include "block.cuh"

template <class T> DEVICE void resample(const Block& block, const ResampleArgs& a) {
  const int chunks = (a.n_out + a.per_block - 1) / a.per_block;
  const int64_t outer = block.index.x / chunks;
  const auto own = block::share(block.index.x % chunks, a.per_block, a.n_out);
  const T* x = static_cast<const T*>(a.x) + outer * a.n_in * a.inner;             // (n_in, inner)
  T* y = static_cast<T*>(a.y) + (outer * a.n_out + own.first) * a.inner;              // (count, inner)
  block::for_each_run(block, own.count, a.inner, [&](int r, int c, int count) {
    const int i = own.first + r, taps = a.count[i];
    const float* weight = a.weights + int64_t(i) * a.taps;
    const T* from = x + int64_t(a.first[i]) * a.inner + c;
    Lanes sum = lanes::fill(0.f);
    for (int j = 0; j < taps; ++j) sum = lanes::fma(lanes::fill(weight[j]), lanes::load(from + int64_t(j) * a.inner, count), sum);
    lanes::store(y + int64_t(r) * a.inner + c, sum, count);
  });
}

// grid (outer * ceil(n_out / per_block))
KERNEL(resample_f32, ResampleArgs, 256, 1024) { resample<float>(block, a); }
KERNEL(resample_bf16, ResampleArgs, 256, 1024) { resample<bf16>(block, a); }

template <class T> DEVICE void upsample(const Block& block, const UpsampleArgs& a) {
  const int out_w = a.w * a.scale, out_h = a.h * a.scale;
  const int64_t n = block.index.x / out_h;
  const int row = int(block.index.x % out_h) / a.scale;
  const T* x = static_cast<const T*>(a.x) + (n * a.h + row) * a.w * a.c;          // (w, c)
  T* y = static_cast<T*>(a.y) + int64_t(block.index.x) * out_w * a.c;             // (out_w, c)
  block::for_each_run(block, out_w, a.c, [&](int v, int c, int count) {
    lanes::store(y + int64_t(v) * a.c + c, lanes::load(x + int64_t(v / a.scale) * a.c + c, count), count);
  });
}

// Here x is dy and y is dx.
template <class T> DEVICE void upsample_grad(const Block& block, const UpsampleArgs& a) {
  const int out_w = a.w * a.scale;
  const T* dy = static_cast<const T*>(a.x) + int64_t(block.index.x) * a.scale * out_w * a.c;  // (scale, out_w, c)
  T* dx = static_cast<T*>(a.y) + int64_t(block.index.x) * a.w * a.c;                          // (w, c)
  block::for_each_run(block, a.w, a.c, [&](int v, int c, int count) {
    Lanes sum = lanes::fill(0.f);
    for (int i = 0; i < a.scale; ++i)
      for (int j = 0; j < a.scale; ++j)
        sum = sum + lanes::load(dy + (int64_t(i) * out_w + int64_t(v) * a.scale + j) * a.c + c, count);
    lanes::store(dx + int64_t(v) * a.c + c, sum, count);
  });
}

// grid (N * h * scale)
KERNEL(upsample_f32, UpsampleArgs, 256, 1024) { upsample<float>(block, a); }
KERNEL(upsample_bf16, UpsampleArgs, 256, 1024) { upsample<bf16>(block, a); }

// grid (N * h)
KERNEL(upsample_grad_f32, UpsampleArgs, 256, 1024) { upsample_grad<float>(block, a); }
KERNEL(upsample_grad_bf16, UpsampleArgs, 256, 1024) { upsample_grad<bf16>(block, a); }
