//! `rampart sweep`: every model at every epsilon.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::common::say;
use super::emulator::EmulatorArgs;
use super::parted::Parted;
use super::settings::Settings;
use crate::config::{Config, Overrides, Wrong};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::report::terminal::{Terminal, plan};
use crate::run::progress::note;
use crate::run::settled;
use crate::run::study::{self, Options};

/// Attack every model at every epsilon, undefended and denoised; without a config, the embedded demo.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Every key of a config can be set here: `rampart config --keys` lists them with their flags, docs/config.md too.\n\
                        For a network and images of one's own: `rampart attack WEIGHTS DATA`, or `rampart init WEIGHTS DATA`."
)]
pub struct Args {
    /// The experiment as TOML. With --resume or --shard and without this: the config of the run directory
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    pub settings: Settings,

    #[command(flatten)]
    pub going: Going,
}

/// Where a run goes and how much of it is done.
#[derive(Debug, ClapArgs)]
pub struct Going {
    #[command(flatten)]
    pub emulator: EmulatorArgs,

    /// Run directory; by default the first free of runs/NAME-1, runs/NAME-2, ...
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Go on with the run in --out where it stopped
    #[arg(long)]
    pub resume: bool,

    /// Leave out the sanity checks of the attack that need small attacks of their own; who resumes or merges the run leaves them out too
    #[arg(long)]
    pub no_checks: bool,

    /// Exit with 1, once all files are written, where a check of the attack fails
    #[arg(long)]
    pub strict: bool,

    /// Check everything and print the plan, but run nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub parted: Parted,
}

/// Runs the sweep: plan and progress go to stderr, the tables to stdout, all else into the run directory.
///
/// # Errors
/// [`crate::Error::Usage`] on bad flags, configs and run directories; else what loading, attacking and writing return.
pub fn run(args: Args) -> Result<()> {
    let overrides = args.settings.overrides()?;
    let going = &args.going;
    let goes_on = going.resume || going.parted.shard.is_some();
    let own = going.out.as_ref().filter(|_| goes_on).map(|out| out.join("config.toml")).filter(|file| file.is_file());
    let file = args.config.as_deref().or(own.as_deref());
    if let Some(out) = going.out.as_ref().filter(|_| going.resume && going.parted.shard.is_none() && file.is_none()) {
        return Err(nothing_to_resume(out));
    }
    let config = Config::load(file, &overrides)?;
    going.go(config, file, &overrides, &|_, _| vec![])
}

/// That there is no run to go on with, and nothing said of one.
pub(super) fn nothing_to_resume(out: &Path) -> Error {
    let problem = format!("{}: no run to go on with: expected a folder with config.toml, or --config", out.display());
    Error::usage("--resume", problem)
}

impl Going {
    /// Runs `config`, which `file` and `overrides` made; what `taken` says of it comes first.
    ///
    /// # Errors
    /// As [`run`].
    pub fn go(
        &self,
        mut config: Config,
        file: Option<&Path>,
        overrides: &Overrides,
        taken: &dyn Fn(&Config, &Dataset) -> Vec<String>,
    ) -> Result<()> {
        self.emulator.apply(config.device)?;
        let budget = overrides.given().find(|(field, _)| *field == "checks_budget");
        if let Some((_, flag)) = budget.filter(|_| self.no_checks) {
            return Err(Error::usage(flag, "beside --no-checks nothing takes that time: leave one of them out"));
        }
        let remembered =
            self.resume && budget.is_none() && !self.no_checks && settled::begun_unchecked(self.out.as_deref())?;
        if remembered {
            note(
                "the run was begun with --no-checks, which holds here too; --checks-budget SECONDS of a sweep makes the checks",
            );
        }
        let shard = self.parted.begin(config.device)?;
        let explained = |e| Wrong::new(file, overrides).explain(e);
        let dataset = study::images(&mut config).map_err(explained)?;
        taken(&config, &dataset).iter().for_each(note);
        let options = Options {
            out: self.out.as_deref(),
            resume: self.resume,
            no_trials: self.no_checks || remembered,
            shard,
            if_running: self.parted.if_running,
        };
        if self.dry_run {
            study::check(&config, &dataset, options).map_err(explained)?;
            return say(&plan(&config, &dataset, &config.device.to_string()));
        }
        let mut terminal = Terminal { print: &say, certifies: false, strict: self.strict };
        study::sweep(&config, &dataset, options, &mut terminal).map_err(explained)
    }
}
