//! What an access collides with.

use super::clock::{Who, readers};
use crate::address::Pc;
use crate::finding::Kind;

/// The kind, the byte, and the other thread and instruction where known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub kind: Kind,
    /// Offset of the granule in bytes.
    pub at: usize,
    pub other: Option<Who>,
    pub other_pc: Option<Pc>,
    /// The other access was a write.
    pub other_wrote: bool,
    /// The other block, where it is one.
    pub other_block: Option<u64>,
}

impl Conflict {
    /// With a write, by a thread and an instruction where there was one.
    pub fn with_write(kind: Kind, at: usize, by: Option<(Who, Pc)>) -> Self {
        let (other, other_pc) = (by.map(|b| b.0), by.map(|b| b.1));
        Conflict { kind, at, other, other_pc, other_wrote: true, other_block: None }
    }

    /// With reads, by whom `readers` remembers.
    pub fn with_reads(kind: Kind, at: usize, by: u16) -> Self {
        let alone = by & (readers::WARPS | readers::LANES) == 0;
        let other = alone.then_some(by & 0x3ff);
        Conflict { kind, at, other, other_pc: None, other_wrote: false, other_block: None }
    }

    /// The other access was made by this block, if it is known.
    pub fn of_block(self, block: Option<u64>) -> Self {
        Conflict { other_block: block, ..self }
    }
}
