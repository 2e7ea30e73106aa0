// Tensors that are walked by strides: rows over five axes, and runs along a sixth.
#pragma once
#include "block.cuh"

namespace walk {

// Where a row of a sheet over five axes lies in a tensor that has them in another order, or not all of them.
DEVICE int64_t place(uint32_t row, const Walk& w, const Steps& s) {
  int64_t at = 0;
  auto axis = [&](const Divisor& n, int64_t step) {
    const uint32_t rest = divide(row, n);
    at += int64_t(row - rest * n.value) * step;
    row = rest;
  };
  axis(w.n4, s.s4);
  axis(w.n3, s.s3);
  axis(w.n2, s.s2);
  axis(w.n1, s.s1);
  return at + int64_t(row) * s.s0;
}

// A run of values `step` apart; with a step of 0 the same in every lane.
template <class T> DEVICE Lanes load(const T* p, int64_t step, int count) {
  if (step == 1) return lanes::load(p, count);
  if (step == 0) return lanes::head(lanes::fill(to_float(*p)), count);
  Lanes r = lanes::fill(0.f);
  UNROLL for (int i = 0; i < lanes::SIZE; ++i)
    if (i < count) r.v[i] = to_float(p[i * step]);
  return r;
}

}  // namespace walk
