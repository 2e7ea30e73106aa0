//! Convolution against a direct sum in float64, and the adjoint identity of its gradient.

use std::sync::Arc;

use rampart::device::Device;
use rampart::ops::Activation;
use rampart::ops::conv::{Conv2d, Window, conv2d};
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

/// A deterministic sequence in [-1, 1).
fn values(n: usize, seed: u64) -> Vec<f32> {
    (0..n as u64)
        .map(|i| {
            let mut z =
                (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(i.wrapping_mul(0xbf58_476d_1ce4_e5b9));
            z ^= z >> 31;
            z = z.wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 29;
            (z >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

fn direct(
    x: &[f32],
    [n, h, w, c]: [usize; 4],
    wt: &[f32],
    [o, cg, r, s]: [usize; 4],
    win: Window,
) -> (Vec<f64>, [usize; 4]) {
    let (p, q) = (win.out(0, h, r).unwrap(), win.out(1, w, s).unwrap());
    let og = o / win.groups;
    let mut y = vec![0f64; n * p * q * o];
    for i in 0..n {
        for a in 0..p {
            for b in 0..q {
                for k in 0..o {
                    let mut sum = 0f64;
                    for u in 0..r {
                        for v in 0..s {
                            let hh = (a * win.stride[0] + u * win.dilation[0]) as i64 - win.padding[0] as i64;
                            let ww = (b * win.stride[1] + v * win.dilation[1]) as i64 - win.padding[2] as i64;
                            if hh < 0 || ww < 0 || hh >= h as i64 || ww >= w as i64 {
                                continue;
                            }
                            for j in 0..cg {
                                let xi = ((i * h + hh as usize) * w + ww as usize) * c + k / og * cg + j;
                                sum += f64::from(x[xi]) * f64::from(wt[((k * cg + j) * r + u) * s + v]);
                            }
                        }
                    }
                    y[((i * p + a) * q + b) * o + k] = sum;
                }
            }
        }
    }
    (y, [n, p, q, o])
}

fn relative(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let d: f64 = got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).powi(2)).sum();
    (d / want.iter().map(|w| w * w).sum::<f64>()).sqrt()
}

fn check(xs: [usize; 4], ws: [usize; 4], window: Window, precision: Precision, limit: f64) {
    let device = Device::host().unwrap();
    let round = |v: Vec<f32>| -> Vec<f32> {
        if precision == Precision::Bf16 { v.into_iter().map(|x| half::bf16::from_f32(x).to_f32()).collect() } else { v }
    };
    let (x, w) = (round(values(xs.iter().product(), 1)), round(values(ws.iter().product(), 2)));
    let (want, ys) = direct(&x, xs, &w, ws, window);
    let conv = Arc::new(Conv2d::new(&device, precision, &w, ws, None, window).unwrap());
    let g = Graph::recording(&device, precision);
    let xt = Tensor::from_f32(&device, &xs, precision.dtype(), &x).unwrap();
    let y = conv2d(&g, &xt, &conv, None, Activation::None).unwrap();
    assert_eq!(y.shape(), ys);
    let err = relative(&y.to_f32(&device).unwrap(), &want);
    assert!(err <= limit, "forward {xs:?} {ws:?} {window:?}: {err:e}");
    // <conv x, dy> = <x, gradient of dy>
    let dy = round(values(want.len(), 3));
    let dyt = Tensor::from_f32(&device, &ys, precision.dtype(), &dy).unwrap();
    let dx = g.backward(&y, dyt, &xt).unwrap().to_f32(&device).unwrap();
    let left: f64 = want.iter().zip(&dy).map(|(a, &b)| a * f64::from(b)).sum();
    let right: f64 = x.iter().zip(&dx).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    let scale =
        want.iter().map(|w| w * w).sum::<f64>().sqrt() * dy.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
    assert!((left - right).abs() <= limit * scale, "adjoint {xs:?} {ws:?} {window:?}: {left} {right}");
}

const CASES: &[([usize; 4], [usize; 4], Window)] = &[
    ([2, 5, 7, 3], [5, 3, 3, 3], Window { stride: [1, 1], padding: [1; 4], dilation: [1, 1], groups: 1 }),
    ([2, 9, 8, 64], [64, 64, 3, 3], Window { stride: [2, 2], padding: [1; 4], dilation: [1, 1], groups: 1 }),
    ([1, 13, 11, 6], [10, 3, 5, 3], Window { stride: [2, 3], padding: [3, 1, 2, 0], dilation: [2, 3], groups: 2 }),
    ([3, 8, 8, 17], [33, 17, 1, 1], Window { stride: [2, 2], padding: [0; 4], dilation: [1, 1], groups: 1 }),
    ([1, 12, 10, 3], [64, 3, 7, 7], Window { stride: [2, 2], padding: [3; 4], dilation: [1, 1], groups: 1 }),
    ([2, 6, 6, 8], [8, 1, 3, 3], Window { stride: [1, 1], padding: [1; 4], dilation: [1, 1], groups: 8 }),
    ([2, 9, 7, 19], [19, 1, 3, 5], Window { stride: [2, 3], padding: [1, 2, 0, 3], dilation: [2, 1], groups: 19 }),
    ([1, 6, 5, 8], [16, 1, 3, 3], Window { stride: [2, 1], padding: [1; 4], dilation: [1, 1], groups: 8 }),
    ([1, 1, 1, 1], [1, 1, 1, 1], Window { stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 }),
    ([5, 4, 4, 128], [100, 128, 3, 3], Window { stride: [1, 1], padding: [1; 4], dilation: [1, 1], groups: 1 }),
];

#[test]
fn float32_agrees_with_a_direct_sum() {
    for &(x, w, window) in CASES {
        check(x, w, window, Precision::F32, 2e-6);
    }
}

#[test]
fn bfloat16_agrees_with_a_direct_sum_of_rounded_values() {
    for &(x, w, window) in CASES {
        check(x, w, window, Precision::Bf16, 1e-2);
    }
}
