//! The U-Nets of improved-diffusion and guided-diffusion, by their public parameter names.
//!
//! Sources: Nichol & Dhariwal 2021; Dhariwal & Nichol 2021.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::weights::Weights;
use crate::device::{DType, Device};
use crate::ops::Activation;
use crate::ops::attention::self_attention;
use crate::ops::conv::{Conv2d, Window, conv2d};
use crate::ops::conv_upsampled::{UpsampledConv2d, conv2d_upsampled};
use crate::ops::diffusion::concat_channels;
use crate::ops::gemm::{Linear, linear};
use crate::ops::norm::{GroupNorm, group_norm};
use crate::ops::pool::{Pool, avg_pool2d};
use crate::ops::resize::upsample_nearest;
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

/// What the timestep does to a network: the constants of every residual block's second norm.
#[derive(Clone)]
pub struct Conditioning(Vec<Arc<GroupNorm>>);

/// How a residual block changes the size of the image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resample {
    None,
    Down,
    Up,
}

/// A 3x3 convolution, of an enlarged image or not.
enum Conv {
    Plain(Arc<Conv2d>),
    Upsampled(Arc<UpsampledConv2d>),
}

impl Conv {
    fn run(&self, g: &Graph, x: &Tensor) -> Result<Tensor> {
        match self {
            Conv::Plain(conv) => conv2d(g, x, conv, None, Activation::None),
            Conv::Upsampled(conv) => conv2d_upsampled(g, x, conv),
        }
    }
}

struct ResBlock {
    resample: Resample,
    in_norm: Arc<GroupNorm>,
    in_conv: Conv,
    /// of the activated embedding: scale and shift
    embedding: Arc<Linear>,
    out_norm: (Vec<f32>, Vec<f32>),
    out_conv: Arc<Conv2d>,
    skip: Option<Arc<Conv2d>>,
    /// among the network's residual blocks
    index: usize,
}

struct Attention {
    norm: Arc<GroupNorm>,
    qkv: Arc<Conv2d>,
    projection: Arc<Conv2d>,
    heads: usize,
}

enum Layer {
    Conv(Conv),
    Res(Box<ResBlock>),
    Attention(Attention),
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

/// What a builder needs at every step.
struct Builder<'a> {
    device: &'a Device,
    precision: Precision,
    weights: &'a Weights,
    config: &'a Config,
    res_blocks: usize,
}

impl Builder<'_> {
    fn pair(&self, name: &str, shape: &[usize]) -> Result<(Vec<f32>, Vec<f32>)> {
        Ok((
            self.weights.get(&format!("{name}.weight"), shape)?,
            self.weights.get(&format!("{name}.bias"), &shape[..1])?,
        ))
    }

    fn norm(&self, name: &str, c: usize) -> Result<Arc<GroupNorm>> {
        let (w, b) = self.pair(name, &[c])?;
        Ok(Arc::new(GroupNorm::new(self.device, GROUPS, c, EPS, &w, &b)?))
    }

    fn conv(&self, name: &str, shape: [usize; 4], stride: usize) -> Result<Arc<Conv2d>> {
        let (w, b) = self.pair(name, &shape)?;
        let window = Window::square(stride, shape[2] / 2);
        Ok(Arc::new(Conv2d::new(self.device, self.precision, &w, shape, Some(&b), window)?))
    }

    fn conv3(&self, name: &str, [o, c]: [usize; 2], resample: Resample) -> Result<Conv> {
        if resample != Resample::Up {
            return Ok(Conv::Plain(self.conv(name, [o, c, 3, 3], 1)?));
        }
        let (w, b) = self.pair(name, &[o, c, 3, 3])?;
        Ok(Conv::Upsampled(Arc::new(UpsampledConv2d::new(self.device, self.precision, &w, [o, c], &b)?)))
    }

    /// A projection of channels, stored as a convolution over tokens `(O, C, 1)`.
    fn projection(&self, name: &str, [o, c]: [usize; 2]) -> Result<Arc<Conv2d>> {
        let (w, b) = self.pair(name, &[o, c, 1])?;
        Ok(Arc::new(Conv2d::new(self.device, self.precision, &w, [o, c, 1, 1], Some(&b), Window::default())?))
    }

    fn linear(&self, name: &str, shape: [usize; 2]) -> Result<Arc<Linear>> {
        let (w, b) = self.pair(name, &shape)?;
        // The embedding stays in float32 in every precision: it is computed once per timestep.
        Ok(Arc::new(Linear::new(self.device, Precision::F32, &w, shape, Some(&b))?))
    }

    fn res_block(&mut self, name: &str, c: usize, o: usize, resample: Resample) -> Result<Layer> {
        let at = |part: &str| format!("{name}.{part}");
        let block = ResBlock {
            resample,
            in_norm: self.norm(&at("in_layers.0"), c)?,
            in_conv: self.conv3(&at("in_layers.2"), [o, c], resample)?,
            embedding: self.linear(&at("emb_layers.1"), [2 * o, 4 * self.config.channels])?,
            out_norm: self.pair(&at("out_layers.0"), &[o])?,
            out_conv: self.conv(&at("out_layers.3"), [o, o, 3, 3], 1)?,
            skip: (c != o).then(|| self.conv(&at("skip_connection"), [o, c, 1, 1], 1)).transpose()?,
            index: self.res_blocks,
        };
        self.res_blocks += 1;
        Ok(Layer::Res(Box::new(block)))
    }

    fn attention(&self, name: &str, c: usize) -> Result<Layer> {
        Ok(Layer::Attention(Attention {
            norm: self.norm(&format!("{name}.norm"), c)?,
            qkv: self.projection(&format!("{name}.qkv"), [3 * c, c])?,
            projection: self.projection(&format!("{name}.proj_out"), [c, c])?,
            heads: self.config.heads(c)?,
        }))
    }
}

impl UNet {
    /// Takes every parameter of `config` from `weights` and refuses what is left over. Of the output only the first `outputs`
    /// channels are computed.
    ///
    /// # Errors
    /// [`Error::Tensor`] as [`Weights::get`] and [`Weights::finish`] say; [`Error::Usage`] for an impossible config.
    pub fn new(
        device: &Device,
        precision: Precision,
        weights: &Weights,
        config: &Config,
        outputs: usize,
    ) -> Result<Self> {
        config.check()?;
        if outputs == 0 || outputs > config.out_channels {
            return Err(Error::usage("outputs", format!("expected 1 to {}, found {outputs}", config.out_channels)));
        }
        let before = weights.taken();
        let mut b = Builder { device, precision, weights, config, res_blocks: 0 };
        let (base, levels) = (config.channels, config.channel_mult.len());
        let wide = 4 * base;
        let time = [b.linear("time_embed.0", [wide, base])?, b.linear("time_embed.2", [wide, wide])?];

        let mut c = config.channel_mult[0] * base;
        let mut input = vec![vec![Layer::Conv(b.conv3("input_blocks.0.0", [c, IMAGE], Resample::None)?)]];
        let mut skips = vec![c];
        let mut factor = 1;
        for (level, mult) in config.channel_mult.iter().enumerate() {
            for _ in 0..config.res_blocks {
                let name = format!("input_blocks.{}", input.len());
                let o = mult * base;
                let mut layers = vec![b.res_block(&format!("{name}.0"), c, o, Resample::None)?];
                c = o;
                if config.attention_factors.contains(&factor) {
                    layers.push(b.attention(&format!("{name}.1"), c)?);
                }
                input.push(layers);
                skips.push(c);
            }
            if level + 1 < levels {
                let name = format!("input_blocks.{}.0", input.len());
                input.push(vec![if config.resblock_updown {
                    b.res_block(&name, c, c, Resample::Down)?
                } else {
                    Layer::Conv(Conv::Plain(b.conv(&format!("{name}.op"), [c, c, 3, 3], 2)?))
                }]);
                skips.push(c);
                factor *= 2;
            }
        }

        let middle = vec![
            b.res_block("middle_block.0", c, c, Resample::None)?,
            b.attention("middle_block.1", c)?,
            b.res_block("middle_block.2", c, c, Resample::None)?,
        ];

        let mut output: Vec<Vec<Layer>> = Vec::new();
        for (level, mult) in config.channel_mult.iter().enumerate().rev() {
            for i in 0..=config.res_blocks {
                let name = format!("output_blocks.{}", output.len());
                let (skip, o) = (skips.pop().unwrap_or(0), mult * base);
                let mut layers = vec![b.res_block(&format!("{name}.0"), c + skip, o, Resample::None)?];
                c = o;
                if config.attention_factors.contains(&factor) {
                    layers.push(b.attention(&format!("{name}.1"), c)?);
                }
                if level > 0 && i == config.res_blocks {
                    let name = format!("{name}.{}", layers.len());
                    layers.push(if config.resblock_updown {
                        b.res_block(&name, c, c, Resample::Up)?
                    } else {
                        Layer::Conv(b.conv3(&format!("{name}.conv"), [c, c], Resample::Up)?)
                    });
                    factor /= 2;
                }
                output.push(layers);
            }
        }

        let out_norm = b.norm("out.0", c)?;
        let (w, bias) = b.pair("out.2", &[config.out_channels, c, 3, 3])?;
        let shape = [outputs, c, 3, 3];
        let out_conv =
            Conv2d::new(device, precision, &w[..outputs * c * 9], shape, Some(&bias[..outputs]), Window::square(1, 1))?;
        weights.finish()?;
        Ok(UNet {
            config: config.clone(),
            time,
            input,
            middle,
            output,
            out_norm,
            out_conv: Arc::new(out_conv),
            device: device.clone(),
            parameters: weights.taken() - before,
        })
    }

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

impl Layer {
    fn run(&self, g: &Graph, x: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        match self {
            Layer::Conv(conv) => conv.run(g, x),
            Layer::Res(block) => block.run(g, x, conditioning),
            Layer::Attention(attention) => attention.run(g, x),
        }
    }
}

impl ResBlock {
    fn run(&self, g: &Graph, x: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        const HALF: Pool = Pool { kernel: [2, 2], stride: [2, 2], padding: [0, 0], ceil_mode: false };
        let mut h = group_norm(g, x, &self.in_norm, Activation::Silu)?;
        let x = match self.resample {
            Resample::None => x.clone(),
            Resample::Down => {
                h = avg_pool2d(g, &h, HALF, true)?;
                avg_pool2d(g, x, HALF, true)?
            }
            Resample::Up => upsample_nearest(g, x, 2)?,
        };
        let h = self.in_conv.run(g, &h)?;
        let h = group_norm(g, &h, &conditioning.0[self.index], Activation::Silu)?;
        let skip = match &self.skip {
            Some(conv) => conv2d(g, &x, conv, None, Activation::None)?,
            None => x,
        };
        conv2d(g, &h, &self.out_conv, Some(&skip), Activation::None)
    }
}

impl Attention {
    fn run(&self, g: &Graph, x: &Tensor) -> Result<Tensor> {
        let h = group_norm(g, x, &self.norm, Activation::None)?;
        let qkv = conv2d(g, &h, &self.qkv, None, Activation::None)?;
        let y = self_attention(g, &qkv, self.heads, None)?;
        conv2d(g, &y, &self.projection, Some(x), Activation::None)
    }
}
