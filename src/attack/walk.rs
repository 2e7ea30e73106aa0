//! How the iterates of a restart come about: asked for and stepped one by one, or as a graph that the device replays.

use std::rc::Rc;

use super::model::{Answer, Classifier, Evaluation, Resident};
use super::track::{Points, Span, Track, check_evaluation};
use crate::device::nvtx::{self, Kind};
use crate::device::{Captured, DType, Device};
use crate::ops::pgd::{self, Step};
use crate::ops::steps::{Done, Found, Steps};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Steps that are replayed before any is looked at. What is noted of them, iterates above all, takes ten images' memory per image, some
/// hundredths of what its gradient does; an image whose circle has closed walks on for at most nine steps; and a wait comes once in ten.
const SPAN: u32 = 10;
/// The same with early stop. Most images that fall do so in the first steps, and walk on for at most two; a look costs a wait and, where
/// images leave, a recording, each about as long as it takes to launch a step's kernels one by one.
const SPAN_TO_SUCCESS: u32 = 3;
/// A restart of fewer steps is not worth a recording.
const WORTHWHILE: u32 = 3;

/// What is done at each step.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    pub step: Step,
    /// Of the momentum, where there is one.
    pub decay: Option<f64>,
    pub steps: u32,
    pub early_stop: bool,
    /// Whether somebody looks at digests.
    pub digests: bool,
    pub restart: u32,
}

/// A restart on its way.
pub(super) enum Walk<'a> {
    Asked(Asked<'a>),
    Replayed(Replayed<'a>),
}

impl<'a> Walk<'a> {
    /// From the points on. A device that does steps by itself is given them where the model has that form.
    pub fn new(model: &'a dyn Classifier, track: &Track, points: &Points, rule: Rule) -> Result<Self> {
        if rule.steps >= WORTHWHILE
            && model.repeats_itself()
            && let Some(resident) = model.resident(&track.query(points, rule.restart, 0))?
        {
            return Ok(Walk::Replayed(Replayed::new(model, resident, points, None, rule)?));
        }
        Ok(Walk::Asked(Asked { model, rule, gradient: None, momentum: None }))
    }

    /// Takes the steps from number `first` on, as many as are looked at together. The last iterate of all is evaluated only.
    pub fn span(&mut self, track: &Track, points: &Points, first: u32) -> Result<Span> {
        match self {
            Walk::Asked(walk) => walk.span(track, points, first),
            Walk::Replayed(walk) => walk.span(first),
        }
    }

    /// Whether images that are done leave the batch where `alive` of `n` go on. A new recording is worth a quarter of them.
    pub fn makes_room(&self, alive: usize, n: usize) -> bool {
        match self {
            Walk::Asked(_) => alive < n,
            Walk::Replayed(_) => alive <= n - n.div_ceil(4),
        }
    }

    /// Goes on with some rows of the points.
    pub fn keep(self, track: &Track, points: &mut Points, stay: &[usize]) -> Result<Self> {
        match self {
            Walk::Asked(walk) => {
                *points = track.keep(points, stay)?;
                let pick = |x: Option<Tensor>| x.map(|x| track.pick(&x, stay)).transpose();
                Ok(Walk::Asked(Asked { gradient: pick(walk.gradient)?, momentum: pick(walk.momentum)?, ..walk }))
            }
            Walk::Replayed(walk) => {
                let Replayed { model, scene, graph } = walk;
                points.x = scene.x.clone();
                *points = track.keep(points, stay)?;
                let momentum = scene.momentum.as_ref().map(|m| track.pick(m, stay)).transpose()?;
                let rule = scene.rule;
                // Its memory is that of the next one.
                drop((graph, scene));
                let resident = model.resident(&track.query(points, rule.restart, 0))?;
                let resident = resident.ok_or_else(|| Error::Failed("a network that was resident is not".into()))?;
                Ok(Walk::Replayed(Replayed::new(model, resident, points, momentum, rule)?))
            }
        }
    }

    /// Moves the points on, where it has not been done.
    pub fn step(&mut self, device: &Device, points: &mut Points) -> Result<()> {
        match self {
            Walk::Asked(walk) => walk.step(device, points),
            Walk::Replayed(_) => Ok(()),
        }
    }
}

/// Each step is asked for and told before the next: on the host, and of a network that answers there or draws.
pub(super) struct Asked<'a> {
    model: &'a dyn Classifier,
    rule: Rule,
    /// At the points.
    gradient: Option<Tensor>,
    momentum: Option<Tensor>,
}

impl Asked<'_> {
    fn span(&mut self, track: &Track, points: &Points, first: u32) -> Result<Span> {
        let (query, ends) = (track.query(points, self.rule.restart, first), first == self.rule.steps);
        let mut found = match ends {
            false => self.model.gradient(&points.x, &query)?,
            true => self.model.evaluate(&points.x, &query)?,
        };
        check_evaluation(&found, &points.x, !ends)?;
        self.gradient = found.gradient.take();
        let digests = if self.rule.digests && !ends { pgd::digest(track.device(), &points.x)? } else { vec![] };
        Ok(Span { first, iterates: points.x.clone(), lent: false, found: vec![found], digests })
    }

    fn step(&mut self, device: &Device, points: &mut Points) -> Result<()> {
        let _range = nvtx::range(Kind::Step, "attack step");
        let Some(mut gradient) = self.gradient.take() else { return Ok(()) };
        let Rule { step, decay, .. } = &self.rule;
        if let Some(decay) = *decay {
            gradient = pgd::momentum(device, self.momentum.as_ref(), &gradient, step.profile, decay, step.scale)?;
            self.momentum = Some(gradient.clone());
        }
        points.x = pgd::step(device, &points.x, &points.x0, &gradient, step)?;
        Ok(())
    }
}

/// Everything a step reads and writes, at addresses that stay.
struct Scene<'a> {
    device: Device,
    model: Box<dyn Resident + 'a>,
    rule: Rule,
    /// The iterates.
    x: Tensor,
    x0: Tensor,
    momentum: Option<Tensor>,
    done: Option<Done>,
    steps: Steps,
}

impl Scene<'_> {
    fn note(&self, gradient: bool) -> Result<Answer> {
        let answer = self.model.answer(&self.x, gradient)?;
        let found = Found { loss: &answer.loss, margin: &answer.margin, prediction: &answer.prediction };
        self.steps.note(&self.device, &self.x, found, self.done.as_ref())?;
        Ok(answer)
    }

    /// Evaluates the iterates, notes what is found and steps on.
    fn step(&self) -> Result<()> {
        let answer = self.note(true)?;
        let gradient = answer.gradient.ok_or_else(|| Error::shape("attack", "the model's gradient", "one", "none"))?;
        let Rule { step, decay, .. } = &self.rule;
        let direction = match (&self.momentum, decay) {
            (Some(m), Some(decay)) => {
                pgd::momentum_in_place(&self.device, m, &gradient, step.profile, *decay, step.scale)?;
                m
            }
            _ => &gradient,
        };
        pgd::step_in_place(&self.device, &self.x, &self.x0, direction, step, self.done.as_ref().map(|d| &d.flags))?;
        self.steps.tick(&self.device)
    }
}

/// A step is recorded once and replayed; several are told together.
pub(super) struct Replayed<'a> {
    model: &'a dyn Classifier,
    scene: Rc<Scene<'a>>,
    graph: Captured<'a>,
}

impl<'a> Replayed<'a> {
    fn new(
        model: &'a dyn Classifier,
        resident: Box<dyn Resident + 'a>,
        points: &Points,
        momentum: Option<Tensor>,
        rule: Rule,
    ) -> Result<Self> {
        let (device, n) = (model.device().clone(), points.at.len());
        // The iterate is written in place: it is of no other tensor's memory.
        let x = points.x.copied(&device)?;
        let cleared = |shape: &[usize], dtype| {
            let t = Tensor::uninit(&device, shape, dtype)?;
            t.clear(&device)?;
            Ok::<_, Error>(t)
        };
        let momentum = match (momentum, rule.decay) {
            (Some(m), _) => Some(m.copied(&device)?),
            (None, Some(_)) => Some(cleared(x.shape(), DType::F32)?),
            (None, None) => None,
        };
        let (classes, targeted) = points.told_by();
        let classes: Vec<i32> = classes.iter().map(|&class| class as i32).collect();
        let done = match rule.early_stop {
            true => Some(Done {
                flags: cleared(&[n], DType::I32)?,
                classes: Tensor::from_i32(&device, &[n], &classes)?,
                targeted,
            }),
            false => None,
        };
        let steps = Steps::new(&device, Self::most(&rule) as usize + 1, &x)?;
        let x0 = points.x0.clone();
        let scene = Rc::new(Scene { device: device.clone(), model: resident, rule, x, x0, momentum, done, steps });
        let own = scene.clone();
        Ok(Replayed { model, graph: device.capture(move || own.step())?, scene })
    }

    /// Steps of a span.
    fn most(rule: &Rule) -> u32 {
        rule.steps.min(if rule.early_stop { SPAN_TO_SUCCESS } else { SPAN })
    }

    fn span(&mut self, first: u32) -> Result<Span> {
        let Scene { device, rule, steps, .. } = &*self.scene;
        let count = Self::most(rule).min(rule.steps - first);
        let ends = first + count == rule.steps;
        steps.begin(device)?;
        for _ in 0..count {
            let _range = nvtx::range(Kind::Step, "attack step");
            self.graph.launch()?;
        }
        if ends {
            self.scene.note(false)?;
        }
        let told = count as usize + usize::from(ends);
        let noted = steps.read(device, told, if rule.digests { count as usize } else { 0 })?;
        self.model.answered(told as u64);
        let n = self.scene.x.shape()[0];
        let found = (0..told).map(|slot| {
            let rows = slot * n..(slot + 1) * n;
            Evaluation {
                gradient: None,
                loss: noted.loss[rows.clone()].to_vec(),
                margin: noted.margin[rows.clone()].to_vec(),
                prediction: noted.prediction[rows].to_vec(),
            }
        });
        Ok(Span { first, iterates: steps.iterates(told)?, lent: true, found: found.collect(), digests: noted.digests })
    }
}
