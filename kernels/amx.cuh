// What is known of the matrix units of x86 (AMX): bf16 tiles of 16 rows x 32, multiplied into 16 x 16 of float32.
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2, TDPBF16PS.
#pragma once
#include <immintrin.h>

namespace amx {

constexpr int ROWS = 16, DEPTH = 32;
constexpr int TILE = ROWS * DEPTH;  // elements of one operand tile: 1 KiB

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

}  // namespace amx
