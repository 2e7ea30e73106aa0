//! A diffusion network as a defence: pixels in, denoised pixels out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::schedule::{Kind, Schedule, Step};
use crate::device::{Device, nvtx};
use crate::models::batch::{chunk, in_chunks};
use crate::models::unet::{Conditioning, Config, UNet};
use crate::models::weights::Weights;
use crate::ops::diffusion::{Estimate, Range, denoise, q_sample, to_precision};
use crate::ops::philox::{Stream, normal};
use crate::ops::resize::{Filter, Resize, resize};
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Channels of the network's output that hold the predicted noise; the rest parametrise a variance that one shot does not need.
const NOISE: usize = 3;

fn of_metadata(error: Error, weights: &Weights) -> Error {
    match error {
        Error::Usage { field, problem } => Error::file(weights.origin(), format!("metadata: {field}: {problem}")),
        other => other,
    }
}

/// A denoising network, its schedule, and how it counts time; or noise alone, which the classifier then gets as it is, unclipped.
pub struct Denoiser {
    device: Device,
    precision: Precision,
    way: Way,
    /// images at another size than the network's
    resizes: Option<Resizes>,
    /// of images on their way in and out
    ranges: [Range; 2],
    /// per step
    known: Mutex<HashMap<usize, Arc<Conditioning>>>,
}

/// What becomes of noisy images.
enum Way {
    Network(Box<Diffusion>),
    /// Nothing; images that a thread of the host should take at once.
    Noise(usize),
}

struct Diffusion {
    net: UNet,
    schedule: Schedule,
    /// timesteps as the network was trained on them, per step of the schedule
    tau_scale: f32,
}

/// Between the size of images and that of the network, both ways.
struct Resizes {
    size: [usize; 2],
    down: Arc<Resize>,
    up: Arc<Resize>,
}

/// How gradients run back through an estimate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gradient {
    Exact,
    /// The clip passes them on as if it were not there.
    Straight,
    /// So does the network, as if it returned its input.
    Identity,
}

/// A sigma with everything that depends on it alone.
#[derive(Clone)]
pub struct Level {
    pub sigma: f64,
    pub step: Step,
    /// Of the network, where there is one.
    conditioning: Option<Arc<Conditioning>>,
}

impl Denoiser {
    /// Builds the network that a checkpoint's metadata describes: `arch` unet, `config`, `schedule`, `steps`, `tau_scale`.
    ///
    /// # Errors
    /// [`Error::File`] for metadata that is missing or of another architecture, [`Error::Tensor`] for wrong tensors.
    pub fn load(device: &Device, precision: Precision, weights: &Weights) -> Result<Self> {
        let (config, schedule, tau_scale) = Self::described(weights)?;
        Self::new(device, precision, weights, &config, schedule, tau_scale).map_err(|e| of_metadata(e, weights))
    }

    /// What a checkpoint's metadata says of the network, its schedule and how it counts time.
    ///
    /// # Errors
    /// [`Error::File`] for metadata that is missing or of another architecture.
    pub fn described(weights: &Weights) -> Result<(Config, Schedule, f32)> {
        let arch = weights.metadata("arch")?;
        if arch != "unet" {
            return Err(Error::file(weights.origin(), format!("expected the architecture unet, found `{arch}`")));
        }
        let config: Config = weights.metadata_json("config")?;
        let kind: Kind = serde_json::from_value(serde_json::Value::String(weights.metadata("schedule")?.into()))
            .map_err(|e| Error::file(weights.origin(), format!("metadata `schedule`: {e}")))?;
        let (steps, tau_scale): (usize, f32) = (weights.metadata_json("steps")?, weights.metadata_json("tau_scale")?);
        let schedule = Schedule::new(kind, steps).map_err(|e| of_metadata(e, weights))?;
        Ok((config, schedule, tau_scale))
    }

    /// A network with a given schedule.
    ///
    /// # Errors
    /// As [`UNet::new`]; [`Error::Usage`] for a time scale that is no positive number.
    pub fn new(
        device: &Device,
        precision: Precision,
        weights: &Weights,
        config: &Config,
        schedule: Schedule,
        tau_scale: f32,
    ) -> Result<Self> {
        if !(tau_scale > 0.0 && tau_scale.is_finite()) {
            return Err(Error::usage("tau_scale", format!("expected a positive number, found {tau_scale}")));
        }
        let net = UNet::new(device, precision, weights, config, NOISE)?;
        Ok(Denoiser {
            device: device.clone(),
            precision,
            way: Way::Network(Box::new(Diffusion { net, schedule, tau_scale })),
            resizes: None,
            ranges: [Range::TO_SIGNED, Range::TO_UNIT],
            known: Mutex::default(),
        })
    }

    /// No network: `x + sigma * noise` in units of pixels, not clipped, as randomised smoothing has it (Cohen et al. 2019). `at_once`
    /// images are what a thread of the host should take at a time.
    pub fn noise(device: &Device, precision: Precision, at_once: usize) -> Self {
        Denoiser {
            device: device.clone(),
            precision,
            way: Way::Noise(at_once.max(1)),
            resizes: None,
            ranges: [Range::SAME; 2],
            known: Mutex::default(),
        }
    }

    /// The network at `size` for images of another one (H, W): they are resized on their way in and back on their way out, with
    /// antialias, and gradients run through both. Nothing is clamped: a bicubic resize overshoots [0, 1] a little.
    ///
    /// # Errors
    /// [`Error::Shape`] for a size of 0.
    pub fn at(mut self, size: [usize; 2], images: [usize; 2], filter: Filter) -> Result<Self> {
        let table = |from, to| Ok::<_, Error>(Arc::new(Resize::new(&self.device, from, to, filter, true)?));
        self.resizes = match size == images {
            true => None,
            false => Some(Resizes { size, down: table(images, size)?, up: table(size, images)? }),
        };
        Ok(self)
    }

    /// Whether the network takes images of this size (H, W).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn takes(&self, [h, w]: [usize; 2]) -> Result<(), String> {
        let Way::Network(network) = &self.way else { return Ok(()) };
        let multiple = network.net.config().multiple();
        match h.is_multiple_of(multiple) && w.is_multiple_of(multiple) {
            true => Ok(()),
            false => Err(format!("expected images with sides of a multiple of {multiple}, found {h}x{w}")),
        }
    }

    /// Whether the network takes images of so many channels.
    ///
    /// # Errors
    /// What is wrong with them, and the way out.
    pub fn takes_channels(&self, channels: usize) -> Result<(), String> {
        match matches!(self.way, Way::Noise(_)) || channels == NOISE {
            true => Ok(()),
            false => Err(format!(
                "the denoiser takes images of {NOISE} channels, found {channels}: noise alone (defense.weights = \"none\") takes any"
            )),
        }
    }

    /// Whether pixels in [0, 1] are mapped to the network's [-1, 1], and its estimate back. A study that left that out can be
    /// repeated by leaving it out.
    #[must_use]
    pub fn rescaling(mut self, input: bool, output: bool) -> Self {
        let range = |wanted, range| if wanted { range } else { Range::SAME };
        self.ranges = [range(input, Range::TO_SIGNED), range(output, Range::TO_UNIT)];
        self
    }

    /// Height, width and channels of the noise for images `(H, W, C)`: the network's.
    pub fn noise_shape(&self, [h, w, c]: [usize; 3]) -> [usize; 3] {
        let [h, w] = self.resizes.as_ref().map_or([h, w], |r| r.size);
        [h, w, c]
    }

    /// What [`Denoiser::estimate`] should map its result by.
    pub fn output_range(&self) -> Range {
        self.ranges[1]
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Of the network, where there is one.
    pub fn schedule(&self) -> Option<&Schedule> {
        match &self.way {
            Way::Network(network) => Some(&network.schedule),
            Way::Noise(_) => None,
        }
    }

    /// The step that adds noise of `sigma`, in units of pixels in `[0, 1]`. Its conditioning is computed once.
    ///
    /// # Errors
    /// [`Error::Usage`] for a sigma the schedule does not reach.
    pub fn level(&self, sigma: f64) -> Result<Level> {
        let network = match &self.way {
            Way::Network(network) => network,
            Way::Noise(_) => return Ok(Level { sigma, step: Step::added(sigma), conditioning: None }),
        };
        let step = network.schedule.match_sigma(sigma)?;
        let mut known = self.known.lock().expect("no panic while locked");
        let conditioning = match known.get(&step.t) {
            Some(c) => c.clone(),
            None => {
                let c = Arc::new(network.net.condition(&[step.t as f32 * network.tau_scale])?);
                known.insert(step.t, c.clone());
                c
            }
        };
        Ok(Level { sigma, step, conditioning: Some(conditioning) })
    }

    /// How many images a thread of the host should take at once.
    pub(crate) fn chunk(&self, h: usize, w: usize) -> usize {
        let [h, w, _] = self.noise_shape([h, w, NOISE]);
        match &self.way {
            Way::Network(network) => chunk(&self.device, network.net.widest(h, w), network.net.parameters()),
            Way::Noise(at_once) => *at_once,
        }
    }

    /// The one-shot estimate of images in `[0, 1]` under given noise, on a graph, so that gradients run through it.
    ///
    /// | arg | shape | |
    /// |---|---|---|
    /// | `x` | `(N, H, W, C)` | float32 in `[0, 1]`; the network takes three channels |
    /// | `noise` | `(draws * N, H', W', C)` | float32, standard normal, see [`Denoiser::noise_shape`] |
    /// | ret | `(draws * N, H, W, C)` | float32, `[-1, 1]` after `range` |
    ///
    /// # Errors
    /// [`Error::Shape`] when shapes disagree or a side is no multiple of the network's.
    pub fn estimate(
        &self,
        g: &Graph,
        x: &Tensor,
        noise: &Tensor,
        level: &Level,
        range: Range,
        gradient: Gradient,
    ) -> Result<Tensor> {
        let _range = nvtx::range(nvtx::Kind::Step, "denoise");
        let s = &level.step;
        let coefficients = vec![[s.image, s.noise]; noise.shape().first().copied().unwrap_or(0)];
        let small = self.resizes.as_ref().map(|r| resize(g, x, &r.down)).transpose()?;
        let x_t = q_sample(g, small.as_ref().unwrap_or(x), noise, &coefficients, self.ranges[0])?;
        let (Way::Network(network), Some(conditioning)) = (&self.way, &level.conditioning) else { return Ok(x_t) };
        // What is not recorded is a constant.
        let apart = Graph::inference(&self.device, self.precision);
        let of_net = if gradient == Gradient::Identity { &apart } else { g };
        let predicted = network.net.forward(of_net, &to_precision(of_net, &x_t)?, conditioning)?;
        let straight = gradient != Gradient::Exact;
        let y = denoise(g, &x_t, &predicted, Estimate { x_t: s.inverse, noise: s.ratio, straight }, range)?;
        match &self.resizes {
            Some(r) => resize(g, &y, &r.up),
            None => Ok(y),
        }
    }

    /// What the network is to denoise, in units of pixels and at the size of `x`: for the eye, as it overshoots `[0, 1]`.
    ///
    /// # Errors
    /// As [`Denoiser::estimate`].
    pub fn noised(&self, x: &Tensor, ids: &[u64], level: &Level, stream: &Stream) -> Result<Tensor> {
        let [n, h, w, c] = x.dims4("denoise")?;
        let g = Graph::inference(&self.device, self.precision);
        let noise = normal(&self.device, stream, ids, &self.noise_shape([h, w, c]))?;
        let small = self.resizes.as_ref().map(|r| resize(&g, x, &r.down)).transpose()?;
        // A unit of pixels is so many of the network.
        let unit = 1.0 / self.ranges[0].mul;
        let coefficients = vec![[1.0, unit * level.step.ratio]; n];
        let y = q_sample(&g, small.as_ref().unwrap_or(x), &noise, &coefficients, Range::SAME)?;
        match &self.resizes {
            Some(r) => resize(&g, &y, &r.up),
            None => Ok(y),
        }
    }

    /// Denoised images in `[0, 1]` (see [`Denoiser::at`], [`Denoiser::rescaling`]); the noise of image `ids[i]` comes from its own stream.
    ///
    /// # Errors
    /// As [`Denoiser::estimate`].
    pub fn images(&self, x: &Tensor, ids: &[u64], level: &Level, stream: &Stream) -> Result<Tensor> {
        let [n, h, w, c] = x.dims4("denoise")?;
        let parts = in_chunks(&self.device, self.chunk(h, w), n, |range| {
            let g = Graph::inference(&self.device, self.precision);
            let noise = normal(&self.device, stream, &ids[range.clone()], &self.noise_shape([h, w, c]))?;
            self.estimate(&g, &x.rows(range.start, range.len())?, &noise, level, self.output_range(), Gradient::Exact)
        })?;
        Tensor::concat(&self.device, &parts)
    }
}
