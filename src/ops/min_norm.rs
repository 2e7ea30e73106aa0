//! The step of attacks that look for the smallest perturbation: `kernels/min_norm.cu`, whose header has the formulas.
//!
//! Images are `(N, H, W, C)` float32 in `[0, 1]`; each is treated alone, so a result does not depend on its batch.

use super::pgd::{Norm, alike, rows};
use crate::device::{DDN_STEP, DType, Device, FMN_STEP_L2, FMN_STEP_LINF, MinNormStepArgs};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What a step ends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Onto {
    /// The sphere of its radius, in L2, before the box is minded (DDN).
    Sphere,
    /// The ball of its radius (FMN).
    Ball(Norm),
}

/// What a step says of an image.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Told {
    /// The radius gone to: at most that of the box.
    pub radius: f32,
    /// L2 norm of the gradient.
    pub gradient: f32,
}

/// A step along each gradient, and back within each image's radius.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x`, `x0`, `g` | `(N, ..)` | points, clean images, gradients of the loss that is raised |
/// | `radii` | N pairs | radius; how much the loss lacks to the boundary, which adds this over the gradient's dual norm; 0 adds nothing |
/// | ret | as `x`, N values | |
///
/// `size` is in L2, in either norm.
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn step(
    device: &Device,
    [x, x0, g]: [&Tensor; 3],
    radii: &[[f32; 2]],
    size: f32,
    onto: Onto,
) -> Result<(Tensor, Vec<Told>)> {
    let [n, d] = rows("min_norm_step", x)?;
    alike("min_norm_step", "clean images", x, x0)?;
    alike("min_norm_step", "gradient", x, g)?;
    if radii.len() != n {
        return Err(Error::shape("min_norm_step", "radii", n, radii.len()));
    }
    let radii = Tensor::from_f32(device, &[n, 2], DType::F32, radii.as_flattened())?;
    let y = Tensor::uninit(device, x.shape(), DType::F32)?;
    let told = Tensor::uninit(device, &[n, 2], DType::F32)?;
    let args = MinNormStepArgs {
        x: x.address(),
        x0: x0.address(),
        g: g.address(),
        rows: radii.address(),
        y: y.address(),
        told: told.address(),
        d: d as i32,
        step: size,
    };
    let kernel = match onto {
        Onto::Sphere => &DDN_STEP,
        Onto::Ball(Norm::L2) => &FMN_STEP_L2,
        Onto::Ball(Norm::Linf) => &FMN_STEP_LINF,
    };
    device.launch(kernel, [n, 1, 1], &args)?;
    let told = told.to_f32(device)?;
    Ok((y, told.as_chunks().0.iter().map(|&[radius, gradient]| Told { radius, gradient }).collect()))
}

/// How far the boundary of each image is by its gradient, in `norm`: what the loss lacks to it, `gaps`, over the gradient's dual norm. At most
/// the way to the farthest corner of the box.
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn distance(device: &Device, x: &Tensor, g: &Tensor, gaps: &[f32], norm: Norm) -> Result<Vec<f32>> {
    let rows: Vec<[f32; 2]> = gaps.iter().map(|&gap| [0.0, gap]).collect();
    let (_, told) = step(device, [x, x, g], &rows, 0.0, Onto::Ball(norm))?;
    Ok(told.into_iter().map(|told| told.radius).collect())
}
