//! Attributes of a dump as the ops take them.

use super::dump::Array;
use super::replay::Replay;
use crate::Result;
use crate::ops::Activation;
use crate::ops::conv::Window;
use crate::ops::pgd::Norm;
use crate::ops::pool::Pool;

/// The `activation` attribute.
pub(super) fn fused(r: &Replay) -> Result<Activation> {
    let Some(name) = r.dump.attr_opt::<String>("activation")? else { return Ok(Activation::None) };
    Activation::named(&name).ok_or_else(|| r.fail(format!("attribute `activation`: `{name}` is unknown")))
}

pub(super) fn dims4(r: &Replay, name: &str, a: &Array) -> Result<[usize; 4]> {
    a.shape
        .as_slice()
        .try_into()
        .map_err(|_| r.fail(format!("tensor `{name}`: expected 4 dimensions, found {:?}", a.shape)))
}

/// Stride, padding (2 or 4 values), dilation and groups.
pub(super) fn window(r: &Replay, dilated: bool) -> Result<Window> {
    let padding: Vec<usize> = r.dump.attr("padding")?;
    let padding = match padding[..] {
        [h, w] => [h, h, w, w],
        [top, bottom, left, right] => [top, bottom, left, right],
        _ => return Err(r.fail(format!("attribute `padding`: expected 2 or 4 values, found {padding:?}"))),
    };
    let dilation = if dilated { r.dump.attr("dilation")? } else { [1, 1] };
    Ok(Window { stride: r.dump.attr("stride")?, padding, dilation, groups: r.dump.attr("groups")? })
}

pub(super) fn pool(r: &Replay) -> Result<Pool> {
    let d = r.dump;
    Ok(Pool {
        kernel: d.attr("kernel")?,
        stride: d.attr("stride")?,
        padding: d.attr("padding")?,
        ceil_mode: d.attr_opt("ceil_mode")?.unwrap_or(false),
    })
}

/// The `norm` attribute.
pub(super) fn norm(r: &Replay) -> Result<Norm> {
    let text: String = r.dump.attr("norm")?;
    match text.as_str() {
        "linf" => Ok(Norm::Linf),
        "l2" => Ok(Norm::L2),
        other => Err(r.fail(format!("attribute `norm`: expected linf or l2, found `{other}`"))),
    }
}
