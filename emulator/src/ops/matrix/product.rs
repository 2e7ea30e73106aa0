//! The product for all formats, in plain Rust, and the transposition of 8×8 elements.

use super::formats::{Accumulator, Format};
use crate::ops::shapes::levels;
use crate::registers::{Exec, Level, Operands, Registers, Value};

/// How many registers A and B take.
pub trait Shape {
    /// m / 8
    const BANDS: usize;
    /// k / 4P
    const BLOCKS: usize;
}

pub struct Blocks<const BANDS: usize, const BLOCKS: usize>;

impl<const M: usize, const K: usize> Shape for Blocks<M, K> {
    const BANDS: usize = M;
    const BLOCKS: usize = K;
}

/// D = A·B + C; the slots hold the registers of D, A, B, C in turn.
pub fn product<A: Format, B: Format, C: Accumulator, S: Shape>(level: Level) -> Exec {
    levels!(level, [A: Format, B: Format, C: Accumulator, S: Shape], body::<A, B, C, S>)
}

/// # Safety
/// The slots are rows of `r`.
#[inline(always)]
pub unsafe fn body<A: Format, B: Format, C: Accumulator, S: Shape>(r: &mut Registers, o: &Operands, mask: u32) {
    let a_at = C::PER_BAND * S::BANDS;
    let b_at = a_at + S::BANDS * S::BLOCKS;
    let c_at = b_at + S::BLOCKS;
    let mut sums = [[0f64; 8]; 16];
    for band in 0..S::BANDS {
        // SAFETY: the caller vouches for the slots; those of C begin at `c_at`.
        let c = unsafe { C::read(r, &o.slot[c_at + C::PER_BAND * band..]) };
        for l in 0..32 {
            for i in 0..2 {
                sums[8 * band + l / 4][l % 4 * 2 + i] = C::value([c[0][l], c[1][l]], i);
            }
        }
    }
    for q in 0..S::BLOCKS {
        // SAFETY: those of B begin at `b_at`, one for each block.
        let words = unsafe { B::Word::read(r, o.slot[b_at + q]) };
        // 4P values of k, at most 16.
        let mut b = [[0f64; 8]; 16];
        for k in 0..4 * B::PER {
            for (n, b) in b[k].iter_mut().enumerate() {
                *b = B::value(words[4 * n + k / B::PER], k % B::PER);
            }
        }
        for band in 0..S::BANDS {
            // SAFETY: those of A begin at `a_at`, one for each block and band.
            let words = unsafe { A::Word::read(r, o.slot[a_at + S::BANDS * q + band]) };
            for g in 0..8 {
                let mut row = sums[8 * band + g];
                for k in 0..4 * A::PER {
                    let a = A::value(words[4 * g + k / A::PER], k % A::PER);
                    for (sum, &b) in row.iter_mut().zip(&b[k]) {
                        *sum = C::multiply_add(a, b, *sum);
                    }
                }
                sums[8 * band + g] = row.map(C::round);
            }
        }
    }
    for band in 0..S::BANDS {
        let mut d = [[C::Word::default(); 32]; 2];
        for l in 0..32 {
            let row = &sums[8 * band + l / 4];
            [d[0][l], d[1][l]] = C::words([row[l % 4 * 2], row[l % 4 * 2 + 1]]);
        }
        for (i, d) in d.into_iter().take(C::PER_BAND).enumerate() {
            // SAFETY: those of D come first, `PER_BAND` for each band.
            unsafe { C::Word::write(r, o.slot[C::PER_BAND * band + i], mask, d) };
        }
    }
}

/// `movmatrix`: lane (g, t) holds elements `2t` and `2t + 1` of row `g`, before and after.
pub fn transpose(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 1 is a row of 32 bits.
        let a = unsafe { u32::read(r, o.slot[1]) };
        let element = |row: usize, column: usize| a[4 * row + column / 2] >> (column % 2 * 16) & 0xffff;
        let d = std::array::from_fn(|l| {
            let (g, t) = (l / 4, l % 4);
            element(2 * t, g) | element(2 * t + 1, g) << 16
        });
        // SAFETY: [`Exec`] vouches that slot 0 is a row of 32 bits.
        unsafe { u32::write(r, o.slot[0], mask, d) };
    }
    levels!(level, [], body)
}
