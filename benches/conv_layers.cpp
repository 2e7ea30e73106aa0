// Direct convolutions beside Winograd's, layer by layer: what the rule in src/ops/winograd.rs was fitted to. One thread, the host's
// own kernels, the processor's time in the best of some runs, so that other work on the machine matters less.
//
//   g++ -O3 -march=native -std=c++17 -ffp-contract=off -fno-math-errno -Wno-psabi -Ikernels benches/conv_layers.cpp -o target/conv_layers
//   target/conv_layers              # -march=x86-64-v3, x86-64: other levels of processor
//
// GFLOP/s count the multiplications of the direct form; the error is relative L2 against float64, inputs as behind a ReLU.
#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#define HOST_LEVEL bench
#include "conv.cu"
#include "winograd.cpp"

constexpr size_t SCRATCH = 4 << 20;  // as in src/device/host.rs
constexpr int BLOCK = 96;            // as there

// Memory as the engine has it: in huge pages.
static float* memory(size_t floats) {
  const size_t huge = 2 << 20, bytes = (floats * sizeof(float) / huge + 1) * huge;
  void* at = aligned_alloc(huge, bytes);
  madvise(at, bytes, MADV_HUGEPAGE);
  memset(at, 0, bytes);
  return static_cast<float*>(at);
}

// As Divisor::new in src/device/kernel.rs.
static Divisor divisor(uint32_t value) {
  const uint32_t shift = value <= 1 ? 0 : 32 - __builtin_clz(value - 1);
  return {value, uint32_t((1ull << 32) * ((1ull << shift) - value) / value + 1), shift};
}

template <class F> static double seconds(int runs, F f) {
  const auto now = [] {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
  };
  double best = 1e9;
  for (int i = 0; i < runs; ++i) {
    const double start = now();
    f();
    best = std::min(best, now() - start);
  }
  return best;
}

int main() {
  const int shapes[][4] = {{32, 3, 64, 8},     {32, 8, 8, 32},    {32, 16, 16, 32},   {16, 32, 32, 32},  {32, 64, 64, 32},   {32, 128, 128, 8},
                           {32, 256, 128, 8},  {16, 128, 128, 32}, {16, 256, 256, 8}, {16, 512, 256, 8}, {14, 256, 256, 8},  {13, 64, 64, 8},
                           {8, 256, 256, 8},   {8, 256, 256, 32},  {8, 512, 256, 8},  {7, 512, 512, 8},  {5, 256, 256, 8},   {4, 256, 256, 8},
                           {4, 512, 512, 32},  {3, 256, 256, 8},   {2, 256, 256, 8},  {16, 256, 256, 1}, {8, 256, 256, 1},   {4, 256, 256, 1}};
  printf("%4s %4s    %4s %5s  %6s  %8s  ratio  %8s  %8s\n", "side", "C", "O", "batch", "direct", "Winograd", "error", "error");
  for (const auto& [side, c, o, n] : shapes) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    const size_t points = size_t(n) * side * side;
    std::vector<float> w(size_t(o) * 9 * c);
    float *x = memory(points * c), *scratch = memory(SCRATCH / sizeof(float)), *y[2] = {memory(points * o), memory(points * o)};
    for (size_t i = 0; i < points * c; ++i) x[i] = std::max(0.f, normal(random));
    for (auto& v : w) v = normal(random) / std::sqrt(9.f * c);
    const int panel = tile::panel_of(o), rows = tile::rows_per_step(panel), panels = (o + panel - 1) / panel;
    float* packed = memory(size_t(panels) * panel * 9 * c);
    auto shared = reinterpret_cast<unsigned char*>(scratch);
    const PackArgs pack = {w.data(), packed, 1, o, 9, c, panel, c};
    for (int i = 0; i < panels * panel; ++i) pack_weights_f32_body({{uint32_t(i), 0, 0}, 1, 0, shared}, pack);

    ConvArgs conv = {};
    conv.x = x, conv.w = packed, conv.y = y[0], conv.q = divisor(side), conv.pq = divisor(side * side), conv.m = int(points);
    conv.x_h = conv.x_w = conv.y_h = conv.y_w = side, conv.c = c, conv.o = o, conv.groups = 1, conv.r = conv.s = 3;
    conv.stride_h = conv.stride_w = conv.pad_h = conv.pad_w = conv.dil_h = conv.dil_w = conv.step_h = conv.step_w = 1;
    conv.m_tile = std::clamp(int(1536 * 1024 / (4 * c)) / rows * rows, rows, 384 / rows * rows), conv.n_tile = panels * panel;

    WinogradArgs args = {};
    const int across = (side + 3) / 4, most = std::min(BLOCK, HOST_NAME(winograd_tiles)(c, panel, SCRATCH));
    args.conv = conv, args.conv.y = y[1], args.per_image = divisor(across * across), args.per_row = divisor(across);
    args.tiles = n * across * across, args.panels = args.block_panels = panels, args.panel = panel, args.c_pad = c;
    args.block = std::min(most, (args.tiles + rows - 1) / rows * rows);

    const double flops = 18e-9 * double(points) * c * o;
    const int runs = std::max(5, int(2 / flops));
    const double direct = seconds(runs, [&] {
      for (int i = 0; i * conv.m_tile < conv.m; ++i) conv_f32_body({{uint32_t(i), 0, 0}, 1, 0, shared}, conv);
    });
    const double winograd = seconds(runs, [&] {
      for (int i = 0; i * args.block < args.tiles; ++i) winograd_f32_body({{uint32_t(i), 0, 0}, 1, 0, shared}, args);
    });

    double norm = 0, off[2] = {};
    for (int sample = 0; sample < 1000; ++sample) {
      const int i = random() % n, p = random() % side, q = random() % side, k = random() % o;
      double sum = 0;
      for (int t = 0; t < 9; ++t) {
        const int h = p - 1 + t / 3, v = q - 1 + t % 3;
        if (h < 0 || v < 0 || h >= side || v >= side) continue;
        for (int j = 0; j < c; ++j) sum += double(x[((size_t(i) * side + h) * side + v) * c + j]) * w[(size_t(k) * 9 + t) * c + j];
      }
      norm += sum * sum;
      for (int e = 0; e < 2; ++e) off[e] += std::pow(y[e][((size_t(i) * side + p) * side + q) * o + k] - sum, 2);
    }
    printf("%4d %4d -> %4d %5d  %6.1f  %8.1f  %5.2f  %8.1e  %8.1e\n", side, c, o, n, flops / direct, flops / winograd, direct / winograd,
           std::sqrt(off[0] / norm), std::sqrt(off[1] / norm));
    for (float* at : {x, scratch, y[0], y[1], packed}) free(at);
  }
}
