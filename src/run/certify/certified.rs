//! What the draws of an image prove.

use std::path::Path;

use serde::Serialize;

use super::rule::{Reach, is_done, reached};
use super::store::{self, Tallies, Tally, chosen};
use crate::Result;
use crate::config::Config;
use crate::config::certify::Certify;
use crate::config::settings::Procedure;
use crate::stats::certificate::{Certificate, anytime_lower, certify as by_cohen, decided, predict};

/// The certificate of one image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certified {
    pub image: u64,
    pub label: u32,
    /// -1 abstains.
    pub predict: i64,
    pub correct: bool,
    /// L2, in pixel units; 0 where it abstains.
    pub radius: f64,
    /// The bound of the share of the class that was chosen.
    pub lower: f64,
    pub chosen: u32,
    /// Draws that bound the share, those of them for that class, and those that chose it.
    pub n: u32,
    pub k: u64,
    pub n0: u32,
    /// `clopper-pearson` at an `n` that was fixed before, `anytime`, or none of a prediction.
    pub bound: &'static str,
    /// Of each radius that was asked for, in the order of the config: whether it is certified.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reached: Vec<bool>,
    /// Votes by class, as far as any has one.
    pub votes: Vec<u64>,
    #[serde(skip)]
    pub seconds: f64,
}

impl Certified {
    fn of(certify: &Certify, sigma: f64, image: u64, tally: &Tally) -> Certified {
        let n = tally.bound.draws;
        let (mut class, mut k) = (chosen(&tally.choice.votes), tally.hits());
        let (found, bound) = match (certify.procedure, certify.radius.is_empty()) {
            (Procedure::Predict, _) => {
                let votes = &tally.bound.votes;
                class = chosen(votes);
                k = votes.get(class).copied().unwrap_or(0);
                let found = Certificate { class: predict(votes, certify.alpha), radius: 0.0, lower: 0.0 };
                (found, "none: predict")
            }
            (_, true) => (by_cohen((class, k, n.into()), sigma, certify.alpha), "clopper-pearson"),
            (_, false) => (decided(class, anytime_lower(k, n.into(), certify.alpha), sigma), "anytime"),
        };
        Certified {
            image,
            label: tally.label,
            predict: found.class.map_or(-1, |class| class as i64),
            correct: found.class == Some(tally.label as usize),
            radius: found.radius,
            lower: found.lower,
            chosen: class as u32,
            n,
            k,
            n0: tally.choice.draws,
            bound,
            reached: reached(certify, sigma, k, n.into()).into_iter().map(|r| r == Reach::Certified).collect(),
            votes: tally.bound.votes.clone(),
            seconds: tally.seconds,
        }
    }
}

/// All images of a model at a sigma that are done, by ascending number.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub model: String,
    pub sigma: f64,
    pub images: Vec<Certified>,
    /// Images that were begun and are not done.
    pub open: usize,
}

impl Cell {
    /// # Panics
    /// Without `config.certify`.
    pub(super) fn of(config: &Config, tallies: &Tallies, model: usize, sigma: f64) -> Cell {
        let certify = config.certify.as_ref().expect("a certification has its settings");
        let name = &config.models[model].name;
        let own = tallies.iter().filter(|((model, bits, _), _)| model == name && *bits == sigma.to_bits());
        let (mut images, mut open) = (Vec::new(), 0);
        for ((_, _, image), tally) in own {
            match is_done(certify, sigma, tally) {
                true => images.push(Certified::of(certify, sigma, *image, tally)),
                false => open += 1,
            }
        }
        images.sort_by_key(|certified| certified.image);
        Cell { model: name.clone(), sigma, images, open }
    }

    /// Images that are certified for their label at a radius of at least this.
    pub fn certified(&self, radius: f64) -> u64 {
        self.images.iter().filter(|image| image.correct && image.radius >= radius).count() as u64
    }

    pub fn draws(&self) -> u64 {
        self.images.iter().map(|image| u64::from(image.n) + u64::from(image.n0)).sum()
    }

    pub fn seconds(&self) -> f64 {
        self.images.iter().map(|image| image.seconds).sum()
    }

    /// How many are right, abstained on, and certified at some radii; how long it took.
    pub(super) fn in_words(&self, radii: &[f64]) -> String {
        let n = self.images.len();
        let abstained = self.images.iter().filter(|image| image.predict < 0).count();
        let mut words = vec![format!("{} right, {abstained} abstained", self.certified(0.0))];
        words.extend(radii.iter().map(|&r| format!("{} certified at radius {r}", self.certified(r))));
        words.push(format!(
            "{:.0} draws and {:.2} s per image",
            self.draws() as f64 / n.max(1) as f64,
            self.seconds() / n.max(1) as f64
        ));
        format!("of {n}: {}", words.join(", "))
    }
}

/// The certification of a run, as far as it is done.
#[derive(Clone, Debug, PartialEq)]
pub struct Certification {
    /// Model by model, sigma by sigma.
    pub cells: Vec<Cell>,
}

impl Certification {
    /// Of a run directory; `None` where nothing was drawn.
    ///
    /// # Errors
    /// [`crate::Error::File`] for draws that are damaged or of other settings.
    pub fn read(dir: &Path, config: &Config) -> Result<Option<Certification>> {
        Ok(store::read(dir, config)?.map(|tallies| Certification::of(config, &tallies)))
    }

    fn of(config: &Config, tallies: &Tallies) -> Certification {
        let models = 0..config.models.len();
        let cells = models
            .flat_map(|model| config.defense.sigma.iter().map(move |&sigma| Cell::of(config, tallies, model, sigma)));
        Certification { cells: cells.collect() }
    }

    pub fn cell(&self, model: &str, sigma: f64) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.model == model && cell.sigma == sigma)
    }
}
