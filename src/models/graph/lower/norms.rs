//! Norms over channels, groups and neighbours.

use std::sync::Arc;

use super::super::ir::{Constant, Dim, Node};
use super::super::operands::{axis, expanded};
use super::super::plan::Call;
use super::{Lower, Made};
use crate::ops::elementwise::{Binary, Function};
use crate::ops::group_norm::GroupNorm;
use crate::ops::layer_norm::LayerNorm;
use crate::ops::resize::Along;

impl Lower<'_> {
    pub(super) fn layer_norm(&mut self, node: &Node) -> Made<()> {
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
    pub(super) fn group_norm(&mut self, node: &Node) -> Made<()> {
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
    pub(super) fn lrn(&mut self, node: &Node) -> Made<()> {
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
}
