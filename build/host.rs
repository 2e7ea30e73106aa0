//! The host half of the build: the kernels as static libraries, one per level of processor.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::stale;

/// A processor that the kernels are compiled for.
pub struct Level {
    /// as people name it
    pub name: String,
    /// compiler flags
    flags: Vec<String>,
}

impl Level {
    /// The part of its symbols' names.
    pub fn symbol(&self) -> String {
        self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
    }
}

/// What `RAMPART_HOST_ARCH=all` compiles, the least first: the levels of the x86-64 psABI, and the last with matrix units.
const ALL: [(&str, &[&str]); 4] = [
    ("x86-64", &["-march=x86-64"]),
    ("x86-64-v3", &["-march=x86-64-v3"]),
    ("x86-64-v4", &["-march=x86-64-v4"]),
    ("x86-64-v4-amx", &["-march=x86-64-v4", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]),
];

/// System headers come first: what a level's namespace encloses must be the kernels alone.
const BEFORE: &str = "\
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
";

/// The levels, the least first, and in words what made them. No fast-math, no contraction: results are reproducible bit for bit.
pub fn build(sources: &[PathBuf], out: &Path) -> Result<(Vec<Level>, String), String> {
    println!("cargo:rerun-if-env-changed=RAMPART_HOST_ARCH");
    let arch = env::var("RAMPART_HOST_ARCH").unwrap_or_else(|_| "native".into());
    let target = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let levels: Vec<Level> = match (&*arch, &*target) {
        ("all", "x86_64") => ALL
            .map(|(name, flags)| Level { name: name.into(), flags: flags.iter().map(|f| f.to_string()).collect() })
            .into(),
        ("all", other) => {
            return Err(format!(
                "RAMPART_HOST_ARCH=all: expected a build for x86_64, found {other}; name one processor"
            ));
        }
        (_, "aarch64") => vec![Level { name: arch.clone(), flags: vec![format!("-mcpu={arch}")] }],
        _ => vec![Level { name: arch.clone(), flags: vec![format!("-march={arch}")] }],
    };
    let headers = Headers::read(sources)?;
    let mut compiler = String::new();
    for (index, level) in levels.iter().enumerate() {
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++17")
            .opt_level(3)
            .include("kernels")
            .define("HOST_LEVEL", &*level.symbol())
            .flag("-ffp-contract=off")
            .flag("-fno-math-errno")
            .flag("-fno-exceptions")
            .flag_if_supported("-Wno-psabi")
            .flag_if_supported("-Wno-unknown-pragmas")
            .flag_if_supported("-Wno-maybe-uninitialized");
        level.flags.iter().for_each(|flag| {
            build.flag(flag);
        });
        let tool = build.try_get_compiler().map_err(missing)?;
        compiler = tool.path().display().to_string();
        let how = how(&tool);
        let mut parts = Vec::new();
        for source in sources.iter().map(PathBuf::as_path) {
            let text = fs::read_to_string(source).map_err(|e| format!("{}: {e}", source.display()))?;
            parts.push(Part::new(enclosed(source, level, out)?, &(&how, headers.seen_by(&text), &text)));
        }
        if index == 0 {
            let layout = out.join("layout.cpp");
            let text = fs::read_to_string(&layout).map_err(|e| format!("{}: {e}", layout.display()))?;
            parts.push(Part::new(layout, &(&how, text)));
        }
        let objects = compiled(&mut build, &parts)?;
        let mut archive = cc::Build::new();
        archive.cpp(true).cpp_link_stdlib(None).objects(objects);
        archive.try_compile(&format!("rampart_kernels_{}", level.symbol())).map_err(missing)?;
    }
    Ok((levels, format!("{compiler} for {arch}")))
}

/// What decides how the compiler translates: its command line, its version, and for `native` the processor.
fn how(tool: &cc::Tool) -> String {
    let command = tool.to_command();
    let version = tool.to_command().arg("--version").output().map(|o| o.stdout).unwrap_or_default();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = cpu.lines().find(|line| line.starts_with("flags") || line.starts_with("Features")).unwrap_or_default();
    format!("{command:?} {} {flags}", String::from_utf8_lossy(&version))
}

/// The headers of the kernels. A source sees of `args.h` what it names, so that a new op leaves the others as they are.
struct Headers {
    args: String,
    others: String,
}

impl Headers {
    fn read(sources: &[PathBuf]) -> Result<Headers, String> {
        let folder = sources.first().and_then(|s| s.parent()).unwrap_or(Path::new("kernels"));
        let read = |path: &Path| fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()));
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .map_err(|e| format!("{}: {e}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "cuh"))
            .collect();
        paths.sort();
        let others = paths.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(Headers { args: read(&folder.join("args.h"))?, others })
    }

    fn seen_by<'a>(&'a self, source: &'a str) -> (String, &'a str) {
        (stale::visible(&self.args, stale::words(&self.others).chain(stale::words(source)).collect()), &self.others)
    }
}

/// A file for the compiler, and a hash of all that its object is made from.
struct Part {
    file: PathBuf,
    inputs: String,
}

impl Part {
    fn new(file: PathBuf, inputs: &impl Hash) -> Part {
        let mut hash = DefaultHasher::new();
        inputs.hash(&mut hash);
        Part { file, inputs: format!("{:016x}", hash.finish()) }
    }

    /// Holds the inputs of the object that lies in the output folder, and its path.
    fn stamp(&self) -> PathBuf {
        self.file.with_extension("inputs")
    }

    /// The object, if it was made from the same inputs.
    fn made(&self) -> Option<PathBuf> {
        let stamp = fs::read_to_string(self.stamp()).ok()?;
        let (inputs, object) = stamp.split_once('\n')?;
        (inputs == self.inputs && Path::new(object).is_file()).then(|| object.into())
    }
}

/// The objects of the parts; compiles those that have changed.
fn compiled(build: &mut cc::Build, parts: &[Part]) -> Result<Vec<PathBuf>, String> {
    let (made, changed): (Vec<_>, Vec<_>) = parts.iter().partition(|part| part.made().is_some());
    let mut objects: Vec<PathBuf> = made.into_iter().filter_map(Part::made).collect();
    if !changed.is_empty() {
        // The stamps go first and come back last: what a failed build leaves behind is never taken for a whole one.
        for part in &changed {
            let _ = fs::remove_file(part.stamp());
            build.file(&part.file);
        }
        let fresh = build.try_compile_intermediates().map_err(missing)?;
        for (part, object) in changed.iter().zip(&fresh) {
            let stamp = format!("{}\n{}", part.inputs, object.display());
            fs::write(part.stamp(), stamp).map_err(|e| format!("{}: {e}", part.stamp().display()))?;
        }
        objects.extend(fresh);
    }
    objects.sort();
    Ok(objects)
}

/// Writes the file that includes a source within its level's namespace.
fn enclosed(source: &Path, level: &Level, out: &Path) -> Result<PathBuf, String> {
    let folder = out.join(level.symbol());
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let file = folder.join(format!("{name}.cpp"));
    let text = format!("{BEFORE}namespace host_{} {{\n#include \"{name}\"\n}}\n", level.symbol());
    fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&file, text))
        .map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(file)
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
