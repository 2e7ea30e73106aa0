//! `atom` and `red`: lane after lane, in ascending order; blocks of such a kernel run one after another, so that results do not
//! depend on timing.

use super::cta::{Cta, Outcome};
use super::elements::{get, put, read_elements, write_elements};
use super::strong::Kinds;
use super::touch::{Touch, addresses, lanes};
use super::warp::Warp;
use super::{global, shared};
use crate::address::{SHARED, SHARED_FIRST, WINDOW};
use crate::ops::atomic::apply;
use crate::program::{Atomic, Ins};

/// `.global`
pub fn global(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Atomic, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], &memory.addressing);
    global_at(warp, cta, memory, &touch(ins, memory, mask, &a))
}

/// `.shared`
pub fn shared(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Atomic, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], &memory.addressing);
    shared_at(warp, cta, memory, &touch(ins, memory, mask, &a))
}

/// Without a state space.
pub fn generic(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Atomic, mask: u32) -> Outcome {
    let mut a = addresses(&warp.registers, ins.operands.slot[0], &memory.addressing);
    let mut inside = 0u32;
    for l in lanes(mask) {
        if a[l] >= SHARED && a[l] < SHARED + WINDOW {
            a[l] -= SHARED;
            inside |= 1 << l;
        }
    }
    let t = touch(ins, memory, mask, &a);
    if inside != 0 {
        shared_at(warp, cta, memory, &t.of(inside))?;
    }
    if mask & !inside != 0 {
        global_at(warp, cta, memory, &t.of(mask & !inside))?;
    }
    Ok(())
}

fn touch<'a>(ins: &'a Ins, memory: &Atomic, mask: u32, at: &'a [u64; 32]) -> Touch<'a> {
    Touch { ins, mask, at, bytes: usize::from(memory.width), access: "atomic" }
}

fn global_at(warp: &mut Warp, cta: &mut Cta, memory: &Atomic, t: &Touch) -> Outcome {
    global::count(cta, t);
    let mut pointers = [std::ptr::null_mut::<u8>(); 32];
    let mut left = t.mask;
    while left != 0 {
        let (view, group) = global::find(warp, cta, &t.of(left))?;
        let v = cta.shape.views[view];
        if cta.shape.checks {
            global::strong(warp, cta, &t.of(group), view, Kinds { order: memory.order, reads: true, writes: true })?;
        }
        for l in lanes(group) {
            pointers[l] = v.data(t.at[l]);
        }
        left &= !group;
    }
    // SAFETY: each pointer of the mask leads to an element that `find` has checked.
    unsafe { exchange(warp, memory, t, &pointers, true) };
    Ok(())
}

fn shared_at(warp: &mut Warp, cta: &mut Cta, memory: &Atomic, t: &Touch) -> Outcome {
    shared::inside(warp, cta, t)?;
    shared::count(cta, t);
    if cta.shape.checks {
        shared::strong(warp, cta, t, Kinds { order: memory.order, reads: true, writes: true })?;
    }
    let base = cta.shared();
    let pointers = std::array::from_fn(|l| base.wrapping_add(t.at[l].wrapping_sub(SHARED_FIRST) as usize));
    // SAFETY: `inside` has checked the elements of the mask.
    unsafe { exchange(warp, memory, t, &pointers, false) };
    Ok(())
}

/// # Safety
/// For the lanes of the mask, `memory.width` bytes at their pointer may be read and written.
unsafe fn exchange(warp: &mut Warp, memory: &Atomic, t: &Touch, at: &[*mut u8; 32], global: bool) {
    let Atomic { kind, width, wide, .. } = *memory;
    let slot = t.ins.operands.slot;
    let cut = if width == 8 { u64::MAX } else { (1 << (8 * width)) - 1 };
    let mut before = [0u64; 32];
    // SAFETY: slots 2 and 3 of a compiled atomic are rows of its warp as wide as the element.
    let (b, c) =
        unsafe { (read_elements(&warp.registers, slot[2], wide), read_elements(&warp.registers, slot[3], wide)) };
    for l in lanes(t.mask) {
        // SAFETY: the caller's promise.
        unsafe {
            let old = get(at[l], width);
            before[l] = old;
            put(at[l], width, apply(kind, old, b[l] & cut, c[l] & cut, width, global));
        }
    }
    // SAFETY: slot 1 is such a row as well, or the sink that nobody reads.
    unsafe { write_elements(&mut warp.registers, slot[1], t.mask, wide, &before) };
}
