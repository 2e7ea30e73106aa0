//! Runs one block: its warps in turn from barrier to barrier.

use super::cta::{Cta, Outcome};
use super::mbarrier;
use super::phases::Waits;
use super::touch;
use super::warp::{Pause, Warp};
use crate::address::Pc;
use crate::check::clock::Knowledge;
use crate::finding::{Finding, Kind};
use crate::program::{Barrier, Ins, Step};
use crate::ptx::opcode::BarrierKind;
use crate::registers::{NO_PREDICATE, Value};

/// Barriers of a block.
const BARRIERS: usize = 16;

/// Turns of all warps, 32 tries each, in which every one only waits for phases of mbarriers that do not complete: a deadlock. Somebody who
/// computes meanwhile, however long, begins the count anew.
const MOST_IN_VAIN: u32 = 1 << 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// All its lanes are at a barrier, for the instruction where the warp stands.
    Waiting,
    /// Its lanes are at barriers apart from each other, or wait for such.
    Parked,
    Done,
}

/// Lanes of a warp that wait at a barrier.
#[derive(Clone, Copy)]
struct Group {
    warp: usize,
    pc: Pc,
    lanes: u32,
    /// The warp waits as one; else its lanes are parked.
    whole: bool,
}

/// Lanes of a warp that are counted at a barrier, once each.
struct Counted {
    warp: usize,
    lanes: u32,
    /// None of the warp is missing: it counts as 32 threads, however many it has.
    whole: bool,
}

/// Who has come to a barrier.
#[derive(Default)]
struct Arrivals {
    waiting: Vec<Group>,
    /// Some only announced themselves.
    announced: bool,
    /// Threads it takes, where the instruction says so, and those that have come.
    wanted: Option<usize>,
    counted: Vec<Counted>,
    /// What those who arrived knew.
    knowledge: Vec<Knowledge>,
}

impl Arrivals {
    /// Nobody has come; room is kept.
    fn clear(&mut self) {
        self.waiting.clear();
        self.counted.clear();
        self.knowledge.clear();
        (self.announced, self.wanted) = (false, None);
    }

    fn count(&mut self, warp: usize, lanes: u32) {
        let others = self.counted.iter_mut().find(|c| c.warp == warp && !c.whole && c.lanes & lanes == 0);
        match others {
            Some(others) => others.lanes |= lanes,
            None => self.counted.push(Counted { warp, lanes, whole: false }),
        }
    }

    /// Whether all have come. Threads that have exited are waited for by no barrier.
    fn complete(&mut self, warps: &[Warp]) -> bool {
        for c in &mut self.counted {
            c.whole |= warps[c.warp].live & !c.lanes == 0;
        }
        match self.wanted {
            Some(threads) => {
                let come = |c: &Counted| if c.whole { 32 } else { c.lanes.count_ones() as usize };
                self.counted.iter().map(come).sum::<usize>() >= threads
            }
            None => {
                let waiting: u32 = self.waiting.iter().map(|g| g.lanes.count_ones()).sum();
                waiting >= warps.iter().map(|w| w.live.count_ones()).sum()
            }
        }
    }
}

/// Shuffles in place; a small generator is enough to vary schedules.
pub fn shuffle<T>(items: &mut [T], state: &mut u64) {
    for i in (1..items.len()).rev() {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        items.swap(i, (*state % (i as u64 + 1)) as usize);
    }
}

/// The lanes that name one barrier, and with how many threads where they are counted.
type Named = (usize, Option<usize>, u32);

/// The barriers that the lanes of one instruction name: almost always one, for which nothing is allocated.
struct Groups {
    first: Named,
    more: Vec<Named>,
}

impl Groups {
    fn len(&self) -> usize {
        1 + self.more.len()
    }

    fn iter(&self) -> impl Iterator<Item = &Named> {
        std::iter::once(&self.first).chain(&self.more)
    }
}

/// Runs the block `number` of the grid to its end.
pub fn run(cta: &mut Cta, warps: &mut [Warp], number: u64) -> Outcome {
    cta.index = cta.shape.block_index(number);
    cta.clock.begin_block(number);
    cta.mbarriers.clear();
    cta.tracked.clear();
    cta.waits = Waits::default();
    for warp in warps.iter_mut() {
        warp.begin(cta);
    }
    let mut state = vec![State::Ready; warps.len()];
    let mut order: Vec<usize> = (0..warps.len()).collect();
    let mut random =
        cta.shape.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number + 1).wrapping_mul(0xd134_2543_de82_ef95) | 1;
    let mut rounds_in_vain = 0;
    let mut arrivals: Vec<Arrivals> = (0..BARRIERS).map(|_| Arrivals::default()).collect();
    loop {
        if cta.shape.seed != 0 {
            shuffle(&mut order, &mut random);
        }
        let (mut ran, mut waiting) = (false, true);
        let changes = cta.waits.changes;
        for &w in &order {
            if state[w] != State::Ready {
                continue;
            }
            ran = true;
            let failed = cta.waits.failed;
            let pause = warps[w].run(cta)?;
            waiting &= pause == Pause::Turn && cta.waits.failed > failed;
            match pause {
                Pause::Done => {
                    state[w] = State::Done;
                    if let (true, Some(lane)) = (cta.shape.checks, warps[w].copies.under_way()) {
                        let ins = last(cta, &warps[w]);
                        let what = "the thread ends while a cp.async of its own is under way";
                        return Err(warps[w].finding(cta, ins, Kind::MissingCopyWait, lane, what));
                    }
                }
                Pause::Barrier(barrier) => state[w] = arrive(cta, &mut warps[w], barrier, &mut arrivals)?,
                Pause::Parked => state[w] = State::Parked,
                Pause::Turn => {}
            }
            release(cta, warps, &mut state, &mut arrivals)?;
        }
        if state.iter().all(|s| *s == State::Done) {
            return match mbarrier::never_waited_for(cta, warps).filter(|_| cta.shape.checks) {
                Some(finding) => Err(finding),
                None => Ok(()),
            };
        }
        rounds_in_vain = if ran && waiting && cta.waits.changes == changes { rounds_in_vain + 1 } else { 0 };
        if rounds_in_vain > MOST_IN_VAIN
            && let Some(finding) = mbarrier::in_vain(cta, warps)
        {
            return Err(finding);
        }
        if !ran {
            return Err(stuck(cta, warps, &arrivals));
        }
    }
}

/// The instruction a warp stands at; a finished one stands at its exit.
fn last<'a>(cta: &Cta<'a>, warp: &Warp) -> &'a Ins {
    &cta.shape.program.code[warp.pc as usize]
}

/// Lanes of a warp have come to a barrier instruction, where it stands; what becomes of the warp.
fn arrive(cta: &mut Cta, warp: &mut Warp, barrier: Barrier, arrivals: &mut [Arrivals]) -> Result<State, Box<Finding>> {
    let ins = last(cta, warp);
    let whole = warp.arriving == warp.live;
    let groups = groups(warp, ins, barrier, warp.arriving);
    for &(number, threads, lanes) in groups.iter() {
        let lane = lanes.trailing_zeros() as usize;
        if number >= BARRIERS {
            let what = format!("barrier {number}; a block has {BARRIERS}");
            return Err(warp.finding(cta, ins, Kind::DivergentBarrier, lane, what));
        }
        let here = &mut arrivals[number];
        if let Some(threads) = threads {
            if threads == 0 || !threads.is_multiple_of(32) || threads > cta.shape.warps() * 32 {
                let what = format!("barrier of {threads} threads in a block of {}", cta.shape.threads());
                return Err(warp.finding(cta, ins, Kind::DivergentBarrier, lane, what));
            }
            if here.wanted.is_some_and(|n| n != threads) {
                let what = format!("barrier {number} of {threads} threads, where others expect {:?}", here.wanted);
                return Err(warp.finding(cta, ins, Kind::DivergentBarrier, lane, what));
            }
            here.wanted = Some(threads);
        }
        here.count(warp.number, lanes);
        if cta.shape.checks && cta.shape.program.partial_barriers {
            here.knowledge.push(cta.clock.arrive(warp.number));
        }
        if barrier.kind == BarrierKind::Arrive {
            here.announced = true;
        } else {
            here.waiting.push(Group { warp: warp.number, pc: warp.pc, lanes, whole: whole && groups.len() == 1 });
        }
    }
    Ok(match barrier.kind {
        BarrierKind::Arrive => {
            warp.pc += 1;
            State::Ready
        }
        _ if whole && groups.len() == 1 => State::Waiting,
        _ => {
            warp.park(&groups.iter().map(|g| g.2).collect::<Vec<u32>>());
            State::Ready
        }
    })
}

/// The barriers that lanes name, each with the threads that it takes, where they are counted, and the lanes. All lanes of an aligned
/// one name the same.
fn groups(warp: &Warp, ins: &Ins, barrier: Barrier, lanes: u32) -> Groups {
    let slot = |n: usize| ins.operands.slot[barrier.first_source() + n];
    // SAFETY: the first source of a compiled barrier, its number, is a row of its warp; where threads are counted, so is the next.
    let (numbers, threads) =
        unsafe { (u32::read(&warp.registers, slot(0)), barrier.counted.then(|| u32::read(&warp.registers, slot(1)))) };
    let named = |l: usize| (numbers[l] as usize, threads.map(|t| t[l] as usize));
    let (number, wanted) = named(lanes.trailing_zeros() as usize);
    let mut all = Groups { first: (number, wanted, lanes), more: Vec::new() };
    if barrier.aligned {
        return all;
    }
    all.first.2 = 0;
    for l in touch::lanes(lanes) {
        let (number, wanted) = named(l);
        match std::iter::once(&mut all.first).chain(&mut all.more).find(|g| (g.0, g.1) == (number, wanted)) {
            Some(group) => group.2 |= 1 << l,
            None => all.more.push((number, wanted, 1 << l)),
        }
    }
    all
}

/// Lets go whoever waits at a barrier that is complete.
fn release(cta: &mut Cta, warps: &mut [Warp], state: &mut [State], arrivals: &mut [Arrivals]) -> Outcome {
    let running = state.iter().filter(|s| **s != State::Done).count();
    for here in arrivals.iter_mut().filter(|a| !a.waiting.is_empty()) {
        if !here.complete(warps) {
            continue;
        }
        if here.wanted.is_none() && running < warps.len() && cta.shape.lints {
            let Group { warp: w, pc, lanes, .. } = here.waiting[0];
            let (ins, lane) = (&cta.shape.program.code[pc as usize], lanes.trailing_zeros() as usize);
            let gone = warps.len() - running;
            let what = format!("a barrier of the whole block, but {gone} of its {} warps have exited", warps.len());
            return Err(warps[w].finding(cta, ins, Kind::DivergentBarrier, lane, what));
        }
        cta.counts.barriers += 1;
        if cta.shape.checks {
            // Whoever only announces itself knows nothing of the others.
            if !here.announced && here.wanted.is_none_or(|n| n >= cta.shape.threads()) {
                cta.clock.barrier();
            } else {
                for group in &here.waiting {
                    for row in &here.knowledge {
                        cta.clock.learn(group.warp, row);
                    }
                }
            }
        }
        reduce(cta, warps, &here.waiting);
        for group in &here.waiting {
            let w = group.warp;
            if group.whole {
                warps[w].pc += 1;
            } else {
                warps[w].unpark(group.lanes);
            }
            state[w] = State::Ready;
        }
        here.clear();
    }
    Ok(())
}

/// `bar.red`: the reduction over all threads that wait, for each of them.
fn reduce(cta: &Cta, warps: &mut [Warp], waiting: &[Group]) {
    let at = |group: &Group| {
        let ins = &cta.shape.program.code[group.pc as usize];
        let Step::Barrier(barrier) = ins.step else { return (ins, BarrierKind::Sync) };
        (ins, barrier.kind)
    };
    if waiting.iter().all(|group| at(group).1 == BarrierKind::Sync) {
        return;
    }
    let (mut count, mut threads) = (0u32, 0u32);
    for group in waiting {
        let (ins, kind) = at(group);
        let source = ins.operands.predicate[usize::from(kind != BarrierKind::Count)];
        if source != NO_PREDICATE {
            let mut p = warps[group.warp].registers.predicates[source as usize];
            if ins.operands.negated & 1 == 1 {
                p = !p;
            }
            count += (p & group.lanes).count_ones();
            threads += group.lanes.count_ones();
        }
    }
    for group in waiting {
        let (ins, kind) = at(group);
        let registers = &mut warps[group.warp].registers;
        let all = match kind {
            BarrierKind::And => count == threads,
            BarrierKind::Or => count > 0,
            BarrierKind::Count => {
                // SAFETY: slot 0 of a count is a row of its warp, or the sink.
                unsafe { u32::write(registers, ins.operands.slot[0], group.lanes, [count; 32]) };
                continue;
            }
            BarrierKind::Sync | BarrierKind::Arrive => continue,
        };
        if ins.operands.predicate[0] != NO_PREDICATE {
            let p = &mut registers.predicates[ins.operands.predicate[0] as usize];
            *p = if all { *p | group.lanes } else { *p & !group.lanes };
        }
    }
}

/// No warp can go on.
fn stuck(cta: &Cta, warps: &[Warp], arrivals: &[Arrivals]) -> Box<Finding> {
    if let Some(finding) = warps.iter().find_map(|warp| warp.waits_in_vain(cta)) {
        return finding;
    }
    let mut waiting: Vec<(usize, Group)> = Vec::new();
    for (number, here) in arrivals.iter().enumerate() {
        waiting.extend(here.waiting.iter().map(|group| (number, *group)));
    }
    waiting.sort_by_key(|(_, group)| (group.warp, group.lanes.trailing_zeros()));
    let list: Vec<String> = waiting
        .iter()
        .map(|&(number, Group { warp, pc, lanes, whole })| {
            let who = if whole { String::new() } else { format!("lanes {lanes:#010x} of ") };
            format!("{who}warp {warp} at barrier {number}, {}", cta.shape.program.place(pc))
        })
        .collect();
    let what = format!("no warp can go on: {}", list.join("; "));
    let first = waiting.first().map_or((0, 0, 0), |(_, g)| (g.warp, g.pc, g.lanes.trailing_zeros().min(31) as usize));
    warps[first.0].finding(cta, &cta.shape.program.code[first.1 as usize], Kind::Deadlock, first.2, what)
}
