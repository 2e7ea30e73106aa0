//! A resolved experiment: every default filled in, every value checked.

use std::fs;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use super::attack_config::AttackConfig;
use super::attack_config::resolve as resolve_attack;
pub use super::dataset_config::DatasetConfig;
use super::dataset_config::resolve as resolve_dataset;
pub use super::defense_config::DefenseConfig;
use super::defense_config::resolve as resolve_defense;
use super::file;
use super::settings::{DatasetKind, DeviceChoice, Score};
use crate::data::{self, Dataset};
use crate::defense::Estimator;
use crate::error::{Error, Result};
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
    pub score: Score,
    pub dataset: DatasetConfig,
    pub models: Vec<ModelConfig>,
    pub attack: AttackConfig,
    pub defense: DefenseConfig,
}

/// One classifier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// Unique within the experiment.
    pub name: String,
    /// A safetensors file, or `demo:` and the name of an embedded one.
    pub weights: String,
    /// Of the file, eight hexadecimal digits; see [`Config::pin`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
}

/// The weights of a [`ModelConfig`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weights<'a> {
    Embedded(&'static [u8]),
    File(&'a Path),
}

/// What the command line says in place of the config.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    pub eps: Option<Vec<f64>>,
    pub sigma: Option<Vec<f64>>,
    pub draws: Option<u32>,
    /// Attack the defended pipeline too.
    pub attack_through: bool,
    pub eot: Option<u32>,
    pub estimator: Option<Estimator>,
    pub limit: Option<usize>,
    pub batch: Option<usize>,
    pub seed: Option<u64>,
    pub precision: Option<Precision>,
    pub device: Option<DeviceChoice>,
    pub early_stop: bool,
}

impl Config {
    /// Reads `path`, or takes the embedded demo without one, applies `overrides`, fills in defaults and checks all.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag, or the file and the field, with what was found and what is expected.
    pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Config> {
        let Some(path) = path else {
            let wrong = Wrong { file: None, overrides, past: false };
            return resolve(file::File::default(), "demo", &wrong);
        };
        Self::read(path, overrides, false)
    }

    /// Reads the config that a run left behind. The files that it names need not exist any more.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn of_run(path: &Path) -> Result<Config> {
        Self::read(path, &Overrides::default(), true)
    }

    fn read(path: &Path, overrides: &Overrides, past: bool) -> Result<Config> {
        let name = || path.display().to_string();
        let text =
            fs::read_to_string(path).map_err(|e| Error::usage(name(), format!("cannot read the config: {e}")))?;
        let file = toml::from_str(&text).map_err(|e| Error::usage(name(), e.to_string().trim_end()))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        resolve(file, &stem, &Wrong { file: Some(path), overrides, past })
    }

    /// Notes checksums of the images and the weights, so that a resumed run can tell whether they are still the same.
    ///
    /// # Errors
    /// [`Error::Io`] when weights cannot be read; [`Error::File`] when the config has another checksum already.
    pub fn pin(&mut self, dataset: &Dataset) -> Result<()> {
        let source = self.dataset.path.as_ref().or(self.dataset.images.as_ref());
        let source = source.cloned().unwrap_or_else(|| PathBuf::from(&dataset.name));
        pin(&mut self.dataset.crc32, dataset.crc32(), &source)?;
        for model in &mut self.models {
            pin_weights(&model.weights, &mut model.crc32)?;
        }
        if let Some(weights) = &self.defense.weights {
            pin_weights(weights, &mut self.defense.crc32)?;
        }
        Ok(())
    }
}

impl ModelConfig {
    pub fn weights(&self) -> Weights<'_> {
        source(&self.weights)
    }
}

/// What a resolved name of weights stands for.
pub fn source(weights: &str) -> Weights<'_> {
    let embedded = weights.strip_prefix("demo:").and_then(data::demo::weights);
    embedded.map_or(Weights::File(Path::new(weights)), Weights::Embedded)
}

/// Makes the errors of one config: they name the flag where the command line decided, else the file and the field.
pub(super) struct Wrong<'a> {
    file: Option<&'a Path>,
    pub overrides: &'a Overrides,
    /// Whether the experiment is over: then its files may be gone.
    past: bool,
}

impl Wrong<'_> {
    pub fn at(&self, field: &str, problem: impl Into<String>) -> Error {
        let o = self.overrides;
        let flag = match field {
            "attack.eps" if o.eps.is_some() => Some("--eps"),
            "defense.sigma" if o.sigma.is_some() => Some("--sigma"),
            "defense.draws" if o.draws.is_some() => Some("--draws"),
            "defense.attack" if o.attack_through => Some("--attack-through"),
            "defense.eot" if o.eot.is_some() => Some("--eot"),
            "defense.estimator" if o.estimator.is_some() => Some("--estimator"),
            "limit" if o.limit.is_some() => Some("--limit"),
            "batch" if o.batch.is_some() => Some("--batch"),
            "seed" if o.seed.is_some() => Some("--seed"),
            "score" if o.early_stop => Some("--early-stop"),
            _ => None,
        };
        match (flag, self.file) {
            (Some(flag), _) => Error::usage(flag, problem),
            (None, Some(file)) => Error::usage(format!("{}: {field}", file.display()), problem),
            (None, None) => Error::usage(field, problem),
        }
    }

    pub fn positive(&self, field: &str, value: f64) -> Result<f64> {
        let good = value.is_finite() && value > 0.0;
        if good { Ok(value) } else { Err(self.at(field, format!("expected a number above 0, found {value}"))) }
    }

    pub fn not_negative(&self, field: &str, value: f64) -> Result<f64> {
        let good = value.is_finite() && value >= 0.0;
        if good { Ok(value) } else { Err(self.at(field, format!("expected a number of at least 0, found {value}"))) }
    }

    pub fn at_least_one(&self, field: &str, value: usize) -> Result<usize> {
        if value > 0 { Ok(value) } else { Err(self.at(field, "expected at least 1, found 0")) }
    }

    /// The absolute form of a path that is relative to the folder of the config file.
    pub fn existing(&self, field: &str, path: &Path) -> Result<PathBuf> {
        let full = self.file.and_then(Path::parent).unwrap_or(Path::new("")).join(path);
        if self.past {
            return Ok(full);
        }
        fs::canonicalize(&full).map_err(|e| self.at(field, format!("{}: {e}", full.display())))
    }
}

/// Whether names of experiments and models, which become names of files, may hold it.
fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
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
    let mut dataset = resolve_dataset(file.dataset, wrong)?;
    let demo = dataset.kind == DatasetKind::Demo;
    let limit = o.limit.or(file.limit).unwrap_or(if demo { 256 } else { 1000 });
    if file.limit.is_some_and(|own| own != limit) {
        // It was of other images.
        dataset.crc32 = None;
    }
    let attack = resolve_attack(file.attack, o.eps.as_deref(), o.early_stop, wrong)?;
    let score = file.score.unwrap_or(if attack.early_stop { Score::Any } else { Score::Last });
    if attack.early_stop && score == Score::Last {
        return Err(wrong.at("score", "early stop ends an attack before its last iterate: set score = \"any\""));
    }
    let defense = resolve_defense(file.defense, demo, &attack, wrong)?;
    Ok(Config {
        name,
        seed,
        limit: wrong.at_least_one("limit", limit)?,
        batch: wrong.at_least_one("batch", o.batch.or(file.batch).unwrap_or(64))?,
        precision: o.precision.or(file.precision).unwrap_or(Precision::F32),
        device: o.device.or(file.device).unwrap_or(DeviceChoice::Auto),
        score,
        models: resolve_models(file.models, demo, wrong)?,
        dataset,
        attack,
        defense,
    })
}

fn resolve_models(mut models: Vec<file::Model>, demo: bool, wrong: &Wrong) -> Result<Vec<ModelConfig>> {
    if models.is_empty() && demo {
        let embedded = |name| file::Model { name: None, weights: format!("demo:{name}"), crc32: None };
        models = data::demo::MODELS.map(embedded).into();
    }
    if models.is_empty() {
        return Err(wrong.at("models", "expected at least one [[models]] with its weights, found none"));
    }
    let mut resolved: Vec<ModelConfig> = Vec::new();
    for file::Model { name, weights, crc32 } in models {
        let (default_name, weights) = locate(&weights, "models.weights", &data::demo::MODELS, wrong)?;
        // Pictures and curves are named by it.
        if let Some(bad) = name.as_deref().and_then(|name| name.chars().find(|&c| !plain(c))) {
            let problem = format!("expected letters, digits and ._- of ASCII, found `{bad}`");
            return Err(wrong.at("models.name", problem));
        }
        let name = name.unwrap_or_else(|| default_name.chars().map(|c| if plain(c) { c } else { '-' }).collect());
        if name.is_empty() || resolved.iter().any(|model| model.name == name) {
            return Err(
                wrong.at("models.name", format!("expected a different name for each model, found `{name}` again"))
            );
        }
        resolved.push(ModelConfig { name, weights, crc32 });
    }
    Ok(resolved)
}

/// The default name and the full form of `weights`: a safetensors file, or `demo:` and one of `known`.
pub(super) fn locate(weights: &str, field: &str, known: &[&str], wrong: &Wrong) -> Result<(String, String)> {
    match weights.strip_prefix("demo:") {
        Some(name) if known.contains(&name) => Ok((name.to_owned(), weights.to_owned())),
        Some(unknown) => {
            let names = known.join(", ");
            Err(wrong.at(field, format!("expected one of {names} after `demo:`, found `{unknown}`")))
        }
        None => {
            let path = wrong.existing(field, Path::new(weights))?;
            let text = path.to_str().ok_or_else(|| wrong.at(field, "expected a path in UTF-8"))?;
            Ok((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text.to_owned()))
        }
    }
}

fn checksum(reader: impl io::Read) -> io::Result<u32> {
    let mut reader = flate2::CrcReader::new(reader);
    io::copy(&mut reader, &mut io::sink())?;
    Ok(reader.crc().sum())
}

fn pin_weights(weights: &str, known: &mut Option<String>) -> Result<()> {
    let path = Path::new(weights);
    let found = match source(weights) {
        Weights::Embedded(bytes) => checksum(bytes),
        Weights::File(path) => fs::File::open(path).and_then(|file| checksum(BufReader::new(file))),
    };
    pin(known, found.map_err(|e| Error::io(path, "read the weights", e))?, path)
}

fn pin(known: &mut Option<String>, found: u32, file: &Path) -> Result<()> {
    let found = format!("{found:08x}");
    match known.replace(found.clone()) {
        Some(expected) if expected != found => {
            Err(Error::file(file, format!("crc32: the config expects {expected}, found {found}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
