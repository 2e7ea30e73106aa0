//! Projected gradient ascent and its relatives: evaluate, keep what is best, step, and let finished images leave the batch.
//!
//! Sources: Madry et al. 2018 (PGD), Goodfellow et al. 2015 (FGSM), Dong et al. 2018 (MI-FGSM).

use super::cycles::Cycles;
use super::model::Classifier;
use super::outcome::Adversarial;
use super::spec::{Attack, Batch, Preset, Row, Spec, StepSize, wrong};
use super::start::{self, Starts};
use super::tell::tell;
use super::track::Track;
use super::walk::{At, Rule, Stepping, Walk};
use crate::device::{DType, Device};
use crate::ops::pgd::{self, Norm, Profile, Step};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Projected gradient ascent.
pub const PGD: Row = Row {
    name: "pgd",
    help: "follows the gradient in steps, each projected into the ball",
    ignores: &["decay"],
    loss: None,
    leaves: false,
    windows: false,
    tried_as: "pgd",
    preset: |profile, norm, steps| {
        let (usual, step) = match (profile, norm) {
            (Profile::Native, _) => (Some(10), Some(StepSize::rule_of_thumb(steps.unwrap_or(10)))),
            (Profile::Torchattacks, Norm::Linf) => (Some(10), Some(StepSize::Absolute(2.0 / 255.0))),
            (Profile::Torchattacks, Norm::L2) => (Some(10), Some(StepSize::Absolute(0.2))),
            (Profile::Foolbox, Norm::Linf) => (Some(40), Some(StepSize::OfEps(0.01 / 0.3))),
            (Profile::Foolbox, Norm::L2) => (Some(50), Some(StepSize::OfEps(0.025))),
            (Profile::Cleverhans, _) => (None, None),
            (Profile::Art, _) => (Some(100), Some(StepSize::Absolute(0.1))),
        };
        Preset { steps: steps.or(usual), step, random_start: profile != Profile::Art }
    },
    check: |_| Ok(()),
    build: |spec| Ok(Box::new(Pgd::new(spec, false)?)),
};

/// One step of size eps from the clean image.
pub const FGSM: Row = Row {
    name: "fgsm",
    help: "takes one step of size eps from the clean image",
    ignores: &["steps", "step_size", "rel_step", "restarts", "random_start", "decay", "starts", "stop_cycles"],
    loss: None,
    leaves: false,
    windows: false,
    tried_as: "fgsm",
    preset: |_, _, _| Preset { steps: Some(1), step: Some(StepSize::OfEps(1.0)), random_start: false },
    check: |_| Ok(()),
    build: |spec| Ok(Box::new(Pgd::new(spec, false)?)),
};

/// PGD along the sign of an accumulated gradient; L-inf only.
pub const MIM: Row = Row {
    name: "mim",
    help: "follows the sign of an accumulated gradient in steps; linf only",
    ignores: &["stop_cycles"],
    loss: None,
    leaves: false,
    windows: false,
    tried_as: "mim",
    preset: |profile, norm, steps| {
        let (usual, step) = match (profile, norm) {
            (Profile::Native, _) => (10, StepSize::rule_of_thumb(steps.unwrap_or(10))),
            (Profile::Torchattacks, Norm::Linf) => (10, StepSize::Absolute(2.0 / 255.0)),
            (Profile::Torchattacks, Norm::L2) => (10, StepSize::Absolute(0.2)),
            (Profile::Foolbox, _) => (10, StepSize::OfEps(0.2)),
            (Profile::Cleverhans, _) => (10, StepSize::Absolute(0.06)),
            (Profile::Art, _) => (100, StepSize::Absolute(0.1)),
        };
        Preset { steps: steps.or(Some(usual)), step: Some(step), random_start: false }
    },
    check: |spec| {
        if spec.norm != Norm::Linf {
            return wrong("norm", format!("mim works in linf, found {}", spec.norm));
        }
        if spec.normalised() {
            return wrong("space", "normalised goes with pgd or fgsm, found mim");
        }
        Ok(())
    },
    build: |spec| Ok(Box::new(Pgd::new(spec, true)?)),
};

/// The loop of all three.
///
/// Each restart evaluates its start and every iterate, the last one forward only. A further restart begins at a new start
/// and is entered by the images whose last point is not yet a success (and, with early stop, were right when clean), so that
/// `correct_last` as well as `correct_any` means that every restart failed. With early stop an image leaves the batch at its
/// first success, and the gradients it would have cost are not computed. So it does where its iterates go round in a circle, and what is
/// told of it is what the whole run would have told. Where a device takes steps by itself ([`Classifier::resident`]), several are taken
/// before any is looked at, and images that are done may walk on for some: what is told, of work too, is what one by one would have told.
///
/// The torchattacks and cleverhans profiles average their loss over the batch: on L2 their gradients are scaled by 1/N, N
/// being the number of images of the batch, however many are still attacked.
pub struct Pgd {
    spec: Spec,
    momentum: bool,
    starts: Option<Starts>,
}

impl Pgd {
    /// Reads the start points that the spec names.
    ///
    /// # Errors
    /// As [`Starts::load`], and [`Error::Usage`] when it holds fewer than the restarts.
    pub fn new(spec: &Spec, momentum: bool) -> Result<Self> {
        let starts = spec.starts.as_deref().map(Starts::load).transpose()?;
        Self::starting(spec, momentum, starts)
    }

    /// From start points at hand.
    ///
    /// # Errors
    /// [`Error::Usage`] when there are fewer than the restarts.
    pub fn starting(spec: &Spec, momentum: bool, starts: Option<Starts>) -> Result<Self> {
        if let Some(stored) = starts.as_ref().map(Starts::restarts).filter(|&stored| stored < spec.restarts as usize) {
            let problem = format!("the file of starts holds {stored} per image, found {}", spec.restarts);
            return Err(Error::usage("attack.restarts", problem));
        }
        Ok(Pgd { spec: spec.clone(), momentum, starts })
    }

    fn restart(&self, model: &dyn Classifier, track: &mut Track, eps: f64, restart: u32, at: Vec<usize>) -> Result<()> {
        let (device, spec, n) = (model.device().clone(), &self.spec, track.len());
        let mut points = track.points(at)?;
        points.x = match &self.starts {
            Some(starts) => starts.points(&device, &points.x0, &points.ids, (spec.norm, eps), restart)?,
            None if spec.starts_randomly() => {
                start::random(&device, &points.x0, &points.ids, spec, eps, (track.seed, restart))?
            }
            None => points.x,
        };
        // Where a step has a floor, it matters that these profiles average their loss over the batch.
        let averaged = spec.averages();
        let step = Step {
            norm: spec.norm,
            profile: spec.profile,
            eps,
            size: spec.step_size(eps),
            scale: if averaged { 1.0 / n as f32 } else { 1.0 },
        };
        let mut cycles = (spec.stop_cycles && !self.momentum && !averaged && model.repeats_itself())
            .then(|| Cycles::new(points.at.len(), spec.steps));
        let momentum = match self.momentum {
            true => {
                let m = Tensor::uninit(&device, points.x.shape(), DType::F32)?;
                m.clear(&device)?;
                Some((spec.decay, m))
            }
            false => None,
        };
        let rule = Rule { steps: spec.steps, early_stop: spec.early_stop, digests: cycles.is_some(), restart };
        let mut walk = Walk::new(model, track, &points, rule, Box::new(Descent { step, momentum }))?;
        let mut alive: Vec<usize> = (0..points.at.len()).collect();
        let mut next = 0;
        loop {
            let span = walk.span(track, &points, next)?;
            next += span.found.len() as u32;
            alive = tell(track, &points, &span, &alive, cycles.as_mut(), None)?;
            if next > spec.steps || alive.is_empty() {
                return Ok(());
            }
            if walk.makes_room(alive.len(), points.at.len()) {
                walk = walk.keep(track, &mut points, &alive)?;
                cycles = cycles.map(|cycles| cycles.keep(track, &alive)).transpose()?;
                alive = (0..points.at.len()).collect();
            }
            walk.step(&device, &mut points)?;
        }
    }
}

/// A step along the gradient, or along what has gathered of it.
struct Descent {
    step: Step,
    /// The decay and the momentum.
    momentum: Option<(f64, Tensor)>,
}

impl Stepping for Descent {
    fn looks(&self) -> bool {
        false
    }

    fn step(&self, device: &Device, at: &At, y: &Tensor, done: Option<&Tensor>) -> Result<()> {
        let Step { profile, scale, .. } = self.step;
        let direction = match &self.momentum {
            Some((decay, m)) => {
                pgd::momentum_in_place(device, m, at.gradient, profile, *decay, scale)?;
                m
            }
            None => at.gradient,
        };
        pgd::step_into(device, [at.x, at.x0, direction, y], &self.step, done)
    }

    fn of(&self, pick: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Box<dyn Stepping>> {
        let momentum = self.momentum.as_ref().map(|(decay, m)| Ok::<_, Error>((*decay, pick(m)?))).transpose()?;
        Ok(Box::new(Descent { step: self.step, momentum }))
    }
}

impl Attack for Pgd {
    fn run(&self, model: &dyn Classifier, batch: Batch, eps: f64, seed: u64) -> Result<Adversarial> {
        let mut track = Track::new(model, batch, &self.spec, eps, seed)?;
        for restart in 0..self.spec.restarts {
            let entering = track.entering();
            if entering.is_empty() {
                break;
            }
            self.restart(model, &mut track, eps, restart, entering)?;
        }
        track.finish()
    }

    fn most_queries(&self) -> Option<u64> {
        Some(1 + u64::from(self.spec.restarts) * (1 + u64::from(self.spec.steps)))
    }
}
