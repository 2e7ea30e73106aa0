//! Single steps of attacks: `pgd_step`, `apgd_step`, `fab_step`, `min_norm_step`, `square_step`.

use super::attributes::norm;
use super::dump::channels_first;
use super::replay::{Output, Replay};
use crate::device::DType;
use crate::ops::apgd::{self, Iterate};
use crate::ops::fab;
use crate::ops::min_norm::{self, Onto};
use crate::ops::pgd::{self, Norm, Profile, Step};
use crate::ops::square::{self, Window};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// Attacks work in float32, whatever the network does.
fn plain(r: &Replay, name: &str) -> Result<Tensor> {
    let a = r.dump.array(name)?;
    Tensor::from_f32(r.device, &a.shape, DType::F32, &a.values)
}

fn image(r: &Replay, name: &str) -> Result<Tensor> {
    let a = r.dump.array(name)?;
    let (shape, values) = a
        .channels_last()
        .ok_or_else(|| Error::tensor(&r.dump.path, name, format!("expected (N, C, H, W), found {:?}", a.shape)))?;
    Tensor::from_f32(r.device, &shape, DType::F32, &values)
}

fn output(r: &Replay, x: &Tensor) -> Result<Vec<Output>> {
    Ok(vec![Output::new("x", x.to_f32(r.device)?)])
}

pub(super) fn pgd_step(r: &Replay) -> Result<Vec<Output>> {
    let d = r.dump;
    let step =
        Step { norm: norm(r)?, profile: Profile::Native, eps: d.attr("eps")?, size: d.attr("step_size")?, scale: 1.0 };
    let x = pgd::step(r.device, &plain(r, "in.x")?, &plain(r, "in.x_clean")?, &plain(r, "in.grad")?, &step)?;
    output(r, &x)
}

pub(super) fn apgd_step(r: &Replay) -> Result<Vec<Output>> {
    let (x, prev, x0, g) = (plain(r, "in.x")?, plain(r, "in.prev")?, plain(r, "in.x_clean")?, plain(r, "in.grad")?);
    let at = Iterate { x: &x, prev: &prev, x0: &x0 };
    let share: f64 = r.dump.attr("share")?;
    let eta = r.dump.array("in.eta")?.values;
    output(r, &apgd::step(r.device, at, &g, &eta, (norm(r)?, r.dump.attr("eps")?), share as f32)?)
}

pub(super) fn fab_step(r: &Replay) -> Result<Vec<Output>> {
    let (x, x0, w) = (plain(r, "in.x")?, plain(r, "in.x_clean")?, plain(r, "in.w")?);
    output(r, &fab::step(r.device, &x, &x0, &w, &r.dump.array("in.df")?.values, norm(r)?)?)
}

pub(super) fn min_norm_step(r: &Replay) -> Result<Vec<Output>> {
    let (x, x0, g) = (plain(r, "in.x")?, plain(r, "in.x_clean")?, plain(r, "in.grad")?);
    let rows = r.dump.array("in.rows")?.values;
    let onto = match (norm(r)?, r.dump.attr("sphere")?) {
        (Norm::L2, true) => Onto::Sphere,
        (norm, false) => Onto::Ball(norm),
        (norm, true) => return Err(r.fail(format!("attribute `sphere`: expected false in {norm}, found true"))),
    };
    let (pairs, []) = rows.as_chunks() else {
        return Err(Error::tensor(&r.dump.path, "in.rows", format!("expected pairs, found {} values", rows.len())));
    };
    let size: f64 = r.dump.attr("step_size")?;
    let (x, told) = min_norm::step(r.device, [&x, &x0, &g], pairs, size as f32, onto)?;
    let mut outputs = output(r, &x)?;
    outputs.push(Output::new("radius", told.iter().map(|told| told.radius).collect()));
    outputs.push(Output::new("length", told.iter().map(|told| told.gradient).collect()));
    Ok(outputs)
}

pub(super) fn square_step(r: &Replay) -> Result<Vec<Output>> {
    let (best, x0) = (image(r, "in.best")?, image(r, "in.x_clean")?);
    let numbers = r.dump.integers("in.windows")?;
    let bad = |found: String| {
        let expected = "rows of 6 whole numbers: row and column of both windows, signs, whether the tile is transposed";
        Error::tensor(&r.dump.path, "in.windows", format!("expected {expected}, found {found}"))
    };
    if numbers.0.len() != 2 || numbers.0[1] != 6 {
        return Err(bad(format!("shape {:?}", numbers.0)));
    }
    if let Some(v) = numbers.1.iter().find(|v| !(0..65536).contains(*v)) {
        return Err(bad(v.to_string()));
    }
    let windows: Vec<Window> = numbers
        .1
        .chunks_exact(6)
        .map(|v| v.iter().map(|&v| v as u32).collect::<Vec<_>>())
        .map(|v| Window { to: [v[0], v[1]], from: [v[2], v[3]], signs: v[4], turned: v[5] != 0 })
        .collect();
    let (side, norm): (usize, Norm) = (r.dump.attr("side")?, norm(r)?);
    let [_, h, w, _] = x0.dims4("square_step")?;
    if side == 0 || side > h.min(w) {
        return Err(r.fail(format!("attribute `side`: expected 1 to {}, found {side}", h.min(w))));
    }
    let tile = square::tile(side);
    let tile = Tensor::from_f32(r.device, &[tile.len()], DType::F32, &tile)?;
    let x = square::step(r.device, &best, &x0, &windows, &tile, side, (norm, r.dump.attr("eps")?))?;
    Ok(vec![Output::new("x", channels_first(&x.to_f32(r.device)?, x.dims4("square_step")?))])
}
