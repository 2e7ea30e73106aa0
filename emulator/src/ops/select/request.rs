//! What all instructions of the registers share: an opcode whose modifiers are taken away, and how operands follow from a type.

use crate::ops::lanes::rounding::Mode;
use crate::ops::{Arg, Class, Recipe};
use crate::registers::{Exec, Level};

pub(super) type Answer = Result<Recipe, String>;

/// An opcode whose modifiers are taken away as they are understood.
pub(super) struct Request<'a> {
    pub name: &'a str,
    pub modifiers: Vec<&'a str>,
    pub operands: usize,
    pub vectors: &'a [usize],
    pub level: Level,
}

impl<'a> Request<'a> {
    /// Takes a modifier if it is there.
    pub fn take(&mut self, modifier: &str) -> bool {
        let at = self.modifiers.iter().position(|m| *m == modifier);
        if let Some(at) = at {
            self.modifiers.remove(at);
        }
        at.is_some()
    }

    /// Takes the first modifier that is one of these: its index.
    pub fn one_of(&mut self, names: &[&str]) -> Option<usize> {
        let (at, index) =
            self.modifiers.iter().enumerate().find_map(|(at, m)| Some((at, names.iter().position(|n| n == m)?)))?;
        self.modifiers.remove(at);
        Some(index)
    }

    /// Takes the last modifier, which is the type.
    pub fn last(&mut self) -> Result<&'a str, String> {
        self.modifiers.pop().ok_or_else(|| "expected a type".into())
    }

    pub fn rounding(&mut self) -> Option<Mode> {
        self.one_of(&["rn", "rz", "rm", "rp"]).map(|n| [Mode::Rn, Mode::Rz, Mode::Rm, Mode::Rp][n])
    }

    pub fn required_rounding(&mut self) -> Result<Mode, String> {
        self.rounding().ok_or_else(|| "expected a rounding modifier: .rn, .rz, .rm or .rp".into())
    }

    /// The result, if nothing is left of the opcode and the operands are as many as `args` say.
    pub fn finish(&self, exec: Exec, args: &[Arg], class: Class) -> Answer {
        if let Some(at) = self.vectors.iter().position(|&n| n != 0) {
            return Err(format!("operand {} may not be a vector", at + 1));
        }
        // `p|q`, and `d|p` of lop3, are written as one operand.
        let pairs = args.iter().filter(|a| **a == Arg::ToPredicateToo).count()
            + usize::from(args.starts_with(&[Arg::To32, Arg::ToPredicate]));
        self.finish_vector(exec, args, args.len() - pairs, class)
    }

    /// The same for an instruction with vector operands, `operands` in all.
    pub fn finish_vector(&self, exec: Exec, args: &[Arg], operands: usize, class: Class) -> Answer {
        if let Some(m) = self.modifiers.first() {
            return Err(format!("unknown modifier .{m}"));
        }
        if self.operands != operands {
            return Err(format!("expected {operands} operands, found {}", self.operands));
        }
        Ok(Recipe { exec, args: args.to_vec(), extra: 0, class, flops: 0, warp_wide: false })
    }
}

pub(super) fn unknown_type(name: &str) -> String {
    format!("unknown type .{name}")
}

pub(super) fn unknown_modifier(name: &str) -> String {
    format!("unknown modifier .{name}")
}

/// Bits of a type by the digits of its name: `u64` is 64, `f16x2` is 32.
pub(super) fn width(name: &str) -> u32 {
    let digits = name.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    match digits.split_once('x') {
        Some((bits, n)) => bits.parse::<u32>().unwrap_or(0) * n.parse::<u32>().unwrap_or(0),
        None => digits.parse().unwrap_or(0),
    }
}

/// The destination of a type.
pub(super) fn to(name: &str) -> Arg {
    if width(name) == 64 { Arg::To64 } else { Arg::To32 }
}

/// A source of a type.
pub(super) fn from(name: &str) -> Arg {
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
            other => return Err($crate::ops::select::request::unknown_type(other)),
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
pub(super) use {by_rounding, by_type, wrapped};
