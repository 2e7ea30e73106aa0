//! Steps of an attack that are told later, on the device until then: `kernels/steps.cu`.

use super::pgd::{CHUNK, alike, digest_into, digests, of_each, rows};
use crate::device::{DType, Device, STEPS_NOTE, STEPS_TICK, StepsNoteArgs, StepsTickArgs};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What a step found of N images, on the device: losses and margins `(N)` float32, predictions `(N)` int32.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    pub loss: &'a Tensor,
    pub margin: &'a Tensor,
    pub prediction: &'a Tensor,
}

/// Images that are done where they succeed.
#[derive(Clone)]
pub struct Done {
    /// `(N)` int32: 1 where an image is done.
    pub flags: Tensor,
    /// `(N)` int32: what a success is of, or of another than.
    pub classes: Tensor,
    pub targeted: bool,
}

/// What steps found, read back.
pub struct Noted {
    /// Of each step and image: the digest of the iterate, where it was asked for.
    pub digests: Vec<u128>,
    pub loss: Vec<f32>,
    pub margin: Vec<f32>,
    pub prediction: Vec<u32>,
}

/// Values a step has of an image: loss, margin and prediction.
const FOUND: usize = 3;
/// Words of a digest.
const DIGEST: usize = 4;

/// Room for a number of steps of N images.
pub struct Steps {
    slots: usize,
    n: usize,
    /// `(slots * N, ..)`, step by step
    iterates: Tensor,
    /// The number of the next step, what steps found, and the digests of their iterates: one buffer, to be read at once.
    words: Tensor,
}

impl Steps {
    /// Room for `slots` steps of images such as `x`, `(N, ..)` float32.
    ///
    /// # Errors
    /// [`Error::Shape`] for images that are not float32, [`Error::Device`] when the device is out of memory.
    pub fn new(device: &Device, slots: usize, x: &Tensor) -> Result<Self> {
        let [n, _] = rows("steps", x)?;
        let mut shape = x.shape().to_vec();
        shape[0] = slots * n;
        let iterates = Tensor::uninit(device, &shape, DType::F32)?;
        let words = Tensor::uninit(device, &[1 + slots * n * (FOUND + DIGEST)], DType::I32)?;
        Ok(Steps { slots, n, iterates, words })
    }

    /// Begins anew with the first slot.
    ///
    /// # Errors
    /// [`Error::Device`] when something launched before failed.
    pub fn begin(&self, device: &Device) -> Result<()> {
        self.words.clear(device)
    }

    /// The iterates noted since [`Steps::begin`], of the first `steps`: `(steps * N, ..)`, overwritten after the next one.
    ///
    /// # Errors
    /// [`Error::Shape`] for more than there is room for.
    pub fn iterates(&self, steps: usize) -> Result<Tensor> {
        self.iterates.rows(0, steps * self.n)
    }

    /// Writes the slot at hand: the iterate, `(N, ..)`, and what was found. Marks images that are done.
    ///
    /// # Errors
    /// [`Error::Shape`] when something is not of N images of this shape.
    pub fn note(&self, device: &Device, x: &Tensor, found: Found, done: Option<&Done>) -> Result<()> {
        let [n, d] = rows("steps_note", x)?;
        alike("steps_note", "iterates", x, &self.iterates.rows(0, self.n)?)?;
        for (what, values) in [("losses", found.loss), ("margins", found.margin)] {
            of_each("steps_note", what, values, n, DType::F32)?;
        }
        let done_values = done.map(|done| [("images that are done", &done.flags), ("classes", &done.classes)]);
        for (what, values) in done_values.into_iter().flatten().chain([("predictions", found.prediction)]) {
            of_each("steps_note", what, values, n, DType::I32)?;
        }
        let args = StepsNoteArgs {
            x: x.address(),
            loss: found.loss.address(),
            margin: found.margin.address(),
            prediction: found.prediction.address(),
            classes: done.map_or(0, |done| done.classes.address()),
            done: done.map_or(0, |done| done.flags.address()),
            iterates: self.iterates.address(),
            found: self.words.rows(1, self.slots * n * FOUND)?.address(),
            slot: self.words.address(),
            n: n as i32,
            d: d as i32,
            chunk: CHUNK as i32,
            targeted: i32::from(done.is_some_and(|done| done.targeted)),
        };
        device.launch(&STEPS_NOTE, [d.div_ceil(CHUNK), n, 1], &args)
    }

    /// Goes on to the next slot. The caller sees to it that there is one when it is written.
    ///
    /// # Errors
    /// What the launch returns.
    pub fn tick(&self, device: &Device) -> Result<()> {
        device.launch(&STEPS_TICK, [1, 1, 1], &StepsTickArgs { slot: self.words.address() })
    }

    /// What the first `steps` found, in one copy, and the digests of the iterates of the first `digested`.
    ///
    /// # Errors
    /// [`Error::Shape`] for more than there is room for, [`Error::Device`] when a launch failed.
    pub fn read(&self, device: &Device, steps: usize, digested: usize) -> Result<Noted> {
        let (n, at) = (self.n, 1 + self.slots * self.n * FOUND);
        if steps > self.slots || digested > steps {
            let (room, asked) = (self.slots, format!("{steps}, {digested} of them digested"));
            return Err(Error::shape("steps", "steps", format!("at most {room}"), asked));
        }
        if digested > 0 {
            digest_into(device, &self.iterates(digested)?, &self.words.rows(at, digested * n * DIGEST)?)?;
        }
        let words = self.words.to_i32(device)?;
        let mut noted = Noted {
            digests: digests(&words[at..at + digested * n * DIGEST]),
            loss: vec![],
            margin: vec![],
            prediction: vec![],
        };
        for found in words[1..1 + steps * n * FOUND].chunks_exact(FOUND) {
            noted.loss.push(f32::from_bits(found[0] as u32));
            noted.margin.push(f32::from_bits(found[1] as u32));
            noted.prediction.push(found[2] as u32);
        }
        Ok(noted)
    }
}
