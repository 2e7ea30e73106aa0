// What an attack does to images between two gradients. Images are (N, d) float32 in [0, 1], d = height * width * channels.
//
//   step    x <- project(x + step * direction(g)), each profile in the order its library evaluates (ops/pgd.rs names them):
//
//     L-inf   direction sgn(g); e = clamp(z - x0, -eps, eps)
//       native, torchattacks, foolbox   z = x + step*d;        x = clip(x0 + e)
//       cleverhans                      z = clip(x + step*d);  x = clip(x0 + e)
//       art                             z = clip(x + step*d);  x = x0 + e
//     L2      N(v) = sqrt(sum v^2), e = z - x0
//       native        d = g/N(g), N(g) = m*N(g/m), m = max|g|, 0 if g is 0;  z = clip(x + step*d);  if N(e) > eps: e *= eps/N(e);  x = x0 + e
//       torchattacks  d = g/(N(g) + 1e-10);         z = x + step*d;        e *= min(eps/N(e), 1);                    x = clip(x0 + e)
//       foolbox       d = g*(1/max(N(g), 1e-12));   z = x + step*d;        e *= min(1, eps/max(N(e), 1e-12));        x = clip(x0 + e)
//       cleverhans    d = g/sqrt(max(N(g)^2, 1e-12)); z = clip(x + step*d); e *= min(1, eps/sqrt(max(N(e)^2, 1e-12))); x = clip(x0 + e)
//       art           d = g*(1/N(g)), 0 if g is 0;  z = clip(x + step*d);  e *= min(1, eps/N(e)) in float64;         x = x0 + e
//     g is first multiplied by `scale`: 1/N where a profile averages its loss over the batch, else 1.
//     art clamps L-inf offsets in float64, which gives the same float32 as the clamp here. What would be NaN stays as it was.
//     y may be x, and the momentum's y its m: an element is read before it is written, and by nothing else. Images that are done stay.
//
//   momentum  m <- decay*m + g^,  the step then takes sgn(m)
//       native, art   g^ = g / sum|g|, 0 if that is 0        torchattacks  g^ = g / mean|g|
//       foolbox       g^ = sgn(g)                            cleverhans    g^ = g / max(mean|g|, 1e-12)
//
//   start   x <- clip(x0 + offset(draw)), see PgdStartArgs and ops/pgd.rs
//   budget  what the perturbation costs, for the check of every reported point
//   gather  rows by index: compaction of a batch, and merging rows back
//   digest  128 bits of each row: two sums modulo 2^64 over i of mix(i << 32 | bits of x[i]), each mixed from a start of its own. Whole
//           numbers, so every order of summation and every device gives the same; equal digests are a hint, to be confirmed by values
//
// Sources: Madry et al. 2018 (PGD), Dong et al. 2018 (momentum), Steele et al. 2014 (SplitMix64, the mixing of a digest).
#include "attack.cuh"

// Numbers agree with `Profile` in src/ops/pgd.rs.
enum : int { NATIVE = 0, TORCHATTACKS = 1, FOOLBOX = 2, CLEVERHANS = 3, ART = 4 };

DEVICE float larger(float a, float b) { return a > b ? a : b; }
DEVICE float smaller(float a, float b) { return a < b ? a : b; }

DEVICE double bits_to_double(uint64_t u) {
  double v;
  memcpy(&v, &u, 8);
  return v;
}

// grid (ceil(d / chunk), N)
KERNEL(pgd_step_linf, PgdStepArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.y) * a.d;
  const float *x = a.x + row, *x0 = a.x0 + row, *g = a.g + row;
  float* y = a.y + row;
  const bool clip_first = a.profile == CLEVERHANS || a.profile == ART, done = a.done && a.done[block.index.y];
  for_each_of_chunk(block, a.d, a.chunk, [&](int i) {
    float z = x[i] + a.step * sgn(g[i]);
    z = clip_first ? clip(z) : z;
    const float v = x0[i] + clamp(z - x0[i], -a.eps, a.eps);
    y[i] = done ? x[i] : a.profile == ART ? v : clip(v);
  });
}

// grid (N)
KERNEL(pgd_step_l2, PgdStepArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.x) * a.d;
  const float *x = a.x + row, *x0 = a.x0 + row;
  float* y = a.y + row;
  auto g = [&](int i) { return a.g[row + i] * a.scale; };
  if (a.done && a.done[block.index.x]) {
    block::for_each(block, 1, a.d, [&](int, int i) { y[i] = x[i]; });
    return;
  }

  float divisor = 1.f, factor = 1.f;  // d = g / divisor * factor; one of them is 1
  if (a.profile == NATIVE) {
    const float m = block::max(block, 1, a.d, 0.f, [&](int, int i) { return fabsf(g(i)); });
    const float length = m > 0.f ? m * sqrtf(squares(block, a.d, [&](int i) { return g(i) / m; })) : 0.f;
    divisor = length > 0.f ? length : 1.f;
    factor = length > 0.f ? 1.f : 0.f;
  } else {
    const float sum = squares(block, a.d, g);
    if (a.profile == TORCHATTACKS) divisor = sqrtf(sum) + 1e-10f;
    if (a.profile == FOOLBOX) factor = 1.f / larger(sqrtf(sum), 1e-12f);
    if (a.profile == CLEVERHANS) divisor = sqrtf(larger(sum, 1e-12f));
    if (a.profile == ART) factor = sum > 0.f ? 1.f / sqrtf(sum) : 0.f;
  }
  const bool clip_first = a.profile != TORCHATTACKS && a.profile != FOOLBOX, clip_last = a.profile != NATIVE && a.profile != ART;
  auto offset = [&](int i) {
    const float d = g(i) / divisor * factor;
    const float z = x[i] + a.step * (d == d ? d : 0.f);
    return (clip_first ? clip(z) : z) - x0[i];
  };

  const float sum = squares(block, a.d, offset), length = sqrtf(sum);
  float shrink = 1.f;
  double shrink64 = 1.;
  if (a.profile == NATIVE && length > a.eps) shrink = a.eps / length;
  if (a.profile == TORCHATTACKS) shrink = smaller(a.eps / length, 1.f);
  if (a.profile == FOOLBOX) shrink = smaller(1.f, a.eps / larger(length, 1e-12f));
  if (a.profile == CLEVERHANS) shrink = smaller(1.f, a.eps / sqrtf(larger(sum, 1e-12f)));
  if (a.profile == ART) {
    const double ratio = bits_to_double(a.eps64) / double(length);
    shrink64 = length > 0.f ? (ratio < 1. ? ratio : 1.) : 0.;
  }
  block::for_each(block, 1, a.d, [&](int, int i) {
    const float e = offset(i);
    const float v = x0[i] + (a.profile == ART ? float(double(e) * shrink64) : e * shrink);
    const float w = clip_last ? clip(v) : v;
    y[i] = w == w ? w : x[i];
  });
}

// grid (N)
KERNEL(pgd_momentum, PgdMomentumArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.x) * a.d;
  float* y = a.y + row;
  auto g = [&](int i) { return a.g[row + i] * a.scale; };
  float divisor = 1.f;
  if (a.profile != FOOLBOX) divisor = total(block, a.d, [&](int i) { return fabsf(g(i)); });
  if (a.profile == TORCHATTACKS) divisor = divisor / float(a.d);
  if (a.profile == CLEVERHANS) divisor = larger(divisor / float(a.d), 1e-12f);
  const bool none = (a.profile == NATIVE || a.profile == ART) && !(divisor > 0.f && divisor < INFINITY);
  block::for_each(block, 1, a.d, [&](int, int i) {
    const float ghat = a.profile == FOOLBOX ? sgn(g(i)) : none ? 0.f : g(i) / divisor;
    y[i] = a.m ? a.decay * a.m[row + i] + ghat : ghat;
  });
}

// draw: L-inf and cleverhans' L2 take uniforms in [0, 1), the other L2 starts standard normals. extra: per image,
// native u^(1/d); torchattacks the radius in [0, 1); foolbox two more normals; art its float64 factor as high + low. grid (N)
KERNEL(pgd_start, PgdStartArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.x) * a.d;
  const float *u = a.draw + row, *x0 = a.x0 + row, *extra = a.extra + 2 * int64_t(block.index.x);
  const double eps64 = bits_to_double(a.eps64);
  float* y = a.y + row;
  auto put = [&](int i, float offset) { y[i] = clip(x0[i] + offset); };

  if (!a.l2) {
    block::for_each(block, 1, a.d, [&](int, int i) {
      if (a.profile == NATIVE)
        put(i, a.eps * (2.f * u[i] - 1.f));
      else if (a.profile == ART)
        put(i, float(-eps64 + (eps64 + eps64) * double(u[i])));
      else
        put(i, clamp(u[i] * (2.f * a.eps) - a.eps, -a.eps, a.eps));
    });
    return;
  }
  if (a.profile == CLEVERHANS) {
    auto offset = [&](int i) { return clamp(u[i] * (2.f * a.eps) - a.eps, -a.eps, a.eps); };
    const float shrink = smaller(1.f, a.eps / sqrtf(larger(squares(block, a.d, offset), 1e-12f)));
    block::for_each(block, 1, a.d, [&](int, int i) { put(i, offset(i) * shrink); });
    return;
  }
  const float more = a.profile == FOOLBOX ? extra[0] * extra[0] + extra[1] * extra[1] : 0.f;
  const float length = sqrtf(squares(block, a.d, [&](int i) { return u[i]; }) + more);
  const double factor64 = double(extra[0]) + double(extra[1]);
  block::for_each(block, 1, a.d, [&](int, int i) {
    float offset = 0.f;  // for a draw of nothing but zeros
    if (length > 0.f) {
      if (a.profile == NATIVE) offset = a.eps * u[i] / length * extra[0];
      if (a.profile == TORCHATTACKS) offset = u[i] * (extra[0] / length * a.eps);
      if (a.profile == FOOLBOX) offset = a.eps * (u[i] / length);
      if (a.profile == ART) offset = float(double(u[i]) * factor64);
    }
    put(i, offset);
  });
}

// y[n] = max|x - x0|, norm2(x - x0), min x, max x. A NaN shows in the norm. grid (N)
KERNEL(pgd_budget, PgdBudgetArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.x) * a.d;
  const float *x = a.x + row, *x0 = a.x0 + row;
  auto largest = [&](auto f) { return block::max(block, 1, a.d, -INFINITY, [&](int, int i) { return f(i); }); };
  const float linf = largest([&](int i) { return fabsf(x[i] - x0[i]); });
  const float l2 = sqrtf(squares(block, a.d, [&](int i) { return x[i] - x0[i]; }));
  const float low = -largest([&](int i) { return -x[i]; }), high = largest([&](int i) { return x[i]; });
  block::for_each(block, 1, 4, [&](int, int k) {
    a.y[4 * int64_t(block.index.x) + k] = k == 0 ? linf : k == 1 ? l2 : k == 2 ? low : high;
  });
}

// y[n] = index[n] >= 0 ? a[index[n]] : b[n]. grid (ceil(d / chunk), N)
KERNEL(gather_rows, GatherRowsArgs, 256, 1024) {
  const int32_t index = a.index[block.index.y];
  const int64_t row = int64_t(block.index.y) * a.d;
  const float* from = index >= 0 ? a.a + int64_t(index) * a.d : a.b + row;
  for_each_of_chunk(block, a.d, a.chunk, [&](int i) { a.y[row + i] = from[i]; });
}

// SplitMix64.
DEVICE uint64_t mix(uint64_t v) {
  v = (v ^ (v >> 30)) * 0xBF58476D1CE4E5B9ull;
  v = (v ^ (v >> 27)) * 0x94D049BB133111EBull;
  return v ^ (v >> 31);
}

struct Digest {
  uint64_t first, second;
};

constexpr int DIGEST_ROWS = 8;  // of one block: a warp each

// grid (ceil(N / DIGEST_ROWS))
KERNEL(row_digest, RowDigestArgs, 256, 1024) {
  const auto rows = block::share(block.index.x, DIGEST_ROWS, int64_t(a.n));
  const float* x = a.x + rows.first * a.d;
  uint32_t* y = a.y + rows.first * 4;
  block::fold_rows(block, rows.count, a.d,
                   fold::Rows{
                       fold::Start{Digest{0, 0}},
                       fold::Step{[&](Digest& s, int r, int c, int count) {
                         for (int i = c; i < c + count; ++i) {
                           const uint64_t v = uint64_t(i) << 32 | float_to_bits(x[int64_t(r) * a.d + i]);
                           s.first += mix(v + 0x9E3779B97F4A7C15ull);
                           s.second += mix(v + 0x3C6EF372FE94F82Aull);
                         }
                       }},
                       fold::Collapse{[](const Digest& s) { return s; }},
                       fold::Merge{[](Digest& s, const Digest& other) { s.first += other.first, s.second += other.second; }},
                       fold::Finish{[&](int r, const Digest& s) {
                         y[4 * r] = uint32_t(s.first), y[4 * r + 1] = uint32_t(s.first >> 32);
                         y[4 * r + 2] = uint32_t(s.second), y[4 * r + 3] = uint32_t(s.second >> 32);
                       }},
                   });
}
