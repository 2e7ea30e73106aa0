//! A list of op calls that computes a graph.

use std::sync::Arc;

use super::ir::Dim;
use crate::ops::Activation;
use crate::ops::attention::{Added, Heads, Sizes, attention_of};
use crate::ops::conv::{Conv2d, conv2d, conv2d_transposed};
use crate::ops::elementwise::{Binary, Function, Operand, binary, expand, unary};
use crate::ops::gate::gate;
use crate::ops::gemm::{Linear, linear, matmul};
use crate::ops::group_norm::{GroupNorm, group_norm};
use crate::ops::layer_norm::{LayerNorm, layer_norm};
use crate::ops::leaky_relu::leaky_relu;
use crate::ops::permute::{concat, permute, slice, view};
use crate::ops::pointwise::{Affine, activation, affine, affine_activation, softmax};
use crate::ops::pool::{Pool, avg_pool2d, global_avg_pool_activated, max_pool2d_windows};
use crate::ops::resize::{Along, along};
use crate::tape::Graph;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// One op call; shapes are those in memory.
pub enum Call {
    View(Vec<Dim>),
    Permute(Vec<usize>),
    /// Where gradients are recorded the activation may be left to those that read the result.
    Conv(Arc<Conv2d>, Activation, bool),
    ConvTransposed(Arc<Conv2d>, [usize; 2]),
    Linear(Arc<Linear>, Activation),
    Affine(Arc<Affine>, Activation),
    Activation(Activation),
    Unary(Function),
    LeakyRelu(f32),
    /// Both operands.
    Binary(Binary),
    /// With a constant second operand, or first if `true`.
    Constant(Binary, Tensor, bool),
    /// A constant on its own.
    Table(Tensor),
    Expand(Vec<Dim>),
    /// With what a convolution left of its activation.
    Gate(Activation),
    MatMul,
    Softmax,
    LayerNorm(Arc<LayerNorm>),
    GroupNorm(Arc<GroupNorm>),
    /// What q, k and v lie in.
    Attention(Box<Attention>),
    MaxPool(Pool, [usize; 2]),
    AvgPool(Pool, bool),
    /// As for a gate.
    GlobalAvgPool(Activation),
    Along(usize, Arc<Along>),
    Concat(usize),
    /// axis, first, count
    Slice(usize, usize, usize),
}

/// Where heads lie in any number of images: each number one of its own, and one for every image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    fixed: Heads,
    each: Heads,
}

impl Spread {
    /// What is the same for any number of images.
    pub fn fixed(fixed: Heads) -> Self {
        Spread { fixed, each: Heads { first: 0, batch: 0, head: 0, token: 0 } }
    }

    /// From those for two images and for three.
    pub fn between(two: Heads, three: Heads) -> Option<Self> {
        let each = fields(two, three, |two, three| three.checked_sub(two))?;
        let fixed = fields(two, each, |two, each| two.checked_sub(2 * each))?;
        Some(Spread { fixed, each })
    }

    /// For so many images.
    pub fn of(&self, images: usize) -> Heads {
        let number = |fixed: usize, each: usize| fixed + each * images;
        let (f, e) = (self.fixed, self.each);
        Heads {
            first: number(f.first, e.first),
            batch: number(f.batch, e.batch),
            head: number(f.head, e.head),
            token: number(f.token, e.token),
        }
    }
}

fn fields(a: Heads, b: Heads, f: impl Fn(usize, usize) -> Option<usize>) -> Option<Heads> {
    Some(Heads {
        first: f(a.first, b.first)?,
        batch: f(a.batch, b.batch)?,
        head: f(a.head, b.head)?,
        token: f(a.token, b.token)?,
    })
}

/// An attention whose operands lie in other tensors.
pub struct Attention {
    pub at: [Spread; 3],
    /// (batch, heads, queries, values) and keys; the batch for one image
    pub q: [Dim; 4],
    pub keys: usize,
    pub scale: f32,
    pub added: Added,
}

impl Call {
    /// Its name in a count of ops.
    pub fn name(&self) -> &'static str {
        match self {
            Call::View(_) => "view",
            Call::Permute(_) => "permute",
            Call::Conv(..) => "conv2d",
            Call::ConvTransposed(..) => "conv2d_transposed",
            Call::Linear(..) => "linear",
            Call::Affine(..) => "affine",
            Call::Activation(_) => "activation",
            Call::Unary(_) => "unary",
            Call::LeakyRelu(_) => "leaky_relu",
            Call::Binary(_) | Call::Constant(..) => "binary",
            Call::Table(_) => "constant",
            Call::Expand(_) => "expand",
            Call::Gate(_) => "gate",
            Call::MatMul => "matmul",
            Call::Softmax => "softmax",
            Call::LayerNorm(_) => "layer_norm",
            Call::GroupNorm(_) => "group_norm",
            Call::Attention(..) => "attention",
            Call::MaxPool(..) => "max_pool2d",
            Call::AvgPool(..) => "avg_pool2d",
            Call::GlobalAvgPool(_) => "global_avg_pool",
            Call::Along(..) => "along",
            Call::Concat(_) => "concat",
            Call::Slice(..) => "slice",
        }
    }
}

/// A register of a plan.
pub type Register = usize;

pub struct Step {
    /// Of the node that it was made for.
    pub name: String,
    pub call: Call,
    pub inputs: Vec<Register>,
    pub output: Register,
    /// Registers that nobody reads afterwards.
    pub done: Vec<Register>,
}

/// What computes logits `(N, K)` of images `(N, H, W, C)`.
pub struct Plan {
    pub steps: Vec<Step>,
    pub registers: usize,
    pub input: Register,
    pub output: Register,
    pub classes: usize,
    /// Values of the widest result of one image.
    pub widest: usize,
    /// Multiplications and additions of products, for one image.
    pub flops: u64,
    /// Weights that are used.
    pub parameters: usize,
    /// Names of the nodes after which images get smaller, and of the last that makes images.
    pub stages: Vec<String>,
}

impl Plan {
    /// Drops what nobody reads, and finds after which step each register is read last.
    pub fn settle(&mut self) {
        let mut read = vec![false; self.registers];
        read[self.output] = true;
        for step in self.steps.iter().rev() {
            if read[step.output] {
                step.inputs.iter().for_each(|&r| read[r] = true);
            }
        }
        self.steps.retain(|step| read[step.output]);
        self.stages.retain(|stage| self.steps.iter().any(|step| step.name == *stage));
        let mut seen = vec![false; self.registers];
        seen[self.output] = true;
        for step in self.steps.iter_mut().rev() {
            let mut done: Vec<Register> = step.inputs.clone();
            done.push(step.output);
            done.sort_unstable();
            done.dedup();
            done.retain(|&r| !std::mem::replace(&mut seen[r], true));
            step.done = done;
        }
    }

    /// Leaves a curved activation to a mean over pixels and a gate, where they alone read it and gradients are recorded: what went into it
    /// is kept anyway, so that its result is neither written nor kept.
    pub fn defer(&mut self) {
        let mut readers: Vec<Vec<usize>> = vec![vec![]; self.registers];
        for (i, step) in self.steps.iter().enumerate() {
            step.inputs.iter().for_each(|&r| readers[r].push(i));
        }
        for i in 0..self.steps.len() {
            let (Call::Conv(_, act, _), output) = (&self.steps[i].call, self.steps[i].output) else { continue };
            let (act, readers) = (*act, &readers[output]);
            // Stages are looked at.
            let seen = output == self.output || self.stages.contains(&self.steps[i].name);
            if matches!(act, Activation::None | Activation::Relu) || seen || readers.is_empty() {
                continue;
            }
            let applies = |&reader: &usize| match &self.steps[reader] {
                Step { call: Call::GlobalAvgPool(_), .. } => true,
                Step { call: Call::Gate(_), inputs, .. } => inputs[0] == output && !inputs[1..].contains(&output),
                _ => false,
            };
            if !readers.iter().all(applies) {
                continue;
            }
            for &reader in readers {
                if let Call::GlobalAvgPool(left) | Call::Gate(left) = &mut self.steps[reader].call {
                    *left = act;
                }
            }
            if let Call::Conv(_, _, late) = &mut self.steps[i].call {
                *late = true;
            }
        }
    }

    /// Runs it; `see` gets the name and result of every step that makes images `(N, H, W, C)`.
    ///
    /// # Errors
    /// What the ops return, with the node's name.
    pub fn run(&self, g: &Graph, x: &Tensor, see: &mut dyn FnMut(&str, &Tensor)) -> Result<Tensor> {
        let images = x.shape().first().copied().unwrap_or(0);
        let mut registers: Vec<Option<Tensor>> = vec![None; self.registers];
        registers[self.input] = Some(x.clone());
        for step in &self.steps {
            let lost = || Error::shape("graph", format!("input of `{}`", step.name), "a value", "none");
            let inputs: Vec<Tensor> =
                step.inputs.iter().map(|&r| registers[r].clone().ok_or_else(lost)).collect::<Result<_>>()?;
            let y = step.call.run(g, images, &inputs).map_err(|e| named(e, &step.name))?;
            if y.shape().len() == 4 {
                see(&step.name, &y);
            }
            registers[step.output] = Some(y);
            step.done.iter().for_each(|&r| registers[r] = None);
        }
        registers[self.output].take().ok_or_else(|| Error::shape("graph", "output", "a value", "none"))
    }
}

/// A shape error with the node that it is about.
fn named(error: Error, node: &str) -> Error {
    match error {
        Error::Shape { op, what, expected, got } => {
            Error::Shape { op, what: format!("node `{node}`: {what}"), expected, got }
        }
        other => other,
    }
}

impl Call {
    fn run(&self, g: &Graph, images: usize, inputs: &[Tensor]) -> Result<Tensor> {
        let of = |shape: &[Dim]| -> Vec<usize> { shape.iter().map(|d| d.of(images)).collect() };
        let missing = |i: usize| Error::shape("graph", "operands", i + 1, inputs.len());
        let input = |i: usize| inputs.get(i).ok_or_else(|| missing(i));
        if let Call::Table(t) = self {
            return Ok(t.clone());
        }
        let left = |act: &Activation| if g.records() { *act } else { Activation::None };
        let x = input(0)?;
        Ok(match self {
            Call::View(shape) => view(g, x, &of(shape))?,
            Call::Permute(axes) => permute(g, x, axes)?,
            Call::Conv(conv, _, true) if g.records() => conv2d(g, x, conv, inputs.get(1), Activation::None)?,
            Call::Conv(conv, act, _) => conv2d(g, x, conv, inputs.get(1), *act)?,
            Call::ConvTransposed(conv, size) => conv2d_transposed(g, x, conv, *size)?,
            Call::Linear(layer, act) => {
                let k = x.shape().last().copied().unwrap_or(1);
                let rows = view(g, x, &[x.len() / k.max(1), k])?;
                let y = linear(g, &rows, layer, *act)?;
                let mut shape = x.shape().to_vec();
                if let (Some(last), Some(&o)) = (shape.last_mut(), y.shape().last()) {
                    *last = o;
                }
                view(g, &y, &shape)?
            }
            Call::Affine(constants, Activation::None) => affine(g, x, constants)?,
            Call::Affine(constants, act) => affine_activation(g, x, constants, *act)?,
            Call::Activation(act) => activation(g, x, *act)?,
            Call::Unary(f) => unary(g, x, *f)?,
            Call::LeakyRelu(slope) => leaky_relu(g, x, *slope)?,
            Call::Binary(f) => binary(g, *f, Operand::Value(x), Operand::Value(input(1)?))?,
            Call::Constant(f, c, false) => binary(g, *f, Operand::Value(x), Operand::Constant(c))?,
            Call::Constant(f, c, true) => binary(g, *f, Operand::Constant(c), Operand::Value(x))?,
            Call::Table(t) => t.clone(),
            Call::Expand(shape) => expand(g, x, &of(shape))?,
            Call::Gate(act) => {
                let gates = input(1)?;
                let (n, c) = (gates.shape()[0], gates.len() / gates.shape()[0].max(1));
                gate(g, x, &view(g, gates, &[n, c])?, left(act))?
            }
            Call::MatMul => matmul(g, x, input(1)?)?,
            Call::Softmax => softmax(g, x)?,
            Call::LayerNorm(norm) => layer_norm(g, x, norm)?,
            Call::GroupNorm(norm) => group_norm(g, x, norm, Activation::None)?,
            Call::Attention(a) => {
                let [batch, heads, n, d] = a.q.map(|dim| dim.of(images));
                let sizes = Sizes { batch, heads, n, m: a.keys, d, scale: a.scale };
                attention_of(g, [x, input(1)?, input(2)?], a.at.map(|at| at.of(images)), &sizes, &a.added)?
            }
            Call::MaxPool(pool, windows) => max_pool2d_windows(g, x, *pool, *windows)?,
            Call::AvgPool(pool, padded) => avg_pool2d(g, x, *pool, *padded)?,
            Call::GlobalAvgPool(act) => global_avg_pool_activated(g, x, left(act))?,
            Call::Along(axis, map) => along(g, x, *axis, map)?,
            Call::Concat(axis) => concat(g, &inputs.iter().collect::<Vec<_>>(), *axis)?,
            Call::Slice(axis, first, count) => slice(g, x, *axis, *first, *count)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::ops::conv::Window;
    use crate::tape::Precision;

    fn step(call: Call, inputs: &[Register], output: Register) -> Step {
        Step { name: format!("node {output}"), call, inputs: inputs.to_vec(), output, done: vec![] }
    }

    /// A convolution, a mean and a gate of its result by something like the mean; and a last step.
    fn gated(last: Step) -> Plan {
        let device = Device::host().unwrap();
        let window = Window { stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 };
        let conv = Arc::new(Conv2d::new(&device, Precision::F32, &[1.0], [1, 1, 1, 1], None, window).unwrap());
        let steps = vec![
            step(Call::Conv(conv, Activation::Silu, false), &[0], 1),
            step(Call::GlobalAvgPool(Activation::None), &[1], 2),
            step(Call::Gate(Activation::None), &[1, 2], 3),
            last,
        ];
        Plan {
            steps,
            registers: 5,
            input: 0,
            output: 4,
            classes: 1,
            widest: 1,
            flops: 0,
            parameters: 1,
            stages: vec![],
        }
    }

    fn left(plan: &Plan) -> (bool, [Activation; 2]) {
        let [Call::Conv(_, _, late), Call::GlobalAvgPool(mean), Call::Gate(gate)] =
            [0, 1, 2].map(|i| &plan.steps[i].call)
        else {
            panic!("the steps are other ones")
        };
        (*late, [*mean, *gate])
    }

    #[test]
    fn an_activation_is_left_to_a_mean_and_a_gate_that_alone_read_it() {
        let mut plan = gated(step(Call::GlobalAvgPool(Activation::None), &[3], 4));
        plan.defer();
        assert_eq!(left(&plan), (true, [Activation::Silu; 2]));

        let kept = (false, [Activation::None; 2]);
        let mut read_again = gated(step(Call::Binary(Binary::Add), &[3, 1], 4));
        read_again.defer();
        assert_eq!(left(&read_again), kept);

        let mut looked_at = gated(step(Call::GlobalAvgPool(Activation::None), &[3], 4));
        looked_at.stages = vec!["node 1".into()];
        looked_at.defer();
        assert_eq!(left(&looked_at), kept);
    }

    #[test]
    fn what_nobody_reads_is_dropped() {
        let mut plan = gated(step(Call::GlobalAvgPool(Activation::None), &[1], 4));
        plan.settle();
        assert_eq!(plan.steps.iter().map(|step| step.output).collect::<Vec<_>>(), [1, 4]);
        assert_eq!(plan.steps[1].done, [1]);
    }
}
