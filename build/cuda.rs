//! The CUDA half of the build: one fatbin per kernel file, when nvcc is there.

use std::env::{self, consts::EXE_SUFFIX};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// One PTX, the one that tests run, and from it machine code for each generation; the driver compiles it for later ones.
const TARGETS: &str = "arch=compute_80,code=[sm_80,sm_86,sm_89,sm_90,compute_80]";

/// No contraction: results are reproducible bit for bit, and fused operations are written as such.
const FLAGS: [&str; 7] = ["-std=c++17", "-O3", "-lineinfo", "-fmad=false", "-fatbin", "-Xfatbin", "-compress-all"];

/// `(stem of the source, fatbin)` per file; empty without nvcc.
pub fn build(folder: &Path, sources: &[PathBuf], out: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let Some(nvcc) = find()? else { return Ok(Vec::new()) };
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let images: Vec<(String, PathBuf)> = sources
        .iter()
        .map(|source| {
            let stem = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let image = out.join(format!("{stem}.fatbin"));
            (stem, image)
        })
        .collect();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, |n| n.get()).min(sources.len()) {
            scope.spawn(|| {
                while let Some((source, (_, image))) = {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    sources.get(i).zip(images.get(i))
                } {
                    if let Err(message) = compile(&nvcc, folder, source, image) {
                        failures.lock().expect("no panic while locked").push(message);
                    }
                }
            });
        }
    });
    match failures.into_inner().expect("no panic while locked").first() {
        Some(message) => Err(message.clone()),
        None => Ok(images),
    }
}

/// nvcc from `NVCC`, `CUDA_HOME`, `CUDA_PATH` or `PATH`.
fn find() -> Result<Option<PathBuf>, String> {
    if let Some(given) = env::var_os("NVCC").filter(|v| !v.is_empty()) {
        let nvcc = PathBuf::from(given);
        return match runs(&nvcc) {
            true => Ok(Some(nvcc)),
            false => Err(format!("NVCC is {}, which does not run as nvcc; correct it or unset it", nvcc.display())),
        };
    }
    let homes =
        ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = homes.chain(env::split_paths(&path)).collect();
    Ok(folders.into_iter().map(|f| f.join(format!("nvcc{EXE_SUFFIX}"))).find(|nvcc| nvcc.is_file() && runs(nvcc)))
}

fn runs(nvcc: &Path) -> bool {
    Command::new(nvcc).arg("--version").output().is_ok_and(|o| o.status.success())
}

fn compile(nvcc: &Path, folder: &Path, source: &Path, image: &Path) -> Result<(), String> {
    let done = Command::new(nvcc)
        .args(FLAGS)
        .args(["-gencode", TARGETS])
        .arg("-I")
        .arg(folder)
        .arg("-o")
        .arg(image)
        .arg(source)
        .output()
        .map_err(|e| format!("{} could not be started: {e}", nvcc.display()))?;
    if done.status.success() {
        return Ok(());
    }
    let (errors, output) = (String::from_utf8_lossy(&done.stderr), String::from_utf8_lossy(&done.stdout));
    Err(format!("nvcc failed on {}\n{errors}{output}", source.display()))
}
