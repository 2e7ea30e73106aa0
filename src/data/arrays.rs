//! Images and labels as arrays: a `.npz`, two `.npy`, safetensors of two tensors, or a dictionary of them that torch.save wrote. Arrays
//! are read one image at a time, and only the images that are taken are kept.
//!
//! Source of the format: NumPy's NEP 1.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use safetensors::Dtype;
use zip::ZipArchive;

use super::classes::{self, Classes};
use super::dataset::Dataset;
use super::npy::{self, Header};
use super::prepared::{self, Pixels, RGB};
use super::source::{Named, Order, Row, Source, wrong};
use super::subset::Select;
use super::tensors::TensorFile;
use crate::error::{Error, Result};
use crate::files;

pub const ROW: Row = Row {
    name: "arrays",
    help: "a .npz, .safetensors or .pt of images and labels, or two .npy (`images`, `labels`): uint8, or floats in [0, 1], NHWC or NCHW",
    takes: &["path", "images", "labels", "classes", "class_order"],
    sees: |path, labelled| {
        let is = |e: &str| path.is_file() && path.extension().is_some_and(|own| own.eq_ignore_ascii_case(e));
        match labelled {
            true => is("npy").then_some("an array of images, labels beside it"),
            false => ["npz", "safetensors", "pt"].iter().any(|e| is(e)).then_some("arrays of images and labels"),
        }
    },
    open: |said| {
        let files = match (&said.path, &said.images, &said.labels) {
            (Some(path), None, None) => (path.clone(), path.clone()),
            (None, Some(images), Some(labels)) => (images.clone(), labels.clone()),
            (Some(_), ..) => return wrong("path", "expected `path`, or `images` and `labels`, found both"),
            (None, None, _) => {
                return wrong("path", "expected a .npz, .safetensors or .pt; or `images` and `labels`, found none");
            }
            (None, _, None) => return wrong("labels", "expected the labels of `images`, found none"),
        };
        let (images, labels) = files;
        Ok(Box::new(Arrays { images, labels, classes: said.classes.clone(), order: said.class_order.clone() }))
    },
    by_class: false,
    top5: false,
    limit: 1000,
    breaks_at: 16,
    models: &[],
    denoiser: None,
};

/// What the array of images and that of labels are called, where a file holds more than one.
/// The last of each are what `numpy.savez` and a tuple of `torch.save` leave without a name.
pub(super) const IMAGES: [&str; 9] = ["x", "images", "image", "data", "x_test", "X", "inputs", "arr_0", "0"];
pub(super) const LABELS: [&str; 9] = ["y", "labels", "label", "targets", "y_test", "Y", "target", "arr_1", "1"];
/// And the numbers of the images in their source.
pub(super) const IDS: [&str; 3] = ["ids", "id", "indices"];
/// And an array of what the labels stand for.
const CLASSES: [&str; 4] = ["classes", "class_names", "label_names", "names"];

/// A header that says more images than this, or larger sides, is damaged.
const MOST_IMAGES: usize = 1 << 24;
const MOST_SIDE: usize = 1 << 11;
/// Bytes behind the images that were asked for which are read for their checksum alone.
const MOST_PASSED: u64 = 1 << 30;
/// The way out where an array called so is something else.
const NO_IDS: &str = "give an array of something else another name";
/// Classes that labels can tell apart.
const MOST_CLASSES: i64 = 1 << 20;

struct Arrays {
    images: PathBuf,
    labels: PathBuf,
    classes: Option<PathBuf>,
    /// Settled before.
    order: Option<Vec<String>>,
}

impl Arrays {
    /// The numbers that the images have in their source, where the file has them: random draws go by them.
    fn numbered(&self, images: usize) -> Result<Option<Vec<u32>>> {
        if there(&self.images, &IDS)?.is_empty() {
            return Ok(None);
        }
        let ids = numbers(&self.images, &IDS, "id")?;
        let bad = |problem: String| Err(Error::file(&self.images, format!("ids: {problem}; {NO_IDS}")));
        if ids.len() != images {
            return bad(format!("expected {images}, one for each label, found {}", ids.len()));
        }
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => bad(format!("expected every number once, found {} twice", pair[0])),
            None => Ok(Some(ids)),
        }
    }
}

impl Source for Arrays {
    fn load(&self, limit: Option<usize>, select: Select) -> Result<Dataset> {
        let labels = labels(&self.labels, &LABELS)?;
        let classes = classes::numbered(&labels, self.classes.as_deref(), self.order.as_deref(), &self.labels)?;
        let keep = select.indices(&labels, limit);
        let ids = self.numbered(labels.len())?;
        let Images { pixels, height, width } = images(&self.images, &IMAGES, &keep, labels.len(), Beyond::Refused)?;
        let stem = self.images.file_stem().map_or("arrays".into(), |stem| stem.to_string_lossy().into_owned());
        Ok(Dataset {
            name: stem,
            height,
            width,
            classes,
            pixels,
            labels: keep.iter().map(|&i| labels[i]).collect(),
            ids: keep.iter().map(|&i| ids.as_ref().map_or(i as u64, |ids| ids[i].into())).collect(),
            skipped: vec![],
        })
    }

    fn ids(&self) -> Result<Option<Vec<String>>> {
        Classes::ids_of(self.classes.as_deref())
    }

    /// Labels are numbers already; the file's own names for them, or else the network's, are better than the numbers.
    fn order(&self, known: Option<Named>) -> Result<Option<Order>> {
        let (listed, settled) = (self.classes.is_some(), self.order.as_deref());
        if !listed
            && settled.is_none()
            && let Some(names) = class_names(&self.labels)?
        {
            return Ok(Some(Order { names, why: format!("as {} says", self.labels.display()) }));
        }
        Ok(Order::of_numbers(listed, settled, known))
    }
}

/// What an array is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Unsigned(usize),
    Signed(usize),
    Float(usize),
}

impl Kind {
    fn bytes(self) -> usize {
        match self {
            Kind::Unsigned(n) | Kind::Signed(n) | Kind::Float(n) => n,
        }
    }

    fn integer(self, bytes: &[u8]) -> i64 {
        let mut wide =
            [if self == Kind::Signed(bytes.len()) && bytes.last().is_some_and(|b| b >> 7 == 1) { 0xff } else { 0 }; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        i64::from_le_bytes(wide)
    }
}

/// An array whose values are read in order.
pub(super) struct Array<'a> {
    kind: Kind,
    pub shape: Vec<usize>,
    values: Box<dyn Read + 'a>,
}

/// What a tensor is called that `torch.save` wrote by itself.
const ALONE: &str = "";

/// Whether a file is one array without a name.
pub(super) fn is_alone(file: &Path) -> Result<bool> {
    let is = |e: &str| file.extension().is_some_and(|own| own.eq_ignore_ascii_case(e));
    Ok(is("npy") || (is("pt") || is("pth")) && names(file)? == [ALONE])
}

/// Opens an array of a file and hands it on.
pub(super) fn array<T>(file: &Path, names: &[&str], what: &str, read: impl FnOnce(Array) -> Result<T>) -> Result<T> {
    let extension = file.extension().map(|e| e.to_ascii_lowercase()).unwrap_or_default();
    let among = |found: &[String]| match &meant(found, names)[..] {
        [name] => Ok(*name),
        [] => {
            let shown: Vec<String> = found.iter().take(20).map(|name| name.chars().take(60).collect()).collect();
            let problem = format!("expected {what} as one of {}, found {}", names.join(", "), shown.join(", "));
            Err(Error::file(file, problem))
        }
        // Which of them is meant would be a guess.
        several => {
            let problem = format!("expected {what} as one array, found `{}`: keep the one meant", several.join("`, `"));
            Err(Error::file(file, problem))
        }
    };
    match extension.to_str() {
        Some("npy") => {
            let mut values = BufReader::new(files::open(file, "open")?);
            let (kind, shape) = header(file, what, &mut values)?;
            read(Array { kind, shape, values: Box::new(values) })
        }
        Some("npz") => {
            let mut archive = archive(file)?;
            let name = format!("{}.npy", among(&members(&archive))?);
            let mut values = archive.by_name(&name).map_err(|e| no_archive(file, &e))?;
            let (kind, shape) = header(file, what, &mut values)?;
            let found = read(Array { kind, shape, values: Box::new(BufReader::new(&mut values)) })?;
            // A member's checksum is compared at its end, which a limit does not reach.
            let rest = std::io::copy(&mut values.take(MOST_PASSED), &mut std::io::sink());
            rest.map_err(|e| Error::file(file, format!("{what}: `{name}` is damaged: {e}")))?;
            Ok(found)
        }
        Some("safetensors" | "pt" | "pth") => {
            let tensors = TensorFile::open(file)?;
            let own = tensors.names();
            let name = if own == [ALONE] { ALONE } else { among(&own)? };
            let view = tensors.get(name).ok_or_else(|| Error::file(file, format!("`{name}` lies outside the file")))?;
            let kind = match view.dtype {
                Dtype::U8 => Kind::Unsigned(1),
                Dtype::U16 => Kind::Unsigned(2),
                Dtype::U32 => Kind::Unsigned(4),
                Dtype::U64 => Kind::Unsigned(8),
                Dtype::I8 => Kind::Signed(1),
                Dtype::I16 => Kind::Signed(2),
                Dtype::I32 => Kind::Signed(4),
                Dtype::I64 => Kind::Signed(8),
                Dtype::F32 => Kind::Float(4),
                Dtype::F64 => Kind::Float(8),
                other => {
                    return Err(Error::file(file, format!("`{name}`: expected integers, F32 or F64, found {other}")));
                }
            };
            read(Array { kind, shape: view.shape.to_vec(), values: Box::new(view.data()) })
        }
        _ => Err(Error::file(file, "expected a .npz, .npy, .safetensors or .pt file")),
    }
}

/// Those of `names` that were found.
pub(super) fn meant<'a>(found: &[String], names: &[&'a str]) -> Vec<&'a str> {
    names.iter().filter(|name| found.iter().any(|own| own == *name)).copied().collect()
}

/// Those of `names` that a file has; none of a file of one array without a name.
pub(super) fn there<'a>(file: &Path, names: &[&'a str]) -> Result<Vec<&'a str>> {
    if file.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy")) {
        return Ok(vec![]);
    }
    Ok(meant(&self::names(file)?, names))
}

/// The names of a file's arrays.
pub(super) fn names(file: &Path) -> Result<Vec<String>> {
    let npz = file.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"));
    if npz { Ok(members(&archive(file)?)) } else { Ok(TensorFile::open(file)?.names()) }
}

fn archive(file: &Path) -> Result<ZipArchive<BufReader<File>>> {
    ZipArchive::new(BufReader::new(files::open(file, "open")?)).map_err(|e| no_archive(file, &e))
}

fn no_archive(file: &Path, e: &zip::result::ZipError) -> Error {
    Error::file(file, format!("expected a .npz of NumPy, found {e}"))
}

fn members(archive: &ZipArchive<BufReader<File>>) -> Vec<String> {
    archive.file_names().filter_map(|name| name.ok()?.strip_suffix(".npy").map(str::to_owned)).collect()
}

/// What values follow, and in which shape.
fn header(file: &Path, what: &str, from: &mut impl Read) -> Result<(Kind, Vec<usize>)> {
    let bad = |problem: String| Error::file(file, format!("{what}: {problem}"));
    let Header { descr, fortran, shape } =
        npy::read(from).map_err(|e| bad(format!("expected an array of NumPy, found one that does not parse: {e}")))?;
    // The order of bytes, the kind, the bytes of a value: `<f4`.
    let (order, kind_name) = match descr.split_at_checked(1) {
        Some((order @ ("<" | ">" | "|" | "="), kind)) => (order, kind),
        _ => return Err(bad(format!("expected plain numbers, found {descr}"))),
    };
    let kind = match kind_name {
        "u1" => Kind::Unsigned(1),
        "u2" => Kind::Unsigned(2),
        "u4" => Kind::Unsigned(4),
        "u8" => Kind::Unsigned(8),
        "i1" => Kind::Signed(1),
        "i2" => Kind::Signed(2),
        "i4" => Kind::Signed(4),
        "i8" => Kind::Signed(8),
        "f4" => Kind::Float(4),
        "f8" => Kind::Float(8),
        _ => {
            let expected = if what == "images" { "integers, float32 or float64" } else { "integers" };
            return Err(bad(format!("expected {expected}, found '{descr}'")));
        }
    };
    if order == ">" && kind.bytes() > 1 {
        return Err(bad(format!("expected little-endian numbers, found '{descr}': save a.astype('<{kind_name}')")));
    }
    if fortran && shape.len() > 1 {
        return Err(bad("expected the order of C, found that of Fortran: save numpy.ascontiguousarray(a)".into()));
    }
    Ok((kind, shape))
}

/// What a file's labels stand for, if it says so: an array of texts, or the metadata `classes` of safetensors.
///
/// # Errors
/// [`Error::File`] for such an array that holds no texts, a class without a name or one that is there twice.
fn class_names(file: &Path) -> Result<Option<Vec<String>>> {
    let is = |extension: &str| file.extension().is_some_and(|own| own.eq_ignore_ascii_case(extension));
    let bad = |problem: String| Error::file(file, problem);
    let (array, names) = if is("npz") {
        let mut archive = archive(file)?;
        let found = members(&archive);
        let Some(array) = CLASSES.into_iter().find(|name| found.iter().any(|f| f == name)) else { return Ok(None) };
        let mut values = archive.by_name(&format!("{array}.npy")).map_err(|e| no_archive(file, &e))?;
        let header = npy::read(&mut values).map_err(|e| bad(format!("`{array}`: {e}")))?;
        (array, npy::texts(&header, &mut values).map_err(|e| bad(format!("`{array}`: {e}")))?)
    } else if is("safetensors") {
        let tensors = TensorFile::open(file)?;
        let Some(text) = tensors.metadata().and_then(|all| all.get("classes")) else { return Ok(None) };
        let names = classes::from_json(text);
        ("classes", names.ok_or_else(|| bad("metadata `classes`: expected a list of names in JSON".into()))?)
    } else {
        return Ok(None);
    };
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        _ if names.iter().any(|name| name.trim().is_empty()) => {
            Err(bad(format!("`{array}`: expected a name for every class, found none for one")))
        }
        Some(pair) => Err(bad(format!("`{array}`: expected every class once, found `{}` twice", pair[0]))),
        None => Ok(Some(names)),
    }
}

/// The classes of a file's images: of several such arrays each must say the same.
pub(super) fn labels(file: &Path, names: &[&str]) -> Result<Vec<u32>> {
    let read = |names: &[&str]| whole(file, names, "label", MOST_CLASSES);
    let [first, others @ ..] = &there(file, names)?[..] else { return read(names) };
    let labels = read(&[first])?;
    for other in others {
        if read(&[other])? != labels {
            let problem =
                format!("labels: expected `{first}` and `{other}` to be the same, found others: keep the one meant");
            return Err(Error::file(file, problem));
        }
    }
    Ok(labels)
}

/// A number for each of a file's images: an `id` in their source, or a `prediction`.
pub(super) fn numbers(file: &Path, names: &[&str], what: &str) -> Result<Vec<u32>> {
    whole(file, names, what, i64::from(u32::MAX)).map_err(|e| match e {
        Error::File { file, problem } if what == "id" => Error::file(&file, format!("{problem}; {NO_IDS}")),
        other => other,
    })
}

/// A whole number from 0 on and below `end` per image; `what` is one of them.
fn whole(file: &Path, names: &[&str], what: &str, end: i64) -> Result<Vec<u32>> {
    array(file, names, &format!("{what}s"), |mut array| {
        let n = match array.shape[..] {
            [n] | [n, 1] if n <= MOST_IMAGES => n,
            _ => return Err(Error::file(file, format!("{what}s: expected (N,), found {}", shown(&array.shape)))),
        };
        if matches!(array.kind, Kind::Float(_)) {
            return Err(Error::file(file, format!("{what}s: expected integers, found floating-point numbers")));
        }
        if n == 0 {
            return Err(Error::file(file, format!("{what}s: expected at least one, found none")));
        }
        let mut value = vec![0; array.kind.bytes()];
        let mut found = Vec::new();
        for i in 0..n {
            array.values.read_exact(&mut value).map_err(|e| Error::file(file, format!("{what} {i} of {n}: {e}")))?;
            let number = array.kind.integer(&value);
            if !(0..end).contains(&number) {
                return Err(Error::file(
                    file,
                    format!("{what} of image {i}: expected a number from 0 on and below {end}, found {number}"),
                ));
            }
            found.push(number as u32);
        }
        Ok(found)
    })
}

fn shown(shape: &[usize]) -> String {
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("({})", sides.join(", "))
}

/// Images of one size.
pub(super) struct Images {
    pub pixels: Pixels,
    pub height: usize,
    pub width: usize,
}

impl Images {
    /// Height, width and channels of each.
    pub fn shape(&self) -> [usize; 3] {
        [self.height, self.width, self.pixels.channels()]
    }
}

/// What becomes of floats that are no pixels in [0, 1].
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Beyond {
    Refused,
    /// Whoever asked looks at them.
    Kept,
}

/// The images of these numbers, ascending, of as many as there are labels.
pub(super) fn images(file: &Path, names: &[&str], keep: &[usize], labels: usize, beyond: Beyond) -> Result<Images> {
    array(file, names, "images", |mut array| {
        let bad = |problem: String| Error::file(file, format!("images: {problem}"));
        let (n, height, width, channels, planar) = match array.shape[..] {
            [_, 1 | 3, _, 1 | 3] => {
                let problem = "expected NHWC or NCHW, found";
                return Err(bad(format!("{problem} {}, which may be either", shown(&array.shape))));
            }
            [n, h, w, c @ (1 | 3)] => (n, h, w, c, false),
            [n, c @ (1 | 3), h, w] => (n, h, w, c, true),
            [_, 2 | 4, _, 2 | 4] => {
                let problem = "expected NHWC or NCHW, found";
                return Err(bad(format!("{problem} {}, which may be either", shown(&array.shape))));
            }
            [n, h, w, c @ (2 | 4)] => (n, h, w, c, false),
            [n, c @ (2 | 4), h, w] => (n, h, w, c, true),
            [n, h, w] => (n, h, w, 1, false),
            _ => {
                return Err(bad(format!(
                    "expected (N, H, W, C) or (N, C, H, W) of 1 to 4 channels, or (N, H, W), found {}",
                    shown(&array.shape)
                )));
            }
        };
        if n != labels {
            return Err(bad(format!("expected {labels}, one for each label, found {n}")));
        }
        if !(1..=MOST_SIDE).contains(&height) || !(1..=MOST_SIDE).contains(&width) {
            return Err(bad(format!("expected sides of 1 to {MOST_SIDE} pixels, found {height}x{width}")));
        }
        let float = match array.kind {
            Kind::Unsigned(1) => false,
            Kind::Float(_) => true,
            other => {
                let found = if matches!(other, Kind::Signed(_)) { "signed" } else { "unsigned" };
                return Err(bad(format!(
                    "expected uint8 or floats in [0, 1], found {found} integers of {} bytes",
                    other.bytes()
                )));
            }
        };
        // One channel is held as three that are alike.
        let held = if channels == 1 { RGB } else { channels };
        prepared::held(keep.len(), [height, width, held], if float { size_of::<f32>() } else { 1 }).map_err(bad)?;
        let plane = height * width;
        let place = |pixel: usize, c: usize| match (channels, planar) {
            (1, _) => pixel,
            (_, true) => c * plane + pixel,
            (_, false) => pixel * channels + c,
        };
        let mut image = vec![0; channels * plane * array.kind.bytes()];
        let (mut floats, mut bytes) = (Vec::new(), Vec::new());
        let mut wanted = keep.iter().copied().peekable();
        for i in 0..n {
            let Some(&next) = wanted.peek() else { break };
            let failed = |e: std::io::Error| Error::file(file, format!("image {i} of {n}: {e}"));
            if i != next {
                let skipped = std::io::copy(&mut array.values.by_ref().take(image.len() as u64), &mut std::io::sink());
                skipped.map_err(failed)?;
                continue;
            }
            wanted.next();
            array.values.read_exact(&mut image).map_err(failed)?;
            let pixels = (0..plane).flat_map(|pixel| (0..held).map(move |c| (pixel, c)));
            if !float {
                bytes.extend(pixels.map(|(pixel, c)| image[place(pixel, c)]));
                continue;
            }
            let value = |at: usize| match array.kind {
                Kind::Float(8) => f64::from_le_bytes(*image[8 * at..].first_chunk().unwrap_or(&[0; 8])) as f32,
                _ => f32::from_le_bytes(*image[4 * at..].first_chunk().unwrap_or(&[0; 4])),
            };
            let begin = floats.len();
            floats.extend(pixels.map(|(pixel, c)| value(place(pixel, c))));
            let refused = |v: &&f32| beyond == Beyond::Refused && !(0.0..=1.0).contains(*v);
            if let Some(v) = floats[begin..].iter().find(refused) {
                let way_out = "divide grey levels by 255 or save them as uint8, and undo any normalisation";
                return Err(bad(format!("image {i}: expected floats in [0, 1], found {v}: {way_out}")));
            }
        }
        // All but black: no pictures, but values of another unit.
        let brightest = floats.iter().copied().fold(0.0, f32::max);
        if brightest > 0.0 && brightest <= 1.001 / 255.0 {
            return Err(bad(format!("expected floats in [0, 1], found none above {brightest}: divided by 255 twice?")));
        }
        if bytes.iter().max() == Some(&1) {
            return Err(bad("expected bytes of 0 to 255, found none above 1: save images in [0, 1] as floats".into()));
        }
        let pixels = if float { Pixels::Floats(floats) } else { Pixels::Bytes(bytes) };
        let pixels = if held == RGB { pixels } else { Pixels::Deep(held, Box::new(pixels)) };
        Ok(Images { pixels, height, width })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    /// As `numpy.save` writes it.
    fn npy(descr: &str, shape: &[usize], values: &[u8]) -> Vec<u8> {
        let sides: String = shape.iter().map(|side| format!("{side}, ")).collect();
        let dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({sides}), }}");
        let dict = format!("{dict:<117}\n");
        [b"\x93NUMPY\x01\0", &(dict.len() as u16).to_le_bytes()[..], dict.as_bytes(), values].concat()
    }

    fn npz(dir: &Path, name: &str, arrays: &[(&str, Vec<u8>)]) -> PathBuf {
        let path = dir.join(name);
        let mut archive = zip::ZipWriter::new(File::create(&path).unwrap());
        for (name, bytes) in arrays {
            // As `numpy.savez` does.
            let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            archive.start_file(format!("{name}.npy"), stored).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
        path
    }

    fn load(path: &Path, limit: Option<usize>) -> Result<Dataset> {
        let arrays = Arrays { images: path.into(), labels: path.into(), classes: None, order: None };
        arrays.load(limit, Select::First)
    }

    #[test]
    fn images_that_are_all_but_black_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let y = npy("<i8", &[1], &0i64.to_le_bytes());
        let floats = |value: f32| npy("<f4", &[1, 3, 2, 2], &[value; 12].map(f32::to_le_bytes).concat());
        for (images, part) in [
            (npy("|u1", &[1, 3, 2, 2], &[0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1]), "found none above 1"),
            (floats(1.0 / 255.0), "divided by 255 twice"),
        ] {
            let error =
                load(&npz(dir.path(), "a.npz", &[("x", images), ("y", y.clone())]), None).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        for images in [npy("|u1", &[1, 3, 2, 2], &[0; 12]), floats(0.5)] {
            load(&npz(dir.path(), "a.npz", &[("x", images), ("y", y.clone())]), None).unwrap();
        }
    }

    #[test]
    fn planes_and_channels_bytes_and_floats_are_the_same_images() {
        let dir = tempfile::tempdir().unwrap();
        let (n, h, w) = (3, 2, 5);
        let pixel = |i: usize, y: usize, x: usize, c: usize| (i * 91 + y * 37 + x * 11 + c * 5) as u8;
        let each = |planar: bool| -> Vec<u8> {
            let mut all = Vec::new();
            for i in 0..n {
                match planar {
                    true => (0..3).for_each(|c| (0..h * w).for_each(|p| all.push(pixel(i, p / w, p % w, c)))),
                    false => (0..h * w).for_each(|p| (0..3).for_each(|c| all.push(pixel(i, p / w, p % w, c)))),
                }
            }
            all
        };
        let floats: Vec<u8> = each(true).iter().flat_map(|&v| (f32::from(v) / 255.0).to_le_bytes()).collect();
        let wide: Vec<u8> = each(false).iter().flat_map(|&v| f64::from(f32::from(v) / 255.0).to_le_bytes()).collect();
        let y = npy("<i8", &[n], &[2i64, 0, 1].map(i64::to_le_bytes).concat());
        let sets = [
            npz(dir.path(), "a.npz", &[("y", y.clone()), ("x", npy("|u1", &[n, h, w, 3], &each(false)))]),
            npz(dir.path(), "b.npz", &[("images", npy("|u1", &[n, 3, h, w], &each(true))), ("labels", y.clone())]),
            npz(dir.path(), "c.npz", &[("arr_0", npy("<f4", &[n, 3, h, w], &floats)), ("arr_1", y.clone())]),
            npz(dir.path(), "d.npz", &[("x", npy("<f8", &[n, h, w, 3], &wide)), ("y", y)]),
        ];
        for set in &sets {
            let data = load(set, None).unwrap();
            assert_eq!((data.len(), data.height, data.width, &data.labels[..]), (n, h, w, &[2, 0, 1][..]));
            for (i, y, x, c) in [(0, 0, 0, 0), (1, 1, 4, 2), (2, 0, 3, 1)] {
                let want = f32::from(pixel(i, y, x, c)) / 255.0;
                assert_eq!(data.image(i).unwrap()[(y * w + x) * 3 + c], want, "{}", set.display());
            }
        }
        // A limit keeps the numbers that images have in the file.
        assert_eq!(load(&sets[0], Some(2)).unwrap().ids, [0, 1]);
        // A pixel that is another than was written, also of an image that is not taken.
        let mut bytes = std::fs::read(&sets[1]).unwrap();
        let at = bytes
            .windows(4)
            .position(|four| four == [pixel(2, 0, 0, 0), pixel(2, 0, 1, 0), pixel(2, 0, 2, 0), pixel(2, 0, 3, 0)]);
        bytes[at.unwrap()] ^= 1;
        std::fs::write(&sets[1], bytes).unwrap();
        for limit in [None, Some(1)] {
            let problem = load(&sets[1], limit).unwrap_err().to_string();
            assert!(problem.contains("b.npz") && problem.contains("damaged"), "{problem}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let x = |shape: &[usize]| npy("|u1", shape, &vec![7; shape.iter().product()]);
        let y = |labels: &[i32]| {
            npy("<i4", &[labels.len()], &labels.iter().flat_map(|l| l.to_le_bytes()).collect::<Vec<_>>())
        };
        let float = |v: f32| npy("<f4", &[1, 2, 2, 3], &v.to_le_bytes().repeat(12));
        let cut = npy("|u1", &[2, 4, 4, 3], &[0; 60]);
        for (arrays, part) in [
            (vec![("x", x(&[2, 4, 4, 3])), ("y", y(&[0, 1, 1]))], "images: expected 3, one for each label, found 2"),
            (vec![("x", x(&[1, 3, 4, 3])), ("y", y(&[0]))], "may be either"),
            (vec![("x", x(&[1, 4, 4, 2])), ("y", y(&[0]))], "found (1, 4, 4, 2)"),
            (vec![("x", float(255.0)), ("y", y(&[0]))], "found 255"),
            (vec![("x", float(f32::NAN)), ("y", y(&[0]))], "found NaN"),
            (vec![("x", x(&[1, 4, 4, 3])), ("y", y(&[-1]))], "found -1"),
            (vec![("x", x(&[1, 4, 4, 3]))], "expected labels as one of y, labels"),
            (vec![("x", cut), ("y", y(&[0, 1]))], "image 1 of 2: failed to fill"),
            (vec![("x", npy("|O", &[1], b"")), ("y", y(&[0]))], "found '|O'"),
            (vec![("x", x(&[1, 4, 4, 3])), ("y", npy("<f4", &[1], &[0; 4]))], "expected integers"),
            (vec![("x", npy("|u1", &[usize::MAX, 3, 4, 4], b"")), ("y", y(&[0]))], "expected 1, one for each label"),
            (vec![("x", npy("|u1", &[1, 1 << 60, 4, 3], b"")), ("y", y(&[0]))], "expected sides"),
            (
                vec![("x", npy("<f8", &[100, 2048, 2048, 3], b"")), ("y", y(&[0; 100]))],
                "found 100 of 2048x2048 pixels, 4.7 GiB",
            ),
            (vec![("x", npy(">f4", &[1, 4, 4, 3], b"")), ("y", y(&[0]))], "images: expected little-endian"),
            (vec![("x", npy(">f8", &[1, 4, 4, 3], b"")), ("y", y(&[0]))], "save a.astype('<f8')"),
            (vec![("x", x(&[1, 4, 4, 3])), ("y", npy(">i8", &[1], &[0; 8]))], "save a.astype('<i8')"),
            (vec![("x", x(&[1, 4, 4, 3])), ("images", x(&[1, 4, 4, 3])), ("y", y(&[0]))], "found `x`, `images`"),
            (vec![("x", x(&[1, 4, 4, 3])), ("y", y(&[0])), ("labels", y(&[1]))], "`y` and `labels` to be the same"),
            (vec![("x", npy("<c8", &[1, 4, 4, 3], b"")), ("y", y(&[0]))], "found '<c8'"),
        ] {
            let error = load(&npz(dir.path(), "bad.npz", &arrays), None).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("bad.npz"), "{error} | {part}");
        }
        fs::write(dir.path().join("x.npz"), b"PK\x03\x04 no archive").unwrap();
        assert!(load(&dir.path().join("x.npz"), None).unwrap_err().to_string().contains("expected a .npz of NumPy"));
    }

    #[test]
    fn numbers_of_the_images_are_those_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str, ids: Vec<u8>, limit| {
            let x = npy("|u1", &[3, 2, 2, 3], &[7; 36]);
            load(&npz(dir.path(), "ids.npz", &[("x", x), ("y", npy("|u1", &[3], &[0, 1, 1])), (name, ids)]), limit)
        };
        let whole =
            |ids: &[i64]| npy("<i8", &[ids.len()], &ids.iter().flat_map(|id| id.to_le_bytes()).collect::<Vec<_>>());
        assert_eq!(of("ids", whole(&[70_000, 3, 9]), None).unwrap().ids, [70_000, 3, 9]);
        assert_eq!(of("indices", whole(&[8, 3, 9]), Some(2)).unwrap().ids, [8, 3]);
        assert_eq!(of("others", whole(&[8]), None).unwrap().ids, [0, 1, 2]);
        for (ids, part) in [
            (npy("<f4", &[3], &[0; 12]), "ids: expected integers, found floating-point numbers"),
            (npy("<U1", &[3], &[0; 12]), "ids: expected integers, found '<U1'"),
            (whole(&[1, 2]), "ids: expected 3, one for each label, found 2"),
            (whole(&[1, 2, 1]), "ids: expected every number once, found 1 twice"),
            (whole(&[1, 2, -1]), "id of image 2: expected a number from 0 on"),
        ] {
            let error = of("ids", ids, Some(1)).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("ids.npz") && error.contains(NO_IDS), "{error} | {part}");
        }
    }

    /// As `torch.save` writes uint8 of (2, 3, 2, 2) by themselves.
    #[test]
    fn a_tensor_without_a_name_is_an_array_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pickle: &[u8] = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nq\x00((X\x07\x00\x00\x00storageq\x01ctorch\nByteStorage\n\
            q\x02X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x18tq\x05QK\x00(K\x02K\x03K\x02K\x02tq\x06(K\x0cK\x04K\x02K\x01tq\x07\
            \x89ccollections\nOrderedDict\nq\x08)Rq\ttq\nRq\x0b.";
        let images = dir.path().join("bare.pt");
        let mut archive = zip::ZipWriter::new(File::create(&images).unwrap());
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let values: Vec<u8> = (0..24).map(|i| 9 * i).collect();
        for (name, bytes) in [("a/data.pkl", pickle), ("a/byteorder", b"little"), ("a/data/0", &values)] {
            archive.start_file(name, stored).unwrap();
            archive.write_all(bytes).unwrap();
        }
        archive.finish().unwrap();
        assert!(is_alone(&images).unwrap());
        let labels = npz(dir.path(), "y.npz", &[("y", npy("|u1", &[2], &[0, 1]))]);
        assert!(!is_alone(&labels).unwrap());
        let arrays = Arrays { images, labels, classes: None, order: None };
        let data = arrays.load(None, Select::First).unwrap();
        assert_eq!((data.len(), data.shape()), (2, [2, 2, 3]));
        assert_eq!(data.image(0).unwrap()[..3], [0.0, 36.0 / 255.0, 72.0 / 255.0]);
    }

    #[test]
    fn grey_is_three_equal_channels() {
        let dir = tempfile::tempdir().unwrap();
        let x = npy("|u1", &[1, 2, 2], &[0, 51, 102, 255]);
        let data = load(&npz(dir.path(), "grey.npz", &[("x", x), ("y", npy("|u1", &[1], &[4]))]), None).unwrap();
        assert_eq!(data.image(0).unwrap(), [0.0, 0.2, 0.4, 1.0].map(|v: f32| [v; 3]).concat());
        assert_eq!((data.classes.len(), data.labels[0]), (5, 4));
    }

    #[test]
    fn a_file_may_name_its_classes() {
        let dir = tempfile::tempdir().unwrap();
        let known = ["x".to_owned(), "y".to_owned()];
        let order = |classes: Option<(&str, Vec<u8>)>| {
            let images = ("x", npy("|u1", &[1, 2, 2], &[0, 51, 102, 255]));
            let mut arrays = vec![images, ("y", npy("|u1", &[1], &[1]))];
            arrays.extend(classes);
            let path = npz(dir.path(), "named.npz", &arrays);
            let arrays = Arrays { images: path.clone(), labels: path, classes: None, order: None };
            arrays.order(Some(Named { who: "net", names: &known })).map(Option::unwrap)
        };
        let wide = |text: &str, n: usize, of: fn(u32) -> [u8; 4]| -> Vec<u8> {
            text.chars().map(u32::from).chain(std::iter::repeat(0)).take(n).flat_map(of).collect()
        };
        let texts = |of| ["cat", "dög"].map(|text| wide(text, 4, of)).concat();
        let mine = ["cat".to_owned(), "dög".to_owned()];
        assert_eq!(order(Some(("classes", npy("<U4", &[2], &texts(u32::to_le_bytes))))).unwrap().names, mine);
        assert_eq!(order(Some(("class_names", npy(">U4", &[2], &texts(u32::to_be_bytes))))).unwrap().names, mine);
        let bytes = order(Some(("label_names", npy("|S3", &[2], b"catox\0")))).unwrap();
        assert_eq!(bytes.names, ["cat", "ox"]);
        assert!(bytes.why.ends_with("named.npz says"), "{}", bytes.why);
        // Without names of its own the network's stand.
        assert_eq!(order(None).unwrap().names, known);
        for (array, part) in [
            (npy("|O", &[2], b""), "found '|O'"),
            (npy("<i8", &[2], &[0; 16]), "found '<i8'"),
            (npy("|S1", &[2], b"aa"), "found `a` twice"),
            (npy("|S1", &[2], b"a\0"), "found none for one"),
            (npy("<U4", &[2], &[0; 16]), "failed to fill"),
            (npy("<U1", &[1], &[0xff; 4]), "no text"),
            (npy("<U1", &[1 << 40], &[0; 4]), "expected at most"),
        ] {
            let error = order(Some(("classes", array))).unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("`classes`"), "{error} | {part}");
        }
    }
}
