//! The defended pipeline as an attack sees it: gradients run through noising, denoiser, clip and classifier.
//!
//! Every evaluation takes K fresh draws of noise per image, as many in one batch as memory allows. Loss and margin are means over the draws,
//! the prediction is their vote, unless only the last draw is to tell, as in AutoAttack as published. Sources: Athalye et al. 2018 (EOT, BPDA), Salman et al. 2019 (mean softmax), Lee & Kim 2023; the mean of
//! logits is foolbox's.

use std::ops::Range;
use std::sync::Arc;

use super::denoise::{Denoiser, Gradient, Level};
use crate::attack::{self, Evaluation, Loss, Oracle as _, Query};
use crate::choice::choice;
use crate::device::{DType, Device};
use crate::models::batch::in_chunks;
use crate::models::classifier::Classifier;
use crate::ops::diffusion::sum_draws;
use crate::ops::philox::{Purpose, Stream, normal};
use crate::ops::pointwise::{Affine, accumulate, affine};
use crate::ops::recording;
use crate::stats::softmax;
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;
use crate::{Error, Result};

choice! {
    /// How the gradient of the defended pipeline is estimated.
    Estimator {
        /// Mean over the draws of the gradient of each draw's loss.
        EotGrad = "eot_grad",
        /// Gradient of the loss of the mean softmax; with the cross-entropy only.
        EotProb = "eot_prob",
        /// Gradient of the loss of the mean logits.
        EotLogit = "eot_logit",
        /// Gradient of the margin of the mean softmax, which a vote goes by; whatever the loss.
        VoteMargin = "vote_margin",
        /// Forward through the denoiser, backward as if it were the identity.
        Bpda = "bpda",
        /// As that, but backward through the resizes and the noising in front of the denoiser.
        BpdaNoise = "bpda_noise",
        /// The classifier without the defence: an attack that is merely transferred; draws choose among its points alone.
        Blind = "blind",
    }
}

impl Estimator {
    /// Whether the gradient of a draw depends on what the other draws say.
    pub fn joint(self) -> bool {
        matches!(self, Estimator::EotProb | Estimator::EotLogit | Estimator::VoteMargin)
    }

    /// Whether gradients run through the clip of the denoiser's estimate.
    pub fn clips(self) -> bool {
        self.joint() || self == Estimator::EotGrad
    }
}

/// A classifier behind a denoiser, with fresh noise for every image, restart and step.
pub struct Defended<'a> {
    pub classifier: &'a Classifier,
    pub denoiser: &'a Denoiser,
    pub level: Level,
    pub estimator: Estimator,
    /// K, at least 1
    pub draws: u32,
    pub seed: u64,
    /// The clip of the estimate passes gradients on as if it were not there.
    pub straight: bool,
    /// Every second draw is the one before with its sign turned.
    pub antithetic: bool,
    /// Loss, margin and prediction are those of the last draw alone, as in AutoAttack as published, and not the mean and the vote; the
    /// gradient is summed over all draws all the same.
    pub last_draw: bool,
    /// The draws of this stream at every step, in place of fresh ones.
    pub fixed: Option<Stream>,
}

impl Defended<'_> {
    /// Noise `(draws * N, ..dims)`, draw by draw.
    fn noise(&self, query: &Query, draws: &Range<usize>, dims: &[usize]) -> Result<Tensor> {
        let device = self.classifier_device();
        let fresh = Stream { restart: query.restart, step: query.step, ..Stream::new(self.seed, Purpose::AttackNoise) };
        let stream = self.fixed.unwrap_or(fresh);
        let draws = (draws.start as u32..draws.end as u32).map(|draw| {
            let turned = self.antithetic && draw % 2 == 1;
            let drawn = Stream { draw: if turned { draw - 1 } else { draw }, ..stream };
            let noise = normal(device, &drawn, query.ids, dims)?;
            if !turned {
                return Ok(noise);
            }
            let channels = dims.last().copied().unwrap_or(1);
            let sign = Arc::new(Affine::new(device, &vec![-1.0; channels], &vec![0.0; channels])?);
            affine(&Graph::inference(device, Precision::F32), &noise, &sign)
        });
        Tensor::concat(device, &draws.collect::<Result<Vec<_>>>()?)
    }

    fn classifier_device(&self) -> &Device {
        self.denoiser.device()
    }

    fn query(&self, images: &Tensor, query: &Query, wanted: bool) -> Result<Evaluation> {
        let [n, h, w, _] = images.dims4("defended")?;
        if query.ids.len() != n {
            return Err(Error::shape("defended", "image ids, which key the noise", n, query.ids.len()));
        }
        if self.estimator == Estimator::EotProb && (query.loss != Loss::CrossEntropy || query.targets.is_some()) {
            return Err(Error::usage("defense.estimator", "eot_prob is defined for the untargeted cross-entropy only"));
        }
        let chunk = (self.denoiser.chunk(h, w) / self.at_once(h, w)).max(1);
        let parts = in_chunks(self.classifier_device(), chunk, n, |range| {
            let x = images.rows(range.start, range.len())?;
            let part = Query {
                labels: &query.labels[range.clone()],
                targets: query.targets.map(|t| &t[range.clone()]),
                ids: &query.ids[range],
                ..*query
            };
            self.part(&x, &part, wanted)
        })?;
        Evaluation::joined(self.classifier_device(), parts)
    }

    /// Draws that are denoised, and recorded, together: whatever the batch, so that sums are the same in any. On the host as many as
    /// the network walks over at a time; on a GPU one, so that the batch alone says how much memory a pass takes.
    fn at_once(&self, h: usize, w: usize) -> usize {
        if self.classifier_device().plan().serial { self.denoiser.chunk(h, w).clamp(1, self.draws as usize) } else { 1 }
    }

    fn part(&self, x: &Tensor, query: &Query, wanted: bool) -> Result<Evaluation> {
        let ([n, h, w, _], draws) = (x.dims4("defended")?, self.draws as usize);
        let at_once = self.at_once(h, w);
        let pieces = || (0..draws).step_by(at_once).map(|first| first..(first + at_once).min(draws));
        // Slopes that depend on all draws: without a gradient first, where one pass does not hold them.
        let mut joint = None;
        if self.estimator.joint() && at_once < draws {
            let mut logits = Vec::new();
            for piece in pieces() {
                logits.extend(self.pass(x, query, &piece, false, None)?.1);
            }
            joint = Some(self.joint(&logits, query)?);
        }
        let classes = self.classifier.classes();
        let mut all = Evaluation { gradient: None, loss: vec![], margin: vec![], prediction: vec![] };
        for piece in pieces() {
            let own = joint.as_ref().map(|joint| &joint.slopes[piece.start * n * classes..piece.end * n * classes]);
            let (Evaluation { gradient, loss, margin, prediction }, logits) =
                self.pass(x, query, &piece, wanted, own)?;
            if self.estimator.joint() && joint.is_none() {
                joint = Some(self.joint(&logits, query)?);
            }
            all.gradient = match (all.gradient, gradient) {
                (Some(sum), Some(more)) => {
                    let g = Graph::inference(self.classifier_device(), self.denoiser.precision());
                    Some(accumulate(&g, &sum, Some(&more), None)?)
                }
                (sum, more) => sum.or(more),
            };
            all.loss.extend(loss);
            all.margin.extend(margin);
            all.prediction.extend(prediction);
        }
        if self.last_draw {
            let last = (draws - 1) * n;
            return Ok(Evaluation {
                gradient: all.gradient,
                loss: all.loss.split_off(last),
                margin: all.margin.split_off(last),
                prediction: all.prediction.split_off(last),
            });
        }
        let mean = |values: &[f32], i: usize| {
            (0..draws).map(|k| f64::from(values[k * n + i])).sum::<f64>() as f32 / draws as f32
        };
        Ok(Evaluation {
            gradient: all.gradient,
            loss: joint.map_or_else(|| (0..n).map(|i| mean(&all.loss, i)).collect(), |joint| joint.loss),
            margin: (0..n).map(|i| mean(&all.margin, i)).collect(),
            prediction: (0..n).map(|i| vote((0..draws).map(|k| all.prediction[k * n + i]))).collect(),
        })
    }

    /// What estimators maximise that look at all draws together, from logits `(draws * N, K)`.
    fn joint(&self, logits: &[f32], query: &Query) -> Result<Joint> {
        let (device, n, classes) = (self.classifier_device(), query.labels.len(), self.classifier.classes());
        if self.estimator != Estimator::EotLogit {
            let of = if self.estimator == Estimator::EotProb { mean_softmax } else { vote_margin };
            return Ok(of(logits, query, classes));
        }
        let draws = logits.len() / (n * classes).max(1);
        let mean =
            |at: usize| (0..draws).map(|k| f64::from(logits[k * n * classes + at])).sum::<f64>() as f32 / draws as f32;
        let mean: Vec<f32> = (0..n * classes).map(mean).collect();
        let g = Graph::inference(device, Precision::F32);
        let mean = Tensor::from_f32(device, &[n, classes], DType::F32, &mean)?;
        let out = self.classifier.losses(&g, &mean, &self.classifier.posed(query)?)?;
        Ok(Joint { slopes: out.dlogits.to_f32(device)?.repeat(draws), loss: out.loss.to_f32(device)? })
    }

    /// Some draws of noise: the sum of their gradients, and loss, margin and prediction of each, `(draws * N)`; beside that the logits,
    /// of joint estimators. Those take `slopes`, the gradient with respect to the logits, where they are known.
    fn pass(
        &self,
        x: &Tensor,
        query: &Query,
        piece: &Range<usize>,
        wanted: bool,
        slopes: Option<&[f32]>,
    ) -> Result<(Evaluation, Vec<f32>)> {
        let (device, precision) = (self.classifier_device(), self.denoiser.precision());
        let ([n, h, w, c], draws) = (x.dims4("defended")?, piece.len());
        let noise = self.noise(query, piece, &self.denoiser.noise_shape([h, w, c]))?;
        let range = self.denoiser.output_range();
        let graph = |records| {
            if records { recording(device, precision) } else { Graph::inference(device, precision) }
        };
        let recorded = wanted && (self.estimator.clips() || self.estimator == Estimator::BpdaNoise);
        let gradient = match (self.estimator, self.straight) {
            (Estimator::BpdaNoise, _) => Gradient::Identity,
            (_, true) => Gradient::Straight,
            (_, false) => Gradient::Exact,
        };
        let through = wanted && self.estimator == Estimator::Bpda;
        // BPDA keeps the classifier's graph only: its input stands for the denoiser's.
        let (g, denoised) = if through {
            let denoised = self.denoiser.estimate(&graph(false), x, &noise, &self.level, range, gradient)?;
            (graph(true), denoised)
        } else {
            let g = graph(recorded);
            let denoised = self.denoiser.estimate(&g, x, &noise, &self.level, range, gradient)?;
            (g, denoised)
        };
        let logits = self.classifier.forward(&g, &denoised)?;
        let (labels, targets) = (query.labels.repeat(draws), query.targets.map(|t| t.repeat(draws)));
        let posed = self.classifier.posed(&Query { labels: &labels, targets: targets.as_deref(), ..*query })?;
        let out = self.classifier.losses(&g, &logits, &posed)?;
        let (loss, margin) = (out.loss.to_f32(device)?, out.margin.to_f32(device)?);
        let prediction = out.prediction.to_i32(device)?;
        let found = if self.estimator.joint() { logits.to_f32(device)? } else { vec![] };

        let gradient = match self.estimator {
            _ if !wanted => None,
            Estimator::Blind => None,
            Estimator::EotGrad | Estimator::BpdaNoise => Some(g.backward(&logits, out.dlogits, x)?),
            Estimator::EotProb | Estimator::EotLogit | Estimator::VoteMargin => {
                let own = match slopes {
                    Some(_) => None,
                    None => Some(self.joint(&found, query)?.slopes),
                };
                let values = slopes.or(own.as_deref()).unwrap_or_default();
                let dlogits = Tensor::from_f32(device, logits.shape(), out.dlogits.dtype(), values)?;
                Some(g.backward(&logits, dlogits, x)?)
            }
            Estimator::Bpda => {
                let dx = g.backward(&logits, out.dlogits, &denoised)?;
                Some(sum_draws(&graph(false), &dx, n)?)
            }
        };
        let prediction = prediction.into_iter().map(|class| class as u32).collect();
        Ok((Evaluation { gradient, loss, margin, prediction }, found))
    }
}

/// The gradient with respect to each draw's logits, `(draws * N, K)`, times the number of draws, as other estimators sum over them; and the
/// loss of each image.
struct Joint {
    slopes: Vec<f32>,
    loss: Vec<f32>,
}

/// The softmax of every row.
fn rows(logits: &[f32], classes: usize) -> Vec<Vec<f64>> {
    logits.chunks_exact(classes.max(1)).map(softmax).collect()
}

/// `-log mean p` of the label: each draw's own gradient, weighted by its share of the sum of its `p`.
fn mean_softmax(logits: &[f32], query: &Query, classes: usize) -> Joint {
    let (n, p) = (query.labels.len(), rows(logits, classes));
    let draws = p.len() / n.max(1);
    let mut joint = Joint { slopes: vec![0.0; logits.len()], loss: vec![0.0; n] };
    for (i, &label) in query.labels.iter().enumerate() {
        let label = label as usize;
        // Far from the label all of them may vanish: their logarithms do not.
        let logs: Vec<f64> =
            (0..draws).map(|k| log_softmax(&logits[(k * n + i) * classes..][..classes], label)).collect();
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logs.iter().map(|log| (log - most).exp()).sum();
        joint.loss[i] = -(most + (total / draws as f64).ln()) as f32;
        for (k, log) in logs.iter().enumerate() {
            let weight = (log - most).exp() / total * draws as f64;
            let row = k * n + i;
            for (c, &p) in p[row].iter().enumerate() {
                joint.slopes[row * classes + c] = (weight * (p - f64::from(u8::from(c == label)))) as f32;
            }
        }
    }
    joint
}

/// The mean softmax of the best other class less that of the label; towards a target, the target's less that of the best other class.
fn vote_margin(logits: &[f32], query: &Query, classes: usize) -> Joint {
    let (n, p) = (query.labels.len(), rows(logits, classes));
    let draws = p.len() / n.max(1);
    let mut joint = Joint { slopes: vec![0.0; logits.len()], loss: vec![0.0; n] };
    for i in 0..n {
        let mean: Vec<f64> =
            (0..classes).map(|c| (0..draws).map(|k| p[k * n + i][c]).sum::<f64>() / draws as f64).collect();
        let own = query.targets.map_or(query.labels, |targets| targets)[i] as usize;
        let others = (0..classes).filter(|&c| c != own);
        let other = others.fold(None, |best: Option<usize>, c| best.filter(|&b| mean[b] >= mean[c]).or(Some(c)));
        let Some(other) = other else { continue };
        // Of the two, the first should rise.
        let (up, down) = if query.targets.is_some() { (own, other) } else { (other, own) };
        joint.loss[i] = (mean[up] - mean[down]) as f32;
        for k in 0..draws {
            let (row, p) = (k * n + i, &p[k * n + i]);
            let slope = p[up] - p[down];
            for (c, &share) in p.iter().enumerate() {
                let sign = f64::from(u8::from(c == up)) - f64::from(u8::from(c == down));
                joint.slopes[row * classes + c] = (share * (sign - slope)) as f32;
            }
        }
    }
    joint
}

fn log_softmax(logits: &[f32], class: usize) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = logits.iter().map(|&z| f64::from(z - most).exp()).sum();
    f64::from(logits[class] - most) - total.ln()
}

/// The most frequent value, the lowest among equals.
fn vote(predictions: impl Iterator<Item = u32>) -> u32 {
    let mut counts: Vec<(u32, u32)> = Vec::new();
    for p in predictions {
        match counts.iter_mut().find(|(class, _)| *class == p) {
            Some((_, count)) => *count += 1,
            None => counts.push((p, 1)),
        }
    }
    counts.into_iter().max_by_key(|&(class, count)| (count, std::cmp::Reverse(class))).map_or(0, |(class, _)| class)
}

impl attack::Oracle for Defended<'_> {
    fn device(&self) -> &Device {
        self.denoiser.device()
    }

    fn classes(&self) -> usize {
        self.classifier.classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.classifier.image_shape()
    }

    fn repeats_itself(&self) -> bool {
        false
    }

    /// Of the undefended classifier: what picks targets does not depend on noise.
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.classifier.logits(images)
    }

    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.query(images, query, false)
    }
}

impl attack::Classifier for Defended<'_> {
    /// The gradient is the sum over the draws; only its direction matters to an attack.
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        let mut evaluation = self.query(images, query, true)?;
        if self.estimator == Estimator::Blind {
            evaluation.gradient = attack::Classifier::gradient(self.classifier, images, query)?.gradient;
        }
        debug_assert!(evaluation.gradient.as_ref().is_none_or(|g| g.dtype() == DType::F32));
        Ok(evaluation)
    }
}
