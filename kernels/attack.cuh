// What the kernels of attacks share. Images are (N, d) float32 in [0, 1]. Sums run over d/32 partial sums of 32 values, whose rounding
// errors do not build up, in one block per image without atomics: an image's result does not depend on its batch. What needs no sum
// takes several blocks per image.
#pragma once
#include "block.cuh"

DEVICE float sgn(float v) { return float(v > 0.f) - float(v < 0.f); }
DEVICE float clip(float v) { return clamp(v, 0.f, 1.f); }

// The sum of f(i) for i < d.
template <class F> DEVICE float total(const Block& block, int d, F f) {
  constexpr int PER_SUM = 32;
  const int sums = (d + PER_SUM - 1) / PER_SUM;
  return block::sum(block, 1, sums, [&](int, int s) {
    float v = 0.f;
    for (int i = s; i < d; i += sums) v += f(i);
    return v;
  });
}

template <class F> DEVICE float squares(const Block& block, int d, F f) {
  return total(block, d, [&](int i) {
    const float v = f(i);
    return v * v;
  });
}

// f(i) for the part of a row that belongs to this block; grid (ceil(d / chunk), N).
template <class F> DEVICE void for_each_of_chunk(const Block& block, int d, int chunk, F f) {
  const auto own = block::share(block.index.x, chunk, d);
  block::for_each(block, 1, own.count, [&](int, int i) { f(own.first + i); });
}
