//! What steps found of a restart's images, told in the order in which it happened.

use super::cycles::Cycles;
use super::track::{Points, Span, Track};
use crate::Result;
use crate::ops::pgd::gather;
use crate::tensor::Tensor;

/// The latest success of each image of a restart, for attacks that end there rather than at their last iterate; a row per point.
pub(super) struct Latest {
    x: Tensor,
    /// Classes of those that have one.
    classes: Vec<Option<u32>>,
}

impl Latest {
    /// Of images that begin at `x`.
    pub fn new(x: &Tensor) -> Self {
        Latest { x: x.clone(), classes: vec![None; x.shape()[0]] }
    }

    /// What is left of the restart; of images without a success, the clean image.
    pub fn settle(&self, track: &mut Track, points: &Points) -> Result<()> {
        track.settle(points, &self.x, &self.classes)
    }

    /// Of some of the images.
    pub fn keep(&self, track: &Track, stay: &[usize]) -> Result<Self> {
        Ok(Latest { x: track.pick(&self.x, stay)?, classes: stay.iter().map(|&j| self.classes[j]).collect() })
    }
}

/// Takes in a span of steps from the points, of their rows `alive`, and gives back those that go on: with early stop an image is done at
/// its first success, without one where its circle closed. The last point of an image is where it ends, unless its latest success is.
pub(super) fn tell(
    track: &mut Track,
    points: &Points,
    span: &Span,
    alive: &[usize],
    cycles: Option<&mut Cycles>,
    latest: Option<&mut Latest>,
) -> Result<Vec<usize>> {
    let n = points.at.len();
    let (steps, early_stop) = track.goes_to();
    let mut endings = None;
    let mut closed = vec![None; n];
    if let Some(cycles) = cycles {
        // A success ends an image before its circle does.
        let success = |j: usize| span.found.iter().position(|found| track.success(points.at[j], found.prediction[j]));
        let until = |j: usize| success(j).filter(|_| early_stop).unwrap_or(span.found.len());
        closed = cycles.look(track, span, alive, until)?;
        endings = cycles.endings();
    }
    let mut alive = alive.to_vec();
    let mut successes = vec![None; n];
    let [mut margin, mut loss, mut last, mut ended] = [(); 4].map(|()| track.nothing());
    for (slot, found) in span.found.iter().enumerate() {
        let is_last = span.first + slot as u32 == steps;
        for &j in &alive {
            let (i, row) = (points.at[j], slot * n + j);
            track.asked_of(i, !is_last);
            let (best, highest) = track.note(i, found, j);
            for (put, is) in [(&mut margin, best), (&mut loss, highest)] {
                if is {
                    put.set(i, row);
                }
            }
            let success = track.success(i, found.prediction[j]);
            if success {
                successes[j] = Some((row, found.prediction[j]));
            }
            if is_last || early_stop && success {
                last.set(i, row);
            }
        }
        if is_last {
            break;
        }
        alive.retain(|&j| {
            let i = points.at[j];
            if early_stop && track.success(i, found.prediction[j]) {
                return false;
            }
            if let Some(closed) = closed[j].filter(|closed| closed.slot == slot) {
                track.close(i, closed);
                ended.set(i, j);
                return false;
            }
            track.stepped_from(i);
            true
        });
    }
    track.keep_best(&span.iterates, span.lent, [&margin, &loss])?;
    if let Some(latest) = latest {
        if successes.iter().any(Option::is_some) {
            let rows: Vec<_> = successes.iter().map(|success| success.map(|(row, _)| row)).collect();
            latest.x = gather(track.device(), &span.iterates, &rows, Some(&latest.x))?;
            let classes = latest.classes.iter_mut().zip(&successes);
            classes.for_each(|(class, success)| *class = success.map(|(_, class)| class).or(*class));
        }
        return Ok(alive);
    }
    track.keep_last(&span.iterates, span.lent, &last)?;
    if let Some(endings) = endings {
        track.keep_last(endings, false, &ended)?;
    }
    Ok(alive)
}
