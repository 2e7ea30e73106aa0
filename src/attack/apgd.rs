//! APGD: projected gradient ascent whose step size is halved where the loss no longer rises, from the best point so far.
//!
//! Source: Croce & Hein 2020 ("Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks").

use super::model::{Classifier, Loss};
use super::outcome::Adversarial;
use super::spec::{Attack, Batch, Preset, Row, Spec, StepSize, wrong};
use super::target::Target;
use super::tell::{Latest, tell};
use super::track::{Points, Track};
use super::walk::{At, Rule, Stepping, Walk};
use crate::device::Device;
use crate::ops::apgd::{self, Course, Memory};
use crate::ops::pgd::{Norm, Profile};
use crate::ops::philox::{self, Purpose, Stream};
use crate::tensor::Tensor;
use crate::{Error, Result};

const IGNORED: &[&str] = &["step_size", "rel_step", "random_start", "decay", "starts", "stop_cycles"];
/// Classes that the targeted attack aims at, the likeliest wrong ones.
pub(super) const TARGETS: usize = 9;
/// The momentum's complement.
const SHARE: f32 = 0.75;

fn preset(profile: Profile, _: Norm, steps: Option<u32>) -> Preset {
    Preset { steps: steps.or(Some(usual_steps(profile))), step: Some(StepSize::OfEps(2.0)), random_start: true }
}

/// torchattacks has the authors' algorithms with a tenth of their steps.
pub(super) fn usual_steps(profile: Profile) -> u32 {
    if profile == Profile::Torchattacks { 10 } else { 100 }
}

/// How many classes a targeted attack aims at, of the likeliest wrong ones: torchattacks takes them all.
pub(super) fn targets(spec: &Spec, classes: usize) -> usize {
    let most = if spec.profile == Profile::Torchattacks { usize::MAX } else { TARGETS };
    most.min(classes - 1)
}

/// As [`check`], or as torchattacks has it where that does not depend on the other images of a batch.
///
/// Source: torchattacks 3.5.1.
pub(super) fn check_as_torchattacks(spec: &Spec) -> Result<()> {
    if spec.profile == Profile::Native {
        return check(spec);
    }
    if spec.profile != Profile::Torchattacks {
        let problem = format!(
            "{} follows its authors' code, or that of torchattacks: expected native or torchattacks, found {}",
            spec.method, spec.profile
        );
        return wrong("profile", problem);
    }
    let of_the_batch = match spec.method {
        "square" => "takes the norm of a window over all channels",
        "apgd-t" | "autoattack" | "autoattack-plus" => "moves all images of a batch by the step size of the first",
        _ => "",
    };
    if spec.norm == Norm::L2 && !of_the_batch.is_empty() {
        return wrong("profile", format!("torchattacks' {} {of_the_batch} in l2: expected linf", spec.method));
    }
    check(&Spec { profile: Profile::Native, ..spec.clone() })
}

/// What these attacks, which follow their authors, leave no choice in.
pub(super) fn check(spec: &Spec) -> Result<()> {
    let name = spec.method;
    if spec.profile != Profile::Native {
        return wrong("profile", format!("{name} follows its authors' code: leave it out, found {}", spec.profile));
    }
    if spec.normalised() {
        return wrong("space", format!("normalised goes with pgd or fgsm, found {name}"));
    }
    if spec.targeted != Target::None {
        return wrong(
            "targeted",
            format!("{name} counts any wrong class as a success: leave it out, found {}", spec.targeted),
        );
    }
    Ok(())
}

/// What the three have in common.
const COMMON: Row = Row {
    name: "",
    help: "",
    ignores: IGNORED,
    loss: Some(Loss::Dlr),
    leaves: false,
    windows: false,
    tried_as: "pgd",
    preset,
    check: check_as_torchattacks,
    build: |spec| Ok(Box::new(Apgd { spec: spec.clone(), targeted: false })),
};

/// APGD on the cross-entropy.
pub const CROSS_ENTROPY: Row = Row {
    name: "apgd-ce",
    help: "raises the cross-entropy in steps that shrink where it stalls",
    loss: Some(Loss::CrossEntropy),
    ..COMMON
};

/// APGD on the difference of logits ratio.
pub const DLR: Row = Row {
    name: "apgd-dlr",
    help: "raises the difference of logits ratio in steps that shrink where it stalls",
    ..COMMON
};

/// APGD towards each of the likeliest wrong classes in turn; any wrong class counts.
pub const TARGETED: Row = Row {
    name: "apgd-t",
    help: "takes the 9 likeliest wrong classes in turn and raises their difference of logits ratio",
    build: |spec| Ok(Box::new(Apgd { spec: spec.clone(), targeted: true })),
    ..COMMON
};

/// Where a restart of APGD begins: a random point on the sphere around each image `(N, ..)`, clipped.
///
/// # Errors
/// [`Error::Limit`] when an id or the restart does not fit the counter; [`Error::Shape`] for images that are not float32.
pub fn start(
    device: &Device,
    x0: &Tensor,
    ids: &[u64],
    budget: (Norm, f64),
    (seed, restart): (u64, u32),
) -> Result<Tensor> {
    let stream = Stream { restart, ..Stream::new(seed, Purpose::Start) };
    let draw = if budget.0 == Norm::Linf { philox::uniform } else { philox::normal };
    apgd::start(device, x0, &draw(device, &stream, ids, &x0.shape()[1..])?, budget)
}

/// The number of steps after which step sizes are looked at, and how many steps back.
pub(super) fn checkpoints(steps: u32) -> Vec<(u32, u32)> {
    let part = |share: f64| ((share * f64::from(steps)) as u32).max(1);
    let (mut window, least, less) = (part(0.22), part(0.06), part(0.03));
    let (mut at, mut all) = (window, Vec::new());
    while at <= steps {
        all.push((at, window));
        window = window.saturating_sub(less).max(least);
        at += window;
    }
    all
}

/// After each step how many are looked back at, 0 where none are.
fn windows(steps: u32) -> Vec<i32> {
    let mut all = vec![0; steps as usize];
    checkpoints(steps).into_iter().for_each(|(at, window)| all[at as usize - 1] = window as i32);
    all
}

/// A step with momentum, from the best point where the loss stalls.
struct Ascent {
    course: Course,
    memory: Memory,
}

impl Stepping for Ascent {
    fn looks(&self) -> bool {
        true
    }

    fn step(&self, device: &Device, at: &At, y: &Tensor, _: Option<&Tensor>) -> Result<()> {
        let loss = at.loss.ok_or_else(|| Error::Failed("no loss".into()))?;
        self.memory.step(device, &self.course, (at.x, at.x0, y), loss, at.gradient)
    }

    fn of(&self, pick: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Box<dyn Stepping>> {
        Ok(Box::new(Ascent { course: self.course.clone(), memory: self.memory.of(pick)? }))
    }
}

struct Apgd {
    spec: Spec,
    targeted: bool,
}

impl Apgd {
    fn restart(
        &self,
        model: &dyn Classifier,
        track: &mut Track,
        (eps, restart): (f64, u32),
        mut points: Points,
    ) -> Result<()> {
        let (device, spec) = (model.device().clone(), &self.spec);
        points.x = start(&device, &points.x0, &points.ids, (spec.norm, eps), (track.seed, restart))?;
        let course = Course { norm: spec.norm, eps, windows: windows(spec.steps), share: SHARE };
        let memory = Memory::new(&device, &points.x, &course)?;
        let rule = Rule { steps: spec.steps, early_stop: spec.early_stop, digests: false, restart };
        let mut walk = Walk::new(model, track, &points, rule, Box::new(Ascent { course, memory }))?;
        let mut latest = Latest::new(&points.x);
        let mut alive: Vec<usize> = (0..points.at.len()).collect();
        let mut next = 0;
        loop {
            let span = walk.span(track, &points, next)?;
            next += span.found.len() as u32;
            alive = tell(track, &points, &span, &alive, None, Some(&mut latest))?;
            let ends = next > spec.steps || alive.is_empty();
            let leave = !ends && walk.makes_room(alive.len(), points.at.len());
            if ends || leave {
                latest.settle(track, &points)?;
            }
            if ends {
                return Ok(());
            }
            if leave {
                latest = latest.keep(track, &alive)?;
                walk = walk.keep(track, &mut points, &alive)?;
                alive = (0..points.at.len()).collect();
            }
            walk.step(&device, &mut points)?;
        }
    }
}

/// The class of rank `rank` by the logits of a row, the largest being of rank 0; among equals the lowest first.
pub(super) fn ranked(logits: &[f32], rank: usize) -> u32 {
    let mut classes: Vec<usize> = (0..logits.len()).collect();
    classes.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    classes[rank] as u32
}

impl Attack for Apgd {
    fn run(&self, model: &dyn Classifier, batch: Batch, eps: f64, seed: u64) -> Result<Adversarial> {
        let classes = model.classes();
        if self.targeted && classes < 4 {
            return wrong("method", format!("apgd-t needs 4 classes, found {classes}: use apgd-ce"));
        }
        let mut track = Track::new(model, batch, &self.spec, eps, seed)?;
        if !self.targeted {
            for restart in 0..self.spec.restarts {
                let at = track.standing();
                if at.is_empty() {
                    break;
                }
                let points = track.points(at)?;
                self.restart(model, &mut track, (eps, restart), points)?;
            }
            return track.finish();
        }
        for rank in 1..=targets(&self.spec, classes) {
            for restart in 0..self.spec.restarts {
                let at = track.standing();
                if at.is_empty() {
                    break;
                }
                let mut points = track.points(at)?;
                let logits = track.clean_logits(&points)?;
                points.aims = Some(logits.chunks_exact(classes).map(|row| ranked(row, rank)).collect());
                // Each target and restart begins elsewhere.
                let number = (rank as u32 - 1) * self.spec.restarts + restart;
                self.restart(model, &mut track, (eps, number), points)?;
            }
        }
        track.finish()
    }

    fn most_queries(&self) -> Option<u64> {
        let searches = match (self.targeted, self.spec.profile) {
            (false, _) => 1,
            (true, Profile::Torchattacks) => return None,
            (true, _) => TARGETS as u64,
        };
        Some(1 + u64::from(self.spec.restarts) * searches * (1 + u64::from(self.spec.steps)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Said;

    #[test]
    fn torchattacks_has_a_tenth_of_the_steps_and_all_classes() {
        let said = |method: &str, norm| {
            let said = Said {
                method: Some(method.into()),
                profile: Some(Profile::Torchattacks),
                norm: Some(norm),
                eps: Some(vec![0.5.into()]),
                ..Said::default()
            };
            said.decided()
        };
        for method in ["apgd-ce", "apgd-dlr", "apgd-t", "fab-t", "fab", "autoattack", "autoattack-rand"] {
            let spec = said(method, Norm::Linf).unwrap();
            assert_eq!((spec.steps, spec.label()), (10, format!("torchattacks-{method}")));
        }
        assert_eq!(said("square", Norm::Linf).unwrap().steps, 5000);
        assert_eq!(targets(&said("apgd-t", Norm::Linf).unwrap(), 1000), 999);
        let native = Said { method: Some("apgd-t".into()), ..Said::default() }.decided().unwrap();
        assert_eq!((targets(&native, 1000), targets(&native, 4)), (9, 3));
        said("apgd-ce", Norm::L2).unwrap();
        for method in ["apgd-t", "square", "autoattack", "autoattack-plus"] {
            let error = said(method, Norm::L2).unwrap_err().to_string();
            assert!(error.contains("attack.profile") && error.contains("expected linf"), "{error}");
        }
        for method in ["ddn", "fmn", "min-norm-apgd"] {
            assert!(said(method, Norm::L2).unwrap_err().to_string().contains("attack.profile"), "{method}");
        }
    }

    /// Those of the authors' code.
    #[test]
    fn step_sizes_are_looked_at_ever_more_often() {
        let at = |steps| checkpoints(steps).into_iter().map(|(at, _)| at).collect::<Vec<_>>();
        assert_eq!(at(100), [22, 41, 57, 70, 80, 87, 93, 99]);
        assert_eq!(at(50), [11, 21, 30, 38, 45]);
        assert_eq!(at(20), [4, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        assert_eq!(at(10), [2, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(at(1), [1]);
    }

    #[test]
    fn a_look_goes_back_to_the_one_before() {
        assert_eq!(windows(7), [1; 7]);
        let looked: Vec<(usize, i32)> = windows(50).into_iter().enumerate().filter(|(_, w)| *w > 0).collect();
        assert_eq!(looked, [(10, 11), (20, 10), (29, 9), (37, 8), (44, 7)]);
    }

    #[test]
    fn ranks_go_by_logit_then_by_index() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        assert_eq!([0, 1, 2, 3].map(|rank| ranked(&logits, rank)), [1, 3, 0, 2]);
    }
}
