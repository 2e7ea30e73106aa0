//! One piece of work on seeded weights and images, for `bench` and `profile`.

use clap::{Args as ClapArgs, ValueEnum};

use crate::attack::{Classifier as _, Loss};
use crate::device::{DType, Device};
use crate::models::classifier::Classifier;
use crate::models::weights::{Weights, uniform};
use crate::ops::pgd::{self, Norm, Profile, Step};
use crate::tape::Precision;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What is done once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum What {
    /// logits
    Forward,
    /// forward, loss, and the gradient of the image
    Gradient,
    /// a gradient and an L-inf step
    PgdStep,
}

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Architecture: resnet
    #[arg(long, default_value = "resnet")]
    pub arch: String,
    /// Its config as JSON, as in a checkpoint's metadata
    #[arg(long, default_value = r#"{"depth":50,"stem":"cifar","width":64,"attention":"none","classes":10}"#)]
    pub config: String,
    /// Images per batch
    #[arg(long, default_value_t = 32)]
    pub batch: usize,
    /// Height x width of the images
    #[arg(long, default_value = "32x32")]
    pub size: String,
    #[arg(long, value_enum, default_value = "forward")]
    pub what: What,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: Precision,
}

/// The work, ready to be done on a device.
pub struct Workload {
    pub device: Device,
    what: What,
    model: Classifier,
    images: Tensor,
    labels: Vec<u32>,
}

const STEP: Step = Step { norm: Norm::Linf, profile: Profile::Native, eps: 8.0 / 255.0, size: 2.0 / 255.0, scale: 1.0 };

impl Args {
    /// Checks the flags, then calls `open` and loads the model onto that device.
    ///
    /// # Errors
    /// [`Error::Usage`] for flags that make no sense, and whatever the device reports.
    pub fn load(&self, open: impl FnOnce() -> Result<Device>) -> Result<Workload> {
        if self.batch == 0 {
            return Err(Error::usage("--batch", "expected at least 1, found 0"));
        }
        let size = self
            .size
            .split_once('x')
            .and_then(|(h, w)| Some((h.parse::<usize>().ok()?, w.parse::<usize>().ok()?)))
            .filter(|&(h, w)| h > 0 && w > 0);
        let (h, w) = size.ok_or_else(|| {
            Error::usage("--size", format!("expected HEIGHTxWIDTH such as 32x32, found `{}`", self.size))
        })?;
        if self.arch != "resnet" {
            return Err(Error::usage("--arch", format!("expected resnet, found `{}`", self.arch)));
        }
        let config = serde_json::from_str(&self.config).map_err(|e| Error::usage("--config", e.to_string()))?;
        let device = open()?;
        let (weights, shape) = (Weights::seeded(), [h, w, 3]);
        let model = Classifier::resnet(&device, self.precision, &weights, &config, [0.5; 3], [0.25; 3], shape)?;
        let pixels: Vec<f32> = uniform("input", self.batch * h * w * 3).map(|v| 0.5 + 0.5 * v).collect();
        let images = Tensor::from_f32(&device, &[self.batch, h, w, 3], DType::F32, &pixels)?;
        let labels = (0..self.batch).map(|i| (i % model.classes()) as u32).collect();
        Ok(Workload { device, what: self.what, model, images, labels })
    }

    /// For people: `resnet Forward batch 32 f32`.
    pub fn title(&self) -> String {
        format!("{} {:?} batch {} {}", self.arch, self.what, self.batch, self.precision)
    }
}

impl Workload {
    /// # Errors
    /// Whatever the device reports.
    pub fn once(&self) -> Result<()> {
        match self.what {
            What::Forward => {
                self.model.logits(&self.images)?;
            }
            What::Gradient => {
                self.model.gradient(&self.images, &self.labels, None, Loss::CrossEntropy)?;
            }
            What::PgdStep => {
                let at = self.model.gradient(&self.images, &self.labels, None, Loss::CrossEntropy)?;
                if let Some(gradient) = at.gradient {
                    pgd::step(&self.device, &self.images, &self.images, &gradient, &STEP)?;
                }
            }
        }
        self.device.synchronize()
    }
}
