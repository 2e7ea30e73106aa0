//! Pooling against float64 arithmetic: odd sizes, ties, padding and windows that reach beyond the image.

use crate::common::{PRECISIONS, check, close, host, limits, upload, upload_f32, values, wide};
use proptest::prelude::*;
use rampart::Error;
use rampart::ops::pool::{Pool, avg_pool2d, global_avg_pool, global_avg_pool_activated, max_pool2d};
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

/// Windows as PyTorch lays them: for every output the positions it covers, and the average's divisor.
struct Layout {
    p: usize,
    q: usize,
    /// per (p, q): (h, w) in scan order
    taps: Vec<Vec<(usize, usize)>>,
    counted: Vec<usize>,
}

fn layout(pool: Pool, h: usize, w: usize) -> Layout {
    let out = |i: usize, n: usize| {
        let space = n + 2 * pool.padding[i] - pool.kernel[i];
        let steps = if pool.ceil_mode { space.div_ceil(pool.stride[i]) } else { space / pool.stride[i] };
        // The last window has to begin inside the image or its left padding.
        if pool.ceil_mode && steps * pool.stride[i] >= n + pool.padding[i] { steps } else { steps + 1 }
    };
    let (p, q) = (out(0, h), out(1, w));
    let (mut taps, mut counted) = (Vec::new(), Vec::new());
    for i in 0..p {
        for j in 0..q {
            let (mut inside, mut padded) = (Vec::new(), 0);
            for r in 0..pool.kernel[0] {
                for s in 0..pool.kernel[1] {
                    let (y, x) = (i * pool.stride[0] + r, j * pool.stride[1] + s);
                    padded += usize::from(y < h + 2 * pool.padding[0] && x < w + 2 * pool.padding[1]);
                    let (y, x) = (y.wrapping_sub(pool.padding[0]), x.wrapping_sub(pool.padding[1]));
                    if y < h && x < w {
                        inside.push((y, x));
                    }
                }
            }
            taps.push(inside);
            counted.push(padded);
        }
    }
    Layout { p, q, taps, counted }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Max,
    Average { counted: bool },
}

/// Forward and gradient in float64.
fn truth(kind: Kind, pool: Pool, [n, h, w, c]: [usize; 4], x: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let l = layout(pool, h, w);
    let (mut y, mut dx) = (vec![0.0; n * l.p * l.q * c], vec![0.0; x.len()]);
    for i in 0..n {
        for (o, taps) in l.taps.iter().enumerate() {
            for k in 0..c {
                let at = |(h_, w_): (usize, usize)| ((i * h + h_) * w + w_) * c + k;
                let out = (i * l.p * l.q + o) * c + k;
                match kind {
                    Kind::Max => {
                        let mut best = taps[0];
                        for &t in taps {
                            if x[at(t)] > x[at(best)] {
                                best = t;
                            }
                        }
                        y[out] = x[at(best)];
                        dx[at(best)] += dy[out];
                    }
                    Kind::Average { counted } => {
                        let divisor = if counted { l.counted[o] } else { taps.len() } as f64;
                        y[out] = taps.iter().map(|&t| x[at(t)]).sum::<f64>() / divisor;
                        taps.iter().for_each(|&t| dx[at(t)] += dy[out] / divisor);
                    }
                }
            }
        }
    }
    (y, dx)
}

fn case(kind: Kind, pool: Pool, shape: [usize; 4], precision: Precision, seed: u64) {
    let [n, h, w, c] = shape;
    let l = layout(pool, h, w);
    let x = values(n * h * w * c, seed, precision);
    let dy = values(n * l.p * l.q * c, seed + 1, precision);
    let (want, want_dx) = truth(kind, pool, shape, &wide(&x), &wide(&dy));
    check(
        &format!("{kind:?} {pool:?}"),
        precision,
        (&shape, &x),
        &dy,
        |g, x| match kind {
            Kind::Max => max_pool2d(g, x, pool),
            Kind::Average { counted } => avg_pool2d(g, x, pool, counted),
        },
        &want,
        &want_dx,
    );
}

const KINDS: [Kind; 3] = [Kind::Max, Kind::Average { counted: true }, Kind::Average { counted: false }];

fn pool(kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2], ceil_mode: bool) -> Pool {
    Pool { kernel, stride, padding, ceil_mode }
}

#[test]
fn windows_agree_with_float64() {
    for precision in PRECISIONS {
        for kind in KINDS {
            for (window, shape) in [
                (pool([3, 3], [2, 2], [1, 1], false), [2, 13, 11, 64]),
                (pool([2, 2], [2, 2], [0, 0], false), [2, 6, 9, 7]),
                (pool([3, 2], [1, 3], [1, 0], false), [1, 7, 8, 17]),
                (pool([3, 3], [2, 2], [1, 1], true), [2, 8, 6, 5]),
                (pool([2, 2], [3, 3], [1, 1], true), [1, 5, 7, 3]),
                (pool([1, 1], [1, 1], [0, 0], false), [1, 1, 1, 1]),
                (pool([5, 7], [1, 1], [2, 3], false), [1, 5, 3, 33]),
                (pool([3, 3], [2, 2], [1, 1], false), [0, 8, 8, 16]),
            ] {
                case(kind, window, shape, precision, 1);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_window_agrees_with_float64(
        kernel in (1usize..5, 1usize..5), stride in (1usize..4, 1usize..4), half in (0usize..3, 0usize..3), ceil: bool,
        size in (1usize..9, 1usize..9), n in 1usize..3, c in 1usize..35, which in 0usize..3, seed in 0u64..1000,
    ) {
        let padding = [half.0.min(kernel.0 / 2), half.1.min(kernel.1 / 2)];
        let shape = [n, size.0.max(kernel.0), size.1.max(kernel.1), c];
        case(KINDS[which], pool([kernel.0, kernel.1], [stride.0, stride.1], padding, ceil), shape, Precision::F32, seed);
    }
}

#[test]
fn the_first_of_equal_values_gets_the_gradient() {
    let device = host();
    let x = upload_f32(&device, &[1, 2, 4, 1], &[1.0, 2.0, 5.0, 5.0, 2.0, 2.0, 5.0, 5.0]);
    let g = recording(&device, Precision::F32);
    let y = max_pool2d(&g, &x, pool([2, 2], [2, 2], [0, 0], false)).unwrap();
    assert_eq!(y.to_f32(&device).unwrap(), [2.0, 5.0]);
    let dx = g.backward(&y, upload_f32(&device, &[1, 1, 2, 1], &[10.0, 20.0]), &x).unwrap();
    assert_eq!(dx.to_f32(&device).unwrap(), [0.0, 10.0, 20.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn overlapping_windows_add_up_and_a_relu_mask_is_applied() {
    let device = host();
    let x = upload_f32(&device, &[1, 1, 5, 1], &[0.0, 1.0, 3.0, 2.0, -1.0]);
    let g = recording(&device, Precision::F32);
    let r = rampart::ops::pointwise::activation(&g, &x, rampart::ops::Activation::Relu).unwrap();
    let y = max_pool2d(&g, &r, pool([1, 3], [1, 1], [0, 1], false)).unwrap();
    assert_eq!(y.to_f32(&device).unwrap(), [1.0, 3.0, 3.0, 3.0, 2.0]);
    let dx = g.backward(&y, upload_f32(&device, &[1, 1, 5, 1], &[1.0, 2.0, 4.0, 8.0, 16.0]), &x).unwrap();
    assert_eq!(dx.to_f32(&device).unwrap(), [0.0, 1.0, 14.0, 16.0, 0.0]);
}

#[test]
fn padding_is_below_every_number_and_a_nan_above() {
    let device = host();
    let run = |x: &[f32]| {
        let t = upload_f32(&device, &[1, 1, x.len(), 1], x);
        let g = Graph::inference(&device, Precision::F32);
        max_pool2d(&g, &t, pool([1, 3], [1, 1], [0, 1], false)).unwrap().to_f32(&device).unwrap()
    };
    assert_eq!(run(&[-5.0, -7.0, -9.0]), [-5.0, -5.0, -7.0]);
    assert_eq!(run(&[f32::NEG_INFINITY; 2]), [f32::NEG_INFINITY; 2]);
    let y = run(&[1.0, f32::NAN, 9.0, 2.0, 3.0]);
    assert!(y[..3].iter().all(|v| v.is_nan()) && y[3..] == [9.0, 3.0], "{y:?}");
}

#[test]
fn global_means_agree_with_float64() {
    for precision in PRECISIONS {
        for shape in [[2usize, 4, 4, 64], [1, 1, 1, 1], [3, 7, 5, 13], [2, 8, 8, 100], [1, 224, 112, 3], [0, 4, 4, 8]] {
            let [n, h, w, c] = shape;
            let (x, dy) = (values(n * h * w * c, 1, precision), values(n * c, 2, precision));
            let mut want = vec![0.0; n * c];
            for (i, v) in wide(&x).into_iter().enumerate() {
                want[i / (h * w * c) * c + i % c] += v / (h * w) as f64;
            }
            let want_dx: Vec<f64> =
                (0..x.len()).map(|i| f64::from(dy[i / (h * w * c) * c + i % c]) / (h * w) as f64).collect();
            check("global_avg_pool", precision, (&shape, &x), &dy, global_avg_pool, &want, &want_dx);

            let silu = |v: f64| v / (1.0 + (-v).exp());
            let slope = |v: f64| (1.0 + v * (1.0 - 1.0 / (1.0 + (-v).exp()))) / (1.0 + (-v).exp());
            let mut want = vec![0.0; n * c];
            for (i, v) in wide(&x).into_iter().enumerate() {
                want[i / (h * w * c) * c + i % c] += silu(v) / (h * w) as f64;
            }
            let want_dx: Vec<f64> = want_dx.iter().zip(wide(&x)).map(|(d, v)| d * slope(v)).collect();
            let op = |g: &Graph, x: &Tensor| global_avg_pool_activated(g, x, Activation::Silu);
            check("global_avg_pool_activated", precision, (&shape, &x), &dy, op, &want, &want_dx);
        }
    }
}

/// A mean of many values far from 0 does not drift.
#[test]
fn a_long_mean_keeps_its_accuracy() {
    let device = host();
    let x: Vec<f32> = values(224 * 224 * 2, 3, Precision::F32).into_iter().map(|v| v + 100.0).collect();
    let y = global_avg_pool(
        &Graph::inference(&device, Precision::F32),
        &upload(&device, &[1, 224, 224, 2], Precision::F32, &x),
    );
    let want: Vec<f64> = (0..2).map(|k| wide(&x).iter().skip(k).step_by(2).sum::<f64>() / (224.0 * 224.0)).collect();
    close("mean", &y.unwrap().to_f32(&device).unwrap(), &want, limits(Precision::F32).0);
}

#[test]
fn impossible_windows_are_refused() {
    let device = host();
    let g = Graph::inference(&device, Precision::F32);
    let x = upload_f32(&device, &[1, 2, 3, 1], &[0.0; 6]);
    for bad in [
        pool([3, 3], [1, 1], [0, 0], false),
        pool([0, 1], [1, 1], [0, 0], false),
        pool([1, 1], [0, 1], [0, 0], false),
        pool([2, 2], [1, 1], [2, 0], false),
    ] {
        assert!(matches!(max_pool2d(&g, &x, bad), Err(Error::Shape { .. })), "{bad:?}");
        assert!(matches!(avg_pool2d(&g, &x, bad, true), Err(Error::Shape { .. })), "{bad:?}");
    }
    let large = upload_f32(&device, &[1, 17, 17, 1], &[0.0; 289]);
    let err = max_pool2d(&g, &large, pool([17, 17], [1, 1], [0, 0], false)).unwrap_err();
    assert_eq!(err.to_string(), "max_pool2d: taps: expected at most 256, got 289");
    assert!(global_avg_pool(&g, &upload_f32(&device, &[1, 0, 3, 1], &[])).is_err());
    assert!(global_avg_pool(&g, &upload_f32(&device, &[1, 3], &[0.0; 3])).is_err());
}
