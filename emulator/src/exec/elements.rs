//! Elements between memory and the rows of registers.

use super::{Warp, lanes};
use crate::program::Ins;
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
/// For the lanes of `mask`, `count * width` bytes at their place may be read.
#[inline(always)]
pub(super) unsafe fn fill_rows(warp: &mut Warp, ins: &Ins, mask: u32, from: Place) {
    let r = &mut warp.registers;
    for n in 0..ins.count as usize {
        let slot = ins.operands.slot[1 + n];
        let skip = n * ins.width as usize;
        unsafe {
            if ins.width == 4 && !ins.wide {
                // The common case, without the choice of a width per lane.
                let to = &mut r.rows.get_unchecked_mut(slot as usize).0;
                if mask == ALL {
                    for (l, to) in to.iter_mut().enumerate() {
                        *to = from.lane(l).add(skip).cast::<u32>().read_unaligned();
                    }
                } else {
                    for l in lanes(mask) {
                        to[l] = from.lane(l).add(skip).cast::<u32>().read_unaligned();
                    }
                }
            } else {
                let mut v = [0u64; 32];
                for l in lanes(mask) {
                    v[l] = extend(get(from.lane(l).add(skip), ins.width), ins.width, ins.signed);
                }
                write_elements(r, slot, mask, ins.wide, &v);
            }
        }
    }
}

#[inline(always)]
pub(super) unsafe fn write_elements(r: &mut Registers, slot: u16, mask: u32, wide: bool, v: &[u64; 32]) {
    unsafe {
        if wide {
            u64::write(r, slot, mask, *v);
        } else {
            u32::write(r, slot, mask, std::array::from_fn(|l| v[l] as u32));
        }
    }
}

#[inline(always)]
pub(super) unsafe fn read_elements(r: &Registers, slot: u16, wide: bool) -> [u64; 32] {
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
/// For the lanes of `mask`, `count * width` bytes at their place may be written.
#[inline(always)]
pub(super) unsafe fn empty_rows(warp: &Warp, ins: &Ins, mask: u32, to: Place) {
    for n in 0..ins.count as usize {
        let slot = ins.operands.slot[1 + n];
        let skip = n * ins.width as usize;
        unsafe {
            if ins.width == 4 && !ins.wide {
                let v = &warp.registers.rows.get_unchecked(slot as usize).0;
                for l in lanes(mask) {
                    to.lane(l).add(skip).cast::<u32>().write_unaligned(v[l]);
                }
            } else {
                let v = read_elements(&warp.registers, slot, ins.wide);
                for l in lanes(mask) {
                    put(to.lane(l).add(skip), ins.width, v[l]);
                }
            }
        }
    }
}

/// Whether what lane `l` stores changes nothing: memory holds it already, or every lower lane that stores to the same place stores
/// the same.
///
/// # Safety
/// The bytes of lane `l` may be read.
pub(super) unsafe fn stores_nothing_new(warp: &Warp, ins: &Ins, mask: u32, to: Place, l: usize) -> bool {
    unsafe { already_there(warp, ins, l, to.lane(l)) || repeated(warp, ins, mask, to.at, l) }
}

/// Whether the bytes at `at` already are what lane `l` writes there.
unsafe fn already_there(warp: &Warp, ins: &Ins, l: usize, at: *const u8) -> bool {
    (0..ins.count as usize).all(|n| unsafe {
        let v = read_elements(&warp.registers, ins.operands.slot[1 + n], ins.wide)[l];
        let cut = if ins.width == 8 { v } else { v & ((1 << (8 * ins.width)) - 1) };
        get(at.add(n * ins.width as usize), ins.width) == cut
    })
}

/// Whether there are lower lanes with the same address, and all write the same value.
unsafe fn repeated(warp: &Warp, ins: &Ins, mask: u32, a: &[u64; 32], l: usize) -> bool {
    let others: Vec<usize> = lanes(mask).filter(|&m| m < l && a[m] == a[l]).collect();
    !others.is_empty()
        && others.iter().all(|&m| {
            (0..ins.count as usize).all(|n| unsafe {
                let v = read_elements(&warp.registers, ins.operands.slot[1 + n], ins.wide);
                v[m] == v[l]
            })
        })
}
