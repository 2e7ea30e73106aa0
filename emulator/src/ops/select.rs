//! From an opcode to a [`Recipe`], for instructions that touch only registers and predicates (PTX ISA 9.7.1 to 9.7.8, and `mov`
//! and `cvt` of 9.7.9). Every modifier is consumed or refused.
//!
//! Values of 8 and 16 bits are read from the low bits of their rows, whatever lies above.
//! The carry flag of `add.cc` and its like is predicate 0.

mod bits;
mod carry;
mod compare;
mod convert;
mod float;
mod half;
mod integer;
mod moves;
mod request;

use super::Recipe;
use crate::registers::Level;
use request::Request;

/// The recipe of an instruction: `opcode` is `["add", "rn", "f32"]`, `operands` their number as written (`p|q` and `{a, b}` count as
/// one), `vectors` the length of each that is a vector and 0 for the others. `None` when the mnemonic belongs elsewhere.
///
/// # Errors
/// The unknown modifier or type, or a wrong number of operands.
pub fn select(opcode: &[&str], operands: usize, vectors: &[usize], level: Level) -> Result<Option<Recipe>, String> {
    let Some((&name, modifiers)) = opcode.split_first() else { return Ok(None) };
    let family = match name {
        "add" | "sub" | "mad" if modifiers.contains(&"cc") => carry::select,
        "addc" | "subc" | "madc" => carry::select,
        "add" | "sub" | "mul" | "mad" | "fma" | "div" | "abs" | "neg" | "min" | "max" => match modifiers {
            [.., "f32", "f16" | "bf16"] => float::mixed,
            [.., "f32" | "f64" | "f32x2"] => float::select,
            [.., "f16" | "f16x2" | "bf16" | "bf16x2"] => half::select,
            _ => integer::select,
        },
        "rcp" | "sqrt" | "rsqrt" | "sin" | "cos" | "lg2" | "copysign" => float::select,
        "ex2" | "tanh" => match modifiers {
            [.., "f16" | "f16x2" | "bf16" | "bf16x2"] => half::select,
            _ => float::select,
        },
        "rem" | "mul24" | "mad24" | "sad" | "dp4a" | "dp2a" => integer::select,
        "popc" | "clz" | "bfind" | "fns" | "brev" | "bfe" | "bfi" | "bmsk" | "szext" | "and" | "or" | "xor" | "not"
        | "cnot" | "lop3" | "shf" | "shl" | "shr" | "prmt" => bits::select,
        "set" | "setp" | "selp" | "slct" | "testp" => compare::select,
        "cvt" => convert::select,
        "mov" => moves::select,
        _ => return Ok(None),
    };
    family(&mut Request { name, modifiers: modifiers.to_vec(), operands, vectors, level }).map(Some)
}
