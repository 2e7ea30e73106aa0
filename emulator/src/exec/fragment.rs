//! `wmma.load` and `wmma.store`: fragments of `mma` from and to matrices in memory, element by element.
//!
//! The layout is that of `mma` (see [`crate::ops::matrix`]), one fragment behind the other: of A along its rows, of B and of sums along
//! the columns; sums of 32 rows along the rows. A flipped one is the transpose.

use super::cta::{Cta, Outcome};
use super::touch::{Touch, addresses};
use super::warp::Warp;
use super::{global, shared};
use crate::finding::Kind as Found;
use crate::program::{Addressing, Elements, Fragment, Ins, Operand as Kind};
use crate::ptx::ast::Space;
use crate::ptx::opcode::Order;
use crate::registers::{ALL, Value};

/// The row where no instruction looks.
const SCRATCH: u16 = 0;

/// Elements in one register of A or B; f64 takes two rows for one. Sums of 32 and 64 bits have one.
fn per(f: &Fragment) -> usize {
    if f.bytes == 8 { 1 } else { 4 / usize::from(f.bytes) }
}

/// Registers that hold every element once.
pub fn registers(f: &Fragment) -> usize {
    usize::from(f.rows) * usize::from(f.columns) / 32 / per(f)
}

/// Registers as the instruction names them: f16 multiplicands come twice in those of 16 x 16, and 8 in any shape.
pub fn written(f: &Fragment) -> usize {
    if f.doubled { 8 } else { registers(f) }
}

/// Row and column, in the matrix of `mma`, of element `i` of register `r` in lane `l`.
fn place(f: &Fragment, r: usize, i: usize, l: usize) -> (usize, usize) {
    let (g, t, p) = (l / 4, l % 4, per(f));
    let bands = if f.bytes == 8 { 1 } else { 2 };
    // In the matrix that `mma` sees.
    let (rows, columns) = if f.flipped { (f.columns, f.rows) } else { (f.rows, f.columns) };
    let (rows, columns) = (usize::from(rows), usize::from(columns));
    match f.kind {
        Kind::A => {
            let blocks = columns / (4 * p);
            let (tile, r) = (r / (bands * blocks), r % (bands * blocks));
            let (q, band) = (r / bands, r % bands);
            (8 * bands * tile + g + 8 * band, 4 * p * q + p * t + i)
        }
        Kind::B => {
            let blocks = rows / (4 * p);
            let (tile, q) = (r / blocks, r % blocks);
            (4 * p * q + p * t + i, 8 * tile + g)
        }
        Kind::Sum => {
            // Elements 2 band + i of each fragment, one or two to a register.
            let e = r * p.min(2) + i;
            let (tile, e) = (e / (2 * bands), e % (2 * bands));
            let (row, column) = (g + 8 * (e / 2), 2 * t + e % 2);
            if columns == 8 { (8 * bands * tile + row, column) } else { (row, 8 * tile + column) }
        }
    }
}

/// Rows: the address, the stride, the registers.
pub fn run(warp: &mut Warp, cta: &mut Cta, ins: &Ins, f: &Fragment, mask: u32) -> Outcome {
    if mask != ALL {
        let what = format!("a matrix instruction reached by lanes {mask:#010x} only");
        return Err(warp.finding(cta, ins, Found::DivergentBarrier, mask.trailing_zeros() as usize, what));
    }
    let slot = ins.operands.slot;
    let base = addresses(&warp.registers, slot[0], &Addressing { wide: true, offset: f.offset });
    // SAFETY: slot 1 of a compiled `wmma.load` or `wmma.store` is a row of 32 bits.
    let stride = unsafe { u32::read(&warp.registers, slot[1]) };
    let (bytes, p) = (usize::from(f.bytes), per(f));
    let memory = Elements {
        addressing: Addressing { wide: true, offset: 0 },
        width: f.bytes,
        count: 1,
        signed: false,
        wide: bytes == 8,
        order: Order::default(),
    };
    for r in 0..usize::from(f.count) {
        let register = slot[2 + r];
        // SAFETY: the slots behind the stride are rows of the warp; those of 64 bits go whole.
        let mut packed = if bytes == 8 { [0; 32] } else { unsafe { u32::read(&warp.registers, register) } };
        let before = packed;
        for i in 0..p {
            let at: [u64; 32] = std::array::from_fn(|l| {
                let (row, column) = place(f, r, i, l);
                let (row, column) = if f.flipped { (column, row) } else { (row, column) };
                let (major, minor) = if f.by_columns { (column, row) } else { (row, column) };
                base[l].wrapping_add((major as u64 * u64::from(stride[l]) + minor as u64).wrapping_mul(bytes as u64))
            });
            let shift = 8 * bytes * i;
            let cut = if bytes >= 4 { u32::MAX } else { (1 << (8 * bytes)) - 1 };
            let mut one = *ins;
            one.operands.slot[1] = if bytes == 8 { register } else { SCRATCH };
            if !f.load && bytes < 8 {
                // SAFETY: the scratch row is one of the warp.
                unsafe { u32::write(&mut warp.registers, SCRATCH, ALL, before.map(|b| b >> shift & cut)) };
            }
            element(warp, cta, &one, f, &memory, &at)?;
            if f.load && bytes < 8 {
                // SAFETY: as above.
                let loaded = unsafe { u32::read(&warp.registers, SCRATCH) };
                for l in 0..32 {
                    packed[l] = packed[l] & !(cut << shift) | (loaded[l] & cut) << shift;
                }
            }
        }
        if f.load && bytes < 8 {
            // SAFETY: the register is a row of the warp.
            unsafe { u32::write(&mut warp.registers, register, ALL, packed) };
        }
    }
    Ok(())
}

fn element(warp: &mut Warp, cta: &mut Cta, ins: &Ins, f: &Fragment, memory: &Elements, at: &[u64; 32]) -> Outcome {
    let access = if f.load { "read" } else { "write" };
    let t = Touch { ins, mask: ALL, at, bytes: memory.bytes(), access };
    match (f.space, f.load) {
        (Space::Shared, true) => shared::load_from(warp, cta, memory, &t),
        (Space::Shared, false) => shared::store_to(warp, cta, memory, &t),
        (Space::Generic, true) => global::load_anywhere(warp, cta, memory, &t),
        (Space::Generic, false) => global::store_anywhere(warp, cta, memory, &t),
        (_, true) => global::load_from(warp, cta, memory, &t),
        (_, false) => global::store_to(warp, cta, memory, &t),
    }
}
