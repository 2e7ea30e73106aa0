//! PTX ISA 9.7.2.

use super::request::{Answer, Request, by_type, from, to};
use crate::ops::Class;
use crate::ops::lanes::carry::{Add, MadHi, MadLo, Sub, carry};

pub fn select(q: &mut Request) -> Answer {
    let ty = q.last()?;
    let gives = q.take("cc");
    let takes = q.name.ends_with('c');
    let l = q.level;
    let high = match q.name {
        "mad" | "madc" => Some(q.one_of(&["lo", "hi"]).ok_or("expected .lo or .hi")? == 1),
        _ => None,
    };
    // Only the upper half of a product depends on the sign.
    let exec = match high {
        Some(true) => {
            by_type!(ty, T: ["u32" = u32, "s32" = i32, "u64" = u64, "s64" = i64], carry::<T, MadHi>(takes, gives, l))
        }
        Some(false) => by_type!(ty, T: ["u32" | "s32" = u32, "u64" | "s64" = u64], carry::<T, MadLo>(takes, gives, l)),
        None if q.name.starts_with("add") => {
            by_type!(ty, T: ["u32" | "s32" = u32, "u64" | "s64" = u64], carry::<T, Add>(takes, gives, l))
        }
        None => by_type!(ty, T: ["u32" | "s32" = u32, "u64" | "s64" = u64], carry::<T, Sub>(takes, gives, l)),
    };
    let args = [to(ty), from(ty), from(ty), from(ty)];
    q.finish(exec, &args[..if high.is_some() { 4 } else { 3 }], Class::Integer)
}
