//! Instructions that read or write predicates: comparison, selection, logic of predicates (PTX ISA 9.7.6 to 9.7.8).

use crate::ops::lanes::compare::Test;
use crate::ops::lanes::float::Float;
use crate::ops::lanes::values::Halves;
use crate::ops::shapes::{AtOnce, InTurn, Op1, Op2, Pace, Portable, levels};
use crate::registers::{Exec, Level, NO_PREDICATE, Operands, Registers, Value};

/// Destinations come before sources in `Operands::predicate`, and `negated` counts sources only: the source `at`, the `n`-th
/// of its kind.
///
/// # Safety
/// It is a predicate of `r`.
#[inline(always)]
unsafe fn source(r: &Registers, o: &Operands, at: usize, n: u32) -> u32 {
    debug_assert!((o.predicate[at] as usize) < r.predicates.len());
    // SAFETY: the caller names a predicate of `r`.
    let p = unsafe { *r.predicates.get_unchecked(o.predicate[at] as usize) };
    if o.negated >> n & 1 == 1 { !p } else { p }
}

/// Writes the lanes of `mask`, unless the destination is missing.
///
/// # Safety
/// It is missing or a predicate of `r`.
#[inline(always)]
unsafe fn write(r: &mut Registers, o: &Operands, at: usize, mask: u32, value: u32) {
    let p = o.predicate[at];
    if p != NO_PREDICATE {
        debug_assert!((p as usize) < r.predicates.len());
        // SAFETY: the caller names a predicate of `r`, and it is not missing.
        let to = unsafe { r.predicates.get_unchecked_mut(p as usize) };
        *to = *to & !mask | value & mask;
    }
}

/// How a result is combined with a source predicate: bits 0 and 1 of `Operands::extra`.
pub const COMBINE: [&str; 4] = ["", "and", "or", "xor"];

#[inline(always)]
fn combine(how: u32, t: u32, c: u32) -> u32 {
    match how & 3 {
        0 => t,
        1 => t & c,
        2 => t | c,
        _ => t ^ c,
    }
}

/// One bit per lane.
#[inline(always)]
fn mask_of<P: Pace>(f: impl Fn(usize) -> bool) -> u32 {
    let mut bit = [0u32; 32];
    for l in P::lanes() {
        bit[l] = u32::from(f(l)) << l;
    }
    bit.iter().fold(0, |all, b| all | b)
}

/// `setp p|q, a, b`, or with a source predicate c by `extra`: `p = (a ? b) op c`, `q = !(a ? b) op c`.
pub fn setp<T: Value, F: Test<T>>(level: Level) -> Exec {
    levels!(level, [T: Value, F: Test<T>], compare::<AtOnce, T, F>, compare::<Portable, T, F>)
}
#[inline(always)]
unsafe fn compare<P: Pace, T: Value, F: Test<T>>(r: &mut Registers, o: &Operands, mask: u32) {
    // SAFETY: [`Exec`] vouches that slots 0 and 1 are sources as wide as `T`, and predicates 0 to 2 those of `setp`; 2 is there where it is read.
    unsafe {
        let (a, b) = (T::read(r, o.slot[0]), T::read(r, o.slot[1]));
        let t = mask_of::<P>(|l| F::f(a[l], b[l]));
        let c = if o.extra & 3 == 0 { 0 } else { source(r, o, 2, 0) };
        write(r, o, 0, mask, combine(o.extra, t, c));
        write(r, o, 1, mask, combine(o.extra, !t, c));
    }
}
/// The same for half formats, compiled once.
pub fn setp_half<T: Value, F: Test<T>>(_: Level) -> Exec {
    compare::<InTurn, T, F>
}

/// `setp` of packed operands: p for the low elements, q for the high ones. Compiled once.
pub fn setp_pair<P: Halves, F: Test<P::Part>>(_: Level) -> Exec {
    unsafe fn body<P: Halves, F: Test<P::Part>>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slots 0 and 1 are sources, and predicates 0 to 2 those of `setp`; 2 is there where it is read.
        unsafe {
            let (a, b) = (P::read(r, o.slot[0]), P::read(r, o.slot[1]));
            let low = mask_of::<InTurn>(|l| F::f(a[l].split().0, b[l].split().0));
            let high = mask_of::<InTurn>(|l| F::f(a[l].split().1, b[l].split().1));
            let c = if o.extra & 3 == 0 { 0 } else { source(r, o, 2, 0) };
            write(r, o, 0, mask, combine(o.extra, low, c));
            write(r, o, 1, mask, combine(o.extra, high, c));
        }
    }
    body::<P, F>
}

/// What `set` writes where the comparison holds: bits 2 to 4 of `Operands::extra`, by destination type.
pub const TRUE: [(&str, u32); 7] = [
    ("u32", 0xffff_ffff),
    ("s32", 0xffff_ffff),
    ("u16", 0xffff),
    ("s16", 0xffff),
    ("f32", 0x3f80_0000),
    ("f16", 0x3c00),
    ("bf16", 0x3f80),
];

/// `set d, a, b`, or with a source predicate by `extra`. Compiled once: compilers prefer `setp`.
pub fn set<T: Value, F: Test<T>>(_: Level) -> Exec {
    unsafe fn body<T: Value, F: Test<T>>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 0 is a row, slots 1 and 2 are sources as wide as `T`, and predicate 0 is there where it is read.
        unsafe {
            let (a, b) = (T::read(r, o.slot[1]), T::read(r, o.slot[2]));
            let c = if o.extra & 3 == 0 { 0 } else { source(r, o, 0, 0) };
            let t = combine(o.extra, mask_of::<InTurn>(|l| F::f(a[l], b[l])), c);
            let value = TRUE[(o.extra >> 2) as usize].1;
            choose(r, o.slot[0], mask, [t, 0], value);
        }
    }
    body::<T, F>
}

/// `set` of packed operands, 16 bits for each element.
pub fn set_pair<P: Halves, F: Test<P::Part>>(_: Level) -> Exec {
    unsafe fn body<P: Halves, F: Test<P::Part>>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 0 is a row, slots 1 and 2 are sources, and predicate 0 is there where it is read.
        unsafe {
            let (a, b) = (P::read(r, o.slot[1]), P::read(r, o.slot[2]));
            let c = if o.extra & 3 == 0 { 0 } else { source(r, o, 0, 0) };
            let low = combine(o.extra, mask_of::<InTurn>(|l| F::f(a[l].split().0, b[l].split().0)), c);
            let high = combine(o.extra, mask_of::<InTurn>(|l| F::f(a[l].split().1, b[l].split().1)), c);
            let value = TRUE[(o.extra >> 2) as usize].1 & 0xffff;
            choose(r, o.slot[0], mask, [low, high], value);
        }
    }
    body::<P, F>
}

/// The value where the first mask has a bit, and it 16 bits further up where the second has.
///
/// # Safety
/// `slot` is a row of `r`.
unsafe fn choose(r: &mut Registers, slot: u16, mask: u32, [low, high]: [u32; 2], value: u32) {
    let at = |on: u32, l: usize, value: u32| if on >> l & 1 == 1 { value } else { 0 };
    let d = std::array::from_fn(|l| at(low, l, value) | at(high, l, value << 16));
    // SAFETY: the caller names a row of `r`.
    unsafe { u32::write(r, slot, mask, d) };
}

/// A property of one number.
pub trait Property<T> {
    fn f(a: T) -> bool;
}
pub struct Finite;
pub struct Infinite;
pub struct Number;
pub struct NotANumber;
/// Zeros count as normal.
pub struct Normal;
pub struct Subnormal;

macro_rules! properties {
    ($($name:ident: |$a:ident| $body:expr),*) => {$(
        impl<T: Float> Property<T> for $name {
            #[inline(always)]
            fn f($a: T) -> bool {
                $body
            }
        }
    )*};
}
properties!(
    Finite: |a| a.is_finite(),
    Infinite: |a| !a.is_finite() && !a.is_nan(),
    Number: |a| !a.is_nan(),
    NotANumber: |a| a.is_nan(),
    Normal: |a| a.is_finite() && !a.is_subnormal(),
    Subnormal: |a| a.is_subnormal()
);

/// `testp p, a`
pub fn testp<T: Value, F: Property<T>>(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<T: Value, F: Property<T>>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 0 is a source as wide as `T`, and predicate 0 a destination.
        unsafe {
            let a = T::read(r, o.slot[0]);
            let t = mask_of::<AtOnce>(|l| F::f(a[l]));
            write(r, o, 0, mask, t);
        }
    }
    levels!(level, [T: Value, F: Property<T>], body::<T, F>)
}

/// `selp d, a, b, c`: a where c holds.
pub fn selp<T: Value>(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<T: Value>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slots 0 to 2 are as wide as `T`, and predicate 0 is the one that chooses.
        unsafe {
            let (a, b) = (T::read(r, o.slot[1]), T::read(r, o.slot[2]));
            let c = source(r, o, 0, 0);
            let mut d = [T::default(); 32];
            for l in 0..32 {
                d[l] = if c >> l & 1 == 1 { a[l] } else { b[l] };
            }
            T::write(r, o.slot[0], mask, d);
        }
    }
    levels!(level, [T: Value], body::<T>)
}

/// A lane function of masks, on predicates: `not`, `mov`.
pub fn predicate1<F: Op1<u32, u32>>() -> Exec {
    unsafe fn body<F: Op1<u32, u32>>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that predicates 0 and 1 are a destination and a source.
        unsafe {
            let d = F::f(source(r, o, 1, 0));
            write(r, o, 0, mask, d);
        }
    }
    body::<F>
}

/// `and`, `or`, `xor`.
pub fn predicate2<F: Op2<u32, u32, u32>>() -> Exec {
    unsafe fn body<F: Op2<u32, u32, u32>>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that predicates 0 to 2 are a destination and two sources.
        unsafe {
            let d = F::f(source(r, o, 1, 0), source(r, o, 2, 1));
            write(r, o, 0, mask, d);
        }
    }
    body::<F>
}

/// `lop3`: any function of three bits; `Operands::extra` is its table, by `4a + 2b + c`. `how` other than 0 is an index into
/// [`COMBINE`]: `p = (d != 0) op q` as well.
pub fn lop3(how: usize, level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<const HOW: u32>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slots 0 to 3 are rows, and the predicates of a combining `lop3` are there.
        unsafe {
            let (a, b, c) = (u32::read(r, o.slot[1]), u32::read(r, o.slot[2]), u32::read(r, o.slot[3]));
            let table: [u32; 8] = std::array::from_fn(|n| 0u32.wrapping_sub(o.extra >> n & 1));
            let mut d = [0; 32];
            for l in 0..32 {
                let by_c = |n: usize| c[l] & table[n + 1] | !c[l] & table[n];
                let by_b = |n: usize| b[l] & by_c(n + 2) | !b[l] & by_c(n);
                d[l] = a[l] & by_b(4) | !a[l] & by_b(0);
            }
            u32::write(r, o.slot[0], mask, d);
            if HOW != 0 {
                let q = source(r, o, 1, 0);
                write(r, o, 0, mask, combine(HOW, mask_of::<AtOnce>(|l| d[l] != 0), q));
            }
        }
    }
    match how {
        0 => levels!(level, [], body::<0>),
        1 => levels!(level, [], body::<1>),
        _ => levels!(level, [], body::<2>),
    }
}
