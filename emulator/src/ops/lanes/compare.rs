//! Comparisons (PTX ISA 9.7.6, 9.7.7) and `slct`.

use crate::ops::lanes::float::Float;
use crate::ops::lanes::values::{Bf16, F16};
use crate::ops::shapes::Op3;
pub use crate::ops::shapes::Test;

/// Something with an order; half-precision numbers compare as `f32`.
pub trait Ordered: Copy {
    type Key: PartialOrd;
    fn key(self) -> Self::Key;
}

macro_rules! as_itself {
    ($($t:ty),*) => {$(
        impl Ordered for $t {
            type Key = $t;
            #[inline(always)]
            fn key(self) -> $t {
                self
            }
        }
    )*};
}
as_itself!(u16, i16, u32, i32, u64, i64, f32, f64);

macro_rules! as_f32 {
    ($($t:ty),*) => {$(
        impl Ordered for $t {
            type Key = f32;
            #[inline(always)]
            fn key(self) -> f32 {
                self.widen()
            }
        }
    )*};
}
as_f32!(F16, Bf16);

macro_rules! tests {
    ($($(#[$doc:meta])* $name:ident: |$a:ident, $b:ident| $body:expr),*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl<T: Ordered> Test<T> for $name {
            #[inline(always)]
            fn f(a: T, b: T) -> bool {
                let ($a, $b) = (a.key(), b.key());
                $body
            }
        }
    )*};
}
#[expect(
    clippy::neg_cmp_op_on_partial_ord,
    clippy::double_comparisons,
    reason = "NaN is neither less, equal nor greater"
)]
mod named {
    use super::{Ordered, Test};
    tests!(
        /// False for NaN, as all without `U`.
        Eq: |a, b| a == b,
        Ne: |a, b| a < b || a > b,
        Lt: |a, b| a < b,
        Le: |a, b| a <= b,
        Gt: |a, b| a > b,
        Ge: |a, b| a >= b,
        /// True for NaN, as all with `U`.
        EqU: |a, b| !(a < b || a > b),
        NeU: |a, b| a != b,
        LtU: |a, b| !(a >= b),
        LeU: |a, b| !(a > b),
        GtU: |a, b| !(a <= b),
        GeU: |a, b| !(a < b),
        /// Neither is NaN.
        Num: |a, b| a.partial_cmp(&b).is_some(),
        Nan: |a, b| a.partial_cmp(&b).is_none()
    );
}
pub use named::*;

/// Flushes subnormal operands first.
pub struct Ftz<F>(F);
impl<T: Float, F: Test<T>> Test<T> for Ftz<F> {
    #[inline(always)]
    fn f(a: T, b: T) -> bool {
        F::f(a.flush(), b.flush())
    }
}

/// `slct d, a, b, c`: a where c is 0 or more.
pub struct Slct;
impl<T> Op3<T, T, i32, T> for Slct {
    #[inline(always)]
    fn f(a: T, b: T, c: i32) -> T {
        if c >= 0 { a } else { b }
    }
}
impl<T> Op3<T, T, f32, T> for Slct {
    #[inline(always)]
    fn f(a: T, b: T, c: f32) -> T {
        if c >= 0.0 { a } else { b }
    }
}
/// With subnormal `c` flushed.
pub struct SlctFtz;
impl<T> Op3<T, T, f32, T> for SlctFtz {
    #[inline(always)]
    fn f(a: T, b: T, c: f32) -> T {
        if c.flush() >= 0.0 { a } else { b }
    }
}
