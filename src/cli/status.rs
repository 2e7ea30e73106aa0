//! `rampart status`: how far a run is, and who works on it.

use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;

use super::common::say;
use crate::error::{Error, Result};
use crate::report::words::count;
use crate::run::certify::store::{Drawer, alone};
use crate::run::ledger::Ledger;
use crate::run::lock;
use crate::run::parts::status::{Part, State, Status};
use crate::run::progress::duration;
use crate::run::rundir;

/// Show which parts of a run are done, running, stopped or not begun, and how long the rest will take.
///
/// From the files in the folder alone: on any machine that sees it, while others work on it.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The run directory
    #[arg(value_name = "RUN")]
    pub run: PathBuf,
}

/// # Errors
/// [`Error::Usage`] for a folder that is no run; [`Error::File`] for damaged files.
pub fn run(args: &Args) -> Result<()> {
    let dir = &args.run;
    if !dir.join("config.toml").is_file() {
        let problem = format!("{}: expected a run directory with config.toml", dir.display());
        return Err(Error::usage("RUN", problem));
    }
    if let Some(drawers) = alone(dir)? {
        return say(&told_of_draws(dir, &drawers));
    }
    match Status::read(dir)? {
        Some(status) => say(&told(&status)),
        None => {
            let (done, all) = if dir.join("records.jsonl").is_file() { Ledger::read(dir)?.progress() } else { (0, 0) };
            let owner =
                lock::holder(dir, ".lock").map_or("nobody works on it".into(), |owner| format!("{owner} works on it"));
            say(&format!("{}: not split into parts: {done} of {all} records; {owner}", dir.display()))
        }
    }
}

/// Of certificates alone: how many draws are enough is known once they are made.
fn told_of_draws(dir: &Path, drawers: &[Drawer]) -> String {
    let line = |drawer: &Drawer| {
        let (who, lock) = match drawer.shard {
            Some(shard) => (format!("part {shard}"), rundir::part(shard)),
            None => ("one process".into(), ".lock".into()),
        };
        let owner = lock::holder(dir, &lock).map_or(String::new(), |owner| format!("  {owner} works on it"));
        format!("{who:<14} {} draws of {}{owner}", drawer.draws, count(drawer.images, "image"))
    };
    let joined = dir.join("certify/certified.jsonl").is_file();
    let next = match (joined, drawers.iter().any(|drawer| drawer.shard.is_some())) {
        (true, _) => "certify/ is written",
        (false, true) => "next, once all parts have ended: rampart merge",
        (false, false) => "certify/ is not written yet: rampart certify --resume goes on",
    };
    let mut lines = vec![format!("{}: certificates alone; {next}", dir.display())];
    lines.extend(drawers.iter().map(line));
    lines.join("\n")
}

fn told(status: &Status) -> String {
    let mut lines: Vec<String> = status.parts.iter().map(line).collect();
    let count = |is: fn(&State) -> bool| status.parts.iter().filter(|part| is(&part.state)).count();
    let counts = [
        (count(|s| *s == State::Done), "done"),
        (count(|s| matches!(s, State::Running(_))), "running"),
        (count(|s| *s == State::Stopped), "stopped"),
        (count(|s| *s == State::Waiting), "not begun"),
    ];
    let counts: Vec<String> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let left = match (status.left().count(), status.seconds_left()) {
        (0, _) => "; next: rampart merge".to_owned(),
        (_, Some(seconds)) => format!("; about {} left at the speed so far", duration(seconds)),
        (_, None) => String::new(),
    };
    lines.push(format!("{} parts: {}{left}", status.parts.len(), counts.join(", ")));
    lines.join("\n")
}

/// `part 2/6  running   40 of 96 records  1.3 records/s  process 12 on node7`
fn line(part: &Part) -> String {
    let word = match &part.state {
        State::Done => "done",
        State::Running(_) => "running",
        State::Stopped => "stopped",
        State::Waiting => "not begun",
    };
    let of = part.of.map_or(String::new(), |of| format!(" of {of}"));
    let mut text = format!("part {:<9} {word:<9}  {}{of} records", part.shard.to_string(), part.records);
    if let Some(rate) = part.rate {
        text += &format!("  {rate:.1} records/s");
    }
    match (&part.state, part.silent) {
        (State::Running(owner), _) => text += &format!("  {owner}"),
        (State::Stopped, Some(silent)) => text += &format!("  last record {} ago", duration(silent.as_secs_f64())),
        _ => {}
    }
    text
}
