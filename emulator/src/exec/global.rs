//! Global memory: finds the buffer behind each address, checks, and moves the elements.

use std::ops::Range;

use super::cta::{Cta, Outcome};
use super::elements::{Place, empty_rows, fill_rows, stores_nothing_new};
use super::strong::{Kinds, is_strong};
use super::touch::{Touch, addresses, lanes, with_addresses};
use super::warp::Warp;
use super::{private, shared};
use crate::address;
use crate::check::global::GlobalShadow;
use crate::check::order::Memory;
use crate::finding::{BufferName, Finding, Kind};
use crate::memory::{View, explain};
use crate::ops::Class;
use crate::program::{Elements, Ins, Run};
use crate::registers::Level;

/// `ld.global`
pub fn load(level: Level) -> Run<Elements> {
    with_addresses!(level, "read", load_from)
}

/// `st.global`
pub fn store(level: Level) -> Run<Elements> {
    with_addresses!(level, "write", store_to)
}

#[inline(always)]
pub(super) fn load_from(warp: &mut Warp, cta: &mut Cta, memory: &Elements, t: &Touch) -> Outcome {
    count(cta, t);
    let mut left = t.mask;
    while left != 0 {
        let (view, group) = find(warp, cta, &t.of(left))?;
        if cta.shape.checks {
            if is_strong(cta, memory) {
                strong(warp, cta, &t.of(group), view, Kinds::load(memory))?;
            } else {
                check_read(warp, cta, &t.of(group), view)?;
            }
        }
        // SAFETY: `find` has checked that these lanes lie within the view.
        unsafe { fill_rows(warp, memory, &t.of(group), place(&cta.shape.views[view], t.at)) };
        left &= !group;
    }
    Ok(())
}

#[inline(always)]
pub(super) fn store_to(warp: &mut Warp, cta: &mut Cta, memory: &Elements, t: &Touch) -> Outcome {
    count(cta, t);
    let mut left = t.mask;
    while left != 0 {
        let (view, group) = find(warp, cta, &t.of(left))?;
        if cta.shape.checks {
            if is_strong(cta, memory) {
                strong(warp, cta, &t.of(group), view, Kinds::store(memory))?;
            } else {
                check_write(warp, cta, memory, &t.of(group), view)?;
            }
        }
        // SAFETY: `find` has checked that these lanes lie within the view.
        unsafe { empty_rows(warp, memory, &t.of(group), place(&cta.shape.views[view], t.at)) };
        left &= !group;
    }
    Ok(())
}

/// Checks the strong accesses of lanes that lie in one view, and lets them synchronise.
#[cold]
pub(super) fn strong(warp: &Warp, cta: &mut Cta, t: &Touch, view: usize, kinds: Kinds) -> Outcome {
    shadow(cta, view);
    let v = &cta.shape.views[view];
    let mut failed = None;
    {
        let Cta { global_shadows, clock, .. } = cta;
        let shadow = global_shadows[view].as_mut().expect("just made");
        shadow.prepare(clock, t.bytes.min(16), extent(t, v.base), kinds.writes);
        for l in lanes(t.mask) {
            let (at, me) = ((t.at[l] - v.base) as usize, warp.who(l));
            // SAFETY: `find` has checked that the lanes lie within the view; with checks, views know what was written.
            if kinds.reads && unsafe { !v.all_written(at, t.bytes) } {
                failed = Some((l, None));
                break;
            }
            let released = clock.released(Memory::Global, t.at[l], kinds.order.scope);
            if let Err(c) = shadow.strong(clock, at, t.bytes, &kinds.of_lane(t, me, released)) {
                failed = Some((l, Some(c)));
                break;
            }
            clock.strong(Memory::Global, t.at[l], me, &kinds.order, kinds.reads, kinds.writes);
            if kinds.writes {
                // SAFETY: as above.
                unsafe { v.mark_written(at, t.bytes) };
            }
        }
    }
    let Some((l, conflict)) = failed else { return Ok(()) };
    let access = match t.access {
        "atomic" => format!("atomic on {} bytes", t.bytes),
        access => format!("{access} of {} bytes", t.bytes),
    };
    let mut f = match conflict {
        Some(c) => warp.conflict(cta, t.ins, l, &access, c),
        None => warp.finding(cta, t.ins, Kind::UninitializedGlobal, l, format!("{access} that nothing wrote")),
    };
    locate(&mut f, t.at[l], v.name());
    Err(f)
}

/// Places by device addresses.
#[inline(always)]
fn place<'a>(view: &View, at: &'a [u64; 32]) -> Place<'a> {
    Place { origin: view.data(view.base).wrapping_sub(view.base as usize), at }
}

/// The view that the first lane lies in, and the lanes that lie in the same.
#[inline(always)]
pub(super) fn find(warp: &Warp, cta: &mut Cta, t: &Touch) -> Result<(usize, u32), Box<Finding>> {
    let cached = cta.last_view[t.ins.pc as usize] as usize;
    match cta.shape.views.get(cached) {
        Some(view) if all_within(view, t) => Ok((cached, t.mask)),
        _ => find_again(warp, cta, t),
    }
}

/// Whether the accesses of all these lanes are aligned and lie within the view.
#[inline(always)]
fn all_within(view: &View, t: &Touch) -> bool {
    // Lanes that take no part stand where the first one stands: then the loop has no branch.
    let first = t.at[t.mask.trailing_zeros() as usize];
    let (mut bits, mut farthest) = (0u64, 0u64);
    #[allow(clippy::needless_range_loop)] // a mask beside the addresses
    for l in 0..32 {
        let at = if t.mask >> l & 1 == 1 { t.at[l] } else { first };
        bits |= at;
        farthest = farthest.max(at.wrapping_sub(view.base));
    }
    let size = view.end - view.base;
    bits & (t.size() - 1) == 0 && size >= t.size() && farthest <= size - t.size()
}

/// [`find`] where the lanes lie in several views, in another one than last time, or wrong.
#[inline(never)]
fn find_again(warp: &Warp, cta: &mut Cta, t: &Touch) -> Result<(usize, u32), Box<Finding>> {
    if lanes(t.mask).any(|l| t.at[l] & (t.size() - 1) != 0) {
        return Err(wrong_alignment(warp, cta, t));
    }
    let within = |view: &View| {
        let inside = |l: &usize| t.at[*l] >= view.base && t.at[*l] < view.end && view.end - t.at[*l] >= t.size();
        lanes(t.mask).filter(inside).fold(0u32, |group, l| group | 1 << l)
    };
    let views = cta.shape.views;
    let lane = t.mask.trailing_zeros() as usize;
    let at = views.partition_point(|v| v.base <= t.at[lane]).wrapping_sub(1);
    match views.get(at).map(within) {
        Some(group) if group >> lane & 1 == 1 => {
            cta.last_view[t.ins.pc as usize] = at as u32;
            Ok((at, group))
        }
        _ => Err(outside(warp, cta, t, lane)),
    }
}

#[cold]
fn wrong_alignment(warp: &Warp, cta: &Cta, t: &Touch) -> Box<Finding> {
    let (n, access) = (t.bytes, t.access);
    let lane = lanes(t.mask).find(|&l| t.at[l] & (t.size() - 1) != 0).unwrap_or(0);
    let what = format!("{access} of {n} bytes, not aligned to {n}");
    let mut f = warp.finding(cta, t.ins, Kind::Misaligned, lane, what);
    f.address = Some(t.at[lane]);
    f.buffer = cta.shape.views.iter().find(|v| v.base <= t.at[lane] && t.at[lane] < v.end).map(View::name);
    f
}

#[cold]
pub(super) fn outside(warp: &Warp, cta: &Cta, t: &Touch, lane: usize) -> Box<Finding> {
    let (kind, what, buffer) = explain(cta.shape.views, t.at[lane], t.size(), t.access);
    let mut f = warp.finding(cta, t.ins, kind, lane, what);
    f.address = Some(t.at[lane]);
    f.buffer = buffer;
    f
}

/// The shadow of a view, taken out of what earlier launches left.
#[inline(always)]
fn shadow(cta: &mut Cta, view: usize) {
    if cta.global_shadows[view].is_none() {
        let v = &cta.shape.views[view];
        let kept = cta.kept.remove(&v.number);
        let fresh = || GlobalShadow::new((v.end - v.base) as usize);
        cta.global_shadows[view] = Some(kept.unwrap_or_else(fresh));
    }
}

/// First and last byte that the lanes touch, as offsets into the view at `base`.
#[inline(always)]
fn extent(t: &Touch, base: u64) -> Range<usize> {
    let (mut lo, mut hi) = (u64::MAX, 0);
    for l in lanes(t.mask) {
        lo = lo.min(t.at[l]);
        hi = hi.max(t.at[l]);
    }
    (lo - base) as usize..(hi - base) as usize + t.bytes
}

#[inline(always)]
pub(super) fn check_read(warp: &Warp, cta: &mut Cta, t: &Touch, view: usize) -> Outcome {
    shadow(cta, view);
    let v = &cta.shape.views[view];
    let mut failed = None;
    {
        let Cta { global_shadows, clock, .. } = cta;
        let shadow = global_shadows[view].as_mut().expect("just made");
        shadow.prepare(clock, t.bytes.min(16), extent(t, v.base), false);
        let ordering = clock.is_ordering();
        for l in lanes(t.mask) {
            let at = (t.at[l] - v.base) as usize;
            // SAFETY: `find` has checked that the lanes lie within the view; with checks, views know what was written.
            if unsafe { !v.all_written(at, t.bytes) } {
                failed = Some((l, None));
                break;
            }
            let read = match ordering {
                true => shadow.read_ordered(clock, at, t.bytes, warp.who(l)),
                false => shadow.read(clock, at, t.bytes, warp.who(l)),
            };
            if let Err(c) = read {
                failed = Some((l, Some(c)));
                break;
            }
        }
    }
    match failed {
        None => Ok(()),
        Some((l, conflict)) => {
            let access = format!("read of {} bytes", t.bytes);
            let mut f = match conflict {
                Some(c) => warp.conflict(cta, t.ins, l, &access, c),
                None => {
                    let what = format!("{access} that nothing wrote");
                    warp.finding(cta, t.ins, Kind::UninitializedGlobal, l, what)
                }
            };
            locate(&mut f, t.at[l], v.name());
            Err(f)
        }
    }
}

#[inline(always)]
fn check_write(warp: &Warp, cta: &mut Cta, memory: &Elements, t: &Touch, view: usize) -> Outcome {
    shadow(cta, view);
    let v = &cta.shape.views[view];
    let mut failed = None;
    {
        let Cta { global_shadows, clock, .. } = cta;
        let shadow = global_shadows[view].as_mut().expect("just made");
        shadow.prepare(clock, t.bytes.min(16), extent(t, v.base), true);
        // Lanes before this one have not stored yet: two lanes of one store are compared by what they store.
        for l in lanes(t.mask) {
            let at = (t.at[l] - v.base) as usize;
            // SAFETY: `find` has checked that the lanes lie within the view.
            let same = || unsafe { stores_nothing_new(warp, memory, t, place(v, t.at), l) };
            if let Err(c) = shadow.write(clock, t.write(at, warp.who(l)), same) {
                failed = Some((l, c));
                break;
            }
            // SAFETY: `find` has checked that the lane lies within the view, which with checks knows what was written.
            unsafe { v.mark_written(at, t.bytes) };
        }
    }
    match failed {
        None => Ok(()),
        Some((l, c)) => {
            let mut f = warp.conflict(cta, t.ins, l, &format!("write of {} bytes", t.bytes), c);
            locate(&mut f, t.at[l], v.name());
            Err(f)
        }
    }
}

pub(super) fn locate(f: &mut Finding, at: u64, buffer: BufferName) {
    f.address = Some(at);
    f.buffer = Some(buffer);
}

/// Counts bytes and 32-byte sectors, and marks what is touched.
#[inline(always)]
pub(super) fn count(cta: &mut Cta, t: &Touch) {
    if cta.shape.counters {
        count_sectors(cta, t);
    }
}

fn count_sectors(cta: &mut Cta, t: &Touch) {
    let mut sectors: Vec<u64> =
        lanes(t.mask).flat_map(|l| (t.at[l] / 32..=(t.at[l] + t.size() - 1) / 32).collect::<Vec<u64>>()).collect();
    sectors.sort_unstable();
    sectors.dedup();
    cta.counts.global(t.ins.pc, u64::from(t.mask.count_ones()) * t.size(), sectors.len() as u64);
    for l in lanes(t.mask) {
        cta.counts.touched(cta.shape.views, (t.at[l], t.size()), t.ins.class == Class::GlobalStore);
    }
}

/// What the lanes of one window do.
type At = fn(&mut Warp, &mut Cta, &Elements, &Touch) -> Outcome;

/// `ld` without a state space: each lane goes where its address lies.
pub fn load_generic(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Elements, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], &memory.addressing);
    load_anywhere(warp, cta, memory, &Touch { ins, mask, at: &a, bytes: memory.bytes(), access: "read" })
}

/// `st` without a state space.
pub fn store_generic(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Elements, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], &memory.addressing);
    store_anywhere(warp, cta, memory, &Touch { ins, mask, at: &a, bytes: memory.bytes(), access: "write" })
}

/// Addresses are generic.
pub(super) fn load_anywhere(warp: &mut Warp, cta: &mut Cta, memory: &Elements, t: &Touch) -> Outcome {
    each_window(warp, cta, memory, t, [load_from, shared::load_from, private::load_local, private::load_param])
}

pub(super) fn store_anywhere(warp: &mut Warp, cta: &mut Cta, memory: &Elements, t: &Touch) -> Outcome {
    each_window(warp, cta, memory, t, [store_to, shared::store_to, private::store_local, private::store_param])
}

fn each_window(warp: &mut Warp, cta: &mut Cta, memory: &Elements, t: &Touch, to: [At; 4]) -> Outcome {
    let (a, groups) = windows(t);
    let t = Touch { at: &a, ..*t };
    groups
        .into_iter()
        .zip(to)
        .filter(|(group, _)| *group != 0)
        .try_for_each(|(group, run)| run(warp, cta, memory, &t.of(group)))
}

/// Divides the lanes over the windows: global, shared, local, parameters; their addresses become those of the window.
fn windows(t: &Touch) -> ([u64; 32], [u32; 4]) {
    let mut a = *t.at;
    let mut groups = [0u32; 4];
    for l in lanes(t.mask) {
        let window = |first: u64| a[l] >= first && a[l] < first + address::WINDOW;
        let n = if window(address::SHARED) {
            a[l] -= address::SHARED;
            1
        } else if window(address::LOCAL) {
            a[l] -= address::LOCAL;
            2
        } else if window(address::PARAM) {
            3
        } else {
            0
        };
        groups[n] |= 1 << l;
    }
    (a, groups)
}
