//! Rounding in the four directions of PTX, and the detour that makes it exact: rounding to odd.
//!
//! A result rounded to an odd last bit whenever it is inexact keeps the information "not exact, and on which side". Rounding it
//! again, to a format with at least two bits less, gives what rounding the exact value once would have given, in every
//! direction (Boldo and Melquiond 2008, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd").
//! So operations on `f32`, `f16` and `bf16` are done in `f64`, rounded to odd, and then rounded as asked.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To nearest, ties to even.
    Rn,
    /// Towards zero.
    Rz,
    /// Towards minus infinity.
    Rm,
    /// Towards plus infinity.
    Rp,
}

pub trait Rounding {
    const MODE: Mode;
}
macro_rules! roundings {
    ($($name:ident),*) => {$(
        pub struct $name;
        impl Rounding for $name {
            const MODE: Mode = Mode::$name;
        }
    )*};
}
roundings!(Rn, Rz, Rm, Rp);

/// `x`, the nearest number to a value that lies `error` beyond it (only its sign counts; NaN counts as 0), rounded to odd.
#[inline(always)]
fn to_odd(x: f64, error: f64) -> f64 {
    let bits = x.to_bits();
    let inexact = error.abs() > 0.0;
    let away = (error > 0.0) == (x > 0.0);
    let step = if away { 1 } else { u64::MAX };
    f64::from_bits(if inexact && bits & 1 == 0 { bits.wrapping_add(step) } else { bits })
}

/// `a + b` rounded to odd. An exact sum that is zero is +0, or -0 if both are.
#[inline(always)]
pub fn odd_sum(a: f64, b: f64) -> f64 {
    let s = a + b;
    let from_b = s - a;
    let error = (a - (s - from_b)) + (b - from_b);
    to_odd(s, error)
}

/// `a / b` rounded to odd, for operands whose exponents are those of `f32`.
#[inline(always)]
pub fn odd_quotient(a: f64, b: f64) -> f64 {
    let q = a / b;
    let rest = (-q).mul_add(b, a);
    to_odd(q, if b < 0.0 { -rest } else { rest })
}

/// The square root rounded to odd, for operands whose exponents are those of `f32`.
#[inline(always)]
pub fn odd_root(a: f64) -> f64 {
    let s = a.sqrt();
    to_odd(s, (-s).mul_add(s, a))
}

/// An integer rounded to odd.
#[inline(always)]
pub fn odd_integer(a: i128) -> f64 {
    let x = a as f64;
    to_odd(x, (a - x as i128) as f64)
}

/// An integer rounded by `R`.
#[inline(always)]
pub fn rounded_integer<R: Rounding>(a: i128) -> f64 {
    let x = a as f64;
    let beyond = a - x as i128;
    let step = match R::MODE {
        Mode::Rn => 0,
        Mode::Rz => i64::from(beyond.signum() != 0 && (beyond < 0) == (a > 0)).wrapping_neg(),
        Mode::Rm => {
            if beyond < 0 {
                -(a.signum() as i64)
            } else {
                0
            }
        }
        Mode::Rp => {
            if beyond > 0 {
                a.signum() as i64
            } else {
                0
            }
        }
    };
    f64::from_bits(x.to_bits().wrapping_add(step as u64))
}

/// Rounds to `f32`.
#[inline(always)]
pub fn to_f32<R: Rounding>(x: f64) -> f32 {
    let y = x as f32;
    let back = f64::from(y);
    let bits = y.to_bits();
    let negative = bits >> 31 == 1;
    // Where the nearest number lies on the wrong side, its neighbour is the result; +-1 on the bits moves away from zero and back.
    let step = match R::MODE {
        Mode::Rn => 0,
        Mode::Rz => {
            if back.abs() > x.abs() {
                u32::MAX
            } else {
                0
            }
        }
        Mode::Rm => {
            if back > x {
                if negative { 1 } else { u32::MAX }
            } else {
                0
            }
        }
        Mode::Rp => {
            if back < x {
                if negative { u32::MAX } else { 1 }
            } else {
                0
            }
        }
    };
    f32::from_bits(bits.wrapping_add(step))
}

/// Rounds to an odd `f32`.
#[inline(always)]
pub fn to_odd_f32(x: f64) -> f32 {
    let y = to_f32::<Rz>(x);
    f32::from_bits(y.to_bits() | u32::from(f64::from(y) < x || f64::from(y) > x))
}

/// Whether what was cut off (`rest` of `2 * half`) makes the magnitude one larger.
#[inline(always)]
fn up<R: Rounding>(negative: bool, odd: u32, rest: u32, half: u32) -> bool {
    match R::MODE {
        Mode::Rn => rest + odd > half,
        Mode::Rz => false,
        Mode::Rm => negative && rest != 0,
        Mode::Rp => !negative && rest != 0,
    }
}

/// The upper `32 - CUT` bits of an `f32`, rounded: 16 for `bf16`, 13 for `tf32`. NaN is left to the caller.
#[inline(always)]
pub fn cut<R: Rounding, const CUT: u32>(x: f32) -> u32 {
    let bits = x.to_bits();
    let rest = bits & ((1 << CUT) - 1);
    (bits >> CUT) + u32::from(up::<R>(bits >> 31 == 1, bits >> CUT & 1, rest, 1 << (CUT - 1)))
}

/// The canonical NaN of both half formats.
pub const NAN16: u32 = 0x7fff;

/// Rounds to the bits of an `f16`; NaN becomes the canonical one.
#[inline(always)]
pub fn to_f16<R: Rounding>(x: f32) -> u16 {
    let sign = x.to_bits() >> 16 & 0x8000;
    let negative = sign != 0;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    // Normal results lose 13 bits of the significand. Subnormal ones are multiples of 2^-24; an f32 is significand * 2^(e - 150).
    let normal = magnitude >= 0x3880_0000;
    let exponent = magnitude >> 23;
    let significand = magnitude & 0x7f_ffff | if exponent > 0 { 0x80_0000 } else { 0 };
    let shift = if normal { 13 } else { 126u32.wrapping_sub(exponent).min(31) };
    let value = if normal { magnitude.wrapping_sub(0x3800_0000) } else { significand };
    let rest = value & ((1 << shift) - 1);
    let short = value >> shift;
    let short = short + u32::from(up::<R>(negative, short & 1, rest, 1 << (shift - 1)));
    // From 2^16 on nothing is finite; what is rounded down ends at 65504.
    let overflow = if up::<R>(negative, 1, 1, 1) { 0x7c00 } else { 0x7bff };
    let result = if magnitude > 0x7f80_0000 {
        NAN16
    } else if magnitude == 0x7f80_0000 {
        0x7c00 | sign
    } else if magnitude >= 0x4780_0000 {
        overflow | sign
    } else {
        short | sign
    };
    result as u16
}

/// The value of the bits of an `f16`; NaN becomes the canonical one of `f32`.
#[inline(always)]
pub fn from_f16(h: u16) -> f32 {
    let magnitude = u32::from(h & 0x7fff);
    let sign = u32::from(h & 0x8000) << 16;
    // As if the exponent had the bias of f32, then times 2^112, which also makes subnormal numbers right.
    let finite = (f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000)).to_bits();
    let bits = if magnitude > 0x7c00 {
        0x7fff_ffff
    } else if magnitude == 0x7c00 {
        0x7f80_0000 | sign
    } else {
        finite | sign
    };
    f32::from_bits(bits)
}
