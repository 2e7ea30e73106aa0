//! Turns what a checker saw into a [`Finding`] that names kernel, source line, block, thread, address and buffer.

use super::cta::Cta;
use super::warp::Warp;
use crate::check::conflict::Conflict;
use crate::finding::{Finding, Kind};
use crate::program::Ins;

impl Warp {
    /// A finding about what lane `lane` does at `ins`.
    #[cold]
    pub fn finding(&self, cta: &Cta, ins: &Ins, kind: Kind, lane: usize, what: impl Into<String>) -> Box<Finding> {
        let (source, inlined_at) = cta.shape.program.source(ins.pc);
        Box::new(Finding {
            kernel: Some(cta.shape.program.name.clone()),
            source: Some(source),
            inlined_at,
            block: Some(cta.index),
            thread: Some(cta.shape.thread_index(self.who(lane))),
            ..Finding::new(kind, what)
        })
    }

    /// A finding about an access that collides with an earlier one.
    #[cold]
    pub fn conflict(&self, cta: &Cta, ins: &Ins, lane: usize, access: &str, c: Conflict) -> Box<Finding> {
        let program = cta.shape.program;
        let other = match c.other {
            Some(who) => format!("thread {:?}", cta.shape.thread_index(who & 0x3ff)),
            None => "several threads".into(),
        };
        let block = match (c.kind, c.other_block) {
            (Kind::BlockRace, Some(b)) => format!(" of block {:?}", cta.shape.block_index(b)),
            (Kind::BlockRace, None) => " of another block".into(),
            _ => String::new(),
        };
        let did = if c.other_wrote { "wrote" } else { "read" };
        let at = c.other_pc.map(|pc| format!(" at {}", program.place(pc))).unwrap_or_default();
        let what = match c.kind {
            Kind::UninitializedShared => format!("{access} of shared memory that nothing wrote in this block"),
            Kind::MissingCopyWait => format!("{access} while a cp.async that {other} started{at} is under way"),
            Kind::BlockRace if program.ordering => {
                format!("{access}; {other}{block} {did} the same bytes{at}, and no release and acquire orders them")
            }
            Kind::BlockRace => format!("{access}; {other}{block} {did} the same bytes{at} in this launch"),
            _ if program.ordering => {
                format!("{access}; {other} {did} the same bytes{at} with nothing between that orders them")
            }
            _ => format!("{access}; {other} {did} the same bytes{at} with no barrier between"),
        };
        self.finding(cta, ins, c.kind, lane, what)
    }
}
