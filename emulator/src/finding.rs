//! What a checker found: the kernel, the source line, the block and thread, the address and the buffer it concerns.

use std::fmt;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An access outside every live buffer, or past the end of shared, local, parameter or constant memory.
    OutOfBounds,
    /// An address that is not a multiple of the access size.
    Misaligned,
    /// An access to a buffer that was freed.
    UseAfterFree,
    /// A host address where a device address belongs, or the other way round.
    HostPointer,
    /// A buffer freed twice.
    DoubleFree,
    /// A free of an address that no allocation returned.
    InvalidFree,
    /// A copy or fill longer than the buffer it starts in.
    CopySize,
    /// A launch whose argument bytes are not those the kernel takes.
    ArgumentSize,
    /// A buffer still allocated at the end.
    Leak,
    /// Two threads of a block touch the same shared memory without a barrier between them, and one writes.
    SharedRace,
    /// The same for global memory.
    GlobalRace,
    /// Two blocks of a launch touch the same global memory, and one writes.
    BlockRace,
    /// Shared memory read that nothing wrote.
    UninitializedShared,
    /// Global memory read that nothing wrote.
    UninitializedGlobal,
    /// Local memory read that nothing wrote.
    UninitializedLocal,
    /// A barrier or warp-wide instruction that part of its threads do not reach.
    DivergentBarrier,
    /// Shared memory touched while a `cp.async` into it is under way, or one that nobody waits for.
    MissingCopyWait,
    /// An mbarrier that is none, is one already, or is asked for what it cannot do.
    Mbarrier,
    /// No warp can go on.
    Deadlock,
    /// `trap`, `brkpt`.
    Trap,
    /// A device `assert` that does not hold.
    Assertion,
    /// A device `printf` whose format or arguments are unreadable or not understood.
    Printf,
}

impl Kind {
    /// The driver error that a GPU (or compute-sanitizer's stop) would end with.
    pub fn cuda_error(self) -> i32 {
        match self {
            Kind::Misaligned => 716,
            Kind::OutOfBounds | Kind::UseAfterFree | Kind::HostPointer => 700,
            Kind::DoubleFree | Kind::InvalidFree | Kind::CopySize | Kind::ArgumentSize => 1,
            Kind::Deadlock => 702,
            Kind::Assertion => 710,
            _ => 719,
        }
    }

    /// A few words, as they begin a report.
    pub fn title(self) -> &'static str {
        match self {
            Kind::OutOfBounds => "out-of-bounds access",
            Kind::Misaligned => "misaligned access",
            Kind::UseAfterFree => "use after free",
            Kind::HostPointer => "host and device pointer confused",
            Kind::DoubleFree => "double free",
            Kind::InvalidFree => "free of an address that was not allocated",
            Kind::CopySize => "copy size",
            Kind::ArgumentSize => "argument size",
            Kind::Leak => "leak",
            Kind::SharedRace => "race in shared memory",
            Kind::GlobalRace => "race in global memory within a block",
            Kind::BlockRace => "race in global memory between blocks",
            Kind::UninitializedShared => "read of uninitialised shared memory",
            Kind::UninitializedGlobal => "read of uninitialised global memory",
            Kind::UninitializedLocal => "read of uninitialised local memory",
            Kind::DivergentBarrier => "barrier in diverged code",
            Kind::MissingCopyWait => "cp.async not waited for",
            Kind::Mbarrier => "misuse of an mbarrier",
            Kind::Deadlock => "deadlock",
            Kind::Trap => "trap",
            Kind::Assertion => "assertion failed",
            Kind::Printf => "printf",
        }
    }
}

/// A buffer as a report names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BufferName {
    /// Device address of its first byte.
    pub base: u64,
    pub bytes: u64,
    /// The n-th allocation, from 1.
    pub number: u64,
    pub freed: bool,
}

/// One report.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Finding {
    pub kind: Kind,
    /// What happened, in a sentence with the sizes and the other party: "read of 16 bytes ...".
    pub what: String,
    pub kernel: Option<String>,
    /// File and line of the source, from `.loc`; without it the line of the PTX.
    pub source: Option<(String, u32)>,
    /// Where that line was inlined.
    pub inlined_at: Option<(String, u32)>,
    pub block: Option<[u32; 3]>,
    pub thread: Option<[u32; 3]>,
    pub address: Option<u64>,
    pub buffer: Option<BufferName>,
}

impl Finding {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Finding {
            kind,
            what: what.into(),
            kernel: None,
            source: None,
            inlined_at: None,
            block: None,
            thread: None,
            address: None,
            buffer: None,
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.title(), self.what)?;
        if let Some(kernel) = &self.kernel {
            write!(f, "; kernel {kernel}")?;
        }
        if let Some((file, line)) = &self.source {
            write!(f, ", {file}:{line}")?;
        }
        if let Some((file, line)) = &self.inlined_at {
            write!(f, " (inlined at {file}:{line})")?;
        }
        if let Some([x, y, z]) = self.block {
            write!(f, ", block ({x}, {y}, {z})")?;
        }
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        if let Some(address) = self.address {
            write!(f, ", address {address:#x}")?;
        }
        if let Some(b) = &self.buffer {
            let state = if b.freed { "freed buffer" } else { "buffer" };
            write!(f, ", {state} {} of {} bytes at {:#x}", b.number, b.bytes, b.base)?;
        }
        Ok(())
    }
}

impl std::error::Error for Finding {}
