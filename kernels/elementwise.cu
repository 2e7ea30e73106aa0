// Functions of single values, and of two operands that broadcast. float32 or bf16, arithmetic in float32.
//
//   unary    y = f(x; p, q)            dx = (dy * f'(x; p, q) + residual) * keep
//   binary   y = f(a, b)               da = dy * df/da, db = dy * df/db, of the shape of y: who broadcast an operand sums over its axes
//
//   CLIP          min(max(x, p), q)            slope 1 between the bounds, 0 at and beyond them, as PyTorch's relu6
//   HARD_SIGMOID  min(max(p x + q, 0), 1)      slope p between
//   HARD_SWISH    x min(max(x/6 + 1/2, 0), 1)  slope x/3 + 1/2 between
//   ELU           x > 0 ? x : p (exp(x) - 1)
//   CELU          x > 0 ? x : p (exp(x/p) - 1)
//   SOFTPLUS      log(1 + exp(x))
//   MISH          x tanh(softplus(x))
//   ERF EXP LOG SQRT ABS SOFTSIGN
//   POWER         x^p; of a negative x only for whole p
//   THRESHOLD     x > p ? x : 0
//   MAX and MIN give the gradient to the larger or smaller operand, half to each of equals, as PyTorch's maximum
//
// The gradients read x, a and b, which are kept by reference. One writer per output, no atomics.
#include "activation.cuh"
#include "walk.cuh"

namespace elementwise {

// Numbers agree with `Function` and `Binary` in src/ops/elementwise.rs.
enum : int {
  CLIP = 0, HARD_SIGMOID = 1, HARD_SWISH = 2, THRESHOLD = 3, ELU = 4, CELU = 5, SOFTPLUS = 6, MISH = 7, ERF = 8, EXP = 9, LOG = 10,
  SQRT = 11, ABS = 12, SOFTSIGN = 13, POWER = 14
};
enum : int { ADD = 0, SUB = 1, MUL = 2, DIV = 3, MAX = 4, MIN = 5 };
enum : int { FORWARD = 0, TO_A = 1, TO_B = 2 };

DEVICE Lanes absolute(Lanes x) { return lanes::maximum(x, lanes::fill(0.f) - x); }

// log(1 + u) for u in [0, 1]: 2 artanh(s), s = u / (2 + u) <= 1/3, to s^17.
DEVICE Lanes log1p(Lanes u) {
  using lanes::fill, lanes::fma;
  const Lanes s = u / (u + fill(2.f)), t = s * s;
  Lanes p = fma(fill(1.f / 17), t, fill(1.f / 15));
  p = fma(p, t, fill(1.f / 13));
  p = fma(p, t, fill(1.f / 11));
  p = fma(p, t, fill(1.f / 9));
  p = fma(p, t, fill(1.f / 7));
  p = fma(p, t, fill(1.f / 5));
  p = fma(p, t, fill(1.f / 3));
  const Lanes twice = s + s;
  return fma(twice * t, p, twice);
}

// x = m 2^n with m in [1/sqrt 2, sqrt 2): n log 2 + 2 artanh((m - 1) / (m + 1)). Below the normal numbers it is -infinity.
DEVICE float log(float x) {
  if (!(x >= 1.17549435e-38f)) return x >= 0.f ? -INFINITY : x + (x - x) / 0.f;
  if (x > 3.40282347e38f) return x;
  const uint32_t bits = float_to_bits(x) - 0x3f3504f3u;
  const float n = float(int32_t(bits) >> 23), m = bits_to_float((bits & 0x007fffffu) + 0x3f3504f3u);
  const float s = (m - 1.f) / (m + 1.f), t = s * s;
  float p = fused_multiply_add(1.f / 11, t, 1.f / 9);
  p = fused_multiply_add(p, t, 1.f / 7);
  p = fused_multiply_add(p, t, 1.f / 5);
  p = fused_multiply_add(p, t, 1.f / 3);
  const float rest = fused_multiply_add(2.f * s * t, p, 2.f * s);
  return fused_multiply_add(n, 0.693359375f, fused_multiply_add(n, -2.12194440e-4f, rest));
}

DEVICE Lanes sqrt(Lanes x) {
  return lanes::map(x, [](float v) { return sqrtf(v); });
}

DEVICE Lanes power(Lanes x, float p) {
  if (p == 0.f) return lanes::fill(1.f);
  if (p == 1.f) return x;
  if (p == 2.f) return x * x;
  if (p == 3.f) return x * x * x;
  if (p == 0.5f) return sqrt(x);
  if (p == -0.5f) return lanes::fill(1.f) / sqrt(x);
  if (p == -1.f) return lanes::fill(1.f) / x;
  if (p == -2.f) return lanes::fill(1.f) / (x * x);
  const Lanes size = activation::exp(lanes::map(absolute(x), [](float v) { return log(v); }) * lanes::fill(p));
  const float half = p * 0.5f, whole = float(int32_t(p));
  const uint32_t negative = lanes::greater(lanes::fill(0.f), x);
  if (whole != p) return lanes::select(negative, lanes::fill(bits_to_float(0x7fc00000u)), size);
  return float(int32_t(half)) == half ? size : lanes::select(negative, lanes::fill(0.f) - size, size);
}

OUTLINED Lanes apply(int f, float p, float q, Lanes x) {
  using lanes::fill;
  const Lanes one = fill(1.f), zero = fill(0.f);
  const uint32_t positive = lanes::greater(x, zero);
  switch (f) {
    case CLIP: return lanes::minimum(fill(q), lanes::maximum(fill(p), x));
    case HARD_SIGMOID: return lanes::minimum(one, lanes::maximum(zero, lanes::fma(x, fill(p), fill(q))));
    case HARD_SWISH: return x * lanes::minimum(one, lanes::maximum(zero, lanes::fma(x, fill(1.f / 6), fill(0.5f))));
    case ELU:
    case CELU: {
      // e^u - 1 = tanh(u/2) (e^u + 1), without cancellation
      const Lanes u = lanes::minimum(zero, f == CELU ? x / fill(p) : x);
      return lanes::select(positive, x, fill(p) * activation::tanh(u * fill(0.5f)) * (activation::exp(u) + one));
    }
    case SOFTPLUS: return lanes::maximum(x, zero) + log1p(activation::exp(zero - absolute(x)));
    case MISH: {
      const Lanes e = activation::exp(zero - absolute(x)), n = e * (e + fill(2.f)), wide = fill(2.f) * e + one;
      return x * lanes::select(positive, wide / (wide + fill(2.f) * e * e), n / (n + fill(2.f)));
    }
    case ERF: {
      const Lanes below = activation::normal(absolute(x) * fill(1.41421356f)).below, size = (below - fill(0.5f)) * fill(2.f);
      return lanes::select(positive, size, zero - size);
    }
    case EXP: return activation::exp(x);
    case LOG: return lanes::map(x, [](float v) { return log(v); });
    case SQRT: return sqrt(x);
    case ABS: return absolute(x);
    case SOFTSIGN: return x / (absolute(x) + one);
    case POWER: return power(x, p);
    default: return lanes::select(lanes::greater(x, fill(p)), x, zero);
  }
}

OUTLINED Lanes slope(int f, float p, float q, Lanes x) {
  using lanes::fill;
  const Lanes one = fill(1.f), zero = fill(0.f);
  const uint32_t positive = lanes::greater(x, zero);
  switch (f) {
    case CLIP: return lanes::select(lanes::greater(x, fill(p)) & lanes::greater(fill(q), x), one, zero);
    case HARD_SIGMOID: {
      const Lanes u = lanes::fma(x, fill(p), fill(q));
      return lanes::select(lanes::greater(u, zero) & lanes::greater(one, u), fill(p), zero);
    }
    case HARD_SWISH: {
      const Lanes inner = lanes::fma(x, fill(1.f / 3), fill(0.5f));
      const uint32_t inside = lanes::greater(fill(3.f), x) & lanes::greater(x, fill(-3.f));
      return lanes::select(inside, inner, lanes::select(positive, one, zero));
    }
    case ELU: return lanes::select(positive, one, fill(p) * activation::exp(lanes::minimum(zero, x)));
    case CELU: return lanes::select(positive, one, activation::exp(lanes::minimum(zero, x / fill(p))));
    case SOFTPLUS: return activation::sigmoid(x);
    case MISH: {
      const Lanes e = activation::exp(zero - absolute(x)), n = e * (e + fill(2.f)), wide = fill(2.f) * e + one;
      const Lanes t = lanes::select(positive, wide / (wide + fill(2.f) * e * e), n / (n + fill(2.f)));
      return lanes::fma(x * (one - t) * (one + t), activation::sigmoid(x), t);
    }
    case ERF: return fill(1.12837917f) * activation::exp(zero - x * x);
    case EXP: return activation::exp(x);
    case LOG: return one / x;
    case SQRT: return fill(0.5f) / sqrt(x);
    case ABS: return lanes::select(positive, one, lanes::select(lanes::greater(zero, x), fill(-1.f), zero));
    case SOFTSIGN: return one / ((absolute(x) + one) * (absolute(x) + one));
    case POWER: return fill(p) * power(x, p - 1.f);
    default: return lanes::select(lanes::greater(x, fill(p)), one, zero);
  }
}

template <class T> DEVICE void unary(const Block& block, const UnaryArgs& a) {
  const auto rows = block::share(block.index.x, a.rows_per_block, a.rows);
  block::for_each_run(block, rows.count, a.c, [&](int r, int c, int count) {
    const int64_t row = rows.first + r, at = row * a.c + c;
    const Lanes x = lanes::load(static_cast<const T*>(a.x) + at, count);
    if (!a.dy) {
      lanes::store(static_cast<T*>(a.y) + at, apply(a.function, a.p, a.q, x), count);
      return;
    }
    Lanes v = lanes::load(static_cast<const T*>(a.dy) + at, count) * slope(a.function, a.p, a.q, x);
    if (a.residual) v = v + lanes::load(static_cast<const T*>(a.residual) + at, count);
    if (a.keep) v = lanes::select(lanes::load_bits(a.keep + row * lanes::mask_stride(a.c), c), v, lanes::fill(0.f));
    lanes::store(static_cast<T*>(a.y) + at, v, count);
  });
}

DEVICE Lanes combine(int f, Lanes a, Lanes b) {
  switch (f) {
    case ADD: return a + b;
    case SUB: return a - b;
    case MUL: return a * b;
    case DIV: return a / b;
    case MAX: return lanes::maximum(a, b);
    default: return lanes::minimum(a, b);
  }
}

// The derivative by one operand.
DEVICE Lanes derivative(int f, bool by_b, Lanes a, Lanes b) {
  using lanes::fill;
  const Lanes one = fill(1.f), zero = fill(0.f), half = fill(0.5f);
  switch (f) {
    case ADD: return one;
    case SUB: return by_b ? fill(-1.f) : one;
    case MUL: return by_b ? a : b;
    case DIV: return by_b ? zero - a / (b * b) : one / b;
    default: {
      const uint32_t own = (f == MAX) != by_b ? lanes::greater(a, b) : lanes::greater(b, a);
      return lanes::select(lanes::equal(a, b), half, lanes::select(own, one, zero));
    }
  }
}

template <class T> DEVICE void binary(const Block& block, const BinaryArgs& p) {
  const auto rows = block::share(block.index.x, p.rows_per_block, p.rows);
  block::for_each_run(block, rows.count, p.c, [&](int r, int c, int count) {
    const int64_t row = rows.first + r, at = row * p.c + c;
    const T* from_a = static_cast<const T*>(p.a) + walk::place(uint32_t(row), p.walk, p.a_steps) + int64_t(c) * p.a_step;
    const T* from_b = static_cast<const T*>(p.b) + walk::place(uint32_t(row), p.walk, p.b_steps) + int64_t(c) * p.b_step;
    const Lanes a = walk::load(from_a, p.a_step, count), b = walk::load(from_b, p.b_step, count);
    if (p.part == FORWARD) {
      lanes::store(static_cast<T*>(p.y) + at, combine(p.function, a, b), count);
      return;
    }
    const Lanes dy = lanes::load(static_cast<const T*>(p.dy) + at, count);
    lanes::store(static_cast<T*>(p.y) + at, dy * derivative(p.function, p.part == TO_B, a, b), count);
  });
}

}  // namespace elementwise

// grid (ceil(rows / rows_per_block))
KERNEL(unary_f32, UnaryArgs, 256, 1024) { elementwise::unary<float>(block, a); }
KERNEL(unary_bf16, UnaryArgs, 256, 1024) { elementwise::unary<bf16>(block, a); }
KERNEL(binary_f32, BinaryArgs, 256, 1024) { elementwise::binary<float>(block, a); }
KERNEL(binary_bf16, BinaryArgs, 256, 1024) { elementwise::binary<bf16>(block, a); }
