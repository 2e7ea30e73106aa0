//! What the trials found: `trials.json`.

use serde::{Deserialize, Deserializer, Serialize};

use crate::number::or_nan;

/// Small attacks of a run's models beside the experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trials {
    pub eps: f64,
    /// Seconds that they might take, where somebody said how many; and that they took.
    pub budget: Option<f64>,
    pub spent: f64,
    pub models: Vec<Trial>,
    /// What was left out, and why.
    pub left: Vec<Left>,
}

/// An experiment that was left out for a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Left {
    pub model: String,
    pub experiment: String,
    pub why: String,
}

/// The trials of one model; what was not tried is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trial {
    pub model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gradients: Option<Gradients>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<Differences>,
    /// The same through the denoiser, under noise that stands still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences_defended: Option<Differences>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longer: Option<Longer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub single: Option<Against>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rounded: Option<Against>,
    /// Attacked images of the other models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transferred: Option<Against>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grey: Option<Grey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_loss: Option<Against>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planted: Option<Planted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<Planted>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<Against>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub square: Option<Against>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<Restarts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eot: Option<Eot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ablation: Option<Ablation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clamped: Option<Clamped>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub precision: Option<Against>,
    /// Of a run with AutoAttack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signs: Option<Signs>,
}

/// Gradients at clean images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gradients {
    pub n: u64,
    /// Images whose gradient is exactly zero, shorter than 1e-12 without being zero, not finite.
    pub zero: Vec<u64>,
    pub tiny: Vec<u64>,
    pub not_finite: Vec<u64>,
    /// Images whose gradient is below 1e-6 of that of the difference of logits ratio; `None` where that is not defined or the loss is another.
    pub faint: Option<Vec<u64>>,
    /// The logarithms of the lengths to base 10, rounded down, and how many have each; those of length 0 are left out.
    pub lengths: Vec<(i32, u64)>,
    #[serde(deserialize_with = "or_nan")]
    pub median_log10: f64,
}

/// Directional derivatives beside differences of the loss: of each image the worst error of four directions, relative to what a random
/// direction has on average.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Differences {
    #[serde(deserialize_with = "errors")]
    pub worst: Vec<(u64, f64)>,
}

/// One run of twice the steps of the experiment, all of its size, from one start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Longer {
    pub n: u64,
    /// Steps of the experiment; the run had twice as many.
    pub steps: u32,
    /// Mean over the images of the highest loss so far, from the start on.
    #[serde(deserialize_with = "numbers")]
    pub best: Vec<f64>,
    /// Images that stand after the experiment's steps and after twice as many, and those that only the later ones broke.
    pub right: [u64; 2],
    pub broken_later: Vec<u64>,
    /// Images whose flags differ from those of the experiment, which was run in other batches; `None` where it is another attack.
    pub differ: Option<Vec<u64>>,
    /// Where another attack stands in for the run's: what the run's own left, beside this one after all its steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Against>,
}

/// Images that are right under the experiment's attack and under something else, and those right under the first alone and under the
/// second alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Against {
    pub n: u64,
    pub own: u64,
    pub other: u64,
    pub only_own: Vec<u64>,
    pub only_other: Vec<u64>,
    /// How often the other asked, where it matters.
    pub asked: u64,
}

/// A budget with which every image can be made grey.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Grey {
    pub n: u64,
    pub eps: f64,
    /// Images still right under it, and the size of the largest class.
    pub right: Vec<u64>,
    pub largest_class: u64,
}

/// A weakness that was put in on purpose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Planted {
    /// Images for which an adversarial example certainly exists, and those where the attack did not find one.
    pub n: u64,
    pub missed: Vec<u64>,
}

/// Five restarts, and steps of half and of twice the size: images right, of `n`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Restarts {
    pub n: u64,
    pub one: u64,
    /// `None` without a random start.
    pub five: Option<u64>,
    pub half: u64,
    pub twice: u64,
    /// Images that one of these broke and the experiment's own attack did not.
    pub broken: Vec<u64>,
}

/// Agreement of two independent gradients through the defence, by the draws of each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Eot {
    pub n: u64,
    pub sigma: f64,
    /// Draws, mean cosine, share of signs that agree.
    pub curve: Vec<(u32, f64, f64)>,
}

/// The defence with nearly no noise, and its noise without the denoiser.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ablation {
    pub n: u64,
    pub sigma: f64,
    /// Clean images right undefended, behind the denoiser without noise, behind it at `sigma`, and under that noise alone.
    pub undefended: u64,
    pub no_noise: u64,
    pub denoised: u64,
    pub noise_alone: u64,
}

/// Shares of values that pass on no gradient.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Clamped {
    /// Of the denoiser's pixels that are clipped; `None` without a defence.
    pub pixels: Option<f64>,
    /// By module of attention, gates within 1e-4 of 0 or 1.
    pub gates: Vec<(String, f64)>,
    /// By stage, channels that are 0 everywhere for every image.
    pub dead: Vec<(String, f64)>,
}

/// What AutoAttack's authors warn of, over the images of a trial: their code has the same five, four of them told from the network.
///
/// Source: fra31/auto-attack, `flags_doc.md`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Signs {
    pub n: u64,
    /// Images that are right in each of five passes over the same images, and the largest distance between the logits of the first pass
    /// and those of another, each scaled to length 1.
    pub passes: Vec<u64>,
    #[serde(deserialize_with = "or_nan")]
    pub apart: f64,
    /// Images whose outputs are probabilities.
    pub probabilities: u64,
    /// Images whose gradient of the difference of logits ratio is nothing but zeros where APGD begins.
    pub flat: u64,
    pub classes: u64,
}

fn errors<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<(u64, f64)>, D::Error> {
    let all: Vec<(u64, Option<f64>)> = Vec::deserialize(from)?;
    Ok(all.into_iter().map(|(id, error)| (id, error.unwrap_or(f64::NAN))).collect())
}

fn numbers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    let all: Vec<Option<f64>> = Vec::deserialize(from)?;
    Ok(all.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}

impl Trials {
    /// Where a run keeps them.
    pub const FILE: &str = "trials.json";
}
