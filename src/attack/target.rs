//! The class each image is driven to.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::model::Oracle;
use crate::Result;
use crate::ops::philox::{Purpose, Stream};
use crate::tensor::Tensor;

/// The rule that chooses the class an attack aims at: a word, or the number of a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Any wrong class.
    None,
    /// Uniform among the wrong classes, by seed and image id.
    Random,
    /// The smallest logit of the clean image.
    LeastLikely,
    /// The second largest logit of the clean image.
    SecondLikely,
    /// Label + 1, modulo the number of classes.
    Next,
    /// One class for all; images of that class are not attacked.
    Class(u32),
}

impl Target {
    const NAMED: [(Target, &str); 5] = [
        (Target::None, "none"),
        (Target::Random, "random"),
        (Target::LeastLikely, "least-likely"),
        (Target::SecondLikely, "second-likely"),
        (Target::Next, "next"),
    ];
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Target::Class(class) => write!(f, "{class}"),
            named => f.write_str(Target::NAMED.iter().find(|(target, _)| target == named).map_or("", |(_, name)| name)),
        }
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Target::Class(class) => serializer.serialize_u32(*class),
            named => serializer.collect_str(named),
        }
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TargetVisitor;
        impl Visitor<'_> for TargetVisitor {
            type Value = Target;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a class index or one of ")?;
                f.write_str(&Target::NAMED.map(|(_, name)| format!("\"{name}\"")).join(", "))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Target, E> {
                let found = Target::NAMED.iter().find(|(_, name)| *name == text);
                found.map(|(target, _)| *target).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
            fn visit_u64<E: de::Error>(self, class: u64) -> Result<Target, E> {
                let class = class.try_into().map_err(|_| E::invalid_value(de::Unexpected::Unsigned(class), &self))?;
                Ok(Target::Class(class))
            }
            fn visit_i64<E: de::Error>(self, class: i64) -> Result<Target, E> {
                match u64::try_from(class) {
                    Ok(class) => self.visit_u64(class),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(class), &self)),
                }
            }
        }
        deserializer.deserialize_any(TargetVisitor)
    }
}

/// One target per image, or `None` for an untargeted attack. The second number counts the forward passes it took.
pub(super) fn choose(
    rule: Target,
    model: &dyn Oracle,
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
                let other = ((u64::from(word) * u64::from(classes - 1)) >> 32) as u32;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_round_trip() {
        #[derive(Serialize, Deserialize)]
        struct Table {
            targeted: Target,
        }
        for target in Target::NAMED.map(|(target, _)| target).into_iter().chain([Target::Class(7)]) {
            let text = toml::to_string(&Table { targeted: target }).unwrap();
            assert_eq!(toml::from_str::<Table>(&text).unwrap().targeted, target, "{text}");
        }
        for bad in ["\"worst\"", "-1", "0.5", "4294967296"] {
            let error = toml::from_str::<Table>(&format!("targeted = {bad}")).map(|t| t.targeted).unwrap_err();
            assert!(error.to_string().contains("least-likely"), "{error}");
        }
    }
}
