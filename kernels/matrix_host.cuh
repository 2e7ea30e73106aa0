// The host half of matrix.cuh: a few rows x runs of columns in registers, the depth innermost.
#pragma once

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace matrix {

// The numbers of KERNEL lines are those of CUDA; here there is room for all (SCRATCH in src/device/host.rs).
constexpr bool fits(int, int) { return true; }

#if HOST_AMX
template <class T> constexpr bool BY_TILES = sizeof(T) == 2;
#else
template <class> constexpr bool BY_TILES = false;
#endif

template <class T, int D> DEVICE int depth(int d) { return BY_TILES<T> ? (d + 31) / 32 * 32 : d; }

template <int HEIGHT, int WIDTH, class T> struct Source {
  const T* at;
  int64_t stride;

  DEVICE Source(const Block&, const T* from, int64_t stride_) : at(from), stride(stride_) {}

  DEVICE void fetch(const Block& block, const Small<T>& to, int rows, int columns, int rows_padded, int columns_padded) {
    load(block, to, at, stride, rows, columns, rows_padded, columns_padded);
    at += HEIGHT * stride;
  }
};

DEVICE void arrive(const Block&) {}

// Neighbouring columns.
struct Run {
  int first;
  DEVICE int column(int l) const { return first + l; }
  DEVICE Lanes load(const float* row, int end) const { return lanes::load(row + first, at_most(lanes::SIZE, end - first)); }
  template <class F> DEVICE Lanes look_up(const float*, const int*, F neighbours) const { return neighbours(first, lanes::SIZE); }
  DEVICE uint32_t below(int end) const { return lanes::below(end - first); }
};

struct Part {
  float* sum;
  int n;

  template <class F> DEVICE void each(F f) const {
    for (int j = 0; j < n; j += lanes::SIZE) {
      Lanes v = lanes::load(sum + j, lanes::SIZE);
      f(v, Run{j});
      lanes::store(sum + j, v, lanes::SIZE);
    }
  }
};

template <int M, class V = float> struct PerRow {
  V at[M];
  DEVICE V& operator[](int slot) { return at[slot]; }
};

// A sum over columns that are not joined yet.
using Partial = Lanes;
DEVICE Partial partial(Lanes v) { return v; }
DEVICE Partial partial(Lanes v, Partial before, float factor) { return lanes::fma(before, lanes::fill(factor), v); }

DEVICE float larger(float v) { return v; }
DEVICE float total(Partial v) { return lanes::sum(v); }
DEVICE bool is_first(const Block&) { return true; }

// to[c][r] = from[r][c] for r < rows, c < columns, both multiples of 16.
inline void turn(const float* from, int from_row, int rows, int columns, float* to, int to_row) {
#if defined(__AVX512F__)
  for (int r0 = 0; r0 < rows; r0 += 16)
    for (int c0 = 0; c0 < columns; c0 += 16) {
      __m512 row[16], pair[16], four[16], eight[16];
      UNROLL for (int i = 0; i < 16; ++i) row[i] = _mm512_loadu_ps(from + (r0 + i) * from_row + c0);
      // Within every 128 bits: values of two rows, then of four, side by side.
      UNROLL for (int i = 0; i < 16; i += 2) {
        pair[i] = _mm512_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm512_unpackhi_ps(row[i], row[i + 1]);
      }
      UNROLL for (int i = 0; i < 16; i += 4)
        UNROLL for (int k = 0; k < 2; ++k) {
          const __m512d a = _mm512_castps_pd(pair[i + k]), b = _mm512_castps_pd(pair[i + k + 2]);
          four[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
          four[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
      // four[4 q + k] holds columns k, k + 4, k + 8, k + 12 of rows 4 q to 4 q + 3; the 128-bit parts are sorted next.
      UNROLL for (int k = 0; k < 4; ++k) {
        eight[k] = _mm512_shuffle_f32x4(four[k], four[4 + k], 0x88);
        eight[4 + k] = _mm512_shuffle_f32x4(four[k], four[4 + k], 0xdd);
        eight[8 + k] = _mm512_shuffle_f32x4(four[8 + k], four[12 + k], 0x88);
        eight[12 + k] = _mm512_shuffle_f32x4(four[8 + k], four[12 + k], 0xdd);
      }
      UNROLL for (int k = 0; k < 4; ++k) {
        float* at = to + (c0 + k) * to_row + r0;
        _mm512_storeu_ps(at, _mm512_shuffle_f32x4(eight[k], eight[8 + k], 0x88));
        _mm512_storeu_ps(at + 8 * to_row, _mm512_shuffle_f32x4(eight[k], eight[8 + k], 0xdd));
        _mm512_storeu_ps(at + 4 * to_row, _mm512_shuffle_f32x4(eight[4 + k], eight[12 + k], 0x88));
        _mm512_storeu_ps(at + 12 * to_row, _mm512_shuffle_f32x4(eight[4 + k], eight[12 + k], 0xdd));
      }
    }
#elif defined(__AVX2__)
  for (int r0 = 0; r0 < rows; r0 += 8)
    for (int c0 = 0; c0 < columns; c0 += 8) {
      __m256 row[8], pair[8], four[8];
      UNROLL for (int i = 0; i < 8; ++i) row[i] = _mm256_loadu_ps(from + (r0 + i) * from_row + c0);
      // As above; four[4 q + k] holds columns k and k + 4 of rows 4 q to 4 q + 3.
      UNROLL for (int i = 0; i < 8; i += 2) {
        pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
        pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
      }
      UNROLL for (int i = 0; i < 8; i += 4)
        UNROLL for (int k = 0; k < 2; ++k) {
          four[i + 2 * k] = _mm256_shuffle_ps(pair[i + k], pair[i + k + 2], 0x44);
          four[i + 2 * k + 1] = _mm256_shuffle_ps(pair[i + k], pair[i + k + 2], 0xee);
        }
      UNROLL for (int k = 0; k < 4; ++k) {
        float* at = to + (c0 + k) * to_row + r0;
        _mm256_storeu_ps(at, _mm256_permute2f128_ps(four[k], four[4 + k], 0x20));
        _mm256_storeu_ps(at + 4 * to_row, _mm256_permute2f128_ps(four[k], four[4 + k], 0x31));
      }
    }
#else
  for (int c = 0; c < columns; ++c)
    for (int r = 0; r < rows; ++r) to[c * to_row + r] = from[r * from_row + c];
#endif
}

}  // namespace matrix

#if HOST_AMX
#include "matrix_amx.cuh"
#endif

namespace matrix {

template <int M, int N, int WARPS_M> struct Product {
  alignas(64) float sum[M][N];
  int rows_used;  // rounded up to what is multiplied together
  bool is_clear;  // then `sum` holds nothing yet

  DEVICE void clear(int rows = M) {
    rows_used = (rows + 15) / 16 * 16;
    is_clear = true;
  }

  template <class T, Second SECOND> DEVICE void add(const Block&, const Small<T>& a, const Small<T>& b, int k, int n) {
    if constexpr (BY_TILES<T>) {
#if HOST_AMX
      alignas(64) bf16 packed[128 * N], whole[M * 128];
      if constexpr (SECOND == COLUMNS) pack_columns(b.at, b.row, k, n, packed);
      else pack_rows(b.at, b.row, k, n, packed);
      if (k % amx::DEPTH == 0) {
        multiply_amx(sum[0], N, is_clear, a.at, a.row, packed, rows_used, k, n);
      } else {
        pack_left(a.at, a.row, rows_used, k, whole);
        multiply_amx(sum[0], N, is_clear, whole, padded_depth(k), packed, rows_used, k, n);
      }
      is_clear = false;
#endif
    } else if constexpr (SECOND == COLUMNS) {
      multiply_by(a, b.at, b.row, k, n);
    } else {
      alignas(64) float turned[128 * N];
      turn(b.at, b.row, n, k, turned, N);
      multiply_by(a, turned, N, k, n);
    }
  }

  template <class T, Second SECOND> DEVICE void multiply(const Block& block, const Small<T>& a, const Small<T>& b, int k, int n) {
    add<T, SECOND>(block, a, b, k, n);
  }

  template <class T, int K>
  DEVICE void add_product(const Block&, const Product<M, K, WARPS_M>& p, const Small<T>& b, int k, int n) {
    if constexpr (BY_TILES<T>) {
#if HOST_AMX
      alignas(64) bf16 packed[K * N], rounded[M * K];
      pack_columns(b.at, b.row, k, n, packed);
      pack_left(p.sum[0], K, rows_used, k, rounded);
      multiply_amx(sum[0], N, is_clear, rounded, padded_depth(k), packed, rows_used, k, n);
      is_clear = false;
#endif
    } else {
      const struct {
        const float* at;
        int row;
      } a = {p.sum[0], K};
      multiply_by(a, b.at, b.row, k, n);
    }
  }

  template <class F> DEVICE void rows(const Block&, int n, F f) {
    for (int i = 0; i < rows_used; ++i) f(i, i, Part{sum[i], n});
  }

  template <class A> DEVICE void multiply_by(const A& a, const float* b, int pitch, int k, int n) {
    int j = 0;
#if defined(__AVX512F__)
    if constexpr (N >= 4 * lanes::SIZE)
      for (; j + 4 * lanes::SIZE <= n; j += 4 * lanes::SIZE) columns<4, 4>(a, b, pitch, k, j);
    for (; j + 2 * lanes::SIZE <= n; j += 2 * lanes::SIZE) columns<8, 2>(a, b, pitch, k, j);
    for (; j < n; j += lanes::SIZE) columns<16, 1>(a, b, pitch, k, j);
#else
    for (; j + 3 * lanes::SIZE <= n; j += 3 * lanes::SIZE) columns<4, 3>(a, b, pitch, k, j);
    for (; j + 2 * lanes::SIZE <= n; j += 2 * lanes::SIZE) columns<4, 2>(a, b, pitch, k, j);
    for (; j < n; j += lanes::SIZE) columns<8, 1>(a, b, pitch, k, j);
#endif
    is_clear = false;
  }

  // PX rows by NV runs from column j on: as many independent sums as the processor has registers for, beside their factors.
  template <int PX, int NV, class A> DEVICE void columns(const A& a, const float* b, int pitch, int k, int j) {
    static_assert(M % PX == 0, "rows come in groups");
    for (int i = 0; i < rows_used; i += PX) {
      Lanes acc[PX][NV];
      UNROLL for (int p = 0; p < PX; ++p)
        UNROLL for (int v = 0; v < NV; ++v)
          acc[p][v] = is_clear ? lanes::fill(0.f) : lanes::load(&sum[i + p][j + v * lanes::SIZE], lanes::SIZE);
      for (int d = 0; d < k; ++d) {
        Lanes w[NV];
        UNROLL for (int v = 0; v < NV; ++v) w[v] = lanes::load(b + d * pitch + j + v * lanes::SIZE, lanes::SIZE);
        UNROLL for (int p = 0; p < PX; ++p) {
          const Lanes x = lanes::fill(a.at[(i + p) * a.row + d]);
          UNROLL for (int v = 0; v < NV; ++v) acc[p][v] = lanes::fma(x, w[v], acc[p][v]);
        }
      }
      UNROLL for (int p = 0; p < PX; ++p)
        UNROLL for (int v = 0; v < NV; ++v) lanes::store(&sum[i + p][j + v * lanes::SIZE], acc[p][v], lanes::SIZE);
    }
  }

  // Writes columns [0, n) as float32 rows, `pitch` apart.
  DEVICE void store(const Block&, float* to, int pitch, int n) const {
    for (int i = 0; i < rows_used; ++i)
      for (int j = 0; j < n; j += lanes::SIZE) lanes::store(to + i * pitch + j, lanes::load(&sum[i][j], lanes::SIZE), lanes::SIZE);
  }
};

}  // namespace matrix
