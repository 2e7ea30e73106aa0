//! Denoised images that are asked for again: clean ones are denoised under the same noise for every model, and for every attack at a
//! budget of 0.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::denoise::Level;
use crate::ops::philox::Stream;

/// Memory that they may take; what is not held is denoised again.
const MOST: usize = 512 << 20;

/// The image, the level, and the restart and draw of the noise.
type Key = (u64, u64, u32, u32);

/// Denoised clean images of one run, by what their noise is keyed by. Results do not depend on what is held.
#[derive(Debug, Default)]
pub struct Remembered {
    held: Mutex<HashMap<Key, Vec<f32>>>,
}

fn key(id: u64, level: &Level, stream: &Stream) -> Key {
    (id, level.sigma.to_bits(), stream.restart, stream.draw)
}

impl Remembered {
    /// The images of these numbers one behind the other, if all are held.
    pub fn get(&self, ids: &[u64], level: &Level, stream: &Stream) -> Option<Vec<f32>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let images: Option<Vec<&Vec<f32>>> = ids.iter().map(|&id| held.get(&key(id, level, stream))).collect();
        images.map(|images| images.into_iter().flatten().copied().collect())
    }

    /// Holds images of one size, as many as memory is for.
    pub fn keep(&self, ids: &[u64], level: &Level, stream: &Stream, images: &[f32]) {
        self.keep_within(MOST, ids, level, stream, images);
    }

    fn keep_within(&self, most: usize, ids: &[u64], level: &Level, stream: &Stream, images: &[f32]) {
        let len = images.len() / ids.len().max(1);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (&id, image) in ids.iter().zip(images.chunks_exact(len.max(1))) {
            if (held.len() + 1).saturating_mul(len * size_of::<f32>()) <= most {
                held.insert(key(id, level, stream), image.to_vec());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::ops::philox::Purpose;
    use crate::tape::Precision;

    #[test]
    fn images_come_back_under_their_own_noise_alone() {
        let denoiser = super::super::Denoiser::noise(&Device::host().unwrap(), Precision::F32, 1);
        let (low, high) = (denoiser.level(0.25).unwrap(), denoiser.level(0.5).unwrap());
        let first = Stream::new(1, Purpose::Noise);
        let second = Stream { draw: 1, ..first };
        let held = Remembered::default();
        held.keep(&[7, 9], &low, &first, &[0.1, 0.2, 0.3, 0.4]);
        assert_eq!(held.get(&[9, 7], &low, &first), Some(vec![0.3, 0.4, 0.1, 0.2]));
        assert_eq!(held.get(&[9], &low, &first), Some(vec![0.3, 0.4]));
        for (ids, level, stream) in [(&[7, 8][..], &low, &first), (&[7], &high, &first), (&[7], &low, &second)] {
            assert_eq!(held.get(ids, level, stream), None);
        }
        // More than memory is for is not held.
        held.keep_within(24, &[1, 2], &low, &first, &[0.5; 4]);
        assert_eq!((held.get(&[1], &low, &first), held.get(&[2], &low, &first)), (Some(vec![0.5; 2]), None));
    }
}
