//! The four floating-point formats and their correctly rounded operations (PTX ISA 9.7.3 to 9.7.5).
//!
//! NaN results of `f32`, `f16` and `bf16` are the canonical ones of PTX: 0x7fffffff and 0x7fff.

use super::exact;
use super::rounding::{self, Mode, NAN16, Rn, Rounding, to_f16};
use super::values::{Bf16, F16};
use crate::registers::Value;

/// A format. Operations on numbers round once, by `R`.
pub trait Float: Value {
    /// The format that comparisons and functions are computed in: `f32`, or `f64` for itself.
    type Wide: Wide;
    /// The largest finite number.
    const MAX: f64;
    const SINGLE: bool = false;
    fn widen(self) -> Self::Wide;
    fn from_f32<R: Rounding>(x: f32) -> Self;
    fn from_f64<R: Rounding>(x: f64) -> Self;
    /// NaN becomes canonical.
    fn canonical(self) -> Self;
    fn is_nan(self) -> bool;
    fn is_finite(self) -> bool;
    fn is_subnormal(self) -> bool;
    /// Subnormal numbers become zero of the same sign.
    fn flush(self) -> Self;
    fn negate(self) -> Self;
    fn magnitude(self) -> Self;
    /// Takes the sign of `other`.
    fn with_sign_of(self, other: Self) -> Self;
    /// The sign negative where those of `a` and `b` differ, else positive.
    fn with_product_sign(self, a: Self, b: Self) -> Self;
    /// The bits of both, united: of equal numbers, -0 if one is.
    fn union(self, other: Self) -> Self;
    /// The bits of both, intersected: of equal numbers, +0 if one is.
    fn intersection(self, other: Self) -> Self;
    fn add<R: Rounding>(a: Self, b: Self) -> Self;
    fn mul<R: Rounding>(a: Self, b: Self) -> Self;
    fn fma<R: Rounding>(a: Self, b: Self, c: Self) -> Self;
    fn div<R: Rounding>(a: Self, b: Self) -> Self;
    fn sqrt<R: Rounding>(a: Self) -> Self;
}

/// `f32` or `f64`.
pub trait Wide: Float + PartialOrd {
    const ZERO: Self;
    const ONE: Self;
    const DOUBLE: bool;
    /// A number that this format has.
    fn exact(x: f64) -> Self;
    /// Rounds to another format.
    fn to<D: Float, R: Rounding>(self) -> D;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn trunc(self) -> Self;
    fn nearest(self) -> Self;
}

macro_rules! bits {
    ($t:ident, $to:expr, $from:expr, sign $sign:expr, infinity $infinity:expr, normal $normal:expr) => {
        #[inline(always)]
        fn is_nan(self) -> bool {
            $to(self) & !$sign > $infinity
        }
        #[inline(always)]
        fn is_finite(self) -> bool {
            $to(self) & !$sign < $infinity
        }
        #[inline(always)]
        fn is_subnormal(self) -> bool {
            let magnitude = $to(self) & !$sign;
            magnitude != 0 && magnitude < $normal
        }
        #[inline(always)]
        fn flush(self) -> $t {
            let bits = $to(self);
            $from(if bits & !$sign < $normal { bits & $sign } else { bits })
        }
        #[inline(always)]
        fn negate(self) -> $t {
            $from($to(self) ^ $sign)
        }
        #[inline(always)]
        fn magnitude(self) -> $t {
            $from($to(self) & !$sign)
        }
        #[inline(always)]
        fn with_sign_of(self, other: $t) -> $t {
            $from($to(self) & !$sign | $to(other) & $sign)
        }
        #[inline(always)]
        fn with_product_sign(self, a: $t, b: $t) -> $t {
            $from($to(self) & !$sign | ($to(a) ^ $to(b)) & $sign)
        }
        #[inline(always)]
        fn union(self, other: $t) -> $t {
            $from($to(self) | $to(other))
        }
        #[inline(always)]
        fn intersection(self, other: $t) -> $t {
            $from($to(self) & $to(other))
        }
    };
}

/// Sums that are exactly zero are -0 when rounding down, unless both terms are +0.
#[inline(always)]
fn sum<R: Rounding>(a: f64, b: f64) -> f64 {
    let s = rounding::odd_sum(a, b);
    if R::MODE == Mode::Rm && s == 0.0 { s.with_sign_of(f64::from_bits(a.to_bits() | b.to_bits())) } else { s }
}

impl Float for f32 {
    type Wide = f32;
    const MAX: f64 = f32::MAX as f64;
    const SINGLE: bool = true;
    bits!(f32, f32::to_bits, f32::from_bits, sign (1u32 << 31), infinity 0x7f80_0000, normal 0x80_0000);
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32<R: Rounding>(x: f32) -> f32 {
        x.canonical()
    }
    #[inline(always)]
    fn from_f64<R: Rounding>(x: f64) -> f32 {
        rounding::to_f32::<R>(x).canonical()
    }
    #[inline(always)]
    fn canonical(self) -> f32 {
        // On the bits: compilers take it that one NaN is as good as another.
        if <f32 as Float>::is_nan(self) { f32::from_bits(0x7fff_ffff) } else { self }
    }
    #[inline(always)]
    fn add<R: Rounding>(a: f32, b: f32) -> f32 {
        match R::MODE {
            Mode::Rn => (a + b).canonical(),
            _ => f32::from_f64::<R>(sum::<R>(a.into(), b.into())),
        }
    }
    #[inline(always)]
    fn mul<R: Rounding>(a: f32, b: f32) -> f32 {
        match R::MODE {
            Mode::Rn => (a * b).canonical(),
            // 48 bits are exact in f64.
            _ => f32::from_f64::<R>(f64::from(a) * f64::from(b)),
        }
    }
    #[inline(always)]
    fn fma<R: Rounding>(a: f32, b: f32, c: f32) -> f32 {
        match R::MODE {
            Mode::Rn => a.mul_add(b, c).canonical(),
            _ => f32::from_f64::<R>(sum::<R>(f64::from(a) * f64::from(b), c.into())),
        }
    }
    #[inline(always)]
    fn div<R: Rounding>(a: f32, b: f32) -> f32 {
        match R::MODE {
            Mode::Rn => (a / b).canonical(),
            _ => f32::from_f64::<R>(rounding::odd_quotient(a.into(), b.into())),
        }
    }
    #[inline(always)]
    fn sqrt<R: Rounding>(a: f32) -> f32 {
        match R::MODE {
            Mode::Rn => f32::sqrt(a).canonical(),
            _ => f32::from_f64::<R>(rounding::odd_root(a.into())),
        }
    }
}

impl Float for f64 {
    type Wide = f64;
    const MAX: f64 = f64::MAX;
    bits!(f64, f64::to_bits, f64::from_bits, sign (1u64 << 63), infinity 0x7ff0_0000_0000_0000, normal 0x10_0000_0000_0000);
    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_f32<R: Rounding>(x: f32) -> f64 {
        x.into()
    }
    #[inline(always)]
    fn from_f64<R: Rounding>(x: f64) -> f64 {
        x
    }
    /// NaN payloads of `f64` are kept as they are.
    #[inline(always)]
    fn canonical(self) -> f64 {
        self
    }
    #[inline(always)]
    fn add<R: Rounding>(a: f64, b: f64) -> f64 {
        if R::MODE == Mode::Rn { a + b } else { exact::add(a, b, R::MODE) }
    }
    #[inline(always)]
    fn mul<R: Rounding>(a: f64, b: f64) -> f64 {
        if R::MODE == Mode::Rn { a * b } else { exact::mul(a, b, R::MODE) }
    }
    #[inline(always)]
    fn fma<R: Rounding>(a: f64, b: f64, c: f64) -> f64 {
        if R::MODE == Mode::Rn { a.mul_add(b, c) } else { exact::fma(a, b, c, R::MODE) }
    }
    #[inline(always)]
    fn div<R: Rounding>(a: f64, b: f64) -> f64 {
        if R::MODE == Mode::Rn { a / b } else { exact::div(a, b, R::MODE) }
    }
    #[inline(always)]
    fn sqrt<R: Rounding>(a: f64) -> f64 {
        if R::MODE == Mode::Rn { f64::sqrt(a) } else { exact::sqrt(a, R::MODE) }
    }
}

macro_rules! wide {
    ($($t:ident),*) => {$(
        impl Wide for $t {
            const ZERO: $t = 0.0;
            const ONE: $t = 1.0;
            const DOUBLE: bool = size_of::<$t>() == 8;
            #[inline(always)]
            fn exact(x: f64) -> $t {
                x as $t
            }
            #[inline(always)]
            fn to<D: Float, R: Rounding>(self) -> D {
                if Self::DOUBLE { D::from_f64::<R>(self.into()) } else { D::from_f32::<R>(self as f32) }
            }
            #[inline(always)]
            fn floor(self) -> $t {
                $t::floor(self)
            }
            #[inline(always)]
            fn ceil(self) -> $t {
                $t::ceil(self)
            }
            #[inline(always)]
            fn trunc(self) -> $t {
                $t::trunc(self)
            }
            #[inline(always)]
            fn nearest(self) -> $t {
                self.round_ties_even()
            }
        }
    )*};
}
wide!(f32, f64);

/// Operations of a half format in `f64`, where products are exact and sums are rounded to odd. To nearest, one sum or product may
/// as well be rounded to `f32` first: with more than twice the bits, rounding twice does no harm (Figueroa 1995, "When is double
/// rounding innocuous?").
macro_rules! half {
    ($t:ident, $widen:expr, $narrow:ident, max $max:expr, infinity $infinity:expr, normal $normal:expr) => {
        impl Float for $t {
            type Wide = f32;
            const MAX: f64 = $max;
            bits!($t, (|h: $t| h.0), $t, sign 0x8000u16, infinity $infinity, normal $normal);
            #[inline(always)]
            fn widen(self) -> f32 {
                $widen(self.0)
            }
            #[inline(always)]
            fn from_f32<R: Rounding>(x: f32) -> $t {
                $t($narrow::<R>(x))
            }
            #[inline(always)]
            fn from_f64<R: Rounding>(x: f64) -> $t {
                $t::from_f32::<R>(rounding::to_odd_f32(x))
            }
            #[inline(always)]
            fn canonical(self) -> $t {
                if self.is_nan() { $t(NAN16 as u16) } else { self }
            }
            #[inline(always)]
            fn add<R: Rounding>(a: $t, b: $t) -> $t {
                match R::MODE {
                    Mode::Rn => $t::from_f32::<Rn>(a.widen() + b.widen()),
                    _ => $t::from_f64::<R>(sum::<R>(a.widen().into(), b.widen().into())),
                }
            }
            #[inline(always)]
            fn mul<R: Rounding>(a: $t, b: $t) -> $t {
                match R::MODE {
                    Mode::Rn => $t::from_f32::<Rn>(a.widen() * b.widen()),
                    _ => $t::from_f64::<R>(f64::from(a.widen()) * f64::from(b.widen())),
                }
            }
            #[inline(always)]
            fn fma<R: Rounding>(a: $t, b: $t, c: $t) -> $t {
                $t::from_f64::<R>(sum::<R>(f64::from(a.widen()) * f64::from(b.widen()), c.widen().into()))
            }
            #[inline(always)]
            fn div<R: Rounding>(a: $t, b: $t) -> $t {
                $t::from_f64::<R>(rounding::odd_quotient(a.widen().into(), b.widen().into()))
            }
            #[inline(always)]
            fn sqrt<R: Rounding>(a: $t) -> $t {
                $t::from_f64::<R>(rounding::odd_root(a.widen().into()))
            }
        }
    };
}

#[inline(always)]
fn from_bf16(h: u16) -> f32 {
    f32::from_bits(u32::from(h) << 16).canonical()
}
#[inline(always)]
fn to_bf16<R: Rounding>(x: f32) -> u16 {
    (if x.is_nan() { NAN16 } else { rounding::cut::<R, 16>(x) }) as u16
}
half!(F16, rounding::from_f16, to_f16, max 65504.0, infinity 0x7c00, normal 0x400);
half!(Bf16, from_bf16, to_bf16, max f32::from_bits(0x7f7f_0000) as f64, infinity 0x7f80, normal 0x80);
