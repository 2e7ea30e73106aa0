//! The command line: one file per subcommand.

pub mod attack;
pub mod bench;
mod by_op;
pub mod certify;
mod common;
pub mod completions;
pub mod config;
pub mod denoise;
pub mod emulator;
pub mod evaluate;
pub mod info;
pub mod init;
pub mod man;
pub mod maps;
pub mod merge;
pub mod parity;
pub mod parted;
pub mod profile;
pub mod report;
mod settings;
pub mod status;
pub mod submit;
pub mod sweep;
pub mod workload;

use clap::{CommandFactory, Parser, Subcommand};

use crate::Result;
use crate::device::nvtx;
use crate::run::progress::note;

/// Attack image classifiers with PGD and measure denoised smoothing, on kernels of our own.
#[derive(Parser, Debug)]
#[command(name = "rampart", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Accuracy over epsilon for one or more models; without a config, the embedded demo
    Sweep(sweep::Args),
    /// A network and images of one's own: accuracy over epsilon, without a config
    Attack(attack::Args),
    /// Certificates of randomised smoothing, and their curve over the radius; without a config, of the embedded demo
    Certify(certify::Args),
    /// Write a commented config for a network and images of one's own
    Init(init::Args),
    /// Print a config with its defaults, or the reference of all keys
    Config(config::Args),
    /// Adversarial images of anybody: which networks they fool, and whether they keep to a budget
    Evaluate(evaluate::Args),
    /// The page of a run, or a comparison of several, from what they left behind
    Report(report::Args),
    /// Join what the parts of a run recorded, which several processes shared
    Merge(merge::Args),
    /// How far the parts of a run are
    Status(status::Args),
    /// Send a sweep to Slurm, a task per part
    Submit(submit::Args),
    /// Feature maps and attention of image files, clean, attacked and denoised
    Maps(maps::Args),
    /// Noise and denoise image files
    Denoise(denoise::Args),
    /// Replay PyTorch dumps and compare
    Parity(parity::Args),
    /// Time one thing on seeded weights
    Bench(bench::Args),
    /// Count what one thing does on the emulated GPU, kernel by kernel
    Profile(profile::Args),
    /// List devices and kernels
    Info(info::Args),
    /// Completions for a shell, on stdout: bash, zsh, fish, elvish or powershell
    Completions(completions::Args),
    /// The manual page of the program or of a subcommand, on stdout: rampart man sweep | man -l -
    Man(man::Args),
}

impl Cli {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// Whatever it reports; [`crate::Error::exit_code`] is the process's exit code.
    pub fn run(self) -> Result<()> {
        crate::device::start_threads()?;
        if let Err(problem) = nvtx::attached() {
            note(format!("warning: {problem}"));
        }
        match self.command {
            Command::Sweep(args) => sweep::run(args),
            Command::Attack(args) => attack::run(&args),
            Command::Certify(args) => certify::run(&args),
            Command::Evaluate(args) => evaluate::run(&args),
            Command::Init(args) => init::run(&args),
            Command::Config(args) => config::run(&args),
            Command::Denoise(args) => denoise::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Merge(args) => merge::run(&args),
            Command::Status(args) => status::run(&args),
            Command::Submit(args) => submit::run(&args),
            Command::Maps(args) => maps::run(&args),
            Command::Parity(args) => parity::run(args),
            Command::Bench(args) => bench::run(&args),
            Command::Profile(args) => profile::run(&args),
            Command::Info(args) => info::run(&args),
            Command::Completions(args) => completions::run(&args, Self::command()),
            Command::Man(args) => man::run(&args, Self::command()),
        }
    }
}
