// Elementwise kernels over (rows, c), softmax over c, casts and the transpose. float32 or bf16, arithmetic in float32.
//
//   accumulate      y = (a + b) * keep
//   activation      y = act(x)                      dx = (dy * act'(x) + residual) * keep
//   affine          y = x * scale[c] + bias[c]      dx = (dy * scale[c] + residual) * keep      the same kernel without bias
//   affine_act      y = act(x * scale[c] + bias[c]) dx = (dy * act'(..) * scale[c] + residual) * keep
//   normalize       y = (x - mean[c]) / std[c]      dx = dy / std[c]                            x and dx in float32
//   softmax         y = exp(x - max) / sum          dx = y * (dy - sum(dy * y))
//
// `residual` is the gradient other consumers of x left, `keep` the mask of the activation that made x; either may be null.
// Kept for the gradients: x by reference, of a ReLU one bit per value, of softmax y. Deterministic, no atomics.
#include "activation.cuh"
#include "block.cuh"

// y = (a + b) * keep: joins two gradients of one tensor and applies the mask of the activation that made it.
template <class T> DEVICE void accumulate(const Block& block, const AccumulateArgs& p) {
  const auto rows = block::share(block.index.x, p.rows_per_block, p.rows);
  block::for_each_run(block, rows.count, p.c, [&](int r, int c, int count) {
    const int64_t at = (rows.first + r) * p.c + c;
    Lanes v = lanes::load(static_cast<const T*>(p.a) + at, count);
    if (p.b) v = v + lanes::load(static_cast<const T*>(p.b) + at, count);
    if (p.keep) {
      const uint32_t bits = lanes::load_bits(p.keep + (rows.first + r) * lanes::mask_stride(p.c), c);
      v = lanes::select(bits, v, lanes::fill(0.f));
    }
    lanes::store(static_cast<T*>(p.y) + at, v, count);
  });
}

// grid (ceil(rows / rows_per_block))
KERNEL(accumulate_f32, AccumulateArgs, 256, 1024) { accumulate<float>(block, a); }
KERNEL(accumulate_bf16, AccumulateArgs, 256, 1024) { accumulate<bf16>(block, a); }

// (v + residual) * keep for a run of row `row`
template <class T>
DEVICE Lanes contribute(Lanes v, const void* residual, const uint8_t* keep, int64_t row, int c, int columns, int count) {
  if (residual) v = v + lanes::load(static_cast<const T*>(residual) + row * columns + c, count);
  if (keep) v = lanes::select(lanes::load_bits(keep + row * lanes::mask_stride(columns), c), v, lanes::fill(0.f));
  return v;
}

template <class T> DEVICE void activate(const Block& block, const ActivationArgs& p) {
  const auto rows = block::share(block.index.x, p.rows_per_block, p.rows);
  block::for_each_run(block, rows.count, p.c, [&](int r, int c, int count) {
    const int64_t row = rows.first + r, at = row * p.c + c;
    const Lanes v = activation::apply(p.act, lanes::load(static_cast<const T*>(p.x) + at, count));
    if (p.positive) lanes::store_bits(p.positive + row * lanes::mask_stride(p.c), c, lanes::greater(v, lanes::fill(0.f)));
    lanes::store(static_cast<T*>(p.y) + at, v, count);
  });
}

template <class T> DEVICE void activate_grad(const Block& block, const ActivationGradArgs& p) {
  const auto rows = block::share(block.index.x, p.rows_per_block, p.rows);
  block::for_each_run(block, rows.count, p.c, [&](int r, int c, int count) {
    const int64_t row = rows.first + r, at = row * p.c + c;
    const Lanes slope = activation::slope(p.act, lanes::load(static_cast<const T*>(p.x) + at, count));
    const Lanes v = lanes::load(static_cast<const T*>(p.dy) + at, count) * slope;
    lanes::store(static_cast<T*>(p.dx) + at, contribute<T>(v, p.residual, p.keep, row, c, p.c, count), count);
  });
}

template <class T> DEVICE void affine(const Block& block, const AffineArgs& p) {
  const auto rows = block::share(block.index.x, p.rows_per_block, p.rows);
  block::for_each_run(block, rows.count, p.c, [&](int r, int c, int count) {
    const int64_t row = rows.first + r, at = row * p.c + c;
    const Lanes bias = p.bias ? lanes::load(p.bias + c, count) : lanes::fill(0.f);
    const Lanes v = lanes::fma(lanes::load(static_cast<const T*>(p.x) + at, count), lanes::load(p.scale + c, count), bias);
    lanes::store(static_cast<T*>(p.y) + at, contribute<T>(v, p.residual, p.keep, row, c, p.c, count), count);
  });
}

// grid (ceil(rows / rows_per_block))
KERNEL(activation_f32, ActivationArgs, 256, 1024) { activate<float>(block, a); }
KERNEL(activation_bf16, ActivationArgs, 256, 1024) { activate<bf16>(block, a); }
KERNEL(activation_grad_f32, ActivationGradArgs, 256, 1024) { activate_grad<float>(block, a); }
KERNEL(activation_grad_bf16, ActivationGradArgs, 256, 1024) { activate_grad<bf16>(block, a); }
KERNEL(affine_f32, AffineArgs, 256, 1024) { affine<float>(block, a); }
KERNEL(affine_bf16, AffineArgs, 256, 1024) { affine<bf16>(block, a); }

template <class T> DEVICE void affine_activation(const Block& block, const AffineActivationArgs& p) {
  const auto rows = block::share(block.index.x, p.rows_per_block, p.rows);
  block::for_each_run(block, rows.count, p.c, [&](int r, int c, int count) {
    const int64_t row = rows.first + r, at = row * p.c + c;
    const Lanes scale = lanes::load(p.scale + c, count);
    const Lanes u = lanes::fma(lanes::load(static_cast<const T*>(p.x) + at, count), scale, lanes::load(p.bias + c, count));
    if (!p.dy) {
      lanes::store(static_cast<T*>(p.y) + at, activation::apply(p.act, u), count);
      return;
    }
    const Lanes v = lanes::load(static_cast<const T*>(p.dy) + at, count) * activation::slope(p.act, u) * scale;
    lanes::store(static_cast<T*>(p.y) + at, contribute<T>(v, p.residual, p.keep, row, c, p.c, count), count);
  });
}

// grid (ceil(rows / rows_per_block))
KERNEL(affine_activation_f32, AffineActivationArgs, 256, 1024) { affine_activation<float>(block, a); }
KERNEL(affine_activation_bf16, AffineActivationArgs, 256, 1024) { affine_activation<bf16>(block, a); }

// The tables repeat the channels until a row of them is whole runs, so that three channels fill them too.
template <class T, class F> DEVICE void normalized(const Block& block, const NormalizeArgs& p, F f) {
  const int64_t rows = (p.n + p.period - 1) / p.period;
  const auto own = block::share(block.index.x, p.rows_per_block, rows);
  block::for_each_run(block, own.count, p.period, [&](int r, int c, int) {
    const int64_t at = (own.first + r) * p.period + c, left = p.n - at;
    if (left > 0) f(at, c, int(left < lanes::SIZE ? left : lanes::SIZE));
  });
}

template <class T> DEVICE void normalize(const Block& block, const NormalizeArgs& p) {
  normalized<T>(block, p, [&](int64_t at, int c, int count) {
    const Lanes mean = lanes::load(p.mean + c, lanes::SIZE), std = lanes::load(p.std + c, lanes::SIZE);
    lanes::store(static_cast<T*>(p.y) + at, (lanes::load(static_cast<const float*>(p.x) + at, count) - mean) / std, count);
  });
}

template <class T> DEVICE void normalize_grad(const Block& block, const NormalizeArgs& p) {
  normalized<T>(block, p, [&](int64_t at, int c, int count) {
    const Lanes std = lanes::load(p.std + c, lanes::SIZE);
    lanes::store(static_cast<float*>(p.y) + at, lanes::load(static_cast<const T*>(p.x) + at, count) / std, count);
  });
}

// grid (ceil(ceil(n / period) / rows_per_block))
KERNEL(normalize_f32, NormalizeArgs, 256, 1024) { normalize<float>(block, a); }
KERNEL(normalize_bf16, NormalizeArgs, 256, 1024) { normalize<bf16>(block, a); }
KERNEL(normalize_grad_f32, NormalizeArgs, 256, 1024) { normalize_grad<float>(block, a); }
KERNEL(normalize_grad_bf16, NormalizeArgs, 256, 1024) { normalize_grad<bf16>(block, a); }

template <class From, class To> DEVICE void cast(const Block& block, const CastArgs& p) {
  const auto own = block::share(block.index.x, p.per_block, p.n);
  block::for_each_run(block, 1, own.count, [&](int, int c, int count) {
    lanes::store(static_cast<To*>(p.y) + own.first + c, lanes::load(static_cast<const From*>(p.x) + own.first + c, count), count);
  });
}

// grid (ceil(n / per_block))
KERNEL(cast_f32, CastArgs, 256, 1024) { cast<bf16, float>(block, a); }
KERNEL(cast_bf16, CastArgs, 256, 1024) { cast<float, bf16>(block, a); }

// A square of 32 x 32 goes through shared memory, so that both sides see whole rows of it.
template <class T> DEVICE void transpose(const Block& block, const TransposeArgs& p) {
  constexpr int SIDE = 32, PITCH = SIDE + 1;  // one more than a power of two: columns fall into different banks
  T* tile = reinterpret_cast<T*>(block.shared);
  const int across = (p.cols + SIDE - 1) / SIDE;
  const int r0 = int(block.index.x) / across * SIDE, c0 = int(block.index.x) % across * SIDE;
  const int rows = p.rows - r0 < SIDE ? p.rows - r0 : SIDE, cols = p.cols - c0 < SIDE ? p.cols - c0 : SIDE;
  const int64_t matrix = int64_t(block.index.z) * p.rows * p.cols;
  const T* x = static_cast<const T*>(p.x) + matrix + int64_t(r0) * p.cols + c0;
  T* y = static_cast<T*>(p.y) + matrix + int64_t(c0) * p.rows + r0;
  block::for_each(block, rows, cols, [&](int r, int c) { tile[r * PITCH + c] = x[int64_t(r) * p.cols + c]; });
  block::for_each(block, cols, rows, [&](int c, int r) { y[int64_t(c) * p.rows + r] = tile[r * PITCH + c]; });
}

// grid (tiles of 32 x 32, 1, batch)
KERNEL(transpose_f32, TransposeArgs, 256, 4352) { transpose<float>(block, a); }
KERNEL(transpose_bf16, TransposeArgs, 256, 4352) { transpose<bf16>(block, a); }

template <class T> DEVICE void softmax(const Block& block, const SoftmaxArgs& p) {
  const T* x = static_cast<const T*>(p.x) + int64_t(block.index.x) * p.c;
  T* y = static_cast<T*>(p.y) + int64_t(block.index.x) * p.c;
  const float most = block::argmax(block, p.c, [&](int c) { return to_float(x[c]); }).value;
  auto power = [&](int c, int count) { return activation::exp(lanes::load(x + c, count) - lanes::fill(most)); };
  const float sum = block::sum_runs(block, 1, p.c, [&](int, int c, int count) { return lanes::head(power(c, count), count); });
  block::for_each_run(block, 1, p.c, [&](int, int c, int count) { lanes::store(y + c, power(c, count) / lanes::fill(sum), count); });
}

template <class T> DEVICE void softmax_grad(const Block& block, const SoftmaxGradArgs& p) {
  const int64_t row = int64_t(block.index.x) * p.c;
  auto y = [&](int c, int count) { return lanes::load(static_cast<const T*>(p.y) + row + c, count); };
  auto dy = [&](int c, int count) { return lanes::load(static_cast<const T*>(p.dy) + row + c, count); };
  const float dot = block::sum_runs(block, 1, p.c, [&](int, int c, int count) { return y(c, count) * dy(c, count); });
  block::for_each_run(block, 1, p.c, [&](int, int c, int count) {
    lanes::store(static_cast<T*>(p.dx) + row + c, y(c, count) * (dy(c, count) - lanes::fill(dot)), count);
  });
}

// grid (rows)
KERNEL(softmax_f32, SoftmaxArgs, 128, 1024) { softmax<float>(block, a); }
KERNEL(softmax_bf16, SoftmaxArgs, 128, 1024) { softmax<bf16>(block, a); }
KERNEL(softmax_grad_f32, SoftmaxGradArgs, 128, 1024) { softmax_grad<float>(block, a); }
KERNEL(softmax_grad_bf16, SoftmaxGradArgs, 128, 1024) { softmax_grad<bf16>(block, a); }
