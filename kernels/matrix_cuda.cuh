// The CUDA half of matrix.cuh. WARPS_M x (4 / WARPS_M) warps share the sum; each keeps MT x NT tensor core tiles of it.
#pragma once

namespace matrix {

constexpr bool fits(int bytes, int shared) { return bytes <= shared; }

template <int M, int N, int WARPS_M> struct Product {
  static constexpr int WARPS_N = 4 / WARPS_M, WM = M / WARPS_M, WN = N / WARPS_N, MT = WM / 16, NT = WN / 8;
  static_assert(WM % 16 == 0 && WN % 16 == 0, "ldmatrix.x4 loads two 8-column tiles of b at once");

  float sum[MT][NT][4];

  DEVICE void clear() {
    UNROLL for (int i = 0; i < MT; ++i)
      UNROLL for (int j = 0; j < NT; ++j)
        UNROLL for (int e = 0; e < 4; ++e) sum[i][j][e] = 0;
  }

  // The first row and column of this thread's warp.
  static DEVICE int first_row(const Block& block) { return int(block.thread / 32) / WARPS_N * WM; }
  static DEVICE int first_column(const Block& block) { return int(block.thread / 32) % WARPS_N * WN; }

  template <class T, Second SECOND>
  DEVICE void add(const Block& block, const Small<T>& a, const Small<T>& b, int k, int n) {
    const int m0 = first_row(block), n0 = first_column(block), lane = block.thread % 32;
    if constexpr (sizeof(T) == 2) {
      const uint32_t a_at = ptx::shared_address(a.at + (m0 + lane % 16) * a.row + lane / 16 * 8);
      // The tiles of b lie column by column (n 0-7: k 0-7, then k 8-15; n 8-15 alike), turned where k runs along its rows.
      const int half = lane / 8 % 2 * 8, column = n0 + lane / 16 * 8;
      const uint32_t b_at = ptx::shared_address(SECOND == ROWS ? b.at + (column + lane % 8) * b.row + half
                                                               : b.at + (half + lane % 8) * b.row + column);
      const uint32_t k_step = SECOND == ROWS ? 32 : 32 * b.row, n_step = SECOND == ROWS ? 32 * b.row : 32;
#pragma unroll 1
      for (int d = 0; d < k; d += 16) {
        uint32_t x[MT][4];
        UNROLL for (int i = 0; i < MT; ++i) ptx::load_matrices(x[i], a_at + (i * 16 * a.row + d) * 2);
        UNROLL for (int j = 0; j < NT / 2; ++j) {
          if (n0 + j * 16 >= n) break;
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
      const float zero[4] = {};
#pragma unroll 1
      for (int d = 0; d < k; d += 8) {
        uint32_t big[MT][4], small[MT][4];
        UNROLL for (int i = 0; i < MT; ++i)
          UNROLL for (int e = 0; e < 4; ++e)
            tile::split(float_to_bits(a_at[(i * 16 + e % 2 * 8) * a.row + d + e / 2 * 4]), big[i][e], small[i][e]);
        UNROLL for (int j = 0; j < NT; ++j) {
          if (n0 + j * 8 >= n) break;
          uint32_t y_big[2], y_small[2];
          UNROLL for (int e = 0; e < 2; ++e)
            tile::split(float_to_bits(b_at[(d + e * 4) * k_step + j * 8 * n_step]), y_big[e], y_small[e]);
          // Tensor cores truncate their sums: each step starts from 0, small terms first, and is added with rounding.
          UNROLL for (int i = 0; i < MT; ++i) {
            float part[4];
            ptx::mma_tf32(part, small[i], y_big[0], y_big[1], zero);
            ptx::mma_tf32(part, big[i], y_small[0], y_small[1], part);
            ptx::mma_tf32(part, big[i], y_big[0], y_big[1], part);
            UNROLL for (int e = 0; e < 4; ++e) sum[i][j][e] += part[e];
          }
        }
      }
    }
    block::barrier();
  }

  // All columns: those from n on hold nothing anyone reads.
  DEVICE void scale_rows(const Block& block, const float* factor, int) {
    const int row = first_row(block) + block.thread % 32 / 4;
    UNROLL for (int i = 0; i < MT; ++i)
      UNROLL for (int h = 0; h < 2; ++h) {
        const float f = factor[row + i * 16 + h * 8];
        UNROLL for (int j = 0; j < NT; ++j)
          UNROLL for (int e = 0; e < 2; ++e) sum[i][j][2 * h + e] *= f;
      }
    block::barrier();
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
