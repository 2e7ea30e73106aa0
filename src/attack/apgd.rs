//! APGD: projected gradient ascent whose step size is halved where the loss no longer rises, from the best point so far.
//!
//! Source: Croce & Hein 2020 ("Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks").

use super::model::{Classifier, Evaluation, Loss, Query};
use super::outcome::Adversarial;
use super::spec::{Attack, Batch, Preset, Row, Spec, StepSize, wrong};
use super::target::Target;
use super::track::{Points, Track};
use crate::device::Device;
use crate::ops::apgd::{self, Iterate};
use crate::ops::pgd::{Norm, Profile, gather};
use crate::ops::philox::{self, Purpose, Stream};
use crate::tensor::Tensor;
use crate::{Error, Result};

const IGNORED: &[&str] = &["step_size", "rel_step", "random_start", "decay", "starts", "stop_cycles"];
/// Classes that the targeted attack aims at, the likeliest wrong ones.
pub(super) const TARGETS: usize = 9;
/// The share of steps within a window that must raise the loss.
const RHO: f64 = 0.75;
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

/// What is remembered of one image.
struct Image {
    eta: f32,
    /// Highest so far, and at the last look.
    best: f32,
    looked: f32,
    halved: bool,
    /// Of each step; those that are to come are 0.
    losses: Vec<f32>,
    /// The class of the latest wrong iterate.
    wrong: Option<u32>,
}

impl Image {
    fn new(loss: f32, eps: f64, steps: u32) -> Self {
        let losses = vec![0.0; steps as usize];
        Image { eta: (2.0 * eps) as f32, best: loss, looked: loss, halved: true, losses, wrong: None }
    }

    /// Whether the step size is halved after step number `step`, counted from 0, and the attack goes back to the best point.
    fn look(&mut self, step: usize, window: u32) -> bool {
        let n = self.losses.len();
        // Before the first step stands the last one, which is still 0: as the authors' code has it.
        let before = |j: usize| self.losses[(j + n - 1) % n];
        let rises = (step + 1 - window as usize..=step).filter(|&j| self.losses[j] > before(j)).count();
        let stalls = !self.halved && self.looked >= self.best;
        self.halved = rises as f64 <= RHO * f64::from(window) || stalls;
        self.looked = self.best;
        if self.halved {
            self.eta /= 2.0;
        }
        self.halved
    }
}

struct Apgd {
    spec: Spec,
    targeted: bool,
}

/// The tensors of a running restart, a row per image: they leave the batch together.
struct Rows {
    points: Points,
    prev: Tensor,
    gradient: Tensor,
    best: Tensor,
    best_gradient: Tensor,
    /// The latest wrong iterate of each image that has one.
    wrong: Tensor,
}

impl Apgd {
    fn restart(
        &self,
        model: &dyn Classifier,
        track: &mut Track,
        (eps, restart): (f64, u32),
        points: Points,
        targets: Option<&[u32]>,
    ) -> Result<()> {
        let (device, spec) = (model.device().clone(), &self.spec);
        let budget = (spec.norm, eps);
        let mut targets = targets.map(<[u32]>::to_vec);
        let mut points = points;
        points.x = start(&device, &points.x0, &points.ids, budget, (track.seed, restart))?;

        let ask = |track: &Track, points: &Points, targets: Option<&[u32]>, step: u32| {
            let query = Query { targets, steered: targets.is_some(), ..track.query(points, restart, step) };
            if step == spec.steps { model.evaluate(&points.x, &query) } else { model.gradient(&points.x, &query) }
        };
        let asked = ask(track, &points, targets.as_deref(), 0)?;
        track.record(&points, &asked, true)?;
        let of = |asked: &Evaluation| asked.gradient.clone().ok_or_else(|| Error::Failed("no gradient".into()));
        let gradient = of(&asked)?;
        let x = points.x.clone();
        let mut images: Vec<Image> = asked.loss.iter().map(|&loss| Image::new(loss, eps, spec.steps)).collect();
        let label = |track: &Track, points: &Points, j: usize| track.label(points.at[j]);
        for (j, image) in images.iter_mut().enumerate() {
            image.wrong = (asked.prediction[j] != label(track, &points, j)).then_some(asked.prediction[j]);
        }
        let mut rows =
            Rows { prev: x.clone(), best: x.clone(), best_gradient: gradient.clone(), wrong: x, gradient, points };
        let checkpoints = checkpoints(spec.steps);
        for step in 0..spec.steps {
            if spec.early_stop && images.iter().any(|image| image.wrong.is_some()) {
                let stay: Vec<usize> = (0..images.len()).filter(|&j| images[j].wrong.is_none()).collect();
                Self::settle(track, &rows, &images)?;
                if stay.is_empty() {
                    return Ok(());
                }
                rows = Self::keep(track, rows, &stay)?;
                targets = targets.map(|targets| stay.iter().map(|&j| targets[j]).collect());
                let mut at = 0;
                images.retain(|_| (stay.contains(&at), at += 1).0);
            }
            let eta: Vec<f32> = images.iter().map(|image| image.eta).collect();
            let share = if step == 0 { 1.0 } else { SHARE };
            let at = Iterate { x: &rows.points.x, prev: &rows.prev, x0: &rows.points.x0 };
            let next = apgd::step(&device, at, &rows.gradient, &eta, budget, share)?;
            rows.prev = std::mem::replace(&mut rows.points.x, next);
            track.stepped(&rows.points);
            let last = step + 1 == spec.steps;
            let asked = ask(track, &rows.points, targets.as_deref(), step + 1)?;
            track.record(&rows.points, &asked, !last)?;

            let (mut wrong, mut higher) = (vec![None; images.len()], vec![None; images.len()]);
            for (j, image) in images.iter_mut().enumerate() {
                if asked.prediction[j] != label(track, &rows.points, j) {
                    (image.wrong, wrong[j]) = (Some(asked.prediction[j]), Some(j));
                }
                image.losses[step as usize] = asked.loss[j];
                if asked.loss[j] > image.best {
                    (image.best, higher[j]) = (asked.loss[j], Some(j));
                }
            }
            let put = |these: &[Option<usize>], from: &Tensor, into: &Tensor| match these.iter().flatten().count() {
                0 => Ok(into.clone()),
                _ => gather(&device, from, these, Some(into)),
            };
            rows.wrong = put(&wrong, &rows.points.x, &rows.wrong)?;
            if last {
                break;
            }
            rows.gradient = of(&asked)?;
            rows.best = put(&higher, &rows.points.x, &rows.best)?;
            rows.best_gradient = put(&higher, &rows.gradient, &rows.best_gradient)?;
            if let Some(&(_, window)) = checkpoints.iter().find(|(at, _)| *at == step + 1) {
                let back: Vec<Option<usize>> = images
                    .iter_mut()
                    .enumerate()
                    .map(|(j, image)| image.look(step as usize, window).then_some(j))
                    .collect();
                rows.points.x = put(&back, &rows.best, &rows.points.x)?;
                rows.gradient = put(&back, &rows.best_gradient, &rows.gradient)?;
            }
        }
        Self::settle(track, &rows, &images)
    }

    /// The latest wrong iterates are what is left of the restart; of images without one, the clean image.
    fn settle(track: &mut Track, rows: &Rows, images: &[Image]) -> Result<()> {
        let chosen: Vec<Option<u32>> = images.iter().map(|image| image.wrong).collect();
        track.settle(&rows.points, &rows.wrong, &chosen)
    }

    fn keep(track: &Track, rows: Rows, stay: &[usize]) -> Result<Rows> {
        Ok(Rows {
            prev: track.pick(&rows.prev, stay)?,
            gradient: track.pick(&rows.gradient, stay)?,
            best: track.pick(&rows.best, stay)?,
            best_gradient: track.pick(&rows.best_gradient, stay)?,
            wrong: track.pick(&rows.wrong, stay)?,
            points: track.keep(&rows.points, stay)?,
        })
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
                self.restart(model, &mut track, (eps, restart), points, None)?;
            }
            return track.finish();
        }
        for rank in 1..=targets(&self.spec, classes) {
            for restart in 0..self.spec.restarts {
                let at = track.standing();
                if at.is_empty() {
                    break;
                }
                let points = track.points(at)?;
                let logits = track.clean_logits(&points)?;
                let targets: Vec<u32> = logits.chunks_exact(classes).map(|row| ranked(row, rank)).collect();
                // Each target and restart begins elsewhere.
                let number = (rank as u32 - 1) * self.spec.restarts + restart;
                self.restart(model, &mut track, (eps, number), points, Some(&targets))?;
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
    fn a_step_is_halved_where_the_loss_stalls() {
        // Three of four steps raise the loss: 3 <= 0.75 * 4.
        let mut image = Image::new(1.0, 0.5, 8);
        for (j, loss) in [1.1, 1.2, 1.15, 1.3].into_iter().enumerate() {
            image.losses[j] = loss;
            image.best = image.best.max(loss);
        }
        // The first is compared with the last one, which is 0 yet.
        assert!(image.look(3, 4));
        assert_eq!((image.eta, image.halved, image.looked), (0.5, true, 1.3));
        for (j, loss) in [1.4, 1.5, 1.6, 1.7].into_iter().enumerate() {
            image.losses[4 + j] = loss;
            image.best = loss;
        }
        assert!(!image.look(7, 4));
        // Nothing new since the last look, which did not halve.
        image.losses = vec![1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.65];
        assert!(image.look(7, 4));
        assert_eq!(image.eta, 0.25);
    }

    #[test]
    fn ranks_go_by_logit_then_by_index() {
        let logits = [0.5, 2.0, -1.0, 2.0];
        assert_eq!([0, 1, 2, 3].map(|rank| ranked(&logits, rank)), [1, 3, 0, 2]);
    }
}
