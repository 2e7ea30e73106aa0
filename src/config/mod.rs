//! A resolved experiment: every default filled in, every value checked.

use std::path::{Path, PathBuf};

use serde::Serialize;

pub mod certify;
mod dataset;
mod defense;
mod file;
pub mod keys;
mod models;
mod pin;
mod set;
pub mod settings;
pub mod starter;
mod wrong;

use certify::Certify;
pub use dataset::DatasetConfig;
use dataset::resolve as resolve_dataset;
pub use defense::DefenseConfig;
use defense::resolve as resolve_defense;
pub use models::{Checkpoint, ModelConfig, open};
use set::short;
use settings::Score;
pub use wrong::Set;
use wrong::plain;
pub use wrong::{Overrides, Weights, Wrong};

use crate::attack::{self, Said};
use crate::data::Dataset;
use crate::data::saved::Format;
use crate::device::{DeviceChoice, Which};
use crate::error::{Error, Result};
use crate::files;
use crate::number::{self, Number};
use crate::tape::Precision;

/// The whole of a `config.toml`, ready to run. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    pub name: String,
    pub seed: u64,
    /// How many images at most.
    pub limit: usize,
    /// Images per batch: changes speed and memory, never a result.
    pub batch: usize,
    pub precision: Precision,
    pub device: DeviceChoice,
    /// Which of that kind, as the command line says it: no result depends on it.
    #[serde(skip)]
    pub devices: Which,
    pub score: Score,
    /// Numbers are meant as they stand, however unusual.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub as_written: bool,
    /// Seconds that small extra attacks may take for the checks; a tenth of the run's own passes where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks_budget: Option<f64>,
    /// How attacked images are kept, if at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub save: Option<Format>,
    pub dataset: DatasetConfig,
    pub models: Vec<ModelConfig>,
    pub attack: attack::Spec,
    pub defense: DefenseConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certify: Option<Certify>,
}

impl Config {
    /// Reads `path`, or takes the embedded demo without one, applies `overrides`, fills in defaults and checks all.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag, or the file and the field, with what was found and what is expected.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Config> {
        match path {
            Some(path) => Self::read(path, &Wrong::new(Some(path), overrides)),
            None => Self::of(toml::Table::new(), "demo", &Wrong::new(None, overrides)),
        }
    }

    /// Reads the config that a run left behind. The files that it names need not exist any more.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn of_run(path: &Path) -> Result<Config> {
        Self::read(path, &Wrong::past(path, &Overrides::default()))
    }

    fn read(path: &Path, wrong: &Wrong) -> Result<Config> {
        let name = || path.display().to_string();
        let text = files::text(path, "read the config").map_err(|e| match e {
            Error::Io { source, .. } => Error::usage(name(), format!("cannot read the config: {source}")),
            Error::File { problem, .. } => Error::usage(name(), problem),
            other => other,
        })?;
        // Without the line itself, which may be all of a file.
        let bad = |e: toml::de::Error| {
            let place = |at: std::ops::Range<usize>| {
                let before = text.get(..at.start).unwrap_or_default();
                let line = text.lines().nth(before.matches('\n').count()).unwrap_or_default();
                let key = line.split('=').next().map(str::trim).filter(|key| key.len() < 40 && line.contains('='));
                let key = key.map_or(String::new(), |key| format!("{key}: "));
                format!("line {}: {key}", 1 + before.matches('\n').count())
            };
            let line = e.span().map_or(String::new(), place);
            Error::usage(name(), format!("{line}{}", short(e.message())))
        };
        toml::from_str::<file::File>(&text).map_err(bad)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        Self::of(text.parse().map_err(bad)?, &stem, wrong)
    }

    /// A config as written, with what the command line sets laid over it.
    fn of(mut table: toml::Table, default_name: &str, wrong: &Wrong) -> Result<Config> {
        wrong.once()?;
        certify::asked_for(table.contains_key("certify"), wrong)?;
        set::lay_over(&mut table, &wrong.overrides.set)?;
        let file = table.try_into().map_err(|e: toml::de::Error| Error::usage("config", short(e.message())))?;
        resolve(file, default_name, wrong)
    }

    /// Notes checksums of the images and the weights, so that a resumed run can tell whether they are still the same.
    ///
    /// # Errors
    /// [`Error::Io`] when weights cannot be read; [`Error::File`] when the config has another checksum already.
    pub fn pin(&mut self, dataset: &Dataset) -> Result<()> {
        let source = self.dataset.said.path.as_ref().or(self.dataset.said.images.as_ref());
        let source = source.cloned().unwrap_or_else(|| PathBuf::from(&dataset.name));
        pin::note(&mut self.dataset.crc32, dataset.crc32(), &source)?;
        if let Some(certify) = &mut self.certify {
            certify.values = Some(dataset.image_len());
        }
        for model in &mut self.models {
            pin::weights(&model.weights, &mut model.crc32)?;
        }
        if let Some(weights) = self.defense.denoiser().map(str::to_owned) {
            pin::weights(&weights, &mut self.defense.crc32)?;
        }
        Ok(())
    }
}

fn resolve(file: file::File, default_name: &str, wrong: &Wrong) -> Result<Config> {
    let o = wrong.overrides;
    let name = file.name.unwrap_or_else(|| default_name.to_owned());
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(wrong.at("name", format!("expected letters, digits, `.`, `_`, `-`, found `{name}`")));
    }
    let seed = o.seed.unwrap_or(file.seed);
    if seed > i64::MAX as u64 {
        return Err(wrong.at("seed", format!("expected at most {}, found {seed}", i64::MAX)));
    }
    // A run notes all three of the network that it ran.
    let idle = |model: &file::Model| model.input_range.is_some() && model.mean.is_some() && model.std.is_some();
    if file.run.is_empty() && file.models.iter().any(idle) {
        let problem = "has no effect beside models.mean and models.std: the network is given (pixel - mean) / std of pixels in [0, 1]. Leave \
                       it out; mean = 0 and std = 1/255 = 0.00392157 are pixels of 0 to 255";
        return Err(wrong.at("models.input_range", problem));
    }
    let (mut dataset, row) = resolve_dataset(file.dataset, wrong)?;
    // Among how many images a certification picks is for it to say.
    let picked = file.certify.as_ref().and_then(|certify| certify.max.or(certify.skip.map(|_| ALL)));
    let limit = o.limit.or(file.limit).unwrap_or(picked.map_or(row.limit, |most| most as usize));
    if file.limit.is_some_and(|own| own != limit) {
        // It was of other images.
        dataset.crc32 = None;
    }
    let as_written = o.as_written || file.as_written;
    let sigma = file.defense.sigma.as_deref().filter(|_| o.sigma.is_none() && !o.no_defense);
    let eps = file.attack.eps.as_deref().filter(|_| o.eps.is_none());
    let step = file.attack.step_size.as_ref().map(std::slice::from_ref);
    for (field, list, most) in
        [("attack.eps", eps, f64::INFINITY), ("attack.step_size", step, f64::INFINITY), ("defense.sigma", sigma, 1.0)]
    {
        if let Some(Err(problem)) = list.filter(|_| !as_written).map(|list| number::plausible(list, most)) {
            return Err(wrong.at(field, format!("{problem}; as_written = true takes numbers as they stand")));
        }
    }
    if let Some(share) = file.attack.rel_step.as_ref().map(|n| n.value).filter(|&share| share > 10.0 && !as_written) {
        let problem = format!("found {share}, that many times epsilon: write {} if percent were meant", share / 100.0);
        return Err(wrong.at("attack.rel_step", format!("{problem}; as_written = true takes numbers as they stand")));
    }
    let mut attack = resolve_attack(file.attack, wrong)?;
    let any = attack.early_stop || attack.nest;
    let score = file.score.unwrap_or(if any { Score::Any } else { Score::Last });
    if attack.nest && score == Score::Last {
        return Err(
            wrong.at("score", "nest counts any successful iterate within a smaller budget: set score = \"any\"")
        );
    }
    if attack.early_stop && score == Score::Last {
        return Err(wrong.at("score", "early stop ends an attack before its last iterate: set score = \"any\""));
    }
    if file.save.is_some() && attack.eps.iter().all(|&eps| eps == 0.0) && file.run.is_empty() {
        let problem = "attacked within a budget of 0 images are the clean ones, and none would be kept: expected an epsilon above 0";
        return Err(wrong.at("save", problem));
    }
    let certified = file.certify.is_some() || o.certify;
    let defense = resolve_defense(file.defense, row.denoiser, certified, &attack, wrong)?;
    let certify = certify::resolve(file.certify, row.denoiser.is_some(), &defense, wrong)?;
    if attack.nest && !defense.sigma.is_empty() {
        return Err(wrong
            .at("attack.nest", "images are attacked within some budgets only: leave out the defence (--no-defense)"));
    }
    if attack.nest && (file.save.is_some() || !attack.beside.is_empty()) {
        return Err(
            wrong.at("attack.nest", "images are attacked within some budgets only: leave out save and attack.beside")
        );
    }
    // What the same scoring makes of clean images stands beside every defended number.
    if !defense.sigma.is_empty() && attack.eps.first() != Some(&0.0) && !wrong.is_past() {
        attack.eps.insert(0, 0.0);
    }
    Ok(Config {
        name,
        seed,
        limit: wrong.at_least_one("limit", limit)?,
        batch: wrong.at_least_one("batch", o.batch.or(file.batch).unwrap_or(64))?,
        precision: o.precision.or(file.precision).unwrap_or(Precision::F32),
        device: o.device.or(file.device).unwrap_or(DeviceChoice::Auto),
        devices: o.devices.clone().unwrap_or_default(),
        score,
        as_written,
        checks_budget: file.checks_budget.map(|seconds| wrong.not_negative("checks_budget", seconds)).transpose()?,
        save: file.save,
        models: models::resolve(file.models, row.models, wrong)?,
        dataset,
        attack,
        defense,
        certify,
    })
}

/// More images than there are.
const ALL: u64 = 1_000_000_000;

/// What the command line says comes first.
fn resolve_attack(file: Said, wrong: &Wrong) -> Result<attack::Spec> {
    let o = wrong.overrides;
    let said = Said {
        eps: o.eps.as_ref().map(|eps| eps.iter().copied().map(Number::from).collect()).or(file.eps),
        early_stop: if o.early_stop { Some(true) } else { file.early_stop },
        starts: file.starts.map(|path| wrong.existing("attack.starts", &path)).transpose()?,
        ..file
    };
    said.decided().map_err(|e| wrong.explain(e))
}

#[cfg(test)]
mod tests;
