//! PTX ISA 9.7.4: `f16`, `bf16` and their pairs.

use super::request::{Answer, Request, from, to, unknown_modifier, wrapped};
use crate::ops::Class;
use crate::ops::lanes::arithmetic::*;
use crate::ops::lanes::rounding::Rn;
use crate::ops::lanes::special::{Approx, Ex2, Tanh};
use crate::ops::lanes::values::{Bf16, F16, Pair};
use crate::ops::shapes::{op1, op2, op3, seldom1, seldom2, seldom3};

/// An instruction on the element type `H`, or on pairs of it: compiled for each level, or once (`seldom`).
macro_rules! elements {
    ($ty:expr, $F:ty, $op:ident, $level:expr) => {
        match $ty {
            "f16" => elements!(@ F16, $op, $F, $level),
            "bf16" => elements!(@ Bf16, $op, $F, $level),
            "f16x2" => elements!(@ Pair<F16>, $op, Both<$F>, $level),
            "bf16x2" => elements!(@ Pair<Bf16>, $op, Both<$F>, $level),
            other => return Err(super::request::unknown_type(other)),
        }
    };
    (@ $T:ty, op1, $F:ty, $level:expr) => { op1::<$T, $T, $F>($level) };
    (@ $T:ty, op2, $F:ty, $level:expr) => { op2::<$T, $T, $T, $F>($level) };
    (@ $T:ty, op3, $F:ty, $level:expr) => { op3::<$T, $T, $T, $T, $F>($level) };
    (@ $T:ty, seldom1, $F:ty, $level:expr) => { seldom1::<$T, $T, $F>() };
    (@ $T:ty, seldom2, $F:ty, $level:expr) => { seldom2::<$T, $T, $T, $F>() };
    (@ $T:ty, seldom3, $F:ty, $level:expr) => { seldom3::<$T, $T, $T, $T, $F>() };
}

/// The same with modifiers, each of which may be on.
macro_rules! modified {
    ($ty:expr, $F:ty, [$(($wrapper:ident, $on:expr)),*], $op:ident, $seldom:ident, $level:expr) => {
        if $($on)||* {
            wrapped!($F, [$(($wrapper, $on)),*], F, elements!($ty, F, $seldom, $level))
        } else {
            elements!($ty, $F, $op, $level)
        }
    };
}

pub fn select(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let l = q.level;
    let brain = ty.starts_with('b');
    let args = [to(ty), from(ty), from(ty), from(ty)];
    // Only f16 knows .ftz and .sat, with one exception below.
    let ftz = !brain && q.take("ftz");
    macro_rules! sums {
        ($F:ident) => {{
            let sat = !brain && q.take("sat");
            q.take("rn");
            (modified!(ty, $F<Rn>, [(Ftz, ftz), (Sat, sat)], op2, seldom2, l), 3)
        }};
    }
    macro_rules! limits {
        ($F:ident) => {{
            let nan = q.take("NaN");
            let sign = q.take("xorsign");
            if sign && !q.take("abs") {
                return Err("expected .xorsign.abs".into());
            }
            (modified!(ty, $F, [(OrNan, nan), (XorSign, sign), (Ftz, ftz)], op2, seldom2, l), 3)
        }};
    }
    let (exec, operands) = match q.name {
        "add" => sums!(Add),
        "sub" => sums!(Sub),
        "mul" => sums!(Mul),
        "fma" => {
            if !q.take("rn") {
                return Err("expected .rn".into());
            }
            if q.take("oob") {
                return Err(".oob is not supported: no document says which NaN it takes for out of bounds".into());
            }
            let (sat, relu) = (!brain && q.take("sat"), q.take("relu"));
            if sat && relu {
                return Err(unknown_modifier("relu"));
            }
            (modified!(ty, Fma<Rn>, [(Ftz, ftz), (Sat, sat), (Relu, relu)], op3, seldom3, l), 4)
        }
        "neg" => (modified!(ty, Neg, [(Ftz, ftz)], op1, seldom1, l), 2),
        "abs" => (modified!(ty, Abs, [(Ftz, ftz)], op1, seldom1, l), 2),
        "min" => limits!(Min),
        "max" => limits!(Max),
        "ex2" | "tanh" => {
            if !q.take("approx") {
                return Err("expected .approx".into());
            }
            // ex2 of bf16 always flushes, and tanh never.
            let flushes = q.name == "ex2" && brain && q.take("ftz");
            if q.name == "ex2" && brain && !flushes {
                return Err("expected .ftz".into());
            }
            if q.name == "tanh" && ftz {
                return Err(unknown_modifier("ftz"));
            }
            let exec = if q.name == "tanh" {
                elements!(ty, Approx<Tanh>, op1, l)
            } else {
                modified!(ty, Approx<Ex2>, [(Ftz, ftz || flushes)], op1, seldom1, l)
            };
            return q.finish(exec, &args[..2], Class::Special);
        }
        name => return Err(format!("{name} has no type .{ty}")),
    };
    q.finish(exec, &args[..operands], Class::Half)
}
