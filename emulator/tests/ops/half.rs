//! `f16`, `bf16` and their pairs: one rounding, against its definition.

use std::cmp::Ordering;

use crate::harness::exact::{BF16, F16, Format};
use crate::harness::{check, is, refused};

const FORMATS: [(&str, Format, &str, &str); 2] = [("f16", F16, "e", "E"), ("bf16", BF16, "g", "G")];

/// Runs an instruction on single numbers and on pairs. `f` gets the operands of one element.
fn both(before: &str, (name, _, kind, pair): (&str, Format, &str, &str), operands: usize, f: impl Fn(&[u64]) -> u64) {
    check(&format!("{before}.{name}"), &kind.repeat(operands), |l| is(f(&l.s)));
    check(&format!("{before}.{name}x2"), &pair.repeat(operands), |l| {
        let part = |n: u32| f(&l.s.iter().map(|v| v >> n & 0xffff).collect::<Vec<_>>());
        is(part(0) | part(16) << 16)
    });
}

/// Suffix, flushing, what follows.
type Variant = (String, bool, fn(Format, u64) -> u64);

/// The modifiers of a format.
fn variants(t: Format, relu: bool) -> Vec<Variant> {
    let mut all: Vec<Variant> = vec![(String::new(), false, |_, d| d)];
    if t == F16 {
        all.push((".sat".into(), false, |t, d| t.saturate(d)));
    }
    if relu {
        all.push((".relu".into(), false, |t, d| t.relu(d)));
    }
    if t == F16 {
        let flushing: Vec<_> = all.iter().map(|(s, _, f)| (format!(".ftz{s}"), true, *f)).collect();
        all.extend(flushing);
    }
    all
}

fn modified(t: Format, ftz: bool, after: fn(Format, u64) -> u64, s: &[u64], f: impl Fn(&[u64]) -> u64) -> u64 {
    let flush = |v: u64| if ftz { t.flush(v) } else { v };
    after(t, flush(f(&s.iter().map(|v| flush(*v)).collect::<Vec<_>>())))
}

#[test]
fn sums_and_products() {
    for format in FORMATS {
        let t = format.1;
        for (suffix, ftz, after) in variants(t, false) {
            for rounding in ["", ".rn"] {
                let op = |name: &str| format!("{name}{rounding}{suffix}");
                both(&op("add"), format, 2, |s| modified(t, ftz, after, s, |s| t.add(s[0], s[1], "rn")));
                both(&op("sub"), format, 2, |s| modified(t, ftz, after, s, |s| t.add(s[0], s[1] ^ t.sign_bit(), "rn")));
                both(&op("mul"), format, 2, |s| modified(t, ftz, after, s, |s| t.mul(s[0], s[1], "rn")));
            }
        }
    }
}

#[test]
fn fused() {
    for format in FORMATS {
        let t = format.1;
        for (suffix, ftz, after) in variants(t, true) {
            both(&format!("fma.rn{suffix}"), format, 3, |s| {
                modified(t, ftz, after, s, |s| t.fma(s[0], s[1], s[2], "rn"))
            });
        }
    }
}

#[test]
fn signs() {
    for format in FORMATS {
        let t = format.1;
        both("neg", format, 1, |s| s[0] ^ t.sign_bit());
        both("abs", format, 1, |s| t.magnitude(s[0]));
    }
    both("neg.ftz", FORMATS[0], 1, |s| F16.flush(s[0]) ^ F16.sign_bit());
    both("abs.ftz", FORMATS[0], 1, |s| F16.magnitude(F16.flush(s[0])));
}

fn limit(t: Format, max: bool, a: u64, b: u64) -> u64 {
    let key = |v: u64| if t.negative(v) { -(t.magnitude(v) as i64) - 1 } else { t.magnitude(v) as i64 };
    match (t.is_nan(a), t.is_nan(b)) {
        (true, true) => t.nan,
        (true, false) => b,
        (false, true) => a,
        _ if (key(a).cmp(&key(b)) == Ordering::Greater) == max => a,
        _ => b,
    }
}

#[test]
fn limits() {
    for format in FORMATS {
        let t = format.1;
        for (op, max) in [("min", false), ("max", true)] {
            for ftz in if t == F16 { vec![false, true] } else { vec![false] } {
                for nan in [false, true] {
                    for sign in [false, true] {
                        let on = |on: bool, name: &'static str| if on { name } else { "" };
                        let before = format!("{op}{}{}{}", on(ftz, ".ftz"), on(nan, ".NaN"), on(sign, ".xorsign.abs"));
                        both(&before, format, 2, |s| {
                            let flush = |v: u64| if ftz { t.flush(v) } else { v };
                            let (a, b) = (flush(s[0]), flush(s[1]));
                            let d = match sign {
                                true => limit(t, max, t.magnitude(a), t.magnitude(b)),
                                false => limit(t, max, a, b),
                            };
                            if t.is_nan(d) || nan && (t.is_nan(a) || t.is_nan(b)) {
                                return t.nan;
                            }
                            if sign && t.negative(a) != t.negative(b) { d | t.sign_bit() } else { d }
                        });
                    }
                }
            }
        }
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    for (opcode, operands, says) in [
        ("add.sat.bf16", 3, "sat"),
        ("add.ftz.bf16x2", 3, "ftz"),
        ("add.rz.f16", 3, "rz"),
        ("fma.f16", 4, "rn"),
        ("fma.rn.sat.relu.f16", 4, "relu"),
        ("fma.rn.oob.f16", 4, "oob"),
        ("div.rn.f16", 3, "f16"),
        ("mad.rn.bf16", 4, "bf16"),
        ("min.xorsign.f16", 3, "xorsign"),
    ] {
        let e = refused(opcode, operands);
        assert!(e.contains(says), "{opcode}: {e}");
    }
}
