//! Where the lanes of a warp are when they are not together: sides of a branch that have their turn later, lanes that wait where the
//! sides meet, and lanes held at an instruction that waits for others.
//!
//! Lanes of a branch run one side after the other and meet at its join, as far as nothing on the way waits for lanes elsewhere. An
//! instruction of the whole warp (`bar.warp.sync`, `shfl.sync`, `vote.sync`, ...) waits until every lane that its member masks name
//! and that has not exited executes the same instruction, here or in another branch (PTX ISA 9.0, 9.7.9.6 and 9.7.13.2); to get
//! them there, lanes that wait at a join are let go. Aligned barriers of the block and matrix instructions want all lanes of the
//! warp at the same one, and lanes that wait at a join are not there. To a barrier that is not aligned lanes come as they are, and are
//! parked there until it is complete; the others go on meanwhile, those at a join as well, for the barrier may want them.

use super::cta::{Cta, Outcome};
use super::touch::lanes;
use super::waiting::{State, Waiting};
use super::warp::Warp;
use crate::address::{NOWHERE, Pc};
use crate::finding::{Finding, Kind};
use crate::program::{Ins, Step};
use crate::registers::{ALL, Registers, Value};

impl Warp {
    /// Divides the active lanes over several targets; the last runs first. No lane is active afterwards where [`Warp::resume`] finds none.
    pub(super) fn split(&mut self, cta: &mut Cta, join: Pc, sides: &mut [(Pc, u32)]) -> Outcome {
        let all = self.active;
        let mut meeting = self.join;
        if join != NOWHERE && join != self.join {
            self.stack.push(Waiting { pc: join, mask: all, join: self.join, state: State::Join });
            meeting = join;
        }
        // Lanes that are at the meeting point already only wait there.
        let there = |pc: Pc| pc == meeting && join != NOWHERE;
        let mut running = None;
        for &mut (pc, mask) in sides {
            if there(pc) || mask == 0 {
                continue;
            }
            if let Some((pc, mask)) = running.replace((pc, mask)) {
                self.stack.push(Waiting { pc, mask, join: meeting, state: State::Ready });
            }
        }
        match running {
            Some((pc, mask)) => {
                self.pc = pc;
                self.active = mask;
                self.join = meeting;
                Ok(())
            }
            None => self.meet(cta),
        }
    }

    /// The lanes that run have reached their meeting point: the next ones take over.
    pub(super) fn meet(&mut self, cta: &mut Cta) -> Outcome {
        self.active = 0;
        self.resume(cta).map(drop)
    }

    /// Goes on with other lanes; false when all have exited or are parked.
    pub(super) fn resume(&mut self, cta: &mut Cta) -> Result<bool, Box<Finding>> {
        if !self.holding {
            while let Some(next) = self.stack.pop() {
                if next.mask & self.live != 0 {
                    self.go_on(next);
                    return Ok(true);
                }
            }
            return Ok(false);
        }
        self.resume_among_held(cta)
    }

    /// Lanes that run for long may wait for others of their warp, as one that takes a lock: those have their turn, a side of a branch
    /// that waits or lanes that wait at a join (every lane makes progress: PTX ISA 9.0, 3.1, "independent thread scheduling").
    pub(super) fn let_others(&mut self) {
        let live = self.live;
        let mut above = self.active;
        let mut found = None;
        for (n, w) in self.stack.iter().enumerate().rev() {
            let here = w.mask & live & !above;
            if here != 0 && matches!(w.state, State::Ready | State::Join) {
                found = Some((n, here));
                break;
            }
            above |= w.mask;
        }
        let Some((n, here)) = found else { return };
        let next = Waiting { mask: here, ..self.stack[n] };
        self.stack[n].mask &= !here;
        if self.stack[n].mask & live == 0 {
            self.stack.remove(n);
        }
        // On top, and so above the joins of these lanes.
        self.stack.push(Waiting { pc: self.pc, mask: self.active, join: self.join, state: State::Ready });
        self.go_on(next);
    }

    fn go_on(&mut self, next: Waiting) {
        self.pc = next.pc;
        self.active = next.mask & self.live;
        self.join = next.join;
    }

    #[cold]
    fn resume_among_held(&mut self, cta: &mut Cta) -> Result<bool, Box<Finding>> {
        loop {
            let live = self.live;
            self.stack.iter_mut().for_each(|w| w.mask &= live);
            self.stack.retain(|w| w.mask != 0);
            let parked = self.stack.iter().any(|w| w.state == State::Parked);
            self.holding = parked || self.stack.iter().any(|w| w.state == State::Held);
            if self.stack.is_empty() {
                return Ok(false);
            }
            // A side that has not had its turn, or a join where all are.
            let mut above = 0;
            let mut waiting = None;
            for (n, w) in self.stack.iter().enumerate().rev() {
                let here = w.mask & !above;
                if w.state == State::Ready || w.state == State::Join && here == w.mask {
                    let next = self.stack.remove(n);
                    self.go_on(next);
                    return Ok(true);
                }
                if w.state == State::Join && here != 0 && waiting.is_none() {
                    waiting = Some((n, here));
                }
                above |= w.mask;
            }
            if self.release(cta)? {
                continue;
            }
            // Nobody can go on: those who wait at a join may be who is waited for.
            let aligned = self.stack.iter().find(|w| w.state == State::Held && is_aligned(cta, w.pc)).copied();
            match (aligned, waiting) {
                (held, Some((n, here))) if held.is_none() || parked => {
                    let join = self.stack[n];
                    self.stack[n].mask &= !here;
                    self.go_on(Waiting { mask: here, ..join });
                    return Ok(true);
                }
                // Lanes that are parked come when their barrier is complete.
                _ if parked => return Ok(false),
                (Some(held), _) => return Err(self.apart(cta, held)),
                (None, _) => return Err(self.missing(cta)),
            }
        }
    }

    /// Leaves groups of the active lanes at this barrier; the others go on behind it.
    #[cold]
    pub(super) fn park(&mut self, groups: &[u32]) {
        let (pc, join) = (self.pc, self.join);
        let mut others = self.active;
        for &mask in groups {
            self.stack.push(Waiting { pc, mask, join, state: State::Parked });
            others &= !mask;
        }
        if others != 0 {
            self.stack.push(Waiting { pc: pc + 1, mask: others, join, state: State::Ready });
        }
        self.holding = true;
        self.active = 0;
    }

    /// The barrier at which these lanes were parked is complete.
    #[cold]
    pub(super) fn unpark(&mut self, lanes: u32) {
        for w in self.stack.iter_mut().filter(|w| w.state == State::Parked && w.mask & lanes != 0) {
            (w.pc, w.state) = (w.pc + 1, State::Ready);
        }
    }

    /// Lanes that wait for others of the warp, where no warp can go on.
    pub(super) fn waits_in_vain(&self, cta: &Cta) -> Option<Box<Finding>> {
        let held = |w: &&Waiting| w.state == State::Held;
        let aligned = self.stack.iter().filter(held).find(|w| is_aligned(cta, w.pc)).copied();
        match aligned {
            Some(aligned) => Some(self.apart(cta, aligned)),
            None => self.stack.iter().find(held).map(|_| self.missing(cta)),
        }
    }

    /// Holds the lanes of the mask at this instruction; the other active ones go on behind it.
    #[cold]
    pub(super) fn hold(&mut self, cta: &mut Cta, mask: u32) -> Outcome {
        let (pc, join) = (self.pc, self.join);
        if cta.shape.counters {
            cta.counts.put_off(pc, mask);
        }
        self.holding = true;
        self.stack.push(Waiting { pc, mask, join, state: State::Held });
        let others = self.active & !mask;
        if others != 0 {
            self.stack.push(Waiting { pc: pc + 1, mask: others, join, state: State::Ready });
        }
        self.active = 0;
        self.resume(cta).map(drop)
    }

    /// Lets go whoever has all the lanes that it waits for; whether there was anyone.
    fn release(&mut self, cta: &mut Cta) -> Result<bool, Box<Finding>> {
        let held: Vec<Waiting> = self.stack.iter().filter(|w| w.state == State::Held).copied().collect();
        for first in &held {
            let ins = &cta.shape.program.code[first.pc as usize];
            let alike: Vec<Waiting> = held.iter().filter(|w| same(cta, ins, w.pc)).copied().collect();
            let all = alike.iter().fold(0, |all, w| all | w.mask);
            if is_aligned(cta, first.pc) {
                // It runs when all stand there as one.
                if all == self.live {
                    self.together(first.pc);
                    return Ok(true);
                }
                continue;
            }
            // The largest set of lanes none of which waits for one outside.
            let mut members = [0u32; 32];
            for w in &alike {
                let named = self.members(&cta.shape.program.code[w.pc as usize]);
                lanes(w.mask).for_each(|l| members[l] = named[l]);
            }
            let mut ready = all;
            loop {
                let satisfied = |&l: &usize| members[l] & self.live & !ready == 0;
                let fewer = lanes(ready).filter(satisfied).fold(0, |set, l| set | 1 << l);
                if fewer == ready {
                    break;
                }
                ready = fewer;
            }
            if ready == 0 {
                continue;
            }
            let groups: Vec<(Pc, u32)> =
                alike.iter().map(|w| (w.pc, w.mask & ready)).filter(|(_, mask)| *mask != 0).collect();
            self.execute(cta, &groups)?;
            if ready == self.live && groups.iter().all(|g| g.0 == groups[0].0) {
                self.together(groups[0].0 + 1);
                return Ok(true);
            }
            let mut freed = Vec::new();
            for w in self.stack.iter_mut().filter(|w| w.state == State::Held && w.mask & ready != 0) {
                freed.push(Waiting { pc: w.pc + 1, mask: w.mask & ready, state: State::Ready, ..*w });
                w.mask &= !ready;
            }
            self.stack.extend(freed);
            return Ok(true);
        }
        Ok(false)
    }

    /// All live lanes stand at one place: what lies between them and the joins of all is done with.
    fn together(&mut self, pc: Pc) {
        let live = self.live;
        let outer = self.stack.iter().take_while(|w| w.state == State::Join && w.mask & live == live).count();
        self.stack.truncate(outer);
        let join = self.stack.last().map_or(NOWHERE, |w| w.pc);
        self.stack.push(Waiting { pc, mask: live, join, state: State::Ready });
    }

    /// Executes one instruction of the warp, which lanes may have met in several places.
    fn execute(&mut self, cta: &mut Cta, groups: &[(Pc, u32)]) -> Outcome {
        let code = &cta.shape.program.code;
        let all = groups.iter().fold(0, |all, g| all | g.1);
        if cta.shape.counters {
            groups.iter().for_each(|g| cta.counts.executed(g.0, g.1));
        }
        let Step::WarpWide { exec, .. } = code[groups[0].0 as usize].step else {
            if cta.shape.checks {
                cta.clock.warp_barrier(self.number);
            }
            return Ok(());
        };
        if cta.shape.checks {
            groups.iter().try_for_each(|&(pc, mask)| self.sources_live(cta, &code[pc as usize], mask))?;
        }
        let before = Registers { rows: self.registers.rows.clone(), predicates: self.registers.predicates.clone() };
        for &(pc, mask) in groups {
            // What the others bring stands for their lanes in the operands of this place.
            let ins = &code[pc as usize];
            let mut view = Registers { rows: before.rows.clone(), predicates: before.predicates.clone() };
            for &(other, lanes_there) in groups.iter().filter(|g| g.0 != pc) {
                bring(&before, &mut view, &code[other as usize], ins, lanes_there);
            }
            // SAFETY: the compiler gave it rows and predicates of this warp, of which `view` is a copy, and chose it for this processor.
            unsafe { exec(&mut view, &ins.operands, all) };
            let destination = usize::from(ins.operands.slot[0]);
            for l in lanes(mask) {
                self.registers.rows[destination].0[l] = view.rows[destination].0[l];
            }
            let predicate = usize::from(ins.operands.predicate[0]);
            if let (Some(to), Some(from)) =
                (self.registers.predicates.get_mut(predicate), view.predicates.get(predicate))
            {
                *to = *to & !mask | from & mask;
            }
        }
        Ok(())
    }

    /// The member mask that each lane names at this instruction.
    fn members(&self, ins: &Ins) -> [u32; 32] {
        match ins.step {
            // SAFETY: the compiler put the member mask into a row of this warp.
            Step::WarpWide { members: Some(slot), .. } => unsafe { u32::read(&self.registers, slot) },
            // SAFETY: slot 0 of a compiled `bar.warp.sync` is a row of its warp.
            Step::WarpBarrier => unsafe { u32::read(&self.registers, ins.operands.slot[0]) },
            _ => [ALL; 32],
        }
    }

    /// A barrier of the block, or a matrix instruction, that part of the warp does not reach.
    fn apart(&self, cta: &Cta, held: Waiting) -> Box<Finding> {
        let ins = &cta.shape.program.code[held.pc as usize];
        let what = if matches!(ins.step, Step::Barrier(_)) { "bar.sync" } else { "a matrix instruction" };
        self.diverged(cta, ins, held.mask, what)
    }

    pub(super) fn diverged(&self, cta: &Cta, ins: &Ins, mask: u32, what: &str) -> Box<Finding> {
        let missing = self.live & !mask;
        let lane = mask.trailing_zeros() as usize;
        let place = self.stack.iter().rev().find(|w| w.mask & missing != 0).map(|w| cta.shape.program.place(w.pc));
        let place = place.map_or_else(|| "elsewhere".into(), |place| format!("at {place}"));
        let missing = format!("{what} reached by lanes {mask:#010x} of the warp; lanes {missing:#010x} are {place}");
        self.finding(cta, ins, Kind::DivergentBarrier, lane, missing)
    }

    /// Lanes wait for lanes that never come.
    fn missing(&self, cta: &Cta) -> Box<Finding> {
        let held = self.stack.iter().rev().find(|w| w.state == State::Held).copied();
        let held = held.unwrap_or(Waiting { pc: self.pc, mask: self.live, join: NOWHERE, state: State::Held });
        let ins = &cta.shape.program.code[held.pc as usize];
        let members = self.members(ins);
        let first = lanes(held.mask).find(|&l| members[l] & self.live & !held.mask != 0);
        let lane = first.unwrap_or(held.mask.trailing_zeros() as usize & 31);
        let absent = (members[lane] & self.live & !held.mask).trailing_zeros();
        let place = self.stack.iter().rev().find(|w| w.mask >> (absent & 31) & 1 == 1);
        let place = place.map_or_else(String::new, |w| format!(", but waits at {}", cta.shape.program.place(w.pc)));
        let what = format!("member mask {:#010x} names lane {absent}, which does not come here{place}", members[lane]);
        self.finding(cta, ins, Kind::DivergentBarrier, lane, what)
    }
}

/// Whether all lanes of the warp must execute it as one.
fn is_aligned(cta: &Cta, pc: Pc) -> bool {
    match cta.shape.program.code[pc as usize].step {
        Step::Barrier(barrier) => barrier.aligned,
        step => matches!(step, Step::WarpWide { members: None, .. }),
    }
}

/// Whether the instruction at `pc` is the same instruction as `ins`, with whatever operands.
fn same(cta: &Cta, ins: &Ins, pc: Pc) -> bool {
    let other = &cta.shape.program.code[pc as usize];
    match (ins.step, other.step) {
        _ if other.pc == ins.pc => true,
        (Step::WarpBarrier, Step::WarpBarrier) => true,
        (Step::WarpWide { exec: a, members: Some(_) }, Step::WarpWide { exec: b, members: Some(_) }) => {
            std::ptr::fn_addr_eq(a, b) && ins.operands.extra == other.operands.extra
        }
        _ => false,
    }
}

/// Copies the operands of `from` into those of `to`, for the lanes that are there.
fn bring(before: &Registers, view: &mut Registers, from: &Ins, to: &Ins, lanes_there: u32) {
    let (a, b) = (&from.operands, &to.operands);
    let wide = wide_slot(to);
    for n in 0..a.slot.len() {
        let (source, target) = (usize::from(a.slot[n]), usize::from(b.slot[n]));
        for l in lanes(lanes_there) {
            if wide == Some(n) {
                // 64-bit lane l lies in words 2l and 2l + 1 of two rows.
                for word in [2 * l, 2 * l + 1] {
                    view.rows[target + word / 32].0[word % 32] = before.rows[source + word / 32].0[word % 32];
                }
            } else {
                view.rows[target].0[l] = before.rows[source].0[l];
            }
        }
    }
    for n in 0..a.predicate.len() {
        let (source, target) = (usize::from(a.predicate[n]), usize::from(b.predicate[n]));
        let (Some(&value), Some(to_bits)) = (before.predicates.get(source), view.predicates.get_mut(target)) else {
            continue;
        };
        // The only source predicate of these instructions may be negated in one place and not in the other.
        let value = if a.negated != b.negated { !value } else { value };
        *to_bits = *to_bits & !lanes_there | value & lanes_there;
    }
}

/// The operand of 64 bits, where there is one: `match` of `.b64`.
fn wide_slot(ins: &Ins) -> Option<usize> {
    (ins.wide_operand != 0).then_some(usize::from(ins.wide_operand))
}
