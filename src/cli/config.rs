//! `rampart config`: what a config may say, and what one says once every default is filled in.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::say;
use super::settings::Settings;
use crate::config::{Config, keys};
use crate::error::{Error, Result};

/// Print a config with every default filled in, or the reference of all keys.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// List every key: type, default, meaning, and the flag that sets it
    #[arg(long, conflicts_with = "config")]
    keys: bool,

    /// The list as Markdown: docs/config.md
    #[arg(long, requires = "keys")]
    markdown: bool,

    /// The experiment as TOML; without it, the embedded demo
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

/// # Errors
/// [`Error::Usage`] as of `sweep`.
pub fn run(args: &Args) -> Result<()> {
    let text = match (args.keys, args.markdown) {
        (true, true) => keys::markdown(),
        (true, false) => keys::listed(),
        (false, _) => {
            let config = Config::load(args.config.as_deref(), &args.settings.overrides()?)?;
            toml::to_string(&config).map_err(|e| Error::Failed(format!("the config as TOML: {e}")))?
        }
    };
    say(text.trim_end())
}
