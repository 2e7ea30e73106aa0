// c = a * b, float32, row-major: a (m, k), b (k, n), c (m, n). One thread per element of c and no shared memory: what an
// interpreter of scalar instructions can run as well.
#include <cstddef>

extern "C" __global__ void gemm(const float* a, const float* b, float* c, size_t m, size_t k, size_t n) {
  const size_t row = blockIdx.x * blockDim.x + threadIdx.x, column = blockIdx.y * blockDim.y + threadIdx.y;
  if (row >= m || column >= n) return;
  float sum = 0;
  for (size_t i = 0; i < k; ++i) sum += a[row * k + i] * b[i * n + column];
  c[row * n + column] = sum;
}
