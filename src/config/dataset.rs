//! The `[dataset]` table: the format's own fields, and which of its images are taken.

use std::path::PathBuf;

use serde::Serialize;

use super::file;
use super::settings::SelectBy;
use super::wrong::Wrong;
use crate::data::{self, Dataset, Row, Said, Select, Source};
use crate::error::Result;

/// Where the images come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DatasetConfig {
    /// Its row in the table.
    pub kind: &'static str,
    #[serde(flatten)]
    pub said: Said,
    pub select: SelectBy,
    /// Of a random selection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// Of the selected images, eight hexadecimal digits; see [`super::Config::pin`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
    /// How many files of the set were left out: none of the numbers are of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<usize>,
    #[serde(skip)]
    open: Open,
}

/// The fields that the config leaves open. How a config came to be is no part of what it says.
#[derive(Clone, Debug, Default)]
struct Open(Vec<&'static str>);

impl PartialEq for Open {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl DatasetConfig {
    /// The format.
    ///
    /// # Errors
    /// None for a config that was resolved.
    pub fn row(&self) -> Result<&'static Row> {
        data::row(self.kind)
    }

    /// The images, found but not read.
    ///
    /// # Errors
    /// None for a config that was resolved.
    pub fn source(&self) -> Result<Box<dyn Source>> {
        self.row()?.source(&mut self.said.clone())
    }

    /// Whether the config leaves a field to the checkpoints.
    pub fn is_open(&self, field: &str) -> bool {
        self.open.0.contains(&field)
    }

    /// Images as `said`, where defaults are filled in.
    ///
    /// # Errors
    /// As [`Row::source`].
    pub fn prepare_as(&mut self, mut said: Said) -> Result<()> {
        self.row()?.source(&mut said)?;
        self.said = said;
        Ok(())
    }

    /// Reads the images, at most `limit`.
    ///
    /// # Errors
    /// As [`Source::load`].
    pub fn load(&self, limit: usize) -> Result<Dataset> {
        let select = match self.select {
            SelectBy::First => Select::First,
            SelectBy::Balanced => Select::Balanced,
            SelectBy::Random => Select::Random(self.seed.unwrap_or(0)),
        };
        self.source()?.load(Some(limit), select)
    }

    /// Whether the five likeliest classes are scored too.
    pub fn top5(&self) -> bool {
        self.row().is_ok_and(|row| row.top5)
    }
}

pub(super) fn resolve(file: file::Dataset, wrong: &Wrong) -> Result<(DatasetConfig, &'static Row)> {
    let row = data::row(file.kind.as_deref().unwrap_or(data::SOURCES[0].name)).map_err(|e| wrong.explain(e))?;
    let path = |field, path: Option<PathBuf>| path.map(|path| wrong.existing(field, &path)).transpose();
    let mut said = Said {
        path: file.path,
        images: file.images,
        labels: file.labels,
        classes: file.classes,
        list: file.list,
        class_order: file.class_order,
        size: file.size,
        fit: file.fit,
        shorter: file.shorter,
        filter: file.filter,
    };
    let open = Open(said.given().into_iter().filter(|(_, given)| !given).map(|(field, _)| field).collect());
    // What the format has no use for is refused before its files are looked for.
    row.source(&mut said).map_err(|e| wrong.explain(e))?;
    said.path = path("dataset.path", said.path)?;
    said.images = path("dataset.images", said.images)?;
    said.labels = path("dataset.labels", said.labels)?;
    said.classes = path("dataset.classes", said.classes)?;
    said.list = path("dataset.list", said.list)?;
    // Whoever lists images has chosen them.
    let select =
        file.select.unwrap_or(if row.by_class && said.list.is_none() { SelectBy::Balanced } else { SelectBy::First });
    if file.seed.is_some() && select != SelectBy::Random {
        return Err(wrong.at("dataset.seed", format!("belongs to select = \"random\", found select = \"{select}\"")));
    }
    let seed = (select == SelectBy::Random).then_some(file.seed.unwrap_or(0));
    Ok((DatasetConfig { kind: row.name, said, select, seed, crc32: file.crc32, left_out: file.left_out, open }, row))
}
