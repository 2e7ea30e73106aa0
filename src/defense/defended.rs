//! The defended pipeline as an attack sees it: gradients run through noising, denoiser, clip and classifier.
//!
//! Every evaluation takes K fresh draws of noise per image, as many in one batch as memory allows. Loss and margin are means over the draws,
//! the prediction is their vote. Sources: Athalye et al. 2018 (EOT, BPDA), Salman et al. 2019 (mean softmax), Lee & Kim 2023.

use std::ops::Range;

use super::denoise::{Denoiser, Level};
use crate::attack::{self, Evaluation, Loss, Query};
use crate::choice::choice;
use crate::device::{DType, Device};
use crate::models::batch::in_chunks;
use crate::models::classifier::Classifier;
use crate::ops::diffusion::sum_draws;
use crate::ops::philox::{Purpose, Stream, normal};
use crate::ops::pointwise::accumulate;
use crate::ops::recording;
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result};

choice! {
    /// How the gradient of the defended pipeline is estimated.
    Estimator {
        /// Mean over the draws of the gradient of each draw's loss.
        EotGrad = "eot_grad",
        /// Gradient of the loss of the mean softmax; with the cross-entropy only.
        EotProb = "eot_prob",
        /// Forward through the denoiser, backward as if it were the identity.
        Bpda = "bpda",
        /// The classifier without the defence: an attack that is merely transferred.
        Blind = "blind",
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
}

impl Defended<'_> {
    /// Noise `(draws * N, ..dims)`, draw by draw.
    fn noise(&self, query: &Query, draws: &Range<usize>, dims: &[usize]) -> Result<Tensor> {
        let draws = (draws.start as u32..draws.end as u32).map(|draw| {
            let stream = Stream {
                seed: self.seed,
                purpose: Purpose::AttackNoise,
                restart: query.restart,
                step: query.step,
                draw,
            };
            normal(self.classifier_device(), &stream, query.ids, dims)
        });
        Tensor::concat(self.classifier_device(), &draws.collect::<Result<Vec<_>>>()?)
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
        // The weights of eot_prob depend on the losses of all draws: without a gradient first, where one pass does not hold them.
        let mut weights = None;
        if wanted && self.estimator == Estimator::EotProb && at_once < draws {
            let mut loss = Vec::new();
            for piece in pieces() {
                loss.extend(self.pass(x, query, &piece, false, None)?.loss);
            }
            weights = Some(shares(&loss, n));
        }
        let mut all = Evaluation { gradient: None, loss: vec![], margin: vec![], prediction: vec![] };
        for piece in pieces() {
            let own = weights.as_ref().map(|w| &w[piece.start * n..piece.end * n]);
            let Evaluation { gradient, loss, margin, prediction } = self.pass(x, query, &piece, wanted, own)?;
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
        let mean = |values: &[f32], i: usize| {
            (0..draws).map(|k| f64::from(values[k * n + i])).sum::<f64>() as f32 / draws as f32
        };
        Ok(Evaluation {
            gradient: all.gradient,
            loss: (0..n).map(|i| mean(&all.loss, i)).collect(),
            margin: (0..n).map(|i| mean(&all.margin, i)).collect(),
            prediction: (0..n).map(|i| vote((0..draws).map(|k| all.prediction[k * n + i]))).collect(),
        })
    }

    /// Some draws of noise: the sum of their gradients, and loss, margin and prediction of each, `(draws * N)`.
    fn pass(
        &self,
        x: &Tensor,
        query: &Query,
        piece: &Range<usize>,
        wanted: bool,
        weights: Option<&[f32]>,
    ) -> Result<Evaluation> {
        let (device, precision) = (self.classifier_device(), self.denoiser.precision());
        let ([n, h, w, _], draws) = (x.dims4("defended")?, piece.len());
        let noise = self.noise(query, piece, &self.denoiser.noise_shape(h, w))?;
        let range = self.denoiser.output_range();
        let graph = |records| {
            if records { recording(device, precision) } else { Graph::inference(device, precision) }
        };
        let exact = wanted && matches!(self.estimator, Estimator::EotGrad | Estimator::EotProb);
        let through = wanted && self.estimator == Estimator::Bpda;
        // BPDA keeps the classifier's graph only: its input stands for the denoiser's.
        let (g, denoised) = if through {
            let denoised = self.denoiser.estimate(&graph(false), x, &noise, &self.level, range, false)?;
            (graph(true), denoised)
        } else {
            let g = graph(exact);
            let denoised = self.denoiser.estimate(&g, x, &noise, &self.level, range, false)?;
            (g, denoised)
        };
        let logits = self.classifier.forward(&g, &denoised)?;
        let (labels, targets) = (query.labels.repeat(draws), query.targets.map(|t| t.repeat(draws)));
        let out =
            self.classifier.losses(&g, &logits, &Query { labels: &labels, targets: targets.as_deref(), ..*query })?;
        let (loss, margin) = (out.loss.to_f32(device)?, out.margin.to_f32(device)?);
        let prediction = out.prediction.to_i32(device)?;

        let gradient = match self.estimator {
            _ if !wanted => None,
            Estimator::Blind => None,
            Estimator::EotGrad => Some(g.backward(&logits, out.dlogits, x)?),
            Estimator::EotProb => {
                let scaled = match weights {
                    Some(weights) => weighted(device, &out.dlogits, weights)?,
                    None => weighted(device, &out.dlogits, &shares(&loss, n))?,
                };
                Some(g.backward(&logits, scaled, x)?)
            }
            Estimator::Bpda => {
                let dx = g.backward(&logits, out.dlogits, &denoised)?;
                Some(sum_draws(&graph(false), &dx, n)?)
            }
        };
        Ok(Evaluation {
            gradient,
            loss,
            margin,
            prediction: prediction.into_iter().map(|class| class as u32).collect(),
        })
    }
}

/// The gradient of `-log mean p` with respect to each draw's logits is that of the draw's own loss, weighted by its share of the sum
/// of `p = exp(-loss)`; times the number of draws, as the other estimators sum over them. `(draws * N)`
fn shares(loss: &[f32], n: usize) -> Vec<f32> {
    let draws = loss.len() / n.max(1);
    let mut weights = vec![0.0; loss.len()];
    for i in 0..n {
        let least = (0..draws).map(|k| f64::from(loss[k * n + i])).fold(f64::INFINITY, f64::min);
        let powers: Vec<f64> = (0..draws).map(|k| (least - f64::from(loss[k * n + i])).exp()).collect();
        let total: f64 = powers.iter().sum();
        powers.iter().enumerate().for_each(|(k, p)| weights[k * n + i] = (p / total * draws as f64) as f32);
    }
    weights
}

fn weighted(device: &Device, dlogits: &Tensor, weights: &[f32]) -> Result<Tensor> {
    let [rows, classes] = dlogits.dims2("eot_prob")?;
    let mut values = dlogits.to_f32(device)?;
    for (row, weight) in values.chunks_exact_mut(classes.max(1)).zip(weights) {
        row.iter_mut().for_each(|v| *v *= weight);
    }
    Tensor::from_f32(device, &[rows, classes], dlogits.dtype(), &values)
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
