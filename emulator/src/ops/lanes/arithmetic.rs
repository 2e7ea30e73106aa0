//! Floating-point instructions as lane functions, for every format, and the modifiers that wrap them.

use std::marker::PhantomData;

use super::float::{Float, Wide};
use super::rounding::{Rn, Rounding};
use super::values::Halves;
use crate::ops::shapes::{Op1, Op2, Op3};

pub struct Add<R>(PhantomData<R>);
pub struct Sub<R>(PhantomData<R>);
pub struct Mul<R>(PhantomData<R>);
pub struct Fma<R>(PhantomData<R>);
pub struct Div<R>(PhantomData<R>);
pub struct Rcp<R>(PhantomData<R>);
pub struct Sqrt<R>(PhantomData<R>);

impl<T: Float, R: Rounding> Op2<T, T, T> for Add<R> {
    #[inline(always)]
    fn f(a: T, b: T) -> T {
        T::add::<R>(a, b)
    }
}
impl<T: Float, R: Rounding> Op2<T, T, T> for Sub<R> {
    #[inline(always)]
    fn f(a: T, b: T) -> T {
        T::add::<R>(a, b.negate())
    }
}
impl<T: Float, R: Rounding> Op2<T, T, T> for Mul<R> {
    #[inline(always)]
    fn f(a: T, b: T) -> T {
        T::mul::<R>(a, b)
    }
}
impl<T: Float, R: Rounding> Op3<T, T, T, T> for Fma<R> {
    #[inline(always)]
    fn f(a: T, b: T, c: T) -> T {
        T::fma::<R>(a, b, c)
    }
}
impl<T: Float, R: Rounding> Op2<T, T, T> for Div<R> {
    #[inline(always)]
    fn f(a: T, b: T) -> T {
        T::div::<R>(a, b)
    }
}
impl<T: Wide, R: Rounding> Op1<T, T> for Rcp<R> {
    #[inline(always)]
    fn f(a: T) -> T {
        T::div::<R>(T::ONE, a)
    }
}
impl<T: Float, R: Rounding> Op1<T, T> for Sqrt<R> {
    #[inline(always)]
    fn f(a: T) -> T {
        T::sqrt::<R>(a)
    }
}

pub struct Neg;
impl<T: Float> Op1<T, T> for Neg {
    #[inline(always)]
    fn f(a: T) -> T {
        a.negate()
    }
}
pub struct Abs;
impl<T: Float> Op1<T, T> for Abs {
    #[inline(always)]
    fn f(a: T) -> T {
        a.magnitude()
    }
}
/// `copysign d, a, b`: the sign of a, the magnitude of b.
pub struct CopySign;
impl<T: Float> Op2<T, T, T> for CopySign {
    #[inline(always)]
    fn f(a: T, b: T) -> T {
        b.with_sign_of(a)
    }
}

/// Of a number and NaN, the number; -0 is below +0.
pub struct Min;
impl<T: Float> Op2<T, T, T> for Min {
    #[inline(always)]
    fn f(a: T, b: T) -> T {
        let (x, y) = (a.widen(), b.widen());
        let least = if x < y { a } else { b };
        let least = if x == y { a.union(b) } else { least };
        let least = if b.is_nan() { a } else { least };
        least.canonical()
    }
}
pub struct Max;
impl<T: Float> Op2<T, T, T> for Max {
    #[inline(always)]
    fn f(a: T, b: T) -> T {
        let (x, y) = (a.widen(), b.widen());
        let most = if x > y { a } else { b };
        let most = if x == y { a.intersection(b) } else { most };
        let most = if b.is_nan() { a } else { most };
        most.canonical()
    }
}
/// `.NaN`: NaN if either operand is.
pub struct OrNan<F>(F);
impl<T: Float, F: Op2<T, T, T>> Op2<T, T, T> for OrNan<F> {
    #[inline(always)]
    fn f(a: T, b: T) -> T {
        let d = F::f(a, b);
        if a.is_nan() || b.is_nan() { T::from_f32::<Rn>(f32::NAN) } else { d }
    }
}
/// `.xorsign.abs`: of the magnitudes, with the sign of the product.
pub struct XorSign<F>(F);
impl<T: Float, F: Op2<T, T, T>> Op2<T, T, T> for XorSign<F> {
    #[inline(always)]
    fn f(a: T, b: T) -> T {
        let d = F::f(a.magnitude(), b.magnitude());
        if d.is_nan() { d } else { d.with_product_sign(a, b) }
    }
}

/// Of three, one after another.
pub struct OfThree<F>(F);
impl<T: Float, F: Op2<T, T, T>> Op3<T, T, T, T> for OfThree<F> {
    #[inline(always)]
    fn f(a: T, b: T, c: T) -> T {
        F::f(F::f(a, b), c)
    }
}
/// `.abs`: of the magnitudes.
pub struct Magnitudes<F>(F);
impl<T: Float, F: Op3<T, T, T, T>> Op3<T, T, T, T> for Magnitudes<F> {
    #[inline(always)]
    fn f(a: T, b: T, c: T) -> T {
        F::f(a.magnitude(), b.magnitude(), c.magnitude())
    }
}

/// `.ftz`: subnormal operands and results become zero.
pub struct Ftz<F>(F);
/// `.sat`: clamped to 0 ... 1, NaN to 0.
pub struct Sat<F>(F);
/// `.relu`: negative numbers and -0 become +0.
pub struct Relu<F>(F);
/// Both elements of packed operands.
pub struct Both<F>(F);
/// The first operand, and the second of three, are of the narrower format `H`.
pub struct Mixed<F>(F);

#[inline(always)]
pub fn saturate<T: Float>(x: T) -> T {
    let wide = x.widen();
    let x = if wide >= T::Wide::ONE { T::from_f32::<Rn>(1.0) } else { x };
    if wide > T::Wide::ZERO { x } else { T::from_f32::<Rn>(0.0) }
}

#[inline(always)]
pub fn relu<T: Float>(x: T) -> T {
    if x.widen() <= T::Wide::ZERO { T::from_f32::<Rn>(0.0) } else { x }
}

macro_rules! after {
    ($name:ident, $after:expr) => {
        impl<T: Float, F: Op1<T, T>> Op1<T, T> for $name<F> {
            #[inline(always)]
            fn f(a: T) -> T {
                $after(F::f(a))
            }
        }
        impl<A, B, T: Float, F: Op2<A, B, T>> Op2<A, B, T> for $name<F> {
            #[inline(always)]
            fn f(a: A, b: B) -> T {
                $after(F::f(a, b))
            }
        }
        impl<A, B, C, T: Float, F: Op3<A, B, C, T>> Op3<A, B, C, T> for $name<F> {
            #[inline(always)]
            fn f(a: A, b: B, c: C) -> T {
                $after(F::f(a, b, c))
            }
        }
    };
}
after!(Sat, saturate);
after!(Relu, relu);

impl<T: Float, F: Op1<T, T>> Op1<T, T> for Ftz<F> {
    #[inline(always)]
    fn f(a: T) -> T {
        F::f(a.flush()).flush()
    }
}
impl<T: Float, F: Op2<T, T, T>> Op2<T, T, T> for Ftz<F> {
    #[inline(always)]
    fn f(a: T, b: T) -> T {
        F::f(a.flush(), b.flush()).flush()
    }
}
impl<T: Float, F: Op3<T, T, T, T>> Op3<T, T, T, T> for Ftz<F> {
    #[inline(always)]
    fn f(a: T, b: T, c: T) -> T {
        F::f(a.flush(), b.flush(), c.flush()).flush()
    }
}

impl<P: Halves, F: Op1<P::Part, P::Part>> Op1<P, P> for Both<F> {
    #[inline(always)]
    fn f(a: P) -> P {
        let (low, high) = a.split();
        P::join(F::f(low), F::f(high))
    }
}
impl<P: Halves, F: Op2<P::Part, P::Part, P::Part>> Op2<P, P, P> for Both<F> {
    #[inline(always)]
    fn f(a: P, b: P) -> P {
        let ((a, a_high), (b, b_high)) = (a.split(), b.split());
        P::join(F::f(a, b), F::f(a_high, b_high))
    }
}
impl<P: Halves, F: Op3<P::Part, P::Part, P::Part, P::Part>> Op3<P, P, P, P> for Both<F> {
    #[inline(always)]
    fn f(a: P, b: P, c: P) -> P {
        let ((a, a_high), (b, b_high), (c, c_high)) = (a.split(), b.split(), c.split());
        P::join(F::f(a, b, c), F::f(a_high, b_high, c_high))
    }
}

impl<H: Float<Wide = f32>, F: Op2<f32, f32, f32>> Op2<H, f32, f32> for Mixed<F> {
    #[inline(always)]
    fn f(a: H, b: f32) -> f32 {
        F::f(a.widen(), b)
    }
}
impl<H: Float<Wide = f32>, F: Op3<f32, f32, f32, f32>> Op3<H, H, f32, f32> for Mixed<F> {
    #[inline(always)]
    fn f(a: H, b: H, c: f32) -> f32 {
        F::f(a.widen(), b.widen(), c)
    }
}
