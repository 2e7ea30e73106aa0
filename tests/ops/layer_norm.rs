//! Layer norm against float64 arithmetic: rows that are no whole runs, more rows than one block takes, variances near eps.

use std::sync::Arc;

use crate::common::{PRECISIONS, check, dot, host, upload, values, wide};
use proptest::prelude::*;
use rampart::Error;
use rampart::ops::layer_norm::{LayerNorm, layer_norm};
use rampart::tape::{Graph, Precision};

/// Rows of `c` values and the gradient in float64.
fn truth(c: usize, eps: f32, x: &[f64], scale: &[f64], bias: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (mut y, mut dx) = (Vec::new(), Vec::new());
    for (x, dy) in x.chunks_exact(c).zip(dy.chunks_exact(c)) {
        let mean = x.iter().sum::<f64>() / c as f64;
        let r = 1.0 / (x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / c as f64 + f64::from(eps)).sqrt();
        let xhat: Vec<f64> = x.iter().map(|v| (v - mean) * r).collect();
        let g: Vec<f64> = dy.iter().zip(scale).map(|(d, w)| d * w).collect();
        let (sum, weighted) = (g.iter().sum::<f64>() / c as f64, dot(&g, &xhat) / c as f64);
        y.extend(xhat.iter().zip(scale).zip(bias).map(|((v, w), b)| v * w + b));
        dx.extend(g.iter().zip(&xhat).map(|(g, v)| r * (g - sum - v * weighted)));
    }
    (y, dx)
}

fn compare(shape: &[usize], eps: f32, spread: f32, shift: f32, seed: u64) {
    let (len, c) = (shape.iter().product(), shape[shape.len() - 1]);
    let scale: Vec<f32> = values(c, seed + 7, Precision::F32).iter().map(|v| 1.0 + 0.5 * v).collect();
    let bias = values(c, seed + 8, Precision::F32);
    for precision in PRECISIONS {
        let x = crate::common::round(values(len, seed, precision).iter().map(|v| spread * v + shift), precision);
        let dy = values(len, seed + 3, precision);
        let (want, want_dx) = truth(c, eps, &wide(&x), &wide(&scale), &wide(&bias), &wide(&dy));
        let norm = Arc::new(LayerNorm::new(&host(), eps, &scale, &bias).unwrap());
        let op = |g: &Graph, x: &_| layer_norm(g, x, &norm);
        check(&format!("eps {eps}"), precision, (shape, &x), &dy, op, &want, &want_dx);
    }
}

#[test]
fn shapes_of_the_networks() {
    for shape in [&[1, 24, 24, 512][..], &[2, 12, 12, 1024], &[3, 7, 5, 40], &[1, 1, 1, 3], &[17, 2048], &[1030, 5]] {
        compare(shape, 1e-6, 1.0, 1.0, 3);
    }
}

/// A variance of 3e-7: an eps of 1e-5 instead of 1e-6 would divide by two and a half times as much.
#[test]
fn a_wrong_eps_is_seen() {
    compare(&[2, 3, 5, 64], 1e-6, 1e-3, 0.0, 5);
    let (x, scale, bias) = (values(64, 5, Precision::F32), vec![1.0; 64], vec![0.0; 64]);
    let x: Vec<f64> = x.iter().map(|v| 1e-3 * f64::from(*v)).collect();
    let y = |eps: f32| truth(64, eps, &x, &scale, &bias, &x).0;
    assert!(y(1e-6)[0].abs() > 2.0 * y(1e-5)[0].abs(), "the case is one of low variance");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_shape(rows in 1usize..70, c in 3usize..200, shift in -4f32..4.0, seed in 0u64..1000) {
        compare(&[rows, c], 1e-6, 1.0, shift, seed);
    }
}

#[test]
fn other_channels_are_refused() {
    let device = host();
    assert!(matches!(LayerNorm::new(&device, 1e-6, &[1.0; 4], &[0.0; 3]), Err(Error::Shape { .. })));
    assert!(matches!(LayerNorm::new(&device, 1e-6, &[], &[]), Err(Error::Shape { .. })));
    let norm = Arc::new(LayerNorm::new(&device, 1e-6, &[1.0; 4], &[0.0; 4]).unwrap());
    let x = upload(&device, &[2, 3], Precision::F32, &[0.0; 6]);
    let message = layer_norm(&Graph::inference(&device, Precision::F32), &x, &norm).unwrap_err().to_string();
    assert!(message.contains("channels") && message.contains('4') && message.contains('3'), "{message}");
}
