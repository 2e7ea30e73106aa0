//! Gradients at clean images: how long they are, and whether differences of the loss bear them out.
//!
//! Source: Athalye et al. 2018; Carlini et al. 2019.

use super::found::{Differences, Gradients};
use super::lab::{Lab, length};
use crate::Result;
use crate::attack::{Classifier, Loss, Purpose, Query, Stream};
use crate::device::DType;
use crate::ops::philox::uniform;
use crate::run::engine::Batch;
use crate::tensor::Tensor;

/// Gradients shorter than this count as vanished.
const TINY: f64 = 1e-12;
/// Of the cross-entropy's gradient, relative to that of the difference of logits ratio, before it counts as vanished.
const FAINT: f64 = 1e-6;
/// Images whose gradients are compared with differences, and through the denoiser.
pub(super) const COMPARED: [usize; 2] = [4, 2];
/// Random directions beside that of the gradient.
const DIRECTIONS: u32 = 3;
/// Steps in pixel units, of directions whose root mean square is 1: what crosses the kinks of many a ReLU at the first does not at the last,
/// and what drowns in rounding at the last does not at the first.
const STEPS: [f64; 4] = [1e-3, 3e-4, 1e-4, 3e-5];
/// The share of a change that a gradient tells of at the largest step along itself, below which smaller steps do not count.
const FLAT: f64 = 0.1;
/// Forward passes of an image.
pub(super) const EVALUATED: u64 = 2 * (1 + DIRECTIONS as u64) * STEPS.len() as u64;

pub(super) fn gradients(lab: &Lab) -> Result<Gradients> {
    let Batch { images, labels, ids, .. } = &lab.batch;
    let query = |loss| Query { ids, ..Query::new(labels, loss) };
    let own = lab.lengths(lab.net, images, &query(lab.config.attack.loss))?;
    let entropy = lab.config.attack.loss == Loss::CrossEntropy && crate::attack::Oracle::classes(lab.net) >= 3;
    let faint = match entropy {
        true => {
            let ratio = lab.lengths(lab.net, images, &query(Loss::Dlr))?;
            Some(lab.ids_of(|i| own[i] < FAINT * ratio[i]))
        }
        false => None,
    };
    let mut lengths: Vec<(i32, u64)> = Vec::new();
    let mut sorted = own.clone();
    sorted.sort_by(f64::total_cmp);
    for decade in sorted.iter().filter(|v| v.is_finite() && **v > 0.0).map(|v| v.log10().floor() as i32) {
        match lengths.last_mut() {
            Some((last, count)) if *last == decade => *count += 1,
            _ => lengths.push((decade, 1)),
        }
    }
    Ok(Gradients {
        n: lab.len() as u64,
        zero: lab.ids_of(|i| own[i] == 0.0),
        tiny: lab.ids_of(|i| own[i] < TINY && own[i] > 0.0),
        not_finite: lab.ids_of(|i| !own[i].is_finite()),
        faint,
        lengths,
        median_log10: sorted.get(sorted.len() / 2).map_or(f64::NEG_INFINITY, |v| v.log10()).max(-99.0),
    })
}

pub(super) fn differences(lab: &Lab) -> Result<Differences> {
    compared(lab, lab.net, &lab.first(COMPARED[0])?)
}

pub(super) fn differences_defended(lab: &Lab) -> Result<Option<Differences>> {
    let Some(frozen) = lab.defended(Some(Stream::new(lab.config.seed, Purpose::AttackNoise))) else { return Ok(None) };
    compared(lab, &frozen, &lab.first(COMPARED[1])?).map(Some)
}

fn compared(lab: &Lab, net: &dyn Classifier, batch: &Batch) -> Result<Differences> {
    let (device, len, n) = (lab.device(), lab.pixels(), batch.ids.len());
    // The margin: the cross-entropy of a confident image is all rounding.
    let query = Query { ids: &batch.ids, ..Query::new(&batch.labels, Loss::Margin) };
    // Inside of the box, so that a network that clips its input has no edge here.
    let edge = 2.0 * STEPS[0] as f32;
    let base: Vec<f32> = batch.pixels.iter().map(|v| v.clamp(edge, 1.0 - edge)).collect();
    let tensor = |values: &[f32]| Tensor::from_f32(device, batch.images.shape(), DType::F32, values);
    let gradient = lab.gradient(net, &tensor(&base)?, &query)?;
    let mut directions: Vec<Vec<f32>> = vec![along(&gradient, len)];
    for draw in 0..DIRECTIONS {
        let stream = Stream { draw, ..Stream::new(lab.config.seed, Purpose::Search) };
        let [h, w, c] = [lab.dataset.height, lab.dataset.width, len / (lab.dataset.height * lab.dataset.width)];
        let drawn = uniform(device, &stream, &batch.ids, &[h, w, c])?.to_f32(device)?;
        directions.push(drawn.iter().map(|&v| if v < 0.5 { -1.0 } else { 1.0 }).collect());
    }
    let mut worst = vec![0f64; n];
    let mut shattered = vec![false; n];
    for (number, direction) in directions.iter().enumerate() {
        let mut errors = vec![f64::INFINITY; n];
        for step in STEPS {
            let moved = |by: f64| -> Result<Vec<f32>> {
                let x: Vec<f32> = base.iter().zip(direction).map(|(x, d)| x + by as f32 * d).collect();
                Ok(net.evaluate(&tensor(&x)?, &query)?.loss)
            };
            let (up, down) = (moved(step)?, moved(-step)?);
            for i in 0..n {
                let own = &gradient[i * len..(i + 1) * len];
                let d = &direction[i * len..(i + 1) * len];
                // What was really added, after rounding to float32.
                let at = &base[i * len..(i + 1) * len];
                let told: f64 = own
                    .iter()
                    .zip(at.iter().zip(d))
                    .map(|(&g, (&x, &d))| {
                        let by = step as f32 * d;
                        f64::from(g) * (f64::from(x + by) - f64::from(x - by))
                    })
                    .sum();
                let seen = f64::from(up[i]) - f64::from(down[i]);
                // A random direction changes the loss by so much on average.
                let scale = (2.0 * step * length(own)).max(told.abs()).max(seen.abs());
                let error = if scale > 0.0 { (told - seen).abs() / scale } else { 0.0 };
                // A slope that holds for no step worth taking is none, however right it is at a point.
                shattered[i] |= number == 0 && step == STEPS[0] && told.abs() < FLAT * seen.abs();
                errors[i] = match () {
                    () if error.is_nan() => f64::NAN,
                    () if shattered[i] => 1.0,
                    () => errors[i].min(error),
                };
            }
        }
        worst.iter_mut().zip(errors).for_each(|(w, e)| *w = if e.is_nan() || e > *w { e } else { *w });
    }
    Ok(Differences { worst: batch.ids.iter().copied().zip(worst).collect() })
}

/// The direction of each gradient, of the length of a vector of ones; of a gradient that is zero a vector of ones.
fn along(gradient: &[f32], len: usize) -> Vec<f32> {
    let of = |g: &[f32]| -> Vec<f32> {
        let norm = length(g);
        match norm > 0.0 && norm.is_finite() {
            true => g.iter().map(|&v| (f64::from(v) / norm * (len as f64).sqrt()) as f32).collect(),
            false => vec![1.0; g.len()],
        }
    };
    gradient.chunks_exact(len).flat_map(of).collect()
}
