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

use super::lanes::rounding::Mode;
use super::{Arg, Class, Recipe};
use crate::registers::{Exec, Level};

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

type Answer = Result<Recipe, String>;

/// An opcode whose modifiers are taken away as they are understood.
struct Request<'a> {
    name: &'a str,
    modifiers: Vec<&'a str>,
    operands: usize,
    vectors: &'a [usize],
    level: Level,
}

impl<'a> Request<'a> {
    /// Takes a modifier if it is there.
    fn take(&mut self, modifier: &str) -> bool {
        let at = self.modifiers.iter().position(|m| *m == modifier);
        if let Some(at) = at {
            self.modifiers.remove(at);
        }
        at.is_some()
    }

    /// Takes the first modifier that is one of these: its index.
    fn one_of(&mut self, names: &[&str]) -> Option<usize> {
        let (at, index) =
            self.modifiers.iter().enumerate().find_map(|(at, m)| Some((at, names.iter().position(|n| n == m)?)))?;
        self.modifiers.remove(at);
        Some(index)
    }

    /// Takes the last modifier, which is the type.
    fn last(&mut self) -> Result<&'a str, String> {
        self.modifiers.pop().ok_or_else(|| "expected a type".into())
    }

    fn rounding(&mut self) -> Option<Mode> {
        self.one_of(&["rn", "rz", "rm", "rp"]).map(|n| [Mode::Rn, Mode::Rz, Mode::Rm, Mode::Rp][n])
    }

    fn required_rounding(&mut self) -> Result<Mode, String> {
        self.rounding().ok_or_else(|| "expected a rounding modifier: .rn, .rz, .rm or .rp".into())
    }

    /// The result, if nothing is left of the opcode and the operands are as many as `args` say.
    fn finish(&self, exec: Exec, args: &[Arg], class: Class) -> Answer {
        if let Some(at) = self.vectors.iter().position(|&n| n != 0) {
            return Err(format!("operand {} may not be a vector", at + 1));
        }
        // `p|q`, and `d|p` of lop3, are written as one operand.
        let pairs = args.iter().filter(|a| **a == Arg::ToPredicateToo).count()
            + usize::from(args.starts_with(&[Arg::To32, Arg::ToPredicate]));
        self.finish_vector(exec, args, args.len() - pairs, class)
    }

    /// The same for an instruction with vector operands, `operands` in all.
    fn finish_vector(&self, exec: Exec, args: &[Arg], operands: usize, class: Class) -> Answer {
        if let Some(m) = self.modifiers.first() {
            return Err(format!("unknown modifier .{m}"));
        }
        if self.operands != operands {
            return Err(format!("expected {operands} operands, found {}", self.operands));
        }
        Ok(Recipe { exec, args: args.to_vec(), extra: 0, class, flops: 0, warp_wide: false })
    }
}

fn unknown_type(name: &str) -> String {
    format!("unknown type .{name}")
}

fn unknown_modifier(name: &str) -> String {
    format!("unknown modifier .{name}")
}

/// Bits of a type by the digits of its name: `u64` is 64, `f16x2` is 32.
fn width(name: &str) -> u32 {
    let digits = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    match digits.split_once('x') {
        Some((bits, n)) => bits.parse::<u32>().unwrap_or(0) * n.parse::<u32>().unwrap_or(0),
        None => digits.parse().unwrap_or(0),
    }
}

/// The destination of a type.
fn to(name: &str) -> Arg {
    if width(name) == 64 { Arg::To64 } else { Arg::To32 }
}

/// A source of a type.
fn from(name: &str) -> Arg {
    match width(name) {
        64 => Arg::From64,
        32 => Arg::From32,
        _ => Arg::From16,
    }
}

/// `$body` with `$T` standing for the type that a name means; an error for other names.
macro_rules! by_type {
    ($name:expr, $T:ident: [$($($text:literal)|+ = $t:ty),+ $(,)?], $body:expr) => {
        match $name {
            $($($text)|+ => {
                type $T = $t;
                $body
            })+
            other => return Err($crate::ops::select::unknown_type(other)),
        }
    };
}
/// `$body` with `$R` standing for a rounding.
macro_rules! by_rounding {
    ($mode:expr, $R:ident, $body:expr) => {{
        use $crate::ops::lanes::rounding::{Mode, Rm, Rn, Rp, Rz};
        match $mode {
            Mode::Rn => {
                type $R = Rn;
                $body
            }
            Mode::Rz => {
                type $R = Rz;
                $body
            }
            Mode::Rm => {
                type $R = Rm;
                $body
            }
            Mode::Rp => {
                type $R = Rp;
                $body
            }
        }
    }};
}
/// `$body` with `$F` standing for the lane function, wrapped in each of the modifiers that is asked for.
macro_rules! wrapped {
    ($inner:ty, [$(($wrapper:ident, $on:expr)),*], $F:ident, $body:expr) => {
        wrapped!(@ $inner, [$(($wrapper, $on)),*], $F, $body)
    };
    (@ $inner:ty, [], $F:ident, $body:expr) => {{
        type $F = $inner;
        $body
    }};
    (@ $inner:ty, [($wrapper:ident, $on:expr) $(, ($more:ident, $more_on:expr))*], $F:ident, $body:expr) => {
        if $on {
            wrapped!(@ $wrapper<$inner>, [$(($more, $more_on)),*], $F, $body)
        } else {
            wrapped!(@ $inner, [$(($more, $more_on)),*], $F, $body)
        }
    };
}
use {by_rounding, by_type, wrapped};
