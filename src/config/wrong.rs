//! How a config is told what is wrong with it: by the flag where the command line decided, else by the file and the field.

use std::fs;
use std::path::{Path, PathBuf};

use crate::data::demo;
use crate::defense::Estimator;
use crate::device::{DeviceChoice, Which};
use crate::error::{Error, Result};
use crate::tape::Precision;

/// A key and its value, and the flag that gave it.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// As in the table of keys.
    pub key: &'static str,
    /// Which of the networks, where not all.
    pub model: Option<usize>,
    pub value: toml::Value,
    /// What an error is said of: `--norm`, `--set attack.norm`.
    pub by: String,
}

/// What the command line says in place of the config.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    pub eps: Option<Vec<f64>>,
    pub sigma: Option<Vec<f64>>,
    pub draws: Option<u32>,
    /// Attack the defended pipeline too.
    pub attack_through: bool,
    /// And by the whole suite.
    pub suite: bool,
    pub eot: Option<u32>,
    pub estimator: Option<Estimator>,
    pub limit: Option<usize>,
    pub batch: Option<usize>,
    pub seed: Option<u64>,
    pub precision: Option<Precision>,
    pub device: Option<DeviceChoice>,
    /// Which of that kind: changes speed, never a result.
    pub devices: Option<Which>,
    pub early_stop: bool,
    /// Numbers are meant as they stand, however unusual.
    pub as_written: bool,
    /// The undefended channel only, whatever the config says of a defence.
    pub no_defense: bool,
    /// Certify, though the config says nothing of it.
    pub certify: bool,
    /// Keys of the config by their names; none of those above.
    pub set: Vec<Set>,
}

/// A field, the flag that may decide it, and whether it did. What has no field of the config is a flag in any case.
type Flag = (&'static str, &'static str, fn(&Overrides) -> bool);
const FLAGS: [Flag; 18] = [
    ("attack.eps", "--eps", |o| o.eps.is_some()),
    ("defense.sigma", "--sigma", |o| o.sigma.is_some()),
    ("defense.draws", "--draws", |o| o.draws.is_some()),
    ("defense.attack", "--attack-through", |o| o.attack_through),
    ("defense.suite", "--attack-through", |o| o.suite),
    ("defense.eot", "--eot", |o| o.eot.is_some()),
    ("defense.estimator", "--estimator", |o| o.estimator.is_some()),
    ("limit", "--limit", |o| o.limit.is_some()),
    ("batch", "--batch", |o| o.batch.is_some()),
    ("seed", "--seed", |o| o.seed.is_some()),
    ("precision", "--precision", |o| o.precision.is_some()),
    ("device", "--device", |o| o.device.is_some()),
    ("attack.early_stop", "--early-stop", |o| o.early_stop),
    ("score", "--early-stop", |o| o.early_stop),
    ("as_written", "--as-written", |o| o.as_written),
    ("out", "--out", |_| true),
    ("resume", "--resume", |_| true),
    ("shard", "--shard", |_| true),
];

impl Overrides {
    /// The fields of the config that are given, and by which flag.
    pub fn given(&self) -> impl Iterator<Item = (&'static str, &str)> {
        // What every command line has is no field.
        let nothing = Overrides::default();
        let own = FLAGS.iter().filter(move |(.., given)| given(self) && !given(&nothing));
        let set = self.set.iter().map(|set| (set.key, set.by.as_str()));
        own.map(|&(field, flag, _)| (field, flag)).chain(set)
    }
}

/// Where the settings of one config come from.
pub struct Wrong<'a> {
    file: Option<&'a Path>,
    pub overrides: &'a Overrides,
    /// Whether the experiment is over: then its files may be gone.
    past: bool,
}

impl<'a> Wrong<'a> {
    /// Of a config that is to be run; without a file, of the embedded demo.
    pub fn new(file: Option<&'a Path>, overrides: &'a Overrides) -> Self {
        Wrong { file, overrides, past: false }
    }

    /// Of a run that is over.
    pub(super) fn past(file: &'a Path, overrides: &'a Overrides) -> Self {
        Wrong { file: Some(file), overrides, past: true }
    }

    pub fn at(&self, field: &str, problem: impl Into<String>) -> Error {
        let flag = FLAGS.iter().find(|(name, _, given)| *name == field && given(self.overrides));
        let set = self.overrides.set.iter().find(|set| set.key == field);
        match (flag.map(|(_, flag, _)| *flag).or(set.map(|set| set.by.as_str())), self.file) {
            (Some(flag), _) => Error::usage(flag, problem),
            (None, Some(file)) => Error::usage(format!("{}: {field}", file.display()), problem),
            (None, None) => Error::usage(field, problem),
        }
    }

    /// An error of a layer below, which knows the field alone, said as [`Wrong::at`] does. Others stay what they are.
    pub fn explain(&self, error: Error) -> Error {
        match error {
            Error::Usage { field, problem } if is_field(&field) => self.at(&field, problem),
            other => other,
        }
    }

    /// Refuses a key that a flag and `--set` both give.
    pub(super) fn once(&self) -> Result<()> {
        // An early stop leaves a choice of scores.
        let decides =
            |(name, _, given): &&Flag, set: &Set| *name == set.key && *name != "score" && given(self.overrides);
        let own = |set: &Set| FLAGS.iter().find(|flag| decides(flag, set));
        match self.overrides.set.iter().find_map(|set| Some((set, own(set)?))) {
            Some((set, (_, flag, _))) => Err(Error::usage(&set.by, format!("expected once, found as well: {flag}"))),
            None => Ok(()),
        }
    }

    /// Whether what is read was run before, perhaps by an older version.
    pub(super) fn is_past(&self) -> bool {
        self.past
    }

    pub(super) fn not_negative(&self, field: &str, value: f64) -> Result<f64> {
        let good = value.is_finite() && value >= 0.0;
        if good { Ok(value) } else { Err(self.at(field, format!("expected a number of at least 0, found {value}"))) }
    }

    pub(super) fn at_least_one(&self, field: &str, value: usize) -> Result<usize> {
        if value > 0 { Ok(value) } else { Err(self.at(field, "expected at least 1, found 0")) }
    }

    /// The absolute form of a path that is relative to the folder of the config file.
    pub(super) fn existing(&self, field: &str, path: &Path) -> Result<PathBuf> {
        // Joined to the folder it would stand for that folder.
        if path.as_os_str().is_empty() {
            return Err(self.at(field, "expected a path, found an empty one"));
        }
        let full = self.file.and_then(Path::parent).unwrap_or(Path::new("")).join(path);
        if self.past {
            return Ok(full);
        }
        fs::canonicalize(&full).map_err(|e| self.at(field, format!("{}: {e}", full.display())))
    }

    /// The default name and the full form of `weights`: a safetensors file, or `demo:` and one of `known`.
    pub(super) fn locate(&self, weights: &str, field: &str, known: &[&str]) -> Result<(String, String)> {
        match weights.strip_prefix("demo:") {
            Some(name) if known.contains(&name) => Ok((name.to_owned(), weights.to_owned())),
            Some(unknown) => {
                let names = known.join(", ");
                Err(self.at(field, format!("expected one of {names} after `demo:`, found `{unknown}`")))
            }
            None => {
                let path = self.existing(field, Path::new(weights))?;
                let text = path.to_str().ok_or_else(|| self.at(field, "expected a path in UTF-8"))?;
                Ok((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text.to_owned()))
            }
        }
    }
}

/// Whether an error's name is one of the config's fields, not a flag or a file.
fn is_field(name: &str) -> bool {
    let (table, own) = name.split_once('.').unwrap_or(("", name));
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b"_.".contains(&b));
    matches!(table, "" | "attack" | "defense" | "certify" | "dataset" | "models") && word(own)
}

/// Whether names of experiments and models, which become names of files, may hold it.
pub(super) fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "._-".contains(c)
}

/// What a resolved name of weights stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weights<'a> {
    Embedded(&'static [u8]),
    File(&'a Path),
}

impl<'a> Weights<'a> {
    /// A safetensors file, or `demo:` and the name of an embedded one.
    pub fn named(weights: &'a str) -> Self {
        let embedded = weights.strip_prefix("demo:").and_then(demo::weights);
        embedded.map_or(Weights::File(Path::new(weights)), Weights::Embedded)
    }
}
