//! How the emulated GPU runs: flags of every subcommand that may use it.

use clap::{Args as ClapArgs, ValueEnum};

use crate::device::DeviceChoice;
use crate::device::emulated::{self, Settings};
use crate::{Error, Result};

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(ClapArgs, Clone, Copy, Debug, Default)]
pub struct EmulatorArgs {
    /// Shuffle the order of warps and blocks of the emulated GPU; 0 keeps them in order. Without: PTX_EMULATOR_SEED
    #[arg(long, value_name = "N")]
    emulator_seed: Option<u64>,
    /// The emulated GPU's checks of memory, races, initialisation and barriers. Without: PTX_EMULATOR_CHECKS
    #[arg(long, value_enum, value_name = "on|off")]
    emulator_checks: Option<Switch>,
}

impl EmulatorArgs {
    pub fn settings(&self) -> Settings {
        let checks = self.emulator_checks.map(|checks| checks == Switch::On);
        Settings { seed: self.emulator_seed, checks, ..Settings::default() }
    }

    /// Before `device` is opened.
    ///
    /// # Errors
    /// [`Error::Usage`] for a flag that this device would ignore.
    pub fn apply(&self, device: DeviceChoice) -> Result<()> {
        if device == DeviceChoice::Emulated {
            emulated::configure(self.settings());
            return Ok(());
        }
        let flags =
            [("--emulator-seed", self.emulator_seed.is_some()), ("--emulator-checks", self.emulator_checks.is_some())];
        match flags.into_iter().find(|(_, given)| *given) {
            Some((flag, _)) => Err(Error::usage(flag, format!("expected --device emulated, found {device}"))),
            None => Ok(()),
        }
    }
}
