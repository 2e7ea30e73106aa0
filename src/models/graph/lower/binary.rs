//! Arithmetic of operands that broadcast.

use super::super::ir::{Dim, Id, Node};
use super::super::layout::NHWC;
use super::super::operands::strides;
use super::super::plan::Call;
use super::super::{layout, shapes};
use super::{Lower, Made, Placed};
use crate::ops::Activation;
use crate::ops::elementwise::{Binary, Function};
use crate::tensor::Tensor;

impl Lower<'_> {
    /// Two or more operands that broadcast.
    pub(super) fn binary(&mut self, node: &Node, f: Binary) -> Made<()> {
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
    pub(super) fn prelu(&mut self, node: &Node) -> Made<()> {
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
}
