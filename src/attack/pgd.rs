//! The loop of every attack here: evaluate, keep what is best, step, and let finished images leave the batch.

use super::{Adversarial, CLEAN, Classifier, Evaluation, Method, Norm, Outcome, Profile, Query, Spec, start, target};
use crate::device::{DType, nvtx};
use crate::ops::pgd::{self, Step};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Attacks images `(N, H, W, C)`, float32 in `[0, 1]`, and says what happened to each; `ids` key the random numbers.
///
/// Each restart evaluates its start and every iterate, the last one forward only. A further restart begins at a new start
/// and is entered by the images whose last point is not yet a success (and, with early stop, were right when clean), so that
/// `correct_last` as well as `correct_any` means that every restart failed. With early stop an image leaves the batch at its
/// first success, and the gradients it would have cost are not computed.
///
/// The torchattacks and cleverhans profiles average their loss over the batch: on L2 their gradients are scaled by 1/N, N
/// being the number of images passed here, however many are still attacked.
///
/// # Errors
/// [`Error::Usage`] for a spec that cannot be meant, [`Error::Shape`] for images or labels that do not fit the model, and
/// what the model returns.
pub fn run(
    model: &dyn Classifier,
    images: &[f32],
    labels: &[u32],
    ids: &[u64],
    spec: &Spec,
) -> Result<(Vec<Outcome>, Adversarial)> {
    let (device, n) = (model.device(), labels.len());
    let [h, w, c] = model.image_shape();
    spec.check(model.classes())?;
    check_inputs(model, images, labels, ids)?;
    if n == 0 {
        return Ok(Default::default());
    }

    let x0 = Tensor::from_f32(device, &[n, h, w, c], DType::F32, images)?;
    let (targets, forwards) = target::choose(spec.target, model, &x0, labels, ids, spec.seed)?;
    let query = Query { labels, targets: targets.as_deref(), loss: spec.loss, ids, restart: 0, step: CLEAN };
    let clean = model.evaluate(&x0, &query)?;
    check_evaluation(&clean, &x0, false)?;
    let mut attack = Attack {
        model,
        spec,
        labels,
        ids,
        targets,
        progress: (0..n).map(|i| Progress::new(&clean, i)).collect(),
        last: x0.clone(),
        margin: x0.clone(),
        loss: x0.clone(),
        x0,
        out: Adversarial::default(),
    };
    attack.out.work.forwards += forwards + n as u64;

    for restart in 0..spec.restarts {
        let entering: Vec<usize> = (0..n).filter(|&i| attack.enters(i)).collect();
        if entering.is_empty() {
            break;
        }
        attack.restart(restart, entering)?;
    }
    attack.finish(&clean)
}

fn check_inputs(model: &dyn Classifier, images: &[f32], labels: &[u32], ids: &[u64]) -> Result<()> {
    let (n, d) = (labels.len(), model.image_shape().iter().product::<usize>());
    if images.len() != n * d {
        return Err(Error::shape("attack", "images", format!("{n} x {:?}", model.image_shape()), images.len()));
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
    let refused = |v: &f32| if model.takes_pixels() { !(0.0..=1.0).contains(v) } else { !v.is_finite() };
    if let Some(i) = images.iter().position(refused) {
        let expected = if model.takes_pixels() { "0 to 1" } else { "a number" };
        return Err(Error::shape("attack", format!("value of image {}", ids[i / d]), expected, images[i]));
    }
    Ok(())
}

fn check_evaluation(e: &Evaluation, x: &Tensor, gradient: bool) -> Result<()> {
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

/// What is known about one image.
struct Progress {
    last_prediction: u32,
    last_success: bool,
    /// whether the point of the best margin is a success, and the margin
    best_success: bool,
    best_margin: f32,
    best_loss: f32,
    /// false until a start or iterate was evaluated
    attacked: bool,
    first_success: Option<u32>,
    steps: u32,
}

impl Progress {
    fn new(clean: &Evaluation, i: usize) -> Self {
        Progress {
            last_prediction: clean.prediction[i],
            last_success: false,
            best_success: false,
            best_margin: clean.margin[i],
            best_loss: clean.loss[i],
            attacked: false,
            first_success: None,
            steps: 0,
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

struct Attack<'a> {
    model: &'a dyn Classifier,
    spec: &'a Spec,
    labels: &'a [u32],
    ids: &'a [u64],
    targets: Option<Vec<u32>>,
    progress: Vec<Progress>,
    /// (N, H, W, C), all images: clean, last, of the best margin, of the highest loss
    x0: Tensor,
    last: Tensor,
    margin: Tensor,
    loss: Tensor,
    out: Adversarial,
}

/// The images of a restart that are still attacked.
struct Active {
    /// their places among all images
    at: Vec<usize>,
    ids: Vec<u64>,
    labels: Vec<u32>,
    targets: Option<Vec<u32>>,
    x: Tensor,
    x0: Tensor,
    momentum: Option<Tensor>,
}

impl Attack<'_> {
    fn success(&self, i: usize, prediction: u32) -> bool {
        match &self.targets {
            Some(t) => prediction == t[i],
            None => prediction != self.labels[i],
        }
    }

    fn enters(&self, i: usize) -> bool {
        let p = &self.progress[i];
        let aims_at_label = self.targets.as_ref().is_some_and(|t| t[i] == self.labels[i]);
        let wrong_when_clean = !p.attacked && p.last_prediction != self.labels[i];
        let done = aims_at_label || p.last_success || (self.spec.early_stop && wrong_when_clean);
        self.spec.eps > 0.0 && !done
    }

    fn restart(&mut self, restart: u32, at: Vec<usize>) -> Result<()> {
        let (device, spec) = (self.model.device().clone(), self.spec);
        let x0 = self.pick(&self.x0, &at)?;
        let ids: Vec<u64> = at.iter().map(|&i| self.ids[i]).collect();
        let mut active = Active {
            labels: at.iter().map(|&i| self.labels[i]).collect(),
            targets: self.targets.as_ref().map(|t| at.iter().map(|&i| t[i]).collect()),
            x: start::begin(&device, &x0, &ids, spec, restart)?,
            x0,
            momentum: None,
            ids,
            at,
        };
        // Where a step has a floor, it matters that these profiles average their loss over the batch.
        let averaged = spec.norm == Norm::L2 && matches!(spec.profile, Profile::Torchattacks | Profile::Cleverhans);
        let step = Step {
            norm: spec.norm,
            profile: spec.profile,
            eps: spec.eps,
            size: spec.step_size(),
            scale: if averaged { 1.0 / self.labels.len() as f32 } else { 1.0 },
        };

        for k in 0..=spec.steps() {
            let ends = k == spec.steps();
            let query = Query {
                labels: &active.labels,
                targets: active.targets.as_deref(),
                loss: spec.loss,
                ids: &active.ids,
                restart,
                step: k,
            };
            let evaluation = match ends {
                false => self.model.gradient(&active.x, &query)?,
                true => self.model.evaluate(&active.x, &query)?,
            };
            check_evaluation(&evaluation, &active.x, !ends)?;
            let work = &mut self.out.work;
            *(if ends { &mut work.forwards } else { &mut work.gradients }) += active.at.len() as u64;
            self.record(&active, &evaluation)?;
            let Some(mut gradient) = evaluation.gradient.filter(|_| !ends) else { break };

            let _range = nvtx::range("attack step");
            if spec.early_stop {
                let stay: Vec<usize> =
                    (0..active.at.len()).filter(|&j| !self.progress[active.at[j]].last_success).collect();
                if stay.len() < active.at.len() {
                    self.leave(&active)?;
                    if stay.is_empty() {
                        return Ok(());
                    }
                    gradient = self.pick(&gradient, &stay)?;
                    active = self.keep(active, &stay)?;
                }
            }
            if spec.method == Method::Mim {
                let m =
                    pgd::momentum(&device, active.momentum.as_ref(), &gradient, spec.profile, spec.decay, step.scale)?;
                gradient = m.clone();
                active.momentum = Some(m);
            }
            active.x = pgd::step(&device, &active.x, &active.x0, &gradient, &step)?;
            for &i in &active.at {
                self.progress[i].steps += 1;
            }
        }
        self.leave(&active)
    }

    /// Takes in the evaluation of the current points and keeps the best of them.
    fn record(&mut self, active: &Active, e: &Evaluation) -> Result<()> {
        let (mut better, mut higher) = (vec![], vec![]);
        for (j, &i) in active.at.iter().enumerate() {
            let success = self.success(i, e.prediction[j]);
            let (b, h) = self.progress[i].record(e.prediction[j], e.loss[j], e.margin[j], success);
            better.extend(b.then_some(j));
            higher.extend(h.then_some(j));
        }
        self.margin = self.merged(&self.margin, active, &better)?;
        self.loss = self.merged(&self.loss, active, &higher)?;
        Ok(())
    }

    /// Puts the current points where the last points of all images are.
    fn leave(&mut self, active: &Active) -> Result<()> {
        self.last = self.merged(&self.last, active, &(0..active.at.len()).collect::<Vec<_>>())?;
        Ok(())
    }

    /// `all` with the rows `these` of the active points put in their places.
    fn merged(&self, all: &Tensor, active: &Active, these: &[usize]) -> Result<Tensor> {
        if these.is_empty() {
            return Ok(all.clone());
        }
        if these.len() == self.labels.len() {
            return Ok(active.x.clone());
        }
        let mut index = vec![None; self.labels.len()];
        for &j in these {
            index[active.at[j]] = Some(j);
        }
        pgd::gather(self.model.device(), &active.x, &index, Some(all))
    }

    /// Some rows of a tensor, in order.
    fn pick(&self, x: &Tensor, these: &[usize]) -> Result<Tensor> {
        if these.len() == x.shape()[0] {
            return Ok(x.clone());
        }
        let index: Vec<_> = these.iter().map(|&j| Some(j)).collect();
        pgd::gather(self.model.device(), x, &index, None)
    }

    fn keep(&self, active: Active, stay: &[usize]) -> Result<Active> {
        Ok(Active {
            at: stay.iter().map(|&j| active.at[j]).collect(),
            ids: stay.iter().map(|&j| active.ids[j]).collect(),
            labels: stay.iter().map(|&j| active.labels[j]).collect(),
            targets: active.targets.map(|t| stay.iter().map(|&j| t[j]).collect()),
            x: self.pick(&active.x, stay)?,
            x0: self.pick(&active.x0, stay)?,
            momentum: active.momentum.map(|m| self.pick(&m, stay)).transpose()?,
        })
    }

    fn finish(mut self, clean: &Evaluation) -> Result<(Vec<Outcome>, Adversarial)> {
        let (device, spec) = (self.model.device(), self.spec);
        let best: Vec<_> = self.progress.iter().enumerate().map(|(i, p)| p.best_success.then_some(i)).collect();
        let best = pgd::gather(device, &self.margin, &best, Some(&self.loss))?;
        let kept = [&self.last, &self.margin, &best].map(|points| pgd::budget(device, points, &self.x0));
        let [last, margin, chosen] = kept;
        let (last, margin, chosen) = (last?, margin?, chosen?);
        let outcomes = self.progress.iter().enumerate().map(|(i, p)| {
            let correct_clean = clean.prediction[i] == self.labels[i];
            Outcome {
                prediction: p.last_prediction,
                clean_prediction: clean.prediction[i],
                correct_clean,
                correct_last: correct_clean && !p.last_success,
                correct_any: correct_clean && p.first_success.is_none(),
                first_success: p.first_success,
                steps: p.steps,
                margin: p.best_margin,
                loss: p.best_loss,
                linf: last[i].linf,
                l2: last[i].l2,
                violation: [last[i], margin[i], chosen[i]].iter().any(|b| b.violates(spec.norm, spec.eps)),
                top5: None,
                clean_top5: None,
            }
        });
        let outcomes = outcomes.collect();
        self.out.last = self.last.to_f32(device)?;
        self.out.best_margin = self.margin.to_f32(device)?;
        self.out.best = best.to_f32(device)?;
        Ok((outcomes, self.out))
    }
}
