//! What every attack here keeps about the images of a batch: the last point, those of the best margin and the highest loss, and when an
//! image first succumbed.

use super::model::{CLEAN, Evaluation, Oracle, Query};
use super::outcome::{Adversarial, Outcome, Work};
use super::spec::{Batch, Spec};
use super::target;
use crate::device::Device;
use crate::ops::pgd;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What is known about one image.
struct Progress {
    last_prediction: u32,
    last_success: bool,
    /// whether a start or iterate was of another class than the label: in targeted mode not the same as a success
    was_wrong: bool,
    /// whether the point of the best margin is a success, and the margin
    best_success: bool,
    best_margin: f32,
    best_loss: f32,
    /// false until a start or iterate was evaluated
    attacked: bool,
    first_success: Option<u32>,
    steps: u32,
    saved: u32,
    work: Work,
}

impl Progress {
    fn new(clean: &Evaluation, i: usize) -> Self {
        Progress {
            last_prediction: clean.prediction[i],
            last_success: false,
            was_wrong: false,
            best_success: false,
            best_margin: clean.margin[i],
            best_loss: clean.loss[i],
            attacked: false,
            first_success: None,
            steps: 0,
            saved: 0,
            work: Work::default(),
        }
    }

    /// Takes in an evaluated point and says whether it has the best margin and the highest loss so far.
    fn record(&mut self, prediction: u32, loss: f32, margin: f32, success: bool) -> (bool, bool) {
        let first = !std::mem::replace(&mut self.attacked, true);
        (self.last_prediction, self.last_success) = (prediction, success);
        if success && self.first_success.is_none() {
            self.first_success = Some(self.steps);
        }
        let better =
            first || (success && !self.best_success) || (success == self.best_success && margin < self.best_margin);
        if better {
            (self.best_success, self.best_margin) = (success, margin);
        }
        let higher = first || loss > self.best_loss;
        if higher {
            self.best_loss = loss;
        }
        (better, higher)
    }
}

/// A batch under attack.
pub(super) struct Track<'a> {
    model: &'a dyn Oracle,
    spec: &'a Spec,
    batch: Batch<'a>,
    eps: f64,
    pub seed: u64,
    targets: Option<Vec<u32>>,
    clean: Evaluation,
    progress: Vec<Progress>,
    /// (N, H, W, C), all images: last, of the best margin, of the highest loss
    last: Tensor,
    margin: Tensor,
    loss: Tensor,
}

/// Images of the batch at some points.
pub(super) struct Points {
    /// their places among all images
    pub at: Vec<usize>,
    pub ids: Vec<u64>,
    labels: Vec<u32>,
    targets: Option<Vec<u32>>,
    /// Classes that only steer the loss: success is any wrong class.
    pub aims: Option<Vec<u32>>,
    pub x: Tensor,
    pub x0: Tensor,
}

/// Steps of a restart that are to be told.
pub(super) struct Span {
    /// The number of the first.
    pub first: u32,
    /// (steps * N, H, W, C): what was evaluated at each of them, a row per point
    pub iterates: Tensor,
    /// The iterates lie where later ones will.
    pub lent: bool,
    /// Of each step, without gradients.
    pub found: Vec<Evaluation>,
    /// Of the iterates that steps were taken from, where somebody looks at them.
    pub digests: Vec<u128>,
}

/// An image that is done before its last step.
#[derive(Clone, Copy)]
pub(super) struct Closed {
    /// After which step of the span, the class of its last iterate, and how many steps are left out.
    pub slot: usize,
    pub prediction: u32,
    pub left: u32,
}

/// Rows of new points that replace those of some images, by image.
pub(super) struct Put(Vec<Option<usize>>);

impl Put {
    /// Image `i` has row `row`.
    pub fn set(&mut self, i: usize, row: usize) {
        self.0[i] = Some(row);
    }
}

impl Points {
    /// The classes that tell a success, and whether it is to be of one of them rather than of another.
    pub fn told_by(&self) -> (&[u32], bool) {
        (self.targets.as_deref().unwrap_or(&self.labels), self.targets.is_some())
    }
}

impl<'a> Track<'a> {
    /// Evaluates the clean images.
    ///
    /// # Errors
    /// [`Error::Shape`] for images or labels that do not fit the model, [`Error::Usage`] for settings that do not, and what the model
    /// returns.
    pub fn new(model: &'a dyn Oracle, batch: Batch<'a>, spec: &'a Spec, eps: f64, seed: u64) -> Result<Self> {
        spec.check_classes(model.classes())?;
        if !(eps >= 0.0 && eps.is_finite()) {
            return Err(Error::usage("attack.eps", format!("expected a number of at least 0, found {eps}")));
        }
        check_inputs(model, batch)?;
        let Batch { images, labels, ids } = batch;
        let (targets, forwards) = target::choose(spec.targeted, model, images, labels, ids, seed)?;
        let query = Query { targets: targets.as_deref(), ids, step: CLEAN, ..Query::new(labels, spec.loss) };
        let clean = model.evaluate(images, &query)?;
        check_evaluation(&clean, images, false)?;
        let mut progress: Vec<Progress> = (0..labels.len()).map(|i| Progress::new(&clean, i)).collect();
        // Targets that go by logits took a look at each image.
        progress.iter_mut().for_each(|p| p.work.forwards = 1 + forwards / labels.len() as u64);
        Ok(Track {
            model,
            spec,
            eps,
            seed,
            targets,
            progress,
            clean,
            last: images.clone(),
            margin: images.clone(),
            loss: images.clone(),
            batch,
        })
    }

    pub fn device(&self) -> &Device {
        self.model.device()
    }

    /// The number of the last step, and whether an image is done at its first success.
    pub fn goes_to(&self) -> (u32, bool) {
        (self.spec.steps, self.spec.early_stop)
    }

    pub fn label(&self, i: usize) -> u32 {
        self.batch.labels[i]
    }

    pub fn len(&self) -> usize {
        self.batch.labels.len()
    }

    /// Whether a prediction of image `i` is what the attack is after.
    pub fn success(&self, i: usize, prediction: u32) -> bool {
        match &self.targets {
            Some(t) => prediction == t[i],
            None => prediction != self.batch.labels[i],
        }
    }

    /// Images that a further restart is made for.
    pub fn entering(&self) -> Vec<usize> {
        (0..self.len()).filter(|&i| self.enters(i)).collect()
    }

    fn enters(&self, i: usize) -> bool {
        let p = &self.progress[i];
        let aims_at_label = self.targets.as_ref().is_some_and(|t| t[i] == self.batch.labels[i]);
        // Of a targeted attack that which is of the target already.
        let there_when_clean = !p.attacked && self.success(i, p.last_prediction);
        // One lucky draw ends no attack on a pipeline that draws.
        let broken = p.last_success && self.model.repeats_itself();
        let done = aims_at_label || broken || (self.spec.early_stop && there_when_clean);
        self.eps > 0.0 && !done
    }

    /// Some images at their clean points.
    pub fn points(&self, at: Vec<usize>) -> Result<Points> {
        let x0 = self.pick(self.batch.images, &at)?;
        Ok(Points {
            ids: at.iter().map(|&i| self.batch.ids[i]).collect(),
            labels: at.iter().map(|&i| self.batch.labels[i]).collect(),
            targets: self.targets.as_ref().map(|t| at.iter().map(|&i| t[i]).collect()),
            aims: None,
            x: x0.clone(),
            x0,
            at,
        })
    }

    /// What the model is asked about points.
    pub fn query<'p>(&self, points: &'p Points, restart: u32, step: u32) -> Query<'p> {
        let Points { labels, targets, aims, ids, .. } = points;
        let targets = aims.as_deref().or(targets.as_deref());
        Query { targets, steered: aims.is_some(), ids, restart, step, ..Query::new(labels, self.spec.loss) }
    }

    /// Takes in the evaluation of points and keeps the best of them.
    pub fn record(&mut self, points: &Points, e: &Evaluation, gradient: bool) -> Result<()> {
        self.record_some(points, e, gradient, &(0..points.at.len()).collect::<Vec<_>>())
    }

    /// Takes in the evaluation of some of the points; those left out are no iterates that count.
    pub fn record_some(&mut self, points: &Points, e: &Evaluation, gradient: bool, these: &[usize]) -> Result<()> {
        check_evaluation(e, &points.x, gradient)?;
        self.asked(points, gradient);
        let (mut better, mut higher) = (self.nothing(), self.nothing());
        for &j in these {
            let (best, highest) = self.note(points.at[j], e, j);
            for (put, is) in [(&mut better, best), (&mut higher, highest)] {
                if is {
                    put.set(points.at[j], j);
                }
            }
        }
        self.keep_best(&points.x, false, [&better, &higher])
    }

    /// Puts no rows.
    pub fn nothing(&self) -> Put {
        Put(vec![None; self.len()])
    }

    /// Takes in what was found at row `j` of image `i`: whether it has the best margin, and the highest loss.
    pub fn note(&mut self, i: usize, e: &Evaluation, j: usize) -> (bool, bool) {
        let success = self.success(i, e.prediction[j]);
        self.progress[i].was_wrong |= e.prediction[j] != self.batch.labels[i];
        self.progress[i].record(e.prediction[j], e.loss[j], e.margin[j], success)
    }

    /// Puts rows of `x` where the points of the best margin and those of the highest loss are.
    pub fn keep_best(&mut self, x: &Tensor, lent: bool, [margin, loss]: [&Put; 2]) -> Result<()> {
        self.margin = self.with(&self.margin, x, lent, margin)?;
        self.loss = self.with(&self.loss, x, lent, loss)?;
        Ok(())
    }

    /// Puts rows of `x` where the last points are.
    pub fn keep_last(&mut self, x: &Tensor, lent: bool, last: &Put) -> Result<()> {
        self.last = self.with(&self.last, x, lent, last)?;
        Ok(())
    }

    /// The network was asked about all points.
    pub fn asked(&mut self, points: &Points, gradient: bool) {
        points.at.iter().for_each(|&i| self.asked_of(i, gradient));
    }

    /// The network was asked about image `i`.
    pub fn asked_of(&mut self, i: usize, gradient: bool) {
        let work = &mut self.progress[i].work;
        *(if gradient { &mut work.gradients } else { &mut work.forwards }) += 1;
    }

    /// Images that are right when clean and at every point so far, unless there is nothing to attack them with; of a pipeline that draws
    /// all of them.
    pub fn standing(&self) -> Vec<usize> {
        let draws = !self.model.repeats_itself();
        let stands =
            |&i: &usize| draws || self.clean.prediction[i] == self.batch.labels[i] && !self.progress[i].was_wrong;
        if self.eps > 0.0 { (0..self.len()).filter(stands).collect() } else { vec![] }
    }

    /// A step was taken from each of the points.
    pub fn stepped(&mut self, points: &Points) {
        points.at.iter().for_each(|&i| self.stepped_from(i));
    }

    /// A step was taken from the point of image `i`.
    pub fn stepped_from(&mut self, i: usize) {
        self.progress[i].steps += 1;
    }

    /// Puts the points where the last points of all images are.
    pub fn leave(&mut self, points: &Points) -> Result<()> {
        let mut last = self.nothing();
        points.at.iter().enumerate().for_each(|(j, &i)| last.set(i, j));
        self.keep_last(&points.x, false, &last)
    }

    /// Makes `x`, points of the images of `points`, their last ones where a class is given: that of the point. The others stay what they
    /// were when clean.
    pub fn settle(&mut self, points: &Points, x: &Tensor, chosen: &[Option<u32>]) -> Result<()> {
        let mut index = vec![None; self.len()];
        for (j, &i) in points.at.iter().enumerate().filter(|&(j, _)| chosen[j].is_some()) {
            index[i] = Some(j);
        }
        if index.iter().any(Option::is_some) {
            self.last = pgd::gather(self.model.device(), x, &index, Some(&self.last))?;
        }
        for (&i, chosen) in points.at.iter().zip(chosen) {
            let prediction = chosen.unwrap_or(self.clean.prediction[i]);
            let success = chosen.is_some() && self.success(i, prediction);
            (self.progress[i].last_prediction, self.progress[i].last_success) = (prediction, success);
        }
        Ok(())
    }

    /// Image `i` ends as if it had taken the steps that are left.
    pub fn close(&mut self, i: usize, closed: Closed) {
        let success = self.success(i, closed.prediction);
        let p = &mut self.progress[i];
        (p.last_prediction, p.last_success) = (closed.prediction, success);
        p.steps += closed.left;
        p.saved += closed.left;
    }

    /// Logits of the clean images of some points, `(N, K)`.
    pub fn clean_logits(&mut self, points: &Points) -> Result<Vec<f32>> {
        self.asked(points, false);
        self.model.logits(&points.x0)?.to_f32(self.model.device())
    }

    /// The places in `points` whose last evaluation was no success.
    pub fn unbroken(&self, points: &Points) -> Vec<usize> {
        (0..points.at.len()).filter(|&j| !self.progress[points.at[j]].last_success).collect()
    }

    /// `all` with rows of `x` put in their places; never `x` itself where it is only lent.
    fn with(&self, all: &Tensor, x: &Tensor, lent: bool, Put(index): &Put) -> Result<Tensor> {
        if index.iter().all(Option::is_none) {
            return Ok(all.clone());
        }
        let is_it = x.shape() == all.shape() && index.iter().enumerate().all(|(i, row)| *row == Some(i));
        if is_it && !lent { Ok(x.clone()) } else { pgd::gather(self.model.device(), x, index, Some(all)) }
    }

    /// Some rows of a tensor, in order.
    pub fn pick(&self, x: &Tensor, these: &[usize]) -> Result<Tensor> {
        if these.len() == x.shape()[0] {
            return Ok(x.clone());
        }
        let index: Vec<_> = these.iter().map(|&j| Some(j)).collect();
        pgd::gather(self.model.device(), x, &index, None)
    }

    /// Some of the points.
    pub fn keep(&self, points: &Points, stay: &[usize]) -> Result<Points> {
        Ok(Points {
            at: stay.iter().map(|&j| points.at[j]).collect(),
            ids: stay.iter().map(|&j| points.ids[j]).collect(),
            labels: stay.iter().map(|&j| points.labels[j]).collect(),
            targets: points.targets.as_ref().map(|t| stay.iter().map(|&j| t[j]).collect()),
            aims: points.aims.as_ref().map(|t| stay.iter().map(|&j| t[j]).collect()),
            x: self.pick(&points.x, stay)?,
            x0: self.pick(&points.x0, stay)?,
        })
    }

    /// What is to be told.
    pub fn finish(self) -> Result<Adversarial> {
        let (device, clean) = (self.model.device(), &self.clean);
        let best: Vec<_> = self.progress.iter().enumerate().map(|(i, p)| p.best_success.then_some(i)).collect();
        let best = pgd::gather(device, &self.margin, &best, Some(&self.loss))?;
        let kept = [&self.last, &self.margin, &best].map(|points| pgd::budget(device, points, self.batch.images));
        let [last, margin, chosen] = kept;
        let (last, margin, chosen) = (last?, margin?, chosen?);
        let outcomes = self.progress.iter().enumerate().map(|(i, p)| {
            let correct_clean = clean.prediction[i] == self.batch.labels[i];
            let target = self.targets.as_ref().map(|targets| targets[i]);
            Outcome {
                prediction: p.last_prediction,
                clean_prediction: clean.prediction[i],
                correct_clean,
                correct_last: correct_clean && p.last_prediction == self.batch.labels[i],
                correct_any: correct_clean && !p.was_wrong,
                first_success: p.first_success,
                steps: p.steps,
                steps_saved: p.saved,
                margin: p.best_margin,
                loss: p.best_loss,
                linf: last[i].linf,
                l2: last[i].l2,
                violation: [last[i], margin[i], chosen[i]].iter().any(|b| b.violates(self.spec.norm, self.eps)),
                stage: None,
                nested: None,
                radius: None,
                asked: None,
                target,
                target_reached: target.filter(|&target| target != self.batch.labels[i]).map(|t| p.last_prediction == t),
                top5: None,
                clean_top5: None,
            }
        });
        let works: Vec<Work> = self.progress.iter().map(|p| p.work).collect();
        let mut work = Work::default();
        works.iter().for_each(|&more| work += more);
        Ok(Adversarial {
            outcomes: outcomes.collect(),
            last: self.last,
            best_margin: self.margin,
            best,
            work,
            works,
            seconds: vec![],
        })
    }
}

fn check_inputs(model: &dyn Oracle, Batch { images, labels, ids }: Batch) -> Result<()> {
    let (n, [h, w, c]) = (labels.len(), model.image_shape());
    if images.shape() != [n, h, w, c] || n == 0 {
        let expected = format!("{} x {:?}", n.max(1), [h, w, c]);
        return Err(Error::shape("attack", "images", expected, format!("{images:?}")));
    }
    if ids.len() != n {
        return Err(Error::shape("attack", "image ids", n, ids.len()));
    }
    if let Some(i) = labels.iter().position(|&y| y as usize >= model.classes()) {
        return Err(Error::shape(
            "attack",
            format!("label of image {}", ids[i]),
            format!("below {}", model.classes()),
            labels[i],
        ));
    }
    // Each image against itself: a distance that is not 0 comes of values that are no numbers.
    for (b, id) in pgd::budget(model.device(), images, images)?.iter().zip(ids) {
        let is_finite = b.l2 == 0.0 && b.low.is_finite() && b.high.is_finite();
        if !is_finite || (model.takes_pixels() && !(b.low >= 0.0 && b.high <= 1.0)) {
            let expected = if model.takes_pixels() { "0 to 1" } else { "numbers" };
            let found =
                if is_finite { format!("{} to {}", b.low, b.high) } else { "values that are no numbers".into() };
            return Err(Error::shape("attack", format!("values of image {id}"), expected, found));
        }
    }
    Ok(())
}

pub(super) fn check_evaluation(e: &Evaluation, x: &Tensor, gradient: bool) -> Result<()> {
    let n = x.shape()[0];
    for (what, len) in [("losses", e.loss.len()), ("margins", e.margin.len()), ("predictions", e.prediction.len())] {
        if len != n {
            return Err(Error::shape("attack", format!("the model's {what}"), n, len));
        }
    }
    if gradient && e.gradient.is_none() {
        return Err(Error::shape("attack", "the model's gradient", format!("{x:?}"), "none"));
    }
    Ok(())
}
