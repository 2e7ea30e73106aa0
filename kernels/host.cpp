// What the host build tells the Rust side about itself.
#include "tile.cuh"

#if HOST_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

struct HostTile {
  int32_t panel;          // columns of a weight panel: n_tile is a multiple of it
  int32_t rows;           // m_tile is a multiple of it
  int32_t c_align;        // channels are padded to a multiple of it in packed weights
  int32_t element_bytes;  // of a packed weight
};

// How weights for `columns` output columns are packed and tiled.
extern "C" HostTile rampart_host_tile(int32_t is_bf16, int32_t columns) {
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
extern "C" int32_t rampart_host_init() {
#if HOST_AMX
  constexpr int ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18;
  if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) != 0) return 1;
#endif
  return 0;
}

// The instruction sets this build was compiled for, by the names Rust's feature detection uses.
extern "C" const char* rampart_host_features() {
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
      ;
}
