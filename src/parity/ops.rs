//! Single operations.

use std::sync::Arc;

use super::attacks;
use super::attributes::{dims4, fused, pool, window};
use super::diffusion;
use super::replay::{Output, Replay};
use crate::ops::Activation;
use crate::ops::cbam::{Cbam, cbam};
use crate::ops::conv::{Conv2d, Window, conv2d, fold_batch_norm};
use crate::ops::gemm::{Linear, linear, matmul};
use crate::ops::layer_norm::{LayerNorm, layer_norm};
use crate::ops::leaky_relu::leaky_relu;
use crate::ops::loss::{LossKind, loss};
use crate::ops::pointwise::{Affine, activation, affine, softmax};
use crate::ops::pool::{avg_pool2d, global_avg_pool, max_pool2d};
use crate::ops::resize::{Filter, Resize, resize, upsample_nearest};
use crate::ops::vote::Votes;
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What the op computes, in PyTorch's layout. An op this engine lacks is an error that names it.
pub(super) fn run(r: &Replay) -> Result<Vec<Output>> {
    match r.dump.op.as_str() {
        "conv2d" => convolution(r),
        "conv2d_bn" => convolution_bn(r),
        "linear" => fully_connected(r),
        "matmul" => product(r),
        "batch_norm" => batch_norm(r),
        "layer_norm" => layer_normalisation(r),
        "softmax" => {
            let (g, x) = (r.graph(), r.plain("in.x")?);
            let y = softmax(&g, &x)?;
            r.plain_outputs(g, &y, &[("x", &x)])
        }
        "leaky_relu" => {
            let (g, x) = (r.graph(), r.plain("in.x")?);
            let y = leaky_relu(&g, &x, r.dump.attr("slope")?)?;
            r.plain_outputs(g, &y, &[("x", &x)])
        }
        "max_pool2d" => {
            let pool = pool(r)?;
            // One set of attributes serves both pools; padding never wins a maximum.
            r.dump.attr_opt::<bool>("count_include_pad")?;
            on_image(r, |g, x| max_pool2d(g, x, pool))
        }
        "avg_pool2d" => {
            let (pool, counted) = (pool(r)?, r.dump.attr("count_include_pad")?);
            on_image(r, |g, x| avg_pool2d(g, x, pool, counted))
        }
        "global_avg_pool" => on_image(r, global_avg_pool),
        "upsample_nearest" => {
            let scale: f64 = r.dump.attr("scale")?;
            if scale.fract() != 0.0 || !(1.0..=4096.0).contains(&scale) {
                return Err(r.fail(format!("attribute `scale`: expected a whole number from 1, found {scale}")));
            }
            on_image(r, |g, x| {
                let [n, h, w, c] = x.dims4("upsample_nearest")?;
                r.makes(&[n, h, w, c, scale as usize, scale as usize])?;
                upsample_nearest(g, x, scale as usize)
            })
        }
        "resize" => resampling(r),
        "channel_gate" | "spatial_gate" | "cbam" => attention_gates(r),
        "cross_entropy" | "dlr_loss" => losses(r),
        "vote" => votes(r),
        "pgd_step" => attacks::pgd_step(r),
        "apgd_step" => attacks::apgd_step(r),
        "fab_step" => attacks::fab_step(r),
        "min_norm_step" => attacks::min_norm_step(r),
        "square_step" => attacks::square_step(r),
        "group_norm" | "attention" | "timestep_embedding" | "q_sample" => diffusion::run(r),
        other => match Activation::named(other) {
            Some(act) => {
                let (g, x) = (r.graph(), r.plain("in.x")?);
                let y = activation(&g, &x, act)?;
                r.plain_outputs(g, &y, &[("x", &x)])
            }
            None => Err(r.fail(format!("op `{other}` is unknown"))),
        },
    }
}

/// The result of a convolution has the size of the reference.
fn fits(r: &Replay, x: &Tensor, [o, _, rows, cols]: [usize; 4], window: &Window) -> Result<()> {
    let [n, h, w, _] = x.dims4("conv2d")?;
    match (window.out(0, h, rows), window.out(1, w, cols)) {
        (Some(p), Some(q)) => r.makes(&[n, o, p, q]),
        // What does not fit is refused by the op, in its own words.
        _ => Ok(()),
    }
}

fn convolution(r: &Replay) -> Result<Vec<Output>> {
    let (weight, bias) = (r.dump.array("w.weight")?, r.dump.optional("w.bias")?);
    let shape = dims4(r, "w.weight", &weight)?;
    let bias = bias.as_ref().map(|b| b.values.as_slice());
    let window = window(r, true)?;
    let conv = Arc::new(Conv2d::new(r.device, r.precision, &weight.values, shape, bias, window)?);
    let (g, x) = (r.graph(), r.image("in.x")?);
    fits(r, &x, shape, &window)?;
    let y = conv2d(&g, &x, &conv, None, fused(r)?)?;
    r.image_outputs(g, &y, &[("x", &x)])
}

/// The constants of `w.PREFIX{weight,bias,running_mean,running_var}` as scale and bias.
fn folded(r: &Replay, prefix: &str) -> Result<(Vec<f64>, Vec<f64>)> {
    let get = |part: &str| Ok(r.dump.array(&format!("w.{prefix}{part}"))?.values);
    let eps: f64 = r.dump.attr("eps")?;
    fold_batch_norm(&get("weight")?, &get("bias")?, &get("running_mean")?, &get("running_var")?, eps as f32)
        .map_err(|problem| r.fail(format!("tensor `w.{prefix}running_var`: {problem}")))
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn convolution_bn(r: &Replay) -> Result<Vec<Output>> {
    let weight = r.dump.array("w.weight")?;
    let shape = dims4(r, "w.weight", &weight)?;
    let (scale, bias) = folded(r, "bn.")?;
    let taps = shape[1] * shape[2] * shape[3];
    if scale.len() != shape[0] {
        return Err(r.fail(format!("tensor `w.bn.weight`: expected {} values, found {}", shape[0], scale.len())));
    }
    let values: Vec<f32> =
        weight.values.iter().enumerate().map(|(i, &w)| (f64::from(w) * scale[i / taps.max(1)]) as f32).collect();
    let window = window(r, false)?;
    let conv = Arc::new(Conv2d::new(r.device, r.precision, &values, shape, Some(&single(&bias)), window)?);
    let (g, x) = (r.graph(), r.image("in.x")?);
    fits(r, &x, shape, &window)?;
    let residual = r.dump.has("in.residual").then(|| r.image("in.residual")).transpose()?;
    let y = conv2d(&g, &x, &conv, residual.as_ref(), fused(r)?)?;
    let mut inputs = vec![("x", &x)];
    inputs.extend(residual.as_ref().map(|t| ("residual", t)));
    r.image_outputs(g, &y, &inputs)
}

fn fully_connected(r: &Replay) -> Result<Vec<Output>> {
    let (weight, bias) = (r.dump.array("w.weight")?, r.dump.optional("w.bias")?);
    let [o, k]: [usize; 2] =
        weight.shape.as_slice().try_into().map_err(|_| r.fail("tensor `w.weight`: expected (O, K)"))?;
    let bias = bias.as_ref().map(|b| b.values.as_slice());
    let layer = Arc::new(Linear::new(r.device, r.precision, &weight.values, [o, k], bias)?);
    let (g, x) = (r.graph(), r.plain("in.x")?);
    let x = x.reshaped(&[x.len() / k.max(1), k])?;
    r.makes(&[x.shape()[0], o])?;
    let y = linear(&g, &x, &layer, fused(r)?)?;
    r.plain_outputs(g, &y, &[("x", &x)])
}

fn product(r: &Replay) -> Result<Vec<Output>> {
    let (g, a, b) = (r.graph(), r.plain("in.a")?, r.plain("in.b")?);
    let batched = |t: &Tensor| match t.shape() {
        [rest @ .., rows, cols] => t.reshaped(&[rest.iter().product(), *rows, *cols]),
        other => Err(r.fail(format!("expected at least 2 dimensions, found {other:?}"))),
    };
    let (a, b) = (batched(&a)?, batched(&b)?);
    r.makes(&[a.shape()[0], a.shape()[1], b.shape()[2]])?;
    let y = matmul(&g, &a, &b)?;
    r.plain_outputs(g, &y, &[("a", &a), ("b", &b)])
}

fn batch_norm(r: &Replay) -> Result<Vec<Output>> {
    let (scale, bias) = folded(r, "")?;
    let constants = Arc::new(Affine::new(r.device, &single(&scale), &single(&bias))?);
    let (g, x) = (r.graph(), r.image("in.x")?);
    let y = affine(&g, &x, &constants)?;
    r.image_outputs(g, &y, &[("x", &x)])
}

/// Over the last dimension, or over the channels of an image.
fn layer_normalisation(r: &Replay) -> Result<Vec<Output>> {
    let (d, dim): (_, String) = (r.dump, r.dump.attr("dim")?);
    let image = match dim.as_str() {
        "channel" => true,
        "last" => false,
        other => return Err(r.fail(format!("attribute `dim`: expected last or channel, found `{other}`"))),
    };
    let (g, x) = (r.graph(), if image { r.image("in.x")? } else { r.plain("in.x")? });
    let c = x.shape().last().copied().unwrap_or(0);
    let row = |name: &str, value: f32| Ok(d.optional(name)?.map_or_else(|| vec![value; c], |a| a.values));
    let (w, b): (Result<Vec<f32>>, Result<Vec<f32>>) = (row("w.weight", 1.0), row("w.bias", 0.0));
    let eps: f64 = d.attr("eps")?;
    let norm = Arc::new(LayerNorm::new(r.device, eps as f32, &w?, &b?)?);
    let y = layer_norm(&g, &x, &norm)?;
    if image { r.image_outputs(g, &y, &[("x", &x)]) } else { r.plain_outputs(g, &y, &[("x", &x)]) }
}

/// An op of one image-like input without weights.
fn on_image(r: &Replay, op: impl FnOnce(&Graph, &Tensor) -> Result<Tensor>) -> Result<Vec<Output>> {
    let (g, x) = (r.graph(), r.image("in.x")?);
    let y = op(&g, &x)?;
    r.image_outputs(g, &y, &[("x", &x)])
}

fn resampling(r: &Replay) -> Result<Vec<Output>> {
    let d = r.dump;
    let mode: String = d.attr("mode")?;
    let filter = match mode.as_str() {
        "bilinear" => Filter::Bilinear,
        "bicubic" => Filter::Bicubic,
        other => return Err(r.fail(format!("attribute `mode`: `{other}` is unknown"))),
    };
    if d.attr_opt::<bool>("align_corners")? == Some(true) {
        return Err(r.fail("attribute `align_corners`: only false is known"));
    }
    let (size, antialias): ([usize; 2], bool) = (d.attr("size")?, d.attr_opt("antialias")?.unwrap_or(false));
    on_image(r, |g, x| {
        let [n, h, w, c] = x.dims4("resize")?;
        r.makes(&[n, c, size[0], size[1]])?;
        resize(g, x, &Arc::new(Resize::new(r.device, [h, w], size, filter, antialias)?))
    })
}

/// One gate's weights are named from itself, both gates' from CBAM.
fn attention_gates(r: &Replay) -> Result<Vec<Output>> {
    let d = r.dump;
    let (channel_prefix, spatial_prefix) = if d.op == "cbam" { ("ChannelGate.", "SpatialGate.") } else { ("", "") };
    let shaped = |name: String, shape: &[usize]| {
        let a = d.array(&name)?;
        match a.shape == shape {
            true => Ok(a.values),
            false => Err(Error::tensor(&d.path, name, format!("expected shape {shape:?}, found {:?}", a.shape))),
        }
    };
    let channel = if d.op == "spatial_gate" {
        None
    } else {
        let (c, reduction): (usize, usize) =
            (d.array("in.x")?.shape.get(1).copied().unwrap_or(0), d.attr("reduction")?);
        let hidden = c.checked_div(reduction).unwrap_or(0).max(1);
        let get = |part: &str, shape: &[usize]| shaped(format!("w.{channel_prefix}mlp.{part}"), shape);
        let layer1 = (get("1.weight", &[hidden, c])?, get("1.bias", &[hidden])?);
        Some((layer1, (get("3.weight", &[c, hidden])?, get("3.bias", &[c])?)))
    };
    let spatial = if d.op == "channel_gate" {
        None
    } else {
        let side: usize = d.attr("kernel")?;
        let kernel = shaped(format!("w.{spatial_prefix}spatial.conv.weight"), &[1, 2, side, side])?;
        let (scale, bias) = folded(r, &format!("{spatial_prefix}spatial.bn."))?;
        match (&scale[..], &bias[..]) {
            (&[scale], &[bias]) => Some((kernel, (scale as f32, bias as f32))),
            _ => return Err(r.fail("tensor `bn.weight`: expected one channel")),
        }
    };
    let gates = match (&channel, &spatial) {
        (Some((l1, l3)), Some((kernel, bn))) => Cbam::new(r.device, (&l1.0, &l1.1), (&l3.0, &l3.1), kernel, *bn)?,
        (Some((l1, l3)), None) => Cbam::channel_gate(r.device, (&l1.0, &l1.1), (&l3.0, &l3.1))?,
        (None, Some((kernel, bn))) => Cbam::spatial_gate(r.device, kernel, *bn)?,
        (None, None) => return Err(r.fail("no gate")),
    };
    let gates = Arc::new(gates);
    on_image(r, |g, x| cbam(g, x, &gates, None, Activation::None))
}

fn losses(r: &Replay) -> Result<Vec<Output>> {
    let d = r.dump;
    let (g, logits, labels) = (Graph::inference(r.device, r.precision), r.plain("in.logits")?, d.labels("in.labels")?);
    let targets = d.has("in.targets").then(|| d.labels("in.targets")).transpose()?;
    let kind = match (d.op.as_str(), &targets) {
        ("cross_entropy", None) => {
            LossKind::CrossEntropy { label_smoothing: d.attr_opt("label_smoothing")?.unwrap_or(0.0) }
        }
        ("dlr_loss", None) => LossKind::Dlr,
        ("dlr_loss", Some(_)) => LossKind::DlrTargeted,
        _ => return Err(r.fail(format!("tensor `in.targets` is unknown to `{}`", d.op))),
    };
    let out = loss(&g, &logits, &labels, targets.as_deref(), kind)?;
    Ok(vec![Output::new("loss", out.loss.to_f32(r.device)?), Output::new("dlogits", out.dlogits.to_f32(r.device)?)])
}

/// The rows of an image follow each other; `in.image` says which image each is of.
fn votes(r: &Replay) -> Result<Vec<Output>> {
    let (g, logits) = (Graph::inference(r.device, r.precision), r.plain("in.logits")?);
    let ([_, classes], image) = (logits.dims2("vote")?, r.dump.labels("in.image")?);
    let images: usize = r.dump.attr("images")?;
    if r.dump.shape("out.counts") != Some(&[images, classes]) {
        return Err(r.fail(format!("tensor `out.counts`: expected the shape [{images}, {classes}]")));
    }
    if !image.is_sorted() || image.last().is_some_and(|&last| last as usize >= images) {
        return Err(r.fail(format!("tensor `in.image`: expected ascending numbers below {images}")));
    }
    let rows: Vec<usize> = (0..images as u32).map(|own| image.iter().filter(|&&other| other == own).count()).collect();
    let votes = Votes::new(r.device, images, classes)?;
    votes.add(&g, &logits, &rows)?;
    let counts = votes.counts(r.device)?.concat();
    Ok(vec![Output::new("counts", counts.into_iter().map(|count| count as f32).collect())])
}
