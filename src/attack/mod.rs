//! Gradient attacks on image classifiers: PGD, FGSM and momentum PGD (MIM), L-inf and L2, natively and in the arithmetic of
//! four public libraries.
//!
//! All budgets are in pixel space, `[0, 1]`, before any normalisation. Losses are to be maximised. An image has succeeded
//! (for the attacker) when its prediction is not its label or, in targeted mode, when it is the target; images that are
//! misclassified when clean count as failures of the model whatever the attack does.
//!
//! Random numbers are keyed by (seed, purpose, image id, restart, step, draw), and native arithmetic treats each image alone:
//! for a classifier that does too, batch size, order, sharding and resuming never change a result. The profiles that average
//! their loss over the batch (torchattacks, cleverhans) depend on the batch on L2, as their originals do.

mod normalised;
mod pgd;
mod start;
mod target;

use serde::{Deserialize, Serialize};

use crate::choice::choice;
use crate::device::Device;
use crate::tensor::Tensor;
use crate::{Error, Result};

pub use crate::ops::pgd::{Budget, Norm, Profile};
pub use crate::ops::philox::{Purpose, Stream};
pub use normalised::Normalised;
pub use pgd::run;
pub use start::{StartKind, Starts};
pub use target::Target;

/// What an attack needs of a network.
pub trait Classifier {
    fn device(&self) -> &Device;

    fn classes(&self) -> usize;

    /// Height, width, channels.
    fn image_shape(&self) -> [usize; 3];

    /// Whether images are pixels in `[0, 1]`; an attack then refuses others.
    fn takes_pixels(&self) -> bool {
        true
    }

    /// Logits `(N, K)` of images `(N, H, W, C)`, float32 in `[0, 1]`.
    ///
    /// # Errors
    /// What the network's ops return.
    fn logits(&self, images: &Tensor) -> Result<Tensor>;

    /// Loss, margin and prediction per image, and the gradient of the summed loss with respect to the images, float32.
    ///
    /// # Errors
    /// What the network's ops return.
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation>;

    /// As [`Classifier::gradient`], without the gradient.
    ///
    /// # Errors
    /// What the network's ops return.
    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation>;
}

/// What is asked about a batch of N images.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub labels: &'a [u32],
    pub targets: Option<&'a [u32]>,
    pub loss: Loss,
    /// What the random numbers of a stochastic pipeline are keyed by: image ids, restart and step. Others ignore them.
    pub ids: &'a [u64],
    pub restart: u32,
    pub step: u32,
}

/// [`Query::step`] of the clean images, before any restart.
pub const CLEAN: u32 = (1 << 16) - 1;

impl<'a> Query<'a> {
    /// Of a network without randomness, untargeted.
    pub fn new(labels: &'a [u32], loss: Loss) -> Self {
        Query { labels, targets: None, loss, ids: &[], restart: 0, step: 0 }
    }
}

/// What a classifier says about a batch of N images.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// As the images.
    pub gradient: Option<Tensor>,
    pub loss: Vec<f32>,
    /// The smaller, the better for the attacker, and below 0 only after success: the logit of the label less the largest
    /// other one; in targeted mode the largest logit but the target's less the target's.
    pub margin: Vec<f32>,
    /// Largest logit, ties to the lowest index.
    pub prediction: Vec<u32>,
}

choice! {
    /// What an attack maximises; each has a targeted variant.
    Loss {
        CrossEntropy = "ce",
        /// Difference of logits ratio (Croce & Hein 2020): needs 3 classes, targeted 4.
        Dlr = "dlr",
        /// Carlini & Wagner's difference of logits: the best wrong one less the true one.
        Margin = "margin",
    }
}

choice! {
    /// The family of an attack.
    Method {
        /// Projected gradient ascent.
        Pgd = "pgd",
        /// One step of size eps from the clean image.
        Fgsm = "fgsm",
        /// PGD along the sign of an accumulated gradient (MI-FGSM); L-inf only.
        Mim = "mim",
    }
}

/// An attack with everything decided.
#[derive(Clone, Debug)]
pub struct Spec {
    pub method: Method,
    pub profile: Profile,
    pub norm: Norm,
    /// Radius of the ball; used in float32 as `eps as f32`. 0 means no attack, only the clean evaluation.
    pub eps: f64,
    /// FGSM always takes one.
    pub steps: u32,
    /// `2.5 * eps / steps` when unset; FGSM always takes eps.
    pub step_size: Option<f64>,
    /// Independent starts; more than one needs a random start or a file with as many.
    pub restarts: u32,
    /// FGSM never takes one.
    pub random_start: bool,
    pub loss: Loss,
    pub target: Target,
    /// Of the momentum, for [`Method::Mim`].
    pub decay: f64,
    /// Whether an image leaves the batch at its first success. Then its last point is that success, so that `correct_last`
    /// equals `correct_any`, and images misclassified when clean are not attacked at all.
    pub early_stop: bool,
    pub seed: u64,
    /// Starts from a file, in place of random ones.
    pub starts: Option<Starts>,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            method: Method::Pgd,
            profile: Profile::Native,
            norm: Norm::Linf,
            eps: 8.0 / 255.0,
            steps: 10,
            step_size: None,
            restarts: 1,
            random_start: true,
            loss: Loss::CrossEntropy,
            target: Target::None,
            decay: 1.0,
            early_stop: false,
            seed: 0,
            starts: None,
        }
    }
}

impl Spec {
    /// Number of steps that a restart takes.
    pub fn steps(&self) -> u32 {
        if self.method == Method::Fgsm { 1 } else { self.steps }
    }

    /// Step size in pixel units.
    pub fn step_size(&self) -> f64 {
        match (self.method, self.step_size) {
            (Method::Fgsm, _) => self.eps,
            (_, Some(size)) => size,
            (_, None) => 2.5 * self.eps / f64::from(self.steps.max(1)),
        }
    }

    /// Whether each restart begins at a random point.
    pub fn starts_randomly(&self) -> bool {
        self.random_start && self.method != Method::Fgsm && self.starts.is_none()
    }

    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the option.
    pub fn check(&self, classes: usize) -> Result<()> {
        let wrong = |flag: &str, problem: String| Err(Error::usage(flag, problem));
        if !(self.eps >= 0.0 && self.eps.is_finite()) {
            return wrong("--eps", format!("expected a number of at least 0, found {}", self.eps));
        }
        if let Some(size) = self.step_size.filter(|s| !(*s > 0.0 && s.is_finite())) {
            return wrong("--step-size", format!("expected a number above 0, found {size}"));
        }
        if self.profile == Profile::Cleverhans && self.eps > 0.0 && self.step_size() > self.eps {
            return wrong(
                "--step-size",
                format!("cleverhans wants at most eps, {}, found {}", self.eps, self.step_size()),
            );
        }
        if self.restarts == 0 || self.restarts > 1 << 10 {
            return wrong("--restarts", format!("expected 1 to 1024, found {}", self.restarts));
        }
        let stored = self.starts.as_ref().map(Starts::restarts);
        if let Some(stored) = stored.filter(|&s| s < self.restarts as usize) {
            return wrong(
                "--restarts",
                format!("the file of starts holds {stored} per image, found {}", self.restarts),
            );
        }
        if self.restarts > 1 && stored.is_none() && !self.starts_randomly() {
            return wrong("--restarts", "restarts without a random start would repeat each other; use 1".into());
        }
        if self.method == Method::Mim && self.norm != Norm::Linf {
            return wrong("--norm", "mim is defined for linf only".into());
        }
        if !self.decay.is_finite() {
            return wrong("--decay", format!("expected a number, found {}", self.decay));
        }
        let least = match (self.loss, self.target) {
            (Loss::Dlr, Target::None) => 3,
            (Loss::Dlr, _) => 4,
            _ => 2,
        };
        if classes < least {
            return wrong("--loss", format!("{} needs at least {least} classes, the model has {classes}", self.loss));
        }
        match self.target {
            Target::Class(c) if c as usize >= classes => {
                wrong("--target", format!("expected a class below {classes}, found {c}"))
            }
            _ => Ok(()),
        }
    }
}

/// What an attack did to one image.
///
/// `prediction`, `linf` and `l2` describe the last point; `margin` and `loss` are the best for the attacker over all points.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// At the last point.
    pub prediction: u32,
    pub clean_prediction: u32,
    pub correct_clean: bool,
    /// Correct when clean, and the last point of every restart is no success.
    pub correct_last: bool,
    /// Correct when clean, and neither a start nor any iterate is a success.
    pub correct_any: bool,
    /// Gradient steps taken before the first success, over all restarts; 0 for a start. None without success, and for
    /// images that were not attacked.
    pub first_success: Option<u32>,
    /// Gradient steps taken in all.
    pub steps: u32,
    /// The smallest over starts and iterates ([`Evaluation::margin`]), successes first; of the clean image where there was no
    /// attack.
    pub margin: f32,
    /// The highest over starts and iterates; of the clean image where there was no attack.
    pub loss: f32,
    /// Size of the last perturbation.
    pub linf: f32,
    pub l2: f32,
    /// True when one of the points kept breaks the budget.
    pub violation: bool,
    /// Whether the label is among the five largest logits at the last point, and of the clean image; `None` where nobody asked,
    /// as the attack itself does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_top5: Option<bool>,
}

/// Points that an attack leaves behind, `(N, H, W, C)` float32, and what they cost.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adversarial {
    /// The last iterate of the last restart that an image entered.
    pub last: Vec<f32>,
    /// The smallest margin over all starts and iterates, successes first.
    pub best_margin: Vec<f32>,
    /// `best_margin` where that is a success, else the point of highest loss: the image to hand on.
    pub best: Vec<f32>,
    pub work: Work,
}

/// Images that went through the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// forward and backward
    pub gradients: u64,
    /// forward only
    pub forwards: u64,
}
