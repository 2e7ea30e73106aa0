//! `mov` between registers (PTX ISA 9.7.9).

use super::request::{Answer, Request, from, to, unknown_type};
use crate::ops::lanes::moves::{Copy, copy64, pack, unpack};
use crate::ops::lanes::predicates::predicate1;
use crate::ops::shapes::op1;
use crate::ops::{Arg, Class};

pub fn select(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let l = q.level;
    match *q.vectors {
        [0, n] if n > 0 => {
            let (exec, part) = match (ty, n) {
                ("b16", 2) => (pack::<u16, u8>(l), Arg::From16),
                ("b32", 2) => (pack::<u32, u16>(l), Arg::From16),
                ("b32", 4) => (pack::<u32, u8>(l), Arg::From16),
                ("b64", 2) => (pack::<u64, u32>(l), Arg::From32),
                ("b64", 4) => (pack::<u64, u16>(l), Arg::From16),
                _ => return Err(format!("unknown type .{ty} for {n} parts")),
            };
            let mut args = vec![to(ty)];
            args.extend(std::iter::repeat_n(part, n));
            q.finish_vector(exec, &args, 2, Class::Move)
        }
        [n, 0] if n > 0 => {
            let exec = match (ty, n) {
                ("b16", 2) => unpack::<u16, u8>(l),
                ("b32", 2) => unpack::<u32, u16>(l),
                ("b32", 4) => unpack::<u32, u8>(l),
                ("b64", 2) => unpack::<u64, u32>(l),
                ("b64", 4) => unpack::<u64, u16>(l),
                _ => return Err(format!("unknown type .{ty} for {n} parts")),
            };
            let mut args = vec![Arg::To32; n];
            args.push(from(ty));
            q.finish_vector(exec, &args, 2, Class::Move)
        }
        _ => match ty {
            "pred" => q.finish(predicate1::<Copy>(), &[Arg::ToPredicate, Arg::FromPredicate], Class::Move),
            "b16" | "u16" | "s16" | "b32" | "u32" | "s32" | "f32" => {
                q.finish(op1::<u32, u32, Copy>(l), &[Arg::To32, from(ty)], Class::Move)
            }
            "b64" | "u64" | "s64" | "f64" => q.finish(copy64(l), &[Arg::To64, Arg::From64], Class::Move),
            _ => Err(unknown_type(ty)),
        },
    }
}
