//! Noising, the one-shot estimate, joined channels, and the convolution of an enlarged image, against float64 arithmetic.

use std::sync::Arc;

use crate::common::{PRECISIONS, check, close, host, limits, upload, upload_f32, values, wide};
use proptest::prelude::*;
use rampart::Error;
use rampart::ops::conv::{Conv2d, Window, conv2d};
use rampart::ops::conv_upsampled::{UpsampledConv2d, conv2d_upsampled};
use rampart::ops::diffusion::{Estimate, Range, concat_channels, denoise, q_sample, to_precision};
use rampart::ops::resize::upsample_nearest;
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};

#[test]
fn noise_is_added_draw_by_draw() {
    let device = host();
    let (n, draws, shape) = (3, 2, [3usize, 5, 4, 3]);
    let d = 60;
    let x: Vec<f32> = values(n * d, 1, Precision::F32).iter().map(|v| 0.5 + 0.5 * v).collect();
    let (noise, dy) = (values(draws * n * d, 2, Precision::F32), values(draws * n * d, 3, Precision::F32));
    let coefficients: Vec<[f32; 2]> = (0..draws * n).map(|r| [0.9 - 0.1 * r as f32, 0.2 + 0.1 * r as f32]).collect();
    let g = recording(&device, Precision::F32);
    let xt = upload_f32(&device, &shape, &x);
    let y = q_sample(&g, &xt, &upload_f32(&device, &[draws * n, 5, 4, 3], &noise), &coefficients, Range::TO_SIGNED)
        .unwrap();
    let mut want_dx = vec![0.0; n * d];
    let want: Vec<f64> = (0..draws * n * d)
        .map(|i| {
            let (row, e) = (i / d, i % d);
            let [k, s] = coefficients[row].map(f64::from);
            want_dx[row % n * d + e] += 2.0 * k * f64::from(dy[i]);
            k * (2.0 * f64::from(x[row % n * d + e]) - 1.0) + s * f64::from(noise[i])
        })
        .collect();
    close("x_t", &y.to_f32(&device).unwrap(), &want, 2e-6);
    let dx = g.backward(&y, upload_f32(&device, y.shape(), &dy), &xt).unwrap();
    close("dx", &dx.to_f32(&device).unwrap(), &want_dx, 3e-6);
}

#[test]
fn the_estimate_is_clipped_and_so_is_its_gradient() {
    let device = host();
    let shape = [2usize, 3, 5, 3];
    let n: usize = shape.iter().product();
    for precision in PRECISIONS {
        for straight in [false, true] {
            let estimate = Estimate { x_t: 1.25, noise: 0.75, straight };
            let x_t: Vec<f32> = values(n, 4, precision).iter().map(|v| 1.5 * v).collect();
            let (noise, dy) = (values(n, 5, precision), values(n, 6, Precision::F32));
            let g = recording(&device, precision);
            let (xt, nt) = (upload_f32(&device, &shape, &x_t), upload(&device, &shape, precision, &noise));
            let y = denoise(&g, &xt, &nt, estimate, Range::TO_UNIT).unwrap();
            let raw: Vec<f64> =
                x_t.iter().zip(&noise).map(|(x, e)| 1.25 * f64::from(*x) - 0.75 * f64::from(*e)).collect();
            let clipped = raw.iter().filter(|v| v.abs() > 1.0).count();
            assert!(clipped > n / 10 && clipped < n, "the test has both kinds: {clipped} of {n}");
            let want: Vec<f64> = raw.iter().map(|v| 0.5 * v.clamp(-1.0, 1.0) + 0.5).collect();
            close("estimate", &y.to_f32(&device).unwrap(), &want, 2e-6);
            let w: Vec<f64> = raw
                .iter()
                .zip(&dy)
                .map(|(v, d)| if straight || v.abs() <= 1.0 { 0.5 * f64::from(*d) } else { 0.0 })
                .collect();
            let all = g.backward_all(&y, upload_f32(&device, &shape, &dy), &[&xt, &nt]).unwrap();
            let scaled = |f: f64| -> Vec<f64> { w.iter().map(|w| f * w).collect() };
            close("dx_t", &all[0].to_f32(&device).unwrap(), &scaled(1.25), 3e-6);
            close("dnoise", &all[1].to_f32(&device).unwrap(), &scaled(-0.75), limits(precision).1);
        }
    }
}

#[test]
fn channels_are_joined_and_their_gradients_split() {
    let device = host();
    for (a_c, b_c) in [(32, 32), (256, 128), (5, 19), (1, 3)] {
        for precision in PRECISIONS {
            let rows = 2 * 3 * 2;
            let (a, b) = (values(rows * a_c, 1, precision), values(rows * b_c, 2, precision));
            let dy = values(rows * (a_c + b_c), 3, precision);
            let g = recording(&device, precision);
            let (at, bt) =
                (upload(&device, &[2, 3, 2, a_c], precision, &a), upload(&device, &[2, 3, 2, b_c], precision, &b));
            let y = concat_channels(&g, &at, &bt).unwrap();
            let want: Vec<f32> = (0..rows)
                .flat_map(|r| a[r * a_c..(r + 1) * a_c].iter().chain(&b[r * b_c..(r + 1) * b_c]).copied())
                .collect();
            assert_eq!(y.to_f32(&device).unwrap(), want);
            let all = g.backward_all(&y, upload(&device, y.shape(), precision, &dy), &[&at, &bt]).unwrap();
            let columns = |first: usize, count: usize| -> Vec<f32> {
                (0..rows).flat_map(|r| dy[r * (a_c + b_c) + first..][..count].to_vec()).collect()
            };
            assert_eq!(all[0].to_f32(&device).unwrap(), columns(0, a_c));
            assert_eq!(all[1].to_f32(&device).unwrap(), columns(a_c, b_c));
        }
    }
}

/// Both precisions of a network see one float32 image.
#[test]
fn a_cast_returns_its_gradient_in_float32() {
    let device = host();
    let g = recording(&device, Precision::Bf16);
    let x = upload_f32(&device, &[1, 2, 2, 3], &values(12, 1, Precision::F32));
    let y = to_precision(&g, &x).unwrap();
    let dy = values(12, 2, Precision::Bf16);
    let dx = g.backward(&y, upload(&device, y.shape(), Precision::Bf16, &dy), &x).unwrap();
    assert_eq!(dx.dtype(), rampart::device::DType::F32);
    assert_eq!(dx.to_f32(&device).unwrap(), dy);
}

/// The same as enlarging first, up to rounding.
fn upsampled(n: usize, h: usize, w: usize, c: usize, o: usize) {
    let device = host();
    let (weight, bias) = (values(o * c * 9, 1, Precision::F32), values(o, 2, Precision::F32));
    let plain = Arc::new(
        Conv2d::new(&device, Precision::F32, &weight, [o, c, 3, 3], Some(&bias), Window::square(1, 1)).unwrap(),
    );
    let x = values(n * h * w * c, 3, Precision::Bf16);
    let dy = values(n * h * w * 4 * o, 4, Precision::Bf16);
    let g = recording(&device, Precision::F32);
    let xt = upload(&device, &[n, h, w, c], Precision::F32, &x);
    let y = conv2d(&g, &upsample_nearest(&g, &xt, 2).unwrap(), &plain, None, Activation::None).unwrap();
    let want = wide(&y.to_f32(&device).unwrap());
    let want_dx = g.backward(&y, upload(&device, y.shape(), Precision::F32, &dy), &xt).unwrap();
    let want_dx = wide(&want_dx.to_f32(&device).unwrap());
    for precision in PRECISIONS {
        let conv = Arc::new(UpsampledConv2d::new(&device, precision, &weight, [o, c], &bias).unwrap());
        let op = |g: &Graph, x: &_| conv2d_upsampled(g, x, &conv);
        check("upsampled", precision, (&[n, h, w, c], &x), &dy, op, &want, &want_dx);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_enlarged_image_need_not_exist(n in 1usize..3, h in 1usize..8, w in 1usize..8, c in 1usize..40, o in 1usize..70) {
        upsampled(n, h, w, c, o);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = host();
    let g = Graph::inference(&device, Precision::F32);
    let t = |shape: &[usize]| upload_f32(&device, shape, &vec![0.0; shape.iter().product()]);
    let (x, noise) = (t(&[2, 2, 2, 3]), t(&[3, 2, 2, 3]));
    assert!(matches!(q_sample(&g, &x, &noise, &[[1.0, 0.0]; 3], Range::SAME), Err(Error::Shape { .. })));
    let even = t(&[4, 2, 2, 3]);
    assert!(matches!(q_sample(&g, &x, &even, &[[1.0, 0.0]; 3], Range::SAME), Err(Error::Shape { .. })));
    assert!(matches!(concat_channels(&g, &x, &even), Err(Error::Shape { .. })));
    let estimate = Estimate { x_t: 1.0, noise: 1.0, straight: false };
    assert!(matches!(denoise(&g, &x, &even, estimate, Range::SAME), Err(Error::Shape { .. })));
    assert!(matches!(
        UpsampledConv2d::new(&device, Precision::F32, &[0.0; 9], [1, 2], &[0.0]),
        Err(Error::Shape { .. })
    ));
}
