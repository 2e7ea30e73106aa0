//! Group norm with scale, bias and activation: `kernels/group_norm.cu`.

use std::sync::Arc;

use super::pointwise::Activation;
use crate::device::{
    DType, Device, GROUP_NORM_BF16, GROUP_NORM_F32, GROUP_NORM_GRAD_BF16, GROUP_NORM_GRAD_F32,
    GROUP_NORM_GRAD_SUMS_BF16, GROUP_NORM_GRAD_SUMS_F32, GROUP_NORM_STATS_BF16, GROUP_NORM_STATS_F32, GroupNormArgs,
    GroupNormGradArgs,
};
use crate::tape::{Graph, Slot};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Channels of one block, and so the largest group. As in `kernels/group_norm.cu`.
const MAX_CHANNELS: usize = 1024;

/// The constants of [`group_norm`]: float32 on a device, `(1 or N, C)`.
pub struct GroupNorm {
    groups: usize,
    eps: f32,
    scale: Tensor,
    bias: Tensor,
}

impl GroupNorm {
    /// `scale` and `bias` of `c` channels for all images, or one row for each.
    ///
    /// # Errors
    /// [`Error::Shape`] when `c` is not a multiple of the groups or the lengths disagree, [`Error::Limit`] for groups of
    /// more than 1024 channels.
    pub fn new(device: &Device, groups: usize, c: usize, eps: f32, scale: &[f32], bias: &[f32]) -> Result<Self> {
        if groups == 0 || c == 0 || !c.is_multiple_of(groups) {
            return Err(Error::shape("group_norm", "channels", format!("a multiple of {groups} groups"), c));
        }
        if c / groups > MAX_CHANNELS {
            return Err(Error::Limit {
                kernel: "group_norm".into(),
                what: "channels per group",
                requested: (c / groups) as u64,
                max: MAX_CHANNELS as u64,
            });
        }
        if scale.is_empty() || !scale.len().is_multiple_of(c) {
            return Err(Error::shape("group_norm", "scale", format!("rows of {c}"), scale.len()));
        }
        if bias.len() != scale.len() {
            return Err(Error::shape("group_norm", "bias", scale.len(), bias.len()));
        }
        let upload = |values: &[f32]| Tensor::from_f32(device, &[values.len() / c, c], DType::F32, values);
        Ok(GroupNorm { groups, eps, scale: upload(scale)?, bias: upload(bias)? })
    }

    fn c(&self) -> usize {
        self.scale.shape()[1]
    }

    fn per_image(&self) -> usize {
        if self.scale.shape()[0] == 1 { 0 } else { self.c() }
    }

    /// Groups and pixels of one block. On the host a block keeps its groups in cache for all phases.
    fn shares(&self, device: &Device, pixels: usize) -> Shares {
        /// Bytes of a block's values on the host.
        const CACHE: usize = 256 << 10;
        /// Channels on CUDA: enough blocks, and whole sectors of memory.
        const CHANNELS: usize = 32;
        const RUN: usize = 16;
        let (size, serial) = (self.c() / self.groups, device.plan().serial);
        let channels = if serial { CACHE / 4 / pixels.max(1) } else { CHANNELS };
        // Whole runs of channels where that takes few groups.
        let step = (1..=RUN).find(|n| (n * size).is_multiple_of(RUN)).unwrap_or(1);
        let step = if step * size <= MAX_CHANNELS { step } else { 1 };
        let groups = (channels.min(MAX_CHANNELS) / (step * size) * step).clamp(step, self.groups.max(step));
        let groups = groups.min(self.groups);
        let strip = if serial { pixels } else { (16384 / (groups * size)).max(1) };
        Shares { groups, strip, grid_x: self.groups.div_ceil(groups), whole: serial }
    }
}

struct Shares {
    groups: usize,
    strip: usize,
    grid_x: usize,
    whole: bool,
}

/// `y = act(xhat * scale + bias)`, where `xhat` has mean 0 and variance 1 over each image's pixels and groups of channels.
///
/// | arg | shape | |
/// |---|---|---|
/// | `x` | `(N, H, W, C)` | |
/// | `norm` | `(1 or N, C)` twice | `w * (1 + s)` and `b * (1 + s) + shift` in a conditioned network |
/// | ret | `(N, H, W, C)` | |
///
/// With gradients on, keeps `x` by reference and two numbers per group. Source: Wu & He 2018.
///
/// # Errors
/// [`Error::Shape`] when channels or rows of the constants do not fit, or there are no pixels.
pub fn group_norm(g: &Graph, x: &Tensor, norm: &Arc<GroupNorm>, act: Activation) -> Result<Tensor> {
    let [n, h, w, c] = g.dims4("group_norm", x)?;
    let pixels = h * w;
    if c != norm.c() {
        return Err(Error::shape("group_norm", "channels", norm.c(), c));
    }
    if norm.per_image() != 0 && norm.scale.shape()[0] != n {
        return Err(Error::shape("group_norm", "rows of scale", format!("1 or {n}"), norm.scale.shape()[0]));
    }
    if pixels == 0 {
        return Err(Error::shape("group_norm", "input", "at least one pixel", format!("{h}x{w}")));
    }
    let y = g.uninit(x.shape())?;
    let stats = Tensor::uninit(g.device(), &[n, norm.groups, 2], DType::F32)?;
    let s = norm.shares(g.device(), pixels);
    let args = GroupNormArgs {
        x: x.address(),
        scale: norm.scale.address(),
        bias: norm.bias.address(),
        y: y.address(),
        stats: stats.address(),
        per_image: norm.per_image() as i32,
        pixels: pixels as i32,
        c: c as i32,
        groups: norm.groups as i32,
        groups_per_block: s.groups as i32,
        pixels_per_block: s.strip as i32,
        whole: i32::from(s.whole),
        act: act as i32,
        eps: norm.eps,
        reserved: 0,
    };
    let bf16 = g.dtype() == DType::BF16;
    if !s.whole {
        g.launch(if bf16 { &GROUP_NORM_STATS_BF16 } else { &GROUP_NORM_STATS_F32 }, [s.grid_x, n, 1], &args)?;
    }
    g.launch(if bf16 { &GROUP_NORM_BF16 } else { &GROUP_NORM_F32 }, [s.grid_x, n, pixels.div_ceil(s.strip)], &args)?;

    let (x_in, norm) = (x.clone(), norm.clone());
    g.record("group_norm gradient", &[x], &y, move |g, dy, grads| {
        let slot = grads.slot(&x_in);
        let dx = gradient(g, &x_in, dy, &norm, &stats, act, &slot)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    Ok(y)
}

fn gradient(
    g: &Graph,
    x: &Tensor,
    dy: &Tensor,
    norm: &GroupNorm,
    stats: &Tensor,
    act: Activation,
    slot: &Slot,
) -> Result<Tensor> {
    let [n, h, w, c] = x.dims4("group_norm")?;
    let pixels = h * w;
    let dx = g.uninit(x.shape())?;
    let sums = Tensor::uninit(g.device(), &[n, norm.groups, 2], DType::F32)?;
    let s = norm.shares(g.device(), pixels);
    let args = GroupNormGradArgs {
        x: x.address(),
        dy: dy.address(),
        residual: slot.residual_address(),
        keep: slot.keep_address(),
        scale: norm.scale.address(),
        bias: norm.bias.address(),
        stats: stats.address(),
        dx: dx.address(),
        sums: sums.address(),
        per_image: norm.per_image() as i32,
        pixels: pixels as i32,
        c: c as i32,
        groups: norm.groups as i32,
        groups_per_block: s.groups as i32,
        pixels_per_block: s.strip as i32,
        whole: i32::from(s.whole),
        act: act as i32,
    };
    let bf16 = g.dtype() == DType::BF16;
    if !s.whole {
        let kernel = if bf16 { &GROUP_NORM_GRAD_SUMS_BF16 } else { &GROUP_NORM_GRAD_SUMS_F32 };
        g.launch(kernel, [s.grid_x, n, 1], &args)?;
    }
    let kernel = if bf16 { &GROUP_NORM_GRAD_BF16 } else { &GROUP_NORM_GRAD_F32 };
    g.launch(kernel, [s.grid_x, n, pixels.div_ceil(s.strip)], &args)?;
    Ok(dx)
}
