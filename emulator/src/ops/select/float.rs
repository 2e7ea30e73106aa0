//! PTX ISA 9.7.3 and 9.7.5: `f32`, `f64`, and `f32` with half-precision operands.

use super::{Answer, Request, by_rounding, by_type, from, to, unknown_modifier, unknown_type, wrapped};
use crate::ops::lanes::arithmetic::*;
use crate::ops::lanes::rounding::Mode;
use crate::ops::lanes::rounding::Rn;
use crate::ops::lanes::special::{Approx, Coarse, Cos, DivApprox, Ex2, Lg2, Rsqrt, Sin, Tanh};
use crate::ops::lanes::values::{Bf16, F16, F32x2};
use crate::ops::shapes::{op1, op2, op3};
use crate::ops::{Arg, Class};

pub fn select(q: &mut Request) -> Answer {
    match q.name {
        "add" | "sub" | "mul" | "fma" | "mad" => sums(q),
        "div" | "rcp" | "sqrt" => quotients(q),
        "min" | "max" => limits(q),
        "abs" | "neg" | "copysign" => signs(q),
        _ => functions(q),
    }
}

fn class(ty: &str) -> Class {
    if ty == "f64" { Class::Float64 } else { Class::Float32 }
}

/// `op{.rnd}{.ftz}{.sat}.type`; `fma` and `mad` need the rounding.
fn sums(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let fused = matches!(q.name, "fma" | "mad");
    let mode = if fused { q.required_rounding()? } else { q.rounding().unwrap_or(Mode::Rn) };
    let ftz = ty != "f64" && q.take("ftz");
    let sat = ty == "f32" && q.take("sat");
    let l = q.level;
    macro_rules! two {
        ($F:ident) => {
            by_rounding!(mode, R, match ty {
                "f32" => wrapped!($F<R>, [(Ftz, ftz), (Sat, sat)], F, op2::<f32, f32, f32, F>(l)),
                "f32x2" => wrapped!($F<R>, [(Ftz, ftz), (Both, true)], F, op2::<F32x2, F32x2, F32x2, F>(l)),
                _ => op2::<f64, f64, f64, $F<R>>(l),
            })
        };
    }
    let exec = match q.name {
        "add" => two!(Add),
        "sub" => two!(Sub),
        "mul" => two!(Mul),
        "mad" if ty == "f32x2" => return Err(unknown_type(ty)),
        _ => by_rounding!(mode, R, match ty {
            "f32" => wrapped!(Fma<R>, [(Ftz, ftz), (Sat, sat)], F, op3::<f32, f32, f32, f32, F>(l)),
            "f32x2" => wrapped!(Fma<R>, [(Ftz, ftz), (Both, true)], F, op3::<F32x2, F32x2, F32x2, F32x2, F>(l)),
            _ => op3::<f64, f64, f64, f64, Fma<R>>(l),
        }),
    };
    let args = [to(ty), from(ty), from(ty), from(ty)];
    q.finish(exec, &args[..if fused { 4 } else { 3 }], class(ty))
}

/// `op{.rnd}{.sat}.f32.atype`: the first operand, and the second factor, are of a half format.
pub fn mixed(q: &mut Request) -> Answer {
    let half = q.last()?;
    let ty = q.last()?;
    let fused = q.name == "fma";
    let mode = if fused { q.required_rounding()? } else { q.rounding().unwrap_or(Mode::Rn) };
    let sat = q.take("sat");
    let l = q.level;
    macro_rules! two {
        ($F:ident) => {
            by_type!(half, H: ["f16" = F16, "bf16" = Bf16], by_rounding!(mode, R,
                wrapped!(Mixed<$F<R>>, [(Sat, sat)], F, op2::<H, f32, f32, F>(l))))
        };
    }
    let exec = match q.name {
        "add" => two!(Add),
        "sub" => two!(Sub),
        "fma" => by_type!(half, H: ["f16" = F16, "bf16" = Bf16], by_rounding!(mode, R,
            wrapped!(Mixed<Fma<R>>, [(Sat, sat)], F, op3::<H, H, f32, f32, F>(l)))),
        _ => return Err(format!("unknown types .{ty}.{half}")),
    };
    let args: &[Arg] = match fused {
        true => &[Arg::To32, Arg::From16, Arg::From16, Arg::From32],
        false => &[Arg::To32, Arg::From16, Arg::From32],
    };
    q.finish(exec, args, Class::Float32)
}

/// `div`, `rcp`, `sqrt`: `.rnd`, `.approx`, and `div.full`.
fn quotients(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let l = q.level;
    let args = [to(ty), from(ty), from(ty)];
    let args = &args[..if q.name == "div" { 3 } else { 2 }];
    let kind = q.one_of(&["approx", "full"]);
    let exec = match (q.name, kind, ty) {
        ("rcp", Some(0), "f64") if q.take("ftz") => op1::<f64, f64, Coarse<Rcp<Rn>>>(l),
        (name, Some(kind), "f32") => {
            let ftz = q.take("ftz");
            match (name, kind) {
                ("div", 0) => wrapped!(DivApprox, [(Ftz, ftz)], F, op2::<f32, f32, f32, F>(l)),
                ("div", _) => wrapped!(Div<Rn>, [(Ftz, ftz)], F, op2::<f32, f32, f32, F>(l)),
                ("rcp", 0) => wrapped!(Rcp<Rn>, [(Ftz, ftz)], F, op1::<f32, f32, F>(l)),
                ("sqrt", 0) => wrapped!(Sqrt<Rn>, [(Ftz, ftz)], F, op1::<f32, f32, F>(l)),
                _ => return Err(unknown_modifier("full")),
            }
        }
        (_, Some(kind), _) => return Err(format!("{} for type .{ty}", unknown_modifier(["approx", "full"][kind]))),
        (name, None, _) => {
            let mode = q.required_rounding()?;
            let ftz = ty == "f32" && q.take("ftz");
            by_rounding!(mode, R, match (name, ty) {
                ("div", "f32") => wrapped!(Div<R>, [(Ftz, ftz)], F, op2::<f32, f32, f32, F>(l)),
                ("div", "f64") => op2::<f64, f64, f64, Div<R>>(l),
                ("rcp", "f32") => wrapped!(Rcp<R>, [(Ftz, ftz)], F, op1::<f32, f32, F>(l)),
                ("rcp", "f64") => op1::<f64, f64, Rcp<R>>(l),
                ("sqrt", "f32") => wrapped!(Sqrt<R>, [(Ftz, ftz)], F, op1::<f32, f32, F>(l)),
                ("sqrt", "f64") => op1::<f64, f64, Sqrt<R>>(l),
                _ => return Err(unknown_type(ty)),
            })
        }
    };
    q.finish(exec, args, Class::Special)
}

/// `min{.ftz}{.NaN}{.xorsign.abs}`
fn limits(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let l = q.level;
    let single = ty == "f32";
    let (ftz, nan) = (single && q.take("ftz"), single && q.take("NaN"));
    let sign = single && q.take("xorsign");
    if sign && !q.take("abs") {
        return Err("expected .xorsign.abs".into());
    }
    macro_rules! two {
        ($F:ident) => {
            by_type!(ty, T: ["f32" = f32, "f64" = f64],
                wrapped!($F, [(OrNan, nan), (XorSign, sign), (Ftz, ftz)], F, op2::<T, T, T, F>(l)))
        };
    }
    let exec = if q.name == "min" { two!(Min) } else { two!(Max) };
    q.finish(exec, &[to(ty), from(ty), from(ty)], class(ty))
}

fn signs(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let l = q.level;
    let ftz = ty == "f32" && q.name != "copysign" && q.take("ftz");
    let (exec, n) = match q.name {
        "abs" => (by_type!(ty, T: ["f32" = f32, "f64" = f64], wrapped!(Abs, [(Ftz, ftz)], F, op1::<T, T, F>(l))), 2),
        "neg" => (by_type!(ty, T: ["f32" = f32, "f64" = f64], wrapped!(Neg, [(Ftz, ftz)], F, op1::<T, T, F>(l))), 2),
        _ => (by_type!(ty, T: ["f32" = f32, "f64" = f64], op2::<T, T, T, CopySign>(l)), 3),
    };
    q.finish(exec, &[to(ty), from(ty), from(ty)][..n], class(ty))
}

/// `op.approx{.ftz}.f32`, and `rsqrt.approx{.ftz}.f64`
fn functions(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let l = q.level;
    if !q.take("approx") {
        return Err("expected .approx".into());
    }
    let ftz = q.name != "tanh" && q.take("ftz");
    macro_rules! function {
        ($F:ident) => {
            by_type!(ty, T: ["f32" = f32], wrapped!(Approx<$F>, [(Ftz, ftz)], F, op1::<T, T, F>(l)))
        };
    }
    let exec = match q.name {
        "rsqrt" if ty == "f64" && ftz => op1::<f64, f64, Coarse<Rsqrt>>(l),
        "rsqrt" if ty == "f64" => op1::<f64, f64, Rsqrt>(l),
        "rsqrt" => function!(Rsqrt),
        "sin" => function!(Sin),
        "cos" => function!(Cos),
        "lg2" => function!(Lg2),
        "ex2" => function!(Ex2),
        "tanh" => function!(Tanh),
        name => return Err(format!("unknown opcode {name}")),
    };
    q.finish(exec, &[to(ty), from(ty)], Class::Special)
}
