//! Noising, the one-shot estimate, and joining channels: `kernels/diffusion.cu`.

use super::pointwise::{cast, rows_per_block};
use crate::device::{
    CONCAT_BF16, CONCAT_F32, ConcatArgs, DENOISE_BF16, DENOISE_F32, DENOISE_GRAD_BF16, DENOISE_GRAD_F32, DType,
    DenoiseArgs, DenoiseGradArgs, Q_SAMPLE, Q_SAMPLE_GRAD, QSampleArgs, QSampleGradArgs, SPLIT_BF16, SPLIT_F32,
    SplitArgs,
};
use crate::tape::{Graph, Slot};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Values that one block takes.
const CHUNK: usize = 16384;

/// A map of values: `x * mul + add`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Range {
    pub mul: f32,
    pub add: f32,
}

impl Range {
    pub const SAME: Range = Range { mul: 1.0, add: 0.0 };
    /// `[0, 1]` to `[-1, 1]`
    pub const TO_SIGNED: Range = Range { mul: 2.0, add: -1.0 };
    /// `[-1, 1]` to `[0, 1]`
    pub const TO_UNIT: Range = Range { mul: 0.5, add: 0.5 };
}

/// `x_t = k * u + s * noise` with `u` the image after `range`; several draws of an image are rows r, r + N, ...
///
/// | arg | shape | |
/// |---|---|---|
/// | `x` | `(N, H, W, C)` | float32 |
/// | `noise` | `(draws * N, H, W, C)` | float32 |
/// | `coefficients` | `(draws * N)` | `[k, s]`, `sqrt(ab)` and `sqrt(1 - ab)` |
/// | ret | `(draws * N, H, W, C)` | float32 |
///
/// Source: Ho et al. 2020.
///
/// # Errors
/// [`Error::Shape`] when shapes disagree.
pub fn q_sample(g: &Graph, x: &Tensor, noise: &Tensor, coefficients: &[[f32; 2]], range: Range) -> Result<Tensor> {
    let [n, h, w, c] = x.dims4("q_sample")?;
    let [rows, ..] = noise.dims4("q_sample")?;
    if noise.shape()[1..] != x.shape()[1..] || n == 0 || rows == 0 || !rows.is_multiple_of(n) {
        let want = format!("a multiple of {n} images {:?}", &x.shape()[1..]);
        return Err(Error::shape("q_sample", "noise", want, format!("{:?}", noise.shape())));
    }
    g.floats("q_sample", "images", x)?;
    g.floats("q_sample", "noise", noise)?;
    if coefficients.len() != rows {
        return Err(Error::shape("q_sample", "coefficients", rows, coefficients.len()));
    }
    if x.dtype() != DType::F32 || noise.dtype() != DType::F32 {
        return Err(Error::shape("q_sample", "operands", "F32", format!("{x:?}, {noise:?}")));
    }
    let coefficients =
        Tensor::from_f32(g.device(), &[rows, 2], DType::F32, bytemuck::cast_slice::<[f32; 2], f32>(coefficients))?;
    let (d, y) = (h * w * c, Tensor::uninit(g.device(), noise.shape(), DType::F32)?);
    let args = QSampleArgs {
        x: x.address(),
        noise: noise.address(),
        coefficients: coefficients.address(),
        y: y.address(),
        mul: range.mul,
        add: range.add,
        n: n as i32,
        d: d as i32,
        chunk: CHUNK as i32,
        reserved: 0,
    };
    g.launch(&Q_SAMPLE, [d.div_ceil(CHUNK), rows, 1], &args)?;

    let x_in = x.outline();
    g.record("q_sample gradient", &[x], &y, move |g, dy, grads| {
        let dx = Tensor::uninit(g.device(), x_in.shape(), DType::F32)?;
        let args = QSampleGradArgs {
            dy: dy.address(),
            coefficients: coefficients.address(),
            dx: dx.address(),
            mul: range.mul,
            n: n as i32,
            d: d as i32,
            draws: (rows / n) as i32,
            chunk: CHUNK as i32,
            reserved: 0,
        };
        g.launch(&Q_SAMPLE_GRAD, [d.div_ceil(CHUNK), n, 1], &args)?;
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}

/// The sum over draws of `(draws * N, H, W, C)`, float32: `(N, H, W, C)`. Records nothing.
///
/// # Errors
/// [`Error::Shape`] when the rows are no multiple of `n`.
pub(crate) fn sum_draws(g: &Graph, x: &Tensor, n: usize) -> Result<Tensor> {
    let [rows, h, w, c] = x.dims4("sum_draws")?;
    if x.dtype() != DType::F32 {
        return Err(Error::shape("sum_draws", "operand", "F32", format!("{x:?}")));
    }
    if n == 0 || !rows.is_multiple_of(n) {
        return Err(Error::shape("sum_draws", "rows", format!("a multiple of {n}"), rows));
    }
    let d = h * w * c;
    let ones = Tensor::from_f32(g.device(), &[rows, 2], DType::F32, &vec![1.0; 2 * rows])?;
    let y = Tensor::uninit(g.device(), &[n, h, w, c], DType::F32)?;
    let args = QSampleGradArgs {
        dy: x.address(),
        coefficients: ones.address(),
        dx: y.address(),
        mul: 1.0,
        n: n as i32,
        d: d as i32,
        draws: (rows / n) as i32,
        chunk: CHUNK as i32,
        reserved: 0,
    };
    g.launch(&Q_SAMPLE_GRAD, [d.div_ceil(CHUNK), n, 1], &args)?;
    Ok(y)
}

/// Float32 values in the graph's precision, for a network; the gradient returns as float32.
///
/// # Errors
/// What the launch returns.
pub fn to_precision(g: &Graph, x: &Tensor) -> Result<Tensor> {
    if g.dtype() == x.dtype() {
        return Ok(x.clone());
    }
    let y = cast(g, x, g.dtype())?;
    let x_in = x.outline();
    g.record("cast gradient", &[x], &y, move |g, dy, grads| {
        let dx = cast(g, dy, x_in.dtype())?;
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}

/// What turns a noisy image and its predicted noise into an estimate: `sqrt(1/ab)` and `sqrt(1/ab - 1)`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Estimate {
    pub x_t: f32,
    pub noise: f32,
    /// Where the estimate is clipped: whether its gradient passes all the same (a straight-through estimator).
    pub straight: bool,
}

/// `y = clip(p * x_t - q * noise, -1, 1)` after `range`.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x_t` | `(N, H, W, C)` | float32 |
/// | `noise` | `(N, H, W, C)` | the network's output, in the graph's precision |
/// | ret | `(N, H, W, C)` | float32 |
///
/// With gradients on, keeps both operands by reference.
///
/// # Errors
/// [`Error::Shape`] when shapes or formats disagree.
pub fn denoise(g: &Graph, x_t: &Tensor, noise: &Tensor, estimate: Estimate, range: Range) -> Result<Tensor> {
    g.floats("denoise", "images", x_t)?;
    g.floats("denoise", "predicted noise", noise)?;
    if x_t.shape() != noise.shape() || x_t.dtype() != DType::F32 || noise.dtype() != g.dtype() {
        let want = format!("{:?}{:?} beside F32", g.dtype(), x_t.shape());
        return Err(Error::shape("denoise", "predicted noise", want, format!("{noise:?} beside {:?}", x_t.dtype())));
    }
    let y = Tensor::uninit(g.device(), x_t.shape(), DType::F32)?;
    let n = x_t.len();
    let args = DenoiseArgs {
        x_t: x_t.address(),
        noise: noise.address(),
        y: y.address(),
        n: n as i64,
        x_t_factor: estimate.x_t,
        noise_factor: estimate.noise,
        mul: range.mul,
        add: range.add,
        per_block: CHUNK as i32,
        reserved: 0,
    };
    let bf16 = g.dtype() == DType::BF16;
    g.launch(if bf16 { &DENOISE_BF16 } else { &DENOISE_F32 }, [n.div_ceil(CHUNK), 1, 1], &args)?;

    let (x_in, noise_in) = (x_t.clone(), noise.clone());
    g.record("denoise gradient", &[x_t, noise], &y, move |g, dy, grads| {
        let dx_t = Tensor::uninit(g.device(), x_in.shape(), DType::F32)?;
        let dnoise = g.uninit(x_in.shape())?;
        let args = DenoiseGradArgs {
            x_t: x_in.address(),
            noise: noise_in.address(),
            dy: dy.address(),
            dx_t: dx_t.address(),
            dnoise: dnoise.address(),
            n: n as i64,
            x_t_factor: estimate.x_t,
            noise_factor: estimate.noise,
            mul: range.mul,
            straight: i32::from(estimate.straight),
            per_block: CHUNK as i32,
            reserved: 0,
        };
        let bf16 = g.dtype() == DType::BF16;
        g.launch(if bf16 { &DENOISE_GRAD_BF16 } else { &DENOISE_GRAD_F32 }, [n.div_ceil(CHUNK), 1, 1], &args)?;
        grads.add(g, &x_in, dx_t)?;
        grads.add(g, &noise_in, dnoise)
    });
    Ok(y)
}

/// `(a, b)` along the channels.
///
/// | arg | shape |
/// |---|---|
/// | `a` | `(N, H, W, A)` |
/// | `b` | `(N, H, W, B)` |
/// | ret | `(N, H, W, A + B)` |
///
/// # Errors
/// [`Error::Shape`] when the images differ in size.
pub fn concat_channels(g: &Graph, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ([n, h, w, c_a], [.., c_b]) = (g.dims4("concat_channels", a)?, g.dims4("concat_channels", b)?);
    if a.shape()[..3] != b.shape()[..3] {
        let want = format!("{:?}", &a.shape()[..3]);
        return Err(Error::shape("concat_channels", "second operand", want, format!("{:?}", b.shape())));
    }
    let (rows, per_block) = (n * h * w, rows_per_block(c_a + c_b));
    let y = g.uninit(&[n, h, w, c_a + c_b])?;
    let args = ConcatArgs {
        a: a.address(),
        b: b.address(),
        y: y.address(),
        rows: rows as i64,
        c_a: c_a as i32,
        c_b: c_b as i32,
        rows_per_block: per_block as i32,
        reserved: 0,
    };
    let kernel = if g.dtype() == DType::BF16 { &CONCAT_BF16 } else { &CONCAT_F32 };
    g.launch(kernel, [rows.div_ceil(per_block), 1, 1], &args)?;

    let (a_in, b_in) = (a.outline(), b.outline());
    g.record("concat_channels gradient", &[a, b], &y, move |g, dy, grads| {
        for (x, first) in [(&a_in, 0), (&b_in, c_a)] {
            let slot = grads.slot(x);
            let dx = columns(g, dy, first, x.shape(), &slot)?;
            grads.put(x, dx);
        }
        Ok(())
    });
    Ok(y)
}

/// Channels of `y` from `first` on, as a tensor of `shape`.
fn columns(g: &Graph, y: &Tensor, first: usize, shape: &[usize], slot: &Slot) -> Result<Tensor> {
    let (x, count) = (g.uninit(shape)?, shape[3]);
    let [n, h, w, c] = y.dims4("concat_channels")?;
    let (rows, per_block) = (n * h * w, rows_per_block(count));
    let args = SplitArgs {
        y: y.address(),
        residual: slot.residual_address(),
        keep: slot.keep_address(),
        x: x.address(),
        rows: rows as i64,
        c: c as i32,
        first: first as i32,
        count: count as i32,
        rows_per_block: per_block as i32,
    };
    let kernel = if g.dtype() == DType::BF16 { &SPLIT_BF16 } else { &SPLIT_F32 };
    g.launch(kernel, [rows.div_ceil(per_block), 1, 1], &args)?;
    Ok(x)
}
