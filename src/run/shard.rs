//! A part of a run's work, for one of several processes: every N-th unit of it.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};

/// Part `number` of `of`, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    pub number: u32,
    pub of: u32,
}

impl Shard {
    /// Whether a unit of work, counted from 0, is this part's.
    pub fn takes(self, unit: usize) -> bool {
        unit % self.of as usize == self.number as usize - 1
    }

    /// As it stands in names of files: `2-of-5`.
    pub fn named(self) -> String {
        format!("{}-of-{}", self.number, self.of)
    }
}

/// The file of a part's records in the run directory, or of all there are.
pub fn records(shard: Option<Shard>) -> String {
    shard.map_or("records.jsonl".into(), |shard| format!("records-{}.jsonl", shard.named()))
}

/// The files of records that parts left in a run directory, by number.
///
/// # Errors
/// [`Error::Io`] when it cannot be listed.
pub fn files(dir: &Path) -> Result<Vec<(Shard, PathBuf)>> {
    files_of(dir, "records")
}

/// Files `WHAT-I-of-N.jsonl` in a run directory, by number.
///
/// # Errors
/// As [`files`].
pub fn files_of(dir: &Path, what: &str) -> Result<Vec<(Shard, PathBuf)>> {
    let io = |e| Error::io(dir, "list the run directory", e);
    let mut found = Vec::new();
    if dir.is_dir() {
        for entry in fs::read_dir(dir).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name.strip_prefix(what).and_then(|rest| rest.strip_prefix('-'));
            let part = rest.and_then(|rest| rest.strip_suffix(".jsonl"));
            let shard = part.and_then(|part| part.replacen("-of-", "/", 1).parse().ok());
            found.extend(shard.map(|shard| (shard, entry.path())));
        }
    }
    found.sort_by_key(|(shard, _): &(Shard, _)| (shard.of, shard.number));
    Ok(found)
}

/// A part as it is asked for: by its number, or by what started the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Part(Shard),
    /// Of so many, where that is said.
    Auto(Option<u32>),
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            None if text == "auto" => Ok(Asked::Auto(None)),
            Some(("auto", of)) => format!("1/{of}").parse::<Shard>().map(|shard| Asked::Auto(Some(shard.of))),
            _ => text.parse().map(Asked::Part).map_err(|e: String| format!("{e}; or auto, or auto/N")),
        }
    }
}

impl Asked {
    /// The part, and where its number comes from if it was not said.
    ///
    /// # Errors
    /// [`Error::Usage`] where nothing in the environment says a number, or what is there does not fit together.
    pub fn settled(self, variable: impl Fn(&str) -> Option<String>) -> Result<(Shard, Option<String>)> {
        match self {
            Asked::Part(shard) => Ok((shard, None)),
            Asked::Auto(of) => auto(of, &variable).map(|(shard, why)| (shard, Some(why))),
        }
    }
}

/// The number of this process among those that a scheduler started.
fn auto(said: Option<u32>, variable: &impl Fn(&str) -> Option<String>) -> Result<(Shard, String)> {
    let wrong = |problem: String| Error::usage("--shard", problem);
    let number = |name: &str| match variable(name).filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match text.parse::<u32>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(wrong(format!("auto: expected a number in {name}, found `{text}`"))),
        },
    };
    let (index, count, from) = if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
        let least = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
        let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
        let count = number("SLURM_ARRAY_TASK_COUNT")?;
        let whole =
            |most: u32| count.is_none_or(|count| most.checked_sub(least).is_some_and(|n| n / step + 1 == count));
        if let Some(most) = number("SLURM_ARRAY_TASK_MAX")?.filter(|&most| !whole(most)) {
            return Err(wrong(format!(
                "auto: the array has {} tasks from {least} to {most}, with gaps: expected all of them, or --shard I/N for those that are sent again",
                count.unwrap_or(0)
            )));
        }
        if let Some(tasks) = number("SLURM_NTASKS")?.filter(|&tasks| tasks > 1) {
            return Err(wrong(format!(
                "auto: the array's jobs have {tasks} tasks each, and both could be meant: expected one task per job, or --shard I/N"
            )));
        }
        (id.checked_sub(least).map(|n| n / step), count, "SLURM_ARRAY_TASK_ID, _MIN and _COUNT")
    } else if let Some(id) = number("SLURM_PROCID")? {
        (Some(id), number("SLURM_NTASKS")?, "SLURM_PROCID and SLURM_NTASKS")
    } else if let Some(id) = number("JOB_COMPLETION_INDEX")? {
        (Some(id), None, "JOB_COMPLETION_INDEX")
    } else if let Some(id) = number("RANK")? {
        (Some(id), number("WORLD_SIZE")?, "RANK and WORLD_SIZE")
    } else {
        return Err(wrong(
            "auto: expected SLURM_ARRAY_TASK_ID, SLURM_PROCID, JOB_COMPLETION_INDEX or RANK in the environment, found none of them: \
             --shard I/N says it"
                .into(),
        ));
    };
    let of = match (said, count) {
        (Some(said), Some(count)) if said != count => {
            return Err(wrong(format!("auto/{said}: {from} say {count} processes")));
        }
        (said, count) => said.or(count),
    };
    let Some(of) = of else {
        return Err(wrong(format!("auto: {from} does not say of how many: expected --shard auto/N")));
    };
    let shard = index.map(|index| format!("{}/{of}", u64::from(index) + 1).parse::<Shard>());
    match shard {
        Some(Ok(shard)) => Ok((shard, format!("part {shard}, by {from}"))),
        _ => Err(wrong(format!("auto: {from} say number {} of {of}, counted from 0", index.unwrap_or(0)))),
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("expected I/N with 1 <= I <= N <= 100000, as in 2/5, found `{text}`");
        let (number, of) = text.split_once('/').ok_or_else(bad)?;
        let (number, of) = (number.parse().map_err(|_| bad())?, of.parse().map_err(|_| bad())?);
        if number == 0 || number > of || of > 100_000 {
            return Err(bad());
        }
        Ok(Shard { number, of })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_of_one_part() {
        let parts: Vec<Shard> = (1..=5).map(|i| format!("{i}/5").parse().unwrap()).collect();
        for unit in 0..100 {
            assert_eq!(parts.iter().filter(|part| part.takes(unit)).count(), 1);
        }
        assert_eq!((parts[1].to_string(), parts[1].named()), ("2/5".into(), "2-of-5".into()));
        for bad in ["", "3", "0/4", "5/4", "1/0", "a/2", "1/2/3", "-1/2", "1/100001"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_scheduler_says_the_part() {
        let settled = |asked: &str, variables: &[(&str, &str)]| {
            let of = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            let found = asked.parse::<Asked>().unwrap().settled(of);
            found.map(|(shard, why)| (shard.to_string(), why.unwrap_or_default())).map_err(|e| e.to_string())
        };
        let array = |id, min, max, count| {
            [
                ("SLURM_ARRAY_TASK_ID", id),
                ("SLURM_ARRAY_TASK_MIN", min),
                ("SLURM_ARRAY_TASK_MAX", max),
                ("SLURM_ARRAY_TASK_COUNT", count),
            ]
        };
        let both = |a: &[(&'static str, &'static str)], b: &[(&'static str, &'static str)]| [a, b].concat();
        for (asked, variables, part, from) in [
            ("2/5", vec![("RANK", "0")], "2/5", ""),
            ("auto", array("0", "0", "5", "6").to_vec(), "1/6", "SLURM_ARRAY_TASK_ID"),
            ("auto", array("6", "1", "6", "6").to_vec(), "6/6", "SLURM_ARRAY_TASK_ID"),
            ("auto", both(&array("8", "0", "10", "6"), &[("SLURM_ARRAY_TASK_STEP", "2")]), "5/6", "SLURM_ARRAY"),
            ("auto", vec![("SLURM_PROCID", "3"), ("SLURM_NTASKS", "4"), ("RANK", "9")], "4/4", "SLURM_PROCID"),
            ("auto/8", vec![("JOB_COMPLETION_INDEX", "7")], "8/8", "JOB_COMPLETION_INDEX"),
            ("auto", vec![("RANK", "0"), ("WORLD_SIZE", "2")], "1/2", "RANK"),
        ] {
            let (shard, why) = settled(asked, &variables).unwrap();
            assert!(shard == part && why.contains(from), "{asked} {variables:?}: {shard}, {why}");
        }
        for (asked, variables, problem) in [
            ("auto", vec![], "found none of them"),
            ("auto", vec![("JOB_COMPLETION_INDEX", "7")], "--shard auto/N"),
            ("auto/4", vec![("RANK", "0"), ("WORLD_SIZE", "2")], "say 2 processes"),
            ("auto", vec![("RANK", "2"), ("WORLD_SIZE", "2")], "number 2 of 2"),
            ("auto", vec![("RANK", "x"), ("WORLD_SIZE", "2")], "expected a number in RANK, found `x`"),
            ("auto", array("4", "1", "4", "2").to_vec(), "with gaps"),
            ("auto", both(&array("1", "1", "4", "4"), &[("SLURM_NTASKS", "2")]), "2 tasks each"),
        ] {
            let error = settled(asked, &variables).unwrap_err();
            assert!(error.contains(problem) && error.starts_with("--shard"), "{asked} {variables:?}: {error}");
        }
        for bad in ["auto/0", "auto/x", "automatic", "3/2"] {
            assert!(bad.parse::<Asked>().is_err(), "{bad}");
        }
    }
}
