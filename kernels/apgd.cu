// Auto-PGD between two gradients: a step with momentum, and its start. Images are (N, d) float32 in [0, 1], d = height * width * channels.
//
//   step    z = P(x + eta*d(g)),  y = P((x + (z - x)*a) + (x - prev)*b),  eta of each image, a + b = 1
//     L-inf   d(g) = sgn(g);  P(v) = clip(min(max(v, x0 - eps), x0 + eps))
//     L2      d(g) = g/(N(g) + 1e-12);  P(v) = clip(x0 + w/(N(w) + 1e-12) * min(eps, N(w))),  w = v - x0,  N(v) = sqrt(sum v^2)
//   start   clip(x0 + eps * t/(size(t) + 1e-12)):  L-inf  t = 2u - 1, size the largest |t|;  L2  t = u, size N(t)
//
// Nothing is contracted, and every expression stands in the order that the authors' code evaluates. One block per image where there
// is a sum, several where there is none: an image's result does not depend on its batch. Source: Croce & Hein 2020.
#include "block.cuh"

DEVICE float sgn(float v) { return float(v > 0.f) - float(v < 0.f); }
DEVICE float clip(float v) { return clamp(v, 0.f, 1.f); }

// sqrt(sum f(i)^2) over i < d, from d/32 partial sums of 32 values.
template <class F> DEVICE float norm(const Block& block, int d, F f) {
  constexpr int PER_SUM = 32;
  const int sums = (d + PER_SUM - 1) / PER_SUM;
  return sqrtf(block::sum(block, 1, sums, [&](int, int s) {
    float sum = 0.f;
    for (int i = s; i < d; i += sums) {
      const float v = f(i);
      sum += v * v;
    }
    return sum;
  }));
}

// grid (ceil(d / chunk), N)
KERNEL(apgd_step_linf, ApgdStepArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.y) * a.d;
  const float *x = a.x + row, *x0 = a.x0 + row, *prev = a.prev + row, *g = a.g + row;
  const float eta = a.eta[block.index.y];
  auto project = [&](int i, float v) {
    const float low = x0[i] - a.eps, high = x0[i] + a.eps;
    return clip(clamp(v, low, high));
  };
  const auto own = block::share(block.index.x, a.chunk, a.d);
  block::for_each(block, 1, own.count, [&](int, int k) {
    const int i = own.first + k;
    const float z = project(i, x[i] + eta * sgn(g[i]));
    a.y[row + i] = project(i, (x[i] + (z - x[i]) * a.forward) + (x[i] - prev[i]) * a.back);
  });
}

// grid (N)
KERNEL(apgd_step_l2, ApgdStepArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.x) * a.d;
  const float *x = a.x + row, *x0 = a.x0 + row, *prev = a.prev + row, *g = a.g + row;
  const float eta = a.eta[block.index.x], length = norm(block, a.d, [&](int i) { return g[i]; }) + 1e-12f;
  // A length, and what P multiplies a vector of that length by.
  struct Ball { float divisor, radius; };
  auto ball = [&](float n) { return Ball{n + 1e-12f, a.eps < n ? a.eps : n}; };
  auto project = [&](int i, float w, Ball b) { return clip(x0[i] + w / b.divisor * b.radius); };

  auto first = [&](int i) { return x[i] + eta * (g[i] / length) - x0[i]; };
  const Ball outer = ball(norm(block, a.d, first));
  auto second = [&](int i) {
    const float z = project(i, first(i), outer);
    return (x[i] + (z - x[i]) * a.forward) + (x[i] - prev[i]) * a.back - x0[i];
  };
  const Ball inner = ball(norm(block, a.d, second));
  block::for_each(block, 1, a.d, [&](int, int i) { a.y[row + i] = project(i, second(i), inner); });
}

// draw: L-inf takes uniforms in [0, 1), L2 standard normals. grid (N)
KERNEL(apgd_start, ApgdStartArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.x) * a.d;
  const float *u = a.draw + row, *x0 = a.x0 + row;
  auto t = [&](int i) { return a.l2 ? u[i] : 2.f * u[i] - 1.f; };
  const float size = a.l2 ? norm(block, a.d, t) : block::max(block, 1, a.d, 0.f, [&](int, int i) { return fabsf(t(i)); });
  block::for_each(block, 1, a.d, [&](int, int i) { a.y[row + i] = clip(x0[i] + a.eps * (t(i) / (size + 1e-12f))); });
}
