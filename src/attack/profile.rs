//! What each library does when its user says nothing, and how options become a [`Spec`].
//!
//! Read from torchattacks 3.5.1, foolbox 3.3.4, cleverhans 4.0.0 and adversarial-robustness-toolbox 1.20.1.

use serde::{Deserialize, Serialize};

use super::{Loss, Method, Norm, Profile, Spec, Target};
use crate::{Error, Result};

/// A step size, absolute or as a share of eps.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum StepSize {
    Absolute(f64),
    TimesEps(f64),
    /// `2.5 * eps / steps` (Madry et al. 2018).
    Auto,
}

/// What a library takes for what is left open; `None` where it insists on being told.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Defaults {
    pub eps: Option<f64>,
    pub step: Option<StepSize>,
    pub steps: Option<u32>,
    pub random_start: bool,
    pub early_stop: bool,
}

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Profile::Native => "native",
            Profile::Torchattacks => "torchattacks",
            Profile::Foolbox => "foolbox",
            Profile::Cleverhans => "cleverhans",
            Profile::Art => "art",
        }
    }

    /// Defaults of the library's attack of this family. Only the native profile stops early.
    pub fn defaults(self, method: Method, norm: Norm) -> Defaults {
        use StepSize::{Absolute, Auto, TimesEps};
        let all = |eps, step, steps, random_start| Defaults { eps, step, steps, random_start, early_stop: self == Profile::Native };
        match (self, method, norm) {
            (Profile::Native, Method::Fgsm, _) => all(None, Some(TimesEps(1.0)), Some(1), false),
            (Profile::Native, method, _) => all(None, Some(Auto), Some(10), method == Method::Pgd),
            (profile, Method::Fgsm, _) => {
                let eps = match profile {
                    Profile::Torchattacks => Some(8.0 / 255.0),
                    Profile::Art => Some(0.3),
                    _ => None,
                };
                all(eps, Some(TimesEps(1.0)), Some(1), false)
            }
            (Profile::Torchattacks, Method::Pgd, Norm::L2) => all(Some(1.0), Some(Absolute(0.2)), Some(10), true),
            (Profile::Torchattacks, m, _) => all(Some(8.0 / 255.0), Some(Absolute(2.0 / 255.0)), Some(10), m == Method::Pgd),
            (Profile::Foolbox, Method::Pgd, Norm::Linf) => all(None, Some(TimesEps(0.01 / 0.3)), Some(40), true),
            (Profile::Foolbox, Method::Pgd, Norm::L2) => all(None, Some(TimesEps(0.025)), Some(50), true),
            (Profile::Foolbox, Method::Mim, _) => all(None, Some(TimesEps(0.2)), Some(10), false),
            (Profile::Cleverhans, Method::Pgd, _) => all(None, None, None, true),
            (Profile::Cleverhans, Method::Mim, _) => all(Some(0.3), Some(Absolute(0.06)), Some(10), false),
            (Profile::Art, _, _) => all(Some(0.3), Some(Absolute(0.1)), Some(100), false),
        }
    }

    /// Whether its loss is averaged over the batch where that matters: on L2, where steps have a floor.
    pub(super) fn averages_loss(self) -> bool {
        matches!(self, Profile::Torchattacks | Profile::Cleverhans)
    }
}

/// An attack as a user describes it: what is left out comes from the profile.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    pub method: Method,
    pub profile: Profile,
    pub norm: Norm,
    pub steps: Option<u32>,
    /// Absolute, in pixel units.
    pub step_size: Option<f64>,
    /// As a share of eps; excludes `step_size`.
    pub relative_step_size: Option<f64>,
    pub restarts: Option<u32>,
    pub random_start: Option<bool>,
    pub loss: Loss,
    pub target: Target,
    pub decay: Option<f64>,
    pub early_stop: Option<bool>,
    pub seed: u64,
}

impl Options {
    /// The attack at one eps; without one, at the library's default.
    ///
    /// # Errors
    /// [`Error::Usage`] when the library insists on an option that is missing, or two options exclude each other.
    pub fn spec(&self, eps: Option<f64>) -> Result<Spec> {
        let defaults = self.profile.defaults(self.method, self.norm);
        let missing = |flag: &str| Error::usage(flag, format!("the profile {} has no default; set it", self.profile.name()));
        let eps = eps.or(defaults.eps).ok_or_else(|| missing("--eps"))?;
        let steps = self.steps.or(defaults.steps).ok_or_else(|| missing("--steps"))?;
        let step_size = match (self.step_size, self.relative_step_size) {
            (Some(_), Some(_)) => return Err(Error::usage("--step-size", "give it either absolute or relative to eps, not both")),
            (Some(size), None) => Some(size),
            // A step of 0 belongs to an eps of 0, where nothing moves.
            (None, Some(share)) => (eps > 0.0).then_some(share * eps),
            (None, None) => match defaults.step.ok_or_else(|| missing("--step-size"))? {
                StepSize::Absolute(size) => Some(size),
                StepSize::TimesEps(share) => (eps > 0.0).then_some(share * eps),
                StepSize::Auto => None,
            },
        };
        Ok(Spec {
            method: self.method,
            profile: self.profile,
            norm: self.norm,
            eps,
            steps,
            step_size,
            restarts: self.restarts.unwrap_or(1),
            random_start: self.random_start.unwrap_or(defaults.random_start),
            loss: self.loss,
            target: self.target,
            decay: self.decay.unwrap_or(1.0),
            early_stop: self.early_stop.unwrap_or(defaults.early_stop),
            seed: self.seed,
            starts: None,
        })
    }
}
