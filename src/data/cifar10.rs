//! CIFAR-10 in its binary format: records of one label byte and 32x32 pixels, red plane, green plane, blue plane. CIFAR-100 has the same
//! with two labels, see `cifar100.rs`.

use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::classes::Classes;
use super::dataset::{Dataset, check_label};
use super::prepare::Prepare;
use super::prepared::Pixels;
use super::resize::Rgb8;
use super::source::{Row, Said, Source};
use super::subset::Select;
use crate::error::{Error, Result};
use crate::files;

pub const CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;

/// How a set's records are made.
#[derive(Clone, Copy)]
pub(super) struct Form {
    pub name: &'static str,
    /// The file of a folder that is taken.
    pub test: &'static str,
    /// Labels before the pixels, of which the last one counts.
    pub labels: usize,
    pub classes: &'static [&'static str],
}

const FORM: Form = Form { name: "cifar10", test: "test_batch.bin", labels: 1, classes: &CLASSES };

impl Form {
    fn record(self) -> usize {
        self.labels + 3 * PLANE
    }

    fn file(self, path: &Path) -> PathBuf {
        if path.is_dir() { path.join(self.test) } else { path.to_owned() }
    }

    /// Whether a path is of this form, by the length of the file.
    pub fn sees(self, path: &Path) -> bool {
        let file = self.file(path);
        file.extension().is_some_and(|e| e == "bin")
            && file.metadata().is_ok_and(|m| m.is_file() && m.len() > 0 && m.len() % self.record() as u64 == 0)
    }

    /// The images that are meant.
    pub fn open(self, said: &mut Said) -> Result<Box<dyn Source>> {
        let path = said.needed_path(&format!("a .bin file or the folder of {}", self.test))?.to_owned();
        Ok(Box::new(Binary { form: self, path, classes: said.classes.clone(), prepare: said.resized()? }))
    }
}

/// What both sets take.
pub(super) const TAKES: &[&str] = &["path", "classes", "size", "fit", "shorter", "filter"];

pub const ROW: Row = Row {
    name: "cifar10",
    help: "the binary version of CIFAR-10: a .bin file, or the folder with test_batch.bin; with `size` images are resized",
    takes: TAKES,
    sees: |path, _| FORM.sees(path).then_some("records of CIFAR-10"),
    open: |said| FORM.open(said),
    by_class: false,
    top5: false,
    limit: 1000,
    breaks_at: 16,
    models: &[],
    denoiser: None,
};

struct Binary {
    form: Form,
    path: PathBuf,
    classes: Option<PathBuf>,
    prepare: Option<Prepare>,
}

impl Source for Binary {
    fn load(&self, limit: Option<usize>, select: Select) -> Result<Dataset> {
        let file = self.form.file(&self.path);
        let classes = Classes::or(self.classes.as_deref(), self.form.classes)?;
        decode((self.form, classes), &file, files::open(&file, "read")?, limit, select, self.prepare)
    }

    fn ids(&self) -> Result<Option<Vec<String>>> {
        Classes::ids_of(self.classes.as_deref())
    }
}

/// A `.bin` file, or the test set `test_batch.bin` of a folder; with `prepare`, images are resized in 8 bits.
///
/// # Errors
/// [`Error::File`] when the file is empty, is no whole number of records or has a label outside 0 to 9; [`Error::Io`]
/// when it cannot be read.
pub fn load(path: &Path, limit: Option<usize>, select: Select, prepare: Option<Prepare>) -> Result<Dataset> {
    let file = FORM.file(path);
    let named = (FORM, Classes::or(None, FORM.classes)?);
    decode(named, &file, files::open(&file, "read")?, limit, select, prepare)
}

/// Images of a file at most: far more than any set has, and no file of zeros without end.
const MOST: u64 = 1 << 23;

/// Reads the labels, and of the pixels only those of the images that are kept.
pub(super) fn decode(
    (form, classes): (Form, Classes),
    file: &Path,
    mut from: impl Read + Seek,
    limit: Option<usize>,
    select: Select,
    prepare: Option<Prepare>,
) -> Result<Dataset> {
    let io = |e| Error::io(file, "read", e);
    let length = from.seek(SeekFrom::End(0)).map_err(io)?;
    from.rewind().map_err(io)?;
    let bytes = form.record();
    let over = length % bytes as u64;
    if length == 0 || over != 0 {
        let problem = format!("expected records of {bytes} bytes, found {length} bytes, {over} too many");
        return Err(Error::file(file, problem));
    }
    let count = length / bytes as u64;
    if count > MOST {
        return Err(Error::file(file, format!("expected at most {MOST} images, found {count}")));
    }
    let mut reader = BufReader::with_capacity(1 << 20, from);
    let (mut labels, mut record) = (Vec::new(), vec![0; bytes]);
    for i in 0..count as usize {
        reader.read_exact(&mut record).map_err(io)?;
        labels.push(check_label(file, i, record[form.labels - 1], classes.len())?);
    }
    let keep = select.indices(&labels, limit);
    let mut records = Vec::new();
    for &i in &keep {
        reader.seek(SeekFrom::Start((i * bytes) as u64)).map_err(io)?;
        reader.read_exact(&mut record).map_err(io)?;
        records.push(record.clone());
    }
    let image = |record: Vec<u8>| {
        let planes = &record[form.labels..];
        let pixels = (0..3 * PLANE).map(|at| planes[at % 3 * PLANE + at / 3]).collect();
        Rgb8 { height: SIDE, width: SIDE, pixels }
    };
    let (pixels, [height, width]) = Pixels::of(records.into_iter().map(image).collect(), [SIDE, SIDE], prepare);
    Ok(Dataset {
        name: form.name.into(),
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

    use super::*;

    fn records(labels: &[u8]) -> Vec<u8> {
        let record = |&label: &u8| [label].into_iter().chain((0..3 * PLANE).map(move |i| (i / 7) as u8 ^ label));
        labels.iter().flat_map(record).collect()
    }

    fn decode_all(bytes: &[u8]) -> Result<Dataset> {
        decode(
            (FORM, Classes::or(None, &CLASSES)?),
            Path::new("test_batch.bin"),
            Cursor::new(bytes),
            None,
            Select::First,
            None,
        )
    }

    #[test]
    fn planes_become_channels() {
        let bytes = records(&[9, 0, 4]);
        let data = decode_all(&bytes).unwrap();
        assert_eq!((data.len(), data.height, data.width, &data.labels[..]), (3, 32, 32, &[9, 0, 4][..]));
        for (image, y, x, c) in [(0, 0, 0, 0), (1, 3, 30, 1), (2, 31, 31, 2)] {
            let byte = bytes[image * FORM.record() + 1 + c * PLANE + y * SIDE + x];
            assert_eq!(data.image(image).unwrap()[(y * SIDE + x) * 3 + c], f32::from(byte) / 255.0);
        }
    }

    #[test]
    fn images_can_be_enlarged() {
        use crate::data::{prepare::Fit, resize::Filter};
        let prepare = Prepare { fit: Fit::Squash, size: [64, 96], shorter: 64, filter: Filter::Opencv };
        let classes = Classes::or(None, &CLASSES).unwrap();
        let data =
            decode((FORM, classes), Path::new("x"), Cursor::new(records(&[1, 7])), None, Select::First, Some(prepare))
                .unwrap();
        assert_eq!((data.height, data.width, data.image(1).unwrap().len()), (64, 96, 64 * 96 * 3));
        let small = decode_all(&records(&[1, 7])).unwrap();
        let corner = |data: &Dataset| data.image(1).unwrap()[..3].to_vec();
        assert_eq!(corner(&data), corner(&small));
    }

    #[test]
    fn a_limit_keeps_ids_of_the_source() {
        let classes = Classes::or(None, &CLASSES).unwrap();
        let bytes = Cursor::new(records(&[5, 5, 5, 2]));
        let data = decode((FORM, classes), Path::new("x"), bytes, Some(2), Select::Balanced, None).unwrap();
        assert_eq!((&data.ids[..], &data.labels[..]), (&[0, 3][..], &[5, 2][..]));
    }

    #[test]
    fn bad_files_are_errors() {
        let good = records(&[1, 2]);
        for (bytes, expected) in [
            (&good[..good.len() - 1], "found 6145 bytes, 3072 too many"),
            (&[][..], "found 0 bytes"),
            (&records(&[1, 10])[..], "label of image 1: expected 0 to 9, found 10"),
        ] {
            let error = decode_all(bytes).unwrap_err().to_string();
            assert!(error.starts_with("test_batch.bin: ") && error.contains(expected), "{error}");
        }
    }
}
