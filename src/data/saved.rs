//! Adversarial images with their labels, as an attack leaves them: written for NumPy and PyTorch, and read from anybody.
//!
//! | array | | |
//! |---|---|---|
//! | `x` | `(N, C, H, W)` float32 | attacked, in [0, 1]; `C` is 3, of networks that take one channel 1 |
//! | `clean` | `(N, C, H, W)` float32 | before the attack |
//! | `y` | `(N)` int64 | labels |
//! | `ids` | `(N)` int64 | the images' numbers in their source |
//! | `predictions` | `(N)` int64 | of the attacked images |
//! | `clean_predictions` | `(N)` int64 | of the clean ones, where they were made |
//!
//! What the file is about is JSON: `about.json` in a `.npz`, the metadata `about` of safetensors.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::arrays::{self, Beyond, IDS, IMAGES, Images, LABELS};
use super::grey::{fits, luma};
use super::npy;
use super::prepared::Pixels;
use super::tensors::TensorFile;
use crate::choice::choice;
use crate::error::{Error, Result};
use crate::files;

choice! {
    /// What adversarial images are written as.
    Format {
        /// For NumPy: `numpy.load`.
        Npz = "npz",
        /// For PyTorch: `safetensors.torch.load_file`.
        Safetensors = "safetensors",
    }
}

/// Where adversarial images come from; whoever reads a file of somebody else's knows none of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    pub model: Option<String>,
    pub dataset: Option<String>,
    pub attack: Option<String>,
    pub norm: Option<String>,
    pub eps: Option<f64>,
    pub seed: Option<u64>,
    /// Of the denoiser that the attack went through: the predictions are those of the defended network.
    pub sigma: Option<f64>,
}

/// What is written.
pub struct Set<'a> {
    pub about: About,
    /// Height, width and channels.
    pub shape: [usize; 3],
    pub labels: &'a [u32],
    pub ids: &'a [u64],
    pub predictions: Vec<u32>,
    pub clean_predictions: Option<Vec<u32>>,
}

/// Which of an image's two forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Attacked,
    Clean,
}

/// Writes a set. `pixels` gives an image as `(H, W, C)`, each once and in order; no more than one is held.
///
/// # Errors
/// What the system and `pixels` say.
pub fn write(
    file: &mut File,
    format: Format,
    set: &Set,
    mut pixels: impl FnMut(Form, usize) -> io::Result<Vec<f32>>,
) -> io::Result<()> {
    let n = set.labels.len();
    let wide = |values: &[u32]| values.iter().flat_map(|&v| i64::from(v).to_le_bytes()).collect::<Vec<u8>>();
    let ids: Vec<u8> = set.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let mut numbers = vec![("y", wide(set.labels)), ("ids", ids), ("predictions", wide(&set.predictions))];
    numbers.extend(set.clean_predictions.as_deref().map(|values| ("clean_predictions", wide(values))));
    let images = [("x", Form::Attacked), ("clean", Form::Clean)];
    let [height, width, channels] = set.shape;
    let shape = [n, channels, height, width];
    let about = serde_json::to_string(&set.about).map_err(io::Error::other)?;
    let mut all = |out: &mut dyn Write, form: Form| {
        (0..n).try_for_each(|i| out.write_all(bytemuck::cast_slice(&planes(&pixels(form, i)?, channels))))
    };
    match format {
        Format::Npz => {
            let mut archive = ZipWriter::new(BufWriter::new(file));
            // As NumPy's own: a fixed date, nothing compressed, and room for more than 4 GB.
            let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
            for (name, values) in &numbers {
                member(&mut archive, options, name, "<i8", &[n])?.write_all(values)?;
            }
            for (name, form) in images {
                all(member(&mut archive, options, name, "<f4", &shape)?, form)?;
            }
            archive.start_file(ABOUT_FILE, options)?;
            archive.write_all(about.as_bytes())?;
            archive.finish()?.flush()
        }
        Format::Safetensors => {
            let mut end = 0;
            let mut info = |name: &str, dtype: Dtype, shape: &[usize], bytes: usize| {
                let begin = end;
                end += bytes;
                (name.to_owned(), TensorInfo { dtype, shape: shape.to_vec(), data_offsets: (begin, end) })
            };
            let mut infos: Vec<_> = numbers.iter().map(|(name, v)| info(name, Dtype::I64, &[n], v.len())).collect();
            let bytes = 4 * shape.iter().product::<usize>();
            infos.extend(images.iter().map(|(name, _)| info(name, Dtype::F32, &shape, bytes)));
            let about = HashMap::from([(ABOUT.to_owned(), about)]);
            let header = Metadata::new(Some(about), infos).map_err(io::Error::other)?;
            let mut header = serde_json::to_vec(&header).map_err(io::Error::other)?;
            // The values begin at a multiple of 8.
            header.resize(header.len().next_multiple_of(8), b' ');
            let mut out = BufWriter::new(file);
            out.write_all(&(header.len() as u64).to_le_bytes())?;
            out.write_all(&header)?;
            numbers.iter().try_for_each(|(_, values)| out.write_all(values))?;
            images.into_iter().try_for_each(|(_, form)| all(&mut out, form))?;
            out.flush()
        }
    }
}

/// Whether a file of ours has its end still: a copy may have been cut short.
pub fn is_whole(path: &Path, format: Format) -> bool {
    let ends = || -> io::Result<bool> {
        let mut file = File::open(path)?;
        match format {
            // What lies in an archive is listed at its end.
            Format::Npz => Ok(ZipArchive::new(io::BufReader::new(file)).is_ok()),
            Format::Safetensors => {
                let (mut length, bytes) = ([0; 8], file.metadata()?.len());
                file.read_exact(&mut length)?;
                let length = u64::from_le_bytes(length);
                let mut header = Vec::new();
                file.take(length.min(bytes)).read_to_end(&mut header)?;
                let header: serde_json::Value = serde_json::from_slice(&header)?;
                let ends =
                    header.as_object().into_iter().flatten().filter_map(|(_, of)| of["data_offsets"][1].as_u64());
                Ok(ends.max().is_some_and(|end| end.saturating_add(8 + length) == bytes))
            }
        }
    };
    ends().unwrap_or(false)
}

const ABOUT: &str = "about";
const ABOUT_FILE: &str = "about.json";

/// Begins an array of a `.npz`.
fn member<'a, W: Write + Seek>(
    archive: &'a mut ZipWriter<W>,
    options: SimpleFileOptions,
    name: &str,
    descr: &str,
    shape: &[usize],
) -> io::Result<&'a mut ZipWriter<W>> {
    archive.start_file(format!("{name}.npy"), options)?;
    archive.write_all(&npy::written(descr, shape))?;
    Ok(archive)
}

/// `(H, W, C)` as `(C, H, W)`.
fn planes(image: &[f32], channels: usize) -> Vec<f32> {
    (0..channels).flat_map(|c| image.iter().skip(c).step_by(channels).copied()).collect()
}

/// What is read.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Height, width and channels.
    pub shape: [usize; 3],
    /// As they lie there, whatever the values are: bytes stay bytes.
    attacked: Pixels,
    /// Whether they are bytes.
    pub eight_bit: bool,
    clean: Option<Pixels>,
    pub labels: Vec<u32>,
    /// Numbers of the images from 0 where the file has none.
    pub ids: Vec<u64>,
    /// As the file says.
    pub predictions: Option<Vec<u32>>,
    pub about: About,
    /// What the arrays are called that were read, in words.
    pub taken: String,
}

impl Saved {
    pub fn has_clean(&self) -> bool {
        self.clean.is_some()
    }

    /// Some images as floats, `(n, H, W, C)`, as a network of so many channels takes them: of one the luma, which of grey images is what
    /// they are. `None` of clean ones where there are none.
    ///
    /// # Errors
    /// [`Error::Failed`] with the channels that were expected and found.
    ///
    /// # Panics
    /// When a number is not below that of the labels.
    pub fn images(&self, form: Form, which: Range<usize>, channels: usize) -> Result<Option<Vec<f32>>> {
        let [height, width, own] = self.shape;
        let grey = fits(channels, own).map_err(Error::Failed)?;
        let of = match form {
            Form::Attacked => Some(&self.attacked),
            Form::Clean => self.clean.as_ref(),
        };
        let Some(pixels) = of else { return Ok(None) };
        let values = pixels.batch(&which.collect::<Vec<_>>(), height * width)?;
        Ok(Some(if grey { luma(&values) } else { values }))
    }
}

/// Where the arrays lie.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    pub attacked: &'a Path,
    /// In place of those of `attacked`.
    pub clean: Option<&'a Path>,
    pub labels: Option<&'a Path>,
}

/// Of clean images that lie beside attacked ones. Ours comes first; torchattacks, AutoAttack and foolbox follow.
const CLEAN: [&str; 6] = ["clean", "clean_inputs", "x_clean", "clean_images", "x_orig", "x_test"];
const PREDICTIONS: [&str; 4] = ["predictions", "preds", "pred", "y_adv"];

/// Reads at most `limit` images of a set.
///
/// # Errors
/// [`Error::File`] for a file that has no such arrays, or arrays that do not belong together; [`Error::Io`].
pub fn read(places: Places, limit: Option<usize>) -> Result<Saved> {
    let file = places.attacked;
    let labels_file = places.labels.unwrap_or(file);
    let alone = arrays::is_alone(file)?;
    if places.labels.is_none() && alone {
        return Err(Error::usage("labels", format!("{}: an array alone has no labels: expected them", file.display())));
    }
    if ["txt", "csv", "tsv", "json"].iter().any(|text| has(labels_file, text)) {
        let problem =
            format!("{}: expected labels as an array, in a .npy, .npz, .safetensors or .pt", labels_file.display());
        return Err(Error::usage("labels", problem));
    }
    let mut labels = arrays::labels(labels_file, &LABELS)?;
    let all = labels.len();
    if labels_file != file {
        same_labels(file, labels_file, &labels)?;
    }
    if let Some(clean) = places.clean {
        same_order(file, labels_file, &labels, clean)?;
    }
    labels.truncate(limit.unwrap_or(all));
    let keep: Vec<usize> = (0..labels.len()).collect();
    let own = if alone { vec![] } else { arrays::names(file)? };
    let roles = Roles::of(file, &own, places.clean)?;
    let attacked = arrays::images(file, &names(&roles.attacked), &keep, all, Beyond::Kept)?;
    let clean_names = roles.clean;
    let clean = match &clean_names {
        Some((place, own)) => Some((*place, arrays::images(place, &names(own), &keep, all, Beyond::Refused)?)),
        None => None,
    };
    if let Some((place, other)) = &clean
        && other.shape() != attacked.shape()
    {
        let of = |images: &Images| {
            let [h, w, c] = images.shape();
            format!("{h}x{w} in {c} channels")
        };
        let problem = format!("clean images: expected {} as attacked ones, found {}", of(&attacked), of(other));
        return Err(Error::file(place, problem));
    }
    if let (Some(given), Some((_, clean)), false) = (places.clean, &clean, roles.beside.is_empty()) {
        let beside = arrays::images(file, &names(&roles.beside), &keep, all, Beyond::Refused)?;
        let name = format!("`{}` in {}", roles.beside[0], file.display());
        same_clean(given, clean, (&name, &beside), keep.len())?;
    }
    let numbers = |names: &[&str], what: &str| -> Result<Option<Vec<u32>>> {
        let is_there = !arrays::meant(&own, names).is_empty();
        match is_there.then(|| arrays::numbers(file, names, what)).transpose()? {
            Some(values) if values.len() != all => {
                let problem = format!("{}: expected one per image, {all}, found {}", names[0], values.len());
                Err(Error::file(file, problem))
            }
            found => Ok(found.map(|mut values| {
                values.truncate(keep.len());
                values
            })),
        }
    };
    let ids = match numbers(&IDS, "id")? {
        Some(ids) => ids.into_iter().map(u64::from).collect(),
        None => keep.iter().map(|&i| i as u64).collect(),
    };
    let eight_bit = attacked.pixels.are_bytes();
    let called = |what: &str, at: &Path, of: &[&str]| -> Result<Option<String>> {
        let there = if at == file { arrays::meant(&own, of) } else { arrays::there(at, of)? };
        let first = there.first().map(|name| format!("{what} `{name}`"));
        Ok(first.map(|text| if at == file { text } else { format!("{text} of {}", at.display()) }))
    };
    let taken = [
        called("attacked images", file, &names(&roles.attacked))?,
        clean_names.map(|(at, of)| called("clean images", at, &names(&of))).transpose()?.flatten(),
        called("labels", labels_file, &LABELS)?,
    ];
    Ok(Saved {
        shape: attacked.shape(),
        attacked: attacked.pixels,
        eight_bit,
        clean: clean.map(|(_, images)| images.pixels),
        predictions: numbers(&PREDICTIONS, "prediction")?,
        labels,
        ids,
        about: about(file)?,
        taken: taken.into_iter().flatten().collect::<Vec<_>>().join(", "),
    })
}

fn has(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|own| own.eq_ignore_ascii_case(extension))
}

fn names(of: &[String]) -> Vec<&str> {
    of.iter().map(String::as_str).collect()
}

/// What the arrays of images are called: of several candidates that one is taken which is there alone, else the file is refused.
struct Roles<'a> {
    attacked: Vec<String>,
    clean: Option<(&'a Path, Vec<String>)>,
    /// Clean images in the file of the attacked ones, where a file of their own is given.
    beside: Vec<String>,
}

impl<'a> Roles<'a> {
    /// Where a name says that images are adversarial they are the attacked ones, and others beside them the clean ones. Without such a
    /// name those are attacked that have any of the usual ones, as in files of ours.
    fn of(file: &'a Path, own: &[String], clean_file: Option<&'a Path>) -> Result<Self> {
        let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let said: Vec<String> = own.iter().filter(|name| is_adversarial(name)).cloned().collect();
        let usual: Vec<&str> = IMAGES.into_iter().filter(|name| !CLEAN.contains(name)).collect();
        let any: Vec<&str> = CLEAN.into_iter().chain(usual.iter().copied()).collect();
        let mut beside = owned(arrays::meant(own, if said.is_empty() { &CLEAN } else { &any }));
        // Images under the name of clean ones that are alone are those to be scored.
        let alone = said.is_empty() && arrays::meant(own, &usual).is_empty() && beside.len() == 1;
        let attacked = match alone {
            true => std::mem::take(&mut beside),
            false if said.is_empty() => owned(usual),
            false => said,
        };
        let clean = match clean_file {
            // A file of ours has attacked images beside the clean ones.
            Some(clean) => {
                let sure = arrays::there(clean, &CLEAN)?;
                Some((clean, owned(if sure.is_empty() { any } else { sure })))
            }
            None => {
                let own = std::mem::take(&mut beside);
                (!own.is_empty()).then_some((file, own))
            }
        };
        Ok(Roles { attacked, clean, beside })
    }
}

/// Whether an array of this name holds attacked images: `x_adv`, `adv_inputs`, `X_test_adversarial`; not `y_adv`.
fn is_adversarial(name: &str) -> bool {
    const IMAGES: [&str; 15] = [
        "x", "image", "images", "img", "imgs", "input", "inputs", "data", "test", "complete", "example", "examples",
        "sample", "samples", "all",
    ];
    let lower = name.to_lowercase();
    let words: Vec<&str> = lower.split(['_', '-', '.', ' ']).filter(|word| !word.is_empty()).collect();
    let adversarial = |word: &&str| matches!(*word, "adv" | "advs" | "xadv" | "advx" | "adversarial" | "adversarials");
    words.iter().any(adversarial) && words.iter().all(|word| adversarial(word) || IMAGES.contains(word))
}

/// Labels of a file of their own are those of the file of images, where it has some.
fn same_labels(file: &Path, labels_file: &Path, labels: &[u32]) -> Result<()> {
    let Some(name) = arrays::there(file, &LABELS)?.first().copied() else { return Ok(()) };
    let own = arrays::labels(file, &LABELS)?;
    if own == labels {
        return Ok(());
    }
    let problem = match own.iter().zip(labels).position(|(a, b)| a != b) {
        Some(i) => format!("{} for image {i}, as `{name}` of {} says, found {}", own[i], file.display(), labels[i]),
        None => format!("{}, as `{name}` of {} has, found {}", own.len(), file.display(), labels.len()),
    };
    Err(Error::file(labels_file, format!("labels: expected {problem}: leave --labels out, or the array")))
}

/// The first `n` clean images of a file of their own are those in the file of the attacked ones, where it has some.
fn same_clean(given: &Path, clean: &Images, (name, own): (&str, &Images), n: usize) -> Result<()> {
    let image = |of: &Images, i: usize| of.pixels.batch(&[i], of.height * of.width);
    for i in 0..n {
        if own.shape() != clean.shape() || image(own, i)? != image(clean, i)? {
            let problem = format!("clean images: expected those of {name}, found others from image {i} on");
            return Err(Error::file(given, problem + ": leave --clean out, or the array"));
        }
    }
    Ok(())
}

/// Clean images of a file of their own belong to the attacked ones by their place alone: what it says of labels and numbers must agree.
fn same_order(file: &Path, labels_file: &Path, labels: &[u32], clean: &Path) -> Result<()> {
    let differ = |what: &str, of: &Path, own: &[u32], theirs: &[u32]| {
        let at = own.iter().zip(theirs).position(|(a, b)| a != b);
        // Of another number of images more is said elsewhere.
        let Some(i) = at.filter(|_| own.len() == theirs.len()) else { return Ok(()) };
        let (of, own, theirs) = (of.display(), own[i], theirs[i]);
        let problem =
            format!("{what}: expected {own} for image {i}, as in {of}, found {theirs}: other images or another order");
        Err(Error::file(clean, problem))
    };
    if !arrays::there(clean, &LABELS)?.is_empty() {
        differ("labels", labels_file, labels, &arrays::labels(clean, &LABELS)?)?;
    }
    if !arrays::there(clean, &IDS)?.is_empty() && !arrays::there(file, &IDS)?.is_empty() {
        differ("ids", file, &arrays::numbers(file, &IDS, "id")?, &arrays::numbers(clean, &IDS, "id")?)?;
    }
    Ok(())
}

/// What a file of ours says of itself; nothing of others.
fn about(file: &Path) -> Result<About> {
    let text = if has(file, "npz") {
        let archive = ZipArchive::new(io::BufReader::new(files::open(file, "open")?)).ok();
        let mut text = String::new();
        archive.and_then(|mut archive| {
            let member = archive.by_name(ABOUT_FILE).ok()?;
            member.take(files::TEXT).read_to_string(&mut text).ok().map(|_| text)
        })
    } else if has(file, "safetensors") {
        TensorFile::open(file)?.metadata().and_then(|all| all.get(ABOUT).cloned())
    } else {
        None
    };
    match text.map(|text| serde_json::from_str(&text)).transpose() {
        Ok(about) => Ok(about.unwrap_or_default()),
        Err(e) => Err(Error::file(file, format!("{ABOUT}: expected what the images are, as JSON, found {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDES: (usize, usize, usize) = (3, 2, 5);

    fn value(form: Form, i: usize, at: usize) -> f32 {
        ((i * 31 + at * 7 + usize::from(form == Form::Clean) * 3) % 101) as f32 / 101.0
    }

    fn written(format: Format) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(format!("a.{format}"));
        let (n, height, width) = SIDES;
        let set = Set {
            about: About {
                model: Some("m".into()),
                norm: Some("l2".into()),
                eps: Some(8.0 / 255.0),
                ..Default::default()
            },
            shape: [height, width, 3],
            labels: &[2, 0, 1],
            ids: &[7, 9, 70_000],
            predictions: vec![1, 0, 1],
            clean_predictions: Some(vec![2, 0, 0]),
        };
        assert_eq!(set.labels.len(), n);
        let image = |form, i| Ok((0..height * width * 3).map(|at| value(form, i, at)).collect());
        write(&mut File::create(&path).unwrap(), format, &set, image).unwrap();
        (dir, path)
    }

    #[test]
    fn what_is_written_is_read_back() {
        for format in [Format::Npz, Format::Safetensors] {
            let (_dir, path) = written(format);
            let places = Places { attacked: &path, clean: None, labels: None };
            let saved = read(places, None).unwrap();
            let (n, height, width) = SIDES;
            assert_eq!((saved.shape, saved.eight_bit), ([height, width, 3], false));
            let len = height * width * 3;
            let all = |form| (0..n * len).map(|at| value(form, at / len, at % len)).collect::<Vec<_>>();
            for form in [Form::Attacked, Form::Clean] {
                assert_eq!(saved.images(form, 0..n, 3).unwrap(), Some(all(form)));
                assert_eq!(saved.images(form, 1..2, 3).unwrap().unwrap(), all(form)[len..2 * len]);
            }
            assert_eq!((&saved.labels[..], &saved.ids[..]), (&[2, 0, 1][..], &[7, 9, 70_000][..]));
            assert_eq!(saved.predictions, Some(vec![1, 0, 1]));
            assert_eq!((saved.about.eps, saved.about.norm.as_deref()), (Some(8.0 / 255.0), Some("l2")));
            let two = read(places, Some(2)).unwrap();
            assert_eq!((two.labels.len(), two.ids.len(), two.predictions.unwrap().len()), (2, 2, 2));
        }
    }

    #[test]
    fn a_file_that_was_cut_short_is_told_from_a_whole_one() {
        for format in [Format::Npz, Format::Safetensors] {
            let (_dir, path) = written(format);
            let bytes = std::fs::read(&path).unwrap();
            assert!(is_whole(&path, format) && !is_whole(&path.with_extension("none"), format));
            for cut in [0, 4, 100, bytes.len() - 1] {
                std::fs::write(&path, &bytes[..cut]).unwrap();
                assert!(!is_whole(&path, format), "{cut} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn two_writers_write_the_same_bytes() {
        for format in [Format::Npz, Format::Safetensors] {
            let [a, b] = [written(format), written(format)].map(|(_dir, path)| std::fs::read(path).unwrap());
            assert_eq!(a, b);
        }
    }

    /// Arrays of one image of 2x2 pixels whose value says which array it is of.
    fn of_arrays(dir: &Path, names: &[&str]) -> std::path::PathBuf {
        let path = dir.join("named.npz");
        let mut archive = ZipWriter::new(File::create(&path).unwrap());
        for (i, name) in names.iter().enumerate() {
            let image = [i as f32 / 8.0; 12].map(f32::to_le_bytes).concat();
            let number = i64::to_le_bytes(if name.starts_with("ids") { 40 } else { 2 }).to_vec();
            let (descr, shape, values) = match name.starts_with(['y', 'l', 'i', '1']) && *name != "images" {
                true => ("<i8", &[1][..], number),
                false => ("<f4", &[1, 2, 2, 3][..], image),
            };
            member(&mut archive, SimpleFileOptions::default(), name, descr, shape).unwrap().write_all(&values).unwrap();
        }
        archive.finish().unwrap();
        path
    }

    /// The first value of the first image.
    fn first(saved: &Saved, form: Form) -> Option<f32> {
        saved.images(form, 0..1, 3).unwrap().map(|values| values[0])
    }

    #[test]
    fn names_say_which_images_are_attacked() {
        let dir = tempfile::tempdir().unwrap();
        // The places of the attacked and the clean images.
        for (arrays, attacked, clean) in [
            (&["x", "y"][..], 0, None),
            (&["x", "clean", "y"], 0, Some(1)),
            (&["x", "x_adv", "y"], 1, Some(0)),
            (&["X_adv", "y", "X"], 0, Some(2)),
            (&["images", "adversarial_images", "labels", "y_adv"], 1, Some(0)),
            (&["x_test", "x_test_adv", "y"], 1, Some(0)),
            (&["adv_inputs", "clean_inputs", "labels"], 0, Some(1)),
            (&["adv", "y"], 0, None),
            (&["0", "1"], 0, None),
            (&["x_test", "y_test"], 0, None),
        ] {
            let path = of_arrays(dir.path(), arrays);
            let saved = read(Places { attacked: &path, clean: None, labels: None }, None).unwrap();
            assert_eq!(first(&saved, Form::Attacked), Some(attacked as f32 / 8.0), "{arrays:?}");
            assert_eq!(first(&saved, Form::Clean), clean.map(|at: usize| at as f32 / 8.0), "{arrays:?}");
            assert!(saved.taken.starts_with(&format!("attacked images `{}`", arrays[attacked])), "{}", saved.taken);
        }
        for (arrays, part) in [
            (&["x_adv", "adv_inputs", "y"][..], "images as one array, found `x_adv`, `adv_inputs`"),
            (&["x", "images", "y"], "found `x`, `images`"),
            (&["x", "x_adv", "clean", "y"], "found `clean`, `x`"),
            (&["y_adv", "y"], "expected images as one of"),
        ] {
            let path = of_arrays(dir.path(), arrays);
            let error = read(Places { attacked: &path, clean: None, labels: None }, None).unwrap_err().to_string();
            assert!(error.contains(part), "{arrays:?}: {error}");
        }
    }

    #[test]
    fn clean_images_of_another_file_are_those_of_the_attacked_ones() {
        let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let read = |attacked: &Path, clean: &Path| read(Places { attacked, clean: Some(clean), labels: None }, None);
        let attacked = of_arrays(one.path(), &["x", "y", "ids"]);
        // Of a file of ours the clean ones, not the attacked ones.
        let ours = of_arrays(other.path(), &["x", "clean", "y"]);
        assert_eq!(first(&read(&attacked, &ours).unwrap(), Form::Clean), Some(0.125));
        let set = Set {
            about: About::default(),
            shape: [2, 2, 3],
            labels: &[1],
            ids: &[40],
            predictions: vec![1],
            clean_predictions: None,
        };
        let written = |set: &Set| {
            write(&mut File::create(&ours).unwrap(), Format::Npz, set, |_, _| Ok(vec![0.5; 12])).unwrap();
            read(&attacked, &ours).unwrap_err().to_string()
        };
        let error = written(&set);
        assert!(error.contains("labels: expected 2 for image 0") && error.contains("found 1"), "{error}");
        let error = written(&Set { labels: &[2], ids: &[41], ..set });
        assert!(error.contains("ids: expected 40 for image 0") && error.contains("found 41"), "{error}");
        // Both files have clean images: they are to be the same.
        let both = of_arrays(one.path(), &["x", "clean", "y", "ids"]);
        let same = of_arrays(other.path(), &["x", "clean", "y"]);
        assert_eq!(first(&read(&both, &same).unwrap(), Form::Clean), Some(0.125));
        let others = of_arrays(other.path(), &["x", "y", "clean"]);
        let error = read(&both, &others).unwrap_err().to_string();
        assert!(error.contains("expected those of `clean`") && error.contains("leave --clean out"), "{error}");
    }

    #[test]
    fn labels_of_another_file_are_those_of_the_images() {
        let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let file = of_arrays(one.path(), &["x", "y"]);
        let labels = other.path().join("labels.npz");
        let read = |label: i64| {
            let mut archive = ZipWriter::new(File::create(&labels).unwrap());
            let options = SimpleFileOptions::default();
            member(&mut archive, options, "y", "<i8", &[1]).unwrap().write_all(&label.to_le_bytes()).unwrap();
            archive.finish().unwrap();
            read(Places { attacked: &file, clean: None, labels: Some(&labels) }, None)
        };
        assert_eq!(read(2).unwrap().labels, [2]);
        let error = read(3).unwrap_err().to_string();
        assert!(error.contains("expected 2 for image 0") && error.contains("leave --labels out"), "{error}");
    }

    #[test]
    fn arrays_that_do_not_belong_together_are_refused() {
        let (_dir, path) = written(Format::Safetensors);
        let file = std::fs::read(&path).unwrap();
        let places = |attacked| Places { attacked, clean: None, labels: None };
        let npy = path.with_file_name("a.npy");
        std::fs::write(&npy, b"").unwrap();
        assert!(matches!(read(places(&npy), None), Err(Error::Usage { field, .. }) if field == "labels"));
        let (_other, clean) = written(Format::Npz);
        let cut = clean.with_extension("safetensors");
        std::fs::write(&cut, &file[..file.len() - 4]).unwrap();
        let error = read(places(&cut), None).unwrap_err().to_string();
        assert!(error.contains("expected a safetensors file"), "{error}");
        let empty = path.with_file_name("empty.npz");
        ZipWriter::new(File::create(&empty).unwrap()).finish().unwrap();
        let error = read(places(&empty), None).unwrap_err().to_string();
        assert!(error.contains("expected labels as one of y"), "{error}");
    }
}
