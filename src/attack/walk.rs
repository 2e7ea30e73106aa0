//! How the iterates of a restart come about: asked for and stepped one by one, or as a graph that the device replays.

use std::rc::Rc;

use super::model::{Answer, Classifier, Evaluation, Resident};
use super::track::{Points, Span, Track, check_evaluation};
use crate::device::nvtx::{self, Kind};
use crate::device::{Captured, DType, Device};
use crate::ops::pgd;
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

/// How an attack gets from an iterate to the next. What it remembers of the images lies on the device, a row per image.
pub(super) trait Stepping {
    /// Whether it looks at losses.
    fn looks(&self) -> bool;

    /// Writes the next iterate to `y`, which may be `at.x`. Images that are `done`, `(N)` int32, may stay where they are.
    fn step(&self, device: &Device, at: &At, y: &Tensor, done: Option<&Tensor>) -> Result<()>;

    /// The same for some of the images, whose rows `pick` takes.
    fn of(&self, pick: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Box<dyn Stepping>>;
}

/// An iterate, and what was answered about it.
pub(super) struct At<'a> {
    pub x: &'a Tensor,
    pub x0: &'a Tensor,
    pub gradient: &'a Tensor,
    /// `(N)`, for those who look.
    pub loss: Option<&'a Tensor>,
}

/// How far a walk goes, and what is looked at.
#[derive(Clone, Copy)]
pub(super) struct Rule {
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
    pub fn new(
        model: &'a dyn Classifier,
        track: &Track,
        points: &Points,
        rule: Rule,
        stepping: Box<dyn Stepping>,
    ) -> Result<Self> {
        if rule.steps >= WORTHWHILE
            && model.repeats_itself()
            && let Some(resident) = model.resident(&track.query(points, rule.restart, 0))?
        {
            return Ok(Walk::Replayed(Replayed::new(model, resident, points, rule, stepping)?));
        }
        Ok(Walk::Asked(Asked { model, rule, stepping, answer: None }))
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
        let pick = |x: &Tensor| track.pick(x, stay);
        match self {
            Walk::Asked(walk) => {
                *points = track.keep(points, stay)?;
                let answer = walk.answer.map(|(gradient, loss)| {
                    Ok::<_, Error>((pick(&gradient)?, loss.map(|loss| pick(&loss)).transpose()?))
                });
                Ok(Walk::Asked(Asked { answer: answer.transpose()?, stepping: walk.stepping.of(&pick)?, ..walk }))
            }
            Walk::Replayed(walk) => {
                let Replayed { model, scene, graph } = walk;
                points.x = scene.x.clone();
                *points = track.keep(points, stay)?;
                let (rule, stepping) = (scene.rule, scene.stepping.of(&pick)?);
                // Its memory is that of the next one.
                drop((graph, scene));
                let resident = model.resident(&track.query(points, rule.restart, 0))?;
                let resident = resident.ok_or_else(|| Error::Failed("a network that was resident is not".into()))?;
                Ok(Walk::Replayed(Replayed::new(model, resident, points, rule, stepping)?))
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
    stepping: Box<dyn Stepping>,
    /// Gradient and, for those who look, losses at the points.
    answer: Option<(Tensor, Option<Tensor>)>,
}

impl Asked<'_> {
    fn span(&mut self, track: &Track, points: &Points, first: u32) -> Result<Span> {
        let (query, ends) = (track.query(points, self.rule.restart, first), first == self.rule.steps);
        let mut found = match ends {
            false => self.model.gradient(&points.x, &query)?,
            true => self.model.evaluate(&points.x, &query)?,
        };
        check_evaluation(&found, &points.x, !ends)?;
        self.answer = match found.gradient.take().filter(|_| !ends) {
            Some(gradient) if self.stepping.looks() => {
                let loss = Tensor::from_f32(track.device(), &[found.loss.len()], DType::F32, &found.loss)?;
                Some((gradient, Some(loss)))
            }
            gradient => gradient.map(|gradient| (gradient, None)),
        };
        let digests = if self.rule.digests && !ends { pgd::digest(track.device(), &points.x)? } else { vec![] };
        Ok(Span { first, iterates: points.x.clone(), lent: false, found: vec![found], digests })
    }

    fn step(&mut self, device: &Device, points: &mut Points) -> Result<()> {
        let _range = nvtx::range(Kind::Step, "attack step");
        let Some((gradient, loss)) = self.answer.take() else { return Ok(()) };
        let y = Tensor::uninit(device, points.x.shape(), DType::F32)?;
        let at = At { x: &points.x, x0: &points.x0, gradient: &gradient, loss: loss.as_ref() };
        self.stepping.step(device, &at, &y, None)?;
        points.x = y;
        Ok(())
    }
}

/// Everything a step reads and writes, at addresses that stay.
struct Scene<'a> {
    device: Device,
    model: Box<dyn Resident + 'a>,
    rule: Rule,
    stepping: Box<dyn Stepping>,
    /// The iterates.
    x: Tensor,
    x0: Tensor,
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
        let at = At { x: &self.x, x0: &self.x0, gradient: &gradient, loss: Some(&answer.loss) };
        self.stepping.step(&self.device, &at, &self.x, self.done.as_ref().map(|d| &d.flags))?;
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
        rule: Rule,
        stepping: Box<dyn Stepping>,
    ) -> Result<Self> {
        let (device, n) = (model.device().clone(), points.at.len());
        // The iterate is written in place: it is of no other tensor's memory.
        let x = points.x.copied(&device)?;
        let (classes, targeted) = points.told_by();
        let classes: Vec<i32> = classes.iter().map(|&class| class as i32).collect();
        let done = match rule.early_stop {
            true => {
                let flags = Tensor::uninit(&device, &[n], DType::I32)?;
                flags.clear(&device)?;
                Some(Done { flags, classes: Tensor::from_i32(&device, &[n], &classes)?, targeted })
            }
            false => None,
        };
        let steps = Steps::new(&device, Self::most(&rule) as usize + 1, &x)?;
        let x0 = points.x0.clone();
        let scene = Rc::new(Scene { device: device.clone(), model: resident, rule, stepping, x, x0, done, steps });
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
