//! FAB: the shortest way out of the label's region, by steps onto the linearised boundary of one class after another, or of whichever is
//! nearest; who gets out within the budget has succeeded.
//!
//! Source: Croce & Hein 2020 ("Minimally distorted adversarial examples with a fast adaptive boundary attack").

use super::apgd::{TARGETS, check_as_torchattacks, ranked, start, targets, usual_steps};
use super::model::{Classifier, Loss, Query};
use super::outcome::Adversarial;
use super::spec::{Attack, Batch, Preset, Row, Spec, StepSize, wrong};
use super::track::{Points, Track};
use crate::ops::pgd::{self, Norm, Profile, gather};
use crate::ops::{fab, min_norm};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What both have in common. The first restart begins at the image, the others half way to the edge of the ball.
const COMMON: Row = Row {
    name: "",
    help: "",
    ignores: &["step_size", "rel_step", "random_start", "decay", "starts", "early_stop", "stop_cycles"],
    loss: Some(Loss::Margin),
    leaves: false,
    windows: false,
    tried_as: "pgd",
    preset: |profile, _, steps| Preset {
        steps: steps.or(Some(usual_steps(profile))),
        step: Some(StepSize::OfEps(1.0)),
        random_start: true,
    },
    check: check_as_torchattacks,
    build: |spec| Ok(Box::new(Fab { spec: spec.clone(), targeted: true })),
};

pub const TARGETED: Row =
    Row { name: "fab-t", help: "seeks the nearest point of each of the 9 likeliest wrong classes", ..COMMON };

pub const UNTARGETED: Row = Row {
    name: "fab",
    help: "seeks the nearest point of any wrong class, by the gradients of all classes at every step",
    build: |spec| Ok(Box::new(Fab { spec: spec.clone(), targeted: false })),
    ..COMMON
};

struct Fab {
    spec: Spec,
    targeted: bool,
}

/// What a search is made for.
#[derive(Clone, Copy)]
struct Search {
    /// The rank of the class by the clean image's logits; 0 for any class.
    rank: usize,
    restart: u32,
    /// Among all restarts and ranks.
    number: u32,
}

impl Fab {
    /// Differences of logits and their gradients at the points: towards one class each, or towards that whose linearised boundary is nearest.
    fn aim(
        &self,
        model: &dyn Classifier,
        track: &mut Track,
        points: &Points,
        targets: Option<&[u32]>,
        (restart, number): (u32, u32),
    ) -> Result<(Vec<f32>, Tensor)> {
        let mut ask = |targets: &[u32]| {
            let query = Query { targets: Some(targets), steered: true, ..track.query(points, restart, number) };
            let asked = model.gradient(&points.x, &query)?;
            let w = asked.gradient.ok_or_else(|| Error::Failed("no gradient".into()))?;
            track.asked(points, true);
            Ok::<_, Error>((asked.loss, w))
        };
        if let Some(targets) = targets {
            return ask(targets);
        }
        let (device, classes, n) = (model.device(), model.classes() as u32, points.at.len());
        let labels: Vec<u32> = points.told_by().0.to_vec();
        let mut nearest: Option<(Vec<f32>, Vec<f32>, Tensor)> = None;
        for class in 0..classes {
            // The label is no class to go to: its image takes the next one, once more.
            let targets: Vec<u32> =
                labels.iter().map(|&y| if y == class { (class + 1) % classes } else { class }).collect();
            let (df, w) = ask(&targets)?;
            let gaps: Vec<f32> = df.iter().map(|df| df.abs()).collect();
            let mut far = min_norm::distance(device, &points.x, &w, &gaps, self.spec.norm)?;
            far.iter_mut().zip(&labels).filter(|(_, y)| **y == class).for_each(|(far, _)| *far = f32::INFINITY);
            nearest = Some(match nearest {
                None => (far, df, w),
                Some((mut least, mut dfs, ws)) => {
                    let mut closer = vec![None; n];
                    for j in 0..n {
                        if far[j] < least[j] {
                            (least[j], dfs[j], closer[j]) = (far[j], df[j], Some(j));
                        }
                    }
                    let any = closer.iter().any(Option::is_some);
                    (least, dfs, if any { gather(device, &w, &closer, Some(&ws))? } else { ws })
                }
            });
        }
        let (_, df, w) = nearest.ok_or_else(|| Error::Failed("a network of no classes".into()))?;
        Ok((df, w))
    }

    /// The nearest points that one search finds, for the images that still stand.
    fn search(&self, model: &dyn Classifier, track: &mut Track, eps: f64, search: Search) -> Result<()> {
        let (device, norm, classes) = (model.device(), self.spec.norm, model.classes());
        let mut points = track.points(track.standing())?;
        let targets: Option<Vec<u32>> = match search.rank {
            0 => None,
            rank => {
                let logits = track.clean_logits(&points)?;
                Some(logits.chunks_exact(classes).map(|row| ranked(row, rank)).collect())
            }
        };
        if search.restart > 0 {
            points.x = start(device, &points.x0, &points.ids, (norm, eps / 2.0), (track.seed, search.number))?;
        }
        let n = points.at.len();
        // Of each image the nearest wrong point so far, how far away it is, and its class.
        let (mut nearest, mut distance, mut class) = (points.x0.clone(), vec![f32::INFINITY; n], vec![0u32; n]);
        for step in 0..self.spec.steps {
            let number = search.rank.saturating_sub(1) as u32 * self.spec.steps + step;
            let (df, w) = self.aim(model, track, &points, targets.as_deref(), (search.restart, number))?;
            points.x = fab::step(device, &points.x, &points.x0, &w, &df, norm)?;
            let answer = model.evaluate(&points.x, &track.query(&points, search.restart, number))?;
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
        let ranks = targets(&self.spec, model.classes());
        if ranks as u32 * self.spec.steps >= u32::from(u16::MAX) {
            let most = u32::from(u16::MAX) / ranks as u32 - 1;
            return wrong("steps", format!("expected at most {most}, found {}", self.spec.steps));
        }
        let mut track = Track::new(model, batch, &self.spec, eps, seed)?;
        let restarts = self.spec.restarts;
        let ranks: Vec<usize> = if self.targeted { (1..=ranks).collect() } else { vec![0] };
        for rank in ranks {
            for restart in 0..restarts {
                if track.standing().is_empty() {
                    break;
                }
                let number = rank.saturating_sub(1) as u32 * restarts + restart;
                self.search(model, &mut track, eps, Search { rank, restart, number })?;
            }
        }
        track.finish()
    }

    fn most_queries(&self) -> Option<u64> {
        // Untargeted, or against all classes, it depends on their number.
        let steps = u64::from(self.spec.restarts) * u64::from(self.spec.steps);
        let known = self.targeted && self.spec.profile == Profile::Native;
        known.then_some(1 + TARGETS as u64 * 2 * steps)
    }
}
