//! Square attack: a random search that changes one square at a time and asks for no gradient.
//!
//! Source: Andriushchenko et al. 2020. Each image has windows and signs of its own, drawn by its id, so that results do not depend on
//! the batch; the authors' code draws windows, and in L-inf signs, once for all images of a batch. With `compat` all images share them too,
//! in whatever batch they are.

use super::model::{Classifier, Loss, Oracle};
use super::outcome::Adversarial;
use super::spec::{Attack, Batch, Preset, Row, Spec, StepSize, wrong};
use super::track::{Points, Track};
use crate::Result;
use crate::device::DType;
use crate::ops::pgd::{Norm, Profile, gather};
use crate::ops::philox::{self, Purpose, Stream, to_uniform};
use crate::ops::square::{self, TILES, Window};
use crate::tensor::Tensor;

pub const SQUARE: Row = Row {
    name: "square",
    help: "changes one random square at a time and asks for no gradient",
    ignores: &["step_size", "rel_step", "random_start", "decay", "starts", "early_stop", "stop_cycles"],
    loss: Some(Loss::Margin),
    leaves: true,
    windows: true,
    tried_as: "pgd",
    preset: |_, _, steps| Preset { steps: steps.or(Some(5000)), step: Some(StepSize::OfEps(2.0)), random_start: true },
    check: |spec| {
        super::apgd::check_as_torchattacks(spec)?;
        // A step of the stream has 16 bits.
        if spec.steps >= 1 << 16 {
            return wrong("steps", format!("expected at most {}, found {}", (1 << 16) - 1, spec.steps));
        }
        Ok(())
    },
    build: |spec| Ok(Box::new(Square { spec: spec.clone() })),
};

/// The share of the image that a window covers at first.
const SHARE: f64 = 0.8;
/// The steps after which it is halved.
const HALVED: [u32; 9] = [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000];

/// Pixels a side of the window of step `step`, counted from 0.
fn side(step: u32, [h, w]: [usize; 2], norm: Norm) -> usize {
    let halvings = HALVED.iter().filter(|&&at| step > at).count();
    let share = SHARE / f64::from(1u32 << halvings);
    let side = (share * (h * w) as f64).sqrt().round_ties_even() as usize;
    match norm {
        Norm::Linf => side.max(1).min(h).min(w),
        Norm::L2 => {
            let odd = side.max(3) | 1;
            odd.min(h).min(w)
        }
    }
}

struct Square {
    spec: Spec,
}

impl Square {
    /// Where a step stands in the schedule of windows, which is of ten thousand: torchattacks stretches it over its steps, the authors'
    /// AutoAttack does not.
    fn scheduled(&self, step: u32) -> u32 {
        match self.spec.profile {
            Profile::Torchattacks => (f64::from(step) / f64::from(self.spec.steps) * 1e4) as u32,
            _ => step,
        }
    }

    fn start(&self, model: &dyn Oracle, points: &Points, (eps, stream): (f64, Stream)) -> Result<Tensor> {
        let [_, w, c] = model.image_shape();
        let dims = if self.spec.norm == Norm::Linf { [w, c] } else { [TILES * TILES, c] };
        let draw = philox::uniform(model.device(), &stream, &points.ids, &dims)?;
        // Which tiles lie on their side is the same for all images.
        let turned = Stream { draw: 1, ..stream }.words(0, 0)?[0];
        square::start(model.device(), &points.x0, &draw, turned, (self.spec.norm, eps))
    }

    /// What the candidate of each image changes at a step.
    fn windows(&self, points: &Points, stream: Stream, [h, w]: [usize; 2], side: usize) -> Result<Vec<Window>> {
        let place = |word: u32, length: usize| (to_uniform(word) * (length - side) as f32).floor() as u32;
        points
            .ids
            .iter()
            .map(|&id| {
                let shared = if self.spec.compat { 0 } else { id };
                let [row, column, signs, from_row] = stream.words(shared, 0)?;
                let to = [place(row, h), place(column, w)];
                if self.spec.norm == Norm::Linf {
                    return Ok(Window { to, from: to, signs, turned: false });
                }
                let [from_column, turned, ..] = stream.words(shared, 1)?;
                let from = [place(from_row, h), place(from_column, w)];
                // The signs of L2 are an image's own in either case.
                let [_, _, signs, _] = stream.words(id, 0)?;
                Ok(Window { to, from, signs, turned: to_uniform(turned) > 0.5 })
            })
            .collect()
    }

    fn search(&self, model: &dyn Oracle, track: &mut Track, (eps, restart): (f64, u32), at: Vec<usize>) -> Result<()> {
        let (device, budget) = (model.device(), (self.spec.norm, eps));
        let [h, w, _] = model.image_shape();
        let stream = Stream { restart, ..Stream::new(track.seed, Purpose::Search) };
        let mut points = track.points(at)?;
        points.x = self.start(model, &points, (eps, stream))?;
        let answer = model.evaluate(&points.x, &track.query(&points, restart, 0))?;
        track.record(&points, &answer, false)?;
        let mut best = points.x.clone();
        let mut margins = answer.margin;
        let mut classes = answer.prediction;
        let mut tile: Option<(usize, Tensor)> = None;
        // Where noise is drawn a margin below 0 is no proof, and a smaller one is still better.
        let leaves = model.repeats_itself();
        for step in 0..self.spec.steps {
            // Who has nothing to gain leaves, with the best point where that is of another class.
            let stay: Vec<usize> = (0..margins.len()).filter(|&j| !leaves || margins[j] > 0.0).collect();
            if stay.len() < margins.len() {
                settle(track, &points, &best, &classes)?;
                if stay.is_empty() {
                    return Ok(());
                }
                best = track.pick(&best, &stay)?;
                points = track.keep(&points, &stay)?;
                (margins, classes) = stay.iter().map(|&j| (margins[j], classes[j])).unzip();
            }
            let side = side(self.scheduled(step), [h, w], self.spec.norm);
            if tile.as_ref().is_none_or(|(of, _)| *of != side) {
                let values = if self.spec.norm == Norm::L2 { square::tile(side) } else { vec![0.0] };
                tile = Some((side, Tensor::from_f32(device, &[values.len()], DType::F32, &values)?));
            }
            let Some((_, pattern)) = &tile else { break };
            let windows = self.windows(&points, Stream { step: step + 1, ..stream }, [h, w], side)?;
            points.x = square::step(device, &best, &points.x0, &windows, pattern, side, budget)?;
            track.stepped(&points);
            let answer = model.evaluate(&points.x, &track.query(&points, restart, step + 1))?;
            track.record(&points, &answer, false)?;
            let mut better = vec![None; margins.len()];
            for (j, margin) in margins.iter_mut().enumerate() {
                if answer.margin[j] < *margin || leaves && answer.margin[j] <= 0.0 {
                    (*margin, classes[j], better[j]) = (answer.margin[j], answer.prediction[j], Some(j));
                }
            }
            if better.iter().any(Option::is_some) {
                best = gather(device, &points.x, &better, Some(&best))?;
            }
        }
        settle(track, &points, &best, &classes)
    }
}

/// Best points of another class than the label are what is left of a search; of the other images, the clean one.
fn settle(track: &mut Track, points: &Points, best: &Tensor, classes: &[u32]) -> Result<()> {
    let of = |(&i, &class): (&usize, &u32)| (class != track.label(i)).then_some(class);
    let chosen: Vec<Option<u32>> = points.at.iter().zip(classes).map(of).collect();
    track.settle(points, best, &chosen)
}

impl Attack for Square {
    fn run(&self, model: &dyn Classifier, batch: Batch, eps: f64, seed: u64) -> Result<Adversarial> {
        let mut track = Track::new(model, batch, &self.spec, eps, seed)?;
        for restart in 0..self.spec.restarts {
            let at = track.standing();
            if at.is_empty() {
                break;
            }
            self.search(model, &mut track, (eps, restart), at)?;
        }
        track.finish()
    }

    fn most_queries(&self) -> Option<u64> {
        Some(1 + u64::from(self.spec.restarts) * (1 + u64::from(self.spec.steps)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::Said;

    #[test]
    fn compat_is_of_square_and_of_what_ends_in_it() {
        let said = |method: &str| Said { method: Some(method.into()), compat: Some(true), ..Said::default() }.decided();
        for method in ["square", "autoattack", "autoattack-plus"] {
            assert_eq!(said(method).unwrap().label(), format!("{method}-compat"));
        }
        for method in ["pgd", "fab-t", "autoattack-rand", "min-norm-apgd", "fmn"] {
            let error = said(method).unwrap_err().to_string();
            assert!(error.contains("attack.compat") && error.contains(method), "{error}");
        }
    }

    #[test]
    fn torchattacks_stretches_the_schedule_over_its_steps() {
        let of = |profile| {
            let said =
                Said { method: Some("square".into()), profile: Some(profile), steps: Some(1000), ..Said::default() };
            Square { spec: said.decided().unwrap() }
        };
        let at = |square: &Square| [0, 1, 2, 999].map(|step| square.scheduled(step));
        assert_eq!((at(&of(Profile::Native)), at(&of(Profile::Torchattacks))), ([0, 1, 2, 999], [0, 10, 20, 9990]));
    }

    #[test]
    fn windows_shrink_as_the_authors_have_it() {
        // sqrt(0.8 * 1024) = 28.6, sqrt(0.4 * 1024) = 20.2, ...
        let sides = |norm| [0, 10, 11, 51, 201, 501, 1001, 4001, 8001].map(|step| side(step, [32, 32], norm));
        assert_eq!(sides(Norm::Linf), [29, 29, 20, 14, 10, 7, 5, 3, 1]);
        assert_eq!(sides(Norm::L2), [29, 29, 21, 15, 11, 7, 5, 3, 3]);
        assert_eq!(side(0, [4, 40], Norm::L2), 4);
    }
}
