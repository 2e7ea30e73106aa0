//! `ldmatrix` and `stmatrix`: 8 x 8 matrices of 16-bit elements between shared memory and fragments.
//!
//! Lane 8 q + i holds the address of row i (16 bytes) of matrix q. Lane l gets elements 2 (l % 4) and 2 (l % 4) + 1 of row
//! l / 4; transposed, of column l / 4. Source: PTX ISA 9.0, sections 9.7.14.5.15 and 9.7.14.5.16.

use super::{Access, Cta, Outcome, Warp, addresses, shared, versions};
use crate::address::{SHARED, SHARED_FIRST, WINDOW};
use crate::finding::Kind;
use crate::program::Ins;
use crate::registers::{ALL, Level, Value};

/// Bytes of one row.
const ROW: usize = 16;

/// The rows' addresses, and the lanes that hold one.
#[inline(always)]
fn rows(
    warp: &Warp,
    cta: &mut Cta,
    ins: &Ins,
    mask: u32,
    access: &str,
) -> Result<([u64; 32], u32), Box<crate::finding::Finding>> {
    if mask != ALL {
        let what = format!("{access} reached by lanes {mask:#010x} only");
        return Err(warp.finding(cta, ins, Kind::DivergentBarrier, mask.trailing_zeros() as usize, what));
    }
    let mut a = addresses(&warp.registers, ins.operands.slot[0], ins);
    if ins.signed {
        // A generic address.
        for a in &mut a {
            *a = if *a >= SHARED && *a < SHARED + WINDOW { *a - SHARED } else { 0 };
        }
    }
    let holders = if ins.count == 4 { ALL } else { (1 << (8 * u32::from(ins.count))) - 1 };
    shared::inside(warp, cta, ins, holders, &a, ROW, access)?;
    if cta.shape.counters {
        // One matrix a turn.
        for q in 0..u32::from(ins.count) {
            shared::count(cta, ins, 0xff << (8 * q), &a, ROW);
        }
    }
    Ok((a, holders))
}

/// `ldmatrix`: `ins.count` matrices, `ins.wide` transposed, `ins.signed` generic addresses.
pub fn load(level: Level) -> Access {
    versions!(level, load_body)
}

#[inline(always)]
fn load_body(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let (a, holders) = rows(warp, cta, ins, mask, "ldmatrix")?;
    if cta.shape.checks {
        for l in super::lanes(holders) {
            shared::check_read(warp, cta, ins, l, (a[l] - SHARED_FIRST) as usize, ROW)?;
        }
    }
    let base = cta.shared();
    for q in 0..ins.count as usize {
        let mut v = [0u32; 32];
        for i in 0..8 {
            let from = base.wrapping_add((a[8 * q + i] - SHARED_FIRST) as usize);
            // SAFETY: `rows` has checked 16 bytes at each address; fragments of a row are 4 neighbouring lanes.
            let row = unsafe { from.cast::<[u32; 4]>().read_unaligned() };
            v[4 * i..4 * i + 4].copy_from_slice(&row);
        }
        if ins.wide {
            v = transposed(&v);
        }
        // SAFETY: compiled instructions name rows of their warp.
        unsafe { u32::write(&mut warp.registers, ins.operands.slot[1 + q], ALL, v) };
    }
    Ok(())
}

/// `stmatrix`, with the same meaning of `ins`.
pub fn store(level: Level) -> Access {
    versions!(level, store_body)
}

#[inline(always)]
fn store_body(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
    let (a, holders) = rows(warp, cta, ins, mask, "stmatrix")?;
    if cta.shape.checks {
        for l in super::lanes(holders) {
            let Cta { shared_shadow, clock, .. } = cta;
            let at = (a[l] - SHARED_FIRST) as usize;
            if let Err(c) = shared_shadow.write(clock, at, ROW, warp.who(l), ins.pc, || false) {
                return Err(shared::report(warp, cta, ins, l, "stmatrix", c));
            }
        }
    }
    let base = cta.shared();
    for q in 0..ins.count as usize {
        // SAFETY: as above.
        let mut v = unsafe { u32::read(&warp.registers, ins.operands.slot[1 + q]) };
        if ins.wide {
            v = transposed(&v);
        }
        for i in 0..8 {
            let to = base.wrapping_add((a[8 * q + i] - SHARED_FIRST) as usize);
            let row: [u32; 4] = std::array::from_fn(|j| v[4 * i + j]);
            // SAFETY: as above.
            unsafe { to.cast::<[u32; 4]>().write_unaligned(row) };
        }
    }
    Ok(())
}

/// An 8 x 8 matrix of 16-bit elements, two to a lane, with rows and columns exchanged.
fn transposed(v: &[u32; 32]) -> [u32; 32] {
    let element = |row: usize, column: usize| v[4 * row + column / 2] >> (16 * (column % 2)) & 0xffff;
    std::array::from_fn(|l| {
        let (row, column) = (l / 4, 2 * (l % 4));
        element(column, row) | element(column + 1, row) << 16
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_twice_changes_nothing_and_once_exchanges() {
        let v: [u32; 32] = std::array::from_fn(|l| (2 * l as u32) | (2 * l as u32 + 1) << 16);
        let t = transposed(&v);
        assert_eq!(transposed(&t), v);
        // Element (row 1, column 0) is 8; in the transposed matrix it stands at (0, 1).
        assert_eq!(t[0] >> 16, 8);
    }
}
