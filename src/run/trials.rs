//! Small extra attacks after a sweep that show whether its attack works: what the records cannot tell.

use serde::{Deserialize, Deserializer, Serialize};

use super::engine::{AttackEngine, Batch};
use crate::Result;
use crate::attack::{
    self, Adversarial, Classifier as _, Loss, Norm, Oracle as _, Profile, Query, Spec, StepSize, autoattack,
};
use crate::config::Config;
use crate::number::or_nan;
use crate::stats::top_class;
use crate::tensor::Tensor;

/// Images of a trial.
const COUNT: usize = 16;
/// Steps of the trace, all of one size from one start.
const STEPS: [u32; 5] = [1, 2, 5, 10, 20];
/// Gradients shorter than this count as vanished.
const TINY: f64 = 1e-12;

/// What the trials found: `trials.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trials {
    pub n: u64,
    pub eps: f64,
    pub models: Vec<Trial>,
}

/// The trials of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    pub model: String,
    /// Mean loss of the clean images, and steps with the mean loss of the last point and the images that no iterate broke.
    #[serde(deserialize_with = "or_nan")]
    pub clean_loss: f64,
    #[serde(deserialize_with = "numbers")]
    pub trace: Vec<(u32, f64, u64)>,
    /// Images that are still right after one restart and after three; none without a random start.
    pub restarts: Option<[u64; 2]>,
    /// Images still right after one gradient step of size epsilon, and after the attack.
    pub single_step: [u64; 2],
    /// A budget with which every image can be made grey, images still right under it, and the largest class.
    pub large_eps: f64,
    pub large_correct: u64,
    pub largest_class: u64,
    /// Gradients of the clean images: exactly zero, shorter than 1e-12, not finite; the logarithm of the median length.
    pub zero: u64,
    pub tiny: u64,
    pub not_finite: u64,
    #[serde(deserialize_with = "or_nan")]
    pub median_log10: f64,
    /// Of a run with AutoAttack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs: Option<Signs>,
}

/// What AutoAttack's authors warn of, over the images of a trial: their code has the same five, four of them told from the network.
///
/// Source: fra31/auto-attack, `flags_doc.md`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signs {
    /// Images that are right in each of five passes over the same images, and the largest distance between the logits of the first pass
    /// and those of another, each scaled to length 1.
    pub passes: Vec<u64>,
    #[serde(deserialize_with = "or_nan")]
    pub apart: f64,
    /// Images whose outputs are probabilities.
    pub probabilities: u64,
    /// Images whose gradient of the difference of logits ratio is nothing but zeros where APGD begins.
    pub flat: u64,
    pub classes: u64,
}

/// Passes that are compared.
const PASSES: usize = 5;

fn numbers<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<(u32, f64, u64)>, D::Error> {
    let all: Vec<(u32, Option<f64>, u64)> = Vec::deserialize(from)?;
    Ok(all.into_iter().map(|(steps, loss, right)| (steps, loss.unwrap_or(f64::NAN), right)).collect())
}

impl Trials {
    /// Where a run keeps them.
    pub const FILE: &str = "trials.json";
}

impl AttackEngine<'_> {
    /// Attacks the first images of the dataset in a few other ways; `None` without an epsilon above 0, and
    /// where budgets are not those of pixels.
    ///
    /// # Errors
    /// What attacking returns.
    pub fn trials(&self) -> Result<Option<Trials>> {
        let Some(eps) = self.config().attack.middle_eps().filter(|_| !self.config().attack.normalised()) else {
            return Ok(None);
        };
        let n = self.dataset().len().min(COUNT);
        let models = (0..self.config().models.len()).map(|model| self.trial(model, eps, n)).collect::<Result<_>>()?;
        Ok(Some(Trials { n: n as u64, eps, models }))
    }

    fn trial(&self, model: usize, eps: f64, n: usize) -> Result<Trial> {
        let images: Vec<usize> = (0..n).collect();
        let (batch, net, config) = (self.batch(&images)?, self.model(model)?, self.config());
        let own = Spec { early_stop: false, ..config.attack.tried()? };
        let at = |spec: &Spec, eps: f64| spec.build()?.run(net, batch.attacked(), eps, config.seed);
        let attack = |spec: &Spec| at(spec, eps);
        let right = |found: &Adversarial| found.outcomes.iter().filter(|o| o.correct_any).count() as u64;
        let loss = |images: &Tensor| -> Result<f64> {
            let query = Query { ids: &batch.ids, ..Query::new(&batch.labels, Loss::CrossEntropy) };
            let losses = net.evaluate(images, &query)?.loss;
            Ok(losses.iter().map(|&l| f64::from(l)).sum::<f64>() / n.max(1) as f64)
        };

        let mut trace = Vec::new();
        for steps in STEPS {
            let step = StepSize::Absolute(own.step_size(eps));
            let found = attack(&Spec { steps, step, restarts: 1, ..own.clone() })?;
            trace.push((steps, loss(&found.last)?, right(&found)));
        }
        let restarts = match own.starts_randomly() {
            true => {
                let after = |restarts| Ok::<_, crate::Error>(right(&attack(&Spec { restarts, ..own.clone() })?));
                Some([after(1)?, after(3)?])
            }
            false => None,
        };
        let single =
            Spec { profile: own.profile, norm: own.norm, loss: own.loss, targeted: own.targeted, ..Spec::fgsm() };
        let single_step = [right(&attack(&single)?), right(&attack(&own)?)];

        let large_eps = large(config, self.dataset().image_len());
        let spec = Spec {
            profile: Profile::Native,
            steps: 20,
            step: StepSize::rule_of_thumb(20),
            starts: None,
            restarts: 1,
            ..own
        };
        let large_correct = right(&at(&spec, large_eps)?);
        let mut counts = vec![0; self.dataset().classes.len()];
        batch.labels.iter().for_each(|&label| counts[label as usize] += 1);

        let query = Query { ids: &batch.ids, ..Query::new(&batch.labels, config.attack.loss) };
        let gradient = net.gradient(&batch.images, &query)?.gradient;
        let values = gradient.map_or(Ok(vec![]), |g| g.to_f32(net.device()))?;
        let norm = |g: &[f32]| g.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
        let mut norms: Vec<f64> = values.chunks_exact(values.len() / n.max(1)).map(norm).collect();
        norms.sort_by(f64::total_cmp);
        let count = |wanted: &dyn Fn(f64) -> bool| norms.iter().filter(|&&v| wanted(v)).count() as u64;
        let signs = match autoattack::stages(config.attack.method) {
            [] => None,
            _ => Some(self.signs(model, eps, &batch)?),
        };
        Ok(Trial {
            signs,
            model: config.models[model].name.clone(),
            clean_loss: loss(&batch.images)?,
            trace,
            restarts,
            single_step,
            large_eps,
            large_correct,
            largest_class: counts.into_iter().max().unwrap_or(0),
            zero: count(&|v| v == 0.0),
            tiny: count(&|v| v < TINY),
            not_finite: count(&|v| !v.is_finite()),
            median_log10: norms.get(norms.len() / 2).map_or(f64::NEG_INFINITY, |v| v.log10()).max(-99.0),
        })
    }
}

impl AttackEngine<'_> {
    fn signs(&self, model: usize, eps: f64, batch: &Batch) -> Result<Signs> {
        let (net, config) = (self.model(model)?, self.config());
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
        let budget = (config.attack.norm, eps);
        let start = attack::apgd_start(net.device(), &batch.images, &batch.ids, budget, (config.seed, 0))?;
        let query = Query { ids: &batch.ids, ..Query::new(&batch.labels, Loss::Dlr) };
        let gradient = net.gradient(&start, &query)?.gradient;
        let values = gradient.map_or(Ok(vec![]), |g| g.to_f32(net.device()))?;
        let flat = values.chunks_exact(self.dataset().image_len()).filter(|g| g.iter().all(|&v| v == 0.0));
        Ok(Signs {
            passes,
            apart,
            probabilities: logits.chunks_exact(net.classes()).filter(|z| is_distribution(z)).count() as u64,
            flat: flat.count() as u64,
            classes: net.classes() as u64,
        })
    }
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

/// Half the range of a pixel: of all pixels together in L2.
fn large(config: &Config, pixels: usize) -> f64 {
    match config.attack.norm {
        Norm::Linf => 0.5,
        Norm::L2 => 0.5 * (pixels as f64).sqrt(),
    }
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
