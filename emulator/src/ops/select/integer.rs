//! PTX ISA 9.7.1, bit manipulation excepted.

use super::request::{Answer, Request, by_type, from, to, unknown_modifier};
use crate::ops::lanes::arithmetic::Both;
use crate::ops::lanes::divide;
use crate::ops::lanes::integer::*;
use crate::ops::lanes::values::Pair;
use crate::ops::shapes::{op1, op2, op3};
use crate::ops::{Arg, Class};

/// `$body` for each integer type of an instruction.
macro_rules! integers {
    ($name:expr, $T:ident, $body:expr) => {
        by_type!($name, $T: ["u16" = u16, "s16" = i16, "u32" = u32, "s32" = i32, "u64" = u64, "s64" = i64], $body)
    };
}

pub fn select(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let l = q.level;
    let two = [to(ty), from(ty), from(ty)];
    let three = [to(ty), from(ty), from(ty), from(ty)];
    macro_rules! pairs_too {
        ($F:ident) => {
            match ty {
                "u16x2" => op2::<Pair<u16>, Pair<u16>, Pair<u16>, Both<$F>>(l),
                "s16x2" => op2::<Pair<i16>, Pair<i16>, Pair<i16>, Both<$F>>(l),
                _ => integers!(ty, T, op2::<T, T, T, $F>(l)),
            }
        };
    }
    macro_rules! limit {
        ($F:ident) => {
            match (q.take("relu"), ty) {
                (true, "s32") => op2::<i32, i32, i32, Relu<$F>>(l),
                (true, "s16x2") => op2::<Pair<i16>, Pair<i16>, Pair<i16>, Both<Relu<$F>>>(l),
                (true, _) => return Err(unknown_modifier("relu")),
                _ => pairs_too!($F),
            }
        };
    }
    let sat = ty == "s32" && matches!(q.name, "add" | "sub") && q.take("sat");
    let (exec, args): (_, &[Arg]) = match q.name {
        "add" if sat => (op2::<i32, i32, i32, AddSat>(l), &two),
        "sub" if sat => (op2::<i32, i32, i32, SubSat>(l), &two),
        "add" => (pairs_too!(Add), &two),
        "sub" => (integers!(ty, T, op2::<T, T, T, Sub>(l)), &two),
        "min" => (limit!(Min), &two),
        "max" => (limit!(Max), &two),
        "sad" => (integers!(ty, T, op3::<T, T, T, T, Sad>(l)), &three),
        "abs" => (by_type!(ty, T: ["s16" = i16, "s32" = i32, "s64" = i64], op1::<T, T, Abs>(l)), &two[..2]),
        "neg" => (by_type!(ty, T: ["s16" = i16, "s32" = i32, "s64" = i64], op1::<T, T, Neg>(l)), &two[..2]),
        "div" | "rem" => return divide(q, ty),
        "mul" | "mad" => return multiply(q, ty),
        "mul24" => {
            let hi = half(q)?;
            let exec = by_type!(ty, T: ["u32" = u32, "s32" = i32],
                if hi { op2::<T, T, T, Mul24Hi>(l) } else { op2::<T, T, T, Mul24Lo>(l) });
            (exec, &two)
        }
        "mad24" => {
            let hi = half(q)?;
            let exec = if hi && ty == "s32" && q.take("sat") {
                op3::<i32, i32, i32, i32, Mad24HiSat>(l)
            } else {
                by_type!(ty, T: ["u32" = u32, "s32" = i32],
                    if hi { op3::<T, T, T, T, Mad24Hi>(l) } else { op3::<T, T, T, T, Mad24Lo>(l) })
            };
            (exec, &three)
        }
        "dp4a" | "dp2a" => return dot(q, ty),
        name => return Err(format!("{name} has no type .{ty}")),
    };
    q.finish(exec, args, Class::Integer)
}

/// Whether `.hi` is asked for, and not `.lo`.
fn half(q: &mut Request) -> Result<bool, String> {
    q.one_of(&["lo", "hi"]).map(|n| n == 1).ok_or_else(|| "expected .lo or .hi".into())
}

fn divide(q: &mut Request, ty: &str) -> Answer {
    let remainder = q.name == "rem";
    let exec = match ty {
        "u64" => divide::wide::<u64>(remainder, q.level),
        "s64" => divide::wide::<i64>(remainder, q.level),
        _ => by_type!(ty, T: ["u16" = u16, "s16" = i16, "u32" = u32, "s32" = i32], if remainder {
            op2::<T, T, T, divide::Rem>(q.level)
        } else {
            op2::<T, T, T, divide::Div>(q.level)
        }),
    };
    q.finish(exec, &[to(ty), from(ty), from(ty)], Class::Special)
}

fn multiply(q: &mut Request, ty: &str) -> Answer {
    let l = q.level;
    let add = q.name == "mad";
    let mode = q.one_of(&["lo", "hi", "wide"]).ok_or("expected .lo, .hi or .wide")?;
    let (exec, result) = match (mode, add) {
        (0, false) => (integers!(ty, T, op2::<T, T, T, MulLo>(l)), ty),
        (0, true) => (integers!(ty, T, op3::<T, T, T, T, MadLo>(l)), ty),
        (1, false) => (integers!(ty, T, op2::<T, T, T, MulHi>(l)), ty),
        (1, true) if ty == "s32" && q.take("sat") => (op3::<i32, i32, i32, i32, MadHiSat>(l), ty),
        (1, true) => (integers!(ty, T, op3::<T, T, T, T, MadHi>(l)), ty),
        _ => {
            macro_rules! widening {
                ($($name:literal: $t:ty => $wide:ty, $result:literal);*) => {
                    match (ty, add) {
                        $(($name, false) => (op2::<$t, $t, $wide, MulWide>(l), $result),
                        ($name, true) => (op3::<$t, $t, $wide, $wide, MadWide>(l), $result),)*
                        _ => return Err(super::request::unknown_type(ty)),
                    }
                };
            }
            widening!("u16": u16 => u32, "u32"; "s16": i16 => i32, "s32"; "u32": u32 => u64, "u64"; "s32": i32 => i64, "s64")
        }
    };
    let args = [to(result), from(ty), from(ty), from(result)];
    q.finish(exec, &args[..if add { 4 } else { 3 }], Class::Integer)
}

/// `dp4a.atype.btype`, `dp2a.mode.atype.btype`
fn dot(q: &mut Request, b: &str) -> Answer {
    let l = q.level;
    let a = q.last()?;
    let high = if q.name == "dp2a" { Some(half(q)?) } else { None };
    macro_rules! signs {
        ($($a:literal $b:literal: $A:ty, $B:ty);*) => {
            match (a, b, high) {
                $(($a, $b, None) => op3::<u32, u32, u32, u32, Dp4a<$A, $B>>(l),
                ($a, $b, Some(false)) => op3::<u32, u32, u32, u32, Dp2a<$A, $B, 0>>(l),
                ($a, $b, Some(true)) => op3::<u32, u32, u32, u32, Dp2a<$A, $B, 2>>(l),)*
                _ => return Err(format!("unknown types .{a}.{b}")),
            }
        };
    }
    let exec = signs!(
        "u32" "u32": Unsigned, Unsigned;
        "u32" "s32": Unsigned, Signed;
        "s32" "u32": Signed, Unsigned;
        "s32" "s32": Signed, Signed
    );
    q.finish(exec, &[Arg::To32, Arg::From32, Arg::From32, Arg::From32], Class::Integer)
}
