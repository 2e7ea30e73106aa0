// The PTX instructions that tile and matrix products are made of, one function each. CUDA build only.
// Source: PTX ISA 9.0, sections 9.7.9 (copies) and 9.7.14 (matrix instructions).
#pragma once
#include "target.cuh"

namespace ptx {

// Shared memory is addressed with 32 bits.
DEVICE uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

// Starts a copy of 16 bytes from global to shared memory, both aligned to 16.
DEVICE void copy16(uint32_t to, const void* from, bool wanted) {
  asm volatile(
      "{ .reg .pred wanted; setp.ne.b32 wanted, %2, 0;\n"
      "  @wanted cp.async.cg.shared.global.L2::128B [%0], [%1], 16; }" ::"r"(to), "l"(from), "r"(int(wanted)));
}

DEVICE void copy16(uint32_t to, const void* from) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from));
}

// The same, but writes zeros and reads nothing where `inside` is 0.
DEVICE void copy16_or_zero(uint32_t to, const void* from, bool wanted, uint32_t inside) {
  asm volatile(
      "{ .reg .pred wanted, outside; setp.ne.b32 wanted, %2, 0; setp.eq.b32 outside, %3, 0;\n"
      "  @wanted cp.async.cg.shared.global.L2::128B [%0], [%1], 16, outside; }" ::"r"(to), "l"(from), "r"(int(wanted)),
      "r"(inside));
}

// The same for 4 bytes, aligned to 4.
DEVICE void copy4_or_zero(uint32_t to, const void* from, bool wanted, uint32_t inside) {
  asm volatile(
      "{ .reg .pred wanted, outside; setp.ne.b32 wanted, %2, 0; setp.eq.b32 outside, %3, 0;\n"
      "  @wanted cp.async.ca.shared.global [%0], [%1], 4, outside; }" ::"r"(to), "l"(from), "r"(int(wanted)),
      "r"(inside));
}

// Closes a group of copies; a group may be empty.
DEVICE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most PENDING of this thread's groups are still under way.
template <int PENDING> DEVICE void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory"); }

DEVICE void store_shared(uint32_t to, uint4 v) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w));
}

// Four 8 x 8 matrices of 16-bit values (8 x 4 of 32-bit); lane l names row l % 8 of matrix l / 8, 16 bytes each.
DEVICE void load_matrices(uint32_t (&r)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from));
}

// The same for 16-bit values, each matrix transposed.
DEVICE void load_matrices_turned(uint32_t (&r)[4], uint32_t from) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from));
}

// Two values as bfloat16, to nearest even, the first in the low half.
DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t r;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
  return r;
}

// 2^x by the special function unit, to 2 units in the last place; what would be subnormal is 0.
DEVICE float exp2(float x) {
  float r;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
  return r;
}

// d = a * b + c on 16 x 8 of C and 16 of K.
DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const float (&c)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

// The same for 8 of K. The low 13 bits of a and b count for nothing.
DEVICE void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const float (&c)[4]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

}  // namespace ptx
