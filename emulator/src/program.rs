//! A compiled kernel: decoded instructions over the rows of [`crate::registers::Registers`].

use std::sync::Arc;

use crate::address::Pc;
use crate::exec::cta::{Cta, Outcome};
use crate::exec::warp::Warp;
use crate::ops::Class;
use crate::ops::formats::Product;
use crate::ptx::opcode::{AtomicKind, BarrierKind, Fence, MbarrierKind, Order};
use crate::ptx::types::Space;
use crate::registers::{Exec, NO_PREDICATE, Operands, Row};

/// What a memory instruction of a family does; the mask holds the lanes that take part (never 0).
pub type Run<M> = unsafe fn(&mut Warp, &mut Cta, &Ins, &M, u32) -> Outcome;

/// A memory instruction: what runs it, and what it says of memory.
#[derive(Clone, Copy)]
pub struct Access<M> {
    pub run: Run<M>,
    pub memory: M,
}

/// How a row becomes the addresses of its lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addressing {
    /// The row has 64 bits.
    pub wide: bool,
    pub offset: i64,
}

/// Loads and stores: the address in slot 0, the elements in the slots behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elements {
    pub addressing: Addressing,
    /// Bytes of one element, and how many there are.
    pub width: u8,
    pub count: u8,
    /// Narrow elements are extended by their sign.
    pub signed: bool,
    /// Elements go to or come from 64-bit rows.
    pub wide: bool,
    pub order: Order,
}

impl Elements {
    /// Bytes of all elements of a lane.
    #[inline(always)]
    pub fn bytes(&self) -> usize {
        usize::from(self.width) * usize::from(self.count)
    }
}

/// The address in slot 0, the destination in slot 1, the sources in slots 2 and 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Atomic {
    pub addressing: Addressing,
    pub kind: AtomicKind,
    /// Bytes of the element.
    pub width: u8,
    /// Rows of 64 bits.
    pub wide: bool,
    pub order: Order,
}

/// The address of this lane's row in slot 0, the fragments of the matrices in the slots behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrices {
    pub addressing: Addressing,
    pub count: u8,
    pub transposed: bool,
    /// Addresses are generic.
    pub generic: bool,
}

/// The shared address in slot 0, the global one in slot 1; predicate 0, where there is one, says "write zeros".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    pub to: Addressing,
    pub from: Addressing,
    pub bytes: u8,
    /// Slot 2 holds how much of the source is taken.
    pub sized: bool,
}

/// The address of the object in slot 0. Arrivals: the state in slot 1, their number or bytes in slot 2 where `counted`, as for
/// operations that only count. Waits: the state or parity in slot 1, the answer in predicate 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mbarriers {
    pub kind: MbarrierKind,
    pub addressing: Addressing,
    pub generic: bool,
    pub relaxed: bool,
    pub counted: bool,
}

impl Mbarriers {
    /// Whether it is tried again until another thread has done something.
    #[inline(always)]
    pub fn waits(&self) -> bool {
        matches!(self.kind, MbarrierKind::Wait { .. })
    }
}

/// The shared address in slot 0, the global one in slot 1, the address of the mbarrier in slot 2, the bytes in slot 3. Narrow, so that no
/// instruction takes more room for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BulkCopies {
    pub offsets: [i32; 3],
    pub wide: [bool; 3],
}

impl BulkCopies {
    /// How the row in slot `n` becomes addresses.
    pub fn addressing(&self, n: usize) -> Addressing {
        Addressing { wide: self.wide[n], offset: i64::from(self.offsets[n]) }
    }
}

/// Which operand of `mma` a fragment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    A,
    B,
    Sum,
}

/// `wmma.load` and `wmma.store`: the address in slot 0, the stride in slot 1, the registers behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub kind: Operand,
    /// Of the matrix as it is named: 16 x 16 of A, B or D.
    pub rows: u8,
    pub columns: u8,
    /// The transpose is what `mma` takes.
    pub flipped: bool,
    /// `.col`
    pub by_columns: bool,
    /// Each element comes more than once: f16 multiplicands always fill 8 registers.
    pub doubled: bool,
    /// Of one element.
    pub bytes: u8,
    pub space: Space,
    pub load: bool,
    /// Registers.
    pub count: u8,
    /// Added to the address.
    pub offset: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyGroups {
    Commit,
    /// For all groups but the last so many.
    Wait(u32),
    WaitAll,
}

/// What an instruction does to its warp.
#[derive(Clone, Copy)]
pub enum Step {
    /// Registers only.
    Compute(Exec),
    /// Registers only, for all lanes that the member mask in row `members` names.
    WarpWide {
        exec: Exec,
        members: Option<u16>,
    },
    /// `ld`, `st`
    Elements(Access<Elements>),
    /// `atom`, `red`
    Atomic(Access<Atomic>),
    /// `ldmatrix`, `stmatrix`
    Matrices(Access<Matrices>),
    /// `wmma.load`, `wmma.store`
    Fragment(Access<Fragment>),
    /// `cp.async`
    Copy(Access<Copies>),
    /// `cp.async.commit_group`, `cp.async.wait_group`, `cp.async.wait_all`
    CopyGroups(Access<CopyGroups>),
    /// `cp.async.bulk`
    BulkCopy(Access<BulkCopies>),
    /// `mbarrier`, `cp.async.mbarrier.arrive`
    Mbarrier(Access<Mbarriers>),
    /// A function of the CUDA runtime: result and arguments in rows.
    Call(Run<()>),
    /// Where the sides of a diverged branch meet.
    Join,
    /// To `target` where the guard holds; `join` is where both sides meet again.
    Branch {
        target: Pc,
        join: Pc,
    },
    /// `brx.idx`: to `Program::tables[table][slot[0]]`.
    BranchTable {
        table: u32,
        join: Pc,
    },
    Exit,
    Barrier(Barrier),
    /// `bar.warp.sync`
    WarpBarrier,
    /// `membar`, `fence`
    Fence(Fence),
    /// `prefetch`, `nanosleep`: nothing that this machine could observe.
    Nothing,
    /// `clock`, `clock64`, `globaltimer`: instructions executed so far, into a row of 32 or 64 bits.
    Clock {
        wide: bool,
    },
    /// `trap`, `brkpt`
    Trap,
    /// Where an indirect call ends whose address is that of no function it can reach.
    NoFunction,
}

/// `bar` and `barrier`: the number in the first source row, threads in the second where `counted`. Reductions take `predicate[1]` to
/// `predicate[0]`, or count `predicate[0]` into `slot[0]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    pub kind: BarrierKind,
    pub counted: bool,
    /// `.aligned`: all threads of a warp execute it together; else each comes by itself.
    pub aligned: bool,
}

impl Barrier {
    /// The slot of the barrier's number: a count has its destination before it.
    pub fn first_source(&self) -> usize {
        usize::from(self.kind == BarrierKind::Count)
    }
}

/// One instruction.
#[derive(Clone, Copy)]
pub struct Ins {
    pub step: Step,
    pub operands: Operands,
    pub guard: u16,
    pub guard_negated: bool,
    pub class: Class,
    /// Of instructions of a warp: the slot of the operand of 64 bits, 0 where there is none.
    pub wide_operand: u8,
    /// Of matrix instructions.
    pub product: Option<Product>,
    pub pc: Pc,
}

impl Ins {
    pub fn new(step: Step, class: Class) -> Self {
        Ins {
            step,
            operands: Operands::default(),
            guard: NO_PREDICATE,
            guard_negated: false,
            class,
            wide_operand: 0,
            product: None,
            pc: 0,
        }
    }
}

/// A row that a block or a launch fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Special {
    /// Thread, threads of a block, block, blocks: axis 0 to 2.
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    /// Lanes equal to, below, up to, from, above this one.
    LaneMask(LaneMask),
    DynamicShared,
    TotalShared,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaneMask {
    Eq,
    Lt,
    Le,
    Ge,
    Gt,
}

/// A source position from `.loc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// Index into [`Program::files`] plus one; 0 where the PTX has no `.loc`.
    pub file: u32,
    pub line: u32,
    pub inlined_at: Option<(u32, u32)>,
    /// Line of the PTX.
    pub ptx_line: u32,
}

/// A kernel, ready to run.
pub struct Program {
    pub name: String,
    pub code: Vec<Ins>,
    pub locations: Vec<Location>,
    pub files: Arc<Vec<(u32, String)>>,
    pub tables: Vec<Vec<Pc>>,
    /// Rows and predicates of a warp.
    pub rows: usize,
    pub predicates: usize,
    /// Rows with fixed contents.
    pub constants: Vec<(u16, Row)>,
    /// Rows to fill when a block starts.
    pub specials: Vec<(u16, Special)>,
    /// Rows that may be read before anything is written to them.
    pub undefined: Vec<u16>,
    /// Rows that are live at once, at most: what a register allocator would need.
    pub pressure: u32,
    pub parameters: Vec<(usize, usize)>,
    pub parameter_bytes: usize,
    /// Shared memory declared with a size; dynamic shared memory begins behind it.
    pub static_shared: u32,
    pub local_bytes: u32,
    pub max_threads: u32,
    pub required_threads: Option<[u32; 3]>,
    /// Atomics on global memory, or output: blocks run one after another, so that results do not depend on timing.
    pub serial: bool,
    /// Fences, or accesses that acquire or release: what happens before what is more than barriers say.
    pub ordering: bool,
    /// Atomics, of whichever memory.
    pub atomics: bool,
    /// Barriers that only part of a block takes part in.
    pub partial_barriers: bool,
    /// Log2 of the narrowest access to shared memory, at most 4.
    pub shared_granule: u32,
}

impl Program {
    pub fn file(&self, number: u32) -> &str {
        self.files.iter().find(|(n, _)| *n == number).map_or("?", |(_, name)| name)
    }

    /// File and line of an instruction, and where that line was inlined.
    pub fn source(&self, pc: Pc) -> ((String, u32), Option<(String, u32)>) {
        let at = self.locations.get(pc as usize).copied().unwrap_or_default();
        if at.file == 0 {
            return (("PTX".into(), at.ptx_line), None);
        }
        let inlined = at.inlined_at.map(|(file, line)| (self.file(file).to_string(), line));
        ((self.file(at.file).to_string(), at.line), inlined)
    }

    /// "file:line" of an instruction.
    pub fn place(&self, pc: Pc) -> String {
        let ((file, line), _) = self.source(pc);
        format!("{file}:{line}")
    }
}
