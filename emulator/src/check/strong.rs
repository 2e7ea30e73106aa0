//! Strong and volatile accesses, atomics among them: what they may meet without a race.
//!
//! Two strong accesses never race if the scope of each includes the other's thread. `volatile` is strong as far as it is used to
//! synchronise: a place that something was released to. Data that is passed on through volatile accesses alone is reported, as CUDA
//! C++ gives them no order.

use super::clock::{Clock, Who, readers};
use crate::address::Pc;
use crate::ptx::opcode::{Order, Scope};

/// Bits of a recorded writer beside its thread.
pub const THREAD: u16 = 0x3ff;
const BLOCK_SCOPE: u16 = 1 << 13;
const STRONG: u16 = 1 << 14;
const VOLATILE: u16 = 1 << 15;

/// What is recorded of a granule.
#[derive(Clone, Copy)]
pub struct Last {
    pub written: u32,
    pub writer: u16,
    pub writer_pc: Pc,
    pub read: u32,
    pub reader: u16,
}

/// A weak write that strong ones came after.
#[derive(Clone, Copy)]
pub struct Before {
    pub stamp: u32,
    pub writer: u16,
    pub pc: Pc,
}

/// A strong or volatile access.
#[derive(Clone, Copy)]
pub struct Strong {
    pub me: Who,
    pub pc: Pc,
    pub order: Order,
    pub writes: bool,
    /// Reads what it writes over.
    pub atomic: bool,
    /// Something was released to the place.
    pub released: bool,
}

/// What it collides with.
pub enum Clash {
    Write(Before),
    Reads,
}

/// Whether the last write was strong or volatile.
pub fn not_weak(writer: u16) -> bool {
    writer & (STRONG | VOLATILE) != 0
}

/// Checks an access against what was recorded since the stamp `first`, and records it.
///
/// # Errors
/// What it races with.
pub fn access(clock: &Clock, first: u32, mut last: Last, before: Option<Before>, a: &Strong) -> Result<Last, Clash> {
    let ordered = |stamp: u32, who: u16| clock.before(stamp, who & THREAD, a.me, true);
    if last.written >= first {
        let found = Before { stamp: last.written, writer: last.writer, pc: last.writer_pc };
        let free = if last.writer & STRONG != 0 {
            let narrow = last.writer & BLOCK_SCOPE != 0 || a.order.scope == Scope::Block;
            !narrow || last.written >= clock.block
        } else {
            last.writer & VOLATILE != 0 && (a.order.strong || a.released)
        };
        if !free && !ordered(found.stamp, found.writer) {
            return Err(Clash::Write(found));
        }
        if let Some(weak) = before.filter(|b| b.stamp >= first)
            && !ordered(weak.stamp, weak.writer)
        {
            return Err(Clash::Write(weak));
        }
    }
    if a.writes && last.read >= first && last.reader & readers::VOLATILE == 0 {
        let alone = last.reader & (readers::WARPS | readers::LANES) == 0;
        let known = match alone {
            true => ordered(last.read, last.reader),
            false => clock.all_before(last.read, last.reader & THREAD, a.me, true),
        };
        let others = last.reader & readers::BLOCKS != 0 && !clock.knows_others(a.me);
        if !known || others {
            return Err(Clash::Reads);
        }
    }
    if a.writes {
        last.written = clock.now;
        last.writer_pc = a.pc;
        last.writer = a.me
            | if a.order.strong { STRONG } else { VOLATILE }
            | if a.order.scope == Scope::Block { BLOCK_SCOPE } else { 0 };
    } else if a.order.volatile {
        let earlier = last.read >= first && !ordered(last.read, last.reader);
        last.reader = a.me | if earlier { last.reader & !THREAD | readers::WARPS } else { readers::VOLATILE };
        last.read = clock.now;
    }
    Ok(last)
}
