//! The `[attack]` table: what a profile leaves open is filled with the defaults of the library it names.

use std::path::PathBuf;

use serde::Serialize;

use super::config::Wrong;
use super::file;
use super::settings::{HandOver, Number, Space};
use crate::attack::{Loss, Method, Norm, Profile, Target};
use crate::error::Result;

/// Epsilons of a sweep that names none, in pixel units.
const EPS_LINF: [f64; 6] = [0.0, 0.005, 0.01, 0.02, 0.03, 0.06];
const EPS_L2: [f64; 6] = [0.0, 0.125, 0.25, 0.5, 1.0, 2.0];

/// An attack with nothing left to choose. Budgets and steps are in pixel units of images in [0, 1].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttackConfig {
    pub profile: Profile,
    pub method: Method,
    pub norm: Norm,
    /// Ascending, each at least 0, none twice.
    pub eps: Vec<f64>,
    pub steps: u32,
    /// Absolute step. Exactly one of `step_size` and `rel_step` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f64>,
    /// Step as a share of epsilon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rel_step: Option<f64>,
    /// Independent starts, at least 1.
    pub restarts: u32,
    pub random_start: bool,
    pub loss: Loss,
    pub targeted: Target,
    /// Of the momentum; only set with [`Method::Mim`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<f64>,
    /// Images leave the batch at their first success.
    pub early_stop: bool,
    /// A safetensors file of start points; then there is one restart and no random start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<PathBuf>,
    /// What is moved and clipped, where it is not pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space: Option<Space>,
    /// How attacked images go on, where not as floats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hand_over: Option<HandOver>,
}

impl AttackConfig {
    /// The step at this epsilon, in pixel units.
    pub fn step_size(&self, eps: f64) -> f64 {
        self.step_size.unwrap_or_else(|| self.rel_step.unwrap_or_default() * eps)
    }

    /// Whether the attack moves the normalised tensor.
    pub fn normalised(&self) -> bool {
        self.space == Some(Space::Normalised)
    }

    /// Whether images are scored as they were handed on, not as the attack left them.
    pub fn hands_over(&self) -> bool {
        self.normalised() || self.hand_over == Some(HandOver::EightBit)
    }

    /// The attack in one word, as in `results.csv`: `pgd`, `torchattacks-pgd`, `pgd-dlr-targeted`.
    pub fn label(&self) -> String {
        let mut label = self.method.to_string();
        if self.profile != Profile::Native {
            label = format!("{}-{label}", self.profile);
        }
        if self.loss != Loss::CrossEntropy {
            label = format!("{label}-{}", self.loss);
        }
        if self.targeted != Target::None {
            label.push_str("-targeted");
        }
        if self.normalised() {
            label.push_str("-normalised");
        }
        if self.hand_over == Some(HandOver::EightBit) {
            label.push_str("-8bit");
        }
        label
    }
}

/// What a library does when nothing is said: steps, size of a step, random start.
struct Preset {
    steps: Option<u32>,
    step: Option<Step>,
    random_start: bool,
}

enum Step {
    Absolute(f64),
    OfEps(f64),
    /// The rule of thumb 2.5 eps / steps.
    Share,
}

fn preset(profile: Profile, method: Method, norm: Norm) -> Preset {
    let (steps, step) = match (method, profile, norm) {
        (Method::Fgsm, ..) => (1, Step::OfEps(1.0)),
        (_, Profile::Native, _) => (10, Step::Share),
        (_, Profile::Torchattacks, Norm::Linf) => (10, Step::Absolute(2.0 / 255.0)),
        (_, Profile::Torchattacks, Norm::L2) => (10, Step::Absolute(0.2)),
        (Method::Pgd, Profile::Foolbox, Norm::Linf) => (40, Step::OfEps(0.01 / 0.3)),
        (Method::Pgd, Profile::Foolbox, Norm::L2) => (50, Step::OfEps(0.025)),
        (Method::Mim, Profile::Foolbox, _) => (10, Step::OfEps(0.2)),
        (Method::Mim, Profile::Cleverhans, _) => (10, Step::Absolute(0.06)),
        (Method::Pgd, Profile::Cleverhans, _) => return Preset { steps: None, step: None, random_start: true },
        (_, Profile::Art, _) => (100, Step::Absolute(0.1)),
    };
    let random_start = method == Method::Pgd && profile != Profile::Art;
    Preset { steps: Some(steps), step: Some(step), random_start }
}

/// Fills in and checks. `eps` replaces the epsilons of the file.
pub(super) fn resolve(
    file: file::Attack,
    eps: Option<&[f64]>,
    early_stop: bool,
    wrong: &Wrong,
) -> Result<AttackConfig> {
    let profile = file.profile.unwrap_or(Profile::Native);
    let method = file.method.unwrap_or(Method::Pgd);
    let norm = file.norm.unwrap_or(Norm::Linf);
    let preset = preset(profile, method, norm);
    let needed = |field| wrong.at(field, format!("expected a value: profile {profile} has no default for {method}"));

    if method == Method::Mim && norm != Norm::Linf {
        return Err(wrong.at("attack.norm", format!("mim works in linf, found {norm}")));
    }
    let fixed = file.steps.is_some_and(|s| s != 1) || file.step_size.is_some() || file.rel_step.is_some();
    if method == Method::Fgsm && fixed {
        return Err(wrong.at("attack.steps", "fgsm is one step of size eps: leave out steps, step_size and rel_step"));
    }
    let steps = file.steps.or(preset.steps).ok_or_else(|| needed("attack.steps"))?;
    if steps == 0 {
        return Err(wrong.at("attack.steps", "expected at least 1, found 0"));
    }
    let (step_size, rel_step) = match (file.step_size, file.rel_step, preset.step) {
        (Some(_), Some(_), _) => {
            return Err(wrong.at("attack.rel_step", "expected one of step_size and rel_step, found both"));
        }
        (Some(Number(size)), None, _) => (Some(wrong.positive("attack.step_size", size)?), None),
        (None, Some(Number(share)), _) => (None, Some(wrong.positive("attack.rel_step", share)?)),
        (None, None, Some(Step::Absolute(size))) => (Some(size), None),
        (None, None, Some(Step::OfEps(share))) => (None, Some(share)),
        (None, None, Some(Step::Share)) => (None, Some(2.5 / f64::from(steps))),
        (None, None, None) => return Err(needed("attack.step_size")),
    };

    let starts = file.starts.map(|path| wrong.existing("attack.starts", &path)).transpose()?;
    let random_start = file.random_start.unwrap_or(preset.random_start && starts.is_none());
    let restarts = file.restarts.unwrap_or(1);
    match restarts {
        0 => return Err(wrong.at("attack.restarts", "expected at least 1, found 0")),
        2.. if !random_start => {
            return Err(
                wrong.at("attack.restarts", format!("{restarts} restarts need random_start, else they are equal"))
            );
        }
        _ => {}
    }
    if starts.is_some() && random_start {
        return Err(wrong.at("attack.random_start", "expected false: `starts` gives the start points"));
    }
    let decay = match (method, file.decay) {
        (Method::Mim, None) => Some(1.0),
        (Method::Mim, Some(Number(decay))) => Some(wrong.not_negative("attack.decay", decay)?),
        (_, None) => None,
        (_, Some(_)) => return Err(wrong.at("attack.decay", format!("only mim has momentum, found method {method}"))),
    };
    let space = file.space.filter(|&space| space != Space::Pixel);
    let hand_over = file.hand_over.filter(|&how| how != HandOver::Float);
    if space.is_some() && (norm != Norm::Linf || method == Method::Mim) {
        return Err(
            wrong.at("attack.space", format!("normalised goes with pgd or fgsm in linf, found {method} in {norm}"))
        );
    }
    let targeted = file.targeted.unwrap_or(Target::None);
    if (space.is_some() || hand_over.is_some()) && targeted != Target::None {
        let field = if space.is_some() { "attack.space" } else { "attack.hand_over" };
        return Err(wrong.at(field, "images that change after the attack are scored untargeted: leave out targeted"));
    }
    let default_eps = if norm == Norm::Linf { EPS_LINF } else { EPS_L2 };
    let eps = match (eps, file.eps) {
        (Some(given), _) => given.to_vec(),
        (None, Some(listed)) => listed.into_iter().map(|n| n.0).collect(),
        (None, None) => default_eps.to_vec(),
    };
    Ok(AttackConfig {
        profile,
        method,
        norm,
        eps: epsilons(eps, norm, wrong)?,
        steps,
        step_size,
        rel_step,
        restarts,
        random_start,
        loss: file.loss.unwrap_or(Loss::CrossEntropy),
        targeted,
        decay,
        early_stop: early_stop || file.early_stop,
        starts,
        space,
        hand_over,
    })
}

fn epsilons(mut eps: Vec<f64>, norm: Norm, wrong: &Wrong) -> Result<Vec<f64>> {
    let field = "attack.eps";
    if eps.is_empty() {
        return Err(wrong.at(field, "expected at least one epsilon, found none"));
    }
    for value in &mut eps {
        *value = wrong.not_negative(field, *value)? + 0.0; // -0 becomes 0
        if norm == Norm::Linf && *value > 1.0 {
            let problem =
                format!("expected at most 1, found {value}: budgets are for pixels in [0, 1], so write 8/255, not 8");
            return Err(wrong.at(field, problem));
        }
    }
    eps.sort_by(f64::total_cmp);
    match eps.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(wrong.at(field, format!("{} is listed twice", pair[0]))),
        None => Ok(eps),
    }
}
