//! Randomised smoothing over a dataset: which draws are made of which image, and when there are enough.
//!
//! Votes are kept by draw range in `draws.jsonl`, so that a run that was killed, or split into shards, goes on with the next draw of each
//! image. What is made of them depends on nothing but the votes.

pub mod certified;
mod files;
mod rule;
pub mod store;
pub mod tsv;

use std::path::Path;
use std::time::Instant;

pub use certified::{Cell, Certification, Certified};
pub use files::write;
use rule::{is_done, next_look};
pub use store::Part;
use store::{Drawn, Store, Tally};

use super::engine::AttackEngine;
use super::interrupt::Batches;
use super::progress::Progress;
use super::rundir::RunDir;
use super::shard::{self, Shard};
use crate::attack::{Purpose, Stream};
use crate::config::Config;
use crate::config::certify::Certify;
use crate::config::settings::Procedure;
use crate::data::Dataset;
use crate::defense::denoise::Level;
use crate::defense::sampling::{Smoothing, Wanted};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Draws of one image at a time, as a multiple of the batch: what a kill may cost.
const SLICE: usize = 16;

/// Draws what is missing, all of it or a shard's part.
///
/// # Errors
/// [`Error::Usage`] and [`Error::File`] for a run directory of another certification; [`Error::Io`]; what the networks' ops return.
pub fn run(engine: &AttackEngine, dir: &RunDir, shard: Option<Shard>) -> Result<()> {
    let (config, dataset) = (engine.config(), engine.dataset());
    let Some(certify) = &config.certify else { return Ok(()) };
    let Some((_, levels)) = engine.denoiser() else { return Ok(()) };
    if let Some(shard) = shard
        && let Some((other, _)) =
            shard::files_of(dir.path(), "draws")?.into_iter().find(|(other, _)| other.of != shard.of)
    {
        let problem = format!(
            "{} has draws of part {other}: expected --shard I/{}; `rampart certify --resume` makes the rest in one process",
            dir.path().display(),
            other.of
        );
        return Err(Error::usage("shard", problem));
    }
    let mut store = Store::open(dir, config, shard)?;
    let own: Vec<usize> = (0..dataset.len()).filter(|&image| certify.takes(dataset.ids[image])).collect();
    if own.is_empty() {
        let problem = format!("none of the {} images of {} is left", dataset.len(), dataset.name);
        return Err(Error::usage("certify.skip", problem));
    }
    store.expect(&own.iter().map(|&image| (dataset.ids[image], dataset.labels[image])).collect())?;
    let own: Vec<usize> =
        own.into_iter().enumerate().filter(|(at, _)| shard.is_none_or(|s| s.takes(*at))).map(|(_, i)| i).collect();
    let done = |store: &Store, model: usize, level: &Level, image: usize| {
        is_done(certify, level.sigma, &store.tally(model, level.sigma, dataset.ids[image]))
    };
    let cells: Vec<(usize, &Level)> =
        (0..config.models.len()).flat_map(|model| levels.iter().map(move |level| (model, level))).collect();
    let already = cells.iter().map(|&(m, level)| own.iter().filter(|&&i| done(&store, m, level, i)).count());
    let progress = Progress::new((cells.len() * own.len()) as u64, already.sum::<usize>() as u64);
    let mut batches = Batches::begin();
    for (model, level) in cells {
        let todo: Vec<usize> = own.iter().copied().filter(|&image| !done(&store, model, level, image)).collect();
        let begun = !todo.is_empty();
        progress.cell(format!("certify {} sigma {}", config.models[model].name, level.sigma));
        let (store, batches) = (&mut store, &mut batches);
        Drawing { engine, certify, model, level, store, progress: &progress, batches }.all(&todo)?;
        if begun {
            let cell = Cell::of(config, &store.tallies, model, level.sigma);
            progress.cell_done(&cell.in_words(&certify.told(level.sigma)));
            // A part knows nothing of what the others have done since.
            if shard.is_none() {
                files::write_cell(dir, config, &cell)?;
            }
        }
    }
    Ok(())
}

/// One model at one sigma.
struct Drawing<'a> {
    engine: &'a AttackEngine<'a>,
    certify: &'a Certify,
    model: usize,
    level: &'a Level,
    store: &'a mut Store,
    progress: &'a Progress,
    batches: &'a mut Batches,
}

/// Images that are being drawn, uploaded once.
struct Pool {
    images: Vec<usize>,
    ids: Vec<u64>,
    pixels: Tensor,
}

impl Drawing<'_> {
    /// Images one after the other while each takes many draws; where they may be decided early, as many at once as a batch holds.
    fn all(&mut self, todo: &[usize]) -> Result<()> {
        let together = if self.certify.radius.is_empty() { 1 } else { self.engine.config().batch };
        let mut waiting = todo.iter().copied().peekable();
        let mut pool: Option<Pool> = None;
        loop {
            let left: Vec<usize> = pool.iter().flat_map(|pool| &pool.images).copied().collect();
            let mut images: Vec<usize> = left.iter().copied().filter(|&image| !self.done(image)).collect();
            self.progress.advance(left.len() - images.len());
            let changed = images.len() < left.len() || pool.is_none();
            images.extend(waiting.by_ref().take(together - images.len()));
            if images.is_empty() {
                return Ok(());
            }
            let pool = match pool.take().filter(|_| !changed) {
                Some(same) => pool.insert(same),
                None => pool.insert(self.pool(images)?),
            };
            Self::round(self.engine, self.certify, (self.model, self.level), self.store, pool)?;
            self.batches.done()?;
        }
    }

    fn done(&self, image: usize) -> bool {
        let id = self.engine.dataset().ids[image];
        is_done(self.certify, self.level.sigma, &self.store.tally(self.model, self.level.sigma, id))
    }

    fn pool(&self, images: Vec<usize>) -> Result<Pool> {
        let batch = self.engine.batch(&images)?;
        Ok(Pool { images, ids: batch.ids, pixels: batch.images })
    }

    /// The next draws of each image.
    fn round(
        engine: &AttackEngine,
        certify: &Certify,
        (model, level): (usize, &Level),
        store: &mut Store,
        pool: &Pool,
    ) -> Result<()> {
        let (config, dataset) = (engine.config(), engine.dataset());
        let Some((denoiser, _)) = engine.denoiser() else { return Ok(()) };
        let slice = SLICE.saturating_mul(config.batch).min(1 << 20) as u32;
        let mut drawn = Vec::new();
        for part in [Part::Choice, Part::Bound] {
            let wanted = pool.ids.iter().enumerate().filter_map(|(image, &id)| {
                let tally = store.tally(model, level.sigma, id);
                let chosen = tally.choice.draws == certify.n0;
                let draws = match part {
                    Part::Choice if !chosen => tally.choice.draws..(tally.choice.draws + slice).min(certify.n0),
                    Part::Bound if chosen => {
                        let n = tally.bound.draws;
                        match certify.radius.is_empty() {
                            true => n..(n + slice).min(certify.n),
                            false => n..next_look(n, certify.n),
                        }
                    }
                    _ => return None,
                };
                Some(Wanted { image, draws })
            });
            let wanted: Vec<Wanted> = wanted.collect();
            if wanted.is_empty() {
                continue;
            }
            let smoothing = Smoothing {
                classifier: engine.model(model)?,
                denoiser,
                level,
                stream: Stream::new(config.seed, part.purpose()),
                batch: config.batch,
            };
            let begin = Instant::now();
            let counts = smoothing.counts(&pool.pixels, &pool.ids, &wanted)?;
            let seconds = begin.elapsed().as_secs_f64();
            let all: usize = wanted.iter().map(|wanted| wanted.draws.len()).sum();
            for (Wanted { image, draws }, counts) in wanted.into_iter().zip(counts) {
                drawn.push(Drawn {
                    model: config.models[model].name.clone(),
                    sigma: level.sigma,
                    image: pool.ids[image],
                    label: dataset.labels[pool.images[image]],
                    part,
                    first: draws.start,
                    last: draws.end,
                    votes: counts
                        .into_iter()
                        .enumerate()
                        .filter(|&(_, votes)| votes > 0)
                        .map(|(class, votes)| (class as u32, votes))
                        .collect(),
                    seconds: seconds * draws.len() as f64 / all as f64,
                });
            }
        }
        store.append(drawn)
    }
}

impl Part {
    fn purpose(self) -> Purpose {
        match self {
            Part::Choice => Purpose::CertifyChoice,
            Part::Bound => Purpose::Certify,
        }
    }
}

/// What of a certification is not drawn yet, a line per network and sigma; of images whose numbers are not known their number is `planned`.
///
/// # Errors
/// As [`store::read`].
pub fn missing(dir: &Path, config: &Config, ids: &[u64], planned: Option<usize>) -> Result<Vec<String>> {
    let Some(certify) = &config.certify else { return Ok(vec![]) };
    let tallies = store::read(dir, config)?.unwrap_or_default();
    let all = match ids.iter().filter(|&&id| certify.takes(id)).count() {
        0 if certify.skip.is_none() && certify.max.is_none() => planned.unwrap_or(0),
        known => known,
    };
    let mut lines = Vec::new();
    for (model, &sigma) in config.models.iter().flat_map(|model| config.defense.sigma.iter().map(move |s| (model, s))) {
        let of = |(key, tally): &(&(String, u64, u64), &Tally)| {
            key.0 == model.name && key.1 == sigma.to_bits() && is_done(certify, sigma, tally)
        };
        let done = tallies.iter().filter(of).count();
        if done < all {
            lines.push(format!("certificates of {} at sigma {sigma}: {done} of {all} images are done", model.name));
        }
    }
    Ok(lines)
}

/// The images of a dataset that a certification is about, and how often.
pub fn plan(config: &Config, dataset: &Dataset) -> Option<String> {
    let certify = config.certify.as_ref()?;
    let images = dataset.ids.iter().filter(|&&id| certify.takes(id)).count();
    let sigma: Vec<String> = config.defense.sigma.iter().map(f64::to_string).collect();
    let draws = match certify.radius.as_slice() {
        [] if certify.procedure == Procedure::Predict => format!("{} draws each", certify.n),
        [] => format!("{} + {} draws each", certify.n0, certify.n),
        radii => {
            let radii: Vec<String> = radii.iter().map(f64::to_string).collect();
            format!("{} draws, then until radius {} is decided, {} at most", certify.n0, radii.join(", "), certify.n)
        }
    };
    let what = if config.defense.noise_alone() { "noise alone" } else { "denoised" };
    Some(format!(
        "{} {images} images at sigma {} ({what}): {draws}, alpha {}",
        certify.procedure,
        sigma.join(", "),
        certify.alpha
    ))
}
