//! Logic, shifts and bit manipulation (PTX ISA 9.7.1 and 9.7.8).

use crate::ops::shapes::{Op1, Op2, Op3, levels};
use crate::registers::{Exec, Level, Operands, Registers, Value};

macro_rules! lane {
    ($($(#[$doc:meta])* $name:ident($($a:ident: $t:ty),+) -> $d:ty $body:block)*) => {$(
        lane!(@ $name ($($a: $t),+) $d, $body);
    )*};
    (@ $name:ident ($a:ident: $ta:ty) $d:ty, $body:block) => {
        impl Op1<$ta, $d> for $name {
            #[inline(always)]
            fn f($a: $ta) -> $d $body
        }
    };
    (@ $name:ident ($a:ident: $ta:ty, $b:ident: $tb:ty) $d:ty, $body:block) => {
        impl Op2<$ta, $tb, $d> for $name {
            #[inline(always)]
            fn f($a: $ta, $b: $tb) -> $d $body
        }
    };
    (@ $name:ident ($a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty) $d:ty, $body:block) => {
        impl Op3<$ta, $tb, $tc, $d> for $name {
            #[inline(always)]
            fn f($a: $ta, $b: $tb, $c: $tc) -> $d $body
        }
    };
}

pub struct And;
pub struct Or;
pub struct Xor;
pub struct Not;
/// Whether all bits are 0.
pub struct Cnot;
/// Counts beyond the width are clamped to it.
pub struct Shl;
pub struct Shr;
pub struct Popc;
pub struct Clz;
pub struct Brev;
/// Position of the highest bit that differs from the sign; all ones if there is none.
pub struct Bfind;
/// The same, as the shift that brings this bit to the top.
pub struct BfindShift;
/// Bit field of `c` bits at position `b`.
pub struct Bfe;

macro_rules! unsigned {
    ($($t:ident signed $s:ident),*) => {$(lane! {
        And(a: $t, b: $t) -> $t { a & b }
        Or(a: $t, b: $t) -> $t { a | b }
        Xor(a: $t, b: $t) -> $t { a ^ b }
        Not(a: $t) -> $t { !a }
        Cnot(a: $t) -> $t { $t::from(a == 0) }
        Shl(a: $t, b: u32) -> $t { let s = a.wrapping_shl(b); if b < $t::BITS { s } else { 0 } }
        Shr(a: $t, b: u32) -> $t { let s = a.wrapping_shr(b); if b < $t::BITS { s } else { 0 } }
        Shr(a: $s, b: u32) -> $s { a >> b.min($t::BITS - 1) }
    })*};
}
unsigned!(u16 signed i16, u32 signed i32, u64 signed i64);

macro_rules! counts {
    ($($t:ident signed $s:ident),*) => {$(lane! {
        Popc(a: $t) -> u32 { a.count_ones() }
        Clz(a: $t) -> u32 { a.leading_zeros() }
        Brev(a: $t) -> $t { a.reverse_bits() }
        Bfind(a: $t) -> u32 { ($t::BITS - 1).wrapping_sub(a.leading_zeros()) }
        BfindShift(a: $t) -> u32 { if a == 0 { !0 } else { a.leading_zeros() } }
        Bfind(a: $s) -> u32 { <Bfind as Op1<$t, u32>>::f((a ^ a >> ($t::BITS - 1)) as $t) }
        BfindShift(a: $s) -> u32 { <BfindShift as Op1<$t, u32>>::f((a ^ a >> ($t::BITS - 1)) as $t) }
        Bfe(a: $t, b: u32, c: u32) -> $t {
            let field = <Shr as Op2<$t, u32, $t>>::f(a, b & 0xff);
            field & !<Shl as Op2<$t, u32, $t>>::f(!0, c & 0xff)
        }
        Bfe(a: $s, b: u32, c: u32) -> $s {
            // Its sign bit to the top, then down again.
            let (position, length) = (b & 0xff, c & 0xff);
            let top = (position + length).min($t::BITS);
            let up = a.wrapping_shl($t::BITS - top);
            let field = <Shr as Op2<$s, u32, $s>>::f(up, $t::BITS - top + position);
            if length == 0 { 0 } else { field }
        }
    })*};
}
counts!(u32 signed i32, u64 signed i64);

/// A register that `bfi` works on.
pub trait Field: Value {
    /// `b` with the low `length` bits of `a` from `position` on.
    fn insert(a: Self, b: Self, position: u32, length: u32) -> Self;
}
macro_rules! field {
    ($($t:ident),*) => {$(
        impl Field for $t {
            #[inline(always)]
            fn insert(a: $t, b: $t, position: u32, length: u32) -> $t {
                let (position, length) = (position & 0xff, length & 0xff);
                let shift = |v: $t, by: u32| <Shl as Op2<$t, u32, $t>>::f(v, by);
                let field = shift(!shift(!0, length), position);
                shift(a, position) & field | b & !field
            }
        }
    )*};
}
field!(u32, u64);

/// `slot[0] = bfi(slot[1], slot[2], slot[3], slot[4])`, the last two of 32 bits.
pub fn bfi<T: Field>(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<T: Field>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slots 0 to 2 are as wide as `T`, and slots 3 and 4 rows of 32 bits.
        unsafe {
            let (a, b) = (T::read(r, o.slot[1]), T::read(r, o.slot[2]));
            let (position, length) = (u32::read(r, o.slot[3]), u32::read(r, o.slot[4]));
            let mut d = [T::default(); 32];
            for l in 0..32 {
                d[l] = T::insert(a[l], b[l], position[l], length[l]);
            }
            T::write(r, o.slot[0], mask, d);
        }
    }
    levels!(level, [T: Field], body::<T>)
}

/// `shf`: 32 bits of the 64 whose low half is `a` and whose high half is `b`. `CLAMP` limits the count to 32, otherwise it
/// counts modulo 32.
pub struct ShfLeft<const CLAMP: bool>;
pub struct ShfRight<const CLAMP: bool>;

#[inline(always)]
fn funnel<const CLAMP: bool>(a: u32, b: u32, count: u32) -> (u64, u32) {
    (u64::from(b) << 32 | u64::from(a), if CLAMP { count.min(32) } else { count & 31 })
}
impl<const CLAMP: bool> Op3<u32, u32, u32, u32> for ShfLeft<CLAMP> {
    #[inline(always)]
    fn f(a: u32, b: u32, count: u32) -> u32 {
        let (both, n) = funnel::<CLAMP>(a, b, count);
        (both << n >> 32) as u32
    }
}
impl<const CLAMP: bool> Op3<u32, u32, u32, u32> for ShfRight<CLAMP> {
    #[inline(always)]
    fn f(a: u32, b: u32, count: u32) -> u32 {
        let (both, n) = funnel::<CLAMP>(a, b, count);
        (both >> n) as u32
    }
}

/// `bmsk`: `b` ones from bit `a` on.
pub struct Bmsk<const CLAMP: bool>;
impl<const CLAMP: bool> Op2<u32, u32, u32> for Bmsk<CLAMP> {
    #[inline(always)]
    fn f(a: u32, b: u32) -> u32 {
        let (a, b) = if CLAMP { (a.min(32), b.min(32)) } else { (a & 31, b & 31) };
        (((1u64 << b) - 1) << a) as u32
    }
}

/// `szext`: the low `b` bits of `a`, extended.
pub struct Szext<const CLAMP: bool>;
impl<const CLAMP: bool> Op2<u32, u32, u32> for Szext<CLAMP> {
    #[inline(always)]
    fn f(a: u32, b: u32) -> u32 {
        let n = if CLAMP { b.min(32) } else { b & 31 };
        a & ((1u64 << n) - 1) as u32
    }
}
impl<const CLAMP: bool> Op2<i32, u32, i32> for Szext<CLAMP> {
    #[inline(always)]
    fn f(a: i32, b: u32) -> i32 {
        let n = if CLAMP { b.min(32) } else { b & 31 };
        let up = a.wrapping_shl(32 - n);
        if n == 0 { 0 } else { up >> (32 - n) }
    }
}

/// `fns`: where the n-th set bit of a mask lies, counted up or down from a base bit; all ones if there is none.
pub struct Fns;
impl Op3<u32, u32, i32, u32> for Fns {
    #[inline(always)]
    fn f(set: u32, base: u32, offset: i32) -> u32 {
        if base > 31 {
            return !0;
        }
        let mut left = match offset {
            0 => set & 1 << base,
            1.. => set & !0 << base,
            _ => set & !0 >> (31 - base),
        };
        // Bits that come before the one looked for.
        for _ in 1..offset.unsigned_abs().clamp(1, 33) {
            left &= if offset > 0 {
                left.wrapping_sub(1)
            } else {
                !(1u32 << 31).checked_shr(left.leading_zeros()).unwrap_or(0)
            };
        }
        match (left, offset) {
            (0, _) => !0,
            (_, 0..) => left.trailing_zeros(),
            _ => 31 - left.leading_zeros(),
        }
    }
}

/// How `prmt` chooses bytes.
pub trait Permutation {
    /// The selector of byte `n` (bits 0 to 2: the byte; bit 3: its sign, eight times) by the control operand.
    fn selector(control: u32, n: u32) -> u32;
}
/// A nibble per byte.
pub struct Generic;
impl Permutation for Generic {
    #[inline(always)]
    fn selector(control: u32, n: u32) -> u32 {
        control >> (4 * n) & 15
    }
}
/// Four selectors for each value of the two low bits of the control operand; nibble `4 * value + n` is for byte `n`.
pub struct Table<const SELECTORS: u64>;
impl<const SELECTORS: u64> Permutation for Table<SELECTORS> {
    #[inline(always)]
    fn selector(control: u32, n: u32) -> u32 {
        (SELECTORS >> (16 * (control & 3) + 4 * n)) as u32 & 15
    }
}
pub type Forward = Table<0x6543_5432_4321_3210>;
pub type Backward = Table<0x0123_7012_6701_5670>;
pub type Replicate8 = Table<0x3333_2222_1111_0000>;
pub type EdgeLeft = Table<0x3333_3222_3211_3210>;
pub type EdgeRight = Table<0x3210_2210_1110_0000>;
pub type Replicate16 = Table<0x3232_1010_3232_1010>;

/// `prmt`: bytes of `b` (4 to 7) and `a` (0 to 3).
pub struct Prmt<P>(P);
impl<P: Permutation> Op3<u32, u32, u32, u32> for Prmt<P> {
    #[inline(always)]
    fn f(a: u32, b: u32, control: u32) -> u32 {
        let bytes = u64::from(b) << 32 | u64::from(a);
        let mut d = 0;
        for n in 0..4 {
            let s = P::selector(control, n);
            let byte = (bytes >> (8 * (s & 7))) as u32 & 0xff;
            let sign = (byte >> 7) * 0xff;
            d |= (if s & 8 == 0 { byte } else { sign }) << (8 * n);
        }
        d
    }
}
