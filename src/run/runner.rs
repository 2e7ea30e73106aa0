//! Runs every model at every epsilon over every image and remembers each batch.

use super::header::Header;
use super::ledger::Ledger;
use super::progress::{Progress, Watch};
use super::records::{Found, Outcome, Record, Records};
use super::results::{self, Channel, Under};
use super::rundir::RunDir;
use super::saving::Saving;
use crate::config::Config;
use crate::data::Dataset;
use crate::defense::Smoothed;
use crate::error::{Error, Result};
use crate::number::eps_label;

/// What attacks images. Its outcomes must depend on the model, epsilon and image alone, never on the batch.
pub trait Engine {
    /// Attacks `images`, indices into the dataset, on `model`, an index into [`Config::models`], and says what every channel
    /// makes of them, image by image in the same order.
    ///
    /// # Errors
    /// Whatever keeps the batch from being attacked; the run ends there and can be resumed.
    fn run(&mut self, model: usize, eps: f64, images: &[usize]) -> Result<Attacked>;

    /// Whom to tell how far a batch is, from now on.
    fn watched(&mut self, _watch: Watch) {}

    /// What the `device` column of `results.csv` says.
    fn device_name(&self) -> String;
}

/// What became of a batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attacked {
    /// Of channel 1.
    pub outcomes: Vec<Outcome>,
    /// Of channel 1 under each further attack.
    pub beside: Vec<Vec<Outcome>>,
    /// Of each further channel in the order of [`results::channels`].
    pub denoised: Vec<Vec<Smoothed>>,
    /// The images themselves, `(N, H, W, 3)`: of channel 1, then of each channel that is attacked through; none where they are not kept.
    pub pixels: Vec<Vec<f32>>,
}

/// Does what is left of the experiment in `dir` and writes `results.csv`.
///
/// # Errors
/// [`Error::Usage`] when `dir` holds a run with other settings; [`Error::File`] when its records are damaged or of
/// another experiment; [`Error::Io`]; what the engine returns.
pub fn run<E: Engine>(config: &Config, dataset: &Dataset, engine: &mut E, dir: &RunDir) -> Result<Ledger> {
    let device = engine.device_name();
    dir.settle(config, &device)?;
    let path = dir.path().join("records.jsonl");
    let (mut records, before) = Records::open(&path, &Header::of(config)?)?;
    let mut ledger = Ledger::new(dir.path(), config, dataset, &device);
    for (i, record) in before.iter().enumerate() {
        ledger
            .take(record)
            .map_err(|problem| Error::file(&path, format!("line {}: {problem}", i + records.first_line())))?;
    }

    let channels = results::channels(config);
    let groups: Vec<(usize, f64)> =
        (0..config.models.len()).flat_map(|model| config.attack.eps.iter().map(move |&eps| (model, eps))).collect();
    let progress = Progress::new((groups.len() * dataset.len()) as u64, (before.len() / channels.len()) as u64);
    engine.watched(progress.watch());
    for (model, eps) in groups {
        let cells: Vec<usize> = channels.iter().filter_map(|&channel| ledger.cell(model, channel, eps)).collect();
        let mut kept = Saving::open(dir, config, dataset, &ledger, (model, eps))?;
        let missing = |image: &usize| {
            cells.iter().any(|&c| ledger.found[c][*image].is_none()) || kept.iter().any(|kept| kept.lacks(*image))
        };
        let mut todo: Vec<usize> = (0..dataset.len()).filter(missing).collect();
        let begun = !todo.is_empty();
        progress.cell(format!("{} eps {}", config.models[model].name, eps_label(eps)));
        if config.attack.nest {
            let mut known = Vec::new();
            todo.retain(|&image| match ledger.fallen(model, eps, image) {
                Some(outcome) => {
                    known.extend(cells.iter().map(|&cell| ledger.record(cell, image, Found::Attacked(outcome))));
                    false
                }
                None => true,
            });
            records.append(&known)?;
            for record in &known {
                ledger.take(record).map_err(Error::Failed)?;
            }
            progress.advance(known.len());
        }
        for batch in todo.chunks(config.batch) {
            let attacked = engine.run(model, eps, batch)?;
            attacked.check(batch.len(), channels.len())?;
            // Pixels before records: what is recorded is not attacked again.
            kept.iter_mut().enumerate().try_for_each(|(k, kept)| kept.take(batch, attacked.pixels.get(k)))?;
            let new = attacked.records(&ledger, &cells, batch);
            records.append(&new)?;
            for record in &new {
                ledger.take(record).map_err(Error::Failed)?;
            }
            progress.advance(batch.len());
        }
        kept.into_iter().try_for_each(|kept| kept.finish(dir, dataset, &ledger))?;
        if begun {
            progress.cell_done(&counts(&ledger, &cells));
        }
    }
    drop(progress);
    dir.write("results.csv", &results::csv(config, &dataset.name, &device, &ledger.cells, results::NOT_JUDGED)?)?;
    Ok(ledger)
}

impl Attacked {
    /// Whether there is an answer for each image in each channel.
    fn check(&self, images: usize, channels: usize) -> Result<()> {
        let undefended = std::iter::once(&self.outcomes).chain(&self.beside);
        let lengths = undefended.map(Vec::len).chain(self.denoised.iter().map(Vec::len));
        if let Some(len) = lengths.into_iter().find(|&len| len != images) {
            return Err(Error::Failed(format!("expected {images} outcomes of a batch, got {len}")));
        }
        let found = 1 + self.beside.len() + self.denoised.len();
        if found != channels {
            let counts = format!("expected {channels} channels, got {found}");
            return Err(Error::Failed(counts));
        }
        Ok(())
    }

    /// The records that are not in the ledger yet, image by image: a killed run may have left some of the channels.
    fn records(&self, ledger: &Ledger, cells: &[usize], batch: &[usize]) -> Vec<Record> {
        let mut new = Vec::new();
        for (i, &image) in batch.iter().enumerate() {
            for (k, &cell) in cells.iter().enumerate().filter(|&(_, &cell)| ledger.found[cell][image].is_none()) {
                let found = match k {
                    0 => Found::Attacked(self.outcomes[i]),
                    k if k <= self.beside.len() => Found::Attacked(self.beside[k - 1][i]),
                    k => Found::Denoised(self.denoised[k - 1 - self.beside.len()][i]),
                };
                new.push(ledger.record(cell, image, found));
            }
        }
        new
    }
}

/// How many images are right in each channel of a finished cell.
fn counts(ledger: &Ledger, cells: &[usize]) -> String {
    let of_cell = |&c: &usize| {
        let cell = &ledger.cells[c];
        let correct = cell.correct(ledger.config.score);
        match cell.channel {
            Channel::Undefended => format!("{correct} correct"),
            Channel::Beside(_) => format!("{correct} after {}", cell.channel.attack(&ledger.config)),
            denoised => format!("{correct} at {denoised}"),
        }
    };
    // Of a suite the worst case is enough.
    let single = |&&c: &&usize| !matches!(ledger.cells[c].channel, Channel::Denoised { under: Under::Member(_), .. });
    format!("of {}: {}", ledger.ids.len(), cells.iter().filter(single).map(of_cell).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
