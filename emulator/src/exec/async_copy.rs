//! `cp.async`: copies from global to shared memory that land as late as the rules allow, when the wait that covers them
//! executes.

use super::copies::Batch;
use super::cta::{Cta, Outcome};
use super::touch::{Touch, addresses, lanes, versions};
use super::warp::Warp;
use super::{global, mbarrier, shared};
use crate::address::SHARED_FIRST;
use crate::finding::{Finding, Kind};
use crate::program::{Copies, CopyGroups, Ins, Run};
use crate::registers::{Level, NO_PREDICATE, Value};

/// `cp.async`
pub fn copy(level: Level) -> Run<Copies> {
    versions!(level, Copies, copy_body)
}

#[inline(always)]
fn copy_body(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Copies, mask: u32) -> Outcome {
    let bytes = usize::from(memory.bytes);
    let to = addresses(&warp.registers, ins.operands.slot[0], &memory.to);
    let from = addresses(&warp.registers, ins.operands.slot[1], &memory.from);
    let taken = taken(warp, cta, ins, memory, mask)?;
    let into = Touch { ins, mask, at: &to, bytes, access: "cp.async" };
    shared::inside(warp, cta, &into)?;
    shared::count(cta, &into);

    let mut reading = 0u32;
    for l in lanes(mask) {
        reading |= u32::from(taken[l] > 0) << l;
    }
    let pointers = sources(warp, cta, &Touch { mask: reading, at: &from, ..into }, &taken)?;
    if cta.shape.checks {
        let mut failed = None;
        let Cta { shared_shadow, clock, .. } = cta;
        for l in lanes(mask) {
            let at = (to[l] - SHARED_FIRST) as usize;
            if let Err(c) = shared_shadow.start_copy(clock, into.write(at, warp.who(l))) {
                failed = Some((l, c));
                break;
            }
        }
        if let Some((l, c)) = failed {
            return Err(shared::locate(warp.conflict(cta, ins, l, &format!("cp.async of {bytes} bytes"), c), c));
        }
    }

    let copies = &mut warp.copies;
    let mut left = mask;
    while left != 0 {
        let group = copies.committed[left.trailing_zeros() as usize];
        let mut alike = 0u32;
        for l in 0..32 {
            alike |= u32::from(copies.committed[l] == group) << l;
        }
        alike &= left;
        let fresh = || Batch { group, mask: 0, bytes: 0, taken: [0; 32], to: [0; 32], from: [std::ptr::null(); 32] };
        let mut batch = copies.spare.pop().unwrap_or_else(|| Box::new(fresh()));
        batch.group = group;
        batch.mask = alike;
        batch.bytes = memory.bytes;
        batch.taken = taken;
        for (into, to) in batch.to.iter_mut().zip(&to) {
            *into = to.wrapping_sub(SHARED_FIRST) as u32;
        }
        batch.from = pointers;
        copies.batches.push_back(batch);
        left &= !alike;
    }
    Ok(())
}

/// How many bytes each lane takes from its source; the rest is zero.
#[inline(always)]
fn taken(warp: &Warp, cta: &Cta, ins: &Ins, memory: &Copies, mask: u32) -> Result<[u8; 32], Box<Finding>> {
    let mut taken = [memory.bytes; 32];
    if memory.sized {
        // SAFETY: slot 2 of a compiled copy with a size is a row of its warp.
        let sizes = unsafe { u32::read(&warp.registers, ins.operands.slot[2]) };
        for l in lanes(mask) {
            if sizes[l] > u32::from(memory.bytes) {
                let what = format!("cp.async of {} bytes with a source size of {}", memory.bytes, sizes[l]);
                return Err(warp.finding(cta, ins, Kind::OutOfBounds, l, what));
            }
            taken[l] = sizes[l] as u8;
        }
    }
    if ins.operands.predicate[0] != NO_PREDICATE {
        let mut ignored = warp.registers.predicates[ins.operands.predicate[0] as usize];
        if ins.operands.negated & 1 == 1 {
            ignored = !ignored;
        }
        for (l, t) in taken.iter_mut().enumerate() {
            *t = if ignored >> l & 1 == 1 { 0 } else { *t };
        }
    }
    Ok(taken)
}

/// Where the bytes of each lane come from.
#[inline(always)]
fn sources(warp: &Warp, cta: &mut Cta, t: &Touch, taken: &[u8; 32]) -> Result<[*const u8; 32], Box<Finding>> {
    global::count(cta, t);
    let mut pointers = [std::ptr::null::<u8>(); 32];
    let mut left = t.mask;
    while left != 0 {
        // A source cut short by its size must lie within the buffer only that far.
        let first = left.trailing_zeros() as usize;
        let size = taken[first];
        let mut alike = 0u32;
        for l in lanes(left) {
            alike |= u32::from(taken[l] == size) << l;
        }
        if t.at[first] & (t.size() - 1) != 0 {
            let what = format!("cp.async of {} bytes from an address not aligned to {}", t.bytes, t.bytes);
            let mut f = warp.finding(cta, t.ins, Kind::Misaligned, first, what);
            f.address = Some(t.at[first]);
            return Err(f);
        }
        let unit = if size.is_power_of_two() { usize::from(size) } else { 1 };
        let (view, group) = global::find(warp, cta, &Touch { mask: alike, bytes: unit, ..*t })?;
        if cta.shape.checks {
            global::check_read(warp, cta, &Touch { mask: group, bytes: usize::from(size), ..*t }, view)?;
        }
        for l in lanes(group) {
            pointers[l] = cta.shape.views[view].data(t.at[l]).cast_const();
        }
        left &= !group;
    }
    Ok(pointers)
}

/// `cp.async.commit_group`, and the waits: all but the last groups have landed, or everything, committed or not.
pub fn groups(warp: &mut Warp, cta: &mut Cta, _: &Ins, memory: &CopyGroups, mask: u32) -> Outcome {
    match *memory {
        CopyGroups::Commit => {
            for l in lanes(mask) {
                warp.copies.committed[l] += 1;
            }
        }
        CopyGroups::Wait(pending) => {
            let until = warp.copies.committed.map(|c| c.saturating_sub(pending));
            land(warp, cta, mask, &until)?;
        }
        CopyGroups::WaitAll => land(warp, cta, mask, &[u32::MAX; 32])?,
    }
    Ok(())
}

/// Lands the copies of groups below `until` for the lanes of a mask.
fn land(warp: &mut Warp, cta: &mut Cta, mask: u32, until: &[u32; 32]) -> Outcome {
    if !cta.tracked.is_empty() {
        mbarrier::waited(warp, cta, mask, until)?;
    }
    let base = cta.shared();
    let copies = &mut warp.copies;
    let most = *until.iter().max().unwrap_or(&0);
    let mut i = 0;
    while i < copies.batches.len() {
        let batch = &mut copies.batches[i];
        if batch.group >= most {
            // Later batches belong to no earlier group unless lanes have diverged; those are few.
            i += 1;
            continue;
        }
        let mut now = 0u32;
        for l in lanes(batch.mask & mask) {
            now |= u32::from(batch.group < until[l]) << l;
        }
        for l in lanes(now) {
            let to = base.wrapping_add(batch.to[l] as usize);
            let (bytes, taken) = (usize::from(batch.bytes), usize::from(batch.taken[l]));
            // SAFETY: `copy_body` has checked `bytes` bytes of shared and `taken` of device memory, which outlive the launch.
            unsafe {
                if taken == 16 {
                    to.cast::<[u8; 16]>().write_unaligned(batch.from[l].cast::<[u8; 16]>().read_unaligned());
                } else {
                    to.write_bytes(0, bytes);
                    if taken > 0 {
                        to.copy_from_nonoverlapping(batch.from[l], taken);
                    }
                }
            }
            if cta.shape.checks {
                cta.shared_shadow.end_copy(cta.clock.now, batch.to[l] as usize, bytes);
            }
        }
        batch.mask &= !now;
        if batch.mask == 0 {
            if let Some(done) = copies.batches.remove(i) {
                copies.spare.push(done);
            }
        } else {
            i += 1;
        }
    }
    Ok(())
}
