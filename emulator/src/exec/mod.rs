//! Runs programs: a warp at a time, an instruction for all its lanes.

pub mod async_copy;
pub mod atomic;
pub mod block;
mod elements;
mod format;
pub mod global;
pub mod grid;
pub mod matrix;
pub mod private;
pub mod report;
pub mod runtime;
pub mod shared;
pub mod warp;

use std::io::Write;
use std::sync::Mutex;

use crate::check::clock::{Clock, Who};
use crate::check::global::GlobalShadow;
use crate::check::shared::SharedShadow;
use crate::count::Counts;
use crate::finding::Finding;
use crate::memory::View;
use crate::program::{Ins, Program};
use crate::registers::{Registers, Row, Value};

pub use warp::Warp;

/// What a memory instruction does; `mask` holds the lanes that take part (never 0).
pub type Access = unsafe fn(&mut Warp, &mut Cta, &Ins, mask: u32) -> Outcome;
pub type Outcome = Result<(), Box<Finding>>;

/// Compiles a memory instruction once per [`Level`] and picks one.
macro_rules! versions {
    ($level:expr, $body:path) => {{
        use crate::registers::Level;
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        unsafe fn avx512(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
            $body(warp, cta, ins, mask)
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
        unsafe fn avx2(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
            $body(warp, cta, ins, mask)
        }
        unsafe fn portable(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
            $body(warp, cta, ins, mask)
        }
        match $level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512 as $crate::exec::Access,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2,
            _ => portable,
        }
    }};
}
pub(crate) use versions;

/// The same for a body that takes the addresses of row 0 as well.
macro_rules! with_addresses {
    ($level:expr, $body:path) => {{
        #[inline(always)]
        fn body(warp: &mut Warp, cta: &mut Cta, ins: &Ins, mask: u32) -> Outcome {
            let a = $crate::exec::addresses(&warp.registers, ins.operands.slot[0], ins);
            // Without this the compiler keeps the 32 addresses apart, and nothing done with them is vectorised.
            $body(warp, cta, ins, mask, std::hint::black_box(&a))
        }
        $crate::exec::versions!($level, body)
    }};
}
pub(crate) use with_addresses;

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
    /// Shared memory as words, so that it is aligned; see [`Cta::shared`].
    shared: Vec<Row>,
    pub clock: Clock,
    pub shared_shadow: SharedShadow,
    /// By view; taken from `kept` when first touched.
    pub global_shadows: Vec<Option<GlobalShadow>>,
    pub kept: std::collections::HashMap<u64, GlobalShadow>,
    /// The view that each instruction used last.
    pub last_view: Vec<u32>,
    pub counts: Counts,
    /// Instructions executed by this worker: the clock registers.
    pub executed: u64,
    pub worker: u32,
}

impl<'a> Cta<'a> {
    pub fn new(
        shape: &'a Shape<'a>,
        clock: Clock,
        kept: std::collections::HashMap<u64, GlobalShadow>,
        worker: u32,
    ) -> Self {
        let code = shape.program.code.len();
        Cta {
            shape,
            index: [0; 3],
            shared: vec![Row([0; 32]); shape.shared_bytes.div_ceil(128) + 1],
            clock,
            shared_shadow: SharedShadow::new(
                if shape.checks { shape.shared_bytes } else { 0 },
                shape.program.shared_granule,
            ),
            global_shadows: (0..shape.views.len()).map(|_| None).collect(),
            kept,
            last_view: vec![0; code],
            counts: Counts::new(if shape.counters { code } else { 0 }),
            executed: 0,
            worker,
        }
    }

    /// Shared memory of this block.
    #[inline(always)]
    pub fn shared(&self) -> *mut u8 {
        self.shared.as_ptr().cast_mut().cast()
    }

    /// Gives the recorded shadows back.
    pub fn finish(mut self) -> (Clock, std::collections::HashMap<u64, GlobalShadow>, Counts) {
        for (view, shadow) in self.global_shadows.into_iter().enumerate() {
            if let Some(shadow) = shadow {
                self.kept.insert(self.shape.views[view].number, shadow);
            }
        }
        (self.clock, self.kept, self.counts)
    }
}

/// The addresses in row `slot`, 32 or 64 bits, plus the offset.
#[inline(always)]
pub fn addresses(r: &Registers, slot: u16, ins: &Ins) -> [u64; 32] {
    // SAFETY: compiled instructions name rows of their warp.
    unsafe {
        let mut a = if ins.wide_address {
            u64::read(r, slot)
        } else {
            let narrow = u32::read(r, slot);
            std::array::from_fn(|l| u64::from(narrow[l]))
        };
        for a in &mut a {
            *a = a.wrapping_add(ins.operands.offset as u64);
        }
        a
    }
}

/// The lanes of a mask, ascending.
#[inline(always)]
pub fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let l = left.trailing_zeros() as usize;
        left &= left - 1;
        Some(l)
    })
}
