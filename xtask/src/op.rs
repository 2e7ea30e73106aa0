//! `cargo xtask op NAME [DUMP...]`: all that an op needs after a change of its kernel or its cases, in the order that finds
//! mistakes soonest: the host first, then what only PyTorch and nvcc can make.

use std::path::Path;
use std::process::Command;

use crate::run::{Result, Run};

pub const USAGE: &str = "usage: cargo xtask op NAME [DUMP...]\n
Of kernels/NAME.cu: the tests of tests/ops/NAME.rs on the host, the PyTorch dumps tests/fixtures/DUMP (NAME without any) and their
replay on the host, PTX, registers and spills by nvcc, and the replay on the emulated GPU, float32 and bfloat16.
PYTHON names a python with PyTorch; without, one is installed under target/. Missing tools are installed there as well.";

/// # Errors
/// What the first step that failed says.
pub fn op(run: &mut Run, args: &[String]) -> Result {
    let [name, dumps @ ..] = args else { return Err(USAGE.into()) };
    let kernel = format!("kernels/{name}.cu");
    let dumps = if dumps.is_empty() { std::slice::from_ref(name) } else { dumps };
    for file in [&kernel, &format!("src/ops/{name}.rs"), &format!("tests/ops/{name}.rs")] {
        if !run.root.join(file).is_file() {
            return Err(format!("there is no {file}: docs/architecture.md says what an op consists of"));
        }
    }

    let tested = run.tests_passed();
    // Also builds the program that replays.
    run.step(cargo(run, "test --release --locked --test ops").arg(format!("{name}::")))?;
    if run.tests_passed() == tested {
        return Err(format!("tests/ops/{name}.rs has no test that ran: does tests/ops/main.rs list it?"));
    }

    let python = run.installed("tools/reference/install_python.sh target/reference-venv")?;
    for dump in dumps {
        let only = format!("tools/reference/dump_reference.py tests/fixtures --only {dump}/*");
        run.step(&mut run.command(&python, &only))?;
    }
    replay(run, dumps, "host")?;

    let nvcc = run.installed("tools/cuda/install_nvcc.sh target/nvcc-venv")?;
    run.step(run.command("python3", "tools/cuda/prebuilt.py").env("NVCC", &nvcc))?;
    let table = "tools/cuda/check_cubins.py --prebuilt --write";
    run.step(run.command("python3", table).arg(Path::new(&kernel)).env("NVCC", &nvcc))?;
    // The new PTX goes into the program.
    run.step(&mut cargo(run, "test --release --locked --test ops --no-run"))?;
    replay(run, dumps, "emulated --emulator-checks on")
}

/// A kernel goes into the engine, which is then built again: of that, only what changed.
fn cargo(run: &Run, args: &str) -> Command {
    let mut cargo = run.cargo(args);
    cargo.env("CARGO_INCREMENTAL", "1");
    cargo
}

fn replay(run: &mut Run, dumps: &[String], device: &str) -> Result {
    for precision in ["f32", "bf16"] {
        let folders = dumps.iter().map(|dump| format!("tests/fixtures/{dump}"));
        let args = format!("parity --precision {precision} --device {device}");
        run.step(run.rampart(&args).args(folders))?;
    }
    Ok(())
}
