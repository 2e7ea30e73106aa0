// FAB between two gradients: from a point towards the decision boundary and back to the image. Images are (N, d) float32 in [0, 1].
//
//   step      the plane w.v = w.x - df;  proj(v) = the shortest s with v + s on it and in the box, or as near to it as the box allows
//             s1 = proj(x), s2 = proj(x0), a1, a2 their lengths, at least 1e-8;  al = min(a1/(a1 + a2), 0.1)
//             y = clip((x + 1.05*s1)*(1 - al) + (x0 + 1.05*s2)*al)
//   retreat   y = x0 + 0.9*(x - x0) where `back`, else x
//
// With r = w.v less the plane's value, w turned so that r >= 0, and room_i from v_i to the wall against sgn(w_i):
//   L-inf  s_i = -sgn(w_i) min(lam, room_i)         length max |s_i|
//   L2     s_i = -sgn(w_i) min(lam*|w_i|, room_i)   length sqrt(sum s_i^2); |w_i| <= 1e-8 does not move
// and lam such that sum |w_i||s_i| = r. It rises from the one without walls: each time the walls that it reaches are taken out of the
// equation, until none is new. Source: Croce & Hein 2020 (FAB).
#include "attack.cuh"

namespace fab {

// The way from a point to the plane: `turn` is -1 where w is turned, `lam` as above.
struct Way { float turn, lam; };

template <bool L2> DEVICE float weight(float w) { return L2 && fabsf(w) <= 1e-8f ? 0.f : fabsf(w); }

template <bool L2> DEVICE float reach(float w, float room, float lam) {
  const float size = weight<L2>(w), free = L2 ? lam * size : lam;
  return size == 0.f ? 0.f : free < room ? free : room;
}

// From v_i against the turned w_i to the wall.
DEVICE float room(float w, float v) { return w > 0.f ? v : 1.f - v; }

template <bool L2, class W, class V> DEVICE Way way(const Block& block, int d, float r, W w, V v) {
  const float turn = r < 0.f ? -1.f : 1.f, wanted = fabsf(r);
  constexpr int MOST = 64;  // rounds; a handful is usual
  float lam = 0.f;
  for (int round = 0; round < MOST; ++round) {
    // What walls give at the last lam, and what the others give per unit of lam.
    const float walls = total(block, d, [&](int i) {
      const float size = weight<L2>(w(i)), space = room(turn * w(i), v(i));
      return round > 0 && (L2 ? lam * size : lam) >= space ? size * space : 0.f;
    });
    const float slope = total(block, d, [&](int i) {
      const float size = weight<L2>(w(i)), space = room(turn * w(i), v(i));
      return round > 0 && (L2 ? lam * size : lam) >= space ? 0.f : L2 ? size * size : size;
    });
    // Every wall is reached: the box allows no more.
    if (!(slope > 0.f)) return {turn, INFINITY};
    const float next = (wanted - walls) / slope;
    if (!(next > lam)) break;
    lam = next;
  }
  return {turn, lam};
}

template <bool L2> DEVICE void step(const Block& block, const FabStepArgs& a) {
  const int64_t row = int64_t(block.index.x) * a.d;
  const float *x = a.x + row, *x0 = a.x0 + row, *g = a.w + row;
  auto w = [&](int i) { return g[i]; };
  const float here = a.df[block.index.x];
  const float there = here + total(block, a.d, [&](int i) { return g[i] * (x0[i] - x[i]); });
  const Way first = way<L2>(block, a.d, here, w, [&](int i) { return x[i]; });
  const Way second = way<L2>(block, a.d, there, w, [&](int i) { return x0[i]; });
  auto move = [&](const Way& to, int i, float v) {
    const float turned = to.turn * g[i], size = reach<L2>(turned, room(turned, v), to.lam);
    return turned > 0.f ? -size : size;
  };
  auto s1 = [&](int i) { return move(first, i, x[i]); };
  auto s2 = [&](int i) { return move(second, i, x0[i]); };
  auto length = [&](auto s) {
    const float size = L2 ? sqrtf(total(block, a.d, [&](int i) { return s(i) * s(i); }))
                          : block::max(block, 1, a.d, 0.f, [&](int, int i) { return fabsf(s(i)); });
    return size < 1e-8f ? 1e-8f : size;
  };
  const float a1 = length(s1), a2 = length(s2), share = a1 / (a1 + a2), al = share < 0.1f ? share : 0.1f;
  block::for_each(block, 1, a.d, [&](int, int i) {
    a.y[row + i] = clip((x[i] + 1.05f * s1(i)) * (1.f - al) + (x0[i] + 1.05f * s2(i)) * al);
  });
}

}  // namespace fab

// grid (N)
KERNEL(fab_step_linf, FabStepArgs, 256, 1024) { fab::step<false>(block, a); }
KERNEL(fab_step_l2, FabStepArgs, 256, 1024) { fab::step<true>(block, a); }

// grid (ceil(d / chunk), N)
KERNEL(fab_retreat, FabRetreatArgs, 256, 1024) {
  const int64_t row = int64_t(block.index.y) * a.d;
  const bool back = a.back[block.index.y] != 0;
  for_each_of_chunk(block, a.d, a.chunk, [&](int i) {
    const float x = a.x[row + i], x0 = a.x0[row + i];
    a.y[row + i] = back ? x0 + 0.9f * (x - x0) : x;
  });
}
