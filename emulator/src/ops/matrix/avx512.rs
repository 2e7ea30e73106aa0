//! Products of 16 rows with f32 accumulators in AVX-512: a row of 8 sums is one register of f64, to which an element of A times a row of
//! B is added. The bits are those of [`super::product`]: the same additions in the same order.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::formats::{Bf16, Format, Half, Single, Tf32};
use super::product::{self, Shape};
use crate::registers::{ALL, Operands, Registers};

/// Elements of 16 lanes as f32.
pub trait Unpack: Format {
    /// Element `i` of each register.
    ///
    /// # Safety
    /// Needs AVX-512.
    unsafe fn unpack(words: __m512i, i: usize) -> __m512;
}

impl Unpack for Bf16 {
    #[inline(always)]
    unsafe fn unpack(words: __m512i, i: usize) -> __m512 {
        // SAFETY: the caller has AVX-512.
        unsafe {
            _mm512_castsi512_ps(if i == 0 {
                _mm512_slli_epi32::<16>(words)
            } else {
                _mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000u32 as i32))
            })
        }
    }
}

impl Unpack for Half {
    #[inline(always)]
    unsafe fn unpack(words: __m512i, i: usize) -> __m512 {
        // SAFETY: the caller has AVX-512.
        unsafe {
            let words = if i == 0 { words } else { _mm512_srli_epi32::<16>(words) };
            _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words))
        }
    }
}

impl Unpack for Tf32 {
    #[inline(always)]
    unsafe fn unpack(words: __m512i, _: usize) -> __m512 {
        // SAFETY: the caller has AVX-512.
        unsafe { _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(0xffff_e000u32 as i32))) }
    }
}

/// D = A·B + C. All lanes take part, as `.aligned` demands.
///
/// # Safety
/// The slots are rows of `r`; needs AVX-512.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub unsafe fn product<F: Unpack, S: Shape>(r: &mut Registers, o: &Operands, mask: u32) {
    debug_assert_eq!(mask, ALL);
    const { assert!(S::BANDS == 2 && F::PER <= 2) };
    debug_assert!(o.slot[..8 + 3 * S::BLOCKS].iter().all(|&s| (s as usize) < r.rows.len()));
    // D takes 4 registers, then come A, B and C.
    let (a_at, b_at) = (4, 4 + 2 * S::BLOCKS);
    let c_at = b_at + S::BLOCKS;
    // SAFETY: the caller vouches for the slots, and a row is two vectors.
    let half = |r: &Registers, slot: usize, part: usize| unsafe {
        _mm512_load_si512(r.rows.as_ptr().add(o.slot[slot] as usize).cast::<__m512i>().add(part))
    };

    let mut sums = [_mm512_setzero_pd(); 16];
    for band in 0..2 {
        for part in 0..2 {
            let even = _mm512_castsi512_ps(half(r, c_at + 2 * band, part));
            let odd = _mm512_castsi512_ps(half(r, c_at + 2 * band + 1, part));
            for pair in 0..2 {
                let two = _mm512_permutex2var_ps(even, interleave(pair), odd);
                let row = 8 * band + 4 * part + 2 * pair;
                (sums[row], sums[row + 1]) = widen(two);
            }
        }
    }

    let mut peaks = [_mm256_setzero_ps(); 4];
    let mut cut = [_mm256_setzero_ps(); 16];
    for q in 0..S::BLOCKS {
        // The elements of A in this block: of each band and each place in a register, those of 32 lanes.
        let mut table = MaybeUninit::<[__m512d; 16]>::uninit();
        for band in 0..2 {
            for part in 0..2 {
                let words = half(r, a_at + 2 * q + band, part);
                for i in 0..F::PER {
                    // SAFETY: this function needs AVX-512 itself.
                    let (low, high) = widen(unsafe { F::unpack(words, i) });
                    // SAFETY: the table has 32 numbers for each band and place in a register, two of each at most.
                    unsafe {
                        let to = table.as_mut_ptr().cast::<f64>().add(32 * (F::PER * band + i));
                        _mm512_store_pd(to.add(16 * part), low);
                        _mm512_store_pd(to.add(16 * part + 8), high);
                    }
                }
            }
        }
        // Elements of A are to come from memory, as operands of the multiplications, not out of vectors by shuffles.
        let table = std::hint::black_box(table.as_ptr()).cast::<f64>();

        let (first, second) = (half(r, b_at + q, 0), half(r, b_at + q, 1));
        let mut b = [_mm512_setzero_pd(); 8];
        for t in [0, 2] {
            let words = _mm512_permutex2var_epi32(first, columns(t), second);
            for i in 0..F::PER {
                // SAFETY: this function needs AVX-512 itself.
                (b[F::PER * t as usize + i], b[F::PER * (t as usize + 1) + i]) = widen(unsafe { F::unpack(words, i) });
            }
        }

        for (k, &b) in b.iter().enumerate().take(4 * F::PER) {
            for (row, sum) in sums.iter_mut().enumerate() {
                // SAFETY: the loop above filled all that this block has.
                let a = unsafe { *table.add(32 * (F::PER * (row / 8) + k % F::PER) + 4 * (row % 8) + k / F::PER) };
                *sum = _mm512_fmadd_pd(_mm512_set1_pd(a), b, *sum);
            }
        }
        for row in 0..16 {
            cut[row] = _mm512_cvt_roundpd_ps::<{ _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC }>(sums[row]);
            // The larger magnitude; NaNs are passed over.
            peaks[row % 4] = _mm256_range_ps::<0b1011>(peaks[row % 4], cut[row]);
            if q + 1 < S::BLOCKS {
                sums[row] = _mm512_cvtps_pd(cut[row]);
            }
        }
    }

    // The conversion leaves the largest f32 where a sum overflows; those are rare and go the slow way.
    let peak = _mm256_max_ps(_mm256_max_ps(peaks[0], peaks[1]), _mm256_max_ps(peaks[2], peaks[3]));
    if _mm256_cmp_ps_mask::<_CMP_GE_OQ>(peak, _mm256_set1_ps(f32::MAX)) != 0 {
        // SAFETY: the caller vouches for the same slots.
        return unsafe { overflowing::<F, S>(r, o, mask) };
    }
    for band in 0..2 {
        for part in 0..2 {
            let row = 8 * band + 4 * part;
            let first = _mm512_insertf32x8::<1>(_mm512_castps256_ps512(cut[row]), cut[row + 1]);
            let second = _mm512_insertf32x8::<1>(_mm512_castps256_ps512(cut[row + 2]), cut[row + 3]);
            for i in 0..2 {
                let d = canonical(_mm512_permutex2var_ps(first, separate(i), second));
                // SAFETY: the caller vouches that slots 0 to 3, those of D, are rows: two vectors each, and aligned.
                unsafe {
                    let to = r.rows.as_mut_ptr().add(o.slot[2 * band + i] as usize).cast::<f32>().add(16 * part);
                    _mm512_store_ps(to, d);
                }
            }
        }
    }
}

/// # Safety
/// The slots are rows of `r`.
#[cold]
#[inline(never)]
unsafe fn overflowing<F: Unpack, S: Shape>(r: &mut Registers, o: &Operands, mask: u32) {
    // SAFETY: the caller vouches for the same slots.
    unsafe { product::body::<F, F, Single, S>(r, o, mask) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq")]
fn widen(x: __m512) -> (__m512d, __m512d) {
    (_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(x)))
}

/// NaNs become the one that PTX knows.
#[inline]
#[target_feature(enable = "avx512f")]
fn canonical(x: __m512) -> __m512 {
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    _mm512_mask_mov_ps(x, nan, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fff_ffff)))
}

/// Even and odd columns of 4 rows to rows `2·pair` and `2·pair + 1`.
#[inline]
#[target_feature(enable = "avx512f")]
fn interleave(pair: usize) -> __m512i {
    let zero = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    _mm512_add_epi32(zero, _mm512_set1_epi32(8 * pair as i32))
}

/// The even (0) or odd (1) columns of 4 rows.
#[inline]
#[target_feature(enable = "avx512f")]
fn separate(odd: usize) -> __m512i {
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    _mm512_add_epi32(even, _mm512_set1_epi32(odd as i32))
}

/// Members `t` and then `t + 1` of the 8 groups.
#[inline]
#[target_feature(enable = "avx512f")]
fn columns(t: i32) -> __m512i {
    let zero = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
    _mm512_add_epi32(zero, _mm512_set1_epi32(t))
}
