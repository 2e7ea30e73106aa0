//! The class each image is driven to.

use super::{Classifier, Purpose, Stream, Target};
use crate::Result;
use crate::tensor::Tensor;

/// One target per image, or `None` for an untargeted attack. The second number counts the forward passes it took.
pub(super) fn choose(
    rule: Target,
    model: &dyn Classifier,
    images: &Tensor,
    labels: &[u32],
    ids: &[u64],
    seed: u64,
) -> Result<(Option<Vec<u32>>, u64)> {
    let classes = model.classes() as u32;
    let targets = match rule {
        Target::None => return Ok((None, 0)),
        Target::Next => labels.iter().map(|y| (y + 1) % classes).collect(),
        Target::Class(c) => vec![c; labels.len()],
        Target::Random => {
            let stream = Stream::new(seed, Purpose::Target);
            let random = |(&y, &id): (&u32, &u64)| {
                let [word, ..] = stream.words(id, 0)?;
                let other = (u64::from(word) * u64::from(classes - 1) >> 32) as u32;
                Ok(other + u32::from(other >= y))
            };
            labels.iter().zip(ids).map(random).collect::<Result<_>>()?
        }
        Target::LeastLikely | Target::SecondLikely => {
            let logits = model.logits(images)?.to_f32(model.device())?;
            let pick = |z: &[f32]| {
                // A stable sort keeps ties at the lowest index.
                let mut order: Vec<usize> = (0..z.len()).collect();
                order.sort_by(|&i, &j| z[j].total_cmp(&z[i]));
                order[if rule == Target::LeastLikely { z.len() - 1 } else { 1 }] as u32
            };
            return Ok((Some(logits.chunks_exact(classes as usize).map(pick).collect()), labels.len() as u64));
        }
    };
    Ok((Some(targets), 0))
}
