//! Intervals, tests and adjustments beside SciPy and statsmodels: tests/fixtures/comparisons.json, which tools/reference/comparisons_reference.py
//! writes.

use rampart::stats::{holm, mcnemar, newcombe, sign_test, wilson};
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    wilson: Vec<(u64, u64, f64, f64)>,
    mcnemar: Vec<(u64, u64, f64, f64)>,
    sign: Vec<(u64, u64, f64)>,
    newcombe: Vec<(u64, u64, u64, u64, f64, f64, f64)>,
    holm: Vec<(Vec<f64>, Vec<f64>)>,
}

#[track_caller]
fn close(got: f64, want: f64, of: &str) {
    assert!((got - want).abs() <= 1e-10, "{of}: got {got}, want {want}");
}

#[test]
fn statistics_are_those_of_scipy_and_statsmodels() {
    let text = std::fs::read_to_string("tests/fixtures/comparisons.json").unwrap();
    let reference: Reference = serde_json::from_str(&text).unwrap();
    assert!(reference.wilson.len() > 20 && reference.holm.len() > 10);
    for (k, n, lo, hi) in reference.wilson {
        let got = wilson(k, n);
        close(got.lo, lo, &format!("Wilson {k}/{n}, low"));
        close(got.hi, hi, &format!("Wilson {k}/{n}, high"));
    }
    for (b, c, exact, mid_p) in reference.mcnemar {
        let got = mcnemar(b, c);
        close(got.exact, exact, &format!("McNemar {b}:{c}"));
        close(got.mid_p, mid_p, &format!("McNemar {b}:{c}, mid-p"));
    }
    for (more, fewer, p) in reference.sign {
        close(sign_test(more, fewer), p, &format!("sign test {more}:{fewer}"));
    }
    for (a, b, c, d, difference, lo, hi) in reference.newcombe {
        let (got, interval) = newcombe(a, b, c, d);
        let of = format!("Newcombe {a} {b} {c} {d}");
        close(got, difference, &of);
        close(interval.lo, lo, &of);
        close(interval.hi, hi, &of);
    }
    for (p, adjusted) in reference.holm {
        for (got, want) in holm(&p).into_iter().zip(adjusted) {
            close(got, want, "Holm");
        }
    }
}
