// Depthwise convolution (one input channel per output channel) and its input gradient, NHWC: any stride, padding, dilation.
//
//   y[n,p,q,c]  = act( sum_{r,s} x[n, p*stride_h - pad_h + r*dil_h, q*stride_w - pad_w + s*dil_w, c] * w[r,s,c] + bias + residual ) * keep
//   dx[n,h,v,c] =    ( sum_{r,s} dy[n, (h + pad_h - r*dil_h) / stride_h, ..., c] * w[r,s,c]              + residual ) * keep
//                    over the taps whose quotients are whole
//
// Each output is a sum over taps of neighbouring channels: no matrix product, memory-bound. Weights stay float32.
// Accumulates in float32, taps ascending. Deterministic: one writer per output.
#include "block.cuh"
#include "epilogue.cuh"

// The input line that tap number r reads for output line p, or -1.
DEVICE int source_line(int gradient, int p, int r, int stride, int pad, int dil, int lines) {
  int at = gradient ? p + pad - r * dil : p * stride - pad + r * dil;
  if (gradient) {
    if (at < 0 || at % stride) return -1;
    at /= stride;
  }
  return at >= 0 && at < lines ? at : -1;
}

template <class T> DEVICE void depthwise(const Block& block, const DepthwiseArgs& a) {
  const auto own = block::share(block.index.x, a.points_per_block, a.points);
  const int bit_row = lanes::mask_stride(a.c);
  block::for_each_run(block, own.count, a.c, [&](int i, int c, int count) {
    const uint32_t point = own.first + i, image = divide(point, a.pq), rest = point - image * a.pq.value;
    const uint32_t p = divide(rest, a.q), q = rest - p * a.q.value;
    const T* x = static_cast<const T*>(a.x) + int64_t(image) * a.x_h * a.x_w * a.c;
    Lanes sum = lanes::fill(0.f);
    for (int r = 0; r < a.r; ++r) {
      const int h = source_line(a.gradient, p, r, a.stride_h, a.pad_h, a.dil_h, a.x_h);
      if (h < 0) continue;
      for (int s = 0; s < a.s; ++s) {
        const int v = source_line(a.gradient, q, s, a.stride_w, a.pad_w, a.dil_w, a.x_w);
        if (v < 0) continue;
        const Lanes from = lanes::load(x + (int64_t(h) * a.x_w + v) * a.c + c, count);
        sum = lanes::fma(from, lanes::load(a.w + (r * a.s + s) * a.c + c, count), sum);
      }
    }
    epilogue::store<T>(a, c, int64_t(point) * a.c + c, int64_t(point) * bit_row, sum, count);
  });
}

// grid (ceil(points / points_per_block))
KERNEL(depthwise_f32, DepthwiseArgs, 256, 1024) { depthwise<float>(block, a); }
KERNEL(depthwise_bf16, DepthwiseArgs, 256, 1024) { depthwise<bf16>(block, a); }
