//! `mbarrier`, and the copies that arrive at one.

use super::compiler::Compiler;
use super::lowered::Operand;
use super::operands::Given;
use super::problem::Lower;
use crate::exec::{bulk, mbarrier};
use crate::ops::{Arg, Class};
use crate::program::{Access, BulkCopies, Ins, Mbarriers, Run, Step};
use crate::ptx::ast::{self, Instruction};
use crate::ptx::opcode::{Mbarrier, MbarrierKind};

/// Bytes of an object.
const OBJECT: usize = 8;

impl Compiler<'_> {
    pub(super) fn mbarrier(&mut self, i: &Instruction, what: Mbarrier) -> Lower<()> {
        let Mbarrier { kind, generic, relaxed } = what;
        self.ordering = true;
        self.narrow(OBJECT);
        let mut operands = i.operands.iter();
        let mut next = |what: &str| operands.next().ok_or_else(|| format!("expected {what}"));
        let before = match kind {
            MbarrierKind::Arrive { .. } => Some(next("a state, or _")?),
            MbarrierKind::Wait { .. } => Some(next("a predicate")?),
            _ => None,
        };
        let (row, addressing, _) = self.address(next("an address")?)?;
        let run: Run<Mbarriers> = match kind {
            MbarrierKind::CopiesArrive { .. } => mbarrier::copies_arrive,
            _ => mbarrier::run,
        };
        let class = if matches!(kind, MbarrierKind::CopiesArrive { .. }) { Class::AsyncCopy } else { Class::Barrier };
        let mut l = self.begin(i.guard.as_ref(), Ins::new(Step::Nothing, class))?;
        l.rows.push(row);
        let mut counted = false;
        match (kind, before) {
            (MbarrierKind::Wait { parity }, Some(to)) => {
                l.predicate_writes = 1;
                l.predicates.push(match to {
                    ast::Operand::Name(name) if name == "_" => None,
                    to => Some(self.predicate(to)?.0),
                });
                let (arg, what) = if parity { (Arg::From32, "a parity") } else { (Arg::From64, "a state") };
                l.rows.push(self.source(Given::Written(next(what)?), arg)?);
                // How long it may take is its own affair.
                if let (true, Ok(hint)) = (i.opcode.parts[1] == "try_wait", next("")) {
                    self.source(Given::Written(hint), Arg::From32)?;
                }
            }
            (MbarrierKind::Arrive { bytes, completes, .. }, Some(to)) => {
                l.writes = 1 << 1;
                l.rows.push(self.destination(Given::Written(to), true)?);
                match next("a count") {
                    Ok(count) => l.rows.push(self.source(Given::Written(count), Arg::From32)?),
                    Err(missing) if bytes || !completes => return Err(missing.into()),
                    Err(_) => {}
                }
                counted = l.rows.len() == 3;
            }
            (MbarrierKind::Invalidate | MbarrierKind::CopiesArrive { .. }, _) => {}
            _ => {
                counted = true;
                l.rows.push(Operand::Sink);
                l.rows.push(self.source(Given::Written(next("a count")?), Arg::From32)?);
            }
        }
        if next("").is_ok() {
            return Err("too many operands".into());
        }
        let memory = Mbarriers { kind, addressing, generic, relaxed, counted };
        l.ins.step = Step::Mbarrier(Access { run, memory });
        self.code.push(l);
        Ok(())
    }

    /// The lowest bits of a state: see `exec::phases::Word`.
    pub(super) fn pending_count(&mut self, i: &Instruction) -> Lower<()> {
        let [to, state] = &i.operands[..] else { return Err("expected a register and a state".into()) };
        let (low, bits) = (Given::Register(self.scopes.fresh(1)), ast::Operand::Integer(0xf_ffff));
        self.compute(i.guard.as_ref(), &["cvt", "u32", "u64"], &[low, Given::Written(state)])?;
        self.compute(i.guard.as_ref(), &["and", "b32"], &[Given::Written(to), low, Given::Written(&bits)])
    }

    pub(super) fn bulk_copy(&mut self, i: &Instruction) -> Lower<()> {
        let [to, from, bytes, object] = &i.operands[..] else {
            return Err("expected two addresses, a size and the address of an mbarrier".into());
        };
        self.ordering = true;
        self.narrow(OBJECT);
        let mut l = self.begin(i.guard.as_ref(), Ins::new(Step::Nothing, Class::AsyncCopy))?;
        let mut memory = BulkCopies { offsets: [0; 3], wide: [false; 3] };
        for (n, o) in [to, from, object].into_iter().enumerate() {
            let (row, addressing, _) = self.address(o)?;
            l.rows.push(row);
            memory.offsets[n] = i32::try_from(addressing.offset).map_err(|_| "expected an offset of 32 bits")?;
            memory.wide[n] = addressing.wide;
        }
        l.rows.push(self.source(Given::Written(bytes), Arg::From32)?);
        l.ins.step = Step::BulkCopy(Access { run: bulk::copy, memory });
        self.code.push(l);
        Ok(())
    }
}
