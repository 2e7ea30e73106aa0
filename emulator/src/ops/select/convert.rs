//! `cvt` (PTX ISA 9.7.9.21) and `cvt.pack`. Of the 8-, 6- and 4-bit floating-point formats `e4m3` and `e5m2` are known.

use super::request::{Answer, Request, by_rounding, by_type, from, to, unknown_modifier, unknown_type};
use crate::ops::lanes::convert::*;
use crate::ops::lanes::fp8::{E4m3, E5m2, Narrow, Widen};
use crate::ops::lanes::rounding::{Mode, Rn};
use crate::ops::lanes::values::{Bf16, F16, Pair};
use crate::ops::shapes::{Flags1, flags1, op1, op2, op3, seldom_flags1, seldom_flags2, seldom1};
use crate::ops::{Arg, Class, Recipe};
use crate::registers::Exec;

macro_rules! integers {
    ($name:expr, $T:ident, $body:expr) => {
        by_type!($name, $T: [
            "u8" = u8, "s8" = i8, "u16" = u16, "s16" = i16, "u32" = u32, "s32" = i32, "u64" = u64, "s64" = i64,
        ], $body)
    };
}
/// All but bytes, which only memory instructions meet often.
macro_rules! wide_integers {
    ($name:expr, $T:ident, $body:expr) => {
        by_type!($name, $T: ["u16" = u16, "s16" = i16, "u32" = u32, "s32" = i32, "u64" = u64, "s64" = i64], $body)
    };
}
macro_rules! floats {
    ($name:expr, $T:ident, $body:expr) => {
        by_type!($name, $T: ["f16" = F16, "bf16" = Bf16, "f32" = f32, "f64" = f64], $body)
    };
}
macro_rules! by_integral {
    ($mode:expr, $R:ident, $body:expr) => {
        match $mode {
            0 => {
                type $R = Rni;
                $body
            }
            1 => {
                type $R = Rzi;
                $body
            }
            2 => {
                type $R = Rmi;
                $body
            }
            _ => {
                type $R = Rpi;
                $body
            }
        }
    };
}

fn is_integer(ty: &str) -> bool {
    matches!(ty, "u8" | "s8" | "u16" | "s16" | "u32" | "s32" | "u64" | "s64")
}

fn is_float(ty: &str) -> bool {
    matches!(ty, "f16" | "bf16" | "f32" | "f64")
}

/// An opcode once its modifiers are read.
struct Cvt<'a> {
    d: &'a str,
    a: &'a str,
    mode: Option<Mode>,
    /// `.rni`, `.rzi`, `.rmi`, `.rpi`
    integral: Option<usize>,
    /// `SAT | RELU | FINITE | FTZ`
    flags: u32,
}

pub fn select(q: &mut Request) -> Answer {
    if q.take("pack") {
        return pack(q);
    }
    let a = q.last()?;
    let d = q.last()?;
    if let Some(found) = eight_bits(q, d, a) {
        return found;
    }
    let known = |ty| is_integer(ty) || is_float(ty);
    if let Some(ty) = [d, a].into_iter().find(|ty| !known(ty) && !matches!(*ty, "tf32" | "f16x2" | "bf16x2")) {
        return Err(unknown_type(ty));
    }
    let away = q.take("rna");
    let mode = q.rounding();
    let integral = q.one_of(&["rni", "rzi", "rmi", "rpi"]);
    let mut flags = 0;
    for (name, flag) in [("sat", SAT), ("relu", RELU), ("satfinite", FINITE), ("ftz", FTZ)] {
        if q.take(name) {
            flags |= flag;
        }
    }
    let cvt = Cvt { d, a, mode, integral, flags };
    // Modifiers that this conversion does not have, by name.
    let refuse = |allowed: u32| match flags & !allowed {
        0 => Ok(()),
        other => {
            let name = [("sat", SAT), ("relu", RELU), ("satfinite", FINITE)].iter().find(|(_, f)| other & f != 0);
            Err(unknown_modifier(name.map_or("ftz", |(name, _)| name)))
        }
    };
    if away && d != "tf32" {
        return Err(unknown_modifier("rna"));
    }
    match (is_float(d), is_float(a)) {
        _ if d == "tf32" => {
            refuse(if away { FINITE } else { FINITE | RELU })?;
            tf32(q, &cvt, away)
        }
        _ if matches!(d, "f16x2" | "bf16x2") => {
            refuse(FINITE | RELU)?;
            pair(q, &cvt)
        }
        (false, false) => {
            refuse(SAT)?;
            no_rounding(&cvt)?;
            integer_to_integer(q, &cvt)
        }
        (false, true) => {
            refuse(SAT | if a == "f32" { FTZ } else { 0 })?;
            float_to_integer(q, &cvt)
        }
        (true, false) => {
            // No integer becomes a subnormal number.
            refuse(SAT | if d == "f32" { FTZ } else { 0 })?;
            integer_to_float(q, &cvt)
        }
        (true, true) => {
            let narrow = matches!(d, "f16" | "bf16") && a == "f32";
            refuse(SAT | if narrow { FINITE | RELU } else { 0 } | if d == "f32" || a == "f32" { FTZ } else { 0 })?;
            float_to_float(q, &cvt)
        }
    }
}

/// To and from pairs of 8-bit numbers; `None` where neither type is one.
fn eight_bits(q: &mut Request, d: &str, a: &str) -> Option<Answer> {
    let eight = |ty| matches!(ty, "e4m3x2" | "e5m2x2");
    if !eight(d) && !eight(a) {
        return None;
    }
    if q.rounding() != Some(Mode::Rn) {
        return Some(Err("expected .rn".into()));
    }
    if eight(d) && !q.take("satfinite") {
        return Some(Err("expected .satfinite".into()));
    }
    let flags = if q.take("relu") { RELU } else { 0 };
    let (exec, args): (Exec, &[Arg]) = match (d, a) {
        ("e4m3x2", "f32") => (seldom_flags2::<f32, f32, u16, Narrow<E4m3>>(), &[Arg::To32, Arg::From32, Arg::From32]),
        ("e5m2x2", "f32") => (seldom_flags2::<f32, f32, u16, Narrow<E5m2>>(), &[Arg::To32, Arg::From32, Arg::From32]),
        ("e4m3x2", "f16x2") => (seldom_flags1::<Pair<F16>, u16, Narrow<E4m3>>(), &[Arg::To32, Arg::From32]),
        ("e5m2x2", "f16x2") => (seldom_flags1::<Pair<F16>, u16, Narrow<E5m2>>(), &[Arg::To32, Arg::From32]),
        ("f16x2", "e4m3x2") => (seldom_flags1::<u16, Pair<F16>, Widen<E4m3>>(), &[Arg::To32, Arg::From16]),
        ("f16x2", "e5m2x2") => (seldom_flags1::<u16, Pair<F16>, Widen<E5m2>>(), &[Arg::To32, Arg::From16]),
        _ => return Some(Err(format!("unknown conversion to .{d} from .{a}"))),
    };
    Some(q.finish(exec, args, Class::Convert).map(|recipe| Recipe { extra: flags, ..recipe }))
}

fn no_rounding(cvt: &Cvt) -> Result<(), String> {
    match (cvt.mode, cvt.integral) {
        (None, None) => Ok(()),
        _ => Err(format!("unknown rounding of .{}.{}", cvt.d, cvt.a)),
    }
}

/// The rounding that a conversion must have.
fn rounding(cvt: &Cvt) -> Result<Mode, String> {
    match (cvt.mode, cvt.integral) {
        (Some(mode), None) => Ok(mode),
        _ => Err("expected a rounding modifier: .rn, .rz, .rm or .rp".into()),
    }
}

fn integral(cvt: &Cvt) -> Result<usize, String> {
    match (cvt.mode, cvt.integral) {
        (None, Some(mode)) => Ok(mode),
        _ => Err("expected a rounding modifier: .rni, .rzi, .rmi or .rpi".into()),
    }
}

fn one(q: &Request, cvt: &Cvt, exec: Exec) -> Answer {
    q.finish(exec, &[to(cvt.d), from(cvt.a)], Class::Convert)
}

fn with_flags(recipe: Recipe, cvt: &Cvt) -> Answer {
    Ok(Recipe { extra: cvt.flags, ..recipe })
}

fn integer_to_integer(q: &Request, cvt: &Cvt) -> Answer {
    let l = q.level;
    if (cvt.d, cvt.a, cvt.flags) == ("s64", "s32", 0) {
        return one(q, cvt, flags1::<i32, i64, Extend>(l));
    }
    let byte = |ty| matches!(ty, "u8" | "s8");
    let exec = if cvt.flags & SAT != 0 {
        integers!(cvt.a, S, integers!(cvt.d, D, seldom1::<S, <D as Integer>::Row, Clamp<D>>()))
    } else if byte(cvt.a) || byte(cvt.d) {
        integers!(cvt.a, S, integers!(cvt.d, D, seldom1::<S, <D as Integer>::Row, Cut<D>>()))
    } else {
        wide_integers!(cvt.a, S, wide_integers!(cvt.d, D, op1::<S, <D as Integer>::Row, Cut<D>>(l)))
    };
    one(q, cvt, exec)
}

fn float_to_integer(q: &Request, cvt: &Cvt) -> Answer {
    let l = q.level;
    // Clamping is what these do anyway, with or without .sat.
    let mode = integral(cvt)?;
    let exec = by_integral!(
        mode,
        R,
        if cvt.flags & FTZ != 0 {
            integers!(cvt.d, D, seldom1::<f32, <D as Integer>::Row, ToIntegerFtz<D, R>>())
        } else if let ("s32" | "u32", "f32") = (cvt.d, cvt.a) {
            by_type!(cvt.d, D: ["u32" = u32, "s32" = i32], op1::<f32, u32, ToInteger<D, R>>(l))
        } else {
            floats!(cvt.a, S, integers!(cvt.d, D, seldom1::<S, <D as Integer>::Row, ToInteger<D, R>>()))
        }
    );
    one(q, cvt, exec)
}

fn integer_to_float(q: &Request, cvt: &Cvt) -> Answer {
    let mode = rounding(cvt)?;
    let exec = if cvt.flags & SAT != 0 {
        integers!(cvt.a, S, floats!(cvt.d, D, seldom1::<S, D, NumberSat>()))
    } else if let (Mode::Rn, "f32" | "f64", "u32" | "s32" | "u64" | "s64") = (mode, cvt.d, cvt.a) {
        by_type!(cvt.a, S: ["u32" = u32, "s32" = i32, "u64" = u64, "s64" = i64],
            by_type!(cvt.d, D: ["f32" = f32, "f64" = f64], op1::<S, D, Number<Rn>>(q.level)))
    } else {
        by_rounding!(mode, R, integers!(cvt.a, S, floats!(cvt.d, D, seldom1::<S, D, Number<R>>())))
    };
    one(q, cvt, exec)
}

fn float_to_float(q: &Request, cvt: &Cvt) -> Answer {
    let l = q.level;
    if cvt.d == cvt.a && cvt.mode.is_none() {
        // Without a rounding it is a copy, as far as the flags leave one.
        let exec = match cvt.integral {
            None => floats!(cvt.d, T, flags1::<T, T, Round<Rn>>(l)),
            Some(mode) => by_integral!(mode, R, floats!(cvt.d, T, flags1::<T, T, RoundIntegral<R>>(l))),
        };
        return with_flags(one(q, cvt, exec)?, cvt);
    }
    let widens = matches!((cvt.d, cvt.a), ("f64", _) | ("f32", "f16" | "bf16"));
    let mode = if widens && cvt.integral.is_none() { cvt.mode.unwrap_or(Mode::Rn) } else { rounding(cvt)? };
    if cvt.d == cvt.a {
        return Err(format!("expected .rni, .rzi, .rmi or .rpi for .{}.{}", cvt.d, cvt.a));
    }
    let exec = if mode == Mode::Rn && cvt.flags == 0 {
        floats!(cvt.a, S, floats!(cvt.d, D, op1::<S, D, Round<Rn>>(l)))
    } else {
        by_rounding!(mode, R, floats!(cvt.a, S, floats!(cvt.d, D, seldom_flags1::<S, D, Round<R>>())))
    };
    with_flags(one(q, cvt, exec)?, cvt)
}

/// `cvt.rn.f16x2.f32 d, a, b`
fn pair(q: &Request, cvt: &Cvt) -> Answer {
    let l = q.level;
    let mode = near_or_cut(cvt)?;
    if cvt.a != "f32" {
        return Err(unknown_type(cvt.a));
    }
    let exec = by_rounding!(
        mode,
        R,
        by_type!(cvt.d, P: ["f16x2" = Pair<F16>, "bf16x2" = Pair<Bf16>], if cvt.flags == 0 {
            op2::<f32, f32, P, RoundPair<R>>(l)
        } else {
            seldom_flags2::<f32, f32, P, RoundPair<R>>()
        })
    );
    with_flags(q.finish(exec, &[Arg::To32, Arg::From32, Arg::From32], Class::Convert)?, cvt)
}

/// `.rn` or `.rz`, the roundings of the newer conversions.
fn near_or_cut(cvt: &Cvt) -> Result<Mode, String> {
    match rounding(cvt)? {
        mode @ (Mode::Rn | Mode::Rz) => Ok(mode),
        Mode::Rm => Err(unknown_modifier("rm")),
        Mode::Rp => Err(unknown_modifier("rp")),
    }
}

fn tf32(q: &Request, cvt: &Cvt, away: bool) -> Answer {
    fn exec<F: Flags1<f32, f32>>(q: &Request) -> Exec {
        flags1::<f32, f32, F>(q.level)
    }
    if cvt.a != "f32" {
        return Err(unknown_type(cvt.a));
    }
    let exec = if away {
        no_rounding(cvt)?;
        exec::<Tf32Away>(q)
    } else {
        by_rounding!(near_or_cut(cvt)?, R, exec::<Tf32<R>>(q))
    };
    with_flags(q.finish(exec, &[Arg::To32, Arg::From32], Class::Convert)?, cvt)
}

/// `cvt.pack.sat.dtype.s32 d, a, b` for 16 bits, `cvt.pack.sat.dtype.s32.b32 d, a, b, c` below.
fn pack(q: &mut Request) -> Answer {
    let l = q.level;
    let three = q.take("b32");
    let a = q.last()?;
    let d = q.last()?;
    if a != "s32" {
        return Err(unknown_type(a));
    }
    if !q.take("sat") {
        return Err("expected .sat".into());
    }
    let exec = match (d, three) {
        ("u16", false) => op2::<i32, i32, u32, Pack<16, false>>(l),
        ("s16", false) => op2::<i32, i32, u32, Pack<16, true>>(l),
        ("u8", true) => op3::<i32, i32, u32, u32, Pack<8, false>>(l),
        ("s8", true) => op3::<i32, i32, u32, u32, Pack<8, true>>(l),
        ("u4", true) => op3::<i32, i32, u32, u32, Pack<4, false>>(l),
        ("s4", true) => op3::<i32, i32, u32, u32, Pack<4, true>>(l),
        ("u2", true) => op3::<i32, i32, u32, u32, Pack<2, false>>(l),
        ("s2", true) => op3::<i32, i32, u32, u32, Pack<2, true>>(l),
        _ => return Err(unknown_type(d)),
    };
    let args = [Arg::To32, Arg::From32, Arg::From32, Arg::From32];
    q.finish(exec, &args[..if three { 4 } else { 3 }], Class::Convert)
}
