//! Logical time within one worker: which accesses are ordered before which by barriers.
//!
//! `now` grows at every barrier of any kind; an access is stamped with it. A barrier of the whole block orders everything
//! stamped so far before everything later (`all`). Barriers of fewer warps order only between those (`known`).
//! Source: the epochs of Flanagan & Freund 2009, "FastTrack", with warps as processes.

use crate::address::Pc;

/// A thread of the block: warp * 32 + lane.
pub type Who = u16;

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
}

impl Clock {
    pub fn new() -> Self {
        Clock { now: 1, all: 0, block: 1, launch: 1, warps: 0, known: Vec::new(), starts: Vec::new() }
    }

    /// Close to the end of the stamps: shadows must be forgotten and time begins again.
    pub fn is_late(&self) -> bool {
        self.now > u32::MAX / 2
    }

    pub fn begin_launch(&mut self, warps: usize) {
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
    }

    /// The lanes of one warp have synchronised.
    pub fn warp_barrier(&mut self, warp: usize) {
        self.known[warp * self.warps + warp] = self.now;
        self.now += 1;
    }

    /// A warp arrives at a barrier of fewer warps; gives what it knew, for [`Clock::learn`].
    pub fn arrive(&mut self, warp: usize) -> Vec<u32> {
        let mut row = self.known[warp * self.warps..][..self.warps].to_vec();
        row[warp] = self.now;
        self.now += 1;
        row
    }

    /// A warp leaves a barrier at which others arrived knowing `row`.
    pub fn learn(&mut self, warp: usize, row: &[u32]) {
        for (k, &r) in self.known[warp * self.warps..][..self.warps].iter_mut().zip(row) {
            *k = (*k).max(r);
        }
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
        c.begin_launch(2);
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
        c.begin_launch(3);
        c.begin_block(7);
        let s = c.now;
        let (zero, one) = (c.arrive(0), c.arrive(1));
        c.learn(1, &zero);
        c.learn(0, &one);
        assert!(c.ordered(s, 0, 32) && c.ordered(s, 33, 0) && !c.ordered(s, 0, 64));
        assert_eq!(c.block_at(s), Some(7));
    }
}
