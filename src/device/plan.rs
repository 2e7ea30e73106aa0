//! What an op may ask of a device before it cuts its work into blocks.

use super::DType;
use super::host::SCRATCH;
use super::kernel::{HostTile, LEVELS};

/// How blocks run, and what each has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Whether a block is one thread's pass over its data, so that it should be given as much as stays in its cache; else many small
    /// blocks share a processor, and there should be enough of them.
    pub serial: bool,
    /// Bytes that a block may keep between its phases: shared memory, or what a thread's cache stands in for.
    pub scratch: usize,
    /// Of the host: which of [`LEVELS`].
    level: usize,
}

impl Plan {
    pub(super) fn host(level: usize) -> Plan {
        Plan { serial: true, scratch: 2 << 20, level }
    }

    /// Shared memory that needs no opting in, less what reductions take.
    pub(super) const CUDA: Plan = Plan { serial: false, scratch: 49152 - 256, level: 0 };

    /// Channels of one block, of `c` in all: `few` where blocks are many.
    pub fn channels(&self, c: usize, few: usize) -> usize {
        if self.serial { c.max(1) } else { few }
    }

    /// The register tile of matrix products with so many columns, where the build chose it; else the kernel's shape decides.
    pub(crate) fn tile(&self, dtype: DType, columns: usize) -> Option<HostTile> {
        let level = &LEVELS[self.level];
        // SAFETY: a function of two numbers.
        self.serial.then(|| unsafe { (level.tile)(i32::from(dtype == DType::BF16), columns as i32) })
    }

    /// The most tiles of a block of `winograd_f32`, with so many channels and columns of a panel: what its scratch holds. 0 on CUDA.
    pub(crate) fn winograd_tiles(&self, channels: usize, panel: usize) -> usize {
        let level = &LEVELS[self.level];
        // SAFETY: a function of three numbers.
        let most = || unsafe { (level.winograd_tiles)(channels as i32, panel as i32, SCRATCH as i64) };
        if self.serial { most() as usize } else { 0 }
    }
}
