// Elementwise kernels over (rows, c). Each thread takes runs of neighbouring channels.
#include "activation.cuh"
#include "block.cuh"

// y = (a + b) * keep: joins two gradients of one tensor and applies the mask of the activation that made it.
template <class T> DEVICE void accumulate(const Block& block, const AccumulateArgs& p) {
  const int64_t first = int64_t(block.index.x) * p.rows_per_block;
  const int rows = int(p.rows - first < p.rows_per_block ? p.rows - first : p.rows_per_block);
  block::for_each_run(block, rows, p.c, [&](int r, int c, int count) {
    const int64_t at = (first + r) * p.c + c;
    Lanes v = lanes::load(static_cast<const T*>(p.a) + at, count);
    if (p.b) v = v + lanes::load(static_cast<const T*>(p.b) + at, count);
    if (p.keep) {
      const uint32_t bits = lanes::load_bits(p.keep + (first + r) * lanes::mask_stride(p.c), c);
      v = lanes::select(bits, v, lanes::fill(0.f));
    }
    lanes::store(static_cast<T*>(p.y) + at, v, count);
  });
}

// grid (ceil(rows / rows_per_block))
KERNEL(accumulate_f32, AccumulateArgs, 256, 1024) { accumulate<float>(block, a); }
KERNEL(accumulate_bf16, AccumulateArgs, 256, 1024) { accumulate<bf16>(block, a); }
