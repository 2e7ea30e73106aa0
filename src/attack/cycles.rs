//! Iterates that come back: where a step is a function of the iterate alone, an image that stands where it stood before goes round for
//! good, and no later step finds anything new.
//!
//! Idea: "Stop Walking in Circles" (arXiv 2503.19347). An iterate with the digest of an earlier one may have closed a circle. It is set
//! aside and the circle is run once more: if the iterate is then met again, value by value, the image leaves, with the iterate that the
//! last step of the whole run would have reached.

use std::collections::HashMap;

use super::model::Evaluation;
use super::track::{Closed, Points, Track};
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

    /// Looks at iterate number `step` of all points after it was evaluated, and says which images are done.
    pub fn look(&mut self, track: &Track, points: &Points, found: &Evaluation, step: u32) -> Result<Vec<Closed>> {
        let digests = pgd::digest(track.device(), &points.x)?;
        let (mut begun, mut ending, mut due) = (vec![], vec![], vec![]);
        for (j, (image, digest)) in self.images.iter_mut().zip(digests).enumerate() {
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
                begun.push(j);
            }
            let Some(circle) = &mut image.circle else { continue };
            if step == circle.from + (self.steps - circle.from) % circle.period {
                circle.prediction = found.prediction[j];
                ending.push(j);
            }
            if step == circle.from + circle.period {
                due.push((j, digest == circle.digest));
            }
        }
        self.keep_points(track, points, [&begun, &ending])?;
        self.confirmed(track, points, &due, step)
    }

    /// Those of the images whose circle is closed again that stand where they stood; the others are none and go on.
    fn confirmed(&mut self, track: &Track, points: &Points, due: &[(usize, bool)], step: u32) -> Result<Vec<Closed>> {
        let Some([marks, _]) = self.kept.as_ref().filter(|_| !due.is_empty()) else { return Ok(vec![]) };
        let apart = pgd::budget(track.device(), &points.x, marks)?;
        let mut closed = Vec::new();
        for &(j, alike) in due {
            let Some(circle) = self.images[j].circle.take() else { continue };
            // What is no number is not equal to itself: the norm shows it.
            if alike && apart[j].linf == 0.0 && apart[j].l2 == 0.0 {
                closed.push(Closed { row: j, prediction: circle.prediction, left: self.steps - step });
            }
        }
        Ok(closed)
    }

    fn keep_points(&mut self, track: &Track, points: &Points, rows: [&Vec<usize>; 2]) -> Result<()> {
        if rows.iter().all(|rows| rows.is_empty()) {
            return Ok(());
        }
        let kept = self.kept.take().unwrap_or_else(|| [points.x.clone(), points.x.clone()]);
        let put = |rows: &[usize], into: Tensor| {
            let mut index = vec![None; points.at.len()];
            rows.iter().for_each(|&j| index[j] = Some(j));
            if rows.is_empty() { Ok(into) } else { pgd::gather(track.device(), &points.x, &index, Some(&into)) }
        };
        let [marks, endings] = kept;
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
