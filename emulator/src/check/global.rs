//! Global memory: who wrote and read each granule of a buffer during a launch, as one worker saw it; and, when the launch is
//! over, what two workers saw of each other's blocks.

use std::collections::HashMap;

use super::clock::{Clock, Who, Write, readers};
use super::conflict::Conflict;
use super::strong::{self, Before, Clash, Last, Strong, THREAD};
use crate::address::Pc;
use crate::finding::Kind;

/// One entry per granule of 2^shift bytes. The granule shrinks to the narrowest access seen.
pub struct GlobalShadow {
    bytes: usize,
    shift: u32,
    written: Vec<u32>,
    writer: Vec<Who>,
    writer_pc: Vec<Pc>,
    read: Vec<u32>,
    reader: Vec<u16>,
    /// By granule: the last weak write, where strong ones came after it.
    weak: HashMap<usize, Before>,
    /// Bytes written and touched during the launch that began at `launch`.
    launch: u32,
    wrote: std::ops::Range<usize>,
    touched: std::ops::Range<usize>,
}

/// The smallest start and the largest end begin here.
#[allow(clippy::reversed_empty_ranges)]
const NOTHING: std::ops::Range<usize> = usize::MAX..0;

impl GlobalShadow {
    pub fn new(bytes: usize) -> Self {
        let n = (bytes >> 4) + 1;
        GlobalShadow {
            bytes,
            shift: 4,
            written: vec![0; n],
            writer: vec![0; n],
            writer_pc: vec![0; n],
            read: vec![0; n],
            reader: vec![0; n],
            weak: HashMap::new(),
            launch: 0,
            wrote: NOTHING,
            touched: NOTHING,
        }
    }

    /// Before accesses of `width` bytes within `range`.
    #[inline(always)]
    pub fn prepare(&mut self, clock: &Clock, width: usize, range: std::ops::Range<usize>, writes: bool) {
        if self.launch != clock.launch {
            self.launch = clock.launch;
            self.weak.clear();
            self.wrote = NOTHING;
            self.touched = NOTHING;
        }
        self.touched = self.touched.start.min(range.start)..self.touched.end.max(range.end);
        if writes {
            self.wrote = self.wrote.start.min(range.start)..self.wrote.end.max(range.end);
        }
        if width < 1 << self.shift {
            self.refine(width.trailing_zeros());
        }
    }

    #[cold]
    fn refine(&mut self, shift: u32) {
        let (by, n) = (self.shift - shift, (self.bytes >> shift) + 1);
        fn spread<T: Copy>(old: &[T], by: u32, n: usize) -> Vec<T> {
            (0..n).map(|i| old[i >> by]).collect()
        }
        self.written = spread(&self.written, by, n);
        self.writer = spread(&self.writer, by, n);
        self.writer_pc = spread(&self.writer_pc, by, n);
        self.read = spread(&self.read, by, n);
        self.reader = spread(&self.reader, by, n);
        let weak = std::mem::take(&mut self.weak);
        self.weak = weak.into_iter().flat_map(|(g, b)| (0..1 << by).map(move |i| ((g << by) + i, b))).collect();
        self.shift = shift;
    }

    #[inline(always)]
    fn granules(&self, at: usize, bytes: usize) -> std::ops::Range<usize> {
        at >> self.shift..(at + bytes).div_ceil(1 << self.shift)
    }

    #[inline(always)]
    pub fn read(&mut self, clock: &Clock, at: usize, bytes: usize, me: Who) -> Result<(), Conflict> {
        for g in self.granules(at, bytes) {
            let stamp = self.written[g];
            if stamp >= clock.launch && !(stamp >= clock.block && stamp <= clock.all) {
                self.slow_read(clock, g, me)?;
            }
            let read = self.read[g];
            self.reader[g] = if read < clock.launch {
                me
            } else if read < clock.block {
                me | readers::BLOCKS
            } else if read > clock.all {
                let reader = self.reader[g];
                // Earlier reads that are ordered before this one no longer matter.
                let alone = read != clock.now && readers::behind(clock, read, reader, me);
                if alone { me } else { readers::join(reader, me) }
            } else {
                me | self.reader[g] & readers::BLOCKS
            };
            self.read[g] = clock.now;
        }
        Ok(())
    }

    /// The same in a kernel that orders by more than barriers: a read that is ordered after the last one stands for both.
    pub fn read_ordered(&mut self, clock: &Clock, at: usize, bytes: usize, me: Who) -> Result<(), Conflict> {
        for g in self.granules(at, bytes) {
            let stamp = self.written[g];
            if stamp >= clock.launch && !(stamp >= clock.block && stamp <= clock.all) {
                self.slow_read(clock, g, me)?;
            }
            self.reader[g] = readers::latest(clock, clock.launch, self.read[g], self.reader[g], me);
            self.read[g] = clock.now;
        }
        Ok(())
    }

    /// A strong or volatile access, or an atomic; after [`GlobalShadow::prepare`].
    pub fn strong(&mut self, clock: &Clock, at: usize, bytes: usize, a: &Strong) -> Result<(), Conflict> {
        for g in self.granules(at, bytes) {
            let last = Last {
                written: self.written[g],
                writer: self.writer[g],
                writer_pc: self.writer_pc[g],
                read: self.read[g],
                reader: self.reader[g],
            };
            let before = self.weak.get(&g).copied();
            let kind = |stamp| if stamp < clock.block { Kind::BlockRace } else { Kind::GlobalRace };
            let next = strong::access(clock, clock.launch, last, before, a).map_err(|clash| match clash {
                Clash::Write(w) => {
                    let c = Conflict::with_write(kind(w.stamp), g << self.shift, Some((w.writer & THREAD, w.pc)));
                    if w.stamp < clock.block { c.of_block(clock.block_at(w.stamp)) } else { c }
                }
                Clash::Reads => {
                    let c = Conflict::with_reads(kind(last.read), g << self.shift, last.reader);
                    if last.read < clock.block { c.of_block(clock.block_at(last.read)) } else { c }
                }
            })?;
            if a.writes && last.written >= clock.launch && !strong::not_weak(last.writer) {
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
        if clock.before(stamp, self.writer[g] & THREAD, me, false) {
            return Ok(());
        }
        let kind = if stamp < clock.block { Kind::BlockRace } else { Kind::GlobalRace };
        Err(self.written_by(kind, clock, g))
    }

    fn written_by(&self, kind: Kind, clock: &Clock, g: usize) -> Conflict {
        let block = if kind == Kind::BlockRace { clock.block_at(self.written[g]) } else { None };
        let by = Some((self.writer[g] & THREAD, self.writer_pc[g]));
        Conflict::with_write(kind, g << self.shift, by).of_block(block)
    }

    /// `same`: the bytes already hold what is written; then two writes within a block do not collide.
    #[inline(always)]
    pub fn write(&mut self, clock: &Clock, write: Write, same: impl Fn() -> bool) -> Result<(), Conflict> {
        let Write { at, bytes, me, pc } = write;
        for g in self.granules(at, bytes) {
            let (stamp, read) = (self.written[g], self.read[g]);
            if stamp >= clock.launch || read >= clock.launch {
                self.slow_write(clock, g, me, &same)?;
            }
            self.written[g] = clock.now;
            self.writer[g] = me;
            self.writer_pc[g] = pc;
        }
        Ok(())
    }

    fn slow_write(&self, clock: &Clock, g: usize, me: Who, same: impl Fn() -> bool) -> Result<(), Conflict> {
        let (stamp, read, reader) = (self.written[g], self.read[g], self.reader[g]);
        if stamp >= clock.launch && !clock.before(stamp, self.writer[g] & THREAD, me, false) {
            if stamp < clock.block {
                return Err(self.written_by(Kind::BlockRace, clock, g));
            }
            if !same() {
                return Err(self.written_by(Kind::GlobalRace, clock, g));
            }
        }
        if read >= clock.launch {
            let conflict = |kind| Conflict::with_reads(kind, g << self.shift, reader);
            if read < clock.block && !clock.all_before(read, reader & THREAD, me, false) {
                return Err(conflict(Kind::BlockRace).of_block(clock.block_at(read)));
            }
            if reader & readers::BLOCKS != 0 && !clock.knows_others(me) {
                return Err(Conflict { other: None, ..conflict(Kind::BlockRace) });
            }
            let ordered = if read < clock.block {
                true
            } else if reader & readers::WARPS != 0 {
                // Of several warps the last that read is known; it is taken for all, where more than barriers orders.
                read <= clock.all || clock.is_ordering() && clock.all_before(read, reader & THREAD, me, false)
            } else if reader & readers::LANES != 0 {
                clock.warp_ordered(read, reader & 0x3ff, me)
            } else {
                clock.ordered(read, reader & 0x3ff, me)
            };
            if !ordered && !same() {
                return Err(conflict(Kind::GlobalRace));
            }
        }
        Ok(())
    }

    /// The first byte that this worker's blocks wrote and the other's touched during the launch that just ended: the byte, this
    /// worker's writing instruction, and both stamps. `other` belongs to `theirs`.
    pub fn collision(&self, clock: &Clock, other: &GlobalShadow, theirs: &Clock) -> Option<Collision> {
        if self.launch != clock.launch || other.launch != theirs.launch {
            return None;
        }
        let first = self.wrote.start.max(other.touched.start);
        let last = self.wrote.end.min(other.touched.end);
        if first >= last {
            return None;
        }
        let step = 1usize << self.shift.min(other.shift);
        let mut at = first & !(step - 1);
        while at < last {
            let (g, h) = (at >> self.shift, at >> other.shift);
            if self.written[g] >= clock.launch {
                let wrote = other.written[h] >= theirs.launch;
                if wrote || other.read[h] >= theirs.launch {
                    let stamp = if wrote { other.written[h] } else { other.read[h] };
                    return Some(Collision {
                        at: at.max(first),
                        writer: self.writer[g],
                        writer_pc: self.writer_pc[g],
                        writer_block: clock.block_at(self.written[g])?,
                        other_wrote: wrote,
                        other_pc: wrote.then(|| other.writer_pc[h]),
                        other_block: theirs.block_at(stamp)?,
                    });
                }
            }
            at += step;
        }
        None
    }
}

/// Two workers touched the same byte.
pub struct Collision {
    pub at: usize,
    pub writer: Who,
    pub writer_pc: Pc,
    pub writer_block: u64,
    pub other_wrote: bool,
    pub other_pc: Option<Pc>,
    pub other_block: u64,
}
