// CBAM: the channel gate, then the spatial gate, a residual and a ReLU, and their input gradient. NHWC.
//
//   m(v)  = W3 relu(W1 v + b1) + b3                                   shared by both poolings
//   g     = sigmoid(m(mean_p x) + m(max_p x))                         (C), pixels p
//   map   = max_c x*g, mean_c x*g                                     (2, H, W)
//   s     = sigmoid(scale * conv_kxk(map) + bias)                     (H, W), zero padding, batch norm folded
//   y     = act(x * g * s + residual)
//
//   da    = scale * s (1 - s) * sum_c dy*x*g                          at the convolution's output
//   dmap  = the transposed convolution of da                          (2, H, W)
//   u     = dy*s + dmap_mean / C + [c is the first channel of the maximum] dmap_max
//   dgate = g (1 - g) * sum_p u*x                                     then back through the shared MLP to both poolings
//   dx    = u*g + dmean / P + [p is the first pixel of the maximum] dmax
//
// Either gate may be absent. Two passes over the activation forward, x for the poolings and x again for the rest. The gradient
// cannot do with fewer than three dependent sums over it: da, then dgate, then dx; it reads x twice and dy three times.
//
// One block takes a whole image through all phases when it may (`whole`): always on the host, where the image then stays in
// cache, so that memory is passed once; on CUDA for images of few pixels. Otherwise the phases are launches of their own, over
// strips of rows or of channels; a strip of the forward recomputes the maps of its halo. The choice hangs on the image alone,
// so that results do not depend on the batch.
//
// Kept for the gradient: x by reference, g, the hidden layer, s and where the maxima lay: 2C + 2 hidden + 2HW floats an image.
// Sums in float32, long ones in parts. Deterministic: one writer per output, no atomics. Source: Woo et al. 2018.
#include "activation.cuh"
#include "block.cuh"

namespace cbam {

using lanes::fill;

// What every phase knows about its image.
template <class T, class Args> struct Image {
  const Args& a;
  const T* x;          // (pixels, c)
  int n, pixels;
  int64_t first;       // pixel of the batch

  DEVICE Image(const Args& a_, int n_)
      : a(a_), x(static_cast<const T*>(a_.x) + int64_t(n_) * a_.h * a_.w * a_.c), n(n_), pixels(a_.h * a_.w),
        first(int64_t(n_) * a_.h * a_.w) {}

  DEVICE const float* gate() const { return a.gate + int64_t(n) * a.c; }
  DEVICE Lanes load(int pixel, int c, int count) const { return lanes::load(x + int64_t(pixel) * a.c + c, count); }
};

// Mean and maximum over the pixels of channels [c0, c1), and where the maximum lies.
template <class T> DEVICE void pool(const Block& block, const Image<T, CbamArgs>& image, int c0, int c1) {
  const CbamArgs& a = image.a;
  struct State {
    lanes::Sum sum;
    Lanes best, at;
  };
  float* pooled = a.pooled + int64_t(image.n) * 2 * a.c;
  block::fold_columns(
      block, block.shared + REDUCE_BYTES, image.pixels, c1 - c0, State{{}, fill(-INFINITY), fill(0.f)},
      [&](State& s, int p, int c, int count) {
        const Lanes v = image.load(p, c0 + c, count);
        const uint32_t better = lanes::greater(v, s.best);
        s.sum.add(v, p);
        s.best = lanes::select(better, v, s.best);
        s.at = lanes::select(better, fill(float(p)), s.at);
      },
      [](State& s, const State& later) {
        const uint32_t better = lanes::greater(later.best, s.best);
        s.sum.merge(later.sum);
        s.best = lanes::select(better, later.best, s.best);
        s.at = lanes::select(better, later.at, s.at);
      },
      [&](int c, int count, const State& s) {
        lanes::store(pooled + c0 + c, s.sum.total() / fill(float(image.pixels)), count);
        lanes::store(pooled + a.c + c0 + c, s.best, count);
        lanes::store(a.argmax + int64_t(image.n) * a.c + c0 + c, s.at, count);
      });
}

struct Pair {
  Lanes mean, max;
};
struct PairSum {
  float mean, max;
};

// The shared MLP on both poolings, and the gate.
DEVICE void gates(const Block& block, const CbamArgs& a, int n) {
  float* gate = a.gate + int64_t(n) * a.c;
  if (!a.channel_gate) {
    block::for_each_run(block, 1, a.c, [&](int, int c, int count) { lanes::store(gate + c, fill(1.f), count); });
    return;
  }
  const float *mean = a.pooled + int64_t(n) * 2 * a.c, *max = mean + a.c;
  float* hidden = a.hidden_values + int64_t(n) * 2 * a.hidden;
  block::fold_rows(
      block, a.hidden, a.c, Pair{fill(0.f), fill(0.f)},
      [&](Pair& s, int j, int c, int count) {
        const Lanes w = lanes::load(a.w1 + int64_t(j) * a.c + c, count);
        s.mean = lanes::fma(w, lanes::load(mean + c, count), s.mean);
        s.max = lanes::fma(w, lanes::load(max + c, count), s.max);
      },
      [](const Pair& s) { return PairSum{lanes::sum(s.mean), lanes::sum(s.max)}; },
      [](PairSum& s, const PairSum& other) { s.mean += other.mean, s.max += other.max; },
      [&](int j, const PairSum& s) {
        const float u = s.mean + a.b1[j], v = s.max + a.b1[j];
        hidden[j] = u < 0 ? 0.f : u;  // a NaN stays
        hidden[a.hidden + j] = v < 0 ? 0.f : v;
      });
  block::fold_columns(
      block, block.shared + REDUCE_BYTES, a.hidden, a.c, fill(0.f),
      [&](Lanes& s, int j, int c, int count) {
        s = lanes::fma(lanes::load(a.w3 + int64_t(j) * a.c + c, count), fill(hidden[j] + hidden[a.hidden + j]), s);
      },
      [](Lanes& s, const Lanes& later) { s = s + later; },
      [&](int c, int count, Lanes s) {
        lanes::store(gate + c, activation::sigmoid(lanes::fma(fill(2.f), lanes::load(a.b3 + c, count), s)), count);
      });
}

// Rows [first, first + count) with a zero border of `pad` on all sides, in shared memory.
struct Padded {
  float* at;
  int pitch, size;

  DEVICE Padded(float* at_, int count, int width, int pad) : at(at_), pitch(width + 2 * pad), size((count + 2 * pad) * pitch) {}
};

// The spatial gate of rows [row0, row0 + rows).
template <class T> DEVICE void spatial(const Block& block, const Image<T, CbamArgs>& image, int row0, int rows) {
  const CbamArgs& a = image.a;
  const int pad = a.side / 2;
  const Padded most(reinterpret_cast<float*>(block.shared + REDUCE_BYTES), rows, a.w, pad), mean(most.at + most.size, rows, a.w, pad);
  block::for_each(block, 2, most.size, [&](int i, int j) { most.at[i * most.size + j] = 0.f; });

  struct State {
    Lanes sum, best, at;
  };
  struct Result {
    float sum, best;
    int32_t at;
  };
  const int from = row0 > pad ? row0 - pad : 0, to = row0 + rows + pad < a.h ? row0 + rows + pad : a.h;
  const float* gate = image.gate();
  block::fold_rows(
      block, (to - from) * a.w, a.c, State{fill(0.f), fill(-INFINITY), fill(0.f)},
      [&](State& s, int p, int c, int count) {
        const Lanes v = image.load(from * a.w + p, c, count) * lanes::load(gate + c, count);
        const Lanes candidate = count < lanes::SIZE ? lanes::select((1u << count) - 1, v, fill(-INFINITY)) : v;
        const uint32_t better = lanes::greater(candidate, s.best);
        s.sum = s.sum + v;
        s.best = lanes::select(better, candidate, s.best);
        s.at = lanes::select(better, fill(float(c)), s.at);
      },
      [](const State& s) {
        // Of the lanes that hold the maximum, the one of the lowest channel.
        Result r = {lanes::sum(s.sum), lanes::largest(s.best), 0x7fffffff};
        UNROLL for (int i = 0; i < lanes::SIZE; ++i) {
          const int c = int(s.at.v[i]) + i;
          r.at = s.best.v[i] == r.best && c < r.at ? c : r.at;
        }
        return r;
      },
      [](Result& r, const Result& other) {
        const bool better = other.best > r.best || (other.best == r.best && other.at < r.at);
        r.sum += other.sum;
        r.best = better ? other.best : r.best;
        r.at = better ? other.at : r.at;
      },
      [&](int p, const Result& r) {
        const int row = from + p / a.w, col = p % a.w, at = (row - row0 + pad) * most.pitch + col + pad;
        most.at[at] = r.best;
        mean.at[at] = r.sum / float(a.c);
        if (row >= row0 && row < row0 + rows) a.channel[image.first + row * a.w + col] = r.at;
      });

  float* s = a.spatial + image.first + row0 * a.w;  // (rows, w)
  block::for_each_run(block, rows, a.w, [&](int r, int q, int count) {
    Lanes sum = fill(0.f);
    for (int i = 0; i < a.side; ++i) {
      for (int j = 0; j < a.side; ++j) {
        const int at = (r + i) * most.pitch + q + j;
        sum = lanes::fma(fill(a.kernel[i * a.side + j]), lanes::load(most.at + at, count), sum);
        sum = lanes::fma(fill(a.kernel[(a.side + i) * a.side + j]), lanes::load(mean.at + at, count), sum);
      }
    }
    lanes::store(s + r * a.w + q, activation::sigmoid(lanes::fma(sum, fill(a.scale), fill(a.bias))), count);
  });
}

template <class T> DEVICE void apply(const Block& block, const Image<T, CbamArgs>& image, int row0, int rows) {
  const CbamArgs& a = image.a;
  const float* gate = image.gate();
  const int bit_row = lanes::mask_stride(a.c), first = row0 * a.w;
  block::for_each_run(block, rows * a.w, a.c, [&](int r, int c, int count) {
    const int64_t pixel = image.first + first + r, at = pixel * a.c + c;
    Lanes v = image.load(first + r, c, count) * lanes::load(gate + c, count);
    if (a.spatial_gate) v = v * fill(a.spatial[pixel]);
    if (a.residual) v = v + lanes::load(static_cast<const T*>(a.residual) + at, count);
    v = activation::apply(a.act, v);
    if (a.positive) lanes::store_bits(a.positive + pixel * bit_row, c, lanes::greater(v, fill(0.f)));
    lanes::store(static_cast<T*>(a.y) + at, v, count);
  });
}

DEVICE int at_most(int limit, int v) { return v < limit ? v : limit; }

template <class T> DEVICE void forward(const Block& block, const CbamArgs& a) {
  const Image<T, CbamArgs> image(a, block.index.y);
  const int row0 = block.index.x * a.rows_per_block, rows = at_most(a.rows_per_block, a.h - row0);
  if (a.whole) {
    if (a.channel_gate) pool(block, image, 0, a.c);
    gates(block, a, image.n);
  }
  if (a.spatial_gate) spatial(block, image, row0, rows);
  apply(block, image, row0, rows);
}

// da of rows [row0, row0 + rows)
template <class T> DEVICE void pixel_grad(const Block& block, const Image<T, CbamGradArgs>& image, int row0, int rows) {
  const CbamGradArgs& a = image.a;
  const float* gate = image.gate();
  const T* dy = static_cast<const T*>(a.dy) + image.first * a.c;
  block::fold_rows(
      block, rows * a.w, a.c, fill(0.f),
      [&](Lanes& s, int r, int c, int count) {
        const int p = row0 * a.w + r;
        const Lanes v = image.load(p, c, count) * lanes::load(gate + c, count);
        s = lanes::fma(v, lanes::load(dy + int64_t(p) * a.c + c, count), s);
      },
      [](const Lanes& s) { return lanes::sum(s); }, [](float& s, float other) { s += other; },
      [&](int r, float sum) {
        const int64_t pixel = image.first + row0 * a.w + r;
        const float s = a.spatial[pixel];
        a.dconv[pixel] = sum * (s * (1.f - s)) * a.scale;
      });
}

// Both maps' gradients of rows [row0, row0 + rows); the mean's is divided by C already.
template <class T> DEVICE void map_grad(const Block& block, const Image<T, CbamGradArgs>& image, int row0, int rows) {
  const CbamGradArgs& a = image.a;
  const int pad = a.side / 2;
  const Padded da(reinterpret_cast<float*>(block.shared + REDUCE_BYTES), rows, a.w, pad);
  block::for_each(block, rows + 2 * pad, da.pitch, [&](int r, int q) {
    const int row = row0 + r - pad, col = q - pad;
    const bool inside = row >= 0 && row < a.h && col >= 0 && col < a.w;
    da.at[r * da.pitch + q] = inside ? a.dconv[image.first + row * a.w + col] : 0.f;
  });
  const int64_t first = image.first + row0 * a.w;
  block::for_each_run(block, rows, a.w, [&](int r, int q, int count) {
    Lanes most = fill(0.f), mean = fill(0.f);
    for (int i = 0; i < a.side; ++i) {
      for (int j = 0; j < a.side; ++j) {
        const Lanes v = lanes::load(da.at + (r + 2 * pad - i) * da.pitch + q + 2 * pad - j, count);
        most = lanes::fma(fill(a.kernel[i * a.side + j]), v, most);
        mean = lanes::fma(fill(a.kernel[(a.side + i) * a.side + j]), v, mean);
      }
    }
    lanes::store(a.dmost + first + r * a.w + q, most, count);
    lanes::store(a.dmean + first + r * a.w + q, mean / fill(float(a.c)), count);
  });
}

// u of the header: the gradient of x * g.
template <class T> DEVICE Lanes gated_grad(const Image<T, CbamGradArgs>& image, int64_t pixel, int c, int count) {
  const CbamGradArgs& a = image.a;
  const Lanes dy = lanes::load(static_cast<const T*>(a.dy) + pixel * a.c + c, count);
  if (!a.spatial_gate) return dy;
  const Lanes u = lanes::fma(dy, fill(a.spatial[pixel]), fill(a.dmean[pixel]));
  return u + lanes::one_hot(a.channel[pixel] - c, a.dmost[pixel]);
}

// The gradient at the argument of the channel gate's sigmoid, for channels [c0, c1).
template <class T> DEVICE void gate_grad(const Block& block, const Image<T, CbamGradArgs>& image, int c0, int c1) {
  const CbamGradArgs& a = image.a;
  block::fold_columns(
      block, block.shared + REDUCE_BYTES, image.pixels, c1 - c0, lanes::Sum{},
      [&](lanes::Sum& s, int p, int c, int count) {
        s.add(image.load(p, c0 + c, count) * gated_grad(image, image.first + p, c0 + c, count), p);
      },
      [](lanes::Sum& s, const lanes::Sum& later) { s.merge(later); },
      [&](int c, int count, const lanes::Sum& s) {
        const Lanes g = lanes::load(image.gate() + c0 + c, count);
        lanes::store(a.dgate + int64_t(image.n) * a.c + c0 + c, s.total() * (g * (fill(1.f) - g)), count);
      });
}

// Back through the shared MLP: the gradients of the two poolings, the mean's divided by the pixels already.
DEVICE void mlp_grad(const Block& block, const CbamGradArgs& a, int n) {
  const float* dgate = a.dgate + int64_t(n) * a.c;
  const float* hidden = a.hidden_values + int64_t(n) * 2 * a.hidden;
  float *dhidden = a.dhidden + int64_t(n) * 2 * a.hidden, *dpooled = a.dpooled + int64_t(n) * 2 * a.c;
  block::fold_rows(
      block, a.hidden, a.c, fill(0.f),
      [&](Lanes& s, int j, int c, int count) {
        s = lanes::fma(lanes::load(a.w3 + int64_t(j) * a.c + c, count), lanes::load(dgate + c, count), s);
      },
      [](const Lanes& s) { return lanes::sum(s); }, [](float& s, float other) { s += other; },
      [&](int j, float s) {
        dhidden[j] = hidden[j] > 0 ? s : 0.f;
        dhidden[a.hidden + j] = hidden[a.hidden + j] > 0 ? s : 0.f;
      });
  const float pixels = float(a.h * a.w);
  block::fold_columns(
      block, block.shared + REDUCE_BYTES, a.hidden, a.c, Pair{fill(0.f), fill(0.f)},
      [&](Pair& s, int j, int c, int count) {
        const Lanes w = lanes::load(a.w1 + int64_t(j) * a.c + c, count);
        s.mean = lanes::fma(w, fill(dhidden[j]), s.mean);
        s.max = lanes::fma(w, fill(dhidden[a.hidden + j]), s.max);
      },
      [](Pair& s, const Pair& later) { s = {s.mean + later.mean, s.max + later.max}; },
      [&](int c, int count, const Pair& s) {
        lanes::store(dpooled + c, s.mean / fill(pixels), count);
        lanes::store(dpooled + a.c + c, s.max, count);
      });
}

template <class T> DEVICE void input_grad(const Block& block, const Image<T, CbamGradArgs>& image, int row0, int rows) {
  const CbamGradArgs& a = image.a;
  const int bit_row = lanes::mask_stride(a.c);
  const float *gate = image.gate(), *argmax = a.argmax + int64_t(image.n) * a.c;
  const float *dmean = a.dpooled + int64_t(image.n) * 2 * a.c, *dmax = dmean + a.c;
  block::for_each_run(block, rows * a.w, a.c, [&](int r, int c, int count) {
    const int p = row0 * a.w + r;
    const int64_t pixel = image.first + p, at = pixel * a.c + c;
    Lanes v = gated_grad(image, pixel, c, count);
    if (a.channel_gate) {
      v = lanes::fma(v, lanes::load(gate + c, count), lanes::load(dmean + c, count));
      const uint32_t here = lanes::equal(lanes::load(argmax + c, count), fill(float(p)));
      v = v + lanes::select(here, lanes::load(dmax + c, count), fill(0.f));
    }
    if (a.residual) v = v + lanes::load(static_cast<const T*>(a.residual) + at, count);
    if (a.keep) v = lanes::select(lanes::load_bits(a.keep + pixel * bit_row, c), v, fill(0.f));
    lanes::store(static_cast<T*>(a.dx) + at, v, count);
  });
}

template <class T> DEVICE void backward(const Block& block, const CbamGradArgs& a) {
  const Image<T, CbamGradArgs> image(a, block.index.y);
  const int row0 = block.index.x * a.rows_per_block, rows = at_most(a.rows_per_block, a.h - row0);
  if (a.whole) {
    if (a.spatial_gate) {
      pixel_grad(block, image, 0, a.h);
      map_grad(block, image, 0, a.h);
    }
    if (a.channel_gate) {
      gate_grad(block, image, 0, a.c);
      mlp_grad(block, a, image.n);
    }
  }
  input_grad(block, image, row0, rows);
}

}  // namespace cbam

// Shared: a state per thread for folds over columns, or the padded maps of a strip.
// grid (ceil(c / cols_per_block), N)
KERNEL(cbam_pool_f32, CbamArgs, 256, 49152) {
  const int c0 = block.index.x * a.cols_per_block;
  cbam::pool(block, cbam::Image<float, CbamArgs>(a, block.index.y), c0, cbam::at_most(c0 + a.cols_per_block, a.c));
}
KERNEL(cbam_pool_bf16, CbamArgs, 256, 49152) {
  const int c0 = block.index.x * a.cols_per_block;
  cbam::pool(block, cbam::Image<bf16, CbamArgs>(a, block.index.y), c0, cbam::at_most(c0 + a.cols_per_block, a.c));
}

// grid (1, N)
KERNEL(cbam_gate, CbamArgs, 256, 49152) { cbam::gates(block, a, block.index.y); }

// grid (ceil(h / rows_per_block), N)
KERNEL(cbam_f32, CbamArgs, 256, 49152) { cbam::forward<float>(block, a); }
KERNEL(cbam_bf16, CbamArgs, 256, 49152) { cbam::forward<bf16>(block, a); }

// grid (ceil(h / rows_per_block), N)
KERNEL(cbam_grad_pixels_f32, CbamGradArgs, 256, 1024) {
  const int row0 = block.index.x * a.rows_per_block;
  cbam::pixel_grad(block, cbam::Image<float, CbamGradArgs>(a, block.index.y), row0, cbam::at_most(a.rows_per_block, a.h - row0));
}
KERNEL(cbam_grad_pixels_bf16, CbamGradArgs, 256, 1024) {
  const int row0 = block.index.x * a.rows_per_block;
  cbam::pixel_grad(block, cbam::Image<bf16, CbamGradArgs>(a, block.index.y), row0, cbam::at_most(a.rows_per_block, a.h - row0));
}
KERNEL(cbam_grad_maps, CbamGradArgs, 256, 49152) {
  const int row0 = block.index.x * a.rows_per_block;
  cbam::map_grad(block, cbam::Image<float, CbamGradArgs>(a, block.index.y), row0, cbam::at_most(a.rows_per_block, a.h - row0));
}

// grid (ceil(c / cols_per_block), N)
KERNEL(cbam_grad_gates_f32, CbamGradArgs, 256, 49152) {
  const int c0 = block.index.x * a.cols_per_block;
  cbam::gate_grad(block, cbam::Image<float, CbamGradArgs>(a, block.index.y), c0, cbam::at_most(c0 + a.cols_per_block, a.c));
}
KERNEL(cbam_grad_gates_bf16, CbamGradArgs, 256, 49152) {
  const int c0 = block.index.x * a.cols_per_block;
  cbam::gate_grad(block, cbam::Image<bf16, CbamGradArgs>(a, block.index.y), c0, cbam::at_most(c0 + a.cols_per_block, a.c));
}

// grid (1, N)
KERNEL(cbam_grad_mlp, CbamGradArgs, 256, 49152) { cbam::mlp_grad(block, a, block.index.y); }

// grid (ceil(h / rows_per_block), N)
KERNEL(cbam_grad_f32, CbamGradArgs, 256, 49152) { cbam::backward<float>(block, a); }
KERNEL(cbam_grad_bf16, CbamGradArgs, 256, 49152) { cbam::backward<bf16>(block, a); }
