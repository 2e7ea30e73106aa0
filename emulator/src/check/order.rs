//! What fences, releases and acquires order beyond barriers (PTX ISA 9.0, chapter 8, "Memory Consistency Model").
//!
//! A thread releases by a `.release` operation, or by a fence before a strong write or atomic; another acquires by an `.acquire`
//! operation, or by a strong read or atomic before a fence, of what it reads. Everything before the release is then before everything
//! after the acquire, if the scopes of both include the other thread. Atomics read and write, and so pass on what was released to
//! them before; a plain strong store does not.
//!
//! Time is that of [`Clock`](super::clock::Clock), with warps as processes: a release notes what its warp knows of each warp of its
//! block, and what it learnt of other blocks. Blocks of a kernel that orders this way run one after another, so that the releases
//! to one place lie in the order of their blocks: to know a place's first n releases is to know the work of those blocks.
//!
//! Sequentially consistent fences lie in one order, which orders more: where a thread has fenced so and then passes a barrier, whoever
//! writes behind the barrier releases what was before the fence, as in "all fence, `__syncthreads()`, one thread counts".
//!
//! What a strong read saw before any fence is pending: it orders the strong accesses that follow (which look past the first-level
//! cache, as the threadfence reduction of the programming guide relies on), and after a fence all.
//! Sources: Flanagan & Freund 2009, "FastTrack"; Lustig, Sahasrabuddhe & Giroux 2019, "A Formal Analysis of the NVIDIA PTX Memory
//! Consistency Model".

use std::collections::HashMap;

use crate::ptx::opcode::{Fence, Scope};

/// A thread of the block: warp * 32 + lane.
pub type Who = u16;

/// Places that one warp remembers; one that has seen more takes everything for ordered, as nothing wrong is then reported.
const MAX_PLACES: usize = 64;

/// The first releases to so many places.
#[derive(Clone, Default)]
pub struct Known {
    /// Place, and how many of its releases.
    places: Vec<(u32, u32)>,
    everything: bool,
}

impl Known {
    fn add(&mut self, place: u32, releases: u32) {
        match self.places.iter().position(|p| p.0 == place) {
            Some(n) => self.places[n].1 = self.places[n].1.max(releases),
            None => {
                self.everything |= self.places.len() == MAX_PLACES;
                if !self.everything {
                    self.places.push((place, releases));
                }
            }
        }
    }

    pub fn merge(&mut self, other: &Known) {
        self.everything |= other.everything;
        other.places.iter().for_each(|p| self.add(p.0, p.1));
    }

    pub fn is_empty(&self) -> bool {
        self.places.is_empty() && !self.everything
    }
}

/// What a thread had behind it when it released: stamps of the warps of its block, and other blocks.
struct Release {
    block: u32,
    row: Box<[u32]>,
    known: Known,
    device: bool,
}

/// A place that was released to.
#[derive(Default)]
struct Place {
    /// Releases that other blocks may see, in order.
    log: Vec<u32>,
    /// What those releases knew.
    known: Known,
    /// All releases of the block that runs: the stamp it began with, and what they had behind them.
    block: u32,
    row: Vec<u32>,
    inside: Known,
}

/// Releases of any scope, and of device scope: the newest of each, counted from 1; 0 where there is none.
pub type Fences = [u32; 2];

/// The state of one launch, of one worker.
#[derive(Default)]
pub struct Order {
    warps: usize,
    releases: Vec<Release>,
    places: Vec<Place>,
    /// By address, of global and of shared memory.
    at: [HashMap<u64, u32>; 2],
    /// By thread: the release of its last fence, of its last of device scope. Counted from 1.
    fences: Vec<Fences>,
    /// By warp: the same of its sequentially consistent fences, as it made them; and of its own and others', by the last barrier.
    made: Vec<Fences>,
    heard: Vec<Fences>,
    /// Releases that are two in one.
    both: HashMap<(u32, u32), u32>,
    /// By address, of global and of shared memory: who last released to it by an operation of its own, in the block that began then.
    last: [HashMap<u64, (u32, Who, u32)>; 2],
    /// By warp: what it learnt of other blocks; what it has seen of them, before a fence.
    pub learnt: Vec<Known>,
    pub pending: Vec<Known>,
    /// As [`Clock::known`](super::clock::Clock): stamps of the block's warps that strong accesses may rely on.
    pub rows: Vec<u32>,
}

/// Global or shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    Global,
    Shared,
}

impl Order {
    pub fn begin_launch(&mut self, warps: usize) {
        *self = Order { warps, ..Order::default() };
    }

    /// `before` is the last stamp before the block.
    pub fn begin_block(&mut self, before: u32) {
        self.at[Memory::Shared as usize].clear();
        self.last[Memory::Shared as usize].clear();
        self.both.clear();
        for fences in [&mut self.made, &mut self.heard] {
            fences.clear();
            fences.resize(self.warps, [0; 2]);
        }
        self.fences.clear();
        self.fences.resize(32 * self.warps, [0; 2]);
        for known in [&mut self.learnt, &mut self.pending] {
            known.clear();
            known.resize(self.warps, Known::default());
        }
        self.rows.clear();
        self.rows.resize(self.warps * self.warps, before);
    }

    /// Whether anything of another block is known to the warp.
    pub fn knows_others(&self, warp: usize) -> bool {
        !self.learnt[warp].is_empty() || !self.pending[warp].is_empty()
    }

    /// All warps tell each other what they know.
    pub fn barrier(&mut self) {
        for known in [&mut self.learnt, &mut self.pending] {
            if known.iter().any(|k| !k.is_empty()) {
                let mut all = Known::default();
                known.iter().for_each(|k| all.merge(k));
                known.fill(all);
            }
        }
        let all = (0..self.warps).fold([0; 2], |all, warp| {
            let heard = self.arrive(warp);
            self.two(all, heard)
        });
        self.heard.fill(all);
        self.made.fill([0; 2]);
    }

    /// The sequentially consistent fences that a warp has behind it.
    pub fn arrive(&mut self, warp: usize) -> Fences {
        self.two(self.heard[warp], self.made[warp])
    }

    /// The lanes of a warp have synchronised.
    pub fn warp_barrier(&mut self, warp: usize) {
        self.heard[warp] = self.arrive(warp);
    }

    /// A warp leaves a barrier at which another one with these fences arrived.
    pub fn hear(&mut self, warp: usize, others: Fences) {
        let own = self.arrive(warp);
        self.heard[warp] = self.two(own, others);
    }

    /// What the last fence of a thread had behind it.
    pub fn behind_fence(&self, me: Who) -> Option<(Vec<u32>, Known)> {
        let release = self.fences[usize::from(me)][0].checked_sub(1).map(|n| &self.releases[n as usize])?;
        Some((release.row.to_vec(), release.known.clone()))
    }

    pub fn two(&mut self, a: Fences, b: Fences) -> Fences {
        [self.one_of(a[0], b[0]), self.one_of(a[1], b[1])]
    }

    /// One release that stands for two, of which either may be none.
    fn one_of(&mut self, a: u32, b: u32) -> u32 {
        if a == 0 || b == 0 || a == b {
            return a.max(b);
        }
        let key = (a.min(b), a.max(b));
        if let Some(&both) = self.both.get(&key) {
            return both;
        }
        let (a, b) = (&self.releases[a as usize - 1], &self.releases[b as usize - 1]);
        let mut known = a.known.clone();
        known.merge(&b.known);
        let row = a.row.iter().zip(&b.row).map(|(a, b)| *a.max(b)).collect();
        self.releases.push(Release { block: a.block, row, known, device: a.device && b.device });
        let both = self.releases.len() as u32;
        self.both.insert(key, both);
        both
    }

    fn note(&mut self, block: u32, row: Vec<u32>, warp: usize, device: bool) -> u32 {
        self.releases.push(Release { block, row: row.into(), known: self.learnt[warp].clone(), device });
        self.releases.len() as u32
    }

    /// A fence of the lanes of a warp, which knew `row` of its block.
    pub fn fence(&mut self, warp: usize, lanes: u32, fence: Fence, block: u32, row: Vec<u32>) {
        let device = fence.scope == Scope::Device;
        if device && fence.acquires {
            let Order { learnt, pending, .. } = self;
            learnt[warp].merge(&pending[warp]);
        }
        if !fence.releases {
            return;
        }
        let release = self.note(block, row, warp, device);
        if fence.sequential {
            let made = &mut self.made[warp];
            *made = [release, if device { release } else { made[1] }];
        }
        for l in (0..32).filter(|l| lanes >> l & 1 == 1) {
            let fences = &mut self.fences[32 * warp + l];
            fences[0] = release;
            if device {
                fences[1] = release;
            }
        }
    }

    /// A `.release` operation of a warp that knew `row`: what it has behind it.
    pub fn release(&mut self, place: (Memory, u64), me: Who, scope: Scope, block: u32, row: Vec<u32>) -> u32 {
        let release = self.note(block, row, usize::from(me >> 5), scope == Scope::Device);
        self.last[place.0 as usize].insert(place.1, (block, me, release));
        release
    }

    /// What a strong write of a thread releases without saying so: what was before its last fence; what was before fences that it
    /// has heard of; and, at a place to which it released before, what was before that.
    pub fn fenced(&mut self, place: (Memory, u64), me: Who, scope: Scope, block: u32) -> Option<u32> {
        let (own, heard) = (self.fences[usize::from(me)], self.heard[usize::from(me >> 5)]);
        // What is behind an older fence is behind a newer one of the thread as well.
        let newest =
            |order: &mut Order, n: usize| if own[n] > heard[n] { own[n] } else { order.one_of(own[n], heard[n]) };
        let mut release = match scope {
            // The wider fence may be the older one; what came before it is behind the newer as well, in the block.
            Scope::Device if own[1] != 0 || heard[1] != 0 => newest(self, 1),
            _ => newest(self, 0),
        };
        if let Some(&(then, who, before)) = self.last[place.0 as usize].get(&place.1)
            && (then, who) == (block, me)
        {
            let wide = |number: u32| number != 0 && self.releases[number as usize - 1].device;
            let narrow = scope == Scope::Device && wide(before) && !wide(release);
            release = if narrow { before } else { self.one_of(release, before) };
        }
        (release != 0).then_some(release)
    }

    /// A strong write: an atomic keeps what was released to the place before, a plain store does not.
    pub fn write(&mut self, memory: Memory, address: u64, atomic: bool, scope: Scope, releases: Option<u32>, now: u32) {
        let at = &mut self.at[memory as usize];
        if !atomic {
            at.remove(&address);
        }
        let Some(number) = releases else { return };
        let place = *at.entry(address).or_insert_with(|| {
            self.places.push(Place::default());
            self.places.len() as u32 - 1
        });
        let (release, place) = (&self.releases[number as usize - 1], &mut self.places[place as usize]);
        if place.block != now {
            (place.block, place.inside) = (now, Known::default());
            place.row.clear();
        }
        place.row.resize(release.row.len(), 0);
        place.row.iter_mut().zip(&release.row).for_each(|(a, b)| *a = (*a).max(*b));
        place.inside.merge(&release.known);
        if release.device && scope == Scope::Device && place.log.last() != Some(&number) {
            place.log.push(number);
            place.known.merge(&release.known);
        }
    }

    /// Whether anything was released to a place, for threads of the block that began at `block` or for others.
    pub fn released(&self, memory: Memory, address: u64, scope: Scope, block: u32) -> bool {
        self.at[memory as usize].get(&address).is_some_and(|place| {
            let place = &self.places[*place as usize];
            place.block == block || scope == Scope::Device && !place.log.is_empty()
        })
    }

    /// A strong read of a warp: what was released to the place, by its own block and by others. Gives the stamps of its own block.
    pub fn read(
        &mut self,
        memory: Memory,
        address: u64,
        scope: Scope,
        acquire: bool,
        warp: usize,
        block: u32,
    ) -> Vec<u32> {
        let Some(&number) = self.at[memory as usize].get(&address) else { return Vec::new() };
        let place = &self.places[number as usize];
        let mut seen = Known::default();
        let mut row = Vec::new();
        if place.block == block {
            row.clone_from(&place.row);
            seen.merge(&place.inside);
        }
        if scope == Scope::Device && !place.log.is_empty() {
            seen.merge(&place.known);
            seen.add(number, place.log.len() as u32);
        }
        if acquire {
            self.learnt[warp].merge(&seen);
        }
        self.pending[warp].merge(&seen);
        let own = &mut self.rows[warp * self.warps..][..self.warps];
        own.iter_mut().zip(&row).for_each(|(a, b)| *a = (*a).max(*b));
        row
    }

    /// Whether what warp `warp` of the block that began at `block` did at `stamp` is known to a warp of a later block.
    pub fn knows(&self, known: &Known, block: u32, warp: usize, stamp: u32) -> bool {
        if known.everything {
            return true;
        }
        known.places.iter().any(|&(place, releases)| {
            let log = &self.places[place as usize].log[..releases as usize];
            let of = |number: &u32| &self.releases[*number as usize - 1];
            let first = log.partition_point(|n| of(n).block < block);
            log[first..].iter().map(of).take_while(|r| r.block == block).any(|r| r.row[warp] >= stamp)
        })
    }
}
