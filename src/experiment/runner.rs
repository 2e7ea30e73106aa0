//! Runs every model at every epsilon over every image, remembering each batch, and sums up.

use std::collections::HashMap;

use super::config::Config;
use super::progress::Progress;
use super::records::{Outcome, Record, Records};
use super::results::{self, Cell};
use super::rundir::RunDir;
use super::settings::Score;
use crate::attack::Norm;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::report;

/// What attacks images. Its outcomes must depend on the model, epsilon and image alone, never on the batch.
pub trait Engine {
    /// Attacks `images`, indices into the dataset, on `model`, an index into [`Config::models`], and returns one
    /// outcome for each in the same order.
    ///
    /// # Errors
    /// Whatever keeps the batch from being attacked; the run ends there and can be resumed.
    fn run(&mut self, model: usize, eps: f64, images: &[usize]) -> Result<Vec<Outcome>>;

    /// What the `device` column of `results.csv` says.
    fn device_name(&self) -> String;
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

/// Does what is left of the experiment in `dir` and writes `results.csv` and `plots/accuracy.svg`.
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

    let progress = Progress::new((state.cells.len() * dataset.len()) as u64, found.len() as u64);
    for c in 0..state.cells.len() {
        let (model, eps) = (state.cells[c].model, state.cells[c].eps);
        let todo: Vec<usize> = (0..dataset.len()).filter(|&i| !state.done[c][i]).collect();
        progress.cell(format!("{} eps {}", config.models[model].name, report::eps_label(eps)));
        for batch in todo.chunks(config.batch) {
            let outcomes = engine.run(model, eps, batch)?;
            if outcomes.len() != batch.len() {
                let counts = format!("expected {} outcomes of a batch, got {}", batch.len(), outcomes.len());
                return Err(Error::Failed(counts));
            }
            let new = batch.iter().zip(outcomes).map(|(&image, outcome)| state.record(model, eps, image, outcome));
            let new: Vec<Record> = new.collect();
            records.append(&new)?;
            for (&image, record) in batch.iter().zip(&new) {
                state.done[c][image] = true;
                state.cells[c].add(&record.outcome);
            }
            progress.advance(batch.len());
        }
        if !todo.is_empty() {
            let cell = &state.cells[c];
            progress.cell_done(&format!("{} of {} correct", cell.correct(config.score), cell.n));
        }
    }
    drop(progress);

    dir.write("results.csv", &results::csv(config, &dataset.name, &device, &state.cells)?)?;
    dir.write("plots/accuracy.svg", figure(config, dataset, &state.cells)?.as_bytes())?;
    let violations = state.cells.iter().map(|cell| cell.violations).sum();
    Ok(Summary { tables: tables(config, dataset, &state.cells), violations, cells: state.cells })
}

/// Which images are done in which cell.
struct State<'a> {
    config: &'a Config,
    dataset: &'a Dataset,
    cells: Vec<Cell>,
    /// Per cell and image.
    done: Vec<Vec<bool>>,
    /// Cell by model name and bits of epsilon, image by id.
    cell_index: HashMap<(&'a str, u64), usize>,
    image_index: HashMap<u64, usize>,
}

impl<'a> State<'a> {
    fn new(config: &'a Config, dataset: &'a Dataset) -> Self {
        let cells = results::cells(config);
        let key = |cell: &Cell| (config.models[cell.model].name.as_str(), cell.eps.to_bits());
        State {
            config,
            dataset,
            done: vec![vec![false; dataset.len()]; cells.len()],
            cell_index: cells.iter().enumerate().map(|(i, cell)| (key(cell), i)).collect(),
            image_index: dataset.ids.iter().enumerate().map(|(i, &id)| (id, i)).collect(),
            cells,
        }
    }

    /// Takes over a record of an earlier process, or says why it cannot be one of this experiment.
    fn restore(&mut self, record: &Record) -> Result<(), String> {
        let Record { model, eps, image: id, label, .. } = record;
        let cell = self.cell_index.get(&(model.as_str(), eps.to_bits()));
        let &cell = cell.ok_or_else(|| format!("model {model} at eps {eps} is not in the config"))?;
        let &image = self.image_index.get(id).ok_or_else(|| format!("image {id} is not in the dataset"))?;
        let expected = self.dataset.labels[image];
        if *label != expected {
            return Err(format!("label of image {id}: expected {expected}, found {label}"));
        }
        if std::mem::replace(&mut self.done[cell][image], true) {
            return Err(format!("image {id} of model {model} at eps {eps} was recorded before"));
        }
        self.cells[cell].add(&record.outcome);
        Ok(())
    }

    fn record(&self, model: usize, eps: f64, image: usize, outcome: Outcome) -> Record {
        Record {
            model: self.config.models[model].name.clone(),
            dataset: self.dataset.name.clone(),
            attack: self.config.attack.label(),
            norm: self.config.attack.norm.to_string(),
            eps,
            sigma: None,
            channel: 1,
            image: self.dataset.ids[image],
            label: self.dataset.labels[image],
            outcome,
        }
    }
}

fn figure(config: &Config, dataset: &Dataset, cells: &[Cell]) -> Result<String> {
    let attack = &config.attack;
    let plural = |count: u32, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut how = vec![format!("{} {}", attack.label(), symbol(attack.norm)), plural(attack.steps, "step")];
    if attack.restarts > 1 {
        how.push(plural(attack.restarts, "restart"));
    }
    how.push(format!("{} images", dataset.len()));
    how.push(what_counts(config.score).to_owned());
    let title = format!("Accuracy under attack: {}", dataset.name);
    let x_axis = format!("ε, {} budget in pixel units", symbol(attack.norm));
    report::plot::accuracy(&title, &how.join(" · "), &x_axis, &results::series(config, cells, config.score))
}

/// The last iterate and any iterate, each in a table of its own. Early stop has no last iterate to speak of.
fn tables(config: &Config, dataset: &Dataset, cells: &[Cell]) -> String {
    let attack = &config.attack;
    let what = format!("{} {}, {} images of {}", attack.label(), attack.norm, dataset.len(), dataset.name);
    let scores = [Score::Last, Score::Any].into_iter().filter(|&score| !(attack.early_stop && score == Score::Last));
    let table = |score| {
        let rows = results::series(config, cells, score);
        report::table::accuracy(&format!("accuracy in % after {what}: {}", what_counts(score)), &rows)
    };
    scores.map(table).collect::<Vec<_>>().join("\n")
}

fn symbol(norm: Norm) -> &'static str {
    match norm {
        Norm::Linf => "L∞",
        Norm::L2 => "L2",
    }
}

fn what_counts(score: Score) -> &'static str {
    match score {
        Score::Last => "the last iterate counts",
        Score::Any => "any successful iterate counts",
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
