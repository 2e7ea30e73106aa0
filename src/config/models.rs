//! The `[[models]]` of a config, and their checkpoints: opened, described, and what the config adds to that.

use serde::Serialize;
use serde_json::{Map, Value};

use super::file;
use super::wrong::{Weights as Place, Wrong, plain};
use crate::data::demo;
use crate::error::{Error, Result};
use crate::models::card::{Card, Takes};
use crate::models::graph::{Channels, Layout};
use crate::models::metadata::{for_channels, unit};
use crate::models::network_row;
use crate::models::weights::Weights;

/// One classifier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelConfig {
    /// Unique within the experiment.
    pub name: String,
    /// A safetensors file, an ONNX graph, or `demo:` and the name of an embedded file.
    pub weights: String,
    /// Of the file, eight hexadecimal digits; see [`super::Config::pin`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
    /// What stands before the names of its tensors in the file, and what of the names is read otherwise, as in `linear.=fc.`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strip: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rename: Vec<String>,
    /// What the tensors are those of, where the checkpoint does not say: an architecture, and its config.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Map<String, Value>>,
    /// Normalisation of its images, where the checkpoint's own is not meant or not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f64>>,
    /// How an ONNX graph takes images, where its metadata does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<Channels>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// The largest value of a pixel: 1 or 255.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_range: Option<f64>,
    /// Share of test images that it should have right without an attack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clean_test_accuracy: Option<f64>,
}

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
    pub fn weights(&self) -> Place<'_> {
        Place::named(&self.weights)
    }

    /// Opens the file and reads what it says of itself; what the config says comes first.
    ///
    /// # Errors
    /// [`Error::File`] for a file that is no checkpoint or does not say what is needed.
    pub fn open(&self) -> Result<Checkpoint> {
        let mut weights = open(&self.weights)?;
        if weights.graph().is_some() {
            return self.open_graph(weights);
        }
        let graphs_only = [
            ("models.channels", self.channels.is_some()),
            ("models.layout", self.layout.is_some()),
            ("models.input_range", self.input_range.is_some()),
        ];
        if let Some((field, _)) = graphs_only.into_iter().find(|(_, given)| *given) {
            let problem = format!("says how an ONNX graph takes images, and {} is none", weights.origin().display());
            return Err(Error::usage(field, problem));
        }
        if let Some(prefix) = &self.strip {
            weights = weights.stripped(prefix)?;
        }
        for rename in &self.rename {
            let (from, to) = rename.split_once('=').unwrap_or((rename, ""));
            weights = weights.renamed(from, to)?;
        }
        let mut told = Vec::new();
        let config = self.config.clone().map(|config| Value::Object(config).to_string());
        for (key, said) in [("arch", self.arch.clone()), ("config", config)] {
            let Some(said) = said else { continue };
            let own = weights.has_metadata(key).then(|| weights.metadata(key)).transpose()?;
            if let Some(own) = own.filter(|own| !same(own, &said)) {
                told.push(format!("the checkpoint has {key} {own}; the config's {said} is used"));
            }
            weights = weights.saying(key, said);
        }
        let (weights, card, found) = Card::find(weights)?;
        told.extend(found);
        self.described(weights, card, told)
    }

    fn open_graph(&self, weights: Weights) -> Result<Checkpoint> {
        let of_tensors = [
            ("models.strip", self.strip.is_some()),
            ("models.rename", !self.rename.is_empty()),
            ("models.arch", self.arch.is_some()),
            ("models.config", self.config.is_some()),
        ];
        if let Some((field, _)) = of_tensors.into_iter().find(|(_, given)| *given) {
            let problem = format!("says what tensors are, and {} is an ONNX graph", weights.origin().display());
            return Err(Error::usage(field, problem));
        }
        let takes = Takes { channels: self.channels, layout: self.layout, range: self.input_range };
        let (card, notes) = Card::of_graph(&weights, &takes)?;
        self.described(weights, card, notes)
    }

    /// What the config says of it comes first.
    fn described(&self, weights: Weights, mut card: Card, found: Vec<String>) -> Result<Checkpoint> {
        let mut notes: Vec<String> = found.into_iter().map(|note| format!("{}: {note}", self.name)).collect();
        notes.extend(card.doubts.iter().map(|doubt| format!("warning: {}: metadata {doubt}", self.name)));
        if let Some(step) = card.bytes.as_ref().filter(|_| self.mean.is_none() && self.std.is_none()) {
            let problem = format!(
                "the graph seems to take pixels of 0 to 255: {step}. Say which: models.input_range = 255 (--input-range 255), or 1 if it \
                 takes those of 0 to 1"
            );
            return Err(Error::file(weights.origin(), problem));
        }
        match (&self.mean, &self.std) {
            (None, None) => notes.extend(card.assumption().map(|text| format!("{}: {text}", self.name))),
            (Some(_), Some(_)) if card.assumed => (card.mean, card.std) = (None, None),
            (Some(_), None) => notes.extend(card.half("mean", "std").map(|text| format!("{}: {text}", self.name))),
            (None, Some(_)) => notes.extend(card.half("std", "mean").map(|text| format!("{}: {text}", self.name))),
            _ => {}
        }
        let channels = card.shape().map_err(|problem| Error::file(weights.origin(), problem))?.channels();
        for (key, said, own) in [("mean", &self.mean, &mut card.mean), ("std", &self.std, &mut card.std)] {
            if let (Some(said), Some(own)) = (said, own.as_ref().filter(|own| Some(*own) != said.as_ref())) {
                notes.push(format!("{}: the checkpoint has {key} {own:?}; the config's {said:?} is used", self.name));
            }
            if let Some(said) = said {
                for_channels(said, channels).map_err(|problem| Error::usage(format!("models.{key}"), problem))?;
                *own = Some(said.clone());
            }
            if own.is_none() {
                let problem =
                    format!("expected `{key}` in the metadata, or in the config as models.{key}, found neither");
                return Err(Error::file(weights.origin(), problem));
            }
        }
        Ok(Checkpoint { weights, card, notes })
    }
}

/// Those of a file, or else the dataset's own.
pub(super) fn resolve(mut given: Vec<file::Model>, own: &[&str], wrong: &Wrong) -> Result<Vec<ModelConfig>> {
    if given.is_empty() {
        let embedded = |name| file::Model { weights: format!("demo:{name}"), ..file::Model::default() };
        given = own.iter().map(embedded).collect();
    }
    if given.is_empty() {
        return Err(wrong.at("models", "expected at least one [[models]] with its weights, found none"));
    }
    let mut resolved: Vec<ModelConfig> = Vec::new();
    for model in given {
        if let Some(Err(known)) = model.arch.as_deref().map(network_row) {
            let found = model.arch.unwrap_or_default();
            return Err(wrong.at("models.arch", format!("expected one of {known}, found `{found}`")));
        }
        if model.config.is_some() && model.arch.is_none() {
            return Err(wrong.at("models.config", "belongs to models.arch, found none"));
        }
        let config = model.config.map(config_of).transpose().map_err(|problem| wrong.at("models.config", problem))?;
        let [mean, std] = [model.mean, model.std].map(|values| values.map(Vec::from));
        for (key, values) in [("mean", &mean), ("std", &std)] {
            check(key, values.as_deref()).map_err(|problem| wrong.at(&format!("models.{key}"), problem))?;
        }
        if let Some(bad) = model.rename.iter().find(|text| text.split_once('=').is_none_or(|(from, _)| from.is_empty()))
        {
            return Err(wrong.at("models.rename", format!("expected FROM=TO, found `{bad}`")));
        }
        if let Some(bad) = model.input_range.filter(|&range| range != 1.0 && range != 255.0) {
            return Err(wrong.at("models.input_range", format!("expected 1 or 255, found {bad}")));
        }
        if let Some(bad) = model.clean_test_accuracy.filter(|share| !(0.0..=1.0).contains(share)) {
            return Err(wrong.at("models.clean_test_accuracy", format!("expected a share of 0 to 1, found {bad}")));
        }
        let (default_name, weights) = wrong.locate(&model.weights, "models.weights", &demo::MODELS)?;
        // Pictures and curves are named by it.
        if let Some(bad) = model.name.as_deref().and_then(|name| name.chars().find(|&c| !plain(c))) {
            let problem = format!("expected letters, digits and ._- of ASCII, found `{bad}`");
            return Err(wrong.at("models.name", problem));
        }
        let name = model.name.unwrap_or_else(|| default_name.chars().map(|c| if plain(c) { c } else { '-' }).collect());
        if name.is_empty() || resolved.iter().any(|model| model.name == name) {
            return Err(
                wrong.at("models.name", format!("expected a different name for each model, found `{name}` again"))
            );
        }
        resolved.push(ModelConfig {
            name,
            weights,
            config,
            crc32: model.crc32,
            strip: model.strip,
            rename: model.rename,
            arch: model.arch,
            mean,
            std,
            channels: model.channels,
            layout: model.layout,
            input_range: model.input_range,
            clean_test_accuracy: model.clean_test_accuracy,
        });
    }
    Ok(resolved)
}

/// Whether two texts say the same, as JSON where both are.
fn same(a: &str, b: &str) -> bool {
    let json = |text| serde_json::from_str::<Value>(text).ok();
    a == b || json(a).is_some_and(|a| Some(a) == json(b))
}

/// A network's config as a table, or as the JSON of one, which a shell can say.
fn config_of(said: toml::Value) -> Result<Map<String, Value>, String> {
    let found = match said {
        toml::Value::String(text) => serde_json::from_str(&text)
            .map_err(|e| format!("expected a table or the JSON of one, found `{text}`: {e}"))?,
        other => serde_json::to_value(other).map_err(|e| e.to_string())?,
    };
    match found {
        Value::Object(config) => Ok(config),
        other => Err(format!("expected a table, as in {{ depth = 18 }}, found {other}")),
    }
}

/// Whether a config's mean or deviation can be meant.
fn check(key: &str, values: Option<&[f64]>) -> Result<(), String> {
    values.map_or(Ok(()), |values| unit(key, values))
}
