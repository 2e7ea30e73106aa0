//! Where images come from: what can be said of it, and how a table lists the formats there are.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::dataset::Dataset;
use super::prepare::{Fit, Prepare};
use super::resize::Filter;
use super::subset::Select;
use crate::error::{Error, Result};

/// The largest side that images are resized to.
const MOST: usize = 8192;

/// The fields of the `[dataset]` table that say where images lie and how they are prepared; what is `None` was not said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Said {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<PathBuf>,
    /// A list of classes in place of the format's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<PathBuf>,
    /// A list of images: these alone, in its order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<PathBuf>,
    /// The folders of the classes in the order of their numbers, as an earlier run settled it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_order: Option<Vec<String>>,
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
}

/// The classes of a network, and what to call it.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    pub who: &'a str,
    pub names: &'a [String],
}

/// Classes in the order of their numbers, and where that comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub names: Vec<String>,
    pub why: String,
}

impl Order {
    /// Of labels that are numbers already, where no list names the classes: as settled before, or as a network calls them.
    pub(super) fn of_numbers(listed: bool, settled: Option<&[String]>, known: Option<Named>) -> Option<Order> {
        match (listed, settled, known) {
            (true, ..) => None,
            (false, Some(names), _) => Some(Order { names: names.to_vec(), why: "as class_order says".into() }),
            (false, None, Some(Named { who, names })) => {
                Some(Order { names: names.to_vec(), why: format!("as {who} says") })
            }
            (false, None, None) => None,
        }
    }
}

/// A set of images, found but not read.
pub trait Source: Send + Sync {
    /// Reads at most `limit` images.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Io`] for files that are missing, damaged or of another format.
    fn load(&self, limit: Option<usize>, select: Select) -> Result<Dataset>;

    /// Which number each class has, where the format leaves that open; `known` are the classes of the network that will be run.
    ///
    /// # Errors
    /// [`Error::File`] where what lies there does not fit.
    fn order(&self, known: Option<Named>) -> Result<Option<Order>> {
        let _ = known;
        Ok(None)
    }

    /// Other names of the classes than those that people call them by, where the format has such.
    ///
    /// # Errors
    /// As reading a list of classes.
    fn ids(&self) -> Result<Option<Vec<String>>> {
        Ok(None)
    }

    /// What a user who waits should know before.
    fn note(&self) -> Option<&'static str> {
        None
    }
}

/// A format as the table has it.
pub struct Row {
    pub name: &'static str,
    pub help: &'static str,
    /// The fields of [`Said`] that mean something to it.
    pub takes: &'static [&'static str],
    /// What lies at a path, in words, if that is of this format; whether labels have a file of their own.
    pub sees: fn(&Path, bool) -> Option<&'static str>,
    /// Fills in what is open. Errors name the field (`dataset.size`).
    pub open: fn(&mut Said) -> Result<Box<dyn Source>>,
    /// Whether it lies sorted by class, so that its first images would be of one.
    pub by_class: bool,
    /// Whether the label among the five likeliest classes counts too.
    pub top5: bool,
    /// Images when no limit is said.
    pub limit: usize,
    /// The linf budget, in levels of 255, under which a working attack leaves an undefended network nearly nothing.
    pub breaks_at: u32,
    /// Embedded networks and the denoiser that belong to it.
    pub models: &'static [&'static str],
    pub denoiser: Option<&'static str>,
}

pub(super) fn wrong<T>(field: &str, problem: impl Into<String>) -> Result<T> {
    Err(Error::usage(format!("dataset.{field}"), problem))
}

impl Row {
    /// Whether it is one set that everybody knows by this name, and not a form that any images come in.
    pub fn is_published(&self) -> bool {
        !self.takes.contains(&"class_order")
    }
}

impl Said {
    /// Every field and whether it was said.
    pub fn given(&self) -> [(&'static str, bool); 10] {
        [
            ("path", self.path.is_some()),
            ("images", self.images.is_some()),
            ("labels", self.labels.is_some()),
            ("classes", self.classes.is_some()),
            ("list", self.list.is_some()),
            ("class_order", self.class_order.is_some()),
            ("size", self.size.is_some()),
            ("fit", self.fit.is_some()),
            ("shorter", self.shorter.is_some()),
            ("filter", self.filter.is_some()),
        ]
    }

    /// The folder or file, which this format needs.
    ///
    /// # Errors
    /// [`Error::Usage`] without one.
    pub(super) fn needed_path(&self, what: &str) -> Result<&Path> {
        match &self.path {
            Some(path) => Ok(path),
            None => wrong("path", format!("expected {what}, found none")),
        }
    }

    /// How images of a set that has a size of its own are resized; not at all without a size.
    ///
    /// # Errors
    /// As [`Said::prepare`], and for what belongs to a size where there is none.
    pub(super) fn resized(&mut self) -> Result<Option<Prepare>> {
        let given =
            [("fit", self.fit.is_some()), ("shorter", self.shorter.is_some()), ("filter", self.filter.is_some())];
        match (self.size, given.into_iter().find(|(_, given)| *given)) {
            (None, Some((field, _))) => wrong(field, "nothing is resized: expected dataset.size beside it"),
            (None, None) => Ok(None),
            (Some(_), _) => self.prepare().map(Some),
        }
    }

    /// How images are resized; fills in what is open from what the fit usually goes with.
    ///
    /// # Errors
    /// [`Error::Usage`] for sides that cannot be meant.
    pub(super) fn prepare(&mut self) -> Result<Prepare> {
        let default = if self.fit == Some(Fit::Crop) { Prepare::CROP } else { Prepare::SQUASH };
        let size = self.size.unwrap_or(default.size);
        if size.iter().any(|side| !(1..=MOST).contains(side)) {
            return wrong("size", format!("expected sides of 1 to {MOST} pixels, found {size:?}"));
        }
        let shorter = self.shorter.unwrap_or(default.shorter);
        if shorter == 0 {
            return wrong("shorter", "expected at least 1, found 0");
        }
        if default.fit == Fit::Squash && self.shorter.is_some() {
            return wrong("shorter", "belongs to fit = \"crop\", found fit = \"squash\"");
        }
        if default.fit == Fit::Crop && shorter < size[0].max(size[1]) {
            return wrong("shorter", format!("expected at least the sides of the crop, {size:?}, found {shorter}"));
        }
        let prepare = Prepare { size, shorter, filter: self.filter.unwrap_or(default.filter), ..default };
        self.size = Some(size);
        self.fit = Some(prepare.fit);
        self.shorter = (prepare.fit == Fit::Crop).then_some(shorter);
        self.filter = Some(prepare.filter);
        Ok(prepare)
    }
}
