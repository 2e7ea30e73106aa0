//! The numbers of an attack, stated once: as a config spells them ([`Said`]), and with nothing left to choose ([`Spec`]).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::model::{Classifier, Loss};
use super::outcome::Adversarial;
use super::target::Target;
use crate::choice::choice;
use crate::number::Number;
use crate::ops::pgd::{Norm, Profile};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Epsilons of a sweep that names none, in pixel units.
const EPS_LINF: [f64; 6] = [0.0, 0.005, 0.01, 0.02, 0.03, 0.06];
const EPS_L2: [f64; 6] = [0.0, 0.125, 0.25, 0.5, 1.0, 2.0];
const MOST_RESTARTS: u32 = 1 << 10;

choice! {
    /// What an attack moves, and what is clipped to [0, 1].
    Space {
        Pixel = "pixel",
        /// The normalised tensor, as in a published study; see [`super::Normalised`].
        Normalised = "normalised",
    }
}

choice! {
    /// How attacked images are handed on to be scored and denoised.
    HandOver {
        Float = "float",
        /// Rounded to 8 bits, as if they were saved as PNG and read again.
        EightBit = "8-bit",
    }
}

/// The size of a step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum StepSize {
    /// In pixel units.
    Absolute(f64),
    /// As a share of epsilon.
    OfEps(f64),
}

impl StepSize {
    /// The rule of thumb 2.5 eps / steps (Madry et al. 2018), where nothing else is said.
    pub fn rule_of_thumb(steps: u32) -> Self {
        StepSize::OfEps(2.5 / f64::from(steps.max(1)))
    }
}

/// A batch of N images to be attacked.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// `(N, H, W, C)` float32, in [0, 1] where the network takes pixels.
    pub images: &'a Tensor,
    pub labels: &'a [u32],
    /// They key the random numbers.
    pub ids: &'a [u64],
}

/// An attack, ready to run.
pub trait Attack: Send + Sync {
    /// Attacks a batch within `eps` and says what happened to each image. Epsilon 0 means no attack, only the clean evaluation.
    ///
    /// # Errors
    /// [`Error::Usage`] for settings that this network cannot be attacked with, [`Error::Shape`] for images or labels that do not
    /// fit it, and what it returns.
    fn run(&self, model: &dyn Classifier, batch: Batch, eps: f64, seed: u64) -> Result<Adversarial>;

    /// How often it asks the network about a batch at most, where it knows that beforehand: for people who wait.
    fn most_queries(&self) -> Option<u64> {
        None
    }
}

/// An attack as the table has it.
pub struct Row {
    pub name: &'static str,
    /// For people who choose.
    pub help: &'static str,
    /// Fields of [`Said`] that mean nothing to it and are refused.
    pub ignores: &'static [&'static str],
    /// The loss that is part of the method; `None` where there is a choice.
    pub loss: Option<Loss>,
    /// Whether images leave at their first success, whatever is said of early stop.
    pub leaves: bool,
    /// Whether it draws windows, which all images can share; see [`Spec::compat`].
    pub windows: bool,
    /// The method that small extra attacks of a run take: itself, unless it costs more than its steps.
    pub tried_as: &'static str,
    /// What happens where nothing is said, or nothing but the number of steps; `None` for what this profile leaves open.
    pub preset: fn(Profile, Norm, Option<u32>) -> Preset,
    /// Refuses combinations that are not defined, beyond what [`Spec`] refuses for all.
    pub check: fn(&Spec) -> Result<()>,
    pub build: fn(&Spec) -> Result<Box<dyn Attack>>,
}

/// Defaults of an attack under a profile and a norm.
pub struct Preset {
    pub steps: Option<u32>,
    pub step: Option<StepSize>,
    pub random_start: bool,
}

/// The `[attack]` table; what is `None` was not said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Said {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm: Option<Norm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<Vec<Number>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// In pixel units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_size: Option<Number>,
    /// As a share of epsilon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rel_step: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_start: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targeted: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_stop: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_cycles: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub space: Option<Space>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hand_over: Option<HandOver>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nest: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compat: Option<bool>,
    /// Names of further methods, each as it is when nothing more is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<Vec<String>>,
}

/// An attack with everything decided. Budgets and steps are in pixel units of images in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Its row in the table.
    pub method: &'static str,
    pub profile: Profile,
    pub norm: Norm,
    /// Radii of the ball; each is used in float32 as `eps as f32`. Ascending, each at least 0, none twice.
    pub eps: Vec<f64>,
    pub steps: u32,
    pub step: StepSize,
    /// Independent starts; more than one needs a random start or a file with as many.
    pub restarts: u32,
    pub random_start: bool,
    pub loss: Loss,
    /// That of the method where nothing is said: its name says it.
    pub usual_loss: Loss,
    pub targeted: Target,
    /// Of the momentum.
    pub decay: f64,
    /// Whether an image leaves the batch at its first success. Then its last point is that success, so that `correct_last`
    /// equals `correct_any`, and images that are a success when clean are not attacked at all.
    pub early_stop: bool,
    /// Whether an image leaves the batch once its iterates only repeat themselves. Nothing but the cost changes.
    pub stop_cycles: bool,
    /// A safetensors file of start points, in place of random ones.
    pub starts: Option<PathBuf>,
    pub space: Space,
    pub hand_over: HandOver,
    /// Whether an image that was broken within one budget counts as broken within every larger one and is not attacked there.
    pub nest: bool,
    /// Of Square: whether all images share the windows of a step, as published, and do not draw their own.
    pub compat: bool,
    /// Further attacks on the undefended classifier, with the same norm and budgets, for a look beside this one.
    pub beside: Vec<Spec>,
}

pub(super) fn wrong<T>(field: &str, problem: impl Into<String>) -> Result<T> {
    Err(Error::usage(format!("attack.{field}"), problem))
}

impl Said {
    /// Fills in what is open and refuses what cannot be meant.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the field.
    pub fn decide(&self, row: &'static Row) -> Result<Spec> {
        let profile = self.profile.unwrap_or(Profile::Native);
        let norm = self.norm.unwrap_or(Norm::Linf);
        let name = row.name;
        let preset = (row.preset)(profile, norm, self.steps);
        for (field, given) in self.given() {
            if given && row.ignores.contains(&field) {
                return wrong(field, format!("{name} has none: leave it out; it {}", row.help));
            }
        }
        if self.compat == Some(true) && !row.windows {
            return wrong("compat", format!("is of square and of what ends in it, found {name}: leave it out"));
        }
        if let (Some(own), Some(given)) = (row.loss, self.loss.filter(|&given| row.loss != Some(given))) {
            return wrong("loss", format!("{name} raises {own}: leave it out, found {given}"));
        }
        let needed =
            |field: &str| wrong(field, format!("expected a value: profile {profile} has no default for {name}"));
        let steps = match preset.steps {
            None => return needed("steps"),
            Some(0) => return wrong("steps", "expected at least 1, found 0"),
            Some(steps) => steps,
        };
        let step = match (self.step_size, self.rel_step, preset.step) {
            (Some(_), Some(_), _) => return wrong("rel_step", "expected one of step_size and rel_step, found both"),
            (Some(size), None, _) => StepSize::Absolute(above_0("step_size", size.value)?),
            (None, Some(share), _) => StepSize::OfEps(above_0("rel_step", share.value)?),
            (None, None, Some(step)) => step,
            (None, None, None) => return needed("step_size"),
        };
        let default_eps = if norm == Norm::Linf { EPS_LINF } else { EPS_L2 };
        let eps = self.eps.as_ref().map_or(default_eps.to_vec(), |listed| listed.iter().map(|n| n.value).collect());
        let mut spec = Spec {
            method: name,
            profile,
            norm,
            eps: epsilons(eps, norm)?,
            steps,
            step,
            restarts: self.restarts.unwrap_or(1),
            random_start: self.random_start.unwrap_or(preset.random_start && self.starts.is_none()),
            loss: row.loss.or(self.loss).unwrap_or(Loss::CrossEntropy),
            usual_loss: row.loss.unwrap_or(Loss::CrossEntropy),
            targeted: self.targeted.unwrap_or(Target::None),
            decay: self.decay.map_or(1.0, |n| n.value),
            early_stop: row.leaves || self.early_stop.unwrap_or(false),
            stop_cycles: false,
            starts: self.starts.clone(),
            space: self.space.unwrap_or(Space::Pixel),
            hand_over: self.hand_over.unwrap_or(HandOver::Float),
            nest: self.nest.unwrap_or(false),
            compat: self.compat.unwrap_or(false),
            beside: vec![],
        };
        spec.check()?;
        (row.check)(&spec)?;
        if self.stop_cycles == Some(true) && spec.averages() {
            let problem =
                format!("the steps of {profile} in {norm} depend on the other images of a batch: leave it out");
            return wrong("stop_cycles", problem);
        }
        let can = !row.ignores.contains(&"stop_cycles") && !spec.averages();
        spec.stop_cycles = can && self.stop_cycles.unwrap_or(true);
        Ok(spec)
    }

    /// Every field that a method may lack, and whether it was said.
    fn given(&self) -> [(&'static str, bool); 9] {
        [
            ("steps", self.steps.is_some()),
            ("step_size", self.step_size.is_some()),
            ("rel_step", self.rel_step.is_some()),
            ("restarts", self.restarts.is_some()),
            ("random_start", self.random_start.is_some()),
            ("decay", self.decay.is_some()),
            ("starts", self.starts.is_some()),
            ("early_stop", self.early_stop == Some(true)),
            ("stop_cycles", self.stop_cycles == Some(true)),
        ]
    }
}

fn above_0(field: &str, value: f64) -> Result<f64> {
    let good = value.is_finite() && value > 0.0;
    if good { Ok(value) } else { wrong(field, format!("expected a number above 0, found {value}")) }
}

fn epsilons(mut eps: Vec<f64>, norm: Norm) -> Result<Vec<f64>> {
    if eps.is_empty() {
        return wrong("eps", "expected at least one epsilon, found none");
    }
    for value in &mut eps {
        if !(value.is_finite() && *value >= 0.0) {
            return wrong("eps", format!("expected a number of at least 0, found {value}"));
        }
        *value += 0.0; // -0 becomes 0
        if norm == Norm::Linf && *value > 1.0 {
            let problem =
                format!("expected at most 1, found {value}: budgets are for pixels in [0, 1], so write 8/255, not 8");
            return wrong("eps", problem);
        }
    }
    eps.sort_by(f64::total_cmp);
    match eps.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => wrong("eps", format!("{} is listed twice", pair[0])),
        None => Ok(eps),
    }
}

impl Spec {
    /// The step at this epsilon, in pixel units.
    pub fn step_size(&self, eps: f64) -> f64 {
        match self.step {
            StepSize::Absolute(size) => size,
            StepSize::OfEps(share) => share * eps,
        }
    }

    /// Whether the loss is averaged over the batch where steps feel it.
    pub fn averages(&self) -> bool {
        self.norm == Norm::L2 && matches!(self.profile, Profile::Torchattacks | Profile::Cleverhans)
    }

    /// Whether each restart begins at a random point.
    pub fn starts_randomly(&self) -> bool {
        self.random_start && self.starts.is_none()
    }

    /// The epsilon of the pictures: the middle one of those above 0.
    pub fn middle_eps(&self) -> Option<f64> {
        let attacked: Vec<f64> = self.eps.iter().copied().filter(|&eps| eps > 0.0).collect();
        attacked.get(attacked.len() / 2).copied()
    }

    /// Whether the attack moves the normalised tensor.
    pub fn normalised(&self) -> bool {
        self.space == Space::Normalised
    }

    /// Whether images are scored as they were handed on, not as the attack left them.
    pub fn hands_over(&self) -> bool {
        self.normalised() || self.hand_over == HandOver::EightBit
    }

    /// The attack in one word, as in `results.csv`: `pgd`, `torchattacks-pgd`, `pgd-dlr-targeted`, `pgd-nested`.
    pub fn label(&self) -> String {
        let mut label = self.method.to_owned();
        if self.profile != Profile::Native {
            label = format!("{}-{label}", self.profile);
        }
        if self.loss != self.usual_loss {
            label = format!("{label}-{}", self.loss);
        }
        if self.targeted != Target::None {
            label.push_str("-targeted");
        }
        if self.normalised() {
            label.push_str("-normalised");
        }
        if self.hand_over == HandOver::EightBit {
            label.push_str("-8bit");
        }
        if self.compat {
            label.push_str("-compat");
        }
        if self.nest {
            label.push_str("-nested");
        }
        label
    }

    /// The table that is decided the same.
    pub(super) fn said_as(&self, row: &Row) -> Said {
        let own = |field: &str| !row.ignores.contains(&field);
        let size = |field: &str| match (field, self.step) {
            ("step_size", StepSize::Absolute(size)) | ("rel_step", StepSize::OfEps(size)) if own(field) => {
                Some(size.into())
            }
            _ => None,
        };
        Said {
            profile: Some(self.profile),
            method: Some(self.method.into()),
            norm: Some(self.norm),
            eps: Some(self.eps.iter().map(|&eps| eps.into()).collect()),
            steps: own("steps").then_some(self.steps),
            step_size: size("step_size"),
            rel_step: size("rel_step"),
            restarts: own("restarts").then_some(self.restarts),
            random_start: own("random_start").then_some(self.random_start),
            loss: Some(self.loss),
            targeted: Some(self.targeted),
            decay: own("decay").then_some(self.decay.into()),
            early_stop: own("early_stop").then_some(self.early_stop),
            // Said only where it is not what happens anyway.
            stop_cycles: (own("stop_cycles") && !self.stop_cycles && !self.averages()).then_some(false),
            starts: self.starts.clone(),
            space: (self.space != Space::Pixel).then_some(self.space),
            hand_over: (self.hand_over != HandOver::Float).then_some(self.hand_over),
            nest: self.nest.then_some(true),
            compat: self.compat.then_some(true),
            beside: (!self.beside.is_empty()).then(|| self.beside.iter().map(|spec| spec.method.to_owned()).collect()),
        }
    }

    /// Refuses what cannot be meant, whatever the network.
    fn check(&self) -> Result<()> {
        if self.restarts == 0 || self.restarts > MOST_RESTARTS {
            let problem = format!("expected at least 1 and at most {MOST_RESTARTS}, found {}", self.restarts);
            return wrong("restarts", problem);
        }
        if self.starts.is_some() && self.random_start {
            return wrong("random_start", "expected false: `starts` gives the start points");
        }
        if self.restarts > 1 && !self.random_start && self.starts.is_none() {
            return wrong("restarts", format!("{} restarts need random_start, else they are equal", self.restarts));
        }
        if !(self.decay.is_finite() && self.decay >= 0.0) {
            return wrong("decay", format!("expected a number of at least 0, found {}", self.decay));
        }
        if self.profile == Profile::Cleverhans
            && let Some(eps) = self.eps.iter().find(|&&eps| eps > 0.0 && self.step_size(eps) > eps)
        {
            let found = self.step_size(*eps);
            return wrong("step_size", format!("cleverhans wants at most eps, {eps}, found {found}"));
        }
        if self.nest && self.targeted != Target::None {
            return wrong("nest", "counts any wrong class: leave out targeted");
        }
        if self.normalised() && self.norm != Norm::Linf {
            return wrong("space", format!("normalised goes with linf, found {} in {}", self.method, self.norm));
        }
        if self.hands_over() && self.targeted != Target::None {
            let field = if self.normalised() { "space" } else { "hand_over" };
            return wrong(field, "images that change after the attack are scored untargeted: leave out targeted");
        }
        Ok(())
    }

    /// Refuses what this number of classes does not allow.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the field.
    pub fn check_classes(&self, classes: usize) -> Result<()> {
        let least = match (self.loss, self.targeted) {
            (Loss::Dlr, Target::None) => 3,
            (Loss::Dlr, _) => 4,
            _ => 2,
        };
        if classes < least {
            return wrong("loss", format!("{} needs at least {least} classes, the model has {classes}", self.loss));
        }
        match self.targeted {
            Target::Class(c) if c as usize >= classes => {
                wrong("targeted", format!("expected a class below {classes}, found {c}"))
            }
            _ => Ok(()),
        }
    }
}
