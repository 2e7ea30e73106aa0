//! Anybody's adversarial images, scored: whether they fool a network, what they cost, and whether 8 bits per value would undo them.

use crate::attack::{Budget, Loss, Norm, Oracle as _, Query};
use crate::data::saved::{Form, Saved};
use crate::data::{to_bytes, unit};
use crate::device::{DType, Device};
use crate::models::classifier::Classifier;
use crate::ops::pgd::budget;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What an attacked image has to keep to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    pub norm: Norm,
    pub eps: f64,
}

/// One image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    pub id: u64,
    pub label: u32,
    /// Unknown without the clean image, as the sizes of the perturbation are; the image then counts as right before the attack.
    pub clean_prediction: Option<u32>,
    pub prediction: u32,
    /// Once its values are multiples of 1/255.
    pub rounded_prediction: u32,
    /// Sizes of the perturbation; without the clean image those are NaN.
    pub budget: Budget,
    /// The same of the rounded image.
    pub rounded: Budget,
    /// Whether it keeps to the box and, where there is one, the limit.
    pub within: bool,
    pub rounded_within: bool,
}

impl Scored {
    /// Whether the label is found before the attack, as far as that is known.
    pub fn right_clean(&self) -> bool {
        self.clean_prediction.is_none_or(|prediction| prediction == self.label)
    }

    /// Whether the attack did what it was for, within its limit.
    pub fn success(&self) -> bool {
        self.right_clean() && self.within && self.prediction != self.label
    }

    /// Whether a success is none any more once the image is stored in 8 bits.
    pub fn undone(&self) -> bool {
        self.success() && self.rounded_prediction == self.label
    }

    /// Whether a success leaves its limit once the image is stored in 8 bits.
    pub fn pushed_out(&self) -> bool {
        self.success() && !self.rounded_within
    }

    /// Whether a value is none at all.
    pub fn is_broken(&self) -> bool {
        self.budget.low.is_nan()
    }

    /// Whether a value is no number in [0, 1].
    pub fn outside(&self) -> bool {
        !(self.budget.low >= 0.0 && self.budget.high <= 1.0)
    }
}

/// Scores every image of a set, `batch` at a time.
///
/// # Errors
/// [`Error::Failed`] for a label that the network has no class for; what the network's ops return.
pub fn score(net: &Classifier, saved: &Saved, limit: Option<Limit>, batch: usize) -> Result<Vec<Scored>> {
    let [.., channels] = net.image_shape();
    let [height, width, _] = saved.shape;
    let (n, len) = (saved.labels.len(), height * width * channels);
    if let Some(i) = saved.labels.iter().position(|&label| label as usize >= net.classes()) {
        let problem =
            format!("label of image {i}: expected one of {} classes, found {}", net.classes(), saved.labels[i]);
        return Err(Error::Failed(problem));
    }
    let device = net.device();
    let tensor =
        |pixels: &[f32]| Tensor::from_f32(device, &[pixels.len() / len, height, width, channels], DType::F32, pixels);
    let mut all = Vec::with_capacity(n);
    for begin in (0..n).step_by(batch.max(1)) {
        let end = n.min(begin + batch.max(1));
        let part = |form| saved.images(form, begin..end, channels);
        let labels = &saved.labels[begin..end];
        let predict = |pixels: &[f32]| -> Result<Vec<u32>> {
            let found = net.evaluate(&tensor(pixels)?, &Query::new(labels, Loss::CrossEntropy))?;
            let lost = |i: &usize| found.margin[*i].is_nan() && pixels[i * len..][..len].iter().all(|v| v.is_finite());
            if let Some(i) = (0..labels.len()).find(lost) {
                let problem =
                    format!("image {}: the logits are no numbers, and what they predict is nothing", begin + i);
                return Err(Error::Failed(problem));
            }
            Ok(found.prediction)
        };
        let attacked = part(Form::Attacked)?.unwrap_or_default();
        let rounded: Vec<f32> = to_bytes(&attacked).into_iter().map(unit).collect();
        let clean = part(Form::Clean)?;
        let predictions = predict(&attacked)?;
        let (rounded_predictions, clean_predictions) = (predict(&rounded)?, clean.as_deref().map(predict).transpose()?);
        let budgets = |pixels: &[f32]| of(device, pixels, clean.as_deref(), len, &tensor);
        let (budgets, rounded) = (budgets(&attacked)?, budgets(&rounded)?);
        let within = |b: &Budget| match limit.filter(|_| clean.is_some()) {
            Some(limit) => !b.violates(limit.norm, limit.eps),
            None => b.low >= 0.0 && b.high <= 1.0,
        };
        for i in 0..labels.len() {
            all.push(Scored {
                id: saved.ids[begin + i],
                label: labels[i],
                clean_prediction: clean_predictions.as_ref().map(|all| all[i]),
                prediction: predictions[i],
                rounded_prediction: rounded_predictions[i],
                budget: budgets[i],
                rounded: rounded[i],
                within: within(&budgets[i]),
                rounded_within: within(&rounded[i]),
            });
        }
    }
    Ok(all)
}

/// What perturbations cost; without clean images only how far the values reach. A value that is none makes all of it NaN.
fn of(
    device: &Device,
    pixels: &[f32],
    clean: Option<&[f32]>,
    len: usize,
    tensor: &dyn Fn(&[f32]) -> Result<Tensor>,
) -> Result<Vec<Budget>> {
    let mut all = match clean {
        Some(clean) => budget(device, &tensor(pixels)?, &tensor(clean)?)?,
        None => vec![Budget { linf: f32::NAN, l2: f32::NAN, low: 0.0, high: 0.0 }; pixels.len() / len],
    };
    for (budget, image) in all.iter_mut().zip(pixels.chunks_exact(len)) {
        let broken = image.iter().any(|v| v.is_nan());
        if broken {
            (budget.linf, budget.l2) = (f32::NAN, f32::NAN);
        }
        budget.low = if broken { f32::NAN } else { image.iter().copied().fold(f32::INFINITY, f32::min) };
        budget.high = if broken { f32::NAN } else { image.iter().copied().fold(f32::NEG_INFINITY, f32::max) };
    }
    Ok(all)
}
