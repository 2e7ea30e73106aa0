// The host half of matrix.cuh: a few rows x runs of columns in registers, the depth innermost.
#pragma once

namespace matrix {

template <int M, int N, int WARPS_M> struct Product {
  alignas(64) float sum[M][N];

  DEVICE void clear() { memset(sum, 0, sizeof sum); }

  template <class T, Second SECOND> DEVICE void add(const Block&, const Small<T>& a, const Small<T>& b, int k, int n) {
    if constexpr (SECOND == COLUMNS) {
      multiply(a, b.at, b.row, k, n);
    } else {
      alignas(64) float turned[128 * N];
      for (int d = 0; d < k; ++d)
        for (int j = 0; j < n; ++j) turned[d * N + j] = b.at[j * b.row + d];
      multiply(a, turned, N, k, n);
    }
  }

  template <class A> DEVICE void multiply(const A& a, const float* b, int pitch, int k, int n) {
    int j = 0;
    for (; j + 4 * lanes::SIZE <= n; j += 4 * lanes::SIZE) columns<4, 4>(a, b, pitch, k, j);
    for (; j + 2 * lanes::SIZE <= n; j += 2 * lanes::SIZE) columns<8, 2>(a, b, pitch, k, j);
    for (; j < n; j += lanes::SIZE) columns<16, 1>(a, b, pitch, k, j);
  }

  // PX rows by NV runs from column j on: 16 independent sums.
  template <int PX, int NV, class A> DEVICE void columns(const A& a, const float* b, int pitch, int k, int j) {
    static_assert(M % PX == 0, "rows come in groups");
    for (int i = 0; i < M; i += PX) {
      Lanes acc[PX][NV];
      UNROLL for (int p = 0; p < PX; ++p)
        UNROLL for (int v = 0; v < NV; ++v) acc[p][v] = lanes::load(&sum[i + p][j + v * lanes::SIZE], lanes::SIZE);
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

  // Row i is multiplied by factor[i], in columns [0, n).
  DEVICE void scale_rows(const Block&, const float* factor, int n) {
    for (int i = 0; i < M; ++i)
      for (int j = 0; j < n; j += lanes::SIZE)
        lanes::store(&sum[i][j], lanes::load(&sum[i][j], lanes::SIZE) * lanes::fill(factor[i]), lanes::SIZE);
  }

  // Writes columns [0, n) as float32 rows, `pitch` apart.
  DEVICE void store(const Block&, float* to, int pitch, int n) const {
    for (int i = 0; i < M; ++i) memcpy(to + i * pitch, sum[i], n * sizeof(float));
  }
};

}  // namespace matrix
