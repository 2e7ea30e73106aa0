//! Shared memory: who wrote and read each granule, and when.

use std::collections::HashMap;

use super::clock::{Clock, Who, Write, readers};
use super::conflict::Conflict;
use super::strong::{self, Before, Clash, Last, Strong, THREAD};
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
    /// By granule: the last weak write, where strong ones came after it.
    weak: HashMap<usize, Before>,
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
            weak: HashMap::new(),
        }
    }

    #[inline(always)]
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
            // Reads before the last barrier no longer matter to anyone, nor do those that are ordered before this one.
            let (read, reader) = (self.read[g], self.reader[g]);
            let alone = read <= clock.all || read != clock.now && readers::behind(clock, read, reader, me);
            self.reader[g] = if alone { me } else { readers::join(reader, me) };
            self.read[g] = clock.now;
        }
        Ok(())
    }

    /// The same in a kernel that orders by more than barriers: a read that is ordered after the last one stands for both.
    pub fn read_ordered(&mut self, clock: &Clock, at: usize, bytes: usize, me: Who) -> Result<(), Conflict> {
        for g in self.granules(at, bytes) {
            let (stamp, read, reader) = (self.written[g], self.read[g], self.reader[g]);
            if !(stamp >= clock.block && (stamp <= clock.all || self.writer[g] & THREAD == me && stamp != PENDING)) {
                self.slow_read(clock, g, me)?;
            }
            self.reader[g] = readers::latest(clock, clock.block, read, reader, me);
            self.read[g] = clock.now;
        }
        Ok(())
    }

    /// A strong or volatile access, or an atomic.
    pub fn strong(&mut self, clock: &Clock, at: usize, bytes: usize, a: &Strong) -> Result<(), Conflict> {
        for g in self.granules(at, bytes) {
            if self.written[g] == PENDING {
                return Err(self.conflict(Kind::MissingCopyWait, g, true));
            }
            if self.written[g] < clock.block && (a.atomic || !a.writes) {
                return Err(self.conflict(Kind::UninitializedShared, g, false));
            }
            let last = Last {
                written: self.written[g],
                writer: self.writer[g],
                writer_pc: self.writer_pc[g],
                read: self.read[g],
                reader: self.reader[g],
            };
            let before = self.weak.get(&g).copied();
            let next = strong::access(clock, clock.block, last, before, a).map_err(|clash| match clash {
                Clash::Write(w) => {
                    Conflict::with_write(Kind::SharedRace, g << self.shift, Some((w.writer & THREAD, w.pc)))
                }
                Clash::Reads => Conflict::with_reads(Kind::SharedRace, g << self.shift, last.reader),
            })?;
            if a.writes && !strong::not_weak(last.writer) {
                self.weak.insert(g, Before { stamp: last.written, writer: last.writer, pc: last.writer_pc });
            }
            (self.written[g], self.writer[g], self.writer_pc[g]) = (next.written, next.writer, next.writer_pc);
            (self.read[g], self.reader[g]) = (next.read, next.reader);
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
        } else if clock.before(stamp, self.writer[g] & THREAD, me, false) {
            return Ok(());
        } else {
            Kind::SharedRace
        };
        Err(self.conflict(kind, g, kind != Kind::UninitializedShared))
    }

    fn conflict(&self, kind: Kind, g: usize, known: bool) -> Conflict {
        Conflict::with_write(kind, g << self.shift, known.then(|| (self.writer[g] & THREAD, self.writer_pc[g])))
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

    /// The copy has landed: from now on it is a write of the thread that started it, made at this stamp.
    pub fn end_copy(&mut self, stamp: u32, at: usize, bytes: usize) {
        for g in self.granules(at, bytes) {
            self.written[g] = stamp;
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
        if stamp > clock.all && !clock.before(stamp, self.writer[g] & THREAD, me, false) && !same {
            return Err(self.conflict(Kind::SharedRace, g, true));
        }
        if read > clock.all && !same {
            let ordered = match reader {
                // Of several warps the last that read is known; it is taken for all, where more than barriers orders.
                r if r & readers::WARPS != 0 => clock.is_ordering() && clock.all_before(read, r & THREAD, me, false),
                r if r & readers::LANES != 0 => clock.warp_ordered(read, r & 0x3ff, me),
                r => clock.ordered(read, r, me),
            };
            if !ordered {
                return Err(Conflict::with_reads(Kind::SharedRace, g << self.shift, reader));
            }
        }
        Ok(())
    }
}
