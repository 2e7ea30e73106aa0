//! The IDX format of MNIST and Fashion-MNIST, plain or gzip.
//!
//! Big-endian u32 words. Images: magic 0x803, count, rows, columns, then one byte per pixel, row by row. Labels: magic
//! 0x801, count, then one byte per image.

use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;

use super::classes::Classes;
use super::dataset::{Dataset, check_label};
use super::prepared::Pixels;
use super::source::{Row, Source, wrong};
use super::subset::Select;
use super::unit::unit;
use crate::error::{Error, Result};
use crate::files;

/// The classes of Fashion-MNIST.
pub const FASHION: [&str; 10] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

pub const ROW: Row = Row {
    name: "fashion-mnist",
    help: "IDX files, plain or gzip: the test set in the folder `path`, or `images` and `labels`",
    takes: &["path", "images", "labels", "classes", "size"],
    sees: |path, _| {
        let there = |name: &str| ["", ".gz"].iter().any(|end| path.join(format!("{name}{end}")).is_file());
        (there(TEST.0) && there(TEST.1)).then_some("the test set as IDX files")
    },
    open: |said| {
        let place = match (&said.path, &said.images, &said.labels) {
            (Some(dir), None, None) => Place::Folder(dir.clone()),
            (None, Some(images), Some(labels)) => Place::Files(images.clone(), labels.clone()),
            _ => return wrong("path", "expected either path, or images and labels"),
        };
        let padded = match said.size {
            None | Some(PADDED) => true,
            Some(PLAIN) => false,
            Some(size) => return wrong("size", format!("expected {PLAIN:?} or {PADDED:?}, found {size:?}")),
        };
        // What the images have anyway.
        said.size = said.size.filter(|_| !padded);
        Ok(Box::new(Idx { place, classes: said.classes.clone(), padded }))
    },
    by_class: false,
    top5: false,
    limit: 1000,
    breaks_at: 16,
    models: &[],
    denoiser: None,
};

/// The files of a published test set: images, labels.
const TEST: (&str, &str) = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte");

enum Place {
    Folder(PathBuf),
    Files(PathBuf, PathBuf),
}

struct Idx {
    place: Place,
    classes: Option<PathBuf>,
    /// Whether 28x28 becomes 32x32.
    padded: bool,
}

/// Sides of the published images, and with zeros around them.
const PLAIN: [usize; 2] = [28, 28];
const PADDED: [usize; 2] = [32, 32];

impl Source for Idx {
    fn load(&self, limit: Option<usize>, select: Select) -> Result<Dataset> {
        let classes = Classes::or(self.classes.as_deref(), &FASHION)?;
        let (images, labels) = match &self.place {
            Place::Folder(dir) => test_set(dir)?,
            Place::Files(images, labels) => (images.clone(), labels.clone()),
        };
        decode((&images, open(&images)?), (&labels, open(&labels)?), classes, (limit, select), self.padded)
    }

    fn ids(&self) -> Result<Option<Vec<String>>> {
        Classes::ids_of(self.classes.as_deref())
    }
}

const IMAGES: u32 = 0x803;
const LABELS: u32 = 0x801;
/// Images and pixels of a side at most: what a file of a few bytes may say of itself is more than memory holds.
const MOST: u32 = 1 << 23;
const SIDE: u32 = 2048;

/// The files of the test set in `dir`, under the names it is published with: images, labels.
fn test_set(dir: &Path) -> Result<(PathBuf, PathBuf)> {
    let find = |name: &str| {
        let candidates = [dir.join(name), dir.join(format!("{name}.gz"))];
        candidates.into_iter().find(|path| path.is_file()).ok_or_else(|| {
            Error::file(
                dir,
                format!("expected {name} or {name}.gz in this folder; other names go into `images` and `labels`"),
            )
        })
    };
    Ok((find(TEST.0)?, find(TEST.1)?))
}

/// Grey images and their labels. Each pixel is repeated in three channels; 28x28 becomes 32x32 with zeros around it.
///
/// # Errors
/// [`Error::File`] on a wrong magic number, a truncated or overlong file, damaged gzip, counts that differ or a label
/// outside 0 to 9; [`Error::Io`] when a file cannot be read.
pub fn load(images: &Path, labels: &Path, limit: Option<usize>, select: Select) -> Result<Dataset> {
    decode((images, open(images)?), (labels, open(labels)?), Classes::or(None, &FASHION)?, (limit, select), true)
}

type Named<'a> = (&'a Path, Box<dyn Read + 'a>);

/// As [`load`], from anything that reads and with labels of these classes; the paths only name the two in errors.
pub(super) fn decode(
    images: Named,
    labels: Named,
    classes: Classes,
    (limit, select): (Option<usize>, Select),
    padded: bool,
) -> Result<Dataset> {
    let ((image_file, mut images_reader), (label_file, mut labels)) = (images, labels);
    let [count, rows, cols] = header(image_file, &mut images_reader, IMAGES)?;
    let pixels = u64::from(rows) * u64::from(cols);
    if pixels == 0 || count == 0 {
        return Err(Error::file(
            image_file,
            format!("expected at least one pixel, found {count} images of {rows}x{cols}"),
        ));
    }
    if rows > SIDE || cols > SIDE || count > MOST {
        let found = format!("{count} images of {rows}x{cols} are too many or too large");
        return Err(Error::file(image_file, format!("{found}: expected at most {MOST} of at most {SIDE}x{SIDE}")));
    }

    let [label_count] = header(label_file, &mut labels, LABELS)?;
    if label_count != count {
        let problem =
            format!("expected {count} labels, as many as images in {}, found {label_count}", image_file.display());
        return Err(Error::file(label_file, problem));
    }
    let labels = read_exactly(label_file, &mut labels, "labels", label_count.into())?;
    let check = |(i, &label)| check_label(label_file, i, label, classes.len());
    let labels = labels.iter().enumerate().map(check).collect::<Result<Vec<u32>>>()?;

    let (rows, cols) = (rows as usize, cols as usize);
    let pad = if padded && [rows, cols] == PLAIN { 2 } else { 0 };
    let keep = select.indices(&labels, limit);
    // Every image passes, to the end of the file, where gzip has its checksum; what is kept is what was asked for.
    let what = format!("{count} images of {rows}x{cols}");
    let mut passing = Passing { file: image_file, what: &what, expected: pixels * u64::from(count), read: 0 };
    let (mut grey, mut images, mut kept) = (vec![0; rows * cols], Vec::new(), keep.iter().peekable());
    for i in 0..count as usize {
        passing.fill(&mut images_reader, &mut grey)?;
        if kept.next_if_eq(&&i).is_some() {
            images.extend(expand(&grey, cols, pad));
        }
    }
    passing.end(&mut images_reader)?;
    Ok(Dataset {
        name: "fashion-mnist".into(),
        height: rows + 2 * pad,
        width: cols + 2 * pad,
        classes: classes.names,
        pixels: Pixels::Floats(images),
        labels: keep.iter().map(|&i| labels[i]).collect(),
        ids: keep.iter().map(|&i| i as u64).collect(),
        skipped: vec![],
    })
}

/// Grey bytes `(H, W)` to `(H + 2 pad, W + 2 pad, 3)`.
fn expand(grey: &[u8], width: usize, pad: usize) -> Vec<f32> {
    let (height, wide) = (grey.len() / width, width + 2 * pad);
    let mut out = vec![0.0; (height + 2 * pad) * wide * 3];
    for (y, row) in grey.chunks_exact(width).enumerate() {
        let at = ((y + pad) * wide + pad) * 3;
        for (pixel, &byte) in out[at..].chunks_exact_mut(3).zip(row) {
            pixel.fill(unit(byte));
        }
    }
    out
}

/// The pixels of all images, one after the other.
struct Passing<'a> {
    file: &'a Path,
    what: &'a str,
    expected: u64,
    read: u64,
}

impl Passing<'_> {
    fn fill(&mut self, reader: &mut impl Read, image: &mut [u8]) -> Result<()> {
        let mut at = 0;
        while at < image.len() {
            match reader.read(&mut image[at..]) {
                Ok(0) => {
                    let (expected, what, found) = (self.expected, self.what, self.read);
                    let problem = format!("truncated: expected {expected} bytes of {what}, found {found}");
                    return Err(Error::file(self.file, problem));
                }
                Ok(n) => (at, self.read) = (at + n, self.read + n as u64),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(read_error(self.file, e)),
            }
        }
        Ok(())
    }

    fn end(&self, reader: &mut impl Read) -> Result<()> {
        let mut more = Vec::new();
        reader.take(1).read_to_end(&mut more).map_err(|e| read_error(self.file, e))?;
        match more.is_empty() {
            true => Ok(()),
            false => {
                let problem = format!("too long: expected {} bytes of {}, found more", self.expected, self.what);
                Err(Error::file(self.file, problem))
            }
        }
    }
}

/// Opens a file; what is gzip by name or by content is unpacked.
fn open(path: &Path) -> Result<Box<dyn Read>> {
    let named = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
    let file = || files::open(path, "open");
    let mut start = Vec::new();
    file()?.take(2).read_to_end(&mut start).map_err(|e| Error::io(path, "read", e))?;
    let reader = BufReader::new(file()?);
    if named || start == [0x1f, 0x8b] { Ok(Box::new(GzDecoder::new(reader))) } else { Ok(Box::new(reader)) }
}

/// Reads what is left of `reader`, which should be `expected` bytes. `what` names them in the error.
fn read_exactly(file: &Path, reader: &mut impl Read, what: &str, expected: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One byte more than wanted: it shows what is too long, and at the end gzip compares its checksum.
    reader.take(expected.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| read_error(file, e))?;
    match bytes.len() as u64 {
        found if found < expected => {
            Err(Error::file(file, format!("truncated: expected {expected} bytes of {what}, found {found}")))
        }
        found if found > expected => {
            Err(Error::file(file, format!("too long: expected {expected} bytes of {what}, found more")))
        }
        _ => Ok(bytes),
    }
}

/// Tells a damaged file from one that the operating system will not read.
fn read_error(file: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::file(file, format!("damaged or truncated gzip data: {error}"))
        }
        _ => Error::io(file, "read", error),
    }
}

/// The magic number, then `N` words.
fn header<const N: usize>(file: &Path, reader: &mut impl Read, magic: u32) -> Result<[u32; N]> {
    let mut bytes = Vec::new();
    let length = 4 * (N + 1);
    reader.take(length as u64).read_to_end(&mut bytes).map_err(|e| read_error(file, e))?;
    let mut words = bytes.chunks_exact(4).map(|w| u32::from_be_bytes([w[0], w[1], w[2], w[3]]));
    let found = words.next();
    if let Some(found) = found.filter(|&found| found != magic) {
        return Err(Error::file(file, format!("magic number: expected {magic:#010x}, found {found:#010x}")));
    }
    let words: Vec<u32> = words.collect();
    words.try_into().map_err(|_| {
        Error::file(file, format!("truncated: expected a header of {length} bytes, found {}", bytes.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn images(count: u32, rows: u32, cols: u32, bytes: usize) -> Vec<u8> {
        let mut file: Vec<u8> = [IMAGES, count, rows, cols].iter().flat_map(|w| w.to_be_bytes()).collect();
        file.extend((0..bytes).map(|i| (i % 251) as u8));
        file
    }

    fn labels(values: &[u8]) -> Vec<u8> {
        let mut file: Vec<u8> = [LABELS, values.len() as u32].iter().flat_map(|w| w.to_be_bytes()).collect();
        file.extend(values);
        file
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), Default::default());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    }

    fn load_bytes(images: &[u8], labels: &[u8], suffix: &str) -> Result<Dataset> {
        let dir = tempfile::tempdir().unwrap();
        let (i, l) = (dir.path().join(format!("images{suffix}")), dir.path().join(format!("labels{suffix}")));
        std::fs::write(&i, images).unwrap();
        std::fs::write(&l, labels).unwrap();
        load(&i, &l, None, Select::First)
    }

    fn problem(images: &[u8], labels: &[u8], suffix: &str) -> String {
        load_bytes(images, labels, suffix).unwrap_err().to_string()
    }

    #[test]
    fn pads_28_to_32_and_repeats_channels() {
        let data = load_bytes(&images(2, 28, 28, 2 * 784), &labels(&[3, 9]), "").unwrap();
        assert_eq!((data.len(), data.height, data.width, &data.labels[..]), (2, 32, 32, &[3, 9][..]));
        let at = |i, y: usize, x: usize| data.image(i).unwrap()[(y * 32 + x) * 3..][..3].to_vec();
        let byte = |i: usize, y: usize, x: usize| unit(((i * 784 + y * 28 + x) % 251) as u8);
        assert_eq!(at(0, 1, 16), [0.0; 3]);
        assert_eq!(at(1, 31, 31), [0.0; 3]);
        assert_eq!(at(0, 2, 3), [byte(0, 0, 1); 3]);
        assert_eq!(at(1, 29, 29), [byte(1, 27, 27); 3]);
    }

    #[test]
    fn gzip_equals_plain_and_is_known_by_content_too() {
        let (i, l) = (images(3, 5, 7, 105), labels(&[0, 1, 2]));
        let plain = load_bytes(&i, &l, "").unwrap();
        assert_eq!((plain.height, plain.width), (5, 7));
        assert_eq!(load_bytes(&gzip(&i), &gzip(&l), ".gz").unwrap(), plain);
        assert_eq!(load_bytes(&gzip(&i), &gzip(&l), "").unwrap(), plain);
    }

    #[test]
    fn bad_files_are_named_with_found_and_expected() {
        let (i, l) = (images(2, 4, 4, 32), labels(&[0, 1]));
        let cases = [
            (problem(&images(2, 4, 4, 31), &l, ""), "images", "expected 32 bytes of 2 images of 4x4, found 31"),
            (problem(&images(2, 4, 4, 33), &l, ""), "images", "too long"),
            (problem(&i[..9], &l, ""), "images", "expected a header of 16 bytes, found 9"),
            (problem(&[], &l, ""), "images", "found 0"),
            (problem(&l, &l, ""), "images", "expected 0x00000803, found 0x00000801"),
            (problem(&i, &labels(&[0, 1, 2]), ""), "labels", "expected 2 labels"),
            (problem(&i, &labels(&[0, 10]), ""), "labels", "label of image 1: expected 0 to 9, found 10"),
            (problem(&i, &l[..9], ""), "labels", "expected 2 bytes of labels, found 1"),
            (problem(&images(0, 4, 4, 0), &labels(&[]), ""), "images", "0 images"),
            (problem(&images(u32::MAX, u32::MAX, u32::MAX, 9), &l, ""), "images", "too many"),
            (problem(&images(1, 60_000, 60_000, 9), &l, ""), "images", "of at most 2048x2048"),
            (problem(&images(1 << 24, 1, 1, 9), &l, ""), "images", "at most 8388608"),
            (problem(b"garbage, no gzip at all", &gzip(&l), ".gz"), "images.gz", "gzip"),
            (problem(&gzip(&i)[..20], &gzip(&l), ".gz"), "images.gz", "gzip"),
        ];
        for (message, file, expected) in cases {
            assert!(message.contains(expected) && message.contains(file), "{message} | {file} | {expected}");
        }
    }

    #[test]
    fn a_flipped_bit_in_gzip_is_found() {
        let (i, l) = (images(2, 4, 4, 32), labels(&[0, 1]));
        let mut gz = gzip(&i);
        let crc = gz.len() - 8;
        gz[crc] ^= 1;
        assert!(problem(&gz, &gzip(&l), ".gz").contains("gzip"));
    }

    #[test]
    fn a_missing_set_says_what_was_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let error = test_set(dir.path()).unwrap_err().to_string();
        assert!(error.contains("t10k-images-idx3-ubyte.gz"), "{error}");
        assert!(matches!(load(&dir.path().join("none"), dir.path(), None, Select::First), Err(Error::Io { .. })));
    }
}
