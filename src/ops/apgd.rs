//! Auto-PGD's step, start and memory: `kernels/apgd.cu`, whose header has the formulas.
//!
//! Images are `(N, H, W, C)` float32 in `[0, 1]`; each is treated alone, so a result does not depend on its batch.

use super::pgd::{CHUNK, Norm, alike, of_each, rows};
use crate::device::{
    APGD_LOOK, APGD_START, APGD_STEP_L2, APGD_STEP_LINF, ApgdImage, ApgdLookArgs, ApgdStartArgs, ApgdStepArgs, DType,
    Device,
};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Words that are remembered of an image.
const WORDS: usize = size_of::<ApgdImage>() / 4;

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
pub fn step(device: &Device, at: Iterate, g: &Tensor, eta: &[f32], budget: (Norm, f64), share: f32) -> Result<Tensor> {
    let [n, _] = rows("apgd_step", at.x)?;
    if eta.len() != n {
        return Err(Error::shape("apgd_step", "step sizes", n, eta.len()));
    }
    let image = |&eta: &f32| ApgdImage { eta, share, ..bytemuck::Zeroable::zeroed() };
    let images: Vec<ApgdImage> = eta.iter().map(image).collect();
    let images = Tensor::from_f32(device, &[n, WORDS], DType::F32, bytemuck::cast_slice(&images))?;
    let y = Tensor::uninit(device, at.x.shape(), DType::F32)?;
    launch(device, at, g, (&images, None), budget, &y)?;
    Ok(y)
}

/// A step with the images and, where there is one, the memory of points that it keeps.
fn launch(
    device: &Device,
    at: Iterate,
    g: &Tensor,
    (images, memory): (&Tensor, Option<&Memory>),
    (norm, eps): (Norm, f64),
    y: &Tensor,
) -> Result<()> {
    let [n, d] = rows("apgd_step", at.x)?;
    for (what, other) in [("the iterate before", at.prev), ("clean images", at.x0), ("gradient", g), ("result", y)] {
        alike("apgd_step", what, at.x, other)?;
    }
    let address = |of: fn(&Memory) -> &Tensor| memory.map_or(0, |memory| of(memory).address());
    let args = ApgdStepArgs {
        x: at.x.address(),
        prev: at.prev.address(),
        x0: at.x0.address(),
        g: g.address(),
        images: images.address(),
        best: address(|memory| &memory.best),
        best_g: address(|memory| &memory.best_gradient),
        left: address(|memory| &memory.prev),
        y: y.address(),
        d: d as i32,
        chunk: CHUNK as i32,
        eps: eps as f32,
        reserved: 0,
    };
    match norm {
        Norm::Linf => device.launch(&APGD_STEP_LINF, [d.div_ceil(CHUNK), n, 1], &args),
        Norm::L2 => device.launch(&APGD_STEP_L2, [n, 1, 1], &args),
    }
}

/// How a run goes about its steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    pub norm: Norm,
    pub eps: f64,
    /// After each step how many are looked back at; 0 where none are.
    pub windows: Vec<i32>,
    /// The share of a step but the first that goes along the gradient.
    pub share: f32,
}

/// What is remembered of N images between steps, on the device: step sizes, losses, the points before and the best, with its gradient.
#[derive(Clone)]
pub struct Memory {
    /// `(N, WORDS)`, each row an [`ApgdImage`], and `(N, steps)` of losses
    images: Tensor,
    losses: Tensor,
    prev: Tensor,
    best: Tensor,
    best_gradient: Tensor,
    windows: Tensor,
}

impl Memory {
    /// Of images that start at `x`, `(N, ..)` float32.
    ///
    /// # Errors
    /// [`Error::Shape`] for images that are not float32, [`Error::Device`] when the device is out of memory.
    pub fn new(device: &Device, x: &Tensor, course: &Course) -> Result<Self> {
        let [n, _] = rows("apgd", x)?;
        let cleared = |shape: &[usize]| {
            let t = Tensor::uninit(device, shape, DType::F32)?;
            t.clear(device)?;
            Ok::<_, Error>(t)
        };
        Ok(Memory {
            images: cleared(&[n, WORDS])?,
            losses: cleared(&[n, course.windows.len()])?,
            prev: x.copied(device)?,
            best: cleared(x.shape())?,
            best_gradient: cleared(x.shape())?,
            windows: Tensor::constant(
                device,
                &[course.windows.len()],
                DType::I32,
                bytemuck::cast_slice(&course.windows),
            )?,
        })
    }

    /// Of some of the images: `pick` takes their rows.
    ///
    /// # Errors
    /// What `pick` returns.
    pub fn of(&self, pick: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Memory {
            images: pick(&self.images)?,
            losses: pick(&self.losses)?,
            prev: pick(&self.prev)?,
            best: pick(&self.best)?,
            best_gradient: pick(&self.best_gradient)?,
            windows: self.windows.clone(),
        })
    }

    /// Takes in the losses at `x`, `(N)` float32, and steps on into `y`, which may be `x`: from there along `g`, or from the best point
    /// along its gradient.
    ///
    /// # Errors
    /// [`Error::Shape`] when shapes or element types differ.
    pub fn step(
        &self,
        device: &Device,
        course: &Course,
        (x, x0, y): (&Tensor, &Tensor, &Tensor),
        loss: &Tensor,
        g: &Tensor,
    ) -> Result<()> {
        let [n, _] = rows("apgd_look", x)?;
        of_each("apgd_look", "losses", loss, n, DType::F32)?;
        alike("apgd_look", "images before", x, &self.prev)?;
        let look = ApgdLookArgs {
            loss: loss.address(),
            windows: self.windows.address(),
            images: self.images.address(),
            losses: self.losses.address(),
            steps: course.windows.len() as i32,
            eta: (2.0 * course.eps) as f32,
            share: course.share,
            reserved: 0,
        };
        device.launch(&APGD_LOOK, [n, 1, 1], &look)?;
        let at = Iterate { x, prev: &self.prev, x0 };
        launch(device, at, g, (&self.images, Some(self)), (course.norm, course.eps), y)
    }
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
