// The arguments of every kernel, one plain struct: the whole interface between Rust and the kernels.
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

// winograd.cpp
struct WinogradArgs {
  ConvArgs conv;            // the launch of conv.cu that it stands in for
  Divisor per_image;        // tiles of 4x4 outputs
  Divisor per_row;          // tiles side by side
  int32_t tiles;            // of all images
  int32_t block;            // tiles per block
  int32_t panels;           // of packed weights
  int32_t block_panels;     // panels per block
  int32_t panel;            // columns of a panel
  int32_t c_pad;            // of packed weights
};

struct PackArgs {
  const float* src;         // (groups, o, taps, c)
  void* dst;                // (groups, ceil(o / n_tile), taps, c_pad, n_tile); the order within a panel is tile::pack_index's
  int32_t groups;
  int32_t o;
  int32_t taps;
  int32_t c;
  int32_t n_tile;
  int32_t c_pad;
};

// The weights of one residue of an input gradient from those of the forward pass: outputs and inputs change places.
struct TurnArgs {
  PackArgs from;            // of the forward pass, packed: dst
  PackArgs to;              // its o is from's c, its c from's o
  int32_t s;                // taps in a row of from
  int32_t cols;             // taps in a row of to
  int32_t row0;             // tap (i, j) of to is tap (row0 + i * row_step, col0 + j * col_step) of from
  int32_t row_step;
  int32_t col0;
  int32_t col_step;
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
  Divisor runs_per_line;    // of neighbouring outputs: 4 on the host, 1 on CUDA
  Divisor lines;            // P
  int32_t runs;             // N * P * runs per line
  int32_t runs_per_block;
  int32_t gradient;         // 0 forward, 1 input gradient
  int32_t x_h;
  int32_t x_w;
  int32_t y_w;              // Q
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
};

// gemm.cu
struct GemmArgs {
  const void* x;            // (batch, m, k)
  const void* w;            // packed by pack_weights, per matrix
  const float* bias;        // (n) or null
  const void* residual;     // like y, or null: added before the activation
  const uint8_t* keep;      // bits like y, or null: y is 0 where the bit is 0
  void* y;                  // (batch, m, n)
  uint8_t* positive;        // bits like y, or null: set where y > 0
  int64_t x_batch;          // elements from one matrix to the next; 0 shares it
  int64_t x_row;            // from one row to the next: k, or more where only a part of each is read
  int64_t w_batch;          // packed elements, as x_batch
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

struct AffineActivationArgs {
  const void* x;            // (rows, c)
  const void* dy;           // (rows, c); null: forward
  const float* scale;       // (c)
  const float* bias;        // (c)
  const void* residual;     // the gradient: like dx, or null
  const uint8_t* keep;      // the gradient: bits like dx, or null
  void* y;                  // (rows, c); the gradient: dx
  int64_t rows;
  int32_t c;
  int32_t rows_per_block;
  int32_t act;
  int32_t reserved;
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
  const int32_t* done;      // (N) or null: where it is not 0, y = x
  float* y;                 // (N, d), which may be x
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
  float* y;                 // (N, d), which may be m
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

struct RowDigestArgs {
  const float* x;           // (N, d)
  uint32_t* y;              // (N, 4)
  int32_t n;
  int32_t d;
};

// steps.cu
struct StepsNoteArgs {
  const float* x;           // (N, d)
  const float* loss;        // (N)
  const float* margin;      // (N)
  const int32_t* prediction;  // (N)
  const int32_t* classes;   // (N), or null without `done`
  int32_t* done;            // (N) or null: 1 where this or an earlier step succeeded
  float* iterates;          // (slots, N, d)
  uint32_t* found;          // (slots, N, 3): the bits of loss, margin, prediction
  const int32_t* slot;      // which to write
  int32_t n;
  int32_t d;
  int32_t chunk;
  int32_t targeted;         // success is to be of the class, else to be of another
};

struct StepsTickArgs {
  int32_t* slot;
};

// leaky_relu.cu
struct LeakyReluArgs {
  const void* x;            // (rows, c)
  void* y;                  // (rows, c)
  uint8_t* positive;        // bits like y, or null: set where x > 0
  int64_t rows;
  int32_t c;
  int32_t rows_per_block;
  float slope;
  int32_t reserved;
};

struct LeakyReluGradArgs {
  const void* dy;           // (rows, c)
  const uint8_t* positive;  // bits like dy
  const void* residual;     // like dx, or null
  const uint8_t* keep;      // bits like dx, or null
  void* dx;                 // (rows, c)
  int64_t rows;
  int32_t c;
  int32_t rows_per_block;
  float slope;
  int32_t reserved;
};

// apgd.cu
// What is remembered of an image between steps; all 0 before the first.
struct ApgdImage {
  float eta;                // of the step that is taken next
  float share;              // of it that is taken; the rest is that of the step before
  float best;               // the highest loss so far
  float looked;             // the same at the last look
  int32_t answers;          // losses so far
  int32_t halved;           // 1 where the last look halved the step
  int32_t rose;             // 1 where the loss at hand is the highest
  int32_t back;             // 1 where the step at hand is taken from the best point
};

struct ApgdLookArgs {
  const float* loss;        // (N)
  const int32_t* windows;   // (steps): how many steps are looked back at after each, 0 where there is no look
  ApgdImage* images;        // (N)
  float* losses;            // (N, steps): those to come are 0
  int32_t steps;
  float eta;                // of the first step
  float share;              // of the others
  int32_t reserved;
};

struct ApgdStepArgs {
  const float* x;           // (N, d)
  const float* prev;        // (N, d) the iterate before x
  const float* x0;          // (N, d)
  const float* g;           // (N, d)
  const ApgdImage* images;  // (N)
  float* best;              // (N, d) or null: the best point, put where the loss rose and taken where the image goes back
  float* best_g;            // (N, d) or null: its gradient
  float* left;              // (N, d) or null: where the step began; may be prev
  float* y;                 // (N, d); may be x
  int32_t d;
  int32_t chunk;            // L-inf: elements per block
  float eps;
  int32_t reserved;
};

struct ApgdStartArgs {
  const float* draw;        // (N, d)
  const float* x0;          // (N, d)
  float* y;                 // (N, d)
  int32_t d;
  int32_t l2;
  float eps;
  int32_t reserved;
};

// square.cu
struct SquareStartArgs {
  const float* x0;          // (N, h, w, c)
  const float* draw;        // uniforms in [0, 1): L-inf (N, w, c), L2 (N, 25, c)
  const float* tile;        // L2: (side, side)
  float* y;                 // (N, h, w, c)
  int32_t h;
  int32_t w;
  int32_t c;
  int32_t side;
  int32_t chunk;            // L-inf: elements per block
  int32_t turned;           // L2: a bit per tile, whether it is transposed
  float eps;
  int32_t reserved;
};

struct SquareStepArgs {
  const float* best;        // (N, h, w, c)
  const float* x0;          // (N, h, w, c)
  const int32_t* windows;   // (N, 6): row and column of A, of B, a bit per channel for a sign of 1, whether the tile is transposed
  const float* tile;        // L2: (side, side)
  float* y;                 // (N, h, w, c)
  int32_t h;
  int32_t w;
  int32_t c;                // L2: at most 4
  int32_t side;
  int32_t chunk;            // L-inf: elements per block
  float eps;
};

// fab.cu
struct FabStepArgs {
  const float* x;           // (N, d)
  const float* x0;          // (N, d)
  const float* w;           // (N, d) gradient of df
  const float* df;          // (N) logit of the target less that of the label
  float* y;                 // (N, d)
  int32_t d;
  int32_t reserved;
};

struct FabRetreatArgs {
  const float* x;           // (N, d)
  const float* x0;          // (N, d)
  const int32_t* back;      // (N)
  float* y;                 // (N, d)
  int32_t d;
  int32_t chunk;
};

// min_norm.cu
struct MinNormStepArgs {
  const float* x;           // (N, d)
  const float* x0;          // (N, d)
  const float* g;           // (N, d)
  const float* rows;        // (N, 2) radius; gap to the boundary in the loss, 0 where the radius is known
  float* y;                 // (N, d)
  float* told;              // (N, 2) radius gone to; L2 norm of g
  int32_t d;
  float step;
};

// loss.cu
struct LossArgs {
  const void* logits;       // (N, k)
  const int32_t* labels;    // (N)
  const int32_t* targets;   // (N), or null where the loss has none
  float* loss;              // (N)
  void* dlogits;            // (N, k): the gradient of the sum of the losses
  float* margin;            // (N): logit of the label less the largest other
  int32_t* prediction;      // (N): the largest logit, the lowest index among equals
  int32_t k;
  int32_t kind;             // LossKind in src/ops/loss.rs
  float smoothing;
  int32_t reserved;
};

// pool.cu
struct PoolArgs {
  const void* x;            // (N, h, w, c); the gradient: dy (N, p, q, c)
  void* y;                  // (N, p, q, c); the gradient: dx (N, h, w, c)
  uint8_t* taps;            // (N, p, q, c) or null: where in its window the largest value lay
  const void* residual;     // the gradient: like dx, or null
  const uint8_t* keep;      // the gradient: bits like dx, or null
  int32_t h;
  int32_t w;
  int32_t c;
  int32_t p;
  int32_t q;
  int32_t r;
  int32_t s;
  int32_t stride_h;
  int32_t stride_w;
  int32_t pad_h;
  int32_t pad_w;
  int32_t count_padding;
};

struct GlobalPoolArgs {
  const void* x;            // (N, pixels, c)
  void* y;                  // (N, c)
  int32_t pixels;
  int32_t c;
  int32_t per_block;        // channels
  int32_t act;
};

struct GlobalPoolGradArgs {
  const void* x;            // (N, pixels, c), read where the activation needs it
  const void* dy;           // (N, c)
  const void* residual;     // like dx, or null
  const uint8_t* keep;      // bits like dx, or null
  void* dx;                 // (N, pixels, c)
  int32_t pixels;
  int32_t c;
  int32_t per_block;        // pixels
  int32_t act;
};

// cbam.cu
struct CbamArgs {
  const void* x;            // (N, h, w, c)
  const void* residual;     // like y, or null: added before the activation
  const float* w1;          // (hidden, c)
  const float* b1;          // (hidden)
  const float* w3;          // (hidden, c): transposed
  const float* b3;          // (c)
  const float* kernel;      // (2, side, side)
  void* y;                  // (N, h, w, c)
  uint8_t* positive;        // bits like y, or null: set where y > 0
  float* pooled;            // (N, 2, c): mean and maximum over the pixels
  float* max_pixel;         // (N, c): the pixel of the maximum
  float* hidden_values;     // (N, 2, hidden), after the ReLU
  float* gate;              // (N, c)
  float* spatial;           // (N, h, w)
  int32_t* max_channel;     // (N, h, w): the channel of the maximum
  float scale;              // batch norm of the spatial gate
  float bias;
  int32_t h;
  int32_t w;
  int32_t c;
  int32_t hidden;
  int32_t side;
  int32_t act;
  int32_t channel_gate;     // 0: this gate is 1
  int32_t spatial_gate;
  int32_t whole;            // one block does all phases of an image
  int32_t rows_per_block;
  int32_t cols_per_block;
  int32_t reserved;
};

struct CbamGradArgs {
  const void* x;            // (N, h, w, c)
  const void* dy;           // (N, h, w, c)
  const void* residual;     // like dx, or null
  const uint8_t* keep;      // bits like dx, or null
  void* dx;                 // (N, h, w, c)
  const float* w1;          // (hidden, c)
  const float* w3;          // (hidden, c): transposed
  const float* kernel;      // (2, side, side)
  const float* max_pixel;   // (N, c)
  const float* hidden_values;  // (N, 2, hidden)
  const float* gate;        // (N, c)
  const float* spatial;     // (N, h, w)
  const int32_t* max_channel;  // (N, h, w)
  float* dconv;             // (N, h, w)
  float* dmap_max;          // (N, h, w)
  float* dmap_mean;         // (N, h, w): divided by c
  float* dgate;             // (N, c)
  float* dhidden;           // (N, 2, hidden)
  float* dpooled;           // (N, 2, c)
  float scale;
  int32_t h;
  int32_t w;
  int32_t c;
  int32_t hidden;
  int32_t side;
  int32_t channel_gate;
  int32_t spatial_gate;
  int32_t whole;
  int32_t rows_per_block;
  int32_t cols_per_block;
  int32_t reserved;
};

// resize.cu
struct ResampleArgs {
  const void* x;            // (outer, n_in, inner)
  const int32_t* first;     // (n_out)
  const int32_t* count;     // (n_out), at most taps
  const float* weights;     // (n_out, taps)
  void* y;                  // (outer, n_out, inner)
  int32_t n_in;
  int32_t n_out;
  int32_t inner;
  int32_t taps;
  int32_t per_block;        // output points
  int32_t reserved;
};

struct UpsampleArgs {
  const void* x;            // (N, h, w, c); the gradient: dy (N, h * scale, w * scale, c)
  void* y;                  // (N, h * scale, w * scale, c); the gradient: dx (N, h, w, c)
  int32_t h;
  int32_t w;
  int32_t c;
  int32_t scale;
};

// group_norm.cu
struct GroupNormArgs {
  const void* x;            // (N, pixels, c)
  const float* scale;       // (N or 1, c)
  const float* bias;        // (N or 1, c)
  void* y;                  // (N, pixels, c)
  float* stats;             // (N, groups, 2): mean and 1/sqrt(var + eps)
  int32_t per_image;        // elements from one image's scale and bias to the next: c, or 0 where all share them
  int32_t pixels;
  int32_t c;
  int32_t groups;
  int32_t groups_per_block;
  int32_t pixels_per_block;
  int32_t whole;            // one block does both phases of its groups
  int32_t act;
  float eps;
  int32_t reserved;
};

struct GroupNormGradArgs {
  const void* x;            // (N, pixels, c)
  const void* dy;           // (N, pixels, c)
  const void* residual;     // like dx, or null
  const uint8_t* keep;      // bits like dx, or null
  const float* scale;       // (N or 1, c)
  const float* bias;        // (N or 1, c)
  const float* stats;       // (N, groups, 2)
  void* dx;                 // (N, pixels, c)
  float* sums;              // (N, groups, 2): means of g and of g * xhat
  int32_t per_image;
  int32_t pixels;
  int32_t c;
  int32_t groups;
  int32_t groups_per_block;
  int32_t pixels_per_block;
  int32_t whole;
  int32_t act;
};

// attention.cu
// A tensor (batch, heads, tokens, d) whose last dimension is contiguous.
struct TokensView {
  uint64_t at;              // address of the first element
  int64_t batch;            // elements from one to the next
  int64_t head;
  int64_t token;
};

struct AttentionArgs {
  TokensView q;             // (batch, heads, queries, d)
  TokensView k;             // (batch, heads, keys, d)
  TokensView v;             // (batch, heads, keys, d)
  TokensView y;             // (batch, heads, queries, d)
  const float* bias;        // (batch or 1, heads, queries, keys) or null: added to the logits
  const float* table;       // (heads, 2 map_h - 1, 2 map_w - 1) or null: by place of the key less that of the query, added too
  float* lse;               // (batch, heads, queries, 2): m, the largest logit of a row, and 1/l, l the sum of exp of all less m
  int64_t bias_batch;       // elements from one batch's bias to the next, 0 where all share it
  Divisor map_w;
  int32_t map_h;
  int32_t heads;
  int32_t queries;
  int32_t keys;
  int32_t d;
  float scale;
  int32_t reserved;
};

struct AttentionGradArgs {
  TokensView q;
  TokensView k;
  TokensView v;
  TokensView y;
  TokensView dy;
  TokensView dq;
  TokensView dk;
  TokensView dv;
  const float* bias;
  const float* table;
  const float* turned;      // the table by place of the query less that of the key
  const float* lse;
  float* delta;             // (batch, heads, queries): sum of y * dy over a row
  int64_t bias_batch;
  Divisor map_w;
  int32_t map_h;
  int32_t heads;
  int32_t queries;
  int32_t keys;
  int32_t d;
  float scale;
  int32_t reserved;
};

// diffusion.cu
struct QSampleArgs {
  const float* x;           // (N, d)
  const float* noise;       // (rows, d), rows a multiple of N
  const float* coefficients;  // (rows, 2): of the image and of the noise
  float* y;                 // (rows, d)
  float mul;                // the image is x * mul + add
  float add;
  int32_t n;
  int32_t d;
  int32_t chunk;            // elements per block
  int32_t reserved;
};

struct QSampleGradArgs {
  const float* dy;          // (rows, d)
  const float* coefficients;  // (rows, 2)
  float* dx;                // (N, d)
  float mul;
  int32_t n;
  int32_t d;
  int32_t draws;            // rows / N
  int32_t chunk;
  int32_t reserved;
};

struct DenoiseArgs {
  const float* x_t;         // (n)
  const void* noise;        // (n), as the network predicts it
  float* y;                 // (n): x0 * mul + add
  int64_t n;
  float x_t_factor;         // sqrt(1/ab)
  float noise_factor;       // sqrt(1/ab - 1)
  float mul;
  float add;
  int32_t per_block;
  int32_t reserved;
};

struct DenoiseGradArgs {
  const float* x_t;         // (n)
  const void* noise;        // (n)
  const float* dy;          // (n)
  float* dx_t;              // (n)
  void* dnoise;             // (n)
  int64_t n;
  float x_t_factor;
  float noise_factor;
  float mul;
  int32_t straight;         // 1: clipped values pass their gradient on as well
  int32_t per_block;
  int32_t reserved;
};

struct ConcatArgs {
  const void* a;            // (rows, c_a)
  const void* b;            // (rows, c_b)
  void* y;                  // (rows, c_a + c_b)
  int64_t rows;
  int32_t c_a;
  int32_t c_b;
  int32_t rows_per_block;
  int32_t reserved;
};

struct SplitArgs {
  const void* y;            // (rows, c)
  const void* residual;     // (rows, count) or null
  const uint8_t* keep;      // bits (rows, count) or null
  void* x;                  // (rows, count): columns first .. first + count of y
  int64_t rows;
  int32_t c;
  int32_t first;
  int32_t count;
  int32_t rows_per_block;
};

// layer_norm.cu
struct LayerNormArgs {
  const void* x;            // (rows, c)
  const float* scale;       // (c)
  const float* bias;        // (c)
  void* y;                  // (rows, c)
  float* stats;             // (rows, 2): mean and 1/sqrt(var + eps)
  int64_t rows;
  int32_t c;
  int32_t rows_per_block;
  float eps;
  int32_t reserved;
};

struct LayerNormGradArgs {
  const void* x;            // (rows, c)
  const void* dy;           // (rows, c)
  const void* residual;     // like dx, or null
  const uint8_t* keep;      // bits like dx, or null
  const float* scale;       // (c)
  const float* stats;       // (rows, 2)
  void* dx;                 // (rows, c)
  int64_t rows;
  int32_t c;
  int32_t rows_per_block;
};

// gate.cu
struct GateArgs {
  const void* x;            // (N, pixels, c)
  const void* dy;           // like x, or null: then y is the gradient of x
  const void* gate;         // (N, c)
  const void* residual;     // the gradient: like y, or null
  const uint8_t* keep;      // the gradient: bits like y, or null
  void* y;                  // (N, pixels, c)
  int32_t pixels;
  int32_t c;
  int32_t per_block;        // pixels
  int32_t act;
};

struct GateGradArgs {
  const void* x;            // (N, pixels, c)
  const void* dy;           // (N, pixels, c)
  void* dgate;              // (N, c)
  int32_t pixels;
  int32_t c;
  int32_t per_block;        // channels
  int32_t act;
};

// Lengths of the axes from the second to the fifth of a walk over rows.
struct Walk {
  Divisor n1;
  Divisor n2;
  Divisor n3;
  Divisor n4;
};

// How far apart neighbours along the five axes of a walk lie, in elements; 0 where an axis is repeated.
struct Steps {
  int64_t s0;
  int64_t s1;
  int64_t s2;
  int64_t s3;
  int64_t s4;
};

// elementwise.cu
struct UnaryArgs {
  const void* x;            // (rows, c)
  const void* dy;           // (rows, c), or null: forward
  const void* residual;     // (rows, c) or null
  const uint8_t* keep;      // bits (rows, c) or null
  void* y;                  // (rows, c): y, or dx
  int64_t rows;
  int32_t c;
  int32_t rows_per_block;
  int32_t function;
  float p;
  float q;
  int32_t reserved;
};

struct BinaryArgs {
  const void* a;
  const void* b;
  const void* dy;           // (rows, c), or null: forward
  void* y;                  // (rows, c): y, or the gradient of an operand before its broadcast axes are summed
  int64_t rows;
  Steps a_steps;
  Steps b_steps;
  int64_t a_step;           // along c
  int64_t b_step;
  Walk walk;                // of the rows
  int32_t c;
  int32_t rows_per_block;
  int32_t function;
  int32_t part;
};

// permute.cu
struct PermuteArgs {
  const void* x;
  void* y;                  // (rows, c)
  int64_t rows;
  Steps steps;
  int64_t step;             // along c
  Walk walk;                // of the rows
  int32_t c;
  int32_t rows_per_block;
};

// vote.cu
struct VoteArgs {
  const void* logits;       // (rows, k)
  int32_t* prediction;      // (rows)
  int32_t k;
  int32_t reserved;
};

struct VoteCountArgs {
  const int32_t* prediction;  // (rows): a class, or -1
  const int32_t* first;     // (images + 1): where the rows of an image begin
  int32_t* counts;          // (images, k): added to
  int32_t k;
  int32_t reserved;
};
