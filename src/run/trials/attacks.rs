//! The run's own attack in other lengths, budgets, losses and starts.

use super::found::{Against, Grey, Longer, Restarts};
use super::lab::{Answer, Attacked, Lab, Recorder, against, stands};
use crate::Result;
use crate::attack::{CLEAN, Loss, Norm, Oracle as _, Outcome, Profile, Spec, StepSize, Target};
use crate::config::Config;
use crate::data::{to_bytes, unit};
use crate::device::DType;
use crate::run::records::Found;
use crate::run::results::Channel;
use crate::tensor::Tensor;

/// Images of the costlier trials.
pub(super) const FEW: usize = 8;
/// Steps within the budget that makes images grey.
pub(super) const GREY_STEPS: u32 = 20;

/// The run's own attack with steps of one size.
fn fixed(lab: &Lab, factor: f64) -> Spec {
    let step = StepSize::Absolute(factor * lab.own.step_size(lab.eps));
    Spec { step, restarts: 1, ..lab.own.clone() }
}

/// Twice the steps from the same start: what the experiment's own steps found lies within.
pub(super) fn longer(lab: &mut Lab) -> Result<Longer> {
    let own = lab.own.steps;
    let spec = Spec { steps: 2 * own, ..fixed(lab, 1.0) };
    let recorder = Recorder::new(lab.net);
    let found = lab.made(&spec, &recorder, &lab.batch, lab.eps)?;
    let answers = recorder.answers();
    let clean = |i: usize| found.outcomes[i].correct_clean;
    let of = |i: usize| answers.get(&lab.batch.ids[i]).map_or(&[][..], |own| &own[..]);
    // The clean image was asked about as well.
    let walked = |i: usize| of(i).iter().filter(|answer| answer.step != CLEAN);
    let wrong = |i: usize, answer: &Answer| answer.prediction != lab.batch.labels[i];
    let right = |i: usize| clean(i) && !walked(i).any(|answer| answer.step <= own && wrong(i, answer));
    let now: Vec<bool> = (0..lab.len()).map(right).collect();
    let later = stands(&found);
    let best = (0..=spec.steps).map(|step| {
        let highest = |i: usize| {
            let until = walked(i).filter(|answer| answer.step <= step).map(|answer| f64::from(answer.loss));
            until.fold(f64::NEG_INFINITY, |a, b| if b.is_nan() { b } else { a.max(b) })
        };
        let all = || (0..lab.len()).map(highest).filter(|loss| *loss != f64::NEG_INFINITY);
        all().sum::<f64>() / all().count().max(1) as f64
    });
    let longer = Longer {
        n: lab.len() as u64,
        steps: own,
        best: best.collect(),
        right: [&now, &later].map(|right| right.iter().filter(|&&right| right).count() as u64),
        broken_later: lab.ids_of(|i| now[i] && !later[i]),
        differ: differ(lab, &now),
        recorded: recorded(lab).filter(|_| lab.stands_in()).map(|own| against(&lab.batch.ids, &own, &later)),
    };
    lab.attacked = Some(Attacked { right: now, right_later: later, best: found.best });
    Ok(longer)
}

/// Images whose flags are others than in the records, which were made in other batches.
fn differ(lab: &Lab, now: &[bool]) -> Option<Vec<u64>> {
    let spec = &lab.config.attack;
    let same = !lab.stands_in() && spec.restarts == 1 && !spec.early_stop && !spec.nest && !spec.hands_over();
    let flags = recorded(lab).filter(|_| same && !spec.averages())?;
    Some(lab.ids_of(|i| flags[i] != now[i]))
}

/// Whether each image stands in the records of the run's attack; `None` where one of them has no record.
fn recorded(lab: &Lab) -> Option<Vec<bool>> {
    recorded_as(lab, |outcome| outcome.correct_any)
}

fn recorded_as(lab: &Lab, left: impl Fn(&Outcome) -> bool) -> Option<Vec<bool>> {
    let run = lab.run;
    let cell = run.cell(lab.model, Channel::Undefended, lab.eps)?;
    let flag = |i: usize| {
        let at = run.ids.iter().position(|id| *id == lab.batch.ids[i])?;
        match run.found[cell].get(at)? {
            Some(Found::Attacked(outcome)) => Some(left(outcome)),
            _ => None,
        }
    };
    (0..lab.len()).map(flag).collect()
}

/// One step of size epsilon, beside what the run's own attack left: right, or of a targeted attack short of the target.
pub(super) fn single(lab: &Lab) -> Result<Option<Against>> {
    let own = &lab.own;
    let left = |outcome: &Outcome| match own.targeted {
        Target::None => outcome.correct_any,
        _ => outcome.first_success.is_none() && outcome.target_reached != Some(true),
    };
    let Some(many) = recorded_as(lab, left) else { return Ok(None) };
    let spec = Spec { profile: own.profile, norm: own.norm, loss: own.loss, targeted: own.targeted, ..Spec::fgsm() };
    let one = lab.made(&spec, lab.net, &lab.batch, lab.eps)?;
    let one: Vec<bool> = one.outcomes.iter().map(left).collect();
    Ok(Some(against(&lab.batch.ids, &many, &one)))
}

/// The attacked images rounded to 8 bits.
pub(super) fn rounded(lab: &Lab) -> Result<Option<Against>> {
    let Some(attacked) = &lab.attacked else { return Ok(None) };
    let pixels: Vec<f32> = to_bytes(&attacked.best.to_f32(lab.device())?).into_iter().map(unit).collect();
    let images = Tensor::from_f32(lab.device(), attacked.best.shape(), DType::F32, &pixels)?;
    let right = |images: &Tensor| -> Result<Vec<bool>> {
        Ok(lab.predicted(lab.net, images)?.iter().zip(&lab.batch.labels).map(|(p, label)| p == label).collect())
    };
    Ok(Some(against(&lab.batch.ids, &right(&attacked.best)?, &right(&images)?)))
}

/// Half the range of a pixel: of all pixels together in L2.
fn large(config: &Config, pixels: usize) -> f64 {
    match config.attack.norm {
        Norm::Linf => 0.5,
        Norm::L2 => 0.5 * (pixels as f64).sqrt(),
    }
}

pub(super) fn grey(lab: &Lab) -> Result<Grey> {
    let (eps, batch) = (large(lab.config, lab.pixels()), lab.first(FEW)?);
    let spec = Spec {
        profile: Profile::Native,
        steps: GREY_STEPS,
        step: StepSize::rule_of_thumb(GREY_STEPS),
        starts: None,
        restarts: 1,
        ..lab.own.clone()
    };
    let right = lab.stand(&spec, lab.net, &batch, eps)?;
    let mut counts = vec![0; lab.dataset.classes.len()];
    batch.labels.iter().for_each(|&label| counts[label as usize] += 1);
    Ok(Grey {
        n: batch.ids.len() as u64,
        eps,
        right: batch.ids.iter().zip(&right).filter(|(_, right)| **right).map(|(&id, _)| id).collect(),
        largest_class: counts.into_iter().max().unwrap_or(0),
    })
}

/// The same attack on a loss that no scale of the logits takes the gradient from.
pub(super) fn other_loss(lab: &Lab) -> Result<Option<Against>> {
    let Some(attacked) = &lab.attacked else { return Ok(None) };
    let loss = if lab.net.classes() >= 3 { Loss::Dlr } else { Loss::Margin };
    let spec = Spec { loss, targeted: Target::None, ..fixed(lab, 1.0) };
    let batch = lab.first(FEW)?;
    let other = lab.stand(&spec, lab.net, &batch, lab.eps)?;
    Ok(Some(against(&batch.ids, &attacked.right[..batch.ids.len()], &other)))
}

/// Five restarts, and steps of half and of twice the size.
pub(super) fn restarts(lab: &Lab) -> Result<Option<Restarts>> {
    let Some(attacked) = &lab.attacked else { return Ok(None) };
    let batch = lab.first(FEW)?;
    let one = &attacked.right[..batch.ids.len()];
    let five = match lab.own.starts_randomly() {
        true => Some(lab.stand(&Spec { restarts: 5, ..fixed(lab, 1.0) }, lab.net, &batch, lab.eps)?),
        false => None,
    };
    let half = lab.stand(&fixed(lab, 0.5), lab.net, &batch, lab.eps)?;
    let twice = lab.stand(&fixed(lab, 2.0), lab.net, &batch, lab.eps)?;
    let count = |right: &[bool]| right.iter().filter(|&&right| right).count() as u64;
    let fell = |i: usize| five.iter().chain([&half, &twice]).any(|right| !right[i]);
    let broken = (0..one.len()).filter(|&i| one[i] && fell(i)).map(|i| batch.ids[i]).collect();
    Ok(Some(Restarts {
        n: batch.ids.len() as u64,
        one: count(one),
        five: five.as_deref().map(count),
        half: count(&half),
        twice: count(&twice),
        broken,
    }))
}
