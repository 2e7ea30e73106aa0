//! Integer division (PTX ISA 9.7.1: `div`, `rem`). A divisor of 0 gives all ones, for the remainder too: PTX leaves it open,
//! and this is what the division routines of current compilers return. `MIN / -1` wraps.
//!
//! Quotients of up to 32 bits go through `f64`, whose division vectorises: with 53 bits the quotient of two such integers,
//! rounded, never reaches the next integer, so that cutting it off is exact.

use crate::ops::shapes::{Op2, levels};
use crate::registers::{Exec, Level, Operands, Registers, Value};

pub struct Div;
pub struct Rem;

macro_rules! through_f64 {
    ($($t:ident as $cut:ident: $overflow:expr),*) => {$(
        impl Op2<$t, $t, $t> for Div {
            #[inline(always)]
            fn f(a: $t, b: $t) -> $t {
                let overflow: fn($t, $t) -> bool = $overflow;
                let by = if b == 0 || overflow(a, b) { 1 } else { b };
                // SAFETY: the quotient fits: the divisor is at least 1 in magnitude, and MIN / -1 was replaced by MIN / 1.
                // SAFETY: small operands and a divisor of at least 1 in magnitude: the quotient is below 2^53.
        let q = unsafe { (f64::from(a) / f64::from(by)).to_int_unchecked::<$cut>() } as $t;
                if b == 0 { !0 } else { q }
            }
        }
        impl Op2<$t, $t, $t> for Rem {
            #[inline(always)]
            fn f(a: $t, b: $t) -> $t {
                let r = a.wrapping_sub(<Div as Op2<$t, $t, $t>>::f(a, b).wrapping_mul(b));
                if b == 0 { !0 } else { r }
            }
        }
    )*};
}
through_f64!(
    u16 as i32: |_, _| false,
    u32 as u32: |_, _| false,
    i16 as i32: |_, _| false,
    i32 as i32: |a, b| a == i32::MIN && b == -1
);

/// Below this magnitude a quotient of 64-bit integers is exact through `f64`.
const SMALL: u64 = 1 << 52;

/// Division of 64-bit integers.
pub trait Wide: Value {
    /// 0 only if the magnitude is below `SMALL`.
    fn large(self) -> u64;
    /// The quotient by `f64`, for small operands.
    fn quick(a: Self, b: Self) -> Self;
    fn slow(a: Self, b: Self) -> Self;
    fn rest(a: Self, b: Self, q: Self) -> Self;
}

impl Wide for u64 {
    #[inline(always)]
    fn large(self) -> u64 {
        self & !(SMALL - 1)
    }
    #[inline(always)]
    fn quick(a: u64, b: u64) -> u64 {
        let by = if b == 0 { 1 } else { b };
        // SAFETY: small operands and a divisor of at least 1 in magnitude: the quotient is below 2^53.
        let q = unsafe { (a as i64 as f64 / by as i64 as f64).to_int_unchecked::<i64>() } as u64;
        if b == 0 { !0 } else { q }
    }
    #[inline(always)]
    fn slow(a: u64, b: u64) -> u64 {
        a.checked_div(b).unwrap_or(!0)
    }
    #[inline(always)]
    fn rest(a: u64, b: u64, q: u64) -> u64 {
        if b == 0 { !0 } else { a.wrapping_sub(q.wrapping_mul(b)) }
    }
}

impl Wide for i64 {
    #[inline(always)]
    fn large(self) -> u64 {
        self.unsigned_abs() & !(SMALL - 1)
    }
    #[inline(always)]
    fn quick(a: i64, b: i64) -> i64 {
        let by = if b == 0 { 1 } else { b };
        // SAFETY: small operands and a divisor of at least 1 in magnitude: the quotient is below 2^53.
        let q = unsafe { (a as f64 / by as f64).to_int_unchecked::<i64>() };
        if b == 0 { !0 } else { q }
    }
    #[inline(always)]
    fn slow(a: i64, b: i64) -> i64 {
        if b == 0 { !0 } else { a.wrapping_div(b) }
    }
    #[inline(always)]
    fn rest(a: i64, b: i64, q: i64) -> i64 {
        if b == 0 { !0 } else { a.wrapping_sub(q.wrapping_mul(b)) }
    }
}

/// `slot[0] = slot[1] / slot[2]`, or the remainder.
pub fn wide<T: Wide>(remainder: bool, level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<T: Wide, const REMAINDER: bool>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slots 0 to 2 are as wide as `T`.
        unsafe {
            let (a, b) = (T::read(r, o.slot[1]), T::read(r, o.slot[2]));
            let mut large = 0;
            for l in 0..32 {
                large |= a[l].large() | b[l].large();
            }
            let mut d = [T::default(); 32];
            if large == 0 {
                for l in 0..32 {
                    d[l] = T::quick(a[l], b[l]);
                }
            } else {
                for l in 0..32 {
                    d[l] = T::slow(a[l], b[l]);
                }
            }
            if REMAINDER {
                for l in 0..32 {
                    d[l] = T::rest(a[l], b[l], d[l]);
                }
            }
            T::write(r, o.slot[0], mask, d);
        }
    }
    if remainder { levels!(level, [T: Wide], body::<T, true>) } else { levels!(level, [T: Wide], body::<T, false>) }
}
