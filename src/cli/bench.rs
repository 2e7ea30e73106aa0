//! `rampart bench`: times one thing on seeded weights, so that the same work can be timed elsewhere.

use std::path::Path;
use std::time::Instant;

use clap::{Args as ClapArgs, ValueEnum};

use super::say;
use crate::attack::{Classifier as _, Loss, Query};
use crate::device::Device;
use crate::models::classifier::Classifier;
use crate::models::weights::{Weights, uniform};
use crate::ops::pgd::{self, Norm, Profile, Step};
use crate::tape::Precision;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What is timed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum What {
    /// logits
    Forward,
    /// forward, loss, and the gradient of the image
    Gradient,
    /// a gradient and an L-inf step
    PgdStep,
}

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Architecture: resnet
    #[arg(long, default_value = "resnet")]
    arch: String,
    /// Its config as JSON, as in a checkpoint's metadata
    #[arg(long, default_value = r#"{"depth":50,"stem":"cifar","width":64,"attention":"none","classes":10}"#)]
    config: String,
    /// Images per batch
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Height x width of the images
    #[arg(long, default_value = "32x32")]
    size: String,
    #[arg(long, value_enum, default_value = "forward")]
    what: What,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// auto, host, cuda or emulated
    #[arg(long, default_value = "auto")]
    device: String,
    /// Timed runs, after one that warms up
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// One JSON object instead of a line of text
    #[arg(long)]
    json: bool,
}

const STEP: Step = Step { norm: Norm::Linf, profile: Profile::Native, eps: 8.0 / 255.0, size: 2.0 / 255.0, scale: 1.0 };

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
    if args.batch == 0 || args.runs == 0 {
        return Err(Error::usage("--batch and --runs", "expected at least 1"));
    }
    let (h, w) = args
        .size
        .split_once('x')
        .and_then(|(h, w)| Some((h.parse::<usize>().ok()?, w.parse::<usize>().ok()?)))
        .filter(|&(h, w)| h > 0 && w > 0)
        .ok_or_else(|| Error::usage("--size", format!("expected HEIGHTxWIDTH such as 32x32, found `{}`", args.size)))?;
    if args.arch != "resnet" {
        return Err(Error::usage("--arch", format!("expected resnet, found `{}`", args.arch)));
    }
    let config = serde_json::from_str(&args.config).map_err(|e| Error::usage("--config", e.to_string()))?;
    let device = Device::open(&args.device)?;
    let model =
        Classifier::resnet(&device, args.precision, &Weights::seeded(), &config, [0.5; 3], [0.25; 3], [h, w, 3])?;
    let t = time(&model, args.batch, args.what, args.runs)?;
    if args.json {
        let text = serde_json::to_string(&t).map_err(|e| Error::file(Path::new("output"), e.to_string()))?;
        say(&text)
    } else {
        say(&format!(
            "{} {:?} batch {} {}: median {:.4} s (min {:.4}, max {:.4}), {:.1} images/s, {:.1} GFLOP/s, peak {:.0} MB",
            args.arch,
            args.what,
            args.batch,
            args.precision,
            t.median_s,
            t.min_s,
            t.max_s,
            t.images_per_s,
            t.gflops,
            t.peak_bytes as f64 / 1e6
        ))
    }
}

/// Times `what` on a batch of seeded images.
///
/// # Errors
/// Whatever the device reports.
pub fn time(model: &Classifier, batch: usize, what: What, runs: usize) -> Result<Timing> {
    let device = model.device().clone();
    let [h, w, c] = model.image_shape();
    let pixels: Vec<f32> = uniform("input", batch * h * w * c).map(|v| 0.5 + 0.5 * v).collect();
    let images = Tensor::from_f32(&device, &[batch, h, w, c], crate::device::DType::F32, &pixels)?;
    let labels: Vec<u32> = (0..batch).map(|i| (i % model.classes()) as u32).collect();
    let once = || -> Result<()> {
        match what {
            What::Forward => {
                model.logits(&images)?;
            }
            What::Gradient => {
                model.gradient(&images, &Query::new(&labels, Loss::CrossEntropy))?;
            }
            What::PgdStep => {
                let at = model.gradient(&images, &Query::new(&labels, Loss::CrossEntropy))?;
                if let Some(gradient) = at.gradient {
                    pgd::step(&device, &images, &images, &gradient, &STEP)?;
                }
            }
        }
        device.synchronize()
    };
    once()?;
    device.reset_peak();
    device.reset_flops();
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        once()?;
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
