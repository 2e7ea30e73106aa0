//! Scoring a stochastic defence: several draws of noise, one vote.
//!
//! Source: Cohen et al. 2019 (the vote); Kassis et al. 2025 (why one lucky draw proves nothing).

use serde::{Deserialize, Serialize};

use super::denoise::{Denoiser, Level};
use super::remembered::Remembered;
use crate::Result;
use crate::attack::Oracle as _;
use crate::choice::choice;
use crate::device::DType;
use crate::models::classifier::Classifier;
use crate::ops::philox::Stream;
use crate::stats::{softmax, top_class};
use crate::tensor::Tensor;

choice! {
    /// How draws become one prediction.
    Vote {
        /// The class of most draws, ties to the lowest index.
        Majority = "majority",
        /// The largest mean logit.
        MeanLogits = "mean-logits",
    }
}

/// What the defended pipeline says about one image.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Smoothed {
    /// Of the vote.
    pub prediction: u32,
    pub correct: bool,
    pub draws: u32,
    /// Draws that are right by themselves.
    pub correct_draws: u32,
    /// Mean over the draws of the softmax at the prediction.
    pub confidence: f32,
    /// Whether the label is among the five classes with the most draws (under mean-logits the largest mean logit), the softmax
    /// deciding among equals; `None` in records of sets that are not scored so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top5: Option<bool>,
    /// Whether the vote is for the class that a targeted attack aimed at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_reached: Option<bool>,
    /// The same scoring under further seeds of the noise; `None` in records of a run without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<Again>,
}

/// Seeds of the noise at most, and as many as there are where nothing is said.
pub const MOST_SEEDS: usize = 5;
pub const SEEDS: u32 = 3;

/// What further seeds of the noise made of an image: whether the vote is right, and how many draws are. In records a list of pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(bool, u32)>", into = "Vec<(bool, u32)>")]
pub struct Again {
    votes: [Option<(bool, u32)>; MOST_SEEDS - 1],
}

impl Again {
    /// Adds a seed; one beyond the most there are is left out.
    pub fn push(&mut self, found: &Smoothed) {
        if let Some(free) = self.votes.iter_mut().find(|vote| vote.is_none()) {
            *free = Some((found.correct, found.correct_draws));
        }
    }

    /// Whether the vote is right, seed by seed.
    pub fn correct(&self) -> impl Iterator<Item = bool> {
        self.votes.into_iter().flatten().map(|(correct, _)| correct)
    }
}

impl From<Again> for Vec<(bool, u32)> {
    fn from(again: Again) -> Self {
        again.votes.into_iter().flatten().collect()
    }
}

impl TryFrom<Vec<(bool, u32)>> for Again {
    type Error = String;

    fn try_from(pairs: Vec<(bool, u32)>) -> std::result::Result<Self, String> {
        if pairs.len() >= MOST_SEEDS {
            return Err(format!("again: expected at most {} seeds, found {}", MOST_SEEDS - 1, pairs.len()));
        }
        let mut again = Again::default();
        again.votes.iter_mut().zip(pairs).for_each(|(vote, pair)| *vote = Some(pair));
        Ok(again)
    }
}

impl Smoothed {
    /// Whether the vote is right under each seed of the noise, the first one first.
    pub fn over_seeds(&self) -> impl Iterator<Item = bool> {
        std::iter::once(self.correct)
            .chain(self.again.into_iter().flat_map(|again| again.correct().collect::<Vec<_>>()))
    }

    /// Whether it is under most of them; under as many as not, whether it is under the first.
    pub fn correct_over_seeds(&self) -> bool {
        let (right, all) = self.over_seeds().fold((0, 0), |(right, all), is| (right + usize::from(is), all + 1));
        match (2 * right).cmp(&all) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => self.correct,
        }
    }
}

/// Sums over the draws of one image.
struct Tally {
    counts: Vec<u32>,
    logits: Vec<f64>,
    softmax: Vec<f64>,
}

impl Tally {
    fn new(classes: usize) -> Self {
        Tally { counts: vec![0; classes], logits: vec![0.0; classes], softmax: vec![0.0; classes] }
    }

    fn add(&mut self, logits: &[f32]) {
        self.counts[top_class(logits)] += 1;
        for (k, (&z, share)) in logits.iter().zip(softmax(logits)).enumerate() {
            self.logits[k] += f64::from(z);
            self.softmax[k] += share;
        }
    }

    fn margins(&self, label: u32) -> [f64; 2] {
        let counts: Vec<f64> = self.counts.iter().map(|&count| f64::from(count)).collect();
        let draws = counts.iter().sum::<f64>().max(1.0);
        [&counts, &self.softmax].map(|shares| {
            let others = shares.iter().enumerate().filter(|&(class, _)| class != label as usize);
            let best = others.map(|(_, &share)| share).fold(0.0, f64::max);
            (shares.get(label as usize).copied().unwrap_or(0.0) - best) / draws
        })
    }

    fn finish(&self, vote: Vote, label: u32) -> Smoothed {
        let prediction = match vote {
            Vote::Majority => first_largest(self.counts.iter().map(|&c| f64::from(c))),
            Vote::MeanLogits => first_largest(self.logits.iter().copied()),
        };
        let draws: u32 = self.counts.iter().sum();
        let score = |k: usize| match vote {
            Vote::Majority => (f64::from(self.counts[k]), self.softmax[k]),
            Vote::MeanLogits => (self.logits[k], self.softmax[k]),
        };
        let known = label as usize;
        let ahead = |&k: &usize| score(k) > score(known) || (score(k) == score(known) && k < known);
        let top5 = known < self.counts.len() && (0..self.counts.len()).filter(ahead).count() < 5;
        Smoothed {
            prediction: prediction as u32,
            correct: prediction == label as usize,
            draws,
            correct_draws: self.counts.get(label as usize).copied().unwrap_or(0),
            confidence: (self.softmax[prediction] / f64::from(draws.max(1))) as f32,
            top5: Some(top5 || prediction == known),
            target_reached: None,
            again: None,
        }
    }
}

/// The position of the largest value, the lowest among equals.
fn first_largest(values: impl Iterator<Item = f64>) -> usize {
    values.enumerate().fold((0, f64::NEG_INFINITY), |best, (i, v)| if v > best.1 { (i, v) } else { best }).0
}

/// How images are scored behind a denoiser.
pub struct Scoring<'a> {
    pub vote: Vote,
    pub draws: u32,
    /// Of the noise; each draw counts up its own.
    pub stream: Stream,
    /// Where images that were denoised before under the same noise are held, if these may be among them.
    pub remembered: Option<&'a Remembered>,
    /// Told of images passed, times draws, and of how many there will be.
    pub told: &'a dyn Fn(u64, u64),
}

/// Classifies images `(N, H, W, 3)`, float32 in `[0, 1]`, after denoising, under some draws of the stream for each.
///
/// # Errors
/// What the networks' ops return.
pub fn classify(
    classifier: &Classifier,
    denoiser: &Denoiser,
    images: &Tensor,
    (labels, ids): (&[u32], &[u64]),
    level: &Level,
    scoring: &Scoring,
) -> Result<Vec<Smoothed>> {
    let tallies = tallies(classifier, denoiser, images, ids, level, scoring)?;
    Ok(tallies.iter().zip(labels).map(|(tally, &label)| tally.finish(scoring.vote, label)).collect())
}

/// How far each image is from being voted for another class: draws of the label less those of the best other class, then the same of the
/// mean softmax, as shares. The smaller, the better for an attacker. Otherwise as [`classify`].
///
/// # Errors
/// As [`classify`].
pub fn vote_margins(
    classifier: &Classifier,
    denoiser: &Denoiser,
    images: &Tensor,
    (labels, ids): (&[u32], &[u64]),
    level: &Level,
    scoring: &Scoring,
) -> Result<Vec<[f64; 2]>> {
    let tallies = tallies(classifier, denoiser, images, ids, level, scoring)?;
    Ok(tallies.iter().zip(labels).map(|(tally, &label)| tally.margins(label)).collect())
}

fn tallies(
    classifier: &Classifier,
    denoiser: &Denoiser,
    images: &Tensor,
    ids: &[u64],
    level: &Level,
    &Scoring { draws, stream, told, remembered, .. }: &Scoring,
) -> Result<Vec<Tally>> {
    let all = u64::from(draws) * ids.len() as u64;
    let classes = classifier.classes();
    let mut tallies: Vec<Tally> = ids.iter().map(|_| Tally::new(classes)).collect();
    let [n, h, w, c] = images.dims4("smoothing")?;
    // As many as the device takes at a time, so that there is something to tell before the batch is through.
    let at_once = denoiser.chunk(h, w).saturating_mul(denoiser.device().parallelism()).clamp(1, n.max(1));
    for draw in 0..draws {
        let stream = Stream { draw, ..stream };
        for first in (0..n).step_by(at_once) {
            let part = first..(first + at_once).min(n);
            let own = &ids[part.clone()];
            let denoised = match remembered.and_then(|held| held.get(own, level, &stream)) {
                Some(pixels) => Tensor::from_f32(denoiser.device(), &[own.len(), h, w, c], DType::F32, &pixels)?,
                None => {
                    let denoised = denoiser.images(&images.rows(part.start, part.len())?, own, level, &stream)?;
                    if let Some(held) = remembered {
                        held.keep(own, level, &stream, &denoised.to_f32(denoiser.device())?);
                    }
                    denoised
                }
            };
            let logits = classifier.logits(&denoised)?.to_f32(denoiser.device())?;
            tallies[part.clone()].iter_mut().zip(logits.chunks_exact(classes)).for_each(|(tally, z)| tally.add(z));
            told(u64::from(draw) * n as u64 + part.end as u64, all);
        }
    }
    Ok(tallies)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_vote() {
        let mut tally = Tally::new(3);
        for logits in [[5.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]] {
            tally.add(&logits);
        }
        let majority = tally.finish(Vote::Majority, 1);
        assert_eq!((majority.prediction, majority.correct, majority.draws, majority.correct_draws), (1, true, 3, 2));
        let e = 1f64.exp();
        let softmax = (2.0 * e / (e + 2.0) + 1.0 / (5f64.exp() + 2.0)) / 3.0;
        assert!((f64::from(majority.confidence) - softmax).abs() < 1e-6);
        let mean = tally.finish(Vote::MeanLogits, 1);
        assert_eq!((mean.prediction, mean.correct, mean.correct_draws), (0, false, 2));
    }

    #[test]
    fn margins_are_of_votes_then_of_softmax() {
        let mut tally = Tally::new(3);
        for logits in [[0.0, 0.0, f32::NEG_INFINITY], [1.0, 0.0, f32::NEG_INFINITY], [0.0, 9.0, f32::NEG_INFINITY]] {
            tally.add(&logits);
        }
        let [votes, softmax] = tally.margins(0);
        let e = 1f64.exp();
        assert_eq!(votes, 1.0 / 3.0);
        let nine = 9f64.exp();
        assert!((softmax - ((e - 1.0) / (e + 1.0) - (nine - 1.0) / (nine + 1.0)) / 3.0).abs() < 1e-9, "{softmax}");
        assert_eq!(tally.margins(2)[0], -2.0 / 3.0);
    }

    #[test]
    fn the_five_likeliest_are_those_of_most_draws() {
        let mut tally = Tally::new(7);
        for logits in [[9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]] {
            tally.add(&logits);
        }
        // Classes 0 and 6 have a draw each, 1 to 3 the largest softmax of the rest.
        let top5 = |vote| (0..7).map(|label| tally.finish(vote, label).top5.unwrap()).collect::<Vec<_>>();
        assert_eq!(top5(Vote::Majority), [true, true, true, true, false, false, true]);
        assert_eq!(top5(Vote::MeanLogits), [true, true, true, true, false, false, true]);
    }

    #[test]
    fn further_seeds_are_read_back_and_vote() {
        let of = |correct| Smoothed {
            prediction: 0,
            correct,
            draws: 1,
            correct_draws: u32::from(correct),
            confidence: 0.5,
            top5: None,
            target_reached: None,
            again: None,
        };
        let mut again = Again::default();
        [false, true].iter().for_each(|&correct| again.push(&of(correct)));
        let three = Smoothed { again: Some(again), ..of(true) };
        let text = serde_json::to_string(&three).unwrap();
        assert!(text.contains("\"again\":[[false,0],[true,1]]"), "{text}");
        assert_eq!(serde_json::from_str::<Smoothed>(&text).unwrap(), three);
        assert!(three.correct_over_seeds() && three.over_seeds().eq([true, false, true]));
        assert!(!Smoothed { correct: false, ..three }.correct_over_seeds() && of(true).correct_over_seeds());
        let many = text.replace("[false,0],", &"[false,0],".repeat(MOST_SEEDS));
        assert!(serde_json::from_str::<Smoothed>(&many).is_err());
    }

    #[test]
    fn ties_go_to_the_lowest_class() {
        let mut tally = Tally::new(3);
        tally.add(&[0.0, 0.0, 1.0]);
        tally.add(&[0.0, 1.0, 1.0]);
        assert_eq!(tally.finish(Vote::Majority, 0).prediction, 1);
    }
}
