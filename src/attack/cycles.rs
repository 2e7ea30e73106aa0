//! Iterates that come back: where a step is a function of the iterate alone, an image that stands where it stood before goes round for
//! good, and no later step finds anything new.
//!
//! Idea: "Stop Walking in Circles" (arXiv 2503.19347). An iterate with the digest of an earlier one may have closed a circle. It is set
//! aside and the circle is run once more: if the iterate is then met again, value by value, the image leaves, with the iterate that the
//! last step of the whole run would have reached.

use std::collections::HashMap;

use super::track::{Closed, Span, Track};
use crate::Result;
use crate::ops::pgd;
use crate::tensor::Tensor;

/// What is remembered of the images of a running restart, a row per point.
pub(super) struct Cycles {
    /// Of the whole run.
    steps: u32,
    images: Vec<Image>,
    /// The iterates that may have closed a circle, and those that the run would end at: rows of images that have none yet are of no
    /// meaning.
    kept: Option<[Tensor; 2]>,
}

#[derive(Default)]
struct Image {
    /// The step of each digest so far.
    seen: HashMap<u128, u32>,
    circle: Option<Circle>,
}

/// A circle that is being gone round once more.
struct Circle {
    digest: u128,
    /// The step that came back to an earlier iterate, and steps once round.
    from: u32,
    period: u32,
    /// Of the iterate that the run would end at, once it was met.
    prediction: u32,
}

impl Cycles {
    pub fn new(images: usize, steps: u32) -> Self {
        Cycles { steps, images: (0..images).map(|_| Image::default()).collect(), kept: None }
    }

    /// Looks at the iterates of some rows of a span, of row `j` the first `until(j)` of them, and says by row which images are done.
    pub fn look(
        &mut self,
        track: &Track,
        span: &Span,
        rows: &[usize],
        until: impl Fn(usize) -> usize,
    ) -> Result<Vec<Option<Closed>>> {
        let n = self.images.len();
        let mut all = vec![None; n];
        let mut open: Vec<(usize, usize)> = rows.iter().map(|&j| (j, 0)).collect();
        while !open.is_empty() {
            let (mut begun, mut ending, mut due) = (vec![None; n], vec![None; n], vec![]);
            for (j, from) in open.drain(..) {
                let image = &mut self.images[j];
                for slot in from..until(j).min(span.digests.len() / n) {
                    let (row, step) = (slot * n + j, span.first + slot as u32);
                    let digest = span.digests[row];
                    if image.circle.is_none() {
                        let Some(&before) = image.seen.get(&digest) else {
                            image.seen.insert(digest, step);
                            continue;
                        };
                        let period = step - before;
                        // Once more round would be as far as to the end.
                        if step + period >= self.steps {
                            continue;
                        }
                        image.circle = Some(Circle { digest, from: step, period, prediction: 0 });
                        begun[j] = Some(row);
                    }
                    let Some(circle) = &mut image.circle else { continue };
                    if step == circle.from + (self.steps - circle.from) % circle.period {
                        circle.prediction = span.found[slot].prediction[j];
                        ending[j] = Some(row);
                    }
                    if step == circle.from + circle.period {
                        due.push((j, slot, digest == circle.digest));
                        break;
                    }
                }
            }
            self.keep_points(track, span, [&begun, &ending])?;
            // Where a circle is none, the image goes on from there.
            for (j, slot, closed) in self.confirmed(track, span, &due)? {
                match closed {
                    Some(closed) => all[j] = Some(closed),
                    None => open.push((j, slot + 1)),
                }
            }
        }
        Ok(all)
    }

    /// The images whose circle is closed again, by row and slot: done are those that stand where they stood.
    fn confirmed(
        &mut self,
        track: &Track,
        span: &Span,
        due: &[(usize, usize, bool)],
    ) -> Result<Vec<(usize, usize, Option<Closed>)>> {
        let Some([marks, _]) = self.kept.as_ref().filter(|_| !due.is_empty()) else { return Ok(vec![]) };
        let (device, n) = (track.device(), self.images.len());
        let now: Vec<_> = due.iter().map(|&(j, slot, _)| Some(slot * n + j)).collect();
        let then: Vec<_> = due.iter().map(|&(j, ..)| Some(j)).collect();
        let (now, then) = (pgd::gather(device, &span.iterates, &now, None)?, pgd::gather(device, marks, &then, None)?);
        let apart = pgd::budget(device, &now, &then)?;
        let images = &mut self.images;
        let answers = due.iter().zip(apart).map(|(&(j, slot, alike), apart)| {
            let circle = images[j].circle.take();
            // What is no number is not equal to itself: the norm shows it.
            let is_one = alike && apart.linf == 0.0 && apart.l2 == 0.0;
            let left = self.steps - (span.first + slot as u32);
            (j, slot, circle.filter(|_| is_one).map(|circle| Closed { slot, prediction: circle.prediction, left }))
        });
        Ok(answers.collect())
    }

    fn keep_points(&mut self, track: &Track, span: &Span, rows: [&[Option<usize>]; 2]) -> Result<()> {
        if rows.iter().all(|rows| rows.iter().all(Option::is_none)) {
            return Ok(());
        }
        let first = || span.iterates.rows(0, self.images.len());
        let [marks, endings] = match self.kept.take() {
            Some(kept) => kept,
            None => [first()?, first()?],
        };
        let put = |rows: &[Option<usize>], into: Tensor| match rows.iter().all(Option::is_none) {
            true => Ok(into),
            false => pgd::gather(track.device(), &span.iterates, rows, Some(&into)),
        };
        self.kept = Some([put(rows[0], marks)?, put(rows[1], endings)?]);
        Ok(())
    }

    /// The iterates that the images which are done would end at, in their rows.
    pub fn endings(&self) -> Option<&Tensor> {
        self.kept.as_ref().map(|[_, endings]| endings)
    }

    /// Some of the rows, in order.
    pub fn keep(self, track: &Track, stay: &[usize]) -> Result<Self> {
        let mut images: Vec<Option<Image>> = self.images.into_iter().map(Some).collect();
        let kept = match self.kept {
            Some([marks, endings]) => Some([track.pick(&marks, stay)?, track.pick(&endings, stay)?]),
            None => None,
        };
        Ok(Cycles { steps: self.steps, images: stay.iter().filter_map(|&j| images[j].take()).collect(), kept })
    }
}
