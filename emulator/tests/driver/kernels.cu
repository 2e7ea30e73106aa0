// Kernels that the driver's tests load. kernels.ptx beside it is made by
//   nvcc -ptx -arch=compute_80 -lineinfo kernels.cu

__device__ int counter = 7;
__constant__ int table[4] = {1, 2, 3, 4};

extern "C" {

// x[i] = value
__global__ void fill(int* x, int value, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = value;
}

// x[i] = x[i] * factor + 1: the order of launches shows
__global__ void step(int* x, int factor, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = x[i] * factor + 1;
}

// Writes one element behind the end.
__global__ void beyond(int* x, int n) { x[n] = 1; }

// Reads 4 bytes at an odd address.
__global__ void misaligned(const char* x, int* y) { *y = *(const int*)(x + 1); }

__global__ void trap() { asm volatile("trap;"); }

__global__ void nothing() {}

// Sums its arguments of all sizes: the layout of parameters shows.
__global__ void mixed(char a, double b, short c, int* out) { *out = a + (int)b + c; }

// Reverses a block through dynamic shared memory.
__global__ void reverse(int* x) {
  extern __shared__ int tile[];
  tile[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = tile[blockDim.x - 1 - threadIdx.x];
}

// 1 KiB of static and any dynamic shared memory.
__global__ void both(int* x) {
  __shared__ int fixed[256];
  extern __shared__ int tile[];
  fixed[threadIdx.x] = 1;
  tile[threadIdx.x] = 2;
  __syncthreads();
  x[threadIdx.x] = fixed[threadIdx.x] + tile[threadIdx.x];
}

__global__ void __launch_bounds__(64) bounded(int* x) { x[threadIdx.x] = threadIdx.x; }

__global__ void bump() { counter += table[3]; }

}
