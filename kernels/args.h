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

// depthwise.cu
struct DepthwiseArgs {
  const void* x;            // (N, x_h, x_w, c)
  const float* w;           // (r, s, c)
  const float* bias;        // (c) or null
  const void* residual;     // like y, or null: added before the activation
  const uint8_t* keep;      // bits like y, or null
  void* y;                  // (N, P, Q, c)
  uint8_t* positive;        // bits like y, or null
  Divisor q;
  Divisor pq;
  int32_t points;           // N * P * Q
  int32_t points_per_block;
  int32_t gradient;         // 0 forward, 1 input gradient
  int32_t x_h;
  int32_t x_w;
  int32_t c;
  int32_t r;
  int32_t s;
  int32_t stride_h;
  int32_t stride_w;
  int32_t pad_h;
  int32_t pad_w;
  int32_t dil_h;
  int32_t dil_w;
  int32_t act;
  int32_t reserved;
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

// philox.cu
// What a stream of random numbers belongs to, packed by ops/philox.rs; philox.cuh says how.
struct PhiloxStream {
  uint32_t key_low;
  uint32_t key_high;
  uint32_t draw;            // draw << 12
  uint32_t scope;           // step | restart << 16 | purpose << 26
};

struct PhiloxFillArgs {
  const uint32_t* ids;      // (N, 2) low and high words
  float* y;                 // (N, d)
  PhiloxStream stream;
  int32_t d;
  int32_t quads_per_block;
};

struct PhiloxWordsArgs {
  const uint32_t* from;     // (n, 6) counter and key
  uint32_t* words;          // (n, 4)
  int32_t n;
  int32_t reserved;
};

// pgd.cu
struct PgdStepArgs {
  const float* x;           // (N, d)
  const float* x0;          // (N, d)
  const float* g;           // (N, d) gradient, or momentum
  float* y;                 // (N, d)
  uint64_t eps64;           // bits of a double
  int32_t d;
  int32_t chunk;            // L-inf: elements per block
  int32_t profile;
  float eps;
  float step;
  float scale;
};

struct PgdMomentumArgs {
  const float* g;           // (N, d)
  const float* m;           // (N, d) or null for 0
  float* y;                 // (N, d)
  int32_t d;
  int32_t profile;
  float decay;
  float scale;
};

struct PgdStartArgs {
  const float* draw;        // (N, d)
  const float* extra;       // (N, 2)
  const float* x0;          // (N, d)
  float* y;                 // (N, d)
  uint64_t eps64;           // bits of a double
  int32_t d;
  int32_t profile;
  int32_t l2;
  float eps;
};

struct PgdBudgetArgs {
  const float* x;           // (N, d)
  const float* x0;          // (N, d)
  float* y;                 // (N, 4)
  int32_t d;
  int32_t reserved;
};

struct GatherRowsArgs {
  const float* a;           // (any, d)
  const float* b;           // (N, d), or null where no index is negative
  const int32_t* index;     // (N)
  float* y;                 // (N, d)
  int32_t d;
  int32_t chunk;
};

struct ActivationArgs {
  const void* x;            // (rows, c)
  void* y;                  // (rows, c)
  uint8_t* positive;        // bits (rows, c) or null: set where y > 0
  int64_t rows;
  int32_t c;
  int32_t rows_per_block;
  int32_t act;
  int32_t reserved;
};

struct ActivationGradArgs {
  const void* x;            // (rows, c)
  const void* dy;           // (rows, c)
  const void* residual;     // (rows, c) or null
  const uint8_t* keep;      // bits (rows, c) or null
  void* dx;                 // (rows, c)
  int64_t rows;
  int32_t c;
  int32_t rows_per_block;
  int32_t act;
  int32_t reserved;
};

struct AffineArgs {
  const void* x;            // (rows, c)
  const float* scale;       // (c)
  const float* bias;        // (c) or null
  const void* residual;     // (rows, c) or null
  const uint8_t* keep;      // bits (rows, c) or null
  void* y;                  // (rows, c)
  int64_t rows;
  int32_t c;
  int32_t rows_per_block;
};

struct NormalizeArgs {
  const void* x;            // (n), float32; the gradient: dy, in the precision of activations
  const float* mean;        // (period): the channels, repeated
  const float* std;         // (period)
  void* y;                  // (n), in the precision of activations; the gradient: dx, float32
  int64_t n;
  int32_t period;           // a multiple of the channels and of 16
  int32_t rows_per_block;   // rows of `period` values
};

struct CastArgs {
  const void* x;            // (n)
  void* y;                  // (n)
  int64_t n;
  int32_t per_block;
  int32_t reserved;
};

struct TransposeArgs {
  const void* x;            // (batch, rows, cols)
  void* y;                  // (batch, cols, rows)
  int32_t rows;
  int32_t cols;
};

struct SoftmaxArgs {
  const void* x;            // (rows, c)
  void* y;                  // (rows, c)
  int32_t c;
  int32_t reserved;
};

struct SoftmaxGradArgs {
  const void* y;            // (rows, c)
  const void* dy;           // (rows, c)
  void* dx;                 // (rows, c)
  int32_t c;
  int32_t reserved;
};
