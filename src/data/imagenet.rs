//! ImageNet's validation set: one folder of images per class, or a flat folder with a file of labels.
//!
//! Classes are numbered by the rank of their WordNet ids. Images are decoded and resized in parallel.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::decode::is_image;
use super::folder::{list, name};
use super::resize::{Filter, Rgb8, centre_crop, resize, shorter_side};
use super::{Dataset, Select, prepared};
use crate::choice::choice;
use crate::error::{Error, Result};

choice! {
    /// How an image of any size becomes one of the network's.
    Fit {
        /// Both sides are resized, whatever the aspect ratio.
        Squash = "squash",
        /// The shorter side is resized, then the centre is cut out.
        Crop = "crop",
    }
}

/// How files become images of one size, in 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepare {
    pub fit: Fit,
    /// Height and width of the result.
    pub size: [usize; 2],
    /// Length of the shorter side before the crop, at least that of both sides of the result; unused by [`Fit::Squash`].
    pub shorter: usize,
    pub filter: Filter,
}

impl Prepare {
    /// What timm gives a network for 384x384 pixels with `crop_mode` squash.
    pub const SQUASH: Prepare = Prepare { fit: Fit::Squash, size: [384, 384], shorter: 384, filter: Filter::Bicubic };
    /// What torchvision gives a ResNet-50.
    pub const CROP: Prepare = Prepare { fit: Fit::Crop, size: [224, 224], shorter: 256, filter: Filter::Bilinear };

    /// What timm gives a network for images of this size that wants all of the image, or else its centre.
    pub fn at(size: [usize; 2], fit: Fit) -> Prepare {
        Prepare { fit, size, shorter: size[0].max(size[1]), filter: Filter::Bicubic }
    }

    /// The image at the size wanted.
    pub fn apply(&self, image: &Rgb8) -> Rgb8 {
        let [height, width] = self.size;
        match self.fit {
            Fit::Squash => resize(image, height, width, self.filter),
            Fit::Crop => {
                let (h, w) = shorter_side(image.height, image.width, self.shorter);
                centre_crop(&resize(image, h, w, self.filter), height, width)
            }
        }
    }

    pub(super) fn image_len(&self) -> usize {
        self.size[0] * self.size[1] * 3
    }
}

/// The classes of a set, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Classes {
    /// What folders and files of labels call them.
    ids: Vec<String>,
    names: Vec<String>,
}

impl Classes {
    /// The 1000 of ImageNet-1k, by WordNet id; the names are WordNet's (licence in `assets/imagenet/COPYRIGHT`).
    pub fn imagenet() -> Self {
        Self::parse(include_str!("../../assets/imagenet/classes.txt"))
    }

    /// One class per line: a WordNet id, and after a space its name. Without such an id the whole line is both.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::File`] for a list that is empty or names an id twice.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| Error::io(path, "read the list of classes", e))?;
        let classes = Self::parse(&text);
        let mut sorted: Vec<&String> = classes.ids.iter().collect();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::file(path, format!("expected every class once, found `{}` twice", pair[0]))),
            None if sorted.is_empty() => Err(Error::file(path, "expected one class per line, found none")),
            None => Ok(classes),
        }
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let split = |line: &str| {
            let (id, name) = match line.split_once(char::is_whitespace) {
                Some((id, name)) if is_wordnet_id(id) => (id, name),
                _ => (line, line),
            };
            (id.to_owned(), name.trim().to_owned())
        };
        let (ids, names) = lines.map(split).unzip();
        Classes { ids, names }
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// In the order of the classes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// By id or by number.
    fn find(&self, text: &str) -> Option<u32> {
        let number = || text.parse::<usize>().ok().filter(|&i| i < self.len());
        self.ids.iter().position(|id| id == text).or_else(number).map(|i| i as u32)
    }
}

fn is_wordnet_id(text: &str) -> bool {
    text.len() == 9 && text.starts_with('n') && text[1..].bytes().all(|b| b.is_ascii_digit())
}

/// Where a set lies.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The folder of images or of class folders.
    pub root: &'a Path,
    /// For a flat folder: lines of a file name, with or without extension, and after a comma or blank a class by id or number.
    /// What follows on a line is ignored, and so is a heading.
    pub labels: Option<&'a Path>,
    /// A list of classes, see [`Classes::load`]; without it those of ImageNet-1k.
    pub classes: Option<&'a Path>,
}

/// Memory that prepared images may take; a larger set is decoded again, batch by batch.
pub const HELD: usize = 2 << 30;

/// The selected images, each read once to see that it can be: what cannot is left out and told in [`Dataset::skipped`].
///
/// Ids count the images of the whole folder, class by class and by file name.
///
/// # Errors
/// [`Error::File`] when a folder names no class, a file has no label, or no image is readable; [`Error::Io`].
pub fn load(source: Source, prepare: Prepare, limit: Option<usize>, select: Select, held: usize) -> Result<Dataset> {
    let classes = source.classes.map_or_else(|| Ok(Classes::imagenet()), Classes::load)?;
    let files = match source.labels {
        Some(labels) => flat(source.root, labels, &classes)?,
        None => by_class(source.root, &classes)?,
    };
    let labels: Vec<u32> = files.iter().map(|(_, label)| *label).collect();
    let chosen = select.indices(&labels, limit);
    let paths = chosen.iter().map(|&i| files[i].0.clone()).collect();
    let (pixels, kept, skipped) = prepared::read(paths, prepare, held);
    if kept.is_empty() {
        let first = skipped.first().map_or(String::new(), |s| format!("; {}", s.problem));
        return Err(Error::file(source.root, format!("expected readable images, found none{first}")));
    }
    let kept: Vec<usize> = kept.iter().map(|&k| chosen[k]).collect();
    Ok(Dataset {
        name: "imagenet".into(),
        height: prepare.size[0],
        width: prepare.size[1],
        classes: classes.names,
        pixels,
        labels: kept.iter().map(|&i| labels[i]).collect(),
        ids: kept.iter().map(|&i| i as u64).collect(),
        skipped,
    })
}

fn by_class(root: &Path, classes: &Classes) -> Result<Vec<(PathBuf, u32)>> {
    let folders: Vec<PathBuf> = list(root)?.into_iter().filter(|path| path.is_dir()).collect();
    if folders.is_empty() {
        let problem = "expected one folder of images per class, found none; a flat folder needs a file of `labels`";
        return Err(Error::file(root, problem));
    }
    let mut files = Vec::new();
    for folder in folders {
        let id = name(&folder);
        let Some(class) = classes.ids.iter().position(|known| *known == id) else {
            let first = classes.ids.first().map_or("", String::as_str);
            let problem =
                format!("expected a folder named after one of {} classes, as {first}: see `classes`", classes.len());
            return Err(Error::file(&folder, problem));
        };
        files.extend(list(&folder)?.into_iter().filter(|file| is_image(file)).map(|file| (file, class as u32)));
    }
    // In the order of the classes, whatever the order of their folders.
    files.sort_by_key(|(_, class)| *class);
    Ok(files)
}

fn flat(root: &Path, labels: &Path, classes: &Classes) -> Result<Vec<(PathBuf, u32)>> {
    let text = fs::read_to_string(labels).map_err(|e| Error::io(labels, "read the labels", e))?;
    let separator = |c: char| c == ',' || c.is_whitespace();
    let mut known = HashMap::new();
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
    for (i, line) in lines {
        let (file, rest) = line.split_once(separator).unwrap_or((line, ""));
        let field = rest.trim_start_matches(separator).split(separator).next().unwrap_or_default();
        match classes.find(field.trim_matches('"')) {
            Some(class) => {
                known.insert(file.trim_matches('"').to_owned(), class);
            }
            None if i == 0 => {}
            None => {
                let problem =
                    format!("line {}: expected a file and one of {} classes, found `{line}`", i + 1, classes.len());
                return Err(Error::file(labels, problem));
            }
        }
    }
    let label = |file: PathBuf| {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        match known.get(&name(&file)).or_else(|| known.get(stem.as_ref())) {
            Some(&class) => Ok((file, class)),
            None => Err(Error::file(labels, format!("expected a label of {}, found none", name(&file)))),
        }
    };
    list(root)?.into_iter().filter(|path| path.is_file() && is_image(path)).map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_of_imagenet_are_sorted_and_named() {
        let classes = Classes::imagenet();
        assert_eq!((classes.len(), classes.find("n01440764"), classes.find("n15075141")), (1000, Some(0), Some(999)));
        assert!(
            classes.ids.windows(2).all(|pair| pair[0] < pair[1]) && classes.names.iter().all(|name| !name.is_empty())
        );
        assert_eq!((classes.names[0].as_str(), classes.find("999"), classes.find("1000")), ("tench", Some(999), None));
    }

    #[test]
    fn a_list_of_classes_has_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("classes.txt");
        let load = |text: &str| {
            fs::write(&path, text).unwrap();
            Classes::load(&path)
        };
        let classes = load("n00000002  two words\n\ngolden retriever\n").unwrap();
        assert_eq!(classes.names, ["two words", "golden retriever"]);
        assert_eq!(["n00000002", "golden retriever", "golden"].map(|id| classes.find(id)), [Some(0), Some(1), None]);
        assert!(load("a\nb\na\n").unwrap_err().to_string().contains("`a` twice"));
        assert!(load("\n").unwrap_err().to_string().contains("found none"));
    }

    #[test]
    fn the_crop_is_cut_out_after_the_resize() {
        let image = Rgb8 { height: 4, width: 6, pixels: (0..72).collect() };
        let prepare = Prepare { fit: Fit::Crop, size: [2, 4], shorter: 4, filter: Filter::Bilinear };
        let cut = prepare.apply(&image);
        assert_eq!((cut.height, cut.width), (2, 4));
        assert_eq!(cut.pixels[..3], image.pixels[(6 + 1) * 3..][..3]);
        let squashed = Prepare { fit: Fit::Squash, ..prepare }.apply(&image);
        assert_eq!((squashed.height, squashed.width), (2, 4));
    }
}
