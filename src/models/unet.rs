//! The U-Nets of improved-diffusion and guided-diffusion, by their public parameter names.
//!
//! Sources: Nichol & Dhariwal 2021; Dhariwal & Nichol 2021.

mod blocks;
mod build;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use blocks::Conditioning;
use blocks::{Layer, ResBlock};

use crate::device::{DType, Device};
use crate::ops::Activation;
use crate::ops::conv::{Conv2d, conv2d};
use crate::ops::diffusion::concat_channels;
use crate::ops::gemm::{Linear, linear};
use crate::ops::group_norm::{GroupNorm, group_norm};
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Everywhere in these networks.
const GROUPS: usize = 32;
const EPS: f32 = 1e-5;
/// Channels of the image.
const IMAGE: usize = 3;

/// The shape of a network, as a checkpoint's metadata spells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// of the first level, before its multiplier
    pub channels: usize,
    /// one per level; each level halves the image of the one before
    pub channel_mult: Vec<usize>,
    pub res_blocks: usize,
    /// the levels, by how much smaller their images are, that have attention
    pub attention_factors: Vec<usize>,
    /// a fixed number of heads, or else a fixed size
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_channels: Option<usize>,
    /// whether residual blocks change the size (guided-diffusion) or convolutions of their own (improved-diffusion)
    pub resblock_updown: bool,
    pub out_channels: usize,
}

impl Config {
    fn check(&self) -> Result<()> {
        let wrong = |field: &str, problem: String| Err(Error::usage(format!("config `{field}`"), problem));
        if self.channel_mult.is_empty() || self.channel_mult.len() > 16 || self.channel_mult.contains(&0) {
            return wrong("channel_mult", format!("expected 1 to 16 factors from 1, found {:?}", self.channel_mult));
        }
        let widths = self.channel_mult.iter().map(|m| self.channels.saturating_mul(*m));
        if let Some(width) = widths.into_iter().find(|w| !w.is_multiple_of(GROUPS) || *w == 0 || *w > 1 << 14) {
            return wrong("channels", format!("expected levels of a multiple of {GROUPS} up to 16384, found {width}"));
        }
        if self.res_blocks == 0 || self.res_blocks > 64 {
            return wrong("res_blocks", format!("expected 1 to 64, found {}", self.res_blocks));
        }
        if self.out_channels < IMAGE || self.out_channels > 64 {
            return wrong("out_channels", format!("expected {IMAGE} to 64, found {}", self.out_channels));
        }
        if self.heads.is_some() == self.head_channels.is_some() {
            return wrong("heads", "expected either `heads` or `head_channels`".into());
        }
        Ok(())
    }

    fn heads(&self, c: usize) -> Result<usize> {
        let (heads, size) = match (self.heads, self.head_channels) {
            (Some(heads), _) if heads > 0 => (heads, c / heads),
            (_, Some(size)) if size > 0 => (c / size, size),
            _ => (0, 0),
        };
        if heads * size != c || c == 0 {
            return Err(Error::usage(
                "config `heads`",
                format!("{c} channels do not fall into {heads} heads of {size}"),
            ));
        }
        Ok(heads)
    }

    /// Height and width must be multiples of this.
    pub fn multiple(&self) -> usize {
        1 << (self.channel_mult.len() - 1)
    }
}

/// Sines and cosines of a timestep, `(tau, dim)`: the cosines first, frequencies from 1 down to `1 / max_period`. A last odd
/// value is 0. In float64, rounded once; the public code's float32 angles are off by up to 3e-5.
pub fn timestep_embedding(tau: &[f32], dim: usize, max_period: f64) -> Vec<f32> {
    let half = dim / 2;
    let frequency = |k: usize| (-max_period.ln() * k as f64 / half as f64).exp();
    let mut all = Vec::with_capacity(tau.len() * dim);
    for &t in tau {
        let angles: Vec<f64> = (0..half).map(|k| f64::from(t) * frequency(k)).collect();
        all.extend(angles.iter().map(|a| a.cos() as f32));
        all.extend(angles.iter().map(|a| a.sin() as f32));
        all.extend((2 * half < dim).then_some(0.0));
    }
    all
}

/// A denoising network on one device.
pub struct UNet {
    config: Config,
    time: [Arc<Linear>; 2],
    input: Vec<Vec<Layer>>,
    middle: Vec<Layer>,
    output: Vec<Vec<Layer>>,
    out_norm: Arc<GroupNorm>,
    out_conv: Arc<Conv2d>,
    device: Device,
    parameters: usize,
}

impl UNet {
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Number of values of all parameters.
    pub fn parameters(&self) -> usize {
        self.parameters
    }

    /// Values of the widest activation of one image of h x w pixels: a joined input of the last level.
    pub fn widest(&self, h: usize, w: usize) -> usize {
        let level = |i: usize| self.config.channel_mult.get(i).copied().unwrap_or(0) * self.config.channels;
        h * w * (level(0).max(level(1)) + level(0))
    }

    fn blocks(&self) -> impl Iterator<Item = &ResBlock> {
        let layers = self.input.iter().flatten().chain(&self.middle).chain(self.output.iter().flatten());
        layers.filter_map(|layer| match layer {
            Layer::Res(block) => Some(&**block),
            _ => None,
        })
    }

    /// The constants for images at the timesteps `tau`, one each; where all are equal, one row serves every image.
    ///
    /// # Errors
    /// What the launches return.
    pub fn condition(&self, tau: &[f32]) -> Result<Conditioning> {
        let same = tau.windows(2).all(|pair| pair[0].to_bits() == pair[1].to_bits());
        let tau = if same { tau.get(..1).unwrap_or(&[0.0]) } else { tau };
        let g = Graph::inference(&self.device, Precision::F32);
        let base = self.config.channels;
        let embedding = timestep_embedding(tau, base, 10_000.0);
        let embedding = Tensor::from_f32(&self.device, &[tau.len(), base], DType::F32, &embedding)?;
        let hidden = linear(&g, &embedding, &self.time[0], Activation::Silu)?;
        let hidden = linear(&g, &hidden, &self.time[1], Activation::Silu)?;
        let constants = |block: &ResBlock| {
            let both = linear(&g, &hidden, &block.embedding, Activation::None)?.to_f32(&self.device)?;
            let (w, b) = &block.out_norm;
            let c = w.len();
            let (mut scale, mut bias) = (Vec::with_capacity(tau.len() * c), Vec::with_capacity(tau.len() * c));
            for row in both.chunks_exact(2 * c) {
                let (s, shift) = row.split_at(c);
                scale.extend(w.iter().zip(s).map(|(w, s)| w * (1.0 + s)));
                bias.extend(b.iter().zip(s).zip(shift).map(|((b, s), shift)| b * (1.0 + s) + shift));
            }
            Ok(Arc::new(GroupNorm::new(&self.device, GROUPS, c, EPS, &scale, &bias)?))
        };
        Ok(Conditioning(self.blocks().map(constants).collect::<Result<_>>()?))
    }

    /// The network's output `(N, H, W, outputs)` for noisy images `(N, H, W, 3)` in the graph's precision.
    ///
    /// # Errors
    /// [`Error::Shape`] when a side is no multiple of [`Config::multiple`] or the conditioning is of other images.
    pub fn forward(&self, g: &Graph, x: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        self.observe(g, x, conditioning, &mut |_, _| {})
    }

    /// The same; `see` gets the output of every block by its name: `input_blocks.0`, .., `middle_block`, `output_blocks.0`, ..
    ///
    /// # Errors
    /// As [`UNet::forward`].
    pub fn observe(
        &self,
        g: &Graph,
        x: &Tensor,
        conditioning: &Conditioning,
        see: &mut dyn FnMut(&str, &Tensor),
    ) -> Result<Tensor> {
        let ([_, h, w, _], multiple) = (x.dims4("unet")?, self.config.multiple());
        if h == 0 || w == 0 || !h.is_multiple_of(multiple) || !w.is_multiple_of(multiple) {
            return Err(Error::shape(
                "unet",
                "image",
                format!("sides of a multiple of {multiple}"),
                format!("{h}x{w}"),
            ));
        }
        let run = |layers: &[Layer], x: Tensor| layers.iter().try_fold(x, |x, layer| layer.run(g, &x, conditioning));
        let mut skips = Vec::new();
        let mut x = x.clone();
        for (i, layers) in self.input.iter().enumerate() {
            x = run(layers, x)?;
            see(&format!("input_blocks.{i}"), &x);
            skips.push(x.clone());
        }
        x = run(&self.middle, x)?;
        see("middle_block", &x);
        for (i, layers) in self.output.iter().enumerate() {
            let skip = skips.pop().ok_or_else(|| Error::shape("unet", "skip connections", i + 1, i))?;
            x = concat_channels(g, &x, &skip)?;
            drop(skip);
            x = run(layers, x)?;
            see(&format!("output_blocks.{i}"), &x);
        }
        x = group_norm(g, &x, &self.out_norm, Activation::Silu)?;
        conv2d(g, &x, &self.out_conv, None, Activation::None)
    }
}
