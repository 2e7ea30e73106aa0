//! What the lanes of a warp agree on: votes, matches, reductions, elections (PTX ISA 9.0, 9.7.13.7 to 9.7.13.14).

use super::members::{bits, read_predicate, seen, write_predicate};
use crate::ops::shapes::levels;
use crate::registers::{Exec, Level, Operands, Registers, Value};

/// What is asked of the lanes in `of`, of which those in `yes` have a true predicate.
pub(super) trait Question {
    fn holds(yes: u32, of: u32) -> bool;
}

pub(super) struct All;
pub(super) struct Any;
/// All have the same predicate.
pub(super) struct Uniform;

impl Question for All {
    #[inline(always)]
    fn holds(yes: u32, of: u32) -> bool {
        yes & of == of
    }
}

impl Question for Any {
    #[inline(always)]
    fn holds(yes: u32, of: u32) -> bool {
        yes & of != 0
    }
}

impl Question for Uniform {
    #[inline(always)]
    fn holds(yes: u32, of: u32) -> bool {
        yes & of == of || yes & of == 0
    }
}

pub(super) fn vote(kind: &str, sync: bool, level: Level) -> Option<Exec> {
    Some(match kind {
        "all" => ask::<All>(sync, level),
        "any" => ask::<Any>(sync, level),
        "uni" => ask::<Uniform>(sync, level),
        _ => return None,
    })
}

/// Predicates p, a; row: members, unless all active lanes vote.
fn ask<Q: Question>(sync: bool, level: Level) -> Exec {
    #[inline(always)]
    unsafe fn among<Q: Question>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 0 holds the members, and predicates 0 and 1 are destination and source.
        unsafe {
            let (yes, of) = (read_predicate(r, o, 1), seen(r, o.slot[0], mask));
            write_predicate(r, o.predicate[0], mask, bits(|l| Q::holds(yes, of[l])));
        }
    }
    #[inline(always)]
    unsafe fn active<Q: Question>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that predicates 0 and 1 are destination and source.
        unsafe {
            let holds = Q::holds(read_predicate(r, o, 1), mask);
            write_predicate(r, o.predicate[0], mask, if holds { !0 } else { 0 });
        }
    }
    match sync {
        true => levels!(level, [Q: Question], among::<Q>),
        false => levels!(level, [Q: Question], active::<Q>),
    }
}

/// Rows d and, unless all active lanes vote, members; predicate a.
pub(super) fn ballot(sync: bool, level: Level) -> Exec {
    #[inline(always)]
    unsafe fn among(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 0 is a row, slot 1 holds the members, and predicate 0 is the source.
        unsafe {
            let yes = read_predicate(r, o, 0);
            let d = seen(r, o.slot[1], mask).map(|of| yes & of);
            u32::write(r, o.slot[0], mask, d);
        }
    }
    #[inline(always)]
    unsafe fn active(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 0 is a row, and predicate 0 the source.
        unsafe {
            let yes = read_predicate(r, o, 0) & mask;
            u32::write(r, o.slot[0], mask, [yes; 32]);
        }
    }
    match sync {
        true => levels!(level, [], among),
        false => levels!(level, [], active),
    }
}

/// Rows d, a, members: the lanes with the same value.
pub(super) fn match_any<A: Comparable>(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<A: Comparable>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 0 is a row, slot 1 as wide as `A`, and slot 2 holds the members.
        unsafe {
            let (a, of) = (A::read(r, o.slot[1]), seen(r, o.slot[2], mask));
            let d = std::array::from_fn(|l| bits(|other| a[other] == a[l]) & of[l]);
            u32::write(r, o.slot[0], mask, d);
        }
    }
    levels!(level, [A: Comparable], body::<A>)
}

/// Rows d, a, members; predicate p: the members if all have the same value, or else 0.
pub(super) fn match_all<A: Comparable>(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<A: Comparable>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 0 is a row, slot 1 as wide as `A`, slot 2 holds the members, and predicate 0 may be missing.
        unsafe {
            let (a, of) = (A::read(r, o.slot[1]), seen(r, o.slot[2], mask));
            let same: [bool; 32] = std::array::from_fn(|l| bits(|other| a[other] == a[l]) & of[l] == of[l]);
            u32::write(r, o.slot[0], mask, std::array::from_fn(|l| if same[l] { of[l] } else { 0 }));
            write_predicate(r, o.predicate[0], mask, bits(|l| same[l]));
        }
    }
    levels!(level, [A: Comparable], body::<A>)
}

/// Combines the values of two lanes.
pub(super) trait Combine {
    fn combine(a: u32, b: u32) -> u32;
}

macro_rules! combine {
    ($($name:ident: |$a:ident, $b:ident| $f:expr;)*) => {$(
        pub(super) struct $name;
        impl Combine for $name {
            #[inline(always)]
            fn combine($a: u32, $b: u32) -> u32 {
                $f
            }
        }
    )*};
}

combine! {
    Add: |a, b| a.wrapping_add(b);
    MinUnsigned: |a, b| a.min(b);
    MaxUnsigned: |a, b| a.max(b);
    MinSigned: |a, b| (a as i32).min(b as i32) as u32;
    MaxSigned: |a, b| (a as i32).max(b as i32) as u32;
    And: |a, b| a & b;
    Or: |a, b| a | b;
    Xor: |a, b| a ^ b;
}

pub(super) fn reduce(operation: &str, ty: &str, level: Level) -> Option<Exec> {
    Some(match (operation, ty) {
        ("add", "u32" | "s32") => combine::<Add>(level),
        ("min", "u32") => combine::<MinUnsigned>(level),
        ("max", "u32") => combine::<MaxUnsigned>(level),
        ("min", "s32") => combine::<MinSigned>(level),
        ("max", "s32") => combine::<MaxSigned>(level),
        ("and", "b32") => combine::<And>(level),
        ("or", "b32") => combine::<Or>(level),
        ("xor", "b32") => combine::<Xor>(level),
        _ => return None,
    })
}

/// Rows d, a, members.
fn combine<C: Combine>(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body<C: Combine>(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slots 0 and 1 are rows of 32 bits, and slot 2 holds the members.
        unsafe {
            let (a, of) = (u32::read(r, o.slot[1]), seen(r, o.slot[2], mask));
            let total = |of: u32| {
                let lanes = (0..32).filter(|&l| of >> l & 1 == 1);
                lanes.map(|l| a[l]).reduce(C::combine).unwrap_or(0)
            };
            // Almost always all lanes name the same members.
            let (mut members, mut sum) = (0, 0);
            let d = of.map(|of| {
                if of != members {
                    (members, sum) = (of, total(of));
                }
                sum
            });
            u32::write(r, o.slot[0], mask, d);
        }
    }
    levels!(level, [C: Combine], body::<C>)
}

/// Rows d, members; predicate p: the lowest lane leads, and d is its number.
pub(super) fn elect(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 0 is a row, slot 1 holds the members, and predicate 0 may be missing.
        unsafe {
            let leader = seen(r, o.slot[1], mask).map(|of| of.trailing_zeros());
            u32::write(r, o.slot[0], mask, leader);
            write_predicate(r, o.predicate[0], mask, bits(|l| leader[l] == l as u32));
        }
    }
    levels!(level, [], body)
}

/// Row d: the lanes that take part.
pub(super) fn active_mask(level: Level) -> Exec {
    #[inline(always)]
    unsafe fn body(r: &mut Registers, o: &Operands, mask: u32) {
        // SAFETY: [`Exec`] vouches that slot 0 is a row of 32 bits.
        unsafe { u32::write(r, o.slot[0], mask, [mask; 32]) };
    }
    levels!(level, [], body)
}

/// For `levels!`, which takes one bound.
pub(super) trait Comparable: Value + PartialEq {}
impl<A: Value + PartialEq> Comparable for A {}
