//! One warp: its registers, where its lanes are, and the loop that runs it to its next barrier.

use super::copies::Copies;
use super::cta::{Cta, Outcome};
use super::touch::lanes;
use super::waiting::Waiting;
use crate::address::{NOWHERE, Pc};
use crate::finding::{Finding, Kind};
use crate::ops::Class;
use crate::ops::warp::shuffle_source;
use crate::program::{Access, Barrier, Ins, LaneMask, Special, Step};
use crate::registers::{ALL, NO_PREDICATE, Registers, Row, Value, ZERO};

/// Instructions after which another warp gets its turn even without a barrier, so that spinning warps cannot starve the rest.
const TURN: u64 = 1 << 16;

/// Branches after which others have theirs where memory is read that they may write meanwhile.
const POLLS: u64 = 32;

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// All lanes have exited.
    Done,
    /// At the barrier instruction at `pc`, which comes next, for the lanes that it says are `arriving`.
    Barrier(Barrier),
    /// All lanes that have not exited are parked at barriers of the block, or wait for such.
    Parked,
    /// Its turn is over.
    Turn,
}

pub struct Warp {
    pub registers: Registers,
    pub number: usize,
    pub pc: Pc,
    /// Lanes that run now, and where they meet the others.
    pub active: u32,
    pub(super) join: Pc,
    pub(super) stack: Vec<Waiting>,
    /// Lanes may be held, in an entry of the stack.
    pub(super) holding: bool,
    /// Those of the active lanes that come to a barrier of the block.
    pub arriving: u32,
    /// Lanes that have not exited, and those that began.
    pub live: u32,
    begun: u32,
    pub copies: Copies,
    /// Local memory, lane after lane, and which bytes were written.
    pub local: Vec<u8>,
    pub local_written: Vec<bool>,
}

impl Warp {
    pub fn new(number: usize, cta: &Cta) -> Self {
        let program = cta.shape.program;
        let mut rows = vec![ZERO; program.rows + 2];
        for (slot, row) in &program.constants {
            rows[*slot as usize] = *row;
        }
        let local = 32 * program.local_bytes as usize;
        let mut predicates = vec![0; program.predicates + 1];
        predicates[1] = ALL; // the `TRUE` of `compile`
        Warp {
            registers: Registers { rows, predicates },
            number,
            pc: 0,
            active: 0,
            join: NOWHERE,
            stack: Vec::new(),
            holding: false,
            arriving: 0,
            live: 0,
            begun: 0,
            copies: Copies::default(),
            local: vec![0; local],
            local_written: vec![false; if cta.shape.checks { local } else { 0 }],
        }
    }

    /// Puts the warp at the start of the block that `cta` is about to run.
    pub fn begin(&mut self, cta: &Cta) {
        let shape = cta.shape;
        let left = shape.threads() - self.number * 32;
        self.live = if left >= 32 { ALL } else { (1 << left) - 1 };
        self.begun = self.live;
        self.active = self.live;
        self.pc = 0;
        self.join = NOWHERE;
        self.stack.clear();
        self.holding = false;
        self.copies.clear();
        self.local_written.fill(false);
        for &slot in &shape.program.undefined {
            self.registers.rows[slot as usize] = ZERO;
        }
        for &(slot, special) in &shape.program.specials {
            self.registers.rows[slot as usize] = self.special(special, cta);
        }
    }

    fn special(&self, special: Special, cta: &Cta) -> Row {
        let shape = cta.shape;
        let thread = |l: usize| shape.thread_index((self.number * 32 + l) as u16);
        Row(match special {
            Special::Tid(axis) => std::array::from_fn(|l| thread(l)[axis as usize]),
            Special::Ntid(axis) => [shape.block[axis as usize]; 32],
            Special::Ctaid(axis) => [cta.index[axis as usize]; 32],
            Special::Nctaid(axis) => [shape.grid[axis as usize]; 32],
            Special::LaneId => std::array::from_fn(|l| l as u32),
            Special::WarpId => [self.number as u32; 32],
            Special::NWarpId => [shape.warps() as u32; 32],
            Special::SmId => [cta.worker; 32],
            Special::NSmId => [shape.multiprocessors; 32],
            Special::LaneMask(kind) => std::array::from_fn(|l| {
                let bit = 1u32 << l;
                match kind {
                    LaneMask::Eq => bit,
                    LaneMask::Lt => bit - 1,
                    LaneMask::Le => (bit - 1) | bit,
                    LaneMask::Ge => !(bit - 1),
                    LaneMask::Gt => !((bit - 1) | bit),
                }
            }),
            Special::DynamicShared => [shape.dynamic_shared as u32; 32],
            Special::TotalShared => [shape.shared_bytes as u32; 32],
        })
    }

    /// The thread of a lane within the block.
    #[inline(always)]
    pub fn who(&self, lane: usize) -> u16 {
        (self.number * 32 + lane) as u16
    }

    /// The lanes of `active` for which the guard of `ins` holds.
    #[inline(always)]
    fn guarded(&self, ins: &Ins) -> u32 {
        if ins.guard == NO_PREDICATE {
            return self.active;
        }
        let p = self.registers.predicates[ins.guard as usize];
        self.active & if ins.guard_negated { !p } else { p }
    }

    /// Runs until the warp waits, ends, or has had its turn.
    pub fn run(&mut self, cta: &mut Cta) -> Result<Pause, Box<Finding>> {
        if self.active == 0 && !self.resume(cta)? {
            return Ok(self.idle());
        }
        let code = &cta.shape.program.code[..];
        let counting = cta.shape.counters;
        let mut turn = TURN;
        let mut polled = false;
        loop {
            let ins = &code[self.pc as usize];
            let mask = self.guarded(ins);
            cta.executed += 1;
            if counting {
                cta.counts.executed(ins.pc, mask);
            }
            match ins.step {
                Step::Compute(exec) => {
                    if mask != 0 {
                        // SAFETY: the compiler gave it rows and predicates of this warp, and chose it for this processor.
                        unsafe { exec(&mut self.registers, &ins.operands, mask) };
                    }
                }
                Step::Elements(ref access) => {
                    polled |= !access.memory.order.weak();
                    self.access(cta, ins, access, mask)?;
                }
                Step::Atomic(ref access) => {
                    polled = true;
                    self.access(cta, ins, access, mask)?;
                }
                Step::Matrices(ref access) => self.access(cta, ins, access, mask)?,
                Step::Fragment(ref access) => self.access(cta, ins, access, mask)?,
                Step::Copy(ref access) => self.access(cta, ins, access, mask)?,
                Step::CopyGroups(ref access) => self.access(cta, ins, access, mask)?,
                Step::BulkCopy(ref access) => self.access(cta, ins, access, mask)?,
                Step::Mbarrier(ref access) => {
                    polled |= access.memory.waits();
                    self.access(cta, ins, access, mask)?;
                }
                Step::Call(run) => self.access(cta, ins, &Access { run, memory: () }, mask)?,
                Step::WarpWide { exec, members } => {
                    if mask != 0 {
                        if !self.all_here(cta, ins, members, mask)? {
                            self.hold(cta, mask)?;
                            if self.active == 0 {
                                return Ok(self.idle());
                            }
                            continue;
                        }
                        if self.live != self.begun && cta.shape.checks {
                            self.sources_live(cta, ins, mask)?;
                        }
                        // SAFETY: as for `Compute`; all lanes that it exchanges values with are here.
                        unsafe { exec(&mut self.registers, &ins.operands, mask) };
                    }
                }
                Step::Join => {
                    if self.pc == self.join {
                        self.meet(cta)?;
                        if self.active == 0 {
                            return Ok(self.idle());
                        }
                        continue;
                    }
                }
                Step::Branch { target, join } => {
                    turn = turn.saturating_sub(if polled { TURN / POLLS } else { 1 });
                    if turn == 0 {
                        self.let_others();
                        // It runs again when the warp has its next turn.
                        if counting {
                            cta.counts.put_off(ins.pc, mask);
                        }
                        return Ok(Pause::Turn);
                    }
                    let not = self.active & !mask;
                    if not == 0 {
                        self.pc = target;
                        continue;
                    }
                    if mask != 0 {
                        if counting {
                            cta.counts.diverged(ins.pc);
                        }
                        self.split(cta, join, &mut [(self.pc + 1, not), (target, mask)])?;
                        if self.active == 0 {
                            return Ok(self.idle());
                        }
                        continue;
                    }
                }
                Step::BranchTable { table, join } => {
                    if mask != 0 {
                        self.branch_table(cta, ins, table as usize, join, mask)?;
                        if self.active == 0 {
                            return Ok(self.idle());
                        }
                        continue;
                    }
                }
                Step::Exit => {
                    if mask != 0 {
                        self.live &= !mask;
                        self.active &= !mask;
                        if self.active == 0 {
                            if !self.resume(cta)? {
                                return Ok(self.idle());
                            }
                            continue;
                        }
                    }
                }
                Step::Barrier(barrier) => {
                    if mask != 0 {
                        if barrier.aligned && mask != self.live {
                            self.hold(cta, mask)?;
                            if self.active == 0 {
                                return Ok(self.idle());
                            }
                            continue;
                        }
                        self.arriving = mask;
                        return Ok(Pause::Barrier(barrier));
                    }
                }
                Step::WarpBarrier => {
                    if mask != 0 {
                        // SAFETY: slot 0 of a compiled `bar.warp.sync` is a row of its warp.
                        let members = unsafe { u32::read(&self.registers, ins.operands.slot[0]) };
                        if !self.named_here(cta, ins, members, mask)? {
                            self.hold(cta, mask)?;
                            if self.active == 0 {
                                return Ok(self.idle());
                            }
                            continue;
                        }
                        if cta.shape.checks {
                            cta.clock.warp_barrier(self.number);
                        }
                    }
                }
                Step::Clock { wide } => {
                    let t = cta.executed;
                    // SAFETY: slot 0 of a compiled clock read is a row of its warp, of 64 bits where `wide`.
                    unsafe {
                        if wide {
                            u64::write(&mut self.registers, ins.operands.slot[0], mask, [t; 32]);
                        } else {
                            u32::write(&mut self.registers, ins.operands.slot[0], mask, [t as u32; 32]);
                        }
                    }
                }
                Step::Fence(fence) => {
                    if mask != 0 && cta.shape.checks {
                        cta.clock.fence(self.number, mask, fence);
                    }
                }
                Step::Nothing => {}
                Step::NoFunction => {
                    if mask != 0 {
                        let what = "a call through an address that is no function of this type, or that calls itself";
                        return Err(self.finding(cta, ins, Kind::Trap, mask.trailing_zeros() as usize, what));
                    }
                }
                Step::Trap => {
                    if mask != 0 {
                        return Err(self.finding(cta, ins, Kind::Trap, mask.trailing_zeros() as usize, "trap"));
                    }
                }
            }
            self.pc += 1;
        }
    }

    /// Runs a memory instruction for the lanes of the mask.
    #[inline(always)]
    fn access<M>(&mut self, cta: &mut Cta, ins: &Ins, access: &Access<M>, mask: u32) -> Outcome {
        if mask == 0 {
            return Ok(());
        }
        // SAFETY: the compiler gave it rows and predicates of this warp, and chose it for this processor.
        unsafe { (access.run)(self, cta, ins, &access.memory, mask) }
    }

    /// What a warp is that has no lane to go on with.
    fn idle(&self) -> Pause {
        if self.live == 0 { Pause::Done } else { Pause::Parked }
    }

    fn branch_table(&mut self, cta: &mut Cta, ins: &Ins, table: usize, join: Pc, mask: u32) -> Outcome {
        // SAFETY: slot 0 of a compiled `brx.idx` is a row of its warp.
        let index = unsafe { u32::read(&self.registers, ins.operands.slot[0]) };
        let targets = &cta.shape.program.tables[table];
        let mut sides: Vec<(Pc, u32)> = vec![(self.pc + 1, self.active & !mask)];
        for l in lanes(mask) {
            let Some(&pc) = targets.get(index[l] as usize) else {
                let what = format!("brx.idx: index {} of {} targets", index[l], targets.len());
                return Err(self.finding(cta, ins, Kind::OutOfBounds, l, what));
            };
            match sides.iter_mut().find(|s| s.0 == pc) {
                Some(side) => side.1 |= 1 << l,
                None => sides.push((pc, 1 << l)),
            }
        }
        sides.retain(|s| s.1 != 0);
        if let [(pc, _)] = sides[..] {
            self.pc = pc;
            return Ok(());
        }
        self.split(cta, join, &mut sides)
    }

    /// Whether all lanes that an instruction of the warp waits for are here.
    #[inline(always)]
    fn all_here(&self, cta: &Cta, ins: &Ins, members: Option<u16>, mask: u32) -> Result<bool, Box<Finding>> {
        match members {
            // SAFETY: the compiler put the member mask into a row of this warp.
            Some(slot) => self.named_here(cta, ins, unsafe { u32::read(&self.registers, slot) }, mask),
            None if mask == ALL => Ok(true),
            None if self.live != ALL => Err(self.diverged(cta, ins, mask, "a matrix instruction")),
            None => Ok(false),
        }
    }

    /// Each lane's mask must name itself; whether all that it names, and that have not exited, are here.
    fn named_here(&self, cta: &Cta, ins: &Ins, members: [u32; 32], mask: u32) -> Result<bool, Box<Finding>> {
        let mut missing = 0;
        for l in lanes(mask) {
            if members[l] >> l & 1 == 0 {
                let what = format!("member mask {:#010x} leaves out lane {l} itself", members[l]);
                return Err(self.finding(cta, ins, Kind::DivergentBarrier, l, what));
            }
            missing |= members[l];
        }
        Ok(missing & self.live & !mask == 0)
    }

    /// No lane takes a value from one that has exited: it would be undefined.
    #[cold]
    pub(super) fn sources_live(&self, cta: &Cta, ins: &Ins, mask: u32) -> Outcome {
        let gone = self.begun & !self.live;
        if gone == 0 || ins.class != Class::Shuffle {
            return Ok(());
        }
        let slot = ins.operands.slot;
        // SAFETY: slots 2 and 3 of a compiled `shfl` are rows of its warp; other instructions have no source lanes.
        let (b, c) = unsafe { (u32::read(&self.registers, slot[2]), u32::read(&self.registers, slot[3])) };
        for l in lanes(mask) {
            if let Some(from) = shuffle_source(ins.operands.extra, l, b[l], c[l]).filter(|from| gone >> from & 1 == 1) {
                let what = format!("shfl takes the value of lane {from}, which has exited");
                return Err(self.finding(cta, ins, Kind::DivergentBarrier, l, what));
            }
        }
        Ok(())
    }
}
