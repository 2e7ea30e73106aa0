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

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::arrays::{self, Beyond, IMAGES, LABELS};
use super::grey::luma;
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
    /// `(N, H, W, C)` as they lie there, whatever the values are.
    pub attacked: Vec<f32>,
    /// Whether they are bytes.
    pub eight_bit: bool,
    pub clean: Option<Vec<f32>>,
    pub labels: Vec<u32>,
    /// Numbers of the images from 0 where the file has none.
    pub ids: Vec<u64>,
    /// As the file says.
    pub predictions: Option<Vec<u32>>,
    pub about: About,
}

impl Saved {
    /// The images as a network of so many channels takes them: of one the luma, which of grey images is what they are.
    pub fn for_channels(&self, channels: usize) -> Cow<'_, Saved> {
        let [height, width, own] = self.shape;
        if channels != 1 || own == 1 {
            return Cow::Borrowed(self);
        }
        let (attacked, clean) = (luma(&self.attacked), self.clean.as_deref().map(luma));
        Cow::Owned(Saved { shape: [height, width, 1], attacked, clean, ..self.clone() })
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

/// Names that attack libraries and their users give. Those of ours come first; torchattacks, AutoAttack and foolbox follow.
const ATTACKED: [&str; 12] = [
    "x",
    "adv_inputs",
    "x_adv",
    "adv_complete",
    "adv",
    "advs",
    "adversarial",
    "adv_images",
    "x_test_adv",
    "images",
    "arr_0",
    "0",
];
const CLEAN: [&str; 6] = ["clean", "clean_inputs", "x_clean", "clean_images", "x_orig", "x_test"];
const IDS: [&str; 3] = ["ids", "id", "indices"];
const PREDICTIONS: [&str; 4] = ["predictions", "preds", "pred", "y_adv"];

/// Reads at most `limit` images of a set.
///
/// # Errors
/// [`Error::File`] for a file that has no such arrays, or arrays that do not belong together; [`Error::Io`].
pub fn read(places: Places, limit: Option<usize>) -> Result<Saved> {
    let file = places.attacked;
    let names: Vec<&str> = LABELS.iter().copied().chain(["1"]).collect();
    let labels_file = places.labels.unwrap_or(file);
    if places.labels.is_none() && has(file, "npy") {
        return Err(Error::usage("labels", format!("{}: an array alone has no labels: expected them", file.display())));
    }
    let mut labels = arrays::labels(labels_file, &names)?;
    let all = labels.len();
    labels.truncate(limit.unwrap_or(all));
    let keep: Vec<usize> = (0..labels.len()).collect();
    let attacked = arrays::images(file, &ATTACKED, &keep, all, Beyond::Kept)?;
    let clean = match places.clean {
        // A set of clean images has them under other names than one of both.
        Some(clean) => {
            let names: Vec<&str> = IMAGES.iter().chain(&CLEAN).copied().collect();
            Some((clean, arrays::images(clean, &names, &keep, all, Beyond::Refused)?))
        }
        None => match there(file, &CLEAN)? {
            true => Some((file, arrays::images(file, &CLEAN, &keep, all, Beyond::Refused)?)),
            false => None,
        },
    };
    if let Some((place, other)) = &clean
        && (other.height, other.width) != (attacked.height, attacked.width)
    {
        let (h, w) = (attacked.height, attacked.width);
        let problem =
            format!("clean images: expected {h}x{w} as attacked ones, found {}x{}", other.height, other.width);
        return Err(Error::file(place, problem));
    }
    let numbers = |names: &[&str]| -> Result<Option<Vec<u32>>> {
        let found = there(file, names)?.then(|| arrays::numbers(file, names)).transpose()?;
        match found {
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
    let ids = match numbers(&IDS)? {
        Some(ids) => ids.into_iter().map(u64::from).collect(),
        None => keep.iter().map(|&i| i as u64).collect(),
    };
    let eight_bit = matches!(attacked.pixels, Pixels::Bytes(_));
    let pixels = attacked.height * attacked.width;
    Ok(Saved {
        shape: [attacked.height, attacked.width, attacked.pixels.channels()],
        attacked: attacked.pixels.batch(&keep, pixels)?,
        eight_bit,
        clean: clean.map(|(_, images)| images.pixels.batch(&keep, pixels)).transpose()?,
        predictions: numbers(&PREDICTIONS)?,
        labels,
        ids,
        about: about(file)?,
    })
}

fn has(file: &Path, extension: &str) -> bool {
    file.extension().is_some_and(|own| own.eq_ignore_ascii_case(extension))
}

/// Whether a file has an array of one of these names.
fn there(file: &Path, names: &[&str]) -> Result<bool> {
    if has(file, "npy") {
        return Ok(false);
    }
    let found = arrays::names(file)?;
    Ok(names.iter().any(|name| found.iter().any(|own| own == name)))
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
            assert_eq!(saved.attacked, all(Form::Attacked));
            assert_eq!(saved.clean, Some(all(Form::Clean)));
            assert_eq!((&saved.labels[..], &saved.ids[..]), (&[2, 0, 1][..], &[7, 9, 70_000][..]));
            assert_eq!(saved.predictions, Some(vec![1, 0, 1]));
            assert_eq!((saved.about.eps, saved.about.norm.as_deref()), (Some(8.0 / 255.0), Some("l2")));
            let two = read(places, Some(2)).unwrap();
            assert_eq!((two.attacked.len(), two.ids.len(), two.predictions.unwrap().len()), (2 * len, 2, 2));
        }
    }

    #[test]
    fn two_writers_write_the_same_bytes() {
        for format in [Format::Npz, Format::Safetensors] {
            let [a, b] = [written(format), written(format)].map(|(_dir, path)| std::fs::read(path).unwrap());
            assert_eq!(a, b);
        }
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
