//! Variant S: the 11-block ResNet of a student study on CBAM and denoised smoothing, with ImageNet's stem and strides on the first 1x1.
//!
//! Its shape and parameter names follow that study's published checkpoints.

use serde::{Deserialize, Serialize};

use super::network::{Network, Row, Shape};
use super::resnet::{Attention, Block, Builder, GateNames, ResNet};
use super::weights::Weights;
use crate::device::Device;
use crate::tape::Precision;
use crate::{Error, Result};

const BLOCKS: [usize; 4] = [3, 3, 3, 2];
const REDUCTION: usize = 16;
const GATES: GateNames = [
    "cbam.channel_attention.shared_mlp.1",
    "cbam.channel_attention.shared_mlp.3",
    "cbam.spatial_attention.spatial_attention.0",
    "cbam.spatial_attention.spatial_attention.1",
];

fn width() -> usize {
    64
}

/// The shape of a network, as a checkpoint's metadata spells it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub attention: Attention,
    pub classes: usize,
    #[serde(default = "width")]
    pub width: usize,
}

pub const ROW: Row = Row {
    name: "resnet_study",
    help: "the 11-block ResNet of a published study, with or without CBAM",
    parse: |config| Ok(Box::new(serde_json::from_value::<Config>(config)?)),
    infer: |shape| {
        let (stem, linear) = (shape("conv_block1.0.weight")?, shape("linear.weight")?);
        let (&[width, 3, 7, 7], &[classes, _]) = (stem.as_slice(), linear.as_slice()) else { return None };
        let gated = shape(&format!("layer1.0.{}.weight", GATES[0])).is_some();
        let attention = if gated { Attention::Cbam } else { Attention::None };
        serde_json::to_value(Config { attention, classes, width }).ok()
    },
    usual: r#"{"attention":"none","classes":10}"#,
    small: r#"{"attention":"none","classes":10,"width":8}"#,
};

impl Shape for Config {
    fn build(
        &self,
        device: &Device,
        precision: Precision,
        weights: &Weights,
        _: [usize; 2],
    ) -> Result<Box<dyn Network>> {
        Ok(Box::new(build(device, precision, weights, self)?))
    }
}

/// Takes every parameter of `config` from `weights` and refuses what is left over.
///
/// # Errors
/// [`Error::Tensor`] as [`Weights::get`] and [`Weights::finish`] say; [`Error::Usage`] for an impossible config.
pub fn build(device: &Device, precision: Precision, weights: &Weights, config: &Config) -> Result<ResNet> {
    let b = Builder { device, precision, weights };
    if config.width == 0 || config.classes == 0 {
        return Err(Error::usage("config", "expected width and classes of at least 1"));
    }
    let stem = b.conv_bn("conv_block1.0", "conv_block1.1", [config.width, 3, 7], 2)?;
    let mut blocks = Vec::new();
    let mut c = config.width;
    for (layer, &count) in BLOCKS.iter().enumerate() {
        let (p, out) = (config.width << layer, config.width << (layer + 2));
        for index in 0..count {
            let name = format!("layer{}.{index}", layer + 1);
            let stride = if index == 0 && layer > 0 { 2 } else { 1 };
            let at = |part: &str| format!("{name}.{part}");
            let first = b.conv_bn(&at("conv1"), &at("bn1"), [p, c, 1], stride)?;
            let second = b.conv_bn(&at("conv2"), &at("bn2"), [p, p, 3], 1)?;
            let last = b.conv_bn(&at("conv3"), &at("bn3"), [out, p, 1], 1)?;
            let (conv, bn) = (at("identity_connection.0"), at("identity_connection.1"));
            let shortcut = (stride != 1 || c != out).then(|| b.conv_bn(&conv, &bn, [out, c, 1], stride)).transpose()?;
            let gates = config.attention == Attention::Cbam;
            let attention = gates.then(|| b.cbam(&name, &GATES, out, REDUCTION)).transpose()?;
            blocks.push(Block { name, inner: vec![first, second], last, shortcut, attention });
            c = out;
        }
    }
    let fc = b.linear("linear", [config.classes, c])?;
    weights.finish()?;
    let ends = ["conv_block1", "linear"];
    Ok(ResNet { classes: config.classes, stem, max_pool: true, blocks, fc, first: 4 * config.width, ends })
}
