//! `rampart certify`: randomised smoothing of a classifier, denoised or under noise alone.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::attack::{Given, name, taken};
use super::common::say;
use super::emulator::EmulatorArgs;
use super::parted::Parted;
use super::settings::Settings;
use super::sweep::nothing_to_resume;
use crate::config::{Config, Overrides, Set, Wrong};
use crate::error::{Error, Result};
use crate::report::terminal::{Terminal, certify_plan};
use crate::run::progress::note;
use crate::run::study::{self, Options};

/// Certify images against L2 perturbations by randomised smoothing (Cohen et al. 2019), without attacking them.
///
/// Of the networks and images of a config, of a network and images of one's own, or of the embedded demo. With a denoiser the certificate is of
/// denoised classification (Carlini et al. 2023), without one of the classifier under noise alone. A `[certify]` table in the config of a sweep
/// does both, attacks and certificates, and compares the two.
#[derive(Debug, ClapArgs)]
#[command(after_help = "  rampart certify --limit 100 --sigma 0.25,0.5 --n 1000\n  \
                          rampart certify network.onnx photographs --sigma 0.25 --n 100000 --skip 20\n  \
                          rampart certify --sigma 0.25 --radius 0.25,0.5 --n 10000      until each image is decided\n\n\
                          Every key of a config can be set here: `rampart config --keys` lists them with their flags.")]
pub struct Args {
    /// A network of one's own, beside DATA: as of `attack`
    #[arg(requires = "data")]
    pub weights: Option<String>,

    /// Images of one's own: as of `attack`
    #[arg(conflicts_with = "config")]
    pub data: Option<String>,

    /// The experiment as TOML. With --resume and without this: the config of the run directory
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,

    #[command(flatten)]
    pub settings: Settings,

    #[command(flatten)]
    pub emulator: EmulatorArgs,

    /// Run directory; by default the first free of runs/NAME-1, runs/NAME-2, ...
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Go on with the run in --out where it stopped; or add certificates to the sweep there
    #[arg(long)]
    pub resume: bool,

    /// Check everything and print the plan, but run nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Draws of one image are made by one part
    #[command(flatten)]
    pub parted: Parted,
}

/// # Errors
/// As [`super::sweep::run`].
pub fn run(args: &Args) -> Result<()> {
    let (mut overrides, mut why) = (args.settings.overrides()?, None);
    if let Some((_, flag)) = overrides.given().find(|(field, _)| of_attacks(field)) {
        let problem =
            "no certificate depends on it: leave it out; `rampart sweep` with a table [certify] attacks and certifies";
        return Err(Error::usage(flag, problem));
    }
    let own = args.out.as_ref().map(|out| out.join("config.toml"));
    let own = own.filter(|file| (args.resume || args.parted.shard.is_some()) && file.is_file());
    let file = match args.weights.is_some() {
        true => None,
        false => args.config.as_deref().or(own.as_deref()),
    };
    if let Some(out) = args.out.as_ref().filter(|_| args.resume && file.is_none() && args.weights.is_none()) {
        return Err(nothing_to_resume(out));
    }
    if let (Some(weights), Some(data)) = (&args.weights, &args.data) {
        (overrides, why) = given(weights, data, &args.settings)?;
    }
    overrides.certify = true;
    let config = Config::load(file, &overrides)?;
    why.iter().for_each(note);
    args.emulator.apply(config.device)?;
    let options = Options {
        out: args.out.as_deref(),
        resume: args.resume,
        no_trials: false,
        shard: args.parted.begin(config.device)?,
        if_running: args.parted.if_running,
    };
    go(config, options, args.dry_run, args.weights.is_some(), &Wrong::new(file, &overrides))
}

/// Joins what parts drew in a run directory of certificates alone; draws that they left open are made.
///
/// # Errors
/// As [`run`].
pub(super) fn join(out: &Path, emulator: EmulatorArgs) -> Result<()> {
    let (file, overrides) = (out.join("config.toml"), Overrides { certify: true, ..Overrides::default() });
    let config = Config::load(Some(&file), &overrides)?;
    emulator.apply(config.device)?;
    Parted::default().begin(config.device)?;
    let options = Options { out: Some(out), resume: true, ..Options::default() };
    go(config, options, false, false, &Wrong::new(Some(&file), &overrides))
}

/// Certifies as a config says; of a network and images `given` on the command line what was taken of them is told first.
fn go(mut config: Config, options: Options, dry_run: bool, given: bool, wrong: &Wrong) -> Result<()> {
    let explained = |e| wrong.explain(e);
    let dataset = study::images(&mut config).map_err(explained)?;
    if given {
        taken(&config, &dataset).iter().for_each(note);
    }
    if dry_run {
        study::check(&config, &dataset, options).map_err(explained)?;
        return say(&certify_plan(&config, &dataset, &config.device.to_string()));
    }
    let mut terminal = Terminal { print: &say, certifies: true, strict: false };
    study::certify(&config, &dataset, options, &mut terminal).map_err(explained)
}

/// Whether a field says how images are attacked, or how defended ones are scored after that.
fn of_attacks(field: &str) -> bool {
    const SCORED: [&str; 6] = ["score", "save", "checks_budget", "defense.seeds", "defense.draws", "defense.vote"];
    const THROUGH: [&str; 9] = [
        "defense.attack",
        "defense.suite",
        "defense.eot",
        "defense.estimator",
        "defense.antithetic",
        "defense.aa_compat",
        "defense.straight",
        "defense.steps",
        "defense.selection",
    ];
    field.starts_with("attack.") || SCORED.contains(&field) || THROUGH.contains(&field)
}

/// A network and images, as of `attack`: without a denoiser of the user's, noise alone.
fn given(weights: &str, data: &str, settings: &Settings) -> Result<(Overrides, Option<String>)> {
    let given = Given { weights: weights.to_owned(), data: data.to_owned() };
    let (mut overrides, why) = given.overrides(settings)?;
    if overrides.sigma.as_ref().is_none_or(Vec::is_empty) && !overrides.set.iter().any(|set| set.key == "defense.sigma")
    {
        return Err(Error::usage("--sigma", "noise is what certifies: expected its scale, as in --sigma 0.25"));
    }
    let said = |key: &str| overrides.set.iter().any(|set| set.key == key);
    if !said("defense.weights") && Path::new(data) == Path::new("demo") {
        overrides.set.push(Set::flag("DATA", "defense.weights", "none")?);
    }
    if !overrides.set.iter().any(|set| set.key == "name") {
        overrides.set.push(Set::flag("WEIGHTS", "name", &name(weights))?);
    }
    Ok((overrides, why))
}
