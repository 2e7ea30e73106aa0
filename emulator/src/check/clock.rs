//! Logical time within one worker: which accesses are ordered before which by barriers.
//!
//! `now` grows at every barrier of any kind; an access is stamped with it. A barrier of the whole block orders everything
//! stamped so far before everything later (`all`). Barriers of fewer warps order only between those (`known`).
//! Source: the epochs of Flanagan & Freund 2009, "FastTrack", with warps as processes.

use super::order::{Fences, Known, Memory, Order};
use crate::address::Pc;
use crate::ptx::opcode::{self, Fence, Scope};

pub use super::order::Who;

/// A write: which bytes, as an offset, by whom, and where in the program.
#[derive(Clone, Copy)]
pub struct Write {
    pub at: usize,
    pub bytes: usize,
    pub me: Who,
    pub pc: Pc,
}

pub struct Clock {
    pub now: u32,
    /// Stamps up to this one are ordered before everything that follows, for every thread of the block.
    pub all: u32,
    /// The first stamps of this block and of this launch.
    pub block: u32,
    pub launch: u32,
    warps: usize,
    /// known[w * warps + v]: stamps of warp v up to this one are ordered before what warp w does next.
    known: Vec<u32>,
    /// The block that began at each stamp.
    starts: Vec<(u32, u64)>,
    /// Of kernels that order by more than barriers.
    order: Option<Order>,
}

/// What a warp knew when it arrived at a barrier of fewer warps.
#[derive(Default)]
pub struct Knowledge {
    row: Vec<u32>,
    learnt: Known,
    pending: Known,
    sequential: Fences,
}

impl Clock {
    pub fn new() -> Self {
        Clock { now: 1, all: 0, block: 1, launch: 1, warps: 0, known: Vec::new(), starts: Vec::new(), order: None }
    }

    /// Close to the end of the stamps: shadows must be forgotten and time begins again.
    pub fn is_late(&self) -> bool {
        self.now > u32::MAX / 2
    }

    /// `ordering`: the kernel has fences, or accesses that acquire or release.
    pub fn begin_launch(&mut self, warps: usize, ordering: bool) {
        self.order = ordering.then(Order::default);
        if let Some(order) = &mut self.order {
            order.begin_launch(warps);
        }
        self.now += 1;
        self.launch = self.now;
        self.warps = warps;
        self.starts.clear();
    }

    /// `number` counts the blocks of the grid, x fastest.
    pub fn begin_block(&mut self, number: u64) {
        self.now += 1;
        self.block = self.now;
        self.all = self.now - 1;
        self.known.clear();
        self.known.resize(self.warps * self.warps, self.all);
        self.starts.push((self.now, number));
        if let Some(order) = &mut self.order {
            order.begin_block(self.all);
        }
    }

    /// The block of this launch that was running at a stamp.
    pub fn block_at(&self, stamp: u32) -> Option<u64> {
        let i = self.starts.partition_point(|&(start, _)| start <= stamp);
        i.checked_sub(1).map(|i| self.starts[i].1)
    }

    /// Every warp that is still running has arrived.
    pub fn barrier(&mut self) {
        self.all = self.now;
        self.now += 1;
        if let Some(order) = &mut self.order {
            order.barrier();
        }
    }

    /// The lanes of one warp have synchronised.
    pub fn warp_barrier(&mut self, warp: usize) {
        self.known[warp * self.warps + warp] = self.now;
        self.now += 1;
        if let Some(order) = &mut self.order {
            order.warp_barrier(warp);
        }
    }

    /// A warp arrives at a barrier of fewer warps; gives what it knew, for [`Clock::learn`].
    pub fn arrive(&mut self, warp: usize) -> Knowledge {
        let row = self.behind(warp);
        let sequential = self.order.as_mut().map(|order| order.arrive(warp)).unwrap_or_default();
        let known = |of: fn(&Order) -> &[Known]| self.order.as_ref().map(|o| of(o)[warp].clone()).unwrap_or_default();
        Knowledge { row, learnt: known(|o| &o.learnt), pending: known(|o| &o.pending), sequential }
    }

    /// What a warp has behind it: what it knows of the others, and all of its own so far.
    fn behind(&mut self, warp: usize) -> Vec<u32> {
        let known = &self.known[warp * self.warps..][..self.warps];
        let mut row: Vec<u32> = known.iter().map(|&k| k.max(self.all)).collect();
        row[warp] = self.now;
        self.now += 1;
        row
    }

    /// A warp leaves a barrier at which others arrived with this knowledge.
    pub fn learn(&mut self, warp: usize, others: &Knowledge) {
        self.learn_row(warp, &others.row);
        if let Some(order) = &mut self.order {
            order.learnt[warp].merge(&others.learnt);
            order.pending[warp].merge(&others.pending);
            order.hear(warp, others.sequential);
        }
    }

    /// What both knew.
    pub fn merge(&mut self, into: &mut Knowledge, other: &Knowledge) {
        into.row.resize(into.row.len().max(other.row.len()), 0);
        into.row.iter_mut().zip(&other.row).for_each(|(a, b)| *a = (*a).max(*b));
        into.learnt.merge(&other.learnt);
        into.pending.merge(&other.pending);
        if let Some(order) = &mut self.order {
            into.sequential = order.two(into.sequential, other.sequential);
        }
    }

    /// What a thread releases by a relaxed operation: what its last fence had behind it.
    pub fn fenced(&self, me: Who) -> Option<Knowledge> {
        let (row, learnt) = self.order.as_ref()?.behind_fence(me)?;
        Some(Knowledge { row, learnt, ..Knowledge::default() })
    }

    /// A warp saw by a relaxed operation that others arrived with this knowledge: it counts from its next fence on.
    pub fn see(&mut self, warp: usize, others: &Knowledge) {
        let Some(order) = &mut self.order else { return };
        let own = &mut order.rows[warp * self.warps..][..self.warps];
        own.iter_mut().zip(&others.row).for_each(|(a, b)| *a = (*a).max(*b));
        order.pending[warp].merge(&others.learnt);
    }

    fn learn_row(&mut self, warp: usize, row: &[u32]) {
        for (k, &r) in self.known[warp * self.warps..][..self.warps].iter_mut().zip(row) {
            *k = (*k).max(r);
        }
    }

    /// Whether the kernel orders by more than barriers.
    pub fn is_ordering(&self) -> bool {
        self.order.is_some()
    }

    /// A fence of the lanes of a warp: what strong reads saw is ordered from now on, and strong writes release what came before.
    pub fn fence(&mut self, warp: usize, lanes: u32, fence: Fence) {
        let Some(order) = &self.order else { return };
        if fence.acquires {
            let seen = order.rows[warp * self.warps..][..self.warps].to_vec();
            self.learn_row(warp, &seen);
        }
        let row = self.behind(warp);
        if let Some(order) = &mut self.order {
            order.fence(warp, lanes, fence, self.block, row);
        }
    }

    /// A strong access of a thread to a place: what it acquires, and then what it releases.
    pub fn strong(&mut self, memory: Memory, address: u64, me: Who, how: &opcode::Order, reads: bool, writes: bool) {
        if self.order.is_none() {
            return;
        }
        let (warp, block) = (usize::from(me >> 5), self.block);
        if reads && let Some(order) = &mut self.order {
            let row = order.read(memory, address, how.scope, how.acquire, warp, block);
            if how.acquire {
                self.learn_row(warp, &row);
            }
        }
        if writes {
            let row = how.release.then(|| self.behind(warp));
            let Some(order) = &mut self.order else { return };
            let releases = match row {
                Some(row) => Some(order.release((memory, address), me, how.scope, block, row)),
                None => order.fenced((memory, address), me, how.scope, block),
            };
            order.write(memory, address, reads, how.scope, releases, block);
        }
    }

    /// Whether a release to a place reaches threads of this block.
    pub fn released(&self, memory: Memory, address: u64, scope: Scope) -> bool {
        self.order.as_ref().is_some_and(|order| order.released(memory, address, scope, self.block))
    }

    /// Whether the warp of a thread learnt anything of other blocks.
    pub fn knows_others(&self, me: Who) -> bool {
        self.order.as_ref().is_some_and(|order| order.knows_others(usize::from(me >> 5)))
    }

    /// Whether what a thread of this block or an earlier one of the launch did at `stamp` is ordered before what `me` does now, which
    /// is a strong access or a weak one.
    pub fn before(&self, stamp: u32, earlier: Who, me: Who, strong: bool) -> bool {
        (stamp >= self.block && earlier == me) || self.all_before(stamp, earlier, me, strong)
    }

    /// The same for all lanes of the warp of `earlier`.
    pub fn all_before(&self, stamp: u32, earlier: Who, me: Who, strong: bool) -> bool {
        let (v, w) = (usize::from(earlier >> 5 & 31), usize::from(me >> 5));
        if stamp >= self.block {
            let at = w * self.warps + v;
            return stamp <= self.all
                || stamp <= self.known[at]
                || strong && self.order.as_ref().is_some_and(|order| stamp <= order.rows[at]);
        }
        let Some(order) = &self.order else { return false };
        let start = self.starts.partition_point(|&(start, _)| start <= stamp);
        let Some(&(block, _)) = start.checked_sub(1).and_then(|i| self.starts.get(i)) else { return false };
        order.knows(&order.learnt[w], block, v, stamp) || strong && order.knows(&order.pending[w], block, v, stamp)
    }

    /// Whether what thread `earlier` did at `stamp`, in this block, is ordered before what `me` does now.
    pub fn ordered(&self, stamp: u32, earlier: Who, me: Who) -> bool {
        let (v, w) = (usize::from(earlier >> 5), usize::from(me >> 5));
        stamp <= self.all || earlier == me || stamp <= self.known[w * self.warps + v]
    }

    /// The same for all lanes of the warp of `earlier`.
    pub fn warp_ordered(&self, stamp: u32, earlier: Who, me: Who) -> bool {
        let (v, w) = (usize::from(earlier >> 5 & 31), usize::from(me >> 5));
        stamp <= self.all || stamp <= self.known[w * self.warps + v]
    }
}

impl Knowledge {
    /// The stamp up to which a warp that arrived with it releases its own.
    pub fn stamp(&self, warp: usize) -> u32 {
        self.row.get(warp).copied().unwrap_or(0)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Who read a granule since its last ordered write, packed into 16 bits.
pub mod readers {
    use super::Who;

    /// More than one lane of the warp; more than one warp; another block of this launch too.
    pub const LANES: u16 = 1 << 13;
    pub const WARPS: u16 = 1 << 14;
    pub const BLOCKS: u16 = 1 << 15;
    /// All of these reads were volatile, in a kernel that orders by more than barriers.
    pub const VOLATILE: u16 = 1 << 12;

    /// Who read last, where a read is ordered after the last one or not; `first` is the first stamp that counts.
    pub fn latest(clock: &super::Clock, first: u32, read: u32, old: u16, me: Who) -> u16 {
        let earlier = old & 0x3ff;
        if read < first || clock.before(read, earlier, me, false) {
            // Reads of other blocks that are not known stay noted.
            return me | if read >= first { old & BLOCKS } else { 0 };
        }
        let more = if read < clock.block {
            BLOCKS
        } else if earlier >> 5 == me >> 5 {
            LANES
        } else {
            WARPS
        };
        me | old & (LANES | WARPS | BLOCKS) | more
    }

    /// Whether reads at `read` since the last barrier of the block are ordered before what `me` does: a barrier of fewer warps lies between.
    #[cold]
    #[inline(never)]
    pub fn behind(clock: &super::Clock, read: u32, reader: u16, me: Who) -> bool {
        reader & (WARPS | BLOCKS) == 0 && clock.warp_ordered(read, reader & 0x3ff, me)
    }

    /// `old` read before in the same phase, now `me` reads.
    #[inline(always)]
    pub fn join(old: u16, me: Who) -> u16 {
        let thread = old & 0x3ff;
        if thread == me {
            old
        } else if thread >> 5 == me >> 5 {
            old | LANES
        } else {
            old | WARPS
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn barriers_order_what_they_should() {
        let mut c = Clock::new();
        c.begin_launch(2, false);
        c.begin_block(0);
        let (a, b, other) = (0, 1, 32);
        let s = c.now;
        assert!(c.ordered(s, a, a) && !c.ordered(s, a, b) && !c.ordered(s, a, other));
        c.warp_barrier(0);
        assert!(c.ordered(s, a, b) && !c.ordered(s, a, other));
        c.barrier();
        assert!(c.ordered(s, a, other) && !c.ordered(c.now, a, other));
    }

    #[test]
    fn a_barrier_of_two_warps_says_nothing_to_a_third() {
        let mut c = Clock::new();
        c.begin_launch(3, false);
        c.begin_block(7);
        let s = c.now;
        let (zero, one) = (c.arrive(0), c.arrive(1));
        c.learn(1, &zero);
        c.learn(0, &one);
        assert!(c.ordered(s, 0, 32) && c.ordered(s, 33, 0) && !c.ordered(s, 0, 64));
        assert_eq!(c.block_at(s), Some(7));
    }
}
