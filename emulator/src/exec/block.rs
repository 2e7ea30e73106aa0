//! Runs one block: its warps in turn from barrier to barrier.

use super::cta::{Cta, Outcome};
use super::warp::{Pause, Warp};
use crate::check::clock::Knowledge;
use crate::finding::{Finding, Kind};
use crate::program::{Barrier, Ins, Step};
use crate::ptx::opcode::BarrierKind;
use crate::registers::{NO_PREDICATE, Value};

/// Barriers of a block.
const BARRIERS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    /// At barrier `number`, for the instruction where the warp stands.
    Waiting(usize),
    Done,
}

/// Who has come to a barrier.
#[derive(Default)]
struct Arrivals {
    /// Warps that wait, and those that only announced themselves.
    waiting: Vec<usize>,
    announced: usize,
    /// Threads it takes, where the instruction says so.
    wanted: Option<usize>,
    /// What those who arrived knew.
    knowledge: Vec<Knowledge>,
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

/// Runs the block `number` of the grid to its end.
pub fn run(cta: &mut Cta, warps: &mut [Warp], number: u64) -> Outcome {
    cta.index = cta.shape.block_index(number);
    cta.clock.begin_block(number);
    for warp in warps.iter_mut() {
        warp.begin(cta);
    }
    let mut state = vec![State::Ready; warps.len()];
    let mut order: Vec<usize> = (0..warps.len()).collect();
    let mut random =
        cta.shape.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number + 1).wrapping_mul(0xd134_2543_de82_ef95) | 1;
    let mut arrivals: Vec<Arrivals> = (0..BARRIERS).map(|_| Arrivals::default()).collect();
    loop {
        if cta.shape.seed != 0 {
            shuffle(&mut order, &mut random);
        }
        let mut ran = false;
        for &w in &order {
            if state[w] != State::Ready {
                continue;
            }
            ran = true;
            match warps[w].run(cta)? {
                Pause::Done => {
                    state[w] = State::Done;
                    if let (true, Some(lane)) = (cta.shape.checks, warps[w].copies.under_way()) {
                        let ins = last(cta, &warps[w]);
                        let what = "the thread ends while a cp.async of its own is under way";
                        return Err(warps[w].finding(cta, ins, Kind::MissingCopyWait, lane, what));
                    }
                }
                Pause::Barrier(barrier) => arrive(cta, warps, w, barrier, &mut state, &mut arrivals)?,
                Pause::Turn => {}
            }
            release(cta, warps, &mut state, &mut arrivals)?;
        }
        if state.iter().all(|s| *s == State::Done) {
            return Ok(());
        }
        if !ran {
            return Err(stuck(cta, warps, &state));
        }
    }
}

/// The instruction a warp stands at; a finished one stands at its exit.
fn last<'a>(cta: &Cta<'a>, warp: &Warp) -> &'a Ins {
    &cta.shape.program.code[warp.pc as usize]
}

/// A warp has come to a barrier instruction, where it stands.
fn arrive(
    cta: &mut Cta,
    warps: &mut [Warp],
    w: usize,
    barrier: Barrier,
    state: &mut [State],
    arrivals: &mut [Arrivals],
) -> Outcome {
    let ins = last(cta, &warps[w]);
    let lane = warps[w].active.trailing_zeros() as usize;
    let slot = |n: usize| ins.operands.slot[barrier.first_source() + n];
    // SAFETY: the first source of a compiled barrier, its number, is a row of its warp.
    let number = unsafe { u32::read(&warps[w].registers, slot(0)) }[lane] as usize;
    if number >= BARRIERS {
        let what = format!("barrier {number}; a block has {BARRIERS}");
        return Err(warps[w].finding(cta, ins, Kind::DivergentBarrier, lane, what));
    }
    let here = &mut arrivals[number];
    if barrier.counted {
        // SAFETY: where threads are counted, their number is the source after that.
        let threads = unsafe { u32::read(&warps[w].registers, slot(1)) }[lane] as usize;
        if threads == 0 || !threads.is_multiple_of(32) || threads > cta.shape.warps() * 32 {
            let what = format!("barrier of {threads} threads in a block of {}", cta.shape.threads());
            return Err(warps[w].finding(cta, ins, Kind::DivergentBarrier, lane, what));
        }
        if here.wanted.is_some_and(|n| n != threads) {
            let what = format!("barrier {number} of {threads} threads, where others expect {:?}", here.wanted);
            return Err(warps[w].finding(cta, ins, Kind::DivergentBarrier, lane, what));
        }
        here.wanted = Some(threads);
    }
    if cta.shape.checks && cta.shape.program.partial_barriers {
        here.knowledge.push(cta.clock.arrive(w));
    }
    if barrier.kind == BarrierKind::Arrive {
        here.announced += 1;
        warps[w].pc += 1;
    } else {
        here.waiting.push(w);
        state[w] = State::Waiting(number);
    }
    Ok(())
}

/// Lets go whoever waits at a barrier that is complete.
fn release(cta: &mut Cta, warps: &mut [Warp], state: &mut [State], arrivals: &mut [Arrivals]) -> Outcome {
    let running = state.iter().filter(|s| **s != State::Done).count();
    for here in arrivals.iter_mut().filter(|a| !a.waiting.is_empty()) {
        let come = here.waiting.len() + here.announced;
        let complete = match here.wanted {
            Some(threads) => come * 32 >= threads,
            None => come >= running,
        };
        if !complete {
            continue;
        }
        if here.wanted.is_none() && running < warps.len() && cta.shape.lints {
            let w = here.waiting[0];
            let (ins, lane) = (last(cta, &warps[w]), warps[w].active.trailing_zeros() as usize);
            let gone = warps.len() - running;
            let what = format!("a barrier of the whole block, but {gone} of its {} warps have exited", warps.len());
            return Err(warps[w].finding(cta, ins, Kind::DivergentBarrier, lane, what));
        }
        cta.counts.barriers += 1;
        if cta.shape.checks {
            // Whoever only announces itself knows nothing of the others.
            if here.announced == 0 && here.wanted.is_none_or(|n| n >= cta.shape.threads()) {
                cta.clock.barrier();
            } else {
                for &w in &here.waiting {
                    for row in &here.knowledge {
                        cta.clock.learn(w, row);
                    }
                }
            }
        }
        reduce(cta, warps, &here.waiting);
        for w in std::mem::take(&mut here.waiting) {
            state[w] = State::Ready;
            warps[w].pc += 1;
        }
        *here = Arrivals::default();
    }
    Ok(())
}

/// `bar.red`: the reduction over all threads that wait, for each of them.
fn reduce(cta: &Cta, warps: &mut [Warp], waiting: &[usize]) {
    let kind_of = |w: &Warp| match last(cta, w).step {
        Step::Barrier(b) => b.kind,
        _ => BarrierKind::Sync,
    };
    if waiting.iter().all(|&w| matches!(kind_of(&warps[w]), BarrierKind::Sync)) {
        return;
    }
    let (mut count, mut threads) = (0u32, 0u32);
    for &w in waiting {
        let warp = &warps[w];
        let ins = last(cta, warp);
        let source =
            if kind_of(warp) == BarrierKind::Count { ins.operands.predicate[0] } else { ins.operands.predicate[1] };
        if source != NO_PREDICATE {
            let mut p = warp.registers.predicates[source as usize];
            if ins.operands.negated & 1 == 1 {
                p = !p;
            }
            count += (p & warp.active).count_ones();
            threads += warp.active.count_ones();
        }
    }
    for &w in waiting {
        let kind = kind_of(&warps[w]);
        let ins = last(cta, &warps[w]);
        let warp = &mut warps[w];
        let all = match kind {
            BarrierKind::And => count == threads,
            BarrierKind::Or => count > 0,
            BarrierKind::Count => {
                // SAFETY: slot 0 of a count is a row of its warp, or the sink.
                unsafe { u32::write(&mut warp.registers, ins.operands.slot[0], warp.active, [count; 32]) };
                continue;
            }
            BarrierKind::Sync | BarrierKind::Arrive => continue,
        };
        if ins.operands.predicate[0] != NO_PREDICATE {
            let p = &mut warp.registers.predicates[ins.operands.predicate[0] as usize];
            *p = if all { *p | warp.active } else { *p & !warp.active };
        }
    }
}

/// No warp can go on.
fn stuck(cta: &Cta, warps: &[Warp], state: &[State]) -> Box<Finding> {
    let waiting: Vec<(usize, usize)> = state
        .iter()
        .enumerate()
        .filter_map(|(w, s)| if let State::Waiting(n) = s { Some((w, *n)) } else { None })
        .collect();
    let warp = &warps[waiting.first().map_or(0, |w| w.0)];
    let list: Vec<String> = waiting
        .iter()
        .map(|&(w, n)| format!("warp {w} at barrier {n}, {}", cta.shape.program.place(warps[w].pc)))
        .collect();
    let lane = warp.active.trailing_zeros().min(31) as usize;
    warp.finding(cta, last(cta, warp), Kind::Deadlock, lane, format!("no warp can go on: {}", list.join("; ")))
}
