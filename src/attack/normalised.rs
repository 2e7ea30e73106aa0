//! A classifier attacked behind its normalisation: images are what the network sees, `(pixel - mean) / std`.
//!
//! Budgets and steps are then in those units, while the box that an attack clips to is still [0, 1]: what lies below the mean is
//! lost at the first step. It is a mistake that was made in a published study and is here to repeat it, for the L-inf norm.

use super::model::{Classifier, Evaluation, Oracle, Query};
use crate::Result;
use crate::device::Device;
use crate::ops::pointwise::normalize_images;
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;

/// A view of a classifier whose images are normalised.
pub struct Normalised<'a> {
    inner: &'a dyn Classifier,
    mean: &'a [f32],
    std: &'a [f32],
}

impl<'a> Normalised<'a> {
    /// `mean` and `std` are those that the classifier applies to pixels.
    pub fn new(inner: &'a dyn Classifier, mean: &'a [f32], std: &'a [f32]) -> Self {
        Normalised { inner, mean, std }
    }

    /// Pixels `(N, H, W, C)` as this classifier takes them.
    pub fn from_pixels(&self, pixels: &[f32]) -> Vec<f32> {
        let channels = self.mean.len();
        pixels.iter().enumerate().map(|(i, v)| (v - self.mean[i % channels]) / self.std[i % channels]).collect()
    }

    fn pixels(&self, images: &Tensor) -> Result<Tensor> {
        let g = Graph::inference(self.device(), Precision::F32);
        let mean: Vec<f32> = self.mean.iter().zip(self.std).map(|(mean, std)| -mean / std).collect();
        let std: Vec<f32> = self.std.iter().map(|s| 1.0 / s).collect();
        normalize_images(&g, images, &mean, &std)
    }
}

impl Oracle for Normalised<'_> {
    fn device(&self) -> &Device {
        self.inner.device()
    }

    fn classes(&self) -> usize {
        self.inner.classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.inner.image_shape()
    }

    fn takes_pixels(&self) -> bool {
        false
    }

    fn repeats_itself(&self) -> bool {
        self.inner.repeats_itself()
    }

    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.inner.logits(&self.pixels(images)?)
    }

    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.inner.evaluate(&self.pixels(images)?, query)
    }
}

impl Classifier for Normalised<'_> {
    /// The gradient is that of the pixels: of the same sign, as `std` is positive.
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.inner.gradient(&self.pixels(images)?, query)
    }
}
