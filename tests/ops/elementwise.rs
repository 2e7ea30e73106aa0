//! Functions of single values and of two operands that broadcast, against float64 and against a sum over repeated axes.

use crate::common::{PRECISIONS, check, close, host, limits, upload, values, wide};
use rampart::ops::elementwise::{Binary, Function, Operand, binary, expand, unary};
use rampart::ops::recording;
use statrs::function::erf::erf;

/// The function and its derivative in float64, as PyTorch defines them.
fn truth(f: Function, x: f64) -> (f64, f64) {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match f {
        Function::Clip { low, high } => {
            let (low, high) = (f64::from(low), f64::from(high));
            (x.clamp(low, high), f64::from(u8::from(x > low && x < high)))
        }
        Function::HardSigmoid { slope, shift } => {
            let (slope, u) = (f64::from(slope), f64::from(slope) * x + f64::from(shift));
            (u.clamp(0.0, 1.0), if u > 0.0 && u < 1.0 { slope } else { 0.0 })
        }
        Function::HardSwish if x <= -3.0 => (0.0, 0.0),
        Function::HardSwish if x >= 3.0 => (x, 1.0),
        Function::HardSwish => (x * (x + 3.0) / 6.0, x / 3.0 + 0.5),
        Function::Elu { alpha } if x <= 0.0 => (f64::from(alpha) * x.exp_m1(), f64::from(alpha) * x.exp()),
        Function::Celu { alpha } if x <= 0.0 => {
            let a = f64::from(alpha);
            (a * (x / a).exp_m1(), (x / a).exp())
        }
        Function::Elu { .. } | Function::Celu { .. } => (x, 1.0),
        Function::Softplus => (x.max(0.0) + (-x.abs()).exp().ln_1p(), sigmoid(x)),
        Function::Mish => {
            let t = (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh();
            (x * t, t + x * (1.0 - t * t) * sigmoid(x))
        }
        Function::Erf => (erf(x), 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp()),
        Function::Exp => (x.exp(), x.exp()),
        Function::Log => (x.ln(), 1.0 / x),
        Function::Sqrt => (x.sqrt(), 0.5 / x.sqrt()),
        Function::Abs => (x.abs(), x.signum()),
        Function::Softsign => (x / (1.0 + x.abs()), 1.0 / (1.0 + x.abs()).powi(2)),
        Function::Power(p) => (x.powf(f64::from(p)), f64::from(p) * x.powf(f64::from(p) - 1.0)),
        Function::Threshold(a) => {
            if x > f64::from(a) {
                (x, 1.0)
            } else {
                (0.0, 0.0)
            }
        }
    }
}

#[test]
fn functions_agree_with_float64() {
    let anywhere = [
        Function::Clip { low: 0.0, high: 6.0 },
        Function::Clip { low: -0.5, high: f32::INFINITY },
        Function::HardSigmoid { slope: 1.0 / 6.0, shift: 0.5 },
        Function::HardSwish,
        Function::Elu { alpha: 1.3 },
        Function::Celu { alpha: 0.7 },
        Function::Softplus,
        Function::Mish,
        Function::Erf,
        Function::Exp,
        Function::Abs,
        Function::Softsign,
        Function::Power(2.0),
        Function::Power(3.0),
        Function::Power(4.0),
        Function::Threshold(0.75),
    ];
    let positive = [
        Function::Log,
        Function::Sqrt,
        Function::Power(-1.0),
        Function::Power(-0.5),
        Function::Power(1.7),
        Function::Power(-0.75),
    ];
    for precision in PRECISIONS {
        for (shape, seed) in [(vec![1, 1], 1), (vec![7, 3], 2), (vec![2, 5, 3, 37], 3)] {
            let n: usize = shape.iter().product();
            let (x, dy) = (values(n, seed, precision), values(n, seed + 10, precision));
            let wide_x: Vec<f32> = crate::common::round(x.iter().map(|v| v * 8.0), precision);
            let above: Vec<f32> = crate::common::round(x.iter().map(|v| 1.5 + v * 1.25), precision);
            for (all, x) in [(&anywhere[..], &wide_x), (&positive[..], &above)] {
                for &f in all {
                    let pairs: Vec<(f64, f64)> = x.iter().map(|&v| truth(f, f64::from(v))).collect();
                    let want: Vec<f64> = pairs.iter().map(|p| p.0).collect();
                    let want_dx: Vec<f64> = pairs.iter().zip(&dy).map(|(p, &d)| p.1 * f64::from(d)).collect();
                    check(&format!("{f:?}"), precision, (&shape, x), &dy, |g, x| unary(g, x, f), &want, &want_dx);
                }
            }
        }
    }
}

#[test]
fn two_operands_broadcast_and_their_gradients_are_summed() {
    let device = host();
    let cases: [(&[usize], &[usize]); 6] = [
        (&[3, 5], &[3, 5]),
        (&[2, 3, 4, 17], &[2, 1, 1, 17]),
        (&[2, 1, 5, 1], &[1, 3, 1, 7]),
        (&[1, 4, 1, 3, 1], &[2, 4, 3, 3, 2]),
        (&[1], &[9]),
        (&[2, 3, 1], &[2, 3, 33]),
    ];
    for precision in PRECISIONS {
        let (forward, gradient) = limits(precision);
        for (a_shape, b_shape) in cases {
            for f in [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Max, Binary::Min] {
                let shape: Vec<usize> = a_shape.iter().zip(b_shape).map(|(m, n)| *m.max(n)).collect();
                let count = |s: &[usize]| s.iter().product::<usize>();
                let a = values(count(a_shape), 1, precision);
                let b = crate::common::round(values(count(b_shape), 2, precision).iter().map(|v| v + 2.0), precision);
                let dy = values(count(&shape), 3, precision);
                let at = |own: &[usize], i: usize| {
                    let (mut rest, mut place, mut step) = (i, 0, 1);
                    for (&n, &all) in own.iter().zip(&shape).rev() {
                        place += if n == 1 { 0 } else { rest % all * step };
                        rest /= all;
                        step *= n;
                    }
                    place
                };
                let (mut y, mut da, mut db) = (vec![], vec![0.0; a.len()], vec![0.0; b.len()]);
                for (i, &d) in dy.iter().enumerate() {
                    let (p, q) = (at(a_shape, i), at(b_shape, i));
                    let (u, v, d) = (f64::from(a[p]), f64::from(b[q]), f64::from(d));
                    let larger =
                        |own: f64, other: f64| if own == other { 0.5 } else { f64::from(u8::from(own > other)) };
                    let (value, by_a, by_b) = match f {
                        Binary::Add => (u + v, 1.0, 1.0),
                        Binary::Sub => (u - v, 1.0, -1.0),
                        Binary::Mul => (u * v, v, u),
                        Binary::Div => (u / v, 1.0 / v, -u / (v * v)),
                        Binary::Max => (u.max(v), larger(u, v), larger(v, u)),
                        Binary::Min => (u.min(v), larger(v, u), larger(u, v)),
                    };
                    y.push(value);
                    da[p] += d * by_a;
                    db[q] += d * by_b;
                }
                let what = format!("{f:?} {a_shape:?} {b_shape:?} {precision:?}");
                let (ta, tb) = (upload(&device, a_shape, precision, &a), upload(&device, b_shape, precision, &b));
                let g = recording(&device, precision);
                let got = binary(&g, f, Operand::Value(&ta), Operand::Value(&tb)).unwrap();
                assert_eq!(got.shape(), shape, "{what}");
                close(&what, &got.to_f32(&device).unwrap(), &y, forward);
                let dyt = upload(&device, &shape, precision, &dy);
                let all = g.backward_all(&got, dyt, &[&ta, &tb]).unwrap();
                close(&format!("{what} da"), &all[0].to_f32(&device).unwrap(), &da, gradient);
                close(&format!("{what} db"), &all[1].to_f32(&device).unwrap(), &db, gradient);
            }
        }
    }
}

#[test]
fn equal_values_share_the_gradient_of_a_maximum() {
    let device = host();
    let x = upload(&device, &[1, 3], rampart::tape::Precision::F32, &[1.0, 2.0, 3.0]);
    let y = upload(&device, &[1, 3], rampart::tape::Precision::F32, &[1.0, 3.0, 2.0]);
    let g = recording(&device, rampart::tape::Precision::F32);
    let m = binary(&g, Binary::Max, Operand::Value(&x), Operand::Value(&y)).unwrap();
    let dy = upload(&device, &[1, 3], rampart::tape::Precision::F32, &[4.0, 5.0, 6.0]);
    let dx = g.backward(&m, dy, &x).unwrap().to_f32(&device).unwrap();
    assert_eq!(dx, [2.0, 0.0, 6.0]);
}

#[test]
fn repeated_axes_give_the_sum_back() {
    for precision in PRECISIONS {
        let (x, dy) = (values(6, 1, precision), values(6 * 20, 2, precision));
        let want: Vec<f64> = (0..120).map(|i| wide(&x)[i / 60 * 3 + i / 4 % 3]).collect();
        let mut want_dx = vec![0.0; 6];
        dy.iter().enumerate().for_each(|(i, &d)| want_dx[i / 60 * 3 + i / 4 % 3] += f64::from(d));
        let shape = [2, 5, 3, 4];
        check("expand", precision, (&[2, 1, 3, 1], &x), &dy, |g, x| expand(g, x, &shape), &want, &want_dx);
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let device = host();
    let g = recording(&device, rampart::tape::Precision::F32);
    let t = |shape: &[usize]| upload(&device, shape, rampart::tape::Precision::F32, &vec![0.0; shape.iter().product()]);
    for (a, b) in [(t(&[2, 3]), t(&[3, 3])), (t(&[2]), t(&[1, 2]))] {
        let error = binary(&g, Binary::Add, Operand::Value(&a), Operand::Value(&b)).unwrap_err().to_string();
        assert!(error.contains("binary: operands"), "{error}");
    }
    assert!(expand(&g, &t(&[2, 3]), &[2, 4]).is_err());
}
