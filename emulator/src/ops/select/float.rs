//! PTX ISA 9.7.3 and 9.7.5: `f32`, `f64`, and `f32` with half-precision operands.

use super::request::{Answer, Request, by_rounding, by_type, from, to, unknown_modifier, unknown_type, wrapped};
use crate::ops::lanes::arithmetic::*;
use crate::ops::lanes::rounding::{Mode, Rn};
use crate::ops::lanes::special::{Approx, Coarse, Cos, DivApprox, Ex2, Lg2, Rsqrt, Sin, Tanh};
use crate::ops::lanes::values::{Bf16, F16, F32x2};
use crate::ops::shapes::{op1, op2, op3, seldom1, seldom2, seldom3};
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
    // Every modifier alone is compiled for each level, seldom combinations once.
    macro_rules! kinds {
        ($F:ident, $op:ident, $seldom:ident, [$($f32:ty),*], [$($pair:ty),*], [$($f64:ty),*]) => {
            match (ty, mode) {
                ("f32", Mode::Rn) => wrapped!($F<Rn>, [(Ftz, ftz), (Sat, sat)], F, $op::<$($f32,)* F>(l)),
                ("f32", _) if ftz || sat => {
                    by_rounding!(mode, R, wrapped!($F<R>, [(Ftz, ftz), (Sat, sat)], F, $seldom::<$($f32,)* F>()))
                }
                ("f32", _) => by_rounding!(mode, R, $op::<$($f32,)* $F<R>>(l)),
                ("f32x2", _) => by_rounding!(mode, R, wrapped!($F<R>, [(Ftz, ftz)], F, $seldom::<$($pair,)* Both<F>>())),
                (_, Mode::Rn) => $op::<$($f64,)* $F<Rn>>(l),
                _ => by_rounding!(mode, R, $seldom::<$($f64,)* $F<R>>()),
            }
        };
        ($F:ident) => {
            kinds!($F, op2, seldom2, [f32, f32, f32], [F32x2, F32x2, F32x2], [f64, f64, f64])
        };
    }
    let exec = match q.name {
        "add" => kinds!(Add),
        "sub" => kinds!(Sub),
        "mul" => kinds!(Mul),
        "mad" if ty == "f32x2" => return Err(unknown_type(ty)),
        _ => kinds!(Fma, op3, seldom3, [f32, f32, f32, f32], [F32x2, F32x2, F32x2, F32x2], [f64, f64, f64, f64]),
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
    macro_rules! two {
        ($F:ident) => {
            by_type!(half, H: ["f16" = F16, "bf16" = Bf16], by_rounding!(mode, R,
                wrapped!(Mixed<$F<R>>, [(Sat, sat)], F, seldom2::<H, f32, f32, F>())))
        };
    }
    let exec = match q.name {
        "add" => two!(Add),
        "sub" => two!(Sub),
        "fma" => by_type!(half, H: ["f16" = F16, "bf16" = Bf16], by_rounding!(mode, R,
            wrapped!(Mixed<Fma<R>>, [(Sat, sat)], F, seldom3::<H, H, f32, f32, F>()))),
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
    if ty == "f32x2" {
        return Err(unknown_type(ty));
    }
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
            match mode {
                Mode::Rn => match (name, ty) {
                    ("div", "f32") => wrapped!(Div<Rn>, [(Ftz, ftz)], F, op2::<f32, f32, f32, F>(l)),
                    ("rcp", "f32") => wrapped!(Rcp<Rn>, [(Ftz, ftz)], F, op1::<f32, f32, F>(l)),
                    ("sqrt", "f32") => wrapped!(Sqrt<Rn>, [(Ftz, ftz)], F, op1::<f32, f32, F>(l)),
                    ("div", _) => op2::<f64, f64, f64, Div<Rn>>(l),
                    ("rcp", _) => op1::<f64, f64, Rcp<Rn>>(l),
                    _ => op1::<f64, f64, Sqrt<Rn>>(l),
                },
                _ => by_rounding!(
                    mode,
                    R,
                    match (name, ty) {
                        ("div", "f32") => wrapped!(Div<R>, [(Ftz, ftz)], F, seldom2::<f32, f32, f32, F>()),
                        ("rcp", "f32") => wrapped!(Rcp<R>, [(Ftz, ftz)], F, seldom1::<f32, f32, F>()),
                        ("sqrt", "f32") => wrapped!(Sqrt<R>, [(Ftz, ftz)], F, seldom1::<f32, f32, F>()),
                        ("div", _) => seldom2::<f64, f64, f64, Div<R>>(),
                        ("rcp", _) => seldom1::<f64, f64, Rcp<R>>(),
                        _ => seldom1::<f64, f64, Sqrt<R>>(),
                    }
                ),
            }
        }
    };
    q.finish(exec, args, Class::Special)
}

/// `min{.ftz}{.NaN}{.xorsign.abs}`; of three `min{.ftz}{.NaN}{.abs}`
fn limits(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let l = q.level;
    let single = ty == "f32";
    let (ftz, nan) = (single && q.take("ftz"), single && q.take("NaN"));
    if single && q.operands == 4 {
        let abs = q.take("abs");
        macro_rules! three {
            ($F:ident) => {{
                type Plain = OfThree<$F>;
                type Poisoned = OfThree<OrNan<$F>>;
                if nan {
                    wrapped!(Poisoned, [(Magnitudes, abs), (Ftz, ftz)], F, seldom3::<f32, f32, f32, f32, F>())
                } else {
                    wrapped!(Plain, [(Magnitudes, abs), (Ftz, ftz)], F, seldom3::<f32, f32, f32, f32, F>())
                }
            }};
        }
        let exec = if q.name == "min" { three!(Min) } else { three!(Max) };
        return q.finish(exec, &[to(ty), from(ty), from(ty), from(ty)], class(ty));
    }
    let sign = single && q.take("xorsign");
    if sign && !q.take("abs") {
        return Err("expected .xorsign.abs".into());
    }
    macro_rules! two {
        ($F:ident) => {
            match ty {
                "f32" if nan || sign => {
                    wrapped!($F, [(OrNan, nan), (XorSign, sign), (Ftz, ftz)], F, seldom2::<f32, f32, f32, F>())
                }
                "f32" => wrapped!($F, [(Ftz, ftz)], F, op2::<f32, f32, f32, F>(l)),
                "f64" => op2::<f64, f64, f64, $F>(l),
                _ => return Err(unknown_type(ty)),
            }
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
