//! The blocks of a CoAtNet and what they compute.

use std::sync::Arc;

use crate::Result;
use crate::ops::Activation;
use crate::ops::attention::{Positions, self_attention};
use crate::ops::conv::{Conv2d, conv2d};
use crate::ops::gate::gate;
use crate::ops::gemm::{Linear, linear};
use crate::ops::layer_norm::{LayerNorm, layer_norm};
use crate::ops::pointwise::{Affine, affine_activation};
use crate::ops::pool::{Pool, avg_pool2d, global_avg_pool_activated};
use crate::tape::Graph;
use crate::tensor::Tensor;

const HALF: Pool = Pool { kernel: [2, 2], stride: [2, 2], padding: [0, 0], ceil_mode: false };

/// Squeeze-and-excitation: two projections of the mean.
pub(super) struct Squeeze {
    pub reduce: Arc<Linear>,
    pub expand: Arc<Linear>,
}

pub(super) struct MbConv {
    pub stride: usize,
    pub shortcut: Option<Arc<Conv2d>>,
    pub pre_norm: Arc<Affine>,
    pub expand: Arc<Conv2d>,
    pub depthwise: Arc<Conv2d>,
    pub squeeze: Squeeze,
    pub project: Arc<Conv2d>,
}

pub(super) struct Transformer {
    pub stride: usize,
    pub shortcut: Option<Arc<Conv2d>>,
    pub norm1: Arc<LayerNorm>,
    pub qkv: Arc<Conv2d>,
    pub heads: usize,
    pub positions: Arc<Positions>,
    pub projection: Arc<Conv2d>,
    pub norm2: Arc<LayerNorm>,
    pub fc1: Arc<Conv2d>,
    pub fc2: Arc<Conv2d>,
}

pub(super) enum Block {
    Conv(Box<MbConv>),
    Transformer(Box<Transformer>),
}

impl MbConv {
    pub fn run(&self, g: &Graph, x: &Tensor) -> Result<Tensor> {
        let mut skip = if self.stride == 1 { x.clone() } else { avg_pool2d(g, x, HALF, true)? };
        if let Some(conv) = &self.shortcut {
            skip = conv2d(g, &skip, conv, None, Activation::None)?;
        }
        let h = affine_activation(g, x, &self.pre_norm, Activation::Silu)?;
        let h = conv2d(g, &h, &self.expand, None, Activation::Silu)?;
        // With gradients on only what goes into the SiLU is kept; pool and gate apply it where they read it.
        let (now, later) = match g.records() {
            true => (Activation::None, Activation::Silu),
            false => (Activation::Silu, Activation::None),
        };
        let h = conv2d(g, &h, &self.depthwise, None, now)?;
        let mean = global_avg_pool_activated(g, &h, later)?;
        let hidden = linear(g, &mean, &self.squeeze.reduce, Activation::Silu)?;
        let gates = linear(g, &hidden, &self.squeeze.expand, Activation::Sigmoid)?;
        conv2d(g, &gate(g, &h, &gates, later)?, &self.project, Some(&skip), Activation::None)
    }
}

impl Transformer {
    /// `see` gets what the attention reads.
    pub fn run(&self, g: &Graph, x: &Tensor, see: impl FnOnce(&Tensor) -> Result<()>) -> Result<Tensor> {
        let (mut skip, mut h) = (x.clone(), layer_norm(g, x, &self.norm1)?);
        if self.stride != 1 {
            skip = avg_pool2d(g, x, HALF, true)?;
            h = avg_pool2d(g, &h, HALF, true)?;
        }
        if let Some(conv) = &self.shortcut {
            skip = conv2d(g, &skip, conv, None, Activation::None)?;
        }
        let qkv = conv2d(g, &h, &self.qkv, None, Activation::None)?;
        see(&qkv)?;
        let attended = self_attention(g, &qkv, self.heads, Some(&self.positions))?;
        let y = conv2d(g, &attended, &self.projection, Some(&skip), Activation::None)?;
        let h = layer_norm(g, &y, &self.norm2)?;
        let h = conv2d(g, &h, &self.fc1, None, Activation::Gelu)?;
        conv2d(g, &h, &self.fc2, Some(&y), Activation::None)
    }
}
