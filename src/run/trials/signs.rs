//! What AutoAttack's authors warn of.

use super::found::Signs;
use super::lab::Lab;
use crate::Result;
use crate::attack::{self, Classifier as _, Loss, Oracle as _, Query};
use crate::stats::top_class;

/// Passes that are compared.
pub(super) const PASSES: usize = 5;

pub(super) fn signs(lab: &Lab) -> Result<Signs> {
    let (net, config, batch) = (lab.net, lab.config, &lab.batch);
    let (mut passes, mut apart, mut first) = (Vec::new(), 0f64, Vec::new());
    for _ in 0..PASSES {
        let logits = net.logits(&batch.images)?.to_f32(net.device())?;
        let rows = || logits.chunks_exact(net.classes());
        let right = rows().zip(&batch.labels).filter(|(z, label)| top_class(z) == **label as usize);
        passes.push(right.count() as u64);
        let scaled: Vec<f64> = rows().flat_map(unit_length).collect();
        if first.is_empty() {
            first.clone_from(&scaled);
        }
        let far = first
            .chunks_exact(net.classes())
            .zip(scaled.chunks_exact(net.classes()))
            .map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt());
        apart = far.fold(apart, f64::max);
    }
    let logits = net.logits(&batch.images)?.to_f32(net.device())?;
    let budget = (config.attack.norm, lab.eps);
    let start = attack::apgd_start(net.device(), &batch.images, &batch.ids, budget, (config.seed, 0))?;
    let query = Query { ids: &batch.ids, ..Query::new(&batch.labels, Loss::Dlr) };
    let gradient = net.gradient(&start, &query)?.gradient;
    let values = gradient.map_or(Ok(vec![]), |g| g.to_f32(net.device()))?;
    let flat = values.chunks_exact(lab.pixels()).filter(|g| g.iter().all(|&v| v == 0.0));
    Ok(Signs {
        n: lab.len() as u64,
        passes,
        apart,
        probabilities: logits.chunks_exact(net.classes()).filter(|z| is_distribution(z)).count() as u64,
        flat: flat.count() as u64,
        classes: net.classes() as u64,
    })
}

fn unit_length(z: &[f32]) -> Vec<f64> {
    let length = z.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    z.iter().map(|&v| f64::from(v) / length).collect()
}

/// Whether outputs are probabilities rather than logits, up to 1e-5 as AutoAttack has it.
fn is_distribution(z: &[f32]) -> bool {
    const NEAR: f64 = 1e-5;
    let sum: f64 = z.iter().map(|&v| f64::from(v)).sum();
    z.iter().all(|&v| (-NEAR..1.0 + NEAR).contains(&f64::from(v))) && (sum - 1.0).abs() < NEAR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_told_from_logits() {
        for (outputs, wanted) in [
            (&[0.2f32, 0.3, 0.5][..], true),
            (&[0.0, 1.0, 0.0], true),
            (&[0.2, 0.3, 0.4], false),
            (&[-0.2, 0.7, 0.5], false),
            (&[1.2, -0.1, -0.1], false),
            (&[f32::NAN, 0.5, 0.5], false),
        ] {
            assert_eq!(is_distribution(outputs), wanted, "{outputs:?}");
        }
    }
}
