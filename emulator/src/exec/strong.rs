//! Which accesses synchronise, and what the checkers hear of them.

use super::cta::Cta;
use super::touch::Touch;
use crate::check::clock::Who;
use crate::check::strong::Strong;
use crate::program::Elements;
use crate::ptx::opcode::Order;

/// Whether an access is checked as one that synchronises; `volatile` only where the kernel orders by more than barriers.
#[inline(always)]
pub(super) fn is_strong(cta: &Cta, memory: &Elements) -> bool {
    !memory.order.weak() && (memory.order.strong || cta.shape.program.ordering)
}

/// What a strong access does.
#[derive(Clone, Copy)]
pub(super) struct Kinds {
    pub order: Order,
    pub reads: bool,
    pub writes: bool,
}

impl Kinds {
    pub fn load(memory: &Elements) -> Self {
        Kinds { order: memory.order, reads: true, writes: false }
    }

    pub fn store(memory: &Elements) -> Self {
        Kinds { order: memory.order, reads: false, writes: true }
    }

    pub fn of_lane(&self, t: &Touch, me: Who, released: bool) -> Strong {
        let Kinds { order, reads, writes } = *self;
        Strong { me, pc: t.ins.pc, order, writes, atomic: reads && writes, released }
    }
}
