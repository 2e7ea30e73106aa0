//! The smallest budget that breaks each image, by bisection: one run gives the accuracy over every budget up to the largest.
//!
//! An image that is broken within a budget counts as broken within every larger one, so that the budgets that were tried nest. Images are
//! tried together where their next budget is the same: what is found of one does not depend on the others.

use std::collections::BTreeMap;

use super::model::Classifier;
use super::outcome::Adversarial;
use super::spec::{Attack, Batch, Row, Spec, wrong};
use super::target::Target;
use super::{apgd, pgd};
use crate::ops::pgd::gather;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Parts of the largest budget that are told apart, a power of two.
const PARTS: u32 = 128;

/// What attacks that look for the smallest budget leave no choice in.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let budgets = spec.eps.iter().filter(|&&eps| eps > 0.0).count();
    if budgets > 1 {
        let problem = format!("{} looks at all budgets up to one: expected that one, found {budgets}", spec.method);
        return wrong("eps", problem);
    }
    if spec.nest {
        return wrong("nest", format!("{} nests its budgets anyway: leave it out", spec.method));
    }
    if spec.targeted != Target::None {
        return wrong("targeted", format!("{} counts any wrong class: leave it out", spec.method));
    }
    if spec.averages() {
        let problem = format!(
            "the steps of {} in {} depend on the other images of a batch: leave it out",
            spec.profile, spec.norm
        );
        return wrong("profile", problem);
    }
    if spec.hands_over() {
        return wrong("hand_over", format!("{} looks for the smallest change: leave it and space out", spec.method));
    }
    Ok(())
}

pub const PGD: Row = Row {
    name: "min-norm",
    help: "halves the budget of pgd for each image until the smallest that breaks it is known to 1/128 of the largest",
    ignores: &["early_stop", "starts"],
    leaves: true,
    tried_as: "pgd",
    check: |spec| {
        check(spec)?;
        (pgd::PGD.check)(spec)
    },
    build: |spec| Ok(Box::new(MinNorm { name: spec.method, attack: Box::new(pgd::Pgd::new(spec, false)?) })),
    ..pgd::PGD
};

pub const APGD: Row = Row {
    name: "min-norm-apgd",
    help: "halves the budget of apgd-ce for each image until the smallest that breaks it is known to 1/128 of the largest",
    leaves: true,
    check: |spec| {
        check(spec)?;
        apgd::check(spec)
    },
    build: |spec| Ok(Box::new(MinNorm { name: spec.method, attack: (apgd::CROSS_ENTROPY.build)(spec)? })),
    ..apgd::CROSS_ENTROPY
};

/// Refuses models that draw noise.
pub(super) fn repeats(model: &dyn Classifier, method: &str) -> Result<()> {
    match model.repeats_itself() {
        true => Ok(()),
        false => {
            let problem = format!("{method} takes one success for a proof: it is no attack on noise");
            Err(Error::usage("attack.method", problem))
        }
    }
}

struct MinNorm {
    name: &'static str,
    /// Whose images leave at their first success.
    attack: Box<dyn Attack>,
}

impl Attack for MinNorm {
    fn run(&self, model: &dyn Classifier, batch: Batch, eps: f64, seed: u64) -> Result<Adversarial> {
        repeats(model, self.name)?;
        let device = model.device();
        let mut all = self.attack.run(model, batch, eps, seed)?;
        // Within `below` parts an image stands, within `within` parts it is broken.
        let mut open: Vec<(usize, u32, u32)> = Vec::new();
        for (i, outcome) in all.outcomes.iter_mut().enumerate() {
            if outcome.correct_clean && !outcome.correct_any {
                outcome.radius = Some(eps);
                open.push((i, 0, PARTS));
            }
        }
        while open.iter().any(|&(_, below, within)| within - below > 1) {
            let mut together: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            for (place, &(_, below, within)) in open.iter().enumerate().filter(|(_, (_, b, w))| w - b > 1) {
                together.entry(below.midpoint(within)).or_default().push(place);
            }
            for (parts, places) in together {
                let index: Vec<Option<usize>> = places.iter().map(|&place| Some(open[place].0)).collect();
                let images = gather(device, batch.images, &index, None)?;
                let pick = |&place: &usize| (batch.labels[open[place].0], batch.ids[open[place].0]);
                let (labels, ids): (Vec<u32>, Vec<u64>) = places.iter().map(pick).unzip();
                let budget = eps * f64::from(parts) / f64::from(PARTS);
                let some = Batch { images: &images, labels: &labels, ids: &ids };
                let found = self.attack.run(model, some, budget, seed)?;
                let mut back = vec![None; all.outcomes.len()];
                for (j, (&place, mut outcome)) in places.iter().zip(found.outcomes).enumerate() {
                    let (i, below, within) = &mut open[place];
                    let before = &all.outcomes[*i];
                    let steps = before.steps + outcome.steps;
                    all.works[*i] += found.works[j];
                    if outcome.correct_any {
                        *below = parts;
                        all.outcomes[*i].steps = steps;
                        continue;
                    }
                    (*within, back[*i]) = (parts, Some(j));
                    outcome.first_success = outcome.first_success.map(|step| step + before.steps);
                    outcome.violation |= before.violation;
                    (outcome.steps, outcome.radius) = (steps, Some(budget));
                    all.outcomes[*i] = outcome;
                }
                if back.iter().any(Option::is_some) {
                    let put = |new: &Tensor, old: &Tensor| gather(device, new, &back, Some(old));
                    all.last = put(&found.last, &all.last)?;
                    all.best_margin = put(&found.best_margin, &all.best_margin)?;
                    all.best = put(&found.best, &all.best)?;
                }
                all.work += found.work;
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use crate::attack::Said;

    #[test]
    fn one_budget_is_looked_below() {
        let said = |method: &str, eps: &[f64]| {
            let eps = Some(eps.iter().map(|&eps| eps.into()).collect());
            Said { method: Some(method.into()), eps, ..Said::default() }.decided()
        };
        for method in ["min-norm", "min-norm-apgd"] {
            assert!(said(method, &[0.0, 0.03]).unwrap().early_stop);
            let error = said(method, &[0.01, 0.03]).unwrap_err().to_string();
            assert!(error.contains("attack.eps") && error.contains("found 2"), "{error}");
        }
    }
}
