//! What one instruction computes: functions over the lanes of a warp, chosen once when a kernel is compiled.

pub mod atomic;
pub mod formats;
pub(crate) mod lanes;
pub mod matrix;
pub mod select;
pub mod shapes;
pub mod warp;

use crate::registers::Exec;

/// One operand of a recipe, in the order of the PTX text. Vectors are flattened: `mma`'s `{d0, d1, d2, d3}` is four `To32`.
/// The n-th row operand (destinations and sources alike) is `Operands::slot[n]`, the n-th predicate `Operands::predicate[n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// Destination rows of 32 (or 16, or 8) and 64 bits.
    To32,
    To64,
    /// Sources; an immediate becomes a row.
    From32,
    From64,
    /// A 16-bit source: immediates are cut to 16 bits, float literals do not occur.
    From16,
    /// Destination predicate; the second of `p|q` is `ToPredicateToo` and may be missing (NO_PREDICATE).
    ToPredicate,
    ToPredicateToo,
    /// Source predicate; bit n of `Operands::negated` says that the n-th *source* predicate is `!p`.
    FromPredicate,
    /// An immediate that goes to `Operands::extra`.
    Immediate,
}

/// For the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    Integer,
    Float32,
    Float64,
    /// f16, bf16 and their pairs.
    Half,
    Convert,
    /// setp, selp, min/max excepted: predicates and selection.
    Compare,
    Move,
    /// `.approx` functions, sqrt, division: what the special function unit or a software routine does.
    Special,
    Matrix,
    /// shfl, vote, match, redux.
    Shuffle,
    GlobalLoad,
    GlobalStore,
    SharedLoad,
    SharedStore,
    /// `cp.async` and its groups.
    AsyncCopy,
    /// local, param, const
    OtherMemory,
    Atomic,
    Branch,
    Barrier,
    Other,
}

/// How an instruction that touches only registers runs.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub exec: Exec,
    pub args: Vec<Arg>,
    /// Written to `Operands::extra` (an `Arg::Immediate` overrides it).
    pub extra: u32,
    pub class: Class,
    /// Multiplications and additions of one warp-wide matrix instruction; 0 for all others.
    pub flops: u32,
    /// All live lanes must take part (`.aligned`, or a member mask in the last operand).
    pub warp_wide: bool,
}

/// Looks an opcode up: the parts between dots, how many operands are written, how long each vector among them is (0: none).
/// `Ok(None)` for a mnemonic that belongs elsewhere, `Err` with what is unknown.
pub type Select = fn(&[&str], usize, &[usize], crate::registers::Level) -> Result<Option<Recipe>, String>;
