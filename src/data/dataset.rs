//! An evaluation set in memory, or as much of it as fits.

use std::path::Path;

use super::grey;
use super::prepared::Pixels;
use super::skipped::Skipped;
use super::subset::Select;
use crate::error::{Error, Result};

/// An evaluation set.
#[derive(Clone, Debug, PartialEq)]
pub struct Dataset {
    pub name: String,
    /// Pixels per column and per row; the same for all images.
    pub height: usize,
    pub width: usize,
    /// One name per class; labels index it.
    pub classes: Vec<String>,
    pub pixels: Pixels,
    /// `(N)`: the true class.
    pub labels: Vec<u32>,
    /// `(N)`: the index of each image in its source, whatever was selected. It keys the random streams.
    pub ids: Vec<u64>,
    /// Files that are not among the images: what lies there and is none, and those selected that cannot be read.
    pub skipped: Vec<Skipped>,
}

impl Dataset {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Values per pixel: 3, or 1 once they are [`Dataset::grey`]; 2 and 4 of arrays that have them.
    pub fn channels(&self) -> usize {
        self.pixels.channels()
    }

    /// Height, width and channels of an image.
    pub fn shape(&self) -> [usize; 3] {
        [self.height, self.width, self.channels()]
    }

    /// Values per image: `H * W * C`.
    pub fn image_len(&self) -> usize {
        self.shape().iter().product()
    }

    /// The same images as networks of so many channels take them.
    ///
    /// # Errors
    /// What was expected and found, in words.
    pub fn for_channels(self, channels: usize) -> Result<Dataset, String> {
        Ok(if grey::fits(channels, self.channels())? { self.grey() } else { self })
    }

    /// The same images in one channel: that of grey ones, of colours the luma.
    pub fn grey(self) -> Dataset {
        let pixels = match self.pixels {
            pixels @ Pixels::Grey(_) => pixels,
            pixels => Pixels::Grey(Box::new(pixels)),
        };
        Dataset { pixels, ..self }
    }

    /// Image `i` as `(H, W, C)` in [0, 1].
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    pub fn image(&self, i: usize) -> Result<Vec<f32>> {
        self.batch(&[i])
    }

    /// Images in the order asked for, each `(H, W, C)` in [0, 1]: a byte divided by 255.
    ///
    /// # Errors
    /// [`Error::File`] when a file is no longer what it was when the set was opened; none for sets in memory.
    ///
    /// # Panics
    /// When an index is not below [`Dataset::len`].
    pub fn batch(&self, images: &[usize]) -> Result<Vec<f32>> {
        self.pixels.batch(images, self.height * self.width)
    }

    /// The first `limit` images, or all when there are fewer, in memory.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    pub fn take(&self, limit: usize) -> Result<Dataset> {
        self.select(limit, Select::First)
    }

    /// At most `limit` images, in memory.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    pub fn select(&self, limit: usize, how: Select) -> Result<Dataset> {
        let keep = how.indices(&self.labels, Some(limit));
        Ok(Dataset {
            name: self.name.clone(),
            classes: self.classes.clone(),
            pixels: self.pixels.kept(&keep, self.height * self.width)?,
            labels: keep.iter().map(|&i| self.labels[i]).collect(),
            ids: keep.iter().map(|&i| self.ids[i]).collect(),
            skipped: self.skipped.clone(),
            ..*self
        })
    }

    /// A checksum over sizes, ids, labels and pixels: tells whether two runs saw the same images.
    pub fn crc32(&self) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(&(self.height as u64).to_le_bytes());
        crc.update(&(self.width as u64).to_le_bytes());
        crc.update(bytemuck::cast_slice(&self.ids));
        crc.update(bytemuck::cast_slice(&self.labels));
        self.pixels.checksum(&mut crc, self.height * self.width);
        crc.sum()
    }
}

/// Refuses a label that names no class. `i` is the index of the image.
pub(super) fn check_label(file: &Path, i: usize, label: u8, classes: usize) -> Result<u32> {
    if usize::from(label) < classes {
        return Ok(label.into());
    }
    Err(Error::file(file, format!("label of image {i}: expected 0 to {}, found {label}", classes - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toy(labels: &[u32]) -> Dataset {
        Dataset {
            name: "toy".into(),
            height: 1,
            width: 2,
            classes: vec!["a".into(), "b".into(), "c".into()],
            pixels: Pixels::Floats((0..labels.len() * 6).map(|v| v as f32).collect()),
            labels: labels.to_vec(),
            ids: (100..100 + labels.len() as u64).collect(),
            skipped: vec![],
        }
    }

    #[test]
    fn take_keeps_the_first_images_with_their_ids() {
        let all = toy(&[2, 2, 1, 0]);
        let two = all.take(2).unwrap();
        assert_eq!((two.len(), &two.ids[..], two.image(1).unwrap()), (2, &[100, 101][..], all.image(1).unwrap()));
        assert_eq!(all.take(9).unwrap(), all);
        assert!(all.take(0).unwrap().is_empty());
    }

    #[test]
    fn grey_images_have_one_channel() {
        let grey = toy(&[0, 1]).grey();
        assert_eq!((grey.shape(), grey.image_len()), ([1, 2, 1], 2));
        let luma = |r: f32| 0.299 * r + 0.587 * (r + 1.0) + 0.114 * (r + 2.0);
        assert_eq!(grey.image(1).unwrap(), [luma(6.0), luma(9.0)]);
        assert_eq!(grey.take(1).unwrap().batch(&[0]).unwrap(), grey.image(0).unwrap());
        assert_eq!((grey.clone().grey(), grey.crc32()), (grey, toy(&[0, 1]).crc32()));
    }

    #[test]
    fn balanced_selection_is_even_and_in_source_order() {
        let all = toy(&[0, 0, 0, 0, 1, 1, 2]);
        let ids = |limit| all.select(limit, Select::Balanced).unwrap().ids;
        assert_eq!(ids(3), [100, 104, 106]);
        assert_eq!(ids(5), [100, 101, 104, 105, 106]);
        assert_eq!(ids(7), all.ids);
    }

    #[test]
    fn checksum_sees_pixels_labels_and_ids() {
        let a = toy(&[0, 1]);
        let mut b = a.clone();
        let Pixels::Floats(pixels) = &mut b.pixels else { unreachable!("made above") };
        pixels[3] += 1.0;
        let mut c = a.clone();
        c.ids[0] = 7;
        assert_eq!(a.crc32(), a.clone().crc32());
        assert!(a.crc32() != b.crc32() && a.crc32() != c.crc32() && a.crc32() != toy(&[1, 0]).crc32());
    }
}
