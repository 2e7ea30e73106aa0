//! `rampart completions`: what a shell needs to complete the command line.

use clap::{Args as ClapArgs, Command};
use clap_complete::Shell;

use super::common::say;
use crate::Result;

/// Completions for a shell, on stdout.
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The shell to write for
    #[arg(value_enum)]
    shell: Shell,
}

/// # Errors
/// [`crate::Error::Io`] when nothing can be printed.
pub fn run(args: &Args, mut command: Command) -> Result<()> {
    let name = command.get_name().to_owned();
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut text);
    say(String::from_utf8_lossy(&text).trim_end())
}
