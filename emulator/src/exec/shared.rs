//! Shared memory: bounds, races, initialisation and bank conflicts.

use super::elements::{Place, empty_rows, fill_rows, stores_nothing_new};
use super::{Access, Cta, Outcome, Warp, lanes, with_addresses};
use crate::address::SHARED_FIRST;
use crate::check::conflict::Conflict;
use crate::finding::{Finding, Kind};
use crate::program::Ins;
use crate::registers::Level;

/// `ld.shared`
pub fn load(level: Level) -> Access {
    with_addresses!(level, load_from)
}

/// `st.shared`
pub fn store(level: Level) -> Access {
    with_addresses!(level, store_to)
}

/// Places by addresses of shared space.
#[inline(always)]
fn place<'a>(cta: &Cta, at: &'a [u64; 32]) -> Place<'a> {
    Place { origin: cta.shared().wrapping_sub(SHARED_FIRST as usize), at }
}

/// Addresses are those of shared space.
#[inline(always)]
pub(super) fn load_from(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32]) -> Outcome {
    let bytes = usize::from(ins.width) * usize::from(ins.count);
    inside(warp, cta, ins, mask, a, bytes, "read")?;
    count(cta, ins, mask, a, bytes);
    if cta.shape.checks {
        for l in lanes(mask) {
            check_read(warp, cta, ins, l, (a[l] - SHARED_FIRST) as usize, bytes)?;
        }
    }
    // SAFETY: `inside` has checked the lanes of the mask.
    unsafe { fill_rows(warp, ins, mask, place(cta, a)) };
    Ok(())
}

#[inline(always)]
pub(super) fn store_to(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32]) -> Outcome {
    let bytes = usize::from(ins.width) * usize::from(ins.count);
    inside(warp, cta, ins, mask, a, bytes, "write")?;
    count(cta, ins, mask, a, bytes);
    let to = place(cta, a);
    if cta.shape.checks {
        let mut failed = None;
        {
            let Cta { shared_shadow, clock, .. } = cta;
            for l in lanes(mask) {
                // SAFETY: `inside` has checked the lanes of the mask.
                let same = || unsafe { stores_nothing_new(warp, ins, mask, to, l) };
                let offset = (a[l] - SHARED_FIRST) as usize;
                if let Err(c) = shared_shadow.write(clock, offset, bytes, warp.who(l), ins.pc, same) {
                    failed = Some((l, c));
                    break;
                }
            }
        }
        if let Some((l, c)) = failed {
            return Err(report(warp, cta, ins, l, &format!("write of {bytes} bytes"), c));
        }
    }
    // SAFETY: as above.
    unsafe { empty_rows(warp, ins, mask, to) };
    Ok(())
}

#[inline(always)]
pub(super) fn check_read(warp: &Warp, cta: &mut Cta, ins: &Ins, l: usize, at: usize, bytes: usize) -> Outcome {
    let Cta { shared_shadow, clock, .. } = cta;
    match shared_shadow.read(clock, at, bytes, warp.who(l)) {
        Ok(()) => Ok(()),
        Err(c) => Err(report(warp, cta, ins, l, &format!("read of {bytes} bytes"), c)),
    }
}

#[cold]
pub(super) fn report(warp: &Warp, cta: &Cta, ins: &Ins, l: usize, access: &str, c: Conflict) -> Box<Finding> {
    let mut f = warp.conflict(cta, ins, l, access, c);
    f.address = Some(SHARED_FIRST + c.at as u64);
    f
}

/// All lanes of the mask lie aligned within the block's shared memory.
#[inline(always)]
pub(super) fn inside(
    warp: &Warp,
    cta: &Cta,
    ins: &Ins,
    mask: u32,
    a: &[u64; 32],
    bytes: usize,
    access: &str,
) -> Outcome {
    // Lanes that take no part stand where the first one stands: then the loop has no branch.
    let first = a[mask.trailing_zeros() as usize];
    let (mut bits, mut farthest) = (0u64, 0u64);
    #[allow(clippy::needless_range_loop)] // a mask beside the addresses
    for l in 0..32 {
        let at = if mask >> l & 1 == 1 { a[l] } else { first };
        bits |= at;
        farthest = farthest.max(at.wrapping_sub(SHARED_FIRST));
    }
    let (bytes_of_all, n) = (cta.shape.shared_bytes as u64, bytes as u64);
    if bits & (n - 1) == 0 && bytes_of_all >= n && farthest <= bytes_of_all - n {
        return Ok(());
    }
    Err(outside(warp, cta, ins, mask, a, bytes, access))
}

#[cold]
fn outside(warp: &Warp, cta: &Cta, ins: &Ins, mask: u32, a: &[u64; 32], bytes: usize, access: &str) -> Box<Finding> {
    let (size, n) = (cta.shape.shared_bytes, bytes as u64);
    let end = SHARED_FIRST + size as u64;
    let wrong = |&l: &usize| a[l] < SHARED_FIRST || a[l].wrapping_add(n) > end || a[l] & (n - 1) != 0;
    let l = lanes(mask).find(wrong).unwrap_or(0);
    let (kind, what) = if a[l] & (bytes as u64 - 1) != 0 {
        (Kind::Misaligned, format!("{access} of {bytes} bytes of shared memory, not aligned to {bytes}"))
    } else {
        let at = a[l].wrapping_sub(SHARED_FIRST) as i64;
        (Kind::OutOfBounds, format!("{access} of {bytes} bytes at offset {at} of {size} bytes of shared memory"))
    };
    let mut f = warp.finding(cta, ins, kind, l, what);
    f.address = Some(a[l]);
    f
}

/// Counts how often the instruction must go to memory: 32 banks of 4 bytes, one word each a turn; a warp's 8-byte accesses go
/// half a warp at a time, 16-byte accesses a quarter.
#[inline(always)]
pub(super) fn count(cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32], bytes: usize) {
    if cta.shape.counters {
        count_turns(cta, ins, mask, a, bytes);
    }
}

fn count_turns(cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32], bytes: usize) {
    let at_a_time = 32 / (bytes / 4).max(1);
    let (mut turns, mut ideal) = (0u64, 0u64);
    for first in (0..32).step_by(at_a_time) {
        let group: Vec<usize> = (first..first + at_a_time).filter(|&l| mask >> l & 1 == 1).collect();
        if group.is_empty() {
            continue;
        }
        let mut words: Vec<u64> =
            group.iter().flat_map(|&l| (a[l] / 4..=(a[l] + bytes as u64 - 1) / 4).collect::<Vec<u64>>()).collect();
        words.sort_unstable();
        words.dedup();
        let mut banks = [0u64; 32];
        for w in words {
            banks[(w % 32) as usize] += 1;
        }
        turns += banks.into_iter().max().unwrap_or(1);
        ideal += 1;
    }
    cta.counts.shared(ins.pc, turns, turns - ideal);
}
