//! A U-Net from a checkpoint's tensors, block by block in the order of their public numbers.

use std::sync::Arc;

use super::blocks::{Attention, Conv, Layer, ResBlock, Resample};
use super::{Config, EPS, GROUPS, IMAGE, UNet};
use crate::device::Device;
use crate::models::weights::Weights;
use crate::ops::conv::{Conv2d, Window};
use crate::ops::conv_upsampled::UpsampledConv2d;
use crate::ops::gemm::Linear;
use crate::ops::group_norm::GroupNorm;
use crate::tape::Precision;
use crate::{Error, Result};

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
}
