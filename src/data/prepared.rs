//! Where the pixels of a set are: in memory, or in files that are decoded again, ahead of whoever needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::Crc;
use rayon::prelude::*;

use super::decode::decode;
use super::grey::luma;
use super::prepare::Prepare;
use super::resize::Rgb8;
use super::skipped::Skipped;
use super::subset::Select;
use super::unit::unit;
use crate::error::{Error, Result};

/// Memory that prepared images may take; a larger set is decoded again, batch by batch.
pub const HELD: usize = 2 << 30;

/// Memory that images may take which are held as they are. A packed file that says more is far smaller than that.
const MOST_HELD: usize = 4 << 30;

/// Whether images that are held at so many bytes per value take no more than memory should be asked for.
///
/// # Errors
/// What they would take, in words, and the way out.
pub(super) fn held(images: usize, [height, width, channels]: [usize; 3], bytes: usize) -> Result<(), String> {
    let all = [height, width, channels, bytes].into_iter().fold(images, usize::saturating_mul);
    if all <= MOST_HELD {
        return Ok(());
    }
    let gb = |bytes: usize| bytes as f64 / f64::from(1 << 30);
    Err(format!(
        "expected images that take at most {:.0} GiB in memory, found {images} of {height}x{width} pixels, {:.1} GiB: a limit takes fewer",
        gb(MOST_HELD),
        gb(all)
    ))
}

/// Channels of pixels as they are read.
pub(super) const RGB: usize = 3;

/// `(N, H, W, 3)`, or `(N, H, W, 1)` of them, or as many channels as arrays have.
#[derive(Clone, Debug, PartialEq)]
pub enum Pixels {
    /// In [0, 1].
    Floats(Vec<f32>),
    Bytes(Vec<u8>),
    /// Prepared from its file whenever it is asked for.
    Files(Arc<Files>),
    /// The luma of others.
    Grey(Box<Pixels>),
    /// In memory, of another number of channels than colours have, which is named.
    Deep(usize, Box<Pixels>),
}

impl Pixels {
    pub(super) fn channels(&self) -> usize {
        match self {
            Pixels::Grey(_) => 1,
            Pixels::Deep(channels, _) => *channels,
            _ => RGB,
        }
    }

    /// Whether they are held in 8 bits.
    pub(super) fn are_bytes(&self) -> bool {
        match self {
            Pixels::Bytes(_) | Pixels::Files(_) => true,
            Pixels::Floats(_) => false,
            Pixels::Grey(others) | Pixels::Deep(_, others) => others.are_bytes(),
        }
    }

    /// Of images of one size that are in memory, with `prepare` resized in 8 bits; and the sides they then have.
    pub(super) fn of(images: Vec<Rgb8>, size: [usize; 2], prepare: Option<Prepare>) -> (Pixels, [usize; 2]) {
        match prepare {
            None => (Pixels::Floats(images.into_iter().flat_map(|image| image.pixels).map(unit).collect()), size),
            Some(prepare) => {
                let resized = images.par_iter().flat_map_iter(|image| prepare.apply(image).pixels).collect();
                (Pixels::Bytes(resized), prepare.size)
            }
        }
    }

    /// Images of so many pixels.
    pub(super) fn batch(&self, images: &[usize], pixels: usize) -> Result<Vec<f32>> {
        self.values(images, pixels, RGB)
    }

    fn values(&self, images: &[usize], pixels: usize, channels: usize) -> Result<Vec<f32>> {
        let len = channels * pixels;
        match self {
            Pixels::Floats(values) => Ok(images.iter().flat_map(|&i| &values[i * len..][..len]).copied().collect()),
            Pixels::Bytes(bytes) => {
                Ok(images.iter().flat_map(|&i| &bytes[i * len..][..len]).map(|&b| unit(b)).collect())
            }
            Pixels::Files(files) => Ok(files.batch(images)?.concat().into_iter().map(unit).collect()),
            Pixels::Grey(colours) => Ok(luma(&colours.batch(images, pixels)?)),
            Pixels::Deep(channels, values) => values.values(images, pixels, *channels),
        }
    }

    /// These images alone, in memory.
    pub(super) fn kept(&self, images: &[usize], pixels: usize) -> Result<Pixels> {
        match self {
            Pixels::Grey(colours) => Ok(Pixels::Grey(Box::new(colours.kept(images, pixels)?))),
            Pixels::Deep(channels, _) => {
                let values = Pixels::Floats(self.batch(images, pixels)?);
                Ok(Pixels::Deep(*channels, Box::new(values)))
            }
            colours => Ok(Pixels::Floats(colours.batch(images, pixels)?)),
        }
    }

    /// Of images of so many pixels. Bytes and files of the same content have the same checksum.
    pub(super) fn checksum(&self, crc: &mut Crc, pixels: usize) {
        self.sum(crc, RGB * pixels);
    }

    fn sum(&self, crc: &mut Crc, len: usize) {
        match self {
            Pixels::Floats(values) => crc.update(bytemuck::cast_slice(values)),
            Pixels::Bytes(bytes) => {
                bytes.chunks_exact(len.max(1)).for_each(|image| crc.update(&crc32(image).to_le_bytes()));
            }
            Pixels::Files(files) => files.crcs.iter().for_each(|sum| crc.update(&sum.to_le_bytes())),
            Pixels::Grey(colours) => colours.sum(crc, len),
            Pixels::Deep(channels, values) => values.sum(crc, len / RGB * channels),
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// How an image is read.
pub(super) type Decode = Arc<dyn Fn(&Path) -> Result<Rgb8> + Send + Sync>;

/// Image files, how to prepare them, and what they were when the set was opened.
pub struct Files {
    decode: Decode,
    paths: Vec<PathBuf>,
    /// of the prepared bytes
    crcs: Vec<u32>,
    prepare: Prepare,
    ahead: Mutex<Option<Ahead>>,
}

/// A batch that is being prepared on another thread.
struct Ahead {
    images: Vec<usize>,
    work: JoinHandle<Vec<Result<Vec<u8>>>>,
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} files, {:?}", self.paths.len(), self.prepare)
    }
}

impl PartialEq for Files {
    fn eq(&self, other: &Self) -> bool {
        (&self.paths, &self.crcs, &self.prepare) == (&other.paths, &other.crcs, &other.prepare)
    }
}

impl Files {
    /// The bytes of each image. The images after the last one are then prepared in the background, as many as were asked for:
    /// evaluation walks over a set in order, and starts again at the front.
    fn batch(self: &Arc<Self>, images: &[usize]) -> Result<Vec<Vec<u8>>> {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known: Vec<(usize, Result<Vec<u8>>)> = match ahead.take() {
            Some(Ahead { images, work }) => images
                .into_iter()
                .zip(work.join().map_err(|_| Error::Failed("preparing images failed".into()))?)
                .collect(),
            None => Vec::new(),
        };
        let missing: Vec<usize> = images.iter().copied().filter(|i| known.iter().all(|(k, _)| k != i)).collect();
        known.extend(missing.iter().copied().zip(self.prepare(&missing)));

        let n = self.paths.len();
        if let Some(&last) = images.last().filter(|_| images.len() < n) {
            // One of several processes takes every so-many-th image.
            let step = match images {
                [first, second, ..]
                    if second > first
                        && images.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == second - first) =>
                {
                    second - first
                }
                _ => 1,
            };
            let next: Vec<usize> = (0..images.len()).map(|k| (last + step * (1 + k)) % n).collect();
            let (files, these) = (Arc::clone(self), next.clone());
            // Where the system refuses a thread, the images are prepared when they are asked for.
            let work = std::thread::Builder::new().spawn(move || files.prepare(&these));
            *ahead = work.ok().map(|work| Ahead { images: next, work });
        }
        let at = |&i: &usize| {
            let place = known.iter().position(|(k, _)| *k == i).expect("prepared above");
            match &known[place].1 {
                Ok(bytes) => Ok(bytes.clone()),
                Err(e) => Err(Error::file(&self.paths[i], format!("was readable before: {e}"))),
            }
        };
        images.iter().map(at).collect()
    }

    fn prepare(&self, images: &[usize]) -> Vec<Result<Vec<u8>>> {
        let one = |&i: &usize| {
            let bytes = self.prepare.apply(&(self.decode)(&self.paths[i])?).pixels;
            match crc32(&bytes) == self.crcs[i] {
                true => Ok(bytes),
                false => Err(Error::file(&self.paths[i], "other pixels than when the run began")),
            }
        };
        images.par_iter().map(one).collect()
    }
}

/// The selected ones of `files` that are readable, each read once, with what `read` made of them; and what is not readable, in
/// whose place others are read, so that a limit counts readable images.
pub(super) fn choose<T: Send>(
    files: &[PathBuf],
    labels: &[u32],
    (limit, select): (Option<usize>, Select),
    read: impl Fn(&Path) -> Result<T> + Sync,
) -> (BTreeMap<usize, T>, Vec<Skipped>) {
    let (mut good, mut skipped) = (BTreeMap::new(), BTreeMap::new());
    let mut bad = BTreeSet::new();
    loop {
        let keep = select.among(labels, limit, &bad);
        let missing: Vec<usize> = keep.iter().copied().filter(|i| !good.contains_key(i)).collect();
        if missing.is_empty() {
            good.retain(|i, _| keep.binary_search(i).is_ok());
            return (good, skipped.into_values().collect());
        }
        let results: Vec<_> = missing.par_iter().map(|&i| (i, read(&files[i]))).collect();
        for (i, result) in results {
            match result {
                Ok(found) => {
                    good.insert(i, found);
                }
                Err(e) => {
                    bad.insert(i);
                    skipped.insert(i, Skipped::of(&files[i], &e));
                }
            }
        }
    }
}

/// Reads the selected files once: which are readable, their pixels as bytes while these are at most `held` bytes in all, else only
/// their checksums.
pub(super) fn read(
    files: &[PathBuf],
    labels: &[u32],
    which: (Option<usize>, Select),
    prepare: Prepare,
    held: usize,
) -> (Pixels, Vec<usize>, Vec<Skipped>) {
    read_by(Arc::new(decode), files, labels, which, prepare, held)
}

/// [`read`] of images that do not lie in files of their own.
pub(super) fn read_by(
    decode: Decode,
    files: &[PathBuf],
    labels: &[u32],
    (limit, select): (Option<usize>, Select),
    prepare: Prepare,
    held: usize,
) -> (Pixels, Vec<usize>, Vec<Skipped>) {
    let images = limit.unwrap_or(files.len()).min(files.len());
    let hold = images.saturating_mul(prepare.image_len()) <= held;
    let one = |path: &Path| {
        let bytes = prepare.apply(&decode(path)?).pixels;
        Ok((crc32(&bytes), if hold { bytes } else { Vec::new() }))
    };
    let (good, skipped) = choose(files, labels, (limit, select), one);
    let kept: Vec<usize> = good.keys().copied().collect();
    let pixels = if hold {
        let mut bytes = Vec::with_capacity(good.len() * prepare.image_len());
        good.into_values().for_each(|(_, image)| bytes.extend(image));
        Pixels::Bytes(bytes)
    } else {
        let paths = kept.iter().map(|&i| files[i].clone()).collect();
        let crcs = good.into_values().map(|(crc, _)| crc).collect();
        Pixels::Files(Arc::new(Files { decode, paths, crcs, prepare, ahead: Mutex::new(None) }))
    };
    (pixels, kept, skipped)
}

#[cfg(test)]
mod tests {
    use super::held;

    #[test]
    fn more_than_memory_should_hold_is_refused_with_the_way_out() {
        assert_eq!(held(50_000, [32, 32, 3], 4), Ok(()));
        assert_eq!(held(7_000, [224, 224, 3], 4), Ok(()));
        let problem = held(1000, [2048, 2048, 3], 4).unwrap_err();
        assert!(
            problem.contains("at most 4 GiB") && problem.contains("1000 of 2048x2048 pixels, 46.9 GiB"),
            "{problem}"
        );
        assert!(held(usize::MAX, [usize::MAX, 2, 3], 4).is_err());
    }
}
