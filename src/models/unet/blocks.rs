//! The layers of a U-Net and what they compute.

use std::sync::Arc;

use crate::Result;
use crate::ops::Activation;
use crate::ops::attention::self_attention;
use crate::ops::conv::{Conv2d, conv2d};
use crate::ops::conv_upsampled::{UpsampledConv2d, conv2d_upsampled};
use crate::ops::gemm::Linear;
use crate::ops::group_norm::{GroupNorm, group_norm};
use crate::ops::pool::{Pool, avg_pool2d};
use crate::ops::resize::upsample_nearest;
use crate::tape::Graph;
use crate::tensor::Tensor;

/// What the timestep does to a network: the constants of every residual block's second norm.
#[derive(Clone)]
pub struct Conditioning(pub(super) Vec<Arc<GroupNorm>>);

/// How a residual block changes the size of the image.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Resample {
    None,
    Down,
    Up,
}

/// A 3x3 convolution, of an enlarged image or not.
pub(super) enum Conv {
    Plain(Arc<Conv2d>),
    Upsampled(Arc<UpsampledConv2d>),
}

impl Conv {
    pub fn run(&self, g: &Graph, x: &Tensor) -> Result<Tensor> {
        match self {
            Conv::Plain(conv) => conv2d(g, x, conv, None, Activation::None),
            Conv::Upsampled(conv) => conv2d_upsampled(g, x, conv),
        }
    }
}

pub(super) struct ResBlock {
    pub resample: Resample,
    pub in_norm: Arc<GroupNorm>,
    pub in_conv: Conv,
    /// of the activated embedding: scale and shift
    pub embedding: Arc<Linear>,
    pub out_norm: (Vec<f32>, Vec<f32>),
    pub out_conv: Arc<Conv2d>,
    pub skip: Option<Arc<Conv2d>>,
    /// among the network's residual blocks
    pub index: usize,
}

pub(super) struct Attention {
    pub norm: Arc<GroupNorm>,
    pub qkv: Arc<Conv2d>,
    pub projection: Arc<Conv2d>,
    pub heads: usize,
}

pub(super) enum Layer {
    Conv(Conv),
    Res(Box<ResBlock>),
    Attention(Attention),
}

impl Layer {
    pub fn run(&self, g: &Graph, x: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        match self {
            Layer::Conv(conv) => conv.run(g, x),
            Layer::Res(block) => block.run(g, x, conditioning),
            Layer::Attention(attention) => attention.run(g, x),
        }
    }
}

impl ResBlock {
    pub fn run(&self, g: &Graph, x: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
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
    pub fn run(&self, g: &Graph, x: &Tensor) -> Result<Tensor> {
        let h = group_norm(g, x, &self.norm, Activation::None)?;
        let qkv = conv2d(g, &h, &self.qkv, None, Activation::None)?;
        let y = self_attention(g, &qkv, self.heads, None)?;
        conv2d(g, &y, &self.projection, Some(x), Activation::None)
    }
}
