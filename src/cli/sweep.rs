//! `rampart sweep`: every model at every epsilon.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::common::{say, values};
use super::emulator::EmulatorArgs;
use crate::config::{Config, Overrides, Wrong};
use crate::defense::Estimator;
use crate::device::DeviceChoice;
use crate::error::Result;
use crate::number::Number;
use crate::report::terminal::{Terminal, plan};
use crate::run::study::{self, Options};
use crate::tape::Precision;

/// What an attack goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Through {
    /// noising, denoiser and classifier
    Defense,
}

/// Attack every model at every epsilon, undefended and denoised; without a config, the embedded demo.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The experiment as TOML. With --resume and without this: the config of the run directory
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,

    /// Where the kernels run; auto takes CUDA where there is a GPU
    #[arg(long, value_enum)]
    pub device: Option<DeviceChoice>,

    #[command(flatten)]
    pub emulator: EmulatorArgs,

    /// Budgets in pixel units of [0, 1], as in 0,0.01,8/255
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    pub eps: Option<Vec<Number>>,

    /// Noise of the denoised channel in pixel units of [0, 1], as in 0.25,0.5
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_hyphen_values = true)]
    pub sigma: Option<Vec<Number>>,

    /// The undefended channel only
    #[arg(long, conflicts_with = "sigma")]
    pub no_defense: bool,

    /// Draws of noise per image and sigma; they vote
    #[arg(long, value_name = "N")]
    pub draws: Option<u32>,

    /// Attack the defended pipeline as well, and report both attacks
    #[arg(long, value_name = "WHAT")]
    pub attack_through: Option<Through>,

    /// Draws of noise per step of the attack through the defence [default: 20]
    #[arg(long, value_name = "K")]
    pub eot: Option<u32>,

    /// How the gradient of the defended pipeline is estimated [default: eot_grad]
    #[arg(long)]
    pub estimator: Option<Estimator>,

    /// Images at most
    #[arg(long, value_name = "IMAGES")]
    pub limit: Option<usize>,

    /// Images per batch: changes speed and memory, never a result
    #[arg(long, value_name = "N")]
    pub batch: Option<usize>,

    /// Seed of all random draws
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,

    /// Number format of weights and activations
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,

    /// Run directory; by default the first free of runs/NAME-1, runs/NAME-2, ...
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,

    /// Go on with the run in --out where it stopped
    #[arg(long)]
    pub resume: bool,

    /// Stop attacking an image at its first success; then any successful iterate counts
    #[arg(long)]
    pub early_stop: bool,

    /// Take budgets and noise as they stand, however unusual: grey levels, noise above 1, lists out of order
    #[arg(long)]
    pub as_written: bool,

    /// Leave out the sanity checks of the attack that need small attacks of their own
    #[arg(long)]
    pub no_checks: bool,

    /// Check everything and print the plan, but run nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs the sweep: plan and progress go to stderr, the tables to stdout, all else into the run directory.
///
/// # Errors
/// [`crate::Error::Usage`] on bad flags, configs and run directories; else what loading, attacking and writing return.
pub fn run(args: Args) -> Result<()> {
    let overrides = overrides(&args)?;
    let own =
        args.out.as_ref().filter(|_| args.resume).map(|out| out.join("config.toml")).filter(|file| file.is_file());
    let file = args.config.as_deref().or(own.as_deref());
    let mut config = Config::load(file, &overrides)?;
    args.emulator.apply(config.device)?;
    let dataset = study::images(&mut config)?;
    if args.dry_run {
        return say(&plan(&config, &dataset, &config.device.to_string()));
    }
    let options = Options { out: args.out.as_deref(), resume: args.resume, no_trials: args.no_checks };
    study::sweep(&config, &dataset, options, &mut Terminal { print: &say })
        .map_err(|e| Wrong::new(file, &overrides).explain(e))
}

fn overrides(args: &Args) -> Result<Overrides> {
    let numbers = |list: &Option<Vec<Number>>, flag, most| {
        let list = list.as_ref().map(|list| values(list, flag, most, args.as_written));
        list.transpose()
    };
    Ok(Overrides {
        eps: numbers(&args.eps, "--eps", f64::INFINITY)?,
        sigma: numbers(&args.sigma, "--sigma", 1.0)?,
        draws: args.draws,
        attack_through: args.attack_through.is_some(),
        eot: args.eot,
        estimator: args.estimator,
        limit: args.limit,
        batch: args.batch,
        seed: args.seed,
        precision: args.precision,
        device: args.device,
        early_stop: args.early_stop,
        as_written: args.as_written,
        no_defense: args.no_defense,
    })
}
