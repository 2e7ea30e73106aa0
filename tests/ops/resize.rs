//! Resizing: known answers, PyTorch's float32 weights, and the adjoint identity of its gradient.

use std::sync::Arc;

use crate::common::{PRECISIONS, close, dot, host, limits, upload, values, wide};
use rampart::ops::recording;
use rampart::ops::resize::{Filter, Resize, resize, upsample_nearest};
use rampart::tape::{Graph, Precision};

/// The weights of one output pixel in float64, as PIL defines them. Keys 1981 with a = -1/2.
fn antialiased(n_in: usize, n_out: usize, i: usize, filter: Filter) -> Vec<f64> {
    let scale = n_in as f64 / n_out as f64;
    let width = scale.max(1.0);
    let centre = (i as f64 + 0.5) * scale;
    let kernel = |x: f64| {
        let x = x.abs();
        match filter {
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Filter::Bicubic => 0.0,
        }
    };
    let w: Vec<f64> = (0..n_in).map(|j| kernel((j as f64 - centre + 0.5) / width)).collect();
    let total: f64 = w.iter().sum();
    w.into_iter().map(|w| w / total).collect()
}

/// Without antialias: a = -3/4, replicated borders.
fn pointwise(n_in: usize, n_out: usize, i: usize, filter: Filter) -> Vec<f64> {
    let mut source = (i as f64 + 0.5) * n_in as f64 / n_out as f64 - 0.5;
    let mut w = vec![0.0; n_in];
    let mut put = |j: f64, v: f64| w[(j.max(0.0) as usize).min(n_in - 1)] += v;
    match filter {
        Filter::Bilinear => {
            source = source.max(0.0);
            let t = source - source.floor();
            put(source.floor(), 1.0 - t);
            put(source.floor() + 1.0, t);
        }
        Filter::Bicubic => {
            for k in -1..3 {
                let at = source.floor() + f64::from(k);
                let x = (source - at).abs();
                let a = -0.75;
                put(
                    at,
                    if x < 1.0 {
                        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
                    } else {
                        (((x - 5.0) * x + 8.0) * x - 4.0) * a
                    },
                );
            }
        }
    }
    w
}

#[test]
fn resized_images_agree_with_float64_and_the_gradient_is_the_transpose() {
    let device = host();
    for precision in PRECISIONS {
        for filter in [Filter::Bilinear, Filter::Bicubic] {
            for antialias in [false, true] {
                for (shape, to) in [
                    ([2usize, 8, 8, 3], [5usize, 12usize]),
                    ([1, 17, 13, 5], [5, 4]),
                    ([1, 1, 1, 1], [3, 2]),
                    ([2, 5, 7, 16], [5, 7]),
                    ([1, 4, 6, 33], [1, 1]),
                    ([0, 4, 4, 3], [8, 8]),
                ] {
                    let [n, h, w, c] = shape;
                    let name = format!("{filter:?} {antialias} {shape:?} to {to:?}");
                    let x = values(n * h * w * c, 1, precision);
                    let weights = |n_in, n_out, i| {
                        if antialias { antialiased(n_in, n_out, i, filter) } else { pointwise(n_in, n_out, i, filter) }
                    };
                    let mut want = Vec::new();
                    for b in 0..n {
                        for i in 0..to[0] {
                            for j in 0..to[1] {
                                let (wv, wh) = (weights(h, to[0], i), weights(w, to[1], j));
                                want.extend((0..c).map(|k| {
                                    let mut sum = 0.0;
                                    for r in 0..h {
                                        for s in 0..w {
                                            sum += wv[r] * wh[s] * f64::from(x[((b * h + r) * w + s) * c + k]);
                                        }
                                    }
                                    sum
                                }));
                            }
                        }
                    }
                    let tables = Arc::new(Resize::new(&device, [h, w], to, filter, antialias).unwrap());
                    let xt = upload(&device, &shape, precision, &x);
                    let g = recording(&device, precision);
                    let y = resize(&g, &xt, &tables).unwrap();
                    let got = y.to_f32(&device).unwrap();
                    close(&name, &got, &want, limits(precision).0);
                    let dy = values(got.len(), 2, precision);
                    let dx = g.backward(&y, upload(&device, y.shape(), precision, &dy), &xt).unwrap();
                    let (dx, dy) = (wide(&dx.to_f32(&device).unwrap()), wide(&dy));
                    let (left, right) = (dot(&want, &dy), dot(&wide(&x), &dx));
                    let scale = dot(&want, &want).sqrt() * dot(&dy, &dy).sqrt();
                    assert!((left - right).abs() <= limits(precision).1 * scale + 1e-30, "{name}: {left} {right}");
                }
            }
        }
    }
}

#[test]
fn nearest_upsampling_repeats_pixels_and_sums_gradients() {
    let device = host();
    for precision in PRECISIONS {
        for (shape, scale) in
            [([2usize, 3, 5, 7], 2usize), ([1, 2, 1, 16], 3), ([1, 1, 1, 1], 1), ([1, 2, 3, 33], 4), ([0, 2, 2, 4], 2)]
        {
            let [n, h, w, c] = shape;
            let x = values(n * h * w * c, 1, precision);
            let xt = upload(&device, &shape, precision, &x);
            let g = recording(&device, precision);
            let y = upsample_nearest(&g, &xt, scale).unwrap();
            assert_eq!(y.shape(), [n, h * scale, w * scale, c]);
            let from = |i: usize| {
                let (k, v, r, b) =
                    (i % c, i / c % (w * scale), i / c / (w * scale) % (h * scale), i / c / (w * scale) / (h * scale));
                ((b * h + r / scale) * w + v / scale) * c + k
            };
            let want: Vec<f32> = (0..y.len()).map(|i| x[from(i)]).collect();
            assert_eq!(y.to_f32(&device).unwrap(), want);
            let dy = values(y.len(), 2, precision);
            let mut want = vec![0.0; x.len()];
            dy.iter().enumerate().for_each(|(i, &d)| want[from(i)] += f64::from(d));
            let dx = g.backward(&y, upload(&device, y.shape(), precision, &dy), &xt).unwrap();
            close("upsample_nearest gradient", &dx.to_f32(&device).unwrap(), &want, limits(precision).1);
        }
    }
}

#[test]
fn wrong_sizes_are_refused() {
    let device = host();
    let g = Graph::inference(&device, Precision::F32);
    assert!(Resize::new(&device, [4, 4], [0, 4], Filter::Bilinear, true).is_err());
    let tables = Arc::new(Resize::new(&device, [4, 4], [8, 8], Filter::Bilinear, true).unwrap());
    let x = upload(&device, &[1, 4, 5, 1], Precision::F32, &[0.0; 20]);
    assert_eq!(resize(&g, &x, &tables).unwrap_err().to_string(), "resize: input size: expected [4, 4], got [4, 5]");
    assert!(upsample_nearest(&g, &x, 0).is_err());
}
