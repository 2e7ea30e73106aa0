// Block-wide tile products: the main loop of everything shaped like a matrix product, convolutions included.
//
//   C[m, n] = sum over taps t and channels c of A(m, t)[c] * B[n, t, c]
//
// Row m of A is not a row of a matrix in memory: at tap t = (i, j) it is a run of `channels` neighbouring values that starts at
// a + row(m).offset + i * step_r + j * step_s, or zeros where the tap lies outside the image. A matrix product has one tap.
// B is packed once, at load, into the order each target reads (pack_index below).
//
//   CUDA  tile_cuda.cuh   a block computes BM x BN with mma.sync from a multi-stage cp.async pipeline; f32 as 3xTF32
//   HOST  tile_host.cuh   a block computes m_tile x n_tile with register-blocked vector code; bf16 by the processor's own
//                         instructions where it has them (AMX: tile_amx.cuh, else AVX-512 BF16), otherwise widened to float32
//
// Sums run over taps, then channels, in ascending steps and for every row alike: the result for one row never depends on which
// other rows share its tile. All targets accumulate in float32.
#pragma once
#include "block.cuh"

namespace tile {

// Where output row m reads. Bit i of `rows` (bit j of `cols`) is set where tap row i (column j) lies inside the image.
struct Row {
  int64_t offset;  // elements from `a` to tap (0, 0), channel 0; may point outside when that tap is masked out
  uint32_t rows;
  uint32_t cols;
};

struct Taps {
  int r, s;                // at most 32 each
  int64_t step_r, step_s;  // elements from one tap row (column) to the next
};

template <class T> struct Operands {
  const T* a;
  const void* b;  // packed, of this group
  int m, n;       // rows and columns of C
  int channels;
  Taps taps;
  int m_tile, n_tile;  // host only: what one block computes
};

}  // namespace tile

#if TARGET_CUDA
#include "tile_cuda.cuh"
#else
#include "tile_host.cuh"
#endif

// Each target defines
//
//   template <class T, class Shape, class RowOf, class Out>
//   DEVICE void tile::product(const Block&, const tile::Operands<T>&, RowOf row, Out out);
//
// which computes the block's tile (tile number block.index.x, columns fastest) and hands every finished run of
// neighbouring columns to out(m)(n, Lanes value, int count), count <= Lanes::SIZE, n a multiple of Lanes::SIZE: out(m) works
// out where row m goes, once for many runs; and
//
//   template <class T> tile::Packed<T>::type, and DEVICE int64_t tile::pack_index<T>(const PackArgs&, g, o, tap, c)
//
// the element type of packed weights, and where weight (g, o, tap, c) lies among them.
