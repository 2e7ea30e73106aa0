//! The CUDA half of the build: per kernel file its PTX, and with nvcc machine code too.

use std::collections::hash_map::DefaultHasher;
use std::env::{self, consts::EXE_SUFFIX};
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::ptx;

/// The PTX is the one that tests run: for the oldest generation with the instructions in kernels/ptx.cuh.
const PTX: &str = "-arch=compute_80";

/// Machine code for each generation, made from that PTX; the driver compiles the PTX for later ones.
const TARGETS: &str = "arch=compute_80,code=[sm_80,sm_86,sm_89,sm_90,compute_80]";

/// No contraction: results are reproducible bit for bit, and fused operations are written as such.
const FLAGS: [&str; 4] = ["-std=c++17", "-O3", "-lineinfo", "-fmad=false"];

/// What the binary carries of one kernel file.
pub struct Image {
    /// stem of the source file
    pub file: String,
    /// compressed PTX
    pub ptx: PathBuf,
    /// only with nvcc
    pub fatbin: Option<PathBuf>,
    /// what the PTX is older than; of nvcc's own, nothing
    pub stale: Option<String>,
}

/// One image per source, without those whose PTX neither nvcc nor `kernels/prebuilt/` provides.
pub fn build(folder: &Path, sources: &[PathBuf], out: &Path) -> Result<Vec<Image>, String> {
    for variable in ["NVCC", "CUDA_HOME", "CUDA_PATH", "PATH"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    match find()? {
        Some(nvcc) => fresh(&nvcc, folder, sources, out),
        None => from_prebuilt(sources),
    }
}

/// Where the repository keeps the PTX of a source.
pub fn prebuilt(source: &Path) -> PathBuf {
    source.with_file_name("prebuilt").join(format!("{}.ptx.gz", stem(source)))
}

pub fn stem(source: &Path) -> String {
    source.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn from_prebuilt(sources: &[PathBuf]) -> Result<Vec<Image>, String> {
    let mut images = Vec::new();
    for source in sources {
        let ptx = prebuilt(source);
        if ptx.is_file() {
            let ptx = fs::canonicalize(&ptx).map_err(|e| format!("{}: {e}", ptx.display()))?;
            images.push(Image { file: stem(source), ptx, fatbin: None, stale: None });
        }
    }
    Ok(images)
}

fn fresh(nvcc: &Path, folder: &Path, sources: &[PathBuf], out: &Path) -> Result<Vec<Image>, String> {
    let common = common_inputs(nvcc, folder)?;
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, |n| n.get()).min(sources.len()) {
            scope.spawn(|| {
                while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let image = compile(nvcc, folder, source, out, common);
                    done.lock().expect("no panic while locked").push(image);
                }
            });
        }
    });
    let mut images = done.into_inner().expect("no panic while locked").into_iter().collect::<Result<Vec<_>, _>>()?;
    images.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(images)
}

/// A hash of what every source depends on: the compiler, its flags, the headers.
fn common_inputs(nvcc: &Path, folder: &Path) -> Result<u64, String> {
    let mut hash = DefaultHasher::new();
    (nvcc, version(nvcc), PTX, TARGETS, FLAGS).hash(&mut hash);
    let mut headers: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(|e| format!("{}: {e}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "cuh" || e == "h"))
        .collect();
    headers.sort();
    for header in headers {
        (&header, fs::read(&header).map_err(|e| format!("{}: {e}", header.display()))?).hash(&mut hash);
    }
    Ok(hash.finish())
}

/// Compiles one source, unless what lies in the output folder was made from the same inputs.
fn compile(nvcc: &Path, folder: &Path, source: &Path, out: &Path, common: u64) -> Result<Image, String> {
    let file = stem(source);
    let to = |extension: &str| out.join(format!("{file}.{extension}"));
    let (text, ptx, fatbin, stamp) = (to("ptx"), to("ptx.gz"), to("fatbin"), to("inputs"));
    // What ptxas says of each kernel, for tools/cuda/check_cubins.py.
    let said = to("ptxas");
    let failed = |e: std::io::Error| format!("{}: {e}", source.display());

    let mut hash = DefaultHasher::new();
    (common, fs::read(source).map_err(failed)?).hash(&mut hash);
    let inputs = format!("{:016x}", hash.finish());
    let made_from = fs::read_to_string(&stamp).unwrap_or_default();
    if made_from != inputs || ![&ptx, &fatbin, &said].iter().all(|made| made.is_file()) {
        // The stamp goes first and comes back last: what a failed build leaves behind is never taken for a whole one.
        let _ = fs::remove_file(&stamp);
        run(nvcc, source, &[PTX, "-ptx", "-I", &folder.to_string_lossy()], source, &text)?;
        let assembled = ["-fatbin", "-Xfatbin", "-compress-all", "-Xptxas", "-v", "-gencode", TARGETS];
        fs::write(&said, run(nvcc, source, &assembled, &text, &fatbin)?).map_err(failed)?;
        let portable = ptx::portable(&fs::read_to_string(&text).map_err(failed)?);
        fs::write(&ptx, ptx::compress(&portable)?).map_err(failed)?;
        fs::remove_file(&text).map_err(failed)?;
        fs::write(&stamp, inputs).map_err(failed)?;
    }
    Ok(Image { file, ptx, fatbin: Some(fatbin), stale: None })
}

/// What nvcc printed.
fn run(nvcc: &Path, source: &Path, how: &[&str], from: &Path, to: &Path) -> Result<String, String> {
    let done = Command::new(nvcc)
        .args(FLAGS)
        .args(how)
        .arg("-o")
        .arg(to)
        .arg(from)
        .output()
        .map_err(|e| format!("{} could not be started: {e}", nvcc.display()))?;
    let (errors, output) = (String::from_utf8_lossy(&done.stderr), String::from_utf8_lossy(&done.stdout));
    if done.status.success() {
        return Ok(format!("{errors}{output}"));
    }
    Err(format!("nvcc failed on {}\n{errors}{output}", source.display()))
}

/// nvcc from `NVCC`, `CUDA_HOME`, `CUDA_PATH` or `PATH`.
fn find() -> Result<Option<PathBuf>, String> {
    if let Some(given) = env::var_os("NVCC").filter(|v| !v.is_empty()) {
        let nvcc = PathBuf::from(given);
        return match version(&nvcc) {
            Some(_) => Ok(Some(nvcc)),
            None => Err(format!("NVCC is {}, which does not run as nvcc; correct it or unset it", nvcc.display())),
        };
    }
    let homes =
        ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os).map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = homes.chain(env::split_paths(&path)).collect();
    let candidates = folders.into_iter().map(|f| f.join(format!("nvcc{EXE_SUFFIX}")));
    Ok(candidates.into_iter().find(|nvcc| nvcc.is_file() && version(nvcc).is_some()))
}

/// What nvcc says about itself, if it runs.
fn version(nvcc: &Path) -> Option<Vec<u8>> {
    let output = Command::new(nvcc).arg("--version").output().ok()?;
    output.status.success().then_some(output.stdout)
}
