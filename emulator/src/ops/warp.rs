//! Exchange between the lanes of a warp (PTX ISA 9.0, 9.7.9 and 9.7.13): `shfl`, `vote`, `match`, `redux`, `activemask`, `elect`.
//!
//! The executor makes sure that the lanes a member mask names are those that take part. Lanes of one instruction may belong to
//! several member masks; each then sees the lanes of its own.

mod members;
mod shuffle;
mod vote;

use super::{Arg, Class, Recipe};
use crate::registers::{Exec, Level};

/// The lane that `shfl` takes a value from: by `Operands::extra`, the lane, and its operands b and c. `None` where it keeps its own, and
/// for other instructions.
pub fn shuffle_source(extra: u32, lane: usize, b: u32, c: u32) -> Option<usize> {
    shuffle::source(extra, lane, b, c)
}

/// Finds the instructions of this module; see [`super::Select`]. Where a recipe is `warp_wide`, its last row operand is the member
/// mask.
///
/// # Errors
/// Names the mode, type or modifier that is unknown.
pub fn select(opcode: &[&str], operands: usize, _vectors: &[usize], level: Level) -> Result<Option<Recipe>, String> {
    use Arg::*;
    let unknown = || format!("unknown mode or type .{}", opcode[1..].join("."));
    let sync = opcode.get(1) == Some(&"sync") || opcode.get(2) == Some(&"sync");
    let (exec, mut args): (Exec, Vec<Arg>) = match opcode {
        ["shfl", "sync", mode, "b32"] | ["shfl", mode @ ("up" | "down" | "bfly" | "idx"), "b32"] => {
            (shuffle::select(mode, level).ok_or_else(unknown)?, vec![To32, ToPredicateToo, From32, From32, From32])
        }
        ["vote", "sync", "ballot", "b32"] | ["vote", "ballot", "b32"] => {
            (vote::ballot(sync, level), vec![To32, FromPredicate])
        }
        ["vote", "sync", kind, "pred"] | ["vote", kind @ ("all" | "any" | "uni"), "pred"] => {
            (vote::vote(kind, sync, level).ok_or_else(unknown)?, vec![ToPredicate, FromPredicate])
        }
        ["match", "any", "sync", "b32"] => (vote::match_any::<u32>(level), vec![To32, From32]),
        ["match", "any", "sync", "b64"] => (vote::match_any::<u64>(level), vec![To32, From64]),
        ["match", "all", "sync", "b32"] => (vote::match_all::<u32>(level), vec![To32, ToPredicateToo, From32]),
        ["match", "all", "sync", "b64"] => (vote::match_all::<u64>(level), vec![To32, ToPredicateToo, From64]),
        ["redux", "sync", .., "f32"] => return Err(".f32 is of sm_100a alone, which no emulated GPU is".into()),
        ["redux", "sync", operation, ty] => {
            (vote::reduce(operation, ty, level).ok_or_else(unknown)?, vec![To32, From32])
        }
        ["elect", "sync"] => (vote::elect(level), vec![To32, ToPredicateToo]),
        ["activemask", "b32"] => (vote::active_mask(level), vec![To32]),
        ["shfl" | "vote" | "match" | "redux" | "elect" | "activemask", ..] => return Err(unknown()),
        _ => return Ok(None),
    };
    if sync {
        args.push(From32);
    }
    // The second destination of `d|p` belongs to the first operand.
    let expected = args.iter().filter(|&&arg| arg != ToPredicateToo).count();
    if operands != expected {
        return Err(format!("expected {expected} operands, found {operands}"));
    }
    let mode = opcode.iter().find_map(|part| shuffle::MODES[1..].iter().position(|m| m == part));
    let extra = if opcode[0] == "shfl" { mode.map_or(0, |n| n as u32 + 1) } else { 0 };
    Ok(Some(Recipe { exec, args, extra, class: Class::Shuffle, flops: 0, warp_wide: sync }))
}
