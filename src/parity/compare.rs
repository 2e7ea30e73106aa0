//! How far an output may lie from its reference, and how far it does.

use super::dump::{Array, Dump};
use crate::tape::Precision;

/// How far one output lies from the reference.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Comparison {
    pub tensor: String,
    /// Euclidean norm of the difference over that of the reference
    pub rel_err: f64,
    pub max_abs: f64,
    pub limit: f64,
    pub passed: bool,
}

/// The project's tolerances: relative to the norm of the reference, per tensor.
///
/// TF32 keeps 10 bits of a factor where bfloat16 keeps 7, an eighth of its rounding, and only convolutions use it. Of a network's gradient
/// half is allowed: there a ReLU that turns weighs more than what turned it.
pub(super) fn limit(dump: &Dump, output: &str, precision: Precision) -> f64 {
    let model = matches!(dump.op.as_str(), "model" | "feature_map" | "onnx" | "pgd" | "dds");
    let precision = match precision {
        Precision::Tf32 if !model && !dump.op.starts_with("conv") => Precision::F32,
        other => other,
    };
    if let (Some(rtol), Precision::F32) = (dump.rtol, precision) {
        return rtol;
    }
    match (precision, model, output.starts_with("out.d")) {
        (Precision::F32, false, false) => 2e-6,
        (Precision::F32, false, true) => 3e-6,
        (Precision::F32, true, false) => 5e-6,
        (Precision::F32, true, true) => 2e-5,
        (Precision::Tf32, false, _) => 1e-3,
        (Precision::Tf32, true, false) => 4e-3,
        (Precision::Tf32, true, true) => 4e-2,
        (Precision::Bf16, false, _) => 1e-2,
        (Precision::Bf16, true, false) => 3e-2,
        (Precision::Bf16, true, true) => 8e-2,
    }
}

/// The larger of two, NaN where either is: `f64::max` would drop it.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// `||got - want|| / ||want||`; where the reference is all zero, anything but zero fails. NaN fails.
pub(crate) fn compare(tensor: &str, got: &[f32], want: &Array, limit: f64) -> Comparison {
    let (mut difference, mut norm, mut max_abs) = (0f64, 0f64, 0f64);
    let mut sound = got.len() == want.values.len();
    for (&g, &w) in got.iter().zip(&want.values) {
        if g.is_nan() && w.is_nan() || g.is_infinite() && g == w {
            continue;
        }
        let d = (f64::from(g) - f64::from(w)).abs();
        sound &= d.is_finite();
        difference += d * d;
        norm += f64::from(w).powi(2);
        max_abs = larger(max_abs, d);
    }
    let rel_err = match (sound, norm > 0.0) {
        (false, _) => f64::INFINITY,
        (true, true) => (difference / norm).sqrt(),
        (true, false) if difference == 0.0 => 0.0,
        (true, false) => f64::INFINITY,
    };
    Comparison { tensor: tensor.into(), rel_err, max_abs, limit, passed: rel_err <= limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_fails_and_is_shown() {
        let want = |values: &[f32]| Array { shape: vec![values.len()], values: values.to_vec() };
        for got in [[f32::NAN, 2.0, 5.0], [1.0, f32::NAN, 5.0], [1.0, 2.0, f32::NAN]] {
            let found = compare("out.y", &got, &want(&[1.0, 2.0, 3.0]), 1.0);
            assert!(!found.passed && found.max_abs.is_nan(), "{found:?}");
        }
        let found = compare("out.y", &[f32::NAN, 2.5], &want(&[f32::NAN, 2.0]), 1.0);
        assert!(found.passed && found.max_abs == 0.5, "{found:?}");
    }
}
