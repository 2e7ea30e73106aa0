// The threadfence reduction of the CUDA C++ programming guide.
__device__ unsigned int count = 0;
__shared__ bool last;
extern "C" __global__ void sum(const float* array, unsigned n, volatile float* result, float* total) {
  __shared__ float partial[128];
  float mine = 0;
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) mine += array[i];
  partial[threadIdx.x] = mine;
  __syncthreads();
  for (unsigned d = blockDim.x / 2; d > 0; d /= 2) {
    if (threadIdx.x < d) partial[threadIdx.x] += partial[threadIdx.x + d];
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    result[blockIdx.x] = partial[0];
    __threadfence();
    unsigned int value = atomicInc(&count, gridDim.x);
    last = value == gridDim.x - 1;
  }
  __syncthreads();
  if (last) {
    mine = 0;
    for (unsigned i = threadIdx.x; i < gridDim.x; i += blockDim.x) mine += result[i];
    partial[threadIdx.x] = mine;
    __syncthreads();
    for (unsigned d = blockDim.x / 2; d > 0; d /= 2) {
      if (threadIdx.x < d) partial[threadIdx.x] += partial[threadIdx.x + d];
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      *total = partial[0];
      result[0] = partial[0];
      count = 0;
    }
  }
}
