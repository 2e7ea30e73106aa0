//! Attack losses with their gradient, margin and prediction in one launch: `kernels/loss.cu`, whose header has the formulas.

use crate::device::{DType, Device, LOSS_BF16, LOSS_F32, LossArgs};
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A loss that an attack raises. The targeted ones need a target class per image.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum LossKind {
    CrossEntropy {
        /// In `[0, 1]`: the share of the label that is spread over all classes.
        label_smoothing: f32,
    },
    CrossEntropyTargeted,
    /// The largest wrong logit less the label's (Carlini & Wagner 2017).
    Margin,
    /// Difference of logits ratio (Croce & Hein 2020); needs 3 classes.
    Dlr,
    /// Needs 4 classes.
    DlrTargeted,
    /// The target's logit less the label's.
    Difference,
}

impl LossKind {
    /// Cross-entropy of the label alone.
    pub const CROSS_ENTROPY: LossKind = LossKind::CrossEntropy { label_smoothing: 0.0 };

    /// The number in `kernels/loss.cu`, whether there are targets, and how many classes it takes.
    fn traits(self) -> (i32, bool, usize) {
        match self {
            LossKind::CrossEntropy { .. } => (0, false, 1),
            LossKind::CrossEntropyTargeted => (1, true, 1),
            LossKind::Margin => (2, false, 2),
            LossKind::Dlr => (3, false, 3),
            LossKind::DlrTargeted => (4, true, 4),
            LossKind::Difference => (5, true, 2),
        }
    }
}

/// What [`loss`] computes for each image.
#[derive(Debug)]
pub struct LossOutput {
    /// `(N)` float32
    pub loss: Tensor,
    /// `(N, K)` in the precision of the logits: the gradient of the sum of the losses
    pub dlogits: Tensor,
    /// `(N)` float32: the label's logit less the largest other; infinite for a single class
    pub margin: Tensor,
    /// `(N)` integers: the class of the largest logit, the lowest among equals; the first NaN if there is one
    pub prediction: Tensor,
}

/// A class of each image, on the device.
#[derive(Clone, Debug)]
pub struct Classes {
    /// `(N)` int32
    values: Tensor,
    /// All are below.
    below: usize,
}

impl Classes {
    /// Uploads classes below `k`; `what` they are, for the message.
    ///
    /// # Errors
    /// [`Error::Shape`] for one that is not.
    pub fn new(device: &Device, what: &str, classes: &[u32], k: usize) -> Result<Self> {
        if let Some(at) = classes.iter().position(|&c| c as usize >= k) {
            return Err(Error::shape("loss", format!("{what}, image {at}"), format!("a class below {k}"), classes[at]));
        }
        let values: Vec<i32> = classes.iter().map(|&c| c as i32).collect();
        Ok(Classes { values: Tensor::from_i32(device, &[classes.len()], &values)?, below: k })
    }

    /// Their address, when they are those of `n` images and exist among `k`.
    fn address(&self, what: &str, n: usize, k: usize) -> Result<u64> {
        if self.values.len() != n {
            return Err(Error::shape("loss", what, n, self.values.len()));
        }
        if self.below > k {
            return Err(Error::shape("loss", what, format!("classes below {k}"), format!("below {}", self.below)));
        }
        Ok(self.values.address())
    }
}

/// As [`loss_of`], of classes on the host.
///
/// # Errors
/// As there.
pub fn loss(g: &Graph, logits: &Tensor, labels: &[u32], targets: Option<&[u32]>, kind: LossKind) -> Result<LossOutput> {
    let [_, k] = logits.dims2("loss")?;
    let labels = Classes::new(g.device(), "labels", labels, k)?;
    let targets = targets.map(|t| Classes::new(g.device(), "targets", t, k)).transpose()?;
    loss_of(g, logits, &labels, targets.as_ref(), kind)
}

/// The loss of each image and where it leads. Records nothing: seed the backward pass with [`LossOutput::dlogits`].
///
/// | arg | shape | |
/// |---|---|---|
/// | `logits` | `(N, K)` | |
/// | `labels` | `(N)` | below `K` |
/// | `targets` | `(N)` | below `K`; for the targeted losses only |
///
/// # Errors
/// [`Error::Shape`] for a label or target that is no class, for targets missing or superfluous, for too few classes, and for
/// a smoothing outside `[0, 1]`.
pub fn loss_of(
    g: &Graph,
    logits: &Tensor,
    labels: &Classes,
    targets: Option<&Classes>,
    kind: LossKind,
) -> Result<LossOutput> {
    let [n, k] = logits.dims2("loss")?;
    g.floats("loss", "logits", logits)?;
    let (number, targeted, classes) = kind.traits();
    if k < classes {
        return Err(Error::shape("loss", format!("classes for {kind:?}"), format!("at least {classes}"), k));
    }
    let smoothing = match kind {
        LossKind::CrossEntropy { label_smoothing } => label_smoothing,
        _ => 0.0,
    };
    if !(0.0..=1.0).contains(&smoothing) {
        return Err(Error::shape("loss", "label smoothing", "0 to 1", smoothing));
    }
    if targets.is_some() != targeted {
        let (expected, got) = if targeted { ("one per image", "none") } else { ("none", "some") };
        return Err(Error::shape("loss", format!("targets for {kind:?}"), expected, got));
    }
    let labels = labels.address("labels", n, k)?;
    let targets = targets.map_or(Ok(0), |t| t.address("targets", n, k))?;

    let device = g.device();
    let out = LossOutput {
        loss: Tensor::uninit(device, &[n], DType::F32)?,
        dlogits: Tensor::uninit(device, &[n, k], logits.dtype())?,
        margin: Tensor::uninit(device, &[n], DType::F32)?,
        prediction: Tensor::uninit(device, &[n], DType::I32)?,
    };
    let args = LossArgs {
        logits: logits.address(),
        labels,
        targets,
        loss: out.loss.address(),
        dlogits: out.dlogits.address(),
        margin: out.margin.address(),
        prediction: out.prediction.address(),
        k: k as i32,
        kind: number,
        smoothing,
        reserved: 0,
    };
    g.launch(if logits.dtype() == DType::BF16 { &LOSS_BF16 } else { &LOSS_F32 }, [n, 1, 1], &args)?;
    Ok(out)
}
