//! FAB's step towards the decision boundary, and back: `kernels/fab.cu`, whose header has the formulas.
//!
//! Images are `(N, H, W, C)` float32 in `[0, 1]`; each is treated alone, so a result does not depend on its batch.

use super::pgd::{CHUNK, Norm, alike, rows};
use crate::device::{DType, Device, FAB_RETREAT, FAB_STEP_L2, FAB_STEP_LINF, FabRetreatArgs, FabStepArgs};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A step from `x` and from `x0` onto the plane where the linearised `df` is 0, a little beyond it, and between the two.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x`, `x0` | `(N, ..)` | |
/// | `w` | as `x` | gradient of `df` at `x` |
/// | `df` | N values | logit of the target less that of the label, at `x` |
/// | ret | as `x` | |
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn step(device: &Device, x: &Tensor, x0: &Tensor, w: &Tensor, df: &[f32], norm: Norm) -> Result<Tensor> {
    let [n, d] = rows("fab_step", x)?;
    alike("fab_step", "clean images", x, x0)?;
    alike("fab_step", "gradient", x, w)?;
    if df.len() != n {
        return Err(Error::shape("fab_step", "differences of logits", n, df.len()));
    }
    let df = Tensor::from_f32(device, &[n], DType::F32, df)?;
    let y = Tensor::uninit(device, x.shape(), DType::F32)?;
    let args = FabStepArgs {
        x: x.address(),
        x0: x0.address(),
        w: w.address(),
        df: df.address(),
        y: y.address(),
        d: d as i32,
        reserved: 0,
    };
    let kernel = if norm == Norm::Linf { &FAB_STEP_LINF } else { &FAB_STEP_L2 };
    device.launch(kernel, [n, 1, 1], &args)?;
    Ok(y)
}

/// A tenth of the way back to the image, for the rows where `back`.
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn retreat(device: &Device, x: &Tensor, x0: &Tensor, back: &[bool]) -> Result<Tensor> {
    let [n, d] = rows("fab_retreat", x)?;
    alike("fab_retreat", "clean images", x, x0)?;
    if back.len() != n {
        return Err(Error::shape("fab_retreat", "choices", n, back.len()));
    }
    let back = Tensor::from_i32(device, &[n], &back.iter().map(|&b| i32::from(b)).collect::<Vec<_>>())?;
    let y = Tensor::uninit(device, x.shape(), DType::F32)?;
    let args = FabRetreatArgs {
        x: x.address(),
        x0: x0.address(),
        back: back.address(),
        y: y.address(),
        d: d as i32,
        chunk: CHUNK as i32,
    };
    device.launch(&FAB_RETREAT, [d.div_ceil(CHUNK), n, 1], &args)?;
    Ok(y)
}
