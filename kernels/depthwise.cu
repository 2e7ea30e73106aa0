// Depthwise convolution (one input channel per output channel) and its input gradient, NHWC: any stride, padding, dilation.
//
//   y[n,p,q,c]  = act( sum_{r,s} x[n, p*stride_h - pad_h + r*dil_h, q*stride_w - pad_w + s*dil_w, c] * w[r,s,c] + bias + residual ) * keep
//   dx[n,h,v,c] =    ( sum_{r,s} dy[n, (h + pad_h - r*dil_h) / stride_h, ..., c] * w[r,s,c]              + residual ) * keep
//                    over the taps whose quotients are whole
//
// Each output is a sum over taps of neighbouring channels: no matrix product, memory-bound. On CUDA a thread has one output, and caches
// serve its neighbours. On the host RUN neighbouring outputs of a line are made together: where taps lie side by side, each value of x is
// loaded once for all that take it, as here for 3 taps and stride 1:
//
//   x        0   1   2   3   4   5          t
//   output   0   0   0                      tap t
//                1   1   1                  tap t - 1
//                    2   2   2              tap t - 2
//                        3   3   3          tap t - 3
//
// The gradient of stride 1 is the same from the right: columns fall where taps rise, and outputs come last to first.
// Weights stay float32. Accumulates in float32, taps ascending. Deterministic: one writer per output.
#include "block.cuh"
#include "epilogue.cuh"

namespace depthwise {

#if TARGET_CUDA
constexpr int RUN = 1;  // more take so many registers that few warps fit
#else
constexpr int RUN = 4;
#endif

// The input line that tap number r reads for output line p, or -1.
DEVICE int source_line(int gradient, int p, int r, int stride, int pad, int dil, int lines) {
  int at = gradient ? p + pad - r * dil : p * stride - pad + r * dil;
  if (gradient) {
    if (at < 0 || at % stride) return -1;
    at /= stride;
  }
  return at >= 0 && at < lines ? at : -1;
}

// Adds a line of taps to the outputs from q0 on, or, of the gradient, to those up to q0 + RUN - 1 from the last one back. S taps side by
// side, outputs STRIDE columns of x apart; S = 0 for any other taps.
template <int S, int STRIDE, class T>
DEVICE void add_line(const DepthwiseArgs& a, Lanes (&sum)[RUN], const T* x, const float* w, int q0, int count) {
  if constexpr (S > 0) {
    Lanes taps[S];
    UNROLL for (int s = 0; s < S; ++s) taps[s] = lanes::load(w + s * a.c, count);
    const int first = a.gradient ? q0 + RUN - 1 + a.pad_w : q0 * STRIDE - a.pad_w, step = a.gradient ? -1 : 1;
    UNROLL for (int t = 0; t < (RUN - 1) * STRIDE + S; ++t) {
      const int v = first + t * step;
      if (v < 0 || v >= a.x_w) continue;
      const Lanes from = lanes::load(x + int64_t(v) * a.c, count);
      UNROLL for (int j = 0; j < RUN; ++j)
        if (const int s = t - j * STRIDE; s >= 0 && s < S) sum[j] = lanes::fma(from, taps[s], sum[j]);
    }
  } else {
    for (int s = 0; s < a.s; ++s)
      UNROLL for (int j = 0; j < RUN; ++j) {
        const int v = source_line(a.gradient, a.gradient ? q0 + RUN - 1 - j : q0 + j, s, a.stride_w, a.pad_w, a.dil_w, a.x_w);
        if (v >= 0) sum[j] = lanes::fma(lanes::load(x + int64_t(v) * a.c, count), lanes::load(w + s * a.c, count), sum[j]);
      }
  }
}

template <class T, int S, int STRIDE> DEVICE void outputs(const Block& block, const DepthwiseArgs& a) {
  const auto own = block::share(block.index.x, a.runs_per_block, a.runs);
  const int bit_row = lanes::mask_stride(a.c);
  block::for_each_run(block, own.count, a.c, [&](int i, int c, int count) {
    const uint32_t run = own.first + i, line = divide(run, a.runs_per_line), image = divide(line, a.lines), p = line - image * a.lines.value;
    const int q0 = int(run - line * a.runs_per_line.value) * RUN;
    const T* x = static_cast<const T*>(a.x) + int64_t(image) * a.x_h * a.x_w * a.c + c;
    Lanes sum[RUN];
    UNROLL for (int j = 0; j < RUN; ++j) sum[j] = lanes::fill(0.f);
    for (int r = 0; r < a.r; ++r) {
      const int h = source_line(a.gradient, p, r, a.stride_h, a.pad_h, a.dil_h, a.x_h);
      if (h >= 0) add_line<S, STRIDE>(a, sum, x + int64_t(h) * a.x_w * a.c, a.w + r * a.s * a.c + c, q0, count);
    }
    UNROLL for (int j = 0; j < RUN; ++j) {
      const int q = q0 + (a.gradient ? RUN - 1 - j : j);
      const uint32_t point = line * a.y_w + q;
      if (q < a.y_w) epilogue::store<T>(a, c, int64_t(point) * a.c + c, int64_t(point) * bit_row, sum[j], count);
    }
  });
}

template <class T> DEVICE void depthwise(const Block& block, const DepthwiseArgs& a) {
#if TARGET_HOST
  const int stride = a.dil_w == 1 && (a.stride_w == 1 || !a.gradient) ? a.stride_w : 0;
  if (a.s == 3 && stride == 1) return outputs<T, 3, 1>(block, a);
  if (a.s == 3 && stride == 2) return outputs<T, 3, 2>(block, a);
  if (a.s == 5 && stride == 1) return outputs<T, 5, 1>(block, a);
  if (a.s == 7 && stride == 1) return outputs<T, 7, 1>(block, a);
#endif
  return outputs<T, 0, 0>(block, a);
}

}  // namespace depthwise

// grid (ceil(runs / runs_per_block))
KERNEL(depthwise_f32, DepthwiseArgs, 256, 1024) { depthwise::depthwise<float>(block, a); }
KERNEL(depthwise_bf16, DepthwiseArgs, 256, 1024) { depthwise::depthwise<bf16>(block, a); }
