//! Matrix products and fully connected layers: `kernels/gemm.cu`.

use std::borrow::Cow;
use std::sync::Arc;

use super::epilogue::Epilogue;
use super::pointwise::Activation;
use super::weights::Packed;
use crate::device::{DType, Device, GEMM_BF16, GEMM_F32, GemmArgs};
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// How many of `k` products one chain of additions takes; what is longer is summed in runs, as a chain's error grows with the root of
/// its length (7.6e-6 of the largest output for 49,152). In bf16 the sums between would be rounded, which costs more.
fn chain(dtype: DType, k: usize) -> usize {
    match (dtype, k) {
        (DType::BF16, _) => super::weights::MAX_CHANNELS,
        (_, ..=4096) => 4096,
        _ => 1024,
    }
}

/// A fully connected layer's constants: the weight and its transpose, packed, in runs of what is summed.
pub struct Linear {
    forward: Vec<Packed>,
    backward: Vec<Packed>,
    bias: Option<Tensor>,
    inputs: usize,
    outputs: usize,
}

impl Linear {
    /// Packs a weight `(O, K)` and a bias `(O)`.
    ///
    /// # Errors
    /// [`Error::Shape`] when lengths disagree.
    pub fn new(
        device: &Device,
        precision: Precision,
        weight: &[f32],
        [o, k]: [usize; 2],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        if o.checked_mul(k) != Some(weight.len()) || weight.is_empty() {
            return Err(Error::shape("linear", "weights", format!("({o}, {k})"), weight.len()));
        }
        if let Some(b) = bias.filter(|b| b.len() != o) {
            return Err(Error::shape("linear", "bias", o, b.len()));
        }
        let mut transposed = Vec::with_capacity(weight.len());
        for i in 0..k {
            transposed.extend((0..o).map(|j| weight[j * k + i]));
        }
        let pack = |values: &[f32], o: usize, k: usize| {
            let longest = chain(precision.dtype(), k);
            let one = |first: usize| {
                let run = longest.min(k - first);
                let part = match run == k {
                    true => Cow::Borrowed(values),
                    false => values.chunks_exact(k).flat_map(|row| &row[first..first + run]).copied().collect(),
                };
                let src = Tensor::from_f32(device, &[part.len()], DType::F32, &part)?;
                Packed::pack(device, precision, &src, [1, o, 1, run])
            };
            (0..k).step_by(longest).map(one).collect::<Result<Vec<_>>>()
        };
        Ok(Linear {
            forward: pack(weight, o, k)?,
            backward: pack(&transposed, k, o)?,
            bias: bias.map(|b| Tensor::from_f32(device, &[o], DType::F32, b)).transpose()?,
            inputs: k,
            outputs: o,
        })
    }
}

/// `y = act(x w^T + bias)`.
///
/// | arg | shape |
/// |---|---|
/// | `x` | `(N, K)` |
/// | ret | `(N, O)` |
///
/// # Errors
/// [`Error::Shape`] when `K` is not that of the weights.
pub fn linear(g: &Graph, x: &Tensor, layer: &Arc<Linear>, act: Activation) -> Result<Tensor> {
    let [n, k] = g.dims2("linear", x)?;
    if k != layer.inputs {
        return Err(Error::shape("linear", "inputs", layer.inputs, k));
    }
    let fused = if g.records() && act != Activation::Relu { Activation::None } else { act };
    let positive = (g.records() && fused == Activation::Relu).then(|| g.uninit_mask(n, layer.outputs)).transpose()?;
    let y = g.uninit(&[n, layer.outputs])?;
    let bias = layer.bias.as_ref().map_or(0, Tensor::address);
    let positive_address = positive.as_ref().map_or(0, Tensor::address);
    runs(
        g,
        x,
        &layer.forward,
        &y,
        [n, k],
        &Epilogue { bias, residual: 0, keep: 0, positive: positive_address, act: fused },
    )?;
    if let Some(bits) = positive {
        g.mask(&y, bits);
    }

    let (layer, x_in) = (layer.clone(), x.outline());
    g.record("linear gradient", &[x], &y, move |g, dy, grads| {
        let dx = g.uninit(x_in.shape())?;
        let slot = grads.slot(&x_in);
        let (residual, keep) = (slot.residual_address(), slot.keep_address());
        let epilogue = Epilogue { bias: 0, residual, keep, positive: 0, act: Activation::None };
        runs(g, dy, &layer.backward, &dx, [n, layer.outputs], &epilogue)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    if fused == act { Ok(y) } else { super::pointwise::activation(g, &y, act) }
}

/// `y = x w^T` with `x` (m, k), each run of `k` added to those before it: what comes with a sum comes with the first, and what is
/// made of it is made by the last.
fn runs(g: &Graph, x: &Tensor, packed: &[Packed], y: &Tensor, [m, k]: [usize; 2], whole: &Epilogue) -> Result<()> {
    let longest = chain(g.dtype(), k);
    for (i, w) in packed.iter().enumerate() {
        let (first, last) = (i == 0, i + 1 == packed.len());
        let epilogue = Epilogue {
            bias: if first { whole.bias } else { 0 },
            residual: if first { whole.residual } else { y.address() },
            keep: if last { whole.keep } else { 0 },
            positive: if last { whole.positive } else { 0 },
            act: if last { whole.act } else { Activation::None },
        };
        let from = x.address() + (i * longest * g.dtype().size()) as u64;
        let rows = Rows { from, batch: 1, m, k: longest.min(k - i * longest), apart: k };
        product(g, rows, w, y, &epilogue)?;
    }
    Ok(())
}

/// What a product multiplies by weights: `batch` matrices of `m` rows, `apart` elements from each other, of which `k` are read.
#[derive(Clone, Copy)]
struct Rows {
    /// Address of the first.
    from: u64,
    batch: usize,
    m: usize,
    k: usize,
    apart: usize,
}

/// `y[b] = x[b] w[b]^T`, with whatever else the epilogue does.
fn product(g: &Graph, x: Rows, w: &Packed, y: &Tensor, epilogue: &Epilogue) -> Result<()> {
    let Rows { from, batch, m, k, apart } = x;
    if m == 0 || batch == 0 {
        return Ok(());
    }
    w.fits(g, m)?;
    let tiles = w.tiles_small(g.device(), g.dtype(), m, batch);
    let args = GemmArgs {
        x: from,
        w: w.data.address(),
        bias: epilogue.bias,
        residual: epilogue.residual,
        keep: epilogue.keep,
        y: y.address(),
        positive: epilogue.positive,
        x_batch: (m * apart) as i64,
        x_row: apart as i64,
        w_batch: w.group as i64,
        m: m as i32,
        k: k as i32,
        n: w.o as i32,
        act: epilogue.act as i32,
        m_tile: tiles.m_tile as i32,
        n_tile: tiles.n_tile as i32,
    };
    let kernel = if g.dtype() == DType::BF16 { &GEMM_BF16 } else { &GEMM_F32 };
    g.device().count_product(batch * m, w.o, k);
    g.launch(kernel, [tiles.count, 1, batch], &args)
}

/// `y = a b`, both activations.
///
/// | arg | shape |
/// |---|---|
/// | `a` | `(B, M, K)` |
/// | `b` | `(B, K, N)` |
/// | ret | `(B, M, N)` |
///
/// With gradients on, keeps both by reference.
///
/// # Errors
/// [`Error::Shape`] when `B` or `K` disagree.
pub fn matmul(g: &Graph, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let ([batch, m, k], [batch_b, k_b, n]) = (dims3(a)?, dims3(b)?);
    g.takes("matmul", "a", a)?;
    g.takes("matmul", "b", b)?;
    if batch != batch_b || k != k_b {
        return Err(Error::shape("matmul", "b", format!("({batch}, {k}, N)"), format!("{:?}", b.shape())));
    }
    let y = multiply(g, a, &pack(g, &transpose(g, b)?, [batch, n, 1, k])?, [batch, m, k, n])?;
    let (a_in, b_in) = (a.clone(), b.clone());
    g.record("matmul gradient", &[a, b], &y, move |g, dy, grads| {
        // da = dy b^T: b is (K, N), which is already the product's (columns, depth).
        let da = multiply(g, dy, &pack(g, &b_in, [batch, k, 1, n])?, [batch, m, n, k])?;
        grads.add(g, &a_in, da)?;
        // db = a^T dy: rows from a^T, columns from dy^T.
        let db = multiply(g, &transpose(g, &a_in)?, &pack(g, &transpose(g, dy)?, [batch, n, 1, m])?, [batch, k, m, n])?;
        grads.add(g, &b_in, db)
    });
    Ok(y)
}

fn multiply(g: &Graph, x: &Tensor, w: &Packed, [batch, m, k, n]: [usize; 4]) -> Result<Tensor> {
    let y = g.uninit(&[batch, m, n])?;
    let rows = Rows { from: x.address(), batch, m, k, apart: k };
    product(g, rows, w, &y, &Epilogue { bias: 0, residual: 0, keep: 0, positive: 0, act: Activation::None })?;
    Ok(y)
}

fn pack(g: &Graph, src: &Tensor, shape: [usize; 4]) -> Result<Packed> {
    let wide = super::pointwise::cast(g, src, DType::F32)?;
    Packed::pack(g.device(), g.precision(), &wide, shape)
}

fn transpose(g: &Graph, x: &Tensor) -> Result<Tensor> {
    let [batch, rows, cols] = dims3(x)?;
    super::pointwise::transpose(g, x, [batch, rows, cols])
}

fn dims3(x: &Tensor) -> Result<[usize; 3]> {
    x.shape().try_into().map_err(|_| Error::shape("matmul", "dimensions", "(B, M, K)", format!("{:?}", x.shape())))
}
