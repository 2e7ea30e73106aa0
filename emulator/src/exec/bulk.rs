//! `cp.async.bulk` from global to shared memory: one thread copies many bytes, which arrive at an mbarrier by their number.

use super::copies::Piece;
use super::cta::{Cta, Outcome};
use super::phases::{Arrives, Tracked};
use super::touch::{Touch, addresses, lanes};
use super::warp::Warp;
use super::{global, mbarrier, shared};
use crate::address::SHARED_FIRST;
use crate::check::clock::Write;
use crate::finding::Kind;
use crate::program::{BulkCopies, Ins};
use crate::registers::Value;

/// Addresses of both are multiples of this, and so is the size.
const UNIT: usize = 16;

pub fn copy(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &BulkCopies, mask: u32) -> Outcome {
    let slot = ins.operands.slot;
    let to = addresses(&warp.registers, slot[0], &memory.addressing(0));
    let from = addresses(&warp.registers, slot[1], &memory.addressing(1));
    // SAFETY: slot 3 of a compiled bulk copy is a row of its warp.
    let sizes = unsafe { u32::read(&warp.registers, slot[3]) };
    let at = mbarrier::objects(warp, cta, ins, (slot[2], &memory.addressing(2), false), mask)?;
    for l in lanes(mask) {
        let bytes = sizes[l] as usize;
        if !bytes.is_multiple_of(UNIT) {
            let what = format!("cp.async.bulk of {bytes} bytes, expected a multiple of {UNIT}");
            return Err(warp.finding(cta, ins, Kind::Misaligned, l, what));
        }
        mbarrier::usable(warp, cta, ins, at[l], l)?;
        let lane = 1 << l;
        let mut pieces = Vec::new();
        if bytes > 0 {
            let unit = Touch { ins, mask: lane, at: &to, bytes: UNIT, access: "cp.async.bulk" };
            shared::inside(warp, cta, &unit)?;
            let offset = (to[l] - SHARED_FIRST) as usize;
            if bytes > cta.shape.shared_bytes - offset {
                let what = format!(
                    "cp.async.bulk of {bytes} bytes at offset {offset} of {} bytes of shared memory",
                    cta.shape.shared_bytes
                );
                let mut f = warp.finding(cta, ins, Kind::OutOfBounds, l, what);
                f.address = Some(to[l]);
                return Err(f);
            }
            let whole = Touch { bytes, at: &from, ..unit };
            let (view, _) = global::find(warp, cta, &Touch { at: &from, ..unit })?;
            if cta.shape.views[view].end - from[l] < bytes as u64 {
                return Err(global::outside(warp, cta, &whole, l));
            }
            global::count(cta, &whole);
            if cta.shape.checks {
                global::check_read(warp, cta, &whole, view)?;
                let Cta { shared_shadow, clock, .. } = cta;
                let write = Write { at: offset, bytes, me: warp.who(l), pc: ins.pc };
                if let Err(c) = shared_shadow.start_copy(clock, write) {
                    let access = format!("cp.async.bulk of {bytes} bytes");
                    return Err(shared::locate(warp.conflict(cta, ins, l, &access, c), c));
                }
            }
            let source = cta.shape.views[view].data(from[l]).cast_const();
            let (to, bytes) = (offset as u32, sizes[l]);
            pieces.push(Piece { group: 0, to, from: source, bytes, taken: bytes });
        }
        let released = cta.shape.checks.then(|| cta.clock.arrive(warp.number));
        let how = Arrives::Bytes(i64::from(sizes[l]));
        cta.tracked.push(Tracked { at: at[l], warp: warp.number, lane: l, pc: ins.pc, released, pieces, how });
        cta.waits.changes += 1;
    }
    Ok(())
}
