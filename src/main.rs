use std::error::Error as _;
use std::process::ExitCode;

use clap::Parser;
use rampart::cli::Cli;

fn main() -> ExitCode {
    // A reader that stops early (`rampart info | head`) ends the program quietly, as it does other tools.
    #[cfg(unix)]
    // SAFETY: nothing else runs yet.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("rampart: {e}");
            let mut cause = e.source();
            while let Some(c) = cause {
                eprintln!("  caused by: {c}");
                cause = c.source();
            }
            ExitCode::from(e.exit_code())
        }
    }
}
