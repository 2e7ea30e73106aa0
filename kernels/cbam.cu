// CBAM: the channel gate, then the spatial gate, a residual and a ReLU, and their input gradient. NHWC.
//
//   m(v)   = W3 relu(W1 v + b1) + b3                                  shared by both poolings
//   g      = sigmoid(m(mean_p x) + m(max_p x))                        (C), pixels p: the channel gate
//   map    = max_c x*g, mean_c x*g                                    (2, H, W)
//   s      = sigmoid(scale * conv_kxk(map) + bias)                    (H, W), zero padding, batch norm folded: the spatial gate
//   y      = act(x * g * s + residual)
//
//   dconv  = scale * s (1 - s) * sum_c dy*x*g                         at the convolution's output
//   dmap   = the transposed convolution of dconv                      (2, H, W)
//   du     = dy*s + dmap_mean / C + [c is the first channel of the maximum] dmap_max          of x * g
//   dgate  = g (1 - g) * sum_p du*x                                   then back through the shared MLP to both poolings
//   dx     = (du*g + dpool_mean / P + [p is the first pixel of the maximum] dpool_max + residual) * keep
//
//   x, y, dy, dx, residual (N, H, W, C) float32 or bf16, all else float32
//
// Either gate may be absent. Two passes over the activation forward, x for the poolings and x again for the rest. The gradient
// cannot do with fewer than three dependent sums over it: dconv, then dgate, then dx; it reads x twice and dy three times.
//
// One block takes a whole image through all phases when it may (`whole`): on the host where its maps fit, so that the image stays
// in cache and memory is passed once; on CUDA for images of few pixels. Otherwise the phases are launches of their own, over
// strips of rows or of channels; a strip of the forward recomputes the maps of its halo. The choice hangs on the image alone,
// so that results do not depend on the batch.
//
// Kept for the gradient: x by reference, g, the hidden layer, s and where the maxima lay: 2C + 2 hidden + 2HW numbers an image.
// Sums in float32, long ones in parts. Deterministic: one writer per output, no atomics. Source: Woo et al. 2018.
#include "activation.cuh"
#include "block.cuh"

namespace cbam {

using lanes::fill;

// The image that a block works on: `T` is the precision of activations, void where a phase reads none.
template <class T, class Args> struct Image {
  const Args& a;
  int n, pixels;
  int64_t pixel0;  // its first pixel, counted over the batch
  const float* gate;

  DEVICE Image(const Block& block, const Args& a_)
      : a(a_), n(block.index.y), pixels(a_.h * a_.w), pixel0(int64_t(n) * a_.h * a_.w), gate(per_channel(a_.gate)) {}

  // Rows of an (N, C), of an (N, 2, C) and of an (N, 2, hidden).
  template <class V> DEVICE V* per_channel(V* all) const { return all + int64_t(n) * a.c; }
  template <class V> DEVICE V* per_pooling(V* all) const { return all + int64_t(n) * 2 * a.c; }
  template <class V> DEVICE V* per_hidden(V* all) const { return all + int64_t(n) * 2 * a.hidden; }

  // This image of an activation, and where pixel p has channel c in it.
  DEVICE const T* of(const void* all) const { return static_cast<const T*>(all) + pixel0 * a.c; }
  DEVICE int64_t at(int p, int c) const { return int64_t(p) * a.c + c; }
};

using Range = block::Share<int>;
template <class Args> DEVICE Range rows_of(const Block& block, const Args& a) { return block::share(block.index.x, a.rows_per_block, a.h); }
template <class Args> DEVICE Range channels_of(const Block& block, const Args& a) {
  return block::share(block.index.x, a.cols_per_block, a.c);
}

DEVICE void* fold_scratch(const Block& block) { return block.shared + REDUCE_BYTES; }

// Mean and maximum over the pixels of some channels, and where the maximum lies.
template <class T> DEVICE void pool(const Block& block, const CbamArgs& a, Range channels) {
  const Image<T, CbamArgs> image(block, a);
  struct State {
    lanes::Sum sum;
    Lanes max, pixel;
  };
  const T* x = image.of(a.x);
  float* pooled = image.per_pooling(a.pooled);
  block::fold_columns(
      block, fold_scratch(block), image.pixels, channels.count,
      fold::Columns{
          fold::Start{State{{}, fill(-INFINITY), fill(0.f)}},
          fold::Step{[&](State& state, int p, int c, int count) {
            const Lanes v = lanes::load(x + image.at(p, channels.first + c), count);
            const uint32_t better = lanes::greater(v, state.max);
            state.sum.add(v, p);
            state.max = lanes::select(better, v, state.max);
            state.pixel = lanes::select(better, fill(float(p)), state.pixel);
          }},
          fold::Merge{[](State& state, const State& later) {
            const uint32_t better = lanes::greater(later.max, state.max);
            state.sum.merge(later.sum);
            state.max = lanes::select(better, later.max, state.max);
            state.pixel = lanes::select(better, later.pixel, state.pixel);
          }},
          fold::Finish{[&](int c, int count, const State& state) {
            const int channel = channels.first + c;
            lanes::store(pooled + channel, state.sum.total() / fill(float(image.pixels)), count);
            lanes::store(pooled + a.c + channel, state.max, count);
            lanes::store(image.per_channel(a.max_pixel) + channel, state.pixel, count);
          }},
      });
}

// What both poolings have of the shared MLP.
struct Poolings {
  Lanes mean, max;
};
struct PoolingSums {
  float mean, max;
};

// The shared MLP on both poolings, and g.
DEVICE void gate(const Block& block, const CbamArgs& a) {
  const Image<void, CbamArgs> image(block, a);
  float* g = image.per_channel(a.gate);
  if (!a.channel_gate) {
    block::for_each_run(block, 1, a.c, [&](int, int c, int count) { lanes::store(g + c, fill(1.f), count); });
    return;
  }
  const float *pool_mean = image.per_pooling(a.pooled), *pool_max = pool_mean + a.c;
  float* hidden = image.per_hidden(a.hidden_values);
  block::fold_rows(
      block, a.hidden, a.c,
      fold::Rows{
          fold::Start{Poolings{fill(0.f), fill(0.f)}},
          fold::Step{[&](Poolings& sum, int j, int c, int count) {
            const Lanes w = lanes::load(a.w1 + int64_t(j) * a.c + c, count);
            sum.mean = lanes::fma(w, lanes::load(pool_mean + c, count), sum.mean);
            sum.max = lanes::fma(w, lanes::load(pool_max + c, count), sum.max);
          }},
          fold::Collapse{[](const Poolings& sum) { return PoolingSums{lanes::sum(sum.mean), lanes::sum(sum.max)}; }},
          fold::Merge{[](PoolingSums& sum, const PoolingSums& other) { sum.mean += other.mean, sum.max += other.max; }},
          fold::Finish{[&](int j, const PoolingSums& sum) {
            const float mean = sum.mean + a.b1[j], max = sum.max + a.b1[j];
            hidden[j] = mean < 0 ? 0.f : mean;  // a NaN stays
            hidden[a.hidden + j] = max < 0 ? 0.f : max;
          }},
      });
  block::fold_columns(
      block, fold_scratch(block), a.hidden, a.c,
      fold::Columns{
          fold::Start{fill(0.f)},
          fold::Step{[&](Lanes& sum, int j, int c, int count) {
            sum = lanes::fma(lanes::load(a.w3 + int64_t(j) * a.c + c, count), fill(hidden[j] + hidden[a.hidden + j]), sum);
          }},
          fold::Merge{[](Lanes& sum, const Lanes& later) { sum = sum + later; }},
          fold::Finish{[&](int c, int count, Lanes sum) {
            lanes::store(g + c, activation::sigmoid(lanes::fma(fill(2.f), lanes::load(a.b3 + c, count), sum)), count);
          }},
      });
}

// A strip of a map in shared memory, with a border of `pad` on all sides.
struct Padded {
  float* values;
  int pitch, size;

  DEVICE Padded(float* to, int rows, int width, int pad) : values(to), pitch(width + 2 * pad), size((rows + 2 * pad) * pitch) {}
};

// s of some rows.
template <class T> DEVICE void spatial(const Block& block, const CbamArgs& a, Range rows) {
  const Image<T, CbamArgs> image(block, a);
  const int pad = a.side / 2;
  const Padded map_max(reinterpret_cast<float*>(block.shared + REDUCE_BYTES), rows.count, a.w, pad);
  const Padded map_mean(map_max.values + map_max.size, rows.count, a.w, pad);
  block::for_each(block, 2, map_max.size, [&](int i, int j) { map_max.values[i * map_max.size + j] = 0.f; });

  struct State {
    Lanes sum, max, channel;
  };
  struct Result {
    float sum, max;
    int32_t channel;
  };
  const T* x = image.of(a.x);
  const float* g = image.gate;
  const int end = rows.first + rows.count, from = rows.first > pad ? rows.first - pad : 0, to = at_most(a.h, end + pad);
  block::fold_rows(
      block, (to - from) * a.w, a.c,
      fold::Rows{
          fold::Start{State{fill(0.f), fill(-INFINITY), fill(0.f)}},
          fold::Step{[&](State& state, int p, int c, int count) {
            const Lanes v = lanes::load(x + image.at(from * a.w + p, c), count) * lanes::load(g + c, count);
            const Lanes candidate = count < lanes::SIZE ? lanes::select((1u << count) - 1, v, fill(-INFINITY)) : v;
            const uint32_t better = lanes::greater(candidate, state.max);
            state.sum = state.sum + v;
            state.max = lanes::select(better, candidate, state.max);
            state.channel = lanes::select(better, fill(float(c)), state.channel);
          }},
          fold::Collapse{[](const State& state) {
            // Of the lanes that hold the maximum, the one of the lowest channel.
            Result result = {lanes::sum(state.sum), lanes::largest(state.max), 0x7fffffff};
            UNROLL for (int i = 0; i < lanes::SIZE; ++i) {
              const int channel = int(state.channel.v[i]) + i;
              result.channel = state.max.v[i] == result.max && channel < result.channel ? channel : result.channel;
            }
            return result;
          }},
          fold::Merge{[](Result& result, const Result& other) {
            const bool better = other.max > result.max || (other.max == result.max && other.channel < result.channel);
            result.sum += other.sum;
            result.max = better ? other.max : result.max;
            result.channel = better ? other.channel : result.channel;
          }},
          fold::Finish{[&](int p, const Result& result) {
            const int row = from + p / a.w, col = p % a.w, inside = (row - rows.first + pad) * map_max.pitch + col + pad;
            map_max.values[inside] = result.max;
            map_mean.values[inside] = result.sum / float(a.c);
            if (row >= rows.first && row < end) a.max_channel[image.pixel0 + row * a.w + col] = result.channel;
          }},
      });

  float* s = a.spatial + image.pixel0 + rows.first * a.w;  // (rows, w)
  block::for_each_run(block, rows.count, a.w, [&](int r, int q, int count) {
    Lanes sum = fill(0.f);
    for (int i = 0; i < a.side; ++i) {
      for (int j = 0; j < a.side; ++j) {
        const int tap = (r + i) * map_max.pitch + q + j;
        sum = lanes::fma(fill(a.kernel[i * a.side + j]), lanes::load(map_max.values + tap, count), sum);
        sum = lanes::fma(fill(a.kernel[(a.side + i) * a.side + j]), lanes::load(map_mean.values + tap, count), sum);
      }
    }
    lanes::store(s + r * a.w + q, activation::sigmoid(lanes::fma(sum, fill(a.scale), fill(a.bias))), count);
  });
}

// y of some rows.
template <class T> DEVICE void apply(const Block& block, const CbamArgs& a, Range rows) {
  const Image<T, CbamArgs> image(block, a);
  const float* g = image.gate;
  const int bit_row = lanes::mask_stride(a.c), first = rows.first * a.w;
  block::for_each_run(block, rows.count * a.w, a.c, [&](int r, int c, int count) {
    const int64_t pixel = image.pixel0 + first + r, at = pixel * a.c + c;
    Lanes v = lanes::load(static_cast<const T*>(a.x) + at, count) * lanes::load(g + c, count);
    if (a.spatial_gate) v = v * fill(a.spatial[pixel]);
    if (a.residual) v = v + lanes::load(static_cast<const T*>(a.residual) + at, count);
    v = activation::apply(a.act, v);
    if (a.positive) lanes::store_bits(a.positive + pixel * bit_row, c, lanes::greater(v, fill(0.f)));
    lanes::store(static_cast<T*>(a.y) + at, v, count);
  });
}

template <class T> DEVICE void forward(const Block& block, const CbamArgs& a) {
  const Range rows = rows_of(block, a);
  if (a.whole) {
    if (a.channel_gate) pool<T>(block, a, {0, a.c});
    gate(block, a);
  }
  if (a.spatial_gate) spatial<T>(block, a, rows);
  apply<T>(block, a, rows);
}

// dconv of some rows.
template <class T> DEVICE void conv_grad(const Block& block, const CbamGradArgs& a, Range rows) {
  const Image<T, CbamGradArgs> image(block, a);
  const T *x = image.of(a.x), *dy = image.of(a.dy);
  block::fold_rows(
      block, rows.count * a.w, a.c,
      fold::Rows{
          fold::Start{fill(0.f)},
          fold::Step{[&](Lanes& sum, int r, int c, int count) {
            const int p = rows.first * a.w + r;
            const Lanes v = lanes::load(x + image.at(p, c), count) * lanes::load(image.per_channel(a.gate) + c, count);
            sum = lanes::fma(v, lanes::load(dy + image.at(p, c), count), sum);
          }},
          fold::Collapse{[](const Lanes& sum) { return lanes::sum(sum); }},
          fold::Merge{[](float& sum, float other) { sum += other; }},
          fold::Finish{[&](int r, float sum) {
            const int64_t pixel = image.pixel0 + rows.first * a.w + r;
            const float s = a.spatial[pixel];
            a.dconv[pixel] = sum * (s * (1.f - s)) * a.scale;
          }},
      });
}

// Both maps' gradients of some rows; the mean's is divided by C already.
DEVICE void map_grad(const Block& block, const CbamGradArgs& a, Range rows) {
  const Image<void, CbamGradArgs> image(block, a);
  const int pad = a.side / 2;
  const Padded dconv(reinterpret_cast<float*>(block.shared + REDUCE_BYTES), rows.count, a.w, pad);
  block::for_each(block, rows.count + 2 * pad, dconv.pitch, [&](int r, int q) {
    const int row = rows.first + r - pad, col = q - pad;
    const bool inside = row >= 0 && row < a.h && col >= 0 && col < a.w;
    dconv.values[r * dconv.pitch + q] = inside ? a.dconv[image.pixel0 + row * a.w + col] : 0.f;
  });
  const int64_t first = image.pixel0 + rows.first * a.w;
  block::for_each_run(block, rows.count, a.w, [&](int r, int q, int count) {
    Lanes max = fill(0.f), mean = fill(0.f);
    for (int i = 0; i < a.side; ++i) {
      for (int j = 0; j < a.side; ++j) {
        const Lanes v = lanes::load(dconv.values + (r + 2 * pad - i) * dconv.pitch + q + 2 * pad - j, count);
        max = lanes::fma(fill(a.kernel[i * a.side + j]), v, max);
        mean = lanes::fma(fill(a.kernel[(a.side + i) * a.side + j]), v, mean);
      }
    }
    lanes::store(a.dmap_max + first + r * a.w + q, max, count);
    lanes::store(a.dmap_mean + first + r * a.w + q, mean / fill(float(a.c)), count);
  });
}

// du for a run of channels of pixel p.
template <class T> DEVICE Lanes gated_grad(const Image<T, CbamGradArgs>& image, int p, int c, int count) {
  const CbamGradArgs& a = image.a;
  const int64_t pixel = image.pixel0 + p;
  const Lanes dy = lanes::load(static_cast<const T*>(a.dy) + pixel * a.c + c, count);
  if (!a.spatial_gate) return dy;
  const Lanes du = lanes::fma(dy, fill(a.spatial[pixel]), fill(a.dmap_mean[pixel]));
  return du + lanes::one_hot(a.max_channel[pixel] - c, a.dmap_max[pixel]);
}

// dgate of some channels: at the argument of the channel gate's sigmoid.
template <class T> DEVICE void gate_grad(const Block& block, const CbamGradArgs& a, Range channels) {
  const Image<T, CbamGradArgs> image(block, a);
  const T* x = static_cast<const T*>(a.x);
  block::fold_columns(
      block, fold_scratch(block), image.pixels, channels.count,
      fold::Columns{
          fold::Start{lanes::Sum{}},
          fold::Step{[&](lanes::Sum& sum, int p, int c, int count) {
            const int channel = channels.first + c;
            sum.add(lanes::load(x + (image.pixel0 + p) * a.c + channel, count) * gated_grad(image, p, channel, count), p);
          }},
          fold::Merge{[](lanes::Sum& sum, const lanes::Sum& later) { sum.merge(later); }},
          fold::Finish{[&](int c, int count, const lanes::Sum& sum) {
            const Lanes g = lanes::load(image.gate + channels.first + c, count);
            lanes::store(image.per_channel(a.dgate) + channels.first + c, sum.total() * (g * (fill(1.f) - g)), count);
          }},
      });
}

// Back through the shared MLP: the gradients of the two poolings, the mean's divided by the pixels already.
DEVICE void mlp_grad(const Block& block, const CbamGradArgs& a) {
  const Image<void, CbamGradArgs> image(block, a);
  const float *dgate = image.per_channel(a.dgate), *hidden = image.per_hidden(a.hidden_values);
  float *dhidden = image.per_hidden(a.dhidden), *dpooled = image.per_pooling(a.dpooled);
  block::fold_rows(
      block, a.hidden, a.c,
      fold::Rows{
          fold::Start{fill(0.f)},
          fold::Step{[&](Lanes& sum, int j, int c, int count) {
            sum = lanes::fma(lanes::load(a.w3 + int64_t(j) * a.c + c, count), lanes::load(dgate + c, count), sum);
          }},
          fold::Collapse{[](const Lanes& sum) { return lanes::sum(sum); }},
          fold::Merge{[](float& sum, float other) { sum += other; }},
          fold::Finish{[&](int j, float sum) {
            dhidden[j] = hidden[j] > 0 ? sum : 0.f;
            dhidden[a.hidden + j] = hidden[a.hidden + j] > 0 ? sum : 0.f;
          }},
      });
  block::fold_columns(
      block, fold_scratch(block), a.hidden, a.c,
      fold::Columns{
          fold::Start{Poolings{fill(0.f), fill(0.f)}},
          fold::Step{[&](Poolings& sum, int j, int c, int count) {
            const Lanes w = lanes::load(a.w1 + int64_t(j) * a.c + c, count);
            sum.mean = lanes::fma(w, fill(dhidden[j]), sum.mean);
            sum.max = lanes::fma(w, fill(dhidden[a.hidden + j]), sum.max);
          }},
          fold::Merge{[](Poolings& sum, const Poolings& later) { sum = {sum.mean + later.mean, sum.max + later.max}; }},
          fold::Finish{[&](int c, int count, const Poolings& sum) {
            lanes::store(dpooled + c, sum.mean / fill(float(image.pixels)), count);
            lanes::store(dpooled + a.c + c, sum.max, count);
          }},
      });
}

// dx of some rows.
template <class T> DEVICE void input_grad(const Block& block, const CbamGradArgs& a, Range rows) {
  const Image<T, CbamGradArgs> image(block, a);
  const int bit_row = lanes::mask_stride(a.c);
  const float *g = image.gate, *max_pixel = image.per_channel(a.max_pixel), *dpool_mean = image.per_pooling(a.dpooled), *dpool_max = dpool_mean + a.c;
  block::for_each_run(block, rows.count * a.w, a.c, [&](int r, int c, int count) {
    const int p = rows.first * a.w + r;
    const int64_t pixel = image.pixel0 + p, at = pixel * a.c + c;
    Lanes v = gated_grad(image, p, c, count);
    if (a.channel_gate) {
      v = lanes::fma(v, lanes::load(g + c, count), lanes::load(dpool_mean + c, count));
      const uint32_t here = lanes::equal(lanes::load(max_pixel + c, count), fill(float(p)));
      v = v + lanes::select(here, lanes::load(dpool_max + c, count), fill(0.f));
    }
    if (a.residual) v = v + lanes::load(static_cast<const T*>(a.residual) + at, count);
    if (a.keep) v = lanes::select(lanes::load_bits(a.keep + pixel * bit_row, c), v, fill(0.f));
    lanes::store(static_cast<T*>(a.dx) + at, v, count);
  });
}

template <class T> DEVICE void backward(const Block& block, const CbamGradArgs& a) {
  if (a.whole) {
    if (a.spatial_gate) {
      conv_grad<T>(block, a, {0, a.h});
      map_grad(block, a, {0, a.h});
    }
    if (a.channel_gate) {
      gate_grad<T>(block, a, {0, a.c});
      mlp_grad(block, a);
    }
  }
  input_grad<T>(block, a, rows_of(block, a));
}

}  // namespace cbam

// Shared: a state per thread for folds over columns, or the padded maps of a strip.
// grid (ceil(c / cols_per_block), N)
KERNEL(cbam_pool_f32, CbamArgs, 256, 49152) { cbam::pool<float>(block, a, cbam::channels_of(block, a)); }
KERNEL(cbam_pool_bf16, CbamArgs, 256, 49152) { cbam::pool<bf16>(block, a, cbam::channels_of(block, a)); }

// grid (1, N)
KERNEL(cbam_gate, CbamArgs, 256, 49152) { cbam::gate(block, a); }

// grid (ceil(h / rows_per_block), N)
KERNEL(cbam_f32, CbamArgs, 256, 49152) { cbam::forward<float>(block, a); }
KERNEL(cbam_bf16, CbamArgs, 256, 49152) { cbam::forward<bf16>(block, a); }

// grid (ceil(h / rows_per_block), N)
KERNEL(cbam_grad_pixels_f32, CbamGradArgs, 256, 1024) { cbam::conv_grad<float>(block, a, cbam::rows_of(block, a)); }
KERNEL(cbam_grad_pixels_bf16, CbamGradArgs, 256, 1024) { cbam::conv_grad<bf16>(block, a, cbam::rows_of(block, a)); }
KERNEL(cbam_grad_maps, CbamGradArgs, 256, 49152) { cbam::map_grad(block, a, cbam::rows_of(block, a)); }

// grid (ceil(c / cols_per_block), N)
KERNEL(cbam_grad_gates_f32, CbamGradArgs, 256, 49152) { cbam::gate_grad<float>(block, a, cbam::channels_of(block, a)); }
KERNEL(cbam_grad_gates_bf16, CbamGradArgs, 256, 49152) { cbam::gate_grad<bf16>(block, a, cbam::channels_of(block, a)); }

// grid (1, N)
KERNEL(cbam_grad_mlp, CbamGradArgs, 256, 49152) { cbam::mlp_grad(block, a); }

// grid (ceil(h / rows_per_block), N)
KERNEL(cbam_grad_f32, CbamGradArgs, 256, 49152) { cbam::backward<float>(block, a); }
KERNEL(cbam_grad_bf16, CbamGradArgs, 256, 49152) { cbam::backward<bf16>(block, a); }
