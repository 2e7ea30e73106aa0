// The host half of tile.cuh: rows are read in place through a table of pointers (no im2col), weights in panels of PANEL
// columns, and a micro-kernel keeps PX rows x PANEL columns of C in registers.
#pragma once

namespace tile {

// Zeros for taps outside the image. Longer runs of channels are refused by src/ops/weights.rs.
constexpr int MAX_CHANNELS = 65536;
alignas(64) inline float zeros[MAX_CHANNELS];

// Shapes are compiled-in tiles on CUDA; the host chooses at run time (m_tile, n_tile) and ignores them.
template <int BM, int BN, int WARPS_N = 2, int TF32_PRODUCTS = 3> struct Shape {};
template <class Shape> constexpr bool fits(int, int) { return true; }

#if HOST_AMX || HOST_DOT
template <class T> struct Packed { using type = T; };
#else
template <class T> struct Packed { using type = float; };  // bf16 without such instructions: weights are widened once, at load
#endif

// Columns of a weight panel. Wide panels reuse every input value more often, narrow ones suit few output channels.
#if defined(__AVX512F__)
constexpr int WIDE = 64, MIDDLE = 32, NARROW = 16;
constexpr int WIDE_PX = 6, MIDDLE_PX = 12, NARROW_PX = 12;
#elif defined(__AVX2__)
constexpr int WIDE = 16, MIDDLE = 16, NARROW = 8;
constexpr int WIDE_PX = 6, MIDDLE_PX = 6, NARROW_PX = 8;
#else
constexpr int WIDE = 8, MIDDLE = 8, NARROW = 8;
constexpr int WIDE_PX = 4, MIDDLE_PX = 4, NARROW_PX = 4;
#endif
constexpr int MAX_PX = 12;

// acc[i][j] = sum_t sum_c a[t][i][c] * w[t][c][j], one fused multiply-add at a time in ascending (t, c).
template <int PX, int NV>
DEVICE void micro(const float* const* a, int taps, int channels, const float* w, Lanes (&acc)[PX][NV]) {
  Lanes sum[PX][NV];  // registers: never indexed by a variable
  UNROLL for (int i = 0; i < PX; ++i)
    UNROLL for (int j = 0; j < NV; ++j) sum[i][j] = lanes::fill(0.f);
  for (int t = 0; t < taps; ++t, a += PX) {
    const float* p[PX];
    UNROLL for (int i = 0; i < PX; ++i) p[i] = a[i];
#pragma GCC unroll 4
    for (int c = 0; c < channels; ++c, w += NV * lanes::SIZE) {
      Lanes b[NV];
      UNROLL for (int j = 0; j < NV; ++j) b[j] = lanes::load(w + j * lanes::SIZE, lanes::SIZE);
      UNROLL for (int i = 0; i < PX; ++i) {
        const Lanes x = lanes::fill(p[i][c]);
        UNROLL for (int j = 0; j < NV; ++j) sum[i][j] = lanes::fma(x, b[j], sum[i][j]);
      }
    }
  }
  UNROLL for (int i = 0; i < PX; ++i)
    UNROLL for (int j = 0; j < NV; ++j) acc[i][j] = sum[i][j];
}

#if HOST_DOT
// The same on pairs of channels: w holds both values of a pair for each column, the last one padded with 0.
template <int PX, int NV>
DEVICE void micro(const bf16* const* a, int taps, int channels, const bf16* w, Lanes (&acc)[PX][NV]) {
  Lanes sum[PX][NV];
  UNROLL for (int i = 0; i < PX; ++i)
    UNROLL for (int j = 0; j < NV; ++j) sum[i][j] = lanes::fill(0.f);
  for (int t = 0; t < taps; ++t, a += PX) {
    const bf16* p[PX];
    UNROLL for (int i = 0; i < PX; ++i) p[i] = a[i];
    auto pair = [&](auto value) {
      __m512i b[NV];
      UNROLL for (int j = 0; j < NV; ++j) b[j] = _mm512_loadu_si512(w + j * 2 * lanes::SIZE);
      UNROLL for (int i = 0; i < PX; ++i) {
        const __m512i x = _mm512_set1_epi32(int(value(p[i])));
        UNROLL for (int j = 0; j < NV; ++j)
          sum[i][j].v = LanesVector(_mm512_dpbf16_ps(__m512(sum[i][j].v), (__m512bh)x, (__m512bh)b[j]));
      }
      w += NV * 2 * lanes::SIZE;
    };
    int c = 0;
#pragma GCC unroll 4
    for (; c + 1 < channels; c += 2)
      pair([c](const bf16* row) {
        uint32_t both;
        memcpy(&both, row + c, 4);
        return both;
      });
    if (c < channels) pair([c](const bf16* row) { return uint32_t(row[c].bits); });
  }
  UNROLL for (int i = 0; i < PX; ++i)
    UNROLL for (int j = 0; j < NV; ++j) acc[i][j] = sum[i][j];
}
#endif

// Elements of a panel per column and tap.
template <class W> DEVICE int depth_of(int channels) { return sizeof(W) == 2 ? (channels + 1) / 2 * 2 : channels; }

// Rows [m0, m1) x columns [n0, n1) in panels of NV runs. `table` holds PX pointers per tap for each group of PX rows.
template <int PX, int NV, class W, class Out>
inline void panels(const W* const* table, int taps, int channels, const W* b, int m0, int m1, int n0, int n1, Out out) {
  constexpr int PANEL = NV * lanes::SIZE;
  for (int n = n0; n < n1; n += PANEL) {
    const W* w = b + int64_t(n / PANEL) * taps * depth_of<W>(channels) * PANEL;
    const W* const* a = table;
    for (int m = m0; m < m1; m += PX, a += taps * PX) {
      Lanes acc[PX][NV];
      micro<PX, NV>(a, taps, channels, w, acc);
      const int rows = m1 - m < PX ? m1 - m : PX;
      const bool whole = n + PANEL <= n1;
      for (int i = 0; i < rows; ++i) {
        const auto write = out(m + i);
        UNROLL for (int j = 0; j < NV; ++j) {
          const int at = n + j * lanes::SIZE;
          if (whole) write(at, acc[i][j], lanes::SIZE);
          else if (at < n1) write(at, acc[i][j], n1 - at < lanes::SIZE ? n1 - at : lanes::SIZE);
        }
      }
    }
  }
}

template <class W, class Out>
inline void panels_of(int panel, const W* const* table, int taps, int channels, const W* b, int m0, int m1, int n0, int n1,
                      Out out) {
  if (panel == WIDE) panels<WIDE_PX, WIDE / lanes::SIZE>(table, taps, channels, b, m0, m1, n0, n1, out);
  else if (panel == MIDDLE) panels<MIDDLE_PX, MIDDLE / lanes::SIZE>(table, taps, channels, b, m0, m1, n0, n1, out);
  else panels<NARROW_PX, NARROW / lanes::SIZE>(table, taps, channels, b, m0, m1, n0, n1, out);
}

DEVICE int rows_per_step(int panel) { return panel == WIDE ? WIDE_PX : panel == MIDDLE ? MIDDLE_PX : NARROW_PX; }

// The widest panel that wastes little on the last one. The same rule serves packing and product.
DEVICE int panel_of(int columns) {
  if (columns % WIDE == 0 || columns > 4 * WIDE) return WIDE;
  return columns > NARROW ? MIDDLE : NARROW;
}

template <class RowOf>
DEVICE Row row_or_none(RowOf row, int m, int m1) { return m < m1 ? row(m) : Row{0, 0, 0}; }

// Pointers for rows [m0, m1), in groups of px rows: table[group][tap][row].
template <class T, class RowOf>
inline void fill_table(const Operands<T>& p, RowOf row, int m0, int m1, int px, const T** table) {
  for (int m = m0; m < m1; m += px) {
    Row rows[MAX_PX];
    for (int i = 0; i < px; ++i) rows[i] = row_or_none(row, m + i, m1);
    for (int r = 0; r < p.taps.r; ++r)
      for (int s = 0; s < p.taps.s; ++s, table += px) {
        const int64_t step = r * p.taps.step_r + s * p.taps.step_s;
        for (int i = 0; i < px; ++i) {
          const bool inside = rows[i].rows >> r & rows[i].cols >> s & 1;
          table[i] = inside ? p.a + rows[i].offset + step : reinterpret_cast<const T*>(zeros);
        }
      }
  }
}

// The rows and columns of C that block number `index` computes.
struct Extent {
  int m0, m1, n0, n1;
};
template <class T> DEVICE Extent extent(const Operands<T>& p, uint32_t index) {
  const int columns = (p.n + p.n_tile - 1) / p.n_tile;
  const int m0 = int(index / columns) * p.m_tile, n0 = int(index % columns) * p.n_tile;
  return {m0, m0 + p.m_tile < p.m ? m0 + p.m_tile : p.m, n0, n0 + p.n_tile < p.n ? n0 + p.n_tile : p.n};
}

template <class T, class RowOf, class Out>
inline void product_in_place(const Block& block, const Operands<T>& p, RowOf row, Out out) {
  const Extent e = extent(p, block.index.x);
  const int panel = panel_of(p.n);
  auto table = reinterpret_cast<const T**>(block.shared);
  fill_table(p, row, e.m0, e.m1, rows_per_step(panel), table);
  panels_of<T>(panel, table, p.taps.r * p.taps.s, p.channels, static_cast<const T*>(p.b), e.m0, e.m1, e.n0, e.n1, out);
}

#if !HOST_AMX && !HOST_DOT
// bf16 without instructions of its own: a few rows at a time are widened into scratch and multiplied in float32.
template <class RowOf, class Out>
inline void product_widened(const Block& block, const Operands<bf16>& p, RowOf row, Out out) {
  const Extent e = extent(p, block.index.x);
  const int panel = panel_of(p.n), px = rows_per_step(panel), taps = p.taps.r * p.taps.s, k = taps * p.channels;
  auto table = reinterpret_cast<const bf16**>(block.shared);
  auto wide = reinterpret_cast<float*>(block.shared + (size_t(taps) * MAX_PX * sizeof(void*) + 63) / 64 * 64);
  for (int m = e.m0; m < e.m1; m += px) {
    const int m1 = m + px < e.m1 ? m + px : e.m1;
    fill_table(p, row, m, m1, px, table);
    const float* rows[MAX_PX];
    for (int i = 0; i < px; ++i) {
      float* to = wide + size_t(i) * k;
      rows[i] = to;
      for (int t = 0; t < taps; ++t, to += p.channels)
        for (int c = 0; c < p.channels; ++c) to[c] = to_float(table[t * px + i][c]);
    }
    panels_of<float>(panel, rows, 1, k, static_cast<const float*>(p.b), m, m1, e.n0, e.n1, out);
  }
}
#endif

}  // namespace tile

#if HOST_AMX
#include "tile_amx.cuh"
#endif

namespace tile {

template <class T, class Shape, class RowOf, class Out>
inline void product(const Block& block, const Operands<T>& p, RowOf row, Out out) {
  if constexpr (sizeof(T) == 4) product_in_place(block, p, row, out);
#if HOST_AMX
  else product_amx(block, p, row, out);
#elif HOST_DOT
  else product_in_place(block, p, row, out);
#else
  else product_widened(block, p, row, out);
#endif
}

// f32: (group, panel, tap, c, column of the panel). bf16: pairs of channels innermost; on AMX see tile_amx.cuh.
template <class T> DEVICE int64_t pack_index(const PackArgs& a, int g, int o, int tap, int c) {
#if HOST_AMX
  if constexpr (sizeof(T) == 2) return pack_index_amx(a, g, o, tap, c);
#endif
  const int64_t panels = (a.o + a.n_tile - 1) / a.n_tile;
#if HOST_DOT
  if constexpr (sizeof(T) == 2)
    return ((((g * panels + o / a.n_tile) * a.taps + tap) * (a.c_pad / 2) + c / 2) * a.n_tile + o % a.n_tile) * 2 + c % 2;
#endif
  return (((g * panels + o / a.n_tile) * a.taps + tap) * a.c_pad + c) * a.n_tile + o % a.n_tile;
}

}  // namespace tile
