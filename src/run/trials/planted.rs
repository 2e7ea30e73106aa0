//! Weaknesses put into the run's own classifier on purpose: an attack that works finds them.
//!
//! Source: Carlini et al. 2019 (attacks are validated on broken models); Zimmermann et al. 2022 (a head with a known adversarial example).

use super::found::Planted;
use super::lab::Lab;
use crate::Result;
use crate::attack::{Loss, Norm, Oracle as _, Purpose, Spec, Stream, Target};
use crate::device::DType;
use crate::models::headed::{Binary, Bypass, Head, Headed};
use crate::ops::philox::uniform;
use crate::run::engine::Batch;
use crate::tensor::Tensor;

/// Images of either.
pub(super) const PLANTED: usize = 4;
/// Points around each image that the head tells from the one beyond its threshold.
pub(super) const AROUND: u32 = 8;

/// A random point of the ball's edge for each image, or of a ball of that share of the radius.
fn corners(lab: &Lab, batch: &Batch, draw: u32, share: f64) -> Result<Vec<f32>> {
    let (device, len) = (lab.device(), lab.pixels());
    let stream = Stream { draw, step: 1, ..Stream::new(lab.config.seed, Purpose::Search) };
    let [h, w] = [lab.dataset.height, lab.dataset.width];
    let drawn = uniform(device, &stream, &batch.ids, &[h, w, len / (h * w)])?.to_f32(device)?;
    // Of signs, so that their L2 norm is that of ones.
    let reach = match lab.own.norm {
        Norm::Linf => lab.eps,
        Norm::L2 => lab.eps / (len as f64).sqrt(),
    } * share;
    let sign = |v: &f32| if *v < 0.5 { -reach as f32 } else { reach as f32 };
    Ok(batch.pixels.iter().zip(&drawn).map(|(x, v)| (x + sign(v)).clamp(0.0, 1.0)).collect())
}

/// The run's own attack on a head, by images whose adversarial example was seen.
fn found_by(lab: &Lab, head: &dyn Head, batch: &Batch, shown: &[f32], clean: &[u32]) -> Result<Planted> {
    let net = Headed::new(lab.net, head);
    let tensor = Tensor::from_f32(lab.device(), batch.images.shape(), DType::F32, shown)?;
    let classes = |images: &Tensor| -> Result<Vec<u32>> {
        let query = crate::attack::Query { ids: &batch.ids, ..crate::attack::Query::new(clean, Loss::Margin) };
        Ok(net.evaluate(images, &query)?.prediction)
    };
    let (before, after) = (classes(&batch.images)?, classes(&tensor)?);
    let certain: Vec<usize> = (0..clean.len()).filter(|&i| before[i] == clean[i] && after[i] != clean[i]).collect();
    let loss = match lab.own.loss {
        Loss::Dlr if net.classes() < 3 => Loss::Margin,
        loss => loss,
    };
    let spec = Spec { loss, targeted: Target::None, ..lab.own.clone() };
    let under = Batch { labels: clean.to_vec(), pixels: vec![], images: batch.images.clone(), ids: batch.ids.clone() };
    let right = lab.stand(&spec, &net, &under, lab.eps)?;
    let missed = certain.iter().filter(|&&i| right[i]).map(|&i| batch.ids[i]).collect();
    Ok(Planted { n: certain.len() as u64, missed })
}

/// A linear path around the network that a step along one vector of signs turns over.
pub(super) fn weakness(lab: &Lab) -> Result<Planted> {
    let batch = lab.first(PLANTED)?;
    let edge = corners(lab, &batch, 0, 1.0)?;
    let (device, len) = (lab.device(), lab.pixels());
    let z = lab.net.logits(&batch.images)?.to_f32(device)?;
    let tensor = Tensor::from_f32(device, batch.images.shape(), DType::F32, &edge)?;
    let moved = lab.net.logits(&tensor)?.to_f32(device)?;
    let classes = lab.net.classes();
    let clean = lab.predicted(lab.net, &batch.images)?;
    let mut bypass = Bypass::default();
    for (i, &id) in batch.ids.iter().enumerate() {
        let (x0, x) = (&batch.pixels[i * len..(i + 1) * len], &edge[i * len..(i + 1) * len]);
        let path: Vec<f32> = x0.iter().zip(x).map(|(a, b)| b - a).collect();
        let to = (clean[i] as usize + 1) % classes;
        let gap = [&z, &moved].map(|z| {
            let row = &z[i * classes..(i + 1) * classes];
            let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            f64::from(most - row[to])
        });
        // Half of the way is enough.
        let gain = 2.0 * (gap[0].max(gap[1]) + 1.0);
        bypass.add(id, to, x0, &path, gain);
    }
    found_by(lab, &bypass, &batch, &edge, &clean)
}

/// A readout of the logits that calls a random point of the ball's edge the other class, and all points tried within half of the ball,
/// the image among them, its own.
pub(super) fn active(lab: &Lab) -> Result<Planted> {
    let batch = lab.first(PLANTED)?;
    let (device, classes) = (lab.device(), lab.net.classes());
    let logits = |pixels: &[f32]| -> Result<Vec<f32>> {
        lab.net.logits(&Tensor::from_f32(device, batch.images.shape(), DType::F32, pixels)?)?.to_f32(device)
    };
    let edge = corners(lab, &batch, 0, 1.0)?;
    let beyond = logits(&edge)?;
    let mut within = vec![logits(&batch.pixels)?];
    for draw in 1..AROUND.min(classes as u32) {
        within.push(logits(&corners(lab, &batch, draw, 0.5)?)?);
    }
    let mut head = Binary::default();
    for (i, &id) in batch.ids.iter().enumerate() {
        let row = |z: &[f32]| -> Vec<f64> { z[i * classes..(i + 1) * classes].iter().map(|&v| f64::from(v)).collect() };
        head.add(id, &row(&beyond), &within.iter().map(|z| row(z)).collect::<Vec<_>>());
    }
    found_by(lab, &head, &batch, &edge, &vec![0; batch.ids.len()])
}
