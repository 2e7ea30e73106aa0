//! Attacks on image classifiers in L-inf and L2: PGD, FGSM and momentum PGD (MIM), natively and in the arithmetic of four public
//! libraries; random search; APGD, FAB, Square and AutoAttack; the smallest budget by bisection, DDN or FMN. A new one is a file and a row
//! of [`ATTACKS`].
//!
//! All budgets are in pixel space, `[0, 1]`, before any normalisation. Losses are to be maximised. An image has succeeded
//! (for the attacker) when its prediction is not its label or, in targeted mode, when it is the target; images that are
//! misclassified when clean count as failures of the model whatever the attack does.
//!
//! Random numbers are keyed by (seed, purpose, image id, restart, step, draw), and native arithmetic treats each image alone:
//! for a classifier that does too, batch size, order, sharding and resuming never change a result. The profiles that average
//! their loss over the batch (torchattacks, cleverhans) depend on the batch on L2, as their originals do.

mod apgd;
pub mod autoattack;
mod cycles;
mod fab;
mod fmn;
mod min_norm;
mod model;
mod normalised;
mod outcome;
pub mod pgd;
mod random;
pub mod spec;
mod square;
mod start;
mod target;
mod tell;
mod track;
mod walk;
mod watched;

use serde::{Serialize, Serializer};

use crate::{Error, Result};

pub use crate::ops::pgd::{Budget, Norm, Profile};
pub use crate::ops::philox::{Purpose, Stream};
pub use apgd::start as apgd_start;
pub use model::{Answer, CLEAN, Classifier, Evaluation, Loss, Oracle, Query, Resident};
pub use normalised::Normalised;
pub use outcome::{Adversarial, Asked, Outcome, STAGES, Work};
pub use spec::{Attack, Batch, HandOver, Row, Said, Space, Spec, StepSize};
pub use start::{StartKind, Starts};
pub use target::Target;
pub use watched::Watched;

/// Every attack there is.
pub static ATTACKS: [Row; 17] = [
    pgd::PGD,
    pgd::FGSM,
    pgd::MIM,
    random::RANDOM,
    apgd::CROSS_ENTROPY,
    apgd::DLR,
    apgd::TARGETED,
    fab::UNTARGETED,
    fab::TARGETED,
    square::SQUARE,
    autoattack::STANDARD,
    autoattack::PLUS,
    autoattack::RANDOM,
    min_norm::PGD,
    min_norm::APGD,
    fmn::DDN,
    fmn::FMN,
];

/// The attack of this name.
///
/// # Errors
/// [`Error::Usage`] that lists those there are.
pub fn row(name: &str) -> Result<&'static Row> {
    let names = || ATTACKS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    let found = ATTACKS.iter().find(|row| row.name == name);
    found.ok_or_else(|| Error::usage("attack.method", format!("expected one of {}, found `{name}`", names())))
}

impl Said {
    /// Fills in what is open, by the method and the profile, and refuses what cannot be meant.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the field.
    pub fn decided(&self) -> Result<Spec> {
        let mut spec = self.decide(row(self.method.as_deref().unwrap_or("pgd"))?)?;
        let wrong = |problem: String| Error::usage("attack.beside", problem);
        for name in self.beside.iter().flatten() {
            if spec.targeted != Target::None || spec.normalised() {
                return Err(wrong(
                    "the attacks beside move pixels to any wrong class: leave out targeted and space".into(),
                ));
            }
            let said = Said {
                method: Some(name.clone()),
                norm: Some(spec.norm),
                eps: Some(spec.eps.iter().map(|&eps| eps.into()).collect()),
                hand_over: Some(spec.hand_over),
                ..Said::default()
            };
            let known = |e: Error| match e {
                Error::Usage { problem, .. } => wrong(problem),
                other => other,
            };
            let other = said.decide(row(name).map_err(known)?).map_err(known)?;
            // Results tell them apart by their labels.
            if [&spec].into_iter().chain(&spec.beside).any(|spec| spec.label() == other.label()) {
                return Err(wrong(format!("{name} is attacked with already")));
            }
            spec.beside.push(other);
        }
        Ok(spec)
    }
}

impl Default for Spec {
    /// PGD as it is when nothing is said.
    fn default() -> Self {
        Said::default().decided().expect("the defaults are allowed")
    }
}

impl Spec {
    /// One step of size eps, when nothing else is said.
    pub fn fgsm() -> Self {
        Said { method: Some(pgd::FGSM.name.into()), ..Said::default() }.decided().expect("the defaults are allowed")
    }

    /// The attack of small trials beside a run: this one, or what stands in for it.
    ///
    /// # Errors
    /// None for a method of the table.
    pub fn tried(&self) -> Result<Spec> {
        let row = row(self.method)?;
        if row.tried_as == self.method {
            return Ok(self.clone());
        }
        let eps = self.eps.iter().map(|&eps| eps.into()).collect();
        let method = Some(row.tried_as.to_owned());
        Said { method, norm: Some(self.norm), eps: Some(eps), ..Said::default() }.decided()
    }

    /// Refuses what this number of classes does not allow, of the attack and of those that it is made of.
    ///
    /// # Errors
    /// [`Error::Usage`] that names the field.
    pub fn check_stages(&self, classes: usize) -> Result<()> {
        // Of attacks that bring their loss along it is the attack that cannot be made.
        for row in autoattack::stages(self.method).iter().copied().chain(row(self.method)) {
            let least = match row.loss {
                _ if row.name == apgd::TARGETED.name => 4,
                Some(Loss::Dlr) => 3,
                _ => 2,
            };
            if classes < least {
                let who = if row.name == self.method { "it".into() } else { format!("of its attacks {}", row.name) };
                let problem = format!(
                    "{who} needs at least {least} classes, the model has {classes}: use apgd-ce, fab-t or square"
                );
                return Err(Error::usage("attack.method", problem));
            }
        }
        self.check_classes(classes)
    }

    /// The attack, with the files it needs.
    ///
    /// # Errors
    /// What reading them returns.
    pub fn build(&self) -> Result<Box<dyn Attack>> {
        let row = row(self.method)?;
        (row.build)(&Spec { early_stop: self.early_stop || row.leaves, ..self.clone() })
    }
}

/// As the table that is decided the same.
impl Serialize for Spec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let row = row(self.method).map_err(serde::ser::Error::custom)?;
        self.said_as(row).serialize(serializer)
    }
}
