//! `rampart parity`: replays PyTorch dumps.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::common::say;
use super::emulator::EmulatorArgs;
use crate::device::{Device, DeviceChoice};
use crate::parity::{Report, Verdict, replay};
use crate::tape::Precision;
use crate::{Error, Result};

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Dumps, or folders of them
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Where the kernels run; auto takes CUDA where there is a GPU
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceChoice,
    #[command(flatten)]
    emulator: EmulatorArgs,
    /// Number format of weights and activations
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// A line per dump and output tensor with a hash of its bits: equal files mean equal results
    #[arg(long, value_name = "FILE")]
    bits: Option<PathBuf>,
    /// One JSON object per file
    #[arg(long)]
    json: bool,
}

/// # Errors
/// [`Error::Failed`] unless every file passed; [`Error::Io`] for a path that cannot be read.
pub fn run(args: Args) -> Result<()> {
    args.emulator.apply(args.device)?;
    let device = Device::open(args.device)?;
    let mut files = Vec::new();
    for path in &args.paths {
        collect(path, &mut files)?;
    }
    if files.is_empty() {
        return Err(Error::Failed(format!("no .safetensors file under {}", args.paths[0].display())));
    }
    let mut bits = String::new();
    let mut failed = 0;
    for file in &files {
        let report = replay(file, &device, args.precision);
        failed += usize::from(!report.passed());
        for (tensor, hash) in &report.bits {
            bits += &format!("{hash:016x}  {}  {tensor}\n", file.display());
        }
        if args.json {
            say(&serde_json::to_string(&report).map_err(|e| Error::file(file, e.to_string()))?)?;
        } else {
            say(&line(&report))?;
        }
    }
    if let Some(file) = &args.bits {
        std::fs::write(file, bits).map_err(|e| Error::io(file, "write the bits", e))?;
    }
    if !args.json {
        say(&format!("{} passed, {failed} failed", files.len() - failed))?;
    }
    if failed > 0 {
        return Err(Error::Failed(format!("{failed} of {} dumps failed", files.len())));
    }
    Ok(())
}

fn line(report: &Report) -> String {
    let (file, op) = (report.file.display(), &report.op);
    match &report.verdict {
        Verdict::Compared { worst: w, .. } => {
            let word = if w.passed { "ok" } else { "FAIL" };
            format!("{word:<4}  {file}  {op}  {}  {:.2e}  {:.2e}  {:.0e}", w.tensor, w.rel_err, w.max_abs, w.limit)
        }
        Verdict::Unsupported { reason } => format!("UNSUPPORTED  {file}  {op}  {reason}"),
    }
}

/// Files ending in `.safetensors`, sorted; a file named outright is taken whatever its name.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        std::fs::metadata(path).map_err(|e| Error::io(path, "cannot read the dump", e))?;
        files.push(path.into());
        return Ok(());
    }
    let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, "cannot list the folder", e))?;
    let mut entries: Vec<PathBuf> = entries
        .map(|e| e.map(|e| e.path()))
        .collect::<std::io::Result<_>>()
        .map_err(|e| Error::io(path, "cannot list the folder", e))?;
    entries.sort();
    for entry in entries {
        // Folders that link to each other have no end.
        let folder = entry.is_dir() && !entry.is_symlink();
        if folder || !entry.is_dir() && entry.extension().is_some_and(|e| e == "safetensors") {
            collect(&entry, files)?;
        }
    }
    Ok(())
}
