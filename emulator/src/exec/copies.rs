//! Copies of one warp from global to shared memory, between their start and the wait that covers them.

use std::collections::VecDeque;

/// The copies of one instruction that share a group.
pub struct Batch {
    /// The group they belong to, counted per lane from the start of the block.
    pub group: u32,
    pub mask: u32,
    /// Bytes written in shared memory, and of these the bytes that come from global memory; the rest is zero.
    pub bytes: u8,
    pub taken: [u8; 32],
    pub to: [u32; 32],
    pub from: [*const u8; 32],
}

/// One copy of one thread.
pub struct Piece {
    pub group: u32,
    pub to: u32,
    pub from: *const u8,
    pub bytes: u32,
    pub taken: u32,
}

/// Copies of one warp that are under way.
#[derive(Default)]
pub struct Copies {
    /// Boxed, as they move between the two with every instruction.
    pub batches: VecDeque<Box<Batch>>,
    #[allow(clippy::vec_box)] // the boxes of `batches`, without a copy
    pub spare: Vec<Box<Batch>>,
    /// Groups that each lane has committed.
    pub committed: [u32; 32],
}

impl Copies {
    pub fn clear(&mut self) {
        self.spare.extend(self.batches.drain(..));
        self.committed = [0; 32];
    }

    /// Takes the copies of a lane that have not landed, for whatever waits for them now.
    pub fn take(&mut self, lane: usize) -> Vec<Piece> {
        let mut taken = Vec::new();
        for batch in self.batches.iter_mut().filter(|b| b.mask >> lane & 1 == 1) {
            batch.mask &= !(1 << lane);
            taken.push(Piece {
                group: batch.group,
                to: batch.to[lane],
                from: batch.from[lane],
                bytes: u32::from(batch.bytes),
                taken: u32::from(batch.taken[lane]),
            });
        }
        while let Some(at) = self.batches.iter().position(|b| b.mask == 0) {
            self.spare.extend(self.batches.remove(at));
        }
        taken
    }

    /// A lane whose copy has not landed, if there is one.
    pub fn under_way(&self) -> Option<usize> {
        self.batches.front().map(|b| b.mask.trailing_zeros() as usize)
    }
}
