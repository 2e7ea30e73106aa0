//! The `.approx` and `.full` functions: within the errors that PTX documents, with its special values.

use crate::harness::exact::{BF16, F16, F32, Format};
use crate::harness::{Lane, Out, Want, check, refused};

fn of(v: u64) -> f64 {
    f64::from(f32::from_bits(v as u32))
}

/// A result of format `t` within `relative` and `absolute` of `want`, NaN exactly where that is, zero and infinity allowed where
/// `t` ends.
fn near(t: Format, want: f64, relative: f64, absolute: f64, ftz: bool) -> Out {
    let pass = move |got: u64| {
        let x = t.value(got);
        if want.is_nan() {
            return got == t.nan;
        }
        if ftz && t.is_subnormal(got) {
            return false;
        }
        // What the format itself cannot tell apart.
        let least = t.value(if ftz { 1 << t.fraction_bits } else { 1 });
        let largest = t.value(t.infinity() - 1);
        if want.abs() > largest {
            return x == want.signum() * f64::INFINITY || x.abs() == largest && want.is_finite();
        }
        (x - want).abs() <= want.abs() * relative + absolute + least
            && (x == 0.0 || x.is_sign_negative() == (want < 0.0))
    };
    Out { d: vec![Want::Pass(Box::new(pass))], ..Out::default() }
}

/// `op{.ftz}.f32` of one operand, against a function in `f64`.
fn function(op: &str, relative: f64, absolute: f64, f: impl Fn(f64) -> f64) {
    for ftz in [false, true] {
        let opcode = format!("{op}{}.f32", if ftz { ".ftz" } else { "" });
        check(&opcode, "f", |l| {
            let a = if ftz { F32.flush(l.s[0]) } else { l.s[0] };
            near(F32, f(of(a)), relative, absolute, ftz)
        });
    }
}

const HALF_ULP: f64 = 1.0 / 16_777_216.0;

#[test]
fn roots_and_reciprocals() {
    function("rcp.approx", 2.0 * HALF_ULP, 0.0, |x| 1.0 / x);
    function("sqrt.approx", 2.0 * HALF_ULP, 0.0, f64::sqrt);
    function("rsqrt.approx", 2f64.powf(-22.9), 0.0, |x| 1.0 / x.sqrt());
}

#[test]
fn logarithm_and_power() {
    function("lg2.approx", 2f64.powi(-22), 2f64.powf(-22.0), f64::log2);
    function("ex2.approx", 2f64.powf(-22.5), 0.0, f64::exp2);
}

#[test]
fn ex2_is_within_an_ulp_everywhere() {
    use crate::harness::{Case, check_case};
    let feed = |rng: &mut crate::harness::Rng| {
        let x = (rng.bits() >> 11) as f64 / 2f64.powi(53) * 320.0 - 160.0;
        vec![u64::from((x as f32).to_bits())]
    };
    check_case(&Case { warps: 400, feed: Some(&feed), ..Case::new("ex2.approx.f32", 2, "f") }, |l| {
        near(F32, of(l.s[0]).exp2(), 1.1 * HALF_ULP, 0.0, false)
    });
}

#[test]
fn waves() {
    let turn = 2f64.powf(-20.5);
    function("sin.approx", 0.0, turn, |x| if x.is_infinite() { f64::NAN } else { libm::sin(x) });
    function("cos.approx", 0.0, turn, |x| if x.is_infinite() { f64::NAN } else { libm::cos(x) });
    check("tanh.approx.f32", "f", |l| near(F32, of(l.s[0]).tanh(), 2f64.powi(-11), 0.0, false));
}

#[test]
fn quotients() {
    for ftz in [false, true] {
        let flush = |v: u64| if ftz { F32.flush(v) } else { v };
        let suffix = if ftz { ".ftz" } else { "" };
        check(&format!("div.full{suffix}.f32"), "ff", |l| {
            near(F32, of(flush(l.s[0])) / of(flush(l.s[1])), 4.0 * HALF_ULP, 0.0, ftz)
        });
        check(&format!("div.approx{suffix}.f32"), "ff", |l| {
            let (a, b) = (of(flush(l.s[0])), of(flush(l.s[1])));
            // Divisors that the reciprocal flushes.
            let huge = b.abs() > 2f64.powi(126) && b.is_finite();
            let want = match huge {
                true if a.is_finite() => 0.0,
                true => f64::NAN,
                false => a / b,
            };
            near(F32, want, 4.0 * HALF_ULP, 0.0, ftz)
        });
    }
}

#[test]
fn of_f64() {
    let value = |l: &Lane| f64::from_bits(l.s[0]);
    let close = |want: f64, relative: f64, coarse: bool| {
        let pass = move |got: u64| {
            let x = f64::from_bits(got);
            let cut = !coarse || got & 0xffff_ffff == 0 && !x.is_subnormal();
            cut && (want.is_nan() && x.is_nan() || x == want || (x - want).abs() <= relative * want.abs())
        };
        Out { d: vec![Want::Pass(Box::new(pass))], ..Out::default() }
    };
    let upper = |v: f64| {
        let cut = f64::from_bits(v.to_bits() & !0 << 32);
        if cut.is_subnormal() { 0f64.copysign(cut) } else { cut }
    };
    check("rsqrt.approx.f64", "d", |l| close(1.0 / value(l).sqrt(), 2f64.powi(-50), false));
    check("rsqrt.approx.ftz.f64", "d", |l| close(1.0 / upper(value(l)).sqrt(), 2f64.powi(-20), true));
    check("rcp.approx.ftz.f64", "d", |l| {
        let want = 1.0 / upper(value(l));
        close(if want.is_subnormal() { 0f64.copysign(want) } else { want }, 2f64.powi(-20), true)
    });
}

#[test]
fn of_half_formats() {
    for (name, t, kind) in [("f16", F16, "e"), ("bf16", BF16, "g")] {
        let relative = 1.1 * 2f64.powi(-(t.fraction_bits as i32) - 1);
        let pair = |f: fn(f64) -> f64, l: &Lane, flush: bool| {
            let part = |v: u64| {
                let v = v & 0xffff;
                f(t.value(if flush { t.flush(v) } else { v }))
            };
            let wants = [part(l.s[0]), part(l.s[0] >> 16)];
            let pass = move |got: u64| {
                wants.iter().enumerate().all(|(n, want)| {
                    let out = near(t, *want, relative, 0.0, flush);
                    matches!(&out.d[0], Want::Pass(f) if f(got >> (16 * n) & 0xffff))
                })
            };
            Out { d: vec![Want::Pass(Box::new(pass))], ..Out::default() }
        };
        let upper = kind.to_uppercase();
        check(&format!("tanh.approx.{name}"), kind, |l| near(t, t.value(l.s[0]).tanh(), relative, 0.0, false));
        check(&format!("tanh.approx.{name}x2"), &upper, |l| pair(f64::tanh, l, false));
        let modes: &[(&str, bool)] = if t == BF16 { &[(".ftz", true)] } else { &[("", false), (".ftz", true)] };
        for &(suffix, ftz) in modes {
            check(&format!("ex2.approx{suffix}.{name}"), kind, |l| {
                let a = if ftz { t.flush(l.s[0]) } else { l.s[0] };
                near(t, t.value(a).exp2(), relative, 0.0, ftz)
            });
            check(&format!("ex2.approx{suffix}.{name}x2"), &upper, |l| pair(f64::exp2, l, ftz));
        }
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    for (opcode, says) in [
        ("sin.f32", "approx"),
        ("sin.approx.f64", "f64"),
        ("sqrt.full.f32", "full"),
        ("rcp.approx.f64", "approx"),
        ("tanh.approx.ftz.f32", "ftz"),
        ("ex2.approx.bf16", "ftz"),
        ("tanh.approx.ftz.f16", "ftz"),
        ("rsqrt.rn.f32", "approx"),
    ] {
        let e = refused(opcode, 2);
        assert!(e.contains(says), "{opcode}: {e}");
    }
}
