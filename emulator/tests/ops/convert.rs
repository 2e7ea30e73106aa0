//! `cvt`: every pair of types with every rounding, against the definitions.

use crate::harness::exact::{BF16, F16, F32, F64, Format, TF32, format};
use crate::harness::{Case, Out, Want, check, check_case, is, refused};

/// Name, bits, signed, kind.
const INTEGERS: [(&str, u32, bool, &str); 8] = [
    ("u8", 8, false, "b"),
    ("s8", 8, true, "b"),
    ("u16", 16, false, "h"),
    ("s16", 16, true, "h"),
    ("u32", 32, false, "w"),
    ("s32", 32, true, "w"),
    ("u64", 64, false, "l"),
    ("s64", 64, true, "l"),
];
const FLOATS: [(&str, Format, &str); 4] =
    [("f16", F16, "e"), ("bf16", BF16, "g"), ("f32", F32, "f"), ("f64", F64, "d")];
const MODES: [&str; 4] = ["rn", "rz", "rm", "rp"];

fn value(v: u64, bits: u32, signed: bool) -> i128 {
    let v = i128::from(v) & ((1i128 << bits) - 1);
    if signed && v >> (bits - 1) == 1 { v - (1i128 << bits) } else { v }
}

/// The row of an integer result: types below 32 bits are extended to 32.
fn row(v: i128, bits: u32, signed: bool) -> u64 {
    let v = value(v as u64, bits, signed);
    (v & ((1i128 << bits.max(32)) - 1)) as u64
}

fn range(bits: u32, signed: bool) -> (i128, i128) {
    if signed { (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1) } else { (0, (1i128 << bits) - 1) }
}

#[test]
fn between_integers() {
    for (to, bits, signed, _) in INTEGERS {
        for (from, from_bits, from_signed, kind) in INTEGERS {
            check(&format!("cvt.{to}.{from}"), kind, |l| is(row(value(l.s[0], from_bits, from_signed), bits, signed)));
            check(&format!("cvt.sat.{to}.{from}"), kind, |l| {
                let (low, high) = range(bits, signed);
                is(row(value(l.s[0], from_bits, from_signed).clamp(low, high), bits, signed))
            });
        }
    }
}

#[test]
fn from_integers() {
    for (to, t, _) in FLOATS {
        for (from, bits, signed, kind) in INTEGERS {
            for mode in MODES {
                let convert = |v: u64| {
                    let v = value(v, bits, signed);
                    t.of(v < 0, v.unsigned_abs(), 0, mode)
                };
                check(&format!("cvt.{mode}.{to}.{from}"), kind, |l| is(convert(l.s[0])));
                check(&format!("cvt.{mode}.sat.{to}.{from}"), kind, |l| is(t.saturate(convert(l.s[0]))));
            }
        }
    }
}

/// The value of a finite number, rounded to an integer.
fn integral(t: Format, bits: u64, mode: &str) -> f64 {
    let x = t.value(bits);
    match mode {
        "rni" => {
            let down = x.floor();
            let rest = x - down;
            if rest > 0.5 || rest == 0.5 && down % 2.0 != 0.0 { down + 1.0 } else { down }
        }
        "rzi" => x.trunc(),
        "rmi" => x.floor(),
        _ => x.ceil(),
    }
}

#[test]
fn to_integers() {
    for (from, t, kind) in FLOATS {
        for (to, bits, signed, _) in INTEGERS {
            for mode in ["rni", "rzi", "rmi", "rpi"] {
                let convert = |v: u64| {
                    let (low, high) = range(bits, signed);
                    if t.is_nan(v) {
                        let leading = from == "f64" || bits == 64;
                        return is(row(if leading { 1 << (bits - 1) } else { 0 }, bits, signed));
                    }
                    let x = integral(t, v, mode);
                    let clamped = match x {
                        x if x <= low as f64 => low,
                        x if x >= high as f64 => high,
                        x => x as i128,
                    };
                    is(row(clamped, bits, signed))
                };
                // Numbers of the size of the integer, as well as all others.
                let feed = |rng: &mut crate::harness::Rng| {
                    if rng.below(3) == 0 {
                        return vec![rng.value(kind.chars().next().unwrap())];
                    }
                    let v = (rng.bits() >> rng.below(64)) >> (64 - bits);
                    let v = t.of(rng.below(2) == 0, u128::from(v) * 8 + u128::from(rng.below(8)), -3, "rn");
                    vec![v]
                };
                for suffix in ["", ".sat"] {
                    let opcode = format!("cvt.{mode}{suffix}.{to}.{from}");
                    check_case(&Case { feed: Some(&feed), ..Case::new(&opcode, 2, kind) }, |l| convert(l.s[0]));
                }
                if from == "f32" {
                    check(&format!("cvt.{mode}.ftz.{to}.f32"), "f", |l| convert(F32.flush(l.s[0])));
                }
            }
        }
    }
}

/// NaN of `f64` may have any payload.
fn number(t: Format, bits: u64) -> Out {
    if t == F64 && t.is_nan(bits) {
        return Out { d: vec![Want::Pass(Box::new(|got| F64.is_nan(got)))], ..Out::default() };
    }
    is(bits)
}

/// Numbers of one format where the other ends: overflow, subnormal results, ties.
fn critical(from: Format, to: Format, kind: &'static str) -> impl Fn(&mut crate::harness::Rng) -> Vec<u64> {
    move |rng| {
        let pattern = rng.bits() & (to.sign_bit() | (to.sign_bit() - 1));
        let v = match rng.below(4) {
            0 => rng.value(kind.chars().next().unwrap()),
            // Next to a number of the other format, or to the middle between two.
            _ => {
                let a = from.from(to, pattern, "rz");
                let half =
                    if rng.below(2) == 0 { 0 } else { 1 << from.fraction_bits.saturating_sub(to.fraction_bits + 1) };
                let v = (from.magnitude(a) | half).wrapping_add(rng.below(3)).wrapping_sub(1);
                from.magnitude(v) | a & from.sign_bit()
            }
        };
        vec![v]
    }
}

#[test]
fn between_floats() {
    for (to, t, _) in FLOATS {
        for (from, s, kind) in FLOATS {
            if to == from {
                continue;
            }
            let feed = critical(s, t, kind);
            let single = to == "f32" || from == "f32";
            for mode in MODES {
                for ftz in if single { vec![false, true] } else { vec![false] } {
                    for sat in [false, true] {
                        let on = |on: bool, name: &'static str| if on { name } else { "" };
                        let opcode = format!("cvt.{mode}{}{}.{to}.{from}", on(ftz, ".ftz"), on(sat, ".sat"));
                        check_case(&Case { feed: Some(&feed), ..Case::new(&opcode, 2, kind) }, |l| {
                            let a = if ftz && from == "f32" { s.flush(l.s[0]) } else { l.s[0] };
                            let d = t.from(s, a, mode);
                            let d = if ftz && to == "f32" { t.flush(d) } else { d };
                            number(t, if sat { t.saturate(d) } else { d })
                        });
                    }
                }
            }
        }
    }
    // Widening needs no rounding.
    for (to, from, kind) in [("f64", "f32", "f"), ("f32", "f16", "e"), ("f32", "bf16", "g"), ("f64", "bf16", "g")] {
        let (t, s) = (format(to), format(from));
        check(&format!("cvt.{to}.{from}"), kind, |l| number(t, t.from(s, l.s[0], "rn")));
    }
}

#[test]
fn to_an_integer_of_the_same_format() {
    for (name, t, kind) in FLOATS {
        for mode in ["rni", "rzi", "rmi", "rpi"] {
            for ftz in if name == "f32" { vec![false, true] } else { vec![false] } {
                for sat in [false, true] {
                    let on = |on: bool, name: &'static str| if on { name } else { "" };
                    check(&format!("cvt.{mode}{}{}.{name}.{name}", on(ftz, ".ftz"), on(sat, ".sat")), kind, |l| {
                        let a = if ftz { t.flush(l.s[0]) } else { l.s[0] };
                        if t.is_nan(a) {
                            return number(t, if sat { 0 } else { t.nan });
                        }
                        if t.is_infinite(a) {
                            return is(if sat { t.saturate(a) } else { a });
                        }
                        let x = integral(t, a, mode);
                        let magnitude = t.from(F64, x.abs().to_bits(), "rn");
                        let d = magnitude | a & t.sign_bit();
                        is(if sat { t.saturate(d) } else { d })
                    });
                }
            }
        }
        check(&format!("cvt.{name}.{name}"), kind, |l| number(t, if t.is_nan(l.s[0]) { t.nan } else { l.s[0] }));
        check(&format!("cvt.sat.{name}.{name}"), kind, |l| is(t.saturate(l.s[0])));
    }
}

/// `.relu` and `.satfinite`
fn limited(t: Format, bits: u64, relu: bool, finite: bool) -> u64 {
    let d = if finite && t.is_infinite(bits) { bits - 1 } else { bits };
    if relu { t.relu(d) } else { d }
}

#[test]
fn newer_conversions_from_f32() {
    for mode in ["rn", "rz"] {
        for relu in [false, true] {
            for finite in [false, true] {
                let on = |on: bool, name: &'static str| if on { name } else { "" };
                let before = format!("cvt.{mode}{}{}", on(relu, ".relu"), on(finite, ".satfinite"));
                for (to, t) in [("f16", F16), ("bf16", BF16)] {
                    let feed = critical(F32, t, "f");
                    let convert = |v: u64| limited(t, t.from(F32, v, mode), relu, finite);
                    let opcode = format!("{before}.{to}.f32");
                    check_case(&Case { feed: Some(&feed), ..Case::new(&opcode, 2, "f") }, |l| is(convert(l.s[0])));
                    let opcode = format!("{before}.{to}x2.f32");
                    let two = |rng: &mut crate::harness::Rng| [feed(rng), feed(rng)].concat();
                    check_case(&Case { feed: Some(&two), ..Case::new(&opcode, 3, "ff") }, |l| {
                        is(convert(l.s[0]) << 16 | convert(l.s[1]))
                    });
                }
                tf32(&format!("{before}.tf32.f32"), mode, relu, finite);
            }
        }
    }
    tf32("cvt.rna.tf32.f32", "rna", false, false);
    tf32("cvt.rna.satfinite.tf32.f32", "rna", false, true);
}

/// 19 bits at the top of 32; NaN is that of `f32`.
fn tf32(opcode: &str, mode: &str, relu: bool, finite: bool) {
    let feed = critical(F32, TF32, "f");
    check_case(&Case { feed: Some(&feed), warps: 60, ..Case::new(opcode, 2, "f") }, |l| {
        if F32.is_nan(l.s[0]) {
            return is(F32.nan);
        }
        is(limited(TF32, TF32.from(F32, l.s[0], mode), relu, finite) << 13)
    });
}

#[test]
fn every_half_number() {
    // All 65536 patterns of both formats, through f32 and back.
    for (name, t) in [("f16", F16), ("bf16", BF16)] {
        let next = std::cell::Cell::new(0u64);
        let feed = |_: &mut crate::harness::Rng| vec![next.replace(next.get() + 1) & 0xffff];
        let opcode = format!("cvt.f32.{name}");
        let case = Case { warps: 2048, feed: Some(&feed), ..Case::new(&opcode, 2, "e") };
        check_case(&case, |l| is(F32.from(t, l.s[0], "rn")));
    }
}

#[test]
fn packing_integers() {
    let clamp = |v: u64, bits: u32, signed: bool| {
        let (low, high) = range(bits, signed);
        (value(v, 32, true).clamp(low, high) & ((1 << bits) - 1)) as u64
    };
    for (ty, signed) in [("u", false), ("s", true)] {
        check(&format!("cvt.pack.sat.{ty}16.s32"), "ww", |l| {
            is(clamp(l.s[0], 16, signed) << 16 | clamp(l.s[1], 16, signed))
        });
        for bits in [8, 4, 2] {
            check(&format!("cvt.pack.sat.{ty}{bits}.s32.b32"), "www", |l| {
                let low = clamp(l.s[0], bits, signed) << bits | clamp(l.s[1], bits, signed);
                is((l.s[2] << (2 * bits) | low) & 0xffff_ffff)
            });
        }
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    for (opcode, operands, says) in [
        ("cvt.s32.f32", 2, "rounding"),
        ("cvt.f32.s32", 2, "rounding"),
        ("cvt.f32.f64", 2, "rounding"),
        ("cvt.rn.s32.f32", 2, "rounding"),
        ("cvt.rni.f32.s32", 2, "rounding"),
        ("cvt.rn.u32.u64", 2, "rounding"),
        ("cvt.ftz.u32.u64", 2, "ftz"),
        ("cvt.rn.relu.f32.f64", 2, "relu"),
        ("cvt.rna.f32.f64", 2, "rna"),
        ("cvt.rm.f16x2.f32", 3, "rm"),
        ("cvt.rn.e4m3x2.f32", 3, "satfinite"),
        ("cvt.rn.satfinite.e2m1x2.f32", 3, "e2m1x2"),
        ("cvt.rs.f16x2.f32", 4, "rounding"),
        ("cvt.rn.f16x2.f32", 2, "3 operands"),
        ("cvt.f64.bf16.rp", 2, "rp"),
        ("cvt.rni.rn.f32.f32", 2, "rounding"),
    ] {
        let e = refused(opcode, operands);
        assert!(e.contains(says), "{opcode}: {e}");
    }
}
