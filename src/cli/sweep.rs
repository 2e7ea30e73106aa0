//! `rampart sweep`: every model at every epsilon.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args as ClapArgs, ValueEnum};

use super::emulator::EmulatorArgs;
use super::say;
use crate::data::Dataset;
use crate::defense::Estimator;
use crate::error::Result;
use crate::experiment::engine::AttackEngine;
use crate::experiment::finished::Finished;
use crate::experiment::page;
use crate::experiment::progress::note;
use crate::experiment::rundir::RunDir;
use crate::experiment::settings::{DatasetKind, DeviceChoice, Number};
use crate::experiment::{Config, Engine, Overrides, run as run_experiment};
use crate::report::eps_label;
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
    let mut config = load_config(&args)?;
    args.emulator.apply(&config.device.to_string())?;
    if config.dataset.kind == DatasetKind::Imagenet {
        note("reading every selected image once");
    }
    let dataset = config.dataset.load(config.limit)?;
    for skipped in &dataset.skipped {
        note(format!("warning: left out: {}", skipped.problem));
    }
    config.pin(&dataset)?;
    if args.dry_run {
        return say(&plan(&config, &dataset, &config.device.to_string()));
    }
    // The folder last: what is refused until here leaves none behind.
    let mut engine = AttackEngine::new(&config, &dataset)?;
    let dir = RunDir::open(args.out.as_deref(), &config.name, args.resume)?;
    note(plan(&config, &dataset, &engine.device_name()));
    note(format!("into {}", dir.path().display()));

    let summary = run_experiment(&config, &dataset, &mut engine, &dir)?;
    say(summary.tables.trim_end())?;
    if summary.violations > 0 {
        let count = summary.violations;
        note(format!("warning: {count} perturbations exceed their budget; see `violation` in records.jsonl"));
    }
    let pictures = Instant::now();
    engine.strips(&dir)?;
    let spent = engine.spent();
    let mut times = vec![("attack on the classifiers", spent.attack), ("denoising and its votes", spent.denoise)];
    if config.defense.attack {
        times.push(("attack through the defence", spent.adaptive));
    }
    let run = Finished::read(dir.path())?;
    if let Some(samples) = engine.samples(&run)? {
        page::store(&dir, page::SAMPLES, &samples)?;
    }
    times.push(("strips, samples and maps", pictures.elapsed().as_secs_f64()));
    // The emulated GPU would take longer over them than over a small sweep.
    if !args.no_checks && engine.device_name() != "emulated" && !dir.path().join(page::TRIALS).exists() {
        let begin = Instant::now();
        if let Some(trials) = engine.trials()? {
            page::store(&dir, page::TRIALS, &trials)?;
        }
        times.push(("sanity checks", begin.elapsed().as_secs_f64()));
    }
    page::add_times(&dir, &times)?;
    dir.write("report.html", page::of_run(&run)?.as_bytes())?;
    note(format!("report.html, results.csv, plots/accuracy.{{svg,png}} and images/ are in {}", dir.path().display()));
    Ok(())
}

fn load_config(args: &Args) -> Result<Config> {
    let numbers = |list: &Option<Vec<Number>>| list.as_ref().map(|list| list.iter().map(|n| n.0).collect());
    let overrides = Overrides {
        eps: numbers(&args.eps),
        sigma: if args.no_defense { Some(vec![]) } else { numbers(&args.sigma) },
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
    };
    let own =
        args.out.as_ref().filter(|_| args.resume).map(|out| out.join("config.toml")).filter(|path| path.is_file());
    Config::load(args.config.as_ref().or(own.as_ref()).map(PathBuf::as_path), &overrides)
}

/// Two or three lines: what will be run on what.
fn plan(config: &Config, dataset: &Dataset, device: &str) -> String {
    let attack = &config.attack;
    let cells =
        [count(config.models.len(), "model"), count(attack.eps.len(), "epsilon"), count(dataset.len(), "image")];
    let eps: Vec<String> = attack.eps.iter().map(|&eps| eps_label(eps)).collect();
    let models: Vec<&str> = config.models.iter().map(|model| model.name.as_str()).collect();
    let defense = &config.defense;
    let skipped = match dataset.skipped.len() {
        0 => String::new(),
        count => format!(" · {} left out", self::count(count, "unreadable file")),
    };
    let size = defense.size.map_or(String::new(), |[h, w]| format!(" at {h}x{w}"));
    let denoised = match defense.sigma.is_empty() {
        true => String::new(),
        false => {
            let sigma: Vec<String> = defense.sigma.iter().map(f64::to_string).collect();
            let through = match defense.attack {
                true => format!(", attacked through: {}, {} draws a step", defense.estimator(), defense.eot()),
                false => String::new(),
            };
            format!(
                "\ndenoised{size} at sigma {}, {}{through}",
                sigma.join(", "),
                count(defense.draws() as usize, "draw")
            )
        }
    };
    format!(
        "{}: device {device}, {} · {} of {}{skipped} · seed {}\n{} {}, {}, {} · eps {} · {}{denoised}",
        config.name,
        config.precision,
        cells.join(" x "),
        dataset.name,
        config.seed,
        attack.label(),
        attack.norm,
        count(attack.steps as usize, "step"),
        count(attack.restarts as usize, "restart"),
        eps.join(", "),
        models.join(", "),
    )
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
