//! Comparisons, selection and `mov`.

use std::cmp::Ordering;

use crate::harness::exact::format;
use crate::harness::{Case, Lane, Out, Want, check, check_case, check_operands, is, predicates, refused};

const COMBINE: [&str; 4] = ["", ".and", ".or", ".xor"];

fn combine(how: &str, t: bool, l: &Lane) -> bool {
    match how {
        "" => t,
        ".and" => t && l.p[0],
        ".or" => t || l.p[0],
        _ => t != l.p[0],
    }
}

/// A type: name, kind, comparisons it knows.
fn types() -> Vec<(&'static str, &'static str, &'static [&'static str])> {
    const BITS: &[&str] = &["eq", "ne"];
    const SIGNED: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge"];
    const UNSIGNED: &[&str] = &["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"];
    const FLOAT: &[&str] =
        &["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];
    vec![
        ("b16", "h", BITS),
        ("b32", "w", BITS),
        ("b64", "l", BITS),
        ("u16", "h", UNSIGNED),
        ("u32", "w", UNSIGNED),
        ("u64", "l", UNSIGNED),
        ("s16", "h", SIGNED),
        ("s32", "w", SIGNED),
        ("s64", "l", SIGNED),
        ("f32", "f", FLOAT),
        ("f64", "d", FLOAT),
        ("f16", "e", FLOAT),
        ("bf16", "g", FLOAT),
    ]
}

/// The order of two values of a type; `None` where one is NaN.
fn order(ty: &str, a: u64, b: u64, ftz: bool) -> Option<Ordering> {
    match ty {
        "s16" => Some((a as i16).cmp(&(b as i16))),
        "s32" => Some((a as i32).cmp(&(b as i32))),
        "s64" => Some((a as i64).cmp(&(b as i64))),
        "f16" | "bf16" | "f32" | "f64" => {
            let t = format(ty);
            let value = |v: u64| t.value(if ftz { t.flush(v) } else { v });
            value(a).partial_cmp(&value(b))
        }
        _ => Some(a.cmp(&b)),
    }
}

fn holds(test: &str, order: Option<Ordering>) -> bool {
    let Some(order) = order else { return test.len() == 3 && test != "num" };
    match test {
        "eq" | "equ" => order.is_eq(),
        "ne" | "neu" => order.is_ne(),
        "lt" | "ltu" | "lo" => order.is_lt(),
        "le" | "leu" | "ls" => order.is_le(),
        "gt" | "gtu" | "hi" => order.is_gt(),
        "ge" | "geu" | "hs" => order.is_ge(),
        "num" => true,
        _ => false,
    }
}

fn flushes(ty: &str) -> Vec<bool> {
    if ty == "f32" || ty == "f16" { vec![false, true] } else { vec![false] }
}

#[test]
fn setp() {
    for (ty, kind, tests) in types() {
        for test in tests {
            for ftz in flushes(ty) {
                for how in COMBINE {
                    let opcode = format!("setp.{test}{how}{}.{ty}", if ftz { ".ftz" } else { "" });
                    let operands = if how.is_empty() { 3 } else { 4 };
                    check_operands(&opcode, operands, &kind.repeat(2), |l| {
                        let t = holds(test, order(ty, l.s[0], l.s[1], ftz));
                        predicates(&[combine(how, t, l), combine(how, !t, l)])
                    });
                }
            }
        }
    }
}

#[test]
fn setp_of_pairs() {
    let tests = types().pop().unwrap().2;
    for (ty, kind) in [("f16", "E"), ("bf16", "G")] {
        for test in tests {
            for ftz in if ty == "f16" { vec![false, true] } else { vec![false] } {
                for how in COMBINE {
                    let opcode = format!("setp.{test}{how}{}.{ty}x2", if ftz { ".ftz" } else { "" });
                    let operands = if how.is_empty() { 3 } else { 4 };
                    check_operands(&opcode, operands, &kind.repeat(2), |l| {
                        let part = |n: u32| holds(test, order(ty, l.s[0] >> n & 0xffff, l.s[1] >> n & 0xffff, ftz));
                        predicates(&[combine(how, part(0), l), combine(how, part(16), l)])
                    });
                }
            }
        }
    }
}

#[test]
fn set() {
    for (ty, kind, tests) in types() {
        let half = ty == "f16" || ty == "bf16";
        let results: &[(&str, u64)] = match half {
            true => &[("u16", 0xffff), ("s16", 0xffff), ("u32", 0xffff_ffff), ("s32", 0xffff_ffff), ("f16", 0x3c00)],
            false => {
                &[("u32", 0xffff_ffff), ("s32", 0xffff_ffff), ("f32", 0x3f80_0000), ("f16", 0x3c00), ("bf16", 0x3f80)]
            }
        };
        for test in tests {
            for ftz in flushes(ty) {
                for (n, how) in COMBINE.into_iter().enumerate() {
                    // Results change with the combination, so that each occurs with each comparison.
                    for (result, truth) in results.iter().skip(n % 2) {
                        let opcode = format!("set.{test}{how}{}.{result}.{ty}", if ftz { ".ftz" } else { "" });
                        let operands = if how.is_empty() { 3 } else { 4 };
                        check_operands(&opcode, operands, &kind.repeat(2), |l| {
                            let t = combine(how, holds(test, order(ty, l.s[0], l.s[1], ftz)), l);
                            is(if t { *truth } else { 0 })
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn set_of_pairs() {
    let tests = types().pop().unwrap().2;
    for (ty, kind, one) in [("f16", "E", 0x3c00), ("bf16", "G", 0x3f80)] {
        let pair = format!("{ty}x2");
        for test in tests {
            for how in COMBINE {
                for (result, truth) in [("u32", 0xffff), ("s32", 0xffff), (pair.as_str(), one)] {
                    let operands = if how.is_empty() { 3 } else { 4 };
                    check_operands(&format!("set.{test}{how}.{result}.{ty}x2"), operands, &kind.repeat(2), |l| {
                        let part = |n: u32| {
                            let t = holds(test, order(ty, l.s[0] >> n & 0xffff, l.s[1] >> n & 0xffff, false));
                            if combine(how, t, l) { truth } else { 0 }
                        };
                        is(part(0) | part(16) << 16)
                    });
                }
            }
        }
    }
}

const ANY: [(&str, &str); 11] = [
    ("b16", "h"),
    ("u16", "h"),
    ("s16", "h"),
    ("b32", "w"),
    ("u32", "w"),
    ("s32", "w"),
    ("f32", "f"),
    ("b64", "l"),
    ("u64", "l"),
    ("s64", "l"),
    ("f64", "d"),
];

/// A value of a type; what lies above 16 bits does not matter.
fn low(ty: &str, v: u64) -> Out {
    if ty.ends_with("16") {
        return Out { d: vec![Want::Pass(Box::new(move |got| got & 0xffff == v))], ..Out::default() };
    }
    is(v)
}

#[test]
fn selection() {
    for (ty, kind) in ANY {
        check_operands(&format!("selp.{ty}"), 4, &kind.repeat(2), |l| low(ty, l.s[usize::from(!l.p[0])]));
        check(&format!("slct.{ty}.s32"), &format!("{}w", kind.repeat(2)), |l| {
            low(ty, l.s[usize::from((l.s[2] as i32) < 0)])
        });
        for ftz in [false, true] {
            let opcode = format!("slct{}.{ty}.f32", if ftz { ".ftz" } else { "" });
            check(&opcode, &format!("{}f", kind.repeat(2)), |l| {
                let t = format("f32");
                let c = t.value(if ftz { t.flush(l.s[2]) } else { l.s[2] });
                low(ty, l.s[usize::from(c.is_nan() || c < 0.0)])
            });
        }
    }
}

#[test]
fn moves() {
    for (ty, kind) in ANY {
        check(&format!("mov.{ty}"), kind, |l| low(ty, l.s[0]));
    }
    check_operands("mov.pred", 2, "", |l| predicates(&[l.p[0]]));
}

#[test]
fn packing_and_unpacking() {
    for (ty, whole, part, n, bits) in [
        ("b16", "h", "b", 2, 8),
        ("b32", "w", "h", 2, 16),
        ("b32", "w", "b", 4, 8),
        ("b64", "l", "w", 2, 32),
        ("b64", "l", "h", 4, 16),
    ] {
        let opcode = format!("mov.{ty}");
        let kinds = part.repeat(n);
        let pack = Case { vectors: vec![0, n], ..Case::new(&opcode, 2, &kinds) };
        check_case(&pack, |l| is(l.s.iter().rev().fold(0, |v, p| v << bits | p)));
        let unpack = Case { vectors: vec![n, 0], ..Case::new(&opcode, 2, whole) };
        check_case(&unpack, |l| Out {
            d: (0..n).map(|i| Want::Is(l.s[0] >> (bits * i) & ((1 << bits) - 1))).collect(),
            ..Out::default()
        });
    }
}

#[test]
fn a_missing_predicate_is_not_written() {
    use ptx_emulator::ops::select::select;
    use ptx_emulator::registers::{ALL, Level, NO_PREDICATE, Operands, Registers, ZERO};
    for level in [Level::Portable, Level::of_this_machine()] {
        let recipe = select(&["setp", "eq", "u32"], 3, &[0; 3], level).unwrap().unwrap();
        for missing in [0, 1] {
            let mut r = Registers { rows: vec![ZERO; 2], predicates: vec![5, 6, 7] };
            let mut o = Operands { extra: recipe.extra, slot: [0; 16], ..Operands::default() };
            (o.slot[1], o.predicate[1 - missing]) = (1, 2);
            assert_eq!(o.predicate[missing], NO_PREDICATE);
            // SAFETY: the operands name rows and predicates of these registers, as the recipe asks.
            unsafe { (recipe.exec)(&mut r, &o, ALL) };
            assert_eq!(r.predicates, [5, 6, if missing == 1 { ALL } else { 0 }]);
        }
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    for (opcode, operands, says) in [
        ("setp.lo.s32", 3, "lo"),
        ("setp.lt.b32", 3, "lt"),
        ("setp.ltu.u32", 3, "ltu"),
        ("setp.lt.ftz.f64", 3, "ftz"),
        ("setp.lt.and.s32", 3, "4 operands"),
        ("setp.lt.nand.s32", 4, "nand"),
        ("setp.lt.s8", 3, "s8"),
        ("set.lt.u64.s32", 3, "u64"),
        ("set.lt.f32.f16", 3, "f32"),
        ("selp.pred", 4, "pred"),
        ("slct.f32.u32", 4, "u32"),
        ("slct.ftz.f32.s32", 4, "ftz"),
        ("mov.b128", 2, "b128"),
        ("mov.rn.b32", 2, "rn"),
    ] {
        let e = refused(opcode, operands);
        assert!(e.contains(says), "{opcode}: {e}");
    }
}
