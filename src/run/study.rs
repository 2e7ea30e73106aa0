//! The order of a sweep: what is loaded and checked before a folder is made, what is run, and when whoever presents it has its turn.

use std::path::Path;
use std::time::Instant;

use super::certify::{Certification, tsv};
use super::crew::Crew;
use super::engine::AttackEngine;
use super::header::Header;
use super::intake::Intake;
use super::interrupt;
use super::ledger::Ledger;
use super::parts::join;
use super::progress::{Phase, note, unwatched};
use super::records::{Record, Records};
use super::rundir::{IfRunning, RunDir, stored};
use super::runner::{self, Engine as _};
use super::settled::{On, begun_at, quoted};
use super::shard::Shard;
use super::trials::Trials;
use crate::config::Config;
use crate::data::{Dataset, Skipped};
use crate::device::level;
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
    /// A part of the run, beside other processes that do the rest in the same folder.
    pub shard: Option<Shard>,
    /// What to do where another process has that part; refused where nothing is said.
    pub if_running: Option<IfRunning>,
}

/// Whoever tells people of a sweep.
pub trait Presenter {
    /// All is loaded and the folder made; nothing has been attacked.
    ///
    /// # Errors
    /// Whatever keeps it from being told.
    fn begins(&mut self, engine: &AttackEngine, dir: &RunDir) -> Result<()>;

    /// A part is done, and others may not be.
    ///
    /// # Errors
    /// Whatever keeps it from being told.
    fn part_ends(&mut self, shard: Shard, dir: &RunDir) -> Result<()>;

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
    // Before hours of draws: tables that these are set beside.
    for path in config.certify.iter().flat_map(|certify| &certify.compare) {
        tsv::read(path)?;
    }
    let intake = Intake::open(config)?;
    if let Some(text) = config.dataset.source()?.note() {
        note(text);
    }
    let mut dataset = config.dataset.load(config.limit)?;
    let channels = intake.channels()?;
    dataset = dataset.for_channels(channels).map_err(|problem| Error::usage("dataset", problem))?;
    if channels == 1 {
        note(
            "images are taken in one channel, as the network does: grey ones as they are, colours as ITU-R 601-2 luma",
        );
    }
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

/// Opens what a run would open: its folder as far as there is one, its devices, and the networks for these images. Attacks and writes nothing.
///
/// # Errors
/// What would end the run before its first attack.
pub fn check(config: &Config, dataset: &Dataset, options: Options) -> Result<()> {
    RunDir::allows(options.out, options.resume, options.shard.is_some())?;
    Crew::new(config, dataset).map(|_| ())
}

/// The engine and the folder of a run, its settings settled. `None` where another process has the part and may keep it.
fn opened<'a>(config: &'a Config, dataset: &'a Dataset, options: Options) -> Result<Option<(Crew<'a>, RunDir)>> {
    if options.shard.is_some() && options.resume {
        return Err(Error::usage("resume", "a part goes on by itself: leave out --resume beside --shard"));
    }
    if let Some(out) = options.out.filter(|out| options.resume && !out.join("config.toml").is_file()) {
        note(format!("{}: there is no run to go on with: a new one begins", out.display()));
    }
    let goes_on = options.resume || options.shard.is_some();
    let pinned = if goes_on { begun_at(options.out)? } else { None };
    let begin = |pinned: Option<&str>| -> Result<Option<(Crew, RunDir)>> {
        level::pin(pinned);
        // The folder last: what is refused until here leaves none behind.
        let engine = Crew::new(config, dataset)?;
        let dir = match options.shard {
            None => RunDir::open(options.out, &config.name, options.resume)?,
            Some(shard) => match RunDir::join(options.out, shard, options.if_running.unwrap_or(IfRunning::Refuse))? {
                Some(dir) => dir,
                None => return Ok(None),
            },
        };
        let (device, processor) = (engine.device_name(), engine.processor());
        if let Some(advice) = engine.lead.advice() {
            note(advice);
        }
        let (images, no_checks) = (dataset.len(), options.no_trials);
        dir.settle(config, On { device: &device, processor: &processor, images, no_checks })?;
        Ok(Some((engine, dir)))
    };
    let opened = match begin(pinned.as_deref()) {
        // Another part began meanwhile, at a level of its own, which is that of all from then on.
        Err(Error::Usage { .. }) if options.shard.is_some() && pinned.is_none() && begun_at(options.out)?.is_some() => {
            begin(begun_at(options.out)?.as_deref())
        }
        opened => opened,
    }?;
    if let Some((_, dir)) = opened.as_ref().filter(|_| !dataset.skipped.is_empty()) {
        dir.alone(|| dir.write("left_out.csv", &left_out(dataset)?))?;
    }
    Ok(opened)
}

/// Certifies without attacking, or does what is left of it; a part of it where others do the rest.
///
/// # Errors
/// As [`sweep`].
pub fn certify(config: &Config, dataset: &Dataset, options: Options, presenter: &mut impl Presenter) -> Result<()> {
    let Some((mut engine, dir)) = opened(config, dataset, options)? else { return Ok(()) };
    presenter.begins(&engine.lead, &dir)?;
    let shard = options.shard;
    let _interrupted = interrupt::says(way_on("certify", "all draws that were counted", shard, &dir));
    certified(&mut engine.lead, &dir, shard)?;
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

/// What an interrupted run says last.
fn way_on(command: &str, what: &str, shard: Option<Shard>, dir: &RunDir) -> String {
    let flag = shard.map_or("--resume".to_owned(), |shard| format!("--shard {shard}"));
    let out = quoted(&[dir.path().display().to_string()]);
    format!("{what} are recorded. Go on with: rampart {command} {flag} --out {out}")
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
    let Some((mut engine, dir)) = opened(config, dataset, options)? else { return Ok(()) };
    presenter.begins(&engine.lead, &dir)?;
    if let Some(names) = engine.names() {
        note(format!("{} devices share the batches: {}", names.len(), names.join(", ")));
    }
    let _interrupted = interrupt::says(way_on("sweep", "all batches that were done", options.shard, &dir));
    if options.shard.is_none()
        && let Some(survey) = join::survey(dir.path())?
    {
        survey.join(&dir)?;
    }
    let run = runner::run(config, dataset, &mut engine, &dir)?;
    engine.watched(unwatched());
    certified(&mut engine.lead, &dir, options.shard)?;
    if let Some(shard) = options.shard {
        return presenter.part_ends(shard, &dir);
    }
    let times = engine.times();
    dir.add_times(&times)?;
    // The emulated GPU would take longer over them than over a small sweep.
    if !options.no_trials && engine.device_name() != "emulated" {
        let seconds = tried(config, &run, &mut engine.lead, &dir)?;
        dir.add_times(&[("sanity checks", seconds)])?;
    }
    let pictures = Instant::now();
    presenter.ends(&run, &engine.lead, &dir)?;
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
