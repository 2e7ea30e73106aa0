// Leaky ReLU with one slope for all negative values, and its input gradient. float32 or bf16, arithmetic in float32.
//
//   y  = x > 0 ? x : slope * x
//   dx = ((x > 0 ? dy : slope * dy) + residual) * keep
//
//   x, y, dy, dx (rows, c), for an image a row per pixel
//
// Kept for the gradient: a bit per value, set where x > 0. A NaN is not, and stays one. No sums: one writer per value, no atomics.
#include "block.cuh"

namespace leaky_relu {

template <class T> DEVICE void forward(const Block& block, const LeakyReluArgs& a) {
  const auto rows = block::share(block.index.x, a.rows_per_block, a.rows);
  block::for_each_run(block, rows.count, a.c, [&](int r, int c, int count) {
    const int64_t row = rows.first + r, at = row * a.c + c;
    const Lanes x = lanes::load(static_cast<const T*>(a.x) + at, count);
    const uint32_t positive = lanes::greater(x, lanes::fill(0.f));
    if (a.positive) lanes::store_bits(a.positive + row * lanes::mask_stride(a.c), c, positive);
    lanes::store(static_cast<T*>(a.y) + at, lanes::select(positive, x, x * lanes::fill(a.slope)), count);
  });
}

template <class T> DEVICE void gradient(const Block& block, const LeakyReluGradArgs& a) {
  const auto rows = block::share(block.index.x, a.rows_per_block, a.rows);
  block::for_each_run(block, rows.count, a.c, [&](int r, int c, int count) {
    const int64_t row = rows.first + r, at = row * a.c + c, bits = row * lanes::mask_stride(a.c);
    const Lanes dy = lanes::load(static_cast<const T*>(a.dy) + at, count);
    Lanes dx = lanes::select(lanes::load_bits(a.positive + bits, c), dy, dy * lanes::fill(a.slope));
    if (a.residual) dx = dx + lanes::load(static_cast<const T*>(a.residual) + at, count);
    if (a.keep) dx = lanes::select(lanes::load_bits(a.keep + bits, c), dx, lanes::fill(0.f));
    lanes::store(static_cast<T*>(a.dx) + at, dx, count);
  });
}

}  // namespace leaky_relu

// grid (ceil(rows / rows_per_block))
KERNEL(leaky_relu_f32, LeakyReluArgs, 256, 1024) { leaky_relu::forward<float>(block, a); }
KERNEL(leaky_relu_bf16, LeakyReluArgs, 256, 1024) { leaky_relu::forward<bf16>(block, a); }
KERNEL(leaky_relu_grad_f32, LeakyReluGradArgs, 256, 1024) { leaky_relu::gradient<float>(block, a); }
KERNEL(leaky_relu_grad_bf16, LeakyReluGradArgs, 256, 1024) { leaky_relu::gradient<bf16>(block, a); }
