//! Counters: what Nsight Compute would count, per instruction, and summed per launch; and which bytes of device memory a launch touches.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::address::Pc;
use crate::memory::View;
use crate::ops::Class;
use crate::program::{Program, Step};

pub use crate::ops::formats::MatrixFormat;

/// Per instruction of a program; empty when nothing is counted.
#[derive(Clone, Default)]
pub struct Counts {
    warps: Vec<u64>,
    threads: Vec<u64>,
    diverged: Vec<u64>,
    bytes: Vec<u64>,
    sectors: Vec<u64>,
    /// Turns that shared memory took, and those beyond the fewest possible.
    turns: Vec<u64>,
    conflicts: Vec<u64>,
    /// Bytes that were read and those that were written, by view.
    read: Vec<Bytes>,
    written: Vec<Bytes>,
    pub barriers: u64,
}

/// Some bytes of a buffer: a bit for each, so that a word is a sector, or nothing at all.
type Bytes = Vec<u32>;

/// Bytes of a sector.
const SECTOR: usize = 32;

impl Counts {
    /// Of a program with so much code, among so many views.
    pub fn new(code: usize, views: usize) -> Self {
        let zero = || vec![0; code];
        Counts {
            warps: zero(),
            threads: zero(),
            diverged: zero(),
            bytes: zero(),
            sectors: zero(),
            turns: zero(),
            conflicts: zero(),
            read: vec![vec![]; views],
            written: vec![vec![]; views],
            barriers: 0,
        }
    }

    #[inline(always)]
    pub fn executed(&mut self, pc: Pc, mask: u32) {
        self.warps[pc as usize] += 1;
        self.threads[pc as usize] += u64::from(mask.count_ones());
    }

    /// Takes an [`Counts::executed`] back.
    pub fn put_off(&mut self, pc: Pc, mask: u32) {
        self.warps[pc as usize] -= 1;
        self.threads[pc as usize] -= u64::from(mask.count_ones());
    }

    pub fn diverged(&mut self, pc: Pc) {
        self.diverged[pc as usize] += 1;
    }

    pub fn global(&mut self, pc: Pc, bytes: u64, sectors: u64) {
        self.bytes[pc as usize] += bytes;
        self.sectors[pc as usize] += sectors;
    }

    /// Bytes from `at` on were read or written. What lies in no view is for the checkers.
    pub fn touched(&mut self, views: &[View], (at, bytes): (u64, u64), writes: bool) {
        let view = views.partition_point(|v| v.base <= at).wrapping_sub(1);
        let Some(v) = views.get(view).filter(|v| at < v.end) else { return };
        let all = if writes { &mut self.written[view] } else { &mut self.read[view] };
        if all.is_empty() {
            all.resize(((v.end - v.base) as usize).div_ceil(SECTOR), 0);
        }
        let (mut from, to) = ((at - v.base) as usize, ((at + bytes).min(v.end) - v.base) as usize);
        while from < to {
            let (first, count) = (from % SECTOR, (to - from).min(SECTOR - from % SECTOR));
            all[from / SECTOR] |= (u32::MAX >> (SECTOR - count)) << first;
            from += count;
        }
    }

    pub fn shared(&mut self, pc: Pc, turns: u64, conflicts: u64) {
        self.turns[pc as usize] += turns;
        self.conflicts[pc as usize] += conflicts;
    }

    pub fn add(&mut self, other: &Counts) {
        let add = |a: &mut Vec<u64>, b: &[u64]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        add(&mut self.warps, &other.warps);
        add(&mut self.threads, &other.threads);
        add(&mut self.diverged, &other.diverged);
        add(&mut self.bytes, &other.bytes);
        add(&mut self.sectors, &other.sectors);
        add(&mut self.turns, &other.turns);
        add(&mut self.conflicts, &other.conflicts);
        let join = |a: &mut Vec<Bytes>, b: &[Bytes]| {
            for (a, b) in a.iter_mut().zip(b) {
                a.resize(a.len().max(b.len()), 0);
                a.iter_mut().zip(b).for_each(|(a, b)| *a |= b);
            }
        };
        join(&mut self.read, &other.read);
        join(&mut self.written, &other.written);
        self.barriers += other.barriers;
    }

    /// What the bytes touched come to. A buffer is named where a word of the arguments points into it.
    pub fn footprint(&self, views: &[View], arguments: &[u8]) -> Footprint {
        let words =
            arguments.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("chunks of 8 bytes")));
        let words: Vec<u64> = words.collect();
        let of = |all: &[Bytes]| {
            let mut sum = Touched::default();
            for (bytes, view) in all.iter().zip(views).filter(|(bytes, _)| !bytes.is_empty()) {
                sum.bytes += bytes.iter().map(|sector| u64::from(sector.count_ones())).sum::<u64>();
                sum.sectors += bytes.iter().filter(|sector| **sector != 0).count() as u64;
                if words.iter().any(|at| (view.base..view.end).contains(at)) {
                    sum.buffers += view.end - view.base;
                }
            }
            sum
        };
        Footprint { read: of(&self.read), written: of(&self.written) }
    }

    /// Sums for one launch of `program`.
    pub fn launch(&self, program: &Program, grid: [u32; 3], block: [u32; 3], shared_bytes: u32) -> LaunchCounts {
        let mut all = LaunchCounts {
            kernel: program.name.clone(),
            grid,
            block,
            shared_bytes,
            registers: program.pressure,
            barriers: self.barriers,
            ..Default::default()
        };
        for (pc, ins) in program.code.iter().enumerate() {
            let (warps, threads) = (self.warps[pc], self.threads[pc]);
            if warps == 0 || matches!(ins.step, Step::Join) {
                continue;
            }
            *all.classes.entry(ins.class).or_default() += warps;
            // Those of a warp; where the guard does not hold there are none.
            let flops = threads / 32 * u64::from(ins.product.map_or(0, |product| product.flops));
            if let Some(product) = ins.product {
                *all.flops.entry(product.format).or_default() += flops;
            }
            let line = {
                let at = program.locations[pc];
                let file = if at.file == 0 { "PTX".to_string() } else { program.file(at.file).to_string() };
                all.lines.entry((file, if at.file == 0 { at.ptx_line } else { at.line })).or_default()
            };
            for t in [&mut all.total, line] {
                t.instructions += warps;
                t.threads += threads;
                t.flops += flops;
                t.divergent_branches += self.diverged[pc];
                match ins.class {
                    Class::GlobalLoad | Class::AsyncCopy | Class::Atomic => {
                        t.global_load_bytes += self.bytes[pc];
                        t.global_load_sectors += self.sectors[pc];
                    }
                    Class::GlobalStore => {
                        t.global_store_bytes += self.bytes[pc];
                        t.global_store_sectors += self.sectors[pc];
                    }
                    _ => {}
                }
                t.shared_turns += self.turns[pc];
                t.shared_conflicts += self.conflicts[pc];
            }
        }
        all
    }
}

/// Sums over instructions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Warp instructions.
    pub instructions: u64,
    /// Thread instructions: lanes that took part.
    pub threads: u64,
    /// Multiplications and additions of matrix instructions.
    pub flops: u64,
    pub divergent_branches: u64,
    pub global_load_bytes: u64,
    /// 32-byte sectors; more than bytes / 32 where accesses do not coalesce.
    pub global_load_sectors: u64,
    pub global_store_bytes: u64,
    pub global_store_sectors: u64,
    /// Turns of shared memory, one a cycle, and those lost to bank conflicts.
    pub shared_turns: u64,
    pub shared_conflicts: u64,
}

impl AddAssign<&Totals> for Totals {
    fn add_assign(&mut self, other: &Totals) {
        self.instructions += other.instructions;
        self.threads += other.threads;
        self.flops += other.flops;
        self.divergent_branches += other.divergent_branches;
        self.global_load_bytes += other.global_load_bytes;
        self.global_load_sectors += other.global_load_sectors;
        self.global_store_bytes += other.global_store_bytes;
        self.global_store_sectors += other.global_store_sectors;
        self.shared_turns += other.shared_turns;
        self.shared_conflicts += other.shared_conflicts;
    }
}

/// Device memory that a launch reads or writes, each byte once however often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touched {
    pub bytes: u64,
    /// The 32-byte sectors in which they lie.
    pub sectors: u64,
    /// Bytes of all buffers that the arguments name and in which some lie.
    pub buffers: u64,
}

impl AddAssign for Touched {
    fn add_assign(&mut self, other: Touched) {
        self.bytes += other.bytes;
        self.sectors += other.sectors;
        self.buffers += other.buffers;
    }
}

/// The least that a launch could move: what it reads and what it writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    pub read: Touched,
    pub written: Touched,
}

impl AddAssign for Footprint {
    fn add_assign(&mut self, other: Footprint) {
        self.read += other.read;
        self.written += other.written;
    }
}

/// One launch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchCounts {
    pub kernel: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    /// 32-bit registers live at once: an estimate of what ptxas would use.
    pub registers: u32,
    pub barriers: u64,
    pub total: Totals,
    pub footprint: Footprint,
    /// Warp instructions by class.
    pub classes: BTreeMap<Class, u64>,
    /// [`Totals::flops`] by what is multiplied.
    pub flops: BTreeMap<MatrixFormat, u64>,
    /// By source file and line.
    #[serde(with = "by_line")]
    pub lines: BTreeMap<(String, u32), Totals>,
}

/// Maps with pairs as keys become lists in JSON.
mod by_line {
    use super::{BTreeMap, Totals};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Lines = BTreeMap<(String, u32), Totals>;

    pub fn serialize<S: Serializer>(lines: &Lines, s: S) -> Result<S::Ok, S::Error> {
        lines.iter().collect::<Vec<_>>().serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Lines, D::Error> {
        Ok(Vec::<((String, u32), Totals)>::deserialize(d)?.into_iter().collect())
    }
}
