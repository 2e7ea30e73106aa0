// Products of small matrices that a block keeps in shared memory, for kernels that chain several (attention.cu).
//
//   Small<T>               a matrix in shared memory, rows `row` elements apart; on the host its elements are
//                          float32 where nothing multiplies bf16
//   load(...)              fills one from global memory, zeros around it
//   Product<M, N, WARPS_M> an M x N sum in registers (on the host: on the stack):
//                            clear(rows)                   rows from `rows` on are nobody's, and may be left out
//                            add<T, ROWS>(a, b, k, n)      += a[M, k] * b[n, k]^T     b's rows are the columns of the sum
//                            add<T, COLUMNS>(a, b, k, n)   += a[M, k] * b[k, n]
//                            store(to, n)
//   fits(bytes, shared)    whether the shared memory of a KERNEL line serves a layout
//
// and for products whose rows are worked on where they are, with WARPS_M = 4, so that on CUDA four threads of a warp have a row:
//
//   Source<H, W, T>        a matrix in global memory, from whose H x W squares fetch(...) begins to load the next
//   arrive()               waits for all that was fetched
//   Product                  multiply<T, SECOND>(a, b, k, n)  as add, but without its barrier
//                            add_product<T>(p, b, k, n)    += p[M, k] * b[k, n], p another product, rounded to T
//                            rows(n, f)                    f(slot, row, part) for every row; part.each(g) calls g(Lanes& v, run) for
//                                                          columns run.column(lane) of it, and puts v back;
//   fold(part, g, op)      joins what g(v) has left of a part by op
//   PerRow<M, V>           a value of every row, where the row is: indexed by slot
//   larger(v), total(v)    of what the threads of a row have; Partial and partial(...) are what one has of a sum
//   is_first(block)        whether this thread speaks for its rows
//   depth<T, D>(d)         how much of D the multiplications take: all where that is a constant of the code, else d
//
// k and n are multiples of 16 up to the matrices' sizes; what columns from n on hold means nothing. Every function that touches
// shared memory ends in a barrier, but for those of the second list: between a read and a fetch to the same place lies an arrive().
//
//   CUDA   4 warps, WARPS_M of them along M, mma.sync; float32 as three TF32 products
//   HOST   vector code over runs of columns; bf16 by matrix units (AMX) where there are any, which round p to bf16 as CUDA does
#pragma once
#include "block.cuh"
#if TARGET_CUDA
#include "tile.cuh"
#endif

namespace matrix {

enum Second { ROWS, COLUMNS };

#if TARGET_CUDA || HOST_AMX
template <class T> struct Stored { using type = T; };
#else
template <class T> struct Stored { using type = float; };
#endif

template <class T> struct Small {
  using Element = typename Stored<T>::type;
  // 16 bytes more than a power of two: rows start in different banks.
  static constexpr int GAP = 16 / int(sizeof(Element));
  static constexpr int bytes(int rows, int columns) { return rows * (columns + GAP) * int(sizeof(Element)); }

  Element* at;
  int row;  // elements from one row to the next

  DEVICE Small(unsigned char* memory, int columns) : at(reinterpret_cast<Element*>(memory)), row(columns + GAP) {}
};

// Rows [0, rows) x columns [0, columns) from memory whose rows are `stride` elements apart; zeros up to the padded sizes.
template <class T>
DEVICE void load(const Block& block, const Small<T>& to, const T* from, int64_t stride, int rows, int columns, int rows_padded,
                 int columns_padded) {
  block::for_each_run(block, rows_padded, columns_padded, [&](int r, int c, int count) {
    const int left = r < rows ? columns - c : 0;
    const Lanes v = left > 0 ? lanes::load(from + r * stride + c, left < count ? left : count) : lanes::fill(0.f);
    lanes::store(to.at + r * to.row + c, v, count);
  });
}

// What g(v) has left of a part of a row, joined by op.
template <class Part, class G, class Op> DEVICE Lanes fold(const Part& part, G g, Op op) {
  Lanes all;
  bool is_first = true;  // on CUDA a constant, for the loop is written out
  part.each([&](Lanes& v, const auto&) {
    g(v);
    all = is_first ? v : op(all, v);
    is_first = false;
  });
  return all;
}

}  // namespace matrix

#if TARGET_CUDA
#include "matrix_cuda.cuh"
#else
#include "matrix_host.cuh"
#endif
