// A short run of neighbouring values (usually channels), handled together: one vector register on the host (two without AVX), one
// 16-byte access of bf16 or two of float32 on CUDA. Loads and stores take a count, so that rows need not be a multiple of the run.
#pragma once
#include "target.cuh"
#if TARGET_CUDA
#include "ptx.cuh"
#endif

#if TARGET_HOST
// GCC takes the deliberately undefined operands in its own header for mistakes.
#pragma GCC diagnostic ignored "-Wuninitialized"
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif
#endif

#if TARGET_CUDA

struct Lanes {
  static constexpr int SIZE = 8;
  float v[SIZE];
  DEVICE float& operator[](int i) { return v[i]; }
  DEVICE float operator[](int i) const { return v[i]; }
};

#define LANES_BINARY(OP)                                      \
  DEVICE Lanes operator OP(const Lanes& a, const Lanes& b) {  \
    Lanes r;                                                  \
    UNROLL for (int i = 0; i < Lanes::SIZE; ++i) r.v[i] = a.v[i] OP b.v[i]; \
    return r;                                                 \
  }
LANES_BINARY(+)
LANES_BINARY(-)
LANES_BINARY(*)
LANES_BINARY(/)
#undef LANES_BINARY

#else

#if defined(__AVX512F__)
constexpr int LANES_SIZE = 16;
#else
constexpr int LANES_SIZE = 8;
#endif
typedef float LanesVector __attribute__((vector_size(LANES_SIZE * 4)));
typedef int32_t LanesInts __attribute__((vector_size(LANES_SIZE * 4)));

// A thin name around the compiler's vector type, so that both targets spell Lanes::SIZE, v[i] and the arithmetic alike.
struct Lanes {
  static constexpr int SIZE = LANES_SIZE;
  LanesVector v;
  DEVICE float operator[](int i) const { return v[i]; }
  DEVICE void set(int i, float x) { v[i] = x; }
};
DEVICE Lanes operator+(Lanes a, Lanes b) { return {a.v + b.v}; }
DEVICE Lanes operator-(Lanes a, Lanes b) { return {a.v - b.v}; }
DEVICE Lanes operator*(Lanes a, Lanes b) { return {a.v * b.v}; }
DEVICE Lanes operator/(Lanes a, Lanes b) { return {a.v / b.v}; }

#endif

namespace lanes {

constexpr int SIZE = Lanes::SIZE;

// Bit masks of a row of c channels take mask_stride(c) bytes: bit i of byte i / 8 belongs to channel i.
DEVICE int mask_stride(int c) { return (c + 15) / 16 * 2; }

DEVICE Lanes fill(float x) {
#if TARGET_CUDA
  Lanes r;
  UNROLL for (int i = 0; i < SIZE; ++i) r.v[i] = x;
  return r;
#else
#if defined(__AVX512F__)
  return {LanesVector(_mm512_set1_ps(x))};
#elif defined(__AVX2__)
  return {LanesVector(_mm256_set1_ps(x))};
#else
  return {x - LanesVector{}};
#endif
#endif
}

// Applies f to each lane: f(float) -> float.
template <class F> DEVICE Lanes map(Lanes a, F f) {
  Lanes r;
  UNROLL for (int i = 0; i < SIZE; ++i) r.v[i] = f(a.v[i]);
  return r;
}

template <class F> DEVICE Lanes map(Lanes a, Lanes b, F f) {
  Lanes r;
  UNROLL for (int i = 0; i < SIZE; ++i) r.v[i] = f(a.v[i], b.v[i]);
  return r;
}

// a * b + c, rounded once.
DEVICE Lanes fma(Lanes a, Lanes b, Lanes c) {
#if TARGET_HOST && defined(__AVX512F__)
  return {LanesVector(_mm512_fmadd_ps(__m512(a.v), __m512(b.v), __m512(c.v)))};
#elif TARGET_HOST && defined(__FMA__)
  return {LanesVector(_mm256_fmadd_ps(__m256(a.v), __m256(b.v), __m256(c.v)))};
#else
  Lanes r;
  UNROLL for (int i = 0; i < SIZE; ++i) r.v[i] = fused_multiply_add(a.v[i], b.v[i], c.v[i]);
  return r;
#endif
}

// Where b is NaN the result is b, as in PyTorch's max(a, b) for a clean a.
DEVICE Lanes maximum(Lanes a, Lanes b) {
#if TARGET_HOST && defined(__AVX512F__)
  return {LanesVector(_mm512_max_ps(__m512(a.v), __m512(b.v)))};
#elif TARGET_HOST && defined(__AVX2__)
  return {LanesVector(_mm256_max_ps(__m256(a.v), __m256(b.v)))};
#elif TARGET_HOST
  return {a.v > b.v ? a.v : b.v};
#else
  return map(a, b, [](float x, float y) { return x > y ? x : y; });
#endif
}

// Which of both comes out where one is NaN is left open: one instruction a lane.
DEVICE float larger(float x, float y) {
#if TARGET_HOST
  return x > y ? x : y;
#else
  return fmaxf(x, y);
#endif
}
DEVICE Lanes larger(Lanes a, Lanes b) {
#if TARGET_HOST
  return maximum(a, b);
#else
  return map(a, b, [](float x, float y) { return larger(x, y); });
#endif
}

// Where b is NaN the result is b.
DEVICE Lanes minimum(Lanes a, Lanes b) {
#if TARGET_HOST && defined(__AVX512F__)
  return {LanesVector(_mm512_min_ps(__m512(a.v), __m512(b.v)))};
#elif TARGET_HOST && defined(__AVX2__)
  return {LanesVector(_mm256_min_ps(__m256(a.v), __m256(b.v)))};
#elif TARGET_HOST
  return {a.v < b.v ? a.v : b.v};
#else
  return map(a, b, [](float x, float y) { return x < y ? x : y; });
#endif
}

// Bit i is set where lane i of a is greater than lane i of b.
DEVICE uint32_t greater(Lanes a, Lanes b) {
#if TARGET_HOST && defined(__AVX512F__)
  return _mm512_cmp_ps_mask(__m512(a.v), __m512(b.v), _CMP_GT_OQ);
#elif TARGET_HOST && defined(__AVX2__)
  return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(__m256(a.v), __m256(b.v), _CMP_GT_OQ)));
#else
  uint32_t bits = 0;
  UNROLL for (int i = 0; i < SIZE; ++i) bits |= uint32_t(a.v[i] > b.v[i]) << i;
  return bits;
#endif
}

// Bit i is set where lane i of a equals lane i of b.
DEVICE uint32_t equal(Lanes a, Lanes b) {
#if TARGET_HOST && defined(__AVX512F__)
  return _mm512_cmp_ps_mask(__m512(a.v), __m512(b.v), _CMP_EQ_OQ);
#elif TARGET_HOST && defined(__AVX2__)
  return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(__m256(a.v), __m256(b.v), _CMP_EQ_OQ)));
#else
  uint32_t bits = 0;
  UNROLL for (int i = 0; i < SIZE; ++i) bits |= uint32_t(a.v[i] == b.v[i]) << i;
  return bits;
#endif
}

// Bit i is set where lane i is NaN.
DEVICE uint32_t nan(Lanes a) { return ~equal(a, a) & ((1u << SIZE) - 1); }

// Lane i of a where bit i is set, else of b.
DEVICE Lanes select(uint32_t bits, Lanes a, Lanes b) {
#if TARGET_HOST && defined(__AVX512F__)
  return {LanesVector(_mm512_mask_mov_ps(__m512(b.v), __mmask16(bits), __m512(a.v)))};
#elif TARGET_HOST && defined(__AVX2__)
  const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i mask = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int(bits)), each), each);
  return {LanesVector(_mm256_blendv_ps(__m256(b.v), __m256(a.v), _mm256_castsi256_ps(mask)))};
#else
  Lanes r;
  UNROLL for (int i = 0; i < SIZE; ++i) r.v[i] = bits >> i & 1 ? a.v[i] : b.v[i];
  return r;
#endif
}

// Joins the lanes: each of the lower half with its counterpart in the upper one, again and again. Op takes floats, and on a host with
// vectors also four of them (__m128).
template <class Op> DEVICE float joined(Lanes a, Op op) {
#if TARGET_HOST && defined(__AVX2__)
#if defined(__AVX512F__)
  const __m512 all = __m512(a.v);
  const __m128 even = op(_mm512_castps512_ps128(all), _mm512_extractf32x4_ps(all, 2));
  const __m128 odd = op(_mm512_extractf32x4_ps(all, 1), _mm512_extractf32x4_ps(all, 3));
  const __m128 four = op(even, odd);
#else
  const __m256 all = __m256(a.v);
  const __m128 four = op(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
#endif
  const __m128 two = op(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(op(two, _mm_movehdup_ps(two)));
#else
  float s[SIZE];
  UNROLL for (int i = 0; i < SIZE; ++i) s[i] = a.v[i];
  UNROLL for (int w = SIZE / 2; w; w /= 2)
    UNROLL for (int i = 0; i < w; ++i) s[i] = op(s[i], s[i + w]);
  return s[0];
#endif
}

struct Add {
  DEVICE float operator()(float x, float y) const { return x + y; }
#if TARGET_HOST && defined(__AVX2__)
  DEVICE __m128 operator()(__m128 x, __m128 y) const { return _mm_add_ps(x, y); }
#endif
};

struct Larger {
  DEVICE float operator()(float x, float y) const { return larger(x, y); }
#if TARGET_HOST && defined(__AVX2__)
  DEVICE __m128 operator()(__m128 x, __m128 y) const { return _mm_max_ps(x, y); }
#endif
};

DEVICE float sum(Lanes a) { return joined(a, Add{}); }

DEVICE float larger(Lanes a) { return joined(a, Larger{}); }

// As `larger`, but a NaN comes out on no target alone.
DEVICE float largest(Lanes a) {
#if TARGET_HOST
  return larger(a);
#else
  return joined(a, [](float x, float y) { return x > y ? x : y; });
#endif
}

// Position of the lowest of some set bits.
DEVICE int lowest(uint32_t bits) {
#if TARGET_CUDA
  return __ffs(bits) - 1;
#else
  return __builtin_ctz(bits);
#endif
}

// a * 2^n, rounded once, for whole n in [-250, 250].
DEVICE Lanes scale(Lanes a, Lanes n) {
#if TARGET_HOST && defined(__AVX512F__)
  return {LanesVector(_mm512_scalef_ps(__m512(a.v), __m512(n.v)))};
#elif TARGET_HOST
  // Two steps: 2^n alone may be no normal number.
  const LanesInts k = __builtin_convertvector(n.v, LanesInts), half = k >> 1;
  const LanesInts lo = (half + 127) << 23, hi = (k - half + 127) << 23;
  return {a.v * (LanesVector)lo * (LanesVector)hi};
#else
  return map(a, n, [](float x, float e) {
    const int k = int(e), half = k >> 1;
    return x * bits_to_float(uint32_t(half + 127) << 23) * bits_to_float(uint32_t(k - half + 127) << 23);
  });
#endif
}

DEVICE float first(Lanes a) { return a.v[0]; }

// The bits of the first `count` lanes: none below 1, all from SIZE on.
DEVICE uint32_t below(int count) { return count < SIZE ? (1u << (count < 0 ? 0 : count)) - 1 : ~0u; }

// The first `count` lanes of a, the rest 0.
DEVICE Lanes head(Lanes a, int count) { return select(below(count), a, fill(0.f)); }

// The bit of lane `at`, or 0 when `at` is no lane.
DEVICE uint32_t bit(int at) { return uint32_t(at) < uint32_t(SIZE) ? 1u << at : 0u; }

// v in lane `at`, 0 in all others; 0 everywhere when `at` is no lane.
DEVICE Lanes one_hot(int at, float v) { return select(bit(at), fill(v), fill(0.f)); }

// The first `count` lanes from memory, the rest 0. A full run need not be aligned on the host; on CUDA it is whole 16-byte
// words when `p` is, and single values otherwise.
template <class T> DEVICE Lanes load(const T* p, int count) {
  Lanes r;
#if TARGET_HOST
#if defined(__AVX512F__)
  const __mmask16 m = count >= SIZE ? 0xffff : __mmask16((1u << (count < 0 ? 0 : count)) - 1);
  if constexpr (sizeof(T) == 4) {
    r.v = LanesVector(_mm512_maskz_loadu_ps(m, p));
  } else {
    const __m256i half = count >= SIZE ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)) : _mm256_maskz_loadu_epi16(m, p);
    r.v = LanesVector(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)));
  }
#else
  if constexpr (sizeof(T) == 4) {
    if (count >= SIZE) {
      memcpy(&r.v, p, SIZE * 4);
      return r;
    }
  }
#if defined(__AVX2__)
  if constexpr (sizeof(T) == 2) {
    if (count >= SIZE) {
      const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
      return {LanesVector(_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16)))};
    }
  }
#endif
  r.v = LanesVector{};
  for (int i = 0; i < SIZE && i < count; ++i) r.v[i] = to_float(p[i]);
#endif
#else
  if (count >= SIZE && reinterpret_cast<uintptr_t>(p) % 16 == 0) {
    if constexpr (sizeof(T) == 4) {
      const float4 lo = reinterpret_cast<const float4*>(p)[0], hi = reinterpret_cast<const float4*>(p)[1];
      r = {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
    } else {
      const uint4 u = *reinterpret_cast<const uint4*>(p);
      const uint32_t word[4] = {u.x, u.y, u.z, u.w};
      UNROLL for (int i = 0; i < 4; ++i) {
        r.v[2 * i] = bits_to_float(word[i] << 16);
        r.v[2 * i + 1] = bits_to_float(word[i] & 0xffff0000u);
      }
    }
  } else {
    UNROLL for (int i = 0; i < SIZE; ++i) r.v[i] = i < count ? to_float(p[i]) : 0.f;
  }
#endif
  return r;
}

template <class T> DEVICE void store(T* p, Lanes a, int count) {
#if TARGET_HOST
#if defined(__AVX512F__)
  const __mmask16 m = count >= SIZE ? 0xffff : __mmask16((1u << (count < 0 ? 0 : count)) - 1);
  if constexpr (sizeof(T) == 4) {
    _mm512_mask_storeu_ps(p, m, __m512(a.v));
    return;
  } else {
#if defined(__AVX512BF16__)
    if (count >= SIZE) {
      const auto half = __m256i(_mm512_cvtneps_pbh(__m512(a.v)));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
      return;
    }
#endif
  }
#else
  if constexpr (sizeof(T) == 4) {
    if (count >= SIZE) {
      memcpy(p, &a.v, SIZE * 4);
      return;
    }
  }
#endif
  for (int i = 0; i < SIZE && i < count; ++i) p[i] = from_float<T>(a.v[i]);
#else
  if (count >= SIZE && reinterpret_cast<uintptr_t>(p) % 16 == 0) {
    if constexpr (sizeof(T) == 4) {
      reinterpret_cast<float4*>(p)[0] = make_float4(a.v[0], a.v[1], a.v[2], a.v[3]);
      reinterpret_cast<float4*>(p)[1] = make_float4(a.v[4], a.v[5], a.v[6], a.v[7]);
    } else {
      uint32_t word[4];
      UNROLL for (int i = 0; i < 4; ++i) word[i] = ptx::pack_bf16(a.v[2 * i], a.v[2 * i + 1]);
      *reinterpret_cast<uint4*>(p) = make_uint4(word[0], word[1], word[2], word[3]);
    }
  } else {
    UNROLL for (int i = 0; i < SIZE; ++i)
      if (i < count) p[i] = from_float<T>(a.v[i]);
  }
#endif
}

// Bytes 0 to 255 from whole values, and the bits where they equal v.
DEVICE void store_bytes(uint8_t* p, Lanes a, int count) {
#if TARGET_HOST && defined(__AVX512F__)
  if (count >= SIZE) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(__m512(a.v))));
    return;
  }
#endif
  UNROLL for (int i = 0; i < SIZE; ++i)
    if (i < count) p[i] = uint8_t(a.v[i]);
}

DEVICE uint32_t equal_bytes(const uint8_t* p, uint8_t v, int count) {
#if TARGET_HOST && defined(__AVX512BW__) && defined(__AVX512VL__)
  if (count >= SIZE) {
    return _mm_cmpeq_epi8_mask(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), _mm_set1_epi8(char(v)));
  }
#endif
  uint32_t bits = 0;
  UNROLL for (int i = 0; i < SIZE; ++i)
    if (i < count) bits |= uint32_t(p[i] == v) << i;
  return bits;
}

// Bits of the run that starts at channel c (a multiple of SIZE) of a mask row.
DEVICE uint32_t load_bits(const uint8_t* row, int c) {
  uint32_t bits = row[c / 8];
  if constexpr (SIZE == 16) bits |= uint32_t(row[c / 8 + 1]) << 8;
  return bits;
}

DEVICE void store_bits(uint8_t* row, int c, uint32_t bits) {
  row[c / 8] = uint8_t(bits);
  if constexpr (SIZE == 16) row[c / 8 + 1] = uint8_t(bits >> 8);
}

// A sum over many rows, in parts of 64, which keeps its rounding error small.
struct Sum {
  Lanes done = fill(0.f), part = fill(0.f);

  DEVICE void add(Lanes v, int row) {
    part = part + v;
    if (row % 64 == 63) {
      done = done + part;
      part = fill(0.f);
    }
  }
  DEVICE Lanes total() const { return done + part; }
  DEVICE void merge(const Sum& later) {
    done = total() + later.total();
    part = fill(0.f);
  }
};

}  // namespace lanes
