// What a build target provides. Everything else that is target-specific lives in lanes.cuh, block.cuh, tile*.cuh, matrix*.cuh,
// ptx.cuh (CUDA), amx.cuh and host.cpp (HOST); the kernels themselves, *.cu, are the same text for both.
//
//   CUDA   nvcc, C++17; a kernel body runs once per thread
//   HOST   g++ or clang++, C++17 with GNU vector extensions; a kernel body runs once per block, and block primitives loop
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define TARGET_CUDA 1
#define DEVICE __device__ __forceinline__
#define OUTLINED DEVICE
#define UNROLL _Pragma("unroll")
#else
#define TARGET_HOST 1
#include <cmath>
#include <cstring>
#define DEVICE inline __attribute__((always_inline))
#define OUTLINED [[maybe_unused]] static __attribute__((noinline))  // rare and long: would keep the code around it from being inlined
#define UNROLL _Pragma("GCC unroll 64")
#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define HOST_AMX 1
#elif defined(__AVX512BF16__)
#define HOST_DOT 1  // bf16 by pairs of channels: two products per lane and instruction
#endif
#endif

#include "args.h"

// Bits of a bfloat16: the upper half of a float32.
struct bf16 {
  uint16_t bits;
};

DEVICE float bits_to_float(uint32_t u) {
#if TARGET_CUDA
  return __uint_as_float(u);
#else
  float f;
  memcpy(&f, &u, 4);
  return f;
#endif
}

DEVICE uint32_t float_to_bits(float f) {
#if TARGET_CUDA
  return __float_as_uint(f);
#else
  uint32_t u;
  memcpy(&u, &f, 4);
  return u;
#endif
}

DEVICE float to_float(float v) { return v; }
DEVICE float to_float(bf16 v) { return bits_to_float(uint32_t(v.bits) << 16); }

// Rounds to nearest, ties to even; a NaN stays a (quiet) NaN.
template <class T> DEVICE T from_float(float v);
template <> DEVICE float from_float<float>(float v) { return v; }
template <> DEVICE bf16 from_float<bf16>(float v) {
#if TARGET_CUDA
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(v));
  return {bits};
#else
  const uint32_t u = float_to_bits(v);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {uint16_t(u >> 16 | 0x40)};
  return {uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16)};
#endif
}

// One rounding for a * b + c on every target.
DEVICE float fused_multiply_add(float a, float b, float c) {
#if TARGET_CUDA
  return __fmaf_rn(a, b, c);
#else
  return __builtin_fmaf(a, b, c);
#endif
}

// The quotient of n by a divisor prepared on the Rust side: one multiplication instead of a division.
DEVICE uint32_t divide(uint32_t n, const Divisor& d) {
#if TARGET_CUDA
  return (__umulhi(n, d.magic) + n) >> d.shift;
#else
  return uint32_t(((uint64_t(n) * d.magic >> 32) + n) >> d.shift);
#endif
}

// What a kernel body knows about where it runs.
struct Block {
  Index3 index;           // which block of the grid
  uint32_t threads;       // threads in this block; 1 on the host
  uint32_t thread;        // this thread; 0 on the host
  unsigned char* shared;  // the kernel's shared memory, 128-byte aligned; its first REDUCE_BYTES belong to block reductions
};

constexpr int REDUCE_BYTES = 256;

// KERNEL(name, Args, threads, shared_bytes) { body using `block` and `a` }
// build/generate.rs and tools/ read these lines; threads and shared_bytes are therefore plain numbers. They are those of CUDA: the
// host runs a block on one thread, with more memory than any kernel asks for.
#if TARGET_CUDA
// "At least one block": otherwise ptxas may spill to fit another block onto a multiprocessor.
#define KERNEL(name, Args, THREADS, SHARED)                                                             \
  DEVICE void name##_body(const Block& block, const Args& a);                                           \
  extern "C" __global__ void __launch_bounds__(THREADS, 1) name(const __grid_constant__ Args a) {       \
    extern __shared__ __align__(128) unsigned char shared_memory[];                                     \
    name##_body({{blockIdx.x, blockIdx.y, blockIdx.z}, THREADS, threadIdx.x, shared_memory}, a);        \
  }                                                                                                     \
  DEVICE void name##_body(const Block& block, const Args& a)
#else
// A program may hold the kernels for several levels of processor. build.rs puts each level into a namespace of its own, so that
// the linker joins no function of one with its namesake of another, and names what Rust calls after the level.
#define HOST_JOINED(level, name) rampart_host_##level##_##name
#define HOST_EXPANDED(level, name) HOST_JOINED(level, name)
#define HOST_NAME(name) HOST_EXPANDED(HOST_LEVEL, name)

// The host entry runs blocks [first, last) of a grid in x-fastest order; the Rust side spreads ranges over its pool.
#define KERNEL(name, Args, THREADS, SHARED)                                                             \
  static void name##_body(const Block& block, const Args& a);                                           \
  extern "C" void HOST_NAME(name)(const Args* a, const Index3* grid, uint64_t first, uint64_t last,     \
                                  unsigned char* shared) {                                              \
    for (uint64_t b = first; b < last; ++b) {                                                           \
      const Index3 index = {uint32_t(b % grid->x), uint32_t(b / grid->x % grid->y),                     \
                            uint32_t(b / grid->x / grid->y)};                                           \
      name##_body({index, 1, 0, shared}, *a);                                                           \
    }                                                                                                   \
  }                                                                                                     \
  static void name##_body(const Block& block, const Args& a)
#endif
