//! The classifying networks that a checkpoint, a dump or a flag may name.

use serde_json::Value;

use super::coatnet::{self, CoAtNet};
use super::probe::Probe;
use super::resnet::{self, ResNet};
use super::resnet_study;
use super::weights::Weights;
use crate::Result;
use crate::device::Device;
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;

/// For messages: the architectures as metadata spells them.
pub const ARCHITECTURES: &str = "resnet, resnet_study or coatnet";

/// The shape of a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Config {
    ResNet(resnet::Config),
    Study(resnet_study::Config),
    CoAtNet(coatnet::Config),
}

impl Config {
    /// `None` for an architecture that is none of [`ARCHITECTURES`].
    ///
    /// # Errors
    /// What is wrong with the config of a known one.
    pub fn parse(arch: &str, config: Value) -> serde_json::Result<Option<Self>> {
        Ok(Some(match arch {
            "resnet" => Config::ResNet(serde_json::from_value(config)?),
            "resnet_study" => Config::Study(serde_json::from_value(config)?),
            "coatnet" => Config::CoAtNet(serde_json::from_value(config)?),
            _ => return Ok(None),
        }))
    }
}

impl Config {
    /// Height and width of the images it was trained on, if a network is built for images of one size; `None` if it takes any.
    pub fn size(&self) -> Option<[usize; 2]> {
        match self {
            Config::ResNet(_) | Config::Study(_) => None,
            Config::CoAtNet(config) => Some([config.image; 2]),
        }
    }
}

/// A classifying network on one device.
pub enum Network {
    ResNet(ResNet),
    CoAtNet(CoAtNet),
}

impl Network {
    /// Takes every parameter of `config` from `weights` and refuses what is left over; for images of `size` (H, W).
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] as [`Weights::get`] and [`Weights::finish`] say; [`crate::Error::Usage`] for an impossible config.
    pub fn new(
        device: &Device,
        precision: Precision,
        weights: &Weights,
        config: &Config,
        size: [usize; 2],
    ) -> Result<Self> {
        Ok(match config {
            Config::ResNet(config) => Network::ResNet(ResNet::new(device, precision, weights, config)?),
            Config::Study(config) => Network::ResNet(resnet_study::build(device, precision, weights, config)?),
            Config::CoAtNet(config) => Network::CoAtNet(CoAtNet::new(device, precision, weights, config, size)?),
        })
    }

    pub fn classes(&self) -> usize {
        match self {
            Network::ResNet(net) => net.classes(),
            Network::CoAtNet(net) => net.config().classes,
        }
    }

    /// The modules worth a look, by the names that [`Network::probe`] knows: the ends of the stages.
    pub fn stages(&self) -> Vec<String> {
        match self {
            Network::ResNet(net) => net.stages(),
            Network::CoAtNet(net) => coatnet::rollout::ends(net.config()),
        }
    }

    /// The same of attention: gates of CBAM, or the attention of a transformer stage rolled out.
    pub fn attention_maps(&self) -> Vec<String> {
        match self {
            Network::ResNet(net) => net.attention_maps(),
            Network::CoAtNet(net) => coatnet::rollout::maps(net.config()),
        }
    }

    /// Values of the widest activation of one image of h x w pixels.
    pub fn widest(&self, h: usize, w: usize) -> usize {
        match self {
            Network::ResNet(net) => net.widest(h, w),
            Network::CoAtNet(net) => net.widest(),
        }
    }

    /// Logits `(N, classes)` of normalised images `(N, H, W, 3)`.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] for images of a size or depth that the network does not take.
    pub fn forward(&self, g: &Graph, x: &Tensor) -> Result<Tensor> {
        self.probe(g, x, &mut Probe::default())
    }

    /// The same, and the output of one module by its name.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn probe(&self, g: &Graph, x: &Tensor, probe: &mut Probe) -> Result<Tensor> {
        match self {
            Network::ResNet(net) => net.probe(g, x, probe),
            Network::CoAtNet(net) => net.probe(g, x, probe),
        }
    }
}
