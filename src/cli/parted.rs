//! One of several processes on a run, and when it leaves off: flags of every subcommand that may take days.

use clap::Args as ClapArgs;

use crate::device::{DeviceChoice, level};
use crate::error::{Error, Result};
use crate::run::interrupt::{self, Limits};
use crate::run::progress::note;
use crate::run::rundir::IfRunning;
use crate::run::shard::{Asked, Shard};

#[derive(ClapArgs, Clone, Debug, Default)]
#[command(next_help_heading = "Clusters")]
pub struct Parted {
    /// Part I of N of the work, for one of several processes that share --out; `rampart merge DIR` joins what they did. auto asks Slurm
    /// (array or tasks), a Kubernetes Indexed Job or RANK and WORLD_SIZE; auto/N says of how many where they do not
    #[arg(long, value_name = "I/N|auto", requires = "out")]
    pub shard: Option<Asked>,

    /// What to do where another process works on that part [default: refuse]
    #[arg(long, value_name = "WHAT", requires = "shard")]
    pub if_running: Option<IfRunning>,

    /// Leave off before a batch that would end later than this after the start; what is done is recorded
    #[arg(long, value_name = "SECONDS")]
    pub until: Option<f64>,

    /// The exit code when SIGTERM, SIGUSR1 or --until ended the run between two batches
    #[arg(long, value_name = "CODE", default_value_t = 0)]
    pub on_preempt: u8,

    /// The level of host kernels, of those that `rampart info` lists; a run that goes on keeps that it was begun with
    #[arg(long, value_name = "LEVEL")]
    pub host_level: Option<String>,
}

impl Parted {
    /// Puts the limits and the level into force; which part it is.
    ///
    /// # Errors
    /// [`Error::Usage`] for a part that nothing says, for a time that is none, for a level that this program has not and for one beside a GPU.
    pub fn begin(&self, device: DeviceChoice) -> Result<Option<Shard>> {
        if let Some(until) = self.until.filter(|until| !(until.is_finite() && *until > 0.0)) {
            return Err(Error::usage("--until", format!("expected seconds above 0, found {until}")));
        }
        if let Some(name) = self.host_level.as_deref().filter(|name| !level::names().contains(name)) {
            let known = level::names().join(", ");
            return Err(Error::usage("--host-level", format!("expected one of {known}, found `{name}`")));
        }
        level::say(self.host_level.as_deref());
        // What `auto` finds is known when it is opened.
        if device != DeviceChoice::Auto {
            level::is_heard_by(&device.to_string())?;
        }
        interrupt::heed(Limits { until: self.until, on_preempt: self.on_preempt });
        let Some(asked) = self.shard else { return Ok(None) };
        let (shard, why) = asked.settled(|name| std::env::var(name).ok())?;
        why.iter().for_each(note);
        Ok(Some(shard))
    }
}
