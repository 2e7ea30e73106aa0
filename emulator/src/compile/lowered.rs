//! An instruction whose operands are resolved, before registers have rows.

use super::allocate::Touches;
use crate::program::{Ins, Location, Special};

/// The predicate that holds in every lane, for immediates; not a virtual register.
pub(super) const TRUE: u32 = u32::MAX;
/// A row operand before registers have rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Operand {
    Register(u32),
    /// Bits, and whether they fill 64-bit lanes.
    Constant(u64, bool),
    Special(Special),
    /// A destination that nobody reads.
    Sink,
}

/// An instruction before registers have rows.
pub(super) struct Lowered {
    pub ins: Ins,
    /// What `ins.operands.slot` will hold; bit n of `writes` marks destinations.
    pub rows: Vec<Operand>,
    pub writes: u32,
    pub predicates: Vec<Option<u32>>,
    pub predicate_writes: u32,
    pub guard: Option<(u32, bool)>,
    /// Labels it may jump to.
    pub targets: Vec<usize>,
    pub location: Location,
}

impl Lowered {
    pub fn new(ins: Ins, location: Location) -> Self {
        Lowered {
            ins,
            rows: Vec::new(),
            writes: 0,
            predicates: Vec::new(),
            predicate_writes: 0,
            guard: None,
            targets: Vec::new(),
            location,
        }
    }

    /// The registers it reads and writes: rows, or predicates.
    pub fn touches(&self, widths: &[u8], predicates: bool) -> Touches {
        let mut t = Touches { guarded: self.guard.is_some(), ..Default::default() };
        if predicates {
            t.reads.extend(self.guard.map(|(v, _)| v));
            for (n, v) in self.predicates.iter().enumerate() {
                let Some(v) = v.filter(|&v| v != TRUE) else { continue };
                if self.predicate_writes >> n & 1 == 1 { t.writes.push(v) } else { t.reads.push(v) }
            }
        } else {
            for (n, o) in self.rows.iter().enumerate() {
                let Operand::Register(v) = *o else { continue };
                if widths[v as usize] == 0 {
                    continue;
                }
                if self.writes >> n & 1 == 1 { t.writes.push(v) } else { t.reads.push(v) }
            }
        }
        t
    }
}
