//! A run read back from its directory: what reports are made of. It needs neither the weights nor the images.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::config::Config;
use super::records::{self, Found, Record};
use super::results::{self, Cell, Channel, is_correct};
use crate::error::{Error, Result};
use crate::report::Series;

/// A run, finished or not, in memory: about 60 bytes per record.
pub struct Finished {
    pub dir: PathBuf,
    pub config: Config,
    /// As `results.csv` says it.
    pub device: String,
    /// Of the program that ran it.
    pub version: String,
    pub dataset: String,
    /// The images in the order in which they first appear, and their labels.
    pub ids: Vec<u64>,
    pub labels: Vec<u32>,
    /// In the order of `results.csv`.
    pub cells: Vec<Cell>,
    /// Per cell and image.
    pub found: Vec<Vec<Option<Found>>>,
}

impl Finished {
    /// Reads `config.toml` and `records.jsonl`.
    ///
    /// # Errors
    /// [`Error::Usage`] when `dir` is no run directory, [`Error::File`] when its files are damaged or do not belong together.
    pub fn read(dir: &Path) -> Result<Finished> {
        let (config_file, records_file) = (dir.join("config.toml"), dir.join("records.jsonl"));
        if !config_file.is_file() || !records_file.is_file() {
            let problem = format!("{}: expected a run directory with config.toml and records.jsonl", dir.display());
            return Err(Error::usage("RUN", problem));
        }
        let config = Config::of_run(&config_file)?;
        let text = std::fs::read_to_string(&config_file).map_err(|e| Error::io(&config_file, "read the config", e))?;
        let table = text.parse::<toml::Table>().map_err(|e| Error::file(&config_file, e.to_string().trim_end()))?;
        let of_run = |key: &str| {
            let value = table.get("run").and_then(|run| run.get(key)).and_then(|value| value.as_str());
            value.unwrap_or("unknown").to_owned()
        };
        let cells = results::cells(&config);
        let index: HashMap<Key, usize> = cells.iter().enumerate().map(|(i, cell)| (key(&config, cell), i)).collect();
        let mut run = Finished {
            dir: dir.into(),
            device: of_run("device"),
            version: of_run("version"),
            dataset: config.dataset.kind.to_string(),
            ids: vec![],
            labels: vec![],
            found: vec![vec![]; cells.len()],
            cells,
            config,
        };
        let mut places: HashMap<u64, usize> = HashMap::new();
        records::each(&records_file, |record| run.take(record, &index, &mut places))?;
        for found in &mut run.found {
            found.resize(run.ids.len(), None);
        }
        Ok(run)
    }

    fn take(
        &mut self,
        record: Record,
        index: &HashMap<Key, usize>,
        places: &mut HashMap<u64, usize>,
    ) -> Result<(), String> {
        let Record { model, dataset, attack, eps, sigma, image, label, found, .. } = record;
        let &cell = index
            .get(&(model, attack, eps.to_bits(), sigma.map(f64::to_bits)))
            .ok_or("the config knows no such model, attack, eps and sigma")?;
        if (self.cells[cell].channel == Channel::Undefended) != matches!(found, Found::Attacked(_)) {
            return Err(format!("image {image}: the outcome is of another channel"));
        }
        let place = *places.entry(image).or_insert(self.ids.len());
        if place == self.ids.len() {
            self.ids.push(image);
            self.labels.push(label);
            self.dataset = dataset;
        } else if self.labels[place] != label {
            return Err(format!("label of image {image}: {label} here, {} before", self.labels[place]));
        }
        let of_cell = &mut self.found[cell];
        if of_cell.len() <= place {
            of_cell.resize(place + 1, None);
        }
        if of_cell[place].replace(found).is_some() {
            return Err(format!("image {image} was recorded before"));
        }
        self.cells[cell].add(&found);
        Ok(())
    }

    /// What the run is called: its folder.
    pub fn name(&self) -> String {
        let path = std::fs::canonicalize(&self.dir).unwrap_or_else(|_| self.dir.clone());
        path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
    }

    /// Records there are, and records there will be.
    pub fn progress(&self) -> (u64, u64) {
        (self.cells.iter().map(|cell| cell.n).sum(), (self.cells.len() * self.ids.len()) as u64)
    }

    pub fn cell(&self, model: usize, channel: Channel, eps: f64) -> Option<usize> {
        self.cells.iter().position(|c| c.model == model && c.channel == channel && c.eps == eps)
    }

    /// Whether image number `image` counts as right in a cell; `None` where it was not scored.
    pub fn correct(&self, cell: usize, image: usize) -> Option<bool> {
        self.found[cell][image].as_ref().map(|found| is_correct(found, self.config.score))
    }

    pub fn series(&self) -> Vec<Series> {
        results::series(&self.config, &self.cells, self.config.score, |_| true)
    }

    /// The epsilon of the pictures: the middle one of those above 0.
    pub fn middle_eps(&self) -> Option<f64> {
        middle_eps(&self.config)
    }
}

/// The middle one of the epsilons above 0.
pub fn middle_eps(config: &Config) -> Option<f64> {
    let attacked: Vec<f64> = config.attack.eps.iter().copied().filter(|&eps| eps > 0.0).collect();
    attacked.get(attacked.len() / 2).copied()
}

type Key = (String, String, u64, Option<u64>);

fn key(config: &Config, cell: &Cell) -> Key {
    let sigma = cell.channel.sigma().map(f64::to_bits);
    (config.models[cell.model].name.clone(), cell.channel.attack(config), cell.eps.to_bits(), sigma)
}
