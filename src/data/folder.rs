//! A folder with one folder of images per class. Classes are numbered in the sorted order of their folder names.

use std::path::{Path, PathBuf};

use super::dataset::Dataset;
use super::decode::decode;
use super::listing::{list, name};
use super::prepared::Pixels;
use super::source::{Row, Source};
use super::subset::Select;
use super::unit::unit;
use crate::error::{Error, Result};

pub const ROW: Row = Row {
    name: "folder",
    help: "one folder of images per class below `path`, all images of one size",
    takes: &["path", "size"],
    open: |said| {
        let path = said.needed_path("a folder with one folder of images per class")?.to_owned();
        Ok(Box::new(Folder { path, size: said.size }))
    },
    by_class: true,
    top5: false,
    limit: 1000,
    breaks_at: 16,
    models: &[],
    denoiser: None,
};

struct Folder {
    path: PathBuf,
    size: Option<[usize; 2]>,
}

impl Source for Folder {
    fn load(&self, limit: Option<usize>, select: Select) -> Result<Dataset> {
        load(&self.path, self.size.map(|[h, w]| (h, w)), limit, select)
    }
}

/// All images below `dir`, class by class, each class in the sorted order of its file names. Only the selected files
/// are decoded, as [`decode`] does.
///
/// Names that start with a dot are skipped, and so are files beside the class folders. `size` is the `(height, width)`
/// that every image must have; without it the first image decides.
///
/// # Errors
/// [`Error::File`] when there is no class or no image, a file is no image, or its size differs; [`Error::Io`] when
/// something cannot be read.
pub fn load(dir: &Path, size: Option<(usize, usize)>, limit: Option<usize>, select: Select) -> Result<Dataset> {
    let folders: Vec<PathBuf> = list(dir)?.into_iter().filter(|path| path.is_dir()).collect();
    if folders.is_empty() {
        return Err(Error::file(dir, "expected one folder of images per class, found none"));
    }
    let (mut files, mut labels) = (Vec::new(), Vec::new());
    for (class, folder) in folders.iter().enumerate() {
        let images = list(folder)?;
        labels.resize(labels.len() + images.len(), class as u32);
        files.extend(images);
    }
    if files.is_empty() {
        return Err(Error::file(dir, format!("expected images in {} class folders, found none", folders.len())));
    }

    let keep = select.indices(&labels, limit);
    let (mut images, mut expected) = (Vec::new(), size);
    for &i in &keep {
        let image = decode(&files[i])?;
        let found = (image.height, image.width);
        let (height, width) = *expected.get_or_insert(found);
        if found != (height, width) {
            let problem = format!("expected {height}x{width} pixels (height x width), found {}x{}", found.0, found.1);
            return Err(Error::file(&files[i], problem));
        }
        images.extend(image.pixels.into_iter().map(unit));
    }
    let (height, width) = expected.unwrap_or_default();
    Ok(Dataset {
        name: name(dir),
        height,
        width,
        classes: folders.iter().map(|folder| name(folder)).collect(),
        pixels: Pixels::Floats(images),
        labels: keep.iter().map(|&i| labels[i]).collect(),
        ids: keep.iter().map(|&i| i as u64).collect(),
        skipped: vec![],
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use image::{GrayImage, RgbImage};

    fn rgb(path: &Path, width: u32, height: u32, value: u8) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        RgbImage::from_fn(width, height, |x, y| image::Rgb([value, x as u8, y as u8])).save(path).unwrap();
    }

    fn load_all(dir: &Path) -> Result<Dataset> {
        load(dir, None, None, Select::First)
    }

    #[test]
    fn classes_and_files_are_sorted() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("set");
        rgb(&root.join("zebra/1.png"), 5, 3, 30);
        rgb(&root.join("ape/b.bmp"), 5, 3, 20);
        rgb(&root.join("ape/a.PNG"), 5, 3, 10);
        fs::write(root.join("README.txt"), "not a class").unwrap();
        fs::write(root.join("ape/.DS_Store"), "hidden").unwrap();
        let data = load_all(&root).unwrap();
        assert_eq!((data.name.as_str(), data.height, data.width), ("set", 3, 5));
        assert_eq!((&data.classes[..], &data.labels[..]), (&["ape".to_string(), "zebra".into()][..], &[0, 0, 1][..]));
        assert_eq!(data.image(2).unwrap()[(2 * 5 + 4) * 3..], [unit(30), unit(4), unit(2)]);
        let one = load(&root, Some((3, 5)), Some(2), Select::Balanced).unwrap();
        assert_eq!((&one.ids[..], one.image(1).unwrap()), (&[0, 2][..], data.image(2).unwrap()));
    }

    #[test]
    fn grey_is_repeated() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        GrayImage::from_pixel(2, 2, image::Luma([51])).save(dir.path().join("a/g.png")).unwrap();
        assert_eq!(load_all(dir.path()).unwrap().image(0).unwrap(), [0.2; 12]);
    }

    #[test]
    fn bad_folders_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let message = |size| load(dir.path(), size, None, Select::First).unwrap_err().to_string();
        assert!(message(None).contains("one folder of images per class"));
        fs::create_dir(dir.path().join("a")).unwrap();
        assert!(message(None).contains("found none"));
        rgb(&dir.path().join("a/1.png"), 4, 4, 0);
        rgb(&dir.path().join("a/2.png"), 4, 5, 0);
        assert!(message(None).contains("2.png: expected 4x4 pixels (height x width), found 5x4"));
        assert!(message(Some((9, 9))).contains("1.png: expected 9x9"));
        fs::write(dir.path().join("a/0.png"), "no image").unwrap();
        assert!(message(None).contains("0.png: not a readable image"));
        fs::write(dir.path().join("a/0.txt"), "").unwrap();
        fs::remove_file(dir.path().join("a/0.png")).unwrap();
        assert!(message(None).contains("0.txt: expected an image"));
        assert!(matches!(load_all(&dir.path().join("none")), Err(Error::Io { .. })));
    }
}
