//! `draws.jsonl`: the votes of each range of draws that was made, of this process and of all shards.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::header::Header;
use super::super::packed;
use super::super::records::{self, Line, Records};
use super::super::rundir::RunDir;
use super::super::shard::{self, Shard};
use crate::choice::choice;
use crate::config::Config;
use crate::stats::certificate::top_two;
use crate::{Error, Result};

choice! {
    /// What draws are for; each has noise of its own.
    Part {
        /// They choose the class.
        Choice = "choice",
        /// They bound its share.
        Bound = "bound",
    }
}

/// One line: the votes of a range of draws of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drawn {
    pub model: String,
    pub sigma: f64,
    /// [`crate::data::Dataset::ids`] of the image.
    pub image: u64,
    pub label: u32,
    pub part: Part,
    /// The first draw, and that behind the last.
    pub first: u32,
    pub last: u32,
    /// Classes with at least one vote, and how many.
    pub votes: Vec<(u32, u64)>,
    pub seconds: f64,
}

impl Line for Drawn {
    fn check_finite(&self) -> Result<()> {
        match self.sigma.is_finite() && self.seconds.is_finite() {
            true => Ok(()),
            false => Err(Error::Failed(format!("draws of image {}: a number is not finite", self.image))),
        }
    }
}

/// Draws of one kind: those before `draws` and no others.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawings {
    pub draws: u32,
    /// By class, as far as any has a vote.
    pub votes: Vec<u64>,
}

/// The class with most votes, the lowest among equals.
pub fn chosen(votes: &[u64]) -> usize {
    top_two(votes).map_or(0, |(class, _)| class)
}

/// What was drawn of an image under one model and sigma.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub label: u32,
    pub choice: Drawings,
    pub bound: Drawings,
    pub seconds: f64,
}

impl Tally {
    /// Votes for the class that the first draws chose.
    pub fn hits(&self) -> u64 {
        self.bound.votes.get(chosen(&self.choice.votes)).copied().unwrap_or(0)
    }

    /// Takes a line over that follows what is there.
    fn add(&mut self, drawn: &Drawn) -> Result<(), String> {
        let Drawn { image, part, first, last, label, .. } = *drawn;
        let own = match part {
            Part::Choice => &mut self.choice,
            Part::Bound => &mut self.bound,
        };
        if first != own.draws || last <= first {
            return Err(format!(
                "draws {first} to {last} ({part}) of image {image}, model {}, sigma {}: expected them to go on from draw {}: a draw is \
                 missing or counted twice",
                drawn.model, drawn.sigma, own.draws
            ));
        }
        let all: u64 = drawn.votes.iter().map(|&(_, votes)| votes).fold(0, u64::saturating_add);
        if all != u64::from(last - first) || drawn.votes.iter().any(|&(class, _)| class >= CLASSES) {
            return Err(format!("image {image}: {all} votes of {} draws", last - first));
        }
        if self.choice.draws + self.bound.draws > 0 && self.label != label {
            return Err(format!("label of image {image}: expected {}, found {label}", self.label));
        }
        let own = match part {
            Part::Choice => &mut self.choice,
            Part::Bound => &mut self.bound,
        };
        for &(class, votes) in &drawn.votes {
            let class = class as usize;
            if own.votes.len() <= class {
                own.votes.resize(class + 1, 0);
            }
            own.votes[class] += votes;
        }
        own.draws = last;
        self.label = label;
        self.seconds += drawn.seconds;
        Ok(())
    }
}

/// More classes than any network here has: files say any number.
const CLASSES: u32 = 1 << 20;

/// By model, sigma and image.
pub type Tallies = HashMap<(String, u64, u64), Tally>;

/// All draws of a run, and the file that this process adds to.
pub struct Store {
    file: Records<Drawn>,
    models: Vec<String>,
    pub tallies: Tallies,
}

impl Store {
    /// Opens what there is.
    ///
    /// # Errors
    /// [`Error::File`] naming the line of draws that do not fit together or are of other settings; [`Error::Io`].
    pub fn open(dir: &RunDir, config: &Config, shard: Option<Shard>) -> Result<Store> {
        let (own, header) = (name(shard), header(config)?);
        let (file, lines) = Records::open(&dir.own(&own)?, &header)?;
        let first = file.first_line();
        let mut all: Vec<(PathBuf, usize, Drawn)> =
            lines.into_iter().enumerate().map(|(i, drawn)| (dir.path().join(&own), first + i, drawn)).collect();
        all.extend(read_files(dir.path(), &header, Some(&own))?);
        let models = config.models.iter().map(|model| model.name.clone()).collect();
        Ok(Store { file, models, tallies: tallied(config, all)? })
    }

    /// What is known of an image.
    pub fn tally(&self, model: usize, sigma: f64, image: u64) -> Tally {
        let key = (self.models[model].clone(), sigma.to_bits(), image);
        self.tallies.get(&key).cloned().unwrap_or_default()
    }

    /// Compares the labels of images with those of their draws.
    ///
    /// # Errors
    /// [`Error::Usage`] when an image's were made under another one.
    pub fn expect(&self, labels: &HashMap<u64, u32>) -> Result<()> {
        for ((_, _, image), tally) in &self.tallies {
            if let Some(label) = labels.get(image).filter(|label| **label != tally.label) {
                let problem =
                    format!("image {image} has the label {label}, and its draws were made with {}", tally.label);
                return Err(Error::usage("resume", problem));
            }
        }
        Ok(())
    }

    /// Writes lines in one piece, and counts them.
    ///
    /// # Errors
    /// As [`Records::append`].
    pub fn append(&mut self, lines: Vec<Drawn>) -> Result<()> {
        self.file.append(&lines)?;
        for drawn in lines {
            let key = (drawn.model.clone(), drawn.sigma.to_bits(), drawn.image);
            self.tallies.entry(key).or_default().add(&drawn).map_err(Error::Failed)?;
        }
        Ok(())
    }
}

fn name(shard: Option<Shard>) -> String {
    shard.map_or("draws.jsonl".into(), |shard| format!("draws-{}.jsonl", shard.named()))
}

/// The settings that draws depend on.
fn header(config: &Config) -> Result<Header> {
    #[derive(Serialize)]
    struct Settings<'a> {
        seed: u64,
        precision: String,
        dataset: &'a crate::config::DatasetConfig,
        models: &'a [crate::config::ModelConfig],
        denoiser: Denoiser<'a>,
        procedure: String,
        n0: u32,
        n: u32,
        alpha: f64,
        radius: &'a [f64],
    }
    #[derive(Serialize)]
    struct Denoiser<'a> {
        weights: &'a Option<String>,
        crc32: &'a Option<String>,
    }
    let Some(certify) = &config.certify else {
        return Err(Error::usage("certify", "expected the table [certify] in the config, found none"));
    };
    let (weights, crc32) = (&config.defense.weights, &config.defense.crc32);
    Header::of(&Settings {
        seed: config.seed,
        precision: config.precision.to_string(),
        dataset: &config.dataset,
        models: &config.models,
        denoiser: Denoiser { weights, crc32 },
        procedure: certify.procedure.to_string(),
        n0: certify.n0,
        n: certify.n,
        alpha: certify.alpha,
        radius: &certify.radius,
    })
}

/// All draws in a run directory; `None` where there are none.
///
/// # Errors
/// As [`Store::open`].
pub fn read(dir: &Path, config: &Config) -> Result<Option<Tallies>> {
    if config.certify.is_none() {
        return Ok(None);
    }
    let lines = read_files(dir, &header(config)?, None)?;
    if lines.is_empty() { Ok(None) } else { tallied(config, lines).map(Some) }
}

/// Who drew in a run directory of certificates alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawer {
    /// `None` of a process that had all of it.
    pub shard: Option<Shard>,
    /// Images of a model at a sigma of which there are draws, and how many draws.
    pub images: usize,
    pub draws: u64,
}

/// The processes that drew for certificates in a run directory that has no other records; `None` where it has, or nothing is drawn.
///
/// # Errors
/// [`Error::File`] for damaged draws; [`Error::Io`].
pub fn alone(dir: &Path) -> Result<Option<Vec<Drawer>>> {
    let whole = dir.join(name(None));
    let whole = whole.is_file().then_some((None, whole));
    let parts = shard::files_of(dir, "draws")?.into_iter().map(|(shard, path)| (Some(shard), path));
    let files: Vec<_> = whole.into_iter().chain(parts).collect();
    if files.is_empty() || !shard::files(dir)?.is_empty() || has_records(dir)? {
        return Ok(None);
    }
    let drawer = |(shard, path): (Option<Shard>, PathBuf)| {
        let (mut images, mut draws) = (HashSet::new(), 0);
        records::each(&path, |drawn: Drawn| {
            draws += u64::from(drawn.last.saturating_sub(drawn.first));
            images.insert((drawn.model, drawn.sigma.to_bits(), drawn.image));
            Ok(())
        })?;
        Ok(Drawer { shard, images: images.len(), draws })
    };
    files.into_iter().map(drawer).collect::<Result<_>>().map(Some)
}

/// Whether a run has any record: a line behind that of its settings.
fn has_records(dir: &Path) -> Result<bool> {
    let path = dir.join(shard::records(None));
    if packed::existing(&path).is_none() {
        return Ok(false);
    }
    let before = usize::from(records::header(&path)?.is_some());
    let mut lines = BufReader::new(packed::open(&path, "read the records")?).lines();
    Ok(lines.nth(before).is_some())
}

/// The lines of every file of draws but one, with file and line number.
fn read_files(dir: &Path, header: &Header, but: Option<&str>) -> Result<Vec<(PathBuf, usize, Drawn)>> {
    let io = |e| Error::io(dir, "list the run directory", e);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        let ours = name == self::name(None) || (name.starts_with("draws-") && name.ends_with(".jsonl"));
        if ours && but != Some(name.as_str()) {
            names.push(name);
        }
    }
    names.sort();
    let mut all = Vec::new();
    for name in names {
        let path = dir.join(name);
        let before = all.len();
        let begun = records::each(&path, |drawn: Drawn| {
            all.push((path.clone(), all.len() - before + 1, drawn));
            Ok(())
        })?;
        let offset = usize::from(begun.is_some());
        all[before..].iter_mut().for_each(|(_, line, _)| *line += offset);
        match begun {
            Some(begun) => header.agrees(&begun).map_err(|problem| Error::file(&path, problem))?,
            None if all.len() > before => {
                return Err(Error::file(&path, "line 1: expected the settings that the draws were made with"));
            }
            None => {}
        }
    }
    Ok(all)
}

/// Puts the ranges of each image one behind the other, whichever files they lie in.
fn tallied(config: &Config, mut all: Vec<(PathBuf, usize, Drawn)>) -> Result<Tallies> {
    let certify = config.certify.as_ref();
    all.sort_by_key(|(_, _, drawn)| (drawn.image, drawn.part == Part::Bound, drawn.first));
    let mut tallies = Tallies::new();
    for (path, line, drawn) in all {
        let bad = |problem: String| Error::file(&path, format!("line {line}: {problem}"));
        let known = config.models.iter().any(|model| model.name == drawn.model);
        if !known || !config.defense.sigma.contains(&drawn.sigma) {
            return Err(bad(format!("model {} at sigma {} is not in the config", drawn.model, drawn.sigma)));
        }
        let most = certify.map_or(0, |certify| if drawn.part == Part::Choice { certify.n0 } else { certify.n });
        if drawn.last > most {
            return Err(bad(format!("draws up to {} ({}), and the config asks for {most}", drawn.last, drawn.part)));
        }
        let key = (drawn.model.clone(), drawn.sigma.to_bits(), drawn.image);
        tallies.entry(key).or_default().add(&drawn).map_err(bad)?;
    }
    Ok(tallies)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(part: Part, first: u32, last: u32, votes: &[(u32, u64)]) -> Drawn {
        Drawn {
            model: "m".into(),
            sigma: 0.25,
            image: 7,
            label: 1,
            part,
            first,
            last,
            votes: votes.to_vec(),
            seconds: 0.5,
        }
    }

    #[test]
    fn ranges_follow_each_other_and_add_up() {
        let mut tally = Tally::default();
        tally.add(&drawn(Part::Choice, 0, 3, &[(1, 2), (4, 1)])).unwrap();
        tally.add(&drawn(Part::Bound, 0, 10, &[(1, 9), (0, 1)])).unwrap();
        tally.add(&drawn(Part::Bound, 10, 15, &[(1, 5)])).unwrap();
        assert_eq!((tally.hits(), tally.bound.draws, tally.label, tally.seconds), (14, 15, 1, 1.5));
        for (bad, why) in [
            (drawn(Part::Bound, 16, 17, &[(0, 1)]), "go on from draw 15"),
            (drawn(Part::Bound, 10, 15, &[(1, 5)]), "counted twice"),
            (drawn(Part::Bound, 15, 17, &[(1, 1)]), "1 votes of 2 draws"),
            (drawn(Part::Bound, 15, 16, &[(u32::MAX, 1)]), "votes"),
            (Drawn { label: 2, ..drawn(Part::Bound, 15, 16, &[(1, 1)]) }, "expected 1, found 2"),
        ] {
            let problem = tally.add(&bad).unwrap_err();
            assert!(problem.contains(why), "{problem}");
        }
        assert_eq!(tally.bound.draws, 15, "what is refused changes nothing");
    }

    #[test]
    fn lines_are_read_back() {
        let line = serde_json::to_string(&drawn(Part::Bound, 0, 3, &[(1, 3)])).unwrap();
        assert!(line.contains("\"part\":\"bound\"") && line.contains("\"votes\":[[1,3]]"), "{line}");
        assert_eq!(serde_json::from_str::<Drawn>(&line).unwrap(), drawn(Part::Bound, 0, 3, &[(1, 3)]));
        assert!(serde_json::from_str::<Drawn>(&line.replace("\"label\"", "\"other\"")).is_err());
    }
}
