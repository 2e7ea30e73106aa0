//! The order of a sweep: what is loaded and checked before a folder is made, what is run, and when whoever presents it has its turn.

use std::path::Path;
use std::time::Instant;

use super::certify::Certification;
use super::engine::AttackEngine;
use super::header::Header;
use super::intake::Intake;
use super::interrupt;
use super::ledger::Ledger;
use super::progress::{Phase, note, unwatched};
use super::records::{Record, Records};
use super::rundir::{RunDir, quoted, stored};
use super::runner::{self, Engine as _};
use super::shard::Shard;
use super::trials::Trials;
use crate::attack::autoattack;
use crate::config::Config;
use crate::data::{Dataset, Skipped};
use crate::{Error, Result};

/// What of a sweep can be left out, and where it goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// `runs/NAME-1` and so on without it.
    pub out: Option<&'a Path>,
    /// Go on with the run in `out`.
    pub resume: bool,
    /// Without the small attacks of [`Trials`].
    pub no_trials: bool,
}

/// Whoever tells people of a sweep.
pub trait Presenter {
    /// All is loaded and the folder made; nothing has been attacked.
    ///
    /// # Errors
    /// Whatever keeps it from being told.
    fn begins(&mut self, engine: &AttackEngine, dir: &RunDir) -> Result<()>;

    /// Every image is recorded and `results.csv` written.
    ///
    /// # Errors
    /// Whatever keeps it from being told.
    fn ends(&mut self, run: &Ledger, engine: &AttackEngine, dir: &RunDir) -> Result<()>;

    /// All there is to be known lies in the folder.
    ///
    /// # Errors
    /// Whatever keeps it from being told.
    fn closes(&mut self, run: &Ledger, dir: &RunDir) -> Result<()>;
}

/// The images of an experiment, and what its checkpoints say of how to read them; checksums, like those of the weights, are in `config` from here on.
///
/// # Errors
/// What reading images and weights returns.
pub fn images(config: &mut Config) -> Result<Dataset> {
    let intake = Intake::open(config)?;
    if let Some(text) = config.dataset.source()?.note() {
        note(text);
    }
    let dataset = config.dataset.load(config.limit)?;
    intake.compare(config, &dataset)?;
    config.dataset.left_out = Some(dataset.skipped.len()).filter(|&files| files > 0);
    for skipped in &dataset.skipped {
        note(format!("warning: left out: {}", skipped.problem));
    }
    config.pin(&dataset)?;
    Ok(dataset)
}

/// The files of the set that are in none of the numbers, and why.
fn left_out(dataset: &Dataset) -> Result<Vec<u8>> {
    let failed = |e: &dyn std::error::Error| Error::Failed(format!("left_out.csv: {e}"));
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(["file", "problem"]).map_err(|e| failed(&e))?;
    for Skipped { file, problem } in &dataset.skipped {
        csv.write_record([&file.display().to_string(), problem]).map_err(|e| failed(&e))?;
    }
    csv.into_inner().map_err(|e| failed(e.error()))
}

/// Certifies without attacking, or does what is left of it; a part of it where others do the rest.
///
/// # Errors
/// As [`sweep`].
pub fn certify(
    config: &Config,
    dataset: &Dataset,
    options: Options,
    shard: Option<Shard>,
    presenter: &mut impl Presenter,
) -> Result<()> {
    let mut engine = AttackEngine::new(config, dataset)?;
    let dir = match shard {
        Some(_) if options.resume => {
            return Err(Error::usage("resume", "a part goes on by itself: leave out --resume beside --shard"));
        }
        Some(shard) => RunDir::join(options.out, shard)?,
        None => RunDir::open(options.out, &config.name, options.resume)?,
    };
    presenter.begins(&engine, &dir)?;
    if !dataset.skipped.is_empty() {
        dir.write("left_out.csv", &left_out(dataset)?)?;
    }
    dir.settle(config, &engine.device_name())?;
    let way_on = shard.map_or("--resume".to_owned(), |shard| format!("--shard {shard}"));
    let _interrupted = interrupt::says(format!(
        "interrupted; all draws that were counted are recorded. Go on with: rampart certify {way_on} --out {}",
        quoted(&[dir.path().display().to_string()])
    ));
    certified(&mut engine, &dir, shard)?;
    match shard {
        Some(_) => Ok(()),
        None => {
            // A run of certificates alone has no other records.
            let path = dir.path().join("records.jsonl");
            if !path.exists() {
                Records::<Record>::open(&path, &Header::of(config)?)?;
            }
            presenter.closes(&Ledger::read(dir.path())?, &dir)
        }
    }
}

/// The draws of a certification, and what they prove.
fn certified(engine: &mut AttackEngine, dir: &RunDir, shard: Option<Shard>) -> Result<()> {
    let config = engine.config();
    if config.certify.is_none() {
        return Ok(());
    }
    let begin = Instant::now();
    super::certify::run(engine, dir, shard)?;
    if shard.is_some() {
        return Ok(());
    }
    if let Some(found) = Certification::read(dir.path(), config)? {
        super::certify::write(dir, config, &found)?;
    }
    dir.add_times(&[("certificates", begin.elapsed().as_secs_f64())])
}

/// Runs the experiment, or what is left of it.
///
/// # Errors
/// [`crate::Error::Usage`] for settings that cannot be run and for a folder that cannot be taken; else what loading, attacking and
/// writing return.
pub fn sweep(config: &Config, dataset: &Dataset, options: Options, presenter: &mut impl Presenter) -> Result<()> {
    // The folder last: what is refused until here leaves none behind.
    let mut engine = AttackEngine::new(config, dataset)?;
    let dir = RunDir::open(options.out, &config.name, options.resume)?;
    presenter.begins(&engine, &dir)?;
    if !dataset.skipped.is_empty() {
        dir.write("left_out.csv", &left_out(dataset)?)?;
    }
    let _interrupted = interrupt::says(format!(
        "interrupted; all batches that were done are recorded. Go on with: rampart sweep --resume --out {}",
        quoted(&[dir.path().display().to_string()])
    ));
    let run = runner::run(config, dataset, &mut engine, &dir)?;
    engine.watched(unwatched());
    certified(&mut engine, &dir, None)?;
    let spent = engine.spent();
    let mut times = vec![("attack on the classifiers", spent.attack)];
    times.extend(autoattack::stages(config.attack.method).iter().map(|row| row.name).zip(spent.stages));
    if !config.attack.beside.is_empty() {
        times.push(("further attacks on the classifiers", spent.beside));
    }
    times.push(("denoising and its votes", spent.denoise));
    if config.defense.attack || config.defense.suite {
        times.push(("attack through the defence", spent.adaptive));
    }
    dir.add_times(&times)?;
    // The emulated GPU would take longer over them than over a small sweep.
    if !options.no_trials && engine.device_name() != "emulated" {
        let seconds = tried(config, &run, &mut engine, &dir)?;
        dir.add_times(&[("sanity checks", seconds)])?;
    }
    let pictures = Instant::now();
    presenter.ends(&run, &engine, &dir)?;
    dir.add_times(&[("strips, samples and maps", pictures.elapsed().as_secs_f64())])?;
    presenter.closes(&run, &dir)
}

/// The small attacks of the checks, unless they were made already within as large a budget. Returns the seconds that they took.
fn tried(config: &Config, run: &Ledger, engine: &mut AttackEngine, dir: &RunDir) -> Result<f64> {
    let before: Option<Trials> = stored(dir.path(), Trials::FILE)?;
    let more = |before: f64| config.checks_budget.is_some_and(|seconds| seconds > before);
    if before.is_some_and(|before| before.left.is_empty() || !more(before.budget.unwrap_or_default())) {
        return Ok(0.0);
    }
    let begin = Instant::now();
    let phase = Phase::new("sanity checks");
    engine.watched(phase.watch());
    let found = engine.trials(run);
    engine.watched(unwatched());
    if let Some(trials) = found? {
        dir.store(Trials::FILE, &trials)?;
    }
    Ok(begin.elapsed().as_secs_f64())
}
