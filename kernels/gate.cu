// A gate per image and channel, as squeeze-and-excitation applies it, and its two gradients.
//
//   y[n, p, c] = act(x[n, p, c]) * g[n, c]
//   dx = (dy * g * act'(x) + residual) * keep     the same kernel
//   dg[n, c] = sum over pixels of dy * act(x)     in float32 sums over 64 pixels at a time
//
//   x, y, dy, dx (N, pixels, c), g, dg (N, c), float32 or bf16; arithmetic in float32
//
// The activation is computed again wherever it is needed: it costs less than a pass over memory. Kept for the gradients: x and g
// by reference. One writer per output, no atomics. Source: Hu et al. 2018.
#include "activation.cuh"
#include "block.cuh"

namespace gate {

template <class T> DEVICE void apply(const Block& block, const GateArgs& a) {
  const int n = block.index.y;
  const auto own = block::share(block.index.x, a.per_block, a.pixels);
  const T* g = static_cast<const T*>(a.gate) + int64_t(n) * a.c;
  block::for_each_run(block, own.count, a.c, [&](int r, int c, int count) {
    const int64_t pixel = int64_t(n) * a.pixels + own.first + r, at = pixel * a.c + c;
    const Lanes x = lanes::load(static_cast<const T*>(a.x) + at, count), scale = lanes::load(g + c, count);
    if (!a.dy) {
      lanes::store(static_cast<T*>(a.y) + at, activation::apply(a.act, x) * scale, count);
      return;
    }
    Lanes v = lanes::load(static_cast<const T*>(a.dy) + at, count) * scale * activation::slope(a.act, x);
    if (a.residual) v = v + lanes::load(static_cast<const T*>(a.residual) + at, count);
    if (a.keep) v = lanes::select(lanes::load_bits(a.keep + pixel * lanes::mask_stride(a.c), c), v, lanes::fill(0.f));
    lanes::store(static_cast<T*>(a.y) + at, v, count);
  });
}

template <class T> DEVICE void gradient(const Block& block, const GateGradArgs& a) {
  const int n = block.index.y;
  const auto own = block::share(block.index.x, a.per_block, a.c);
  const int64_t first = int64_t(n) * a.pixels * a.c + own.first;
  const T *x = static_cast<const T*>(a.x) + first, *dy = static_cast<const T*>(a.dy) + first;
  T* dg = static_cast<T*>(a.dgate) + int64_t(n) * a.c + own.first;
  block::fold_columns(
      block, block.shared + REDUCE_BYTES, a.pixels, own.count,
      fold::Columns{
          fold::Start{lanes::Sum{}},
          fold::Step{[&](lanes::Sum& s, int r, int c, int count) {
            const int64_t at = int64_t(r) * a.c + c;
            s.add(activation::apply(a.act, lanes::load(x + at, count)) * lanes::load(dy + at, count), r);
          }},
          fold::Merge{[](lanes::Sum& s, const lanes::Sum& later) { s.merge(later); }},
          fold::Finish{[&](int c, int count, const lanes::Sum& s) { lanes::store(dg + c, s.total(), count); }},
      });
}

}  // namespace gate

// grid (ceil(pixels / per_block), N)
KERNEL(gate_f32, GateArgs, 256, 1024) { gate::apply<float>(block, a); }
KERNEL(gate_bf16, GateArgs, 256, 1024) { gate::apply<bf16>(block, a); }

// grid (ceil(c / per_block), N); shared: a sum of two runs of 8 values per thread
KERNEL(gate_grad_f32, GateGradArgs, 256, 16640) { gate::gradient<float>(block, a); }
KERNEL(gate_grad_bf16, GateGradArgs, 256, 16640) { gate::gradient<bf16>(block, a); }
