//! The adaptive suite: attacks that go through the defence, each with its own way to a gradient or with none, and the worst of them image
//! by image. A new one is a row of [`SUITE`].
//!
//! Noise is drawn apart for three purposes: for the attack, to choose among its points, and to score the one that is chosen. Sources: Athalye
//! et al. 2018, Carlini et al. 2019, Croce et al. 2022, Lee & Kim 2023.

use super::defended::Estimator;
use crate::Result;
use crate::attack::{Norm, Said, Spec};
use crate::number::Number;

/// Steps of its PGD attacks when nothing is said (Lee & Kim 2023, for images of 32x32).
pub const STEPS: u32 = 200;
/// Draws that choose among the points of an attack.
pub const SELECTION: u32 = 64;

/// An attack of the suite.
pub struct Row {
    pub name: &'static str,
    pub help: &'static str,
    pub estimator: Estimator,
    method: &'static str,
    random_start: bool,
    /// Steps for each of PGD's: numerator and denominator.
    steps: [u32; 2],
    /// Attacked and scored under the same draws: what the noise itself is worth. It is no part of the worst case.
    pub fixed: bool,
}

const PGD: Row = Row {
    name: "",
    help: "",
    estimator: Estimator::EotGrad,
    method: "pgd",
    random_start: false,
    steps: [1, 1],
    fixed: false,
};

/// Every attack of the suite.
pub static SUITE: [Row; 9] = [
    Row { name: "a1-exact", help: "PGD on the exact gradient, from the image itself", ..PGD },
    Row { name: "a1-start", help: "PGD on the exact gradient, from a random point", random_start: true, ..PGD },
    Row { name: "a2-prob", help: "PGD on the mean softmax", estimator: Estimator::EotProb, ..PGD },
    Row { name: "a2-vote", help: "PGD on the margin of the mean softmax", estimator: Estimator::VoteMargin, ..PGD },
    Row { name: "a3-bpda", help: "PGD that takes the denoiser for the identity", estimator: Estimator::Bpda, ..PGD },
    Row { name: "a4-apgd-ce", help: "APGD on the cross-entropy", method: "apgd-ce", steps: [1, 2], ..PGD },
    Row {
        name: "a4-apgd-dlr",
        help: "APGD on the difference of logits ratio",
        method: "apgd-dlr",
        steps: [1, 2],
        ..PGD
    },
    Row { name: "a5-square", help: "Square, without a gradient", method: "square", steps: [5, 1], ..PGD },
    Row { name: "a6-fixed", help: "PGD that knows the noise it is scored under", fixed: true, ..PGD },
];

/// What the name of an attack ends in that keeps books as AutoAttack does.
pub const AA_COMPAT: &str = "aa_compat";
/// What results call the worst case.
pub const WORST: &str = "suite";

impl Row {
    /// Whether it keeps books of its points as it goes, which AutoAttack as published does by the last draw.
    pub fn apgd(&self) -> bool {
        self.method.starts_with("apgd")
    }

    /// As results name it.
    pub fn name(&self, aa_compat: bool) -> String {
        if aa_compat && self.apgd() { format!("{}-{AA_COMPAT}", self.name) } else { self.name.into() }
    }

    /// The attack, where PGD takes `steps`.
    ///
    /// # Errors
    /// [`crate::Error::Usage`] for budgets that cannot be meant.
    pub fn spec(&self, norm: Norm, eps: &[f64], steps: u32) -> Result<Spec> {
        let pgd = self.method == PGD.method;
        let steps = (u64::from(steps) * u64::from(self.steps[0]) / u64::from(self.steps[1])).clamp(1, (1 << 16) - 1);
        // Signs of a noisy gradient lead nowhere in steps that only just reach the edge of the ball; L2 keeps the rule of thumb.
        let step = (pgd && norm == Norm::Linf).then(|| Number::from(0.25));
        Said {
            method: Some(self.method.into()),
            norm: Some(norm),
            eps: Some(eps.iter().map(|&eps| eps.into()).collect()),
            steps: Some(steps as u32),
            rel_step: step,
            random_start: pgd.then_some(self.random_start),
            ..Said::default()
        }
        .decided()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_is_allowed_and_none_stops_early() {
        for row in &SUITE {
            for norm in [Norm::Linf, Norm::L2] {
                let spec = row.spec(norm, &[0.0, 0.03], 200).unwrap();
                // What leaves of itself does not where noise is drawn.
                assert!(!spec.early_stop || row.method == "square", "{}", row.name);
            }
        }
        let steps = |at: usize| SUITE[at].spec(Norm::Linf, &[0.03], STEPS).unwrap().steps;
        assert_eq!([0, 5, 7].map(steps), [200, 100, 1000]);
        let mut names: Vec<&str> = SUITE.iter().map(|row| row.name).chain([WORST]).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), SUITE.len() + 1);
    }
}
