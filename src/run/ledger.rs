//! What the records of a run say, cell by cell and image by image: kept while it runs, read back from its directory afterwards. Reading
//! back needs neither the weights nor the images.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::header::Header;
use super::packed;
use super::records::{self, Found, Outcome, Record};
use super::results::{self, Cell, Channel, is_correct};
use super::shard;
use crate::attack::Norm;
use crate::config::Config;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::files;
use crate::ops::pgd::Budget;

/// The images of a run, in the order of the dataset.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Images {
    pub dataset: String,
    pub ids: Vec<u64>,
    pub labels: Vec<u32>,
}

impl Images {
    pub fn of(dataset: &Dataset) -> Images {
        Images { dataset: dataset.name.clone(), ids: dataset.ids.clone(), labels: dataset.labels.clone() }
    }
}

/// A run, finished or not: about 60 bytes per record.
#[derive(Debug)]
pub struct Ledger {
    pub dir: PathBuf,
    pub config: Config,
    /// As `results.csv` says it.
    pub device: String,
    /// Of the program that ran it.
    pub version: String,
    /// When it began (UTC) and by which command; unknown of runs by older versions.
    pub date: Option<String>,
    pub command: Option<String>,
    pub dataset: String,
    /// How many images the run is of, where it says so: of those without any record nothing else is known.
    pub planned: Option<usize>,
    /// The images in the order of the dataset, or where that is not at hand of their first records; and their labels.
    pub ids: Vec<u64>,
    pub labels: Vec<u32>,
    /// In the order of `results.csv`.
    pub cells: Vec<Cell>,
    /// Per cell and image.
    pub found: Vec<Vec<Option<Found>>>,
    cell_index: HashMap<Key, usize>,
    image_index: HashMap<u64, usize>,
    /// Whether images that were not named at the start may still appear.
    open: bool,
}

impl Ledger {
    /// Reads `config.toml` and `records.jsonl`; and what parts of the run recorded that nobody has joined yet.
    ///
    /// # Errors
    /// [`Error::Usage`] when `dir` is no run directory, [`Error::File`] when its files are damaged or do not belong together.
    pub fn read(dir: &Path) -> Result<Ledger> {
        let config_file = dir.join("config.toml");
        let whole = Some(dir.join(shard::records(None))).filter(|file| packed::existing(file).is_some());
        let parts = shard::files(dir)?;
        if !config_file.is_file() || whole.is_none() && parts.is_empty() {
            let problem = format!("{}: expected a run directory with config.toml and records.jsonl", dir.display());
            return Err(Error::usage("RUN", problem));
        }
        let mut run = Ledger::begun(dir, Config::of_run(&config_file)?);
        let header = Header::of(&run.config)?;
        for file in whole.into_iter().chain(parts.into_iter().map(|(_, file)| file)) {
            // Before any record: one that does not fit says less than the field that was changed. Older versions wrote none.
            if let Some(begun) = records::header(&file)? {
                header.agrees(&begun).map_err(|problem| Error::file(&file, problem))?;
            }
            records::each(&file, |record: Record| run.take(&record).map(drop))?;
        }
        Ok(run)
    }

    /// Of a run that was begun earlier, without any record.
    fn begun(dir: &Path, config: Config) -> Ledger {
        let Begun { device, version, date, command, images } = Begun::read(dir);
        let known = |value: Option<String>| value.unwrap_or("unknown".into());
        let (device, version) = (known(device), known(version));
        Ledger { device, version, date, command, planned: images, ..Ledger::empty(dir, config) }
    }

    /// Of a run that was begun earlier over these images, without any record.
    pub fn over(dir: &Path, config: Config, images: Images) -> Ledger {
        Ledger::begun(dir, config).of(images)
    }

    fn of(self, images: Images) -> Ledger {
        let Images { dataset, ids, labels } = images;
        let image_index = ids.iter().enumerate().map(|(i, &id)| (id, i)).collect();
        let found = vec![vec![None; ids.len()]; self.cells.len()];
        Ledger { dataset, ids, labels, found, image_index, open: false, ..self }
    }

    /// Of a run that begins now over these images.
    pub fn new(dir: &Path, config: &Config, dataset: &Dataset, device: &str) -> Ledger {
        // A run that goes on was begun earlier.
        let Begun { date, command, .. } = Begun::read(dir);
        let (device, version) = (device.into(), env!("CARGO_PKG_VERSION").into());
        Ledger { date, command, device, version, ..Ledger::empty(dir, config.clone()) }.of(Images::of(dataset))
    }

    fn empty(dir: &Path, config: Config) -> Ledger {
        let cells = results::cells(&config);
        Ledger {
            dir: dir.into(),
            device: String::new(),
            version: String::new(),
            date: None,
            command: None,
            planned: None,
            dataset: config.dataset.kind.to_string(),
            ids: vec![],
            labels: vec![],
            found: vec![vec![]; cells.len()],
            cell_index: cells.iter().enumerate().map(|(i, cell)| (key(&config, cell), i)).collect(),
            image_index: HashMap::new(),
            open: true,
            cells,
            config,
        }
    }

    /// Takes a record over, or says why it cannot be one of this run; its cell and the place of its image.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn take(&mut self, record: &Record) -> Result<(usize, usize), String> {
        let &Record { ref model, ref dataset, ref attack, eps, sigma, image, label, found, .. } = record;
        let place = || format!("model {model} at eps {eps}{}", sigma.map_or(String::new(), |s| format!(", sigma {s}")));
        let key = (model.clone(), attack.clone(), eps.to_bits(), sigma.map(f64::to_bits));
        let &cell = self.cell_index.get(&key).ok_or_else(|| format!("{} is not in the config", place()))?;
        if self.cells[cell].channel.is_defended() == matches!(found, Found::Attacked(_)) {
            return Err(format!("image {image} of {}: the outcome is of another channel", place()));
        }
        let expected = [
            ("norm", self.config.attack.norm.to_string(), record.norm.clone()),
            ("channel", self.cells[cell].channel.number().to_string(), record.channel.to_string()),
            // What the images are called is known from the first record on.
            ("dataset", if self.ids.is_empty() { dataset.clone() } else { self.dataset.clone() }, dataset.clone()),
        ];
        if let Some((field, want, found)) = expected.into_iter().find(|(_, want, found)| want != found) {
            return Err(format!("image {image} of {}: {field}: expected {want}, found {found}", place()));
        }
        let at = match self.image_index.get(&image) {
            Some(&at) => at,
            None if self.open => {
                self.dataset.clone_from(dataset);
                self.ids.push(image);
                self.labels.push(label);
                self.found.iter_mut().for_each(|of_cell| of_cell.push(None));
                self.image_index.insert(image, self.ids.len() - 1);
                self.ids.len() - 1
            }
            None => return Err(format!("image {image} is not in the dataset")),
        };
        if self.labels[at] != label {
            return Err(format!("label of image {image}: expected {}, found {label}", self.labels[at]));
        }
        if let Some(problem) = self.contradiction(cell, label, &found) {
            return Err(format!("image {image} of {}: {problem}", place()));
        }
        if self.found[cell][at].replace(found).is_some() {
            return Err(format!("image {image} of {} was recorded before", place()));
        }
        self.cells[cell].add(&found);
        Ok((cell, at))
    }

    /// What within an outcome cannot be true at once.
    fn contradiction(&self, cell: usize, label: u32, found: &Found) -> Option<String> {
        let Cell { eps, .. } = self.cells[cell];
        let right = |correct: bool, prediction: u32, field: &str| {
            (correct && prediction != label)
                .then(|| format!("`{field}` is true, and the prediction is {prediction} of an image of class {label}"))
        };
        match found {
            Found::Denoised(smoothed) => right(smoothed.correct, smoothed.prediction, "correct"),
            Found::Attacked(outcome) => {
                let Outcome { linf, l2, violation, .. } = *outcome;
                let norm = self.config.attack.norm;
                // What is handed on may be another image than what the budget was of.
                let kept = violation || self.config.attack.hands_over();
                let over = !kept && Budget { linf, l2, low: 0.0, high: 1.0 }.exceeds(norm, eps);
                let size = if norm == Norm::Linf { linf } else { l2 };
                right(outcome.correct_last, outcome.prediction, "correct_last").or_else(|| {
                    over.then(|| format!("`violation` is false, and `{norm}` is {size} within a budget of {eps}"))
                })
            }
        }
    }

    /// The cell and the place of the image that a record is about, where both are of this run.
    pub fn place(&self, record: &Record) -> Option<(usize, usize)> {
        let Record { model, attack, eps, sigma, image, .. } = record;
        let key = (model.clone(), attack.clone(), eps.to_bits(), sigma.map(f64::to_bits));
        Some((*self.cell_index.get(&key)?, *self.image_index.get(image)?))
    }

    /// The record of an image in a cell.
    pub fn record(&self, cell: usize, image: usize, found: Found) -> Record {
        let Cell { model, channel, eps, .. } = self.cells[cell];
        Record {
            model: self.config.models[model].name.clone(),
            dataset: self.dataset.clone(),
            attack: channel.attack(&self.config),
            norm: self.config.attack.norm.to_string(),
            eps,
            sigma: channel.sigma(),
            channel: channel.number(),
            image: self.ids[image],
            label: self.labels[image],
            found,
        }
    }

    /// What is known of an image within this budget from the smallest one that it was broken within, if that is smaller.
    pub fn fallen(&self, model: usize, eps: f64, image: usize) -> Option<Outcome> {
        let smaller = self.config.attack.eps.iter().copied().take_while(|&other| other < eps);
        smaller.filter_map(|other| Some((other, self.cell(model, Channel::Undefended, other)?))).find_map(
            |(other, cell)| {
                let Some(Found::Attacked(outcome)) = self.found[cell][image] else { return None };
                (!outcome.correct_any).then(|| Outcome {
                    correct_last: false,
                    first_success: None,
                    steps: 0,
                    steps_saved: 0,
                    asked: None,
                    nested: Some(outcome.nested.unwrap_or(other)),
                    ..outcome
                })
            },
        )
    }

    /// Perturbations over budget, all cells together; 0 unless an attack is broken.
    pub fn violations(&self) -> u64 {
        self.cells.iter().map(|cell| cell.violations).sum()
    }

    /// Records there are, and records there will be.
    pub fn progress(&self) -> (u64, u64) {
        let images = self.planned.unwrap_or(0).max(self.ids.len());
        (self.cells.iter().map(|cell| cell.n).sum(), (self.cells.len() * images) as u64)
    }

    pub fn cell(&self, model: usize, channel: Channel, eps: f64) -> Option<usize> {
        self.cells.iter().position(|c| c.model == model && c.channel == channel && c.eps == eps)
    }

    /// Whether image number `image` counts as right in a cell; `None` where it was not scored.
    pub fn correct(&self, cell: usize, image: usize) -> Option<bool> {
        self.found[cell][image].as_ref().map(|found| is_correct(found, self.config.score))
    }
}

/// The `[run]` table of a run's config.
#[derive(Default, Deserialize)]
struct Begun {
    device: Option<String>,
    version: Option<String>,
    date: Option<String>,
    command: Option<String>,
    images: Option<usize>,
}

impl Begun {
    /// Nothing of a folder without a config, or with one that whoever reads the rest of it refuses.
    fn read(dir: &Path) -> Begun {
        #[derive(Deserialize)]
        struct File {
            run: Begun,
        }
        let text = files::text(&dir.join("config.toml"), "read the config").unwrap_or_default();
        toml::from_str::<File>(&text).map_or_else(|_| Begun::default(), |file| file.run)
    }
}

type Key = (String, String, u64, Option<u64>);

fn key(config: &Config, cell: &Cell) -> Key {
    let sigma = cell.channel.sigma().map(f64::to_bits);
    (config.models[cell.model].name.clone(), cell.channel.attack(config), cell.eps.to_bits(), sigma)
}
