//! CoAtNet in timm's `rmlp_rw` form: MBConv stages, then transformer stages whose position bias is a small MLP of log coordinates.
//!
//! Sources: Dai et al. 2021; timm `models/maxxvit.py`, whose parameter names these are.

mod blocks;
mod build;
mod config;
pub mod rollout;

use std::sync::Arc;

use blocks::Block;
use build::Builder;
pub use build::position_table;
pub use config::Config;
use config::EXPANSION;
use rollout::Rollout;

use serde_json::{Value, json};

use super::network::{Network, Row, Shape, ShapeOf};
use super::probe::Probe;
use super::weights::Weights;
use crate::device::{Device, nvtx};
use crate::ops::Activation;
use crate::ops::conv::{Conv2d, Window, conv2d};
use crate::ops::gemm::{Linear, linear};
use crate::ops::layer_norm::{LayerNorm, layer_norm};
use crate::ops::pool::global_avg_pool;
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

pub const ROW: Row = Row {
    name: "coatnet",
    help: "CoAtNet in timm's rmlp_rw form; timm's names",
    parse: |config| Ok(Box::new(serde_json::from_value::<Config>(config)?)),
    infer,
    usual: r#"{"stem":[64,128],"dims":[128,256,512,1024],"depths":[2,6,14,2],"types":"CCTT","head_dim":32,"rel_pos_hidden":512,"image":384,"classes":1000}"#,
    small: r#"{"stem":[8,16],"dims":[16,32,64,64],"depths":[1,1,1,1],"types":"CCTT","head_dim":32,"rel_pos_hidden":16,"image":64,"classes":10}"#,
};

/// All but the size of the image, which no tensor tells.
fn infer(shape: &ShapeOf) -> Option<Value> {
    let side = |name: &str, axis: usize| shape(&format!("{name}.weight"))?.get(axis).copied();
    let at = |stage: usize, block: usize, part: &str| format!("stages.{stage}.blocks.{block}.{part}");
    let stem = [side("stem.conv1", 0)?, side("stem.conv2", 0)?];
    let (mut dims, mut depths, mut types, mut heads) = (vec![], vec![], String::new(), None);
    for stage in 0..8 {
        let (kind, end) = match (side(&at(stage, 0, "conv3_1x1"), 0), side(&at(stage, 0, "mlp.fc2"), 0)) {
            (Some(c), _) => ('C', (c, "conv3_1x1")),
            (None, Some(c)) => ('T', (c, "mlp.fc2")),
            (None, None) => break,
        };
        if kind == 'T' && heads.is_none() {
            let part = |part: &str, axis: usize| side(&at(stage, 0, part), axis);
            heads = part("attn.qkv", 1).zip(part("attn.rel_pos.mlp.fc2", 0)).zip(part("attn.rel_pos.mlp.fc1", 0));
        }
        dims.push(end.0);
        depths.push((0..64).take_while(|&block| side(&at(stage, block, end.1), 0).is_some()).count());
        types.push(kind);
    }
    let ((c, heads), hidden) = heads?;
    let (head_dim, classes) = (c.checked_div(heads)?, side("head.fc", 0)?);
    Some(
        json!({ "stem": stem, "dims": dims, "depths": depths, "types": types, "head_dim": head_dim, "rel_pos_hidden": hidden,
        "classes": classes }),
    )
}

impl Shape for Config {
    fn size(&self) -> Option<[usize; 2]> {
        Some([self.image; 2])
    }

    fn build(
        &self,
        device: &Device,
        precision: Precision,
        weights: &Weights,
        size: [usize; 2],
    ) -> Result<Box<dyn Network>> {
        Ok(Box::new(CoAtNet::new(device, precision, weights, self, size)?))
    }
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
}

impl Network for CoAtNet {
    fn classes(&self) -> usize {
        self.config.classes
    }

    fn stages(&self) -> Vec<String> {
        rollout::ends(&self.config)
    }

    fn attention_maps(&self) -> Vec<String> {
        rollout::maps(&self.config)
    }

    /// Values of the widest activation of one image: inside the first MBConv.
    fn widest(&self, _: usize, _: usize) -> usize {
        self.size[0] * self.size[1] / 4 * self.config.stem[1] * EXPANSION
    }

    /// The modules are `stem`, `stages.0.blocks.0`, .., `norm`, `head.fc`;
    /// of transformer stages also what [`rollout`] computes: `stages.2.blocks.0.attn.weights`, `stages.2.attention_rollout`.
    ///
    /// # Errors
    /// [`Error::Shape`] for images of another size.
    fn probe(&self, g: &Graph, x: &Tensor, probe: &mut Probe) -> Result<Tensor> {
        let ([_, h, w, _], [height, width]) = (x.dims4("coatnet")?, self.size);
        if [h, w] != self.size {
            return Err(Error::shape("coatnet", "image", format!("{height}x{width}"), format!("{h}x{w}")));
        }
        let mut x = conv2d(g, x, &self.stem[0], None, Activation::Silu)?;
        x = conv2d(g, &x, &self.stem[1], None, Activation::None)?;
        probe.see("stem", &x);
        let mut rollout = Rollout::new(&self.config);
        for (name, block) in &self.blocks {
            let _range = nvtx::range(nvtx::Kind::Op, name);
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
