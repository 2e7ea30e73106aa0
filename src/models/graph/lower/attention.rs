//! Attention, whose heads are read where they lie.

use std::sync::Arc;

use super::super::heads;
use super::super::ir::{Dim, Id, Node};
use super::super::operands::expanded;
use super::super::plan::{Attention, Call, Register, Spread};
use super::{Lower, Made};
use crate::device::DType;
use crate::ops::attention::{Added, Heads, Positions};
use crate::tensor::Tensor;

impl Lower<'_> {
    pub(super) fn attention(&mut self, node: &Node) -> Made<()> {
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
                    Some((map, table)) => {
                        self.parameters = self.parameters.saturating_sub(bias.len()) + table.len();
                        Added::Places(Arc::new(Positions::new(self.device, heads, map, &table)?))
                    }
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
}
