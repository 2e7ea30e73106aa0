//! The 8-bit formats `e4m3` and `e5m2` (PTX ISA 9.0, 5.2.3 and 9.7.9.21; Micikevicius et al. 2022, "FP8 Formats for Deep Learning").

use super::convert::RELU;
use super::values::{F16, Halves, Pair};
use crate::ops::shapes::{Flags1, Flags2};

/// An 8-bit format.
pub trait Eight {
    const FRACTION: u32;
    const BIAS: i32;
    /// The largest finite number.
    const MAX: f32;
    /// Whether the highest exponent stands for infinities and NaNs.
    const INFINITIES: bool;
}

/// 4 bits of exponent, 3 of fraction; no infinities, one NaN.
pub struct E4m3;
impl Eight for E4m3 {
    const FRACTION: u32 = 3;
    const BIAS: i32 = 7;
    const MAX: f32 = 448.0;
    const INFINITIES: bool = false;
}

/// 5 bits of exponent, 2 of fraction.
pub struct E5m2;
impl Eight for E5m2 {
    const FRACTION: u32 = 2;
    const BIAS: i32 = 15;
    const MAX: f32 = 57344.0;
    const INFINITIES: bool = true;
}

const NAN: u8 = 0x7f;

/// To the nearest, ties to even, at most the largest finite number (`.satfinite`).
fn narrow<E: Eight>(x: f32, flags: u32) -> u8 {
    if x.is_nan() {
        return NAN;
    }
    if flags & RELU != 0 && x.is_sign_negative() {
        return 0;
    }
    let sign = u8::from(x.is_sign_negative()) << 7;
    let a = f64::from(x.abs().min(E::MAX));
    let exponent = if a == 0.0 { 0 } else { (a.to_bits() >> 52) as i32 - 1023 };
    let exponent = exponent.max(1 - E::BIAS);
    // In units of the last place; at most 2^(FRACTION + 1), which carries into the exponent.
    let units = (a / 2f64.powi(exponent - E::FRACTION as i32)).round_ties_even() as u8;
    sign | ((((exponent + E::BIAS - 1) as u8) << E::FRACTION) + units)
}

/// Exact: f16 holds every number of both formats.
pub fn widen<E: Eight>(bits: u8) -> f32 {
    let (exponent, fraction) =
        (i32::from(bits >> E::FRACTION & (0x7f >> E::FRACTION)), bits & ((1 << E::FRACTION) - 1));
    let top = exponent == 0x7f >> E::FRACTION;
    let size = if E::INFINITIES && top {
        if fraction == 0 { f32::INFINITY } else { f32::NAN }
    } else if bits & 0x7f == NAN {
        f32::NAN
    } else {
        let (first, power) = if exponent == 0 { (0, 1) } else { (1u8 << E::FRACTION, exponent) };
        f32::from(first + fraction) * 2f32.powi(power - E::BIAS - E::FRACTION as i32)
    };
    if bits >> 7 == 1 { -size } else { size }
}

fn half(x: f32) -> u16 {
    if x.is_nan() { 0x7fff } else { half::f16::from_f32(x).to_bits() }
}

/// `cvt.rn.satfinite.e4m3x2.f32 d, a, b`: a into the upper byte.
pub struct Narrow<E>(E);
impl<E: Eight> Flags2<f32, f32, u16> for Narrow<E> {
    fn f(a: f32, b: f32, flags: u32) -> u16 {
        u16::from(narrow::<E>(a, flags)) << 8 | u16::from(narrow::<E>(b, flags))
    }
}

/// `cvt.rn.satfinite.e4m3x2.f16x2 d, a`
impl<E: Eight> Flags1<Pair<F16>, u16> for Narrow<E> {
    fn f(a: Pair<F16>, flags: u32) -> u16 {
        let (low, high) = a.split();
        let wide = |x: F16| half::f16::from_bits(x.0).to_f32();
        u16::from(narrow::<E>(wide(high), flags)) << 8 | u16::from(narrow::<E>(wide(low), flags))
    }
}

/// `cvt.rn.f16x2.e4m3x2 d, a`
pub struct Widen<E>(E);
impl<E: Eight> Flags1<u16, Pair<F16>> for Widen<E> {
    fn f(a: u16, flags: u32) -> Pair<F16> {
        let part = |bits: u8| {
            let x = widen::<E>(bits);
            F16(half(if flags & RELU != 0 && x.is_sign_negative() && !x.is_nan() { 0.0 } else { x }))
        };
        Pair::join(part(a as u8), part((a >> 8) as u8))
    }
}
