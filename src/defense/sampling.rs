//! Randomised smoothing's draws: noise, denoiser, classifier and count in one pass on the device.
//!
//! Source: Cohen, Rosenfeld & Kolter 2019; Carlini et al. 2023 (with a denoiser in front).

use std::ops::Range;

use super::denoise::{Denoiser, Gradient, Level};
use crate::models::batch::in_chunks;
use crate::models::classifier::Classifier;
use crate::ops::pgd::gather;
use crate::ops::philox::{Stream, normal_rows};
use crate::ops::vote::Votes;
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result, attack::Oracle as _};

/// A classifier under noise of one level.
#[derive(Clone, Copy)]
pub struct Smoothing<'a> {
    pub classifier: &'a Classifier,
    pub denoiser: &'a Denoiser,
    pub level: &'a Level,
    /// Of the noise: its draws are those that are asked for.
    pub stream: Stream,
    /// Draws in one pass over a GPU; the host takes as many as fit its caches.
    pub batch: usize,
}

/// Which draws of an image are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which of the images.
    pub image: usize,
    pub draws: Range<u32>,
}

impl Wanted {
    fn len(&self) -> usize {
        self.draws.len()
    }
}

impl Smoothing<'_> {
    /// How many of the wanted draws of each image are for which class.
    ///
    /// | arg | shape | |
    /// |---|---|---|
    /// | `images` | `(N, H, W, 3)` | float32 in `[0, 1]` |
    /// | `ids` | `(N)` | which key the noise: a draw is the same whatever is drawn beside it |
    ///
    /// # Errors
    /// [`Error::Failed`] where a network's outputs are no numbers; what its ops return.
    pub fn counts(&self, images: &Tensor, ids: &[u64], wanted: &[Wanted]) -> Result<Vec<Vec<u64>>> {
        let [n, h, w, _] = images.dims4("smoothing")?;
        if ids.len() != n {
            return Err(Error::shape("smoothing", "image ids, which key the noise", n, ids.len()));
        }
        if let Some(bad) = wanted.iter().find(|wanted| wanted.image >= n) {
            return Err(Error::shape("smoothing", "image", format!("below {n}"), bad.image));
        }
        let device = self.denoiser.device();
        let total: usize = wanted.iter().map(Wanted::len).sum();
        let at_once = if device.plan().serial { total } else { self.batch };
        let mut sums = vec![vec![0u64; self.classifier.classes()]; wanted.len()];
        for first in (0..total).step_by(at_once.max(1)) {
            let pass = first..(first + at_once).min(total);
            let parts = in_chunks(device, self.denoiser.chunk(h, w), pass.len(), |part| {
                self.part(images, ids, wanted, pass.start + part.start..pass.start + part.end)
            })?;
            for part in parts {
                for (sum, counts) in sums.iter_mut().zip(part) {
                    sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
                }
            }
        }
        for (wanted, counts) in wanted.iter().zip(&sums) {
            let (votes, draws) = (counts.iter().sum::<u64>(), wanted.len() as u64);
            if votes != draws {
                let problem = format!(
                    "image {} at sigma {}: the outputs of {} of {draws} noisy predictions are no numbers (NaN)",
                    ids[wanted.image],
                    self.level.sigma,
                    draws - votes
                );
                return Err(Error::Failed(problem));
            }
        }
        Ok(sums)
    }

    /// Some of the draws, counted from the first one of the first image on.
    fn part(&self, images: &Tensor, ids: &[u64], wanted: &[Wanted], rows: Range<usize>) -> Result<Vec<Vec<u64>>> {
        let device = self.denoiser.device();
        let [_, h, w, c] = images.dims4("smoothing")?;
        let (mut index, mut keys, mut counts) = (Vec::new(), Vec::new(), Vec::new());
        let mut before = 0;
        for Wanted { image, draws } in wanted {
            let own = rows.start.max(before)..rows.end.min(before + draws.len());
            counts.push(own.len());
            for row in own {
                index.push(Some(*image));
                keys.push((ids[*image], draws.start + (row - before) as u32));
            }
            before += draws.len();
        }
        let g = Graph::inference(device, self.denoiser.precision());
        let x = gather(device, images, &index, None)?;
        let noise = normal_rows(device, &self.stream, &keys, &self.denoiser.noise_shape([h, w, c]))?;
        let y = self.denoiser.estimate(&g, &x, &noise, self.level, self.denoiser.output_range(), Gradient::Exact)?;
        let logits = self.classifier.forward(&g, &y)?;
        let votes = Votes::new(device, wanted.len(), self.classifier.classes())?;
        votes.add(&g, &logits, &counts)?;
        votes.counts(device)
    }
}
