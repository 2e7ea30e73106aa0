//! Nodes as op calls: packs their constants, and puts values into the order in memory that each op wants.

use std::sync::Arc;

use super::fold::expanded;
use super::heads::{self, Spread};
use super::ir::{Attr, Constant, Dim, Id, Ir, Node, written};
use super::layout::{self, NHWC};
use super::operands::{axis, pads, parts, permutation, reduced, slices, softmax_axis, strides, times};
use super::plan::{Attention, Call, Plan, Register, Step};
use super::resample;
use super::shapes;
use crate::device::{DType, Device};
use crate::ops::Activation;
use crate::ops::attention::{Added, Heads, Positions};
use crate::ops::conv::{Conv2d, Window};
use crate::ops::elementwise::{Binary, Function};
use crate::ops::gemm::Linear;
use crate::ops::group_norm::GroupNorm;
use crate::ops::layer_norm::LayerNorm;
use crate::ops::pointwise::Affine;
use crate::ops::pool::Pool;
use crate::ops::resize::Along;
use crate::tape::Precision;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// What is wrong with a node: words, or what an op or a device said.
pub enum Wrong {
    Words(String),
    Error(Error),
}

impl From<String> for Wrong {
    fn from(text: String) -> Self {
        Wrong::Words(text)
    }
}

impl From<&str> for Wrong {
    fn from(text: &str) -> Self {
        Wrong::Words(text.into())
    }
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Wrong::Error(error)
    }
}

type Made<T> = Result<T, Wrong>;

/// A value in a register.
#[derive(Clone, Debug)]
struct Placed {
    register: Register,
    /// logical axes as they lie in memory
    order: Vec<usize>,
}

struct Lower<'a> {
    ir: &'a Ir,
    device: &'a Device,
    precision: Precision,
    placed: Vec<Option<Placed>>,
    steps: Vec<Step>,
    registers: usize,
    /// The shape in memory of what registers hold, where it is known.
    memory: Vec<Option<Vec<Dim>>>,
    /// The node at work.
    name: String,
    flops: u64,
    parameters: usize,
}

/// The calls that compute a graph whose shapes are known, for images `(N, H, W, C)` in memory.
///
/// # Errors
/// The node that cannot be computed, in words; what the device reports.
pub fn lower(ir: &Ir, device: &Device, precision: Precision, channels_first: bool) -> Result<Plan, Wrong> {
    let mut l = Lower {
        ir,
        device,
        precision,
        placed: vec![None; ir.values.len()],
        steps: Vec::new(),
        registers: 1,
        memory: vec![None],
        name: String::new(),
        flops: 0,
        parameters: 0,
    };
    let order = if channels_first { NHWC.to_vec() } else { vec![0, 1, 2, 3] };
    l.memory[0] = ir.shape(ir.input).map(|shape| order.iter().map(|&a| shape[a]).collect());
    l.placed[ir.input] = Some(Placed { register: 0, order });
    let mut widest = 0;
    let mut stages: Vec<(String, i64)> = Vec::new();
    for node in &ir.nodes {
        l.name = node.name.clone();
        let before = l.steps.len();
        l.node(node).map_err(|wrong| match wrong {
            Wrong::Words(text) => Wrong::Words(format!("{}: {text}", node.title())),
            Wrong::Error(Error::Shape { op, what, expected, got }) => {
                Wrong::Words(format!("{}: {op}: {what}: expected {expected}, found {got}", node.title()))
            }
            Wrong::Error(Error::Limit { kernel, what, requested, max }) => {
                Wrong::Words(format!("{}: {kernel}: {what}: {requested}, of at most {max}", node.title()))
            }
            other => other,
        })?;
        for &id in &node.outputs {
            let Some(shape) = ir.shape(id) else { continue };
            widest = widest.max(shape.iter().map(|d| d.n as usize).product());
            // A node that is no work has no result to look at, and four axes in another order are no picture.
            if let (Some(Placed { order, .. }), &[Dim { n: 1, batch: true, .. }, _, h, w], true) =
                (&l.placed[id], shape, l.steps.len() > before)
                && *order == NHWC
                // A mean over the image on the way to a gate makes it no smaller.
                && h.n * w.n > 1
            {
                match stages.last_mut() {
                    Some((name, pixels)) if *pixels == h.n * w.n => *name = node.name.clone(),
                    _ => stages.push((node.name.clone(), h.n * w.n)),
                }
            }
        }
    }
    let shape = ir.shape(ir.output).unwrap_or_default();
    let logits: Vec<Dim> = shape.iter().copied().filter(|&d| d != Dim::fixed(1)).collect();
    let (Some(&Dim { n: 1, batch: true, .. }), Some(&Dim { n: classes, batch: false, .. }), 2) =
        (logits.first(), logits.get(1), logits.len())
    else {
        return Err(Wrong::Words(format!(
            "its output `{}`: expected logits (N, classes), found {}",
            ir.values[ir.output].name,
            written(shape)
        )));
    };
    l.name = "output".into();
    let plain: Vec<usize> = (0..shape.len()).collect();
    let output = l.at(ir.output, &plain)?;
    let output = l.step(Call::View(vec![Dim::BATCH, Dim::fixed(classes)]), vec![output]);
    let stages = stages.into_iter().map(|(name, _)| name).collect();
    let mut plan = Plan {
        steps: l.steps,
        registers: l.registers,
        input: 0,
        output,
        classes: classes as usize,
        widest,
        flops: l.flops,
        parameters: l.parameters,
        stages,
    };
    plan.settle();
    plan.defer();
    Ok(plan)
}

impl Lower<'_> {
    fn step(&mut self, call: Call, inputs: Vec<Register>) -> Register {
        let output = self.registers;
        self.registers += 1;
        let of = |i: usize| inputs.get(i).and_then(|&r| self.memory[r].as_ref());
        let memory = match &call {
            Call::View(shape) => Some(shape.clone()),
            Call::Permute(order) => of(0).map(|shape| order.iter().map(|&a| shape[a]).collect()),
            Call::Slice(axis, _, count) => of(0).map(|shape| {
                let mut shape = shape.clone();
                shape[*axis] = Dim::fixed(*count as i64);
                shape
            }),
            _ => None,
        };
        self.memory.push(memory);
        self.steps.push(Step { name: self.name.clone(), call, inputs, output, done: vec![] });
        output
    }

    fn shape(&self, id: Id) -> Made<Vec<Dim>> {
        let name = &self.ir.values[id].name;
        Ok(self.ir.shape(id).ok_or_else(|| format!("the shape of `{name}` is not known"))?.to_vec())
    }

    fn input(&self, node: &Node, i: usize) -> Made<Id> {
        Ok(node.input(i).ok_or_else(|| format!("expected an input {i}"))?)
    }

    /// The value in a register, wherever it lies; a constant becomes one.
    fn place(&mut self, id: Id) -> Made<Placed> {
        if let Some(placed) = &self.placed[id] {
            return Ok(placed.clone());
        }
        let Some(constant) = self.ir.constant(Some(id)) else {
            return Err(format!("`{}` is not computed", self.ir.values[id].name).into());
        };
        let values = constant.as_floats().ok_or_else(|| format!("`{}` holds integers", self.ir.values[id].name))?;
        self.parameters += values.len();
        let table = Tensor::from_f32(self.device, &constant.shape, self.precision.dtype(), values)?;
        let order = (0..constant.shape.len()).collect();
        let register = self.step(Call::Table(table), vec![]);
        Ok(Placed { register, order })
    }

    /// A register in which the value lies in this order.
    fn at(&mut self, id: Id, order: &[usize]) -> Made<Register> {
        let (placed, shape) = (self.place(id)?, self.shape(id)?);
        Ok(self.reordered(&placed, &shape, order))
    }

    fn reordered(&mut self, placed: &Placed, shape: &[Dim], order: &[usize]) -> Register {
        if placed.order == order {
            return placed.register;
        }
        if layout::same(&placed.order, order, shape) {
            return self.step(Call::View(order.iter().map(|&a| shape[a]).collect()), vec![placed.register]);
        }
        let axes = order.iter().map(|a| placed.order.iter().position(|p| p == a).unwrap_or(0)).collect();
        self.step(Call::Permute(axes), vec![placed.register])
    }

    /// The same with the values along `axis` next to each other; and the order.
    fn with_last(&mut self, id: Id, axis: usize) -> Made<(Register, Vec<usize>)> {
        let placed = self.place(id)?;
        let mut order: Vec<usize> = placed.order.iter().copied().filter(|&a| a != axis).collect();
        order.push(axis);
        Ok((self.at(id, &order)?, order))
    }

    /// A node's only result.
    fn result(&mut self, node: &Node, register: Register, order: Vec<usize>) -> Made<()> {
        let id = *node.outputs.first().ok_or("no result")?;
        if self.memory[register].is_none() {
            let shape = self.shape(id)?;
            self.memory[register] = Some(order.iter().map(|&a| shape[a]).collect());
        }
        self.placed[id] = Some(Placed { register, order });
        Ok(())
    }

    fn floats(&mut self, node: &Node, i: usize) -> Made<Constant> {
        let name = node.input(i).map(|id| self.ir.values[id].name.clone()).unwrap_or_default();
        let constant = self.ir.known(node, i).filter(|c| c.as_floats().is_some());
        let constant =
            constant.ok_or_else(|| format!("its weights `{name}` have to be constants of the graph"))?.clone();
        let bad = constant.as_floats().unwrap_or_default().iter().position(|v| !v.is_finite());
        if let Some(at) = bad {
            return Err(format!("`{name}`: expected finite values, found another at index {at}").into());
        }
        self.parameters += constant.len();
        Ok(constant)
    }

    fn affine(&mut self, x: Register, scale: &[f32], bias: &[f32], act: Activation) -> Made<Register> {
        self.parameters += scale.len() + bias.len();
        let constants = Arc::new(Affine::new(self.device, scale, bias)?);
        Ok(self.step(Call::Affine(constants, act), vec![x]))
    }

    fn uniform(&mut self, x: Register, c: usize, scale: f32, bias: f32) -> Made<Register> {
        let constants = Arc::new(Affine::new(self.device, &vec![scale; c], &vec![bias; c])?);
        Ok(self.step(Call::Affine(constants, Activation::None), vec![x]))
    }

    /// The length in memory of the last axis.
    fn last(&self, shape: &[Dim], order: &[usize]) -> usize {
        order.last().map_or(1, |&a| shape[a].n as usize)
    }

    fn node(&mut self, node: &Node) -> Made<()> {
        let act = match node.text("act") {
            None => Activation::None,
            Some(name) => Activation::named(name).ok_or_else(|| format!("activation `{name}`"))?,
        };
        if let Some(name) = super::fuse::activation_name(node) {
            let x = self.place(self.input(node, 0)?)?;
            let act = Activation::named(name).ok_or_else(|| format!("activation `{name}`"))?;
            let y = self.step(Call::Activation(act), vec![x.register]);
            return self.result(node, y, x.order);
        }
        if let Some(f) = function(node) {
            let x = self.place(self.input(node, 0)?)?;
            let mut y = self.step(Call::Unary(f), vec![x.register]);
            if node.op == "Selu" {
                let c = self.last(&self.shape(self.input(node, 0)?)?, &x.order);
                y = self.uniform(y, c, node.float("gamma").unwrap_or(1.050_701), 0.0)?;
            }
            return self.result(node, y, x.order);
        }
        match node.op.as_str() {
            "Conv" => self.conv(node, act),
            "ConvTranspose" => self.conv_transposed(node),
            "Gemm" | "MatMul" => self.product(node, act),
            "Affine" => {
                let at = node.int("axis").unwrap_or(1) as usize;
                let (x, order) = self.with_last(self.input(node, 0)?, at)?;
                let (Some(Attr::Tensor(scale)), Some(Attr::Tensor(bias))) =
                    (node.attrs.get("scale"), node.attrs.get("bias"))
                else {
                    return Err("no scale and bias".into());
                };
                let (scale, bias) = (scale.as_floats().unwrap_or_default(), bias.as_floats().unwrap_or_default());
                let y = self.affine(x, scale, bias, act)?;
                self.result(node, y, order)
            }
            "Swish" => {
                // x sigmoid(alpha x)
                let id = self.input(node, 0)?;
                let (x, shape) = (self.place(id)?, self.shape(id)?);
                let c = self.last(&shape, &x.order);
                let inner = self.uniform(x.register, c, node.float("alpha").unwrap_or(1.0), 0.0)?;
                let gate = self.step(Call::Activation(Activation::Sigmoid), vec![inner]);
                let y = self.step(Call::Binary(Binary::Mul), vec![x.register, gate]);
                self.result(node, y, x.order)
            }
            "Add" => self.binary(node, Binary::Add),
            "Sub" => self.binary(node, Binary::Sub),
            "Mul" => self.binary(node, Binary::Mul),
            "Div" => self.binary(node, Binary::Div),
            "Max" => self.binary(node, Binary::Max),
            "Min" => self.binary(node, Binary::Min),
            "Sum" | "Mean" => self.binary(node, Binary::Add),
            "PRelu" => self.prelu(node),
            "Softmax" => {
                let id = self.input(node, 0)?;
                let shape = self.shape(id)?;
                let at = softmax_axis(self.ir, node, shape.len())?;
                if self.ir.opset < 13 && shape[at + 1..].iter().any(|&d| d != Dim::fixed(1)) {
                    return Err("a softmax over several axes, as before opset 13: export it with a later one".into());
                }
                let (x, order) = self.with_last(id, at)?;
                let y = self.step(Call::Softmax, vec![x]);
                self.result(node, y, order)
            }
            "LeakyRelu" => {
                let x = self.place(self.input(node, 0)?)?;
                let y = self.step(Call::LeakyRelu(node.float("alpha").unwrap_or(0.01)), vec![x.register]);
                self.result(node, y, x.order)
            }
            "LogSoftmax" => Err("a LogSoftmax is only understood at the end of a network, where it is cut".into()),
            "LayerNormalization" => self.layer_norm(node),
            "InstanceNormalization" | "GroupNormalization" => self.group_norm(node),
            "LRN" => self.lrn(node),
            "BatchNormalization" => {
                Err("a batch norm whose statistics are not constants: export the network in eval mode".into())
            }
            "Attention" => self.attention(node),
            "MaxPool" | "AveragePool" => self.pool(node),
            "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceL1" | "ReduceL2" | "ReduceSumSquare" => {
                self.reduce(node)
            }
            "Reshape" => self.reshape(node),
            "Transpose" => {
                let x = self.place(self.input(node, 0)?)?;
                let perm = permutation(node, x.order.len())?;
                let order = layout::transposed(&x.order, &perm);
                self.result(node, x.register, order)
            }
            "Expand" => {
                let id = self.input(node, 0)?;
                let (x, shape, to) = (self.place(id)?, self.shape(id)?, self.shape(node.outputs[0])?);
                let (x, order) = self.widened(&x, &shape, to.len());
                let y = self.step(Call::Expand(order.iter().map(|&a| to[a]).collect()), vec![x]);
                self.result(node, y, order)
            }
            "Concat" => self.concat(node),
            "Split" => self.split(node),
            "Slice" => self.slice(node),
            "Gather" => self.gather(node),
            "Pad" => self.pad(node),
            "Resize" | "Upsample" => self.resize(node),
            "DepthToSpace" | "SpaceToDepth" => self.blocks(node),
            op => Err(format!("`{op}` is only understood as arithmetic of constants").into()),
        }
    }

    fn window(&self, node: &Node, kernel: [usize; 2]) -> Made<Window> {
        let (stride, dilation, [[top, bottom], [left, right]]) = shapes::window(self.ir, node, kernel)?;
        let groups = node.int("group").unwrap_or(1).clamp(1, 1 << 31) as usize;
        Ok(Window { stride, padding: [top, bottom, left, right], dilation, groups })
    }

    fn conv(&mut self, node: &Node, act: Activation) -> Made<()> {
        let weight = self.floats(node, 1)?;
        let &[o, c, r, s] = weight.shape.as_slice() else { return Err("expected weights (O, C, R, S)".into()) };
        let bias = if node.input(2).is_some() { Some(self.floats(node, 2)?) } else { None };
        let window = self.window(node, [r, s])?;
        let bias = bias.as_ref().and_then(Constant::as_floats);
        let values = weight.as_floats().unwrap_or_default();
        let conv = Arc::new(Conv2d::new(self.device, self.precision, values, [o, c, r, s], bias, window)?);
        let mut inputs = vec![self.at(self.input(node, 0)?, &NHWC)?];
        if let Some(residual) = node.input(3) {
            inputs.push(self.at(residual, &NHWC)?);
        }
        let y = self.shape(node.outputs[0])?;
        self.flops += 2 * (c * r * s) as u64 * y[1..].iter().map(|d| d.n as u64).product::<u64>();
        let y = self.step(Call::Conv(conv, act, false), inputs);
        self.result(node, y, NHWC.to_vec())
    }

    fn conv_transposed(&mut self, node: &Node) -> Made<()> {
        let weight = self.floats(node, 1)?;
        let &[c, o, r, s] = weight.shape.as_slice() else { return Err("expected weights (C, O, R, S)".into()) };
        let window = self.window(node, [r, s])?;
        let values = weight.as_floats().unwrap_or_default();
        let conv = Arc::new(Conv2d::new(self.device, self.precision, values, [c, o, r, s], None, window)?);
        let x = self.at(self.input(node, 0)?, &NHWC)?;
        let (x_shape, y_shape) = (self.shape(self.input(node, 0)?)?, self.shape(node.outputs[0])?);
        let size = [y_shape[2].n as usize, y_shape[3].n as usize];
        self.flops += 2 * (o * r * s) as u64 * x_shape[1..].iter().map(|d| d.n as u64).product::<u64>();
        let mut y = self.step(Call::ConvTransposed(conv, size), vec![x]);
        if node.input(2).is_some() {
            let bias = self.floats(node, 2)?;
            let bias = bias.as_floats().unwrap_or_default();
            y = self.affine(y, &vec![1.0; bias.len()], bias, Activation::None)?;
        }
        self.result(node, y, NHWC.to_vec())
    }

    /// Gemm and MatMul.
    fn product(&mut self, node: &Node, act: Activation) -> Made<()> {
        let id = self.input(node, 0)?;
        let shape = self.shape(id)?;
        let constant = self.ir.known(node, 1).is_some_and(|w| w.shape.len() == 2);
        if node.op == "MatMul" && !constant {
            return self.matmul(node);
        }
        let weight = self.floats(node, 1)?;
        let &[rows, cols] = weight.shape.as_slice() else { return Err("expected a matrix of weights".into()) };
        let w = weight.as_floats().unwrap_or_default();
        let turned = node.op == "Gemm" && node.int("transB") == Some(1);
        let (o, k) = if turned { (rows, cols) } else { (cols, rows) };
        let (mut alpha, mut beta) = (1.0, 1.0);
        if node.op == "Gemm" {
            (alpha, beta) = (node.float("alpha").unwrap_or(1.0), node.float("beta").unwrap_or(1.0));
        }
        let mut packed = vec![0f32; w.len()];
        for (at, value) in packed.iter_mut().enumerate() {
            let (i, j) = (at / k, at % k);
            *value = alpha * if turned { w[at] } else { w[j * o + i] };
        }
        let bias = match node.input(2) {
            None => None,
            Some(_) => {
                let c = self.floats(node, 2)?;
                let c = expanded(&c, &[1, o]).map_err(|e| format!("its bias: {e}"))?;
                Some(c.as_floats().unwrap_or_default().iter().map(|v| beta * v).collect::<Vec<f32>>())
            }
        };
        let layer = Arc::new(Linear::new(self.device, self.precision, &packed, [o, k], bias.as_deref())?);
        let (x, order) = self.with_last(id, shape.len() - 1)?;
        self.flops += 2 * (o * k) as u64 * shape[..shape.len() - 1].iter().map(|d| d.n as u64).product::<u64>();
        let y = self.step(Call::Linear(layer, act), vec![x]);
        self.result(node, y, order)
    }

    fn matmul(&mut self, node: &Node) -> Made<()> {
        let (a, b) = (self.input(node, 0)?, self.input(node, 1)?);
        let (a_shape, b_shape, y) = (self.shape(a)?, self.shape(b)?, self.shape(node.outputs[0])?);
        let batch = &y[..y.len() - 2];
        let mut operands = Vec::new();
        for (id, shape) in [(a, &a_shape), (b, &b_shape)] {
            let plain: Vec<usize> = (0..shape.len()).collect();
            let register = self.at(id, &plain)?;
            let placed = Placed { register, order: plain };
            let (mut register, _) = self.widened(&placed, shape, y.len());
            let matrix = &shape[shape.len() - 2..];
            let full = [batch, matrix].concat();
            let own = [vec![Dim::fixed(1); y.len() - shape.len()], shape.clone()].concat();
            if own != full {
                register = self.step(Call::Expand(full), vec![register]);
            }
            let all = batch.iter().try_fold(Dim::fixed(1), |p, &d| times(p, d))?;
            operands.push(self.step(Call::View(vec![all, matrix[0], matrix[1]]), vec![register]));
        }
        self.flops += 2 * a_shape[a_shape.len() - 1].n as u64 * y.iter().map(|d| d.n as u64).product::<u64>();
        let product = self.step(Call::MatMul, operands);
        let order: Vec<usize> = (0..y.len()).collect();
        let y = self.step(Call::View(y), vec![product]);
        self.result(node, y, order)
    }

    /// The same with axes of length 1 in front, up to `rank`, and the order then.
    fn widened(&mut self, placed: &Placed, shape: &[Dim], rank: usize) -> (Register, Vec<usize>) {
        let new = rank - shape.len();
        if new == 0 {
            return (placed.register, placed.order.clone());
        }
        let order: Vec<usize> = (0..new).chain(placed.order.iter().map(|a| a + new)).collect();
        let memory = vec![Dim::fixed(1); new].into_iter().chain(placed.order.iter().map(|&a| shape[a])).collect();
        (self.step(Call::View(memory), vec![placed.register]), order)
    }

    /// Two or more operands that broadcast.
    fn binary(&mut self, node: &Node, f: Binary) -> Made<()> {
        let y = self.shape(node.outputs[0])?;
        let ids: Vec<Id> = node.inputs.iter().flatten().copied().collect();
        let Some((&first, rest)) = ids.split_first() else { return Err("no operands".into()) };
        if rest.is_empty() {
            return Err("expected several operands".into());
        }
        let mut done: Option<Placed> = None;
        let mut shape = self.shape(first)?;
        let mut left = first;
        for &right in rest {
            let (other, constants) = (
                self.shape(right)?,
                [done.is_none() && self.ir.constant(Some(left)).is_some(), self.ir.constant(Some(right)).is_some()],
            );
            let out = shapes::broadcast(&shape, &other)?;
            let placed = match constants {
                [true, true] => return Err("a sum of constants that could not be computed".into()),
                [true, false] => self.with_constant(f, right, None, &other, left, &out, true)?,
                [false, true] => self.with_constant(f, left, done.clone(), &shape, right, &out, false)?,
                [false, false] => {
                    let a = match done.clone() {
                        Some(placed) => placed,
                        None => self.place(left)?,
                    };
                    let b = self.place(right)?;
                    self.pair(f, (a, &shape), (b, &other), &out)?
                }
            };
            (done, shape, left) = (Some(placed), out, usize::MAX);
        }
        let placed = done.ok_or("no operands")?;
        if node.op == "Mean" {
            let c = self.last(&y, &placed.order);
            let scaled = self.uniform(placed.register, c, 1.0 / ids.len() as f32, 0.0)?;
            return self.result(node, scaled, placed.order);
        }
        self.result(node, placed.register, placed.order)
    }

    /// Axes of several images as two, so that what is the same for each repeats.
    fn parted(shape: &[Dim], full: &[Dim]) -> Vec<Dim> {
        let mut parts = Vec::new();
        for (&own, &whole) in shape.iter().zip(full) {
            if whole.batch && whole.n > 1 && whole.outer == 1 {
                parts.push(if own.batch { Dim::BATCH } else { Dim::fixed(1) });
                parts.push(Dim::fixed(own.n));
            } else {
                parts.push(own);
            }
        }
        parts
    }

    fn pair(
        &mut self,
        f: Binary,
        (a, a_shape): (Placed, &[Dim]),
        (b, b_shape): (Placed, &[Dim]),
        y: &[Dim],
    ) -> Made<Placed> {
        let one = Dim::fixed(1);
        // A gate per image and channel.
        let images = a_shape.len() == 4 && layout::same(&a.order, &NHWC, a_shape) && a_shape == y;
        let gates = b_shape.len() == 4 && a_shape[..2] == b_shape[..2] && b_shape[2..] == [one, one];
        if f == Binary::Mul && images && gates && a_shape != b_shape && a_shape[0] == Dim::BATCH {
            let x = self.reordered(&a, a_shape, &NHWC);
            let gate = self.reordered(&b, b_shape, &[0, 1, 2, 3]);
            return Ok(Placed {
                register: self.step(Call::Gate(Activation::None), vec![x, gate]),
                order: NHWC.to_vec(),
            });
        }
        let turned =
            b_shape.len() == 4 && b_shape == y && a_shape.len() == 4 && a_shape != y && a_shape[2..] == [one, one];
        if f == Binary::Mul && turned {
            return self.pair(f, (b, b_shape), (a, a_shape), y);
        }
        // The order of the larger one.
        let size = |s: &[Dim]| s.iter().map(|d| d.n).product::<i64>();
        let (rank, a_leads) =
            (y.len(), a_shape.len() == y.len() && (b_shape.len() < y.len() || size(a_shape) >= size(b_shape)));
        let (a_register, a_order) = self.widened(&a, a_shape, rank);
        let (b_register, b_order) = self.widened(&b, b_shape, rank);
        let order = if a_leads { a_order.clone() } else { b_order.clone() };
        let mut registers = Vec::new();
        for (register, own, shape) in [(a_register, a_order, a_shape), (b_register, b_order, b_shape)] {
            let wide = [vec![one; rank - shape.len()], shape.to_vec()].concat();
            let register = self.reordered(&Placed { register, order: own }, &wide, &order);
            let memory: Vec<Dim> = order.iter().map(|&i| wide[i]).collect();
            let whole: Vec<Dim> = order.iter().map(|&i| y[i]).collect();
            let parts = Self::parted(&memory, &whole);
            registers.push(if parts.len() == rank { register } else { self.step(Call::View(parts), vec![register]) });
        }
        let mut register = self.step(Call::Binary(f), registers);
        let memory: Vec<Dim> = order.iter().map(|&i| y[i]).collect();
        if Self::parted(&memory, &memory).len() != rank {
            register = self.step(Call::View(memory), vec![register]);
        }
        Ok(Placed { register, order })
    }

    fn with_constant(
        &mut self,
        f: Binary,
        x: Id,
        done: Option<Placed>,
        x_shape: &[Dim],
        constant: Id,
        y: &[Dim],
        first: bool,
    ) -> Made<Placed> {
        let one = Dim::fixed(1);
        let x = match done {
            Some(placed) => placed,
            None => self.place(x)?,
        };
        let Some(c) = self.ir.constant(Some(constant)) else { return Err("no constant".into()) };
        let values = c.as_floats().ok_or("a constant of integers")?.to_vec();
        self.parameters += values.len();
        let c_shape = [vec![1; y.len() - c.shape.len()], c.shape.clone()].concat();
        let wide = [vec![one; y.len() - x_shape.len()], x_shape.to_vec()].concat();
        let (mut register, order) = self.widened(&x, x_shape, y.len());
        // The constant in the order of the value.
        let strides = strides(&c_shape);
        let memory: Vec<usize> = order.iter().map(|&a| c_shape[a]).collect();
        let mut moved = Vec::with_capacity(values.len());
        let mut index = vec![0usize; memory.len()];
        for _ in 0..values.len() {
            moved.push(values[index.iter().zip(&order).map(|(i, &a)| i * strides[a]).sum::<usize>()]);
            for (i, &n) in index.iter_mut().zip(&memory).rev() {
                *i += 1;
                if *i < n {
                    break;
                }
                *i = 0;
            }
        }
        let whole: Vec<Dim> = order.iter().map(|&a| y[a]).collect();
        let own: Vec<Dim> = order.iter().map(|&a| wide[a]).collect();
        let lengths: Vec<Dim> = memory.iter().map(|&n| Dim::fixed(n as i64)).collect();
        let parts = Self::parted(&lengths, &whole).iter().map(|d| d.n as usize).collect::<Vec<_>>();
        let table = Tensor::from_f32(self.device, &parts, self.precision.dtype(), &moved)?;
        let own_parts = Self::parted(&own, &whole);
        let split = own_parts.len() != order.len();
        if split {
            register = self.step(Call::View(own_parts), vec![register]);
        }
        register = self.step(Call::Constant(f, table, first), vec![register]);
        if split {
            register = self.step(Call::View(whole), vec![register]);
        }
        Ok(Placed { register, order })
    }

    /// max(x, 0) + slope min(x, 0)
    fn prelu(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let (x, shape, slope) = (self.place(id)?, self.shape(id)?, self.floats(node, 1)?);
        let above = self.step(Call::Unary(Function::Clip { low: 0.0, high: f32::INFINITY }), vec![x.register]);
        let below = self.step(Call::Unary(Function::Clip { low: f32::NEG_INFINITY, high: 0.0 }), vec![x.register]);
        let varying: Vec<usize> = (0..slope.shape.len()).filter(|&i| slope.shape[i] != 1).collect();
        let at = match varying[..] {
            [] => *x.order.last().ok_or("a single number")?,
            [i] => i + shape.len() - slope.shape.len(),
            _ => return Err("slopes that vary along several axes".into()),
        };
        let n = shape[at].n as usize;
        let values = slope.as_floats().unwrap_or_default();
        let values = if values.len() == 1 { vec![values[0]; n] } else { values.to_vec() };
        let mut order: Vec<usize> = x.order.iter().copied().filter(|&a| a != at).collect();
        order.push(at);
        let below = self.reordered(&Placed { register: below, order: x.order.clone() }, &shape, &order);
        let above = self.reordered(&Placed { register: above, order: x.order }, &shape, &order);
        let below = self.affine(below, &values, &vec![0.0; n], Activation::None)?;
        let y = self.step(Call::Binary(Binary::Add), vec![above, below]);
        self.result(node, y, order)
    }

    fn layer_norm(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let shape = self.shape(id)?;
        let from = axis(node.int("axis").unwrap_or(-1), shape.len())?;
        let scale = self.floats(node, 1)?;
        let bias = if node.input(2).is_some() { Some(self.floats(node, 2)?) } else { None };
        let c: usize = shape[from..].iter().map(|d| d.n as usize).product();
        let lengths: Vec<usize> = shape[from..].iter().map(|d| d.n as usize).collect();
        let scale = expanded(&scale, &lengths).map_err(|e| format!("its scale: {e}"))?;
        let bias = match bias {
            Some(bias) => expanded(&bias, &lengths).map_err(|e| format!("its bias: {e}"))?,
            None => Constant::floats(&lengths, vec![0.0; c]),
        };
        let eps = node.float("epsilon").unwrap_or(1e-5);
        let (scale, bias) = (scale.as_floats().unwrap_or_default(), bias.as_floats().unwrap_or_default());
        let norm = Arc::new(LayerNorm::new(self.device, eps, scale, bias)?);
        if from + 1 == shape.len() {
            let (x, order) = self.with_last(id, from)?;
            let y = self.step(Call::LayerNorm(norm), vec![x]);
            return self.result(node, y, order);
        }
        let order: Vec<usize> = (0..shape.len()).collect();
        let x = self.at(id, &order)?;
        let mut flat = shape[..from].to_vec();
        flat.push(Dim::fixed(c as i64));
        let x = self.step(Call::View(flat), vec![x]);
        let y = self.step(Call::LayerNorm(norm), vec![x]);
        let y = self.step(Call::View(shape), vec![y]);
        self.result(node, y, order)
    }

    /// Instance norm is a group norm whose groups are channels.
    fn group_norm(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let shape = self.shape(id)?;
        let &[_, c, ..] = shape.as_slice() else { return Err("expected channels".into()) };
        let c = c.n as usize;
        let groups = match node.op.as_str() {
            "InstanceNormalization" => c,
            _ => node.int("num_groups").filter(|&g| g > 0).ok_or("expected num_groups")? as usize,
        };
        let (scale, bias) = (self.floats(node, 1)?, self.floats(node, 2)?);
        // Before opset 21 there was one number for each group.
        let each = |v: &Constant| -> Vec<f32> {
            let v = v.as_floats().unwrap_or_default();
            let per = if v.is_empty() || !c.is_multiple_of(v.len()) { 1 } else { c / v.len() };
            v.iter().flat_map(|&v| std::iter::repeat_n(v, per)).collect()
        };
        let eps = node.float("epsilon").unwrap_or(1e-5);
        let norm = Arc::new(GroupNorm::new(self.device, groups, c, eps, &each(&scale), &each(&bias))?);
        // (N, .., C) with all pixels in one axis
        let mut order: Vec<usize> = (0..shape.len()).filter(|&a| a != 1).collect();
        order.push(1);
        let x = self.at(id, &order)?;
        let pixels: i64 = shape[2..].iter().map(|d| d.n).product();
        let memory: Vec<Dim> = order.iter().map(|&a| shape[a]).collect();
        let x = self.step(Call::View(vec![shape[0], Dim::fixed(pixels), Dim::fixed(1), shape[1]]), vec![x]);
        let y = self.step(Call::GroupNorm(norm), vec![x]);
        let y = self.step(Call::View(memory), vec![y]);
        self.result(node, y, order)
    }

    /// x (bias + alpha/size sum of squares of the neighbouring channels)^-beta
    fn lrn(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let shape = self.shape(id)?;
        let size = node.int("size").filter(|&s| s > 0).ok_or("expected a size")?;
        let (alpha, beta) = (node.float("alpha").unwrap_or(1e-4), node.float("beta").unwrap_or(0.75));
        let bias = node.float("bias").unwrap_or(1.0);
        let (x, order) = self.with_last(id, 1)?;
        let c = shape[1].n;
        let rows: Vec<Vec<(usize, f32)>> = (0..c)
            .map(|i| {
                let (from, to) = ((i - (size - 1) / 2).max(0), (i + size - 1 - (size - 1) / 2).min(c - 1));
                (from..=to).map(|j| (j as usize, alpha / size as f32)).collect()
            })
            .collect();
        let squares = self.step(Call::Unary(Function::Power(2.0)), vec![x]);
        let map = Arc::new(Along::new(self.device, c as usize, &rows)?);
        let sums = self.step(Call::Along(shape.len() - 1, map), vec![squares]);
        let sums = self.uniform(sums, c as usize, 1.0, bias)?;
        let factors = self.step(Call::Unary(Function::Power(-beta)), vec![sums]);
        let y = self.step(Call::Binary(Binary::Mul), vec![x, factors]);
        self.result(node, y, order)
    }

    fn attention(&mut self, node: &Node) -> Made<()> {
        let ids = [self.input(node, 0)?, self.input(node, 1)?, self.input(node, 2)?];
        let (q, v) = (self.shape(ids[0])?, self.shape(ids[2])?);
        let &[batch, heads, n, d] = q.as_slice() else { return Err("expected four axes".into()) };
        let m = v[2];
        // Which axes are (batch, head, token, value); k may have its last two the other way round.
        let plain = [0, 1, 2, 3];
        let turned = if node.int("turned") == Some(1) { [0, 1, 3, 2] } else { plain };
        let sizes = [[batch, heads, n, d], [batch, heads, m, d], [batch, heads, m, d]];
        let (inputs, at) = self.heads(ids, [plain, turned, plain], sizes)?;
        let added = match node.input(3) {
            None => Added::Nothing,
            Some(_) => {
                let bias = self.floats(node, 3)?;
                let [heads, n, m] = [heads, n, m].map(|dim| dim.n as usize);
                let full = expanded(&bias, &[1, heads, n, m]).map_err(|e| format!("its bias: {e}"))?;
                let values = full.as_floats().unwrap_or_default();
                match heads::by_places(values, heads, n, m) {
                    Some((map, table)) => Added::Places(Arc::new(Positions::new(self.device, heads, map, &table)?)),
                    None => Added::Bias(Tensor::from_f32(self.device, &[1, heads, n, m], DType::F32, values)?),
                }
            }
        };
        self.flops += 4 * (heads.n * n.n * m.n * d.n) as u64 * batch.n as u64;
        let scale = node.float("scale").unwrap_or(1.0);
        let call = Attention { at, q: [batch, heads, n, d], keys: m.n as usize, scale, added };
        let y = self.step(Call::Attention(Box::new(call)), inputs);
        self.result(node, y, vec![0, 2, 1, 3])
    }

    /// What q, k and v are read from, and where they lie in it: where they came from, or copies.
    fn heads(
        &mut self,
        ids: [Id; 3],
        axes: [[usize; 4]; 3],
        sizes: [[Dim; 4]; 3],
    ) -> Made<(Vec<Register>, [Spread; 3])> {
        let mut places = Vec::new();
        for (id, axes) in ids.into_iter().zip(axes) {
            let placed = self.place(id)?;
            let known = heads::Known { steps: &self.steps, memory: &self.memory };
            let order: Vec<usize> = placed.order.iter().map(|&a| axes[a]).collect();
            places.extend(order.as_slice().try_into().ok().and_then(|order| known.place(placed.register, order)));
        }
        if let Ok(places) = <[heads::Place; 3]>::try_from(places) {
            let known = heads::Known { steps: &self.steps, memory: &self.memory };
            if known.covered(&places, sizes) {
                return Ok((places.iter().map(|p| p.register).collect(), places.map(|p| p.at)));
            }
        }
        let mut inputs = Vec::new();
        for (id, axes) in ids.into_iter().zip(axes) {
            inputs.push(self.at(id, &axes)?);
        }
        let at = sizes.map(|sizes| {
            let [heads, tokens, d] = [1, 2, 3].map(|axis| sizes[axis].n as usize);
            Spread::fixed(Heads::contiguous(heads, tokens, d))
        });
        Ok((inputs, at))
    }

    fn pool(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let (shape, y) = (self.shape(id)?, self.shape(node.outputs[0])?);
        if shape.len() != 4 {
            return self.mean_windows(node);
        }
        let Some(&[r, s]) = node.ints("kernel_shape") else { return Err("expected a window of two axes".into()) };
        let kernel = [r as usize, s as usize];
        let Window { stride, padding: [top, bottom, left, right], dilation, .. } = self.window(node, kernel)?;
        if dilation != [1, 1] {
            return Err("a dilated window is not understood".into());
        }
        let (h, w) = (shape[2].n as usize, shape[3].n as usize);
        let windows = [y[2].n as usize, y[3].n as usize];
        let x = self.at(id, &NHWC)?;
        let ceil_mode = node.int("ceil_mode") == Some(1);
        let pool = Pool { kernel, stride, padding: [top, left], ceil_mode };
        if node.op == "MaxPool" {
            let y = self.step(Call::MaxPool(pool, windows), vec![x]);
            return self.result(node, y, NHWC.to_vec());
        }
        let counted = node.int("count_include_pad") == Some(1);
        let even = top == bottom && left == right && 2 * top <= kernel[0] && 2 * left <= kernel[1];
        if even && [pool.out(0, h), pool.out(1, w)] == [Some(windows[0]), Some(windows[1])] {
            let y = self.step(Call::AvgPool(pool, counted), vec![x]);
            return self.result(node, y, NHWC.to_vec());
        }
        self.mean_windows(node)
    }

    /// Means of windows over any axes, one axis after the other.
    fn mean_windows(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let (x, shape, y) = (self.place(id)?, self.shape(id)?, self.shape(node.outputs[0])?);
        if node.op != "AveragePool" {
            return Err(format!("a maximum over windows of {} axes is not understood", shape.len() - 2).into());
        }
        let counted = node.int("count_include_pad") == Some(1);
        let mut register = x.register;
        for (i, [kernel, stride, dilation, before, after]) in shapes::windows(self.ir, node)?.into_iter().enumerate() {
            let (n, count) = (shape[2 + i].n, y[2 + i].n);
            if kernel == 1 && stride == 1 && n == count {
                continue;
            }
            if dilation != 1 {
                return Err("a dilated window is not understood".into());
            }
            let rows: Vec<Vec<(usize, f32)>> = (0..count)
                .map(|i| {
                    let start = i * stride - before;
                    let end = (start + kernel).min(n + after);
                    let inside = start.max(0)..end.min(n);
                    let count = if counted { end - start } else { inside.end - inside.start };
                    inside.map(|j| (j as usize, 1.0 / count.max(1) as f32)).collect()
                })
                .collect();
            let map = Arc::new(Along::new(self.device, n as usize, &rows)?);
            let place = x.order.iter().position(|&a| a == 2 + i).unwrap_or(0);
            register = self.step(Call::Along(place, map), vec![register]);
        }
        self.result(node, register, x.order)
    }

    fn reduce(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let (shape, y_shape) = (self.shape(id)?, self.shape(node.outputs[0])?);
        let axes = reduced(self.ir, node, shape.len())?;
        let placed = self.place(id)?;
        let mut x = placed.register;
        let c = self.last(&shape, &placed.order);
        match node.op.as_str() {
            "ReduceMin" => x = self.uniform(x, c, -1.0, 0.0)?,
            "ReduceL1" => x = self.step(Call::Unary(Function::Abs), vec![x]),
            "ReduceL2" | "ReduceSumSquare" => x = self.step(Call::Unary(Function::Power(2.0)), vec![x]),
            _ => {}
        }
        let mut order = placed.order.clone();
        let spatial = shape.len() == 4 && shape[0].batch && {
            let mut sorted = axes.clone();
            sorted.sort_unstable();
            sorted == [2, 3]
        };
        let mut lengths = shape.clone();
        if node.op == "ReduceMean" && spatial {
            x = self.reordered(&Placed { register: x, order }, &shape, &NHWC);
            x = self.step(Call::GlobalAvgPool(Activation::None), vec![x]);
            x = self.step(Call::View(vec![shape[0], Dim::fixed(1), Dim::fixed(1), shape[1]]), vec![x]);
            order = NHWC.to_vec();
            axes.iter().for_each(|&a| lengths[a] = Dim::fixed(1));
        } else {
            // The last in memory first: what is left then lies together.
            let mut places: Vec<usize> = axes.iter().map(|a| order.iter().position(|o| o == a).unwrap_or(0)).collect();
            places.sort_unstable_by(|a, b| b.cmp(a));
            for place in places {
                let n = lengths[order[place]].n as usize;
                lengths[order[place]] = Dim::fixed(1);
                let memory: Vec<Dim> = order.iter().map(|&a| lengths[a]).collect();
                if matches!(node.op.as_str(), "ReduceMax" | "ReduceMin") {
                    let product = |part: &[Dim]| part.iter().try_fold(Dim::fixed(1), |p, &d| times(p, d));
                    let (outer, inner) = (product(&memory[..place])?, product(&memory[place + 1..])?);
                    if inner.batch {
                        return Err("a maximum inside of the batch".into());
                    }
                    // In pieces of at most 256.
                    let mut left = n;
                    while left > 1 {
                        let piece = (2..=left.min(256)).rev().find(|&p| left.is_multiple_of(p));
                        let piece =
                            piece.ok_or_else(|| format!("a maximum of {left} values, a prime number above 256"))?;
                        let view = vec![outer, Dim::fixed(left as i64), Dim::fixed(1), inner];
                        x = self.step(Call::View(view), vec![x]);
                        let pool = Pool { kernel: [piece, 1], stride: [piece, 1], padding: [0; 2], ceil_mode: false };
                        left /= piece;
                        x = self.step(Call::MaxPool(pool, [left, 1]), vec![x]);
                    }
                    x = self.step(Call::View(memory), vec![x]);
                } else {
                    let weight = if node.op == "ReduceMean" { 1.0 / n as f32 } else { 1.0 };
                    let row = (0..n).map(|i| (i, weight)).collect();
                    let map = Arc::new(Along::new(self.device, n, &[row])?);
                    x = self.step(Call::Along(place, map), vec![x]);
                }
            }
        }
        let c = self.last(&lengths, &order);
        match node.op.as_str() {
            "ReduceMin" => x = self.uniform(x, c, -1.0, 0.0)?,
            "ReduceL2" => x = self.step(Call::Unary(Function::Sqrt), vec![x]),
            _ => {}
        }
        if y_shape.len() == shape.len() {
            return self.result(node, x, order);
        }
        // The axes that are gone.
        let kept: Vec<usize> = (0..shape.len()).filter(|a| !axes.contains(a)).collect();
        let order: Vec<usize> = order.iter().filter_map(|a| kept.iter().position(|k| k == a)).collect();
        let x = self.step(Call::View(order.iter().map(|&a| y_shape[a]).collect()), vec![x]);
        self.result(node, x, order)
    }

    fn reshape(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let (placed, from, to) = (self.place(id)?, self.shape(id)?, self.shape(node.outputs[0])?);
        let (x, order) = match layout::reshaped(&placed.order, &from, &to) {
            Some(order) => (placed.register, order),
            None => {
                let plain: Vec<usize> = (0..from.len()).collect();
                (self.reordered(&placed, &from, &plain), (0..to.len()).collect())
            }
        };
        let memory = order.iter().map(|&a| to[a]).collect();
        let y = self.step(Call::View(memory), vec![x]);
        self.result(node, y, order)
    }

    fn concat(&mut self, node: &Node) -> Made<()> {
        let y = self.shape(node.outputs[0])?;
        let at = axis(node.int("axis").unwrap_or(0), y.len())?;
        let ids: Vec<Id> = node.inputs.iter().flatten().copied().collect();
        let lead = ids.iter().copied().find(|&id| self.placed[id].is_some()).ok_or("no part is computed")?;
        let order = self.place(lead)?.order;
        let mut registers = Vec::new();
        for id in ids {
            let shape = self.shape(id)?;
            let mut full = y.clone();
            full[at] = shape[at];
            let mut register = self.at(id, &order)?;
            if shape != full {
                register = self.step(Call::Expand(order.iter().map(|&a| full[a]).collect()), vec![register]);
            }
            registers.push(register);
        }
        let place = order.iter().position(|&a| a == at).unwrap_or(0);
        let y = self.step(Call::Concat(place), registers);
        self.result(node, y, order)
    }

    fn split(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let (placed, shape) = (self.place(id)?, self.shape(id)?);
        let at = axis(node.int("axis").unwrap_or(0), shape.len())?;
        let place = placed.order.iter().position(|&a| a == at).unwrap_or(0);
        let mut first = 0;
        for (&output, count) in node.outputs.iter().zip(parts(self.ir, node, shape[at].n as usize)?) {
            let register = self.step(Call::Slice(place, first, count), vec![placed.register]);
            self.placed[output] = Some(Placed { register, order: placed.order.clone() });
            first += count;
        }
        Ok(())
    }

    fn slice(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let (placed, shape) = (self.place(id)?, self.shape(id)?);
        let ranges = slices(self.ir, node, &shape)?.ok_or("where it cuts is not known beforehand")?;
        let mut x = placed.register;
        for (at, range) in ranges.iter().enumerate() {
            let n = shape[at].n as usize;
            if range.count == n && range.step == 1 {
                continue;
            }
            let place = placed.order.iter().position(|&a| a == at).unwrap_or(0);
            let call = if range.step == 1 {
                Call::Slice(place, range.start as usize, range.count)
            } else {
                let from = |i: usize| Some((range.start + i as i64 * range.step) as usize);
                let indices: Vec<Option<usize>> = (0..range.count).map(from).collect();
                Call::Along(place, Arc::new(Along::gather(self.device, n, &indices)?))
            };
            x = self.step(call, vec![x]);
        }
        self.result(node, x, placed.order)
    }

    fn gather(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let (placed, shape) = (self.place(id)?, self.shape(id)?);
        let at = axis(node.int("axis").unwrap_or(0), shape.len())?;
        let n = shape[at].n as usize;
        let indices = self.ir.known(node, 1).ok_or("its indices are not known beforehand")?;
        let rank = indices.shape.len();
        let list = indices.as_ints().ok_or("its indices are no integers")?;
        let list: Vec<usize> = list.iter().map(|&i| axis(i, n)).collect::<Result<_, String>>()?;
        let place = placed.order.iter().position(|&a| a == at).unwrap_or(0);
        let neighbours = list.windows(2).all(|pair| pair[1] == pair[0] + 1);
        let call = match list.first() {
            Some(&first) if neighbours => Call::Slice(place, first, list.len()),
            _ => {
                let indices: Vec<Option<usize>> = list.iter().map(|&i| Some(i)).collect();
                Call::Along(place, Arc::new(Along::gather(self.device, n, &indices)?))
            }
        };
        let x = self.step(call, vec![placed.register]);
        // The axes of the indices stand where the axis stood.
        let order: Vec<usize> = placed
            .order
            .iter()
            .flat_map(|&a| match a {
                a if a == at => (at..at + rank).collect(),
                a if a > at => vec![a + rank - 1],
                a => vec![a],
            })
            .collect();
        let y = self.shape(node.outputs[0])?;
        let x = if rank == 1 { x } else { self.step(Call::View(order.iter().map(|&a| y[a]).collect()), vec![x]) };
        self.result(node, x, order)
    }

    fn pad(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let (placed, mut shape) = (self.place(id)?, self.shape(id)?);
        let (before, after, mode) = pads(self.ir, node, shape.len())?.ok_or("its pads are not known beforehand")?;
        let fill = match node.input(2) {
            None => node.float("value").unwrap_or(0.0),
            Some(id) => self.ir.constant(Some(id)).and_then(Constant::scalar).ok_or("a value that is not known")?,
        };
        let mut x = placed.register;
        for at in 0..shape.len() {
            let (n, a, b) = (shape[at].n, before[at], after[at]);
            if a == 0 && b == 0 {
                continue;
            }
            let place = placed.order.iter().position(|&o| o == at).unwrap_or(0);
            if mode == "constant" {
                let (cut, end) = ((-a).max(0), (-b).max(0));
                if cut + end > 0 {
                    x = self.step(Call::Slice(place, cut as usize, (n - cut - end) as usize), vec![x]);
                }
                shape[at].n = n - cut - end;
                let memory: Vec<Dim> = placed.order.iter().map(|&o| shape[o]).collect();
                let mut parts = vec![x];
                for (count, front) in [(a.max(0), true), (b.max(0), false)] {
                    if count > 0 {
                        let constant = self.filled(&memory, place, count, fill)?;
                        parts.insert(if front { 0 } else { parts.len() }, constant);
                    }
                }
                x = self.step(Call::Concat(place), parts);
                shape[at].n += a.max(0) + b.max(0);
                continue;
            }
            let source = |i: i64| -> Result<Option<usize>, String> {
                let j = i - a;
                let inside = match mode.as_str() {
                    "edge" => j.clamp(0, n - 1),
                    "reflect" if j < 0 => -j,
                    "reflect" if j >= n => 2 * (n - 1) - j,
                    "wrap" => j.rem_euclid(n),
                    "reflect" => j,
                    other => return Err(format!("mode `{other}` is unknown")),
                };
                if (0..n).contains(&inside) {
                    Ok(Some(inside as usize))
                } else {
                    Err(format!("a pad of {} beyond {n}", a.max(b)))
                }
            };
            let indices: Vec<Option<usize>> = (0..n + a + b).map(source).collect::<Result<_, String>>()?;
            x = self.step(Call::Along(place, Arc::new(Along::gather(self.device, n as usize, &indices)?)), vec![x]);
            shape[at].n = n + a + b;
        }
        self.result(node, x, placed.order)
    }

    /// One value, for all images, of `count` along an axis in memory.
    fn filled(&mut self, memory: &[Dim], place: usize, count: i64, value: f32) -> Made<Register> {
        let mut full = memory.to_vec();
        full[place] = Dim::fixed(count);
        let table = Tensor::from_f32(self.device, &vec![1; memory.len()], self.precision.dtype(), &[value])?;
        let one = self.step(Call::Table(table), vec![]);
        Ok(self.step(Call::Expand(full), vec![one]))
    }

    fn resize(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let (placed, from, to) = (self.place(id)?, self.shape(id)?, self.shape(node.outputs[0])?);
        let scales = resample::asked(self.ir, node, from.len())?.scales;
        let mut x = placed.register;
        for at in 0..from.len() {
            let (n, m) = (from[at].n as usize, to[at].n as usize);
            let scale = scales.as_ref().map_or(m as f32 / n as f32, |s| s[at]);
            if n == m && scale == 1.0 {
                continue;
            }
            let rows = resample::rows(node, self.ir.opset, n, m, scale)?;
            let place = placed.order.iter().position(|&o| o == at).unwrap_or(0);
            x = self.step(Call::Along(place, Arc::new(Along::new(self.device, n, &rows)?)), vec![x]);
        }
        self.result(node, x, placed.order)
    }

    fn blocks(&mut self, node: &Node) -> Made<()> {
        let id = self.input(node, 0)?;
        let (shape, y) = (self.shape(id)?, self.shape(node.outputs[0])?);
        let b = Dim::fixed(node.int("blocksize").unwrap_or(1));
        let x = self.at(id, &NHWC)?;
        let (n, small, deep) = (
            shape[0],
            if node.op == "DepthToSpace" { &shape } else { &y },
            if node.op == "DepthToSpace" { &y } else { &shape },
        );
        let (h, w, c) = (small[2], small[3], deep[1]);
        let rows_first = node.op == "SpaceToDepth" || node.text("mode").unwrap_or("DCR") == "DCR";
        let out: Vec<Dim> = NHWC.iter().map(|&a| y[a]).collect();
        let (view, axes) = match (node.op.as_str(), rows_first) {
            ("SpaceToDepth", _) => (vec![n, h, b, w, b, c], vec![0, 1, 3, 2, 4, 5]),
            (_, true) => (vec![n, h, w, b, b, c], vec![0, 1, 3, 2, 4, 5]),
            _ => (vec![n, h, w, c, b, b], vec![0, 1, 4, 2, 5, 3]),
        };
        let x = self.step(Call::View(view), vec![x]);
        let x = self.step(Call::Permute(axes), vec![x]);
        let x = self.step(Call::View(out), vec![x]);
        self.result(node, x, NHWC.to_vec())
    }
}

/// The function of single values that a node is.
fn function(node: &Node) -> Option<Function> {
    let number = |key: &str, default: f32| node.float(key).unwrap_or(default);
    Some(match node.op.as_str() {
        "Clip" if node.inputs.len() == 1 => {
            Function::Clip { low: number("min", f32::NEG_INFINITY), high: number("max", f32::INFINITY) }
        }
        "HardSigmoid" => Function::HardSigmoid { slope: number("alpha", 0.2), shift: number("beta", 0.5) },
        "HardSwish" => Function::HardSwish,
        "Elu" => Function::Elu { alpha: number("alpha", 1.0) },
        "Selu" => Function::Elu { alpha: number("alpha", 1.673_263_2) },
        "Celu" => Function::Celu { alpha: number("alpha", 1.0) },
        "Softplus" => Function::Softplus,
        "Mish" => Function::Mish,
        "Erf" => Function::Erf,
        "Exp" => Function::Exp,
        "Log" => Function::Log,
        "Sqrt" => Function::Sqrt,
        "Abs" => Function::Abs,
        "Softsign" => Function::Softsign,
        "Reciprocal" => Function::Power(-1.0),
        "Power" => Function::Power(number("exponent", 1.0)),
        "ThresholdedRelu" => Function::Threshold(number("alpha", 1.0)),
        _ => return None,
    })
}
