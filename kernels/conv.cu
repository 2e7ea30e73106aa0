// 2-D convolution and its input gradient, NHWC: any stride, padding, dilation and groups.
//
//   y[n, p*step_h+off_h, q*step_w+off_w, o] = act( sum_{r,s,c} x[n, h, v, c] * w[o,r,s,c] + bias[o] + residual[...] ) * keep[...]
//   where h = p*stride_h - pad_h + r*dil_h,  v = q*stride_w - pad_w + s*dil_w, and x is 0 outside the image
//
// Forward: step 1, offset 0. The input gradient of a convolution is a convolution of dy with flipped weights, one for each
// residue of the input position modulo the stride; each writes every stride-th point of dx (ops/conv.rs works out which taps).
// `residual` then carries the gradient that other consumers of x left, and `keep` the mask of the activation that made x.
//
// One tile product (tile.cuh) over the matrix (N*P*Q) x (r*s*c); the epilogue never leaves registers. Accumulates in float32,
// taps outside, channels inside. Deterministic: one writer per output, no atomics.
#include "epilogue.cuh"
#include "tile.cuh"

template <class T, class Shape> DEVICE void conv(const Block& block, const ConvArgs& a) {
  const int group = block.index.z;
  const int64_t x_pixel = int64_t(a.groups) * a.c, y_pixel = int64_t(a.groups) * a.o;
  const int first = group * a.o;  // first output channel of this group
  const int bit_row = lanes::mask_stride(a.groups * a.o);

  auto row = [&](int m) {
    const uint32_t image = divide(m, a.pq), point = m - image * a.pq.value;
    const uint32_t p = divide(point, a.q), q = point - p * a.q.value;
    const int h = int(p) * a.stride_h - a.pad_h, v = int(q) * a.stride_w - a.pad_w;
    tile::Row out = {((int64_t(image) * a.x_h + h) * a.x_w + v) * x_pixel + int64_t(group) * a.c, 0, 0};
    for (int r = 0; r < a.r; ++r) out.rows |= uint32_t(uint32_t(h + r * a.dil_h) < uint32_t(a.x_h)) << r;
    for (int s = 0; s < a.s; ++s) out.cols |= uint32_t(uint32_t(v + s * a.dil_w) < uint32_t(a.x_w)) << s;
    return out;
  };

  auto out = [&](int m) {
    const uint32_t image = divide(m, a.pq), point = m - image * a.pq.value;
    const uint32_t p = divide(point, a.q), q = point - p * a.q.value;
    const int64_t pixel = (int64_t(image) * a.y_h + p * a.step_h + a.off_h) * a.y_w + q * a.step_w + a.off_w;
    return [&a, first, at = pixel * y_pixel + first, bits = pixel * bit_row](int n, Lanes value, int count) {
      epilogue::store<T>(a, first + n, at + n, bits, value, count);
    };
  };

  const tile::Operands<T> operands = {
      static_cast<const T*>(a.x),
      static_cast<const typename tile::Packed<T>::type*>(a.w) + group * a.w_group,
      a.m, a.o, a.c,
      {a.r, a.s, a.dil_h * a.x_w * x_pixel, a.dil_w * x_pixel},
      a.m_tile, a.n_tile};
  tile::product<T, Shape>(block, operands, row, out);
}

// grid (tiles of M x O, 1, groups)
KERNEL(conv_f32, ConvArgs, 256, 49152) { conv<float, tile::Shape<128, 128, 4>>(block, a); }
KERNEL(conv_f32_small, ConvArgs, 128, 24576) { conv<float, tile::Shape<64, 64>>(block, a); }
KERNEL(conv_tf32, ConvArgs, 128, 49152) { conv<float, tile::Shape<128, 128, 2, 1>>(block, a); }
KERNEL(conv_tf32_small, ConvArgs, 128, 24576) { conv<float, tile::Shape<64, 64, 2, 1>>(block, a); }
KERNEL(conv_bf16, ConvArgs, 128, 49152) { conv<bf16, tile::Shape<128, 128>>(block, a); }
KERNEL(conv_bf16_small, ConvArgs, 128, 24576) { conv<bf16, tile::Shape<64, 64>>(block, a); }

static_assert(tile::fits<tile::Shape<128, 128, 4>>(256, 49152) && tile::fits<tile::Shape<128, 128>>(128, 49152) &&
                  tile::fits<tile::Shape<64, 64>>(128, 24576),
              "threads and shared bytes of the KERNEL lines serve their shapes");

// Weights from (groups, o, taps, c) float32 into the order the tile product reads; padding is written as 0.
template <class T> DEVICE void pack_weights(const Block& block, const PackArgs& a) {
  using P = typename tile::Packed<T>::type;
  const int o = block.index.x, g = block.index.y;
  block::for_each(block, a.taps, a.c_pad, [&](int tap, int c) {
    const float v = o < a.o && c < a.c ? a.src[((int64_t(g) * a.o + o) * a.taps + tap) * a.c + c] : 0.f;
    static_cast<P*>(a.dst)[tile::pack_index<T>(a, g, o, tap, c)] = from_float<P>(to_float(from_float<T>(v)));
  });
}

// grid (o rounded up to n_tile, groups)
KERNEL(pack_weights_f32, PackArgs, 256, 1024) { pack_weights<float>(block, a); }
KERNEL(pack_weights_bf16, PackArgs, 256, 1024) { pack_weights<bf16>(block, a); }

// Packed weights to packed weights; padding is written as 0.
template <class T> DEVICE void turn_weights(const Block& block, const TurnArgs& a) {
  using P = typename tile::Packed<T>::type;
  const P* src = static_cast<const P*>(a.from.dst);
  P* dst = static_cast<P*>(a.to.dst);
  const int o = block.index.x, g = block.index.y;
  block::for_each(block, a.to.taps, a.to.c_pad, [&](int tap, int c) {
    const int from = (a.row0 + tap / a.cols * a.row_step) * a.s + a.col0 + tap % a.cols * a.col_step;
    const bool inside = o < a.to.o && c < a.to.c;
    dst[tile::pack_index<T>(a.to, g, o, tap, c)] = inside ? src[tile::pack_index<T>(a.from, g, c, from, o)] : from_float<P>(0.f);
  });
}

// grid (o rounded up to n_tile, groups), of the result
KERNEL(turn_weights_f32, TurnArgs, 256, 1024) { turn_weights<float>(block, a); }
KERNEL(turn_weights_bf16, TurnArgs, 256, 1024) { turn_weights<bf16>(block, a); }
