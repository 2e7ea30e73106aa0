//! Extended-precision integer arithmetic (PTX ISA 9.7.2). The carry flag CC.CF of a warp is `Registers::predicates[0]`.

use crate::ops::shapes::levels;
use crate::registers::{Exec, Level, Operands, Registers, Value};

/// The predicate that holds the carry flag.
pub const CARRY: usize = 0;

/// An instruction that may read and write the carry: result and carry-out. A subtraction adds the complement, `a + !b + 1`: the flag
/// is set where it does not borrow, and one that takes a carry borrows where it is clear. So `sub.cc` then `addc`, or `add.cc` then
/// `subc`, give what a GPU gives.
pub trait Carry<T> {
    /// Row operands behind the destination.
    const SOURCES: usize;
    /// The carry of an instruction that takes none.
    const FIRST: bool = false;
    fn f(a: T, b: T, c: T, carry: bool) -> (T, bool);
}

pub struct Add;
pub struct Sub;
pub struct MadLo;
pub struct MadHi;

macro_rules! sum {
    ($t:ident, $a:expr, $b:expr, $carry:expr) => {{
        let (s, first) = $a.overflowing_add($b);
        let (s, second) = s.overflowing_add($t::from($carry));
        (s, first | second)
    }};
}

macro_rules! unsigned {
    ($($t:ident wide $wide:ident signed $signed:ident $wide_signed:ident),*) => {$(
        impl Carry<$t> for Add {
            const SOURCES: usize = 2;
            #[inline(always)]
            fn f(a: $t, b: $t, _: $t, carry: bool) -> ($t, bool) {
                sum!($t, a, b, carry)
            }
        }
        impl Carry<$t> for Sub {
            const SOURCES: usize = 2;
            const FIRST: bool = true;
            #[inline(always)]
            fn f(a: $t, b: $t, _: $t, carry: bool) -> ($t, bool) {
                sum!($t, a, !b, carry)
            }
        }
        impl Carry<$t> for MadLo {
            const SOURCES: usize = 3;
            #[inline(always)]
            fn f(a: $t, b: $t, c: $t, carry: bool) -> ($t, bool) {
                sum!($t, a.wrapping_mul(b), c, carry)
            }
        }
        impl Carry<$t> for MadHi {
            const SOURCES: usize = 3;
            #[inline(always)]
            fn f(a: $t, b: $t, c: $t, carry: bool) -> ($t, bool) {
                sum!($t, ((a as $wide * b as $wide) >> $t::BITS) as $t, c, carry)
            }
        }
        impl Carry<$signed> for MadHi {
            const SOURCES: usize = 3;
            #[inline(always)]
            fn f(a: $signed, b: $signed, c: $signed, carry: bool) -> ($signed, bool) {
                let high = ((a as $wide_signed * b as $wide_signed) >> $t::BITS) as $t;
                let (d, carry) = sum!($t, high, (c as $t), carry);
                (d as $signed, carry)
            }
        }
    )*};
}
unsigned!(u32 wide u64 signed i32 i64, u64 wide u128 signed i64 i128);

/// `slot[0] = F(slot[1], ..)`; `takes` adds the carry flag, `gives` (`.cc`) writes it.
pub fn carry<T: Value, F: Carry<T>>(takes: bool, gives: bool, level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<T: Value, F: Carry<T>, const TAKES: bool, const GIVES: bool>(
        r: &mut Registers,
        o: &Operands,
        mask: u32,
    ) {
        // SAFETY: [`Exec`] vouches that slots 0 to 2, and 3 where `F` has three sources, are as wide as `T`.
        unsafe {
            let (a, b) = (T::read(r, o.slot[1]), T::read(r, o.slot[2]));
            let c = if F::SOURCES == 3 { T::read(r, o.slot[3]) } else { [T::default(); 32] };
            let before = r.predicates[CARRY];
            let mut d = [T::default(); 32];
            let mut bit = [0u32; 32];
            for l in 0..32 {
                let (value, out) = F::f(a[l], b[l], c[l], if TAKES { before >> l & 1 == 1 } else { F::FIRST });
                d[l] = value;
                bit[l] = u32::from(out) << l;
            }
            T::write(r, o.slot[0], mask, d);
            if GIVES {
                let after = bit.iter().fold(0, |all, b| all | b);
                r.predicates[CARRY] = before & !mask | after & mask;
            }
        }
    }
    match (takes, gives) {
        (false, false) => levels!(level, [T: Value, F: Carry<T>], body::<T, F, false, false>),
        (false, true) => levels!(level, [T: Value, F: Carry<T>], body::<T, F, false, true>),
        (true, false) => levels!(level, [T: Value, F: Carry<T>], body::<T, F, true, false>),
        (true, true) => levels!(level, [T: Value, F: Carry<T>], body::<T, F, true, true>),
    }
}
