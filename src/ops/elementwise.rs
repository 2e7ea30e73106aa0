//! Functions of single values and of two operands that broadcast: `kernels/elementwise.cu`.

use std::sync::Arc;

use super::pointwise::rows_per_block;
use super::resize::{Along, along_values};
use super::walk::{Route, repeating};
use crate::device::{BINARY_BF16, BINARY_F32, BinaryArgs, DType, UNARY_BF16, UNARY_F32, UnaryArgs};
use crate::tape::{Graph, Slot};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// A function of single values; the formulas stand in the kernel's header.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Function {
    Clip { low: f32, high: f32 },
    HardSigmoid { slope: f32, shift: f32 },
    HardSwish,
    Elu { alpha: f32 },
    Celu { alpha: f32 },
    Softplus,
    Mish,
    Erf,
    Exp,
    Log,
    Sqrt,
    Abs,
    Softsign,
    Power(f32),
    Threshold(f32),
}

impl Function {
    /// Its number in the kernel, and the numbers it takes.
    fn code(self) -> (i32, f32, f32) {
        match self {
            Function::Clip { low, high } => (0, low, high),
            Function::HardSigmoid { slope, shift } => (1, slope, shift),
            Function::HardSwish => (2, 0.0, 0.0),
            Function::Elu { alpha } => (4, alpha, 0.0),
            Function::Celu { alpha } => (5, alpha, 0.0),
            Function::Softplus => (6, 0.0, 0.0),
            Function::Mish => (7, 0.0, 0.0),
            Function::Erf => (8, 0.0, 0.0),
            Function::Exp => (9, 0.0, 0.0),
            Function::Log => (10, 0.0, 0.0),
            Function::Sqrt => (11, 0.0, 0.0),
            Function::Abs => (12, 0.0, 0.0),
            Function::Softsign => (13, 0.0, 0.0),
            Function::Power(p) => (14, p, 0.0),
            Function::Threshold(p) => (3, p, 0.0),
        }
    }
}

/// `y = f(x)` for `x` of any shape.
///
/// With gradients on, keeps `x` by reference.
///
/// # Errors
/// What the launch returns.
pub fn unary(g: &Graph, x: &Tensor, f: Function) -> Result<Tensor> {
    let none = Slot { residual: None, keep: None };
    let y = unary_values(g, x, None, f, &none)?;
    let x_in = x.clone();
    g.record("unary gradient", &[x], &y, move |g, dy, grads| {
        let slot = grads.slot(&x_in);
        let dx = unary_values(g, &x_in, Some(dy), f, &slot)?;
        grads.put(&x_in, dx);
        Ok(())
    });
    Ok(y)
}

fn unary_values(g: &Graph, x: &Tensor, dy: Option<&Tensor>, f: Function, slot: &Slot) -> Result<Tensor> {
    // Masks are of rows of the last dimension.
    let c = x.shape().last().copied().unwrap_or(1).max(1);
    let (rows, (function, p, q)) = (x.len() / c, f.code());
    let y = Tensor::uninit(g.device(), x.shape(), x.dtype())?;
    let args = UnaryArgs {
        x: x.address(),
        dy: dy.map_or(0, Tensor::address),
        residual: slot.residual_address(),
        keep: slot.keep_address(),
        y: y.address(),
        rows: rows as i64,
        c: c as i32,
        rows_per_block: rows_per_block(c) as i32,
        function,
        p,
        q,
        reserved: 0,
    };
    let kernel = if x.dtype() == DType::BF16 { &UNARY_BF16 } else { &UNARY_F32 };
    g.launch(kernel, [rows.div_ceil(rows_per_block(c)), 1, 1], &args)?;
    Ok(y)
}

/// A function of two values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(i32)]
pub enum Binary {
    Add = 0,
    Sub = 1,
    Mul = 2,
    Div = 3,
    Max = 4,
    Min = 5,
}

/// One operand of [`binary`].
#[derive(Clone, Copy)]
pub enum Operand<'a> {
    /// Has a gradient.
    Value(&'a Tensor),
    Constant(&'a Tensor),
}

impl<'a> Operand<'a> {
    fn tensor(self) -> &'a Tensor {
        match self {
            Operand::Value(t) | Operand::Constant(t) => t,
        }
    }
}

#[derive(Clone, Copy)]
enum Part {
    Forward = 0,
    ToA = 1,
    ToB = 2,
}

/// `y = f(a, b)`, where axes of length 1 repeat.
///
/// | arg | shape |
/// |---|---|
/// | `a`, `b` | of one rank; along every axis of one length, or 1 |
/// | ret | the longer of both along every axis |
///
/// With gradients on, keeps both by reference, for sums and differences too, unless neither is repeated.
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit, or more than six axes remain where neighbours that lie together are joined.
pub fn binary(g: &Graph, f: Binary, a: Operand, b: Operand) -> Result<Tensor> {
    let (ta, tb) = (a.tensor(), b.tensor());
    let wrong = || Error::shape("binary", "operands", format!("{ta:?}"), format!("{tb:?}"));
    if ta.shape().len() != tb.shape().len() || ta.dtype() != tb.dtype() {
        return Err(wrong());
    }
    let shape: Vec<usize> = ta
        .shape()
        .iter()
        .zip(tb.shape())
        .map(|(&m, &n)| match (m, n) {
            (m, n) if m == n || n == 1 => Ok(m),
            (1, n) => Ok(n),
            _ => Err(wrong()),
        })
        .collect::<Result<_>>()?;
    let y = binary_values(g, f, ta, tb, None, Part::Forward, &shape)?;

    let mut inputs = Vec::new();
    let mut sums = Vec::new();
    for (operand, part) in [(a, Part::ToA), (b, Part::ToB)] {
        if let Operand::Value(t) = operand {
            inputs.push(t);
            if g.records() {
                sums.push((t.outline(), part, Sums::new(g, &shape, t.shape())?));
            }
        }
    }
    let (a_in, b_in) = (ta.clone(), tb.clone());
    g.record("binary gradient", &inputs, &y, move |g, dy, grads| {
        for (x, part, sums) in sums {
            let dx = match (f, part) {
                (Binary::Add, _) | (Binary::Sub, Part::ToA) => dy.clone(),
                _ => binary_values(g, f, &a_in, &b_in, Some(dy), part, &shape)?,
            };
            let dx = sums.apply(g, &dx)?.reshaped(x.shape())?;
            grads.add(g, &x, dx)?;
        }
        Ok(())
    });
    Ok(y)
}

/// The sums over the axes that an operand repeats.
struct Sums(Vec<(usize, Arc<Along>)>);

impl Sums {
    fn new(g: &Graph, shape: &[usize], own: &[usize]) -> Result<Self> {
        let mut all = Vec::new();
        // The last axes first: what is left then lies together.
        for axis in (0..shape.len()).rev().filter(|&i| own[i] != shape[i]) {
            all.push((axis, Arc::new(Along::sum(g.device(), shape[axis])?)));
        }
        Ok(Sums(all))
    }

    fn apply(&self, g: &Graph, x: &Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, (axis, sum)| along_values(g, &x, *axis, sum, false))
    }
}

fn binary_values(
    g: &Graph,
    f: Binary,
    a: &Tensor,
    b: &Tensor,
    dy: Option<&Tensor>,
    part: Part,
    shape: &[usize],
) -> Result<Tensor> {
    let y = Tensor::uninit(g.device(), shape, a.dtype())?;
    if y.is_empty() {
        return Ok(y);
    }
    let contiguous = repeating(shape);
    let route = Route::new("binary", shape, [&repeating(a.shape()), &repeating(b.shape()), &contiguous])?;
    let per_block = rows_per_block(route.c);
    let args = BinaryArgs {
        a: a.address(),
        b: b.address(),
        dy: dy.map_or(0, Tensor::address),
        y: y.address(),
        rows: route.rows as i64,
        a_steps: route.steps[0],
        b_steps: route.steps[1],
        a_step: route.step[0],
        b_step: route.step[1],
        walk: route.walk,
        c: route.c as i32,
        rows_per_block: per_block as i32,
        function: f as i32,
        part: part as i32,
    };
    let kernel = if a.dtype() == DType::BF16 { &BINARY_BF16 } else { &BINARY_F32 };
    g.launch(kernel, [route.rows.div_ceil(per_block), 1, 1], &args)?;
    Ok(y)
}

/// `x` repeated along its axes of length 1.
///
/// | arg | shape |
/// |---|---|
/// | `x` | of the rank of `shape`; along every axis its length, or 1 |
/// | ret | `shape` |
///
/// # Errors
/// [`Error::Shape`] when the shapes do not fit.
pub fn expand(g: &Graph, x: &Tensor, shape: &[usize]) -> Result<Tensor> {
    let fits = x.shape().len() == shape.len() && x.shape().iter().zip(shape).all(|(&own, &n)| own == n || own == 1);
    if !fits {
        return Err(Error::shape("expand", "shape", format!("{x:?} repeated"), format!("{shape:?}")));
    }
    if x.shape() == shape {
        return Ok(x.clone());
    }
    let y = super::permute::copy(g, x, 0, shape, &repeating(x.shape()))?;
    let sums = g.records().then(|| Sums::new(g, shape, x.shape())).transpose()?;
    let x_in = x.outline();
    g.record("expand gradient", &[x], &y, move |g, dy, grads| {
        let dx = match &sums {
            Some(sums) => sums.apply(g, dy)?,
            None => dy.clone(),
        };
        grads.add(g, &x_in, dx)
    });
    Ok(y)
}
