//! Elements between memory and the rows of registers.

use super::touch::{Touch, lanes};
use super::warp::Warp;
use crate::program::Elements;
use crate::registers::{ALL, Registers, Value};

/// Where the bytes of each lane lie in host memory: `origin + at[lane]`.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub origin: *mut u8,
    pub at: &'a [u64; 32],
}

impl Place<'_> {
    #[inline(always)]
    pub fn lane(&self, l: usize) -> *mut u8 {
        self.origin.wrapping_add(self.at[l] as usize)
    }
}

/// Extends an element read from memory to the register it goes to.
#[inline(always)]
fn extend(bits: u64, width: u8, signed: bool) -> u64 {
    if !signed {
        return bits;
    }
    let unused = 64 - 8 * u32::from(width);
    ((bits << unused) as i64 >> unused) as u64
}

/// One element at `p`.
///
/// # Safety
/// `width` bytes at `p` may be read.
#[inline(always)]
pub(super) unsafe fn get(p: *const u8, width: u8) -> u64 {
    // SAFETY: the caller's promise; each arm reads `width` bytes.
    unsafe {
        match width {
            1 => u64::from(*p),
            2 => u64::from(p.cast::<u16>().read_unaligned()),
            4 => u64::from(p.cast::<u32>().read_unaligned()),
            _ => p.cast::<u64>().read_unaligned(),
        }
    }
}

/// # Safety
/// `width` bytes at `p` may be written.
#[inline(always)]
pub(super) unsafe fn put(p: *mut u8, width: u8, bits: u64) {
    // SAFETY: the caller's promise; each arm writes `width` bytes.
    unsafe {
        match width {
            1 => *p = bits as u8,
            2 => p.cast::<u16>().write_unaligned(bits as u16),
            4 => p.cast::<u32>().write_unaligned(bits as u32),
            _ => p.cast::<u64>().write_unaligned(bits),
        }
    }
}

/// Reads the elements of an instruction into its rows, which follow the address.
///
/// # Safety
/// For the lanes of the mask, `memory.bytes()` bytes at their place may be read.
#[inline(always)]
pub(super) unsafe fn fill_rows(warp: &mut Warp, memory: &Elements, t: &Touch, from: Place) {
    let r = &mut warp.registers;
    for n in 0..memory.count as usize {
        let slot = t.ins.operands.slot[1 + n];
        let skip = n * memory.width as usize;
        if memory.width == 4 && !memory.wide {
            // The common case, without the choice of a width per lane.
            // SAFETY: the slots behind the address are rows of the warp.
            let to = unsafe { &mut r.rows.get_unchecked_mut(slot as usize).0 };
            if t.mask == ALL {
                for (l, to) in to.iter_mut().enumerate() {
                    // SAFETY: the caller's promise, for every lane; element `n` lies within the bytes.
                    *to = unsafe { from.lane(l).add(skip).cast::<u32>().read_unaligned() };
                }
            } else {
                for l in lanes(t.mask) {
                    // SAFETY: the caller's promise; element `n` lies within the bytes.
                    to[l] = unsafe { from.lane(l).add(skip).cast::<u32>().read_unaligned() };
                }
            }
        } else {
            let mut v = [0u64; 32];
            for l in lanes(t.mask) {
                // SAFETY: the caller's promise; element `n` lies within the bytes.
                v[l] = extend(unsafe { get(from.lane(l).add(skip), memory.width) }, memory.width, memory.signed);
            }
            // SAFETY: the slots behind the address are rows of the warp, of the width that `wide` says.
            unsafe { write_elements(r, slot, t.mask, memory.wide, &v) };
        }
    }
}

/// The same where all lanes read from one place.
///
/// # Safety
/// `memory.bytes()` bytes at `from` may be read.
#[inline(always)]
pub(super) unsafe fn fill_rows_alike(warp: &mut Warp, memory: &Elements, t: &Touch, from: *const u8) {
    for n in 0..memory.count as usize {
        // SAFETY: the caller's promise; element `n` lies within the bytes.
        let bits = unsafe { get(from.add(n * memory.width as usize), memory.width) };
        let v = [extend(bits, memory.width, memory.signed); 32];
        // SAFETY: the slots behind the address are rows of the warp, of the width that `wide` says.
        unsafe { write_elements(&mut warp.registers, t.ins.operands.slot[1 + n], t.mask, memory.wide, &v) };
    }
}

/// # Safety
/// `slot` is a row of `r`, of 64 bits where `wide`.
#[inline(always)]
pub(super) unsafe fn write_elements(r: &mut Registers, slot: u16, mask: u32, wide: bool, v: &[u64; 32]) {
    // SAFETY: the caller's promise.
    unsafe {
        if wide {
            u64::write(r, slot, mask, *v);
        } else {
            u32::write(r, slot, mask, std::array::from_fn(|l| v[l] as u32));
        }
    }
}

/// # Safety
/// As for [`write_elements`].
#[inline(always)]
pub(super) unsafe fn read_elements(r: &Registers, slot: u16, wide: bool) -> [u64; 32] {
    // SAFETY: the caller's promise.
    unsafe {
        if wide {
            u64::read(r, slot)
        } else {
            let narrow = u32::read(r, slot);
            std::array::from_fn(|l| u64::from(narrow[l]))
        }
    }
}

/// Writes the elements of an instruction to their places.
///
/// # Safety
/// For the lanes of the mask, `memory.bytes()` bytes at their place may be written.
#[inline(always)]
pub(super) unsafe fn empty_rows(warp: &Warp, memory: &Elements, t: &Touch, to: Place) {
    for n in 0..memory.count as usize {
        let slot = t.ins.operands.slot[1 + n];
        let skip = n * memory.width as usize;
        if memory.width == 4 && !memory.wide {
            // SAFETY: the slots behind the address are rows of the warp.
            let v = unsafe { &warp.registers.rows.get_unchecked(slot as usize).0 };
            for l in lanes(t.mask) {
                // SAFETY: the caller's promise; element `n` lies within the bytes.
                unsafe { to.lane(l).add(skip).cast::<u32>().write_unaligned(v[l]) };
            }
        } else {
            // SAFETY: the slots behind the address are rows of the warp, of the width that `wide` says.
            let v = unsafe { read_elements(&warp.registers, slot, memory.wide) };
            for l in lanes(t.mask) {
                // SAFETY: the caller's promise; element `n` lies within the bytes.
                unsafe { put(to.lane(l).add(skip), memory.width, v[l]) };
            }
        }
    }
}

/// Whether what lane `l` stores changes nothing: memory holds it already, or every lower lane that stores to the same place stores
/// the same.
///
/// # Safety
/// The bytes of lane `l` may be read.
pub(super) unsafe fn stores_nothing_new(warp: &Warp, memory: &Elements, t: &Touch, to: Place, l: usize) -> bool {
    // SAFETY: the caller's promise.
    unsafe { already_there(warp, memory, t, l, to.lane(l)) || repeated(warp, memory, t, l) }
}

/// Whether the bytes at `at` already are what lane `l` writes there.
///
/// # Safety
/// They may be read.
unsafe fn already_there(warp: &Warp, memory: &Elements, t: &Touch, l: usize, at: *const u8) -> bool {
    let width = memory.width;
    (0..memory.count as usize).all(|n| {
        // SAFETY: the slots behind the address are rows of the warp, of the width that `wide` says.
        let v = unsafe { read_elements(&warp.registers, t.ins.operands.slot[1 + n], memory.wide)[l] };
        let cut = if width == 8 { v } else { v & ((1 << (8 * width)) - 1) };
        // SAFETY: the caller's promise.
        unsafe { get(at.add(n * width as usize), width) == cut }
    })
}

/// Whether there are lower lanes with the same address, and all write the same value.
fn repeated(warp: &Warp, memory: &Elements, t: &Touch, l: usize) -> bool {
    let others: Vec<usize> = lanes(t.mask).filter(|&m| m < l && t.at[m] == t.at[l]).collect();
    !others.is_empty()
        && others.iter().all(|&m| {
            (0..memory.count as usize).all(|n| {
                // SAFETY: the slots behind the address are rows of the warp, of the width that `wide` says.
                let v = unsafe { read_elements(&warp.registers, t.ins.operands.slot[1 + n], memory.wide) };
                v[m] == v[l]
            })
        })
}
