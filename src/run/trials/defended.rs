//! The defence taken apart: how far draws of the gradient agree, what it does without noise, what the noise does alone, and what is clipped.

use super::found::{Ablation, Clamped, Eot};
use super::lab::Lab;
use crate::Result;
use crate::attack::{Loss, Purpose, Query, Stream, Target};

/// Images whose gradients are compared.
pub(super) const COMPARED: usize = 2;
/// Draws of each of the two gradients that are compared.
pub(super) const DRAWS: [u32; 6] = [1, 2, 5, 10, 20, 40];
/// A restart that no attack has: the draws are those of nothing else.
const APART: u32 = (1 << 10) - 1;

/// Cosine and agreement of signs of two gradients, averaged over images of `len` values.
fn agreement(a: &[f64], b: &[f64], len: usize) -> (f64, f64) {
    let images = a.len() / len.max(1);
    let of = |(a, b): (&[f64], &[f64])| {
        let dot: f64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
        let norms: [f64; 2] = [a, b].map(|v| v.iter().map(|v| v * v).sum::<f64>().sqrt());
        let cosine = if norms[0] * norms[1] > 0.0 { dot / (norms[0] * norms[1]) } else { 0.0 };
        let signs = a.iter().zip(b).filter(|(a, b)| (**a > 0.0) == (**b > 0.0) && (**a < 0.0) == (**b < 0.0)).count();
        (cosine, signs as f64 / len as f64)
    };
    let all = a.chunks_exact(len).zip(b.chunks_exact(len)).map(of);
    let (cosines, signs) = all.fold((0.0, 0.0), |sum, (c, s)| (sum.0 + c, sum.1 + s));
    (cosines / images as f64, signs / images as f64)
}

pub(super) fn eot(lab: &Lab) -> Result<Option<Eot>> {
    let Some(net) = lab.defended(None) else { return Ok(None) };
    let batch = lab.first(COMPARED)?;
    let loss = if lab.config.attack.targeted == Target::None { lab.config.attack.loss } else { Loss::CrossEntropy };
    let mut sums: [Vec<f64>; 2] = [0, 1].map(|_| vec![0.0; batch.pixels.len()]);
    let mut curve = Vec::new();
    for draw in 0..DRAWS[DRAWS.len() - 1] {
        for (half, sum) in sums.iter_mut().enumerate() {
            let step = 2 * draw + half as u32;
            let query = Query { ids: &batch.ids, restart: APART, step, ..Query::new(&batch.labels, loss) };
            let gradient = lab.gradient(&net, &batch.images, &query)?;
            sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += f64::from(g));
        }
        if DRAWS.contains(&(draw + 1)) {
            let (cosine, signs) = agreement(&sums[0], &sums[1], lab.pixels());
            curve.push((draw + 1, cosine, signs));
        }
    }
    Ok(Some(Eot { n: batch.ids.len() as u64, sigma: net.level.sigma, curve }))
}

pub(super) fn ablation(lab: &Lab) -> Result<Option<Ablation>> {
    let Some((denoiser, levels)) = lab.denoiser else { return Ok(None) };
    let Some(level) = levels.first() else { return Ok(None) };
    let stream = Stream { restart: APART, ..Stream::new(lab.config.seed, Purpose::Noise) };
    let (images, ids) = (&lab.batch.images, &lab.batch.ids);
    let right = |images: &crate::tensor::Tensor| -> Result<u64> {
        let predicted = lab.predicted(lab.net, images)?;
        Ok(predicted.iter().zip(&lab.batch.labels).filter(|(p, label)| p == label).count() as u64)
    };
    Ok(Some(Ablation {
        n: lab.len() as u64,
        sigma: level.sigma,
        undefended: right(images)?,
        no_noise: right(&denoiser.images(images, ids, &denoiser.level(0.0)?, &stream)?)?,
        denoised: right(&denoiser.images(images, ids, level, &stream)?)?,
        noise_alone: right(&denoiser.noised(images, ids, level, &stream)?)?,
    }))
}

/// How near to 0 and 1 a gate counts as shut.
const SHUT: f32 = 1e-4;

pub(super) fn clamped(lab: &Lab) -> Result<Clamped> {
    let mut found = Clamped::default();
    let images = &lab.batch.images;
    if let Some((denoiser, levels)) = lab.denoiser
        && let Some(level) = levels.first()
    {
        let stream = Stream { restart: APART, ..Stream::new(lab.config.seed, Purpose::Noise) };
        let out = denoiser.images(images, &lab.batch.ids, level, &stream)?.to_f32(lab.device())?;
        let clipped = out.iter().filter(|&&v| v <= 0.0 || v >= 1.0).count();
        found.pixels = Some(clipped as f64 / out.len().max(1) as f64);
    }
    let net = lab.net.net();
    // Rows of a transformer's attention sum to 1 and are no gates.
    let gates: Vec<String> = net.attention_maps().into_iter().filter(|name| name.contains("gate")).collect();
    let stages = net.stages();
    for (name, values) in gates.iter().zip(lab.net.probe(images, &gates)?) {
        let values = values.to_f32(lab.device())?;
        let shut = values.iter().filter(|v| !(SHUT..=1.0 - SHUT).contains(*v)).count();
        found.gates.push((name.clone(), shut as f64 / values.len().max(1) as f64));
    }
    for (name, out) in stages.iter().zip(lab.net.probe(images, &stages)?) {
        let channels = out.shape().last().copied().unwrap_or(1).max(1);
        let values = out.to_f32(lab.device())?;
        let lives = |channel: usize| values.chunks_exact(channels).any(|row| row[channel] != 0.0);
        let dead = (0..channels).filter(|&channel| !lives(channel)).count();
        found.dead.push((name.clone(), dead as f64 / channels as f64));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_that_agree_do_so_in_angle_and_sign() {
        let a = [1.0, 2.0, -1.0, 0.0];
        let near = |(cosine, signs): (f64, f64), want: f64| (cosine - want).abs() < 1e-12 && signs > 0.0;
        assert!(near(agreement(&a, &a, 4), 1.0) && agreement(&a, &a, 4).1 == 1.0);
        assert!(near(agreement(&a, &a.map(|v| -v), 4), -1.0) && agreement(&a, &a.map(|v| -v), 4).1 == 0.25);
        assert_eq!(agreement(&a, &[0.0; 4], 4), (0.0, 0.25));
        let (cosine, signs) = agreement(&[1.0, 0.0, 1.0, 0.0], &[1.0, 0.0, 0.0, 1.0], 2);
        assert!((cosine - 0.5).abs() < 1e-12 && signs == 0.5);
    }
}
