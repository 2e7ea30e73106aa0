//! Builds every kernel in `kernels/*.cu` twice (and those in `*.cpp` for the host alone): for the host (g++ or clang++; for several levels of processor if asked), and for CUDA with nvcc; without nvcc the PTX in
//! `kernels/prebuilt/` takes that place.
//! Writes `kernels.rs`: the table of kernels (from their `KERNEL(...)` lines) and the Rust mirror of `args.h`.

#[path = "build/cuda.rs"]
mod cuda;
#[path = "build/generate.rs"]
mod generate;
#[path = "build/host.rs"]
mod host;
#[path = "build/ptx.rs"]
mod ptx;
#[path = "build/stale.rs"]
mod stale;

use std::path::{Path, PathBuf};
use std::{env, fs, process};

fn main() {
    if let Err(message) = run() {
        eprintln!("error: {message}");
        process::exit(1);
    }
}

fn run() -> Result<(), String> {
    let out = PathBuf::from(env::var("OUT_DIR").map_err(|e| e.to_string())?);
    let folder = Path::new("kernels");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(|e| format!("kernels: {e}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    files.sort();
    let ending = |wanted: &str| -> Vec<PathBuf> {
        files.iter().filter(|path| path.extension().is_some_and(|e| e == wanted)).cloned().collect()
    };
    let sources = ending("cu");
    let host_sources = [&*sources, &*ending("cpp")].concat();
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=build");

    let args = generate::structs(&fs::read_to_string(folder.join("args.h")).map_err(|e| format!("args.h: {e}"))?)?;
    let mut kernels = Vec::new();
    for source in &host_sources {
        let text = fs::read_to_string(source).map_err(|e| format!("{}: {e}", source.display()))?;
        kernels.extend(generate::kernels(source, &text)?);
    }
    fs::write(out.join("layout.cpp"), generate::layout(&args)).map_err(|e| e.to_string())?;

    let (levels, compiler) = host::build(&host_sources, &out)?;
    let mut images = cuda::build(folder, &sources, &out)?;
    for image in images.iter_mut().filter(|image| image.fatbin.is_none()) {
        image.stale = outdated(folder, &image.file, &kernels, &args)?;
        if let Some(what) = &image.stale {
            println!(
                "cargo:warning=the PTX of kernels/{}.cu is older than {what}; run tools/cuda/prebuilt.py",
                image.file
            );
        }
    }
    for source in sources.iter().filter(|source| images.iter().all(|image| image.file != cuda::stem(source))) {
        println!("cargo:warning={} is missing; run tools/cuda/prebuilt.py", cuda::prebuilt(source).display());
    }
    println!("cargo:rustc-env=RAMPART_HOST_COMPILER={compiler}");
    fs::write(out.join("kernels.rs"), generate::rust(&args, &kernels, &images, &levels)).map_err(|e| e.to_string())
}

/// What shows that the prebuilt PTX of a source belongs to another text: files that have changed, or what its kernels look like.
fn outdated(
    folder: &Path,
    stem: &str,
    kernels: &[generate::Kernel],
    structs: &[generate::Struct],
) -> Result<Option<String>, String> {
    let record = folder.join("prebuilt/SOURCES");
    let text = fs::read_to_string(&record).map_err(|e| format!("{}: {e}", record.display()))?;
    if let Some(files) = stale::changed(folder, stem, &text).map_err(|e| format!("{}: {e}", record.display()))? {
        return Ok(Some(files));
    }
    let own: Vec<_> = kernels.iter().filter(|k| k.file == stem).collect();
    let file = cuda::prebuilt(&folder.join(format!("{stem}.cu")));
    let ptx = ptx::read(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(ptx::mismatch(&ptx, &own, structs).map(|what| format!("its source: {what}")))
}
