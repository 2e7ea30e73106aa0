//! What nodes say of axes, ranges and lengths, in an attribute or, since some version of the operator, in an input.

use super::ir::{Constant, Data, Dim, Ir, Node};

/// Row-major strides.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i].max(1));
    }
    strides
}

/// An axis counted from the front.
///
/// # Errors
/// When there is no such axis.
pub fn axis(a: i64, rank: usize) -> Result<usize, String> {
    let from_front = if a < 0 { a + rank as i64 } else { a };
    usize::try_from(from_front).ok().filter(|&a| a < rank).ok_or_else(|| format!("axis {a} of {rank}"))
}

/// The axes of a node, from its attribute or its second input; `None` where it names none.
pub fn axes_of(ir: &Ir, node: &Node) -> Option<Vec<i64>> {
    let own = node.ints("axes").map(<[i64]>::to_vec).or_else(|| ir.known(node, 1)?.as_ints());
    own.filter(|axes| !axes.is_empty() || matches!(node.op.as_str(), "Unsqueeze"))
}

/// The axis of a softmax; before opset 13 all axes from there on are one.
///
/// # Errors
/// When there is no such axis.
pub fn softmax_axis(ir: &Ir, node: &Node, rank: usize) -> Result<usize, String> {
    axis(node.int("axis").unwrap_or(if ir.opset < 13 { 1 } else { -1 }), rank)
}

/// The permutation of a Transpose.
///
/// # Errors
/// When it is none.
pub fn permutation(node: &Node, rank: usize) -> Result<Vec<usize>, String> {
    let reversed: Vec<i64> = (0..rank as i64).rev().collect();
    let perm = node.ints("perm").unwrap_or(&reversed);
    let perm: Vec<usize> = perm.iter().map(|&a| axis(a, rank)).collect::<Result<_, _>>()?;
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted.iter().copied().eq(0..rank) {
        Ok(perm)
    } else {
        Err(format!("{perm:?} is no permutation of {rank} axes"))
    }
}

/// The axes that a reduction goes over, counted from the front.
///
/// # Errors
/// When there is no such axis.
pub fn reduced(ir: &Ir, node: &Node, rank: usize) -> Result<Vec<usize>, String> {
    let axes = match axes_of(ir, node) {
        Some(axes) => axes,
        None if node.int("noop_with_empty_axes") == Some(1) => vec![],
        None => (0..rank as i64).collect(),
    };
    axes.iter().map(|&a| axis(a, rank)).collect()
}

/// A product with the unknown size of the batch as a factor.
///
/// # Errors
/// When the batch would be squared.
pub fn times(a: Dim, b: Dim) -> Result<Dim, String> {
    if a.batch && b.batch {
        return Err("multiplies the size of the batch by itself".into());
    }
    let n = a.n.checked_mul(b.n).ok_or_else(|| format!("{a} times {b} is too large"))?;
    // Nothing of anything is nothing.
    Ok(Dim::new(n, (a.batch || b.batch) && n != 0))
}

/// One axis of a Slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub start: i64,
    pub step: i64,
    pub count: usize,
}

/// The ranges of a Slice along every axis of `shape`; `None` when they are not known. An axis that is not cut has its whole length;
/// where that is a multiple of the batch, the count is that of one image.
///
/// # Errors
/// When the batch is cut, or the axes or steps are impossible.
pub fn slices(ir: &Ir, node: &Node, shape: &[Dim]) -> Result<Option<Vec<Range>>, String> {
    let list = |key: &str, input: usize| -> Option<Vec<i64>> {
        node.ints(key).map(<[i64]>::to_vec).or_else(|| {
            let dims = ir.known(node, input)?.as_dims()?;
            // Beyond every length there is the end, whatever the batch.
            Some(dims.iter().map(|d| if d.batch { i64::MAX } else { d.n }).collect())
        })
    };
    let (Some(starts), Some(ends)) = (list("starts", 1), list("ends", 2)) else { return Ok(None) };
    let rank = shape.len();
    let axes = list("axes", 3).unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list("steps", 4).unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err("starts, ends, axes and steps of different lengths".into());
    }
    let mut ranges: Vec<Range> =
        shape.iter().map(|d| Range { start: 0, step: 1, count: d.n.max(0) as usize }).collect();
    for (((&start, &end), &a), &step) in starts.iter().zip(&ends).zip(&axes).zip(&steps) {
        let step = step.clamp(-i64::from(i32::MAX), i64::from(i32::MAX));
        let a = axis(a, rank)?;
        let n = shape[a].n;
        if shape[a].batch {
            if start == 0 && step == 1 && end >= n && (end == i64::MAX || end >= i64::from(i32::MAX)) {
                continue;
            }
            return Err("cuts the batch: images would be mixed".into());
        }
        if step == 0 {
            return Err("a step of 0".into());
        }
        let from_end = |v: i64| if v < 0 { v.saturating_add(n) } else { v };
        let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
        let start = from_end(start).clamp(if step > 0 { 0 } else { 0.min(n - 1) }, high.max(0));
        let end = from_end(end).clamp(low, n);
        let span = if step > 0 { end - start } else { start - end };
        let count = if span <= 0 { 0 } else { (span + step.abs() - 1) / step.abs() };
        ranges[a] = Range { start, step, count: count as usize };
    }
    Ok(Some(ranges))
}

/// The lengths of the parts of a Split of `n`.
///
/// # Errors
/// When they do not add up.
pub fn parts(ir: &Ir, node: &Node, n: usize) -> Result<Vec<usize>, String> {
    let said = node.ints("split").map(<[i64]>::to_vec).or_else(|| ir.known(node, 1)?.as_ints());
    let counts: Vec<usize> = match said {
        Some(said) => {
            said.iter().map(|&c| usize::try_from(c).map_err(|_| format!("a part of {c}"))).collect::<Result<_, _>>()?
        }
        None => {
            let count = node.outputs.len().max(1);
            let each = n.div_ceil(count);
            (0..count).map(|i| each.min(n.saturating_sub(i * each))).collect()
        }
    };
    if counts.iter().sum::<usize>() != n || counts.len() < node.outputs.len() {
        return Err(format!("parts of {counts:?} for a length of {n} and {} results", node.outputs.len()));
    }
    Ok(counts)
}

/// What a Pad adds before and after every axis, and its mode; `None` when it is not known.
///
/// # Errors
/// When their number is not twice that of the axes.
#[allow(clippy::type_complexity)]
pub fn pads(ir: &Ir, node: &Node, rank: usize) -> Result<Option<(Vec<i64>, Vec<i64>, String)>, String> {
    let said = node.ints("pads").map(<[i64]>::to_vec).or_else(|| ir.known(node, 1)?.as_ints());
    let Some(said) = said else { return Ok(None) };
    let axes = match node.input(3) {
        None => (0..rank as i64).collect(),
        Some(_) => match ir.known(node, 3).and_then(Constant::as_ints) {
            Some(axes) => axes,
            None => return Ok(None),
        },
    };
    if said.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", said.len(), axes.len()));
    }
    let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
    for (i, &a) in axes.iter().enumerate() {
        let a = axis(a, rank)?;
        (before[a], after[a]) = (said[i], said[i + axes.len()]);
        if before[a].abs().max(after[a].abs()) > i64::from(i32::MAX) {
            return Err(format!("a pad of {}", before[a].max(after[a])));
        }
    }
    Ok(Some((before, after, node.text("mode").unwrap_or("constant").to_owned())))
}

/// Values of a result beyond which a file is not believed, unless they are its own.
pub const MAX_VALUES: usize = 1 << 24;

pub fn bounded(n: usize) -> Result<(), String> {
    if n <= MAX_VALUES {
        Ok(())
    } else {
        Err(format!("a constant of {n} values, more than the {MAX_VALUES} that are computed"))
    }
}

/// Values of `x` at places in memory, as a constant of this shape.
pub fn pick(x: &Constant, shape: &[usize], places: impl Iterator<Item = usize>) -> Result<Constant, String> {
    let outside = || "it reads beyond its input".to_owned();
    Ok(match &x.data {
        Data::Floats(v) => {
            let values: Option<Vec<f32>> = places.map(|at| v.get(at).copied()).collect();
            Constant::floats(shape, values.ok_or_else(outside)?)
        }
        Data::Ints(v) => {
            let values: Option<Vec<Dim>> = places.map(|at| v.get(at).copied()).collect();
            Constant::ints(shape, values.ok_or_else(outside)?)
        }
    })
}

/// Values of `x` at places that a function of the index gives.
pub fn gather(x: &Constant, shape: &[usize], place: impl Fn(&[usize]) -> usize) -> Result<Constant, String> {
    let n = shape.iter().try_fold(1usize, |p, &n| p.checked_mul(n)).ok_or("an impossible shape")?;
    if n > x.len() {
        bounded(n)?;
    }
    let mut index = vec![0; shape.len()];
    let places: Vec<usize> = (0..n)
        .map(|_| {
            let at = place(&index);
            next(&mut index, shape);
            at
        })
        .collect();
    pick(x, shape, places.into_iter())
}

/// The common shape of two operands.
///
/// # Errors
/// When they do not fit.
pub fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |i| s[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (a, b) if a == b => Ok(a),
            (1, n) | (n, 1) => Ok(n),
            _ => Err(format!("shapes {a:?} and {b:?} do not fit")),
        })
        .collect()
}

/// The same values repeated along axes of length 1 and new ones in front.
///
/// # Errors
/// When the shapes do not fit or the result is too large.
pub fn expanded(x: &Constant, shape: &[usize]) -> Result<Constant, String> {
    if x.shape == shape {
        return Ok(x.clone());
    }
    let new = shape.len().checked_sub(x.shape.len()).ok_or("fewer axes than before")?;
    let from = strides(&x.shape);
    gather(x, shape, |index| {
        index[new..].iter().enumerate().map(|(a, &i)| if x.shape[a] == 1 { 0 } else { i * from[a] }).sum()
    })
}

/// The next index of a shape in row-major order.
pub fn next(index: &mut [usize], shape: &[usize]) {
    for (i, &n) in index.iter_mut().zip(shape).rev() {
        *i += 1;
        if *i < n {
            return;
        }
        *i = 0;
    }
}
