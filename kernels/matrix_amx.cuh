// Products of matrix_host.cuh for bf16 on the matrix units of x86 (AMX): 16 x 16 tiles of the sum, 32 of the depth per step.
// The second factor is packed first: (column tile, step, pair of the depth, column, which of the pair).
#pragma once
#include "amx.cuh"

namespace matrix {

DEVICE int amx_steps(int k) { return (k + amx::DEPTH - 1) / amx::DEPTH; }

DEVICE int padded_depth(int k) { return amx_steps(k) * amx::DEPTH; }

// The first factor as bf16, zeros from k on.
template <class T> inline void pack_left(const T* from, int row, int m, int k, bf16* to) {
  const int width = padded_depth(k);
  for (int i = 0; i < m; ++i)
    for (int c = 0; c < width; c += lanes::SIZE) {
      const Lanes v = c < k ? lanes::load(from + i * row + c, lanes::SIZE) : lanes::fill(0.f);
      lanes::store(to + i * width + c, v, lanes::SIZE);
    }
}

// From rows that are columns of the sum, zeros from k on: pairs lie side by side and are turned as if each were a float.
inline void pack_rows(const bf16* from, int row, int k, int n, bf16* to) {
  const int steps = amx_steps(k);
  for (int j = 0; j < n; j += amx::ROWS)
    for (int s = 0; s < steps; ++s, to += amx::TILE) {
      const int pairs = at_most(amx::DEPTH, k - s * amx::DEPTH) / 2;
      alignas(64) float part[amx::ROWS][amx::DEPTH / 2];
      const __mmask16 inside = (1u << pairs) - 1;
      for (int i = 0; i < amx::ROWS; ++i)
        _mm512_store_si512(part[i], _mm512_maskz_loadu_epi32(inside, from + (j + i) * row + s * amx::DEPTH));
      turn(part[0], amx::DEPTH / 2, amx::ROWS, amx::DEPTH / 2, reinterpret_cast<float*>(to), amx::ROWS);
    }
}

// From rows of the depth, zeros from k on: two of them are put together value by value.
inline void pack_columns(const bf16* from, int row, int k, int n, bf16* to) {
  const int steps = amx_steps(k);
  for (int j = 0; j < n; j += amx::ROWS)
    for (int s = 0; s < steps; ++s)
      for (int i = 0; i < amx::DEPTH; i += 2, to += 2 * amx::ROWS) {
        __m512i pair = _mm512_setzero_si512();
        if (const int d = s * amx::DEPTH + i; d < k) {
          const bf16* at = from + d * row + j;
          const auto load = [](const bf16* p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); };
          pair = _mm512_or_si512(load(at), _mm512_slli_epi32(load(at + row), 16));
        }
        _mm512_store_si512(to, pair);
      }
}

// sum[m, n] += a[m, k] b[k, n], or = where the sum is clear, with b packed; rows of a and of the sum lie `a_row` and `row` elements apart, and a is 0 or finite up to
// the end of the last step.
inline void multiply_amx(float* sum, int row, bool is_clear, const bf16* a, int a_row, const bf16* b, int m, int k, int n) {
  const int steps = amx_steps(k);
  static constexpr amx::TileConfig config;
  _tile_loadconfig(&config);
  for (int j = 0; j < n; j += 2 * amx::ROWS)
    for (int i = 0; i < m; i += 2 * amx::ROWS) {
      // Where one tile is left of rows or columns, it stands for both.
      const int below = i + amx::ROWS < m ? amx::ROWS : 0, right = j + amx::ROWS < n ? amx::ROWS : 0;
      float* const at = sum + i * row + j;
      const bf16 *left = a + i * a_row, *top = b + j / amx::ROWS * steps * amx::TILE, *next = right ? top + steps * amx::TILE : top;
      const int bytes = row * 4, a_bytes = a_row * 2;
      if (is_clear) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
      } else {
        _tile_loadd(0, at, bytes);
        _tile_loadd(1, at + right, bytes);
        _tile_loadd(2, at + below * row, bytes);
        _tile_loadd(3, at + below * row + right, bytes);
      }
      for (int s = 0; s < steps; ++s, left += amx::DEPTH, top += amx::TILE, next += amx::TILE) {
        _tile_loadd(4, left, a_bytes);
        _tile_loadd(6, top, 64);
        _tile_loadd(7, next, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, left + below * a_row, a_bytes);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(3, at + below * row + right, bytes);
      _tile_stored(2, at + below * row, bytes);
      _tile_stored(1, at + right, bytes);
      _tile_stored(0, at, bytes);
    }
  _tile_release();
}

}  // namespace matrix
