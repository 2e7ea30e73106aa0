//! `ptx-emu run -- PROGRAM` runs a CUDA program on the emulator, `ptx-emu check FILE.ptx` says what it knows of a file.

mod check;
mod run;

use std::process::ExitCode;

const HELP: &str = "\
ptx-emu: runs CUDA programs without a GPU, and says what is wrong with their kernels

  ptx-emu run [OPTIONS] [--] PROGRAM [ARGUMENTS]   with the emulator as its CUDA driver
  ptx-emu check [--json] FILE.ptx...               whether every kernel of a file compiles
  ptx-emu run --help, ptx-emu check --help         their options
  ptx-emu --version
";

const RUN: &str = "\
ptx-emu run [OPTIONS] [--] PROGRAM [ARGUMENTS]: starts a program whose CUDA driver is the emulator

  --model NAME         which GPU: a100 (unless said), h100, rtx5090
  --seed N             another order of warps and blocks, by a number up to 2^64 - 1; 0 (unless said) keeps them in order
  --threads N          threads of the host, up to 1024; 0 (unless said) takes all cores
  --no-checks          nothing is checked
  --counters           instructions, sectors and bank conflicts are counted
  --lints              what is legal but seldom meant is reported too
  --lazy               a kernel is compiled when it is asked for, not when its module is loaded
  --findings FILE      what was found, a JSON object a line

Each but the last sets a variable of the program, PTX_EMULATOR_MODEL, _SEED, _THREADS, _CHECKS, _COUNTERS, _LINTS, _LAZY, and goes
before one that is set already. PTX_EMULATOR_DEVICES is how many GPUs there are, 1 (unless set) to 16; PTX_EMULATOR_LIBRARY the
library of the emulator, where it is not beside ptx-emu.

exit code: that of the program; 1 where it succeeded and something was found; 2 for wrong usage
";

const CHECK: &str = "\
ptx-emu check [--json] FILE.ptx...: compiles every kernel and every function that none calls, and says what it takes or what is not supported, with its line

  --json               an object a line, for each kernel

exit code: 0 where all compile, 1 where one does not, 2 for wrong usage
";

/// What a command says at its end.
pub enum Failure {
    /// Wrong arguments, and what to do.
    Usage(String),
    Failed(String),
}

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let command = arguments.first().map(|a| a.to_string_lossy().into_owned());
    // The program of `run` may have a --help of its own.
    let asks = |all: &[std::ffi::OsString]| all.first().is_some_and(|a| a == "-h" || a == "--help");
    let done = match command.as_deref() {
        Some("run") if asks(&arguments[1..]) => {
            print!("{RUN}");
            Ok(ExitCode::SUCCESS)
        }
        Some("check") if asks(&arguments[1..]) => {
            print!("{CHECK}");
            Ok(ExitCode::SUCCESS)
        }
        Some("run") => run::run(&arguments[1..]),
        Some("check") => check::check(&arguments[1..]),
        Some("help" | "-h" | "--help") => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        Some("version" | "-V" | "--version") => {
            println!("ptx-emu {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
        Some(other) => Err(Failure::Usage(format!("no command {other}; there are run and check"))),
        None => Err(Failure::Usage("no command; there are run and check".into())),
    };
    done.unwrap_or_else(|failure| {
        let (text, code) = match failure {
            Failure::Usage(text) => match command.as_deref() {
                Some(command @ ("run" | "check")) => (format!("{text} (ptx-emu {command} --help)"), 2),
                _ => (format!("{text} (ptx-emu --help)"), 2),
            },
            Failure::Failed(text) => (text, 1),
        };
        eprintln!("ptx-emu: {text}");
        ExitCode::from(code)
    })
}
