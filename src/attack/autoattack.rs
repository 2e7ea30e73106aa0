//! AutoAttack: attacks one after another, each on what still stands; the worst case of all.
//!
//! Source: Croce & Hein 2020 ("Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks").

use std::time::Instant;

use super::model::{Classifier, Loss};
use super::outcome::{Adversarial, STAGES};
use super::spec::{Attack, Batch, Preset, Row, Said, Spec, StepSize};
use super::{apgd, fab, square};
use crate::Result;
use crate::ops::pgd::{Profile, gather};
use crate::tensor::Tensor;

const IGNORED: &[&str] =
    &["steps", "step_size", "rel_step", "restarts", "random_start", "decay", "starts", "early_stop", "stop_cycles"];

/// An attack of several.
pub type Stage = &'static Row;

static STANDARD_STAGES: [Stage; 4] = [&apgd::CROSS_ENTROPY, &apgd::TARGETED, &fab::TARGETED, &square::SQUARE];
static PLUS_STAGES: [Stage; STAGES] =
    [&apgd::CROSS_ENTROPY, &apgd::DLR, &fab::UNTARGETED, &square::SQUARE, &apgd::TARGETED, &fab::TARGETED];
static RANDOM_STAGES: [Stage; 2] = [&apgd::CROSS_ENTROPY, &apgd::DLR];

/// Restarts of APGD and FAB in the longer version.
const PLUS_RESTARTS: u32 = 5;

/// Its stages of one restart.
fn once(profile: Profile) -> &'static [&'static str] {
    if profile == Profile::Torchattacks { &["apgd-t", "square", "fab-t"] } else { &["apgd-t", "square"] }
}

/// What all versions have in common.
const COMMON: Row = Row {
    name: "",
    help: "",
    ignores: IGNORED,
    loss: Some(Loss::CrossEntropy),
    leaves: false,
    windows: false,
    tried_as: "pgd",
    preset: |profile, _, _| Preset {
        steps: Some(apgd::usual_steps(profile)),
        step: Some(StepSize::OfEps(2.0)),
        random_start: true,
    },
    check: apgd::check_as_torchattacks,
    build,
};

pub const STANDARD: Row = Row {
    name: "autoattack",
    help: "takes apgd-ce, apgd-t, fab-t and square in turn, each on what still stands",
    leaves: true,
    windows: true,
    ..COMMON
};

pub const PLUS: Row = Row {
    name: "autoattack-plus",
    help: "takes apgd-ce, apgd-dlr and fab with 5 restarts each, square, apgd-t, and fab-t with 5 restarts in turn, each on what still stands",
    leaves: true,
    windows: true,
    ..COMMON
};

/// For defences that draw noise: no image leaves at a lucky draw.
pub const RANDOM: Row = Row {
    name: "autoattack-rand",
    help: "takes apgd-ce and apgd-dlr in turn, each on what still stands; for defences that draw noise",
    ..COMMON
};

/// The stages of a method by its name; none for one attack alone.
pub fn stages(method: &str) -> &'static [Stage] {
    match method {
        "autoattack" => &STANDARD_STAGES,
        "autoattack-plus" => &PLUS_STAGES,
        "autoattack-rand" => &RANDOM_STAGES,
        _ => &[],
    }
}

fn build(spec: &Spec) -> Result<Box<dyn Attack>> {
    let attacks = stages(spec.method).iter().map(|row| {
        let said = Said {
            norm: Some(spec.norm),
            eps: Some(spec.eps.iter().map(|&eps| eps.into()).collect()),
            profile: Some(spec.profile),
            // What comes after the first success does not count.
            restarts: (spec.method == PLUS.name && !once(spec.profile).contains(&row.name)).then_some(PLUS_RESTARTS),
            compat: row.windows.then_some(spec.compat),
            early_stop: (!row.ignores.contains(&"early_stop")).then_some(spec.early_stop),
            ..Said::default()
        };
        (row.build)(&said.decide(row)?)
    });
    Ok(Box::new(AutoAttack { attacks: attacks.collect::<Result<_>>()? }))
}

struct AutoAttack {
    attacks: Vec<Box<dyn Attack>>,
}

impl Attack for AutoAttack {
    fn run(&self, model: &dyn Classifier, batch: Batch, eps: f64, seed: u64) -> Result<Adversarial> {
        let device = model.device();
        let mut all: Option<Adversarial> = None;
        for (number, attack) in self.attacks.iter().enumerate() {
            let begin = Instant::now();
            let Some(mut so_far) = all else {
                let mut first = attack.run(model, batch, eps, seed)?;
                for (outcome, &work) in first.outcomes.iter_mut().zip(&first.works) {
                    outcome.stage = (outcome.correct_clean && !outcome.correct_any).then_some(0);
                    outcome.asked.get_or_insert_default().push(work);
                }
                first.seconds = vec![begin.elapsed().as_secs_f64()];
                all = Some(first);
                continue;
            };
            let standing: Vec<usize> = (0..so_far.outcomes.len()).filter(|&i| so_far.outcomes[i].correct_any).collect();
            if standing.is_empty() || eps == 0.0 {
                return Ok(so_far);
            }
            let index: Vec<Option<usize>> = standing.iter().map(|&i| Some(i)).collect();
            let images = gather(device, batch.images, &index, None)?;
            let pick = |i: &usize| (batch.labels[*i], batch.ids[*i]);
            let (labels, ids): (Vec<u32>, Vec<u64>) = standing.iter().map(pick).unzip();
            let found = attack.run(model, Batch { images: &images, labels: &labels, ids: &ids }, eps, seed)?;
            let mut back = vec![None; so_far.outcomes.len()];
            for (j, (&i, mut outcome)) in standing.iter().zip(found.outcomes).enumerate() {
                back[i] = Some(j);
                let before = &so_far.outcomes[i];
                outcome.stage = (!outcome.correct_any).then_some(number as u8);
                outcome.first_success = outcome.first_success.map(|step| step + before.steps);
                outcome.steps += before.steps;
                outcome.violation |= before.violation;
                // Best over all stages; their losses are not of one kind.
                if before.margin < outcome.margin {
                    outcome.margin = before.margin;
                }
                outcome.loss = before.loss;
                let mut asked = before.asked.unwrap_or_default();
                asked.push(found.works[j]);
                outcome.asked = Some(asked);
                so_far.works[i] += found.works[j];
                so_far.outcomes[i] = outcome;
            }
            let put = |new: &Tensor, old: &Tensor| gather(device, new, &back, Some(old));
            so_far.last = put(&found.last, &so_far.last)?;
            so_far.best_margin = put(&found.best_margin, &so_far.best_margin)?;
            so_far.best = put(&found.best, &so_far.best)?;
            so_far.work += found.work;
            so_far.seconds.push(begin.elapsed().as_secs_f64());
            all = Some(so_far);
        }
        all.ok_or_else(|| crate::Error::Failed("an attack of no stages".into()))
    }

    fn most_queries(&self) -> Option<u64> {
        self.attacks.iter().map(|attack| attack.most_queries()).sum()
    }
}
