//! Elementwise ops: `kernels/pointwise.cu`.

use crate::Result;
use crate::device::{ACCUMULATE_BF16, ACCUMULATE_F32, AccumulateArgs, DType};
use crate::tape::Graph;
use crate::tensor::Tensor;

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

/// How many rows of `c` values one block of an elementwise kernel takes.
pub(crate) fn rows_per_block(c: usize) -> usize {
    (16384 / c.max(1)).max(1)
}

/// `(a + b)`, zeroed where `keep` has a 0 bit; `b` and `keep` are optional. All of shape `(..., C)`.
///
/// # Errors
/// What the launch returns.
pub(crate) fn accumulate(g: &Graph, a: &Tensor, b: Option<&Tensor>, keep: Option<&Tensor>) -> Result<Tensor> {
    let c = a.shape().last().copied().unwrap_or(1);
    let rows = a.len() / c.max(1);
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

pub(crate) fn activation(_g: &Graph, _x: &Tensor, _act: Activation) -> Result<Tensor> {
    unimplemented!()
}
pub(crate) fn cast(_g: &Graph, _x: &Tensor, _dtype: DType) -> Result<Tensor> {
    unimplemented!()
}
pub(crate) fn transpose(_g: &Graph, _x: &Tensor, _dims: [usize; 3]) -> Result<Tensor> {
    unimplemented!()
}
