//! A classifier's checkpoint as the config means it: opened, described, and what the config adds to that.

use super::ModelConfig;
use super::wrong::Weights as Place;
use crate::error::{Error, Result};
use crate::models::card::{Card, Triple, unit};
use crate::models::weights::Weights;

/// An open checkpoint; no tensor has been read.
pub struct Checkpoint {
    pub weights: Weights,
    pub card: Card,
    /// What its user should know.
    pub notes: Vec<String>,
}

/// Opens the weights of a resolved name.
///
/// # Errors
/// As [`Weights::open`].
pub fn open(name: &str) -> Result<Weights> {
    match Place::named(name) {
        Place::Embedded(bytes) => Weights::embedded(name, bytes),
        Place::File(path) => Weights::open(path),
    }
}

impl ModelConfig {
    /// Opens the file and reads what it says of itself; what the config says comes first.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is no checkpoint or does not say what is needed.
    pub fn open(&self) -> Result<Checkpoint> {
        let weights = open(&self.weights)?;
        let mut card = Card::read(&weights)?;
        let mut notes: Vec<String> =
            card.doubts.iter().map(|doubt| format!("warning: {}: metadata {doubt}", self.name)).collect();
        for (key, said, own) in [("mean", self.mean, &mut card.mean), ("std", self.std, &mut card.std)] {
            if let (Some(said), Some(own)) = (said, own.filter(|own| Some(*own) != said)) {
                notes.push(format!("{}: the checkpoint has {key} {own:?}; the config's {said:?} is used", self.name));
            }
            *own = said.or(*own);
            if own.is_none() {
                let problem =
                    format!("expected `{key}` in the metadata, or in the config as models.{key}, found neither");
                return Err(Error::file(weights.origin(), problem));
            }
        }
        Ok(Checkpoint { weights, card, notes })
    }
}

/// Whether a config's mean or deviation can be meant.
pub(super) fn check(key: &str, values: Option<Triple>) -> Result<(), String> {
    values.map_or(Ok(()), |values| unit(key, &values))
}
