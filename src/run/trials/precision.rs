//! The same images in float32, where a run had less.

use super::found::Against;
use super::lab::{Lab, against};
use crate::Result;
use crate::config::Checkpoint;
use crate::models::classifier::Classifier;
use crate::tape::Precision;

/// Clean images that are compared at most.
pub(super) const COMPARED: usize = 256;

pub(super) fn precision(lab: &Lab) -> Result<Option<Against>> {
    if lab.config.precision == Precision::F32 {
        return Ok(None);
    }
    let Checkpoint { weights, card, .. } = lab.config.models[lab.model].open()?;
    let size = [lab.dataset.height, lab.dataset.width];
    let whole = Classifier::described(lab.device(), Precision::F32, &weights, &card, size)?;
    let images: Vec<usize> = (0..lab.dataset.len().min(COMPARED)).collect();
    let pixels = lab.dataset.batch(&images)?;
    let [height, width, channels] = lab.dataset.shape();
    let shape = [images.len(), height, width, channels];
    let tensor = crate::tensor::Tensor::from_f32(lab.device(), &shape, crate::device::DType::F32, &pixels)?;
    let (own, other) = (lab.predicted(lab.net, &tensor)?, lab.predicted(&whole, &tensor)?);
    let ids: Vec<u64> = images.iter().map(|&i| lab.dataset.ids[i]).collect();
    // The same class counts as right, so that those that differ stand apart.
    let same: Vec<bool> = own.iter().zip(&other).map(|(a, b)| a == b).collect();
    Ok(Some(against(&ids, &vec![true; same.len()], &same)))
}
