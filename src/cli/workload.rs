//! One piece of work on seeded images, and on seeded weights or those of a file, for `bench` and `profile`.

use clap::Args as ClapArgs;

use crate::attack::{Batch, Classifier as _, Loss, Oracle as _, Query, Spec};
use crate::choice::choice;
use crate::defense::denoise::{Denoiser, Level};
use crate::defense::schedule::{Kind, Schedule};
use crate::device::{DType, Device};
use crate::models::batch::{chunk, in_chunks};
use crate::models::classifier::Classifier;
use crate::models::unet::{Conditioning, UNet};
use crate::models::weights::{Weights, uniform};
use crate::models::{network_row, network_shape};
use crate::ops::diffusion::to_precision;
use crate::ops::pgd::{self, Norm, Profile, Step};
use crate::ops::philox::{Purpose, Stream};
use crate::ops::recording;
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

choice! {
    /// What is done once.
    What {
        /// logits, or all output channels of a denoiser
        Forward = "forward",
        /// forward, loss, and the gradient of the image
        Gradient = "gradient",
        /// a gradient and an L-inf step; classifiers only
        PgdStep = "pgd-step",
        /// PGD of ten steps on the batch, L-inf at 8/255, as a sweep runs it; classifiers only
        Pgd = "pgd",
        /// APGD on the cross-entropy, likewise
        Apgd = "apgd",
        /// noise, network, estimate; denoisers only
        Denoise = "denoise",
    }
}

#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Architecture: resnet, resnet_study, coatnet or unet
    #[arg(long, default_value = "resnet")]
    pub arch: String,
    /// Its config as JSON, as in a checkpoint's metadata [default: that of CIFAR-10, for coatnet of ImageNet at 384x384]
    #[arg(long)]
    pub config: Option<String>,
    /// A classifier's file in place of seeded weights: a checkpoint or an ONNX graph
    #[arg(long, value_name = "FILE", conflicts_with_all = ["arch", "config"])]
    pub weights: Option<String>,
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
    precision: Precision,
    model: Model,
    images: Tensor,
    labels: Vec<u32>,
}

enum Model {
    Classifier(Box<Classifier>),
    /// with its constants at one timestep, and the images per thread
    Network(Box<UNet>, Conditioning, usize),
    Denoiser(Box<Denoiser>, Level),
}

const UNET: &str = r#"{"channels":128,"channel_mult":[1,2,2,2],"res_blocks":3,"attention_factors":[2,4],"heads":4,"resblock_updown":false,"out_channels":6}"#;
/// The same in a few seconds on the emulated GPU.
const SMALL_UNET: &str = r#"{"channels":32,"channel_mult":[1,2],"res_blocks":1,"attention_factors":[2],"heads":4,"resblock_updown":false,"out_channels":6}"#;
/// Where the denoiser is timed: as the public CIFAR-10 checkpoint counts its steps.
const SIGMA: f64 = 0.25;
const STEPS: usize = 4000;
const TAU_SCALE: f32 = 0.25;

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
        let [h, w] = super::common::sides("--size", &self.size)?;
        let denoises = self.arch == "unet" && self.weights.is_none();
        let attacks = matches!(self.what, What::PgdStep | What::Pgd | What::Apgd);
        let fits = if denoises { !attacks } else { self.what != What::Denoise };
        if !fits {
            let problem = format!("expected work that {} does, found {}", self.arch, self.what);
            return Err(Error::usage("--what", problem));
        }
        let json = self.json()?;
        let bad = |e: serde_json::Error| Error::usage("--config", e.to_string());
        let weights = Weights::seeded();
        let (device, model) = if denoises {
            let config = serde_json::from_str(json).map_err(bad)?;
            let (device, schedule) = (open()?, Schedule::new(Kind::Cosine, STEPS)?);
            let model = if self.what == What::Denoise {
                let denoiser = Denoiser::new(&device, self.precision, &weights, &config, schedule, TAU_SCALE)?;
                let level = denoiser.level(SIGMA)?;
                Model::Denoiser(Box::new(denoiser), level)
            } else {
                let net = UNet::new(&device, self.precision, &weights, &config, config.out_channels)?;
                let step = schedule.match_sigma(SIGMA)?;
                let conditioning = net.condition(&[step.t as f32 * TAU_SCALE])?;
                let chunk = chunk(&device, net.widest(h, w), net.parameters());
                Model::Network(Box::new(net), conditioning, chunk)
            };
            (device, model)
        } else if let Some(name) = &self.weights {
            let (weights, card) = super::common::classifier(name)?;
            let device = open()?;
            let net = Classifier::described(&device, self.precision, &weights, &card, [h, w])?;
            (device, Model::Classifier(Box::new(net)))
        } else {
            let config = serde_json::from_str(json).map_err(bad)?;
            let shape = network_shape(&self.arch, config).map_err(|problem| Error::usage("--config", problem))?;
            let device = open()?;
            let (mean, std) = (vec![0.5; shape.channels()], vec![0.25; shape.channels()]);
            let model = Classifier::new(&device, self.precision, &weights, shape.as_ref(), &mean, &std, [h, w])?;
            (device, Model::Classifier(Box::new(model)))
        };
        let channels = if let Model::Classifier(net) = &model { net.image_shape()[2] } else { 3 };
        let pixels: Vec<f32> = uniform("input", self.batch * h * w * channels).map(|v| 0.5 + 0.5 * v).collect();
        let images = Tensor::from_f32(&device, &[self.batch, h, w, channels], DType::F32, &pixels)?;
        let classes = if let Model::Classifier(net) = &model { net.classes() } else { 1 };
        let mut labels: Vec<u32> = (0..self.batch).map(|i| (i % classes) as u32).collect();
        if let (What::Apgd, Model::Classifier(net)) = (self.what, &model) {
            // It takes no image that is wrong when clean.
            labels = net.evaluate(&images, &Query::new(&labels, Loss::CrossEntropy))?.prediction;
        }
        Ok(Workload { device, what: self.what, precision: self.precision, model, images, labels })
    }

    /// The network's config.
    ///
    /// # Errors
    /// [`Error::Usage`] for an architecture that is unknown.
    pub fn json(&self) -> Result<&str> {
        match &self.config {
            Some(config) => Ok(config),
            None => Ok(self.defaults()?[0]),
        }
    }

    /// Without a config: a small network of the architecture.
    ///
    /// # Errors
    /// [`Error::Usage`] for an architecture that is unknown.
    pub fn default_to_small(&mut self) -> Result<()> {
        let [_, small] = self.defaults()?;
        self.config.get_or_insert_with(|| small.into());
        Ok(())
    }

    /// The usual and the small config of the architecture.
    fn defaults(&self) -> Result<[&'static str; 2]> {
        if self.arch == "unet" {
            return Ok([UNET, SMALL_UNET]);
        }
        let unknown = |names| Error::usage("--arch", format!("expected {names} or unet, found `{}`", self.arch));
        network_row(&self.arch).map(|row| [row.usual, row.small]).map_err(unknown)
    }

    /// For people: `resnet forward batch 32 f32`.
    pub fn title(&self) -> String {
        format!("{} {} batch {} {}", self.weights.as_ref().unwrap_or(&self.arch), self.what, self.batch, self.precision)
    }
}

impl Workload {
    /// # Errors
    /// Whatever the device reports.
    pub fn once(&self) -> Result<()> {
        match &self.model {
            Model::Classifier(net) => self.classify(net)?,
            Model::Network(net, conditioning, chunk) => self.predict(net, conditioning, *chunk)?,
            Model::Denoiser(denoiser, level) => {
                let ids: Vec<u64> = (0..self.labels.len() as u64).collect();
                denoiser.images(&self.images, &ids, level, &Stream::new(0, Purpose::Noise))?;
            }
        }
        self.device.synchronize()
    }

    fn classify(&self, net: &Classifier) -> Result<()> {
        if let What::Pgd | What::Apgd = self.what {
            let ids: Vec<u64> = (0..self.labels.len() as u64).collect();
            let batch = Batch { images: &self.images, labels: &self.labels, ids: &ids };
            let method = if self.what == What::Pgd { "pgd" } else { "apgd-ce" };
            Spec { method, ..Spec::default() }.build()?.run(net, batch, STEP.eps, 0)?;
            return Ok(());
        }
        let query = Query::new(&self.labels, Loss::CrossEntropy);
        if self.what == What::Forward {
            net.logits(&self.images)?;
            return Ok(());
        }
        let gradient = net.gradient(&self.images, &query)?.gradient;
        if let Some(gradient) = gradient.filter(|_| self.what == What::PgdStep) {
            pgd::step(&self.device, &self.images, &self.images, &gradient, &STEP)?;
        }
        Ok(())
    }

    /// Forward, and the gradient that an upstream gradient equal to the output makes.
    fn predict(&self, net: &UNet, conditioning: &Conditioning, chunk: usize) -> Result<()> {
        in_chunks(&self.device, chunk, self.labels.len(), |range| {
            let x = self.images.rows(range.start, range.len())?;
            let gradient = self.what == What::Gradient;
            let graph = if gradient { recording } else { Graph::inference };
            let g = graph(&self.device, self.precision);
            let x = to_precision(&Graph::inference(&self.device, self.precision), &x)?;
            let y = net.forward(&g, &x, conditioning)?;
            if gradient {
                g.backward(&y, y.clone(), &x)?;
            }
            Ok(())
        })?;
        Ok(())
    }
}
