//! Builds every kernel in `kernels/*.cu` twice: for the host (g++ or clang++), and for CUDA with nvcc; without nvcc the PTX in
//! `kernels/prebuilt/` takes that place.
//! Writes `kernels.rs`: the table of kernels (from their `KERNEL(...)` lines) and the Rust mirror of `args.h`.

#[path = "build/cuda.rs"]
mod cuda;
#[path = "build/generate.rs"]
mod generate;
#[path = "build/ptx.rs"]
mod ptx;

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
    let mut sources: Vec<PathBuf> = fs::read_dir(folder)
        .map_err(|e| format!("kernels: {e}"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "cu"))
        .collect();
    sources.sort();
    println!("cargo:rerun-if-changed=kernels");
    println!("cargo:rerun-if-changed=build");

    let args = generate::structs(&fs::read_to_string(folder.join("args.h")).map_err(|e| format!("args.h: {e}"))?)?;
    let mut kernels = Vec::new();
    for source in &sources {
        let text = fs::read_to_string(source).map_err(|e| format!("{}: {e}", source.display()))?;
        kernels.extend(generate::kernels(source, &text)?);
    }
    fs::write(out.join("layout.cpp"), generate::layout(&args)).map_err(|e| e.to_string())?;

    let compiler = host(&sources, &out)?;
    let images = cuda::build(folder, &sources, &out)?;
    fs::write(out.join("kernels.rs"), generate::rust(&args, &kernels, &images)).map_err(|e| e.to_string())?;

    let with_nvcc = images.iter().any(|image| image.fatbin.is_some());
    let cuda = if with_nvcc { "CUDA with nvcc" } else { "CUDA from kernels/prebuilt (no nvcc found)" };
    println!("cargo:warning=kernels: host with {compiler}; {cuda}");
    for source in &sources {
        if let Some(problem) = outdated(source, &kernels, &args) {
            let file = cuda::prebuilt(source);
            println!("cargo:warning={} {problem}; run tools/cuda/prebuilt.py", file.display());
        }
    }
    Ok(())
}

/// What shows at a glance that the prebuilt PTX of a source belongs to an older one. CI compares the whole text.
fn outdated(source: &Path, kernels: &[generate::Kernel], structs: &[generate::Struct]) -> Option<String> {
    let file = cuda::prebuilt(source);
    if !file.is_file() {
        return Some("is missing".into());
    }
    let own: Vec<_> = kernels.iter().filter(|k| k.file == cuda::stem(source)).collect();
    match ptx::read(&file) {
        Ok(text) => ptx::mismatch(&text, &own, structs).map(|what| format!("is out of date: {what}")),
        Err(problem) => Some(format!("cannot be read: {problem}")),
    }
}

/// The host kernels as a static library. No fast-math, no contraction: results are reproducible bit for bit.
fn host(sources: &[PathBuf], out: &Path) -> Result<String, String> {
    println!("cargo:rerun-if-env-changed=RAMPART_HOST_ARCH");
    let arch = env::var("RAMPART_HOST_ARCH").unwrap_or_else(|_| "native".into());
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .cpp_link_stdlib(None)
        .std("c++17")
        .opt_level(3)
        .include("kernels")
        .flag("-x")
        .flag("c++")
        .flag(if cfg!(target_arch = "aarch64") { format!("-mcpu={arch}") } else { format!("-march={arch}") })
        .flag("-ffp-contract=off")
        .flag("-fno-math-errno")
        .flag("-fno-exceptions")
        .flag_if_supported("-Wno-psabi")
        .flag_if_supported("-Wno-unknown-pragmas")
        .flag_if_supported("-Wno-maybe-uninitialized")
        .files(sources)
        .file("kernels/host.cpp")
        .file(out.join("layout.cpp"));
    let name = build.try_get_compiler().map_err(missing)?.path().display().to_string();
    build.try_compile("rampart_kernels").map_err(missing)?;
    Ok(format!("{name} for {arch}"))
}

fn missing(error: cc::Error) -> String {
    let text = error.to_string();
    if text.contains("failed to find tool") || text.contains("ToolNotFound") {
        format!(
            "no C++ compiler found: install g++ (Debian and Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++) or clang++, or set CXX\n  {text}"
        )
    } else {
        format!("the C++ compiler failed on the host kernels\n  {text}")
    }
}
