//! Tiny ImageNet as it is distributed: 200 of ImageNet's classes, images of 64x64, of which those of `val` have their labels in a table.
//!
//! Classes are numbered by the rank of their WordNet ids, as whoever trains on the folders of `train` numbers them; `wnids.txt` is in no
//! order.

use std::path::{Path, PathBuf};

use super::classes::Classes;
use super::dataset::Dataset;
use super::imagenet::{flat, read};
use super::prepare::Prepare;
use super::prepared::HELD;
use super::source::{Row, Source};
use super::subset::Select;
use crate::error::{Error, Result};
use crate::files;

const SIDE: usize = 64;

pub const ROW: Row = Row {
    name: "tiny-imagenet",
    help: "the folder of Tiny ImageNet with val/ and wnids.txt, its validation images; with `size` they are resized",
    takes: &["path", "classes", "size", "fit", "shorter", "filter", "list"],
    sees: |path, _| (ids(path).is_file() && table(path).is_file()).then_some("the folder of Tiny ImageNet"),
    open: |said| {
        let root = said.needed_path("the folder of Tiny ImageNet, with val and wnids.txt")?.to_owned();
        said.size.get_or_insert([SIDE, SIDE]);
        let (classes, list) = (said.classes.clone(), said.list.clone());
        Ok(Box::new(Tiny { root, classes, list, prepare: said.prepare()? }))
    },
    by_class: false,
    top5: false,
    limit: 1000,
    breaks_at: 8,
    models: &[],
    denoiser: None,
};

fn ids(root: &Path) -> PathBuf {
    root.join("wnids.txt")
}

fn table(root: &Path) -> PathBuf {
    root.join("val/val_annotations.txt")
}

struct Tiny {
    root: PathBuf,
    classes: Option<PathBuf>,
    list: Option<PathBuf>,
    prepare: Prepare,
}

impl Tiny {
    fn classes(&self) -> Result<Classes> {
        if let Some(list) = &self.classes {
            return Classes::load(list);
        }
        let mut classes = Classes::load(&ids(&self.root))?;
        classes.ids.sort();
        // Another file says what they are; without it they are called by their ids.
        let words = self.root.join("words.txt");
        let words = if words.is_file() { files::text(&words, "read the names of the classes")? } else { String::new() };
        let name = |id: &String| {
            let line = words.lines().find_map(|line| line.split_once('\t').filter(|(of, _)| of == id));
            line.and_then(|(_, names)| names.split(',').next()).map_or(id.as_str(), str::trim).to_owned()
        };
        classes.names = classes.ids.iter().map(name).collect();
        Ok(classes)
    }
}

impl Source for Tiny {
    fn load(&self, limit: Option<usize>, select: Select) -> Result<Dataset> {
        let images = self.root.join("val/images");
        if !images.is_dir() {
            return Err(Error::file(&self.root, "expected the folder val/images, found none"));
        }
        let classes = self.classes()?;
        let found = flat(&images, &table(&self.root), &classes)?;
        let data = read((&images, found, self.list.as_deref()), classes, self.prepare, (limit, select), HELD)?;
        Ok(Dataset { name: ROW.name.into(), ..data })
    }

    fn ids(&self) -> Result<Option<Vec<String>>> {
        Ok(Some(self.classes()?.ids))
    }

    fn note(&self) -> Option<&'static str> {
        Some("reading every selected image once")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::RgbImage;

    use super::super::source::Said;
    use super::*;

    #[test]
    fn validation_images_have_the_classes_of_the_sorted_ids() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("val/images")).unwrap();
        fs::write(ids(root), "n00000003\nn00000001\nn00000002\n").unwrap();
        fs::write(root.join("words.txt"), "n00000001\tcat, true cat\nn00000009\tdog\nn00000003\temu\n").unwrap();
        fs::write(table(root), "val_0.png\tn00000003\t0\t0\t9\t9\nval_1.png\tn00000001\t1\t2\t3\t4\n").unwrap();
        for i in 0..2u8 {
            let pixel = move |x: u32, y: u32| image::Rgb([i, x as u8, y as u8]);
            RgbImage::from_fn(64, 64, pixel).save(root.join(format!("val/images/val_{i}.png"))).unwrap();
        }
        assert!((ROW.sees)(root, false).is_some());
        let load = |said: Said| {
            let mut said = Said { path: Some(root.to_owned()), ..said };
            (ROW.open)(&mut said).unwrap().load(None, Select::First)
        };
        let data = load(Said::default()).unwrap();
        assert_eq!((&data.labels[..], data.name.as_str()), (&[2, 0][..], "tiny-imagenet"));
        assert_eq!(data.classes, ["cat", "n00000002", "emu"]);
        // Nothing is resized.
        assert_eq!(data.image(1).unwrap()[(3 * 64 + 9) * 3..][..3], [1.0 / 255.0, 9.0 / 255.0, 3.0 / 255.0]);
        let list = root.join("list.txt");
        fs::write(&list, "val_1.png\n").unwrap();
        assert_eq!(load(Said { list: Some(list), ..Said::default() }).unwrap().ids, [1]);
        fs::write(table(root), "val_0.png\tn00000004\nval_1.png\tn00000001\n").unwrap();
        assert!(load(Said::default()).is_err());
    }
}
