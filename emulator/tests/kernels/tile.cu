// y = x * w^T + bias on tensor cores, bf16 in, float32 out, and the sum of each block's part of y: the kernel that the mutants
// of tests/mutants.rs break. x (m, k), w (n, k), y (m, n), k a multiple of 16, n a multiple of 16.
//
// Two warps compute a 32 x 16 tile. Two stages of shared memory are filled by cp.async; each warp passes its 16 x 16 part
// through shared memory, so that a thread stores 16 bytes.
#include <cstdint>

struct Args {
  const uint16_t* x;
  const uint16_t* w;
  const float* bias;  // (n)
  float* y;
  float* partial;     // (blocks, 2): sums of the two warps
  float* total;       // (blocks)
  int m, n, k, columns;
};

constexpr int BM = 32, BN = 16, BK = 16, STAGE = (BM + BN) * BK * 2;

__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// 16 bytes of a stage: rows of 32 bytes, one half each.
__device__ __forceinline__ void copy(uint32_t to, const void* from, bool inside) {
  asm volatile(
      "{ .reg .pred outside; setp.eq.b32 outside, %2, 0;\n"
      "  cp.async.cg.shared.global [%0], [%1], 16, outside; }" ::"r"(to), "l"(from), "r"(int(inside)));
}

__device__ __forceinline__ void fill(const Args& a, uint32_t stage, int m0, int n0, int k0) {
  const int t = threadIdx.x, row = t / 2, half = t % 2;
  const bool inside = m0 + row < a.m;
  copy(stage + t * 16, a.x + (inside ? int64_t(m0 + row) * a.k + k0 + half * 8 : 0), inside);
  if (t < 32) copy(stage + BM * 32 + t * 16, a.w + int64_t(n0 + row) * a.k + k0 + half * 8, true);
  asm volatile("cp.async.commit_group;" ::: "memory");
}

extern "C" __global__ void __launch_bounds__(64) tile(const __grid_constant__ Args a) {
  __shared__ __align__(16) unsigned char stages[2 * STAGE];
  __shared__ __align__(16) float staged[2][16 * 16];
  __shared__ float sums[2];
  const int t = threadIdx.x, lane = t % 32, warp = t / 32;
  const int m0 = blockIdx.x / a.columns * BM, n0 = blockIdx.x % a.columns * BN;
  const uint32_t base = shared_address(stages);
  float c[2][4] = {};
  fill(a, base, m0, n0, 0);
#pragma unroll 1
  for (int k0 = 0, s = 0; k0 < a.k; k0 += BK, s ^= 1) {
    asm volatile("cp.async.wait_group 0;" ::: "memory");
    __syncthreads();
    if (k0 + BK < a.k) fill(a, base + (s ^ 1) * STAGE, m0, n0, k0 + BK);
    const uint32_t stage = base + s * STAGE;
    uint32_t fa[4], fb[4];
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fa[0]), "=r"(fa[1]), "=r"(fa[2]), "=r"(fa[3])
                 : "r"(stage + (warp * 16 + lane % 16) * 32 + lane / 16 * 16));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(fb[0]), "=r"(fb[1]), "=r"(fb[2]), "=r"(fb[3])
                 : "r"(stage + BM * 32 + (lane % 8 + lane / 16 * 8) * 32 + lane / 8 % 2 * 16));
#pragma unroll
    for (int j = 0; j < 2; ++j)
      asm volatile(
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[j][0]), "+f"(c[j][1]), "+f"(c[j][2]), "+f"(c[j][3])
          : "r"(fa[0]), "r"(fa[1]), "r"(fa[2]), "r"(fa[3]), "r"(fb[2 * j]), "r"(fb[2 * j + 1]));
  }
  for (int j = 0; j < 2; ++j)
    for (int e = 0; e < 4; ++e) staged[warp][(lane / 4 + e / 2 * 8) * 16 + j * 8 + lane % 4 * 2 + e % 2] = c[j][e];
  __syncwarp();
  float sum = 0;
  for (int r = lane / 4; r < 16; r += 8) {
    float4 v = *reinterpret_cast<const float4*>(&staged[warp][r * 16 + lane % 4 * 4]);
    const float4 b = *reinterpret_cast<const float4*>(a.bias + n0 + lane % 4 * 4);
    v = make_float4(v.x + b.x, v.y + b.y, v.z + b.z, v.w + b.w);
    const int row = m0 + warp * 16 + r;
    if (row < a.m) {
      *reinterpret_cast<float4*>(a.y + int64_t(row) * a.n + n0 + lane % 4 * 4) = v;
      sum += v.x + v.y + v.z + v.w;
    }
  }
  for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(~0u, sum, d);
  if (lane == 0) a.partial[blockIdx.x * 2 + warp] = sum;
  if (lane == 0) sums[warp] = sum;
  __syncthreads();
  if (t == 0) a.total[blockIdx.x] = a.partial[blockIdx.x * 2] + sums[1];
}
