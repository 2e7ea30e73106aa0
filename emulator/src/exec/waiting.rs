//! Lanes of a warp that do not run now.

use crate::address::Pc;

/// What lanes do where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A side of a branch whose turn comes.
    Ready,
    /// Where the sides of a branch meet: all its lanes, wherever they still are.
    Join,
    /// At an instruction that waits for other lanes.
    Held,
    /// At a barrier of the block, apart from the rest of the warp, until it is complete.
    Parked,
}

/// Lanes, where they go on, and where they then meet others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub pc: Pc,
    pub mask: u32,
    pub join: Pc,
    pub state: State,
}
