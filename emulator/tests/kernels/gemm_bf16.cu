// y = x * w^T on tensor cores, bf16 in, float32 out, tiled as a GPU needs it: x (m, k), w (n, k), y (m, n); m and n multiples of
// 128, k a multiple of 32.
//
// Four warps compute a 128 x 128 tile, 64 x 64 each. Three stages of 32 columns of x and w are filled by cp.async; 16-byte
// pieces of a row are permuted so that ldmatrix meets no bank twice.
#include <cstdint>

struct Args {
  const uint16_t* x;
  const uint16_t* w;
  float* y;
  int m, n, k;
};

constexpr int TILE = 128, BK = 32, STAGES = 3, OPERAND = TILE * BK * 2, STAGE = 2 * OPERAND;

// Byte offset of the 16-byte piece `piece` (0 to 3) of a row.
__device__ __forceinline__ uint32_t offset(int row, int piece) { return row * 64 + ((piece ^ (row >> 1 & 3)) * 16); }

__device__ __forceinline__ void fill(uint32_t to, const uint16_t* from, int first, int k, int k0) {
#pragma unroll
  for (int i = 0; i < TILE * 4 / 128; ++i) {
    const int e = i * 128 + threadIdx.x, row = e / 4, piece = e % 4;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + offset(row, piece)),
                 "l"(from + int64_t(first + row) * k + k0 + piece * 8));
  }
}

__device__ __forceinline__ void ldmatrix(uint32_t (&f)[4], uint32_t at) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(f[0]), "=r"(f[1]), "=r"(f[2]), "=r"(f[3])
               : "r"(at));
}

extern "C" __global__ void __launch_bounds__(128) gemm_bf16(const __grid_constant__ Args a) {
  __shared__ __align__(128) unsigned char stages[STAGES * STAGE];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, wm = warp / 2 * 64, wn = warp % 2 * 64;
  const int m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE, steps = a.k / BK;
  const uint32_t base = uint32_t(__cvta_generic_to_shared(stages));
  float c[4][8][4] = {};
#pragma unroll
  for (int s = 0; s < STAGES - 1; ++s) {
    if (s < steps) {
      fill(base + s * STAGE, a.x, m0, a.k, s * BK);
      fill(base + s * STAGE + OPERAND, a.w, n0, a.k, s * BK);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  int now = 0, next = STAGES - 1;
#pragma unroll 1
  for (int t = 0; t < steps; ++t) {
    asm volatile("cp.async.wait_group %0;" ::"n"(STAGES - 2) : "memory");
    __syncthreads();
    if (t + STAGES - 1 < steps) {
      fill(base + next * STAGE, a.x, m0, a.k, (t + STAGES - 1) * BK);
      fill(base + next * STAGE + OPERAND, a.w, n0, a.k, (t + STAGES - 1) * BK);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
    const uint32_t x = base + now * STAGE, w = x + OPERAND;
#pragma unroll
    for (int kk = 0; kk < BK / 16; ++kk) {
      uint32_t fx[4][4], fw[4][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) ldmatrix(fx[i], x + offset(wm + i * 16 + lane % 16, kk * 2 + lane / 16));
#pragma unroll
      for (int j = 0; j < 4; ++j)
        ldmatrix(fw[j], w + offset(wn + j * 16 + lane % 8 + lane / 16 * 8, kk * 2 + lane / 8 % 2));
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j)
          asm volatile(
              "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
              : "+f"(c[i][j][0]), "+f"(c[i][j][1]), "+f"(c[i][j][2]), "+f"(c[i][j][3])
              : "r"(fx[i][0]), "r"(fx[i][1]), "r"(fx[i][2]), "r"(fx[i][3]), "r"(fw[j / 2][j % 2 * 2]),
                "r"(fw[j / 2][j % 2 * 2 + 1]));
    }
    now = now + 1 == STAGES ? 0 : now + 1;
    next = next + 1 == STAGES ? 0 : next + 1;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int row = m0 + wm + i * 16 + h * 8 + lane / 4, column = n0 + wn + j * 8 + lane % 4 * 2;
        *reinterpret_cast<float2*>(a.y + int64_t(row) * a.n + column) = make_float2(c[i][j][2 * h], c[i][j][2 * h + 1]);
      }
}
