//! Member masks and predicates of the instructions of a warp.

use crate::registers::{NO_PREDICATE, Operands, Registers, Value};

/// The lanes that each lane sees: those of `mask` that its member mask names.
///
/// # Safety
/// `slot` is a row of `r`.
#[inline(always)]
pub(super) unsafe fn seen(r: &Registers, slot: u16, mask: u32) -> [u32; 32] {
    // SAFETY: the caller names a row of `r`.
    unsafe { u32::read(r, slot) }.map(|members| members & mask)
}

/// Writes the lanes of `mask` of a predicate, where there is one.
///
/// # Safety
/// `slot` is a predicate of `r` or missing.
#[inline(always)]
pub(super) unsafe fn write_predicate(r: &mut Registers, slot: u16, mask: u32, value: u32) {
    if slot != NO_PREDICATE {
        // SAFETY: the caller names a predicate of `r`, and it is not missing.
        let p = unsafe { r.predicates.get_unchecked_mut(slot as usize) };
        *p = *p & !mask | value & mask;
    }
}

/// The only source predicate, which is `o.predicate[n]`.
///
/// # Safety
/// The slot is a predicate of `r`.
#[inline(always)]
pub(super) unsafe fn read_predicate(r: &Registers, o: &Operands, n: usize) -> u32 {
    // SAFETY: the caller vouches that predicate `n` is one of `r`.
    let value = unsafe { *r.predicates.get_unchecked(o.predicate[n] as usize) };
    if o.negated & 1 == 1 { !value } else { value }
}

/// Bit `l` is `f(l)`.
#[inline(always)]
pub(super) fn bits(f: impl Fn(usize) -> bool) -> u32 {
    (0..32).fold(0, |bits, l| bits | u32::from(f(l)) << l)
}
