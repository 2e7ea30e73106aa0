//! Shared memory: who wrote and read each granule, and when.

use super::clock::{Clock, Who, Write, readers};
use super::conflict::Conflict;
use crate::address::Pc;
use crate::finding::Kind;

/// A `cp.async` into the granule is under way.
const PENDING: u32 = u32::MAX;

/// One entry per granule of 2^shift bytes, the narrowest access of the kernel.
pub struct SharedShadow {
    shift: u32,
    written: Vec<u32>,
    writer: Vec<Who>,
    writer_pc: Vec<Pc>,
    read: Vec<u32>,
    reader: Vec<u16>,
}

impl SharedShadow {
    pub fn new(bytes: usize, shift: u32) -> Self {
        let n = (bytes >> shift) + 1;
        SharedShadow {
            shift,
            written: vec![0; n],
            writer: vec![0; n],
            writer_pc: vec![0; n],
            read: vec![0; n],
            reader: vec![0; n],
        }
    }

    fn granules(&self, at: usize, bytes: usize) -> std::ops::Range<usize> {
        at >> self.shift..(at + bytes).div_ceil(1 << self.shift)
    }

    /// Thread `me` reads `bytes` bytes at `at`.
    #[inline(always)]
    pub fn read(&mut self, clock: &Clock, at: usize, bytes: usize, me: Who) -> Result<(), Conflict> {
        for g in self.granules(at, bytes) {
            let stamp = self.written[g];
            if !(stamp >= clock.block && (stamp <= clock.all || self.writer[g] == me && stamp != PENDING)) {
                self.slow_read(clock, g, me)?;
            }
            // Reads before the last barrier no longer matter to anyone.
            self.reader[g] = if self.read[g] > clock.all { readers::join(self.reader[g], me) } else { me };
            self.read[g] = clock.now;
        }
        Ok(())
    }

    #[cold]
    fn slow_read(&self, clock: &Clock, g: usize, me: Who) -> Result<(), Conflict> {
        let stamp = self.written[g];
        let kind = if stamp == PENDING {
            Kind::MissingCopyWait
        } else if stamp < clock.block {
            Kind::UninitializedShared
        } else if clock.ordered(stamp, self.writer[g], me) {
            return Ok(());
        } else {
            Kind::SharedRace
        };
        Err(self.conflict(kind, g, kind != Kind::UninitializedShared))
    }

    fn conflict(&self, kind: Kind, g: usize, known: bool) -> Conflict {
        Conflict::with_write(kind, g << self.shift, known.then(|| (self.writer[g], self.writer_pc[g])))
    }

    /// A thread writes. `same` says whether a byte range already holds what is written: then two writes do not collide.
    #[inline(always)]
    pub fn write(&mut self, clock: &Clock, write: Write, same: impl Fn() -> bool) -> Result<(), Conflict> {
        let Write { at, bytes, me, pc } = write;
        for g in self.granules(at, bytes) {
            self.check_write(clock, g, me, &same)?;
            self.written[g] = clock.now;
            self.writer[g] = me;
            self.writer_pc[g] = pc;
        }
        Ok(())
    }

    /// A thread starts a `cp.async` into these bytes.
    pub fn start_copy(&mut self, clock: &Clock, write: Write) -> Result<(), Conflict> {
        let Write { at, bytes, me, pc } = write;
        for g in self.granules(at, bytes) {
            self.check_write(clock, g, me, || false)?;
            self.written[g] = PENDING;
            self.writer[g] = me;
            self.writer_pc[g] = pc;
        }
        Ok(())
    }

    /// The copy has landed: from now on it is a write of the thread that started it.
    pub fn end_copy(&mut self, clock: &Clock, at: usize, bytes: usize) {
        for g in self.granules(at, bytes) {
            self.written[g] = clock.now;
        }
    }

    #[inline(always)]
    fn check_write(&self, clock: &Clock, g: usize, me: Who, same: impl Fn() -> bool) -> Result<(), Conflict> {
        let (stamp, read) = (self.written[g], self.read[g]);
        if (stamp <= clock.all || self.writer[g] == me && stamp != PENDING)
            && (read <= clock.all || self.reader[g] == me)
        {
            return Ok(());
        }
        self.slow_write(clock, g, me, same())
    }

    #[cold]
    fn slow_write(&self, clock: &Clock, g: usize, me: Who, same: bool) -> Result<(), Conflict> {
        let (stamp, read, reader) = (self.written[g], self.read[g], self.reader[g]);
        if stamp == PENDING {
            return Err(self.conflict(Kind::MissingCopyWait, g, true));
        }
        if stamp > clock.all && !clock.ordered(stamp, self.writer[g], me) && !same {
            return Err(self.conflict(Kind::SharedRace, g, true));
        }
        if read > clock.all && !same {
            let ordered = match reader {
                r if r & readers::WARPS != 0 => false,
                r if r & readers::LANES != 0 => clock.warp_ordered(read, r & 0x3ff, me),
                r => clock.ordered(read, r, me),
            };
            if !ordered {
                return Err(Conflict::with_reads(Kind::SharedRace, g << self.shift, reader));
            }
        }
        Ok(())
    }

    /// An atomic: orders itself against other atomics, but needs memory that something wrote, and no copy under way.
    pub fn atomic(&mut self, clock: &Clock, at: usize, bytes: usize) -> Result<(), Conflict> {
        for g in self.granules(at, bytes) {
            match self.written[g] {
                PENDING => return Err(self.conflict(Kind::MissingCopyWait, g, true)),
                stamp if stamp < clock.block => return Err(self.conflict(Kind::UninitializedShared, g, false)),
                _ => {}
            }
        }
        Ok(())
    }
}
