//! An attack as an experiment wants it: whoever waits is told how far it is, and its images are handed on as the config says.

use super::progress::Watch;
use crate::Result;
use crate::attack::{Adversarial, Attack, Batch, Classifier, HandOver, Watched};
use crate::config::Config;
use crate::data::{to_bytes, unit};
use crate::device::{DType, Device};
use crate::tensor::Tensor;

/// Runs the attack; `name` is what is told of it.
///
/// # Errors
/// What it returns.
pub(super) fn made(
    (attack, name): (&dyn Attack, &str),
    net: &dyn Classifier,
    batch: Batch,
    eps: f64,
    (config, watch): (&Config, &Watch),
) -> Result<Adversarial> {
    let most = attack.most_queries();
    let told = |answers| watch(name, answers, most);
    attack.run(&Watched::new(net, &told), batch, eps, config.seed)
}

/// What the classifier and the denoiser are given of attacked images `(N, H, W, C)`. Rounding and clipping, which no attack on pixels needs,
/// are done on the host.
///
/// # Errors
/// What moving them returns.
pub(super) fn hand_over(config: &Config, device: &Device, images: Tensor) -> Result<Tensor> {
    if !config.attack.hands_over() {
        return Ok(images);
    }
    let mut pixels = images.to_f32(device)?;
    match config.attack.hand_over {
        HandOver::EightBit => pixels = to_bytes(&pixels).into_iter().map(unit).collect(),
        HandOver::Float => pixels.iter_mut().for_each(|v| *v = v.clamp(0.0, 1.0)),
    }
    Tensor::from_f32(device, images.shape(), DType::F32, &pixels)
}
