use std::error::Error as _;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use rampart::cli::Cli;
use rampart::shown;

fn main() -> ExitCode {
    // A reader that stops early (`rampart info | head`) ends the program quietly, as it does other tools.
    #[cfg(unix)]
    // SAFETY: nothing else runs yet.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version, or what is wrong with the flags; help that nobody gets is a failure.
        Err(e) => {
            return ExitCode::from(if e.print().is_err() { 1.max(e.exit_code() as u8) } else { e.exit_code() as u8 });
        }
    };
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let mut text = format!("rampart: {e}\n");
            let mut cause = e.source();
            while let Some(c) = cause {
                text += &format!("  caused by: {c}\n");
                cause = c.source();
            }
            // Where nothing can be said, on a full disk above all, the exit code still says it.
            let _ = io::stderr().write_all(shown::plain(&shown::brief(text)).as_bytes());
            ExitCode::from(e.exit_code())
        }
    }
}
