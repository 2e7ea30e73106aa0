//! PTX ISA 9.7.4: `f16`, `bf16` and their pairs.

use super::{Answer, Request, from, to, unknown_modifier, wrapped};
use crate::ops::Class;
use crate::ops::lanes::arithmetic::*;
use crate::ops::lanes::rounding::Rn;
use crate::ops::lanes::special::{Approx, Ex2, Tanh};
use crate::ops::lanes::values::{Bf16, F16, Pair};
use crate::ops::shapes::{op1, op2, op3};

/// An instruction on the element type `H`, or on pairs of it.
macro_rules! elements {
    ($ty:expr, $F:ty, $op:ident, $level:expr) => {
        match $ty {
            "f16" => elements!(@ F16, $op, $F, $level),
            "bf16" => elements!(@ Bf16, $op, $F, $level),
            "f16x2" => elements!(@ Pair<F16>, $op, Both<$F>, $level),
            "bf16x2" => elements!(@ Pair<Bf16>, $op, Both<$F>, $level),
            other => return Err(super::unknown_type(other)),
        }
    };
    (@ $T:ty, op1, $F:ty, $level:expr) => { op1::<$T, $T, $F>($level) };
    (@ $T:ty, op2, $F:ty, $level:expr) => { op2::<$T, $T, $T, $F>($level) };
    (@ $T:ty, op3, $F:ty, $level:expr) => { op3::<$T, $T, $T, $T, $F>($level) };
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
            (wrapped!($F<Rn>, [(Ftz, ftz), (Sat, sat)], F, elements!(ty, F, op2, l)), 3)
        }};
    }
    macro_rules! limits {
        ($F:ident) => {{
            let nan = q.take("NaN");
            let sign = q.take("xorsign");
            if sign && !q.take("abs") {
                return Err("expected .xorsign.abs".into());
            }
            (wrapped!($F, [(OrNan, nan), (XorSign, sign), (Ftz, ftz)], F, elements!(ty, F, op2, l)), 3)
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
            let (sat, relu) = (!brain && q.take("sat"), q.take("relu"));
            if sat && relu {
                return Err(unknown_modifier("relu"));
            }
            (wrapped!(Fma<Rn>, [(Ftz, ftz), (Sat, sat), (Relu, relu)], F, elements!(ty, F, op3, l)), 4)
        }
        "neg" => (wrapped!(Neg, [(Ftz, ftz)], F, elements!(ty, F, op1, l)), 2),
        "abs" => (wrapped!(Abs, [(Ftz, ftz)], F, elements!(ty, F, op1, l)), 2),
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
                wrapped!(Approx<Ex2>, [(Ftz, ftz || flushes)], F, elements!(ty, F, op1, l))
            };
            return q.finish(exec, &args[..2], Class::Special);
        }
        name => return Err(format!("{name} has no type .{ty}")),
    };
    q.finish(exec, &args[..operands], Class::Half)
}
