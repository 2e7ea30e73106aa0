// Pointwise activations and their slopes, shared by pointwise.cu and the epilogue of conv.cu.
#pragma once
#include "lanes.cuh"

namespace activation {

// Numbers agree with `Activation` in src/ops/pointwise.rs.
enum : int { NONE = 0, RELU = 1, SILU = 2, GELU = 3, GELU_TANH = 4, SIGMOID = 5, TANH = 6 };

DEVICE Lanes apply(int act, Lanes u) {
  if (act == RELU) return lanes::maximum(lanes::fill(0.f), u);
  return u;
}

}  // namespace activation
