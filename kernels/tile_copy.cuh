// Who copies what into shared memory on CUDA. Each thread copies the same 16-byte word of a few rows of A and of B, stage after
// stage along K: taps outside, channels inside. All it knows of a row is prepared before the loop; a step is one add per pointer.
#pragma once

namespace tile {

// Packed weights (groups, o / 64, taps, c / depth, 64, depth) with depth = 64 bytes of c: a stage of 64 columns is one run of
// memory, padded with zeros, and the next stage follows it.
constexpr int PANEL = 64, PANEL_STAGE = PANEL * 64;

template <class T> struct Packed { using type = T; };

// `a.o` is rounded up to PANEL columns by the caller's grid, `a.c_pad` is a multiple of the depth.
template <class T> DEVICE int64_t pack_index(const PackArgs& a, int g, int o, int tap, int c) {
  constexpr int DEPTH = 64 / sizeof(T);
  const int64_t panels = (a.o + PANEL - 1) / PANEL;
  const int64_t stage = ((g * panels + o / PANEL) * a.taps + tap) * (a.c_pad / DEPTH) + c / DEPTH;
  return (stage * PANEL + o % PANEL) * DEPTH + c % DEPTH;
}

// ALIGNED: every run of channels consists of whole 16-byte words.
template <class T, class S, bool ALIGNED> struct Copier {
  static constexpr int APART = S::THREADS / 4;  // rows between two of the same thread
  static constexpr int A_ROWS = S::BM / APART, PANELS = S::BN / PANEL, DEPTH = S::ROW / sizeof(T), WORD = 16 / sizeof(T);
  static constexpr int CENTRE = (PANEL / APART - 1) * APART * S::ROW / 2;
  static_assert(S::BN % PANEL == 0 && PANEL % APART == 0, "a thread's rows of one panel lie at fixed distances");
  static_assert(CENTRE < 2048, "distances from the middle fit the 12-bit offset of the copy instruction");

  const T* a[A_ROWS];        // this thread's word of its rows, at the tap and channel to copy next
  uint32_t rows[A_ROWS];     // which tap rows and columns lie inside the image, as in Row
  uint32_t cols[A_ROWS];
  const unsigned char* b[PANELS];
  int64_t next_s, next_r;    // from behind the last channel of a tap to the next tap, to the next row of taps
  uint32_t to;               // where the first row of A goes, in stage 0
  uint32_t inside;           // bit i: row i of A has this word at this tap
  int before;                // channels of a stage before this thread's word
  int left;                  // channels of this tap not yet copied; like the taps the same in all threads
  int tap_r = 0, tap_s = 0;

  template <class RowOf>
  DEVICE Copier(const Block& block, const Operands<T>& p, RowOf row, int m0, int n0, uint32_t shared) : left(p.channels) {
    const int first = block.thread / 4, word = block.thread % 4;
    to = shared + swizzled(first, word);
    before = word * WORD;
    UNROLL for (int i = 0; i < A_ROWS; ++i) {
      const int m = m0 + first + i * APART;
      const Row at = m < p.m ? row(m) : Row{0, 0, 0};
      a[i] = p.a + at.offset + before;
      rows[i] = at.rows;
      cols[i] = at.cols;
    }
    const int depths = (p.channels + DEPTH - 1) / DEPTH;
    const int64_t panel_bytes = int64_t(p.taps.r) * p.taps.s * depths * PANEL_STAGE;
    const int last = (p.n - 1) / PANEL;  // columns past the end repeat the last panel
    UNROLL for (int j = 0; j < PANELS; ++j) {
      const int panel = n0 / PANEL + j < last ? n0 / PANEL + j : last;
      b[j] = static_cast<const unsigned char*>(p.b) + panel * panel_bytes + block.thread * 16 + CENTRE;
    }
    next_s = p.taps.step_s - depths * DEPTH;
    next_r = p.taps.step_r - (p.taps.s - 1) * p.taps.step_s - depths * DEPTH;
    look();
  }

  // Works out `inside` for this tap and channel.
  DEVICE void look() {
    inside = 0;
    UNROLL for (int i = 0; i < A_ROWS; ++i) inside |= (rows[i] >> tap_r & cols[i] >> tap_s & 1) << i;
    if (before >= left) inside = 0;
  }

  // Starts the copies of one stage, unless `wanted` is false.
  DEVICE void copy(uint32_t stage, bool wanted) {
    UNROLL for (int i = 0; i < A_ROWS; ++i) {
      const uint32_t at = to + stage + i * APART * S::ROW, in = inside & 1u << i;
      if constexpr (ALIGNED) {
        ptx::copy16_or_zero(at, a[i], wanted, in);
      } else if constexpr (sizeof(T) == 4) {
        UNROLL for (int e = 0; e < 4; ++e) ptx::copy4_or_zero(at + e * 4, a[i] + e, wanted, before + e < left ? in : 0);
      } else if (wanted) {
        uint32_t v[8];
        UNROLL for (int e = 0; e < 8; ++e) v[e] = in && before + e < left ? a[i][e].bits : 0;
        ptx::store_shared(at, make_uint4(v[0] | v[1] << 16, v[2] | v[3] << 16, v[4] | v[5] << 16, v[6] | v[7] << 16));
      }
    }
    UNROLL for (int j = 0; j < PANELS; ++j)
      UNROLL for (int i = 0; i < PANEL / APART; ++i) {
        const int offset = i * APART * S::ROW;
        ptx::copy16(to + stage + S::A_BYTES + j * PANEL_STAGE + offset, b[j] + offset - CENTRE, wanted);
      }
  }

  // Goes on to the next stage along K.
  DEVICE void step(const Operands<T>& p) {
    UNROLL for (int i = 0; i < A_ROWS; ++i) a[i] += DEPTH;
    UNROLL for (int j = 0; j < PANELS; ++j) b[j] += PANEL_STAGE;
    left -= DEPTH;
    if (left < DEPTH) turn(p);
  }

  // The next stage is not full of channels: it is the tail of this tap, or belongs to the next one.
  DEVICE void turn(const Operands<T>& p) {
    if (left <= 0) {
      left = p.channels;
      const bool wrap = ++tap_s == p.taps.s;
      if (wrap) tap_s = 0, ++tap_r;
      UNROLL for (int i = 0; i < A_ROWS; ++i) a[i] += wrap ? next_r : next_s;
    }
    look();
  }
};

}  // namespace tile
