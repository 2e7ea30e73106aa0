//! Pools and reductions.

use std::sync::Arc;

use super::super::ir::{Dim, Node};
use super::super::layout::NHWC;
use super::super::operands::{reduced, times};
use super::super::plan::Call;
use super::super::shapes;
use super::{Lower, Made, Placed};
use crate::ops::Activation;
use crate::ops::conv::Window;
use crate::ops::elementwise::Function;
use crate::ops::pool::Pool;
use crate::ops::resize::Along;

impl Lower<'_> {
    pub(super) fn pool(&mut self, node: &Node) -> Made<()> {
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

    pub(super) fn reduce(&mut self, node: &Node) -> Made<()> {
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
}
