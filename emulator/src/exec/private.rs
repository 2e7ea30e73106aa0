//! Local memory, one array per thread, and the parameters of the kernel.

use super::elements::{Place, empty_rows, fill_rows};
use super::{Cta, Outcome, Warp, addresses, lanes};
use crate::address::{LOCAL_FIRST, PARAM};
use crate::finding::Kind;
use crate::program::Ins;

/// `ld.local`
pub fn load(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], ins);
    load_local(warp, cta, ins, mask, &a)
}

/// `st.local`
pub fn store(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], ins);
    store_local(warp, cta, ins, mask, &a)
}

/// `ld.param`
pub fn load_parameter(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let a = addresses(&warp.registers, ins.operands.slot[0], ins);
    load_param(warp, cta, ins, mask, &a)
}

pub(super) fn load_local(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32]) -> Outcome {
    let bytes = usize::from(ins.width) * usize::from(ins.count);
    inside(warp, cta, ins, mask, a, bytes, "read")?;
    let size = cta.shape.program.local_bytes as usize;
    if cta.shape.checks {
        for l in lanes(mask) {
            let first = l * size + (a[l] - LOCAL_FIRST) as usize;
            if !warp.local_written[first..first + bytes].iter().all(|&w| w) {
                let what = format!("read of {bytes} bytes of local memory that nothing wrote");
                let mut f = warp.finding(cta, ins, Kind::UninitializedLocal, l, what);
                f.address = Some(a[l]);
                return Err(f);
            }
        }
    }
    let at = offsets(a, size);
    let from = Place { origin: warp.local.as_mut_ptr(), at: &at };
    // SAFETY: `inside` has checked the lanes of the mask.
    unsafe { fill_rows(warp, ins, mask, from) };
    Ok(())
}

pub(super) fn store_local(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32]) -> Outcome {
    let bytes = usize::from(ins.width) * usize::from(ins.count);
    inside(warp, cta, ins, mask, a, bytes, "write")?;
    let size = cta.shape.program.local_bytes as usize;
    if cta.shape.checks {
        for l in lanes(mask) {
            let first = l * size + (a[l] - LOCAL_FIRST) as usize;
            warp.local_written[first..first + bytes].fill(true);
        }
    }
    let at = offsets(a, size);
    let to = Place { origin: warp.local.as_mut_ptr(), at: &at };
    // SAFETY: `inside` has checked the lanes of the mask.
    unsafe { empty_rows(warp, ins, mask, to) };
    Ok(())
}

/// Offsets into `Warp::local`, where each lane has `size` bytes.
fn offsets(a: &[u64; 32], size: usize) -> [u64; 32] {
    std::array::from_fn(|l| (l * size) as u64 + a[l].wrapping_sub(LOCAL_FIRST))
}

fn inside(warp: &Warp, cta: &Cta, ins: &Ins, mask: u32, a: &[u64; 32], bytes: usize, access: &str) -> Outcome {
    let size = cta.shape.program.local_bytes;
    let end = LOCAL_FIRST + u64::from(size);
    for l in lanes(mask) {
        let (kind, what) = if a[l] & (bytes as u64 - 1) != 0 {
            (Kind::Misaligned, format!("{access} of {bytes} bytes of local memory, not aligned to {bytes}"))
        } else if a[l] < LOCAL_FIRST || a[l].wrapping_add(bytes as u64) > end {
            let at = a[l].wrapping_sub(LOCAL_FIRST) as i64;
            (Kind::OutOfBounds, format!("{access} of {bytes} bytes at offset {at} of {size} bytes of local memory"))
        } else {
            continue;
        };
        let mut f = warp.finding(cta, ins, kind, l, what);
        f.address = Some(a[l]);
        return Err(f);
    }
    Ok(())
}

pub(super) fn load_param(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32]) -> Outcome {
    let bytes = usize::from(ins.width) * usize::from(ins.count);
    let parameters = cta.shape.parameters;
    for l in lanes(mask) {
        let at = a[l].wrapping_sub(PARAM);
        let fits = at.checked_add(bytes as u64).is_some_and(|end| end <= parameters.len() as u64);
        if !fits || a[l] & (bytes as u64 - 1) != 0 {
            let kind = if fits { Kind::Misaligned } else { Kind::OutOfBounds };
            let what =
                format!("read of {bytes} bytes at offset {} of {} bytes of parameters", at as i64, parameters.len());
            return Err(warp.finding(cta, ins, kind, l, what));
        }
    }
    let from = Place { origin: parameters.as_ptr().cast_mut().wrapping_sub(PARAM as usize), at: a };
    // SAFETY: just checked; nothing is written there.
    unsafe { fill_rows(warp, ins, mask, from) };
    Ok(())
}

/// Parameters of a kernel cannot be written.
pub(super) fn store_param(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32, a: &[u64; 32]) -> Outcome {
    let l = mask.trailing_zeros() as usize;
    let mut f = warp.finding(cta, ins, Kind::OutOfBounds, l, "write to the parameters of the kernel");
    f.address = Some(a[l]);
    Err(f)
}
