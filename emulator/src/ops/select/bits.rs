//! PTX ISA 9.7.1 (bit manipulation) and 9.7.8.

use super::request::{Answer, Request, by_type, from, to};
use crate::ops::lanes::bits::*;
use crate::ops::lanes::predicates;
use crate::ops::shapes::{op1, op2, op3};
use crate::ops::{Arg, Class};

pub fn select(q: &mut Request) -> Answer {
    use Arg::{From32, FromPredicate, Immediate, To32, ToPredicate};
    // The mode of prmt follows its type.
    if q.name == "prmt" {
        return permute(q);
    }
    let ty = q.last()?;
    let l = q.level;
    let (d, a) = (to(ty), from(ty));
    macro_rules! logic2 {
        ($F:ident) => {
            if ty == "pred" {
                return q.finish(predicates::predicate2::<$F>(), &[ToPredicate, FromPredicate, FromPredicate], Class::Compare);
            } else {
                by_type!(ty, T: ["b16" = u16, "b32" = u32, "b64" = u64], op2::<T, T, T, $F>(l))
            }
        };
    }
    macro_rules! count {
        ($F:ident) => {
            by_type!(ty, T: ["b32" = u32, "b64" = u64], op1::<T, u32, $F>(l))
        };
    }
    let (exec, args): (_, &[Arg]) = match q.name {
        "and" => (logic2!(And), &[d, a, a]),
        "or" => (logic2!(Or), &[d, a, a]),
        "xor" => (logic2!(Xor), &[d, a, a]),
        "not" if ty == "pred" => {
            return q.finish(predicates::predicate1::<Not>(), &[ToPredicate, FromPredicate], Class::Compare);
        }
        "not" => (by_type!(ty, T: ["b16" = u16, "b32" = u32, "b64" = u64], op1::<T, T, Not>(l)), &[d, a]),
        "cnot" => (by_type!(ty, T: ["b16" = u16, "b32" = u32, "b64" = u64], op1::<T, T, Cnot>(l)), &[d, a]),
        "shl" => (by_type!(ty, T: ["b16" = u16, "b32" = u32, "b64" = u64], op2::<T, u32, T, Shl>(l)), &[d, a, From32]),
        "shr" => {
            let exec = by_type!(ty, T: [
                "b16" | "u16" = u16, "b32" | "u32" = u32, "b64" | "u64" = u64, "s16" = i16, "s32" = i32, "s64" = i64,
            ], op2::<T, u32, T, Shr>(l));
            (exec, &[d, a, From32])
        }
        "popc" => (count!(Popc), &[To32, a]),
        "clz" => (count!(Clz), &[To32, a]),
        "brev" => (by_type!(ty, T: ["b32" = u32, "b64" = u64], op1::<T, T, Brev>(l)), &[d, a]),
        "bfind" => {
            let shift = q.take("shiftamt");
            let exec = by_type!(ty, T: ["u32" = u32, "s32" = i32, "u64" = u64, "s64" = i64],
                if shift { op1::<T, u32, BfindShift>(l) } else { op1::<T, u32, Bfind>(l) });
            (exec, &[To32, a])
        }
        "bfe" => {
            let exec = by_type!(ty, T: ["u32" = u32, "s32" = i32, "u64" = u64, "s64" = i64],
                op3::<T, u32, u32, T, Bfe>(l));
            (exec, &[d, a, From32, From32])
        }
        "bfi" => (by_type!(ty, T: ["b32" = u32, "b64" = u64], bfi::<T>(l)), &[d, a, a, From32, From32]),
        "fns" => (by_type!(ty, T: ["b32" = u32], op3::<T, u32, i32, u32, Fns>(l)), &[d, a, From32, From32]),
        "bmsk" | "szext" => {
            let clamp = q.one_of(&["clamp", "wrap"]).ok_or("expected .clamp or .wrap")? == 0;
            let exec = match (q.name, ty, clamp) {
                ("bmsk", "b32", true) => op2::<u32, u32, u32, Bmsk<true>>(l),
                ("bmsk", "b32", false) => op2::<u32, u32, u32, Bmsk<false>>(l),
                ("szext", "u32", true) => op2::<u32, u32, u32, Szext<true>>(l),
                ("szext", "u32", false) => op2::<u32, u32, u32, Szext<false>>(l),
                ("szext", "s32", true) => op2::<i32, u32, i32, Szext<true>>(l),
                ("szext", "s32", false) => op2::<i32, u32, i32, Szext<false>>(l),
                _ => return Err(super::request::unknown_type(ty)),
            };
            (exec, &[To32, From32, From32])
        }
        "shf" => {
            let left = q.one_of(&["l", "r"]).ok_or("expected .l or .r")? == 0;
            let clamp = q.one_of(&["clamp", "wrap"]).ok_or("expected .clamp or .wrap")? == 0;
            let exec = by_type!(ty, T: ["b32" = u32], match (left, clamp) {
                (true, true) => op3::<T, T, T, T, ShfLeft<true>>(l),
                (true, false) => op3::<T, T, T, T, ShfLeft<false>>(l),
                (false, true) => op3::<T, T, T, T, ShfRight<true>>(l),
                (false, false) => op3::<T, T, T, T, ShfRight<false>>(l),
            });
            (exec, &[d, a, a, From32])
        }
        "lop3" => {
            let how = q.one_of(&["and", "or"]).map_or(0, |n| n + 1);
            if ty != "b32" {
                return Err(super::request::unknown_type(ty));
            }
            let args: &[Arg] = match how {
                0 => &[To32, From32, From32, From32, Immediate],
                _ => &[To32, ToPredicate, From32, From32, From32, Immediate, FromPredicate],
            };
            (predicates::lop3(how, l), args)
        }
        name => return Err(format!("unknown opcode {name}")),
    };
    q.finish(exec, args, Class::Integer)
}

/// `prmt.b32{.mode}`
fn permute(q: &mut Request) -> Answer {
    if !q.take("b32") {
        return Err("expected type .b32".into());
    }
    let l = q.level;
    let exec = match q.one_of(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]) {
        None => op3::<u32, u32, u32, u32, Prmt<Generic>>(l),
        Some(0) => op3::<u32, u32, u32, u32, Prmt<Forward>>(l),
        Some(1) => op3::<u32, u32, u32, u32, Prmt<Backward>>(l),
        Some(2) => op3::<u32, u32, u32, u32, Prmt<Replicate8>>(l),
        Some(3) => op3::<u32, u32, u32, u32, Prmt<EdgeLeft>>(l),
        Some(4) => op3::<u32, u32, u32, u32, Prmt<EdgeRight>>(l),
        Some(_) => op3::<u32, u32, u32, u32, Prmt<Replicate16>>(l),
    };
    q.finish(exec, &[Arg::To32, Arg::From32, Arg::From32, Arg::From32], Class::Integer)
}
