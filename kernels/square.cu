// Square attack between two answers of the network: where a search begins, and its next candidate. Images are (N, h, w, c) float32 in
// [0, 1]. Windows are squares of `side` pixels; their places, signs and the tile E come from outside, an image's own or the same for all.
//
//   start_linf   clip(x0 + eps*s),  s = -1 or 1 per column and channel: vertical stripes
//   step_linf    on the window  clip(clamp(best + 2*eps*s, x0 - eps, x0 + eps)),  s per channel;  elsewhere best
//   start_l2     clip(x0 + eps*T/(N(T) + 1e-12)),  T = a 5 x 5 pattern of tiles E*s, s per tile and channel;  N(v) = sqrt(sum v^2)
//   step_l2      e = best - x0;  per channel, on windows A and B:
//                v = E*s + e/(1e-12 + N_A(e)),  v *= sqrt(max(eps^2 - N(e)^2, 0)/c + N_AB(e)^2) / (1e-12 + N_A(v))
//                e = 0 on B, then e = v on A;  candidate clip(x0 + eps*e/(N(e) + 1e-12))
//
// Source: Andriushchenko et al. 2020.
#include "attack.cuh"

namespace square {

enum : int { TILES = 5 };

// Where an element lies.
struct Place { int row, column, channel; };
template <class A> DEVICE Place place(const A& a, int i) { return {i / a.c / a.w, i / a.c % a.w, i % a.c}; }

DEVICE bool within(int row, int column, int side, Place p) {
  return p.row >= row && p.row < row + side && p.column >= column && p.column < column + side;
}

}  // namespace square

// grid (ceil(d / chunk), N)
KERNEL(square_start_linf, SquareStartArgs, 256, 1024) {
  const int d = a.h * a.w * a.c, stripe = a.w * a.c;
  const int64_t row = int64_t(block.index.y) * d;
  const float* draw = a.draw + int64_t(block.index.y) * stripe;
  for_each_of_chunk(block, d, a.chunk, [&](int i) {
    a.y[row + i] = clip(a.x0[row + i] + (draw[i % stripe] < 0.5f ? -a.eps : a.eps));
  });
}

// grid (ceil(d / chunk), N)
KERNEL(square_step_linf, SquareStepArgs, 256, 1024) {
  const int d = a.h * a.w * a.c;
  const int64_t row = int64_t(block.index.y) * d;
  const int32_t* window = a.windows + 6 * int64_t(block.index.y);
  for_each_of_chunk(block, d, a.chunk, [&](int i) {
    const auto p = square::place(a, i);
    const float best = a.best[row + i], x0 = a.x0[row + i];
    const float moved = best + (window[4] >> p.channel & 1 ? 2.f * a.eps : -2.f * a.eps);
    a.y[row + i] = square::within(window[0], window[1], a.side, p) ? clip(clamp(moved, x0 - a.eps, x0 + a.eps)) : best;
  });
}

// grid (N)
KERNEL(square_start_l2, SquareStartArgs, 256, 1024) {
  const int d = a.h * a.w * a.c, side = a.side;
  const int64_t row = int64_t(block.index.x) * d;
  const float *x0 = a.x0 + row, *draw = a.draw + int64_t(block.index.x) * square::TILES * square::TILES * a.c;
  const int first_row = (a.h - square::TILES * side) / 2, first_column = (a.w - square::TILES * side) / 2;
  auto pattern = [&](int i) {
    const auto p = square::place(a, i);
    const int r = p.row - first_row, c = p.column - first_column, last = square::TILES * side;
    if (r < 0 || c < 0 || r >= last || c >= last) return 0.f;
    const int tile = r / side * square::TILES + c / side;
    const int y = r % side, x = c % side;
    const float e = a.turned >> tile & 1 ? a.tile[x * side + y] : a.tile[y * side + x];
    return draw[tile * a.c + p.channel] < 0.5f ? -e : e;
  };
  const float length = sqrtf(squares(block, d, pattern)) + 1e-12f;
  block::for_each(block, 1, d, [&](int, int i) { a.y[row + i] = clip(x0[i] + a.eps * (pattern(i) / length)); });
}

// grid (N)
KERNEL(square_step_l2, SquareStepArgs, 256, 1024) {
  constexpr int MOST = 4;  // channels
  const int d = a.h * a.w * a.c, side = a.side;
  const int64_t row = int64_t(block.index.x) * d;
  const float *x0 = a.x0 + row, *best = a.best + row;
  const int32_t* window = a.windows + 6 * int64_t(block.index.x);
  auto e = [&](int i) { return best[i] - x0[i]; };
  auto in_a = [&](square::Place p) { return square::within(window[0], window[1], side, p); };
  auto in_b = [&](square::Place p) { return square::within(window[2], window[3], side, p); };
  const float whole = squares(block, d, e), left = a.eps * a.eps - whole;

  // Of each channel: 1e-12 + N_A(e), then what E*s + e/that is multiplied by.
  float divisor[MOST] = {}, factor[MOST] = {};
  // The channel is known only as the element is; an array that is indexed by it would lie in memory.
  auto of = [](const float (&each)[MOST], int channel) {
    float v = each[0];
    UNROLL for (int k = 1; k < MOST; ++k) v = k == channel ? each[k] : v;
    return v;
  };
  auto raw = [&](int i, square::Place p) {
    const int y = p.row - window[0], x = p.column - window[1];
    const float tile = window[5] ? a.tile[x * side + y] : a.tile[y * side + x];
    return (window[4] >> p.channel & 1 ? tile : -tile) + e(i) / of(divisor, p.channel);
  };
  UNROLL for (int channel = 0; channel < MOST; ++channel) {
    if (channel >= a.c) continue;
    auto sum_where = [&](auto inside, auto value) {
      return squares(block, d / a.c, [&](int pixel) {
        const int i = pixel * a.c + channel;
        const auto p = square::place(a, i);
        return inside(p) ? value(i, p) : 0.f;
      });
    };
    auto offset = [&](int i, square::Place) { return e(i); };
    divisor[channel] = 1e-12f + sqrtf(sum_where(in_a, offset));
    const float both = sum_where([&](square::Place p) { return in_a(p) || in_b(p); }, offset);
    const float length = sqrtf((left > 0.f ? left : 0.f) / float(a.c) + both);
    factor[channel] = length / (1e-12f + sqrtf(sum_where(in_a, raw)));
  }
  auto next = [&](int i) {
    const auto p = square::place(a, i);
    return in_a(p) ? raw(i, p) * of(factor, p.channel) : in_b(p) ? 0.f : e(i);
  };
  const float length = sqrtf(squares(block, d, next)) + 1e-12f;
  block::for_each(block, 1, d, [&](int, int i) { a.y[row + i] = clip(x0[i] + a.eps * (next(i) / length)); });
}
