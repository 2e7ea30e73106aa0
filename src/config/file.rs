//! What a config file may say. Everything has a default; an unknown field is an error.

use std::path::PathBuf;

use serde::Deserialize;

use super::settings::{Procedure, Rounding, Score, SelectBy};
use super::wrong::Overrides;
use crate::attack;
use crate::data::prepare::Fit;
use crate::data::resize;
use crate::data::saved::Format;
use crate::defense::{Estimator, Vote};
use crate::device::DeviceChoice;
use crate::models::graph::{Channels, Layout};
use crate::models::metadata::PerChannel;
use crate::number::Number;
use crate::tape::Precision;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub name: Option<String>,
    pub seed: u64,
    pub limit: Option<usize>,
    pub batch: Option<usize>,
    pub precision: Option<Precision>,
    pub device: Option<DeviceChoice>,
    pub score: Option<Score>,
    /// Numbers are meant as they stand, however unusual.
    pub as_written: bool,
    pub checks_budget: Option<f64>,
    pub save: Option<Format>,
    pub dataset: Dataset,
    pub models: Vec<Model>,
    pub attack: attack::Said,
    pub defense: Defense,
    pub certify: Option<Certify>,
    /// What an earlier run found: a run's own `config.toml` can be run again.
    pub run: toml::Table,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Dataset {
    pub kind: Option<String>,
    pub path: Option<PathBuf>,
    pub images: Option<PathBuf>,
    pub labels: Option<PathBuf>,
    pub classes: Option<PathBuf>,
    pub list: Option<PathBuf>,
    pub class_order: Option<Vec<String>>,
    pub select: Option<SelectBy>,
    pub seed: Option<u32>,
    pub size: Option<[usize; 2]>,
    pub fit: Option<Fit>,
    pub shorter: Option<usize>,
    pub filter: Option<resize::Filter>,
    pub crc32: Option<String>,
    /// What an earlier run found.
    pub left_out: Option<usize>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    pub name: Option<String>,
    pub weights: String,
    pub crc32: Option<String>,
    pub strip: Option<String>,
    #[serde(default)]
    pub rename: Vec<String>,
    pub arch: Option<String>,
    pub config: Option<toml::Value>,
    pub mean: Option<PerChannel>,
    pub std: Option<PerChannel>,
    pub channels: Option<Channels>,
    pub layout: Option<Layout>,
    pub input_range: Option<f64>,
    pub clean_test_accuracy: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Defense {
    pub weights: Option<String>,
    pub crc32: Option<String>,
    pub sigma: Option<Vec<Number>>,
    pub draws: Option<u32>,
    pub seeds: Option<u32>,
    pub vote: Option<Vote>,
    /// Whether an attack goes through the defence as well.
    pub attack: bool,
    pub suite: bool,
    pub steps: Option<u32>,
    pub selection: Option<u32>,
    pub straight: bool,
    pub antithetic: bool,
    pub aa_compat: bool,
    pub eot: Option<u32>,
    pub estimator: Option<Estimator>,
    pub size: Option<[usize; 2]>,
    pub filter: Option<resize::Filter>,
    pub rescale_input: Option<bool>,
    pub rescale_output: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Certify {
    pub procedure: Option<Procedure>,
    pub n0: Option<u32>,
    pub n: Option<u32>,
    pub alpha: Option<Number>,
    pub radius: Option<Vec<Number>>,
    pub skip: Option<u64>,
    pub max: Option<u64>,
    pub tsv_rounding: Option<Rounding>,
    /// What an earlier run found.
    pub values: Option<usize>,
    pub compare: Vec<PathBuf>,
}

impl Defense {
    /// The fields that mean nothing without a sigma, by file or flag, and whether they were said.
    pub fn given(&self, o: &Overrides) -> [(&'static str, bool); 17] {
        [
            ("defense.weights", self.weights.is_some()),
            ("defense.draws", self.draws.or(o.draws).is_some()),
            ("defense.seeds", self.seeds.is_some()),
            ("defense.vote", self.vote.is_some()),
            ("defense.attack", self.attack || o.attack_through),
            ("defense.suite", self.suite || o.suite),
            ("defense.steps", self.steps.is_some()),
            ("defense.selection", self.selection.is_some()),
            ("defense.straight", self.straight),
            ("defense.antithetic", self.antithetic),
            ("defense.aa_compat", self.aa_compat),
            ("defense.eot", self.eot.or(o.eot).is_some()),
            ("defense.estimator", self.estimator.or(o.estimator).is_some()),
            ("defense.size", self.size.is_some()),
            ("defense.filter", self.filter.is_some()),
            ("defense.rescale_input", self.rescale_input.is_some()),
            ("defense.rescale_output", self.rescale_output.is_some()),
        ]
    }
}
