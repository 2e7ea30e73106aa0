//! The engine of an experiment: real models on a device, attacked by [`crate::attack::run`].

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use super::config::{Config, Weights as Source, source};
use super::runner::{Attacked, Engine};
use super::settings::HandOver;
use super::strips;
use crate::attack::{self, Classifier as _, Normalised, Outcome, Purpose, Query, Spec, Starts, Stream};
use crate::data::resize::Filter as Pixels8;
use crate::data::{Dataset, unit};
use crate::defense::denoise::Level;
use crate::defense::{Defended, Denoiser, Smoothed, smoothing};
use crate::device::{DType, Device};
use crate::models::classifier::Classifier;
use crate::models::weights::Weights;
use crate::ops::resize::Filter;
use crate::report::picture;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Loaded models and the images they are attacked on.
pub struct AttackEngine<'a> {
    config: &'a Config,
    dataset: &'a Dataset,
    device: Device,
    models: Vec<Classifier>,
    /// with its level for every sigma
    denoiser: Option<(Denoiser, Vec<Level>)>,
    starts: Option<Starts>,
    shown: Shown,
    /// Seconds so far.
    spent: Spent,
}

/// Seconds that the phases of a run took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    pub attack: f64,
    pub denoise: f64,
    pub adaptive: f64,
}

/// Attacked pixels by model, epsilon and image: of the few images that strips show.
pub(super) type Shown = HashMap<(usize, u64, usize), Vec<f32>>;

fn open(name: &str) -> Result<Weights> {
    match source(name) {
        Source::Embedded(bytes) => Weights::embedded(name, bytes),
        Source::File(path) => Weights::open(path),
    }
}

impl<'a> AttackEngine<'a> {
    /// Opens the device and loads every model.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is missing, [`Error::File`] and [`Error::Tensor`] when a checkpoint does not fit
    /// its metadata or the dataset, [`Error::Usage`] when the attack cannot be run on a model.
    pub fn new(config: &'a Config, dataset: &'a Dataset) -> Result<Self> {
        let device = Device::open(&config.device.to_string())?;
        let starts = config.attack.starts.as_deref().map(Starts::load).transpose()?;
        let mut engine = AttackEngine {
            config,
            dataset,
            device,
            models: Vec::new(),
            denoiser: None,
            starts,
            shown: Shown::new(),
            spent: Spent::default(),
        };
        for model in &config.models {
            let weights = open(&model.weights)?;
            let size = [dataset.height, dataset.width];
            let net = Classifier::load(&engine.device, config.precision, &weights, size)?;
            if net.classes() != dataset.classes.len() {
                let problem = format!(
                    "expected {} classes as in {}, found {}",
                    dataset.classes.len(),
                    dataset.name,
                    net.classes()
                );
                return Err(Error::file(weights.origin(), problem));
            }
            for &eps in &config.attack.eps {
                engine.spec(eps).check(net.classes())?;
            }
            engine.models.push(net);
        }
        if let Some(name) = &config.defense.weights {
            let weights = open(name)?;
            let denoiser = Denoiser::load(&engine.device, config.precision, &weights)?;
            let images = [dataset.height, dataset.width];
            let size = config.defense.size.unwrap_or(images);
            denoiser
                .takes(size)
                .map_err(|problem| Error::file(weights.origin(), format!("{problem}; [defense] size resizes them")))?;
            let filter = match config.defense.filter {
                Some(Pixels8::Bilinear) => Filter::Bilinear,
                _ => Filter::Bicubic,
            };
            let (input, output) = config.defense.rescaling();
            let denoiser = denoiser.at(size, images, filter)?.rescaling(input, output);
            let levels = config.defense.sigma.iter().map(|&sigma| denoiser.level(sigma)).collect::<Result<_>>()?;
            engine.denoiser = Some((denoiser, levels));
        }
        Ok(engine)
    }

    /// Seconds that [`Engine::run`] took so far.
    pub fn spent(&self) -> Spent {
        self.spent
    }

    pub(super) fn config(&self) -> &Config {
        self.config
    }

    pub(super) fn dataset(&self) -> &Dataset {
        self.dataset
    }

    pub(super) fn denoiser(&self) -> Option<&(Denoiser, Vec<Level>)> {
        self.denoiser.as_ref()
    }

    pub(super) fn spec(&self, eps: f64) -> Spec {
        let a = &self.config.attack;
        Spec {
            method: a.method,
            profile: a.profile,
            norm: a.norm,
            eps,
            steps: a.steps,
            // A share of an epsilon of 0 is no step.
            step_size: (eps > 0.0).then(|| a.step_size(eps)),
            restarts: a.restarts,
            random_start: a.random_start,
            loss: a.loss,
            target: a.targeted,
            decay: a.decay.unwrap_or(1.0),
            early_stop: a.early_stop,
            seed: self.config.seed,
            starts: self.starts.clone(),
        }
    }
}

/// Images of the dataset and what belongs to them.
pub(super) struct Batch {
    pub pixels: Vec<f32>,
    pub labels: Vec<u32>,
    pub ids: Vec<u64>,
}

impl AttackEngine<'_> {
    pub(super) fn batch(&self, images: &[usize]) -> Result<Batch> {
        Ok(Batch {
            pixels: self.dataset.batch(images)?,
            labels: images.iter().map(|&i| self.dataset.labels[i]).collect(),
            ids: images.iter().map(|&i| self.dataset.ids[i]).collect(),
        })
    }

    /// Keeps what strips will show.
    fn keep(&mut self, model: usize, eps: f64, images: &[usize], pixels: Vec<f32>) {
        let len = self.dataset.image_len();
        for (&image, pixels) in images.iter().zip(pixels.chunks_exact(len.max(1))) {
            if image < strips::COUNT && eps > 0.0 {
                self.shown.insert((model, eps.to_bits(), image), pixels.to_vec());
            }
        }
    }

    /// Attacked pixels of an image, if this process attacked it.
    pub(super) fn shown(&self, model: usize, eps: f64, image: usize) -> Option<&[f32]> {
        self.shown.get(&(model, eps.to_bits(), image)).map(Vec::as_slice)
    }

    pub(super) fn model(&self, index: usize) -> Result<&Classifier> {
        self.models.get(index).ok_or_else(|| Error::file(Path::new("config"), format!("no model number {index}")))
    }

    /// The noise with which a denoised channel is scored: of its own purpose, the same for every model and epsilon.
    pub(super) fn noise(&self) -> Stream {
        Stream::new(self.config.seed, Purpose::Noise)
    }

    pub(super) fn tensor(&self, pixels: &[f32], n: usize) -> Result<Tensor> {
        Tensor::from_f32(&self.device, &[n, self.dataset.height, self.dataset.width, 3], DType::F32, pixels)
    }

    fn smoothed(
        &self,
        net: &Classifier,
        denoiser: &Denoiser,
        pixels: &[f32],
        batch: &Batch,
        level: &Level,
    ) -> Result<Vec<Smoothed>> {
        let defense = &self.config.defense;
        let images = self.tensor(pixels, batch.labels.len())?;
        let known = (batch.labels.as_slice(), batch.ids.as_slice());
        let how = (defense.vote(), defense.draws());
        let mut found = smoothing::classify(net, denoiser, &images, known, level, how, &self.noise())?;
        if !self.config.dataset.top5() {
            found.iter_mut().for_each(|s| s.top5 = None);
        }
        Ok(found)
    }
}

/// Attacked images as they are handed on.
pub(super) struct Handed {
    pub outcomes: Vec<Outcome>,
    /// in [0, 1]
    pub pixels: Vec<f32>,
}

impl AttackEngine<'_> {
    /// Attacks a batch on the undefended classifier.
    pub(super) fn attack(&self, net: &Classifier, batch: &Batch, eps: f64) -> Result<Handed> {
        let (spec, attack) = (self.spec(eps), &self.config.attack);
        let (labels, ids) = (&batch.labels, &batch.ids);
        // Without a budget the images stay what they are.
        let (mut outcomes, adversarial) = if attack.normalised() && eps > 0.0 {
            let (mean, std) = net.normalisation();
            let target = Normalised::new(net, mean, std);
            attack::run(&target, &target.from_pixels(&batch.pixels), labels, ids, &spec)?
        } else {
            attack::run(net, &batch.pixels, labels, ids, &spec)?
        };
        let pixels = self.hand_over(adversarial.last);
        if attack.hands_over() {
            self.rescore(net, batch, &pixels, &mut outcomes)?;
        }
        if self.config.dataset.top5() {
            let five = |pixels: &[f32]| -> Result<Vec<bool>> {
                let logits = net.logits(&self.tensor(pixels, labels.len())?)?.to_f32(&self.device)?;
                Ok(logits.chunks_exact(net.classes()).zip(labels).map(|(z, &label)| in_top5(z, label)).collect())
            };
            let found = five(&pixels)?.into_iter().zip(five(&batch.pixels)?);
            for (outcome, (last, clean)) in outcomes.iter_mut().zip(found) {
                (outcome.top5, outcome.clean_top5) = (Some(last), Some(clean));
            }
        }
        Ok(Handed { outcomes, pixels })
    }

    /// What the classifier and the denoiser are given of attacked images.
    fn hand_over(&self, mut pixels: Vec<f32>) -> Vec<f32> {
        if self.config.attack.hand_over == Some(HandOver::EightBit) {
            return picture::to_bytes(&pixels).into_iter().map(unit).collect();
        }
        if self.config.attack.normalised() {
            pixels.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0));
        }
        pixels
    }

    /// The last point is now the image that was handed on.
    fn rescore(&self, net: &Classifier, batch: &Batch, pixels: &[f32], outcomes: &mut [Outcome]) -> Result<()> {
        let n = outcomes.len();
        let query = Query::new(&batch.labels, self.config.attack.loss);
        let found = net.evaluate(&self.tensor(pixels, n)?, &Query { ids: &batch.ids, ..query })?;
        for ((outcome, prediction), &label) in outcomes.iter_mut().zip(found.prediction).zip(&batch.labels) {
            outcome.prediction = prediction;
            outcome.correct_last = outcome.correct_clean && prediction == label;
            outcome.correct_any &= outcome.correct_last;
        }
        Ok(())
    }
}

/// Whether fewer than five logits are ahead of the label's, ties going to the lower class.
fn in_top5(logits: &[f32], label: u32) -> bool {
    let own = logits[label as usize];
    let ahead = |&(k, &z): &(usize, &f32)| z > own || (z == own && k < label as usize);
    logits.iter().enumerate().filter(ahead).count() < 5
}

impl Engine for AttackEngine<'_> {
    fn run(&mut self, model: usize, eps: f64, images: &[usize]) -> Result<Attacked> {
        let _range = crate::device::nvtx::range("attack");
        let batch = self.batch(images)?;
        let net = self.model(model)?;
        let mut spent = self.spent;
        let begin = Instant::now();
        let Handed { outcomes, pixels } = self.attack(net, &batch, eps)?;
        spent.attack += begin.elapsed().as_secs_f64();
        let mut denoised = Vec::new();
        if let Some((denoiser, levels)) = &self.denoiser {
            let defense = &self.config.defense;
            let begin = Instant::now();
            for level in levels {
                denoised.push(self.smoothed(net, denoiser, &pixels, &batch, level)?);
            }
            spent.denoise += begin.elapsed().as_secs_f64();
            let begin = Instant::now();
            for level in levels.iter().filter(|_| defense.attack) {
                // Without a budget there is nothing to attack: the clean image, scored as above.
                if eps == 0.0 {
                    denoised.push(self.smoothed(net, denoiser, &batch.pixels, &batch, level)?);
                    continue;
                }
                let target = Defended {
                    classifier: net,
                    denoiser,
                    level: level.clone(),
                    estimator: defense.estimator(),
                    draws: defense.eot(),
                    seed: self.config.seed,
                };
                let (_, adaptive) = attack::run(&target, &batch.pixels, &batch.labels, &batch.ids, &self.spec(eps))?;
                let adaptive = self.hand_over(adaptive.last);
                denoised.push(self.smoothed(net, denoiser, &adaptive, &batch, level)?);
            }
            spent.adaptive += begin.elapsed().as_secs_f64();
        }
        self.spent = spent;
        self.keep(model, eps, images, pixels);
        Ok(Attacked { outcomes, denoised })
    }

    fn device_name(&self) -> String {
        self.device.kind().into()
    }
}

#[cfg(test)]
mod tests {
    use super::in_top5;

    #[test]
    fn five_logits_are_in_front() {
        let logits = [1.0, 5.0, 5.0, 0.0, 7.0, 1.0, 1.0];
        let found: Vec<bool> = (0..7).map(|label| in_top5(&logits, label)).collect();
        assert_eq!(found, [true, true, true, false, true, true, false]);
    }
}
