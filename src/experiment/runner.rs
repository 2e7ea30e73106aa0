//! Runs every model at every epsilon over every image, remembering each batch, and sums up.

use std::collections::HashMap;

use super::config::Config;
use super::progress::Progress;
use super::records::{Found, Outcome, Record, Records};
use super::results::{self, Cell, Channel, is_correct};
use super::rundir::RunDir;
use super::summary;
use crate::data::Dataset;
use crate::defense::Smoothed;
use crate::error::{Error, Result};
use crate::report;

/// What attacks images. Its outcomes must depend on the model, epsilon and image alone, never on the batch.
pub trait Engine {
    /// Attacks `images`, indices into the dataset, on `model`, an index into [`Config::models`], and says what every channel
    /// makes of them, image by image in the same order.
    ///
    /// # Errors
    /// Whatever keeps the batch from being attacked; the run ends there and can be resumed.
    fn run(&mut self, model: usize, eps: f64, images: &[usize]) -> Result<Attacked>;

    /// What the `device` column of `results.csv` says.
    fn device_name(&self) -> String;
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attacked {
    /// Of channel 1.
    pub outcomes: Vec<Outcome>,
    /// Of each further channel in the order of [`results::channels`].
    pub denoised: Vec<Vec<Smoothed>>,
}

/// What a finished run found.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// In the order of `results.csv`.
    pub cells: Vec<Cell>,
    /// The tables to print.
    pub tables: String,
    /// Perturbations over budget, all cells together; 0 unless an attack is broken.
    pub violations: u64,
}

/// Does what is left of the experiment in `dir` and writes `results.csv` and `plots/accuracy.{svg,png}`.
///
/// # Errors
/// [`Error::Usage`] when `dir` holds a run with other settings; [`Error::File`] when its records are damaged or of
/// another experiment; [`Error::Io`]; what the engine returns.
pub fn run<E: Engine>(config: &Config, dataset: &Dataset, engine: &mut E, dir: &RunDir) -> Result<Summary> {
    let device = engine.device_name();
    dir.settle(config, &device)?;
    let path = dir.path().join("records.jsonl");
    let (mut records, found) = Records::open(&path)?;
    let mut state = State::new(config, dataset);
    for (i, record) in found.iter().enumerate() {
        state.restore(record).map_err(|problem| Error::file(&path, format!("line {}: {problem}", i + 1)))?;
    }

    let channels = results::channels(config);
    let groups: Vec<(usize, f64)> =
        (0..config.models.len()).flat_map(|model| config.attack.eps.iter().map(move |&eps| (model, eps))).collect();
    let progress = Progress::new((groups.len() * dataset.len()) as u64, (found.len() / channels.len()) as u64);
    for (model, eps) in groups {
        let cells: Vec<usize> = channels.iter().filter_map(|&channel| state.cell(model, channel, eps)).collect();
        let missing = |state: &State, image: usize| cells.iter().any(|&c| state.correct[c][image].is_none());
        let todo: Vec<usize> = (0..dataset.len()).filter(|&i| missing(&state, i)).collect();
        progress.cell(format!("{} eps {}", config.models[model].name, report::eps_label(eps)));
        for batch in todo.chunks(config.batch) {
            let attacked = engine.run(model, eps, batch)?;
            let lengths = std::iter::once(attacked.outcomes.len()).chain(attacked.denoised.iter().map(Vec::len));
            if let Some(len) = lengths.into_iter().find(|&len| len != batch.len()) {
                return Err(Error::Failed(format!("expected {} outcomes of a batch, got {len}", batch.len())));
            }
            if attacked.denoised.len() + 1 != channels.len() {
                let counts = format!("expected {} channels, got {}", channels.len(), attacked.denoised.len() + 1);
                return Err(Error::Failed(counts));
            }
            let mut new: Vec<(usize, usize, Record)> = Vec::new();
            for (i, &image) in batch.iter().enumerate() {
                for (k, &cell) in cells.iter().enumerate() {
                    let found = match k {
                        0 => Found::Attacked(attacked.outcomes[i]),
                        k => Found::Denoised(attacked.denoised[k - 1][i]),
                    };
                    // A killed run may have recorded some of the channels.
                    if state.correct[cell][image].is_none() {
                        new.push((cell, image, state.record(cell, image, found)));
                    }
                }
            }
            records.append(&new.iter().map(|(_, _, record)| record.clone()).collect::<Vec<_>>())?;
            for (cell, image, record) in &new {
                state.take(*cell, *image, &record.found);
            }
            progress.advance(batch.len());
        }
        if !todo.is_empty() {
            let counts = cells.iter().map(|&c| {
                let cell = &state.cells[c];
                let sigma = cell.channel.sigma().map_or("correct".into(), |sigma| format!("at sigma {sigma}"));
                let through = matches!(cell.channel, Channel::Denoised { through: true, .. });
                format!("{} {sigma}{}", cell.correct(config.score), if through { " attacked" } else { "" })
            });
            progress.cell_done(&format!("of {}: {}", dataset.len(), counts.collect::<Vec<_>>().join(", ")));
        }
    }
    drop(progress);

    dir.write("results.csv", &results::csv(config, &dataset.name, &device, &state.cells)?)?;
    let figure = summary::figure(config, dataset, &state.cells)?;
    dir.write("plots/accuracy.svg", figure.svg.as_bytes())?;
    dir.write("plots/accuracy.png", &figure.png)?;
    let violations = state.cells.iter().map(|cell| cell.violations).sum();
    let tables = summary::tables(config, dataset, &state.cells, &state.correct);
    Ok(Summary { tables, violations, cells: state.cells })
}

/// Which images are done in which cell.
struct State<'a> {
    config: &'a Config,
    dataset: &'a Dataset,
    cells: Vec<Cell>,
    /// Per cell and image: whether it counts as right, once that is known.
    correct: Vec<Vec<Option<bool>>>,
    /// Cell by model, attack, bits of epsilon and of sigma; image by id.
    cell_index: HashMap<Key, usize>,
    image_index: HashMap<u64, usize>,
}

type Key = (String, String, u64, Option<u64>);

impl<'a> State<'a> {
    fn new(config: &'a Config, dataset: &'a Dataset) -> Self {
        let cells = results::cells(config);
        let index =
            cells.iter().enumerate().map(|(i, cell)| (Self::key(config, cell.model, cell.channel, cell.eps), i));
        State {
            config,
            dataset,
            correct: vec![vec![None; dataset.len()]; cells.len()],
            cell_index: index.collect(),
            image_index: dataset.ids.iter().enumerate().map(|(i, &id)| (id, i)).collect(),
            cells,
        }
    }

    fn key(config: &Config, model: usize, channel: Channel, eps: f64) -> Key {
        let sigma = channel.sigma().map(f64::to_bits);
        (config.models[model].name.clone(), channel.attack(config), eps.to_bits(), sigma)
    }

    fn cell(&self, model: usize, channel: Channel, eps: f64) -> Option<usize> {
        self.cell_index.get(&Self::key(self.config, model, channel, eps)).copied()
    }

    /// Takes over a record of an earlier process, or says why it cannot be one of this experiment.
    fn restore(&mut self, record: &Record) -> Result<(), String> {
        let Record { model, attack, eps, sigma, image: id, label, .. } = record;
        let cell = self.cell_index.get(&(model.clone(), attack.clone(), eps.to_bits(), sigma.map(f64::to_bits)));
        let place = || format!("model {model} at eps {eps}{}", sigma.map_or(String::new(), |s| format!(", sigma {s}")));
        let &cell = cell.ok_or_else(|| format!("{} is not in the config", place()))?;
        let &image = self.image_index.get(id).ok_or_else(|| format!("image {id} is not in the dataset"))?;
        let expected = self.dataset.labels[image];
        if *label != expected {
            return Err(format!("label of image {id}: expected {expected}, found {label}"));
        }
        if (self.cells[cell].channel == Channel::Undefended) != matches!(record.found, Found::Attacked(_)) {
            return Err(format!("image {id} of {}: the outcome is of another channel", place()));
        }
        if self.correct[cell][image].is_some() {
            return Err(format!("image {id} of {} was recorded before", place()));
        }
        self.take(cell, image, &record.found);
        Ok(())
    }

    fn take(&mut self, cell: usize, image: usize, found: &Found) {
        self.correct[cell][image] = Some(is_correct(found, self.config.score));
        self.cells[cell].add(found);
    }

    fn record(&self, cell: usize, image: usize, found: Found) -> Record {
        let Cell { model, channel, eps, .. } = self.cells[cell];
        Record {
            model: self.config.models[model].name.clone(),
            dataset: self.dataset.name.clone(),
            attack: channel.attack(self.config),
            norm: self.config.attack.norm.to_string(),
            eps,
            sigma: channel.sigma(),
            channel: channel.number(),
            image: self.dataset.ids[image],
            label: self.dataset.labels[image],
            found,
        }
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
