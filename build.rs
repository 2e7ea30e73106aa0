//! Builds every kernel in `kernels/*.cu` twice: for the host (g++ or clang++), and for CUDA with nvcc; without nvcc the PTX in
//! `kernels/prebuilt/` takes that place.
//! Writes `kernels.rs`: the table of kernels (from their `KERNEL(...)` lines) and the Rust mirror of `args.h`.

#[path = "build/cuda.rs"]
mod cuda;
#[path = "build/generate.rs"]
mod generate;
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
    fs::write(out.join("kernels.rs"), generate::rust(&args, &kernels, &images)).map_err(|e| e.to_string())
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
