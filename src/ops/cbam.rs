//! The attention gates of CBAM with residual and ReLU: `kernels/cbam.cu`, whose header has the formulas.
//!
//! Source: Woo et al. 2018.

use std::sync::Arc;

use super::pointwise::Activation;
use crate::device::{
    CBAM_BF16, CBAM_F32, CBAM_GATE, CBAM_GRAD_BF16, CBAM_GRAD_F32, CBAM_GRAD_GATES_BF16, CBAM_GRAD_GATES_F32,
    CBAM_GRAD_MAPS, CBAM_GRAD_MLP, CBAM_GRAD_PIXELS_BF16, CBAM_GRAD_PIXELS_F32, CBAM_POOL_BF16, CBAM_POOL_F32,
    CbamArgs, CbamGradArgs, DType, Device, Kernel,
};
use crate::tape::{Graph, Slot};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The constants of one or both gates, float32 on a device.
pub struct Cbam {
    channel: Option<ChannelGate>,
    spatial: Option<SpatialGate>,
}

struct ChannelGate {
    /// `(hidden, C)`, `(hidden)`
    w1: Tensor,
    b1: Tensor,
    /// `(hidden, C)`: transposed, `(C)`
    w3: Tensor,
    b3: Tensor,
    c: usize,
    hidden: usize,
}

struct SpatialGate {
    /// `(2, side, side)`, for the maximum and the mean
    kernel: Tensor,
    side: usize,
    /// folded batch norm
    scale: f32,
    bias: f32,
}

impl Cbam {
    /// Both gates: the shared MLP's weights `(hidden, C)` and `(C, hidden)` with their biases, the spatial kernel `(2, k, k)`
    /// and its batch norm as scale and bias.
    ///
    /// # Errors
    /// [`Error::Shape`] when lengths disagree or `k` is not odd.
    pub fn new(
        device: &Device,
        layer1: (&[f32], &[f32]),
        layer3: (&[f32], &[f32]),
        kernel: &[f32],
        bn: (f32, f32),
    ) -> Result<Self> {
        Ok(Cbam {
            channel: Some(ChannelGate::new(device, layer1, layer3)?),
            spatial: Some(SpatialGate::new(device, kernel, bn)?),
        })
    }

    /// The channel gate alone.
    ///
    /// # Errors
    /// As [`Cbam::new`].
    pub fn channel_gate(device: &Device, layer1: (&[f32], &[f32]), layer3: (&[f32], &[f32])) -> Result<Self> {
        Ok(Cbam { channel: Some(ChannelGate::new(device, layer1, layer3)?), spatial: None })
    }

    /// The spatial gate alone.
    ///
    /// # Errors
    /// As [`Cbam::new`].
    pub fn spatial_gate(device: &Device, kernel: &[f32], bn: (f32, f32)) -> Result<Self> {
        Ok(Cbam { channel: None, spatial: Some(SpatialGate::new(device, kernel, bn)?) })
    }

    fn hidden(&self) -> usize {
        self.channel.as_ref().map_or(0, |gate| gate.hidden)
    }

    fn side(&self) -> usize {
        self.spatial.as_ref().map_or(1, |gate| gate.side)
    }
}

fn upload(device: &Device, values: &[f32]) -> Result<Tensor> {
    Tensor::from_f32(device, &[values.len()], DType::F32, values)
}

impl ChannelGate {
    fn new(device: &Device, (w1, b1): (&[f32], &[f32]), (w3, b3): (&[f32], &[f32])) -> Result<Self> {
        let (hidden, c) = (b1.len(), b3.len());
        if hidden == 0 || c == 0 || w1.len() != hidden * c || w3.len() != hidden * c {
            let got = format!("{} and {} weights, {hidden} and {c} biases", w1.len(), w3.len());
            return Err(Error::shape("cbam", "shared MLP", "(hidden, C), (C, hidden)", got));
        }
        let transposed: Vec<f32> = (0..hidden).flat_map(|j| (0..c).map(move |i| w3[i * hidden + j])).collect();
        let up = |values: &[f32]| upload(device, values);
        Ok(ChannelGate { w1: up(w1)?, b1: up(b1)?, w3: up(&transposed)?, b3: up(b3)?, c, hidden })
    }
}

impl SpatialGate {
    fn new(device: &Device, kernel: &[f32], (scale, bias): (f32, f32)) -> Result<Self> {
        let side = (kernel.len() / 2).isqrt();
        if side.is_multiple_of(2) || 2 * side * side != kernel.len() {
            return Err(Error::shape("cbam", "spatial kernel", "(2, k, k) with an odd k", kernel.len()));
        }
        Ok(SpatialGate { kernel: upload(device, kernel)?, side, scale, bias })
    }
}

/// How an image is cut into blocks. Depends on the image and the device alone, never on the batch.
#[derive(Clone, Copy)]
struct Plan {
    whole: bool,
    rows: usize,
    cols: usize,
}

impl Plan {
    fn new(device: &Device, [h, w, c]: [usize; 3], side: usize) -> Result<Self> {
        /// Images up to this many pixels take one CUDA block.
        const FEW: usize = 64;
        /// Rows of a CUDA strip, of which the maps need `side - 1` more.
        const STRIP: usize = 8;
        // Both padded maps of a strip lie in it.
        let plan = device.plan();
        let bytes = plan.scratch;
        let fit = (bytes / 8 / (w + (side - 1)).max(1)).saturating_sub(side - 1);
        if fit == 0 {
            return Err(Error::Limit {
                kernel: "cbam".into(),
                what: "pixels of a row",
                requested: w as u64,
                max: (bytes / 8 / side + 1).saturating_sub(side) as u64,
            });
        }
        let whole = fit >= h && (plan.serial || h * w <= FEW);
        let rows = if whole {
            h
        } else if plan.serial {
            fit.min(h)
        } else {
            STRIP.min(fit).min(h)
        };
        Ok(Plan { whole, rows: rows.max(1), cols: plan.channels(c, 64) })
    }
}

/// What the gradient needs, and the sizes that both directions share.
struct Saved {
    x: Tensor,
    /// The pixel of each channel's maximum, the channel of each pixel's.
    max_pixel: Tensor,
    max_channel: Tensor,
    hidden: Tensor,
    gate: Tensor,
    spatial: Tensor,
    plan: Plan,
}

/// `y = act(x * g * s + residual)` with the channel gate `g` and the spatial gate `s` of CBAM.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x` | `(N, H, W, C)` | at least one pixel |
/// | `residual` | `(N, H, W, C)` | optional |
/// | `act` | | `None` or `Relu` |
/// | ret | `(N, H, W, C)` | |
///
/// With gradients on, keeps `x` by reference, both gates, where the maxima lay and, of a ReLU, one bit per value.
///
/// # Errors
/// [`Error::Shape`] when channels or the residual disagree, there is no pixel, or for another activation; [`Error::Limit`] for
/// images so wide that not one row's maps fit shared memory.
pub fn cbam(g: &Graph, x: &Tensor, gates: &Arc<Cbam>, residual: Option<&Tensor>, act: Activation) -> Result<Tensor> {
    Ok(cbam_with_gates(g, x, gates, residual, act)?.0)
}

/// What the gates let through, float32; `None` for a gate that is absent.
#[derive(Clone, Debug)]
pub struct Gates {
    /// `(N, C)`
    pub channel: Option<Tensor>,
    /// `(N, H, W, 1)`
    pub spatial: Option<Tensor>,
}

/// [`cbam`], and its gates, which the kernel leaves behind in any case.
///
/// # Errors
/// As [`cbam`].
pub fn cbam_with_gates(
    g: &Graph,
    x: &Tensor,
    gates: &Arc<Cbam>,
    residual: Option<&Tensor>,
    act: Activation,
) -> Result<(Tensor, Gates)> {
    let [n, h, w, c] = g.dims4("cbam", x)?;
    residual.map_or(Ok(()), |r| g.takes("cbam", "residual", r))?;
    if let Some(gate) = gates.channel.as_ref().filter(|gate| gate.c != c) {
        return Err(Error::shape("cbam", "channels", gate.c, c));
    }
    if h * w * c == 0 {
        return Err(Error::shape("cbam", "input", "at least one pixel and channel", format!("{x:?}")));
    }
    if h * w > 1 << 24 {
        return Err(Error::shape("cbam", "pixels", "at most 2^24, which float32 counts exactly", h * w));
    }
    if let Some(r) = residual.filter(|r| r.shape() != x.shape()) {
        return Err(Error::shape("cbam", "residual", format!("{x:?}"), format!("{r:?}")));
    }
    if !matches!(act, Activation::None | Activation::Relu) {
        return Err(Error::shape("cbam", "activation", "None or Relu", format!("{act:?}")));
    }
    let plan = Plan::new(g.device(), [h, w, c], gates.side())?;
    let floats = |shape: &[usize]| Tensor::uninit(g.device(), shape, DType::F32);
    let hidden = gates.hidden();
    let saved = Saved {
        x: x.clone(),
        max_pixel: floats(&[n, c])?,
        max_channel: Tensor::uninit(g.device(), &[n, h, w], DType::I32)?,
        hidden: floats(&[n, 2, hidden])?,
        gate: floats(&[n, c])?,
        spatial: floats(&[n, h, w])?,
        plan,
    };
    let pooled = floats(&[n, 2, c])?;
    let positive = (g.records() && act == Activation::Relu).then(|| g.uninit_mask(n * h * w, c)).transpose()?;
    let y = g.uninit(x.shape())?;
    let (channel, spatial) = (gates.channel.as_ref(), gates.spatial.as_ref());
    let args = CbamArgs {
        x: x.address(),
        residual: residual.map_or(0, Tensor::address),
        w1: channel.map_or(0, |gate| gate.w1.address()),
        b1: channel.map_or(0, |gate| gate.b1.address()),
        w3: channel.map_or(0, |gate| gate.w3.address()),
        b3: channel.map_or(0, |gate| gate.b3.address()),
        kernel: spatial.map_or(0, |gate| gate.kernel.address()),
        y: y.address(),
        positive: positive.as_ref().map_or(0, Tensor::address),
        pooled: pooled.address(),
        max_pixel: saved.max_pixel.address(),
        hidden_values: saved.hidden.address(),
        gate: saved.gate.address(),
        spatial: saved.spatial.address(),
        max_channel: saved.max_channel.address(),
        scale: spatial.map_or(0.0, |gate| gate.scale),
        bias: spatial.map_or(0.0, |gate| gate.bias),
        h: h as i32,
        w: w as i32,
        c: c as i32,
        hidden: hidden as i32,
        side: gates.side() as i32,
        act: act as i32,
        channel_gate: i32::from(channel.is_some()),
        spatial_gate: i32::from(spatial.is_some()),
        whole: i32::from(plan.whole),
        rows_per_block: plan.rows as i32,
        cols_per_block: plan.cols as i32,
        reserved: 0,
    };
    let pick = |kernels: [&'static Kernel<CbamArgs>; 2]| kernels[usize::from(g.dtype() == DType::BF16)];
    if !plan.whole {
        if channel.is_some() {
            g.launch(pick([&CBAM_POOL_F32, &CBAM_POOL_BF16]), [c.div_ceil(plan.cols), n, 1], &args)?;
        }
        g.launch(&CBAM_GATE, [1, n, 1], &args)?;
    }
    g.launch(pick([&CBAM_F32, &CBAM_BF16]), [h.div_ceil(plan.rows), n, 1], &args)?;
    if let Some(bits) = positive {
        g.mask(&y, bits);
    }

    let left = Gates {
        channel: channel.map(|_| saved.gate.clone()),
        spatial: spatial.map(|_| saved.spatial.reshaped(&[n, h, w, 1])).transpose()?,
    };
    let inputs = residual.map_or(vec![x], |r| vec![x, r]);
    let (gates, residual) = (gates.clone(), residual.map(Tensor::outline));
    g.record("cbam gradient", &inputs, &y, move |g, dy, grads| {
        if let Some(r) = &residual {
            grads.add(g, r, dy.clone())?;
        }
        let slot = grads.slot(&saved.x);
        let dx = gates.input_gradient(g, &saved, dy, &slot)?;
        grads.put(&saved.x, dx);
        Ok(())
    });
    Ok((y, left))
}

impl Cbam {
    fn input_gradient(&self, g: &Graph, saved: &Saved, dy: &Tensor, slot: &Slot) -> Result<Tensor> {
        let [n, h, w, c] = saved.x.dims4("cbam gradient")?;
        let (plan, hidden) = (saved.plan, self.hidden());
        let floats = |shape: &[usize]| Tensor::uninit(g.device(), shape, DType::F32);
        let (dconv, dmap_max, dmap_mean) = (floats(&[n, h, w])?, floats(&[n, h, w])?, floats(&[n, h, w])?);
        let (dgate, dhidden, dpooled) = (floats(&[n, c])?, floats(&[n, 2, hidden])?, floats(&[n, 2, c])?);
        let dx = g.uninit(saved.x.shape())?;
        let (channel, spatial) = (self.channel.as_ref(), self.spatial.as_ref());
        let args = CbamGradArgs {
            x: saved.x.address(),
            dy: dy.address(),
            residual: slot.residual_address(),
            keep: slot.keep_address(),
            dx: dx.address(),
            w1: channel.map_or(0, |gate| gate.w1.address()),
            w3: channel.map_or(0, |gate| gate.w3.address()),
            kernel: spatial.map_or(0, |gate| gate.kernel.address()),
            max_pixel: saved.max_pixel.address(),
            hidden_values: saved.hidden.address(),
            gate: saved.gate.address(),
            spatial: saved.spatial.address(),
            max_channel: saved.max_channel.address(),
            dconv: dconv.address(),
            dmap_max: dmap_max.address(),
            dmap_mean: dmap_mean.address(),
            dgate: dgate.address(),
            dhidden: dhidden.address(),
            dpooled: dpooled.address(),
            scale: spatial.map_or(0.0, |gate| gate.scale),
            h: h as i32,
            w: w as i32,
            c: c as i32,
            hidden: hidden as i32,
            side: self.side() as i32,
            channel_gate: i32::from(channel.is_some()),
            spatial_gate: i32::from(spatial.is_some()),
            whole: i32::from(plan.whole),
            rows_per_block: plan.rows as i32,
            cols_per_block: plan.cols as i32,
            reserved: 0,
        };
        let pick = |kernels: [&'static Kernel<CbamGradArgs>; 2]| kernels[usize::from(g.dtype() == DType::BF16)];
        let strips = [h.div_ceil(plan.rows), n, 1];
        if !plan.whole {
            if spatial.is_some() {
                g.launch(pick([&CBAM_GRAD_PIXELS_F32, &CBAM_GRAD_PIXELS_BF16]), strips, &args)?;
                g.launch(&CBAM_GRAD_MAPS, strips, &args)?;
            }
            if channel.is_some() {
                g.launch(pick([&CBAM_GRAD_GATES_F32, &CBAM_GRAD_GATES_BF16]), [c.div_ceil(plan.cols), n, 1], &args)?;
                g.launch(&CBAM_GRAD_MLP, [1, n, 1], &args)?;
            }
        }
        g.launch(pick([&CBAM_GRAD_F32, &CBAM_GRAD_BF16]), strips, &args)?;
        Ok(dx)
    }
}
