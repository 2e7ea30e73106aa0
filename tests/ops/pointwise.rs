//! Elementwise ops and softmax against float64 arithmetic.

use std::sync::Arc;

use crate::common::{PRECISIONS, check, close, host, limits, round, upload, upload_f32, values, wide};
use rampart::Error;
use rampart::device::DType;
use rampart::ops::pointwise::{Affine, activation, add, affine, affine_activation, normalize_images, softmax};
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

const SHAPES: [&[usize]; 7] = [&[1], &[5], &[3, 16], &[2, 7, 5, 3], &[1, 3, 2, 33], &[4, 64], &[0, 3, 3, 8]];

/// Complementary error function by a continued fraction or, near 0, the series of erf. Source: Abramowitz & Stegun 7.1.5, 7.1.14.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 1.0 - 2.0 / std::f64::consts::PI.sqrt() * sum;
    }
    let mut f = 0.0;
    for k in (1..200).rev() {
        f = f64::from(k) / 2.0 / (x + f);
    }
    (-x * x).exp() / std::f64::consts::PI.sqrt() / (x + f)
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Value and slope.
fn truth(act: Activation, x: f64) -> (f64, f64) {
    match act {
        Activation::None => (x, 1.0),
        Activation::Relu => (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
        Activation::Silu => (x * sigmoid(x), sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)))),
        Activation::Gelu => {
            let below = 0.5 * erfc(-x / 2f64.sqrt());
            (x * below, below + x * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt())
        }
        Activation::GeluTanh => {
            // x/2 (1 + tanh u) = x sigmoid(2u), which does not cancel.
            let k = 2.0 * (2.0 / std::f64::consts::PI).sqrt();
            let p = sigmoid(k * (x + 0.044715 * x.powi(3)));
            (x * p, p + x * p * (1.0 - p) * k * (1.0 + 3.0 * 0.044715 * x * x))
        }
        Activation::Sigmoid => (sigmoid(x), sigmoid(x) * sigmoid(-x)),
        Activation::Tanh => (x.tanh(), 1.0 / x.cosh().powi(2)),
    }
}

const ALL: [Activation; 7] = [
    Activation::None,
    Activation::Relu,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Sigmoid,
    Activation::Tanh,
];

#[test]
fn activations_and_their_gradients_agree_with_float64() {
    for precision in PRECISIONS {
        for act in ALL {
            for (scale, shape) in SHAPES.iter().flat_map(|s| [1e-3, 1.0, 6.0, 30.0].map(|k| (k, *s))) {
                let n: usize = shape.iter().product();
                let x = round(values(n, 1, precision).into_iter().map(|v| v * scale), precision);
                let dy = values(n, 2, precision);
                let want: Vec<f64> = wide(&x).into_iter().map(|v| truth(act, v).0).collect();
                let want_dx: Vec<f64> = wide(&x).iter().zip(wide(&dy)).map(|(&v, d)| truth(act, v).1 * d).collect();
                // One value at -20 has a GELU slope that float32 cannot hold to 3e-6 of itself: its size is exp(-200).
                if n > 8 || scale < 2.0 {
                    check(
                        &format!("{act:?} x{scale}"),
                        precision,
                        (shape, &x),
                        &dy,
                        |g, x| activation(g, x, act),
                        &want,
                        &want_dx,
                    );
                }
            }
        }
    }
}

/// Every value by itself, not only the norm: small results must not drown in large ones.
#[test]
fn activations_are_accurate_value_by_value() {
    let device = host();
    let x: Vec<f32> = (-4000..=4000).map(|i| i as f32 * 0.005).collect();
    let xt = upload_f32(&device, &[x.len()], &x);
    let mut worst = Vec::new();
    for act in ALL {
        let y = activation(&Graph::inference(&device, Precision::F32), &xt, act).unwrap().to_f32(&device).unwrap();
        let err = x.iter().zip(&y).map(|(&x, &y)| {
            let want = truth(act, f64::from(x)).0;
            if want.abs() < 1e-30 { (f64::from(y) - want).abs() } else { ((f64::from(y) - want) / want).abs() }
        });
        let err = err.fold(0.0, f64::max);
        worst.push(format!("{act:?} {err:.1e}"));
        // An exponential of a rounded argument multiplies the rounding by the argument's size, here up to 200 and 700.
        let limit = match act {
            Activation::Gelu => 2e-5,
            Activation::GeluTanh => 1e-4,
            _ => 1e-6,
        };
        assert!(err <= limit, "{act:?}: {err:e}");
    }
    println!("worst relative errors: {}", worst.join(", "));
}

#[test]
fn activations_at_the_ends_of_the_range() {
    let device = host();
    let x = [f32::NEG_INFINITY, -1e30, -1e4, -0.0, 0.0, 1e4, 1e30, f32::INFINITY, f32::NAN];
    let run = |act: Activation| {
        let t = upload_f32(&device, &[x.len()], &x);
        activation(&Graph::inference(&device, Precision::F32), &t, act).unwrap().to_f32(&device).unwrap()
    };
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&run(Activation::Sigmoid)[..8]), bits(&[0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 1.0]));
    assert_eq!(run(Activation::Tanh)[..8], [-1.0, -1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    assert_eq!(run(Activation::Relu)[..8], [0.0, 0.0, 0.0, 0.0, 0.0, 1e4, 1e30, f32::INFINITY]);
    for act in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
        assert_eq!(run(act)[1..8], [0.0, 0.0, 0.0, 0.0, 1e4, 1e30, f32::INFINITY], "{act:?}");
    }
    for act in ALL {
        assert!(run(act)[8].is_nan(), "{act:?} of NaN");
    }
}

#[test]
fn an_addition_hands_its_gradient_to_both() {
    for precision in PRECISIONS {
        let device = host();
        let (a, b, dy) = (values(105, 1, precision), values(105, 2, precision), values(105, 3, precision));
        let (at, bt) = (upload(&device, &[5, 21], precision, &a), upload(&device, &[5, 21], precision, &b));
        let g = recording(&device, precision);
        let y = add(&g, &at, &bt).unwrap();
        let want: Vec<f64> = wide(&a).iter().zip(wide(&b)).map(|(a, b)| a + b).collect();
        close("add", &y.to_f32(&device).unwrap(), &want, limits(precision).0);
        let grads = g.backward_all(&y, upload(&device, &[5, 21], precision, &dy), &[&at, &bt]).unwrap();
        for dx in grads {
            assert_eq!(dx.to_f32(&device).unwrap(), dy);
        }
    }
}

#[test]
fn a_tensor_used_twice_gets_both_gradients_and_its_mask() {
    let device = host();
    let x = values(99, 4, Precision::F32);
    let dy = values(99, 5, Precision::F32);
    let xt = upload_f32(&device, &[9, 11], &x);
    let g = recording(&device, Precision::F32);
    // y = silu(r) + r with r = relu(x)
    let r = activation(&g, &xt, Activation::Relu).unwrap();
    let s = activation(&g, &r, Activation::Silu).unwrap();
    let y = add(&g, &s, &r).unwrap();
    let dx = g.backward(&y, upload_f32(&device, &[9, 11], &dy), &xt).unwrap();
    let want: Vec<f64> = wide(&x)
        .iter()
        .zip(wide(&dy))
        .map(|(&x, d)| if x > 0.0 { d * (1.0 + truth(Activation::Silu, x).1) } else { 0.0 })
        .collect();
    close("relu, silu and add", &dx.to_f32(&device).unwrap(), &want, 3e-6);
}

#[test]
fn affine_agrees_with_float64() {
    for precision in PRECISIONS {
        for shape in [&[2usize, 3, 5, 7][..], &[1, 1, 1, 1], &[4, 33], &[2, 2, 2, 64], &[0, 2, 2, 5]] {
            let (c, n): (usize, usize) = (shape[shape.len() - 1], shape.iter().product());
            let (x, dy) = (values(n, 1, precision), values(n, 2, precision));
            let (scale, bias) = (values(c, 3, Precision::F32), values(c, 4, Precision::F32));
            let constants = Arc::new(Affine::new(&host(), &scale, &bias).unwrap());
            let want: Vec<f64> = x
                .iter()
                .enumerate()
                .map(|(i, &x)| f64::from(x) * f64::from(scale[i % c]) + f64::from(bias[i % c]))
                .collect();
            let want_dx: Vec<f64> =
                dy.iter().enumerate().map(|(i, &d)| f64::from(d) * f64::from(scale[i % c])).collect();
            check("affine", precision, (shape, &x), &dy, |g, x| affine(g, x, &constants), &want, &want_dx);
        }
    }
}

#[test]
fn affine_with_an_activation_agrees_with_float64() {
    for (precision, act) in PRECISIONS.into_iter().flat_map(|p| [(p, Activation::Silu), (p, Activation::Gelu)]) {
        for shape in [&[2usize, 3, 5, 7][..], &[1, 1, 1, 1], &[4, 33], &[2, 2, 2, 64], &[0, 2, 2, 5]] {
            let (c, n): (usize, usize) = (shape[shape.len() - 1], shape.iter().product());
            let (x, dy) = (values(n, 1, precision), values(n, 2, precision));
            let (scale, bias) = (values(c, 3, Precision::F32), values(c, 4, Precision::F32));
            let constants = Arc::new(Affine::new(&host(), &scale, &bias).unwrap());
            let at = |i: usize| truth(act, f64::from(x[i]) * f64::from(scale[i % c]) + f64::from(bias[i % c]));
            let want: Vec<f64> = (0..n).map(|i| at(i).0).collect();
            let want_dx: Vec<f64> = (0..n).map(|i| f64::from(dy[i]) * at(i).1 * f64::from(scale[i % c])).collect();
            let op = |g: &Graph, x: &Tensor| affine_activation(g, x, &constants, act);
            check("affine_activation", precision, (shape, &x), &dy, op, &want, &want_dx);
        }
    }
}

#[test]
fn softmax_agrees_with_float64() {
    for precision in PRECISIONS {
        for (scale, shape) in [
            (1.0, &[3usize, 10][..]),
            (1.0, &[1, 1]),
            (4.0, &[2, 3, 5, 37]),
            (1.0, &[7, 1000]),
            (0.01, &[2, 16]),
            (30.0, &[5, 33]),
            (1.0, &[0, 10]),
        ] {
            let (c, n): (usize, usize) = (shape[shape.len() - 1], shape.iter().product());
            let x = round(values(n, 1, precision).into_iter().map(|v| v * scale + 3.0), precision);
            let dy = values(n, 2, precision);
            let (mut want, mut want_dx) = (Vec::new(), Vec::new());
            for (row, d) in wide(&x).chunks(c).zip(wide(&dy).chunks(c)) {
                let most = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let e: Vec<f64> = row.iter().map(|v| (v - most).exp()).collect();
                let total: f64 = e.iter().sum();
                let p: Vec<f64> = e.iter().map(|e| e / total).collect();
                let dot: f64 = p.iter().zip(d).map(|(p, d)| p * d).sum();
                want_dx.extend(p.iter().zip(d).map(|(p, d)| p * (d - dot)));
                want.extend(p);
            }
            if c == 1 {
                want_dx.fill(0.0);
            }
            check(&format!("softmax x{scale}"), precision, (shape, &x), &dy, softmax, &want, &want_dx);
        }
    }
}

#[test]
fn softmax_of_a_nan_is_nan() {
    let device = host();
    let x = upload_f32(&device, &[1, 3], &[1.0, f32::NAN, 2.0]);
    let y = softmax(&Graph::inference(&device, Precision::F32), &x).unwrap().to_f32(&device).unwrap();
    assert!(y.iter().all(|v| v.is_nan()), "{y:?}");
}

#[test]
fn normalising_images_agrees_with_float64_and_has_a_float32_gradient() {
    let (mean, std) = ([0.4914f32, 0.4822, 0.4465], [0.2470f32, 0.2435, 0.2616]);
    for precision in PRECISIONS {
        for shape in [[1usize, 1, 1, 3], [2, 5, 7, 3], [3, 32, 32, 3], [0, 4, 4, 3], [2, 97, 101, 3]] {
            let device = host();
            let n: usize = shape.iter().product();
            let x: Vec<f32> = values(n, 1, Precision::F32).into_iter().map(|v| v * 0.5 + 0.5).collect();
            let xt = upload_f32(&device, &shape, &x);
            let g = recording(&device, precision);
            let y = normalize_images(&g, &xt, &mean, &std).unwrap();
            assert_eq!(y.dtype(), precision.dtype());
            let want: Vec<f64> = x
                .iter()
                .enumerate()
                .map(|(i, &v)| (f64::from(v) - f64::from(mean[i % 3])) / f64::from(std[i % 3]))
                .collect();
            close("normalize", &y.to_f32(&device).unwrap(), &want, limits(precision).0);
            let dy = values(n, 2, precision);
            let dx = g.backward(&y, upload(&device, &shape, precision, &dy), &xt).unwrap();
            assert_eq!(dx.dtype(), DType::F32);
            let want: Vec<f64> = dy.iter().enumerate().map(|(i, &d)| f64::from(d) / f64::from(std[i % 3])).collect();
            close("normalize gradient", &dx.to_f32(&device).unwrap(), &want, 3e-6);
        }
    }
}

#[test]
fn wrong_shapes_are_refused() {
    let device = host();
    let g = Graph::inference(&device, Precision::F32);
    let x = upload_f32(&device, &[2, 3], &[0.0; 6]);
    let refused = |r: rampart::Result<Tensor>| assert!(matches!(r, Err(Error::Shape { .. })), "{r:?}");
    refused(add(&g, &x, &upload_f32(&device, &[3, 2], &[0.0; 6])));
    refused(affine(&g, &x, &Arc::new(Affine::new(&device, &[1.0; 2], &[0.0; 2]).unwrap())));
    assert!(Affine::new(&device, &[1.0; 2], &[0.0; 3]).is_err());
    refused(normalize_images(&g, &x, &[0.0; 3], &[1.0; 3]));
    refused(normalize_images(&g, &upload_f32(&device, &[1, 1, 2, 3], &[0.0; 6]), &[0.0; 4], &[1.0; 4]));
    let bf16 = upload(&device, &[1, 1, 2, 3], Precision::Bf16, &[0.0; 6]);
    refused(normalize_images(&g, &bf16, &[0.0; 3], &[1.0; 3]));
}
