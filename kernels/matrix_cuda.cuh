// The CUDA half of matrix.cuh. WARPS_M x (4 / WARPS_M) warps share the sum; each keeps MT x NT tensor core tiles of it. Of a tile of
// 16 x 8 a thread has columns 2 (lane % 4) and the next, of rows lane / 4 and lane / 4 + 8.
#pragma once

namespace matrix {

constexpr bool fits(int bytes, int shared) { return bytes <= shared; }

template <class T, int D> DEVICE int depth(int d) { return sizeof(T) == 2 ? D : d; }

// This thread's 16-byte word of every APART-th row is prepared once; where a square is whole its copies are asynchronous and look at
// no bounds.
template <int HEIGHT, int WIDTH, class T> struct Source {
  static constexpr int WORD = 16 / int(sizeof(T)), WORDS = WIDTH / WORD, APART = 128 / WORDS;
  static_assert(128 % WORDS == 0 && HEIGHT % APART == 0, "four warps copy a square");

  const T *at, *word;
  int64_t stride;
  int r, c;
  bool aligned;

  DEVICE Source(const Block& block, const T* from, int64_t stride_)
      : at(from), stride(stride_), r(block.thread / WORDS), c(block.thread % WORDS * WORD),
        aligned((reinterpret_cast<uintptr_t>(from) | uintptr_t(stride_ * int(sizeof(T)))) % 16 == 0) {
    word = at + r * stride + c;
  }

  DEVICE void fetch(const Block& block, const Small<T>& to, int rows, int columns, int rows_padded, int columns_padded) {
    if (rows == HEIGHT && columns == WIDTH && aligned) {
      const uint32_t to_at = ptx::shared_address(to.at + r * to.row + c);
      UNROLL for (int i = 0; i < HEIGHT; i += APART, word += APART * stride)
        ptx::copy16(to_at + i * to.row * int(sizeof(T)), word);
    } else {
      load(block, to, at, stride, rows, columns, rows_padded, columns_padded);
    }
    at += HEIGHT * stride;
    ptx::commit();
  }
};

DEVICE void arrive(const Block&) {
  ptx::wait<0>();
  block::barrier();
}

// The columns of eight lanes: two neighbours of each of four tensor core tiles.
struct Run {
  int first;
  DEVICE int column(int l) const { return first + l / 2 * 8 + l % 2; }

  // Lane l has column(l) of a row, where that is below `end`; what the others have means nothing.
  DEVICE Lanes load(const float* row, int end) const {
    Lanes v;
    if (end >= first + 32) {
      UNROLL for (int l = 0; l < Lanes::SIZE; ++l) v.v[l] = row[column(l)];
    } else {
      UNROLL for (int l = 0; l < Lanes::SIZE; ++l) v.v[l] = column(l) < end ? row[column(l)] : 0.f;
    }
    return v;
  }

  // Lane l is what lies offset[column(l)] bytes behind `table`; the host asks neighbours(column, count) for the same.
  template <class F> DEVICE Lanes look_up(const float* table, const int* offset, F) const {
    Lanes v;
    UNROLL for (int l = 0; l < Lanes::SIZE; ++l)
      v.v[l] = *reinterpret_cast<const float*>(reinterpret_cast<const char*>(table) + offset[column(l)]);
    return v;
  }

  // The lanes whose columns lie below `end`.
  DEVICE uint32_t below(int end) const {
    uint32_t bits = 0;
    UNROLL for (int l = 0; l < Lanes::SIZE; ++l) bits |= uint32_t(column(l) < end) << l;
    return bits;
  }
};

// What a thread has of row 8 * HALF + lane / 4 of a strip of tensor core tiles.
template <int NT> struct Part {
  float (&sum)[NT][4];
  int half, first;

  template <class F> DEVICE void each(F f) const {
    static_assert(NT % 4 == 0, "runs of four tiles");
    UNROLL for (int j = 0; j < NT; j += 4) {
      Lanes v;
      UNROLL for (int l = 0; l < Lanes::SIZE; ++l) v.v[l] = sum[j + l / 2][2 * half + l % 2];
      f(v, Run{first + j * 8});
      UNROLL for (int l = 0; l < Lanes::SIZE; ++l) sum[j + l / 2][2 * half + l % 2] = v.v[l];
    }
  }
};

template <int M, class V = float> struct PerRow {
  V at[M / 32];  // four warps, four threads a row
  DEVICE V& operator[](int slot) { return at[slot]; }
};

template <class Op> DEVICE float joined(float v, Op op) {
  v = op(v, __shfl_xor_sync(~0u, v, 1));
  return op(v, __shfl_xor_sync(~0u, v, 2));
}
DEVICE float larger(float v) { return joined(v, [](float x, float y) { return lanes::larger(x, y); }); }
// A sum over the columns that this thread has.
using Partial = float;
DEVICE Partial partial(Lanes v) { return lanes::sum(v); }
DEVICE Partial partial(Lanes v, Partial before, float factor) { return before * factor + lanes::sum(v); }

DEVICE float total(float v) { return joined(v, [](float x, float y) { return x + y; }); }
DEVICE bool is_first(const Block& block) { return block.thread % 4 == 0; }

template <int M, int N, int WARPS_M> struct Product {
  static constexpr int WARPS_N = 4 / WARPS_M, WM = M / WARPS_M, WN = N / WARPS_N, MT = WM / 16, NT = WN / 8;
  static_assert(WM % 16 == 0 && WN % 16 == 0, "ldmatrix.x4 loads two 8-column tiles of b at once");

  float sum[MT][NT][4];
  int rows_used;

  DEVICE void clear(int rows = M) {
    rows_used = rows;
    UNROLL for (int i = 0; i < MT; ++i)
      UNROLL for (int j = 0; j < NT; ++j)
        UNROLL for (int e = 0; e < 4; ++e) sum[i][j][e] = 0;
  }

  // The first row and column of this thread's warp.
  static DEVICE int first_row(const Block& block) { return int(block.thread / 32) / WARPS_N * WM; }
  static DEVICE int first_column(const Block& block) { return int(block.thread / 32) % WARPS_N * WN; }

  template <class T, Second SECOND>
  DEVICE void add(const Block& block, const Small<T>& a, const Small<T>& b, int k, int n) {
    multiply_steps<T, SECOND, false, 1>(block, a, b, k, n);
    block::barrier();
  }

  template <class T, Second SECOND>
  DEVICE void multiply(const Block& block, const Small<T>& a, const Small<T>& b, int k, int n) {
    if (first_row(block) >= rows_used) return;
    if (n == N) multiply_steps<T, SECOND, true, 8>(block, a, b, k, n);
    else multiply_steps<T, SECOND, false, 1>(block, a, b, k, n);
  }

  template <class T, int K>
  DEVICE void add_product(const Block& block, const Product<M, K, WARPS_M>& p, const Small<T>& b, int k, int n) {
    static_assert(WARPS_N == 1, "a warp has all columns of its rows of p");
    if (first_row(block) >= rows_used) return;
    if (k == K) add_product_steps<T, true>(block, p, b, k, n);
    else add_product_steps<T, false>(block, p, b, k, n);
  }

  template <class F> DEVICE void rows(const Block& block, int, F f) {
    static_assert(WARPS_N == 1, "a warp has its rows alone");
    if (first_row(block) >= rows_used) return;
    const int row = first_row(block) + block.thread % 32 / 4;
    UNROLL for (int i = 0; i < MT; ++i)
      UNROLL for (int h = 0; h < 2; ++h) f(2 * i + h, row + i * 16 + h * 8, Part<NT>{sum[i], h, int(block.thread) % 4 * 2});
  }

  // WHOLE: all columns, without a look at n; STEPS along k are written out.
  template <class T, Second SECOND, bool WHOLE, int STEPS>
  DEVICE void multiply_steps(const Block& block, const Small<T>& a, const Small<T>& b, int k, int n) {
    const int m0 = first_row(block), n0 = first_column(block), lane = block.thread % 32;
    if constexpr (sizeof(T) == 2) {
      const uint32_t a_at = ptx::shared_address(a.at + (m0 + lane % 16) * a.row + lane / 16 * 8);
      // The tiles of b lie column by column (n 0-7: k 0-7, then k 8-15; n 8-15 alike), turned where k runs along its rows.
      const int half = lane / 8 % 2 * 8, column = n0 + lane / 16 * 8;
      const uint32_t b_at = ptx::shared_address(SECOND == ROWS ? b.at + (column + lane % 8) * b.row + half
                                                               : b.at + (half + lane % 8) * b.row + column);
      const uint32_t k_step = SECOND == ROWS ? 32 : 32 * b.row, n_step = SECOND == ROWS ? 32 * b.row : 32;
#pragma unroll STEPS
      for (int d = 0; d < k; d += 16) {
        uint32_t x[MT][4];
        UNROLL for (int i = 0; i < MT; ++i) ptx::load_matrices(x[i], a_at + (i * 16 * a.row + d) * 2);
        UNROLL for (int j = 0; j < NT / 2; ++j) {
          if (!WHOLE && n0 + j * 16 >= n) break;
          uint32_t y[4];
          const uint32_t from = b_at + d / 16 * k_step + j * n_step;
          if constexpr (SECOND == ROWS) ptx::load_matrices(y, from);
          else ptx::load_matrices_turned(y, from);
          UNROLL for (int i = 0; i < MT; ++i)
            UNROLL for (int h = 0; h < 2; ++h)
              ptx::mma_bf16(sum[i][2 * j + h], x[i], y[2 * h], y[2 * h + 1], sum[i][2 * j + h]);
        }
      }
    } else {
      const float* a_at = a.at + (m0 + lane / 4) * a.row + lane % 4;
      const float* b_at = SECOND == ROWS ? b.at + (n0 + lane / 4) * b.row + lane % 4 : b.at + lane % 4 * b.row + n0 + lane / 4;
      const int k_step = SECOND == ROWS ? 1 : b.row, n_step = SECOND == ROWS ? b.row : 1;
#pragma unroll 1
      for (int d = 0; d < k; d += 8) {
        uint32_t big[MT][4], small[MT][4];
        UNROLL for (int i = 0; i < MT; ++i)
          UNROLL for (int e = 0; e < 4; ++e)
            tile::split(float_to_bits(a_at[(i * 16 + e % 2 * 8) * a.row + d + e / 2 * 4]), big[i][e], small[i][e]);
        UNROLL for (int j = 0; j < NT; ++j) {
          if (!WHOLE && n0 + j * 8 >= n) break;
          add_split(j, big, small, b_at + d * k_step + j * 8 * n_step, 4 * k_step);
        }
      }
    }
  }

  // Columns j of the tiles from two values of b, `apart` elements from each other, as three TF32 products.
  DEVICE void add_split(int j, const uint32_t (&big)[MT][4], const uint32_t (&small)[MT][4], const float* b, int apart) {
    const float zero[4] = {};
    uint32_t y_big[2], y_small[2];
    UNROLL for (int e = 0; e < 2; ++e) tile::split(float_to_bits(b[e * apart]), y_big[e], y_small[e]);
    // Tensor cores truncate their sums: each step starts from 0, small terms first, and is added with rounding.
    UNROLL for (int i = 0; i < MT; ++i) {
      float part[4];
      ptx::mma_tf32(part, small[i], y_big[0], y_big[1], zero);
      ptx::mma_tf32(part, big[i], y_small[0], y_small[1], part);
      ptx::mma_tf32(part, big[i], y_big[0], y_big[1], part);
      UNROLL for (int e = 0; e < 4; ++e) sum[i][j][e] += part[e];
    }
  }

  // A sum's tiles are the first operand of the next product as they lie in the registers: of bf16 two neighbouring tiles are one
  // operand, of TF32 one tile is, with its columns in the order 0 2 4 6 1 3 5 7, which b's rows follow.
  template <class T, bool WHOLE, int K>
  DEVICE void add_product_steps(const Block& block, const Product<M, K, WARPS_M>& p, const Small<T>& b, int k, int n) {
    const int lane = block.thread % 32;
    if constexpr (sizeof(T) == 2) {
      const uint32_t b_at = ptx::shared_address(b.at + lane % 16 * b.row + lane / 16 * 8);
      UNROLL for (int d = 0; d < K; d += 16) {
        if (!WHOLE && d >= k) break;
        uint32_t x[MT][4];
        UNROLL for (int i = 0; i < MT; ++i)
          UNROLL for (int e = 0; e < 4; ++e) {
            const float* at = &p.sum[i][d / 8 + e / 2][e % 2 * 2];
            x[i][e] = ptx::pack_bf16(at[0], at[1]);
          }
        UNROLL for (int j = 0; j < NT / 2; ++j) {
          uint32_t y[4];
          ptx::load_matrices_turned(y, b_at + (d * b.row + j * 16) * 2);
          UNROLL for (int i = 0; i < MT; ++i)
            UNROLL for (int h = 0; h < 2; ++h)
              ptx::mma_bf16(sum[i][2 * j + h], x[i], y[2 * h], y[2 * h + 1], sum[i][2 * j + h]);
        }
      }
    } else {
      const float* b_at = b.at + lane % 4 * 2 * b.row + lane / 4;
      UNROLL for (int d = 0; d < K; d += 8) {
        if (!WHOLE && d >= k) break;
        uint32_t big[MT][4], small[MT][4];
        UNROLL for (int i = 0; i < MT; ++i)
          UNROLL for (int e = 0; e < 4; ++e)
            tile::split(float_to_bits(p.sum[i][d / 8][e % 2 * 2 + e / 2]), big[i][e], small[i][e]);
        UNROLL for (int j = 0; j < NT; ++j) {
          if (j * 8 >= n) break;
          add_split(j, big, small, b_at + d * b.row + j * 8, b.row);
        }
      }
    }
  }

  DEVICE void store(const Block& block, float* to, int pitch, int n) const {
    const int row = first_row(block) + block.thread % 32 / 4, column = first_column(block) + block.thread % 4 * 2;
    UNROLL for (int i = 0; i < MT; ++i)
      UNROLL for (int j = 0; j < NT; ++j)
        if (first_column(block) + j * 8 < n)
          UNROLL for (int h = 0; h < 2; ++h)
            *reinterpret_cast<float2*>(to + (row + i * 16 + h * 8) * pitch + column + j * 8) =
                make_float2(sum[i][j][2 * h], sum[i][j][2 * h + 1]);
    block::barrier();
  }
};

}  // namespace matrix
