// Group norm with a scale and bias per image and channel and an activation behind, layer norm, and their input gradients.
//
//   xhat = (x - mean) * r,  r = 1/sqrt(var + eps)      over the pixels and the c / groups channels of a group, var biased
//   y    = act(u),          u = xhat * scale[n, c] + bias[n, c]
//   g    = dy * act'(u) * scale[n, c]
//   dx   = r * (g - mean(g) - xhat * mean(g * xhat))
//
// A network that is conditioned on a timestep has its factors in scale and bias (models/unet.rs): w * (1 + s) and b * (1 + s) + shift.
// Statistics are taken in two passes, first the mean, then the squares of what is left, in float32 sums over 64 pixels at a
// time. Kept for the gradient: x by reference, mean and r per group. On the way back dy * act'(u) waits in dx for its second
// pass. One writer per output, no atomics.
//
//
// Layer norm is the same over the c channels of one pixel, with a scale and bias per channel; a row of pixels is a fold each.
//
// Where a block can hold its groups in cache it does all phases (`whole`); on CUDA statistics and values are kernels of their own.
// Sources: Wu & He 2018; Ba et al. 2016.
#include "activation.cuh"
#include "block.cuh"

namespace group_norm {

constexpr int MAX_CHANNELS = 1024;                            // of one block
constexpr int FOLD_BYTES = 256 * 4 * 8 * int(sizeof(float));  // two sums of a run per thread

// The groups that a block takes, as columns [c0, c0 + cols) of image n.
struct Part {
  int n, g0, groups, size, c0, cols;
};

template <class Args> DEVICE Part part(const Block& block, const Args& a) {
  const int g0 = int(block.index.x) * a.groups_per_block, left = a.groups - g0, size = a.c / a.groups;
  const int groups = left < a.groups_per_block ? left : a.groups_per_block;
  return {int(block.index.y), g0, groups, size, g0 * size, groups * size};
}

// Pixels [first, first + count) of this block.
struct Strip {
  int first, count;
};

template <class Args> DEVICE Strip strip(const Block& block, const Args& a) {
  const int first = int(block.index.z) * a.pixels_per_block, left = a.pixels - first;
  return {first, left < a.pixels_per_block ? left : a.pixels_per_block};
}

// Per channel of the part, in shared memory.
struct Channels {
  float *sum, *other, *mean, *r;
  DEVICE explicit Channels(const Block& block) {
    sum = reinterpret_cast<float*>(block.shared + REDUCE_BYTES + FOLD_BYTES);
    other = sum + MAX_CHANNELS, mean = other + MAX_CHANNELS, r = mean + MAX_CHANNELS;
  }
};

DEVICE void* fold_scratch(const Block& block) { return block.shared + REDUCE_BYTES; }

DEVICE float group_sum(const float* channels, int size) {
  float s = 0;
  for (int j = 0; j < size; ++j) s += channels[j];
  return s;
}

template <class T> DEVICE void statistics(const Block& block, const GroupNormArgs& a, const Part& p) {
  const Channels ch(block);
  const T* x = static_cast<const T*>(a.x) + int64_t(p.n) * a.pixels * a.c + p.c0;
  const float values = float(a.pixels) * float(p.size);
  float* stats = a.stats + (int64_t(p.n) * a.groups + p.g0) * 2;
  auto merge = [](lanes::Sum& s, const lanes::Sum& later) { s.merge(later); };
  auto finish = [&](int c, int count, const lanes::Sum& s) { lanes::store(ch.sum + c, s.total(), count); };
  block::fold_columns(
      block, fold_scratch(block), a.pixels, p.cols, lanes::Sum{},
      [&](lanes::Sum& s, int i, int c, int count) { s.add(lanes::load(x + int64_t(i) * a.c + c, count), i); }, merge, finish);
  block::for_each(block, 1, p.groups, [&](int, int g) {
    const float mean = group_sum(ch.sum + g * p.size, p.size) / values;
    stats[2 * g] = mean;
    for (int j = 0; j < p.size; ++j) ch.mean[g * p.size + j] = mean;
  });
  block::fold_columns(
      block, fold_scratch(block), a.pixels, p.cols, lanes::Sum{},
      [&](lanes::Sum& s, int i, int c, int count) {
        const Lanes d = lanes::load(x + int64_t(i) * a.c + c, count) - lanes::load(ch.mean + c, count);
        s.add(d * d, i);
      },
      merge, finish);
  block::for_each(block, 1, p.groups, [&](int, int g) {
    stats[2 * g + 1] = 1.f / sqrtf(group_sum(ch.sum + g * p.size, p.size) / values + a.eps);
  });
}

// Spreads the statistics of the part's groups over its channels.
DEVICE void spread(const Block& block, const float* stats, const Part& p, const Channels& ch) {
  block::for_each(block, 1, p.groups, [&](int, int g) {
    for (int j = 0; j < p.size; ++j) {
      ch.mean[g * p.size + j] = stats[2 * g];
      ch.r[g * p.size + j] = stats[2 * g + 1];
    }
  });
}

template <class T> DEVICE void apply(const Block& block, const GroupNormArgs& a, const Part& p) {
  const Channels ch(block);
  const Strip rows = strip(block, a);
  spread(block, a.stats + (int64_t(p.n) * a.groups + p.g0) * 2, p, ch);
  const int64_t first = (int64_t(p.n) * a.pixels + rows.first) * a.c + p.c0;
  const T* x = static_cast<const T*>(a.x) + first;
  T* y = static_cast<T*>(a.y) + first;
  const float *scale = a.scale + int64_t(p.n) * a.per_image + p.c0, *bias = a.bias + int64_t(p.n) * a.per_image + p.c0;
  block::for_each_run(block, rows.count, p.cols, [&](int i, int c, int count) {
    const Lanes d = lanes::load(x + int64_t(i) * a.c + c, count) - lanes::load(ch.mean + c, count);
    const Lanes u = lanes::fma(d * lanes::load(ch.r + c, count), lanes::load(scale + c, count), lanes::load(bias + c, count));
    lanes::store(y + int64_t(i) * a.c + c, activation::apply(a.act, u), count);
  });
}

template <class T> DEVICE void forward(const Block& block, const GroupNormArgs& a) {
  const Part p = part(block, a);
  if (a.whole) statistics<T>(block, a, p);
  apply<T>(block, a, p);
}

// Sums over the gradient; leaves dy * act'(u) in dx.
struct Sums {
  lanes::Sum g, gx;
};

template <class T> DEVICE void gradient_sums(const Block& block, const GroupNormGradArgs& a, const Part& p) {
  const Channels ch(block);
  spread(block, a.stats + (int64_t(p.n) * a.groups + p.g0) * 2, p, ch);
  const int64_t first = int64_t(p.n) * a.pixels * a.c + p.c0;
  const T *x = static_cast<const T*>(a.x) + first, *dy = static_cast<const T*>(a.dy) + first;
  T* dx = static_cast<T*>(a.dx) + first;
  const float *scale = a.scale + int64_t(p.n) * a.per_image + p.c0, *bias = a.bias + int64_t(p.n) * a.per_image + p.c0;
  block::fold_columns(
      block, fold_scratch(block), a.pixels, p.cols, Sums{},
      [&](Sums& s, int i, int c, int count) {
        const int64_t at = int64_t(i) * a.c + c;
        const Lanes w = lanes::load(scale + c, count);
        const Lanes xhat = (lanes::load(x + at, count) - lanes::load(ch.mean + c, count)) * lanes::load(ch.r + c, count);
        Lanes g = lanes::load(dy + at, count);
        if (a.act) {
          g = g * activation::slope(a.act, lanes::fma(xhat, w, lanes::load(bias + c, count)));
          lanes::store(dx + at, g, count);
        }
        g = g * w;
        s.g.add(g, i);
        s.gx.add(g * xhat, i);
      },
      [](Sums& s, const Sums& later) { s.g.merge(later.g), s.gx.merge(later.gx); },
      [&](int c, int count, const Sums& s) {
        lanes::store(ch.sum + c, s.g.total(), count);
        lanes::store(ch.other + c, s.gx.total(), count);
      });
  const float values = float(a.pixels) * float(p.size);
  float* sums = a.sums + (int64_t(p.n) * a.groups + p.g0) * 2;
  block::for_each(block, 1, p.groups, [&](int, int g) {
    sums[2 * g] = group_sum(ch.sum + g * p.size, p.size) / values;
    sums[2 * g + 1] = group_sum(ch.other + g * p.size, p.size) / values;
  });
}

template <class T> DEVICE void gradient_values(const Block& block, const GroupNormGradArgs& a, const Part& p) {
  const Channels ch(block);
  const Strip rows = strip(block, a);
  const int64_t group0 = (int64_t(p.n) * a.groups + p.g0) * 2;
  spread(block, a.stats + group0, p, ch);
  block::for_each(block, 1, p.groups, [&](int, int g) {
    for (int j = 0; j < p.size; ++j) {
      ch.sum[g * p.size + j] = a.sums[group0 + 2 * g];
      ch.other[g * p.size + j] = a.sums[group0 + 2 * g + 1];
    }
  });
  const int64_t pixel0 = int64_t(p.n) * a.pixels + rows.first, first = pixel0 * a.c + p.c0;
  const T* x = static_cast<const T*>(a.x) + first;
  const T* upstream = static_cast<const T*>(a.act ? a.dx : a.dy) + first;
  T* dx = static_cast<T*>(a.dx) + first;
  const float* scale = a.scale + int64_t(p.n) * a.per_image + p.c0;
  block::for_each_run(block, rows.count, p.cols, [&](int i, int c, int count) {
    const int64_t at = int64_t(i) * a.c + c;
    const Lanes r = lanes::load(ch.r + c, count);
    const Lanes xhat = (lanes::load(x + at, count) - lanes::load(ch.mean + c, count)) * r;
    const Lanes g = lanes::load(upstream + at, count) * lanes::load(scale + c, count);
    Lanes v = r * (g - lanes::load(ch.sum + c, count) - xhat * lanes::load(ch.other + c, count));
    if (a.residual) v = v + lanes::load(static_cast<const T*>(a.residual) + first + at, count);
    if (a.keep) {
      // A run may start between the bytes of a mask row: bits are taken one by one.
      const uint8_t* bits = a.keep + (pixel0 + i) * lanes::mask_stride(a.c);
      uint32_t kept = 0;
      for (int l = 0; l < count; ++l) kept |= uint32_t(bits[(p.c0 + c + l) / 8] >> (p.c0 + c + l) % 8 & 1) << l;
      v = lanes::select(kept, v, lanes::fill(0.f));
    }
    lanes::store(dx + at, v, count);
  });
}

template <class T> DEVICE void backward(const Block& block, const GroupNormGradArgs& a) {
  const Part p = part(block, a);
  if (a.whole) gradient_sums<T>(block, a, p);
  gradient_values<T>(block, a, p);
}

}  // namespace group_norm

// Shared: two sums per thread for folds, and four values per channel.
// grid (ceil(groups / groups_per_block), N)
KERNEL(group_norm_stats_f32, GroupNormArgs, 256, 49408) { group_norm::statistics<float>(block, a, group_norm::part(block, a)); }
KERNEL(group_norm_stats_bf16, GroupNormArgs, 256, 49408) { group_norm::statistics<bf16>(block, a, group_norm::part(block, a)); }
KERNEL(group_norm_grad_sums_f32, GroupNormGradArgs, 256, 49408) {
  group_norm::gradient_sums<float>(block, a, group_norm::part(block, a));
}
KERNEL(group_norm_grad_sums_bf16, GroupNormGradArgs, 256, 49408) {
  group_norm::gradient_sums<bf16>(block, a, group_norm::part(block, a));
}

// grid (ceil(groups / groups_per_block), N, ceil(pixels / pixels_per_block))
KERNEL(group_norm_f32, GroupNormArgs, 256, 49408) { group_norm::forward<float>(block, a); }
KERNEL(group_norm_bf16, GroupNormArgs, 256, 49408) { group_norm::forward<bf16>(block, a); }
KERNEL(group_norm_grad_f32, GroupNormGradArgs, 256, 49408) { group_norm::backward<float>(block, a); }
KERNEL(group_norm_grad_bf16, GroupNormGradArgs, 256, 49408) { group_norm::backward<bf16>(block, a); }
static_assert(REDUCE_BYTES + group_norm::FOLD_BYTES + 4 * group_norm::MAX_CHANNELS * 4 == 49408, "the number in the KERNEL lines");

namespace layer_norm {

struct Rows {
  int64_t first;
  int count;
};

template <class Args> DEVICE Rows rows_of(const Block& block, const Args& a) {
  const int64_t first = int64_t(block.index.x) * a.rows_per_block, left = a.rows - first;
  return {first, int(left < a.rows_per_block ? left : a.rows_per_block)};
}

constexpr int MAX_ROWS = 1024;  // of one block: two numbers each in shared memory

DEVICE float* row_values(const Block& block) { return reinterpret_cast<float*>(block.shared + REDUCE_BYTES); }

template <class T> DEVICE void forward(const Block& block, const LayerNormArgs& a) {
  const Rows rows = rows_of(block, a);
  float *mean = row_values(block), *r = mean + MAX_ROWS;
  const T* x = static_cast<const T*>(a.x) + rows.first * a.c;
  T* y = static_cast<T*>(a.y) + rows.first * a.c;
  auto add = [](float& s, float other) { s += other; };
  auto sum = [](const Lanes& s) { return lanes::sum(s); };
  block::fold_rows(
      block, rows.count, a.c, lanes::fill(0.f),
      [&](Lanes& s, int i, int c, int count) { s = s + lanes::load(x + int64_t(i) * a.c + c, count); }, sum, add,
      [&](int i, float total) { mean[i] = total / float(a.c); });
  block::fold_rows(
      block, rows.count, a.c, lanes::fill(0.f),
      [&](Lanes& s, int i, int c, int count) {
        const Lanes d = lanes::head(lanes::load(x + int64_t(i) * a.c + c, count) - lanes::fill(mean[i]), count);
        s = lanes::fma(d, d, s);
      },
      sum, add,
      [&](int i, float total) {
        r[i] = 1.f / sqrtf(total / float(a.c) + a.eps);
        a.stats[2 * (rows.first + i)] = mean[i];
        a.stats[2 * (rows.first + i) + 1] = r[i];
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
  const Rows rows = rows_of(block, a);
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
      block, rows.count, a.c, Pair{lanes::fill(0.f), lanes::fill(0.f)},
      [&](Pair& s, int i, int c, int count) {
        const Lanes g = upstream(i, c, count);
        s.g = s.g + g;
        s.gx = lanes::fma(g, xhat(i, c, count), s.gx);
      },
      [](const Pair& s) { return PairSum{lanes::sum(s.g), lanes::sum(s.gx)}; },
      [](PairSum& s, const PairSum& other) { s.g += other.g, s.gx += other.gx; },
      [&](int i, const PairSum& s) { g_mean[i] = s.g / float(a.c), gx_mean[i] = s.gx / float(a.c); });
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
