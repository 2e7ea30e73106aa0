//! Global memory: finds the buffer behind each address, checks, and moves the elements.

use super::elements::{Place, empty_rows, fill_rows, stores_nothing_new};
use super::{Access, Cta, Outcome, Warp, addresses, lanes, with_addresses};
use crate::address;
use crate::finding::{BufferName, Finding, Kind};
use crate::memory::{View, explain};
use crate::program::Ins;
use crate::registers::Level;

/// `ld.global`
pub fn load(level: Level) -> Access {
    with_addresses!(level, load_from)
}

/// `st.global`
pub fn store(level: Level) -> Access {
    with_addresses!(level, store_to)
}

#[inline(always)]
pub(super) fn load_from(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32]) -> Outcome {
    let bytes = u64::from(ins.width) * u64::from(ins.count);
    count(cta, ins, mask, a, bytes);
    let mut left = mask;
    while left != 0 {
        let (view, group) = find(warp, cta, ins, left, a, bytes, "read")?;
        if cta.shape.checks {
            check_read(warp, cta, ins, group, a, bytes as usize, view)?;
        }
        // SAFETY: `find` has checked that these lanes lie within the view.
        unsafe { fill_rows(warp, ins, group, cta.shape.views[view].place(a)) };
        left &= !group;
    }
    Ok(())
}

#[inline(always)]
pub(super) fn store_to(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32]) -> Outcome {
    let bytes = u64::from(ins.width) * u64::from(ins.count);
    count(cta, ins, mask, a, bytes);
    let mut left = mask;
    while left != 0 {
        let (view, group) = find(warp, cta, ins, left, a, bytes, "write")?;
        if cta.shape.checks {
            check_write(warp, cta, ins, group, a, bytes as usize, view)?;
        }
        // SAFETY: `find` has checked that these lanes lie within the view.
        unsafe { empty_rows(warp, ins, group, cta.shape.views[view].place(a)) };
        left &= !group;
    }
    Ok(())
}

impl View {
    /// Places by device addresses.
    #[inline(always)]
    fn place<'a>(&self, at: &'a [u64; 32]) -> Place<'a> {
        Place { origin: self.data(self.base).wrapping_sub(self.base as usize), at }
    }
}

/// The view that the first lane of `left` lies in, and the lanes that lie in the same.
#[inline(always)]
pub(super) fn find(
    warp: &Warp,
    cta: &mut Cta,
    ins: &Ins,
    left: u32,
    a: &[u64; 32],
    bytes: u64,
    access: &str,
) -> Result<(usize, u32), Box<Finding>> {
    let cached = cta.last_view[ins.pc as usize] as usize;
    match cta.shape.views.get(cached) {
        Some(view) if all_within(view, left, a, bytes) => Ok((cached, left)),
        _ => find_again(warp, cta, ins, left, a, bytes, access),
    }
}

/// Whether the accesses of all these lanes are aligned and lie within the view.
#[inline(always)]
fn all_within(view: &View, mask: u32, a: &[u64; 32], bytes: u64) -> bool {
    // Lanes that take no part stand where the first one stands: then the loop has no branch.
    let first = a[mask.trailing_zeros() as usize];
    let (mut bits, mut farthest) = (0u64, 0u64);
    #[allow(clippy::needless_range_loop)] // a mask beside the addresses
    for l in 0..32 {
        let at = if mask >> l & 1 == 1 { a[l] } else { first };
        bits |= at;
        farthest = farthest.max(at.wrapping_sub(view.base));
    }
    let size = view.end - view.base;
    bits & (bytes - 1) == 0 && size >= bytes && farthest <= size - bytes
}

/// [`find`] where the lanes lie in several views, in another one than last time, or wrong.
#[inline(never)]
fn find_again(
    warp: &Warp,
    cta: &mut Cta,
    ins: &Ins,
    left: u32,
    a: &[u64; 32],
    bytes: u64,
    access: &str,
) -> Result<(usize, u32), Box<Finding>> {
    if lanes(left).any(|l| a[l] & (bytes - 1) != 0) {
        return Err(wrong_alignment(warp, cta, ins, left, a, bytes, access));
    }
    let within = |view: &View| {
        let inside = |l: &usize| a[*l] >= view.base && a[*l] < view.end && view.end - a[*l] >= bytes;
        lanes(left).filter(inside).fold(0u32, |group, l| group | 1 << l)
    };
    let views = cta.shape.views;
    let lane = left.trailing_zeros() as usize;
    let at = views.partition_point(|v| v.base <= a[lane]).wrapping_sub(1);
    match views.get(at).map(within) {
        Some(group) if group >> lane & 1 == 1 => {
            cta.last_view[ins.pc as usize] = at as u32;
            Ok((at, group))
        }
        _ => Err(outside(warp, cta, ins, lane, a[lane], bytes, access)),
    }
}

#[cold]
fn wrong_alignment(warp: &Warp, cta: &Cta, ins: &Ins, left: u32, a: &[u64; 32], n: u64, access: &str) -> Box<Finding> {
    let lane = lanes(left).find(|&l| a[l] & (n - 1) != 0).unwrap_or(0);
    let mut f = warp.finding(cta, ins, Kind::Misaligned, lane, format!("{access} of {n} bytes, not aligned to {n}"));
    f.address = Some(a[lane]);
    f.buffer = cta.shape.views.iter().find(|v| v.base <= a[lane] && a[lane] < v.end).map(View::name);
    f
}

#[cold]
fn outside(warp: &Warp, cta: &Cta, ins: &Ins, lane: usize, at: u64, bytes: u64, access: &str) -> Box<Finding> {
    let (kind, what, buffer) = explain(cta.shape.views, at, bytes, access);
    let mut f = warp.finding(cta, ins, kind, lane, what);
    f.address = Some(at);
    f.buffer = buffer;
    f
}

/// The shadow of a view, taken out of what earlier launches left.
#[inline(always)]
fn shadow(cta: &mut Cta, view: usize) {
    if cta.global_shadows[view].is_none() {
        let v = &cta.shape.views[view];
        let kept = cta.kept.remove(&v.number);
        let fresh = || crate::check::global::GlobalShadow::new((v.end - v.base) as usize);
        cta.global_shadows[view] = Some(kept.unwrap_or_else(fresh));
    }
}

/// First and last byte that the lanes of a group touch, as offsets into the view.
#[inline(always)]
fn extent(a: &[u64; 32], group: u32, bytes: usize, base: u64) -> std::ops::Range<usize> {
    let (mut lo, mut hi) = (u64::MAX, 0);
    for l in lanes(group) {
        lo = lo.min(a[l]);
        hi = hi.max(a[l]);
    }
    (lo - base) as usize..(hi - base) as usize + bytes
}

#[inline(always)]
pub(super) fn check_read(
    warp: &Warp,
    cta: &mut Cta,
    ins: &Ins,
    group: u32,
    a: &[u64; 32],
    bytes: usize,
    view: usize,
) -> Outcome {
    shadow(cta, view);
    let v = &cta.shape.views[view];
    let mut failed = None;
    {
        let Cta { global_shadows, clock, .. } = cta;
        let shadow = global_shadows[view].as_mut().expect("just made");
        shadow.prepare(clock, bytes.min(16), extent(a, group, bytes, v.base), false);
        for l in lanes(group) {
            let at = (a[l] - v.base) as usize;
            // SAFETY: `find` has checked the range.
            if unsafe { !v.all_written(at, bytes) } {
                failed = Some((l, None));
                break;
            }
            if let Err(c) = shadow.read(clock, at, bytes, warp.who(l)) {
                failed = Some((l, Some(c)));
                break;
            }
        }
    }
    match failed {
        None => Ok(()),
        Some((l, conflict)) => {
            let access = format!("read of {bytes} bytes");
            let mut f = match conflict {
                Some(c) => warp.conflict(cta, ins, l, &access, c),
                None => {
                    let what = format!("{access} that nothing wrote");
                    warp.finding(cta, ins, Kind::UninitializedGlobal, l, what)
                }
            };
            locate(&mut f, a[l], v.name());
            Err(f)
        }
    }
}

#[inline(always)]
fn check_write(warp: &Warp, cta: &mut Cta, ins: &Ins, group: u32, a: &[u64; 32], bytes: usize, view: usize) -> Outcome {
    shadow(cta, view);
    let v = &cta.shape.views[view];
    let mut failed = None;
    {
        let Cta { global_shadows, clock, .. } = cta;
        let shadow = global_shadows[view].as_mut().expect("just made");
        shadow.prepare(clock, bytes.min(16), extent(a, group, bytes, v.base), true);
        // Lanes before this one have not stored yet: two lanes of one store are compared by what they store.
        for l in lanes(group) {
            let at = (a[l] - v.base) as usize;
            // SAFETY: `find` has checked the range.
            let same = || unsafe { stores_nothing_new(warp, ins, group, v.place(a), l) };
            if let Err(c) = shadow.write(clock, at, bytes, warp.who(l), ins.pc, same) {
                failed = Some((l, c));
                break;
            }
            // SAFETY: as above.
            unsafe { v.mark_written(at, bytes) };
        }
    }
    match failed {
        None => Ok(()),
        Some((l, c)) => {
            let mut f = warp.conflict(cta, ins, l, &format!("write of {bytes} bytes"), c);
            locate(&mut f, a[l], v.name());
            Err(f)
        }
    }
}

pub(super) fn locate(f: &mut Finding, at: u64, buffer: BufferName) {
    f.address = Some(at);
    f.buffer = Some(buffer);
}

/// Counts bytes and 32-byte sectors, and the sectors that these bytes would fill if they lay side by side.
#[inline(always)]
pub(super) fn count(cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32], bytes: u64) {
    if cta.shape.counters {
        count_sectors(cta, ins, mask, a, bytes);
    }
}

fn count_sectors(cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32], bytes: u64) {
    let mut sectors: Vec<u64> =
        lanes(mask).flat_map(|l| (a[l] / 32..=(a[l] + bytes - 1) / 32).collect::<Vec<u64>>()).collect();
    sectors.sort_unstable();
    sectors.dedup();
    cta.counts.global(ins.pc, u64::from(mask.count_ones()) * bytes, sectors.len() as u64);
}

/// `ld` and `st` without a state space: each lane goes where its address lies.
pub fn load_generic(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    generic(
        warp,
        cta,
        ins,
        mask,
        [load_from, super::shared::load_from, super::private::load_local, super::private::load_param],
    )
}

pub fn store_generic(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    generic(
        warp,
        cta,
        ins,
        mask,
        [store_to, super::shared::store_to, super::private::store_local, super::private::store_param],
    )
}

type At = fn(&mut Warp, &mut Cta, &Ins, u32, &[u64; 32]) -> Outcome;

/// Divides the lanes over the windows: global, shared, local, parameters.
fn generic(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, to: [At; 4]) -> Outcome {
    let mut a = addresses(&warp.registers, ins.operands.slot[0], ins);
    let mut groups = [0u32; 4];
    for l in lanes(mask) {
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
    for (group, run) in groups.into_iter().zip(to) {
        if group != 0 {
            run(warp, cta, ins, group, &a)?;
        }
    }
    Ok(())
}
