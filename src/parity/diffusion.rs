//! The denoiser: its ops, the whole network, and the one-shot defence.

use std::sync::Arc;

use super::attributes::fused;
use super::dump::channels_first;
use super::replay::{Output, Replay};
use crate::Result;
use crate::defense::denoise::{Denoiser, Gradient};
use crate::defense::schedule::{Kind, Schedule};
use crate::device::DType;
use crate::models::unet::{Config, UNet, timestep_embedding};
use crate::models::weights::Weights;
use crate::ops::attention::attention;
use crate::ops::diffusion::{Range, q_sample};
use crate::ops::group_norm::{GroupNorm, group_norm};
use crate::tape::Graph;
use crate::tensor::Tensor;

pub(super) fn run(r: &Replay) -> Result<Vec<Output>> {
    match r.dump.op.as_str() {
        "group_norm" => norm(r),
        "attention" => scaled_dot_product(r),
        "timestep_embedding" => {
            let (t, dim): (Vec<f32>, usize) = (r.dump.array("in.t")?.values, r.dump.attr("dim")?);
            let max_period: f64 = r.dump.attr_opt("max_period")?.unwrap_or(10_000.0);
            if dim < 2 || !(max_period > 0.0 && max_period.is_finite()) {
                return Err(r.fail(format!("attribute `dim`: expected at least 2, found {dim} (period {max_period})")));
            }
            r.makes(&[t.len(), dim])?;
            Ok(vec![Output::new("y", timestep_embedding(&t, dim, max_period))])
        }
        _ => noising(r),
    }
}

/// Rows of scale and shift become part of the norm's own constants, as they do in the network.
fn norm(r: &Replay) -> Result<Vec<Output>> {
    let d = r.dump;
    let (groups, eps): (usize, f64) = (d.attr("groups")?, d.attr("eps")?);
    let (g, x) = (r.graph(), r.image("in.x")?);
    let [n, .., c] = x.dims4("group_norm")?;
    let row = |name: &str, value: f32, rows: usize| -> Result<Vec<f32>> {
        match d.optional(name)? {
            None => Ok(vec![value; c * rows]),
            Some(a) if a.values.len() == c * rows => Ok(a.values),
            Some(a) => Err(r.fail(format!("tensor `{name}`: expected {rows} x {c} values, found {:?}", a.shape))),
        }
    };
    let (w, b) = (row("w.weight", 1.0, 1)?, row("w.bias", 0.0, 1)?);
    let rows = if d.has("in.scale") || d.has("in.shift") { n } else { 1 };
    let (s, shift) = (row("in.scale", 0.0, rows)?, row("in.shift", 0.0, rows)?);
    let scale: Vec<f32> = s.iter().enumerate().map(|(i, s)| w[i % c] * (1.0 + s)).collect();
    let bias: Vec<f32> = s.iter().zip(&shift).enumerate().map(|(i, (s, t))| b[i % c] * (1.0 + s) + t).collect();
    let norm = Arc::new(GroupNorm::new(r.device, groups, c, eps as f32, &scale, &bias)?);
    let y = group_norm(&g, &x, &norm, fused(r)?)?;
    r.image_outputs(g, &y, &[("x", &x)])
}

fn scaled_dot_product(r: &Replay) -> Result<Vec<Output>> {
    let (g, q, k, v) = (r.graph(), r.plain("in.q")?, r.plain("in.k")?, r.plain("in.v")?);
    let bias = match r.dump.optional("in.bias")? {
        Some(a) => Some(Tensor::from_f32(r.device, &a.shape, DType::F32, &a.values)?),
        None => None,
    };
    let y = attention(&g, [&q, &k, &v], bias.as_ref(), r.dump.attr_opt("scale")?)?;
    r.plain_outputs(g, &y, &[("q", &q), ("k", &k), ("v", &v)])
}

fn schedule(r: &Replay) -> Result<Schedule> {
    let kind: Kind = r.dump.attr("schedule")?;
    Schedule::new(kind, r.dump.attr("steps")?)
}

/// An image as float32, whatever the precision: noising happens in float32.
fn exact(r: &Replay, name: &str) -> Result<Tensor> {
    let a = r.dump.array(name)?;
    let (shape, values) = a.channels_last().ok_or_else(|| r.fail(format!("tensor `{name}`: expected (N, C, H, W)")))?;
    Tensor::from_f32(r.device, &shape, DType::F32, &values)
}

fn noising(r: &Replay) -> Result<Vec<Output>> {
    let (schedule, t) = (schedule(r)?, r.dump.labels("in.t")?);
    let (x0, noise) = (exact(r, "in.x0")?, exact(r, "in.noise")?);
    let steps: Vec<_> = t.iter().map(|&t| schedule.step(t as usize)).collect::<Result<_>>()?;
    let coefficients: Vec<[f32; 2]> = steps.iter().map(|s| [s.image, s.noise]).collect();
    let g = r.graph();
    let y = q_sample(&g, &x0, &noise, &coefficients, Range::SAME)?;
    let mut outputs = vec![Output::new("y", r.image_values(&y)?)];
    if r.dump.has("in.dout") {
        let dout = exact(r, "in.dout")?;
        // No attack asks for the gradient of the noise: it is dout scaled as the noise was.
        let inference = Graph::inference(r.device, r.precision);
        let zeros = Tensor::from_f32(r.device, dout.shape(), DType::F32, &vec![0.0; dout.len()])?;
        let scaled: Vec<[f32; 2]> = steps.iter().map(|s| [s.noise, 0.0]).collect();
        let dnoise = q_sample(&inference, &dout, &zeros, &scaled, Range::SAME)?;
        outputs.push(Output::new("dnoise", r.image_values(&dnoise)?));
        let dx = g.backward(&y, dout, &x0)?;
        outputs.push(Output::new("dx0", r.image_values(&dx)?));
    }
    Ok(outputs)
}

/// `model` of the U-Net: all output channels at the given timesteps.
pub(super) fn unet(r: &Replay) -> Result<Vec<Output>> {
    let config: Config = r.dump.attr("config")?;
    let weights = Weights::of(r.dump.file(), "w.");
    let net = UNet::new(r.device, r.precision, &weights, &config, config.out_channels)?;
    let (g, x) = (r.graph(), r.image("in.x")?);
    let conditioning = net.condition(&r.dump.array("in.t")?.values)?;
    let y = net.forward(&g, &x, &conditioning)?;
    r.image_outputs(g, &y, &[("x", &x)])
}

/// The whole defence on given noise.
pub(super) fn one_shot(r: &Replay) -> Result<Vec<Output>> {
    let config: Config = r.dump.attr("config")?;
    let (sigma, tau_scale): (f64, f32) = (r.dump.attr("sigma")?, r.dump.attr("tau_scale")?);
    let weights = Weights::of(r.dump.file(), "w.");
    let denoiser = Denoiser::new(r.device, r.precision, &weights, &config, schedule(r)?, tau_scale)?;
    let level = denoiser.level(sigma)?;
    let (g, x, noise) = (r.graph(), exact(r, "in.x")?, exact(r, "in.noise")?);
    let x0 = denoiser.estimate(&g, &x, &noise, &level, Range::SAME, Gradient::Exact)?;
    let mut outputs = vec![Output::new("x0", channels_first(&x0.to_f32(r.device)?, x0.dims4("dds")?))];
    if r.dump.has("in.dout") {
        let dx = g.backward(&x0, exact(r, "in.dout")?, &x)?;
        outputs.push(Output::new("dx", r.image_values(&dx)?));
    }
    // The step is an integer: compared as a number, it has to be the very one.
    outputs.push(Output::new("t", vec![level.step.t as f32]));
    Ok(outputs)
}
