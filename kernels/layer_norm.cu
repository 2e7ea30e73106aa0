// Layer norm over the c channels of a row, with a scale and bias per channel, and its input gradient.
//
//   xhat = (x - mean) * r,  r = 1/sqrt(var + eps)      over the channels of a row, var biased
//   y    = xhat * scale[c] + bias[c]
//   g    = dy * scale[c]
//   dx   = (r * (g - mean(g) - xhat * mean(g * xhat)) + residual) * keep
//
//   x, y, dy, dx (rows, c) float32 or bf16, for an image a row per pixel    scale, bias (c) and stats (rows, 2) float32
//
// Statistics are taken in two passes, first the mean, then the squares of what is left; a fold per row, in float32.
// Kept for the gradient: x by reference, mean and r per row. One writer per output, no atomics. Source: Ba et al. 2016.
#include "block.cuh"

namespace layer_norm {

constexpr int MAX_ROWS = 1024;  // of one block: two numbers each in shared memory

DEVICE float* row_values(const Block& block) { return reinterpret_cast<float*>(block.shared + REDUCE_BYTES); }

template <class T> DEVICE void forward(const Block& block, const LayerNormArgs& a) {
  const auto rows = block::share(block.index.x, a.rows_per_block, a.rows);
  float *mean = row_values(block), *r = mean + MAX_ROWS;
  const T* x = static_cast<const T*>(a.x) + rows.first * a.c;
  T* y = static_cast<T*>(a.y) + rows.first * a.c;
  const fold::Start zero{lanes::fill(0.f)};
  const fold::Collapse sum{[](const Lanes& s) { return lanes::sum(s); }};
  const fold::Merge add{[](float& s, float other) { s += other; }};
  block::fold_rows(
      block, rows.count, a.c,
      fold::Rows{
          zero,
          fold::Step{[&](Lanes& s, int i, int c, int count) { s = s + lanes::load(x + int64_t(i) * a.c + c, count); }},
          sum,
          add,
          fold::Finish{[&](int i, float total) { mean[i] = total / float(a.c); }},
      });
  block::fold_rows(
      block, rows.count, a.c,
      fold::Rows{
          zero,
          fold::Step{[&](Lanes& s, int i, int c, int count) {
            const Lanes d = lanes::head(lanes::load(x + int64_t(i) * a.c + c, count) - lanes::fill(mean[i]), count);
            s = lanes::fma(d, d, s);
          }},
          sum,
          add,
          fold::Finish{[&](int i, float total) {
            r[i] = 1.f / sqrtf(total / float(a.c) + a.eps);
            a.stats[2 * (rows.first + i)] = mean[i];
            a.stats[2 * (rows.first + i) + 1] = r[i];
          }},
      });
  block::for_each_run(block, rows.count, a.c, [&](int i, int c, int count) {
    const Lanes xhat = (lanes::load(x + int64_t(i) * a.c + c, count) - lanes::fill(mean[i])) * lanes::fill(r[i]);
    lanes::store(y + int64_t(i) * a.c + c, lanes::fma(xhat, lanes::load(a.scale + c, count), lanes::load(a.bias + c, count)), count);
  });
}

// Sums of g and of g * xhat over a row.
struct Pair {
  Lanes g, gx;
};
struct PairSum {
  float g, gx;
};

template <class T> DEVICE void backward(const Block& block, const LayerNormGradArgs& a) {
  const auto rows = block::share(block.index.x, a.rows_per_block, a.rows);
  float *g_mean = row_values(block), *gx_mean = g_mean + MAX_ROWS;
  const T *x = static_cast<const T*>(a.x) + rows.first * a.c, *dy = static_cast<const T*>(a.dy) + rows.first * a.c;
  T* dx = static_cast<T*>(a.dx) + rows.first * a.c;
  const float* stats = a.stats + 2 * rows.first;
  auto xhat = [&](int i, int c, int count) {
    return (lanes::load(x + int64_t(i) * a.c + c, count) - lanes::fill(stats[2 * i])) * lanes::fill(stats[2 * i + 1]);
  };
  auto upstream = [&](int i, int c, int count) {
    return lanes::load(dy + int64_t(i) * a.c + c, count) * lanes::load(a.scale + c, count);
  };
  block::fold_rows(
      block, rows.count, a.c,
      fold::Rows{
          fold::Start{Pair{lanes::fill(0.f), lanes::fill(0.f)}},
          fold::Step{[&](Pair& s, int i, int c, int count) {
            const Lanes g = upstream(i, c, count);
            s.g = s.g + g;
            s.gx = lanes::fma(g, xhat(i, c, count), s.gx);
          }},
          fold::Collapse{[](const Pair& s) { return PairSum{lanes::sum(s.g), lanes::sum(s.gx)}; }},
          fold::Merge{[](PairSum& s, const PairSum& other) { s.g += other.g, s.gx += other.gx; }},
          fold::Finish{[&](int i, const PairSum& s) { g_mean[i] = s.g / float(a.c), gx_mean[i] = s.gx / float(a.c); }},
      });
  block::for_each_run(block, rows.count, a.c, [&](int i, int c, int count) {
    const Lanes g = upstream(i, c, count) - lanes::fill(g_mean[i]) - xhat(i, c, count) * lanes::fill(gx_mean[i]);
    Lanes v = lanes::fill(stats[2 * i + 1]) * g;
    const int64_t row = rows.first + i;
    if (a.residual) v = v + lanes::load(static_cast<const T*>(a.residual) + row * a.c + c, count);
    if (a.keep) v = lanes::select(lanes::load_bits(a.keep + row * lanes::mask_stride(a.c), c), v, lanes::fill(0.f));
    lanes::store(dx + int64_t(i) * a.c + c, v, count);
  });
}

}  // namespace layer_norm

// Shared: two numbers per row. grid (ceil(rows / rows_per_block))
KERNEL(layer_norm_f32, LayerNormArgs, 256, 8448) { layer_norm::forward<float>(block, a); }
KERNEL(layer_norm_bf16, LayerNormArgs, 256, 8448) { layer_norm::forward<bf16>(block, a); }
KERNEL(layer_norm_grad_f32, LayerNormGradArgs, 256, 8448) { layer_norm::backward<float>(block, a); }
KERNEL(layer_norm_grad_bf16, LayerNormGradArgs, 256, 8448) { layer_norm::backward<bf16>(block, a); }
static_assert(REDUCE_BYTES + 2 * layer_norm::MAX_ROWS * 4 <= 8448, "the number in the KERNEL lines");
