//! FAB towards classes: the shortest way out of the label's region, by steps onto the linearised boundary; who gets out within the budget
//! has succeeded.
//!
//! Source: Croce & Hein 2020 ("Minimally distorted adversarial examples with a fast adaptive boundary attack").

use super::apgd::{TARGETS, ranked};
use super::model::{Classifier, Loss, Query};
use super::outcome::Adversarial;
use super::spec::{Attack, Batch, Preset, Row, Spec, StepSize, wrong};
use super::track::Track;
use crate::ops::fab;
use crate::ops::pgd::{self, Norm, gather};
use crate::{Error, Result};

pub const FAB: Row = Row {
    name: "fab-t",
    help: "seeks the nearest point of each of the 9 likeliest wrong classes",
    ignores: &["step_size", "rel_step", "random_start", "decay", "starts", "restarts", "early_stop", "stop_cycles"],
    loss: Some(Loss::Margin),
    leaves: false,
    tried_as: "pgd",
    preset: |_, _, steps| Preset { steps: steps.or(Some(100)), step: Some(StepSize::OfEps(1.0)), random_start: false },
    check: super::apgd::check,
    build: |spec| Ok(Box::new(Fab { spec: spec.clone() })),
};

struct Fab {
    spec: Spec,
}

impl Fab {
    /// The nearest point that is found on the way to one class, for the images that still stand.
    fn towards(&self, model: &dyn Classifier, track: &mut Track, eps: f64, rank: usize) -> Result<()> {
        let (device, norm, classes) = (model.device(), self.spec.norm, model.classes());
        let mut points = track.points(track.standing())?;
        let logits = track.clean_logits(&points)?;
        let targets: Vec<u32> = logits.chunks_exact(classes).map(|row| ranked(row, rank)).collect();
        let n = targets.len();
        // Of each image the nearest wrong point so far, how far away it is, and its class.
        let (mut nearest, mut distance, mut class) = (points.x0.clone(), vec![f32::INFINITY; n], vec![0u32; n]);
        for step in 0..self.spec.steps {
            let number = (rank as u32 - 1) * self.spec.steps + step;
            let plain = track.query(&points, 0, number);
            let query = Query { targets: Some(&targets), steered: true, ..plain };
            let asked = model.gradient(&points.x, &query)?;
            let w = asked.gradient.ok_or_else(|| Error::Failed("no gradient".into()))?;
            track.asked(&points, true);
            points.x = fab::step(device, &points.x, &points.x0, &w, &asked.loss, norm)?;
            let answer = model.evaluate(&points.x, &track.query(&points, 0, number))?;
            let sizes = pgd::budget(device, &points.x, &points.x0)?;
            let (mut closer, mut within, mut back) = (vec![None; n], vec![], vec![false; n]);
            for (j, size) in sizes.iter().enumerate() {
                let far = if norm == Norm::Linf { size.linf } else { size.l2 };
                if answer.prediction[j] == track.label(points.at[j]) {
                    continue;
                }
                back[j] = true;
                if far < distance[j] {
                    (distance[j], class[j], closer[j]) = (far, answer.prediction[j], Some(j));
                    within.extend((f64::from(far) <= eps).then_some(j));
                }
            }
            track.stepped(&points);
            // What lies outside the budget is nobody's success.
            track.record_some(&points, &answer, false, &within)?;
            if closer.iter().any(Option::is_some) {
                nearest = gather(device, &points.x, &closer, Some(&nearest))?;
            }
            if back.contains(&true) {
                points.x = fab::retreat(device, &points.x, &points.x0, &back)?;
            }
        }
        let chosen: Vec<Option<u32>> =
            distance.iter().zip(class).map(|(&far, class)| (f64::from(far) <= eps).then_some(class)).collect();
        track.settle(&points, &nearest, &chosen)
    }
}

impl Attack for Fab {
    fn run(&self, model: &dyn Classifier, batch: Batch, eps: f64, seed: u64) -> Result<Adversarial> {
        let ranks = TARGETS.min(model.classes() - 1);
        if ranks as u32 * self.spec.steps >= u32::from(u16::MAX) {
            let most = u32::from(u16::MAX) / ranks as u32 - 1;
            return wrong("steps", format!("expected at most {most}, found {}", self.spec.steps));
        }
        let mut track = Track::new(model, batch, &self.spec, eps, seed)?;
        for rank in 1..=ranks {
            if track.standing().is_empty() {
                break;
            }
            self.towards(model, &mut track, eps, rank)?;
        }
        track.finish()
    }

    fn most_queries(&self) -> Option<u64> {
        Some(1 + TARGETS as u64 * 2 * u64::from(self.spec.steps))
    }
}
