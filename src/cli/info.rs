//! `rampart info`: what this binary can run on, and its kernels.

use clap::Args as ClapArgs;

use super::common::say;
use crate::Result;
use crate::device::{Device, DeviceChoice, IMAGES, KERNELS, emulated, level};

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Only the devices
    #[arg(long)]
    devices: bool,
}

/// # Errors
/// [`crate::Error::Io`] when nothing can be printed. A device that cannot be opened is listed with the reason.
pub fn run(args: &Args) -> Result<()> {
    let mut lines = vec![format!("rampart {}", env!("CARGO_PKG_VERSION"))];
    for name in [DeviceChoice::Host, DeviceChoice::Cuda] {
        lines.push(match Device::open(name) {
            Ok(device) => format!("  {:<8} {}", name.to_string(), device.name()),
            Err(e) => format!("  {:<8} not available: {e}", name.to_string()),
        });
    }
    // Not opened: a process has one driver, and the line above may have taken the real one.
    lines.push(match emulated::effective() {
        Ok(effective) => format!("  emulated {}, in this program", effective.model),
        Err(e) => format!("  emulated not available: {e}"),
    });
    if !args.devices {
        let ptx: usize = IMAGES.iter().map(|image| image.ptx.len()).sum();
        let machine_code: Vec<usize> = IMAGES.iter().filter_map(|image| Some(image.fatbin?.len())).collect();
        lines.push(match machine_code.len() {
            0 => format!("\nCUDA images: none; prebuilt PTX: {} files, {:.1} MB", IMAGES.len(), ptx as f64 / 1e6),
            n => format!(
                "\nCUDA images: {n} files, {:.1} MB; PTX: {} files, {:.1} MB",
                machine_code.iter().sum::<usize>() as f64 / 1e6,
                IMAGES.len(),
                ptx as f64 / 1e6
            ),
        });
        let level = level::current().unwrap_or("none of them");
        let (levels, compiler) = (level::names().join(", "), env!("RAMPART_HOST_COMPILER"));
        lines.push(format!("host kernels: {levels}, by {compiler}; running {level}"));
        for image in IMAGES {
            lines.extend(
                image.stale.map(|what| format!("stale: the PTX of kernels/{}.cu is older than {what}", image.file)),
            );
        }
        lines.push(format!("\n{:<28} {:<14} {:>7} {:>13}", "kernel", "file", "threads", "shared bytes"));
        for k in KERNELS {
            let file = format!("kernels/{}.cu", k.file);
            lines.push(format!("{:<28} {file:<14} {:>7} {:>13}", k.name, k.threads, k.shared));
        }
    }
    say(&lines.join("\n"))
}
