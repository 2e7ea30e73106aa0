// What conv.cu, gemm.cu and depthwise.cu do with a finished sum before it is stored.
#pragma once
#include "activation.cuh"

namespace epilogue {

// y[at ..] = act(sum + bias[channel ..] + residual[at ..]) * keep, for a run of `count` channels of one row.
// `bits` is the byte at which the row's masks start; `Args` has bias, residual, act, positive, keep and y.
template <class T, class Args>
DEVICE void store(const Args& a, int channel, int64_t at, int64_t bits, Lanes sum, int count) {
  if (a.bias) sum = sum + lanes::load(a.bias + channel, count);
  if (a.residual) sum = sum + lanes::load(static_cast<const T*>(a.residual) + at, count);
  sum = activation::apply(a.act, sum);
  if (a.positive) lanes::store_bits(a.positive + bits, channel, lanes::greater(sum, lanes::fill(0.f)));
  if (a.keep) sum = lanes::select(lanes::load_bits(a.keep + bits, channel), sum, lanes::fill(0.f));
  lanes::store(static_cast<T*>(a.y) + at, sum, count);
}

}  // namespace epilogue
