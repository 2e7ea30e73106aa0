//! `rampart merge`: what the parts of a run recorded, joined.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::say;
use super::emulator::EmulatorArgs;
use super::parted::Parted;
use super::sweep::Going;
use crate::config::{Config, Overrides};
use crate::error::{Error, Result};
use crate::report::terminal::Terminal;
use crate::run::certify;
use crate::run::certify::store::Drawer;
use crate::run::ledger::Ledger;
use crate::run::packed;
use crate::run::parts::join;
use crate::run::progress::note;
use crate::run::rundir::RunDir;
use crate::run::shard::Shard;
use crate::run::study::Presenter as _;

/// Join what the parts of a run recorded: records, results and page become those of one process, byte for byte.
///
/// Parts that are missing, unfinished, doubled, torn or of another run are listed, and nothing is changed. The pictures and the checks of the
/// attack are made as at the end of a sweep, on the device of the run. Of parts of `rampart certify` the draws are joined, and those that
/// they left open are made.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The run directory that the parts share
    #[arg(value_name = "RUN")]
    pub run: PathBuf,

    /// Join what there is though parts are missing or unfinished; any number of parts may go on then (of draws for
    /// certificates as many as before), or `rampart sweep --resume`
    #[arg(long)]
    pub partial: bool,

    /// Join records, results and page only: needs neither weights nor images nor the device
    #[arg(long, conflicts_with = "partial")]
    pub records: bool,

    /// Compress the records when all is done: records.jsonl.zst, which `report` reads as it is
    #[arg(long, conflicts_with = "partial")]
    pub compress: bool,

    /// Leave out the sanity checks of the attack that need small attacks of their own
    #[arg(long, conflicts_with_all = ["partial", "records"])]
    pub no_checks: bool,

    /// Exit with 1, once all is written, where a check of the attack fails
    #[arg(long, conflicts_with = "partial")]
    pub strict: bool,

    #[command(flatten)]
    pub emulator: EmulatorArgs,
}

/// # Errors
/// [`Error::Usage`] for a folder that is no run or that somebody works on; [`Error::Failed`] with a list of the parts that keep it from
/// being joined; as a sweep.
pub fn run(args: &Args) -> Result<()> {
    let file = args.run.join("config.toml");
    if !file.is_file() {
        return Err(Error::usage("RUN", format!("{}: expected a run directory with config.toml", args.run.display())));
    }
    let dir = RunDir::open(Some(&args.run), "", true)?;
    if let Some(drawers) = certify::store::alone(dir.path())? {
        // The certification takes the folder for itself.
        drop(dir);
        return args.certificates(&drawers);
    }
    match join::survey(dir.path())? {
        None if dir.path().join("records.jsonl").is_file() => {
            let (done, all) = Ledger::read(&args.run)?.progress();
            if done < all && !args.partial {
                let run = args.run.display();
                let problem = format!(
                    "{run}: {done} of {all} records are there, and no part that could be joined: start the parts again, or make the rest in one \
                     process (rampart sweep --resume --out {run})"
                );
                return Err(Error::Failed(problem));
            }
            note("no parts: nothing to join");
        }
        None if packed::existing(&dir.path().join("records.jsonl")).is_some() => {
            note("joined and compressed before: nothing to do");
            return Ok(());
        }
        None => {
            let problem = format!("{}: expected records of its parts, found none", args.run.display());
            return Err(Error::usage("RUN", problem));
        }
        Some(survey) => {
            let run = survey.run();
            let open = certify::missing(dir.path(), &run.config, &run.ids, None)?;
            let problems = match args.partial {
                true => survey.wrong.clone(),
                false => survey.problems().into_iter().chain(open.iter().cloned()).collect(),
            };
            if !problems.is_empty() {
                return Err(join::refused(&args.run, &problems));
            }
            let (done, all, missing) = (survey.records.0, survey.records.1, survey.missing.clone());
            survey.join(&dir)?;
            missing.iter().chain(&open).for_each(note);
            note(format!("joined: {done} of {all} records"));
            if done < all {
                return Ok(());
            }
        }
    }
    if args.partial {
        return Ok(());
    }
    let config = Config::load(Some(&file), &Overrides::default());
    if args.records {
        let mut terminal = Terminal { print: &say, certifies: false, strict: args.strict };
        terminal.closes(&Ledger::read(&args.run)?, &dir)?;
        return args.packed(&dir);
    }
    // The sweep takes the folder for itself.
    drop(dir);
    let going = Going {
        emulator: args.emulator,
        out: Some(args.run.clone()),
        resume: true,
        no_checks: args.no_checks,
        strict: args.strict,
        dry_run: false,
        parted: Parted::default(),
    };
    going.go(config?, Some(&file), &Overrides::default(), &|_, _| vec![])?;
    args.packed(&RunDir::open(Some(&args.run), "", true)?)
}

impl Args {
    fn certificates(&self, drawers: &[Drawer]) -> Result<()> {
        let flags = [
            (self.partial, "--partial"),
            (self.records, "--records"),
            (self.compress, "--compress"),
            (self.no_checks, "--no-checks"),
            (self.strict, "--strict"),
        ];
        if let Some((_, flag)) = flags.iter().find(|(given, _)| *given) {
            let problem =
                format!("{} holds certificates alone, for which it does nothing: leave it out", self.run.display());
            return Err(Error::usage(*flag, problem));
        }
        let parts: Vec<Shard> = drawers.iter().filter_map(|drawer| drawer.shard).collect();
        let Some(of) = parts.iter().map(|part| part.of).max() else {
            note("no parts: nothing to join");
            return Ok(());
        };
        let missing: Vec<String> = (1..=of)
            .map(|number| Shard { number, of })
            .filter(|part| !parts.contains(part))
            .map(|part| format!("part {part} has drawn nothing yet"))
            .collect();
        if !missing.is_empty() {
            return Err(join::refused(&self.run, &missing));
        }
        super::certify::join(&self.run, self.emulator)
    }

    fn packed(&self, dir: &RunDir) -> Result<()> {
        if self.compress && dir.path().join("records.jsonl").is_file() {
            let (before, after) = packed::pack(dir, "records.jsonl")?;
            note(format!("records.jsonl.zst: {after} bytes of {before}"));
        }
        Ok(())
    }
}
