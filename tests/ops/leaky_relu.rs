//! Leaky ReLU against float64 arithmetic.

use crate::common::{PRECISIONS, check, close, host, upload, upload_f32, values, wide};
use rampart::Error;
use rampart::ops::leaky_relu::leaky_relu;
use rampart::ops::pointwise::{activation, add};
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};

/// The slopes of PyTorch's default, of a strong leak, of none, and two that turn the order of values round.
const SLOPES: [f32; 5] = [0.01, 0.3, 0.0, -0.5, 1.75];

#[test]
fn values_and_gradients_agree_with_float64() {
    for (precision, slope) in PRECISIONS.into_iter().flat_map(|p| SLOPES.map(|s| (p, s))) {
        for shape in
            [&[1usize][..], &[5], &[3, 16], &[2, 7, 5, 3], &[1, 3, 2, 33], &[4, 64], &[0, 3, 3, 8], &[130, 259]]
        {
            let n: usize = shape.iter().product();
            let (x, dy) = (values(n, 1, precision), values(n, 2, precision));
            let side = |v: f64| if v > 0.0 { 1.0 } else { f64::from(slope) };
            let want: Vec<f64> = wide(&x).into_iter().map(|v| side(v) * v).collect();
            let want_dx: Vec<f64> = wide(&x).into_iter().zip(wide(&dy)).map(|(v, d)| side(v) * d).collect();
            let what = format!("leaky_relu {slope}");
            check(&what, precision, (shape, &x), &dy, |g, x| leaky_relu(g, x, slope), &want, &want_dx);
        }
    }
}

#[test]
fn the_ends_of_the_range_and_the_kink() {
    let device = host();
    let x = [f32::NEG_INFINITY, -1e30, -1e-38, -0.0, 0.0, 1e-38, f32::INFINITY, f32::NAN];
    let xt = upload_f32(&device, &[2, 4], &x);
    let g = recording(&device, Precision::F32);
    let y = leaky_relu(&g, &xt, 0.5).unwrap();
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let got = y.to_f32(&device).unwrap();
    assert_eq!(bits(&got[..7]), bits(&[f32::NEG_INFINITY, -5e29, -5e-39, -0.0, 0.0, 1e-38, f32::INFINITY]));
    assert!(got[7].is_nan());
    let dx = g.backward(&y, upload_f32(&device, &[2, 4], &[3.0; 8]), &xt).unwrap();
    assert_eq!(dx.to_f32(&device).unwrap(), [1.5, 1.5, 1.5, 1.5, 1.5, 3.0, 3.0, 1.5], "0 and NaN take the leak");
}

/// Its input is made by a ReLU and read by another op: the kernel adds what came before and applies the mask.
#[test]
fn earlier_contributions_and_the_mask_of_the_input_are_fused() {
    for precision in PRECISIONS {
        let device = host();
        let (x, dy) = (values(7 * 19, 3, precision), values(7 * 19, 4, precision));
        let xt = upload(&device, &[7, 19], precision, &x);
        let g = recording(&device, precision);
        // y = r + leaky(r) with r = relu(x): twice the slope where x > 0, none elsewhere
        let r = activation(&g, &xt, Activation::Relu).unwrap();
        let y = add(&g, &leaky_relu(&g, &r, -0.25).unwrap(), &r).unwrap();
        let dx = g.backward(&y, upload(&device, &[7, 19], precision, &dy), &xt).unwrap();
        let want: Vec<f64> =
            wide(&x).into_iter().zip(wide(&dy)).map(|(v, d)| if v > 0.0 { 2.0 * d } else { 0.0 }).collect();
        close(&format!("{precision:?}"), &dx.to_f32(&device).unwrap(), &want, 3e-6);
    }
}

#[test]
fn a_slope_that_is_no_number_is_refused() {
    let device = host();
    let g = Graph::inference(&device, Precision::F32);
    let x = upload_f32(&device, &[1], &[1.0]);
    for slope in [f32::NAN, f32::INFINITY] {
        let refused = leaky_relu(&g, &x, slope);
        assert!(matches!(refused, Err(Error::Shape { .. })), "{refused:?}");
    }
}
