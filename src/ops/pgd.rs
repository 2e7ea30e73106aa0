//! What an attack does to images between two gradients: `kernels/pgd.cu`, whose header has the formulas.
//!
//! Images are `(N, H, W, C)` float32 in `[0, 1]`; each is treated alone, so a result does not depend on its batch.

use crate::choice::choice;
use crate::device::{
    DType, Device, GATHER_ROWS, GatherRowsArgs, PGD_BUDGET, PGD_MOMENTUM, PGD_START, PGD_STEP_L2, PGD_STEP_LINF,
    PgdBudgetArgs, PgdMomentumArgs, PgdStartArgs, PgdStepArgs, ROW_DIGEST, RowDigestArgs,
};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Elements that one block of an elementwise kernel takes.
pub(super) const CHUNK: usize = 4096;
/// Rows that one block of `row_digest` takes.
const DIGEST_ROWS: usize = 8;

choice! {
    /// How the size of a perturbation is measured.
    Norm {
        Linf = "linf",
        L2 = "l2",
    }
}

choice! {
    /// Whose arithmetic a step follows. Numbered from 0 as in `kernels/pgd.cu`.
    Profile {
        Native = "native",
        Torchattacks = "torchattacks",
        Foolbox = "foolbox",
        Cleverhans = "cleverhans",
        Art = "art",
    }
}

/// One step of an attack.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Step {
    pub norm: Norm,
    pub profile: Profile,
    pub eps: f64,
    pub size: f64,
    /// Multiplies the gradient first: 1/N for the profiles that average their loss over the batch.
    pub scale: f32,
}

/// What a perturbation costs.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Budget {
    pub linf: f32,
    pub l2: f32,
    /// smallest and largest value of the image
    pub low: f32,
    pub high: f32,
}

impl Budget {
    /// True unless the image lies within `eps` of its original, up to rounding. NaN lies beyond.
    pub fn exceeds(&self, norm: Norm, eps: f64) -> bool {
        let near = match norm {
            Norm::Linf => f64::from(self.linf) <= eps + 1e-6,
            Norm::L2 => f64::from(self.l2) <= eps * (1.0 + 1e-5) + 1e-6,
        };
        !(near && self.l2.is_finite())
    }

    /// True unless the image lies in `[0, 1]` and within `eps` of its original, up to rounding. NaN violates.
    pub fn violates(&self, norm: Norm, eps: f64) -> bool {
        self.exceeds(norm, eps) || !(self.low >= 0.0 && self.high <= 1.0)
    }
}

/// `project(x + size * direction(g))`; `g` is a gradient or, for a momentum attack, the momentum.
///
/// | arg | shape |
/// |---|---|
/// | `x`, `x0`, `g` | `(N, ..)` float32 |
/// | ret | as `x` |
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn step(device: &Device, x: &Tensor, x0: &Tensor, g: &Tensor, s: &Step) -> Result<Tensor> {
    let y = Tensor::uninit(device, x.shape(), DType::F32)?;
    step_into(device, [x, x0, g, &y], s, None)?;
    Ok(y)
}

/// The same into `y`, which may be `x`. Images that are `done`, `(N)` int32, stay where they are.
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn step_into(device: &Device, [x, x0, g, y]: [&Tensor; 4], s: &Step, done: Option<&Tensor>) -> Result<()> {
    let [n, d] = rows("pgd_step", x)?;
    alike("pgd_step", "clean images", x, x0)?;
    alike("pgd_step", "gradient", x, g)?;
    alike("pgd_step", "result", x, y)?;
    if let Some(done) = done {
        of_each("pgd_step", "images that are done", done, n, DType::I32)?;
    }
    let args = PgdStepArgs {
        x: x.address(),
        x0: x0.address(),
        g: g.address(),
        done: done.map_or(0, Tensor::address),
        y: y.address(),
        eps64: s.eps.to_bits(),
        d: d as i32,
        chunk: CHUNK as i32,
        profile: s.profile as i32,
        eps: s.eps as f32,
        step: s.size as f32,
        scale: s.scale,
    };
    match s.norm {
        Norm::Linf => device.launch(&PGD_STEP_LINF, [d.div_ceil(CHUNK), n, 1], &args),
        Norm::L2 => device.launch(&PGD_STEP_L2, [n, 1, 1], &args),
    }
}

/// `decay * m + normalised(g)`, the direction of a momentum attack; no `m` is an `m` of 0.
///
/// | arg | shape |
/// |---|---|
/// | `m`, `g` | `(N, ..)` float32 |
/// | ret | as `g` |
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn momentum(
    device: &Device,
    m: Option<&Tensor>,
    g: &Tensor,
    profile: Profile,
    decay: f64,
    scale: f32,
) -> Result<Tensor> {
    let y = Tensor::uninit(device, g.shape(), DType::F32)?;
    momentum_into(device, m, g, &y, profile, decay, scale)?;
    Ok(y)
}

/// The same where the momentum lies, for work that is captured.
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn momentum_in_place(
    device: &Device,
    m: &Tensor,
    g: &Tensor,
    profile: Profile,
    decay: f64,
    scale: f32,
) -> Result<()> {
    momentum_into(device, Some(m), g, m, profile, decay, scale)
}

fn momentum_into(
    device: &Device,
    m: Option<&Tensor>,
    g: &Tensor,
    y: &Tensor,
    profile: Profile,
    decay: f64,
    scale: f32,
) -> Result<()> {
    let [n, d] = rows("pgd_momentum", g)?;
    if let Some(m) = m {
        alike("pgd_momentum", "momentum", g, m)?;
    }
    let args = PgdMomentumArgs {
        g: g.address(),
        m: m.map_or(0, Tensor::address),
        y: y.address(),
        d: d as i32,
        profile: profile as i32,
        decay: decay as f32,
        scale,
    };
    device.launch(&PGD_MOMENTUM, [n, 1, 1], &args)
}

/// The start of an attack, `clip(x0 + offset)`, from random numbers.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x0` | `(N, ..)` | clean images |
/// | `draw` | as `x0` | uniforms in `[0, 1)`, or standard normals where [`draws_normals`] |
/// | `extra` | N pairs | what the profile takes per image: `kernels/pgd.cu` at `pgd_start` |
/// | ret | as `x0` | |
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn start(
    device: &Device,
    x0: &Tensor,
    draw: &Tensor,
    extra: &[[f32; 2]],
    norm: Norm,
    profile: Profile,
    eps: f64,
) -> Result<Tensor> {
    let [n, d] = rows("pgd_start", x0)?;
    alike("pgd_start", "draw", x0, draw)?;
    let extra = Tensor::from_f32(device, &[n, 2], DType::F32, extra.as_flattened())?;
    let y = Tensor::uninit(device, x0.shape(), DType::F32)?;
    let args = PgdStartArgs {
        draw: draw.address(),
        extra: extra.address(),
        x0: x0.address(),
        y: y.address(),
        eps64: eps.to_bits(),
        d: d as i32,
        profile: profile as i32,
        l2: i32::from(norm == Norm::L2),
        eps: eps as f32,
    };
    device.launch(&PGD_START, [n, 1, 1], &args)?;
    Ok(y)
}

/// Whether [`start`] takes standard normals rather than uniforms.
pub fn draws_normals(norm: Norm, profile: Profile) -> bool {
    norm == Norm::L2 && profile != Profile::Cleverhans
}

/// What each perturbation costs.
///
/// # Errors
/// [`Error::Shape`] when shapes or element types differ.
pub fn budget(device: &Device, x: &Tensor, x0: &Tensor) -> Result<Vec<Budget>> {
    let [n, d] = rows("pgd_budget", x)?;
    alike("pgd_budget", "clean images", x, x0)?;
    let y = Tensor::uninit(device, &[n, 4], DType::F32)?;
    let args = PgdBudgetArgs { x: x.address(), x0: x0.address(), y: y.address(), d: d as i32, reserved: 0 };
    device.launch(&PGD_BUDGET, [n, 1, 1], &args)?;
    let y = y.to_f32(device)?;
    Ok(y.chunks_exact(4).map(|v| Budget { linf: v[0], l2: v[1], low: v[2], high: v[3] }).collect())
}

/// Row n is `a[index[n]]`, or `b[n]` where the index is `None`: picks rows, and puts rows back into a larger tensor.
///
/// | arg | shape |
/// |---|---|
/// | `a` | `(any, ..)` float32 |
/// | `b` | `(N, ..)`, needed only where an index is `None` |
/// | ret | `(N, ..)` |
///
/// # Errors
/// [`Error::Shape`] when rows differ in shape, an index is out of range, or `b` is missing.
pub fn gather(device: &Device, a: &Tensor, index: &[Option<usize>], b: Option<&Tensor>) -> Result<Tensor> {
    let [have, d] = rows("gather_rows", a)?;
    let n = index.len();
    if let Some(b) = b
        .filter(|b| b.shape().first() != Some(&n) || b.shape().get(1..) != a.shape().get(1..) || b.dtype() != a.dtype())
    {
        return Err(Error::shape(
            "gather_rows",
            "rows to fall back on",
            format!("{n} rows like {a:?}"),
            format!("{b:?}"),
        ));
    }
    if let Some(bad) = index.iter().find(|i| i.map_or(b.is_none(), |i| i >= have)) {
        return Err(Error::shape("gather_rows", "index", format!("below {have}"), format!("{bad:?}")));
    }
    let index: Vec<i32> = index.iter().map(|i| i.map_or(-1, |i| i as i32)).collect();
    let index = Tensor::from_i32(device, &[n], &index)?;
    let mut shape = a.shape().to_vec();
    shape[0] = n;
    let y = Tensor::uninit(device, &shape, DType::F32)?;
    let args = GatherRowsArgs {
        a: a.address(),
        b: b.map_or(0, Tensor::address),
        index: index.address(),
        y: y.address(),
        d: d as i32,
        chunk: CHUNK as i32,
    };
    device.launch(&GATHER_ROWS, [d.div_ceil(CHUNK), n, 1], &args)?;
    Ok(y)
}

/// 128 bits of each row `(N, ..)`: rows that differ in a bit have different ones, but for a chance of about 2^-128 a pair. The same on
/// every device.
///
/// # Errors
/// [`Error::Shape`] for another element type than float32.
pub fn digest(device: &Device, x: &Tensor) -> Result<Vec<u128>> {
    let y = Tensor::uninit(device, &[rows("row_digest", x)?[0], 4], DType::I32)?;
    digest_into(device, x, &y)?;
    Ok(digests(&y.to_i32(device)?))
}

/// The same left on the device, in `y`, `(N, 4)` int32.
pub(super) fn digest_into(device: &Device, x: &Tensor, y: &Tensor) -> Result<()> {
    let [n, d] = rows("row_digest", x)?;
    of_each("row_digest", "words", y, 4 * n, DType::I32)?;
    let args = RowDigestArgs { x: x.address(), y: y.address(), n: n as i32, d: d as i32 };
    device.launch(&ROW_DIGEST, [n.div_ceil(DIGEST_ROWS), 1, 1], &args)
}

/// Digests from their words.
pub(super) fn digests(words: &[i32]) -> Vec<u128> {
    let joined = |words: &[i32]| words.iter().rev().fold(0, |all, &word| all << 32 | u128::from(word as u32));
    words.chunks_exact(4).map(joined).collect()
}

/// Whether `x` holds `len` values of this type.
pub(super) fn of_each(op: &'static str, what: &str, x: &Tensor, len: usize, dtype: DType) -> Result<()> {
    if x.len() == len && x.dtype() == dtype {
        return Ok(());
    }
    Err(Error::shape(op, what, format!("{len} of {dtype:?}"), format!("{x:?}")))
}

/// Rows and their length.
pub(super) fn rows(op: &'static str, x: &Tensor) -> Result<[usize; 2]> {
    match x.shape() {
        [n, rest @ ..] if x.dtype() == DType::F32 => Ok([*n, rest.iter().product()]),
        _ => Err(Error::shape(op, "images", "(N, ..) of F32", format!("{x:?}"))),
    }
}

pub(super) fn alike(op: &'static str, what: &str, x: &Tensor, other: &Tensor) -> Result<()> {
    if x.shape() == other.shape() && other.dtype() == DType::F32 {
        return Ok(());
    }
    Err(Error::shape(op, what, format!("{x:?}"), format!("{other:?}")))
}
