//! PTX ISA 9.7.6 and 9.7.7, and `testp`.

use super::request::{Answer, Request, by_type, from, to, unknown_type, wrapped};
use crate::ops::lanes::compare::*;
use crate::ops::lanes::predicates::{self, COMBINE, TRUE};
use crate::ops::lanes::values::{Bf16, F16, Pair};
use crate::ops::shapes::op3;
use crate::ops::{Arg, Class};
use crate::registers::Exec;

pub fn select(q: &mut Request) -> Answer {
    match q.name {
        "setp" => setp(q),
        "set" => set(q),
        "selp" => selp(q),
        "slct" => slct(q),
        _ => testp(q),
    }
}

/// `$body` with `$F` standing for the comparison of a name, for the kind of type that knows it.
macro_rules! by_test {
    ($name:expr, $F:ident: [$($($text:literal)|+ = $t:ty),+], $body:expr) => {
        match $name {
            $($($text)|+ => {
                type $F = $t;
                $body
            })+
            other => return Err(format!("unknown comparison .{other} for this type")),
        }
    };
}
macro_rules! float_tests {
    ($name:expr, $F:ident, $body:expr) => {
        by_test!($name, $F: [
            "eq" = Eq, "ne" = Ne, "lt" = Lt, "le" = Le, "gt" = Gt, "ge" = Ge, "equ" = EqU, "neu" = NeU, "ltu" = LtU, "leu" = LeU,
            "gtu" = GtU, "geu" = GeU, "num" = Num, "nan" = Nan
        ], $body)
    };
}
/// `$whole` is `setp` or `set`; `$half` and `$pair` the same for half formats and their pairs.
macro_rules! comparison {
    ($q:ident, $ty:expr, $test:expr, $ftz:expr, $whole:ident, $half:ident, $pair:ident) => {{
        let l = $q.level;
        match $ty {
            "b16" | "b32" | "b64" => by_type!($ty, T: ["b16" = u16, "b32" = u32, "b64" = u64],
                by_test!($test, F: ["eq" = Eq, "ne" = Ne], predicates::$whole::<T, F>(l))),
            "u16" | "u32" | "u64" => by_type!($ty, T: ["u16" = u16, "u32" = u32, "u64" = u64], by_test!($test, F: [
                "eq" = Eq, "ne" = Ne, "lt" | "lo" = Lt, "le" | "ls" = Le, "gt" | "hi" = Gt, "ge" | "hs" = Ge
            ], predicates::$whole::<T, F>(l))),
            "s16" | "s32" | "s64" => by_type!($ty, T: ["s16" = i16, "s32" = i32, "s64" = i64], by_test!($test, F: [
                "eq" = Eq, "ne" = Ne, "lt" = Lt, "le" = Le, "gt" = Gt, "ge" = Ge
            ], predicates::$whole::<T, F>(l))),
            "f64" => float_tests!($test, F, predicates::$whole::<f64, F>(l)),
            "f32" => float_tests!($test, F, wrapped!(F, [(Ftz, $ftz)], G, predicates::$whole::<f32, G>(l))),
            "f16" | "bf16" => by_type!($ty, T: ["f16" = F16, "bf16" = Bf16],
                float_tests!($test, F, wrapped!(F, [(Ftz, $ftz)], G, predicates::$half::<T, G>(l)))),
            "f16x2" | "bf16x2" => by_type!($ty, T: ["f16x2" = Pair<F16>, "bf16x2" = Pair<Bf16>],
                float_tests!($test, F, wrapped!(F, [(Ftz, $ftz)], G, predicates::$pair::<T, G>(l)))),
            other => return Err(unknown_type(other)),
        }
    }};
}

/// Takes the comparison, and the operator that combines it with a predicate.
fn test<'a>(q: &mut Request<'a>) -> Result<(&'a str, usize), String> {
    if q.modifiers.is_empty() {
        return Err("expected a comparison".into());
    }
    let test = q.modifiers.remove(0);
    Ok((test, q.one_of(&COMBINE[1..]).map_or(0, |n| n + 1)))
}

/// `.ftz`, where the type knows it.
fn ftz(q: &mut Request, ty: &str) -> bool {
    matches!(ty, "f32" | "f16" | "f16x2") && q.take("ftz")
}

fn setp(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let (test, combine) = test(q)?;
    let ftz = ftz(q, ty);
    let exec: Exec = comparison!(q, ty, test, ftz, setp, setp_half, setp_pair);
    let args = [Arg::ToPredicate, Arg::ToPredicateToo, from(ty), from(ty), Arg::FromPredicate];
    let mut recipe = q.finish(exec, &args[..if combine == 0 { 4 } else { 5 }], Class::Compare)?;
    recipe.extra = combine as u32;
    Ok(recipe)
}

fn set(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let result = q.last()?;
    let (test, combine) = test(q)?;
    let ftz = ftz(q, ty);
    // Packed operands give a pair of the same type, or 16 bits of ones each; all but half types give 32 bits or a half number.
    let element = ty.strip_suffix("x2").unwrap_or(ty);
    let half = matches!(element, "f16" | "bf16");
    let truth = match (ty.ends_with("x2"), result) {
        (true, "u32" | "s32") => "u32",
        (true, _) if result == ty => element,
        (false, "u32" | "s32" | "f16" | "bf16") => result,
        (false, "f32") if !half => result,
        (false, "u16" | "s16") if half => result,
        _ => return Err(format!("unknown types .{result}.{ty}")),
    };
    let truth = TRUE.iter().position(|(name, _)| *name == truth).ok_or_else(|| unknown_type(result))?;
    let exec: Exec = comparison!(q, ty, test, ftz, set, set, set_pair);
    let args = [Arg::To32, from(ty), from(ty), Arg::FromPredicate];
    let mut recipe = q.finish(exec, &args[..if combine == 0 { 3 } else { 4 }], Class::Compare)?;
    recipe.extra = combine as u32 | (truth as u32) << 2;
    Ok(recipe)
}

/// Types that are moved without being looked at: the width in bits.
fn any_width(ty: &str) -> Result<u32, String> {
    match ty {
        "b16" | "u16" | "s16" => Ok(16),
        "b32" | "u32" | "s32" | "f32" => Ok(32),
        "b64" | "u64" | "s64" | "f64" => Ok(64),
        _ => Err(unknown_type(ty)),
    }
}

fn selp(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let exec = match any_width(ty)? {
        64 => predicates::selp::<u64>(q.level),
        _ => predicates::selp::<u32>(q.level),
    };
    q.finish(exec, &[to(ty), from(ty), from(ty), Arg::FromPredicate], Class::Compare)
}

/// `slct{.ftz}.dtype.ctype`
fn slct(q: &mut Request) -> Answer {
    let by = q.last()?;
    let ty = q.last()?;
    let l = q.level;
    let ftz = by == "f32" && q.take("ftz");
    let exec = match (any_width(ty)?, by, ftz) {
        (64, "s32", _) => op3::<u64, u64, i32, u64, Slct>(l),
        (_, "s32", _) => op3::<u32, u32, i32, u32, Slct>(l),
        (64, "f32", false) => op3::<u64, u64, f32, u64, Slct>(l),
        (_, "f32", false) => op3::<u32, u32, f32, u32, Slct>(l),
        (64, "f32", true) => op3::<u64, u64, f32, u64, SlctFtz>(l),
        (_, "f32", true) => op3::<u32, u32, f32, u32, SlctFtz>(l),
        _ => return Err(unknown_type(by)),
    };
    q.finish(exec, &[to(ty), from(ty), from(ty), Arg::From32], Class::Compare)
}

fn testp(q: &mut Request) -> Answer {
    use predicates::{Finite, Infinite, Normal, NotANumber, Number, Subnormal};
    let ty = q.last()?;
    let name = q.modifiers.pop().ok_or("expected a property")?;
    let exec = by_type!(ty, T: ["f32" = f32, "f64" = f64], by_test!(name, F: [
        "finite" = Finite, "infinite" = Infinite, "number" = Number, "notanumber" = NotANumber, "normal" = Normal,
        "subnormal" = Subnormal
    ], predicates::testp::<T, F>(q.level)));
    q.finish(exec, &[Arg::ToPredicate, from(ty)], Class::Compare)
}
