//! Runs every model at every epsilon over every image and remembers each batch.

use super::header::Header;
use super::interrupt::Batches;
use super::ledger::{Images, Ledger};
use super::parts::card::{Card, Split};
use super::parts::join;
use super::parts::order::{Follows, Order};
use super::progress::{Progress, Watch};
use super::records::{self, Found, Outcome, Record, Records};
use super::results::{self, Channel, Under};
use super::rundir::RunDir;
use super::saving::Saving;
use super::settled::On;
use super::shard::{self, Shard};
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

    /// Attacks batches of images on a model within a budget and hands each over, in their order, before the next one is begun for good.
    ///
    /// # Errors
    /// As [`Engine::run`]; what `take` returns.
    fn run_all(
        &mut self,
        (model, eps): (usize, f64),
        batches: &[&[usize]],
        take: &mut dyn FnMut(&[usize], Attacked) -> Result<()>,
    ) -> Result<()> {
        batches.iter().try_for_each(|batch| take(batch, self.run(model, eps, batch)?))
    }

    /// Seconds of the phases so far.
    fn times(&self) -> Vec<(&'static str, f64)> {
        vec![]
    }

    /// What numbers depend on besides: the level of the host kernels, or the GPU.
    fn processor(&self) -> String {
        String::new()
    }

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

/// Does what is left of the experiment in `dir`, or of the part of it that `dir` was joined for, and writes `results.csv`, which parts leave
/// to whoever joins them.
///
/// # Errors
/// [`Error::Usage`] when `dir` holds a run with other settings; [`Error::File`] when its records are damaged or of
/// another experiment; [`Error::Io`]; [`Error::Stopped`] where a signal or a time limit ended it; what the engine returns.
pub fn run<E: Engine>(config: &Config, dataset: &Dataset, engine: &mut E, dir: &RunDir) -> Result<Ledger> {
    let device = engine.device_name();
    dir.settle(config, On { device: &device, processor: &engine.processor(), images: dataset.len(), ..On::default() })?;
    let header = Header::of(config)?;
    let order = Order::of(config, dataset.len());
    let mut ledger = Ledger::new(dir.path(), config, dataset, &device);
    if let Some(shard) = dir.shard() {
        Split::settle(dir, shard, &header, Images::of(dataset))?;
        // What was joined before is nobody's work any more.
        let whole = dir.path().join(shard::records(None));
        if whole.is_file() {
            records::each(&whole, |record: Record| ledger.take(&record).map(drop))?;
        }
    }
    let path = dir.path().join(shard::records(dir.shard()));
    let (records, before) = Records::open(&path, &header)?;
    let mut follows = Follows::new(order);
    for (i, record) in before.iter().enumerate() {
        let wrong = |problem| Error::file(&path, format!("line {}: {problem}", i + records.first_line()));
        let place = ledger.take(record).map_err(wrong)?;
        if let Some(shard) = dir.shard().filter(|shard| !shard.takes(order.unit(order.group(place.0), place.1))) {
            return Err(wrong(format!("image {} is not of part {shard}", record.image)));
        }
        follows.take(place, record);
    }
    let before = before.len() as u64;
    let card = match dir.shard() {
        Some(shard) => {
            let left = order.left(&ledger, shard);
            Some((shard, left, Card::begin(dir, shard, &header, (before, before + left))?))
        }
        None => None,
    };
    let mut work = Work { config, dataset, dir, order, ledger, records, follows, engine };
    let done = work.all();
    let spent = work.engine.times();
    let Work { ledger, follows, .. } = work;
    if let Some((shard, left, card)) = card {
        let times: Vec<(&str, f64)> = spent.iter().map(|(phase, seconds)| (*phase, *seconds)).collect();
        card.end(dir, shard, before + left - order.left(&ledger, shard), &times)?;
        done?;
        return Ok(ledger);
    }
    done?;
    // Parts were joined before all was done.
    if !follows.so_far {
        join::sorted(dir, config, Images::of(dataset))?;
    }
    dir.write("results.csv", &results::csv(config, &dataset.name, &device, &ledger.cells, results::NOT_JUDGED)?)?;
    Ok(ledger)
}

/// A run under way.
struct Work<'a, E> {
    config: &'a Config,
    dataset: &'a Dataset,
    dir: &'a RunDir,
    order: Order,
    ledger: Ledger,
    records: Records,
    follows: Follows,
    engine: &'a mut E,
}

impl<E: Engine> Work<'_, E> {
    fn all(&mut self) -> Result<()> {
        let (config, dataset, order) = (self.config, self.dataset, self.order);
        let channels = results::channels(config);
        let groups: Vec<(usize, f64)> =
            (0..config.models.len()).flat_map(|model| config.attack.eps.iter().map(move |&eps| (model, eps))).collect();
        let shard = self.dir.shard();
        let own = |group: usize, image: usize| shard.is_none_or(|shard| shard.takes(order.unit(group, image)));
        let of_part = |group| (0..dataset.len()).filter(move |&image| own(group, image));
        let units = (0..groups.len()).map(|group| of_part(group).count()).sum::<usize>();
        let mut recorded = 0;
        for (group, &(model, eps)) in groups.iter().enumerate() {
            let cells = channels.iter().filter_map(|&channel| self.ledger.cell(model, channel, eps));
            recorded +=
                cells.map(|c| of_part(group).filter(|&i| self.ledger.found[c][i].is_some()).count()).sum::<usize>();
        }
        let already = recorded / channels.len();
        let progress = Progress::new(units as u64, already as u64);
        self.engine.watched(progress.watch());
        let mut batches = Batches::begin();
        for (group, &(model, eps)) in groups.iter().enumerate() {
            let cells: Vec<usize> =
                channels.iter().filter_map(|&channel| self.ledger.cell(model, channel, eps)).collect();
            let mut kept = Saving::open(self.dir, config, dataset, &self.ledger, (model, eps))?;
            let missing = |image: &usize| {
                cells.iter().any(|&c| self.ledger.found[c][*image].is_none())
                    || kept.iter().any(|kept| kept.lacks(*image))
            };
            let mut todo: Vec<usize> = of_part(group).filter(missing).collect();
            let begun = !todo.is_empty();
            progress.cell(format!("{} eps {}", config.models[model].name, eps_label(eps)));
            if config.attack.nest {
                let mut known = Vec::new();
                todo.retain(|&image| match self.ledger.fallen(model, eps, image) {
                    Some(outcome) => {
                        known.extend(
                            cells.iter().map(|&cell| self.ledger.record(cell, image, Found::Attacked(outcome))),
                        );
                        false
                    }
                    None => true,
                });
                self.take(&known)?;
                progress.advance(known.len());
            }
            let parts: Vec<&[usize]> = todo.chunks(config.batch).collect();
            let Work { records, ledger, follows, engine, .. } = self;
            engine.run_all((model, eps), &parts, &mut |batch, attacked| {
                attacked.check(batch.len(), channels.len())?;
                // Pixels before records: what is recorded is not attacked again.
                kept.iter_mut().enumerate().try_for_each(|(k, kept)| kept.take(batch, attacked.pixels.get(k)))?;
                let new = attacked.records(ledger, &cells, batch);
                taken(records, ledger, follows, &new)?;
                progress.advance(batch.len());
                batches.done()
            })?;
            kept.into_iter().try_for_each(|kept| kept.finish(self.dir, dataset, &self.ledger))?;
            if begun {
                progress.cell_done(&counts(&self.ledger, &cells, shard));
            }
        }
        Ok(())
    }

    fn take(&mut self, new: &[Record]) -> Result<()> {
        taken(&mut self.records, &mut self.ledger, &mut self.follows, new)
    }
}

/// Puts records on the disk, then into the ledger.
fn taken(records: &mut Records, ledger: &mut Ledger, follows: &mut Follows, new: &[Record]) -> Result<()> {
    records.append(new)?;
    for record in new {
        let place = ledger.take(record).map_err(Error::Failed)?;
        follows.take(place, record);
    }
    Ok(())
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
fn counts(ledger: &Ledger, cells: &[usize], shard: Option<Shard>) -> String {
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
    // Of a part its own images alone.
    let images = cells.iter().map(|&c| ledger.cells[c].n).max().unwrap_or_default();
    let part = shard.map_or(String::new(), |shard| format!(" of part {shard}"));
    format!("of {images}{part}: {}", cells.iter().filter(single).map(of_cell).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
