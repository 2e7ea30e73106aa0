//! CoAtNet in timm's `rmlp_rw` form: MBConv stages, then transformer stages whose position bias is a small MLP of log coordinates.
//!
//! Sources: Dai et al. 2021; timm `models/maxxvit.py`, whose parameter names these are.

mod build;
pub mod rollout;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use build::Builder;
pub use build::position_table;
use rollout::Rollout;

use super::probe::Probe;
use super::weights::Weights;
use crate::device::Device;
use crate::ops::Activation;
use crate::ops::attention::{Positions, self_attention};
use crate::ops::conv::{Conv2d, Window, conv2d};
use crate::ops::gate::gate;
use crate::ops::gemm::{Linear, linear};
use crate::ops::layer_norm::{LayerNorm, layer_norm};
use crate::ops::pointwise::{Affine, affine_activation};
use crate::ops::pool::{Pool, avg_pool2d, global_avg_pool, global_avg_pool_activated};
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// MBConv: the width inside, and by how much the squeeze is narrower.
const EXPANSION: usize = 4;
const SQUEEZE: usize = 4;
/// Width of the transformer's MLP.
const MLP: usize = 4;
const HALF: Pool = Pool { kernel: [2, 2], stride: [2, 2], padding: [0, 0], ceil_mode: false };

/// The shape of a network, as a checkpoint's metadata spells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// channels of the two convolutions of the stem
    pub stem: [usize; 2],
    /// channels and blocks of each stage
    pub dims: Vec<usize>,
    pub depths: Vec<usize>,
    /// `C` for a convolutional stage, `T` for a transformer
    pub types: String,
    pub head_dim: usize,
    /// hidden width of the position bias's MLP
    pub rel_pos_hidden: usize,
    /// side of the image it was trained on
    pub image: usize,
    pub classes: usize,
}

impl Config {
    fn check(&self) -> Result<()> {
        let wrong = |field: &str, problem: String| Err(Error::usage(format!("config `{field}`"), problem));
        let stages = self.dims.len();
        if stages == 0 || stages > 8 || self.depths.len() != stages || self.types.len() != stages {
            let found = format!("{:?}, {:?}, `{}`", self.dims, self.depths, self.types);
            return wrong("dims", format!("expected 1 to 8 stages in dims, depths and types alike, found {found}"));
        }
        if let Some(other) = self.types.chars().find(|t| !matches!(t, 'C' | 'T')) {
            return wrong("types", format!("expected C and T, found `{other}`"));
        }
        if self.stem.contains(&0) || self.dims.contains(&0) || self.depths.contains(&0) || self.classes == 0 {
            return wrong("dims", "expected widths, depths and classes of at least 1".into());
        }
        if self.rel_pos_hidden == 0 || self.head_dim == 0 {
            return wrong("head_dim", "expected head_dim and rel_pos_hidden of at least 1".into());
        }
        let multiple = self.multiple();
        if self.image == 0 || !self.image.is_multiple_of(multiple) {
            return wrong("image", format!("expected a multiple of {multiple}, found {}", self.image));
        }
        Ok(())
    }

    /// Height and width must be multiples of this.
    pub fn multiple(&self) -> usize {
        2 << self.dims.len()
    }
}

/// Squeeze-and-excitation: two projections of the mean.
struct Squeeze {
    reduce: Arc<Linear>,
    expand: Arc<Linear>,
}

struct MbConv {
    stride: usize,
    shortcut: Option<Arc<Conv2d>>,
    pre_norm: Arc<Affine>,
    expand: Arc<Conv2d>,
    depthwise: Arc<Conv2d>,
    squeeze: Squeeze,
    project: Arc<Conv2d>,
}

struct Transformer {
    stride: usize,
    shortcut: Option<Arc<Conv2d>>,
    norm1: Arc<LayerNorm>,
    qkv: Arc<Conv2d>,
    heads: usize,
    positions: Arc<Positions>,
    projection: Arc<Conv2d>,
    norm2: Arc<LayerNorm>,
    fc1: Arc<Conv2d>,
    fc2: Arc<Conv2d>,
}

enum Block {
    Conv(Box<MbConv>),
    Transformer(Box<Transformer>),
}

/// A CoAtNet on one device, for images of one size.
pub struct CoAtNet {
    config: Config,
    /// of the images: H, W
    size: [usize; 2],
    stem: [Arc<Conv2d>; 2],
    blocks: Vec<(String, Block)>,
    norm: Arc<LayerNorm>,
    head: Arc<Linear>,
}

impl CoAtNet {
    /// Takes every parameter of `config` from `weights` and refuses what is left over. The position biases are built for images
    /// of `size` (H, W), which need not be that of the training.
    ///
    /// # Errors
    /// [`Error::Tensor`] as [`Weights::get`] and [`Weights::finish`] say; [`Error::Usage`] for an impossible config or size.
    pub fn new(
        device: &Device,
        precision: Precision,
        weights: &Weights,
        config: &Config,
        size: [usize; 2],
    ) -> Result<Self> {
        config.check()?;
        let multiple = config.multiple();
        if size.iter().any(|&side| side == 0 || side % multiple != 0) {
            let problem =
                format!("expected images with sides of a multiple of {multiple}, found {}x{}", size[0], size[1]);
            return Err(Error::usage("size", problem));
        }
        let b = Builder { device, precision, weights };
        let [first, second] = config.stem;
        let stem = [
            b.conv_bn("stem.conv1", Some("stem.norm1"), [first, 3, 3, 3], Window::square(2, 1))?,
            b.conv_bn("stem.conv2", None, [second, first, 3, 3], Window::square(1, 1))?,
        ];
        let mut blocks = Vec::new();
        let (mut c, mut map) = (second, size.map(|side| side / 2));
        for (stage, kind) in config.types.chars().enumerate() {
            let o = config.dims[stage];
            map = map.map(|side| side / 2);
            for index in 0..config.depths[stage] {
                let name = format!("stages.{stage}.blocks.{index}");
                let stride = if index == 0 { 2 } else { 1 };
                let block = match kind {
                    'C' => b.mbconv(&name, c, o, stride)?,
                    _ => b.transformer(&name, [c, o, stride], map, config)?,
                };
                blocks.push((name, block));
                c = o;
            }
        }
        let norm = b.layer_norm("norm", c)?;
        let (weight, bias) =
            (b.get("head.fc.weight", &[config.classes, c])?, b.get("head.fc.bias", &[config.classes])?);
        let head = Arc::new(Linear::new(device, precision, &weight, [config.classes, c], Some(&bias))?);
        weights.finish()?;
        Ok(CoAtNet { config: config.clone(), size, stem, blocks, norm, head })
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Values of the widest activation of one image: inside the first MBConv.
    pub fn widest(&self) -> usize {
        self.size[0] * self.size[1] / 4 * self.config.stem[1] * EXPANSION
    }

    /// Logits `(N, classes)` of normalised images `(N, H, W, 3)`.
    ///
    /// # Errors
    /// [`Error::Shape`] for images of another size.
    pub fn forward(&self, g: &Graph, x: &Tensor) -> Result<Tensor> {
        self.probe(g, x, &mut Probe::default())
    }

    /// The same, and the output of one module by its name: `stem`, `stages.0.blocks.0`, .., `norm`, `head.fc`;
    /// of transformer stages also what [`rollout`] computes: `stages.2.blocks.0.attn.weights`, `stages.2.attention_rollout`.
    ///
    /// # Errors
    /// As [`CoAtNet::forward`].
    pub fn probe(&self, g: &Graph, x: &Tensor, probe: &mut Probe) -> Result<Tensor> {
        let ([_, h, w, _], [height, width]) = (x.dims4("coatnet")?, self.size);
        if [h, w] != self.size {
            return Err(Error::shape("coatnet", "image", format!("{height}x{width}"), format!("{h}x{w}")));
        }
        let mut x = conv2d(g, x, &self.stem[0], None, Activation::Silu)?;
        x = conv2d(g, &x, &self.stem[1], None, Activation::None)?;
        probe.see("stem", &x);
        let mut rollout = Rollout::new(&self.config);
        for (name, block) in &self.blocks {
            let _range = crate::device::nvtx::range(name);
            x = match block {
                Block::Conv(block) => block.run(g, &x)?,
                Block::Transformer(block) => {
                    block.run(g, &x, |qkv| rollout.see(g, probe, name, qkv, block.heads, &block.positions))?
                }
            };
            probe.see(name, &x);
        }
        x = layer_norm(g, &x, &self.norm)?;
        probe.see("norm", &x);
        let logits = linear(g, &global_avg_pool(g, &x)?, &self.head, Activation::None)?;
        probe.see("head.fc", &logits);
        Ok(logits)
    }
}

impl MbConv {
    fn run(&self, g: &Graph, x: &Tensor) -> Result<Tensor> {
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
    fn run(&self, g: &Graph, x: &Tensor, see: impl FnOnce(&Tensor) -> Result<()>) -> Result<Tensor> {
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
