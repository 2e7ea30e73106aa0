//! Square attack's start and candidates: `kernels/square.cu`, whose header has the formulas.
//!
//! Images are `(N, H, W, C)` float32 in `[0, 1]`; each is treated alone, so a result does not depend on its batch.

use super::pgd::{CHUNK, Norm, alike, rows};
use crate::device::{
    DType, Device, SQUARE_START_L2, SQUARE_START_LINF, SQUARE_STEP_L2, SQUARE_STEP_LINF, SquareStartArgs,
    SquareStepArgs,
};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Tiles of the L2 start, in rows and columns.
pub const TILES: usize = 5;

/// What one candidate changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Row and column of the window that gains.
    pub to: [u32; 2],
    /// L2: of the one that gives.
    pub from: [u32; 2],
    /// A bit per channel: set for +1.
    pub signs: u32,
    /// L2: whether the tile is transposed.
    pub turned: bool,
}

/// The pattern of the L2 attack, `side * side` values of length 1: a hill above a valley.
pub fn tile(side: usize) -> Vec<f32> {
    let mut all = vec![0f64; side * side];
    let upper = side / 2;
    for (first, rows, sign) in [(0, upper, 1.0), (upper, side - upper, -1.0)] {
        let hill = hill(rows, side);
        let length = hill.iter().map(|v| v * v).sum::<f64>().sqrt();
        all[first * side..(first + rows) * side].iter_mut().zip(&hill).for_each(|(a, v)| *a = sign * v / length);
    }
    let length = all.iter().map(|v| v * v).sum::<f64>().sqrt();
    all.iter().map(|v| (v / length) as f32).collect()
}

/// Rings about the middle of `rows x columns` values, each adding the inverse square of its number.
fn hill(rows: usize, columns: usize) -> Vec<f64> {
    let (middle, across) = (rows / 2, columns / 2);
    let mut all = vec![0.0; rows * columns];
    for k in 0..=middle.max(across) {
        for r in middle.saturating_sub(k)..(middle + k + 1).min(rows) {
            for c in across.saturating_sub(k)..(across + k + 1).min(columns) {
                all[r * columns + c] += 1.0 / ((k + 1) * (k + 1)) as f64;
            }
        }
    }
    all
}

fn image(op: &'static str, x: &Tensor) -> Result<[usize; 4]> {
    let [n, h, w, c] = x.dims4(op)?;
    if c > 4 {
        return Err(Error::shape(op, "channels", "at most 4", c));
    }
    Ok([n, h, w, c])
}

/// Where a search begins: vertical stripes in L-inf, 5 x 5 tiles in L2.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x0` | `(N, H, W, C)` | clean images |
/// | `draw` | `(N, W, C)`, L2 `(N, 25, C)` | uniforms in `[0, 1)`: -1 below a half, else 1 |
/// | `turned` | a bit per tile | L2: which tiles are transposed |
/// | ret | as `x0` | |
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn start(device: &Device, x0: &Tensor, draw: &Tensor, turned: u32, (norm, eps): (Norm, f64)) -> Result<Tensor> {
    let ([n, h, w, c], [_, d]) = (image("square_start", x0)?, rows("square_start", x0)?);
    // Of a smaller image the tiles that do not fit are left out.
    let side = (h.min(w) / TILES).max(1);
    let want = if norm == Norm::Linf { w * c } else { TILES * TILES * c };
    if draw.len() != n * want || draw.dtype() != DType::F32 {
        return Err(Error::shape("square_start", "draw", format!("{n} x {want} of F32"), format!("{draw:?}")));
    }
    let pattern = if norm == Norm::L2 { tile(side) } else { vec![0.0] };
    let pattern = Tensor::from_f32(device, &[pattern.len()], DType::F32, &pattern)?;
    let y = Tensor::uninit(device, x0.shape(), DType::F32)?;
    let args = SquareStartArgs {
        x0: x0.address(),
        draw: draw.address(),
        tile: pattern.address(),
        y: y.address(),
        h: h as i32,
        w: w as i32,
        c: c as i32,
        side: side as i32,
        chunk: CHUNK as i32,
        turned: turned as i32,
        eps: eps as f32,
        reserved: 0,
    };
    match norm {
        Norm::Linf => device.launch(&SQUARE_START_LINF, [d.div_ceil(CHUNK), n, 1], &args)?,
        Norm::L2 => device.launch(&SQUARE_START_L2, [n, 1, 1], &args)?,
    }
    Ok(y)
}

/// The next candidates.
///
/// | arg | shape | |
/// |---|---|---|
/// | `best`, `x0` | `(N, H, W, C)` | the best points so far, and the clean images |
/// | `windows` | N | squares of `side` pixels within the image |
/// | `tile` | `(side, side)` | L2: [`tile`] |
/// | ret | as `x0` | |
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ, and for windows that leave the image.
pub fn step(
    device: &Device,
    best: &Tensor,
    x0: &Tensor,
    windows: &[Window],
    tile: &Tensor,
    side: usize,
    (norm, eps): (Norm, f64),
) -> Result<Tensor> {
    let ([n, h, w, c], [_, d]) = (image("square_step", best)?, rows("square_step", best)?);
    alike("square_step", "clean images", best, x0)?;
    if windows.len() != n {
        return Err(Error::shape("square_step", "windows", n, windows.len()));
    }
    let inside = |[row, column]: [u32; 2]| row as usize + side <= h && column as usize + side <= w;
    if let Some(bad) = windows.iter().find(|window| !inside(window.to) || !inside(window.from)) {
        let found = format!("{:?} and {:?} in {h}x{w}", bad.to, bad.from);
        return Err(Error::shape("square_step", "window", format!("{side} pixels a side within the image"), found));
    }
    if norm == Norm::L2 && tile.len() != side * side {
        return Err(Error::shape("square_step", "tile", side * side, tile.len()));
    }
    let numbers: Vec<i32> = windows
        .iter()
        .flat_map(|v| [v.to[0], v.to[1], v.from[0], v.from[1], v.signs, u32::from(v.turned)])
        .map(|v| v as i32)
        .collect();
    let numbers = Tensor::from_i32(device, &[n, 6], &numbers)?;
    let y = Tensor::uninit(device, best.shape(), DType::F32)?;
    let args = SquareStepArgs {
        best: best.address(),
        x0: x0.address(),
        windows: numbers.address(),
        tile: tile.address(),
        y: y.address(),
        h: h as i32,
        w: w as i32,
        c: c as i32,
        side: side as i32,
        chunk: CHUNK as i32,
        eps: eps as f32,
    };
    match norm {
        Norm::Linf => device.launch(&SQUARE_STEP_LINF, [d.div_ceil(CHUNK), n, 1], &args)?,
        Norm::L2 => device.launch(&SQUARE_STEP_L2, [n, 1, 1], &args)?,
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_is_a_hill_above_a_valley() {
        let tile = tile(5);
        let length: f32 = tile.iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-6, "{length}");
        assert!(tile[..10].iter().all(|&v| v > 0.0) && tile[10..].iter().all(|&v| v < 0.0), "{tile:?}");
        // Two rows above, three below; the middle column is the highest of each.
        assert!(tile.chunks(5).all(|row| row[2].abs() >= row[0].abs()), "{tile:?}");
        // h(2, 5) by hand: rings of 1, 1/4 and 1/9 about (1, 2).
        let by_hand = [0.25 + 1.0 / 9.0, 1.0 + 0.25 + 1.0 / 9.0];
        assert!((f64::from(tile[5 + 1] / tile[5 + 2]) - by_hand[0] / by_hand[1]).abs() < 1e-6, "{tile:?}");
    }
}
