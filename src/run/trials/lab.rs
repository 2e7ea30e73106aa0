//! What an experiment has to work with: a model, a few images, the run's own attack, and who listens in.

use std::cell::RefCell;
use std::collections::HashMap;

use super::found::Against;
use crate::Result;
use crate::attack::{Adversarial, Classifier, Evaluation, Oracle, Query, Spec, Stream};
use crate::config::Config;
use crate::data::Dataset;
use crate::defense::denoise::Level;
use crate::defense::{Defended, Denoiser, Estimator};
use crate::device::Device;
use crate::models::classifier::Classifier as Network;
use crate::ops::pgd::gather;
use crate::run::engine::{AttackEngine, Batch};
use crate::run::ledger::Ledger;
use crate::run::made::made;
use crate::run::progress::Watch;
use crate::stats::top_class;
use crate::tensor::Tensor;

/// One model under trial.
pub(super) struct Lab<'a> {
    pub run: &'a Ledger,
    pub config: &'a Config,
    pub dataset: &'a Dataset,
    /// Its place in the config.
    pub model: usize,
    pub net: &'a Network,
    pub denoiser: Option<&'a (Denoiser, Vec<Level>)>,
    /// The first images of the dataset.
    pub batch: Batch,
    pub eps: f64,
    /// The run's own attack, or what stands in for one that costs more than its steps.
    pub own: Spec,
    /// What it made of the images, once that is known.
    pub attacked: Option<Attacked>,
    pub others: Vec<&'a Network>,
    watch: &'a Watch,
}

/// Images under the run's own attack, in the order of the lab's.
pub(super) struct Attacked {
    /// Whether each stands after the steps of the experiment.
    pub right: Vec<bool>,
    /// Whether each stands after twice as many, and the point that it then is at.
    pub right_later: Vec<bool>,
    pub best: Tensor,
}

impl<'a> Lab<'a> {
    pub fn new(engine: &'a AttackEngine, run: &'a Ledger, model: usize, eps: f64, images: usize) -> Result<Lab<'a>> {
        let config = engine.config();
        let first: Vec<usize> = (0..engine.dataset().len().min(images)).collect();
        let others = (0..config.models.len()).filter(|&other| other != model);
        Ok(Lab {
            run,
            config,
            dataset: engine.dataset(),
            model,
            net: engine.model(model)?,
            denoiser: engine.denoiser(),
            batch: engine.batch(&first)?,
            eps,
            own: Spec { early_stop: false, ..config.attack.tried()? },
            attacked: None,
            watch: engine.watch(),
            others: others.map(|other| engine.model(other)).collect::<Result<_>>()?,
        })
    }

    pub fn device(&self) -> &Device {
        self.net.device()
    }

    /// Whether experiments are made with another attack than the run's.
    pub fn stands_in(&self) -> bool {
        self.own.method != self.config.attack.method
    }

    pub fn len(&self) -> usize {
        self.batch.ids.len()
    }

    /// Values of an image.
    pub fn pixels(&self) -> usize {
        self.dataset.image_len()
    }

    /// The pipeline at the first sigma with its exact gradient, a draw at a time: fresh ones, or always those of a stream. `None` without a
    /// defence.
    pub fn defended(&self, fixed: Option<Stream>) -> Option<Defended<'_>> {
        let (denoiser, levels) = self.denoiser?;
        Some(Defended {
            classifier: self.net,
            denoiser,
            level: levels.first()?.clone(),
            estimator: Estimator::EotGrad,
            draws: 1,
            seed: self.config.seed,
            straight: false,
            antithetic: false,
            last_draw: false,
            fixed,
        })
    }

    /// The first images alone.
    pub fn first(&self, n: usize) -> Result<Batch> {
        let (n, b) = (n.min(self.len()), &self.batch);
        Ok(Batch {
            pixels: b.pixels[..n * self.pixels()].to_vec(),
            images: b.images.rows(0, n)?,
            labels: b.labels[..n].to_vec(),
            ids: b.ids[..n].to_vec(),
        })
    }

    /// The ids of the images for which something holds.
    pub fn ids_of(&self, holds: impl Fn(usize) -> bool) -> Vec<u64> {
        (0..self.len()).filter(|&i| holds(i)).map(|i| self.batch.ids[i]).collect()
    }

    /// Some images of the lab, by their places.
    pub fn some(&self, places: &[usize]) -> Result<Batch> {
        let index: Vec<Option<usize>> = places.iter().map(|&i| Some(i)).collect();
        let len = self.pixels();
        Ok(Batch {
            pixels: places.iter().flat_map(|&i| self.batch.pixels[i * len..(i + 1) * len].to_vec()).collect(),
            images: gather(self.device(), &self.batch.images, &index, None)?,
            labels: places.iter().map(|&i| self.batch.labels[i]).collect(),
            ids: places.iter().map(|&i| self.batch.ids[i]).collect(),
        })
    }

    /// Attacks images and says which are right at every point.
    pub fn stand(&self, spec: &Spec, net: &dyn Classifier, batch: &Batch, eps: f64) -> Result<Vec<bool>> {
        Ok(stands(&self.made(spec, net, batch, eps)?))
    }

    pub fn made(&self, spec: &Spec, net: &dyn Classifier, batch: &Batch, eps: f64) -> Result<Adversarial> {
        made((&*spec.build()?, "a check"), net, batch.attacked(), eps, (self.config, self.watch))
    }

    /// Classes that are predicted of images.
    pub fn predicted(&self, net: &Network, images: &Tensor) -> Result<Vec<u32>> {
        let logits = net.logits(images)?.to_f32(net.device())?;
        Ok(logits.chunks_exact(net.classes()).map(|z| top_class(z) as u32).collect())
    }

    /// The lengths of the gradients of a loss at images.
    pub fn lengths(&self, net: &dyn Classifier, images: &Tensor, query: &Query) -> Result<Vec<f64>> {
        let values = self.gradient(net, images, query)?;
        Ok(values.chunks_exact(self.pixels()).map(length).collect())
    }

    /// The gradients of a loss at images, one after the other.
    pub fn gradient(&self, net: &dyn Classifier, images: &Tensor, query: &Query) -> Result<Vec<f32>> {
        let gradient = net.gradient(images, query)?.gradient;
        gradient.map_or(Ok(vec![]), |g| g.to_f32(net.device()))
    }
}

/// The L2 norm, whatever the size of the values.
pub(super) fn length(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// Images that are right at every point.
pub(super) fn stands(found: &Adversarial) -> Vec<bool> {
    found.outcomes.iter().map(|outcome| outcome.correct_any).collect()
}

/// Of images by their ids, who is right under two attacks.
pub(super) fn against(ids: &[u64], own: &[bool], other: &[bool]) -> Against {
    let count = |right: &[bool]| right.iter().filter(|&&right| right).count() as u64;
    let only = |a: &[bool], b: &[bool]| -> Vec<u64> {
        ids.iter().zip(a.iter().zip(b)).filter(|(_, (a, b))| **a && !**b).map(|(&id, _)| id).collect()
    };
    Against {
        n: ids.len() as u64,
        own: count(own),
        other: count(other),
        only_own: only(own, other),
        only_other: only(other, own),
        asked: 0,
    }
}

/// A network, and of each image what it answered at every step.
pub(super) struct Recorder<'a> {
    net: &'a dyn Classifier,
    answers: RefCell<HashMap<u64, Vec<Answer>>>,
}

/// What a network answered of an image at a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub step: u32,
    pub loss: f32,
    pub prediction: u32,
}

impl<'a> Recorder<'a> {
    pub fn new(net: &'a dyn Classifier) -> Self {
        Recorder { net, answers: RefCell::default() }
    }

    /// By the ids of the images, in the order of the steps.
    pub fn answers(self) -> HashMap<u64, Vec<Answer>> {
        self.answers.into_inner()
    }

    fn heard(&self, query: &Query, evaluation: Evaluation) -> Evaluation {
        let mut answers = self.answers.borrow_mut();
        let rows = evaluation.loss.iter().zip(&evaluation.prediction);
        for (&id, (&loss, &prediction)) in query.ids.iter().zip(rows) {
            answers.entry(id).or_default().push(Answer { step: query.step, loss, prediction });
        }
        evaluation
    }
}

impl Oracle for Recorder<'_> {
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
        Ok(self.heard(query, self.net.evaluate(images, query)?))
    }
}

impl Classifier for Recorder<'_> {
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        Ok(self.heard(query, self.net.gradient(images, query)?))
    }
}
