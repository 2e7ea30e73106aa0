//! `cvt` (PTX ISA 9.7.9.21) and `cvt.pack`.

use std::marker::PhantomData;

use super::arithmetic::{relu, saturate};
use super::float::{Float, Wide};
use super::rounding::{self, Mode, Rounding};
use super::values::{Bf16, Bits16, F16, Halves, Pair};
use crate::ops::shapes::{Flags1, Flags2, Op1, Op2, Op3};
use crate::registers::Value;

/// Modifiers of conversions, as bits of `Operands::extra`.
pub const SAT: u32 = 1;
pub const RELU: u32 = 2;
/// `.satfinite`
pub const FINITE: u32 = 4;
pub const FTZ: u32 = 8;

/// An integer type.
pub trait Integer: Value {
    const BITS: u32;
    /// What it is written as: 32 or 64 bits. Signed types are extended, as the destination register may be wider than the type.
    type Row: Value;
    fn row(self) -> Self::Row;
    fn wide(self) -> i128;
    /// The nearest integer of this type.
    fn clamped(x: i128) -> Self;
    /// 0, or only the leading bit.
    fn of_nan(leading: bool) -> Self;
    fn nearest_f32(self) -> f32;
    fn nearest_f64(self) -> f64;
}

/// For integers the low bits; from floating point towards zero and clamped, NaN to anything.
pub trait Cast<D> {
    fn cast(self) -> D;
}

macro_rules! casts {
    ($from:ident: $($to:ident),*) => {$(
        impl Cast<$to> for $from {
            #[inline(always)]
            fn cast(self) -> $to {
                self as $to
            }
        }
    )*};
}
macro_rules! integers {
    ($($t:ident through $through:ident in $row:ident),*) => {$(
        impl Integer for $t {
            const BITS: u32 = $t::BITS;
            type Row = $row;
            #[inline(always)]
            fn row(self) -> $row {
                self as $through as $row
            }
            #[inline(always)]
            fn wide(self) -> i128 {
                self.into()
            }
            #[inline(always)]
            fn clamped(x: i128) -> $t {
                x.clamp($t::MIN as i128, $t::MAX as i128) as $t
            }
            #[inline(always)]
            fn of_nan(leading: bool) -> $t {
                if leading { (1 as $t) << ($t::BITS - 1) } else { 0 }
            }
            #[inline(always)]
            fn nearest_f32(self) -> f32 {
                self as f32
            }
            #[inline(always)]
            fn nearest_f64(self) -> f64 {
                self as f64
            }
        }
        casts!($t: u8, i8, u16, i16, u32, i32, u64, i64);
    )*};
}
integers!(
    u8 through u32 in u32, i8 through i32 in u32, u16 through u32 in u32, i16 through i32 in u32,
    u32 through u32 in u32, i32 through i32 in u32, u64 through u64 in u64, i64 through i64 in u64
);

/// `as` would be right, but it does not vectorise well.
macro_rules! cuts {
    ($from:ident: $($to:ident through $through:ident),*) => {$(
        impl Cast<$to> for $from {
            #[inline(always)]
            fn cast(self) -> $to {
                // Both limits are powers of two or 0, and exact.
                let (low, high) = ($through::MIN as $from, 2.0 * (1u64 << ($through::BITS - 1 - ($through::MIN != 0) as u32)) as $from);
                let inside = self >= low && self < high;
                // SAFETY: within the limits, or 0, so that the cut value fits; NaN is not within.
                let cut = unsafe { (if inside { self } else { 0.0 }).to_int_unchecked::<$through>() };
                let limit = if self > 0.0 { $through::MAX } else { $through::MIN };
                (if inside { cut } else { limit }).clamp($to::MIN as $through, $to::MAX as $through) as $to
            }
        }
    )*};
}
cuts!(f32: u8 through i32, i8 through i32, u16 through i32, i16 through i32, u32 through u32, i32 through i32, u64 through u64, i64 through i64);
cuts!(f64: u8 through i32, i8 through i32, u16 through i32, i16 through i32, u32 through u32, i32 through i32, u64 through u64, i64 through i64);

/// Integer to integer `D`.
pub struct Cut<D>(D);
impl<S: Integer + Cast<D>, D: Integer> Op1<S, D::Row> for Cut<D> {
    #[inline(always)]
    fn f(a: S) -> D::Row {
        a.cast().row()
    }
}
/// `cvt.s64.s32`, which is in every address. The flags are 0: without them the loop is so short that the compiler unrolls it
/// before it would make vectors of it.
pub struct Extend;
impl Flags1<i32, i64> for Extend {
    #[inline(always)]
    fn f(a: i32, flags: u32) -> i64 {
        i64::from(a) | i64::from(flags)
    }
}
/// `.sat`
pub struct Clamp<D>(D);
impl<S: Integer, D: Integer> Op1<S, D::Row> for Clamp<D> {
    #[inline(always)]
    fn f(a: S) -> D::Row {
        D::clamped(a.wide()).row()
    }
}

/// Rounding to an integer.
pub trait Integral {
    fn round<W: Wide>(x: W) -> W;
    /// The same, for a value that is cut off afterwards.
    #[inline(always)]
    fn before_cut<W: Wide>(x: W) -> W {
        Self::round(x)
    }
}
pub struct Rni;
pub struct Rzi;
pub struct Rmi;
pub struct Rpi;
impl Integral for Rni {
    #[inline(always)]
    fn round<W: Wide>(x: W) -> W {
        x.nearest()
    }
}
impl Integral for Rzi {
    #[inline(always)]
    fn round<W: Wide>(x: W) -> W {
        x.trunc()
    }
    #[inline(always)]
    fn before_cut<W: Wide>(x: W) -> W {
        x
    }
}
impl Integral for Rmi {
    #[inline(always)]
    fn round<W: Wide>(x: W) -> W {
        x.floor()
    }
}
impl Integral for Rpi {
    #[inline(always)]
    fn round<W: Wide>(x: W) -> W {
        x.ceil()
    }
}

/// Floating point to integer `D`, clamped. NaN gives 0, or the leading bit alone where either side has 64 bits.
pub struct ToInteger<D, R>(D, PhantomData<R>);
#[inline(always)]
fn to_integer<W: Wide + Cast<D>, D: Integer, R: Integral>(x: W) -> D::Row {
    let cut = R::before_cut(x).cast();
    (if x.is_nan() { D::of_nan(W::DOUBLE || D::BITS == 64) } else { cut }).row()
}
impl<S: Float, D: Integer, R: Integral> Op1<S, D::Row> for ToInteger<D, R>
where
    S::Wide: Cast<D>,
{
    #[inline(always)]
    fn f(a: S) -> D::Row {
        to_integer::<S::Wide, D, R>(a.widen())
    }
}
/// `.ftz`, which matters where rounding goes away from zero.
pub struct ToIntegerFtz<D, R>(D, PhantomData<R>);
impl<D: Integer, R: Integral> Op1<f32, D::Row> for ToIntegerFtz<D, R>
where
    f32: Cast<D>,
{
    #[inline(always)]
    fn f(a: f32) -> D::Row {
        to_integer::<f32, D, R>(a.flush())
    }
}

/// A format that integers are converted to.
pub trait FromInteger: Float {
    fn from_integer<S: Integer, R: Rounding>(a: S) -> Self;
}
impl FromInteger for f32 {
    #[inline(always)]
    fn from_integer<S: Integer, R: Rounding>(a: S) -> f32 {
        if R::MODE == Mode::Rn { a.nearest_f32() } else { from_odd::<f32, S, R>(a) }
    }
}
impl FromInteger for f64 {
    #[inline(always)]
    fn from_integer<S: Integer, R: Rounding>(a: S) -> f64 {
        let exact = S::BITS <= 32 || R::MODE == Mode::Rn;
        if exact { a.nearest_f64() } else { rounding::rounded_integer::<R>(a.wide()) }
    }
}
impl FromInteger for F16 {
    #[inline(always)]
    fn from_integer<S: Integer, R: Rounding>(a: S) -> F16 {
        from_odd::<F16, S, R>(a)
    }
}
impl FromInteger for Bf16 {
    #[inline(always)]
    fn from_integer<S: Integer, R: Rounding>(a: S) -> Bf16 {
        from_odd::<Bf16, S, R>(a)
    }
}
/// 32 bits are exact in `f64`, 64 bits are rounded to odd.
#[inline(always)]
fn from_odd<D: Float, S: Integer, R: Rounding>(a: S) -> D {
    D::from_f64::<R>(if S::BITS <= 32 { a.nearest_f64() } else { rounding::odd_integer(a.wide()) })
}

/// Integer to floating point.
pub struct Number<R>(PhantomData<R>);
impl<S: Integer, D: FromInteger, R: Rounding> Op1<S, D> for Number<R> {
    #[inline(always)]
    fn f(a: S) -> D {
        D::from_integer::<S, R>(a)
    }
}
/// `.sat`: of integers only 0 and 1 are left.
pub struct NumberSat;
impl<S: Integer, D: FromInteger> Op1<S, D> for NumberSat {
    #[inline(always)]
    fn f(a: S) -> D {
        D::from_f32::<rounding::Rn>(if a.wide() > 0 { 1.0 } else { 0.0 })
    }
}

/// Floating point to another format `D`; without a flag, or by the flags.
pub struct Round<R>(PhantomData<R>);
impl<S: Float, D: Float, R: Rounding> Op1<S, D> for Round<R> {
    #[inline(always)]
    fn f(a: S) -> D {
        a.widen().to::<D, R>()
    }
}
impl<S: Float, D: Float, R: Rounding> Flags1<S, D> for Round<R> {
    #[inline(always)]
    fn f(a: S, flags: u32) -> D {
        let x = before::<S>(a, flags);
        after(finite(x, D::MAX, flags).to::<D, R>(), flags)
    }
}
/// Floating point to an integer of the same format.
pub struct RoundIntegral<R>(PhantomData<R>);
impl<T: Float, R: Integral> Flags1<T, T> for RoundIntegral<R> {
    #[inline(always)]
    fn f(a: T, flags: u32) -> T {
        after(R::round(before::<T>(a, flags)).to::<T, rounding::Rn>(), flags)
    }
}

/// What happens before rounding.
#[inline(always)]
fn before<S: Float>(a: S, flags: u32) -> S::Wide {
    let x = a.widen();
    if S::SINGLE && flags & FTZ != 0 { x.flush() } else { x }
}
/// Limits are numbers of the destination, so that clamping first comes to the same.
#[inline(always)]
fn finite<W: Wide>(x: W, max: f64, flags: u32) -> W {
    if flags & FINITE == 0 {
        return x;
    }
    let (low, high) = (W::exact(-max), W::exact(max));
    let x = if x > high { high } else { x };
    if x < low { low } else { x }
}
/// What happens after rounding.
#[inline(always)]
fn after<D: Float>(x: D, flags: u32) -> D {
    let x = if D::SINGLE && flags & FTZ != 0 { x.flush() } else { x };
    let x = if flags & SAT != 0 { saturate(x) } else { x };
    if flags & RELU != 0 { relu(x) } else { x }
}

/// `cvt.f16x2.f32 d, a, b` and `.bf16x2`: a into the upper half, b into the lower.
pub struct RoundPair<R>(PhantomData<R>);
impl<H: Float + Bits16, R: Rounding> Op2<f32, f32, Pair<H>> for RoundPair<R> {
    #[inline(always)]
    fn f(a: f32, b: f32) -> Pair<H> {
        Pair::join(H::from_f32::<R>(b), H::from_f32::<R>(a))
    }
}
impl<H: Float + Bits16, R: Rounding> Flags2<f32, f32, Pair<H>> for RoundPair<R> {
    #[inline(always)]
    fn f(a: f32, b: f32, flags: u32) -> Pair<H> {
        Pair::join(<Round<R> as Flags1<f32, H>>::f(b, flags), <Round<R> as Flags1<f32, H>>::f(a, flags))
    }
}

/// The largest finite `tf32`: 10 bits of fraction.
const TF32_MAX: f64 = f32::from_bits(0x7f7f_e000) as f64;

/// To `.tf32`, whose 19 bits lie at the top of 32.
pub struct Tf32<R>(PhantomData<R>);
impl<R: Rounding> Flags1<f32, f32> for Tf32<R> {
    #[inline(always)]
    fn f(a: f32, flags: u32) -> f32 {
        let x = f32::from_bits(rounding::cut::<R, 13>(finite(a, TF32_MAX, flags)) << 13);
        after(if a.is_nan() { a.canonical() } else { x }, flags)
    }
}
/// `.rna`: to nearest, ties away from zero.
pub struct Tf32Away;
impl Flags1<f32, f32> for Tf32Away {
    #[inline(always)]
    fn f(a: f32, flags: u32) -> f32 {
        let bits = finite(a, TF32_MAX, flags).to_bits();
        let x = f32::from_bits(bits.wrapping_add(0x1000) & !0x1fff);
        after(if a.is_nan() { a.canonical() } else { x }, flags)
    }
}

/// `cvt.pack.sat`: a and b, clamped to `N` bits, and `c` above them.
pub struct Pack<const N: u32, const SIGNED: bool>;
impl<const N: u32, const SIGNED: bool> Pack<N, SIGNED> {
    #[inline(always)]
    fn part(x: i32) -> u32 {
        let (low, high) = if SIGNED { (-1 << (N - 1), (1 << (N - 1)) - 1) } else { (0, (1 << N) - 1) };
        x.clamp(low, high) as u32 & ((1 << N) - 1)
    }
}
impl<const N: u32, const SIGNED: bool> Op2<i32, i32, u32> for Pack<N, SIGNED> {
    #[inline(always)]
    fn f(a: i32, b: i32) -> u32 {
        Self::part(a) << N | Self::part(b)
    }
}
impl<const N: u32, const SIGNED: bool> Op3<i32, i32, u32, u32> for Pack<N, SIGNED> {
    #[inline(always)]
    fn f(a: i32, b: i32, c: u32) -> u32 {
        c << (2 * N) | Self::part(a) << N | Self::part(b)
    }
}
