//! A network that tells how often it was asked: an attack on large images takes minutes a batch.

use std::cell::Cell;

use super::model::{Classifier, Evaluation, Oracle, Query, Resident};
use crate::Result;
use crate::device::Device;
use crate::tensor::Tensor;

/// The network, and who is told after each answer of the answers so far.
pub struct Watched<'a> {
    net: &'a dyn Classifier,
    told: &'a dyn Fn(u64),
    answers: Cell<u64>,
}

impl<'a> Watched<'a> {
    pub fn new(net: &'a dyn Classifier, told: &'a dyn Fn(u64)) -> Self {
        Watched { net, told, answers: Cell::new(0) }
    }

    fn told<T>(&self, answer: Result<T>) -> Result<T> {
        self.answered(1);
        answer
    }
}

impl Oracle for Watched<'_> {
    fn device(&self) -> &Device {
        self.net.device()
    }

    fn classes(&self) -> usize {
        self.net.classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.net.image_shape()
    }

    fn takes_pixels(&self) -> bool {
        self.net.takes_pixels()
    }

    fn repeats_itself(&self) -> bool {
        self.net.repeats_itself()
    }

    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.net.logits(images)
    }

    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.told(self.net.evaluate(images, query))
    }
}

impl Classifier for Watched<'_> {
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.told(self.net.gradient(images, query))
    }

    fn resident<'a>(&'a self, query: &Query) -> Result<Option<Box<dyn Resident + 'a>>> {
        self.net.resident(query)
    }

    fn answered(&self, times: u64) {
        self.answers.set(self.answers.get() + times);
        (self.told)(self.answers.get());
    }
}
