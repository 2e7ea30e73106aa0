//! Votes of noisy draws, counted on the device: `kernels/vote.cu`.

use crate::device::{DType, Device, VOTE_BF16, VOTE_COUNT, VOTE_F32, VoteArgs, VoteCountArgs};
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// How many draws of each image are for which class.
#[derive(Debug)]
pub struct Votes {
    /// `(images, K)` integers
    counts: Tensor,
}

impl Votes {
    /// No votes yet.
    ///
    /// # Errors
    /// [`Error::Device`] without memory for them.
    pub fn new(device: &Device, images: usize, classes: usize) -> Result<Votes> {
        Ok(Votes { counts: Tensor::from_i32(device, &[images, classes], &vec![0; images * classes])? })
    }

    /// Counts the largest logit of each row, the lowest class among equals; a row with a NaN counts for no class. Records nothing.
    ///
    /// | arg | shape | |
    /// |---|---|---|
    /// | `logits` | `(rows, K)` | |
    /// | `rows` | `(images)` | how many rows belong to each image, which follow each other |
    ///
    /// # Errors
    /// [`Error::Shape`] when classes, images or rows differ in number.
    pub fn add(&self, g: &Graph, logits: &Tensor, rows: &[usize]) -> Result<()> {
        let ([n, k], [images, classes]) = (logits.dims2("vote")?, self.counts.dims2("vote")?);
        g.floats("vote", "logits", logits)?;
        if k != classes {
            return Err(Error::shape("vote", "classes", classes, k));
        }
        if rows.len() != images {
            return Err(Error::shape("vote", "images", images, rows.len()));
        }
        let mut first = vec![0i32];
        let mut total = 0usize;
        for &count in rows {
            total = total.saturating_add(count);
            first.push(i32::try_from(total).map_err(|_| Error::shape("vote", "rows", "below 2^31", total))?);
        }
        if total != n {
            return Err(Error::shape("vote", "rows of logits", total, n));
        }
        let device = g.device();
        let first = Tensor::from_i32(device, &[images + 1], &first)?;
        let prediction = Tensor::uninit(device, &[n], DType::I32)?;
        let args = VoteArgs { logits: logits.address(), prediction: prediction.address(), k: k as i32, reserved: 0 };
        g.launch(if logits.dtype() == DType::BF16 { &VOTE_BF16 } else { &VOTE_F32 }, [n, 1, 1], &args)?;
        let args = VoteCountArgs {
            prediction: prediction.address(),
            first: first.address(),
            counts: self.counts.address(),
            k: k as i32,
            reserved: 0,
        };
        g.launch(&VOTE_COUNT, [images, 1, 1], &args)
    }

    /// The counts of each image.
    ///
    /// # Errors
    /// [`Error::Device`] when they cannot be read.
    pub fn counts(&self, device: &Device) -> Result<Vec<Vec<u64>>> {
        let [_, k] = self.counts.dims2("vote")?;
        let all = self.counts.to_i32(device)?;
        Ok(all.chunks_exact(k.max(1)).map(|row| row.iter().map(|&count| count as u64).collect()).collect())
    }
}
