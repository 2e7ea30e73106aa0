//! `ldmatrix` and `stmatrix`: 8 x 8 matrices of 16-bit elements between shared memory and fragments.
//!
//! Lane 8 q + i holds the address of row i (16 bytes) of matrix q. Lane l gets elements 2 (l % 4) and 2 (l % 4) + 1 of row
//! l / 4; transposed, of column l / 4. Source: PTX ISA 9.0, sections 9.7.14.5.15 and 9.7.14.5.16.

use super::cta::{Cta, Outcome};
use super::shared;
use super::touch::{Touch, addresses, lanes, versions};
use super::warp::Warp;
use crate::address::{SHARED, SHARED_FIRST, WINDOW};
use crate::finding::Kind;
use crate::program::{Ins, Matrices, Run};
use crate::registers::{ALL, Level, Value};

/// Bytes of one row.
const ROW: usize = 16;

/// The rows' addresses in shared space.
#[inline(always)]
fn rows(warp: &Warp, ins: &Ins, memory: &Matrices) -> [u64; 32] {
    let mut a = addresses(&warp.registers, ins.operands.slot[0], &memory.addressing);
    if memory.generic {
        for a in &mut a {
            *a = if *a >= SHARED && *a < SHARED + WINDOW { *a - SHARED } else { 0 };
        }
    }
    a
}

/// The lanes that hold the address of a row.
#[inline(always)]
fn holders(memory: &Matrices) -> u32 {
    if memory.count == 4 { ALL } else { (1 << (8 * u32::from(memory.count))) - 1 }
}

/// The whole warp takes part, and the rows lie within shared memory.
#[inline(always)]
fn inside(warp: &Warp, cta: &mut Cta, memory: &Matrices, t: &Touch, mask: u32) -> Outcome {
    if mask != ALL {
        let what = format!("{} reached by lanes {mask:#010x} only", t.access);
        return Err(warp.finding(cta, t.ins, Kind::DivergentBarrier, mask.trailing_zeros() as usize, what));
    }
    shared::inside(warp, cta, t)?;
    if cta.shape.counters {
        // One matrix a turn.
        for q in 0..u32::from(memory.count) {
            shared::count(cta, &t.of(0xff << (8 * q)));
        }
    }
    Ok(())
}

/// `ldmatrix`
pub fn load(level: Level) -> Run<Matrices> {
    versions!(level, Matrices, load_body)
}

#[inline(always)]
fn load_body(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Matrices, mask: u32) -> Outcome {
    let a = rows(warp, ins, memory);
    let t = Touch { ins, mask: holders(memory), at: &a, bytes: ROW, access: "ldmatrix" };
    inside(warp, cta, memory, &t, mask)?;
    if cta.shape.checks {
        shared::check_reads(warp, cta, &t)?;
    }
    let base = cta.shared();
    for q in 0..memory.count as usize {
        let mut v = [0u32; 32];
        for i in 0..8 {
            let from = base.wrapping_add((a[8 * q + i] - SHARED_FIRST) as usize);
            // SAFETY: `inside` has checked 16 bytes at each address; fragments of a row are 4 neighbouring lanes.
            let row = unsafe { from.cast::<[u32; 4]>().read_unaligned() };
            v[4 * i..4 * i + 4].copy_from_slice(&row);
        }
        if memory.transposed {
            v = transposed(&v);
        }
        // SAFETY: the slots behind the address, one for each matrix, are rows of the warp.
        unsafe { u32::write(&mut warp.registers, ins.operands.slot[1 + q], ALL, v) };
    }
    Ok(())
}

/// `stmatrix`
pub fn store(level: Level) -> Run<Matrices> {
    versions!(level, Matrices, store_body)
}

#[inline(always)]
fn store_body(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Matrices, mask: u32) -> Outcome {
    let a = rows(warp, ins, memory);
    let t = Touch { ins, mask: holders(memory), at: &a, bytes: ROW, access: "stmatrix" };
    inside(warp, cta, memory, &t, mask)?;
    if cta.shape.checks {
        for l in lanes(t.mask) {
            let Cta { shared_shadow, clock, .. } = cta;
            let at = (a[l] - SHARED_FIRST) as usize;
            if let Err(c) = shared_shadow.write(clock, t.write(at, warp.who(l)), || false) {
                return Err(shared::locate(warp.conflict(cta, ins, l, "stmatrix", c), c));
            }
        }
    }
    let base = cta.shared();
    for q in 0..memory.count as usize {
        // SAFETY: the slots behind the address, one for each matrix, are rows of the warp.
        let mut v = unsafe { u32::read(&warp.registers, ins.operands.slot[1 + q]) };
        if memory.transposed {
            v = transposed(&v);
        }
        for i in 0..8 {
            let to = base.wrapping_add((a[8 * q + i] - SHARED_FIRST) as usize);
            let row: [u32; 4] = std::array::from_fn(|j| v[4 * i + j]);
            // SAFETY: `inside` has checked 16 bytes at each address.
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
