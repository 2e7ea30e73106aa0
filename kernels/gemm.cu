// Matrix products on tensor cores: y[b] = act(x[b] * w[b]^T + bias + residual) * keep. Row-major.
//
//   x (batch, m, k)    w (batch or 1, n, k), packed    y (batch, m, n)
//
// A fully connected layer has one packed w and all rows in one batch; its input gradient is the same product with w
// transposed. Accumulates in float32, k ascending; sums of tens of thousands are several products, each added to the last by
// `residual`, with `x_row` the length of a whole row. Deterministic: one writer per output.
#include "epilogue.cuh"
#include "tile.cuh"

template <class T, class Shape> DEVICE void gemm(const Block& block, const GemmArgs& a) {
  const int batch = block.index.z, bit_row = lanes::mask_stride(a.n);
  const int64_t first = int64_t(batch) * a.m;  // row of y

  auto row = [&](int m) { return tile::Row{m * a.x_row, 1, 1}; };

  auto out = [&](int m) {
    return [&a, at = (first + m) * a.n, bits = (first + m) * bit_row](int n, Lanes value, int count) {
      epilogue::store<T>(a, n, at + n, bits, value, count);
    };
  };

  const tile::Operands<T> operands = {
      static_cast<const T*>(a.x) + batch * a.x_batch,
      static_cast<const typename tile::Packed<T>::type*>(a.w) + batch * a.w_batch,
      a.m, a.n, a.k, {1, 1, 0, 0}, a.m_tile, a.n_tile};
  tile::product<T, Shape>(block, operands, row, out);
}

// grid (tiles of m x n, 1, batch)
KERNEL(gemm_f32, GemmArgs, 128, 24576) { gemm<float, tile::Shape<64, 64>>(block, a); }
KERNEL(gemm_bf16, GemmArgs, 128, 24576) { gemm<bf16, tile::Shape<64, 64>>(block, a); }
static_assert(tile::fits<tile::Shape<64, 64>>(128, 24576), "threads and shared bytes of the KERNEL lines serve their shape");
