// One plain struct per kernel: the whole interface between Rust and the kernels.
//
// build.rs reads this file and writes the Rust mirror of every struct, so keep to one field per line, pointers, int32_t,
// uint32_t, int64_t, uint64_t, float, and structs of this file, with the 8-byte fields first. Shapes stand at line ends.
#pragma once
#include <cstdint>

struct Index3 {
  uint32_t x;
  uint32_t y;
  uint32_t z;
};

// Division by an invariant: n / value == (mulhi(n, magic) + n) >> shift for every n < 2^31.
struct Divisor {
  uint32_t value;
  uint32_t magic;
  uint32_t shift;
};

// conv.cu
struct ConvArgs {
  const void* x;            // (N, x_h, x_w, groups * c)
  const void* w;            // packed by pack_weights, per group
  const float* bias;        // (groups * o) or null
  const void* residual;     // like y, or null: added before the activation
  const uint8_t* keep;      // bits like y, or null: y is 0 where the bit is 0
  void* y;                  // (N, y_h, y_w, groups * o)
  uint8_t* positive;        // bits like y, or null: set where y > 0
  int64_t w_group;          // packed elements per group
  Divisor q;                // columns of output points computed here
  Divisor pq;               // output points computed here, per image
  int32_t m;                // N * P * Q
  int32_t x_h;
  int32_t x_w;
  int32_t c;
  int32_t o;
  int32_t groups;
  int32_t r;
  int32_t s;
  int32_t stride_h;
  int32_t stride_w;
  int32_t pad_h;            // may be negative
  int32_t pad_w;
  int32_t dil_h;
  int32_t dil_w;
  int32_t y_h;
  int32_t y_w;
  int32_t step_h;           // point (p, q) is written at (p * step_h + off_h, q * step_w + off_w)
  int32_t step_w;
  int32_t off_h;
  int32_t off_w;
  int32_t act;
  int32_t m_tile;           // host: rows per block; CUDA tiles are compiled in
  int32_t n_tile;           // host: columns per block
  int32_t reserved;
};

struct PackArgs {
  const float* src;         // (groups, o, taps, c)
  void* dst;                // (groups, ceil(o / n_tile), taps, c_pad, n_tile), pairs of c interleaved for bf16; CUDA: (groups, o, taps, c_pad)
  int32_t groups;
  int32_t o;
  int32_t taps;
  int32_t c;
  int32_t n_tile;
  int32_t c_pad;
};

// gemm.cu
struct GemmArgs {
  const void* x;            // (batch, m, k)
  const void* w;            // packed by pack_weights, per group
  const float* bias;        // (n) or null
  const void* residual;     // like y, or null: added before the activation
  const uint8_t* keep;      // bits like y, or null: y is 0 where the bit is 0
  void* y;                  // (batch, m, n)
  uint8_t* positive;        // bits like y, or null: set where y > 0
  int64_t x_batch;          // elements from one matrix to the next; 0 shares it
  int64_t w_batch;
  int32_t m;
  int32_t k;
  int32_t n;
  int32_t act;
  int32_t m_tile;           // host: rows per block
  int32_t n_tile;           // host: columns per block
};

// pointwise.cu
struct AccumulateArgs {
  const void* a;            // (rows, c)
  const void* b;            // (rows, c) or null
  const uint8_t* keep;      // bits (rows, c) or null
  void* y;                  // (rows, c)
  int64_t rows;
  int32_t c;
  int32_t rows_per_block;
};
