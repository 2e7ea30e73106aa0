//! ResNet-18, -34 and -50 for CIFAR- and ImageNet-sized images, with and without CBAM.
//!
//! Sources: He et al. 2016; Woo et al. 2018 (CBAM). Parameter names are those of torchvision and attention-module.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::network::{Network, Row, Shape, ShapeOf};
use super::probe::Probe;
use super::weights::Weights;
use crate::device::{Device, nvtx};
use crate::ops::Activation;
use crate::ops::cbam::{Cbam, cbam, cbam_with_gates};
use crate::ops::conv::{Conv2d, Window, conv2d, fold_batch_norm};
use crate::ops::gemm::{Linear, linear};
use crate::ops::pool::{Pool, global_avg_pool, max_pool2d};
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Batch norm's eps, everywhere in these networks.
const EPS: f32 = 1e-5;

/// How the image enters: one 3x3 convolution, or a strided 7x7 and a max pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stem {
    Cifar,
    Imagenet,
}

/// Attention at the end of each residual branch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attention {
    None,
    Cbam,
}

fn width() -> usize {
    64
}
fn attention() -> Attention {
    Attention::None
}
fn reduction() -> usize {
    16
}

/// The shape of a network, as a checkpoint's metadata spells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// 18, 34 or 50
    pub depth: usize,
    pub stem: Stem,
    #[serde(default = "width")]
    pub width: usize,
    #[serde(default = "attention")]
    pub attention: Attention,
    /// of CBAM's channel MLP
    #[serde(default = "reduction")]
    pub reduction: usize,
    pub classes: usize,
}

pub const ROW: Row = Row {
    name: "resnet",
    help: "ResNet-18, -34 or -50, with or without CBAM; torchvision's names",
    parse: |config| Ok(Box::new(serde_json::from_value::<Config>(config)?)),
    infer,
    usual: r#"{"depth":50,"stem":"cifar","width":64,"attention":"none","classes":10}"#,
    small: r#"{"depth":18,"stem":"cifar","width":16,"attention":"none","classes":10}"#,
};

fn infer(shape: &ShapeOf) -> Option<Value> {
    let of = |name: &str| shape(&format!("{name}.weight"));
    let blocks = |layer: usize| (0..64).take_while(|i| of(&format!("layer{layer}.{i}.conv1")).is_some()).count();
    let (stem, fc) = (of("conv1")?, of("fc")?);
    let (&[width, 3, side, _], &[classes, _]) = (stem.as_slice(), fc.as_slice()) else { return None };
    let stem = match side {
        3 => Stem::Cifar,
        7 => Stem::Imagenet,
        _ => return None,
    };
    let bottleneck = of("layer1.0.conv3").is_some();
    let depth = match ([1, 2, 3, 4].map(blocks), bottleneck) {
        ([2, 2, 2, 2], false) => 18,
        ([3, 4, 6, 3], false) => 34,
        ([3, 4, 6, 3], true) => 50,
        _ => return None,
    };
    // Wider ones and those of groups have the same names.
    let first = if bottleneck { 1 } else { 3 };
    if of("layer1.0.conv1")? != [width, width, first, first] || of("layer1.0.conv2")? != [width, width, 3, 3] {
        return None;
    }
    let gate = of(&format!("layer1.0.{}", GATES[0]));
    let (attention, reduction) = match gate.as_deref() {
        Some(&[hidden, c]) => (Attention::Cbam, c / hidden.max(1)),
        _ => (Attention::None, reduction()),
    };
    serde_json::to_value(Config { depth, stem, width, attention, reduction, classes }).ok()
}

impl Shape for Config {
    fn build(
        &self,
        device: &Device,
        precision: Precision,
        weights: &Weights,
        _: [usize; 2],
    ) -> Result<Box<dyn Network>> {
        Ok(Box::new(ResNet::new(device, precision, weights, self)?))
    }
}

impl Config {
    /// Blocks per layer, and whether they are bottlenecks.
    fn blocks(&self) -> Result<([usize; 4], bool)> {
        match self.depth {
            18 => Ok(([2, 2, 2, 2], false)),
            34 => Ok(([3, 4, 6, 3], false)),
            50 => Ok(([3, 4, 6, 3], true)),
            other => Err(Error::usage("config `depth`", format!("expected 18, 34 or 50, found {other}"))),
        }
    }
}

pub(super) struct Block {
    pub name: String,
    /// all but the last, each followed by a ReLU
    pub inner: Vec<Arc<Conv2d>>,
    pub last: Arc<Conv2d>,
    pub shortcut: Option<Arc<Conv2d>>,
    pub attention: Option<Arc<Cbam>>,
}

/// A residual network on one device.
pub struct ResNet {
    pub(super) classes: usize,
    pub(super) stem: Arc<Conv2d>,
    pub(super) max_pool: bool,
    pub(super) blocks: Vec<Block>,
    pub(super) fc: Arc<Linear>,
    /// channels of the first layer's output
    pub(super) first: usize,
    /// how the stem and the last layer are called
    pub(super) ends: [&'static str; 2],
}

/// What a builder needs at every step.
pub(super) struct Builder<'a> {
    pub device: &'a Device,
    pub precision: Precision,
    pub weights: &'a Weights,
}

/// Names of the gates' layers within a block: the two of the shared MLP, the convolution, its batch norm.
pub(super) type GateNames = [&'static str; 4];

const GATES: GateNames = [
    "cbam.ChannelGate.mlp.1",
    "cbam.ChannelGate.mlp.3",
    "cbam.SpatialGate.spatial.conv",
    "cbam.SpatialGate.spatial.bn",
];

impl Builder<'_> {
    /// A convolution without bias and the batch norm behind it, folded in float64.
    pub fn conv_bn(&self, conv: &str, bn: &str, [o, c, k]: [usize; 3], stride: usize) -> Result<Arc<Conv2d>> {
        let mut weight = self.weights.get(&format!("{conv}.weight"), &[o, c, k, k])?;
        let (scale, bias) = self.batch_norm(bn, o)?;
        for (taps, &s) in weight.chunks_exact_mut(c * k * k).zip(&scale) {
            taps.iter_mut().for_each(|w| *w = (f64::from(*w) * s) as f32);
        }
        let bias: Vec<f32> = bias.into_iter().map(|b| b as f32).collect();
        let window = Window::square(stride, k / 2);
        Ok(Arc::new(Conv2d::new(self.device, self.precision, &weight, [o, c, k, k], Some(&bias), window)?))
    }

    /// Batch norm as `x * scale + bias`.
    fn batch_norm(&self, name: &str, c: usize) -> Result<(Vec<f64>, Vec<f64>)> {
        let get = |part: &str| self.weights.get(&format!("{name}.{part}"), &[c]);
        let (weight, bias, mean, var) = (get("weight")?, get("bias")?, get("running_mean")?, get("running_var")?);
        fold_batch_norm(&weight, &bias, &mean, &var, EPS)
            .map_err(|problem| Error::tensor(self.weights.origin(), format!("{name}.running_var"), problem))
    }

    pub fn cbam(&self, block: &str, names: &GateNames, c: usize, reduction: usize) -> Result<Arc<Cbam>> {
        let hidden = (c / reduction).max(1);
        let [mlp1, mlp3, conv, bn] = names;
        let get =
            |layer: &str, part: &str, shape: &[usize]| self.weights.get(&format!("{block}.{layer}.{part}"), shape);
        let (w1, b1) = (get(mlp1, "weight", &[hidden, c])?, get(mlp1, "bias", &[hidden])?);
        let (w3, b3) = (get(mlp3, "weight", &[c, hidden])?, get(mlp3, "bias", &[c])?);
        let kernel = get(conv, "weight", &[1, 2, 7, 7])?;
        let (scale, bias) = self.batch_norm(&format!("{block}.{bn}"), 1)?;
        Ok(Arc::new(Cbam::new(self.device, (&w1, &b1), (&w3, &b3), &kernel, (scale[0] as f32, bias[0] as f32))?))
    }

    /// The last layer, a weight `(classes, c)` and a bias.
    pub fn linear(&self, name: &str, [classes, c]: [usize; 2]) -> Result<Arc<Linear>> {
        let weight = self.weights.get(&format!("{name}.weight"), &[classes, c])?;
        let bias = self.weights.get(&format!("{name}.bias"), &[classes])?;
        Ok(Arc::new(Linear::new(self.device, self.precision, &weight, [classes, c], Some(&bias))?))
    }
}

impl ResNet {
    /// Takes every parameter of `config` from `weights` and refuses what is left over.
    ///
    /// # Errors
    /// [`Error::Tensor`] as [`Weights::get`] and [`Weights::finish`] say; [`Error::Usage`] for an impossible config.
    pub fn new(device: &Device, precision: Precision, weights: &Weights, config: &Config) -> Result<Self> {
        let b = Builder { device, precision, weights };
        let (counts, bottleneck) = config.blocks()?;
        if config.width == 0 || config.classes == 0 || config.reduction == 0 {
            return Err(Error::usage("config", "expected width, classes and reduction of at least 1"));
        }
        let stem = match config.stem {
            Stem::Cifar => b.conv_bn("conv1", "bn1", [config.width, 3, 3], 1)?,
            Stem::Imagenet => b.conv_bn("conv1", "bn1", [config.width, 3, 7], 2)?,
        };
        let mut blocks = Vec::new();
        let mut c = config.width;
        for (layer, &count) in counts.iter().enumerate() {
            let p = config.width << layer;
            let out = if bottleneck { 4 * p } else { p };
            for index in 0..count {
                let name = format!("layer{}.{index}", layer + 1);
                let stride = if index == 0 && layer > 0 { 2 } else { 1 };
                let at = |part: &str| format!("{name}.{part}");
                let (inner, last) = if bottleneck {
                    let first = b.conv_bn(&at("conv1"), &at("bn1"), [p, c, 1], 1)?;
                    let second = b.conv_bn(&at("conv2"), &at("bn2"), [p, p, 3], stride)?;
                    (vec![first, second], b.conv_bn(&at("conv3"), &at("bn3"), [out, p, 1], 1)?)
                } else {
                    let first = b.conv_bn(&at("conv1"), &at("bn1"), [p, c, 3], stride)?;
                    (vec![first], b.conv_bn(&at("conv2"), &at("bn2"), [p, p, 3], 1)?)
                };
                let shortcut = (stride != 1 || c != out)
                    .then(|| b.conv_bn(&at("downsample.0"), &at("downsample.1"), [out, c, 1], stride))
                    .transpose()?;
                let attention = (config.attention == Attention::Cbam)
                    .then(|| b.cbam(&name, &GATES, out, config.reduction))
                    .transpose()?;
                blocks.push(Block { name, inner, last, shortcut, attention });
                c = out;
            }
        }
        let fc = b.linear("fc", [config.classes, c])?;
        weights.finish()?;
        Ok(ResNet {
            classes: config.classes,
            stem,
            max_pool: config.stem == Stem::Imagenet,
            blocks,
            fc,
            first: if bottleneck { 4 * config.width } else { config.width },
            ends: ["relu", "fc"],
        })
    }
}

impl Network for ResNet {
    fn classes(&self) -> usize {
        self.classes
    }

    /// The modules worth a look: the stem and the last block of each layer, by the names that [`Network::probe`] knows.
    fn stages(&self) -> Vec<String> {
        let ends = |next: Option<&Block>, block: &Block| next.is_none_or(|next| next.name[..6] != block.name[..6]);
        let last = self.blocks.iter().enumerate().filter(|(i, block)| ends(self.blocks.get(i + 1), block));
        std::iter::once("relu".to_owned()).chain(last.map(|(_, block)| block.name.clone())).collect()
    }

    /// The gates of the attention in [`Network::stages`]: `layer1.2.cbam.spatial_gate`, .., `layer1.2.cbam.channel_gate`, ..
    fn attention_maps(&self) -> Vec<String> {
        let stages = self.stages();
        let gated = |block: &&Block| block.attention.is_some() && stages.contains(&block.name);
        let gates = |block: &Block| ["spatial_gate", "channel_gate"].map(|gate| format!("{}.cbam.{gate}", block.name));
        self.blocks.iter().filter(gated).flat_map(gates).collect()
    }

    /// Values of the widest activation of one image of h x w pixels: the first layer's output.
    fn widest(&self, h: usize, w: usize) -> usize {
        let points = if self.max_pool { h * w / 16 } else { h * w };
        points * self.first
    }

    /// The modules are `relu` (the stem's), `maxpool`, `layer1.0`, `layer1.0.cbam`,
    /// `layer1.0.cbam.channel_gate` `(N, C)`, `layer1.0.cbam.spatial_gate` `(N, H, W, 1)`, .., `avgpool`, `fc`.
    ///
    /// # Errors
    /// [`Error::Shape`] for images too small or of another depth.
    fn probe(&self, g: &Graph, x: &Tensor, probe: &mut Probe) -> Result<Tensor> {
        let mut h = conv2d(g, x, &self.stem, None, Activation::Relu)?;
        probe.see(self.ends[0], &h);
        if self.max_pool {
            h = max_pool2d(g, &h, Pool { kernel: [3, 3], stride: [2, 2], padding: [1, 1], ceil_mode: false })?;
            probe.see("maxpool", &h);
        }
        for block in &self.blocks {
            h = block.forward(g, &h, probe)?;
            probe.see(&block.name, &h);
        }
        let pooled = global_avg_pool(g, &h)?;
        probe.see("avgpool", &pooled);
        let logits = linear(g, &pooled, &self.fc, Activation::None)?;
        probe.see(self.ends[1], &logits);
        Ok(logits)
    }
}

impl Block {
    fn forward(&self, g: &Graph, x: &Tensor, probe: &mut Probe) -> Result<Tensor> {
        let _range = nvtx::range(nvtx::Kind::Op, &self.name);
        let shortcut = match &self.shortcut {
            Some(conv) => conv2d(g, x, conv, None, Activation::None)?,
            None => x.clone(),
        };
        let mut h = x.clone();
        for conv in &self.inner {
            h = conv2d(g, &h, conv, None, Activation::Relu)?;
        }
        let Some(gates) = &self.attention else {
            return conv2d(g, &h, &self.last, Some(&shortcut), Activation::Relu);
        };
        let h = conv2d(g, &h, &self.last, None, Activation::None)?;
        if !probe.active() {
            return cbam(g, &h, gates, Some(&shortcut), Activation::Relu);
        }
        // The gates' own output exists only inside the fused kernel; it is computed apart for whoever asks.
        let name = format!("{}.cbam", self.name);
        probe.offer(&name, || cbam(&Graph::inference(g.device(), g.precision()), &h, gates, None, Activation::None))?;
        let (y, left) = cbam_with_gates(g, &h, gates, Some(&shortcut), Activation::Relu)?;
        for (part, gate) in [("channel_gate", left.channel), ("spatial_gate", left.spatial)] {
            if let Some(gate) = gate {
                probe.see(&format!("{name}.{part}"), &gate);
            }
        }
        Ok(y)
    }
}
