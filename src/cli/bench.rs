//! `rampart bench`: times one thing on seeded weights, so that the same work can be timed elsewhere.

use std::path::Path;
use std::time::Instant;

use clap::Args as ClapArgs;

use super::by_op;
use super::common::say;
use super::emulator::EmulatorArgs;
use super::workload;
use crate::device::{Device, DeviceChoice};
use crate::{Error, Result};

#[derive(ClapArgs, Debug)]
pub struct Args {
    #[command(flatten)]
    work: workload::Args,
    /// Where the kernels run; auto takes CUDA where there is a GPU
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    emulator: EmulatorArgs,
    /// Timed runs, after one that warms up
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// One JSON object instead of a line of text
    #[arg(long)]
    json: bool,
    /// A row per kernel as well: its time, and its share of what the processor or its memory could do; the host only
    #[arg(long)]
    by_op: bool,
}

/// Seconds and sizes of one benchmark.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Timing {
    pub median_s: f64,
    pub min_s: f64,
    pub max_s: f64,
    pub images_per_s: f64,
    /// of convolutions and matrix products, 1e9 per second at the median
    pub gflops: f64,
    /// device memory at its fullest during a run, weights included
    pub peak_bytes: usize,
}

/// # Errors
/// [`Error::Usage`] for flags that make no sense, and whatever the device reports.
pub fn run(args: &Args) -> Result<()> {
    if args.runs == 0 {
        return Err(Error::usage("--runs", "expected at least 1, found 0"));
    }
    args.emulator.apply(args.device)?;
    let work = args.work.load(|| Device::open(args.device))?;
    if args.by_op && work.device.kind() != "host" {
        let problem =
            format!("expected the host, found {}; `rampart profile` counts what a GPU does", work.device.kind());
        return Err(Error::usage("--by-op", problem));
    }
    let t = time(&work, args.work.batch, args.runs)?;
    let kernels = if args.by_op { by_op::measure(&work, args.runs)? } else { Vec::new() };
    if args.json {
        let mut object = json(&t)?;
        if args.by_op {
            object["kernels"] = json(&kernels)?;
        }
        say(&object.to_string())
    } else {
        say(&format!(
            "{}: median {:.4} s (min {:.4}, max {:.4}), {:.1} images/s, {:.1} GFLOP/s, peak {:.0} MB",
            args.work.title(),
            t.median_s,
            t.min_s,
            t.max_s,
            t.images_per_s,
            t.gflops,
            t.peak_bytes as f64 / 1e6
        ))?;
        if args.by_op { say(by_op::table(&kernels, t.median_s).trim_end()) } else { Ok(()) }
    }
}

fn json(value: &impl serde::Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|e| Error::file(Path::new("output"), e.to_string()))
}

/// Times the work on a batch of so many images.
fn time(work: &workload::Workload, batch: usize, runs: usize) -> Result<Timing> {
    let device = &work.device;
    work.once()?;
    device.reset_peak();
    device.reset_flops();
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        work.once()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    let median = (seconds[(runs - 1) / 2] + seconds[runs / 2]) / 2.0;
    Ok(Timing {
        median_s: median,
        min_s: seconds[0],
        max_s: seconds[runs - 1],
        images_per_s: batch as f64 / median,
        gflops: device.flops() / runs as f64 / median / 1e9,
        peak_bytes: device.memory().peak,
    })
}
