// Attack losses of one image each, to be maximised, with the gradient of their sum, the margin and the prediction.
//
//   p = softmax(z), 1_i a unit vector, pi_1, pi_2, .. the classes by falling logit, the lowest index first among equals,
//   i* = pi_2 if pi_1 is the label y, else pi_1
//
//   cross-entropy   sum_i q_i (log sum_j exp z_j - z_i)     p - q              q = (1-s) 1_y + s/K
//   CE targeted     log p_t                                 1_t - p
//   margin          z_i* - z_y                              1_i* - 1_y
//   difference      z_t - z_y                               1_t - 1_y
//   DLR             -N/D                                    -(1_y - 1_i*)/D + N/D^2 (1_pi1 - 1_pi3)
//                   N = z_y - z_i*,  D = z_pi1 - z_pi3 + 1e-12
//   DLR targeted    -N/D                                    -(1_y - 1_t)/D + N/D^2 (1_pi1 - (1_pi3 + 1_pi4)/2)
//                   N = z_y - z_t,   D = z_pi1 - (z_pi3 + z_pi4)/2 + 1e-12
//
// One block per image, in float32. Where p_y is near 1, log p_y and 1 - p_y come from the sum over the other classes, so that
// a confident network still has a loss and a gradient. Deterministic.
// Sources: Carlini & Wagner 2017 (margin), Croce & Hein 2020 (DLR).
#include "activation.cuh"
#include "block.cuh"

namespace loss {

// Numbers agree with `LossKind` in src/ops/loss.rs.
enum : int { CROSS_ENTROPY = 0, CROSS_ENTROPY_TARGETED = 1, MARGIN = 2, DLR = 3, DLR_TARGETED = 4, DIFFERENCE = 5 };

// dz[c] = gradient of log p_it, times `sign`: CE has -1, the targeted one 1. Returns log p_it.
template <class T> DEVICE float log_share(const Block& block, const T* z, T* dz, int k, int it, float most, float sign, float smoothing) {
  auto power = [&](int c, int count) { return activation::exp(lanes::load(z + c, count) - lanes::fill(most)); };
  // The share of class `it` is 1 - others / total.
  const float others = block::sum_runs(block, 1, k, [&](int, int c, int count) {
    return lanes::select(lanes::bit(it - c), lanes::fill(0.f), lanes::head(power(c, count), count));
  });
  const float distance = to_float(z[it]) - most, own = lanes::first(activation::exp(lanes::fill(distance))), total = own + others;
  const float uniform = smoothing / float(k);
  block::for_each_run(block, 1, k, [&](int, int c, int count) {
    const Lanes here = lanes::fill(others / total - smoothing + uniform);
    const Lanes elsewhere = lanes::fill(uniform) - power(c, count) / lanes::fill(total);
    lanes::store(dz + c, lanes::fill(sign) * lanes::select(lanes::bit(it - c), here, elsewhere), count);
  });
  return distance == 0 ? -log1pf(others) : distance - logf(total);
}

// A class with a coefficient of its own in a gradient.
struct Term {
  int index;
  float value;
};

template <class T> DEVICE void loss(const Block& block, const LossArgs& a) {
  const int n = block.index.x, k = a.k, y = a.labels[n], t = a.targets ? a.targets[n] : y;
  const T* z = static_cast<const T*>(a.logits) + int64_t(n) * k;  // (k)
  T* dz = static_cast<T*>(a.dlogits) + int64_t(n) * k;            // (k)
  auto logit = [&](int c) { return to_float(z[c]); };

  // The ranking, as far as it is needed.
  constexpr int RANKS = 4;
  block::Ranked top[RANKS];
  UNROLL for (int i = 0; i < RANKS; ++i) {
    top[i] = {0.f, -1};
    if (i < 2 || (i == 2 && a.kind == DLR) || a.kind == DLR_TARGETED) {
      top[i] = block::argmax(block, k, [&](int c) {
        bool taken = false;
        for (int j = 0; j < i; ++j) taken = taken || top[j].index == c;
        return taken ? -INFINITY : logit(c);
      });
    }
  }
  const block::Ranked best_wrong = top[0].index == y ? top[1] : top[0];
  const float margin = logit(y) - best_wrong.value;

  float value;
  if (a.kind == CROSS_ENTROPY) {
    value = -log_share(block, z, dz, k, y, top[0].value, -1.f, a.smoothing);
    if (a.smoothing > 0) {
      // sum_i q_i (lse - z_i) = (lse - z_y) + s/K sum_i (z_y - z_i)
      value += a.smoothing / float(k) * block::sum_runs(block, 1, k, [&](int, int c, int count) {
        return lanes::head(lanes::fill(logit(y)) - lanes::load(z + c, count), count);
      });
    }
  } else if (a.kind == CROSS_ENTROPY_TARGETED) {
    value = log_share(block, z, dz, k, t, top[0].value, 1.f, 0.f);
  } else {
    Term terms[5] = {{y, -1.f}, {best_wrong.index, 1.f}, {-1, 0}, {-1, 0}, {-1, 0}};
    value = -margin;
    if (a.kind == DIFFERENCE) {
      value = logit(t) - logit(y);
      terms[1] = {t, 1.f};
    } else if (a.kind != MARGIN) {
      const bool targeted = a.kind == DLR_TARGETED;
      const float numerator = targeted ? logit(y) - logit(t) : margin, share = targeted ? -0.5f : -1.f;
      // Differences first: near logits subtract without error, while z_pi3 + z_pi4 would round.
      const float third = top[0].value - top[2].value, fourth = top[0].value - top[3].value;
      const float spread = (targeted ? 0.5f * (third + fourth) : third) + 1e-12f, slope = numerator / spread / spread;
      value = -(numerator / spread);
      terms[0] = {y, -1.f / spread};
      terms[1] = {targeted ? t : best_wrong.index, 1.f / spread};
      terms[2] = {top[0].index, slope};
      terms[3] = {top[2].index, share * slope};
      terms[4] = {targeted ? top[3].index : -1, share * slope};
    }
    block::for_each(block, 1, k, [&](int, int c) {
      float v = 0;
      UNROLL for (int i = 0; i < 5; ++i) v += terms[i].index == c ? terms[i].value : 0.f;
      dz[c] = from_float<T>(v);
    });
  }
  block::for_each(block, 1, 1, [&](int, int) {
    a.loss[n] = value;
    a.margin[n] = margin;
    a.prediction[n] = top[0].index;
  });
}

}  // namespace loss

// grid (N)
KERNEL(loss_f32, LossArgs, 128, 1024) { loss::loss<float>(block, a); }
KERNEL(loss_bf16, LossArgs, 128, 1024) { loss::loss<bf16>(block, a); }
