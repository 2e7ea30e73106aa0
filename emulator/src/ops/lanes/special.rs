//! The `.approx` and `.full` functions (PTX ISA 9.7.3 and 9.7.4), closer to the exact value than PTX asks for: computed in
//! `f64` and rounded once. Special values are those that PTX lists.

use super::float::Float;
use super::rounding::Rn;
use crate::ops::shapes::{Op1, Op2};

/// A function computed in `f64`.
pub trait Function {
    fn f(x: f64) -> f64;
}

/// A function of a half format or `f32`, rounded to it.
pub struct Approx<F>(F);
impl<T: Float<Wide = f32>, F: Function> Op1<T, T> for Approx<F> {
    #[inline(always)]
    fn f(a: T) -> T {
        T::from_f64::<Rn>(F::f(a.widen().into()))
    }
}

pub struct Rsqrt;
pub struct Sin;
pub struct Cos;
pub struct Lg2;
pub struct Ex2;
pub struct Tanh;

impl Function for Rsqrt {
    #[inline(always)]
    fn f(x: f64) -> f64 {
        1.0 / x.sqrt()
    }
}
impl Function for Sin {
    #[inline(always)]
    fn f(x: f64) -> f64 {
        libm::sin(x)
    }
}
impl Function for Cos {
    #[inline(always)]
    fn f(x: f64) -> f64 {
        libm::cos(x)
    }
}
impl Function for Lg2 {
    #[inline(always)]
    fn f(x: f64) -> f64 {
        libm::log2(x)
    }
}
impl Function for Tanh {
    #[inline(always)]
    fn f(x: f64) -> f64 {
        libm::tanh(x)
    }
}

/// `ln(2)^k / k!`, the Taylor coefficients of `2^x`. Up to |x| = 1/2 what follows is below 2^-32 of the result.
const EXP2: [f64; 9] = [
    1.0,
    std::f64::consts::LN_2,
    0.240_226_506_959_100_72,
    0.055_504_108_664_821_58,
    0.009_618_129_107_628_477,
    0.001_333_355_814_642_844_3,
    0.000_154_035_303_933_816_1,
    0.000_015_252_733_804_059_84,
    0.000_001_321_548_679_014_431,
];

impl Function for Ex2 {
    /// For the exponents of `f32`: beyond -200 and 200 it is 0 or infinity there.
    #[inline(always)]
    fn f(x: f64) -> f64 {
        // Adding this leaves the nearest integer in the low bits.
        const SHIFT: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
        let clamped = if x < -200.0 { -200.0 } else { x };
        let clamped = if clamped > 200.0 { 200.0 } else { clamped };
        let shifted = clamped + SHIFT;
        let fraction = clamped - (shifted - SHIFT);
        let mut y = EXP2[8];
        for k in (0..8).rev() {
            y = y * fraction + EXP2[k];
        }
        // Times 2^integer, through the exponent field.
        let power = f64::from_bits((shifted.to_bits() << 52).wrapping_add(1023 << 52));
        y * power
    }
}

/// `div.approx.f32`: by divisors above 2^126 it gives 0, or NaN where the dividend is infinite.
pub struct DivApprox;
impl Op2<f32, f32, f32> for DivApprox {
    #[inline(always)]
    fn f(a: f32, b: f32) -> f32 {
        const HUGE: f32 = f32::from_bits(0x7e80_0000); // 2^126
        let q = (a / b).canonical();
        // 0 times infinity is NaN, and 0 times a number has the right sign.
        let zero = (a * 0.0f32.with_sign_of(b)).canonical();
        if b.abs() > HUGE && b.is_finite() { zero } else { q }
    }
}

/// `rcp.approx.ftz.f64` and `rsqrt.approx.ftz.f64`: of the upper 32 bits of the operand; the lower 32 of the result are 0.
pub struct Coarse<F>(F);
impl<F: Op1<f64, f64>> Op1<f64, f64> for Coarse<F> {
    #[inline(always)]
    fn f(a: f64) -> f64 {
        const UPPER: u64 = !0 << 32;
        let a = f64::from_bits(a.to_bits() & UPPER).flush();
        f64::from_bits(F::f(a).to_bits() & UPPER).flush()
    }
}
impl Op1<f64, f64> for Rsqrt {
    #[inline(always)]
    fn f(a: f64) -> f64 {
        1.0 / a.sqrt()
    }
}
