// One-shot denoising: noise an image, estimate it from what a network says the noise was, and the two gradients; joining and
// splitting channels for the skip connections of a U-Net.
//
//   q_sample   x_t = k * u + s * z             u = x * mul + add;  k = sqrt(ab), s = sqrt(1 - ab) per row
//              dx[n] = mul * sum over draws of k * dx_t
//   denoise    y   = x0 * mul + add            x0 = clip(p * x_t - q * e, -1, 1);  p = sqrt(1/ab), q = sqrt(1/ab - 1)
//              w = dy * mul where the unclipped x0 lies in [-1, 1], else 0;  dx_t = p * w,  de = -q * w
//
// Row r of several draws belongs to image r % N. Images and gradients of images are float32, `e` and `de` have the network's precision.
// Kept for the gradients: x_t and e by reference. Source: Ho et al. 2020; Carlini et al. 2022 (one shot).
#include "block.cuh"

// grid (ceil(d / chunk), rows)
KERNEL(q_sample, QSampleArgs, 256, 1024) {
  const auto own = block::share(block.index.x, a.chunk, a.d);
  const int64_t row = block.index.y, image = row % a.n;
  const float *x = a.x + image * a.d + own.first, *z = a.noise + row * a.d + own.first;
  const Lanes k = lanes::fill(a.coefficients[2 * row]), s = lanes::fill(a.coefficients[2 * row + 1]);
  block::for_each_run(block, 1, own.count, [&](int, int c, int count) {
    const Lanes u = lanes::load(x + c, count) * lanes::fill(a.mul) + lanes::fill(a.add);
    lanes::store(a.y + row * a.d + own.first + c, k * u + s * lanes::load(z + c, count), count);
  });
}

// grid (ceil(d / chunk), N)
KERNEL(q_sample_grad, QSampleGradArgs, 256, 1024) {
  const auto own = block::share(block.index.x, a.chunk, a.d);
  const int64_t image = block.index.y;
  block::for_each_run(block, 1, own.count, [&](int, int c, int count) {
    Lanes sum = lanes::fill(0.f);
    for (int draw = 0; draw < a.draws; ++draw) {
      const int64_t row = int64_t(draw) * a.n + image;
      sum = sum + lanes::fill(a.coefficients[2 * row]) * lanes::load(a.dy + row * a.d + own.first + c, count);
    }
    lanes::store(a.dx + image * a.d + own.first + c, lanes::fill(a.mul) * sum, count);
  });
}

// x0 before clipping
template <class T> DEVICE Lanes estimate(Lanes x_t, const T* noise, float p, float q, int count) {
  return lanes::fill(p) * x_t - lanes::fill(q) * lanes::load(noise, count);
}

template <class T> DEVICE void denoise(const Block& block, const DenoiseArgs& a) {
  const auto own = block::share(block.index.x, a.per_block, a.n);
  const Lanes low = lanes::fill(-1.f), high = lanes::fill(1.f);
  block::for_each_run(block, 1, own.count, [&](int, int c, int count) {
    const Lanes x0 = estimate(lanes::load(a.x_t + own.first + c, count), static_cast<const T*>(a.noise) + own.first + c, a.x_t_factor,
                              a.noise_factor, count);
    const Lanes clipped = lanes::minimum(high, lanes::maximum(low, x0));
    lanes::store(a.y + own.first + c, clipped * lanes::fill(a.mul) + lanes::fill(a.add), count);
  });
}

template <class T> DEVICE void denoise_grad(const Block& block, const DenoiseGradArgs& a) {
  const auto own = block::share(block.index.x, a.per_block, a.n);
  const Lanes zero = lanes::fill(0.f);
  block::for_each_run(block, 1, own.count, [&](int, int c, int count) {
    const Lanes x0 = estimate(lanes::load(a.x_t + own.first + c, count), static_cast<const T*>(a.noise) + own.first + c, a.x_t_factor,
                              a.noise_factor, count);
    const uint32_t outside = lanes::greater(x0, lanes::fill(1.f)) | lanes::greater(lanes::fill(-1.f), x0);
    Lanes w = lanes::load(a.dy + own.first + c, count) * lanes::fill(a.mul);
    if (!a.straight) w = lanes::select(outside, zero, w);
    lanes::store(a.dx_t + own.first + c, lanes::fill(a.x_t_factor) * w, count);
    lanes::store(static_cast<T*>(a.dnoise) + own.first + c, zero - lanes::fill(a.noise_factor) * w, count);
  });
}

// grid (ceil(n / per_block))
KERNEL(denoise_f32, DenoiseArgs, 256, 1024) { denoise<float>(block, a); }
KERNEL(denoise_bf16, DenoiseArgs, 256, 1024) { denoise<bf16>(block, a); }
KERNEL(denoise_grad_f32, DenoiseGradArgs, 256, 1024) { denoise_grad<float>(block, a); }
KERNEL(denoise_grad_bf16, DenoiseGradArgs, 256, 1024) { denoise_grad<bf16>(block, a); }

// y = (a, b) along the channels
template <class T> DEVICE void concat(const Block& block, const ConcatArgs& p) {
  const auto rows = block::share(block.index.x, p.rows_per_block, p.rows);
  const int c = p.c_a + p.c_b;
  const T *a = static_cast<const T*>(p.a) + rows.first * p.c_a, *b = static_cast<const T*>(p.b) + rows.first * p.c_b;
  T* y = static_cast<T*>(p.y) + rows.first * c;
  block::for_each_run(block, rows.count, p.c_a, [&](int r, int k, int count) {
    lanes::store(y + int64_t(r) * c + k, lanes::load(a + int64_t(r) * p.c_a + k, count), count);
  });
  block::for_each_run(block, rows.count, p.c_b, [&](int r, int k, int count) {
    lanes::store(y + int64_t(r) * c + p.c_a + k, lanes::load(b + int64_t(r) * p.c_b + k, count), count);
  });
}

// x = (some columns of y + residual) * keep
template <class T> DEVICE void split(const Block& block, const SplitArgs& p) {
  const auto rows = block::share(block.index.x, p.rows_per_block, p.rows);
  const T* y = static_cast<const T*>(p.y) + rows.first * p.c + p.first;
  block::for_each_run(block, rows.count, p.count, [&](int r, int k, int count) {
    const int64_t at = (rows.first + r) * p.count + k;
    Lanes v = lanes::load(y + int64_t(r) * p.c + k, count);
    if (p.residual) v = v + lanes::load(static_cast<const T*>(p.residual) + at, count);
    if (p.keep) v = lanes::select(lanes::load_bits(p.keep + (rows.first + r) * lanes::mask_stride(p.count), k), v, lanes::fill(0.f));
    lanes::store(static_cast<T*>(p.x) + at, v, count);
  });
}

// grid (ceil(rows / rows_per_block))
KERNEL(concat_f32, ConcatArgs, 256, 1024) { concat<float>(block, a); }
KERNEL(concat_bf16, ConcatArgs, 256, 1024) { concat<bf16>(block, a); }
KERNEL(split_f32, SplitArgs, 256, 1024) { split<float>(block, a); }
KERNEL(split_bf16, SplitArgs, 256, 1024) { split<bf16>(block, a); }
