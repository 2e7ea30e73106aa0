//! The engine of an experiment: real models on a device, attacked by [`crate::attack::run`].

use std::path::Path;

use super::config::{Config, Weights as Source};
use super::records::Outcome;
use super::runner::Engine;
use crate::attack::{self, Classifier as _, Spec, Starts};
use crate::data::Dataset;
use crate::device::Device;
use crate::models::classifier::Classifier;
use crate::models::weights::Weights;
use crate::{Error, Result};

/// Loaded models and the images they are attacked on.
pub struct AttackEngine<'a> {
    config: &'a Config,
    dataset: &'a Dataset,
    device: Device,
    models: Vec<Classifier>,
    starts: Option<Starts>,
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
        let mut engine = AttackEngine { config, dataset, device, models: Vec::new(), starts };
        for model in &config.models {
            let weights = match model.weights() {
                Source::Embedded(bytes) => Weights::embedded(&model.weights, bytes)?,
                Source::File(path) => Weights::open(path)?,
            };
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
        Ok(engine)
    }

    fn spec(&self, eps: f64) -> Spec {
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

impl Engine for AttackEngine<'_> {
    fn run(&mut self, model: usize, eps: f64, images: &[usize]) -> Result<Vec<Outcome>> {
        let _range = crate::device::nvtx::range("attack");
        let pixels: Vec<f32> = images.iter().flat_map(|&i| self.dataset.image(i)).copied().collect();
        let labels: Vec<u32> = images.iter().map(|&i| self.dataset.labels[i]).collect();
        let ids: Vec<u64> = images.iter().map(|&i| self.dataset.ids[i]).collect();
        let net = self
            .models
            .get(model)
            .ok_or_else(|| Error::file(Path::new("config"), format!("no model number {model}")))?;
        let (outcomes, _) = attack::run(net, &pixels, &labels, &ids, &self.spec(eps))?;
        Ok(outcomes)
    }

    fn device_name(&self) -> String {
        self.device.kind().into()
    }
}
