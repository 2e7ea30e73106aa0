//! `f32` and `f64` arithmetic in all roundings, against the definition of rounding.

use std::cmp::Ordering;

use crate::harness::exact::{BF16, F16, F32, F64, Format};
use crate::harness::{Case, Lane, Out, Want, check_case, is, predicates, refused};

const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];

/// More samples than elsewhere: the cases that differ between roundings are many.
fn check(opcode: &str, kinds: &str, oracle: impl Fn(&Lane) -> Out) {
    check_case(&Case { warps: 40, ..Case::new(opcode, kinds.len() + 1, kinds) }, oracle);
}

/// The bits of a result: NaN of `f64` may have any payload.
fn number(format: Format, bits: u64) -> Out {
    if format == F64 && format.is_nan(bits) {
        return Out { d: vec![Want::Pass(Box::new(|got| F64.is_nan(got)))], ..Out::default() };
    }
    is(bits)
}

/// All modifiers of an `f32` instruction: the suffix, `.ftz`, `.sat`.
fn variants(sat: bool) -> impl Iterator<Item = (&'static str, bool, bool)> {
    [("", false, false), (".ftz", true, false), (".sat", false, true), (".ftz.sat", true, true)]
        .into_iter()
        .filter(move |v| sat || !v.2)
}

/// Runs `op{mode}{.ftz}{.sat}.f32` and `op{mode}.f64`, whose results `f` rounds.
fn rounded(op: &str, operands: usize, sat: bool, f: impl Fn(Format, &[u64], &str) -> u64) {
    for mode in MODES {
        for (suffix, ftz, sat) in variants(sat) {
            check(&format!("{op}.{mode}{suffix}.f32"), &"f".repeat(operands), |l| {
                let flush = |v: u64| if ftz { F32.flush(v) } else { v };
                let s: Vec<u64> = l.s.iter().map(|v| flush(*v)).collect();
                let d = flush(f(F32, &s, mode));
                is(if sat { F32.saturate(d) } else { d })
            });
        }
        check(&format!("{op}.{mode}.f64"), &"d".repeat(operands), |l| number(F64, f(F64, &l.s, mode)));
    }
}

#[test]
fn sums() {
    rounded("add", 2, true, |t, s, mode| t.add(s[0], s[1], mode));
    rounded("sub", 2, true, |t, s, mode| t.add(s[0], s[1] ^ t.sign_bit(), mode));
    check("add.f32", "ff", |l| is(F32.add(l.s[0], l.s[1], "rn")));
    check("sub.sat.f32", "ff", |l| is(F32.saturate(F32.add(l.s[0], l.s[1] ^ 1 << 31, "rn"))));
    check("add.f64", "dd", |l| number(F64, F64.add(l.s[0], l.s[1], "rn")));
}

#[test]
fn products() {
    rounded("mul", 2, true, |t, s, mode| t.mul(s[0], s[1], mode));
    check("mul.f32", "ff", |l| is(F32.mul(l.s[0], l.s[1], "rn")));
    check("mul.ftz.f32", "ff", |l| is(F32.flush(F32.mul(F32.flush(l.s[0]), F32.flush(l.s[1]), "rn"))));
}

#[test]
fn fused() {
    rounded("fma", 3, true, |t, s, mode| t.fma(s[0], s[1], s[2], mode));
    rounded("mad", 3, true, |t, s, mode| t.fma(s[0], s[1], s[2], mode));
}

#[test]
fn quotients() {
    rounded("div", 2, false, |t, s, mode| t.div(s[0], s[1], mode));
    rounded("rcp", 1, false, |t, s, mode| t.div(t.one(), s[0], mode));
}

#[test]
fn roots() {
    rounded("sqrt", 1, false, |t, s, mode| t.sqrt(s[0], mode));
}

#[test]
fn pairs_of_f32() {
    let halves = |v: u64| [v & 0xffff_ffff, v >> 32];
    for mode in MODES {
        for ftz in [false, true] {
            let suffix = if ftz { ".ftz" } else { "" };
            let flush = |v: u64| if ftz { F32.flush(v) } else { v };
            let lift = |s: &[u64], f: &dyn Fn(&[u64]) -> u64| {
                let part = |n: usize| {
                    let s: Vec<u64> = s.iter().map(|v| flush(halves(*v)[n])).collect();
                    flush(f(&s))
                };
                is(part(0) | part(1) << 32)
            };
            check(&format!("add.{mode}{suffix}.f32x2"), "FF", |l| lift(&l.s, &|s| F32.add(s[0], s[1], mode)));
            check(&format!("sub.{mode}{suffix}.f32x2"), "FF", |l| {
                lift(&l.s, &|s| F32.add(s[0], s[1] ^ F32.sign_bit(), mode))
            });
            check(&format!("mul.{mode}{suffix}.f32x2"), "FF", |l| lift(&l.s, &|s| F32.mul(s[0], s[1], mode)));
            check(&format!("fma.{mode}{suffix}.f32x2"), "FFF", |l| lift(&l.s, &|s| F32.fma(s[0], s[1], s[2], mode)));
        }
    }
}

#[test]
fn mixed_precision() {
    for (name, format, kind) in [("f16", F16, 'e'), ("bf16", BF16, 'g')] {
        for mode in MODES {
            for sat in [false, true] {
                let suffix = if sat { ".sat" } else { "" };
                let after = |d: u64| is(if sat { F32.saturate(d) } else { d });
                let one = format.one();
                check(&format!("add.{mode}{suffix}.f32.{name}"), &String::from_iter([kind, 'f']), |l| {
                    after(F32.product_sum(format, l.s[0], one, l.s[1], mode))
                });
                check(&format!("sub.{mode}{suffix}.f32.{name}"), &String::from_iter([kind, 'f']), |l| {
                    after(F32.product_sum(format, l.s[0], one, l.s[1] ^ F32.sign_bit(), mode))
                });
                check(&format!("fma.{mode}{suffix}.f32.{name}"), &String::from_iter([kind, kind, 'f']), |l| {
                    after(F32.product_sum(format, l.s[0], l.s[1], l.s[2], mode))
                });
            }
        }
    }
}

/// The order of PTX minima: -0 below +0.
fn order(t: Format, a: u64, b: u64) -> Ordering {
    let key = |v: u64| if t.negative(v) { -(t.magnitude(v) as i128) - 1 } else { t.magnitude(v) as i128 };
    key(a).cmp(&key(b))
}

fn limit(t: Format, max: bool, a: u64, b: u64) -> u64 {
    match (t.is_nan(a), t.is_nan(b)) {
        (true, true) => t.nan,
        (true, false) => b,
        (false, true) => a,
        _ if (order(t, a, b) == Ordering::Greater) == max => a,
        _ => b,
    }
}

#[test]
fn limits() {
    for (op, max) in [("min", false), ("max", true)] {
        check(&format!("{op}.f64"), "dd", |l| number(F64, limit(F64, max, l.s[0], l.s[1])));
        for ftz in [false, true] {
            for nan in [false, true] {
                for sign in [false, true] {
                    let on = |on: bool, name: &'static str| if on { name } else { "" };
                    let opcode = format!("{op}{}{}{}.f32", on(ftz, ".ftz"), on(nan, ".NaN"), on(sign, ".xorsign.abs"));
                    check(&opcode, "ff", |l| {
                        let s: Vec<u64> = l.s.iter().map(|v| if ftz { F32.flush(*v) } else { *v }).collect();
                        let (a, b) = (s[0], s[1]);
                        let d = if sign {
                            limit(F32, max, F32.magnitude(a), F32.magnitude(b))
                        } else {
                            limit(F32, max, a, b)
                        };
                        let negative = sign && F32.negative(a) != F32.negative(b) && !F32.is_nan(d);
                        let d = if nan && (F32.is_nan(a) || F32.is_nan(b)) { F32.nan } else { d };
                        is(if negative && d != F32.nan { d | F32.sign_bit() } else { d })
                    });
                }
            }
        }
    }
}

#[test]
fn signs() {
    for (name, t, kind) in [("f32", F32, "f"), ("f64", F64, "d")] {
        check(&format!("neg.{name}"), kind, |l| is(l.s[0] ^ t.sign_bit()));
        check(&format!("abs.{name}"), kind, |l| is(t.magnitude(l.s[0])));
        check(&format!("copysign.{name}"), &kind.repeat(2), |l| is(t.magnitude(l.s[1]) | l.s[0] & t.sign_bit()));
    }
    check("neg.ftz.f32", "f", |l| is(F32.flush(l.s[0]) ^ F32.sign_bit()));
    check("abs.ftz.f32", "f", |l| is(F32.magnitude(F32.flush(l.s[0]))));
}

#[test]
fn properties() {
    for (name, t, kind) in [("f32", F32, "f"), ("f64", F64, "d")] {
        let finite = |v: u64| !t.is_nan(v) && !t.is_infinite(v);
        check(&format!("testp.finite.{name}"), kind, |l| predicates(&[finite(l.s[0])]));
        check(&format!("testp.infinite.{name}"), kind, |l| predicates(&[t.is_infinite(l.s[0])]));
        check(&format!("testp.number.{name}"), kind, |l| predicates(&[!t.is_nan(l.s[0])]));
        check(&format!("testp.notanumber.{name}"), kind, |l| predicates(&[t.is_nan(l.s[0])]));
        check(&format!("testp.normal.{name}"), kind, |l| predicates(&[finite(l.s[0]) && !t.is_subnormal(l.s[0])]));
        check(&format!("testp.subnormal.{name}"), kind, |l| predicates(&[t.is_subnormal(l.s[0])]));
    }
}

#[test]
fn the_processor_agrees_with_the_oracle() {
    let mut rng = crate::harness::Rng(3);
    for _ in 0..20_000 {
        let (a, b, c) = (rng.value('f'), rng.value('f'), rng.value('f'));
        let of = |v: u64| f32::from_bits(v as u32);
        let same = |x: f32, bits: u64| if x.is_nan() { F32.is_nan(bits) } else { u64::from(x.to_bits()) == bits };
        assert!(same(of(a) + of(b), F32.add(a, b, "rn")), "{a:x} + {b:x}");
        assert!(same(of(a) / of(b), F32.div(a, b, "rn")), "{a:x} / {b:x}");
        assert!(same(of(a).sqrt(), F32.sqrt(a, "rn")), "sqrt {a:x}");
        assert!(same(of(a).mul_add(of(b), of(c)), F32.fma(a, b, c, "rn")), "{a:x} * {b:x} + {c:x}");
        let (a, b, c) = (rng.value('d'), rng.value('d'), rng.value('d'));
        let of = f64::from_bits;
        let same = |x: f64, bits: u64| if x.is_nan() { F64.is_nan(bits) } else { x.to_bits() == bits };
        assert!(same(of(a).mul_add(of(b), of(c)), F64.fma(a, b, c, "rn")), "{a:x} * {b:x} + {c:x}");
        assert!(same(of(a) / of(b), F64.div(a, b, "rn")), "{a:x} / {b:x}");
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    for (opcode, operands, says) in [
        ("fma.f32", 4, "rounding"),
        ("div.f32", 3, "rounding"),
        ("add.rn.ftz.f64", 3, "ftz"),
        ("add.rn.sat.f32x2", 3, "sat"),
        ("add.rna.f32", 3, "rna"),
        ("add.rn.rz.f32", 3, "rz"),
        ("min.NaN.f64", 3, "NaN"),
        ("min.xorsign.f32", 3, "xorsign"),
        ("min.f32x2", 3, "f32x2"),
        ("div.rn.f32x2", 3, "f32x2"),
        ("min.f64", 4, "3 operands"),
        ("min.xorsign.abs.f32", 4, "xorsign"),
        ("copysign.ftz.f32", 3, "ftz"),
        ("mul.rn.f32.f16", 3, "f16"),
        ("testp.zero.f32", 2, "zero"),
    ] {
        let e = refused(opcode, operands);
        assert!(e.contains(says), "{opcode}: {e}");
    }
}
