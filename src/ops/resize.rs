//! Resizing images: `kernels/resize.cu`. The tables of weights are made here, on the CPU, in float32 as PyTorch makes them.

use std::sync::Arc;

use crate::device::{
    DType, Device, RESAMPLE_BF16, RESAMPLE_F32, ResampleArgs, UPSAMPLE_BF16, UPSAMPLE_F32, UPSAMPLE_GRAD_BF16,
    UPSAMPLE_GRAD_F32, UpsampleArgs,
};
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The longest side of an image.
const SIDE: usize = 1 << 16;

/// The filter of a resize.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Filter {
    Bilinear,
    /// Keys 1981, with a = -1/2 under antialias (as in PIL) and a = -3/4 without (as in OpenCV).
    Bicubic,
}

/// A sparse matrix with one run of weights per output.
#[derive(Clone, Debug, PartialEq)]
struct Rows {
    first: Vec<usize>,
    weights: Vec<Vec<f32>>,
}

impl Rows {
    /// The weights of outputs `0..n_out` over inputs `0..n_in`, pixel centres at half-integers (`align_corners` false).
    fn new(n_in: usize, n_out: usize, filter: Filter, antialias: bool) -> Self {
        if antialias { Self::antialiased(n_in, n_out, filter) } else { Self::pointwise(n_in, n_out, filter) }
    }

    /// A filter as wide as an output pixel; weights that fall off the image are left out and the rest renormalised.
    ///
    /// Where PyTorch's float32 arithmetic passes through float64 (a literal 0.5), so does this.
    fn antialiased(n_in: usize, n_out: usize, filter: Filter) -> Self {
        let scale = n_in as f32 / n_out as f32;
        let reach = if filter == Filter::Bilinear { 1.0f32 } else { 2.0 };
        let support = if scale >= 1.0 { reach * scale } else { reach };
        let inverse = if scale >= 1.0 { 1.0 / scale } else { 1.0f32 };
        let mut rows = Rows { first: Vec::with_capacity(n_out), weights: Vec::with_capacity(n_out) };
        for i in 0..n_out {
            let centre = (f64::from(scale) * (i as f64 + 0.5)) as f32;
            let lo = ((f64::from(centre - support) + 0.5) as i64).max(0);
            let hi = ((f64::from(centre + support) + 0.5) as i64).min(n_in as i64);
            let mut weights: Vec<f32> = (lo..hi)
                .map(|j| kernel(filter, ((f64::from(j as f32 - centre) + 0.5) * f64::from(inverse)) as f32))
                .collect();
            let total: f32 = weights.iter().sum();
            if total != 0.0 {
                weights.iter_mut().for_each(|w| *w /= total);
            }
            rows.first.push(lo as usize);
            rows.weights.push(weights);
        }
        rows
    }

    /// The filter at its own size, borders replicated.
    fn pointwise(n_in: usize, n_out: usize, filter: Filter) -> Self {
        let scale = n_in as f32 / n_out as f32;
        let mut rows = Rows { first: Vec::with_capacity(n_out), weights: Vec::with_capacity(n_out) };
        for i in 0..n_out {
            let source = scale * (i as f32 + 0.5) - 0.5;
            let (taps, from) = match filter {
                Filter::Bilinear => {
                    let source = source.max(0.0);
                    let t = source - source.floor();
                    (vec![1.0 - t, t], source.floor() as i64)
                }
                Filter::Bicubic => {
                    let t = source - source.floor();
                    (cubic(t).to_vec(), source.floor() as i64 - 1)
                }
            };
            let clamp = |j: i64| j.clamp(0, n_in as i64 - 1) as usize;
            let first = clamp(from);
            let mut weights = vec![0f32; clamp(from + taps.len() as i64 - 1) - first + 1];
            for (k, &w) in taps.iter().enumerate() {
                weights[clamp(from + k as i64) - first] += w;
            }
            rows.first.push(first);
            rows.weights.push(weights);
        }
        rows
    }

    /// The matrix whose rows are the columns of this one.
    fn transposed(&self, n_in: usize) -> Self {
        let mut rows = Rows { first: vec![0; n_in], weights: vec![Vec::new(); n_in] };
        for (i, (&first, weights)) in self.first.iter().zip(&self.weights).enumerate() {
            for (j, &w) in weights.iter().enumerate() {
                let (start, row) = (&mut rows.first[first + j], &mut rows.weights[first + j]);
                if row.is_empty() {
                    *start = i;
                }
                row.resize(i - *start, 0.0);
                row.push(w);
            }
        }
        rows
    }
}

/// The antialias filters.
fn kernel(filter: Filter, x: f32) -> f32 {
    const A: f32 = -0.5;
    let x = x.abs();
    match filter {
        Filter::Bilinear => (1.0 - x).max(0.0),
        Filter::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
        Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
        Filter::Bicubic => 0.0,
    }
}

/// The four taps around a point at `t` in `[0, 1)` between the middle two.
fn cubic(t: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}

/// Rows on a device.
struct Table {
    first: Tensor,
    count: Tensor,
    weights: Tensor,
    n_in: usize,
    n_out: usize,
    taps: usize,
}

impl Table {
    fn new(device: &Device, rows: &Rows, n_in: usize) -> Result<Self> {
        Self::made(device, rows, n_in, false)
    }

    /// As constants of the device or not.
    fn made(device: &Device, rows: &Rows, n_in: usize, constant: bool) -> Result<Self> {
        let n_out = rows.first.len();
        let taps = rows.weights.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let mut padded = vec![0f32; n_out * taps];
        for (row, weights) in padded.chunks_exact_mut(taps).zip(&rows.weights) {
            row[..weights.len()].copy_from_slice(weights);
        }
        let ints = |values: Vec<usize>| {
            let values: Vec<i32> = values.into_iter().map(|v| v as i32).collect();
            match constant {
                true => Tensor::constant(device, &[n_out], DType::I32, bytemuck::cast_slice(&values)),
                false => Tensor::from_i32(device, &[n_out], &values),
            }
        };
        let weights = match constant {
            true => Tensor::constant(device, &[n_out, taps], DType::F32, bytemuck::cast_slice(&padded))?,
            false => Tensor::from_f32(device, &[n_out, taps], DType::F32, &padded)?,
        };
        Ok(Table {
            first: ints(rows.first.clone())?,
            count: ints(rows.weights.iter().map(Vec::len).collect())?,
            weights,
            n_in,
            n_out,
            taps,
        })
    }

    /// Applies the rows along the middle of `(outer, n_in, inner)`.
    fn apply(&self, g: &Graph, x: &Tensor, outer: usize, inner: usize, shape: &[usize]) -> Result<Tensor> {
        let y = Tensor::uninit(g.device(), shape, x.dtype())?;
        let per_block = super::pointwise::rows_per_block(inner).min(self.n_out.max(1));
        let args = ResampleArgs {
            x: x.address(),
            first: self.first.address(),
            count: self.count.address(),
            weights: self.weights.address(),
            y: y.address(),
            n_in: self.n_in as i32,
            n_out: self.n_out as i32,
            inner: inner as i32,
            taps: self.taps as i32,
            per_block: per_block as i32,
            reserved: 0,
        };
        let kernel = if x.dtype() == DType::BF16 { &RESAMPLE_BF16 } else { &RESAMPLE_F32 };
        g.launch(kernel, [outer * self.n_out.div_ceil(per_block), 1, 1], &args)?;
        Ok(y)
    }
}

/// The tables of one resize on one device, both directions.
pub struct Resize {
    /// vertical, horizontal
    forward: [Table; 2],
    backward: [Table; 2],
    from: [usize; 2],
    to: [usize; 2],
}

impl Resize {
    /// A resize of `(H, W)` images from one size to another.
    ///
    /// # Errors
    /// [`Error::Shape`] for a side of 0 or of more than 65,536.
    pub fn new(device: &Device, from: [usize; 2], to: [usize; 2], filter: Filter, antialias: bool) -> Result<Self> {
        if from.iter().chain(&to).any(|side| !(1..=SIDE).contains(side)) {
            return Err(Error::shape("resize", "size", format!("sides of 1 to {SIDE}"), format!("{from:?} to {to:?}")));
        }
        let rows = |axis: usize| Rows::new(from[axis], to[axis], filter, antialias);
        let forward = |axis: usize| Table::new(device, &rows(axis), from[axis]);
        let backward = |axis: usize| Table::new(device, &rows(axis).transposed(from[axis]), to[axis]);
        Ok(Resize { forward: [forward(0)?, forward(1)?], backward: [backward(0)?, backward(1)?], from, to })
    }
}

/// Resizes images, columns first, then rows; results are not clamped.
///
/// | arg | shape |
/// |---|---|
/// | `x` | `(N, H, W, C)` |
/// | ret | `(N, H', W', C)` |
///
/// # Errors
/// [`Error::Shape`] when `x` has another size than the tables are for.
pub fn resize(g: &Graph, x: &Tensor, tables: &Arc<Resize>) -> Result<Tensor> {
    let [n, h, w, c] = x.dims4("resize")?;
    g.floats("resize", "images", x)?;
    if [h, w] != tables.from {
        return Err(Error::shape("resize", "input size", format!("{:?}", tables.from), format!("{:?}", [h, w])));
    }
    let [to_h, to_w] = tables.to;
    let wide = tables.forward[1].apply(g, x, n * h, c, &[n, h, to_w, c])?;
    let y = tables.forward[0].apply(g, &wide, n, to_w * c, &[n, to_h, to_w, c])?;

    let (x_in, tables) = (x.outline(), tables.clone());
    g.record("resize gradient", &[x], &y, move |g, dy, grads| {
        let wide = tables.backward[0].apply(g, dy, n, to_w * c, &[n, h, to_w, c])?;
        let dx = tables.backward[1].apply(g, &wide, n * h, c, &[n, h, w, c])?;
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}

/// Repeats every pixel `scale` times in both directions.
///
/// | arg | shape |
/// |---|---|
/// | `x` | `(N, H, W, C)` |
/// | ret | `(N, scale H, scale W, C)` |
///
/// # Errors
/// [`Error::Shape`] for a scale that makes no image or one of more than 65,536 pixels a side.
pub fn upsample_nearest(g: &Graph, x: &Tensor, scale: usize) -> Result<Tensor> {
    let [n, h, w, c] = g.dims4("upsample_nearest", x)?;
    if scale == 0 || [h, w].iter().any(|side| side.checked_mul(scale).is_none_or(|side| side > SIDE)) {
        let want = format!("1 to {}", SIDE / h.max(w).max(1));
        return Err(Error::shape("upsample_nearest", "scale", want, scale));
    }
    let args = move |x: &Tensor, y: &Tensor| UpsampleArgs {
        x: x.address(),
        y: y.address(),
        h: h as i32,
        w: w as i32,
        c: c as i32,
        scale: scale as i32,
    };
    let y = g.uninit(&[n, h * scale, w * scale, c])?;
    let kernel = if g.dtype() == DType::BF16 { &UPSAMPLE_BF16 } else { &UPSAMPLE_F32 };
    g.launch(kernel, [n * h * scale, 1, 1], &args(x, &y))?;

    let x_in = x.outline();
    g.record("upsample_nearest gradient", &[x], &y, move |g, dy, grads| {
        let dx = g.uninit(x_in.shape())?;
        let kernel = if g.dtype() == DType::BF16 { &UPSAMPLE_GRAD_BF16 } else { &UPSAMPLE_GRAD_F32 };
        g.launch(kernel, [n * h, 1, 1], &args(dy, &dx))?;
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}

/// A linear map along one axis whose rows are short: slices with steps, padding, gathering by index, sums, resizing.
pub struct Along {
    forward: Table,
    backward: Table,
}

impl Along {
    /// The sum of `n` values, at every step of an attack the same: constants of the device.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is out of memory.
    pub(super) fn sum(device: &Device, n: usize) -> Result<Self> {
        let one = Rows { first: vec![0], weights: vec![vec![1.0; n]] };
        let forward = Table::made(device, &one, n, true)?;
        Ok(Along { forward, backward: Table::made(device, &one.transposed(n), 1, true)? })
    }

    /// One row per output, of inputs and their weights; an empty one makes zeros. Inputs that a row leaves out between its first and
    /// its last weigh 0.
    ///
    /// # Errors
    /// [`Error::Shape`] for an input beyond `n_in` or no output, [`Error::Limit`] when rows reach too far apart.
    pub fn new(device: &Device, n_in: usize, rows: &[Vec<(usize, f32)>]) -> Result<Self> {
        /// Weights of a table, zeros included.
        const MOST: usize = 1 << 26;
        let last = rows.iter().flatten().map(|(i, _)| *i).max();
        if rows.is_empty() || last.is_some_and(|last| last >= n_in) {
            let found = format!("{} rows up to input {last:?}", rows.len());
            return Err(Error::shape("along", "rows", format!("at least one, of {n_in} inputs"), found));
        }
        let mut sparse = Rows { first: Vec::new(), weights: Vec::new() };
        for row in rows {
            let first = row.iter().map(|(i, _)| *i).min().unwrap_or(0);
            let end = row.iter().map(|(i, _)| *i + 1).max().unwrap_or(0);
            let mut weights = vec![0f32; end.saturating_sub(first)];
            row.iter().for_each(|&(i, w)| weights[i - first] += w);
            sparse.first.push(first);
            sparse.weights.push(weights);
        }
        let turned = sparse.transposed(n_in);
        for table in [&sparse, &turned] {
            let taps = table.weights.iter().map(Vec::len).max().unwrap_or(0);
            if taps.saturating_mul(table.first.len()) > MOST {
                let requested = (taps * table.first.len()) as u64;
                return Err(Error::Limit { kernel: "along".into(), what: "weights", requested, max: MOST as u64 });
            }
        }
        Ok(Along { forward: Table::new(device, &sparse, n_in)?, backward: Table::new(device, &turned, rows.len())? })
    }

    /// Inputs by their index; `None` makes zeros.
    ///
    /// # Errors
    /// As [`Along::new`].
    pub fn gather(device: &Device, n_in: usize, indices: &[Option<usize>]) -> Result<Self> {
        let rows: Vec<Vec<(usize, f32)>> = indices.iter().map(|i| i.map(|i| (i, 1.0)).into_iter().collect()).collect();
        Self::new(device, n_in, &rows)
    }
}

/// Applies a linear map along an axis of `x`.
///
/// | arg | shape |
/// |---|---|
/// | `x` | any, `n_in` along `axis` |
/// | ret | the map's rows along `axis` |
///
/// # Errors
/// [`Error::Shape`] when the length is not that of the map.
pub fn along(g: &Graph, x: &Tensor, axis: usize, map: &Arc<Along>) -> Result<Tensor> {
    let y = along_values(g, x, axis, map, false)?;
    let (x_in, map) = (x.outline(), map.clone());
    g.record("along gradient", &[x], &y, move |g, dy, grads| {
        let dx = along_values(g, dy, axis, &map, true)?;
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}

/// The same without a record, or the map turned.
pub(super) fn along_values(g: &Graph, x: &Tensor, axis: usize, map: &Along, turned: bool) -> Result<Tensor> {
    let table = if turned { &map.backward } else { &map.forward };
    let found = x.shape().get(axis).copied();
    if found != Some(table.n_in) {
        return Err(Error::shape("along", "length", table.n_in, format!("{:?}", x.shape())));
    }
    let mut shape = x.shape().to_vec();
    shape[axis] = table.n_out;
    let (outer, inner) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
    table.apply(g, x, outer, inner, &shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(rows: &Rows, x: &[f64]) -> Vec<f64> {
        rows.first
            .iter()
            .zip(&rows.weights)
            .map(|(&f, w)| w.iter().enumerate().map(|(j, &w)| f64::from(w) * x[f + j]).sum())
            .collect()
    }

    /// Known results for x = [0, 1, 4, 9, 16, 25, 36, 49] / 49.
    #[test]
    fn antialiased_rows_have_their_known_results() {
        let x: Vec<f64> = (0..8).map(|i| f64::from(i * i) / 49.0).collect();
        let cases: [(usize, Filter, &[f64]); 4] = [
            (5, Filter::Bilinear, &[0.00834879, 0.08465608, 0.25850340, 0.53439153, 0.89146568]),
            (
                12,
                Filter::Bilinear,
                &[
                    0.0, 0.01020408, 0.03061224, 0.07142857, 0.13265306, 0.20748299, 0.30272109, 0.41836735,
                    0.54761905, 0.69727891, 0.86734694, 1.0,
                ],
            ),
            (5, Filter::Bicubic, &[0.00318165, 0.07444134, 0.24872904, 0.53789500, 0.91007127]),
            (
                12,
                Filter::Bicubic,
                &[
                    -0.00134264,
                    0.00600240,
                    0.02777778,
                    0.06859410,
                    0.12755102,
                    0.20464853,
                    0.29988662,
                    0.41326531,
                    0.54478458,
                    0.69444444,
                    0.88835534,
                    1.01745435,
                ],
            ),
        ];
        for (n, filter, want) in cases {
            for (got, want) in apply(&Rows::new(8, n, filter, true), &x).iter().zip(want) {
                assert!((got - want).abs() <= 1e-6, "{filter:?} to {n}: {got} {want}");
            }
        }
        let row = &Rows::new(8, 5, Filter::Bicubic, true).weights[1];
        for (got, want) in row.iter().zip([-0.037858, 0.291144, 0.605959, 0.187052, -0.045176, -0.001120]) {
            assert!((got - want).abs() <= 1e-6, "{got} {want}");
        }
    }

    #[test]
    fn rows_sum_to_one_and_transpose_back() {
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            for antialias in [false, true] {
                for (n_in, n_out) in [(1, 1), (1, 7), (7, 1), (2, 3), (8, 5), (5, 8), (32, 224), (224, 31)] {
                    let rows = Rows::new(n_in, n_out, filter, antialias);
                    for weights in &rows.weights {
                        let total: f32 = weights.iter().sum();
                        assert!((total - 1.0).abs() <= 1e-6, "{filter:?} {antialias} {n_in} to {n_out}: {total}");
                    }
                    let back = rows.transposed(n_in).transposed(n_out);
                    let x: Vec<f64> = (0..n_in).map(|i| (i * i % 7) as f64).collect();
                    assert_eq!(apply(&rows, &x), apply(&back, &x));
                }
            }
        }
    }
}
