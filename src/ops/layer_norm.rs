//! Layer norm over the channels: `kernels/layer_norm.cu`.

use std::sync::Arc;

use crate::device::{
    DType, Device, LAYER_NORM_BF16, LAYER_NORM_F32, LAYER_NORM_GRAD_BF16, LAYER_NORM_GRAD_F32, LayerNormArgs,
    LayerNormGradArgs,
};
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Rows of one block: `MAX_ROWS` in the kernel.
const MAX_ROWS: usize = 1024;

/// The constants of [`layer_norm`]: float32 on a device, `(C)`.
pub struct LayerNorm {
    eps: f32,
    scale: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    /// # Errors
    /// [`Error::Shape`] when there is no channel or the lengths disagree.
    pub fn new(device: &Device, eps: f32, scale: &[f32], bias: &[f32]) -> Result<Self> {
        if scale.is_empty() || bias.len() != scale.len() {
            return Err(Error::shape("layer_norm", "bias", scale.len().max(1), bias.len()));
        }
        let upload = |values: &[f32]| Tensor::from_f32(device, &[values.len()], DType::F32, values);
        Ok(LayerNorm { eps, scale: upload(scale)?, bias: upload(bias)? })
    }
}

/// `y = xhat * scale[c] + bias[c]`, where `xhat` has mean 0 and variance 1 over the last dimension.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x` | `(.., C)` | for an image the channels of each pixel |
/// | ret | `(.., C)` | |
///
/// With gradients on, keeps `x` by reference and two numbers per row. Source: Ba et al. 2016.
///
/// # Errors
/// [`Error::Shape`] when the channels are not those of the constants.
pub fn layer_norm(g: &Graph, x: &Tensor, norm: &Arc<LayerNorm>) -> Result<Tensor> {
    let c = x.shape().last().copied().unwrap_or(0);
    g.takes("layer_norm", "input", x)?;
    if c != norm.scale.len() {
        return Err(Error::shape("layer_norm", "channels", norm.scale.len(), c));
    }
    let (rows, per_block) = (x.len() / c, super::pointwise::rows_per_block(c).min(MAX_ROWS));
    let y = g.uninit(x.shape())?;
    let stats = Tensor::uninit(g.device(), &[rows, 2], DType::F32)?;
    let args = LayerNormArgs {
        x: x.address(),
        scale: norm.scale.address(),
        bias: norm.bias.address(),
        y: y.address(),
        stats: stats.address(),
        rows: rows as i64,
        c: c as i32,
        rows_per_block: per_block as i32,
        eps: norm.eps,
        reserved: 0,
    };
    let kernel = if g.dtype() == DType::BF16 { &LAYER_NORM_BF16 } else { &LAYER_NORM_F32 };
    g.launch(kernel, [rows.div_ceil(per_block), 1, 1], &args)?;

    let (x_in, norm) = (x.clone(), norm.clone());
    g.record("layer_norm gradient", &[x], &y, move |g, dy, grads| {
        let slot = grads.slot(&x_in);
        let dx = g.uninit(x_in.shape())?;
        let args = LayerNormGradArgs {
            x: x_in.address(),
            dy: dy.address(),
            residual: slot.residual_address(),
            keep: slot.keep_address(),
            scale: norm.scale.address(),
            stats: stats.address(),
            dx: dx.address(),
            rows: rows as i64,
            c: c as i32,
            rows_per_block: per_block as i32,
        };
        let kernel = if g.dtype() == DType::BF16 { &LAYER_NORM_GRAD_BF16 } else { &LAYER_NORM_GRAD_F32 };
        g.launch(kernel, [rows.div_ceil(per_block), 1, 1], &args)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    Ok(y)
}
