//! Convolutions, fully connected layers and products of two values.

use std::sync::Arc;

use super::super::ir::{Constant, Dim, Node};
use super::super::layout::NHWC;
use super::super::operands::{expanded, times};
use super::super::plan::Call;
use super::super::shapes;
use super::{Lower, Made, Placed};
use crate::ops::Activation;
use crate::ops::conv::{Conv2d, Window};
use crate::ops::gemm::Linear;

impl Lower<'_> {
    pub(super) fn window(&self, node: &Node, kernel: [usize; 2]) -> Made<Window> {
        let (stride, dilation, [[top, bottom], [left, right]]) = shapes::window(self.ir, node, kernel)?;
        let groups = node.int("group").unwrap_or(1).clamp(1, 1 << 31) as usize;
        Ok(Window { stride, padding: [top, bottom, left, right], dilation, groups })
    }

    pub(super) fn conv(&mut self, node: &Node, act: Activation) -> Made<()> {
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

    pub(super) fn conv_transposed(&mut self, node: &Node) -> Made<()> {
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
    pub(super) fn product(&mut self, node: &Node, act: Activation) -> Made<()> {
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
}
