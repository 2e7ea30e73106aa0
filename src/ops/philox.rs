//! Counter-based random numbers: `kernels/philox.cu`. The header of `kernels/philox.cuh` says what a number depends on.

use crate::device::{
    DType, Device, Kernel, PHILOX_NORMAL, PHILOX_UNIFORM, PHILOX_WORDS, PhiloxFillArgs, PhiloxStream, PhiloxWordsArgs,
};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What random numbers are for. Streams of different purposes never meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Purpose {
    /// Random starts of attacks.
    Start = 1,
    /// Random target classes.
    Target = 2,
    /// Noise of a defence while it is evaluated.
    Noise = 3,
    /// Noise of a defence while it is attacked.
    AttackNoise = 4,
    /// Windows and signs of random searches.
    Search = 5,
    /// Noise of a defence while points of an attack are chosen from.
    Selection = 6,
    /// Noise that chooses the class of a certificate.
    CertifyChoice = 7,
    /// Noise that bounds that class's share.
    Certify = 8,
}

/// Largest image id plus one.
pub const IDS: u64 = 1 << 44;

/// A stream of random numbers: everything they depend on but the image and the element.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stream {
    pub seed: u64,
    pub purpose: Purpose,
    /// below 2^10
    pub restart: u32,
    /// below 2^16
    pub step: u32,
    /// below 2^20
    pub draw: u32,
}

impl Stream {
    /// The first draw before the first step.
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        Stream { seed, purpose, restart: 0, step: 0, draw: 0 }
    }

    fn packed(&self) -> Result<PhiloxStream> {
        for (what, value, bits) in [
            ("restart", self.restart, 10),
            ("step", self.step, 16),
            ("draw", self.draw, 20),
            ("purpose", self.purpose as u32, 6),
        ] {
            if value >> bits != 0 {
                return Err(Error::Limit {
                    kernel: "philox".into(),
                    what,
                    requested: value.into(),
                    max: (1 << bits) - 1,
                });
            }
        }
        Ok(PhiloxStream {
            key_low: self.seed as u32,
            key_high: (self.seed >> 32) as u32,
            draw: self.draw << 12,
            scope: self.step | self.restart << 16 | (self.purpose as u32) << 26,
        })
    }

    /// The four words of elements `4 * quad ..` of an image, computed here rather than on a device.
    ///
    /// # Errors
    /// [`Error::Limit`] when a number does not fit the counter.
    pub fn words(&self, id: u64, quad: u32) -> Result<[u32; 4]> {
        let (stream, [low, high]) = (self.packed()?, split(id)?);
        Ok(philox([quad, low, high | stream.draw, stream.scope], [stream.key_low, stream.key_high]))
    }
}

/// Philox4x32-10 on a counter under a key. Source: Salmon, Moraes, Dror & Shaw 2011.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut low, mut high]) = (counter, key);
    for _ in 0..10 {
        let (p, q) = (u64::from(a) * 0xD251_1F53, u64::from(c) * 0xCD9E_8D57);
        (a, b, c, d) = ((q >> 32) as u32 ^ b ^ low, q as u32, (p >> 32) as u32 ^ d ^ high, p as u32);
        (low, high) = (low.wrapping_add(0x9E37_79B9), high.wrapping_add(0xBB67_AE85));
    }
    [a, b, c, d]
}

/// A word as a number in `[0, 1)` of 24 bits.
pub fn to_uniform(word: u32) -> f32 {
    (word >> 8) as f32 / (1 << 24) as f32
}

/// Uniform numbers in `[0, 1)`, `(ids, dims..)`, row n for the image `ids[n]`.
///
/// # Errors
/// [`Error::Limit`] when an id, an element or the stream does not fit the counter.
pub fn uniform(device: &Device, stream: &Stream, ids: &[u64], dims: &[usize]) -> Result<Tensor> {
    fill(device, &PHILOX_UNIFORM, stream, ids, dims)
}

/// Standard normal numbers, otherwise as [`uniform`].
///
/// # Errors
/// As [`uniform`].
pub fn normal(device: &Device, stream: &Stream, ids: &[u64], dims: &[usize]) -> Result<Tensor> {
    fill(device, &PHILOX_NORMAL, stream, ids, dims)
}

/// Standard normal numbers, a row for each image id and draw; those of [`normal`] for the stream of that draw.
///
/// # Errors
/// As [`uniform`].
pub fn normal_rows(device: &Device, stream: &Stream, rows: &[(u64, u32)], dims: &[usize]) -> Result<Tensor> {
    let plain = Stream { draw: 0, ..*stream };
    let mut words = Vec::with_capacity(2 * rows.len());
    for &(id, draw) in rows {
        let [low, high] = split(id)?;
        words.extend([low as i32, (high | Stream { draw, ..plain }.packed()?.draw) as i32]);
    }
    let ids = Tensor::from_i32(device, &[rows.len(), 2], &words)?;
    fill_rows(device, &PHILOX_NORMAL, &plain, &ids, dims)
}

fn fill(
    device: &Device,
    kernel: &'static Kernel<PhiloxFillArgs>,
    stream: &Stream,
    ids: &[u64],
    dims: &[usize],
) -> Result<Tensor> {
    fill_rows(device, kernel, stream, &upload_ids(device, ids)?, dims)
}

/// `ids` are pairs of words, `(N, 2)`.
fn fill_rows(
    device: &Device,
    kernel: &'static Kernel<PhiloxFillArgs>,
    stream: &Stream,
    ids: &Tensor,
    dims: &[usize],
) -> Result<Tensor> {
    let d: usize = dims.iter().product();
    if d >= 1 << 31 {
        return Err(Error::Limit {
            kernel: "philox".into(),
            what: "elements per image",
            requested: d as u64,
            max: (1 << 31) - 1,
        });
    }
    let stream = stream.packed()?;
    let n = ids.shape()[0];
    let y = Tensor::uninit(device, &[&[n], dims].concat(), DType::F32)?;
    let (quads, quads_per_block) = (d.div_ceil(4), 1024);
    let args = PhiloxFillArgs {
        ids: ids.address(),
        y: y.address(),
        stream,
        d: d as i32,
        quads_per_block: quads_per_block as i32,
    };
    device.launch(kernel, [quads.div_ceil(quads_per_block), n, 1], &args)?;
    Ok(y)
}

/// The bare generator on the device, for known-answer tests: rows of counter and key to rows of words.
///
/// # Errors
/// What the launch returns.
pub fn words(device: &Device, inputs: &[[u32; 6]]) -> Result<Vec<[u32; 4]>> {
    let n = inputs.len();
    let from: Vec<i32> = inputs.iter().flatten().map(|&w| w as i32).collect();
    let from = Tensor::from_i32(device, &[n, 6], &from)?;
    let y = Tensor::uninit(device, &[n, 4], DType::I32)?;
    let args = PhiloxWordsArgs { from: from.address(), words: y.address(), n: n as i32, reserved: 0 };
    device.launch(&PHILOX_WORDS, [1, 1, 1], &args)?;
    let words = y.to_i32(device)?;
    Ok(words.chunks_exact(4).map(|w| [w[0] as u32, w[1] as u32, w[2] as u32, w[3] as u32]).collect())
}

fn split(id: u64) -> Result<[u32; 2]> {
    if id >= IDS {
        return Err(Error::Limit { kernel: "philox".into(), what: "image id", requested: id, max: IDS - 1 });
    }
    Ok([id as u32, (id >> 32) as u32])
}

fn upload_ids(device: &Device, ids: &[u64]) -> Result<Tensor> {
    let mut words = Vec::with_capacity(2 * ids.len());
    for &id in ids {
        words.extend(split(id)?.map(|w| w as i32));
    }
    Tensor::from_i32(device, &[ids.len(), 2], &words)
}
