//! The attacked images of a run, kept for others: a file per model, budget and attack under `adversarial/`.
//!
//! While a cell is being attacked its images lie in a file of rows, each with its number and a checksum, that a run which goes on reads
//! again. When the last one is there they become the file that [`crate::data::saved`] describes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::ledger::Ledger;
use super::records::Found;
use super::results::{self, Channel, Under};
use super::rundir::RunDir;
use super::shard::Shard;
use crate::config::Config;
use crate::data::Dataset;
use crate::data::saved::{self, About, Form, Format, Set};
use crate::error::{Error, Result};
use crate::files;
use crate::number::eps_label;

const FOLDER: &str = "adversarial";

/// The images of one cell.
pub(super) struct Saving {
    format: Format,
    /// Below the run's folder.
    name: String,
    cell: usize,
    /// `None` once the whole is written.
    rows: Option<Rows>,
}

impl Saving {
    /// What is to be kept of a model at an epsilon: channel 1, and every channel that is attacked through. Nothing without `save`, and
    /// nothing without a budget, where attacked images are the clean ones.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] for a folder that is a link.
    pub fn open(
        dir: &RunDir,
        config: &Config,
        dataset: &Dataset,
        ledger: &Ledger,
        (model, eps): (usize, f64),
    ) -> Result<Vec<Saving>> {
        let Some(format) = config.save.filter(|_| eps > 0.0) else { return Ok(vec![]) };
        let transferred = |channel: &Channel| matches!(channel, Channel::Denoised { under: Under::Transferred, .. });
        let mut all = Vec::new();
        for channel in results::shown(config).into_iter().filter(|channel| !transferred(channel)) {
            let Some(cell) = ledger.cell(model, channel, eps) else { continue };
            let name = name(config, model, channel, eps, format);
            let whole = dir.own(&name)?;
            let rows = match whole.is_file() && saved::is_whole(&whole, format) {
                true => None,
                false => Some(Rows::of_run(&whole, dir.shard(), dataset)?),
            };
            all.push(Saving { format, name, cell, rows });
        }
        Ok(all)
    }

    /// Whether an image is still to be had.
    pub fn lacks(&self, image: usize) -> bool {
        self.rows.as_ref().is_some_and(|rows| rows.place[image].is_none())
    }

    /// Takes the images of a batch over.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Failed`] where an engine hands over none.
    pub fn take(&mut self, batch: &[usize], pixels: Option<&Vec<f32>>) -> Result<()> {
        let Some(rows) = &mut self.rows else { return Ok(()) };
        let all = batch.len() * rows.len;
        let Some(pixels) = pixels.filter(|pixels| pixels.len() == all) else {
            return Err(Error::Failed(format!("expected {all} values of attacked images, got none or others")));
        };
        let len = rows.len;
        let new: Vec<usize> = (0..batch.len()).filter(|&i| rows.place[batch[i]].is_none()).collect();
        rows.append(new.into_iter().map(|i| (batch[i], &pixels[i * len..][..len])))
    }

    /// Writes the file when all images are there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn finish(self, dir: &RunDir, dataset: &Dataset, ledger: &Ledger) -> Result<()> {
        let Some(mut rows) = self.rows.filter(|rows| rows.place.iter().all(Option::is_some)) else { return Ok(()) };
        let cell = &ledger.cells[self.cell];
        let found: Vec<Found> = ledger.found[self.cell].iter().flatten().copied().collect();
        let clean = |found: &Found| match found {
            Found::Attacked(outcome) => Some(outcome.clean_prediction),
            Found::Denoised(_) => None,
        };
        let set = Set {
            about: About {
                model: Some(ledger.config.models[cell.model].name.clone()),
                dataset: Some(dataset.name.clone()),
                attack: Some(cell.channel.attack(&ledger.config)),
                norm: Some(ledger.config.attack.norm.to_string()),
                eps: Some(cell.eps),
                seed: Some(ledger.config.seed),
                sigma: cell.channel.sigma(),
            },
            shape: dataset.shape(),
            labels: &dataset.labels,
            ids: &dataset.ids,
            predictions: found.iter().map(Found::prediction).collect(),
            clean_predictions: found.iter().map(clean).collect(),
        };
        dir.write_by(&self.name, |file| {
            saved::write(file, self.format, &set, |form, image| match form {
                Form::Attacked => rows.read(image),
                Form::Clean => dataset.image(image).map_err(io::Error::other),
            })
        })?;
        fs::remove_file(&rows.path).map_err(|e| Error::io(&rows.path, "remove", e))
    }
}

/// `adversarial/resnet20-pgd-eps8_255.npz`, relative to the run's folder.
fn name(config: &Config, model: usize, channel: Channel, eps: f64, format: Format) -> String {
    let (model, attack) = (&config.models[model].name, channel.attack(config));
    let sigma = channel.sigma().map_or(String::new(), |sigma| format!("-sigma{sigma}"));
    format!("{FOLDER}/{model}-{attack}-eps{}{sigma}.{format}", eps_label(eps).replace('/', "_"))
}

/// Images in the order they were attacked: number, values, checksum.
struct Rows {
    path: PathBuf,
    file: File,
    /// Where each image of the dataset lies.
    place: Vec<Option<u64>>,
    /// Values of an image.
    len: usize,
    end: u64,
}

impl Rows {
    /// The rows for a file that is not there yet: a part's own, or those of the run with what parts of it left.
    fn of_run(whole: &Path, shard: Option<Shard>, dataset: &Dataset) -> Result<Rows> {
        if let Some(shard) = shard {
            return Rows::open(whole.with_extension(format!("part-{}", shard.named())), dataset);
        }
        let own = whole.with_extension("part");
        let mut rows = Rows::open(own.clone(), dataset)?;
        for path in parts(&own)? {
            let mut part = Rows::open(path, dataset)?;
            let mut there: Vec<usize> = (0..dataset.len()).filter(|&image| part.place[image].is_some()).collect();
            there.retain(|&image| rows.place[image].is_none());
            for image in there {
                let pixels = part.read(image).map_err(|e| Error::io(&part.path, "read attacked images", e))?;
                rows.append([(image, pixels.as_slice())].into_iter())?;
            }
            fs::remove_file(&part.path).map_err(|e| Error::io(&part.path, "remove", e))?;
        }
        Ok(rows)
    }

    /// Opens a file; what a killed run left unfinished is cut off.
    fn open(path: PathBuf, dataset: &Dataset) -> Result<Rows> {
        let failed = |action| {
            let path = path.clone();
            move |e| Error::io(&path, action, e)
        };
        fs::create_dir_all(path.parent().unwrap_or(&path)).map_err(failed("create the folder of attacked images"))?;
        let open = files::own().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(failed("keep attacked images"))?;
        let mut place = vec![None; dataset.len()];
        let len = dataset.image_len();
        let mut row = vec![0; row_bytes(len)];
        let mut end = 0;
        let mut reader = io::BufReader::new(&mut file);
        while reader.read_exact(&mut row).is_ok() {
            let Some(image) = image(&row).filter(|&image| image < place.len()) else { break };
            place[image] = Some(end);
            end += row.len() as u64;
        }
        file.set_len(end).map_err(failed("keep attacked images"))?;
        Ok(Rows { path, file, place, len, end })
    }

    fn append<'a>(&mut self, images: impl Iterator<Item = (usize, &'a [f32])>) -> Result<()> {
        let mut bytes = Vec::new();
        let mut places = Vec::new();
        for (image, pixels) in images {
            places.push((image, self.end + bytes.len() as u64));
            let begin = bytes.len();
            bytes.extend((image as u64).to_le_bytes());
            bytes.extend_from_slice(bytemuck::cast_slice(pixels));
            let sum = checksum(&bytes[begin..]);
            bytes.extend(sum.to_le_bytes());
        }
        let written = self.file.seek(SeekFrom::Start(self.end));
        let written = written.and_then(|_| self.file.write_all(&bytes)).and_then(|()| self.file.sync_data());
        written.map_err(|e| {
            Error::io(&self.path, "keep attacked images (the earlier ones are intact: --resume goes on there)", e)
        })?;
        self.end += bytes.len() as u64;
        places.into_iter().for_each(|(image, at)| self.place[image] = Some(at));
        Ok(())
    }

    fn read(&mut self, image: usize) -> io::Result<Vec<f32>> {
        let at = self.place[image].ok_or_else(|| io::Error::other("an image was not attacked"))?;
        let mut row = vec![0; row_bytes(self.len)];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut row)?;
        match self::image(&row) == Some(image) {
            true => Ok(bytemuck::pod_collect_to_vec(&row[8..row.len() - 4])),
            false => Err(io::Error::other("attacked images were changed by another process")),
        }
    }
}

/// The files of parts beside `own`.
fn parts(own: &Path) -> Result<Vec<PathBuf>> {
    let (folder, name) = (own.parent().unwrap_or(own), own.file_name().unwrap_or_default().to_string_lossy());
    let io = |e| Error::io(folder, "list the folder of attacked images", e);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let other = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if other.strip_prefix(&*name).is_some_and(|rest| rest.starts_with("-") && rest.contains("-of-")) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn row_bytes(len: usize) -> usize {
    8 + 4 * len + 4
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The image of a row that is as it was written.
fn image(row: &[u8]) -> Option<usize> {
    let (values, sum) = row.split_last_chunk::<4>()?;
    let number = u64::from_le_bytes(*values.first_chunk()?);
    (checksum(values) == u32::from_le_bytes(*sum)).then(|| usize::try_from(number).ok())?
}
