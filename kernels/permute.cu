// A copy whose source is walked by strides: any order of axes, and axes repeated with a stride of 0. float32 or bf16.
//
//   y[i0, .., i4, c] = x[i0 s0 + .. + i4 s4 + c s]
//
// y is contiguous. The gradient of another order is the copy in the inverse order; that of repeated axes is a sum, which `resize.cu`
// does. Bits are moved as they are.
#include "walk.cuh"

template <class T> DEVICE void permute(const Block& block, const PermuteArgs& p) {
  const auto rows = block::share(block.index.x, p.rows_per_block, p.rows);
  block::for_each_run(block, rows.count, p.c, [&](int r, int c, int count) {
    const int64_t row = rows.first + r;
    const T* x = static_cast<const T*>(p.x) + walk::place(uint32_t(row), p.walk, p.steps) + int64_t(c) * p.step;
    lanes::store(static_cast<T*>(p.y) + row * p.c + c, walk::load(x, p.step, count), count);
  });
}

// grid (ceil(rows / rows_per_block))
KERNEL(permute_f32, PermuteArgs, 256, 1024) { permute<float>(block, a); }
KERNEL(permute_bf16, PermuteArgs, 256, 1024) { permute<bf16>(block, a); }
