//! The `[dataset]` table.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::file;
use super::settings::{DatasetKind, SelectBy};
use super::wrong::Wrong;
use crate::data::imagenet::{self, Source};
use crate::data::prepare::{Fit, Prepare};
use crate::data::resize::Filter;
use crate::data::{self, Dataset, Select};
use crate::error::Result;

/// Where the images come from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DatasetConfig {
    pub kind: DatasetKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// A list of classes in place of ImageNet's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<PathBuf>,
    pub select: SelectBy,
    /// Of a random selection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    /// Height and width: those that every image of a folder must have, or those that images are resized to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<[usize; 2]>,
    /// How images of any size become images of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// The shorter side before a crop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shorter: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
    /// Of the selected images, eight hexadecimal digits; see [`super::Config::pin`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crc32: Option<String>,
}

impl DatasetConfig {
    /// Reads the images, at most `limit`.
    ///
    /// # Errors
    /// As the loaders of [`crate::data`].
    pub fn load(&self, limit: usize) -> Result<Dataset> {
        let (limit, select) = (Some(limit), self.select());
        let path = self.path.as_deref().unwrap_or(Path::new("."));
        match (self.kind, &self.images, &self.labels) {
            (DatasetKind::Demo, ..) => data::demo::dataset(limit, select),
            (DatasetKind::FashionMnist, Some(images), Some(labels)) => data::idx::load(images, labels, limit, select),
            (DatasetKind::FashionMnist, ..) => data::idx::load_dir(path, limit, select),
            (DatasetKind::Cifar10, ..) => data::cifar10::load(path, limit, select, self.prepare()),
            (DatasetKind::Folder, ..) => data::folder::load(path, self.size.map(|[h, w]| (h, w)), limit, select),
            (DatasetKind::Imagenet, _, labels) => {
                let source = Source { root: path, labels: labels.as_deref(), classes: self.classes.as_deref() };
                let prepare = self.prepare().unwrap_or(Prepare::SQUASH);
                imagenet::load(source, prepare, limit, select, imagenet::HELD)
            }
        }
    }

    /// Whether the five likeliest classes are scored too.
    pub fn top5(&self) -> bool {
        self.kind == DatasetKind::Imagenet
    }

    fn select(&self) -> Select {
        match self.select {
            SelectBy::First => Select::First,
            SelectBy::Balanced => Select::Balanced,
            SelectBy::Random => Select::Random(self.seed.unwrap_or(0)),
        }
    }

    fn prepare(&self) -> Option<Prepare> {
        let shorter = self.shorter.unwrap_or(0);
        Some(Prepare { fit: self.fit?, size: self.size?, shorter, filter: self.filter? })
    }
}

pub(super) fn resolve(file: file::Dataset, wrong: &Wrong) -> Result<DatasetConfig> {
    use DatasetKind::{Cifar10, Demo, FashionMnist, Folder, Imagenet};
    let kind = file.kind.unwrap_or(Demo);
    let pair = file.images.is_some() && file.labels.is_some();
    let given = [&file.path, &file.images, &file.labels].into_iter().flatten().count();
    match kind {
        Demo if given == 0 => {}
        FashionMnist if pair && given == 2 => {}
        FashionMnist | Cifar10 | Folder if file.path.is_some() && given == 1 => {}
        Imagenet if file.path.is_some() && file.images.is_none() => {}
        Demo => return Err(wrong.at("dataset", "the demo is embedded: leave out path, images and labels")),
        FashionMnist => return Err(wrong.at("dataset", "expected either path, or images and labels")),
        Cifar10 | Folder => {
            return Err(wrong.at("dataset", format!("expected path and neither images nor labels for {kind}")));
        }
        Imagenet => return Err(wrong.at("dataset", "expected path, with labels if it is a flat folder, and no images")),
    }
    if file.classes.is_some() && kind != Imagenet {
        return Err(wrong.at("dataset.classes", format!("belongs to kind imagenet, found kind {kind}")));
    }
    if file.size.is_some() && !matches!(kind, Folder | Cifar10 | Imagenet) {
        return Err(wrong.at(
            "dataset.size",
            format!("only kinds folder, cifar10 and imagenet have a size to choose, found kind {kind}"),
        ));
    }
    let prepare = resolve_prepare(kind, &file, wrong)?;
    // A folder is sorted by class: its first images would be of one class.
    let by_class = matches!(kind, Folder | Imagenet);
    let select = file.select.unwrap_or(if by_class { SelectBy::Balanced } else { SelectBy::First });
    if file.seed.is_some() && select != SelectBy::Random {
        return Err(wrong.at("dataset.seed", format!("belongs to select = \"random\", found select = \"{select}\"")));
    }
    let path = |field, path: Option<PathBuf>| path.map(|path| wrong.existing(field, &path)).transpose();
    Ok(DatasetConfig {
        kind,
        path: path("dataset.path", file.path)?,
        images: path("dataset.images", file.images)?,
        labels: path("dataset.labels", file.labels)?,
        classes: path("dataset.classes", file.classes)?,
        select,
        seed: (select == SelectBy::Random).then_some(file.seed.unwrap_or(0)),
        size: prepare.map(|p| p.size).or(file.size),
        fit: prepare.map(|p| p.fit),
        shorter: prepare.filter(|p| p.fit == Fit::Crop).map(|p| p.shorter),
        filter: prepare.map(|p| p.filter),
        crc32: file.crc32,
    })
}

/// How images are resized: always for ImageNet, for CIFAR-10 where a size is given.
fn resolve_prepare(kind: DatasetKind, file: &file::Dataset, wrong: &Wrong) -> Result<Option<Prepare>> {
    let resizes = kind == DatasetKind::Imagenet || (kind == DatasetKind::Cifar10 && file.size.is_some());
    if !resizes {
        let fields =
            [("fit", file.fit.is_some()), ("shorter", file.shorter.is_some()), ("filter", file.filter.is_some())];
        return match fields.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(wrong
                .at(&format!("dataset.{name}"), "nothing is resized: expected kind imagenet, or cifar10 with a size")),
            None => Ok(None),
        };
    }
    let default = if file.fit == Some(Fit::Crop) { Prepare::CROP } else { Prepare::SQUASH };
    let size = file.size.unwrap_or(default.size);
    if size.iter().any(|side| !(1..=8192).contains(side)) {
        return Err(wrong.at("dataset.size", format!("expected sides of 1 to 8192 pixels, found {size:?}")));
    }
    let shorter = wrong.at_least_one("dataset.shorter", file.shorter.unwrap_or(default.shorter))?;
    if default.fit == Fit::Squash && file.shorter.is_some() {
        return Err(wrong.at("dataset.shorter", "belongs to fit = \"crop\", found fit = \"squash\""));
    }
    if default.fit == Fit::Crop && shorter < size[0].max(size[1]) {
        return Err(
            wrong.at("dataset.shorter", format!("expected at least the sides of the crop, {size:?}, found {shorter}"))
        );
    }
    Ok(Some(Prepare { size, shorter, filter: file.filter.unwrap_or(default.filter), ..default }))
}
