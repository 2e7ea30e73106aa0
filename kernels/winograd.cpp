// winograd: 3x3 convolutions with stride 1, and their input gradients, with a quarter of the multiplications of conv.cu. float32,
// the host alone: tensor cores would have to multiply in 3xTF32 what the transforms leave. src/ops/winograd.rs says when.
//
//   V = B^T d B    d: the 6x6 pixels of which a tile of 4x4 outputs is made, for each of C channels
//   U = G w G^T    w: 3x3 taps, for each of C x O
//   M_k = V_k U_k  36 products (tiles x C) x (C x O), one for each number of the 6x6
//   Y = A^T M A    4x4 outputs, for each of O columns; then the epilogue of conv.cu
//
// F(4x4, 3x3) with the points 0, +-3/4, +-3/2 and infinity (Winograd 1980; Lavin and Gray 2016; that points matter: Barabasz et al.
// 2020). With the usual +-1, +-2 rounding costs twice as much. F(6x6, 3x3) would multiply a fifth less and err four times as much.
//
// A block makes some tiles of some panels of columns. It transforms its input once; then, panel by panel and CHUNK channels at a
// time, the weights, which are four times as large as they were and never leave the second cache. Sums run over a chunk, and the
// chunks are added, both in ascending order, which also keeps rounding small: an output never depends on what shares its block,
// batch or thread. Deterministic: one writer per output.
#include "epilogue.cuh"
#include "tile.cuh"

namespace winograd {

constexpr int POINTS = 36, CHUNK = 32, L = lanes::SIZE;
constexpr int LINE = 16;       // floats of a cache line: what is written of V and Y at a time
constexpr int RUNS = LINE / L;
constexpr int SKEW = LINE;     // between the 36 parts of U, V and M, which would otherwise meet in one set of the first cache

// Where a block keeps U, V and M, in floats.
struct Scratch {
  int width;       // channels of a chunk
  int chunks;
  int64_t v_part;  // from one of the 36 to the next: V (chunks, 36, rows, width)
  int64_t u_part;  // U (36, CHUNK, panel)
  int64_t m_part;  // M (36, rows, panel)
  int64_t v, m, size;

  Scratch(int c, int panel, int rows) {
    width = c < CHUNK ? (c + LINE - 1) / LINE * LINE : CHUNK;
    chunks = (c + CHUNK - 1) / CHUNK;
    v_part = int64_t(rows) * width + SKEW;
    u_part = int64_t(CHUNK) * panel + SKEW;
    m_part = int64_t(rows) * panel + SKEW;
    v = POINTS * u_part;
    m = v + POINTS * v_part * chunks;
    size = m + POINTS * m_part;
  }
};

DEVICE Lanes times(float a, Lanes x) { return lanes::fill(a) * x; }
DEVICE Lanes plus(float a, Lanes x, Lanes y) { return lanes::fma(lanes::fill(a), x, y); }

// B^T d, G w and A^T m of one line; results are written `step` apart.
DEVICE void input_line(const Lanes* d, Lanes* to, int step) {
  to[0] = plus(81.f / 64, d[0], plus(-45.f / 16, d[2], d[4]));
  const Lanes a = plus(-9.f / 4, d[2], d[4]), b = times(3.f / 4, plus(-9.f / 4, d[1], d[3]));
  to[step] = a + b, to[2 * step] = a - b;
  const Lanes e = plus(-9.f / 16, d[2], d[4]), f = times(3.f / 2, plus(-9.f / 16, d[1], d[3]));
  to[3 * step] = e + f, to[4 * step] = e - f;
  to[5 * step] = plus(81.f / 64, d[1], plus(-45.f / 16, d[3], d[5]));
}

DEVICE void weight_line(const Lanes* w, Lanes* to, int step) {
  const Lanes a = plus(9.f / 16, w[2], w[0]), b = times(3.f / 4, w[1]);
  const Lanes e = plus(9.f / 4, w[2], w[0]), f = times(3.f / 2, w[1]);
  to[0] = times(64.f / 81, w[0]);
  to[step] = times(-128.f / 243, a + b), to[2 * step] = times(-128.f / 243, a - b);
  to[3 * step] = times(32.f / 243, e + f), to[4 * step] = times(32.f / 243, e - f);
  to[5 * step] = w[2];
}

DEVICE void output_line(const Lanes* m, Lanes* to, int step) {
  const Lanes a = m[1] + m[2], b = m[1] - m[2], e = m[3] + m[4], f = m[3] - m[4];
  to[0] = m[0] + (a + e);
  to[step] = plus(3.f / 2, f, times(3.f / 4, b));
  to[2 * step] = plus(9.f / 4, e, times(9.f / 16, a));
  to[3 * step] = plus(27.f / 8, f, plus(27.f / 64, b, m[5]));
}

// The first row and column of a tile's outputs, and its image.
struct Tile {
  int image, p, q;
};
DEVICE Tile tile_of(const WinogradArgs& a, int number) {
  const uint32_t image = divide(number, a.per_image), left = number - image * a.per_image.value, row = divide(left, a.per_row);
  return {int(image), int(row) * 4, int(left - row * a.per_row.value) * 4};
}

// Channel c of the 6x6 pixels that a tile reads; zeros outside the image.
inline void window(const WinogradArgs& a, int number, int c, const float** pixels) {
  const ConvArgs& conv = a.conv;
  const Tile tile = tile_of(a, number);
  const int h0 = tile.p - conv.pad_h, v0 = tile.q - conv.pad_w;
  for (int r = 0; r < 6; ++r)
    for (int s = 0; s < 6; ++s) {
      const bool inside = uint32_t(h0 + r) < uint32_t(conv.x_h) && uint32_t(v0 + s) < uint32_t(conv.x_w);
      const int64_t pixel = (int64_t(tile.image) * conv.x_h + h0 + r) * conv.x_w + v0 + s;
      pixels[6 * r + s] = inside ? static_cast<const float*>(conv.x) + pixel * conv.c + c : tile::zeros;
    }
}

// V of `count` tiles from `first` on, for `depth` channels from c on. The pixels of the next tile are fetched meanwhile: their 36 runs
// are too many for the processor to foresee.
inline void transform_input(const WinogradArgs& a, int first, int count, int c, int depth, float* v, const Scratch& s) {
  const float* windows[2][POINTS];
  window(a, first, c, windows[0]);
  for (int i = 0; i < count; ++i, v += s.width) {
    const float *const *here = windows[i % 2], **next = windows[(i + 1) % 2];
    window(a, first + (i + 1 < count ? i + 1 : i), c, next);
    for (int at = 0; at < s.width; at += LINE) {
      Lanes half[RUNS][POINTS];
      for (int col = 0; col < 6; ++col) {
        UNROLL for (int row = 0; row < 6; ++row) __builtin_prefetch(next[6 * row + col] + at);
        UNROLL for (int j = 0; j < RUNS; ++j) {
          Lanes line[6];
          UNROLL for (int row = 0; row < 6; ++row) line[row] = lanes::load(here[6 * row + col] + at + j * L, depth - at - j * L);
          input_line(line, half[j] + col, 6);
        }
      }
      for (int row = 0; row < 6; ++row)
        UNROLL for (int j = 0; j < RUNS; ++j) {
          Lanes line[6];
          input_line(half[j] + 6 * row, line, 1);
          UNROLL for (int col = 0; col < 6; ++col) lanes::store(v + (6 * row + col) * s.v_part + at + j * L, line[col], L);
        }
    }
  }
}

// U of one panel, for `depth` channels. `w` is the first of them in the packed weights, `tap` floats lie between its taps.
inline void transform_weights(const float* w, int64_t tap, int count, float* u, const Scratch& s) {
  for (int at = 0; at < count; at += L) {
    Lanes half[18], line[6];
    for (int col = 0; col < 3; ++col) {
      UNROLL for (int row = 0; row < 3; ++row) line[row] = lanes::load(w + (3 * row + col) * tap + at, L);
      weight_line(line, half + col, 3);
    }
    for (int row = 0; row < 6; ++row) {
      weight_line(half + 3 * row, line, 1);
      UNROLL for (int col = 0; col < 6; ++col) lanes::store(u + (6 * row + col) * s.u_part + at, line[col], L);
    }
  }
}

// M = V U of one chunk and one of the 36, or M += V U.
template <int PX, int NV>
inline void multiply(const float* v, int width, int rows, int depth, const float* u, float* m, bool add) {
  constexpr int PANEL = NV * L;
  for (int i = 0; i < rows; i += PX, m += PX * PANEL) {
    const float* row[PX];
    UNROLL for (int r = 0; r < PX; ++r) row[r] = v + (i + r) * width;
    Lanes sum[PX][NV];
    tile::micro<PX, NV>(row, 1, depth, u, sum);
    if (add) {
      UNROLL for (int r = 0; r < PX; ++r)
        UNROLL for (int j = 0; j < NV; ++j) sum[r][j] = lanes::load(m + r * PANEL + j * L, L) + sum[r][j];
    }
    UNROLL for (int r = 0; r < PX; ++r)
      UNROLL for (int j = 0; j < NV; ++j) lanes::store(m + r * PANEL + j * L, sum[r][j], L);
  }
}

// Y of `count` tiles from `first` on, in a panel's columns from n0 on.
template <int PANEL>
inline void transform_output(const WinogradArgs& a, int first, int count, int n0, const float* m, const Scratch& s) {
  const ConvArgs& conv = a.conv;
  const int bit_row = lanes::mask_stride(conv.o), last = conv.o - n0 < PANEL ? conv.o - n0 : PANEL;
  const int points_h = int(conv.pq.value / conv.q.value), points_w = int(conv.q.value);
  constexpr int WIDTH = PANEL < LINE ? PANEL : LINE, HERE = WIDTH / L;
  for (int i = 0; i < count; ++i, m += PANEL) {
    const Tile tile = tile_of(a, first + i);
    const int high = points_h - tile.p < 4 ? points_h - tile.p : 4, wide = points_w - tile.q < 4 ? points_w - tile.q : 4;
    for (int n = 0; n < last; n += WIDTH) {
      Lanes half[HERE][24];
      for (int col = 0; col < 6; ++col)
        UNROLL for (int j = 0; j < HERE; ++j) {
          Lanes line[6];
          UNROLL for (int row = 0; row < 6; ++row) line[row] = lanes::load(m + (6 * row + col) * s.m_part + n + j * L, L);
          output_line(line, half[j] + col, 6);
        }
      for (int row = 0; row < high; ++row) {
        Lanes line[HERE][4];
        UNROLL for (int j = 0; j < HERE; ++j) output_line(half[j] + 6 * row, line[j], 1);
        const int64_t y_row = int64_t(tile.image) * conv.y_h + (tile.p + row) * conv.step_h + conv.off_h;
        for (int col = 0; col < wide; ++col) {
          const int64_t pixel = y_row * conv.y_w + (tile.q + col) * conv.step_w + conv.off_w;
          UNROLL for (int j = 0; j < HERE; ++j) {
            const int at = n + j * L;
            if (at < last) epilogue::store<float>(conv, n0 + at, pixel * conv.o + n0 + at, pixel * bit_row, line[j][col], last - at);
          }
        }
      }
    }
  }
}

template <int PX, int NV> inline void tiles(const Block& block, const WinogradArgs& a) {
  constexpr int PANEL = NV * L;
  const ConvArgs& conv = a.conv;
  const auto here = block::share(block.index.x, a.block, a.tiles);
  const auto panels = block::share(block.index.y, a.block_panels, a.panels);
  const int rows = (here.count + PX - 1) / PX * PX;  // those past the last tile are multiplied and left
  const Scratch s(conv.c, PANEL, rows);
  float* u = reinterpret_cast<float*>(block.shared);
  float *v = u + s.v, *m = u + s.m;
  const int64_t tap = int64_t(a.c_pad) * PANEL;
  auto depth = [&](int chunk) { return at_most(CHUNK, conv.c - chunk * CHUNK); };

  for (int k = 0; k < s.chunks; ++k) transform_input(a, here.first, here.count, k * CHUNK, depth(k), v + k * POINTS * s.v_part, s);
  for (int p = panels.first; p < panels.first + panels.count; ++p) {
    for (int k = 0; k < s.chunks; ++k) {
      const float* w = static_cast<const float*>(conv.w) + p * 9 * tap + int64_t(k) * CHUNK * PANEL;
      transform_weights(w, tap, depth(k) * PANEL, u, s);
      for (int i = 0; i < POINTS; ++i)
        multiply<PX, NV>(v + (k * POINTS + i) * s.v_part, s.width, rows, depth(k), u + i * s.u_part, m + i * s.m_part, k > 0);
    }
    transform_output<PANEL>(a, here.first, here.count, p * PANEL, m, s);
  }
}

}  // namespace winograd

// grid (blocks of tiles, blocks of panels)
KERNEL(winograd_f32, WinogradArgs, 1, 0) {
  using namespace winograd;
  if (a.panel == tile::WIDE) tiles<tile::WIDE_PX, tile::WIDE / L>(block, a);
  else if (a.panel == tile::MIDDLE) tiles<tile::MIDDLE_PX, tile::MIDDLE / L>(block, a);
  else tiles<tile::NARROW_PX, tile::NARROW / L>(block, a);
}

// The most tiles that a block of so many channels may have, in so many bytes of scratch.
extern "C" int32_t HOST_NAME(winograd_tiles)(int32_t c, int32_t panel, int64_t scratch) {
  const int px = tile::rows_per_step(panel);
  const auto bytes = [&](int rows) { return winograd::Scratch(c, panel, rows).size * int64_t(sizeof(float)); };
  const int64_t none = bytes(0), step = bytes(px) - none;
  return scratch < none ? 0 : int32_t((scratch - none) / step * px);
}
