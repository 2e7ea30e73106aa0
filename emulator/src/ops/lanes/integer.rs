//! Integer arithmetic (PTX ISA 9.7.1), division and bit manipulation excepted. Results wrap unless `.sat` says otherwise.

use crate::ops::shapes::Op1;
use crate::ops::shapes::{Op2, Op3};

pub struct Add;
pub struct Sub;
pub struct MulLo;
/// The upper half of the product of twice the width.
pub struct MulHi;
pub struct MulWide;
pub struct MadLo;
pub struct MadHi;
pub struct MadWide;
/// `c + |a - b|`
pub struct Sad;
pub struct Min;
pub struct Max;
pub struct Abs;
pub struct Neg;
pub struct AddSat;
pub struct SubSat;
pub struct MadHiSat;
/// Negative results become 0.
pub struct Relu<F>(F);
/// The low and the high 32 of the 48 bits of the product of two 24-bit numbers.
pub struct Mul24Lo;
pub struct Mul24Hi;
pub struct Mad24Lo;
pub struct Mad24Hi;
pub struct Mad24HiSat;

macro_rules! op2 {
    ($name:ident, $t:ty, |$a:ident, $b:ident| $body:expr) => {
        op2!($name, $t => $t, |$a, $b| $body);
    };
    ($name:ident, $t:ty => $d:ty, |$a:ident, $b:ident| $body:expr) => {
        impl Op2<$t, $t, $d> for $name {
            #[inline(always)]
            fn f($a: $t, $b: $t) -> $d {
                $body
            }
        }
    };
}
macro_rules! op3 {
    ($name:ident, $t:ty, |$a:ident, $b:ident, $c:ident| $body:expr) => {
        op3!($name, $t => $t, |$a, $b, $c| $body);
    };
    ($name:ident, $t:ty => $d:ty, |$a:ident, $b:ident, $c:ident| $body:expr) => {
        impl Op3<$t, $t, $d, $d> for $name {
            #[inline(always)]
            fn f($a: $t, $b: $t, $c: $d) -> $d {
                $body
            }
        }
    };
}

macro_rules! integers {
    ($($t:ident wide $wide:ident),*) => {$(
        op2!(Add, $t, |a, b| a.wrapping_add(b));
        op2!(Sub, $t, |a, b| a.wrapping_sub(b));
        op2!(MulLo, $t, |a, b| a.wrapping_mul(b));
        op2!(MulHi, $t, |a, b| ((a as $wide * b as $wide) >> $t::BITS) as $t);
        op2!(Min, $t, |a, b| a.min(b));
        op2!(Max, $t, |a, b| a.max(b));
        op3!(MadLo, $t, |a, b, c| a.wrapping_mul(b).wrapping_add(c));
        op3!(MadHi, $t, |a, b, c| (((a as $wide * b as $wide) >> $t::BITS) as $t).wrapping_add(c));
        op3!(Sad, $t, |a, b, c| c.wrapping_add(a.max(b).wrapping_sub(a.min(b))));
    )*};
}
integers!(u16 wide u32, i16 wide i32, u32 wide u64, i32 wide i64, u64 wide u128, i64 wide i128);

macro_rules! wide {
    ($($t:ident wide $wide:ident),*) => {$(
        op2!(MulWide, $t => $wide, |a, b| a as $wide * b as $wide);
        op3!(MadWide, $t => $wide, |a, b, c| (a as $wide * b as $wide).wrapping_add(c));
    )*};
}
wide!(u16 wide u32, i16 wide i32, u32 wide u64, i32 wide i64);

macro_rules! signed {
    ($($t:ident),*) => {$(
        impl Op1<$t, $t> for Abs {
            #[inline(always)]
            fn f(a: $t) -> $t {
                a.wrapping_abs()
            }
        }
        impl Op1<$t, $t> for Neg {
            #[inline(always)]
            fn f(a: $t) -> $t {
                a.wrapping_neg()
            }
        }
        impl<F: Op2<$t, $t, $t>> Op2<$t, $t, $t> for Relu<F> {
            #[inline(always)]
            fn f(a: $t, b: $t) -> $t {
                F::f(a, b).max(0)
            }
        }
    )*};
}
signed!(i16, i32, i64);

/// Saturation to 32 bits.
#[inline(always)]
fn clamp(v: i64) -> i32 {
    v.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
}

op2!(AddSat, i32, |a, b| a.saturating_add(b));
op2!(SubSat, i32, |a, b| a.saturating_sub(b));
op3!(MadHiSat, i32, |a, b, c| clamp(((i64::from(a) * i64::from(b)) >> 32) + i64::from(c)));

/// The product of the low 24 bits of each, 48 bits.
#[inline(always)]
fn unsigned24(a: u32, b: u32) -> u64 {
    u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff)
}

#[inline(always)]
fn signed24(a: i32, b: i32) -> i64 {
    i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8)
}

op2!(Mul24Lo, u32, |a, b| unsigned24(a, b) as u32);
op2!(Mul24Hi, u32, |a, b| (unsigned24(a, b) >> 16) as u32);
op2!(Mul24Lo, i32, |a, b| signed24(a, b) as i32);
op2!(Mul24Hi, i32, |a, b| (signed24(a, b) >> 16) as i32);
op3!(Mad24Lo, u32, |a, b, c| (unsigned24(a, b) as u32).wrapping_add(c));
op3!(Mad24Hi, u32, |a, b, c| ((unsigned24(a, b) >> 16) as u32).wrapping_add(c));
op3!(Mad24Lo, i32, |a, b, c| (signed24(a, b) as i32).wrapping_add(c));
op3!(Mad24Hi, i32, |a, b, c| ((signed24(a, b) >> 16) as i32).wrapping_add(c));
op3!(Mad24HiSat, i32, |a, b, c| clamp((signed24(a, b) >> 16) + i64::from(c)));

/// Whether the elements of a packed operand are signed.
pub trait Sign {
    const SIGNED: bool;
}
pub struct Signed;
pub struct Unsigned;
impl Sign for Signed {
    const SIGNED: bool = true;
}
impl Sign for Unsigned {
    const SIGNED: bool = false;
}

#[inline(always)]
fn byte<S: Sign>(v: u32, n: u32) -> i32 {
    let b = (v >> (8 * n)) as u8;
    if S::SIGNED { i32::from(b as i8) } else { i32::from(b) }
}

#[inline(always)]
fn half<S: Sign>(v: u32, n: u32) -> i32 {
    let h = (v >> (16 * n)) as u16;
    if S::SIGNED { i32::from(h as i16) } else { i32::from(h) }
}

/// `dp4a`: the products of four bytes each, added to `c`.
pub struct Dp4a<A, B>(A, B);
impl<A: Sign, B: Sign> Op3<u32, u32, u32, u32> for Dp4a<A, B> {
    #[inline(always)]
    fn f(a: u32, b: u32, c: u32) -> u32 {
        let mut d = c;
        for n in 0..4 {
            d = d.wrapping_add((byte::<A>(a, n) * byte::<B>(b, n)) as u32);
        }
        d
    }
}

/// `dp2a`: two 16-bit elements of `a` times bytes `FIRST` and `FIRST + 1` of `b`, added to `c`.
pub struct Dp2a<A, B, const FIRST: u32>(A, B);
impl<A: Sign, B: Sign, const FIRST: u32> Op3<u32, u32, u32, u32> for Dp2a<A, B, FIRST> {
    #[inline(always)]
    fn f(a: u32, b: u32, c: u32) -> u32 {
        let mut d = c;
        for n in 0..2 {
            d = d.wrapping_add((half::<A>(a, n) * byte::<B>(b, FIRST + n)) as u32);
        }
        d
    }
}
