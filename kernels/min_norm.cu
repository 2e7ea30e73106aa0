// The step of attacks that look for the smallest perturbation: a direction from the gradient, a length of its own for each image. Images
// are (N, d) float32 in [0, 1].
//
//   r = min(radius + gap/D(g), W)      how far from the image; W: the farthest corner of the box, D: the dual norm of g, without gap 0
//   z = x - x0 + step*g/N(g)           N(v) = sqrt(sum v^2), of g as m*N(g/m), m = max|g|; a g of 0 moves nothing
//   DDN     z *= r/N(z)                onto the sphere; a z of 0 stays
//   FMN     L2  z *= min(1, r/N(z))    L-inf  z = clamp(z, -r, r)
//   y = clip(x0 + z)
//
// W, D and `told` are in the attack's norm: L2 N(max(x0, 1 - x0)), N(g);  L-inf max max(x0, 1 - x0), sum |g|. The step is L2-normalised in
// both, as the authors have it. An infinite radius is no projection but the box. What would be NaN stays as it was.
// Sources: Rony et al. 2019 (DDN), Pintor et al. 2021 (FMN).
#include "attack.cuh"

namespace min_norm {

enum Onto { SPHERE, BALL, CUBE };

template <Onto ONTO> DEVICE void step(const Block& block, const MinNormStepArgs& a) {
  const int64_t row = int64_t(block.index.x) * a.d;
  const float *x = a.x + row, *x0 = a.x0 + row, *g = a.g + row, *rows = a.rows + 2 * int64_t(block.index.x);
  auto largest = [&](auto f) { return block::max(block, 1, a.d, 0.f, [&](int, int i) { return f(i); }); };
  auto corner = [&](int i) { return x0[i] > 0.5f ? x0[i] : 1.f - x0[i]; };

  const float m = largest([&](int i) { return fabsf(g[i]); });
  const float length = m > 0.f ? m * sqrtf(squares(block, a.d, [&](int i) { return g[i] / m; })) : 0.f;
  const float dual = ONTO == CUBE ? total(block, a.d, [&](int i) { return fabsf(g[i]); }) : length;
  const float most = ONTO == CUBE ? largest(corner) : sqrtf(squares(block, a.d, corner));
  const float wanted = rows[1] > 0.f ? rows[0] + rows[1] / dual : rows[0], radius = wanted < most ? wanted : most;

  const float divisor = length > 0.f ? length : 1.f;
  auto offset = [&](int i) { return x[i] - x0[i] + a.step * (g[i] / divisor); };
  float factor = 1.f;
  if (ONTO != CUBE) {
    const float far = sqrtf(squares(block, a.d, offset));
    if (far > radius || (ONTO == SPHERE && far > 0.f)) factor = radius / far;
  }
  block::for_each(block, 1, a.d, [&](int, int i) {
    const float z = ONTO == CUBE ? clamp(offset(i), -radius, radius) : offset(i) * factor;
    const float v = clip(x0[i] + z);
    a.y[row + i] = v == v ? v : x[i];
  });
  block::for_each(block, 1, 2, [&](int, int k) { a.told[2 * int64_t(block.index.x) + k] = k == 0 ? radius : length; });
}

}  // namespace min_norm

// grid (N)
KERNEL(ddn_step, MinNormStepArgs, 256, 1024) { min_norm::step<min_norm::SPHERE>(block, a); }
KERNEL(fmn_step_l2, MinNormStepArgs, 256, 1024) { min_norm::step<min_norm::BALL>(block, a); }
KERNEL(fmn_step_linf, MinNormStepArgs, 256, 1024) { min_norm::step<min_norm::CUBE>(block, a); }
