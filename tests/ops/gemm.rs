//! Matrix products and fully connected layers against float64 sums.

use std::sync::Arc;

use crate::common::{PRECISIONS, check, close, host, limits, upload, values, wide};
use proptest::prelude::*;
use rampart::Error;
use rampart::ops::gemm::{Linear, linear, matmul};
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};

/// `(batch, m, k) x (batch, k, n)`
fn product(a: &[f64], b: &[f64], [batch, m, k, n]: [usize; 4]) -> Vec<f64> {
    let mut y = vec![0.0; batch * m * n];
    for i in 0..batch {
        for r in 0..m {
            for t in 0..k {
                for c in 0..n {
                    y[(i * m + r) * n + c] += a[(i * m + r) * k + t] * b[(i * k + t) * n + c];
                }
            }
        }
    }
    y
}

fn transposed(x: &[f64], batch: usize, rows: usize, cols: usize) -> Vec<f64> {
    (0..batch * cols * rows).map(|i| x[i / (cols * rows) * cols * rows + i % rows * cols + i / rows % cols]).collect()
}

fn matmul_case(dims: [usize; 4], precision: Precision, seed: u64) {
    let [batch, m, k, n] = dims;
    let device = host();
    let (a, b) = (values(batch * m * k, seed, precision), values(batch * k * n, seed + 1, precision));
    let dy = values(batch * m * n, seed + 2, precision);
    let (at, bt) = (upload(&device, &[batch, m, k], precision, &a), upload(&device, &[batch, k, n], precision, &b));
    let g = recording(&device, precision);
    let y = matmul(&g, &at, &bt).unwrap();
    let (a, b, d) = (wide(&a), wide(&b), wide(&dy));
    let name = format!("matmul {dims:?} {precision:?}");
    close(&name, &y.to_f32(&device).unwrap(), &product(&a, &b, dims), limits(precision).0);
    let grads = g.backward_all(&y, upload(&device, &[batch, m, n], precision, &dy), &[&at, &bt]).unwrap();
    let da = product(&d, &transposed(&b, batch, k, n), [batch, m, n, k]);
    let db = product(&transposed(&a, batch, m, k), &d, [batch, k, m, n]);
    close(&format!("{name} da"), &grads[0].to_f32(&device).unwrap(), &da, limits(precision).1);
    close(&format!("{name} db"), &grads[1].to_f32(&device).unwrap(), &db, limits(precision).1);
}

#[test]
fn products_agree_with_float64() {
    for precision in PRECISIONS {
        for dims in [
            [1, 1, 1, 1],
            [1, 32, 64, 32],
            [3, 5, 7, 11],
            [2, 17, 33, 65],
            [1, 100, 3, 130],
            [1, 7, 1000, 1],
            [0, 4, 4, 4],
        ] {
            matmul_case(dims, precision, 1);
        }
    }
}

fn linear_case([n, k, o]: [usize; 3], bias: bool, act: Activation, precision: Precision, seed: u64) {
    let (x, w) = (values(n * k, seed, precision), values(o * k, seed + 1, precision));
    let b = values(o, seed + 2, Precision::F32);
    let dy = values(n * o, seed + 3, precision);
    let layer = Arc::new(Linear::new(&host(), precision, &w, [o, k], bias.then_some(&b[..])).unwrap());
    let mut u = product(&wide(&x), &transposed(&wide(&w), 1, o, k), [1, n, k, o]);
    if bias {
        u.iter_mut().enumerate().for_each(|(i, u)| *u += f64::from(b[i % o]));
    }
    let relu = act == Activation::Relu;
    let d: Vec<f64> = wide(&dy).iter().zip(&u).map(|(&d, &u)| if relu && u <= 0.0 { 0.0 } else { d }).collect();
    let want: Vec<f64> = u.iter().map(|&u| if relu { u.max(0.0) } else { u }).collect();
    let want_dx = product(&d, &wide(&w), [1, n, o, k]);
    check(
        &format!("linear {o} {act:?}"),
        precision,
        (&[n, k], &x),
        &dy,
        |g, x| linear(g, x, &layer, act),
        &want,
        &want_dx,
    );
}

#[test]
fn fully_connected_layers_agree_with_float64() {
    for precision in PRECISIONS {
        for dims in [[1, 1, 1], [9, 64, 128], [5, 33, 17], [32, 2048, 10], [3, 7, 100], [0, 8, 8]] {
            for act in [Activation::None, Activation::Relu] {
                linear_case(dims, true, act, precision, 1);
                linear_case(dims, false, act, precision, 5);
            }
        }
    }
}

/// One chain of 49,152 additions would be 4e-6 off, and 70,000 are more than weights are packed for in one piece.
#[test]
fn sums_of_tens_of_thousands_are_as_exact_as_short_ones() {
    for (dims, act) in
        [([2, 49_152, 3], Activation::Relu), ([1, 70_000, 2], Activation::None), ([2, 3, 40_000], Activation::Relu)]
    {
        linear_case(dims, true, act, Precision::F32, 1);
    }
    linear_case([2, 70_000, 5], true, Activation::Relu, Precision::Bf16, 1);
}

/// A row of the result does not depend on how many others are computed with it.
#[test]
fn a_row_is_the_same_in_any_batch() {
    for precision in PRECISIONS {
        let device = host();
        let (k, o) = (300, 70);
        let layer = Arc::new(Linear::new(&device, precision, &values(o * k, 1, precision), [o, k], None).unwrap());
        let x = values(64 * k, 2, precision);
        let run = |n: usize| {
            let xt = upload(&device, &[n, k], precision, &x[..n * k]);
            linear(&Graph::inference(&device, precision), &xt, &layer, Activation::None)
                .unwrap()
                .to_f32(&device)
                .unwrap()
        };
        let all = run(64);
        for n in [1, 7, 33] {
            assert_eq!(run(n), all[..n * o], "{n} rows");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_product_agrees_with_float64(batch in 1usize..4, m in 1usize..40, k in 1usize..70, n in 1usize..70, seed in 0u64..1000, half: bool) {
        matmul_case([batch, m, k, n], if half { Precision::Bf16 } else { Precision::F32 }, seed);
    }

    #[test]
    fn any_layer_agrees_with_float64(n in 1usize..20, k in 1usize..90, o in 1usize..90, bias: bool, seed in 0u64..1000) {
        linear_case([n, k, o], bias, Activation::None, Precision::F32, seed);
    }
}

#[test]
fn disagreeing_shapes_are_refused() {
    let device = host();
    let g = Graph::inference(&device, Precision::F32);
    let t = |shape: &[usize]| upload(&device, shape, Precision::F32, &vec![0.0; shape.iter().product()]);
    for (a, b) in [(&[1usize, 2, 3][..], &[1usize, 4, 2][..]), (&[2, 2, 3], &[1, 3, 2]), (&[2, 3], &[3, 2])] {
        assert!(matches!(matmul(&g, &t(a), &t(b)), Err(Error::Shape { .. })), "{a:?} {b:?}");
    }
    assert!(Linear::new(&device, Precision::F32, &[0.0; 5], [2, 3], None).is_err());
    assert!(Linear::new(&device, Precision::F32, &[0.0; 6], [2, 3], Some(&[0.0; 3])).is_err());
    let layer = Arc::new(Linear::new(&device, Precision::F32, &[0.0; 6], [2, 3], None).unwrap());
    assert_eq!(
        linear(&g, &t(&[1, 4]), &layer, Activation::None).unwrap_err().to_string(),
        "linear: inputs: expected 3, got 4"
    );
}
