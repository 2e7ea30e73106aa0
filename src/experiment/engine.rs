//! The engine of an experiment: real models on a device, attacked by [`crate::attack::run`].

use std::path::Path;
use std::time::Instant;

use super::config::{Config, Weights as Source, source};
use super::runner::{Attacked, Engine};
use crate::attack::{self, Classifier as _, Purpose, Spec, Starts, Stream};
use crate::data::Dataset;
use crate::defense::denoise::Level;
use crate::defense::{Defended, Denoiser, Smoothed, smoothing};
use crate::device::{DType, Device};
use crate::models::classifier::Classifier;
use crate::models::weights::Weights;
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
            let multiple = denoiser.net().config().multiple();
            if !dataset.height.is_multiple_of(multiple) || !dataset.width.is_multiple_of(multiple) {
                let size = format!("{}x{}", dataset.height, dataset.width);
                let problem = format!("expected images with sides of a multiple of {multiple}, found {size}");
                return Err(Error::file(weights.origin(), problem));
            }
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
            pixels: images.iter().flat_map(|&i| self.dataset.image(i)).copied().collect(),
            labels: images.iter().map(|&i| self.dataset.labels[i]).collect(),
            ids: images.iter().map(|&i| self.dataset.ids[i]).collect(),
        })
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
        smoothing::classify(net, denoiser, &images, known, level, (defense.vote(), defense.draws()), &self.noise())
    }
}

impl Engine for AttackEngine<'_> {
    fn run(&mut self, model: usize, eps: f64, images: &[usize]) -> Result<Attacked> {
        let _range = crate::device::nvtx::range("attack");
        let batch = self.batch(images)?;
        let net = self.model(model)?;
        let spec = self.spec(eps);
        let mut spent = self.spent;
        let begin = Instant::now();
        let (outcomes, adversarial) = attack::run(net, &batch.pixels, &batch.labels, &batch.ids, &spec)?;
        spent.attack += begin.elapsed().as_secs_f64();
        let Some((denoiser, levels)) = &self.denoiser else {
            self.spent = spent;
            return Ok(Attacked { outcomes, denoised: vec![] });
        };
        let begin = Instant::now();
        let defense = &self.config.defense;
        let mut denoised = Vec::new();
        for level in levels {
            denoised.push(self.smoothed(net, denoiser, &adversarial.last, &batch, level)?);
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
            let (_, adaptive) = attack::run(&target, &batch.pixels, &batch.labels, &batch.ids, &spec)?;
            denoised.push(self.smoothed(net, denoiser, &adaptive.last, &batch, level)?);
        }
        spent.adaptive += begin.elapsed().as_secs_f64();
        self.spent = spent;
        Ok(Attacked { outcomes, denoised })
    }

    fn device_name(&self) -> String {
        self.device.kind().into()
    }
}
