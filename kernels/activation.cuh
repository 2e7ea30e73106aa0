// Pointwise activations and their slopes, and the exponential for whoever needs one (softmax, attention, losses).
//
// The exponential is reduced to |r| <= ln(2)/2 (Cody & Waite) and a polynomial, the normal distribution function is
// exp(-a^2/2) times a polynomial in 1/(1 + 0.35 a) (the form of Abramowitz & Stegun 7.1.26). The coefficients are our own
// minimax fits, relative errors 3e-9 and 3e-8, so that float32 rounding decides. The same arithmetic on every target.
#pragma once
#include "lanes.cuh"

namespace activation {

// Numbers agree with `Activation` in src/ops/pointwise.rs.
enum : int { NONE = 0, RELU = 1, SILU = 2, GELU = 3, GELU_TANH = 4, SIGMOID = 5, TANH = 6 };

// exp(x) = (1 + q) * 2^n
struct Exponential {
  Lanes q, n;
};

constexpr float LOG2_E = 1.44269504f, WHOLE = 12582912.f;  // 1.5 * 2^23: adding it rounds to a whole number

// exp(r) - 1 for |r| <= ln(2)/2
DEVICE Lanes remainder(Lanes r) {
  using lanes::fill, lanes::fma;
  Lanes p = fma(fill(0.00139505055f), r, fill(0.0083688982f));
  p = fma(p, r, fill(0.041666206f));
  p = fma(p, r, fill(0.166665182f));
  p = fma(p, r, fill(0.5f));
  return fma(r * r, p, r);
}

DEVICE Exponential reduce(Lanes x) {
  using lanes::fill, lanes::fma;
  const Lanes whole = fill(WHOLE);
  x = lanes::minimum(fill(89.f), lanes::maximum(fill(-104.f), x));
  const Lanes n = fma(x, fill(LOG2_E), whole) - whole;
  Lanes r = fma(n, fill(-0.693359375f), x);
  r = fma(n, fill(2.12194440e-4f), r);
  return {remainder(r), n};
}

DEVICE Lanes exp(Lanes x) {
  const Exponential e = reduce(x);
  return lanes::scale(lanes::fill(1.f) + e.q, e.n);
}

// 2^x for values that are rounded to bf16: on CUDA one instruction, whose last places are its own.
DEVICE Lanes exp2(Lanes x) {
#if TARGET_CUDA
  return lanes::map(x, [](float v) { return ptx::exp2(v); });
#else
  using lanes::fill;
  const Lanes whole = fill(WHOLE), least = fill(-126.f), zero = fill(0.f);
  // Below the smallest normal number lie zeros: processors take a hundred cycles for any other.
  const uint32_t vanishes = lanes::greater(least, x);
  x = lanes::minimum(fill(128.f), lanes::maximum(least, x));
  const Lanes n = (x + whole) - whole;
  return lanes::select(vanishes, zero, lanes::scale(fill(1.f) + remainder((x - n) * fill(0.693147181f)), n));
#endif
}

DEVICE Lanes sigmoid(Lanes x) {
  const Lanes one = lanes::fill(1.f);
  return one / (one + exp(lanes::fill(0.f) - x));
}

// (e - 1) / (e + 1) with e = exp(2x), where e - 1 is computed without cancellation.
DEVICE Lanes tanh(Lanes x) {
  const Lanes one = lanes::fill(1.f), limit = lanes::fill(20.f);
  const Exponential e = reduce(lanes::minimum(limit, lanes::maximum(lanes::fill(-20.f), x + x)));
  const Lanes m = lanes::scale(e.q, e.n) + (lanes::scale(one, e.n) - one);
  return m / (m + lanes::fill(2.f));
}

// The standard normal distribution function, and its density without the factor 1/sqrt(2 pi).
struct Normal {
  Lanes below, density;
};

DEVICE Normal normal(Lanes x) {
  using lanes::fill, lanes::fma;
  const Lanes one = fill(1.f), zero = fill(0.f);
  const Lanes t = one / fma(lanes::maximum(x, zero - x), fill(0.35f), one);
  Lanes p = fma(fill(-0.029157877f), t, fill(0.144030884f));
  p = fma(p, t, fill(-0.255838931f));
  p = fma(p, t, fill(0.159319609f));
  p = fma(p, t, fill(-0.0232122932f));
  p = fma(p, t, fill(0.10555248f));
  p = fma(p, t, fill(0.119821295f));
  p = fma(p, t, fill(0.139863521f));
  p = fma(p, t, fill(0.139621302f));
  const Lanes density = exp(x * x * fill(-0.5f)), tail = p * t * density;
  return {lanes::select(lanes::greater(x, zero), one - tail, tail), density};
}

// The argument of the sigmoid in the tanh form of GELU: x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3).
DEVICE Lanes gelu_argument(Lanes x) {
  return x * lanes::fma(x * x, lanes::fill(0.0713548163f), lanes::fill(1.59576912f));
}

OUTLINED Lanes smooth(int act, Lanes u) {
  switch (act) {
    case SILU: return u * sigmoid(u);
    case GELU: return u * normal(u).below;
    case GELU_TANH: return u * sigmoid(gelu_argument(u));
    case SIGMOID: return sigmoid(u);
    default: return tanh(u);
  }
}

DEVICE Lanes apply(int act, Lanes u) {
  if (act == NONE) return u;
  if (act == RELU) return lanes::maximum(lanes::fill(0.f), u);
  return smooth(act, u);
}

// The derivative of apply at u.
OUTLINED Lanes slope(int act, Lanes u) {
  using lanes::fill, lanes::fma;
  const Lanes one = fill(1.f), zero = fill(0.f);
  switch (act) {
    case RELU: return lanes::select(lanes::greater(u, zero), one, zero);
    case SILU: {
      const Lanes s = sigmoid(u);
      return s * fma(u, one - s, one);
    }
    case GELU: {
      const Normal n = normal(u);
      return fma(u * n.density, fill(0.398942280f), n.below);
    }
    case GELU_TANH: {
      const Lanes s = sigmoid(gelu_argument(u)), inner = fma(u * u, fill(3 * 0.0713548163f), fill(1.59576912f));
      return fma(u * inner * s, one - s, s);
    }
    case SIGMOID: {
      const Lanes s = sigmoid(u);
      return s * (one - s);
    }
    case TANH: {
      const Lanes t = tanh(u);
      return (one - t) * (one + t);
    }
    default: return one;
  }
}

}  // namespace activation
