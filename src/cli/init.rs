//! `rampart init`: a config for a network and images of one's own.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::attack::{Given, taken};
use super::common::say;
use super::settings::Settings;
use crate::config::{Config, Wrong, starter};
use crate::error::{Error, Result};
use crate::files::write_whole;
use crate::run::progress::note;
use crate::run::study;

/// Write a commented config for a network and images of one's own, with everything that can be found out about them.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Flags that `attack` takes are taken too, and written down. Then: rampart sweep --config rampart.toml"
)]
pub struct Args {
    #[command(flatten)]
    given: Given,

    /// The file; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "rampart.toml")]
    out: PathBuf,

    #[command(flatten)]
    settings: Settings,
}

/// Images that are read to see whether the config can be run.
const TRIED: usize = 8;

/// # Errors
/// [`Error::Usage`] for a file that is there already; else whatever keeps such a config from being run.
pub fn run(args: &Args) -> Result<()> {
    let to_stdout = args.out.as_os_str() == "-";
    if !to_stdout && args.out.exists() {
        let problem = format!("{} is there already: choose another file, or remove it", args.out.display());
        return Err(Error::usage("--out", problem));
    }
    let (overrides, why) = args.given.overrides(&args.settings)?;
    let config = Config::load(None, &overrides)?;
    why.iter().for_each(note);
    let mut tried = config.clone();
    tried.limit = tried.limit.min(TRIED);
    let dataset = study::images(&mut tried).map_err(|e| Wrong::new(None, &overrides).explain(e))?;
    let found = taken(&tried, &dataset);
    tried.limit = config.limit;
    let mut head = vec![format!("Written by `rampart init` {}.", env!("CARGO_PKG_VERSION"))];
    let shown = if to_stdout { "FILE".into() } else { args.out.display().to_string() };
    head.push(format!("rampart sweep --config {shown}; all keys: rampart config --keys"));
    head.extend(why.into_iter().chain(found.iter().take(tried.models.len()).cloned()));
    let text = starter::commented(&tried, &overrides, &head)?;
    found.iter().for_each(note);
    if to_stdout {
        return say(text.trim_end());
    }
    write_whole(&args.out, text.as_bytes())?;
    say(&format!("{}: rampart sweep --config {0}", args.out.display()))
}
