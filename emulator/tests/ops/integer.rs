//! Integer arithmetic and extended precision, against 128-bit integers.

use crate::harness::{Case, Lane, Out, Rng, Want, check, check_case, is, refused};

const TYPES: [(&str, u32, bool, char); 6] = [
    ("u16", 16, false, 'h'),
    ("s16", 16, true, 'h'),
    ("u32", 32, false, 'w'),
    ("s32", 32, true, 'w'),
    ("u64", 64, false, 'l'),
    ("s64", 64, true, 'l'),
];

/// The value of `bits` bits.
fn value(v: u64, bits: u32, signed: bool) -> i128 {
    let v = i128::from(v) & ((1i128 << bits) - 1);
    if signed && v >> (bits - 1) == 1 { v - (1i128 << bits) } else { v }
}

/// The low bits.
fn low(v: i128, bits: u32) -> u64 {
    (v & ((1i128 << bits) - 1)) as u64
}

/// The product, whose low 128 bits are right for unsigned 64-bit operands too.
fn product(a: i128, b: i128) -> i128 {
    a.wrapping_mul(b)
}

/// The upper half of a product of twice `bits`.
fn upper(a: i128, b: i128, bits: u32) -> i128 {
    // Shifted as unsigned: for bits = 64 the product may fill all 128 bits.
    ((product(a, b) as u128) >> bits) as i128
}

#[test]
fn two_operands() {
    type Op = fn(i128, i128, u32) -> i128;
    let all: [(&str, Op); 6] = [
        ("add", |a, b, _| a + b),
        ("sub", |a, b, _| a - b),
        ("mul.lo", |a, b, _| product(a, b)),
        ("mul.hi", upper),
        ("min", |a, b, _| a.min(b)),
        ("max", |a, b, _| a.max(b)),
    ];
    for (ty, bits, signed, kind) in TYPES {
        let kinds = String::from_iter([kind; 2]);
        for (op, f) in all {
            check(&format!("{op}.{ty}"), &kinds, |l| {
                is(low(f(value(l.s[0], bits, signed), value(l.s[1], bits, signed), bits), bits))
            });
        }
        check(&format!("div.{ty}"), &kinds, |l| {
            let (a, b) = (value(l.s[0], bits, signed), value(l.s[1], bits, signed));
            is(low(if b == 0 { -1 } else { a / b }, bits))
        });
        check(&format!("rem.{ty}"), &kinds, |l| {
            let (a, b) = (value(l.s[0], bits, signed), value(l.s[1], bits, signed));
            is(low(if b == 0 { -1 } else { a % b }, bits))
        });
        if bits < 64 {
            check(&format!("mul.wide.{ty}"), &kinds, |l| {
                is(low(value(l.s[0], bits, signed) * value(l.s[1], bits, signed), 2 * bits))
            });
        }
        if signed {
            check(&format!("abs.{ty}"), &kinds[1..], |l| is(low(value(l.s[0], bits, true).abs(), bits)));
            check(&format!("neg.{ty}"), &kinds[1..], |l| is(low(-value(l.s[0], bits, true), bits)));
        }
    }
}

#[test]
fn quotients_close_to_an_integer() {
    // Dividends one below, at and one above a multiple of the divisor, where a rounded quotient would go wrong.
    for bits in [32, 52, 53, 64] {
        let feed = |rng: &mut Rng| {
            let b = (rng.bits() >> (64 - bits) >> rng.below(bits)).max(1);
            let all = u64::MAX >> (64 - bits);
            let q = (u128::from(rng.bits()) % (u128::from(all / b) + 1)) as u64;
            vec![q.wrapping_mul(b).wrapping_add(rng.below(3)).wrapping_sub(1) & all, b]
        };
        let (ty, kinds) = if bits == 32 { ("u32", "ww") } else { ("u64", "ll") };
        for op in ["div", "rem"] {
            let opcode = format!("{op}.{ty}");
            check_case(&Case { warps: 60, feed: Some(&feed), ..Case::new(&opcode, 3, kinds) }, |l| {
                is(if op == "div" { l.s[0] / l.s[1] } else { l.s[0] % l.s[1] })
            });
        }
        let (ty, minus) = if bits == 32 { ("s32", 0xffff_ffff) } else { ("s64", u64::MAX) };
        let opcode = format!("div.{ty}");
        check_case(
            &Case {
                warps: 60,
                feed: Some(&|r| feed(r).iter().map(|v| v >> 1).collect()),
                ..Case::new(&opcode, 3, kinds)
            },
            |l| is(l.s[0].checked_div(l.s[1]).unwrap_or(minus)),
        );
    }
}

#[test]
fn three_operands() {
    type Op = fn(i128, i128, i128, u32) -> i128;
    let all: [(&str, Op); 3] = [
        ("mad.lo", |a, b, c, _| product(a, b).wrapping_add(c)),
        ("mad.hi", |a, b, c, bits| upper(a, b, bits).wrapping_add(c)),
        ("sad", |a, b, c, _| (a - b).abs() + c),
    ];
    for (ty, bits, signed, kind) in TYPES {
        for (op, f) in all {
            check(&format!("{op}.{ty}"), &String::from_iter([kind; 3]), |l| {
                let v = |n: usize| value(l.s[n], bits, signed);
                is(low(f(v(0), v(1), v(2), bits), bits))
            });
        }
        if bits < 64 {
            let wide = if bits == 16 { 'w' } else { 'l' };
            check(&format!("mad.wide.{ty}"), &String::from_iter([kind, kind, wide]), |l| {
                let p = value(l.s[0], bits, signed) * value(l.s[1], bits, signed);
                is(low(p + i128::from(l.s[2]), 2 * bits))
            });
        }
    }
}

fn clamp(v: i128) -> u64 {
    low(v.clamp(i128::from(i32::MIN), i128::from(i32::MAX)), 32)
}

#[test]
fn saturating() {
    let s = |l: &Lane, n: usize| value(l.s[n], 32, true);
    check("add.sat.s32", "ww", |l| is(clamp(s(l, 0) + s(l, 1))));
    check("sub.sat.s32", "ww", |l| is(clamp(s(l, 0) - s(l, 1))));
    check("mad.hi.sat.s32", "www", |l| is(clamp(((s(l, 0) * s(l, 1)) >> 32) + s(l, 2))));
    check("mad24.hi.sat.s32", "www", |l| {
        let part = |n: usize| value(l.s[n], 24, true);
        is(clamp(((part(0) * part(1)) >> 16) + s(l, 2)))
    });
    check("min.relu.s32", "ww", |l| is(low(s(l, 0).min(s(l, 1)).max(0), 32)));
    check("max.relu.s32", "ww", |l| is(low(s(l, 0).max(s(l, 1)).max(0), 32)));
}

#[test]
fn of_24_bits() {
    for (ty, signed) in [("u32", false), ("s32", true)] {
        let p = |l: &Lane| value(l.s[0], 24, signed) * value(l.s[1], 24, signed);
        check(&format!("mul24.lo.{ty}"), "ww", |l| is(low(p(l), 32)));
        check(&format!("mul24.hi.{ty}"), "ww", |l| is(low(p(l) >> 16, 32)));
        check(&format!("mad24.lo.{ty}"), "www", |l| is(low(p(l) + i128::from(l.s[2]), 32)));
        check(&format!("mad24.hi.{ty}"), "www", |l| is(low((p(l) >> 16) + i128::from(l.s[2]), 32)));
    }
}

#[test]
fn pairs_of_16_bits() {
    type Op = fn(i128, i128) -> i128;
    let all: [(&str, Op, &[&str]); 5] = [
        ("add", |a, b| a + b, &["u16x2", "s16x2"]),
        ("min", |a, b| a.min(b), &["u16x2", "s16x2"]),
        ("max", |a, b| a.max(b), &["u16x2", "s16x2"]),
        ("min.relu", |a, b| a.min(b).max(0), &["s16x2"]),
        ("max.relu", |a, b| a.max(b).max(0), &["s16x2"]),
    ];
    for (op, f, types) in all {
        for ty in types {
            let signed = ty.starts_with('s');
            check(&format!("{op}.{ty}"), "HH", |l| {
                let half = |n: u32| low(f(value(l.s[0] >> n, 16, signed), value(l.s[1] >> n, 16, signed)), 16);
                is(half(0) | half(16) << 16)
            });
        }
    }
}

#[test]
fn dot_products() {
    for a in ["u32", "s32"] {
        for b in ["u32", "s32"] {
            let (sa, sb) = (a == "s32", b == "s32");
            check(&format!("dp4a.{a}.{b}"), "www", |l| {
                let parts = (0..4).map(|n| value(l.s[0] >> (8 * n), 8, sa) * value(l.s[1] >> (8 * n), 8, sb));
                is(low(parts.sum::<i128>() + i128::from(l.s[2]), 32))
            });
            for (mode, first) in [("lo", 0), ("hi", 2)] {
                check(&format!("dp2a.{mode}.{a}.{b}"), "www", |l| {
                    let parts =
                        (0..2).map(|n| value(l.s[0] >> (16 * n), 16, sa) * value(l.s[1] >> (8 * (first + n)), 8, sb));
                    is(low(parts.sum::<i128>() + i128::from(l.s[2]), 32))
                });
            }
        }
    }
}

/// Result and carry-out of a sum of unsigned numbers.
fn carry_out(sum: u128, bits: u32, gives: bool) -> Out {
    let d = vec![Want::Is((sum & ((1 << bits) - 1)) as u64)];
    Out { d, carry: gives.then_some(sum >> bits & 1 == 1), ..Out::default() }
}

#[test]
fn carries() {
    for (ty, bits, signed, kind) in TYPES.into_iter().filter(|t| t.1 > 16) {
        let kinds = String::from_iter([kind; 3]);
        let u = |v: u64| u128::from(v);
        for (op, takes, gives) in [("add.cc", false, true), ("addc", true, false), ("addc.cc", true, true)] {
            check(&format!("{op}.{ty}"), &kinds[1..], |l| {
                carry_out(u(l.s[0]) + u(l.s[1]) + u128::from(takes && l.carry), bits, gives)
            });
        }
        for (op, takes, gives) in [("sub.cc", false, true), ("subc", true, false), ("subc.cc", true, true)] {
            check(&format!("{op}.{ty}"), &kinds[1..], |l| {
                // The complement is added: the flag is clear after a borrow, and a clear flag is one.
                carry_out(u(l.s[0]) + u(low(!i128::from(l.s[1]), bits)) + u128::from(!takes || l.carry), bits, gives)
            });
        }
        for (op, high, takes, gives) in [
            ("mad.lo.cc", false, false, true),
            ("madc.lo", false, true, false),
            ("madc.lo.cc", false, true, true),
            ("mad.hi.cc", true, false, true),
            ("madc.hi", true, true, false),
            ("madc.hi.cc", true, true, true),
        ] {
            check(&format!("{op}.{ty}"), &kinds, |l| {
                let (a, b) = (value(l.s[0], bits, signed), value(l.s[1], bits, signed));
                let part = if high { upper(a, b, bits) } else { product(a, b) };
                carry_out(u(low(part, bits)) + u(l.s[2]) + u128::from(takes && l.carry), bits, gives)
            });
        }
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    for (opcode, operands, says) in [
        ("add.sat.u32", 3, "sat"),
        ("add.u8", 3, "u8"),
        ("sub.u16x2", 3, "u16x2"),
        ("mul.u32", 3, "lo"),
        ("mul.wide.u64", 3, "u64"),
        ("mul24.lo.u64", 3, "u64"),
        ("abs.u32", 2, "u32"),
        ("min.relu.u32", 3, "relu"),
        ("add.s32", 4, "3 operands"),
        ("add.cc.u16", 3, "u16"),
        ("addc.hi.u32", 3, "hi"),
        ("dp4a.u32.u16", 4, "u16"),
        ("mad.hi.sat.u32", 4, "sat"),
    ] {
        let e = refused(opcode, operands);
        assert!(e.contains(says), "{opcode}: {e}");
    }
}
