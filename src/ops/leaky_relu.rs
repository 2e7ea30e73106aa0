//! Leaky ReLU: `kernels/leaky_relu.cu`.

use super::pointwise::rows_per_block;
use crate::device::{
    DType, LEAKY_RELU_BF16, LEAKY_RELU_F32, LEAKY_RELU_GRAD_BF16, LEAKY_RELU_GRAD_F32, LeakyReluArgs, LeakyReluGradArgs,
};
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// `y = x > 0 ? x : slope * x`, for a slope of any sign and size.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x` | `(.., C)` | |
/// | ret | `(.., C)` | |
///
/// With gradients on, keeps a bit per value. At 0 the slope is that of the negative side. Source: Maas et al. 2013.
///
/// # Errors
/// [`Error::Shape`] when the slope is not finite, and for values that are no floats.
pub fn leaky_relu(g: &Graph, x: &Tensor, slope: f32) -> Result<Tensor> {
    g.floats("leaky_relu", "input", x)?;
    if !slope.is_finite() {
        return Err(Error::shape("leaky_relu", "slope", "a finite number", slope));
    }
    let c = x.shape().last().copied().unwrap_or(1);
    let (rows, per_block) = (x.len() / c.max(1), rows_per_block(c));
    let grid = [rows.div_ceil(per_block), 1, 1];
    let positive = g.records().then(|| g.uninit_mask(rows, c)).transpose()?;
    let y = Tensor::uninit(g.device(), x.shape(), x.dtype())?;
    let args = LeakyReluArgs {
        x: x.address(),
        y: y.address(),
        positive: positive.as_ref().map_or(0, Tensor::address),
        rows: rows as i64,
        c: c as i32,
        rows_per_block: per_block as i32,
        slope,
        reserved: 0,
    };
    g.launch(if x.dtype() == DType::BF16 { &LEAKY_RELU_BF16 } else { &LEAKY_RELU_F32 }, grid, &args)?;

    let Some(positive) = positive else { return Ok(y) };
    let x_in = x.outline();
    g.record("leaky_relu gradient", &[x], &y, move |g, dy, grads| {
        let slot = grads.slot(&x_in);
        let dx = Tensor::uninit(g.device(), x_in.shape(), x_in.dtype())?;
        let args = LeakyReluGradArgs {
            dy: dy.address(),
            positive: positive.address(),
            residual: slot.residual_address(),
            keep: slot.keep_address(),
            dx: dx.address(),
            rows: rows as i64,
            c: c as i32,
            rows_per_block: per_block as i32,
            slope,
            reserved: 0,
        };
        let kernel = if x_in.dtype() == DType::BF16 { &LEAKY_RELU_GRAD_BF16 } else { &LEAKY_RELU_GRAD_F32 };
        g.launch(kernel, grid, &args)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    Ok(y)
}
