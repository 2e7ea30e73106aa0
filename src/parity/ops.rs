//! Single operations.

use std::rc::Rc;

use super::dump::Array;
use super::networks::parse_norm;
use super::{Output, Replay};
use crate::Result;
use crate::device::DType;
use crate::ops::Activation;
use crate::ops::conv::{Conv2d, Window, conv2d, fold_batch_norm};
use crate::ops::gemm::{Linear, linear, matmul};
use crate::ops::pgd::{self, Profile, Step};
use crate::ops::pointwise::{Affine, activation, affine, softmax};
use crate::tensor::Tensor;

/// What the op computes, in PyTorch's layout. An op this engine lacks is an error that names it.
pub(super) fn run(r: &Replay) -> Result<Vec<Output>> {
    match r.dump.op.as_str() {
        "conv2d" => convolution(r),
        "conv2d_bn" => convolution_bn(r),
        "linear" => fully_connected(r),
        "matmul" => product(r),
        "batch_norm" => batch_norm(r),
        "softmax" => {
            let (g, x) = (r.graph(), r.plain("in.x")?);
            let y = softmax(&g, &x)?;
            r.plain_outputs(g, &y, &[("x", &x)])
        }
        "pgd_step" => pgd_step(r),
        other => match parse_activation(other) {
            Some(act) => {
                let (g, x) = (r.graph(), r.plain("in.x")?);
                let y = activation(&g, &x, act)?;
                r.plain_outputs(g, &y, &[("x", &x)])
            }
            None => Err(r.fail(format!("op `{other}` is unknown"))),
        },
    }
}

fn parse_activation(name: &str) -> Option<Activation> {
    Some(match name {
        "relu" => Activation::Relu,
        "silu" => Activation::Silu,
        "gelu" => Activation::Gelu,
        "gelu_tanh" => Activation::GeluTanh,
        "sigmoid" => Activation::Sigmoid,
        "tanh" => Activation::Tanh,
        _ => return None,
    })
}

/// The `activation` attribute.
fn fused(r: &Replay) -> Result<Activation> {
    let Some(name) = r.dump.attr_opt::<String>("activation")? else { return Ok(Activation::None) };
    parse_activation(&name).ok_or_else(|| r.fail(format!("attribute `activation`: `{name}` is unknown")))
}

fn dims4(r: &Replay, name: &str, a: &Array) -> Result<[usize; 4]> {
    a.shape.as_slice().try_into().map_err(|_| r.fail(format!("tensor `{name}`: expected 4 dimensions, found {:?}", a.shape)))
}

/// Stride, padding (2 or 4 values), dilation and groups.
fn window(r: &Replay, dilated: bool) -> Result<Window> {
    let padding: Vec<usize> = r.dump.attr("padding")?;
    let padding = match padding[..] {
        [h, w] => [h, h, w, w],
        [top, bottom, left, right] => [top, bottom, left, right],
        _ => return Err(r.fail(format!("attribute `padding`: expected 2 or 4 values, found {padding:?}"))),
    };
    let dilation = if dilated { r.dump.attr("dilation")? } else { [1, 1] };
    Ok(Window { stride: r.dump.attr("stride")?, padding, dilation, groups: r.dump.attr("groups")? })
}

fn convolution(r: &Replay) -> Result<Vec<Output>> {
    let (weight, bias) = (r.dump.array("w.weight")?, r.dump.optional("w.bias")?);
    let shape = dims4(r, "w.weight", &weight)?;
    let bias = bias.as_ref().map(|b| b.values.as_slice());
    let conv = Rc::new(Conv2d::new(r.device, r.precision, &weight.values, shape, bias, window(r, true)?)?);
    let (g, x) = (r.graph(), r.image("in.x")?);
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
    let values: Vec<f32> =
        weight.values.iter().enumerate().map(|(i, &w)| (f64::from(w) * scale[i / taps.max(1)]) as f32).collect();
    let conv = Rc::new(Conv2d::new(r.device, r.precision, &values, shape, Some(&single(&bias)), window(r, false)?)?);
    let (g, x) = (r.graph(), r.image("in.x")?);
    let residual = r.dump.has("in.residual").then(|| r.image("in.residual")).transpose()?;
    let y = conv2d(&g, &x, &conv, residual.as_ref(), fused(r)?)?;
    let mut inputs = vec![("x", &x)];
    inputs.extend(residual.as_ref().map(|t| ("residual", t)));
    r.image_outputs(g, &y, &inputs)
}

fn fully_connected(r: &Replay) -> Result<Vec<Output>> {
    let (weight, bias) = (r.dump.array("w.weight")?, r.dump.optional("w.bias")?);
    let [o, k]: [usize; 2] = weight.shape.as_slice().try_into().map_err(|_| r.fail("tensor `w.weight`: expected (O, K)"))?;
    let bias = bias.as_ref().map(|b| b.values.as_slice());
    let layer = Rc::new(Linear::new(r.device, r.precision, &weight.values, [o, k], bias)?);
    let (g, x) = (r.graph(), r.plain("in.x")?);
    let x = x.reshaped(&[x.len() / k.max(1), k])?;
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
    let y = matmul(&g, &a, &b)?;
    r.plain_outputs(g, &y, &[("a", &a), ("b", &b)])
}

fn batch_norm(r: &Replay) -> Result<Vec<Output>> {
    let (scale, bias) = folded(r, "")?;
    let constants = Rc::new(Affine::new(r.device, &single(&scale), &single(&bias))?);
    let (g, x) = (r.graph(), r.image("in.x")?);
    let y = affine(&g, &x, &constants)?;
    r.image_outputs(g, &y, &[("x", &x)])
}

fn pgd_step(r: &Replay) -> Result<Vec<Output>> {
    let d = r.dump;
    let norm: String = d.attr("norm")?;
    let step = Step {
        norm: parse_norm(r, &norm)?,
        profile: Profile::Native,
        eps: d.attr("eps")?,
        size: d.attr("step_size")?,
        scale: 1.0,
    };
    let get = |name: &str| -> Result<Tensor> {
        let a = d.array(name)?;
        Tensor::from_f32(r.device, &a.shape, DType::F32, &a.values)
    };
    let x = pgd::step(r.device, &get("in.x")?, &get("in.x_clean")?, &get("in.grad")?, &step)?;
    Ok(vec![Output::new("x", x.to_f32(r.device)?)])
}
