// A gate per image and channel, as squeeze-and-excitation applies it, and its two gradients.
//
//   y[n, p, c] = x[n, p, c] * g[n, c]
//   dx = (dy * g + residual) * keep          the same kernel
//   dg[n, c] = sum over pixels of dy * x     in float32 sums over 64 pixels at a time
//
// Kept for the gradients: x and g by reference. One writer per output, no atomics. Source: Hu et al. 2018.
#include "block.cuh"

namespace gate {

template <class T> DEVICE void apply(const Block& block, const GateArgs& a) {
  const int n = block.index.y, first = int(block.index.x) * a.per_block, left = a.pixels - first;
  const T* g = static_cast<const T*>(a.gate) + int64_t(n) * a.c;
  block::for_each_run(block, left < a.per_block ? left : a.per_block, a.c, [&](int r, int c, int count) {
    const int64_t pixel = int64_t(n) * a.pixels + first + r, at = pixel * a.c + c;
    Lanes v = lanes::load(static_cast<const T*>(a.x) + at, count) * lanes::load(g + c, count);
    if (a.residual) v = v + lanes::load(static_cast<const T*>(a.residual) + at, count);
    if (a.keep) v = lanes::select(lanes::load_bits(a.keep + pixel * lanes::mask_stride(a.c), c), v, lanes::fill(0.f));
    lanes::store(static_cast<T*>(a.y) + at, v, count);
  });
}

template <class T> DEVICE void gradient(const Block& block, const GateGradArgs& a) {
  const int c0 = block.index.x * a.per_block, n = block.index.y, c1 = c0 + a.per_block < a.c ? c0 + a.per_block : a.c;
  const int64_t first = int64_t(n) * a.pixels * a.c + c0;
  const T *x = static_cast<const T*>(a.x) + first, *dy = static_cast<const T*>(a.dy) + first;
  T* dg = static_cast<T*>(a.dgate) + int64_t(n) * a.c + c0;
  block::fold_columns(
      block, block.shared + REDUCE_BYTES, a.pixels, c1 - c0, lanes::Sum{},
      [&](lanes::Sum& s, int r, int c, int count) {
        const int64_t at = int64_t(r) * a.c + c;
        s.add(lanes::load(x + at, count) * lanes::load(dy + at, count), r);
      },
      [](lanes::Sum& s, const lanes::Sum& later) { s.merge(later); },
      [&](int c, int count, const lanes::Sum& s) { lanes::store(dg + c, s.total(), count); });
}

}  // namespace gate

// grid (ceil(pixels / per_block), N)
KERNEL(gate_f32, GateArgs, 256, 1024) { gate::apply<float>(block, a); }
KERNEL(gate_bf16, GateArgs, 256, 1024) { gate::apply<bf16>(block, a); }

// grid (ceil(c / per_block), N); shared: a sum of two runs of 8 values per thread
KERNEL(gate_grad_f32, GateGradArgs, 256, 16640) { gate::gradient<float>(block, a); }
KERNEL(gate_grad_bf16, GateGradArgs, 256, 16640) { gate::gradient<bf16>(block, a); }
