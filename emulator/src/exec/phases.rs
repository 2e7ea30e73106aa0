//! Mbarriers: their phases, what has arrived, and the copies that arrive when they land (PTX ISA 9.0, 9.7.13.15).

use super::copies::Piece;
use crate::address::Pc;
use crate::check::clock::{Clock, Knowledge, Who};

/// The largest count of arrivals, and of bytes.
pub const MOST: i64 = (1 << 20) - 1;

/// The object of 64 bits as it lies in memory: pending arrivals in bits 0 to 19, expected ones in 20 to 39, bytes that are still to come in
/// 40 to 60, and the number of the phase, as far as it fits, in the rest. Programs know it as opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word {
    pub pending: i64,
    pub expected: i64,
    pub bytes: i64,
    pub phase: u64,
}

impl Word {
    pub fn of(bits: u64) -> Word {
        let count = |shift: u32| (bits >> shift & MOST as u64) as i64;
        let bytes = (bits << 3) as i64 >> 43;
        Word { pending: count(0), expected: count(20), bytes, phase: bits >> 61 }
    }

    pub fn bits(self) -> u64 {
        let count = |n: i64| n as u64 & MOST as u64;
        count(self.pending) | count(self.expected) << 20 | (self.bytes as u64 & 0x1f_ffff) << 40 | self.phase << 61
    }
}

/// What the checkers know of one.
pub struct Mbarrier {
    /// As it was left in memory.
    pub word: Word,
    /// Who initialised it, where and when.
    pub by: Who,
    pub pc: Pc,
    pub stamp: u32,
    /// What arrivals of this phase released, and of those before.
    now: Knowledge,
    pub complete: Knowledge,
    /// By warp: when it last used the object.
    pub used: Vec<u32>,
}

impl Mbarrier {
    pub fn new(count: i64, by: Who, pc: Pc, stamp: u32, warps: usize) -> Self {
        Mbarrier {
            word: Word { pending: count, expected: count, bytes: 0, phase: 0 },
            by,
            pc,
            stamp,
            now: Knowledge::default(),
            complete: Knowledge::default(),
            used: vec![0; warps],
        }
    }

    /// So many arrivals, with what they release.
    ///
    /// # Errors
    /// What is wrong with their number.
    pub fn arrive(&mut self, clock: &mut Clock, count: i64, released: Option<&Knowledge>) -> Result<(), String> {
        if count < 1 || count > self.word.pending {
            return Err(format!("{count} arrivals where {} are pending", self.word.pending));
        }
        self.word.pending -= count;
        if let Some(released) = released {
            clock.merge(&mut self.now, released);
        }
        self.end_phase(clock);
        Ok(())
    }

    /// Bytes that are to come, or have come where negative, with what their copies release.
    ///
    /// # Errors
    /// What is wrong with their number.
    pub fn transfer(&mut self, clock: &mut Clock, bytes: i64, released: Option<&Knowledge>) -> Result<(), String> {
        let sum = self.word.bytes + bytes;
        if sum.abs() > MOST {
            return Err(format!("a transaction count of {sum} bytes, at most {MOST}"));
        }
        self.word.bytes = sum;
        if let Some(released) = released {
            clock.merge(&mut self.now, released);
        }
        self.end_phase(clock);
        Ok(())
    }

    /// The phase is complete once nothing is pending and no bytes are to come.
    fn end_phase(&mut self, clock: &mut Clock) {
        let word = &mut self.word;
        if word.pending == 0 && word.bytes == 0 {
            (word.pending, word.phase) = (word.expected, (word.phase + 1) % 8);
            let now = std::mem::take(&mut self.now);
            clock.merge(&mut self.complete, &now);
        }
    }
}

/// Copies that arrive at an mbarrier when they land.
pub struct Tracked {
    /// Offset of the mbarrier.
    pub at: u32,
    pub warp: usize,
    pub lane: usize,
    pub pc: Pc,
    /// What is released when they have landed.
    pub released: Option<Knowledge>,
    pub pieces: Vec<Piece>,
    pub how: Arrives,
}

/// How copies arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrives {
    /// As one thread: `cp.async.mbarrier.arrive`.
    Once,
    /// By their bytes: `cp.async.bulk`.
    Bytes(i64),
}

/// Waits that found their phase incomplete, and what changed meanwhile: for blocks whose warps only wait.
#[derive(Default)]
pub struct Waits {
    pub failed: u64,
    pub changes: u64,
    /// The latest: instruction, warp, lane, offset of the mbarrier.
    pub last: Option<(Pc, usize, usize, u32)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_their_parts() {
        for word in [
            Word { pending: 0, expected: 0, bytes: 0, phase: 0 },
            Word { pending: MOST, expected: 1, bytes: -MOST, phase: 7 },
            Word { pending: 3, expected: MOST, bytes: MOST, phase: 5 },
        ] {
            assert_eq!(Word::of(word.bits()), word);
        }
    }
}
