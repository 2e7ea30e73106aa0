// Auto-PGD between two gradients: a step with momentum, and its start. Images are (N, d) float32 in [0, 1], d = height * width * channels.
//
//   step    z = P(x + eta*d(g)),  y = P((x + (z - x)*a) + (x - prev)*b),  eta of each image, a + b = 1
//     L-inf   d(g) = sgn(g);  P(v) = clip(min(max(v, x0 - eps), x0 + eps))
//     L2      d(g) = g/(N(g) + 1e-12);  P(v) = clip(x0 + w/(N(w) + 1e-12) * min(eps, N(w))),  w = v - x0,  N(v) = sqrt(sum v^2)
//   start   clip(x0 + eps * t/(size(t) + 1e-12)):  L-inf  t = 2u - 1, size the largest |t|;  L2  t = u, size N(t)
//
// Nothing is contracted, and every expression stands in the order that the authors' code evaluates.
// Source: Croce & Hein 2020.
#include "attack.cuh"

template <class F> DEVICE float norm(const Block& block, int d, F f) { return sqrtf(squares(block, d, f)); }

// grid (ceil(d / chunk), N)
KERNEL(apgd_step_linf, ApgdStepArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.y) * a.d;
  const float *x = a.x + row, *x0 = a.x0 + row, *prev = a.prev + row, *g = a.g + row;
  const float eta = a.eta[block.index.y];
  auto project = [&](int i, float v) {
    const float low = x0[i] - a.eps, high = x0[i] + a.eps;
    return clip(clamp(v, low, high));
  };
  for_each_of_chunk(block, a.d, a.chunk, [&](int i) {
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
