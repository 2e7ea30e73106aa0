//! Nodes as op calls: packs their constants, and puts values into the order in memory that each op wants. A file for each kind of node.

mod attention;
mod binary;
mod moves;
mod norms;
mod products;
mod windows;

use std::sync::Arc;

use super::ir::{Attr, Constant, Dim, Id, Ir, Node, written};
use super::layout::{self, NHWC};
use super::operands::{permutation, softmax_axis};
use super::plan::{Call, Plan, Register, Step};
use crate::device::Device;
use crate::ops::Activation;
use crate::ops::elementwise::{Binary, Function};
use crate::ops::pointwise::Affine;
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
