//! Labelled images as `(N, H, W, C)` floats in [0, 1], from the formats that evaluation sets come in. A new one is a file and a row of
//! [`SOURCES`].

mod arrays;
mod chosen;
pub mod cifar10;
pub mod cifar100;
pub mod classes;
pub mod dataset;
pub mod decode;
pub mod demo;
pub mod folder;
pub mod grey;
pub mod idx;
pub mod imagenet;
mod labels;
pub mod listing;
mod mat;
mod npy;
mod pickle;
pub mod prepare;
mod prepared;
mod recognise;
pub mod resize;
pub mod saved;
mod skipped;
pub mod source;
mod subset;
mod svhn;
pub mod tensors;
mod tiny_imagenet;
mod torch;
mod unit;
mod webdataset;

use std::path::Path;

use crate::{Error, Result};

pub use dataset::Dataset;
pub use prepared::Pixels;
pub use skipped::Skipped;
pub use source::{Named, Order, Row, Said, Source};
pub use subset::Select;
pub use unit::{to_bytes, unit};

/// Every format there is; the first one is what nothing said means.
pub static SOURCES: [Row; 10] = [
    demo::ROW,
    idx::ROW,
    cifar10::ROW,
    cifar100::ROW,
    svhn::ROW,
    tiny_imagenet::ROW,
    folder::ROW,
    imagenet::ROW,
    webdataset::ROW,
    arrays::ROW,
];

/// The format of this name.
///
/// # Errors
/// [`Error::Usage`] that lists those there are.
pub fn row(name: &str) -> Result<&'static Row> {
    let names = || SOURCES.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
    let found = SOURCES.iter().find(|row| row.name == name);
    found.ok_or_else(|| Error::usage("dataset.kind", format!("expected one of {}, found `{name}`", names())))
}

/// The format of what lies at a path, and what it is told by; `labelled` if there is a file of labels beside it.
///
/// # Errors
/// What lies there and what was expected, in words.
pub fn recognised(path: &Path, labelled: bool) -> Result<(&'static Row, &'static str), String> {
    if let Some(found) = SOURCES.iter().find_map(|row| Some((row, (row.sees)(path, labelled)?))) {
        return Ok(found);
    }
    let found = match path.metadata() {
        Err(e) => return Err(e.to_string()),
        Ok(found) if found.is_file() => match path.extension() {
            Some(_) if decode::is_image(path) => {
                "a single image: expected a folder with one folder of images per class"
            }
            Some(e) if e.eq_ignore_ascii_case("npy") => {
                "an array of images: expected its labels beside it, --labels FILE.npy"
            }
            _ => "a file of no known format",
        },
        Ok(_) => match listing::images(path) {
            Ok((images, _)) if !images.is_empty() => {
                "a folder of images without labels: expected one folder per class, or a file of labels (--labels)"
            }
            _ => "a folder without images",
        },
    };
    let rows = SOURCES.iter().map(|row| format!("{} ({})", row.name, row.help)).collect::<Vec<_>>().join("; ");
    Err(format!("found {found}. Known are: {rows}"))
}

impl Row {
    /// The images that are meant; fills in what was not said.
    ///
    /// # Errors
    /// [`Error::Usage`] for a field that this format does not have, one that it needs, and values that cannot be meant.
    pub fn source(&self, said: &mut Said) -> Result<Box<dyn Source>> {
        if let Some((field, _)) = said.given().into_iter().find(|(field, given)| *given && !self.takes.contains(field))
        {
            let owners: Vec<&str> =
                SOURCES.iter().filter(|row| row.takes.contains(&field)).map(|row| row.name).collect();
            let problem = format!("belongs to kind {}, found kind {}", owners.join(" or "), self.name);
            return Err(Error::usage(format!("dataset.{field}"), problem));
        }
        (self.open)(said)
    }
}
