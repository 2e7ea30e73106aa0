//! `cp.async`: copies from global to shared memory that land as late as the rules allow, when the wait that covers them
//! executes.

use std::collections::VecDeque;

use super::{Access, Cta, Outcome, Warp, addresses, global, lanes, shared, versions};
use crate::address::SHARED_FIRST;
use crate::finding::Kind;
use crate::program::Ins;
use crate::registers::{Level, NO_PREDICATE, Value};

/// The copies of one instruction that share a group.
struct Batch {
    /// The group they belong to, counted per lane from the start of the block.
    group: u32,
    mask: u32,
    /// Bytes written in shared memory, and of these the bytes that come from global memory; the rest is zero.
    bytes: u8,
    taken: [u8; 32],
    to: [u32; 32],
    from: [*const u8; 32],
}

// SAFETY: the pointers lead to device memory, which lives as long as the launch.
unsafe impl Send for Batch {}

/// Copies of one warp that are under way.
#[derive(Default)]
pub struct Copies {
    batches: VecDeque<Batch>,
    spare: Vec<Batch>,
    /// Groups that each lane has committed.
    committed: [u32; 32],
}

impl Copies {
    pub fn clear(&mut self) {
        self.spare.extend(self.batches.drain(..));
        self.committed = [0; 32];
    }
}

/// Rows of `cp.async`: shared address in slot 0, global address in slot 1, source size in slot 2 where there is one.
/// `ins.width` is the copy size, `ins.count` 2 where slot 2 holds a size; predicate 0 says "write zeros" where there is one.
pub fn copy(level: Level) -> Access {
    versions!(level, copy_body)
}

#[inline(always)]
fn copy_body(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let bytes = usize::from(ins.width);
    // The offset belongs to the shared address; the global one has its own in `extra`.
    let to = addresses(&warp.registers, ins.operands.slot[0], &Ins { wide_address: ins.wide, ..*ins });
    let offset = i64::from(ins.operands.extra as i32);
    let source = Ins { wide_address: true, operands: crate::registers::Operands { offset, ..ins.operands }, ..*ins };
    let from = addresses(&warp.registers, ins.operands.slot[1], &source);
    let mut taken = [bytes as u8; 32];
    if ins.count == 2 {
        // SAFETY: compiled instructions name rows of their warp.
        let sizes = unsafe { u32::read(&warp.registers, ins.operands.slot[2]) };
        for l in lanes(mask) {
            if sizes[l] as usize > bytes {
                let what = format!("cp.async of {bytes} bytes with a source size of {}", sizes[l]);
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
    shared::inside(warp, cta, ins, mask, &to, bytes, "cp.async")?;
    shared::count(cta, ins, mask, &to, bytes);

    let mut reading = 0u32;
    for l in lanes(mask) {
        reading |= u32::from(taken[l] > 0) << l;
    }
    global::count(cta, ins, reading, &from, bytes as u64);
    let mut pointers = [std::ptr::null::<u8>(); 32];
    let mut left = reading;
    while left != 0 {
        // A source cut short by its size must lie within the buffer only that far.
        let first = left.trailing_zeros() as usize;
        let size = taken[first];
        let mut alike = 0u32;
        for l in lanes(left) {
            alike |= u32::from(taken[l] == size) << l;
        }
        if from[first] & (bytes as u64 - 1) != 0 {
            let what = format!("cp.async of {bytes} bytes from an address not aligned to {bytes}");
            let mut f = warp.finding(cta, ins, Kind::Misaligned, first, what);
            f.address = Some(from[first]);
            return Err(f);
        }
        let unit = if size.is_power_of_two() { u64::from(size) } else { 1 };
        let (view, group) = global::find(warp, cta, ins, alike, &from, unit, "cp.async")?;
        if cta.shape.checks {
            global::check_read(warp, cta, ins, group, &from, usize::from(size), view)?;
        }
        for l in lanes(group) {
            pointers[l] = cta.shape.views[view].data(from[l]).cast_const();
        }
        left &= !group;
    }
    if cta.shape.checks {
        let mut failed = None;
        let Cta { shared_shadow, clock, .. } = cta;
        for l in lanes(mask) {
            let at = (to[l] - SHARED_FIRST) as usize;
            if let Err(c) = shared_shadow.start_copy(clock, at, bytes, warp.who(l), ins.pc) {
                failed = Some((l, c));
                break;
            }
        }
        if let Some((l, c)) = failed {
            return Err(shared::report(warp, cta, ins, l, &format!("cp.async of {bytes} bytes"), c));
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
        let mut batch = copies.spare.pop().unwrap_or(Batch {
            group,
            mask: 0,
            bytes: 0,
            taken: [0; 32],
            to: [0; 32],
            from: [std::ptr::null(); 32],
        });
        batch.group = group;
        batch.mask = alike;
        batch.bytes = bytes as u8;
        batch.taken = taken;
        batch.to = std::array::from_fn(|l| to[l].wrapping_sub(SHARED_FIRST) as u32);
        batch.from = pointers;
        copies.batches.push_back(batch);
        left &= !alike;
    }
    Ok(())
}

/// `cp.async.commit_group`
pub fn commit(warp: &mut Warp, _: &mut Cta, _: &Ins, mask: u32) -> Outcome {
    for l in lanes(mask) {
        warp.copies.committed[l] += 1;
    }
    Ok(())
}

/// `cp.async.wait_group n`: all but the last n groups have landed.
pub fn wait_group(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let pending = ins.operands.extra;
    let until = warp.copies.committed.map(|c| c.saturating_sub(pending));
    land(warp, cta, mask, &until);
    Ok(())
}

/// `cp.async.wait_all`: everything has landed, committed or not.
pub fn wait_all(warp: &mut Warp, cta: &mut Cta, _: &Ins, mask: u32) -> Outcome {
    land(warp, cta, mask, &[u32::MAX; 32]);
    Ok(())
}

/// Lands the copies of groups below `until` for the lanes of a mask.
fn land(warp: &mut Warp, cta: &mut Cta, mask: u32, until: &[u32; 32]) {
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
            // SAFETY: both ranges were checked when the copy started, and the memory lives as long as the launch.
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
                cta.shared_shadow.end_copy(&cta.clock, batch.to[l] as usize, bytes);
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
}

/// At the end of a block: whether a copy is still under way, and one of its lanes.
pub fn under_way(warp: &Warp) -> Option<usize> {
    warp.copies.batches.front().map(|b| b.mask.trailing_zeros() as usize)
}
