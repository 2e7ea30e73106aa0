//! `rampart info`: what this binary can run on, and its kernels.

use clap::Args as ClapArgs;

use crate::Result;
use crate::device::{Device, IMAGES, KERNELS};

#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Only the devices
    #[arg(long)]
    devices: bool,
}

/// # Errors
/// None at present: a device that cannot be opened is listed with the reason.
pub fn run(args: &Args) -> Result<()> {
    println!("rampart {}", env!("CARGO_PKG_VERSION"));
    for name in ["host", "cuda"] {
        match Device::open(name) {
            Ok(device) => println!("  {name:<6} {}", device.name()),
            Err(e) => println!("  {name:<6} not available: {e}"),
        }
    }
    if args.devices {
        return Ok(());
    }
    let images: usize = IMAGES.iter().map(|(_, bytes)| bytes.len()).sum();
    match IMAGES.len() {
        0 => println!("\nCUDA images: none (nvcc was not found when this binary was built)"),
        n => println!("\nCUDA images: {n} files, {:.1} MB", images as f64 / 1e6),
    }
    println!("\n{:<28} {:<14} {:>7} {:>13}", "kernel", "file", "threads", "shared bytes");
    for k in KERNELS {
        println!("{:<28} {:<14} {:>7} {:>13}", k.name, format!("kernels/{}.cu", k.file), k.threads, k.shared);
    }
    Ok(())
}
