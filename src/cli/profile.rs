//! `rampart profile`: counts on the emulated GPU what one piece of work does, kernel by kernel.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use ptx_emulator::count::{LaunchCounts, Totals};
use ptx_emulator::driver::tally::Tally;
use serde::Serialize;

use super::common::say;
use super::emulator::EmulatorArgs;
use super::workload;
use crate::device::emulated::{self, Settings};
use crate::device::{Device, DeviceChoice};
use crate::profile::tables::{self as tables, Sum};
use crate::{Error, Result};

#[derive(ClapArgs, Debug)]
#[command(mut_arg("batch", |a| a.default_value("1")))]
pub struct Args {
    #[command(flatten)]
    work: workload::Args,
    #[command(flatten)]
    emulator: EmulatorArgs,
    /// A table of this kernel's source lines too
    #[arg(long, value_name = "KERNEL")]
    lines: Option<String>,
    /// One row per launch instead of one per kernel
    #[arg(long)]
    launches: bool,
    /// Everything, exactly: kernels, launches and their source lines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Everything<'a> {
    work: String,
    config: &'a str,
    emulator: emulated::Effective,
    about_estimates: String,
    driver: Tally,
    kernels: &'a [Sum],
    launches: &'a [LaunchCounts],
}

const BYTES: &str =
    "bytes of device memory: each once, what the buffers that the arguments name hold, and what moves in sectors";

const ESTIMATE: &str = "roofline ESTIMATE of time from counts and data sheets, nothing measured: the longest of matrix FLOPs over the
peak rate, sectors over the memory bandwidth (ignores L2), PTX instructions but moves over the issue rate, and turns of shared
memory, on the multiprocessor with most blocks; no latency, occupancy or launch overhead";

/// # Errors
/// [`Error::Usage`] for flags that make no sense, [`Error::Io`] for a file that cannot be written, and what the device reports.
pub fn run(args: &Args) -> Result<()> {
    let mut settings = args.emulator.settings();
    settings.checks.get_or_insert(false);
    emulated::configure(Settings { counters: Some(true), ..settings });
    let mut wanted = args.work.clone();
    wanted.default_to_small()?;
    let work = wanted.load(|| Device::open(DeviceChoice::Emulated))?;
    // Kernels and packed weights are there after a first run.
    work.once()?;
    emulated::profile()?;
    emulated::tally()?;
    work.once()?;
    let (launches, driver) = (emulated::profile()?, emulated::tally()?);
    let sums = tables::by_kernel(&launches);
    let lines = args.lines.as_deref().map(|kernel| lines(&launches, &sums, kernel)).transpose()?;
    if let Some(file) = &args.json {
        let emulator = emulated::effective()?;
        let (work, config) = (wanted.title(), wanted.json()?);
        let all = Everything {
            work,
            config,
            emulator,
            about_estimates: ESTIMATE.replace('\n', " "),
            driver,
            kernels: &sums,
            launches: &launches,
        };
        write(file, &all)?;
    }
    say(&format!("{} on {}, warp instructions of PTX\n", wanted.title(), work.device.name()))?;
    say(&format!("asked of the driver: {driver}\n"))?;
    if args.launches {
        say(&tables::launches(&launches))?;
        say(&format!("est.: {ESTIMATE}"))?;
    } else {
        say(&tables::kernels(&sums))?;
        say(&format!("{BYTES}\n{}", tables::bytes(&sums)))?;
        say(&format!("instructions by class, %\n{}", tables::classes(&sums)))?;
        say(&format!("{ESTIMATE}\n{}", tables::estimates(&sums, &launches).trim_end()))?;
    }
    match lines {
        Some(lines) => say(&format!("\n{}", lines.trim_end())),
        None => Ok(()),
    }
}

/// The table of one kernel's lines.
fn lines(launches: &[LaunchCounts], sums: &[Sum], kernel: &str) -> Result<String> {
    let lines: Vec<((String, u32), Totals)> = tables::by_line(launches, kernel);
    if lines.is_empty() {
        let ran: Vec<&str> = sums.iter().map(|s| s.kernel.as_str()).collect();
        return Err(Error::usage("--lines", format!("expected one of {}, found `{kernel}`", ran.join(", "))));
    }
    Ok(format!("source lines of {kernel}\n{}", tables::lines(&lines)))
}

fn write(file: &Path, all: &Everything) -> Result<()> {
    let text = serde_json::to_string_pretty(all).map_err(|e| Error::file(file, e.to_string()))?;
    std::fs::write(file, text + "\n").map_err(|e| Error::io(file, "write the counts", e))
}
