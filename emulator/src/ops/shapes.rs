//! Lifts a function of one lane to an instruction of 32, compiled for each [`Level`].

use crate::registers::{Exec, Level, Operands, Registers, Value};

/// Functions of one lane. Implementors mark `f` `#[inline(always)]`.
pub trait Op1<A, D> {
    fn f(a: A) -> D;
}
pub trait Op2<A, B, D> {
    fn f(a: A, b: B) -> D;
}
pub trait Op3<A, B, C, D> {
    fn f(a: A, b: B, c: C) -> D;
}
/// Functions of one lane that read `Operands::extra`.
pub trait Flags1<A, D> {
    fn f(a: A, flags: u32) -> D;
}
pub trait Flags2<A, B, D> {
    fn f(a: A, b: B, flags: u32) -> D;
}
/// A comparison.
pub trait Test<A> {
    fn f(a: A, b: A) -> bool;
}

/// Compiles `$body` once per level and picks one; `$portable` instead of it for [`Level::Portable`], where it is given.
macro_rules! levels {
    ($level:expr, [$($generic:ident: $bound:path),*], $body:path) => {
        $crate::ops::shapes::levels!($level, [$($generic: $bound),*], $body, $body)
    };
    ($level:expr, [$($generic:ident: $bound:path),*], $body:path, $portable:path) => {{
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        #[cfg(target_arch = "x86_64")]
        unsafe fn avx512<$($generic: $bound),*>(r: &mut Registers, o: &Operands, mask: u32) {
            // SAFETY: the contract of [`Exec`], which is that of the body.
            unsafe { $body(r, o, mask) }
        }
        #[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt")]
        #[cfg(target_arch = "x86_64")]
        unsafe fn avx2<$($generic: $bound),*>(r: &mut Registers, o: &Operands, mask: u32) {
            // SAFETY: the contract of [`Exec`], which is that of the body.
            unsafe { $body(r, o, mask) }
        }
        unsafe fn portable<$($generic: $bound),*>(r: &mut Registers, o: &Operands, mask: u32) {
            // SAFETY: the contract of [`Exec`], which is that of the body.
            unsafe { $portable(r, o, mask) }
        }
        match $level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::<$($generic),*> as Exec,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::<$($generic),*> as Exec,
            _ => portable::<$($generic),*> as Exec,
        }
    }};
}
pub(crate) use levels;

/// How a body goes through the lanes.
pub trait Pace {
    fn lanes() -> impl Iterator<Item = usize>;
    /// # Safety
    /// As for [`Value::write`].
    unsafe fn write<D: Value>(r: &mut Registers, slot: u16, mask: u32, d: &[D; 32]);
}

/// All at once: the compiler unrolls and vectorises.
pub struct AtOnce;

impl Pace for AtOnce {
    #[inline(always)]
    fn lanes() -> impl Iterator<Item = usize> {
        0..32
    }
    #[inline(always)]
    unsafe fn write<D: Value>(r: &mut Registers, slot: u16, mask: u32, d: &[D; 32]) {
        // SAFETY: the caller names a row of `r` as wide as `D`.
        unsafe { D::write(r, slot, mask, *d) }
    }
}

/// One after another, in a loop that the compiler leaves alone: a fraction of the code and of the time to compile it.
pub struct InTurn;

impl Pace for InTurn {
    #[inline(always)]
    fn lanes() -> impl Iterator<Item = usize> {
        (0..std::hint::black_box(32usize)).map(|l| std::hint::black_box(l) & 31)
    }
    #[inline(never)]
    unsafe fn write<D: Value>(r: &mut Registers, slot: u16, mask: u32, d: &[D; 32]) {
        // SAFETY: the caller names a row of `r` as wide as `D`.
        unsafe { D::write(r, slot, mask, *d) }
    }
}

/// On x86 only processors without AVX2 and FMA, older than 2013, are left to [`Level::Portable`].
#[cfg(target_arch = "x86_64")]
pub type Portable = InTurn;
#[cfg(not(target_arch = "x86_64"))]
pub type Portable = AtOnce;

#[inline(always)]
unsafe fn body1<P: Pace, A: Value, D: Value, F: Op1<A, D>>(r: &mut Registers, o: &Operands, mask: u32) {
    // SAFETY: [`Exec`] vouches that slot 0 is a row as wide as `D`, and slot 1 is a source as wide as `A`.
    unsafe {
        let a = A::read(r, o.slot[1]);
        let mut d = [D::default(); 32];
        for l in P::lanes() {
            d[l] = F::f(a[l]);
        }
        P::write(r, o.slot[0], mask, &d);
    }
}

/// `slot[0] = F(slot[1])`
pub fn op1<A: Value, D: Value, F: Op1<A, D>>(level: Level) -> Exec {
    levels!(level, [A: Value, D: Value, F: Op1<A, D>], body1::<AtOnce, A, D, F>, body1::<Portable, A, D, F>)
}

/// The same, compiled once and small: for what is seldom met and has many variants.
pub fn seldom1<A: Value, D: Value, F: Op1<A, D>>() -> Exec {
    body1::<InTurn, A, D, F>
}

#[inline(always)]
unsafe fn body2<P: Pace, A: Value, B: Value, D: Value, F: Op2<A, B, D>>(r: &mut Registers, o: &Operands, mask: u32) {
    // SAFETY: [`Exec`] vouches that slot 0 is a row as wide as `D`, and slots 1 and 2 are sources as wide as `A` and `B`.
    unsafe {
        let (a, b) = (A::read(r, o.slot[1]), B::read(r, o.slot[2]));
        let mut d = [D::default(); 32];
        for l in P::lanes() {
            d[l] = F::f(a[l], b[l]);
        }
        P::write(r, o.slot[0], mask, &d);
    }
}

/// `slot[0] = F(slot[1], slot[2])`
pub fn op2<A: Value, B: Value, D: Value, F: Op2<A, B, D>>(level: Level) -> Exec {
    levels!(level, [A: Value, B: Value, D: Value, F: Op2<A, B, D>], body2::<AtOnce, A, B, D, F>, body2::<Portable, A, B, D, F>)
}

/// The same, compiled once and small: for what is seldom met and has many variants.
pub fn seldom2<A: Value, B: Value, D: Value, F: Op2<A, B, D>>() -> Exec {
    body2::<InTurn, A, B, D, F>
}

#[inline(always)]
unsafe fn body3<P: Pace, A: Value, B: Value, C: Value, D: Value, F: Op3<A, B, C, D>>(
    r: &mut Registers,
    o: &Operands,
    mask: u32,
) {
    // SAFETY: [`Exec`] vouches that slot 0 is a row as wide as `D`, and slots 1 to 3 are sources as wide as `A`, `B` and `C`.
    unsafe {
        let (a, b, c) = (A::read(r, o.slot[1]), B::read(r, o.slot[2]), C::read(r, o.slot[3]));
        let mut d = [D::default(); 32];
        for l in P::lanes() {
            d[l] = F::f(a[l], b[l], c[l]);
        }
        P::write(r, o.slot[0], mask, &d);
    }
}

/// `slot[0] = F(slot[1], slot[2], slot[3])`
pub fn op3<A: Value, B: Value, C: Value, D: Value, F: Op3<A, B, C, D>>(level: Level) -> Exec {
    levels!(level, [A: Value, B: Value, C: Value, D: Value, F: Op3<A, B, C, D>], body3::<AtOnce, A, B, C, D, F>, body3::<Portable, A, B, C, D, F>)
}

/// The same, compiled once and small: for what is seldom met and has many variants.
pub fn seldom3<A: Value, B: Value, C: Value, D: Value, F: Op3<A, B, C, D>>() -> Exec {
    body3::<InTurn, A, B, C, D, F>
}

#[inline(always)]
unsafe fn body_flags1<P: Pace, A: Value, D: Value, F: Flags1<A, D>>(r: &mut Registers, o: &Operands, mask: u32) {
    // SAFETY: [`Exec`] vouches that slot 0 is a row as wide as `D`, and slot 1 is a source as wide as `A`.
    unsafe {
        let a = A::read(r, o.slot[1]);
        let mut d = [D::default(); 32];
        for l in P::lanes() {
            d[l] = F::f(a[l], o.extra);
        }
        P::write(r, o.slot[0], mask, &d);
    }
}

/// `slot[0] = F(slot[1], extra)`
pub fn flags1<A: Value, D: Value, F: Flags1<A, D>>(level: Level) -> Exec {
    levels!(level, [A: Value, D: Value, F: Flags1<A, D>], body_flags1::<AtOnce, A, D, F>, body_flags1::<Portable, A, D, F>)
}

/// The same, compiled once and small: for what is seldom met and has many variants.
pub fn seldom_flags1<A: Value, D: Value, F: Flags1<A, D>>() -> Exec {
    body_flags1::<InTurn, A, D, F>
}

#[inline(always)]
unsafe fn body_flags2<P: Pace, A: Value, B: Value, D: Value, F: Flags2<A, B, D>>(
    r: &mut Registers,
    o: &Operands,
    mask: u32,
) {
    // SAFETY: [`Exec`] vouches that slot 0 is a row as wide as `D`, and slots 1 and 2 are sources as wide as `A` and `B`.
    unsafe {
        let (a, b) = (A::read(r, o.slot[1]), B::read(r, o.slot[2]));
        let mut d = [D::default(); 32];
        for l in P::lanes() {
            d[l] = F::f(a[l], b[l], o.extra);
        }
        P::write(r, o.slot[0], mask, &d);
    }
}

/// `slot[0] = F(slot[1], slot[2], extra)`, compiled once and small.
pub fn seldom_flags2<A: Value, B: Value, D: Value, F: Flags2<A, B, D>>() -> Exec {
    body_flags2::<InTurn, A, B, D, F>
}
