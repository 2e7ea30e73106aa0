//! The same values in another order or under another shape: `kernels/permute.cu`.

use super::diffusion::concat_channels;
use super::pointwise::rows_per_block;
use super::walk::{Route, repeating};
use crate::device::{DType, PERMUTE_BF16, PERMUTE_F32, PermuteArgs};
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The same values under another shape. No work, forward or backward.
///
/// # Errors
/// [`Error::Shape`] when the number of values differs.
pub fn view(g: &Graph, x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    if x.shape() == shape {
        return Ok(x.clone());
    }
    let y = x.renamed(shape)?;
    let x_in = x.outline();
    g.record("view gradient", &[x], &y, move |g, dy, grads| {
        let dx = dy.reshaped(x_in.shape())?;
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}

/// `y[i_0, ..] = x` with axis `k` of `y` being axis `axes[k]` of `x`.
///
/// | arg | shape |
/// |---|---|
/// | `x` | any |
/// | ret | `x.shape()[axes[0]], ..` |
///
/// # Errors
/// [`Error::Shape`] when `axes` is no permutation, or more than six axes remain where neighbours that stay together are joined.
pub fn permute(g: &Graph, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let mut inverse = vec![usize::MAX; x.shape().len()];
    for (to, &from) in axes.iter().enumerate() {
        if let Some(place) = inverse.get_mut(from) {
            *place = to;
        }
    }
    if axes.len() != x.shape().len() || inverse.contains(&usize::MAX) {
        let want = format!("a permutation of {} axes", x.shape().len());
        return Err(Error::shape("permute", "axes", want, format!("{axes:?}")));
    }
    let y = permuted(g, x, axes)?;
    let x_in = x.outline();
    g.record("permute gradient", &[x], &y, move |g, dy, grads| {
        let dx = permuted(g, dy, &inverse)?;
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}

fn permuted(g: &Graph, x: &Tensor, axes: &[usize]) -> Result<Tensor> {
    let strides = repeating(x.shape());
    let shape: Vec<usize> = axes.iter().map(|&a| x.shape()[a]).collect();
    let moved: Vec<usize> = axes.iter().copied().filter(|&a| x.shape()[a] != 1).collect();
    // Where two blocks of neighbours change places, whole squares are moved.
    let mut sorted = moved.clone();
    sorted.sort_unstable();
    if let Some(fixed) = (0..moved.len()).find(|&i| moved[i] != sorted[i])
        && let Some(cut) = moved.iter().position(|&a| a == sorted[fixed])
        && moved[cut..] == sorted[fixed..fixed + moved.len() - cut]
        && moved[fixed..cut] == sorted[fixed + moved.len() - cut..]
    {
        let product = |part: &[usize]| part.iter().map(|&a| x.shape()[a]).product::<usize>();
        let (batch, rows, cols) = (product(&moved[..fixed]), product(&moved[cut..]), product(&moved[fixed..cut]));
        if batch <= 65_535 {
            return super::pointwise::transpose(g, x, [batch, rows, cols])?.reshaped(&shape);
        }
    }
    let from: Vec<i64> = axes.iter().map(|&a| strides[a]).collect();
    copy(g, x, 0, &shape, &from)
}

/// A copy walked by strides, from `offset` values on.
pub(super) fn copy(g: &Graph, x: &Tensor, offset: usize, shape: &[usize], strides: &[i64]) -> Result<Tensor> {
    let y = Tensor::uninit(g.device(), shape, x.dtype())?;
    if y.is_empty() {
        return Ok(y);
    }
    let route = Route::new("permute", shape, [strides, &repeating(shape)])?;
    let per_block = rows_per_block(route.c);
    let args = PermuteArgs {
        x: x.address() + (offset * x.dtype().size()) as u64,
        y: y.address(),
        rows: route.rows as i64,
        steps: route.steps[0],
        step: route.step[0],
        walk: route.walk,
        c: route.c as i32,
        rows_per_block: per_block as i32,
    };
    let kernel = if x.dtype() == DType::BF16 { &PERMUTE_BF16 } else { &PERMUTE_F32 };
    g.launch(kernel, [route.rows.div_ceil(per_block), 1, 1], &args)?;
    Ok(y)
}

/// `x` as `(1, 1, outer, axis * inner)`.
fn columns(g: &Graph, x: &Tensor, axis: usize) -> Result<Tensor> {
    let outer: usize = x.shape()[..axis].iter().product();
    view(g, x, &[1, 1, outer, x.shape()[axis..].iter().product()])
}

/// Tensors behind each other along an axis.
///
/// | arg | shape |
/// |---|---|
/// | `parts` | of one shape but for `axis` |
/// | ret | their lengths along `axis` summed |
///
/// # Errors
/// [`Error::Shape`] when there are none or they do not fit.
pub fn concat(g: &Graph, parts: &[&Tensor], axis: usize) -> Result<Tensor> {
    let Some((first, rest)) = parts.split_first().filter(|(first, _)| axis < first.shape().len()) else {
        return Err(Error::shape("concat", "parts", "at least one with that axis", parts.len()));
    };
    let mut shape = first.shape().to_vec();
    let mut all = (*first).clone();
    for part in rest {
        let fits =
            part.shape().len() == shape.len() && (0..shape.len()).all(|i| i == axis || part.shape()[i] == shape[i]);
        if !fits || part.dtype() != first.dtype() {
            return Err(Error::shape("concat", "part", format!("{first:?}"), format!("{part:?}")));
        }
        shape[axis] += part.shape()[axis];
        all = view(g, &concat_channels(g, &columns(g, &all, axis)?, &columns(g, part, axis)?)?, &shape)?;
    }
    Ok(all)
}

/// `count` neighbours along an axis, from `first` on.
///
/// | arg | shape |
/// |---|---|
/// | `x` | any |
/// | ret | `count` along `axis` |
///
/// # Errors
/// [`Error::Shape`] when there are not that many.
pub fn slice(g: &Graph, x: &Tensor, axis: usize, first: usize, count: usize) -> Result<Tensor> {
    let length = x.shape().get(axis).copied().unwrap_or(0);
    if first + count > length {
        return Err(Error::shape("slice", "length", format!("at most {length}"), first + count));
    }
    let mut shape = x.shape().to_vec();
    shape[axis] = count;
    let strides = repeating(x.shape());
    let inner: usize = x.shape()[axis + 1..].iter().product();
    let y = copy(g, x, first * inner, &shape, &strides)?;
    let x_in = x.outline();
    g.record("slice gradient", &[x], &y, move |g, dy, grads| {
        let zeros = |count: usize| {
            let mut shape = x_in.shape().to_vec();
            shape[axis] = count;
            let zeros = Tensor::uninit(g.device(), &shape, x_in.dtype())?;
            zeros.clear(g.device())?;
            Ok::<_, Error>(zeros)
        };
        let (before, after) = (zeros(first)?, zeros(length - first - count)?);
        let parts: Vec<&Tensor> = [&before, dy, &after].into_iter().filter(|t| !t.is_empty()).collect();
        let dx = concat(g, &parts, axis)?;
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}
