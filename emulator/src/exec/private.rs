//! Local memory, one array per thread, and the parameters of the kernel.

use super::cta::{Cta, Outcome};
use super::elements::{Place, empty_rows, fill_rows, fill_rows_alike};
use super::touch::{Touch, addresses, lanes};
use super::warp::Warp;
use crate::address::{LOCAL_FIRST, PARAM};
use crate::finding::Kind;
use crate::program::{Elements, Ins};

/// `ld.local`
pub fn load(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Elements, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], &memory.addressing);
    load_local(warp, cta, memory, &Touch { ins, mask, at: &a, bytes: memory.bytes(), access: "read" })
}

/// `st.local`
pub fn store(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Elements, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], &memory.addressing);
    store_local(warp, cta, memory, &Touch { ins, mask, at: &a, bytes: memory.bytes(), access: "write" })
}

/// `ld.param`
pub fn load_parameter(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Elements, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], &memory.addressing);
    load_param(warp, cta, memory, &Touch { ins, mask, at: &a, bytes: memory.bytes(), access: "read" })
}

pub(super) fn load_local(warp: &mut Warp, cta: &mut Cta, memory: &Elements, t: &Touch) -> Outcome {
    inside(warp, cta, t)?;
    let size = cta.shape.program.local_bytes as usize;
    if cta.shape.checks {
        for l in lanes(t.mask) {
            let first = l * size + (t.at[l] - LOCAL_FIRST) as usize;
            if !warp.local_written[first..first + t.bytes].iter().all(|&w| w) {
                let what = format!("read of {} bytes of local memory that nothing wrote", t.bytes);
                let mut f = warp.finding(cta, t.ins, Kind::UninitializedLocal, l, what);
                f.address = Some(t.at[l]);
                return Err(f);
            }
        }
    }
    let at = offsets(t.at, size);
    let from = Place { origin: warp.local.as_mut_ptr(), at: &at };
    // SAFETY: `inside` has checked that the lanes of the mask lie within their own part of `Warp::local`.
    unsafe { fill_rows(warp, memory, t, from) };
    Ok(())
}

pub(super) fn store_local(warp: &mut Warp, cta: &mut Cta, memory: &Elements, t: &Touch) -> Outcome {
    inside(warp, cta, t)?;
    let size = cta.shape.program.local_bytes as usize;
    if cta.shape.checks {
        for l in lanes(t.mask) {
            let first = l * size + (t.at[l] - LOCAL_FIRST) as usize;
            warp.local_written[first..first + t.bytes].fill(true);
        }
    }
    let at = offsets(t.at, size);
    let to = Place { origin: warp.local.as_mut_ptr(), at: &at };
    // SAFETY: `inside` has checked that the lanes of the mask lie within their own part of `Warp::local`.
    unsafe { empty_rows(warp, memory, t, to) };
    Ok(())
}

/// Offsets into `Warp::local`, where each lane has `size` bytes.
fn offsets(a: &[u64; 32], size: usize) -> [u64; 32] {
    std::array::from_fn(|l| ((l * size) as u64).wrapping_add(a[l].wrapping_sub(LOCAL_FIRST)))
}

fn inside(warp: &Warp, cta: &Cta, t: &Touch) -> Outcome {
    let (a, access, bytes) = (t.at, t.access, t.bytes);
    let size = cta.shape.program.local_bytes;
    let end = LOCAL_FIRST + u64::from(size);
    for l in lanes(t.mask) {
        let (kind, what) = if a[l] & (t.size() - 1) != 0 {
            (Kind::Misaligned, format!("{access} of {bytes} bytes of local memory, not aligned to {bytes}"))
        } else if a[l] < LOCAL_FIRST || a[l].wrapping_add(t.size()) > end {
            let at = a[l].wrapping_sub(LOCAL_FIRST) as i64;
            (Kind::OutOfBounds, format!("{access} of {bytes} bytes at offset {at} of {size} bytes of local memory"))
        } else {
            continue;
        };
        let mut f = warp.finding(cta, t.ins, kind, l, what);
        f.address = Some(a[l]);
        return Err(f);
    }
    Ok(())
}

pub(super) fn load_param(warp: &mut Warp, cta: &mut Cta, memory: &Elements, t: &Touch) -> Outcome {
    let parameters = cta.shape.parameters;
    let first = t.at[t.mask.trailing_zeros() as usize];
    // Almost always the address is a constant.
    let alike = t.at.iter().fold(0, |bits, at| bits | (at ^ first)) == 0;
    for l in lanes(if alike { t.mask & t.mask.wrapping_neg() } else { t.mask }) {
        let at = t.at[l].wrapping_sub(PARAM);
        let fits = at.checked_add(t.size()).is_some_and(|end| end <= parameters.len() as u64);
        if !fits || t.at[l] & (t.size() - 1) != 0 {
            let kind = if fits { Kind::Misaligned } else { Kind::OutOfBounds };
            let (bytes, all) = (t.bytes, parameters.len());
            let what = format!("read of {bytes} bytes at offset {} of {all} bytes of parameters", at as i64);
            return Err(warp.finding(cta, t.ins, kind, l, what));
        }
    }
    if alike {
        // SAFETY: the place was just found to lie within the parameters.
        unsafe { fill_rows_alike(warp, memory, t, parameters.as_ptr().add((first - PARAM) as usize)) };
        return Ok(());
    }
    let from = Place { origin: parameters.as_ptr().cast_mut().wrapping_sub(PARAM as usize), at: t.at };
    // SAFETY: every lane of the mask was just found to lie within the parameters; they are only read.
    unsafe { fill_rows(warp, memory, t, from) };
    Ok(())
}

/// Parameters of a kernel cannot be written.
pub(super) fn store_param(warp: &mut Warp, cta: &mut Cta, _: &Elements, t: &Touch) -> Outcome {
    let l = t.mask.trailing_zeros() as usize;
    let mut f = warp.finding(cta, t.ins, Kind::OutOfBounds, l, "write to the parameters of the kernel");
    f.address = Some(t.at[l]);
    Err(f)
}
