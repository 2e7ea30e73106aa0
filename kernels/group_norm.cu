// Group norm with a scale and bias per image and channel and an activation behind, and its input gradient. NHWC.
//
//   xhat = (x - mean) * r,  r = 1/sqrt(var + eps)      over the pixels and the c / groups channels of a group, var biased
//   y    = act(u),          u = xhat * scale[n, c] + bias[n, c]
//   g    = dy * act'(u) * scale[n, c]
//   dx   = (r * (g - mean(g) - xhat * mean(g * xhat)) + residual) * keep
//
//   x, y, dy, dx (N, pixels, c) float32 or bf16    scale, bias (N or 1, c) and stats (N, groups, 2) float32
//
// A network that is conditioned on a timestep has its factors in scale and bias (src/models/unet): w * (1 + s) and b * (1 + s) + shift.
// Statistics are taken in two passes, first the mean, then the squares of what is left, in float32 sums over 64 pixels at a
// time. Kept for the gradient: x by reference, mean and r per group. On the way back dy * act'(u) waits in dx for its second
// pass. One writer per output, no atomics.
//
// Where a block can hold its groups in cache it does all phases (`whole`); on CUDA statistics and values are kernels of their own.
// Source: Wu & He 2018.
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
  const auto own = block::share(block.index.x, a.groups_per_block, a.groups);
  const int size = a.c / a.groups;
  return {int(block.index.y), own.first, own.count, size, own.first * size, own.count * size};
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
  const fold::Merge merge{[](lanes::Sum& s, const lanes::Sum& later) { s.merge(later); }};
  const fold::Finish finish{[&](int c, int count, const lanes::Sum& s) { lanes::store(ch.sum + c, s.total(), count); }};
  const fold::Step values_step{[&](lanes::Sum& s, int i, int c, int count) { s.add(lanes::load(x + int64_t(i) * a.c + c, count), i); }};
  block::fold_columns(block, fold_scratch(block), a.pixels, p.cols, fold::Columns{fold::Start{lanes::Sum{}}, values_step, merge, finish});
  block::for_each(block, 1, p.groups, [&](int, int g) {
    const float mean = group_sum(ch.sum + g * p.size, p.size) / values;
    stats[2 * g] = mean;
    for (int j = 0; j < p.size; ++j) ch.mean[g * p.size + j] = mean;
  });
  const fold::Step squares_step{[&](lanes::Sum& s, int i, int c, int count) {
    const Lanes d = lanes::load(x + int64_t(i) * a.c + c, count) - lanes::load(ch.mean + c, count);
    s.add(d * d, i);
  }};
  block::fold_columns(block, fold_scratch(block), a.pixels, p.cols, fold::Columns{fold::Start{lanes::Sum{}}, squares_step, merge, finish});
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
  const auto strip = block::share(block.index.z, a.pixels_per_block, a.pixels);
  spread(block, a.stats + (int64_t(p.n) * a.groups + p.g0) * 2, p, ch);
  const int64_t first = (int64_t(p.n) * a.pixels + strip.first) * a.c + p.c0;
  const T* x = static_cast<const T*>(a.x) + first;
  T* y = static_cast<T*>(a.y) + first;
  const float *scale = a.scale + int64_t(p.n) * a.per_image + p.c0, *bias = a.bias + int64_t(p.n) * a.per_image + p.c0;
  block::for_each_run(block, strip.count, p.cols, [&](int i, int c, int count) {
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
      block, fold_scratch(block), a.pixels, p.cols,
      fold::Columns{
          fold::Start{Sums{}},
          fold::Step{[&](Sums& s, int i, int c, int count) {
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
          }},
          fold::Merge{[](Sums& s, const Sums& later) { s.g.merge(later.g), s.gx.merge(later.gx); }},
          fold::Finish{[&](int c, int count, const Sums& s) {
            lanes::store(ch.sum + c, s.g.total(), count);
            lanes::store(ch.other + c, s.gx.total(), count);
          }},
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
  const auto strip = block::share(block.index.z, a.pixels_per_block, a.pixels);
  const int64_t group0 = (int64_t(p.n) * a.groups + p.g0) * 2;
  spread(block, a.stats + group0, p, ch);
  block::for_each(block, 1, p.groups, [&](int, int g) {
    for (int j = 0; j < p.size; ++j) {
      ch.sum[g * p.size + j] = a.sums[group0 + 2 * g];
      ch.other[g * p.size + j] = a.sums[group0 + 2 * g + 1];
    }
  });
  const int64_t pixel0 = int64_t(p.n) * a.pixels + strip.first, first = pixel0 * a.c + p.c0;
  const T* x = static_cast<const T*>(a.x) + first;
  const T* upstream = static_cast<const T*>(a.act ? a.dx : a.dy) + first;
  T* dx = static_cast<T*>(a.dx) + first;
  const float* scale = a.scale + int64_t(p.n) * a.per_image + p.c0;
  block::for_each_run(block, strip.count, p.cols, [&](int i, int c, int count) {
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
