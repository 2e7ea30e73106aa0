//! The command line: one file per subcommand.

pub mod bench;
pub mod denoise;
pub mod emulator;
pub mod info;
pub mod maps;
pub mod parity;
pub mod profile;
pub mod report;
pub mod sweep;
pub mod workload;

use std::io::{self, Write};
use std::path::Path;

use clap::{Parser, Subcommand};

use crate::experiment::config::{Weights as Source, source};
use crate::models::weights::Weights;
use crate::{Error, Result};

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
    /// The page of a run, or a comparison of several, from what they left behind
    Report(report::Args),
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
}

impl Cli {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// Whatever it reports; [`crate::Error::exit_code`] is the process's exit code.
    pub fn run(self) -> Result<()> {
        match self.command {
            Command::Sweep(args) => sweep::run(args),
            Command::Denoise(args) => denoise::run(&args),
            Command::Report(args) => report::run(&args),
            Command::Maps(args) => maps::run(&args),
            Command::Parity(args) => parity::run(args),
            Command::Bench(args) => bench::run(&args),
            Command::Profile(args) => profile::run(&args),
            Command::Info(args) => info::run(&args),
        }
    }
}

/// Height and width from `HEIGHTxWIDTH`.
fn sides(flag: &str, text: &str) -> Result<[usize; 2]> {
    let side = |text: &str| text.parse::<usize>().ok().filter(|&side| side > 0);
    let sides = text.split_once('x').and_then(|(h, w)| Some([side(h)?, side(w)?]));
    sides.ok_or_else(|| Error::usage(flag, format!("expected HEIGHTxWIDTH such as 32x32, found `{text}`")))
}

/// A checkpoint of `flag`: a file, or `demo:` and one of `known`.
fn open(flag: &str, name: &str, known: &[&str]) -> Result<Weights> {
    if let Some(unknown) = name.strip_prefix("demo:").filter(|name| !known.contains(name)) {
        let known: Vec<String> = known.iter().map(|name| format!("demo:{name}")).collect();
        let problem = format!("expected a file or {}, found `demo:{unknown}`", known.join(", "));
        return Err(Error::usage(flag, problem));
    }
    match source(name) {
        Source::Embedded(bytes) => Weights::embedded(name, bytes),
        Source::File(path) => Weights::open(path),
    }
}

/// Prints to standard output, which may be a file on a full disk.
fn say(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{text}").and_then(|()| out.flush());
    written.map_err(|e| Error::io(Path::new("standard output"), "write", e))
}
