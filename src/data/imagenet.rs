//! ImageNet's validation set: one folder of images per class, or a flat folder with a file of labels.
//!
//! Classes are numbered by the rank of their WordNet ids. Images are decoded and resized in parallel.

use std::fs;
use std::path::{Path, PathBuf};

use super::chosen::chosen;
use super::classes::{self, Classes, place};
use super::dataset::Dataset;
use super::labels;
use super::listing::{self, name};
use super::prepare::Prepare;
use super::prepared;
pub use super::prepared::HELD;
use super::skipped::Skipped;
use super::source::{self, Row};
use super::subset::Select;
use crate::error::{Error, Result};

pub const ROW: Row = Row {
    name: "imagenet",
    help: "images of any size: one folder per class named by WordNet id, or a flat folder with a file of `labels`",
    takes: &["path", "labels", "classes", "size", "fit", "shorter", "filter", "list"],
    sees: |path, labelled| {
        let (folders, _) = listing::classes(path, &[]).ok()?;
        let known = !folders.is_empty() && folders.iter().all(|f| classes::is_imagenet(f));
        let flat = labelled && folders.is_empty();
        known
            .then_some("folders named by ImageNet's WordNet ids")
            .or(flat.then_some("a folder of images and a file of labels"))
    },
    open: |said| {
        let root = said.needed_path("the folder of images, with labels if it is a flat one")?.to_owned();
        let (labels, classes, list) = (said.labels.clone(), said.classes.clone(), said.list.clone());
        Ok(Box::new(Validation { root, labels, classes, list, prepare: said.prepare()? }))
    },
    by_class: true,
    top5: true,
    limit: 1000,
    breaks_at: 8,
    models: &[],
    denoiser: None,
};

struct Validation {
    root: PathBuf,
    labels: Option<PathBuf>,
    classes: Option<PathBuf>,
    list: Option<PathBuf>,
    prepare: Prepare,
}

impl source::Source for Validation {
    fn load(&self, limit: Option<usize>, select: Select) -> Result<Dataset> {
        let Validation { root, labels, classes, list, prepare } = self;
        let source = Source { root, labels: labels.as_deref(), classes: classes.as_deref(), list: list.as_deref() };
        load(source, *prepare, limit, select, HELD)
    }

    fn ids(&self) -> Result<Option<Vec<String>>> {
        let classes = self.classes.as_deref().map_or_else(|| Ok(Classes::imagenet()), Classes::load)?;
        Ok(Some(classes.ids))
    }

    fn note(&self) -> Option<&'static str> {
        Some("reading every selected image once")
    }
}

/// Where a set lies.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The folder of images or of class folders.
    pub root: &'a Path,
    /// For a flat folder, see `labels.rs`.
    pub labels: Option<&'a Path>,
    /// A list of classes, see [`Classes::load`]; without it those of ImageNet-1k.
    pub classes: Option<&'a Path>,
    /// A list of images, see `chosen.rs`; without it all of them.
    pub list: Option<&'a Path>,
}

/// The selected images, each read once to see that it can be: what cannot is left out, told in [`Dataset::skipped`] and replaced.
///
/// Ids count the images of the whole folder, class by class and by file name.
///
/// # Errors
/// [`Error::File`] when a folder names no class, a file has no label, or no image is readable; [`Error::Io`].
pub fn load(source: Source, prepare: Prepare, limit: Option<usize>, select: Select, held: usize) -> Result<Dataset> {
    let classes = source.classes.map_or_else(|| Ok(Classes::imagenet()), Classes::load)?;
    let found = match source.labels {
        Some(labels) => flat(source.root, labels, &classes)?,
        None => by_class(source, &classes)?,
    };
    read((source.root, found, source.list), classes, prepare, (limit, select), held)
}

/// The selected ones of the images found, prepared.
pub(super) fn read(
    (root, (files, strays), list): (&Path, Found, Option<&Path>),
    classes: Classes,
    prepare: Prepare,
    (limit, select): (Option<usize>, Select),
    held: usize,
) -> Result<Dataset> {
    // The list may lie among the images.
    let own = list.and_then(|list| fs::canonicalize(list).ok());
    let strays: Vec<Skipped> =
        strays.into_iter().filter(|s| own.is_none() || fs::canonicalize(&s.file).ok() != own).collect();
    let (paths, labels): (Vec<PathBuf>, Vec<u32>) = files.into_iter().unzip();
    let ids = chosen(list, &paths)?;
    let (paths, labels): (Vec<PathBuf>, Vec<u32>) = ids.iter().map(|&i| (paths[i].clone(), labels[i])).unzip();
    let (pixels, kept, unreadable) = prepared::read(&paths, &labels, (limit, select), prepare, held);
    if kept.is_empty() {
        let first = unreadable.first().or(strays.first()).map_or(String::new(), |s| format!("; {}", s.problem));
        return Err(Error::file(root, format!("expected readable images, found none{first}")));
    }
    Ok(Dataset {
        name: "imagenet".into(),
        height: prepare.size[0],
        width: prepare.size[1],
        classes: classes.names,
        pixels,
        labels: kept.iter().map(|&i| labels[i]).collect(),
        ids: kept.iter().map(|&i| ids[i] as u64).collect(),
        skipped: [strays, unreadable].concat(),
    })
}

pub(super) type Found = (Vec<(PathBuf, u32)>, Vec<Skipped>);

fn by_class(source: Source, classes: &Classes) -> Result<Found> {
    let own: Vec<&Path> = source.classes.into_iter().chain(source.list).collect();
    let (folders, mut strays) = listing::classes(source.root, &own)?;
    if folders.is_empty() {
        let problem = "expected one folder of images per class, found none; a flat folder needs a file of `labels`";
        return Err(Error::file(source.root, problem));
    }
    let mut files = Vec::new();
    for folder in folders {
        let id = name(&folder);
        let Some(class) = place(&id, &classes.ids) else {
            let first = classes.ids.first().map_or("", String::as_str);
            let problem =
                format!("expected a folder named after one of {} classes, as {first}: see `classes`", classes.len());
            return Err(Error::file(&folder, problem));
        };
        let (images, beside) = listing::images(&folder)?;
        files.extend(images.into_iter().map(|file| (file, class as u32)));
        strays.extend(beside);
    }
    // In the order of the classes, whatever the order of their folders.
    files.sort_by_key(|(_, class)| *class);
    Ok((files, strays))
}

pub(super) fn flat(root: &Path, labels: &Path, classes: &Classes) -> Result<Found> {
    let known = labels::load(labels, classes)?;
    let label = |file: PathBuf| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        match known.get(&name(&file)).or_else(|| known.get(stem.as_ref())) {
            Some(&class) => Ok((file, class)),
            None => Err(Error::file(labels, format!("expected a label of {}, found none", name(&file)))),
        }
    };
    let (images, mut strays) = listing::images(root)?;
    // The table may lie among the images.
    let own = fs::canonicalize(labels).ok();
    strays.retain(|stray| own.is_none() || fs::canonicalize(&stray.file).ok() != own);
    Ok((images.into_iter().map(label).collect::<Result<_>>()?, strays))
}
