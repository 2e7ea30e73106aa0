//! SVHN's cropped digits as its authors publish them: a MAT-file with images `X` and labels `y`.
//!
//! Source: Netzer et al. 2011. The digit 0 has the label 10 there, and here as in torchvision the class 0.

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use super::classes::Classes;
use super::dataset::Dataset;
use super::mat::{self, Array};
use super::prepare::Prepare;
use super::prepared::Pixels;
use super::resize::Rgb8;
use super::source::{Row, Source};
use super::subset::Select;
use crate::error::{Error, Result};
use crate::files;

const CLASSES: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
/// Images of a file at most: the largest of the three has 531,131.
const MOST: u64 = 1 << 23;
/// The file of a folder that is taken.
const TEST: &str = "test_32x32.mat";

pub const ROW: Row = Row {
    name: "svhn",
    help: "the cropped digits of SVHN: a .mat file, or the folder with test_32x32.mat; with `size` images are resized",
    takes: &["path", "classes", "size", "fit", "shorter", "filter"],
    sees: |path, _| {
        let file = file(path);
        let mat = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("mat")) && file.is_file();
        let found = mat.then(|| mat::arrays(&mut files::open(&file, "read").ok()?).ok()).flatten()?;
        pair(&found).is_ok().then_some("the digits of SVHN")
    },
    open: |said| {
        let path = said.needed_path(&format!("a .mat file or the folder of {TEST}"))?.to_owned();
        Ok(Box::new(Digits { path, classes: said.classes.clone(), prepare: said.resized()? }))
    },
    by_class: false,
    top5: false,
    limit: 1000,
    breaks_at: 16,
    models: &[],
    denoiser: None,
};

fn file(path: &Path) -> PathBuf {
    if path.is_dir() { path.join(TEST) } else { path.to_owned() }
}

struct Digits {
    path: PathBuf,
    classes: Option<PathBuf>,
    prepare: Option<Prepare>,
}

impl Source for Digits {
    fn load(&self, limit: Option<usize>, select: Select) -> Result<Dataset> {
        let file = file(&self.path);
        let classes = Classes::or(self.classes.as_deref(), &CLASSES)?;
        let from = files::open(&file, "read")?;
        decode(from, classes, (limit, select), self.prepare).map_err(|problem| Error::file(&file, problem))
    }

    fn ids(&self) -> Result<Option<Vec<String>>> {
        Classes::ids_of(self.classes.as_deref())
    }
}

/// Images, labels, and how many.
fn pair(found: &[Array]) -> Result<(&Array, &Array, u64), String> {
    let of = |name: &str| {
        let names = || found.iter().map(|a| a.name.as_str()).collect::<Vec<_>>().join(", ");
        found.iter().find(|a| a.name == name).ok_or_else(|| format!("expected an array {name}, found {}", names()))
    };
    let (images, labels) = (of("X")?, of("y")?);
    // A last side of 1 is not written.
    let n = match images.dims[..] {
        [32, 32, 3] => 1,
        [32, 32, 3, n] => n,
        _ => return Err(format!("X: expected sides 32, 32, 3 and the number of images, found {:?}", images.dims)),
    };
    if n == 0 || n > MOST {
        return Err(format!("X: expected 1 to {MOST} images, found {n}"));
    }
    if labels.dims.iter().try_fold(1u64, |n, &side| n.checked_mul(side)) != Some(n) {
        return Err(format!("y: expected {n} labels as there are images, found sides {:?}", labels.dims));
    }
    Ok((images, labels, n))
}

fn decode(
    mut from: impl Read + Seek,
    classes: Classes,
    (limit, select): (Option<usize>, Select),
    prepare: Option<Prepare>,
) -> Result<Dataset, String> {
    let found = mat::arrays(&mut from)?;
    let (images, labels, n) = pair(&found)?;
    let label = |(i, value): (usize, f64)| match value {
        10.0 => Ok(0),
        v if v.fract() == 0.0 && (0.0..10.0).contains(&v) => Ok(v as u32),
        v => Err(format!("label of image {i}: expected 0 to 10, found {v}")),
    };
    let labels: Vec<u32> =
        mat::numbers(&mut from, labels, n)?.into_iter().enumerate().map(label).collect::<Result<_, _>>()?;
    if classes.len() != CLASSES.len() {
        return Err(format!("expected a list of 10 classes, found {}", classes.len()));
    }
    let keep = select.indices(&labels, limit);
    let (mut small, mut next, mut wanted) = (Vec::new(), 0, keep.iter().peekable());
    if !keep.is_empty() {
        mat::blocks(&mut from, images, 3 * PLANE, |block| {
            if wanted.next_if(|&&i| i == next).is_some() {
                // Rows vary fastest, then columns, then channels.
                let pixel = |at: usize| block[at % 3 * PLANE + at / 3 % SIDE * SIDE + at / 3 / SIDE];
                small.push(Rgb8 { height: SIDE, width: SIDE, pixels: (0..3 * PLANE).map(pixel).collect() });
            }
            next += 1;
            wanted.peek().is_some()
        })?;
    }
    let (pixels, [height, width]) = Pixels::of(small, [SIDE, SIDE], prepare);
    Ok(Dataset {
        name: ROW.name.into(),
        height,
        width,
        classes: classes.names,
        pixels,
        labels: keep.iter().map(|&i| labels[i]).collect(),
        ids: keep.iter().map(|&i| i as u64).collect(),
        skipped: vec![],
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::mat::tests as written;
    use super::*;

    fn digits(labels: &[u8], packed: bool) -> Vec<u8> {
        let n = labels.len();
        let values: Vec<u8> = (0..n * 3 * PLANE).map(|i| (i % 251) as u8).collect();
        let elements = [
            written::matrix("X", 9, &[32, 32, 3, n as i32], 2, &values),
            written::matrix("y", 6, &[n as i32, 1], 2, labels),
        ];
        written::file(&elements.map(|e| if packed { written::compressed(&e) } else { e }))
    }

    fn load(bytes: &[u8], limit: Option<usize>, select: Select) -> Result<Dataset, String> {
        decode(Cursor::new(bytes), Classes::or(None, &CLASSES).unwrap(), (limit, select), None)
    }

    #[test]
    fn columns_become_rows_and_ten_becomes_nought() {
        for packed in [false, true] {
            let data = load(&digits(&[10, 1, 9, 1], packed), None, Select::First).unwrap();
            assert_eq!((&data.labels[..], data.height, data.width), (&[0, 1, 9, 1][..], 32, 32));
            for (image, y, x, c) in [(0, 0, 0, 0), (1, 3, 30, 1), (3, 31, 31, 2)] {
                let value = (image * 3 * PLANE + c * PLANE + x * SIDE + y) % 251;
                assert_eq!(data.image(image).unwrap()[(y * SIDE + x) * 3 + c], value as f32 / 255.0);
            }
            let two = load(&digits(&[1, 1, 2, 3], packed), Some(3), Select::Balanced).unwrap();
            assert_eq!((&two.ids[..], two.image(2).unwrap()), (&[0, 2, 3][..], data.image(3).unwrap()));
        }
    }

    /// Written by `scipy.io.savemat`; few labels stand within their tag.
    #[test]
    fn files_of_scipy_are_read() {
        let packed = load(include_bytes!("../../fuzz/corpus/mat/packed.mat"), None, Select::First).unwrap();
        let plain = load(include_bytes!("../../fuzz/corpus/mat/plain.mat"), None, Select::First).unwrap();
        assert_eq!((&packed.labels[..], &plain.labels[..]), (&[0, 3][..], &[7][..]));
        assert_eq!(packed.image(0).unwrap(), plain.image(0).unwrap());
        let [y, x, c, image] = [30, 2, 1, 1];
        let value = (((y * SIDE + x) * 3 + c) * 2 + image) % 7;
        assert_eq!(packed.image(image).unwrap()[(y * SIDE + x) * 3 + c], value as f32 / 255.0);
    }

    #[test]
    fn other_arrays_are_refused() {
        let image = |name| written::matrix(name, 9, &[32, 32, 3, 1], 2, &[0; 3 * PLANE]);
        let labels = |values: &[u8]| written::matrix("y", 9, &[values.len() as i32, 1], 2, values);
        for (elements, part) in [
            (vec![image("X")], "expected an array y, found X"),
            (vec![image("x"), labels(&[1; 9])], "expected an array X, found x, y"),
            (vec![image("X"), labels(&[1; 9])], "expected 1 labels"),
        ] {
            let error = load(&written::file(&elements), None, Select::First).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let error = load(&digits(&[1, 11, 2, 3, 4], true), None, Select::First).unwrap_err();
        assert!(error.contains("label of image 1: expected 0 to 10, found 11"), "{error}");
        let cut = digits(&[1, 2, 3, 4, 5], false);
        assert!(load(&cut[..cut.len() - 100], None, Select::First).is_err());
    }

    #[test]
    fn a_file_is_known_by_its_arrays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(TEST);
        std::fs::write(&path, digits(&[1, 2, 3, 4, 5], true)).unwrap();
        assert_eq!((ROW.sees)(dir.path(), false), Some("the digits of SVHN"));
        assert_eq!((ROW.sees)(&path, false), Some("the digits of SVHN"));
        std::fs::write(&path, written::file(&[written::matrix("X", 9, &[2, 4], 2, &[0; 8])])).unwrap();
        assert_eq!((ROW.sees)(&path, false), None);
    }
}
