//! What the warps of a block share, and the blocks of a launch.

use std::cell::UnsafeCell;
use std::collections::HashMap;
use std::io::Write;
use std::sync::Mutex;

use super::phases::{Mbarrier, Tracked, Waits};
use crate::check::clock::{Clock, Who};
use crate::check::global::GlobalShadow;
use crate::check::shared::SharedShadow;
use crate::count::Counts;
use crate::finding::Finding;
use crate::memory::View;
use crate::program::Program;
use crate::registers::{Row, ZERO};

/// How an instruction ends: well, or with what a checker found.
pub type Outcome = Result<(), Box<Finding>>;

/// What takes the output of kernels.
pub type Output = Box<dyn Write + Send>;

/// What all blocks of a launch share.
pub struct Shape<'a> {
    pub program: &'a Program,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: usize,
    pub dynamic_shared: usize,
    pub parameters: &'a [u8],
    pub views: &'a [View],
    /// Where `printf` goes.
    pub output: &'a Mutex<Output>,
    pub checks: bool,
    pub counters: bool,
    pub lints: bool,
    pub seed: u64,
    pub multiprocessors: u32,
}

impl Shape<'_> {
    pub fn threads(&self) -> usize {
        self.block.iter().map(|&n| n as usize).product()
    }

    pub fn warps(&self) -> usize {
        self.threads().div_ceil(32)
    }

    /// The block with this number, x fastest.
    pub fn block_index(&self, number: u64) -> [u32; 3] {
        let [x, y] = [u64::from(self.grid[0]), u64::from(self.grid[1])];
        [(number % x) as u32, (number / x % y) as u32, (number / x / y) as u32]
    }

    /// The position of a thread within its block.
    pub fn thread_index(&self, who: Who) -> [u32; 3] {
        let t = u32::from(who);
        let [x, y, _] = self.block;
        [t % x, t / x % y, t / x / y]
    }
}

/// One block while it runs: everything its warps share.
pub struct Cta<'a> {
    pub shape: &'a Shape<'a>,
    pub index: [u32; 3],
    /// Shared memory in rows, so that it is aligned, and in cells, because [`Cta::shared`] lends it for writing.
    shared: Vec<UnsafeCell<Row>>,
    pub clock: Clock,
    pub shared_shadow: SharedShadow,
    /// By view; taken from `kept` when first touched.
    pub global_shadows: Vec<Option<GlobalShadow>>,
    pub kept: HashMap<u64, GlobalShadow>,
    /// The view that each instruction used last.
    pub last_view: Vec<u32>,
    pub counts: Counts,
    /// Instructions executed by this worker: the clock registers.
    pub executed: u64,
    /// By offset in shared memory.
    pub mbarriers: HashMap<u32, Mbarrier>,
    /// Copies that arrive at an mbarrier when they land, in the order they were started.
    pub tracked: Vec<Tracked>,
    pub waits: Waits,
    pub worker: u32,
}

impl<'a> Cta<'a> {
    pub fn new(shape: &'a Shape<'a>, clock: Clock, kept: HashMap<u64, GlobalShadow>, worker: u32) -> Self {
        let code = shape.program.code.len();
        Cta {
            shape,
            index: [0; 3],
            shared: (0..shape.shared_bytes.div_ceil(128) + 1).map(|_| UnsafeCell::new(ZERO)).collect(),
            clock,
            shared_shadow: SharedShadow::new(
                if shape.checks { shape.shared_bytes } else { 0 },
                shape.program.shared_granule,
            ),
            global_shadows: (0..shape.views.len()).map(|_| None).collect(),
            kept,
            last_view: vec![0; code],
            counts: Counts::new(if shape.counters { code } else { 0 }, shape.views.len()),
            executed: 0,
            mbarriers: HashMap::new(),
            tracked: Vec::new(),
            waits: Waits::default(),
            worker,
        }
    }

    /// Shared memory of this block: `shape.shared_bytes` bytes that may be read and written.
    #[inline(always)]
    pub fn shared(&self) -> *mut u8 {
        UnsafeCell::raw_get(self.shared.as_ptr()).cast()
    }

    /// Gives the recorded shadows back.
    pub fn finish(mut self) -> (Clock, HashMap<u64, GlobalShadow>, Counts) {
        for (view, shadow) in self.global_shadows.into_iter().enumerate() {
            if let Some(shadow) = shadow {
                self.kept.insert(self.shape.views[view].number, shadow);
            }
        }
        (self.clock, self.kept, self.counts)
    }
}
