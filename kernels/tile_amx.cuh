// bf16 tile products on the matrix units of x86 (AMX): 16 x 16 tiles of C, 32 channels per step, float32 accumulation.
// Rows are gathered once per block into tiles of 16 rows x 32 channels; a step multiplies 2 x 2 tiles.
#pragma once
#include "amx.cuh"

namespace tile {

constexpr int AMX_ROWS = amx::ROWS, AMX_DEPTH = amx::DEPTH, AMX_TILE = amx::TILE, AMX_PANEL = 32;

// (group, panel of 32 columns, tap, block of 32 channels, half panel, pair of channels, column, which of the pair)
DEVICE int64_t pack_index_amx(const PackArgs& a, int g, int o, int tap, int c) {
  const int64_t panels = (a.o + AMX_PANEL - 1) / AMX_PANEL, blocks = a.c_pad / AMX_DEPTH;
  const int64_t step = ((g * panels + o / AMX_PANEL) * a.taps + tap) * blocks + c / AMX_DEPTH;
  return (step * 2 + o % AMX_PANEL / 16) * AMX_TILE + c % AMX_DEPTH / 2 * 32 + o % 16 * 2 + c % 2;
}

// 16 rows x all taps and channels, as consecutive operand tiles.
template <class RowOf>
inline void gather_amx(const Operands<bf16>& p, RowOf row, int m0, int m1, bf16* to) {
  const int blocks = (p.channels + AMX_DEPTH - 1) / AMX_DEPTH, whole = p.channels / AMX_DEPTH;
  const __mmask32 tail = (1u << p.channels % AMX_DEPTH) - 1;
  Row rows[AMX_ROWS];
  for (int i = 0; i < AMX_ROWS; ++i) rows[i] = row_or_none(row, m0 + i, m1);
  for (int r = 0; r < p.taps.r; ++r)
    for (int s = 0; s < p.taps.s; ++s) {
      const bf16* from[AMX_ROWS];
      for (int i = 0; i < AMX_ROWS; ++i) {
        const bool inside = rows[i].rows >> r & rows[i].cols >> s & 1;
        from[i] = inside ? p.a + rows[i].offset + r * p.taps.step_r + s * p.taps.step_s : reinterpret_cast<const bf16*>(zeros);
      }
      for (int b = 0; b < blocks; ++b, to += AMX_TILE) {
        const __mmask32 mask = b < whole ? ~0u : tail;
        UNROLL for (int i = 0; i < AMX_ROWS; ++i)
          _mm512_store_si512(to + i * AMX_DEPTH, _mm512_maskz_loadu_epi16(mask, from[i] + b * AMX_DEPTH));
      }
    }
}

template <class RowOf, class Out>
inline void product_amx(const Block& block, const Operands<bf16>& p, RowOf row, Out out) {
  const Extent e = extent(p, block.index.x);
  const int steps = p.taps.r * p.taps.s * ((p.channels + AMX_DEPTH - 1) / AMX_DEPTH);
  alignas(64) float result[2 * AMX_ROWS][AMX_PANEL];
  const auto gathered = reinterpret_cast<bf16*>(block.shared);
  const int64_t strip = int64_t(steps) * AMX_TILE;  // elements per 16 gathered rows
  for (int m = e.m0, t = 0; m < e.m1; m += AMX_ROWS, ++t) gather_amx(p, row, m, e.m1, gathered + t * strip);

  static constexpr amx::TileConfig config;
  _tile_loadconfig(&config);
  for (int n = e.n0; n < e.n1; n += AMX_PANEL) {
    const auto panel = static_cast<const bf16*>(p.b) + int64_t(n / AMX_PANEL) * steps * 2 * AMX_TILE;
    for (int m = e.m0, t = 0; m < e.m1; m += 2 * AMX_ROWS, t += 2) {
      const bool both = m + AMX_ROWS < e.m1;
      const bf16 *a0 = gathered + t * strip, *a1 = both ? a0 + strip : a0, *b = panel;
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
      for (int k = 0; k < steps; ++k, a0 += AMX_TILE, a1 += AMX_TILE, b += 2 * AMX_TILE) {
        _tile_loadd(4, a0, 64);
        _tile_loadd(6, b, 64);
        _tile_loadd(7, b + AMX_TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a1, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      _tile_stored(0, &result[0][0], sizeof result[0]);
      _tile_stored(1, &result[0][16], sizeof result[0]);
      _tile_stored(2, &result[16][0], sizeof result[0]);
      _tile_stored(3, &result[16][16], sizeof result[0]);
      const int rows = e.m1 - m < 2 * AMX_ROWS ? e.m1 - m : 2 * AMX_ROWS;
      const bool whole = n + AMX_PANEL <= e.n1;
      for (int i = 0; i < rows; ++i) {
        const auto write = out(m + i);
        UNROLL for (int j = 0; j < AMX_PANEL; j += lanes::SIZE) {
          const Lanes value = lanes::load(&result[i][j], lanes::SIZE);
          if (whole) write(n + j, value, lanes::SIZE);
          else if (n + j < e.n1) write(n + j, value, e.n1 - n - j < lanes::SIZE ? e.n1 - n - j : lanes::SIZE);
        }
      }
    }
  }
  _tile_release();
}

}  // namespace tile
