//! Global memory: finds the buffer behind each address, checks, and moves the elements.

use super::{Access, Cta, Outcome, Warp, addresses, already_there, contiguous, empty_rows, fill_rows, lanes, versions};
use crate::address;
use crate::finding::{BufferName, Finding, Kind};
use crate::memory::{View, explain};
use crate::program::Ins;
use crate::registers::{ALL, Level, Value};

/// `ld.global`
pub fn load(level: Level) -> Access {
    versions!(level, load_body)
}

#[inline(always)]
fn load_body(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], ins);
    load_from(warp, cta, ins, mask, &a)
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
        let data = cta.shape.views[view].data(a[group.trailing_zeros() as usize]);
        let first = a[group.trailing_zeros() as usize];
        // SAFETY: `find` has checked that these lanes lie within the view.
        unsafe {
            if ins.width == 4 && ins.count == 1 && !ins.wide && contiguous(a, group, 4) {
                u32::write(&mut warp.registers, ins.operands.slot[1], ALL, data.cast::<[u32; 32]>().read_unaligned());
            } else {
                let at = std::array::from_fn(|l| data.wrapping_add(a[l].wrapping_sub(first) as usize).cast_const());
                fill_rows(warp, ins, group, &at);
            }
        }
        left &= !group;
    }
    Ok(())
}

/// `st.global`
pub fn store(level: Level) -> Access {
    versions!(level, store_body)
}

#[inline(always)]
fn store_body(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], ins);
    store_to(warp, cta, ins, mask, &a)
}

#[inline(always)]
pub(super) fn store_to(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32]) -> Outcome {
    let bytes = u64::from(ins.width) * u64::from(ins.count);
    count(cta, ins, mask, a, bytes);
    let mut left = mask;
    while left != 0 {
        let (view, group) = find(warp, cta, ins, left, a, bytes, "write")?;
        let first = a[group.trailing_zeros() as usize];
        let data = cta.shape.views[view].data(first);
        if cta.shape.checks {
            check_write(warp, cta, ins, group, a, bytes as usize, view)?;
        }
        let at = std::array::from_fn(|l| data.wrapping_add(a[l].wrapping_sub(first) as usize));
        // SAFETY: `find` has checked that these lanes lie within the view.
        unsafe { empty_rows(warp, ins, group, &at) };
        left &= !group;
    }
    Ok(())
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
    let mut misaligned = 0u64;
    for l in 0..32 {
        misaligned |= if left >> l & 1 == 1 { a[l] & (bytes - 1) } else { 0 };
    }
    if misaligned != 0 {
        return Err(wrong_alignment(warp, cta, ins, left, a, bytes, access));
    }
    let within = |view: &View| {
        let last = view.end.wrapping_sub(bytes);
        let mut group = 0u32;
        for l in 0..32 {
            group |= u32::from(a[l] >= view.base && a[l] <= last && view.end - view.base >= bytes) << l;
        }
        group & left
    };
    let views = cta.shape.views;
    let cached = cta.last_view[ins.pc as usize] as usize;
    if let Some(view) = views.get(cached) {
        let group = within(view);
        if group != 0 {
            return Ok((cached, group));
        }
    }
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
    for l in 0..32 {
        if group >> l & 1 == 1 {
            lo = lo.min(a[l]);
            hi = hi.max(a[l]);
        }
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
    let width = access_width(ins, bytes);
    let mut failed = None;
    {
        let Cta { global_shadows, clock, .. } = cta;
        let shadow = global_shadows[view].as_mut().expect("just made");
        shadow.prepare(clock, width, extent(a, group, bytes, v.base), false);
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
    let width = access_width(ins, bytes);
    let mut failed = None;
    {
        let Cta { global_shadows, clock, .. } = cta;
        let shadow = global_shadows[view].as_mut().expect("just made");
        shadow.prepare(clock, width, extent(a, group, bytes, v.base), true);
        // Lanes before this one have not stored yet: two lanes of one store are compared through `writes`.
        for l in lanes(group) {
            let at = (a[l] - v.base) as usize;
            // SAFETY: `find` has checked the range.
            let same = || unsafe { already_there(warp, ins, l, v.data(a[l])) || twin(warp, ins, group, a, l) };
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

/// Whether every other lane of this store with the same address writes the same value.
pub(super) unsafe fn twin(warp: &Warp, ins: &Ins, group: u32, a: &[u64; 32], l: usize) -> bool {
    let others: Vec<usize> = lanes(group).filter(|&m| m < l && a[m] == a[l]).collect();
    !others.is_empty()
        && others.iter().all(|&m| {
            (0..ins.count as usize).all(|n| unsafe {
                let v = super::read_elements(&warp.registers, ins.operands.slot[1 + n], ins.wide);
                v[m] == v[l]
            })
        })
}

pub(super) fn locate(f: &mut Finding, at: u64, buffer: BufferName) {
    f.address = Some(at);
    f.buffer = Some(buffer);
}

/// Granules need not be finer than a whole vector access.
fn access_width(ins: &Ins, bytes: usize) -> usize {
    let _ = ins;
    bytes.min(16)
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
