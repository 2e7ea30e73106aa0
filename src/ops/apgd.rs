//! Auto-PGD's step and start: `kernels/apgd.cu`, whose header has the formulas.
//!
//! Images are `(N, H, W, C)` float32 in `[0, 1]`; each is treated alone, so a result does not depend on its batch.

use super::pgd::{CHUNK, Norm, alike, rows};
use crate::device::{APGD_START, APGD_STEP_L2, APGD_STEP_LINF, ApgdStartArgs, ApgdStepArgs, DType, Device};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Where the images of a batch are.
#[derive(Clone, Copy, Debug)]
pub struct Iterate<'a> {
    pub x: &'a Tensor,
    /// The iterate before `x`, of which the momentum is made.
    pub prev: &'a Tensor,
    pub x0: &'a Tensor,
}

/// One step: along the gradient by `eta`, of which `share` is taken, the rest from the step before.
///
/// | arg | shape |
/// |---|---|
/// | `at`, `g` | `(N, ..)` float32 |
/// | `eta` | N step sizes, in pixel units |
/// | ret | as `at.x` |
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn step(
    device: &Device,
    at: Iterate,
    g: &Tensor,
    eta: &[f32],
    (norm, eps): (Norm, f64),
    share: f32,
) -> Result<Tensor> {
    let [n, d] = rows("apgd_step", at.x)?;
    for (what, other) in [("the iterate before", at.prev), ("clean images", at.x0), ("gradient", g)] {
        alike("apgd_step", what, at.x, other)?;
    }
    if eta.len() != n {
        return Err(Error::shape("apgd_step", "step sizes", n, eta.len()));
    }
    let eta = Tensor::from_f32(device, &[n], DType::F32, eta)?;
    let y = Tensor::uninit(device, at.x.shape(), DType::F32)?;
    let args = ApgdStepArgs {
        x: at.x.address(),
        prev: at.prev.address(),
        x0: at.x0.address(),
        g: g.address(),
        eta: eta.address(),
        y: y.address(),
        d: d as i32,
        chunk: CHUNK as i32,
        eps: eps as f32,
        forward: share,
        back: 1.0 - share,
        reserved: 0,
    };
    match norm {
        Norm::Linf => device.launch(&APGD_STEP_LINF, [d.div_ceil(CHUNK), n, 1], &args)?,
        Norm::L2 => device.launch(&APGD_STEP_L2, [n, 1, 1], &args)?,
    }
    Ok(y)
}

/// A point on the sphere around each image: at least one pixel as far away as `eps` allows in L-inf, all together in L2; then clipped.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x0` | `(N, ..)` | clean images |
/// | `draw` | as `x0` | uniforms in `[0, 1)` for L-inf, standard normals for L2 |
/// | ret | as `x0` | |
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn start(device: &Device, x0: &Tensor, draw: &Tensor, (norm, eps): (Norm, f64)) -> Result<Tensor> {
    let [n, d] = rows("apgd_start", x0)?;
    alike("apgd_start", "draw", x0, draw)?;
    let y = Tensor::uninit(device, x0.shape(), DType::F32)?;
    let args = ApgdStartArgs {
        draw: draw.address(),
        x0: x0.address(),
        y: y.address(),
        d: d as i32,
        l2: i32::from(norm == Norm::L2),
        eps: eps as f32,
        reserved: 0,
    };
    device.launch(&APGD_START, [n, 1, 1], &args)?;
    Ok(y)
}
