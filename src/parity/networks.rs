//! Whole networks: `model`, `onnx`, `feature_map` and `pgd`.

use std::path::Path;

use super::attributes::norm;
use super::compare::{Comparison, larger, limit};
use super::diffusion;
use super::dump::channels_first;
use super::replay::{Output, Replay};
use crate::Result;
use crate::attack::{Classifier as _, Loss, Oracle as _, Query};
use crate::device::DType;
use crate::models::card::{Card, Takes};
use crate::models::classifier::Classifier;
use crate::models::graph::{self, read};
use crate::models::network::{Network, Shape};
use crate::models::network_shape;
use crate::models::probe::Probe;
use crate::models::weights::Weights;
use crate::ops::loss::{LossKind, loss};
use crate::ops::pgd::{self, Profile, Step};
use crate::ops::recording;
use crate::stats::softmax;
use crate::tape::{Graph, Precision};
use crate::tensor::Tensor;

/// Steps of an attack at most.
const STEPS: usize = 10_000;

/// Outputs, or for `pgd` the comparison by its own rule.
pub(super) fn run(r: &Replay) -> Result<(Vec<Output>, Option<Comparison>)> {
    if r.dump.op == "onnx" {
        return Ok((onnx(r)?, None));
    }
    let arch: String = r.dump.attr("arch")?;
    if arch == "unet" && r.dump.op == "model" {
        return Ok((diffusion::unet(r)?, None));
    }
    let shape = network_shape(&arch, r.dump.attr("config")?).map_err(|problem| r.fail(problem))?;
    let weights = Weights::of(r.dump.file(), "w.");
    if r.dump.op == "pgd" {
        return pgd_trajectory(r, &weights, shape.as_ref()).map(|(x, comparison)| (vec![x], Some(comparison)));
    }
    let x = r.image("in.x")?;
    let [_, h, w, _] = x.dims4("model")?;
    let net = shape.build(r.device, r.precision, &weights, [h, w])?;
    Ok((if r.dump.op == "feature_map" { feature_map(r, net.as_ref(), &x)? } else { model(r, net.as_ref(), &x)? }, None))
}

/// A graph whose file lies beside the dump.
fn onnx(r: &Replay) -> Result<Vec<Output>> {
    let file: String = r.dump.attr("file")?;
    let folder = r.dump.path.parent().unwrap_or(Path::new(""));
    let weights = Weights::of_graph(read::open(&folder.join(&file))?);
    let (card, _) = Card::of_graph(&weights, &Takes::default())?;
    let config: graph::Config = serde_json::from_value(card.config.clone()).map_err(|e| r.fail(e.to_string()))?;
    if config.layout == graph::Layout::Nhwc {
        return Err(r.fail("its graph takes (N, H, W, C): expected one that takes (N, C, H, W)"));
    }
    // What the dump gives is what the graph takes, whatever its metadata say of colours.
    let channels = if config.channels.count() == 3 { graph::Channels::Rgb } else { config.channels };
    let config = graph::Config { channels, ..config };
    let x = r.image("in.x")?;
    let [_, h, w, _] = x.dims4("onnx")?;
    let net = config.build(r.device, r.precision, &weights, [h, w])?;
    let mut outputs = model(r, net.as_ref(), &x)?;
    // Of a graph whose last activation is cut off, the dump may hold what that made.
    let how = (channels, config.layout);
    let inspected = weights.graph().map(|model| graph::inspect(model, Some([h, w]), how)).transpose()?;
    let is_cut = inspected.is_some_and(|found| found.cut.is_some()) && r.dump.has("out.logits");
    if let Some(logits) = outputs.first_mut().filter(|_| is_cut) {
        let ends = Ends::of(&r.dump.array("out.logits")?.values, net.classes());
        logits.values.chunks_exact_mut(net.classes()).for_each(|row| ends.apply(row));
    }
    Ok(outputs)
}

/// What the last layer of a network made of its logits.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Ends {
    Logits,
    Softmax,
    LogSoftmax,
}

impl Ends {
    /// As rows of so many values show it: probabilities add up to 1.
    fn of(values: &[f32], classes: usize) -> Self {
        let adds_up = |of: fn(f64) -> f64| {
            let mut rows = values.chunks_exact(classes.max(1));
            rows.all(|row| (row.iter().map(|&v| of(v.into())).sum::<f64>() - 1.0).abs() < 1e-4)
        };
        match values {
            _ if values.iter().all(|&v| v >= 0.0) && adds_up(|v| v) => Ends::Softmax,
            _ if values.iter().all(|&v| v <= 0.0) && adds_up(f64::exp) => Ends::LogSoftmax,
            _ => Ends::Logits,
        }
    }

    fn apply(self, row: &mut [f32]) {
        if self != Ends::Logits {
            let shares = softmax(row);
            for (value, share) in row.iter_mut().zip(shares) {
                *value = if self == Ends::Softmax { share } else { share.ln() } as f32;
            }
        }
    }
}

fn model(r: &Replay, net: &dyn Network, x: &Tensor) -> Result<Vec<Output>> {
    let g = recording(r.device, r.precision);
    let logits = net.forward(&g, x)?;
    let mut outputs = vec![Output::new("logits", logits.to_f32(r.device)?)];
    if r.dump.has("in.labels") {
        let out =
            loss(&g, &logits, &r.dump.labels("in.labels")?, None, LossKind::CrossEntropy { label_smoothing: 0.0 })?;
        outputs.push(Output::new("loss", out.loss.to_f32(r.device)?));
        let dx = g.backward(&logits, out.dlogits, x)?;
        outputs.push(Output::new("dx", r.image_values(&dx)?));
    }
    Ok(outputs)
}

fn feature_map(r: &Replay, net: &dyn Network, x: &Tensor) -> Result<Vec<Output>> {
    let layer: String = r.dump.attr("layer")?;
    let mut probe = Probe::new(&layer);
    net.probe(&Graph::inference(r.device, r.precision), x, &mut probe)?;
    let y = probe
        .found()
        .map_err(|names| r.fail(format!("layer `{layer}` is unknown; expected one of {}", names.join(", "))))?;
    Ok(vec![Output::new("y", if y.shape().len() == 4 { r.image_values(&y)? } else { y.to_f32(r.device)? })])
}

/// A whole attack from a given start. The sign of a near-zero gradient is decided by rounding, so the rule counts pixels:
/// at most 1 % may differ by more than 1e-4, and the mean loss must agree to 1e-3. In bf16 and tf32 many more signs are decided
/// by rounding, so there only the loss counts, within what the table allows a network's output.
fn pgd_trajectory(r: &Replay, weights: &Weights, shape: &dyn Shape) -> Result<(Output, Comparison)> {
    let d = r.dump;
    let (mean, std): (Vec<f32>, Vec<f32>) = (d.attr("mean")?, d.attr("std")?);
    let (eps, step_size): (f64, f64) = (d.attr("eps")?, d.attr("step_size")?);
    let steps: usize = d.attr("steps")?;
    if steps > STEPS {
        return Err(r.fail(format!("attribute `steps`: expected at most {STEPS}, found {steps}")));
    }
    let kind: String = d.attr("loss")?;
    if !matches!(kind.as_str(), "ce" | "cross_entropy") {
        return Err(r.fail(format!("attribute `loss`: expected ce or cross_entropy, found `{kind}`")));
    }
    let norm = norm(r)?;
    let image = |name: &str| -> Result<Tensor> {
        let a = d.array(name)?;
        let (shape, values) =
            a.channels_last().ok_or_else(|| r.fail(format!("tensor `{name}`: expected (N, C, H, W)")))?;
        Tensor::from_f32(r.device, &shape, DType::F32, &values)
    };
    let (x0, start, labels) = (image("in.x")?, image("in.start")?, d.labels("in.labels")?);
    let [_, h, w, _] = x0.dims4("pgd")?;
    let net = Classifier::new(r.device, r.precision, weights, shape, &mean, &std, [h, w])?;
    let mut x = start;
    for _ in 0..steps {
        let at = net.gradient(&x, &Query::new(&labels, Loss::CrossEntropy))?;
        let gradient = at.gradient.ok_or_else(|| r.fail("no gradient"))?;
        x = pgd::step(
            r.device,
            &x,
            &x0,
            &gradient,
            &Step { norm, profile: Profile::Native, eps, size: step_size, scale: 1.0 },
        )?;
    }
    let want = d.array("out.x")?;
    let got = channels_first(&x.to_f32(r.device)?, x.dims4("pgd")?);
    let far = got.iter().zip(&want.values).filter(|(g, w)| (**g - **w).abs() > 1e-4 || g.is_nan()).count();
    let max_abs = got.iter().zip(&want.values).map(|(g, w)| f64::from((g - w).abs())).fold(0.0, larger);
    let total = |images: &Tensor| -> Result<f64> {
        Ok(net.evaluate(images, &Query::new(&labels, Loss::CrossEntropy))?.loss.iter().map(|&l| f64::from(l)).sum())
    };
    let reference = total(&image("out.x")?)?;
    let loss_error = (total(&x)? - reference).abs() / reference.abs();
    if r.precision != Precision::F32 {
        let limit = limit(d, "out.loss", r.precision);
        let (tensor, passed) = ("loss at out.x".into(), loss_error <= limit);
        return Ok((Output::new("x", got), Comparison { tensor, rel_err: loss_error, max_abs, limit, passed }));
    }
    let (fraction, limit) = (far as f64 / got.len().max(1) as f64, 1e-2);
    let passed = fraction <= limit && loss_error <= 1e-3;
    // Reported as the share of far pixels; a loss that differs shows as the larger figure.
    let rel_err = if loss_error <= 1e-3 { fraction } else { loss_error.max(fraction) };
    let comparison = Comparison { tensor: "out.x".into(), rel_err, max_abs, limit, passed };
    Ok((Output::new("x", got), comparison))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_layer_is_known_by_what_its_rows_add_up_to() {
        let logits = [1.0f32, -2.0, 0.5, 0.0, 3.0, -1.0];
        for (ends, of) in [
            (Ends::Logits, logits.to_vec()),
            (Ends::Softmax, logits.chunks(3).flat_map(softmax).map(|p| p as f32).collect()),
            (Ends::LogSoftmax, logits.chunks(3).flat_map(softmax).map(|p| p.ln() as f32).collect()),
        ] {
            assert_eq!(Ends::of(&of, 3), ends);
            let mut found = logits;
            found.chunks_exact_mut(3).for_each(|row| ends.apply(row));
            assert_eq!(found.to_vec(), of, "{ends:?}");
        }
    }
}
