//! The elements of multiplicands and accumulators: how they lie in registers, and how sums are rounded.
//!
//! Everything is computed in f64, where products of all formats but f64 itself and sums of integers are exact.

use crate::ops::lanes::fp8::{Eight, widen};
use crate::registers::{Registers, Value};

/// Elements of A or B.
pub trait Format {
    type Word: Value;
    /// Elements of one register.
    const PER: usize;
    /// Element `i` of a register, lowest bits first.
    fn value(word: Self::Word, i: usize) -> f64;
}

pub struct Bf16;
pub struct Half;
pub struct Tf32;
pub struct Double;
pub struct S8;
pub struct U8;

impl Format for Bf16 {
    type Word = u32;
    const PER: usize = 2;
    #[inline(always)]
    fn value(word: u32, i: usize) -> f64 {
        f64::from(f32::from_bits(if i == 0 { word << 16 } else { word & 0xffff_0000 }))
    }
}

impl Format for Half {
    type Word = u32;
    const PER: usize = 2;
    #[inline(always)]
    fn value(word: u32, i: usize) -> f64 {
        from_half(word >> (16 * i) & 0xffff)
    }
}

impl Format for Tf32 {
    type Word = u32;
    const PER: usize = 1;
    #[inline(always)]
    fn value(word: u32, _: usize) -> f64 {
        f64::from(f32::from_bits(tf32(word)))
    }
}

impl Format for Double {
    type Word = u64;
    const PER: usize = 1;
    #[inline(always)]
    fn value(word: u64, _: usize) -> f64 {
        f64::from_bits(word)
    }
}

impl Format for S8 {
    type Word = u32;
    const PER: usize = 4;
    #[inline(always)]
    fn value(word: u32, i: usize) -> f64 {
        f64::from((word >> (8 * i)) as i8)
    }
}

impl Format for U8 {
    type Word = u32;
    const PER: usize = 4;
    #[inline(always)]
    fn value(word: u32, i: usize) -> f64 {
        f64::from((word >> (8 * i)) as u8)
    }
}

impl<E: Eight> Format for E {
    type Word = u32;
    const PER: usize = 4;
    #[inline(always)]
    fn value(word: u32, i: usize) -> f64 {
        f64::from(widen::<E>((word >> (8 * i)) as u8))
    }
}

/// The bits of an f32 that tf32 has. A NaN whose payload lies below them becomes an infinity, as the bits say.
#[inline(always)]
fn tf32(word: u32) -> u32 {
    word & 0xffff_e000
}

/// f16 bits. With its exponent field as the lowest of an f32's, a finite half is too small by 2^112.
#[inline(always)]
fn from_half(bits: u32) -> f64 {
    let magnitude = (bits & 0x7fff) << 13;
    let finite = (f32::from_bits(magnitude) * f32::from_bits((127 + 112) << 23)).to_bits();
    let magnitude = if magnitude >= 0x7c00 << 13 { magnitude | 0x7f80_0000 } else { finite };
    f64::from(f32::from_bits(magnitude | (bits & 0x8000) << 16))
}

/// The f16 bits of an f64 that an f16 can hold.
#[inline(always)]
fn to_half(x: f64) -> u32 {
    let bits = (x as f32).to_bits();
    let finite = (f32::from_bits(bits & 0x7fff_ffff) * f32::from_bits((127 - 112) << 23)).to_bits() >> 13;
    let magnitude = if x.is_infinite() { 0x7c00 } else { finite };
    if x.is_nan() { 0x7fff } else { magnitude | (bits >> 16 & 0x8000) }
}

/// C and D.
pub trait Accumulator {
    type Word: Value;
    /// Registers per band of 8 rows: elements `2t` and `2t + 1` take two registers or share one.
    const PER_BAND: usize;
    /// Element `i` (0 or 1) of a band, of which `words` are one lane's registers.
    fn value(words: [Self::Word; 2], i: usize) -> f64;
    /// The registers of two elements.
    fn words(pair: [f64; 2]) -> [Self::Word; 2];
    /// `x·y + sum`
    #[inline(always)]
    fn multiply_add(x: f64, y: f64, sum: f64) -> f64 {
        // The product is exact, so that this is what a fused operation gives, without needing one.
        x * y + sum
    }
    /// What becomes of the sum after a block.
    fn round(sum: f64) -> f64;

    /// Registers of lanes: `[register][lane]`.
    ///
    /// # Safety
    /// `slots` are rows of `r`.
    #[inline(always)]
    unsafe fn read(r: &Registers, slots: &[u16]) -> [[Self::Word; 32]; 2] {
        // SAFETY: the caller names a row for each of the band's registers, of which there is at least one.
        let first = unsafe { Self::Word::read(r, slots[0]) };
        // SAFETY: a band of two has a second.
        [first, if Self::PER_BAND == 2 { unsafe { Self::Word::read(r, slots[1]) } } else { first }]
    }
}

/// f32, cut.
pub struct Single;
/// f16, rounded to nearest.
pub struct ToHalf;
/// s32 that wraps around.
pub struct S32;
/// s32 that stops at its limits (`.satfinite`).
pub struct S32Finite;

impl Accumulator for Single {
    type Word = u32;
    const PER_BAND: usize = 2;
    #[inline(always)]
    fn value(words: [u32; 2], i: usize) -> f64 {
        f64::from(f32::from_bits(words[i]))
    }
    #[inline(always)]
    fn words(pair: [f64; 2]) -> [u32; 2] {
        pair.map(|x| if x.is_nan() { 0x7fff_ffff } else { (x as f32).to_bits() })
    }
    #[inline(always)]
    fn round(sum: f64) -> f64 {
        let nearest = sum as f32;
        let beyond = f64::from(nearest).abs() > sum.abs();
        let cut = f32::from_bits(nearest.to_bits() - u32::from(beyond));
        let overflow = sum.abs() >= f64::from_bits((1023 + 128) << 52);
        f64::from(if overflow { nearest } else { cut })
    }
}

impl Accumulator for ToHalf {
    type Word = u32;
    const PER_BAND: usize = 1;
    #[inline(always)]
    fn value(words: [u32; 2], i: usize) -> f64 {
        from_half(words[0] >> (16 * i) & 0xffff)
    }
    #[inline(always)]
    fn words(pair: [f64; 2]) -> [u32; 2] {
        let word = to_half(pair[0]) | to_half(pair[1]) << 16;
        [word, word]
    }
    #[inline(always)]
    fn round(sum: f64) -> f64 {
        // Adding and taking off 1.5·2^52 units in the last place of the f16 leaves whole units, rounded to nearest even.
        let binade = f64::from_bits(sum.to_bits() & 0x7ff0_0000_0000_0000).max(f64::from_bits((1023 - 14) << 52));
        let shift = binade * (1.5 * (1u64 << 42) as f64);
        let rounded = sum.abs() + shift - shift;
        let rounded = if rounded >= 65536.0 || sum.is_infinite() { f64::INFINITY } else { rounded };
        if sum.is_nan() { sum } else { rounded.copysign(sum) }
    }
}

#[inline(always)]
fn s32(words: [u32; 2], i: usize) -> f64 {
    f64::from(words[i] as i32)
}

impl Accumulator for S32 {
    type Word = u32;
    const PER_BAND: usize = 2;
    #[inline(always)]
    fn value(words: [u32; 2], i: usize) -> f64 {
        s32(words, i)
    }
    #[inline(always)]
    fn words(pair: [f64; 2]) -> [u32; 2] {
        pair.map(|x| x as i64 as u32)
    }
    #[inline(always)]
    fn round(sum: f64) -> f64 {
        sum
    }
}

impl Accumulator for S32Finite {
    type Word = u32;
    const PER_BAND: usize = 2;
    #[inline(always)]
    fn value(words: [u32; 2], i: usize) -> f64 {
        s32(words, i)
    }
    #[inline(always)]
    fn words(pair: [f64; 2]) -> [u32; 2] {
        pair.map(|x| x as i32 as u32)
    }
    #[inline(always)]
    fn round(sum: f64) -> f64 {
        sum
    }
}

impl Accumulator for Double {
    type Word = u64;
    const PER_BAND: usize = 2;
    #[inline(always)]
    fn value(words: [u64; 2], i: usize) -> f64 {
        f64::from_bits(words[i])
    }
    #[inline(always)]
    fn words(pair: [f64; 2]) -> [u64; 2] {
        pair.map(|x| if x.is_nan() { 0x7fff_ffff_ffff_ffff } else { x.to_bits() })
    }
    #[inline(always)]
    fn multiply_add(x: f64, y: f64, sum: f64) -> f64 {
        x.mul_add(y, sum)
    }
    #[inline(always)]
    fn round(sum: f64) -> f64 {
        sum
    }
}
