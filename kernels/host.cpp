// What a host build tells the Rust side about itself, once per level of processor that the program has kernels for.
#include "tile.cuh"

struct HostTile {
  int32_t panel;          // columns of a weight panel: n_tile is a multiple of it
  int32_t rows;           // m_tile is a multiple of it
  int32_t c_align;        // channels are padded to a multiple of it in packed weights
  int32_t element_bytes;  // of a packed weight
};

// How weights for `columns` output columns are packed and tiled.
extern "C" HostTile HOST_NAME(tile)(int32_t is_bf16, int32_t columns) {
#if HOST_AMX
  if (is_bf16) return {tile::AMX_PANEL, 2 * tile::AMX_ROWS, tile::AMX_DEPTH, 2};
#endif
  const int panel = tile::panel_of(columns);
#if HOST_DOT
  if (is_bf16) return {panel, tile::rows_per_step(panel), 2, 2};
#endif
  (void)is_bf16;
  return {panel, tile::rows_per_step(panel), 1, 4};
}

// Asks the kernel for the matrix units (Linux grants their state per process). 0 on success, else why bf16 cannot run.
extern "C" int32_t HOST_NAME(init)() {
#if HOST_AMX
  constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0) return 1;
#endif
  return 0;
}

// The instruction sets that the compiler was free to use, by the names of Rust's feature detection: all must be there. Those in
// front of the first `;` are named to people.
extern "C" const char* HOST_NAME(features)() {
  return ""
#if defined(__AVX2__)
         "avx2,"
#endif
#if defined(__FMA__)
         "fma,"
#endif
#if defined(__AVX512F__)
         "avx512f,"
#endif
#if defined(__AVX512BW__)
         "avx512bw,"
#endif
#if defined(__AVX512BF16__)
         "avx512bf16,"
#endif
#if HOST_AMX
         "amx-bf16,"
#endif
         ";"
#if defined(__SSE3__)
         "sse3,"
#endif
#if defined(__SSSE3__)
         "ssse3,"
#endif
#if defined(__SSE4_1__)
         "sse4.1,"
#endif
#if defined(__SSE4_2__)
         "sse4.2,"
#endif
#if defined(__POPCNT__)
         "popcnt,"
#endif
#if defined(__AVX__)
         "avx,"
#endif
#if defined(__F16C__)
         "f16c,"
#endif
#if defined(__BMI__)
         "bmi1,"
#endif
#if defined(__BMI2__)
         "bmi2,"
#endif
#if defined(__LZCNT__)
         "lzcnt,"
#endif
#if defined(__MOVBE__)
         "movbe,"
#endif
#if defined(__AVXVNNI__)
         "avxvnni,"
#endif
#if defined(__AVX512CD__)
         "avx512cd,"
#endif
#if defined(__AVX512DQ__)
         "avx512dq,"
#endif
#if defined(__AVX512VL__)
         "avx512vl,"
#endif
#if defined(__AVX512IFMA__)
         "avx512ifma,"
#endif
#if defined(__AVX512VBMI__)
         "avx512vbmi,"
#endif
#if defined(__AVX512VBMI2__)
         "avx512vbmi2,"
#endif
#if defined(__AVX512VNNI__)
         "avx512vnni,"
#endif
#if defined(__AVX512BITALG__)
         "avx512bitalg,"
#endif
#if defined(__AVX512VPOPCNTDQ__)
         "avx512vpopcntdq,"
#endif
#if defined(__AVX512FP16__)
         "avx512fp16,"
#endif
#if defined(__GFNI__)
         "gfni,"
#endif
#if defined(__VAES__)
         "vaes,"
#endif
#if defined(__VPCLMULQDQ__)
         "vpclmulqdq,"
#endif
      ;
}
