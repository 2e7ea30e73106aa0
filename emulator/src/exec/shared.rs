//! Shared memory: bounds, races, initialisation and bank conflicts.

use super::cta::{Cta, Outcome};
use super::elements::{Place, empty_rows, fill_rows, stores_nothing_new};
use super::strong::{Kinds, is_strong};
use super::touch::{Touch, lanes, with_addresses};
use super::warp::Warp;
use crate::address::SHARED_FIRST;
use crate::check::conflict::Conflict;
use crate::check::order::Memory;
use crate::finding::{Finding, Kind};
use crate::program::{Elements, Ins, Run};
use crate::registers::Level;

/// `ld.shared`
pub fn load(level: Level) -> Run<Elements> {
    with_addresses!(level, "read", load_from)
}

/// `st.shared`
pub fn store(level: Level) -> Run<Elements> {
    with_addresses!(level, "write", store_to)
}

/// Places by addresses of shared space.
#[inline(always)]
fn place<'a>(cta: &Cta, at: &'a [u64; 32]) -> Place<'a> {
    Place { origin: cta.shared().wrapping_sub(SHARED_FIRST as usize), at }
}

/// Addresses are those of shared space.
#[inline(always)]
pub(super) fn load_from(warp: &mut Warp, cta: &mut Cta, memory: &Elements, t: &Touch) -> Outcome {
    inside(warp, cta, t)?;
    count(cta, t);
    if cta.shape.checks {
        if is_strong(cta, memory) {
            strong(warp, cta, t, Kinds::load(memory))?;
        } else {
            check_reads(warp, cta, t)?;
        }
    }
    // SAFETY: `inside` has checked the lanes of the mask.
    unsafe { fill_rows(warp, memory, t, place(cta, t.at)) };
    Ok(())
}

#[inline(always)]
pub(super) fn store_to(warp: &mut Warp, cta: &mut Cta, memory: &Elements, t: &Touch) -> Outcome {
    inside(warp, cta, t)?;
    count(cta, t);
    let to = place(cta, t.at);
    if cta.shape.checks && is_strong(cta, memory) {
        strong(warp, cta, t, Kinds::store(memory))?;
    } else if cta.shape.checks {
        let mut failed = None;
        {
            let Cta { shared_shadow, clock, .. } = cta;
            for l in lanes(t.mask) {
                // SAFETY: `inside` has checked the lanes of the mask.
                let same = || unsafe { stores_nothing_new(warp, memory, t, to, l) };
                let offset = (t.at[l] - SHARED_FIRST) as usize;
                if let Err(c) = shared_shadow.write(clock, t.write(offset, warp.who(l)), same) {
                    failed = Some((l, c));
                    break;
                }
            }
        }
        if let Some((l, c)) = failed {
            return Err(locate(warp.conflict(cta, t.ins, l, &format!("write of {} bytes", t.bytes), c), c));
        }
    }
    // SAFETY: `inside` has checked the lanes of the mask.
    unsafe { empty_rows(warp, memory, t, to) };
    Ok(())
}

/// Checks the reads of all lanes.
#[inline(always)]
pub(super) fn check_reads(warp: &Warp, cta: &mut Cta, t: &Touch) -> Outcome {
    let mut failed = None;
    {
        let Cta { shared_shadow, clock, .. } = cta;
        let ordering = clock.is_ordering();
        for l in lanes(t.mask) {
            let (at, me) = ((t.at[l] - SHARED_FIRST) as usize, warp.who(l));
            let read = match ordering {
                true => shared_shadow.read_ordered(clock, at, t.bytes, me),
                false => shared_shadow.read(clock, at, t.bytes, me),
            };
            if let Err(c) = read {
                failed = Some((l, c));
                break;
            }
        }
    }
    match failed {
        None => Ok(()),
        Some((l, c)) => Err(locate(warp.conflict(cta, t.ins, l, &format!("read of {} bytes", t.bytes), c), c)),
    }
}

/// Checks strong accesses, and lets them synchronise.
#[cold]
pub(super) fn strong(warp: &Warp, cta: &mut Cta, t: &Touch, kinds: Kinds) -> Outcome {
    let mut failed = None;
    {
        let Cta { shared_shadow, clock, .. } = cta;
        for l in lanes(t.mask) {
            let (at, me) = ((t.at[l] - SHARED_FIRST) as usize, warp.who(l));
            let released = clock.released(Memory::Shared, t.at[l], kinds.order.scope);
            if let Err(c) = shared_shadow.strong(clock, at, t.bytes, &kinds.of_lane(t, me, released)) {
                failed = Some((l, c));
                break;
            }
            clock.strong(Memory::Shared, t.at[l], me, &kinds.order, kinds.reads, kinds.writes);
        }
    }
    let Some((l, c)) = failed else { return Ok(()) };
    let access = match t.access {
        "atomic" => format!("atomic on {} bytes", t.bytes),
        access => format!("{access} of {} bytes", t.bytes),
    };
    Err(locate(warp.conflict(cta, t.ins, l, &access, c), c))
}

/// Adds where a conflict is.
pub(super) fn locate(mut f: Box<Finding>, c: Conflict) -> Box<Finding> {
    f.address = Some(SHARED_FIRST + c.at as u64);
    f
}

/// All lanes of the mask lie aligned within the block's shared memory.
#[inline(always)]
pub(super) fn inside(warp: &Warp, cta: &Cta, t: &Touch) -> Outcome {
    // Lanes that take no part stand where the first one stands: then the loop has no branch.
    let first = t.at[t.mask.trailing_zeros() as usize];
    let (mut bits, mut farthest) = (0u64, 0u64);
    #[allow(clippy::needless_range_loop)] // a mask beside the addresses
    for l in 0..32 {
        let at = if t.mask >> l & 1 == 1 { t.at[l] } else { first };
        bits |= at;
        farthest = farthest.max(at.wrapping_sub(SHARED_FIRST));
    }
    let (bytes_of_all, n) = (cta.shape.shared_bytes as u64, t.size());
    if bits & (n - 1) == 0 && bytes_of_all >= n && farthest <= bytes_of_all - n {
        return Ok(());
    }
    Err(outside(warp, cta, t))
}

#[cold]
fn outside(warp: &Warp, cta: &Cta, t: &Touch) -> Box<Finding> {
    let (a, access, bytes, size) = (t.at, t.access, t.bytes, cta.shape.shared_bytes);
    let end = SHARED_FIRST + size as u64;
    let wrong = |&l: &usize| a[l] < SHARED_FIRST || a[l].wrapping_add(t.size()) > end || a[l] & (t.size() - 1) != 0;
    let l = lanes(t.mask).find(wrong).unwrap_or(0);
    let (kind, what) = if a[l] & (t.size() - 1) != 0 {
        (Kind::Misaligned, format!("{access} of {bytes} bytes of shared memory, not aligned to {bytes}"))
    } else {
        let at = a[l].wrapping_sub(SHARED_FIRST) as i64;
        (Kind::OutOfBounds, format!("{access} of {bytes} bytes at offset {at} of {size} bytes of shared memory"))
    };
    let mut f = warp.finding(cta, t.ins, kind, l, what);
    f.address = Some(a[l]);
    f
}

/// Counts how often the instruction must go to memory: 32 banks of 4 bytes, one word each a turn; a warp's 8-byte accesses go
/// half a warp at a time, 16-byte accesses a quarter.
#[inline(always)]
pub(super) fn count(cta: &mut Cta, t: &Touch) {
    if cta.shape.counters {
        count_turns(cta, t);
    }
}

fn count_turns(cta: &mut Cta, t: &Touch) {
    let at_a_time = 32 / (t.bytes / 4).max(1);
    let (mut turns, mut ideal) = (0u64, 0u64);
    for first in (0..32).step_by(at_a_time) {
        let group: Vec<usize> = (first..first + at_a_time).filter(|&l| t.mask >> l & 1 == 1).collect();
        if group.is_empty() {
            continue;
        }
        let words_of = |l: usize| t.at[l] / 4..=(t.at[l] + t.size() - 1) / 4;
        let mut words: Vec<u64> = group.iter().flat_map(|&l| words_of(l).collect::<Vec<u64>>()).collect();
        words.sort_unstable();
        words.dedup();
        let mut banks = [0u64; 32];
        for w in words {
            banks[(w % 32) as usize] += 1;
        }
        turns += banks.into_iter().max().unwrap_or(1);
        ideal += 1;
    }
    cta.counts.shared(t.ins.pc, turns, turns - ideal);
}
