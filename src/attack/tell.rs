//! What steps found of a restart's images, told in the order in which it happened.

use super::cycles::Cycles;
use super::track::{Points, Span, Track};
use crate::Result;

/// Takes in a span of steps from the points, of their rows `alive`, and gives back those that go on: with early stop an image is done at
/// its first success, without one where its circle closed.
pub(super) fn tell(
    track: &mut Track,
    points: &Points,
    span: &Span,
    alive: &[usize],
    cycles: Option<&mut Cycles>,
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
            if is_last || early_stop && track.success(i, found.prediction[j]) {
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
    track.keep_last(&span.iterates, span.lent, &last)?;
    if let Some(endings) = endings {
        track.keep_last(endings, false, &ended)?;
    }
    Ok(alive)
}
