//! `rampart man`: manual pages from the same text as `--help`.

use clap::{Args as ClapArgs, Command};
use clap_mangen::Man;

use super::common::say;
use crate::error::{Error, Result};

/// The manual page of the program or of a subcommand, on stdout.
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The subcommand; without, the page of the program
    subcommand: Option<String>,
}

/// # Errors
/// [`Error::Usage`] for a subcommand that does not exist, [`Error::Io`] when nothing can be printed.
pub fn run(args: &Args, mut program: Command) -> Result<()> {
    program.build();
    let page = match &args.subcommand {
        None => program.clone(),
        Some(name) => {
            let names = || program.get_subcommands().map(Command::get_name).collect::<Vec<_>>().join(", ");
            let found = program.find_subcommand(name);
            found.ok_or_else(|| Error::usage("man", format!("expected one of {}, found {name}", names())))?.clone()
        }
    };
    let mut text = Vec::new();
    Man::new(page).render(&mut text).map_err(|e| Error::device(format!("the manual page cannot be written: {e}")))?;
    say(String::from_utf8_lossy(&text).trim_end())
}
