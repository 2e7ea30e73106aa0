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
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Channels of the network's output that hold the predicted noise; the rest parametrise a variance that one shot does not need.
const NOISE: usize = 3;

/// A denoising network, its schedule, and how it counts time.
pub struct Denoiser {
    device: Device,
    precision: Precision,
    net: UNet,
    schedule: Schedule,
    /// timesteps as the network was trained on them, per step of the schedule
    tau_scale: f32,
    /// per step
    known: Mutex<HashMap<usize, Arc<Conditioning>>>,
}

/// A sigma with everything that depends on it alone.
#[derive(Clone)]
pub struct Level {
    pub sigma: f64,
    pub step: Step,
    conditioning: Arc<Conditioning>,
}

impl Denoiser {
    /// Builds the network that a checkpoint's metadata describes: `arch` unet, `config`, `schedule`, `steps`, `tau_scale`.
    ///
    /// # Errors
    /// [`Error::File`] for metadata that is missing or of another architecture, [`Error::Tensor`] for wrong tensors.
    pub fn load(device: &Device, precision: Precision, weights: &Weights) -> Result<Self> {
        let arch = weights.metadata("arch")?;
        if arch != "unet" {
            return Err(Error::file(weights.origin(), format!("expected the architecture unet, found `{arch}`")));
        }
        let config: Config = weights.metadata_json("config")?;
        let kind: Kind = serde_json::from_value(serde_json::Value::String(weights.metadata("schedule")?.into()))
            .map_err(|e| Error::file(weights.origin(), format!("metadata `schedule`: {e}")))?;
        let (steps, tau_scale): (usize, f32) = (weights.metadata_json("steps")?, weights.metadata_json("tau_scale")?);
        let bad = |e| match e {
            Error::Usage { flag, problem } => Error::file(weights.origin(), format!("metadata: {flag}: {problem}")),
            other => other,
        };
        let schedule = Schedule::new(kind, steps).map_err(bad)?;
        Self::new(device, precision, weights, &config, schedule, tau_scale).map_err(bad)
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
        Ok(Denoiser { device: device.clone(), precision, net, schedule, tau_scale, known: Mutex::default() })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn net(&self) -> &UNet {
        &self.net
    }

    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The step that adds noise of `sigma`, in units of pixels in `[0, 1]`. Its conditioning is computed once.
    ///
    /// # Errors
    /// [`Error::Usage`] for a sigma the schedule does not reach.
    pub fn level(&self, sigma: f64) -> Result<Level> {
        let step = self.schedule.match_sigma(sigma)?;
        let mut known = self.known.lock().expect("no panic while locked");
        let conditioning = match known.get(&step.t) {
            Some(c) => c.clone(),
            None => {
                let c = Arc::new(self.net.condition(&[step.t as f32 * self.tau_scale])?);
                known.insert(step.t, c.clone());
                c
            }
        };
        Ok(Level { sigma, step, conditioning })
    }

    /// How many images a thread of the host should take at once.
    pub(crate) fn chunk(&self, h: usize, w: usize) -> usize {
        chunk(&self.device, self.net.widest(h, w), self.net.parameters())
    }

    /// The one-shot estimate of images in `[0, 1]` under given noise, on a graph, so that gradients run through it.
    ///
    /// | arg | shape | |
    /// |---|---|---|
    /// | `x` | `(N, H, W, 3)` | float32 in `[0, 1]` |
    /// | `noise` | `(draws * N, H, W, 3)` | float32, standard normal |
    /// | ret | `(draws * N, H, W, 3)` | float32, `[-1, 1]` after `range` |
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
        straight: bool,
    ) -> Result<Tensor> {
        let _range = nvtx::range("denoise");
        let s = &level.step;
        let coefficients = vec![[s.image, s.noise]; noise.shape().first().copied().unwrap_or(0)];
        let x_t = q_sample(g, x, noise, &coefficients, Range::TO_SIGNED)?;
        let predicted = self.net.forward(g, &to_precision(g, &x_t)?, &level.conditioning)?;
        denoise(g, &x_t, &predicted, Estimate { x_t: s.inverse, noise: s.ratio, straight }, range)
    }

    /// Denoised images in `[0, 1]`; the noise of image `ids[i]` comes from its own stream.
    ///
    /// # Errors
    /// As [`Denoiser::estimate`].
    pub fn images(&self, x: &Tensor, ids: &[u64], level: &Level, stream: &Stream) -> Result<Tensor> {
        let [n, h, w, _] = x.dims4("denoise")?;
        let parts = in_chunks(&self.device, self.chunk(h, w), n, |range| {
            let g = Graph::inference(&self.device, self.precision);
            let noise = normal(&self.device, stream, &ids[range.clone()], &x.shape()[1..])?;
            self.estimate(&g, &x.rows(range.start, range.len())?, &noise, level, Range::TO_UNIT, false)
        })?;
        Tensor::concat(&self.device, &parts)
    }
}
