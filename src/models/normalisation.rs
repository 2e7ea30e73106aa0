//! Mean and deviation that a checkpoint holds as tensors: buffers of a layer in front of the network.

use super::metadata::{for_channels, unit};
use super::weights::Weights;
use crate::error::{Error, Result};

/// Names of a layer's mean and deviation: `normalize.mean` of most, `mu` and `sigma` of networks trained adversarially.
const PAIRS: [[&str; 2]; 5] =
    [["mean", "std"], ["mu", "sigma"], ["means", "sds"], ["means", "stds"], ["image_mean", "image_std"]];

/// What such a layer holds.
#[derive(Debug, PartialEq)]
pub struct Normalisation {
    /// Of mean and deviation.
    pub names: [String; 2],
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl Normalisation {
    /// The one pair that there is in the file, also beside what was stripped; none where there are several.
    ///
    /// # Errors
    /// [`Error::Tensor`] for values that are not finite.
    pub fn find(weights: &Weights) -> Result<Option<Self>> {
        let Some(weights) = weights.whole() else { return Ok(None) };
        let pair = |name: &str| -> Option<[String; 2]> {
            let own = &name[name.rfind('.').map_or(0, |at| at + 1)..];
            let stem = own.trim_start_matches('_');
            let before = &name[..name.len() - stem.len()];
            let names = |[_, std]: [&str; 2]| [name.to_owned(), format!("{before}{std}")];
            let small =
                |name: &str| weights.shape_of(name).filter(|shape| (1..=4).contains(&shape.iter().product::<usize>()));
            let same = |[mean, std]: &[String; 2]| small(mean).is_some_and(|shape| Some(shape) == small(std));
            PAIRS.into_iter().filter(|[mean, _]| *mean == stem).map(names).find(same)
        };
        let mut found = weights.names().filter_map(pair);
        let (Some(names), None) = (found.next(), found.next()) else { return Ok(None) };
        let values = |name: &String| -> Result<Vec<f64>> {
            let values = weights.get(name, &weights.shape_of(name).unwrap_or_default())?;
            // As people write them: float32 has 0.485 as 0.48500001430511475.
            Ok(values.into_iter().map(|v| v.to_string().parse().unwrap_or(f64::from(v))).collect())
        };
        Ok(Some(Normalisation { mean: values(&names[0])?, std: values(&names[1])?, names }))
    }

    /// Both for a network of so many channels.
    ///
    /// # Errors
    /// [`Error::File`] for what cannot be those of pixels in [0, 1].
    pub fn values(&self, weights: &Weights, channels: usize) -> Result<[Vec<f64>; 2]> {
        let of = |i: usize, key: &str, values: &Vec<f64>| {
            let found = unit(key, values).and_then(|()| for_channels(values, channels));
            found.map_err(|problem| Error::tensor(weights.origin(), &self.names[i], problem))
        };
        Ok([of(0, "mean", &self.mean)?, of(1, "std", &self.std)?])
    }
}
