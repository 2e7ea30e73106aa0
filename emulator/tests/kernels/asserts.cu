// Device `assert` and `printf`: what nvcc makes of them are calls of `__assertfail` and `vprintf`.
#include <cassert>
#include <cstdio>

extern "C" __global__ void guarded(const int* x, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) assert(x[i] >= 0 && "counts are not negative");
}

extern "C" __global__ void speaking(const float* x, unsigned n) {
  const unsigned i = threadIdx.x;
  if (i < n) {
    const int written = printf("x[%u] = %6.2f, %s %lld %p %%\n", i, x[i], x[i] < 0 ? "below" : "above", -7000000000ll * i, (void*)0);
    if (written < 0) printf("failed\n");
    if (i == 1) printf("%c%5d|%-4x|%08.3e|%+d|%.2s|%*d|%hhd\n", 'q', -42, 255, 1234.5, 7, "xyz", 6, 12, 300);
  }
  if (i == 0) printf("done\n");
}
