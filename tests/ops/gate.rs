//! Gates per image and channel against float64 arithmetic.

use crate::common::{PRECISIONS, close, host, limits, upload, values, wide};
use rampart::Error;
use rampart::ops::gate::gate;
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};

/// Value and slope.
fn truth(act: Activation, x: f64) -> (f64, f64) {
    let p = 1.0 / (1.0 + (-x).exp());
    match act {
        Activation::None => (x, 1.0),
        Activation::Silu => (x * p, p * (1.0 + x * (1.0 - p))),
        other => unreachable!("{other:?} has no formula here"),
    }
}

#[test]
fn gates_and_both_gradients_agree_with_float64() {
    let shapes = [[2usize, 4, 4, 64], [1, 1, 1, 1], [3, 7, 5, 13], [2, 6, 6, 200], [1, 24, 24, 16], [0, 4, 4, 8]];
    for (precision, act) in PRECISIONS.into_iter().flat_map(|p| [(p, Activation::None), (p, Activation::Silu)]) {
        for shape @ [n, h, w, c] in shapes {
            let device = host();
            let (x, gates) = (values(n * h * w * c, 1, precision), values(n * c, 2, precision));
            let dy = values(x.len(), 3, precision);
            let at = |i: usize| i / (h * w * c) * c + i % c;
            let (x64, g64, dy64) = (wide(&x), wide(&gates), wide(&dy));
            let want: Vec<f64> = x64.iter().enumerate().map(|(i, &v)| truth(act, v).0 * g64[at(i)]).collect();
            let dx: Vec<f64> = x64.iter().enumerate().map(|(i, &v)| dy64[i] * g64[at(i)] * truth(act, v).1).collect();
            let mut dgates = vec![0.0; n * c];
            for (i, &v) in x64.iter().enumerate() {
                dgates[at(i)] += dy64[i] * truth(act, v).0;
            }

            let (xt, gt) = (upload(&device, &shape, precision, &x), upload(&device, &[n, c], precision, &gates));
            let g = recording(&device, precision);
            let y = gate(&g, &xt, &gt, act).unwrap();
            let (forward, gradient) = limits(precision);
            close(&format!("gate {precision:?} {act:?} {shape:?}"), &y.to_f32(&device).unwrap(), &want, forward);
            let grads = g.backward_all(&y, upload(&device, &shape, precision, &dy), &[&xt, &gt]).unwrap();
            close("gate dx", &grads[0].to_f32(&device).unwrap(), &dx, gradient);
            close("gate dg", &grads[1].to_f32(&device).unwrap(), &dgates, gradient);
        }
    }
}

#[test]
fn gates_of_other_channels_are_refused() {
    let device = host();
    let g = Graph::inference(&device, Precision::F32);
    let t = |shape: &[usize]| upload(&device, shape, Precision::F32, &vec![0.0; shape.iter().product()]);
    for other in [[2, 5], [1, 4]] {
        let err = gate(&g, &t(&[2, 3, 3, 4]), &t(&other), Activation::None).unwrap_err();
        assert!(matches!(err, Error::Shape { .. }), "{err}");
    }
}
