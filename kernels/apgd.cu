// Auto-PGD between two gradients: a step with momentum, and its start. Images are (N, d) float32 in [0, 1], d = height * width * channels.
//
//   step    z = P(x + eta*d(g)),  y = P((x + (z - x)*a) + (x - prev)*b),  eta of each image, a + b = 1
//     L-inf   d(g) = sgn(g);  P(v) = clip(min(max(v, x0 - eps), x0 + eps))
//     L2      d(g) = g/(N(g) + 1e-12);  P(v) = clip(x0 + w/(N(w) + 1e-12) * min(eps, N(w))),  w = v - x0,  N(v) = sqrt(sum v^2)
//           Where the loss rose, x and g are put aside as the best; an image that goes back takes those for x and g. y may be x.
//   look    after step j with loss l_j: rose where l_j > best; after windows[j] steps, w in number, eta is halved and the image goes back
//           where at most 3/4 of them raised the loss, or where the look before halved nothing and best is what it was then. Before the
//           first loss stands the last, 0 until it is there: as the authors' code has it
//   start   clip(x0 + eps * t/(size(t) + 1e-12)):  L-inf  t = 2u - 1, size the largest |t|;  L2  t = u, size N(t)
//
// Nothing is contracted, and every expression stands in the order that the authors' code evaluates.
// Source: Croce & Hein 2020.
#include "attack.cuh"

template <class F> DEVICE float norm(const Block& block, int d, F f) { return sqrtf(squares(block, d, f)); }

// grid (N)
KERNEL(apgd_look, ApgdLookArgs, 32, 1024) {
  block::for_each(block, 1, 1, [&](int, int) {
    const int n = block.index.x;
    const float loss = a.loss[n];
    ApgdImage m = a.images[n];
    const int j = m.answers++ - 1;  // the step that led here
    m.back = 0;
    if (j < 0) {
      m.eta = a.eta, m.share = 1.f, m.best = m.looked = loss, m.halved = m.rose = 1;
    } else {
      float* losses = a.losses + int64_t(n) * a.steps;
      losses[j] = loss;
      m.share = a.share;
      m.rose = loss > m.best;
      if (m.rose) m.best = loss;
      if (const int window = a.windows[j]) {
        int rises = 0;
        // Before the first stands the last.
        for (int i = j + 1 - window; i <= j; ++i) rises += losses[i] > losses[i ? i - 1 : a.steps - 1];
        m.back = m.halved = 4 * rises <= 3 * window || (!m.halved && m.looked >= m.best);
        m.looked = m.best;
        if (m.back) m.eta = m.eta / 2.f;
      }
    }
    a.images[n] = m;
  });
}

// What a step of one image begins with. Where the loss rose, x is the best point itself.
struct Base {
  const ApgdImage* image;
  bool rose, back;
  DEVICE Base(const ApgdStepArgs& a, int n) : image(a.images + n), rose(a.best && image->rose), back(a.best && image->back && !rose) {}
};

// grid (ceil(d / chunk), N)
KERNEL(apgd_step_linf, ApgdStepArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.y) * a.d;
  const Base base(a, block.index.y);
  const float *x0 = a.x0 + row, *prev = a.prev + row, *from = (base.back ? a.best : a.x) + row, *along = (base.back ? a.best_g : a.g) + row;
  const float eta = base.image->eta, forward = base.image->share;
  auto project = [&](int i, float v) {
    const float low = x0[i] - a.eps, high = x0[i] + a.eps;
    return clip(clamp(v, low, high));
  };
  for_each_of_chunk(block, a.d, a.chunk, [&](int i) {
    const float x = from[i], g = along[i];
    if (base.rose) a.best[row + i] = x, a.best_g[row + i] = g;
    const float z = project(i, x + eta * sgn(g));
    const float y = project(i, (x + (z - x) * forward) + (x - prev[i]) * (1.f - forward));
    if (a.left) a.left[row + i] = x;
    a.y[row + i] = y;
  });
}

// grid (N)
KERNEL(apgd_step_l2, ApgdStepArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.x) * a.d;
  const Base base(a, block.index.x);
  const float *x0 = a.x0 + row, *prev = a.prev + row, *x = (base.back ? a.best : a.x) + row, *g = (base.back ? a.best_g : a.g) + row;
  if (base.rose) block::for_each(block, 1, a.d, [&](int, int i) { a.best[row + i] = x[i], a.best_g[row + i] = g[i]; });
  const float eta = base.image->eta, forward = base.image->share;
  const float length = norm(block, a.d, [&](int i) { return g[i]; }) + 1e-12f;
  // A length, and what P multiplies a vector of that length by.
  struct Ball { float divisor, radius; };
  auto ball = [&](float n) { return Ball{n + 1e-12f, a.eps < n ? a.eps : n}; };
  auto project = [&](int i, float w, Ball b) { return clip(x0[i] + w / b.divisor * b.radius); };

  auto first = [&](int i) { return x[i] + eta * (g[i] / length) - x0[i]; };
  const Ball outer = ball(norm(block, a.d, first));
  auto second = [&](int i) {
    const float z = project(i, first(i), outer);
    return (x[i] + (z - x[i]) * forward) + (x[i] - prev[i]) * (1.f - forward) - x0[i];
  };
  const Ball inner = ball(norm(block, a.d, second));
  block::for_each(block, 1, a.d, [&](int, int i) {
    const float from = x[i], y = project(i, second(i), inner);
    if (a.left) a.left[row + i] = from;
    a.y[row + i] = y;
  });
}

// draw: L-inf takes uniforms in [0, 1), L2 standard normals. grid (N)
KERNEL(apgd_start, ApgdStartArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.x) * a.d;
  const float *u = a.draw + row, *x0 = a.x0 + row;
  auto t = [&](int i) { return a.l2 ? u[i] : 2.f * u[i] - 1.f; };
  const float size = a.l2 ? norm(block, a.d, t) : block::max(block, 1, a.d, 0.f, [&](int, int i) { return fabsf(t(i)); });
  block::for_each(block, 1, a.d, [&](int, int i) { a.y[row + i] = clip(x0[i] + a.eps * (t(i) / (size + 1e-12f))); });
}
