//! Group norm against float64 arithmetic: group sizes that are no whole runs, one pixel, per-image constants, activations.

use std::sync::Arc;

use crate::common::{PRECISIONS, check, directional, dot, host, upload, values, wide};
use proptest::prelude::*;
use rampart::Error;
use rampart::device::Device;
use rampart::ops::Activation;
use rampart::ops::group_norm::{GroupNorm, group_norm};
use rampart::tape::{Graph, Precision};

const EPS: f32 = 1e-5;

fn silu(u: f64) -> (f64, f64) {
    let s = 1.0 / (1.0 + (-u).exp());
    (u * s, s * (1.0 + u * (1.0 - s)))
}

/// Value and slope.
fn act(kind: Activation, u: f64) -> (f64, f64) {
    match kind {
        Activation::Silu => silu(u),
        Activation::Relu => (u.max(0.0), f64::from(u > 0.0)),
        _ => (u, 1.0),
    }
}

struct Case {
    shape: [usize; 4],
    groups: usize,
    /// rows of scale and bias
    rows: usize,
    act: Activation,
}

/// Forward and gradient in float64.
fn truth(case: &Case, x: &[f64], scale: &[f64], bias: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let [n, h, w, c] = case.shape;
    let (pixels, size) = (h * w, c / case.groups);
    let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    for i in 0..n {
        for g in 0..case.groups {
            let at: Vec<(usize, usize)> = (0..pixels)
                .flat_map(|p| (g * size..(g + 1) * size).map(move |k| ((i * pixels + p) * c + k, k)))
                .collect();
            let count = at.len() as f64;
            let mean = at.iter().map(|&(j, _)| x[j]).sum::<f64>() / count;
            let var = at.iter().map(|&(j, _)| (x[j] - mean).powi(2)).sum::<f64>() / count;
            let r = 1.0 / (var + f64::from(EPS)).sqrt();
            let row = if case.rows == 1 { 0 } else { i * c };
            let (mut sum, mut weighted) = (0.0, 0.0);
            for &(j, k) in &at {
                let xhat = (x[j] - mean) * r;
                let (value, slope) = act(case.act, xhat * scale[row + k] + bias[row + k]);
                y[j] = value;
                dx[j] = dy[j] * slope * scale[row + k];
                sum += dx[j];
                weighted += dx[j] * xhat;
            }
            for &(j, _) in &at {
                let xhat = (x[j] - mean) * r;
                dx[j] = r * (dx[j] - sum / count - xhat * weighted / count);
            }
        }
    }
    (y, dx)
}

fn constants(case: &Case, seed: u64) -> (Vec<f32>, Vec<f32>) {
    let n = case.rows * case.shape[3];
    let scale = values(n, seed, Precision::F32).iter().map(|v| 1.0 + 0.5 * v).collect();
    (scale, values(n, seed + 1, Precision::F32))
}

fn norm(device: &Device, case: &Case, seed: u64) -> rampart::Result<Arc<GroupNorm>> {
    let (scale, bias) = constants(case, seed);
    Ok(Arc::new(GroupNorm::new(device, case.groups, case.shape[3], EPS, &scale, &bias)?))
}

fn compare(case: &Case, seed: u64) {
    let len: usize = case.shape.iter().product();
    let (scale, bias) = constants(case, seed + 7);
    for precision in PRECISIONS {
        // A mean far from 0: what one-pass variances get wrong.
        let x: Vec<f32> = values(len, seed, precision).iter().map(|v| v + 3.0).collect();
        let x = crate::common::round(x, precision);
        let dy = values(len, seed + 3, precision);
        let (want, want_dx) = truth(case, &wide(&x), &wide(&scale), &wide(&bias), &wide(&dy));
        let norm = norm(&host(), case, seed + 7).expect("the case fits");
        let op = |g: &Graph, x: &_| group_norm(g, x, &norm, case.act);
        let what = format!("groups {} rows {} {:?}", case.groups, case.rows, case.act);
        check(&what, precision, (&case.shape, &x), &dy, op, &want, &want_dx);
    }
}

#[test]
fn shapes_of_the_networks() {
    for (shape, groups) in [
        ([2, 32, 32, 32], 32),
        ([2, 8, 8, 96], 32),
        ([1, 16, 16, 384], 32),
        ([2, 4, 4, 64], 32),
        ([1, 7, 5, 48], 4),
        ([3, 1, 2, 40], 1),
        ([1, 2, 2, 2048], 32),
    ] {
        for act in [Activation::None, Activation::Silu] {
            for rows in [1, shape[0]] {
                compare(&Case { shape, groups, rows, act }, 11);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_shape(n in 1usize..4, h in 1usize..9, w in 1usize..9, groups in 1usize..9, size in 1usize..20, per_image: bool, seed in 0u64..1000) {
        // The gradient of two values is nothing but rounding, and a few may lie so close together that theirs is little else.
        prop_assume!(h * w * size >= 8);
        let rows = if per_image { n } else { 1 };
        compare(&Case { shape: [n, h, w, groups * size], groups, rows, act: Activation::Silu }, seed);
    }
}

#[test]
fn the_gradient_is_that_of_the_formula() {
    let case = Case { shape: [1, 3, 3, 8], groups: 2, rows: 1, act: Activation::Silu };
    let (scale, bias) = constants(&case, 5);
    let (x, dy, v) = (values(72, 1, Precision::F32), values(72, 2, Precision::F32), values(72, 3, Precision::F32));
    let loss = |x: &[f64]| dot(&truth(&case, x, &wide(&scale), &wide(&bias), &wide(&dy)).0, &wide(&dy));
    let (_, dx) = truth(&case, &wide(&x), &wide(&scale), &wide(&bias), &wide(&dy));
    let want = directional(loss, &wide(&x), &wide(&v));
    assert!((dot(&dx, &wide(&v)) - want).abs() <= 1e-7 * want.abs().max(1.0));
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = host();
    let rows = |c: usize, scale: usize| GroupNorm::new(&device, 4, c, EPS, &vec![1.0; scale], &vec![0.0; scale]);
    assert!(matches!(rows(6, 6), Err(Error::Shape { .. })));
    assert!(matches!(rows(8, 12), Err(Error::Shape { .. })));
    assert!(matches!(rows(8192, 8192), Err(Error::Limit { .. })));
    let norm = Arc::new(rows(8, 16).unwrap());
    let g = Graph::inference(&device, Precision::F32);
    let x = upload(&device, &[3, 2, 2, 8], Precision::F32, &[0.0; 96]);
    let message = group_norm(&g, &x, &norm, Activation::None).unwrap_err().to_string();
    assert!(message.contains("1 or 3") && message.contains('2'), "{message}");
}
