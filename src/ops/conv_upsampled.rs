//! A 3x3 convolution of an image enlarged twice by nearest neighbours, without enlarging it: `kernels/conv.cu`.
//!
//! Of the nine taps at an output point some read the same input pixel; which depends on the point's residue modulo 2 alone. So
//! each residue is a 2x2 convolution of the small image on sums of taps: 16 products per input pixel instead of 36. The gradient is
//! one 4x4 convolution of dy with stride 2 on the same sums.

use std::sync::{Arc, OnceLock};

use super::conv::Launch;
use super::epilogue::Epilogue;
use super::pointwise::Activation;
use super::weights::Packed;
use crate::device::{DType, Device};
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Input rows (columns alike) that residue `a` reads are `i - 1 + a` and `i + a`; which taps go into each.
const TAPS: [[&[usize]; 2]; 2] = [[&[0], &[1, 2]], [&[0, 1], &[2]]];

/// The constants of [`conv2d_upsampled`].
pub struct UpsampledConv2d {
    /// `(2, 2, O, 2, 2, C)`: residue of the output point, then the convolution's weights
    sums: Vec<f32>,
    bias: Tensor,
    forward: Vec<Packed>,
    backward: OnceLock<Packed>,
    o: usize,
    c: usize,
    precision: Precision,
}

impl UpsampledConv2d {
    /// Weights `(O, C, 3, 3)` and a bias `(O)` as PyTorch stores them.
    ///
    /// # Errors
    /// [`Error::Shape`] when lengths disagree.
    pub fn new(
        device: &Device,
        precision: Precision,
        weight: &[f32],
        [o, c]: [usize; 2],
        bias: &[f32],
    ) -> Result<Self> {
        if o.checked_mul(c).and_then(|n| n.checked_mul(9)) != Some(weight.len()) || weight.is_empty() {
            return Err(Error::shape("conv2d_upsampled", "weights", format!("{:?}", [o, c, 3, 3]), weight.len()));
        }
        if bias.len() != o {
            return Err(Error::shape("conv2d_upsampled", "bias", o, bias.len()));
        }
        let mut sums = Vec::with_capacity(16 * o * c);
        let mut forward = Vec::new();
        for residue in 0..4 {
            let (rows, cols) = (TAPS[residue / 2], TAPS[residue % 2]);
            let mut part = Vec::with_capacity(4 * o * c);
            for out in weight.chunks_exact(c * 9) {
                for (rs, cs) in rows.iter().flat_map(|r| cols.iter().map(move |s| (r, s))) {
                    part.extend(out.chunks_exact(9).map(|taps| {
                        let sum: f64 = rs.iter().flat_map(|r| cs.iter().map(move |s| f64::from(taps[3 * r + s]))).sum();
                        sum as f32
                    }));
                }
            }
            let src = Tensor::from_f32(device, &[part.len()], DType::F32, &part)?;
            forward.push(Packed::pack(device, precision, &src, [1, o, 4, c])?);
            sums.extend(part);
        }
        let bias = Tensor::from_f32(device, &[o], DType::F32, bias)?;
        Ok(UpsampledConv2d { sums, bias, forward, backward: OnceLock::new(), o, c, precision })
    }

    /// Weights `(C, 4, 4, O)` of the gradient: tap t along an axis reads dy at `2 i - 1 + t`, which has residue `(t + 1) % 2` and
    /// reads input i as its second neighbour where t < 2, as its first otherwise.
    fn gradient(&self, device: &Device) -> Result<&Packed> {
        if let Some(packed) = self.backward.get() {
            return Ok(packed);
        }
        let axis = |t: usize| ((t + 1) % 2, usize::from(t < 2));
        let mut turned = Vec::with_capacity(self.sums.len());
        for c in 0..self.c {
            for (i, j) in (0..4).flat_map(|i| (0..4).map(move |j| (i, j))) {
                let ((a, r), (b, s)) = (axis(i), axis(j));
                let at = |o: usize| (((2 * a + b) * self.o + o) * 4 + 2 * r + s) * self.c + c;
                turned.extend((0..self.o).map(|o| self.sums[at(o)]));
            }
        }
        let packed = device.aside(|| {
            let src = Tensor::from_f32(device, &[turned.len()], DType::F32, &turned)?;
            Packed::pack(device, self.precision, &src, [1, self.c, 16, self.o])
        })?;
        Ok(self.backward.get_or_init(|| packed))
    }
}

/// `y = conv3x3(nearest(x, 2)) + bias`, padding 1.
///
/// | arg | shape |
/// |---|---|
/// | `x` | `(N, H, W, C)` |
/// | ret | `(N, 2 H, 2 W, O)` |
///
/// Keeps nothing for the gradient.
///
/// # Errors
/// [`Error::Shape`] when the channels disagree.
pub fn conv2d_upsampled(g: &Graph, x: &Tensor, conv: &Arc<UpsampledConv2d>) -> Result<Tensor> {
    let [n, h, w, c] = g.dims4("conv2d_upsampled", x)?;
    if c != conv.c {
        return Err(Error::shape("conv2d_upsampled", "input channels", conv.c, c));
    }
    let y = g.uninit(&[n, 2 * h, 2 * w, conv.o])?;
    let mut epilogue = Epilogue { bias: conv.bias.address(), residual: 0, keep: 0, positive: 0, act: Activation::None };
    for (residue, packed) in conv.forward.iter().enumerate() {
        let (a, b) = (residue / 2, residue % 2);
        let launch = Launch {
            packed,
            c: conv.c,
            taps: [2, 2],
            stride: [1, 1],
            pad: [1 - a as i64, 1 - b as i64],
            dilation: [1, 1],
            groups: 1,
            points: [h, w],
            step: [2, 2],
            off: [a, b],
        };
        launch.run(g, x, &y, &epilogue)?;
    }
    epilogue.bias = 0;

    let (x_in, conv) = (x.outline(), conv.clone());
    g.record("conv2d_upsampled gradient", &[x], &y, move |g, dy, grads| {
        let slot = grads.slot(&x_in);
        let dx = g.uninit(x_in.shape())?;
        let launch = Launch {
            packed: conv.gradient(g.device())?,
            c: conv.o,
            taps: [4, 4],
            stride: [2, 2],
            pad: [1, 1],
            dilation: [1, 1],
            groups: 1,
            points: [h, w],
            step: [1, 1],
            off: [0, 0],
        };
        let epilogue = Epilogue { residual: slot.residual_address(), keep: slot.keep_address(), ..epilogue };
        launch.run(g, dy, &dx, &epilogue)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    Ok(y)
}
