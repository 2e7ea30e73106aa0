//! What each stage does, in order. Tests are found by folder: none is named here.

use std::fs;

use crate::run::{Result, Run};

pub struct Stage {
    pub name: &'static str,
    pub about: &'static str,
    pub run: fn(&mut Run) -> Result,
}

/// Stages of one build profile and one processor stand together, so that each finds what the last one built.
pub const STAGES: [Stage; 8] = [
    Stage { name: "lint", about: "format, clippy, docs; ruff for tools/", run: lint },
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
    Stage { name: "debug", about: "the ops with poisoned memory, canaries and overflow checks", run: debug },
    Stage {
        name: "portable",
        about: "the same for a processor without AVX-512 and AMX, and for one without AVX",
        run: portable,
    },
    Stage {
        name: "sanitized",
        about: "host kernels under AddressSanitizer and UndefinedBehaviorSanitizer: the ops, the dumps, hostile inputs",
        run: sanitized,
    },
    Stage {
        name: "cuda",
        about: "nvcc builds every kernel; prebuilt PTX and resources.csv compared with it",
        run: cuda,
    },
];

/// The virtual environment of the checks that are Python's.
const PYTHON: &str = "tools/checks/install_python.sh target/checks-venv";

/// The program as `test` built it. `cargo build` would make it again, dependencies and all: theirs have other features without
/// the tests'. That build is `cuda`'s.
const PROGRAM: &str = "test --release --workspace --locked --no-run";

fn lint(run: &mut Run) -> Result {
    run.step(&mut run.cargo("fmt --all --check"))?;
    run.step(&mut run.cargo("clippy --release --workspace --all-targets --locked -- -D warnings"))?;
    run.step(run.cargo("doc --release --workspace --no-deps --locked").env("RUSTDOCFLAGS", "-D warnings"))?;
    let python = run.installed(PYTHON)?;
    run.step(&mut run.command(&python, "-m ruff check"))?;
    run.step(&mut run.command(&python, "-m ruff format --check"))
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

/// The unit tests of the engine and the tests of its ops.
const OPS: &str = "test --locked --package rampart --lib --test ops";

fn debug(run: &mut Run) -> Result {
    run.step(&mut run.cargo(OPS))
}

fn portable(run: &mut Run) -> Result {
    if !cfg!(target_arch = "x86_64") {
        println!("nothing to do: these are x86 processors");
        return Ok(());
    }
    for arch in ["x86-64-v3", "x86-64"] {
        run.step(run.cargo("test --locked --package rampart --test ops").env("RAMPART_HOST_ARCH", arch))?;
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
    let args = format!("test --release --locked --package rampart --test ops --test hostile --target {TARGET}");
    run.step(
        run.cargo(&args)
            .env("CXX", "g++")
            .env("CXXFLAGS_x86_64_unknown_linux_gnu", flags)
            .env("RUSTFLAGS", "-Clink-arg=-fsanitize=address,undefined")
            // What lives as long as the process is no leak.
            .env("ASAN_OPTIONS", "detect_leaks=0"),
    )
}

fn cuda(run: &mut Run) -> Result {
    let nvcc = run.installed("tools/cuda/install_nvcc.sh target/nvcc-venv")?;
    run.step(run.command("python3", "tools/cuda/prebuilt.py --check").env("NVCC", &nvcc))?;
    run.step(run.command("python3", "tools/cuda/check_cubins.py --prebuilt --check").env("NVCC", &nvcc))?;
    run.step(run.cargo("build --release --locked").env("NVCC", &nvcc))?;
    let info = run.output(&mut run.rampart("info"))?;
    let line = info.lines().find(|line| line.starts_with("CUDA images: ")).unwrap_or("no line `CUDA images: `");
    println!("{line}");
    if line.strip_prefix("CUDA images: ").is_some_and(|count| count.starts_with(|c| matches!(c, '1'..='9'))) {
        return Ok(());
    }
    Err(format!("`rampart info` says `{line}`: the build with nvcc embeds no machine code"))
}
