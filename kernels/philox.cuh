// Counter-based random numbers: the value depends on (seed, purpose, image, restart, step, draw, element) and on nothing else,
// so batch size, order, sharding and resuming never change a result.
//
//   key      seed, low and high word
//   counter  word 0  element / 4                     elements < 2^34; the four words of one call serve four neighbours
//            word 1  image id, low 32 bits
//            word 2  image id, high 12 bits | draw << 12                       ids < 2^44, draws < 2^20
//            word 3  step | restart << 16 | purpose << 26                      steps < 2^16, restarts < 2^10, purposes < 2^6
//
// src/ops/philox.rs packs and checks these. Everything here is integer or plain IEEE arithmetic without contraction: host and
// CUDA give the same bits, logarithm, sine and cosine included.
// Sources: Salmon, Moraes, Dror & Shaw 2011 (Philox4x32-10); Box & Muller 1958; Taylor and artanh series.
#pragma once
#include "target.cuh"

namespace philox {

struct Words {
  uint32_t v[4];
};

// Ten rounds on a 128-bit counter under a 64-bit key.
DEVICE Words generate(Words c, uint32_t key_low, uint32_t key_high) {
  constexpr uint32_t MULTIPLY_0 = 0xD2511F53u, MULTIPLY_1 = 0xCD9E8D57u, WEYL_0 = 0x9E3779B9u, WEYL_1 = 0xBB67AE85u;
  UNROLL for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t(MULTIPLY_0) * c.v[0], p1 = uint64_t(MULTIPLY_1) * c.v[2];
    c = {{uint32_t(p1 >> 32) ^ c.v[1] ^ key_low, uint32_t(p1), uint32_t(p0 >> 32) ^ c.v[3] ^ key_high, uint32_t(p0)}};
    key_low += WEYL_0;
    key_high += WEYL_1;
  }
  return c;
}

// The words of elements 4 * quad .. 4 * quad + 3 of an image.
DEVICE Words at(const PhiloxStream& s, const uint32_t* id, uint32_t quad) {
  return generate({{quad, id[0], id[1] | s.draw, s.scope}}, s.key_low, s.key_high);
}

// In [0, 1): the upper 24 bits, so that every value is exact.
DEVICE float uniform(uint32_t w) { return float(int32_t(w >> 8)) * 0x1p-24f; }

// ln((w + 1/2) / 2^32), at most 0. ln m = 2 artanh((m - 1) / (m + 1)) with m within a factor sqrt 2 of 1.
DEVICE float log_of_fraction(uint32_t w) {
  const float u = (float(w) + 0.5f) * 0x1p-32f;
  const uint32_t bits = float_to_bits(u);
  const int32_t e = int32_t(bits - 0x3f3504f3u) >> 23;                         // bits of sqrt(1/2)
  // Near 1 the distance to 1 is taken from the word: rounding u would cost half its digits.
  const float f = e ? bits_to_float(bits - (uint32_t(e) << 23)) - 1.f : (float(~w) + 0.5f) * -0x1p-32f;
  const float s = f / (2.f + f), z = s * s;
  const float tail = z * (1.f / 3 + z * (1.f / 5 + z * (1.f / 7 + z * (1.f / 9))));
  // ln 2 in two parts, the first short enough for e * part to be exact
  return float(e) * 0.693359375f + (2.f * s + (2.f * s * tail - float(e) * 2.12194440e-4f));
}

// Two independent standard normals from two words: at most 6.8 in absolute value, within 4e-7 * (1 + |n|) of the exact
// Box-Muller result for the same words.
DEVICE void normal_pair(uint32_t w0, uint32_t w1, float* n) {
  const float radius = sqrtf(-2.f * log_of_fraction(w0));
  // w1 / 2^32 turns: the nearest quarter, and what is left, in [-1/8, 1/8) turns
  const uint32_t quarter = (w1 + (1u << 29)) >> 30;
  const float t = float(int32_t(w1 - (quarter << 30))) * 1.4629180792671596e-9f, z = t * t;
  const float sine = t + t * z * (-1.f / 6 + z * (1.f / 120 + z * (-1.f / 5040 + z * (1.f / 362880))));
  const float cosine = 1.f + z * (-0.5f + z * (1.f / 24 + z * (-1.f / 720 + z * (1.f / 40320 + z * (-1.f / 3628800)))));
  const float x = quarter & 1 ? sine : cosine, y = quarter & 1 ? cosine : sine;
  n[0] = radius * (quarter == 1 || quarter == 2 ? -x : x);
  n[1] = radius * (quarter >= 2 ? -y : y);
}

}  // namespace philox
