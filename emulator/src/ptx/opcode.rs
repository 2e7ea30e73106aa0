//! What an instruction does, as far as its opcode says.
//!
//! Source: PTX ISA 9.0, chapter 9. What is wrong with an opcode is kept until someone compiles it: a module may hold functions that
//! nobody calls.

use super::types::{Space, Type};

/// `add.rn.f32`
#[derive(Clone, Debug, PartialEq)]
pub struct Opcode {
    /// Between the dots; `::` stays within its part (`L2::128B`).
    pub parts: Vec<String>,
    pub operation: Operation,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    Branch,
    BranchTable,
    Return,
    Exit,
    Trap,
    Call,
    Barrier {
        kind: BarrierKind,
        aligned: bool,
    },
    WarpBarrier,
    /// `fence` and `membar`.
    Fence(Fence),
    /// A fence that orders nothing that is emulated: of mbarriers and proxies.
    OtherFence,
    /// Prefetches, hints to caches and the profiler, `nanosleep`: nothing to observe.
    Hint,
    Load(Elements),
    Store(Elements),
    /// `atom`; without its result `red`.
    Atomic {
        space: Space,
        kind: AtomicKind,
        ty: Type,
        /// `.v2`, `.v4`, `.v8`, or 1.
        vector: u8,
        result: bool,
        order: Order,
    },
    LoadMatrix(Matrices),
    StoreMatrix(Matrices),
    /// `cp.async`; `.cg` takes 16 bytes only.
    Copy {
        cg: bool,
    },
    CommitCopies,
    WaitCopies,
    WaitAllCopies,
    /// `cp.async.bulk` from global to shared memory, whose bytes arrive at an mbarrier.
    BulkCopy,
    Mbarrier(Mbarrier),
    /// `mbarrier.pending_count`
    PendingCount,
    /// `cvta`, from a generic address with `to`.
    ConvertAddress {
        to: bool,
        space: Space,
    },
    IsSpace(Space),
    /// Registers only: the parts say what.
    Compute,
    /// Why it is none.
    Wrong(String),
}

/// Loads and stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elements {
    pub space: Space,
    /// `.v2`, `.v4`, `.v8`, or 1.
    pub vector: u8,
    pub ty: Type,
    pub order: Order,
}

/// How an access is ordered with others (PTX ISA 9.0, chapter 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// `.relaxed`, `.acquire`, `.release`, `.acq_rel`, `.sc` and atomics: it never races with another of its kind whose scope
    /// includes its thread.
    pub strong: bool,
    pub volatile: bool,
    pub acquire: bool,
    pub release: bool,
    pub scope: Scope,
}

impl Order {
    /// Not ordered by itself.
    pub fn weak(&self) -> bool {
        !self.strong && !self.volatile
    }
}

/// The threads among which an operation orders: a block's, or the device's (and the system's, which are no others here).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    Block,
    #[default]
    Device,
}

impl Scope {
    fn named(part: &str) -> Option<Scope> {
        match part {
            "cta" => Some(Scope::Block),
            "cluster" | "gpu" | "gl" | "sys" => Some(Scope::Device),
            _ => None,
        }
    }
}

/// `fence`, `membar`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fence {
    pub scope: Scope,
    pub acquires: bool,
    pub releases: bool,
    /// Sequentially consistent: all such fences lie in one order.
    pub sequential: bool,
}

impl Fence {
    fn new(order: &str, scope: &str) -> Fence {
        Fence {
            scope: Scope::named(scope).unwrap_or_default(),
            acquires: order != "release",
            releases: order != "acquire",
            sequential: order == "sc",
        }
    }
}

/// `mbarrier`, and `cp.async.mbarrier.arrive`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mbarrier {
    pub kind: MbarrierKind,
    /// No state space given.
    pub generic: bool,
    /// `.relaxed`: it neither releases nor acquires.
    pub relaxed: bool,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MbarrierKind {
    Init,
    Invalidate,
    ExpectBytes,
    CompleteBytes,
    /// `arrive`, and `arrive_drop`, which is expected no more; with `.expect_tx` of bytes; with `.noComplete` it completes no phase.
    Arrive {
        drop: bool,
        bytes: bool,
        completes: bool,
    },
    /// `test_wait` and `try_wait`, by a state or by a parity.
    Wait {
        parity: bool,
    },
    /// Of `cp.async`; with `.noinc` the arrival is among those that are expected.
    CopiesArrive {
        counted: bool,
    },
}

/// `ldmatrix` and `stmatrix`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matrices {
    /// 0 where nothing says how many.
    pub count: u8,
    pub transposed: bool,
    /// No state space given.
    pub generic: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierKind {
    Sync,
    Arrive,
    /// Reductions over a predicate.
    And,
    Or,
    Count,
}

/// What an atomic does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicKind {
    AddInteger,
    AddF32,
    AddF64,
    /// Of one f16 or bf16, or two in 32 bits.
    AddF16,
    AddBf16,
    MinF16,
    MinBf16,
    MaxF16,
    MaxBf16,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    MinUnsigned,
    MaxUnsigned,
    MinSigned,
    MaxSigned,
    /// `d = old >= b ? 0 : old + 1`
    Increment,
    /// `d = old == 0 || old > b ? b : old - 1`
    Decrement,
}

/// Parts of an opcode that change no result here: caching, ordering, scope.
const HINTS: [&str; 32] = [
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "nc",
    "volatile",
    "relaxed",
    "acquire",
    "release",
    "acq_rel",
    "weak",
    "mmio",
    "cta",
    "cluster",
    "gpu",
    "sys",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "L2::cache_hint",
    "L2::evict_normal",
    "L2::evict_first",
    "L2::evict_last",
    "sc",
];

impl Opcode {
    pub fn new(text: &str) -> Self {
        let parts: Vec<&str> = text.split('.').collect();
        let operation = operation(&parts).unwrap_or_else(Operation::Wrong);
        Opcode { parts: parts.into_iter().map(str::to_string).collect(), operation }
    }
}

fn operation(op: &[&str]) -> Result<Operation, String> {
    Ok(match op {
        ["bra"] | ["bra", "uni"] => Operation::Branch,
        ["brx", "idx"] | ["brx", "idx", "uni"] => Operation::BranchTable,
        ["ret"] | ["ret", "uni"] => Operation::Return,
        ["exit"] => Operation::Exit,
        ["trap"] | ["brkpt"] => Operation::Trap,
        ["call"] | ["call", "uni"] => Operation::Call,
        ["bar" | "barrier", rest @ ..] => barrier(op[0] == "bar", rest)?,
        ["membar", scope @ ("cta" | "gl" | "sys")] => Operation::Fence(Fence::new("sc", scope)),
        ["fence", scope @ ("cta" | "cluster" | "gpu" | "sys")] => Operation::Fence(Fence::new("acq_rel", scope)),
        ["fence", order @ ("sc" | "acq_rel" | "acquire" | "release"), scope @ ("cta" | "cluster" | "gpu" | "sys")] => {
            Operation::Fence(Fence::new(order, scope))
        }
        ["fence", "mbarrier_init", ..] | ["fence" | "membar", "proxy", ..] => Operation::OtherFence,
        ["prefetch" | "prefetchu", ..] | ["nanosleep", "u32"] | ["pmevent", ..] | ["discard" | "applypriority", ..] => {
            Operation::Hint
        }
        // Registers are as many as a kernel takes.
        ["setmaxnreg", "inc" | "dec", "sync", "aligned", "u32"] => Operation::Hint,
        // Kernels of a stream run one after another.
        ["griddepcontrol", "wait" | "launch_dependents"] => Operation::Hint,
        ["ld" | "ldu", rest @ ..] if !rest.contains(&"release") => Operation::Load(elements(rest)?),
        ["st", rest @ ..] if !rest.contains(&"acquire") => Operation::Store(elements(rest)?),
        ["atom", rest @ ..] => atomic(rest, true)?,
        ["red", rest @ ..] => atomic(rest, false)?,
        ["ldmatrix", rest @ ..] => Operation::LoadMatrix(matrices(rest)?),
        ["stmatrix", rest @ ..] => Operation::StoreMatrix(matrices(rest)?),
        ["cp", "async", "mbarrier", "arrive", rest @ ..] => copies_arrive(rest)?,
        ["cp", "async", "bulk", rest @ ..] => bulk_copy(rest)?,
        ["cp", "async", rest @ ..] => copy(rest)?,
        ["mbarrier", "pending_count", "b64"] => Operation::PendingCount,
        ["mbarrier", name, rest @ ..] => mbarrier(name, rest)?,
        ["cvta", rest @ ..] => convert_address(rest)?,
        ["isspacep", "const"] => Operation::IsSpace(Space::Const),
        ["isspacep", part] => Operation::IsSpace(window(part)?),
        _ => Operation::Compute,
    })
}

fn barrier(mut aligned: bool, mut rest: &[&str]) -> Result<Operation, String> {
    if rest == ["warp", "sync"] {
        return Ok(Operation::WarpBarrier);
    }
    if rest.first() == Some(&"cluster") {
        return Err("thread block clusters are not supported".into());
    }
    if rest.first() == Some(&"cta") {
        rest = &rest[1..];
    }
    let mut parts: Vec<&str> = rest.to_vec();
    if let Some(at) = parts.iter().position(|p| *p == "aligned") {
        parts.remove(at);
        aligned = true;
    }
    let kind = match parts[..] {
        ["sync"] => BarrierKind::Sync,
        ["arrive"] => BarrierKind::Arrive,
        ["red", "and", "pred"] => BarrierKind::And,
        ["red", "or", "pred"] => BarrierKind::Or,
        ["red", "popc", "u32"] => BarrierKind::Count,
        _ => return Err("unknown kind of barrier".into()),
    };
    Ok(Operation::Barrier { kind, aligned })
}

/// The state space that a part names.
fn space(part: &str) -> Option<Space> {
    Some(match part {
        "global" => Space::Global,
        // Without clusters a block is one alone.
        "shared" | "shared::cta" | "shared::cluster" => Space::Shared,
        "local" => Space::Local,
        "param" | "param::entry" | "param::func" => Space::Param,
        "const" => Space::Const,
        _ => return None,
    })
}

/// State space, length of vector, order, and what else is said; hints are dropped.
fn place<'a>(rest: &[&'a str]) -> (Space, u8, Order, Vec<&'a str>) {
    let (mut found, mut vector, mut order, mut left) = (Space::Generic, 1, Order::default(), Vec::new());
    for &part in rest {
        match part {
            "volatile" => order.volatile = true,
            "relaxed" => order.strong = true,
            "acquire" => (order.strong, order.acquire) = (true, true),
            "release" => (order.strong, order.release) = (true, true),
            "acq_rel" | "sc" => (order.strong, order.acquire, order.release) = (true, true, true),
            _ => order.scope = Scope::named(part).unwrap_or(order.scope),
        }
        let length = part.strip_prefix('v').and_then(|n| n.parse::<u8>().ok()).filter(|n| [2, 4, 8].contains(n));
        if let Some(s) = space(part) {
            found = s;
        } else if let Some(n) = length {
            vector = n;
        } else if !HINTS.contains(&part) {
            left.push(part);
        }
    }
    (found, vector, order, left)
}

fn elements(parts: &[&str]) -> Result<Elements, String> {
    let (space, vector, order, rest) = place(parts);
    let [ty] = rest[..] else { return Err(format!("expected one type, found {rest:?}")) };
    let ty = Type::named(ty).filter(|t| t.bytes() > 0 && t.bytes() <= 8).ok_or("unknown type of element")?;
    if usize::from(vector) * ty.bytes() < 32 && parts.iter().any(|p| p.starts_with("L2::evict_")) {
        return Err(
            "only .v8 of 32 bits and .v4 of 64 have .L2::evict_normal, .L2::evict_first and .L2::evict_last".into()
        );
    }
    Ok(Elements { space, vector, ty, order })
}

fn atomic(rest: &[&str], result: bool) -> Result<Operation, String> {
    let (space, vector, order, mut rest) = place(rest);
    rest.retain(|part| *part != "noftz");
    // Vectors name the type first: `red.global.v2.f32.add`.
    let (name, ty) = match rest[..] {
        [ty, name] if vector > 1 && Type::named(ty).is_some() => (name, ty),
        [name, ty] => (name, ty),
        _ => return Err("expected an operation and a type".into()),
    };
    let kind = AtomicKind::named(name, ty).ok_or_else(|| format!("unknown operation {name}.{ty}"))?;
    if vector > 1 && (space == Space::Shared || !matches!(ty, "f32" | "f16" | "bf16" | "f16x2" | "bf16x2")) {
        return Err(format!("unknown vector of .{ty}"));
    }
    let ty = Type::named(ty).ok_or("unknown type")?;
    let order = Order { strong: true, ..order };
    match space {
        Space::Global | Space::Shared | Space::Generic => {
            Ok(Operation::Atomic { space, kind, ty, vector, result, order })
        }
        _ => Err("expected .global or .shared".into()),
    }
}

impl AtomicKind {
    /// By the parts of the opcode that name it: "add" and "f32".
    fn named(name: &str, ty: &str) -> Option<AtomicKind> {
        use AtomicKind::*;
        let integer = matches!(ty, "u32" | "s32" | "u64" | "s64");
        let signed = matches!(ty, "s32" | "s64");
        let bits = matches!(ty, "b32" | "b64");
        Some(match name {
            "add" if ty == "f32" => AddF32,
            "add" if ty == "f64" => AddF64,
            "add" if matches!(ty, "f16" | "f16x2") => AddF16,
            "add" if matches!(ty, "bf16" | "bf16x2") => AddBf16,
            "min" if matches!(ty, "f16" | "f16x2") => MinF16,
            "min" if matches!(ty, "bf16" | "bf16x2") => MinBf16,
            "max" if matches!(ty, "f16" | "f16x2") => MaxF16,
            "max" if matches!(ty, "bf16" | "bf16x2") => MaxBf16,
            "add" if integer => AddInteger,
            "and" if bits => And,
            "or" if bits => Or,
            "xor" if bits => Xor,
            "exch" if bits => Exchange,
            "cas" if bits || ty == "b16" => CompareAndSwap,
            "min" if signed => MinSigned,
            "max" if signed => MaxSigned,
            "min" if integer => MinUnsigned,
            "max" if integer => MaxUnsigned,
            "inc" if ty == "u32" => Increment,
            "dec" if ty == "u32" => Decrement,
            _ => return None,
        })
    }
}

fn matrices(rest: &[&str]) -> Result<Matrices, String> {
    let mut found = Matrices { count: 0, transposed: false, generic: true };
    for &part in rest {
        match part {
            "sync" | "aligned" | "m8n8" | "b16" => {}
            "x1" => found.count = 1,
            "x2" => found.count = 2,
            "x4" => found.count = 4,
            "trans" => found.transposed = true,
            "shared" | "shared::cta" => found.generic = false,
            _ => return Err(format!("unknown modifier .{part}")),
        }
    }
    Ok(found)
}

fn copy(rest: &[&str]) -> Result<Operation, String> {
    match rest {
        ["commit_group"] => Ok(Operation::CommitCopies),
        ["wait_all"] => Ok(Operation::WaitAllCopies),
        ["wait_group"] => Ok(Operation::WaitCopies),
        [cache @ ("ca" | "cg"), "shared" | "shared::cta", "global", hints @ ..] => {
            match hints.iter().find(|p| !HINTS.contains(p)) {
                Some(part) => Err(format!("unknown modifier .{part}")),
                None => Ok(Operation::Copy { cg: *cache == "cg" }),
            }
        }
        _ => Err("unknown kind of copy".into()),
    }
}

fn bulk_copy(rest: &[&str]) -> Result<Operation, String> {
    match rest {
        ["shared::cluster" | "shared::cta", "global", "mbarrier::complete_tx::bytes"] => Ok(Operation::BulkCopy),
        ["shared::cluster" | "shared::cta", "global", "mbarrier::complete_tx::bytes", "L2::cache_hint"] => {
            Ok(Operation::BulkCopy)
        }
        _ => Err(
            "of bulk copies only those of one dimension from global to shared memory, with an mbarrier, are supported"
                .into(),
        ),
    }
}

fn copies_arrive(rest: &[&str]) -> Result<Operation, String> {
    let (counted, rest) = match rest {
        ["noinc", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let generic = match rest {
        ["b64"] => true,
        ["shared" | "shared::cta", "b64"] => false,
        _ => return Err("expected .shared and .b64".into()),
    };
    Ok(Operation::Mbarrier(Mbarrier { kind: MbarrierKind::CopiesArrive { counted }, generic, relaxed: true }))
}

fn mbarrier(name: &str, rest: &[&str]) -> Result<Operation, String> {
    let Some((&"b64", modifiers)) = rest.split_last() else { return Err("expected .b64 at the end".into()) };
    let has = |modifier: &str| modifiers.contains(&modifier);
    let arrives = matches!(name, "arrive" | "arrive_drop");
    let waits = matches!(name, "test_wait" | "try_wait");
    let counts = matches!(name, "expect_tx" | "complete_tx");
    let kind = match name {
        "init" => MbarrierKind::Init,
        "inval" => MbarrierKind::Invalidate,
        "expect_tx" => MbarrierKind::ExpectBytes,
        "complete_tx" => MbarrierKind::CompleteBytes,
        _ if arrives => {
            MbarrierKind::Arrive { drop: name == "arrive_drop", bytes: has("expect_tx"), completes: !has("noComplete") }
        }
        _ if waits => MbarrierKind::Wait { parity: has("parity") },
        _ => return Err("unknown operation of mbarriers".into()),
    };
    for &modifier in modifiers {
        let known = match modifier {
            "shared" | "shared::cta" => true,
            // Without clusters the block is one alone.
            "shared::cluster" => arrives || counts,
            "expect_tx" => arrives && !has("noComplete"),
            "noComplete" => arrives,
            "parity" => waits,
            "release" => arrives,
            "acquire" => waits,
            "relaxed" => arrives || waits || counts,
            "cta" | "cluster" => has("release") || has("acquire") || has("relaxed"),
            _ => false,
        };
        if !known {
            return Err(format!("unknown modifier .{modifier}"));
        }
    }
    let generic = !modifiers.iter().any(|m| m.starts_with("shared"));
    Ok(Operation::Mbarrier(Mbarrier { kind, generic, relaxed: has("relaxed") || counts }))
}

fn convert_address(rest: &[&str]) -> Result<Operation, String> {
    let (to, space, size) = match rest {
        ["to", space, size] => (true, space, size),
        [space, size] => (false, space, size),
        _ => return Err("expected a state space and a size".into()),
    };
    if *size != "u64" {
        return Err("expected .u64 addresses".into());
    }
    let space = if *space == "const" { Space::Const } else { window(space)? };
    Ok(Operation::ConvertAddress { to, space })
}

/// A state space with generic addresses.
fn window(part: &str) -> Result<Space, String> {
    match part {
        "global" | "shared" | "shared::cta" | "shared::cluster" | "local" | "param" | "param::entry" => {
            Ok(space(part).unwrap_or_default())
        }
        _ => Err(format!("unknown state space {part}")),
    }
}
