//! Networks whose outputs are probabilities where logits were expected: the gradient that an attack follows then vanishes with them, and
//! what is still right was not attacked.

use super::progress::note;
use crate::Result;
use crate::attack::Oracle as _;
use crate::data::Dataset;
use crate::device::DType;
use crate::models::classifier::Classifier;
use crate::tensor::Tensor;

/// Images that are looked at.
const SEEN: usize = 4;

/// Says so of a network whose outputs for the first images all lie in [0, 1].
///
/// # Errors
/// What reading the images and the network's ops return.
pub fn tell(name: &str, net: &Classifier, dataset: &Dataset) -> Result<()> {
    let images: Vec<usize> = (0..dataset.len().min(SEEN)).collect();
    let [height, width, channels] = dataset.shape();
    // A network of another size is refused where it is attacked.
    if net.image_shape() != dataset.shape() || images.is_empty() {
        return Ok(());
    }
    let pixels = dataset.batch(&images)?;
    let images = Tensor::from_f32(net.device(), &[images.len(), height, width, channels], DType::F32, &pixels)?;
    let outputs = net.logits(&images)?.to_f32(net.device())?;
    if let Some(what) = of(&outputs, net.classes()) {
        note(format!(
            "warning: {name}: its outputs for the first images {what}: they look like probabilities, not logits. Through a saturated \
             softmax or sigmoid no gradient comes: attacks seem to fail, and every number is too high. Export the network without its last \
             activation"
        ));
    }
    Ok(())
}

/// What makes rows of `classes` outputs look like probabilities.
fn of(outputs: &[f32], classes: usize) -> Option<&'static str> {
    if outputs.is_empty() || !outputs.iter().all(|v| (0.0..=1.0).contains(v)) {
        return None;
    }
    let sums_to_one = |row: &[f32]| (row.iter().map(|&v| f64::from(v)).sum::<f64>() - 1.0).abs() < 1e-3;
    match outputs.chunks_exact(classes.max(1)).all(sums_to_one) {
        true => Some("lie in [0, 1] and add up to 1"),
        false => Some("lie in [0, 1]"),
    }
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn probabilities_are_told_from_logits() {
        assert_eq!(of(&[0.25, 0.75, 1.0, 0.0], 2), Some("lie in [0, 1] and add up to 1"));
        assert_eq!(of(&[0.9, 0.75, 1.0, 0.5], 2), Some("lie in [0, 1]"));
        assert_eq!(of(&[0.25, 0.75, 1.01, 0.0], 2), None);
        assert_eq!(of(&[0.25, -0.75], 2), None);
        assert_eq!(of(&[f32::NAN, 0.5], 2), None);
    }
}
