//! What moves values: reshapes, cuts, joins, gathers, padding, resizing.

use std::sync::Arc;

use super::super::ir::{Constant, Dim, Id, Node};
use super::super::layout::NHWC;
use super::super::operands::{axis, pads, parts, slices};
use super::super::plan::{Call, Register};
use super::super::{layout, resample};
use super::{Lower, Made, Placed};
use crate::ops::resize::Along;
use crate::tensor::Tensor;

impl Lower<'_> {
    pub(super) fn reshape(&mut self, node: &Node) -> Made<()> {
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

    pub(super) fn concat(&mut self, node: &Node) -> Made<()> {
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

    pub(super) fn split(&mut self, node: &Node) -> Made<()> {
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

    pub(super) fn slice(&mut self, node: &Node) -> Made<()> {
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

    pub(super) fn gather(&mut self, node: &Node) -> Made<()> {
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

    pub(super) fn pad(&mut self, node: &Node) -> Made<()> {
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

    pub(super) fn resize(&mut self, node: &Node) -> Made<()> {
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

    pub(super) fn blocks(&mut self, node: &Node) -> Made<()> {
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
