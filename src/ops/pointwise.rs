//! Elementwise ops: `kernels/pointwise.cu`.

use std::sync::Arc;

use crate::device::{
    ACCUMULATE_BF16, ACCUMULATE_F32, ACTIVATION_BF16, ACTIVATION_F32, ACTIVATION_GRAD_BF16, ACTIVATION_GRAD_F32,
    AFFINE_ACTIVATION_BF16, AFFINE_ACTIVATION_F32, AFFINE_BF16, AFFINE_F32, AccumulateArgs, ActivationArgs,
    ActivationGradArgs, AffineActivationArgs, AffineArgs, CAST_BF16, CAST_F32, CastArgs, DType, Device, NORMALIZE_BF16,
    NORMALIZE_F32, NORMALIZE_GRAD_BF16, NORMALIZE_GRAD_F32, NormalizeArgs, SOFTMAX_BF16, SOFTMAX_F32,
    SOFTMAX_GRAD_BF16, SOFTMAX_GRAD_F32, SoftmaxArgs, SoftmaxGradArgs, TRANSPOSE_BF16, TRANSPOSE_F32, TransposeArgs,
};
use crate::tape::{Graph, Slot, mask_shape};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Pointwise activation. Numbers agree with `kernels/activation.cuh`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(i32)]
pub enum Activation {
    #[default]
    None = 0,
    Relu = 1,
    Silu = 2,
    /// `x/2 * (1 + erf(x / sqrt 2))`
    Gelu = 3,
    /// The tanh form.
    GeluTanh = 4,
    Sigmoid = 5,
    Tanh = 6,
}

impl Activation {
    /// By the name that dumps and graphs give it.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "relu" => Activation::Relu,
            "silu" => Activation::Silu,
            "gelu" => Activation::Gelu,
            "gelu_tanh" => Activation::GeluTanh,
            "sigmoid" => Activation::Sigmoid,
            "tanh" => Activation::Tanh,
            _ => return None,
        })
    }
}

/// Values that one block of an elementwise kernel takes.
const CHUNK: usize = 16384;

/// How many rows of `c` values one block of an elementwise kernel takes.
pub(crate) fn rows_per_block(c: usize) -> usize {
    (CHUNK / c.max(1)).max(1)
}

/// A tensor `(..., C)` as rows of its last dimension.
fn rows_of(x: &Tensor) -> (usize, usize) {
    let c = x.shape().last().copied().unwrap_or(1);
    (x.len() / c.max(1), c)
}

/// `(a + b)`, zeroed where `keep` has a 0 bit; `b` and `keep` are optional. All of shape `(..., C)`.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ; what the launch returns.
pub(crate) fn accumulate(g: &Graph, a: &Tensor, b: Option<&Tensor>, keep: Option<&Tensor>) -> Result<Tensor> {
    let (rows, c) = rows_of(a);
    g.floats("accumulate", "first operand", a)?;
    // The same values under other dimensions add up as well.
    if let Some(b) = b.filter(|b| b.len() != a.len() || b.dtype() != a.dtype() || !b.is_of(g.device())) {
        return Err(Error::shape("accumulate", "second operand", format!("{a:?}"), format!("{b:?}")));
    }
    let bytes: usize = mask_shape(a.shape()).iter().product();
    if let Some(keep) = keep.filter(|k| k.len() != bytes || k.dtype() != DType::U8) {
        return Err(Error::shape("accumulate", "mask", format!("U8{:?}", mask_shape(a.shape())), format!("{keep:?}")));
    }
    let y = Tensor::uninit(g.device(), a.shape(), a.dtype())?;
    let args = AccumulateArgs {
        a: a.address(),
        b: b.map_or(0, Tensor::address),
        keep: keep.map_or(0, Tensor::address),
        y: y.address(),
        rows: rows as i64,
        c: c as i32,
        rows_per_block: rows_per_block(c) as i32,
    };
    let kernel = if a.dtype() == DType::BF16 { &ACCUMULATE_BF16 } else { &ACCUMULATE_F32 };
    g.launch(kernel, [rows.div_ceil(rows_per_block(c)), 1, 1], &args)?;
    Ok(y)
}

/// `y = a + b`.
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn add(g: &Graph, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.shape() != b.shape() || a.dtype() != b.dtype() {
        return Err(Error::shape("add", "second operand", format!("{a:?}"), format!("{b:?}")));
    }
    let y = accumulate(g, a, Some(b), None)?;
    let (a_in, b_in) = (a.outline(), b.outline());
    g.record("add gradient", &[a, b], &y, move |g, dy, grads| {
        grads.add(g, &a_in, dy.clone())?;
        grads.add(g, &b_in, dy.clone())
    });
    Ok(y)
}

/// `y = act(x)` for `x` of any shape `(..., C)`.
///
/// With gradients on, a ReLU keeps one bit per value, the others `x` by reference.
///
/// # Errors
/// [`Error::Shape`] for values that are no floats.
pub fn activation(g: &Graph, x: &Tensor, act: Activation) -> Result<Tensor> {
    g.floats("activation", "input", x)?;
    let (rows, c) = rows_of(x);
    let positive = (g.records() && act == Activation::Relu).then(|| g.uninit_mask(rows, c)).transpose()?;
    let y = Tensor::uninit(g.device(), x.shape(), x.dtype())?;
    let args = ActivationArgs {
        x: x.address(),
        y: y.address(),
        positive: positive.as_ref().map_or(0, Tensor::address),
        rows: rows as i64,
        c: c as i32,
        rows_per_block: rows_per_block(c) as i32,
        act: act as i32,
        reserved: 0,
    };
    let kernel = if x.dtype() == DType::BF16 { &ACTIVATION_BF16 } else { &ACTIVATION_F32 };
    g.launch(kernel, [rows.div_ceil(rows_per_block(c)), 1, 1], &args)?;

    if let Some(bits) = positive {
        g.mask(&y, bits);
    }
    // The tape applies the mask of a ReLU.
    let (x_id, curved) = (x.id(), (!matches!(act, Activation::None | Activation::Relu)).then(|| x.clone()));
    g.record("activation gradient", &[x], &y, move |g, dy, grads| {
        let Some(x) = &curved else { return grads.add(g, x_id, dy.clone()) };
        let slot = grads.slot(x_id);
        let dx = activation_gradient(g, x, dy, &slot, act)?;
        grads.put(x_id, dx);
        Ok(())
    });
    Ok(y)
}

fn activation_gradient(g: &Graph, x: &Tensor, dy: &Tensor, slot: &Slot, act: Activation) -> Result<Tensor> {
    let (rows, c) = rows_of(x);
    let dx = Tensor::uninit(g.device(), x.shape(), x.dtype())?;
    let args = ActivationGradArgs {
        x: x.address(),
        dy: dy.address(),
        residual: slot.residual_address(),
        keep: slot.keep_address(),
        dx: dx.address(),
        rows: rows as i64,
        c: c as i32,
        rows_per_block: rows_per_block(c) as i32,
        act: act as i32,
        reserved: 0,
    };
    let kernel = if x.dtype() == DType::BF16 { &ACTIVATION_GRAD_BF16 } else { &ACTIVATION_GRAD_F32 };
    g.launch(kernel, [rows.div_ceil(rows_per_block(c)), 1, 1], &args)?;
    Ok(dx)
}

/// The constants of [`affine`], float32 on a device.
pub struct Affine {
    scale: Tensor,
    bias: Tensor,
}

impl Affine {
    /// A scale and a bias per channel, such as a batch norm folded by `fold_batch_norm`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the lengths differ.
    pub fn new(device: &Device, scale: &[f32], bias: &[f32]) -> Result<Self> {
        if bias.len() != scale.len() {
            return Err(Error::shape("affine", "biases", scale.len(), bias.len()));
        }
        let upload = |values: &[f32]| Tensor::from_f32(device, &[values.len()], DType::F32, values);
        Ok(Affine { scale: upload(scale)?, bias: upload(bias)? })
    }
}

/// `y[.., c] = x[.., c] * scale[c] + bias[c]`: batch norm with fixed statistics.
///
/// # Errors
/// [`Error::Shape`] when the channels are not those of the constants.
pub fn affine(g: &Graph, x: &Tensor, constants: &Arc<Affine>) -> Result<Tensor> {
    let (_, c) = rows_of(x);
    g.floats("affine", "input", x)?;
    if c != constants.scale.len() {
        return Err(Error::shape("affine", "channels", constants.scale.len(), c));
    }
    let none = Slot { residual: None, keep: None };
    let y = scale(g, x, &constants.scale, Some(&constants.bias), &none)?;
    let (x_in, constants) = (x.outline(), constants.clone());
    g.record("affine gradient", &[x], &y, move |g, dy, grads| {
        let slot = grads.slot(&x_in);
        let dx = scale(g, dy, &constants.scale, None, &slot)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    Ok(y)
}

/// `y[.., c] = act(x[.., c] * scale[c] + bias[c])`: batch norm with fixed statistics and its activation in one pass.
///
/// Keeps `x` by reference.
///
/// # Errors
/// [`Error::Shape`] when the channels are not those of the constants.
pub fn affine_activation(g: &Graph, x: &Tensor, constants: &Arc<Affine>, act: Activation) -> Result<Tensor> {
    let (rows, c) = rows_of(x);
    g.floats("affine_activation", "input", x)?;
    if c != constants.scale.len() {
        return Err(Error::shape("affine_activation", "channels", constants.scale.len(), c));
    }
    let launch = move |g: &Graph, x: &Tensor, dy: Option<&Tensor>, constants: &Affine, slot: &Slot| -> Result<Tensor> {
        let y = Tensor::uninit(g.device(), x.shape(), x.dtype())?;
        let args = AffineActivationArgs {
            x: x.address(),
            dy: dy.map_or(0, Tensor::address),
            scale: constants.scale.address(),
            bias: constants.bias.address(),
            residual: slot.residual_address(),
            keep: slot.keep_address(),
            y: y.address(),
            rows: rows as i64,
            c: c as i32,
            rows_per_block: rows_per_block(c) as i32,
            act: act as i32,
            reserved: 0,
        };
        let kernel = if x.dtype() == DType::BF16 { &AFFINE_ACTIVATION_BF16 } else { &AFFINE_ACTIVATION_F32 };
        g.launch(kernel, [rows.div_ceil(rows_per_block(c)), 1, 1], &args)?;
        Ok(y)
    };
    let y = launch(g, x, None, constants, &Slot { residual: None, keep: None })?;
    let (x_in, constants) = (x.clone(), constants.clone());
    g.record("affine_activation gradient", &[x], &y, move |g, dy, grads| {
        let slot = grads.slot(&x_in);
        let dx = launch(g, &x_in, Some(dy), &constants, &slot)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    Ok(y)
}

fn scale(g: &Graph, x: &Tensor, scale: &Tensor, bias: Option<&Tensor>, slot: &Slot) -> Result<Tensor> {
    let (rows, c) = rows_of(x);
    let y = Tensor::uninit(g.device(), x.shape(), x.dtype())?;
    let args = AffineArgs {
        x: x.address(),
        scale: scale.address(),
        bias: bias.map_or(0, Tensor::address),
        residual: slot.residual_address(),
        keep: slot.keep_address(),
        y: y.address(),
        rows: rows as i64,
        c: c as i32,
        rows_per_block: rows_per_block(c) as i32,
    };
    let kernel = if x.dtype() == DType::BF16 { &AFFINE_BF16 } else { &AFFINE_F32 };
    g.launch(kernel, [rows.div_ceil(rows_per_block(c)), 1, 1], &args)?;
    Ok(y)
}

/// Images in `[0, 1]` as a classifier wants them: `y = (x - mean[c]) / std[c]`, in the graph's precision.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x` | `(N, H, W, C)` | float32, as is its gradient |
/// | `mean`, `std` | `(C)` | |
/// | ret | `(N, H, W, C)` | |
///
/// # Errors
/// [`Error::Shape`] when the channels are not those of the constants or `x` is not float32.
pub fn normalize_images(g: &Graph, x: &Tensor, mean: &[f32], std: &[f32]) -> Result<Tensor> {
    let [.., c] = x.dims4("normalize_images")?;
    g.floats("normalize_images", "images", x)?;
    if (mean.len(), std.len()) != (c, c) || x.dtype() != DType::F32 {
        let channels = mean.len();
        return Err(Error::shape(
            "normalize_images",
            "images",
            format!("F32 with {channels} channels"),
            format!("{x:?}"),
        ));
    }
    /// The longest run of lanes of any target: a row of the tables is whole runs.
    const LANES: usize = 16;
    let period = c * LANES;
    let table = |v: &[f32]| Tensor::constant(g.device(), &[period], DType::F32, bytemuck::cast_slice(&v.repeat(LANES)));
    let (mean, std) = (table(mean)?, table(std)?);
    let y = g.uninit(x.shape())?;
    let kernel = if g.dtype() == DType::BF16 { &NORMALIZE_BF16 } else { &NORMALIZE_F32 };
    let (grid, args) = normalize_args(x, &mean, &std, &y, period);
    g.launch(kernel, grid, &args)?;

    let x_in = x.outline();
    g.record("normalize_images gradient", &[x], &y, move |g, dy, grads| {
        let dx = Tensor::uninit(g.device(), x_in.shape(), DType::F32)?;
        let kernel = if g.dtype() == DType::BF16 { &NORMALIZE_GRAD_BF16 } else { &NORMALIZE_GRAD_F32 };
        let (grid, args) = normalize_args(dy, &mean, &std, &dx, period);
        g.launch(kernel, grid, &args)?;
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}

fn normalize_args(x: &Tensor, mean: &Tensor, std: &Tensor, y: &Tensor, period: usize) -> ([usize; 3], NormalizeArgs) {
    let args = NormalizeArgs {
        x: x.address(),
        mean: mean.address(),
        std: std.address(),
        y: y.address(),
        n: x.len() as i64,
        period: period as i32,
        rows_per_block: rows_per_block(period) as i32,
    };
    ([x.len().div_ceil(period).div_ceil(rows_per_block(period)), 1, 1], args)
}

/// Softmax over the last dimension, after subtracting the largest value.
///
/// With gradients on, keeps the result by reference.
///
/// # Errors
/// [`Error::Shape`] for values that are no floats.
pub fn softmax(g: &Graph, x: &Tensor) -> Result<Tensor> {
    g.floats("softmax", "input", x)?;
    let (rows, c) = rows_of(x);
    let y = Tensor::uninit(g.device(), x.shape(), x.dtype())?;
    let args = SoftmaxArgs { x: x.address(), y: y.address(), c: c as i32, reserved: 0 };
    let kernel = if x.dtype() == DType::BF16 { &SOFTMAX_BF16 } else { &SOFTMAX_F32 };
    g.launch(kernel, [rows, 1, 1], &args)?;

    let (x_in, y_out) = (x.outline(), y.clone());
    g.record("softmax gradient", &[x], &y, move |g, dy, grads| {
        let dx = Tensor::uninit(g.device(), x_in.shape(), x_in.dtype())?;
        let args = SoftmaxGradArgs { y: y_out.address(), dy: dy.address(), dx: dx.address(), c: c as i32, reserved: 0 };
        let kernel = if x_in.dtype() == DType::BF16 { &SOFTMAX_GRAD_BF16 } else { &SOFTMAX_GRAD_F32 };
        g.launch(kernel, [rows, 1, 1], &args)?;
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}

/// The same values in another float format. Records nothing: the op that asks for it knows its own gradient.
///
/// # Errors
/// [`Error::Shape`] for formats other than `F32` and `BF16`.
pub(crate) fn cast(g: &Graph, x: &Tensor, dtype: DType) -> Result<Tensor> {
    g.floats("cast", "input", x)?;
    if x.dtype() == dtype {
        return Ok(x.clone());
    }
    let kernel = match (x.dtype(), dtype) {
        (DType::BF16, DType::F32) => &CAST_F32,
        (DType::F32, DType::BF16) => &CAST_BF16,
        other => return Err(Error::shape("cast", "formats", "F32 and BF16", format!("{other:?}"))),
    };
    let y = Tensor::uninit(g.device(), x.shape(), dtype)?;
    let args = CastArgs { x: x.address(), y: y.address(), n: x.len() as i64, per_block: CHUNK as i32, reserved: 0 };
    g.launch(kernel, [x.len().div_ceil(CHUNK), 1, 1], &args)?;
    Ok(y)
}

/// `(batch, rows, cols)` to `(batch, cols, rows)`. Records nothing, as [`cast`].
///
/// # Errors
/// [`Error::Shape`] for values that are no floats or not so many, [`Error::Limit`] for a batch of more than 65,535.
pub(crate) fn transpose(g: &Graph, x: &Tensor, [batch, rows, cols]: [usize; 3]) -> Result<Tensor> {
    g.floats("transpose", "input", x)?;
    let x = &x.reshaped(&[batch, rows, cols])?;
    /// Of the squares that blocks move.
    const SIDE: usize = 32;
    let y = Tensor::uninit(g.device(), &[batch, cols, rows], x.dtype())?;
    let args = TransposeArgs { x: x.address(), y: y.address(), rows: rows as i32, cols: cols as i32 };
    let kernel = if x.dtype() == DType::BF16 { &TRANSPOSE_BF16 } else { &TRANSPOSE_F32 };
    g.launch(kernel, [rows.div_ceil(SIDE) * cols.div_ceil(SIDE), 1, batch], &args)?;
    Ok(y)
}
