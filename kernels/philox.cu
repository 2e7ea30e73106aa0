// Fills tensors with counter-based random numbers (philox.cuh): y[n, i] belongs to element i of the image with id[n].
#include "block.cuh"
#include "philox.cuh"

// four(words, values): four values from four words.
template <class F> DEVICE void fill(const Block& block, const PhiloxFillArgs& a, F four) {
  const auto own = block::share(block.index.x, a.quads_per_block, (a.d + 3) / 4);
  const uint32_t* id = a.ids + 2 * int64_t(block.index.y);
  float* y = a.y + int64_t(block.index.y) * a.d;
  block::for_each(block, 1, own.count, [&](int, int i) {
    const int quad = own.first + i;
    float v[4];
    four(philox::at(a.stream, id, quad), v);
    for (int k = 0; k < 4; ++k)
      if (4 * quad + k < a.d) y[4 * quad + k] = v[k];
  });
}

// grid (ceil(ceil(d / 4) / quads_per_block), N)
KERNEL(philox_uniform, PhiloxFillArgs, 256, 1024) {
  fill(block, a, [](const philox::Words& w, float* v) {
    for (int i = 0; i < 4; ++i) v[i] = philox::uniform(w.v[i]);
  });
}

// grid as philox_uniform
KERNEL(philox_normal, PhiloxFillArgs, 256, 1024) {
  fill(block, a, [](const philox::Words& w, float* v) {
    philox::normal_pair(w.v[0], w.v[1], v);
    philox::normal_pair(w.v[2], w.v[3], v + 2);
  });
}

// The bare generator, for known-answer tests. grid (1)
KERNEL(philox_words, PhiloxWordsArgs, 32, 1024) {
  block::for_each(block, 1, a.n, [&](int, int i) {
    const uint32_t* from = a.from + 6 * int64_t(i);
    const philox::Words w = philox::generate({{from[0], from[1], from[2], from[3]}}, from[4], from[5]);
    for (int k = 0; k < 4; ++k) a.words[4 * int64_t(i) + k] = w.v[k];
  });
}
