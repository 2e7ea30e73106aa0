//! What a classifying network offers, and how a table lists those there are.

use std::fmt::Debug;

use serde_json::Value;

use super::probe::Probe;
use super::weights::Weights;
use crate::Result;
use crate::device::Device;
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;

/// A classifying network on one device.
pub trait Network: Send + Sync {
    fn classes(&self) -> usize;

    /// The modules worth a look, by the names that [`Network::probe`] knows: the ends of the stages.
    fn stages(&self) -> Vec<String>;

    /// The same of attention: gates of CBAM, or the attention of a transformer stage rolled out.
    fn attention_maps(&self) -> Vec<String> {
        vec![]
    }

    /// Values of the widest activation of one image of h x w pixels.
    fn widest(&self, h: usize, w: usize) -> usize;

    /// Logits `(N, classes)` of normalised images `(N, H, W, C)`, and on the way the outputs of the modules that are asked for.
    ///
    /// # Errors
    /// [`crate::Error::Shape`] for images of a size or depth that the network does not take.
    fn probe(&self, g: &Graph, x: &Tensor, probe: &mut Probe) -> Result<Tensor>;

    /// The logits alone.
    ///
    /// # Errors
    /// As [`Network::probe`].
    fn forward(&self, g: &Graph, x: &Tensor) -> Result<Tensor> {
        self.probe(g, x, &mut Probe::default())
    }
}

/// The shape of a network, as a checkpoint's metadata spells it.
pub trait Shape: Debug + Send + Sync {
    /// Height and width of the images it was trained on, if a network is built for images of one size; `None` if it takes any.
    fn size(&self) -> Option<[usize; 2]> {
        None
    }

    /// Values per pixel of its images.
    fn channels(&self) -> usize {
        3
    }

    /// Takes every parameter from `weights` and refuses what is left over; for images of `size` (H, W).
    ///
    /// # Errors
    /// [`crate::Error::Tensor`] as [`Weights::get`] and [`Weights::finish`] say; [`crate::Error::Usage`] for an impossible shape.
    fn build(
        &self,
        device: &Device,
        precision: Precision,
        weights: &Weights,
        size: [usize; 2],
    ) -> Result<Box<dyn Network>>;
}

/// The shape of a tensor by its name, if there is such a tensor.
pub type ShapeOf<'a> = dyn Fn(&str) -> Option<Vec<usize>> + 'a;

/// An architecture as the table has it.
pub struct Row {
    /// As metadata, dumps and flags spell it.
    pub name: &'static str,
    pub help: &'static str,
    pub parse: fn(Value) -> serde_json::Result<Box<dyn Shape>>,
    /// The config of a network with these tensors, given by name to their shapes, as far as they tell; `None` for another network's.
    pub infer: fn(&ShapeOf) -> Option<Value>,
    /// The config that is timed when none is given, and one that the emulated GPU runs in seconds.
    pub usual: &'static str,
    pub small: &'static str,
}
