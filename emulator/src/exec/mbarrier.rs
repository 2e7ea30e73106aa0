//! `mbarrier`: arrivals release, a wait that finds its phase complete acquires. Copies that arrive by themselves land as late as the rules
//! allow: when somebody waits for them in vain.

use super::cta::{Cta, Outcome};
use super::phases::{Arrives, MOST, Mbarrier, Tracked, Word};
use super::shared;
use super::touch::{Touch, addresses, lanes};
use super::warp::Warp;
use crate::address::{SHARED, SHARED_FIRST, WINDOW};
use crate::check::clock::{Knowledge, Write};
use crate::finding::{Finding, Kind};
use crate::program::{Addressing, Ins, Mbarriers};
use crate::ptx::opcode::MbarrierKind;
use crate::registers::{NO_PREDICATE, Value};

/// Offsets in shared memory of the objects that lanes name.
pub fn objects(
    warp: &Warp,
    cta: &Cta,
    ins: &Ins,
    (slot, addressing, generic): (u16, &Addressing, bool),
    mask: u32,
) -> Result<[u32; 32], Box<Finding>> {
    let mut at = addresses(&warp.registers, slot, addressing);
    for l in lanes(mask).filter(|_| generic) {
        if !(SHARED..SHARED + WINDOW).contains(&at[l]) {
            let mut f = warp.finding(cta, ins, Kind::OutOfBounds, l, "an mbarrier that does not lie in shared memory");
            f.address = Some(at[l]);
            return Err(f);
        }
        at[l] -= SHARED;
    }
    shared::inside(warp, cta, &Touch { ins, mask, at: &at, bytes: 8, access: "mbarrier" })?;
    Ok(at.map(|at| at.wrapping_sub(SHARED_FIRST) as u32))
}

/// `mbarrier`, lane after lane.
pub fn run(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Mbarriers, mask: u32) -> Outcome {
    let slot = ins.operands.slot;
    let at = objects(warp, cta, ins, (slot[0], &memory.addressing, memory.generic), mask)?;
    if let MbarrierKind::Wait { parity } = memory.kind {
        return wait(warp, cta, ins, memory, (&at, parity), mask);
    }
    // SAFETY: slot 2 of a compiled mbarrier operation that counts is a row of its warp.
    let counts = if memory.counted { unsafe { u32::read(&warp.registers, slot[2]) } } else { [1; 32] };
    let released = released(warp, cta, memory, mask);
    let mut states = [0u64; 32];
    for l in lanes(mask) {
        let (who, count) = (warp.who(l), i64::from(counts[l]));
        let done = match memory.kind {
            MbarrierKind::Init => init(warp, cta, ins, at[l], l, count)?,
            MbarrierKind::Invalidate => invalidate(warp, cta, ins, at[l], l)?,
            kind => {
                usable(warp, cta, ins, at[l], l)?;
                let Cta { mbarriers, clock, .. } = cta;
                let Some(object) = mbarriers.get_mut(&at[l]) else { continue };
                states[l] = object.word.bits();
                let released = match released {
                    Released::By(ref knowledge) => Some(knowledge),
                    Released::Fenced(ref all) => all[l].as_ref(),
                    Released::Nothing => None,
                };
                let (now, expected) = (object.word.phase, object.word.expected);
                let done = match kind {
                    MbarrierKind::ExpectBytes => object.transfer(clock, count, None),
                    MbarrierKind::CompleteBytes => object.transfer(clock, -count, None),
                    MbarrierKind::Arrive { drop, bytes, .. } => {
                        let (count, bytes) = if bytes { (1, count) } else { (count, 0) };
                        if drop {
                            object.word.expected -= count.min(expected);
                        }
                        let transfer = if bytes == 0 { Ok(()) } else { object.transfer(clock, bytes, None) };
                        transfer.and_then(|()| object.arrive(clock, count, released))
                    }
                    _ => Ok(()),
                };
                let goes_on = matches!(kind, MbarrierKind::Arrive { completes: false, .. });
                match done {
                    Ok(()) if goes_on && object.word.phase != now => {
                        Err("an arrival with .noComplete that completes the phase".into())
                    }
                    done => done,
                }
            }
        };
        if let Err(what) = done {
            return Err(wrong(warp, cta, ins, at[l], l, &what));
        }
        if let Some(object) = cta.mbarriers.get_mut(&at[l]) {
            object.used[usize::from(who >> 5)] = cta.clock.now;
        }
        keep(cta, at[l]);
        cta.waits.changes += 1;
    }
    if matches!(memory.kind, MbarrierKind::Arrive { .. }) {
        // SAFETY: slot 1 of a compiled arrival is a row of 64 bits of its warp, or the sink.
        unsafe { u64::write(&mut warp.registers, slot[1], mask, states) };
    }
    Ok(())
}

/// What arrivals release.
enum Released {
    Nothing,
    /// What the warp has behind it.
    By(Knowledge),
    /// What each lane's last fence had.
    Fenced(Vec<Option<Knowledge>>),
}

fn released(warp: &Warp, cta: &mut Cta, memory: &Mbarriers, mask: u32) -> Released {
    if !cta.shape.checks || !matches!(memory.kind, MbarrierKind::Arrive { .. }) {
        return Released::Nothing;
    }
    if !memory.relaxed {
        return Released::By(cta.clock.arrive(warp.number));
    }
    let of = |l: usize| (mask >> l & 1 == 1).then(|| cta.clock.fenced(warp.who(l))).flatten();
    Released::Fenced((0..32).map(of).collect())
}

fn init(
    warp: &Warp,
    cta: &mut Cta,
    ins: &Ins,
    at: u32,
    l: usize,
    count: i64,
) -> Result<Result<(), String>, Box<Finding>> {
    if !(1..=MOST).contains(&count) {
        return Ok(Err(format!("a count of {count}, expected 1 to {MOST}")));
    }
    if let Some(before) = cta.mbarriers.get(&at) {
        let place = cta.shape.program.place(before.pc);
        return Ok(Err(format!(
            "initialised again: it is one already, by {place}, and was not invalidated (mbarrier.inval)"
        )));
    }
    let who = warp.who(l);
    if cta.shape.checks {
        let Cta { shared_shadow, clock, .. } = cta;
        let write = Write { at: at as usize, bytes: 8, me: who, pc: ins.pc };
        if let Err(c) = shared_shadow.write(clock, write, || false) {
            return Err(shared::locate(warp.conflict(cta, ins, l, "mbarrier.init", c), c));
        }
    }
    cta.mbarriers.insert(at, Mbarrier::new(count, who, ins.pc, cta.clock.now, cta.shape.warps()));
    Ok(Ok(()))
}

fn invalidate(warp: &Warp, cta: &mut Cta, ins: &Ins, at: u32, l: usize) -> Result<Result<(), String>, Box<Finding>> {
    usable(warp, cta, ins, at, l)?;
    if let Some(copy) = cta.tracked.iter().find(|t| t.at == at) {
        let place = cta.shape.program.place(copy.pc);
        return Ok(Err(format!("invalidated while copies of {place} are to arrive at it")));
    }
    let (me, own) = (warp.who(l), warp.number);
    if let Some(object) = cta.mbarriers.remove(&at)
        && cta.shape.checks
    {
        let late = |v: &usize| {
            *v != own && object.used[*v] != 0 && !cta.clock.warp_ordered(object.used[*v], 32 * *v as u16, me)
        };
        if let Some(v) = (0..object.used.len()).find(late) {
            let what = format!("mbarrier.inval; warp {v} used the object with nothing between that orders them");
            return Err(at_offset(warp.finding(cta, ins, Kind::SharedRace, l, what), at));
        }
    }
    Ok(Ok(()))
}

/// The object is one, is initialised as this thread may know, and nothing else wrote over it.
pub fn usable(warp: &Warp, cta: &Cta, ins: &Ins, at: u32, l: usize) -> Outcome {
    let Some(object) = cta.mbarriers.get(&at) else {
        return Err(wrong(
            warp,
            cta,
            ins,
            at,
            l,
            "used, but it is none: not initialised (mbarrier.init), or invalidated",
        ));
    };
    if !cta.shape.checks {
        return Ok(());
    }
    if !cta.clock.before(object.stamp, object.by, warp.who(l), false) {
        let (by, place) = (cta.shape.thread_index(object.by), cta.shape.program.place(object.pc));
        let what = format!(
            "use of an mbarrier that thread {by:?} initialised at {place} with nothing between that orders them"
        );
        return Err(at_offset(warp.finding(cta, ins, Kind::SharedRace, l, what), at));
    }
    // SAFETY: `objects` has checked the 8 bytes.
    let found = unsafe { cta.shared().wrapping_add(at as usize).cast::<u64>().read_unaligned() };
    if found != object.word.bits() {
        return Err(wrong(warp, cta, ins, at, l, "overwritten by something that is no mbarrier operation"));
    }
    Ok(())
}

/// Puts the object into memory as it is now.
fn keep(cta: &mut Cta, at: u32) {
    if let Some(object) = cta.mbarriers.get(&at) {
        // SAFETY: `objects` has checked the 8 bytes.
        unsafe { cta.shared().wrapping_add(at as usize).cast::<u64>().write_unaligned(object.word.bits()) };
    }
}

#[cold]
fn wrong(warp: &Warp, cta: &Cta, ins: &Ins, at: u32, l: usize, what: &str) -> Box<Finding> {
    at_offset(
        warp.finding(cta, ins, Kind::Mbarrier, l, format!("mbarrier at offset {at} of shared memory: {what}")),
        at,
    )
}

fn at_offset(mut f: Box<Finding>, at: u32) -> Box<Finding> {
    f.address = Some(SHARED_FIRST + u64::from(at));
    f
}

/// `mbarrier.test_wait`, `mbarrier.try_wait`: whether a phase is complete; the latter does not wait here either, and is tried again.
fn wait(
    warp: &mut Warp,
    cta: &mut Cta,
    ins: &Ins,
    memory: &Mbarriers,
    (at, parity): (&[u32; 32], bool),
    mask: u32,
) -> Outcome {
    // SAFETY: slot 1 of a compiled wait is a row of its warp, of 64 bits unless it holds a parity.
    let asked = unsafe {
        match parity {
            true => u32::read(&warp.registers, ins.operands.slot[1]).map(u64::from),
            false => u64::read(&warp.registers, ins.operands.slot[1]),
        }
    };
    let mut complete = 0u32;
    // Mostly all lanes ask the same, and one answer does for all that may know of the object alike.
    let mut before: Option<usize> = None;
    for l in lanes(mask) {
        if let Some(b) = before
            && (at[b], asked[b]) == (at[l], asked[l])
        {
            complete |= (complete >> b & 1) << l;
            continue;
        }
        usable(warp, cta, ins, at[l], l)?;
        if parity && asked[l] > 1 {
            return Err(wrong(warp, cta, ins, at[l], l, &format!("a phase parity of {}, expected 0 or 1", asked[l])));
        }
        let known = |o: &Mbarrier| !cta.shape.checks || cta.clock.warp_ordered(o.stamp, o.by, warp.who(l));
        before = cta.mbarriers.get(&at[l]).is_some_and(known).then_some(l);
        let state = Word::of(asked[l]).phase;
        let behind = |cta: &Cta| {
            let phase = cta.mbarriers.get(&at[l]).map_or(0, |object| object.word.phase);
            if parity { (phase % 2) ^ asked[l] } else { phase.wrapping_sub(state) % 8 }
        };
        if behind(cta) == 0 && !cta.tracked.is_empty() {
            arrive_for(warp, cta, ins, at[l])?;
        }
        match behind(cta) {
            0 => {
                cta.waits.failed += 1;
                cta.waits.last = Some((ins.pc, warp.number, l, at[l]));
                continue;
            }
            1 => complete |= 1 << l,
            n => {
                let what = format!("a wait for the phase {n} before this one: only for this one and the one before");
                return Err(wrong(warp, cta, ins, at[l], l, &what));
            }
        }
        let Cta { mbarriers, clock, shape, .. } = cta;
        if let Some(object) = mbarriers.get_mut(&at[l]).filter(|_| shape.checks) {
            match memory.relaxed {
                true => clock.see(warp.number, &object.complete),
                false => clock.learn(warp.number, &object.complete),
            }
            object.used[warp.number] = clock.now;
        }
    }
    let to = ins.operands.predicate[0];
    if to != NO_PREDICATE {
        let p = &mut warp.registers.predicates[to as usize];
        *p = *p & !mask | complete;
    }
    Ok(())
}

/// `cp.async.mbarrier.arrive`: the copies that a thread has started arrive once they have landed.
pub fn copies_arrive(warp: &mut Warp, cta: &mut Cta, ins: &Ins, memory: &Mbarriers, mask: u32) -> Outcome {
    let at = objects(warp, cta, ins, (ins.operands.slot[0], &memory.addressing, memory.generic), mask)?;
    for l in lanes(mask) {
        usable(warp, cta, ins, at[l], l)?;
        let Cta { mbarriers, clock, tracked, shape, .. } = cta;
        let Some(object) = mbarriers.get_mut(&at[l]) else { continue };
        if memory.kind != (MbarrierKind::CopiesArrive { counted: true }) {
            // Its own arrival is added first, and so changes nothing in the end.
            if object.word.pending == MOST {
                return Err(wrong(warp, cta, ins, at[l], l, &format!("more than {MOST} pending arrivals")));
            }
            object.word.pending += 1;
        }
        let released = shape.checks.then(|| clock.arrive(warp.number));
        let pieces = warp.copies.take(l);
        let how = Arrives::Once;
        tracked.push(Tracked { at: at[l], warp: warp.number, lane: l, pc: ins.pc, released, pieces, how });
        keep(cta, at[l]);
        cta.waits.changes += 1;
    }
    Ok(())
}

/// Lands what is to arrive at an mbarrier, and whatever the same threads started with `cp.async` before.
fn arrive_for(warp: &Warp, cta: &mut Cta, ins: &Ins, at: u32) -> Outcome {
    let mut due = vec![false; cta.tracked.len()];
    let mut threads: Vec<(usize, usize)> = Vec::new();
    for (n, t) in cta.tracked.iter().enumerate().rev() {
        let once = t.how == Arrives::Once;
        due[n] = t.at == at || once && threads.contains(&(t.warp, t.lane));
        if due[n] && once {
            threads.push((t.warp, t.lane));
        }
    }
    land(warp, cta, ins, &due)
}

/// A thread waits for its `cp.async` by group: those that an mbarrier tracks land as well, where all of them are waited for.
pub fn waited(warp: &Warp, cta: &mut Cta, mask: u32, until: &[u32; 32]) -> Outcome {
    let covered = |t: &Tracked| {
        let mine = t.warp == warp.number && mask >> t.lane & 1 == 1 && t.how == Arrives::Once;
        mine && !t.pieces.is_empty() && t.pieces.iter().all(|p| p.group < until[t.lane])
    };
    let due: Vec<bool> = cta.tracked.iter().map(covered).collect();
    let ins = &cta.shape.program.code[warp.pc as usize];
    land(warp, cta, ins, &due)
}

fn land(warp: &Warp, cta: &mut Cta, ins: &Ins, due: &[bool]) -> Outcome {
    if !due.contains(&true) {
        return Ok(());
    }
    let (mut now, mut later) = (Vec::new(), Vec::new());
    for (t, due) in std::mem::take(&mut cta.tracked).into_iter().zip(due) {
        if *due { now.push(t) } else { later.push(t) }
    }
    cta.tracked = later;
    for t in now {
        let base = cta.shared();
        for piece in &t.pieces {
            let (to, bytes, taken) = (piece.to as usize, piece.bytes as usize, piece.taken as usize);
            // SAFETY: the copy that was started has checked `bytes` bytes of shared and `taken` of device memory, which outlive the launch.
            unsafe {
                let to = base.wrapping_add(to);
                to.write_bytes(0, bytes);
                if taken > 0 {
                    to.copy_from_nonoverlapping(piece.from, taken);
                }
            }
            if let Some(released) = &t.released {
                cta.shared_shadow.end_copy(released.stamp(t.warp), to, bytes);
            }
        }
        let Cta { mbarriers, clock, .. } = cta;
        let Some(object) = mbarriers.get_mut(&t.at) else { continue };
        let done = match t.how {
            Arrives::Once => object.arrive(clock, 1, t.released.as_ref()),
            Arrives::Bytes(bytes) => object.transfer(clock, -bytes, t.released.as_ref()),
        };
        keep(cta, t.at);
        cta.waits.changes += 1;
        if let Err(what) = done {
            let what = format!("copies that {} started: {what}", cta.shape.program.place(t.pc));
            return Err(wrong(warp, cta, ins, t.at, t.lane, &what));
        }
    }
    Ok(())
}

/// Warps that only wait, for a phase that nobody completes.
#[cold]
pub fn in_vain(cta: &Cta, warps: &[Warp]) -> Option<Box<Finding>> {
    let (pc, warp, lane, at) = cta.waits.last?;
    let word = cta.mbarriers.get(&at)?.word;
    let bytes = if word.bytes == 0 { String::new() } else { format!(" and {} bytes", word.bytes) };
    let what = format!(
        "no warp does anything but wait: phase {} of the mbarrier at offset {at} of shared memory lacks {} of {} arrivals{bytes}",
        word.phase, word.pending, word.expected
    );
    Some(at_offset(warps[warp].finding(cta, &cta.shape.program.code[pc as usize], Kind::Deadlock, lane, what), at))
}

/// The block ends, and nobody has waited for these.
#[cold]
pub fn never_waited_for(cta: &Cta, warps: &[Warp]) -> Option<Box<Finding>> {
    let t = cta.tracked.first()?;
    let what = "the block ends while a copy that arrives at an mbarrier is under way: nobody waited for it";
    let ins = &cta.shape.program.code[t.pc as usize];
    Some(at_offset(warps[t.warp].finding(cta, ins, Kind::MissingCopyWait, t.lane, what), t.at))
}
