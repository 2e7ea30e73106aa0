//! CBAM's gates against float64 arithmetic written plainly: both gates, each alone, residual, ReLU, ties.

use std::sync::Arc;

use crate::common::{
    PRECISIONS, check, close, directional, dot, host, limits, round, upload, upload_f32, values, wide,
};
use rampart::Error;
use rampart::ops::cbam::{Cbam, cbam};
use rampart::ops::pointwise::activation;
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Which {
    Both,
    Channel,
    Spatial,
}

struct Gates {
    which: Which,
    c: usize,
    hidden: usize,
    side: usize,
    w1: Vec<f32>,
    b1: Vec<f32>,
    w3: Vec<f32>,
    b3: Vec<f32>,
    kernel: Vec<f32>,
    bn: (f32, f32),
}

impl Gates {
    fn new(which: Which, c: usize, hidden: usize, side: usize) -> Self {
        let v = |n: usize, seed: u64, scale: f32| -> Vec<f32> {
            values(n, seed, Precision::F32).into_iter().map(|v| scale * v).collect()
        };
        Gates {
            which,
            c,
            hidden,
            side,
            w1: v(hidden * c, 11, (3.0 / c as f32).sqrt() * 2.0),
            b1: v(hidden, 12, 0.2),
            w3: v(hidden * c, 13, (3.0 / hidden as f32).sqrt()),
            b3: v(c, 14, 0.2),
            kernel: v(2 * side * side, 15, 0.4),
            bn: (0.9, -0.1),
        }
    }

    fn upload(&self) -> Arc<Cbam> {
        let (d, mlp) = (&host(), ((&self.w1[..], &self.b1[..]), (&self.w3[..], &self.b3[..])));
        Arc::new(
            match self.which {
                Which::Both => Cbam::new(d, mlp.0, mlp.1, &self.kernel, self.bn),
                Which::Channel => Cbam::channel_gate(d, mlp.0, mlp.1),
                Which::Spatial => Cbam::spatial_gate(d, &self.kernel, self.bn),
            }
            .unwrap(),
        )
    }

    /// `x * g * s` of one image `(pixels, C)`.
    fn forward(&self, x: &[f64], h: usize, w: usize) -> Vec<f64> {
        let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
        let (c, pixels) = (self.c, h * w);
        let mut y = x.to_vec();
        if self.which != Which::Spatial {
            let mean: Vec<f64> =
                (0..c).map(|k| (0..pixels).map(|p| x[p * c + k]).sum::<f64>() / pixels as f64).collect();
            let max: Vec<f64> =
                (0..c).map(|k| (0..pixels).map(|p| x[p * c + k]).fold(f64::NEG_INFINITY, f64::max)).collect();
            let mlp = |v: &[f64]| -> Vec<f64> {
                let hidden: Vec<f64> = (0..self.hidden)
                    .map(|j| {
                        ((0..c).map(|k| f64::from(self.w1[j * c + k]) * v[k]).sum::<f64>() + f64::from(self.b1[j]))
                            .max(0.0)
                    })
                    .collect();
                (0..c)
                    .map(|k| {
                        (0..self.hidden).map(|j| f64::from(self.w3[k * self.hidden + j]) * hidden[j]).sum::<f64>()
                            + f64::from(self.b3[k])
                    })
                    .collect()
            };
            let (a, b) = (mlp(&mean), mlp(&max));
            y.iter_mut().enumerate().for_each(|(i, y)| *y *= sigmoid(a[i % c] + b[i % c]));
        }
        if self.which != Which::Channel {
            let most: Vec<f64> = y.chunks(c).map(|row| row.iter().copied().fold(f64::NEG_INFINITY, f64::max)).collect();
            let mean: Vec<f64> = y.chunks(c).map(|row| row.iter().sum::<f64>() / c as f64).collect();
            let pad = self.side / 2;
            for p in 0..pixels {
                let mut sum = 0.0;
                for (plane, map) in [&most, &mean].into_iter().enumerate() {
                    for i in 0..self.side {
                        for j in 0..self.side {
                            let (r, q) = ((p / w + i).wrapping_sub(pad), (p % w + j).wrapping_sub(pad));
                            if r < h && q < w {
                                sum += f64::from(self.kernel[(plane * self.side + i) * self.side + j]) * map[r * w + q];
                            }
                        }
                    }
                }
                let s = sigmoid(f64::from(self.bn.0) * sum + f64::from(self.bn.1));
                y[p * c..(p + 1) * c].iter_mut().for_each(|v| *v *= s);
            }
        }
        y
    }
}

/// N, H, W, C, hidden, side of the spatial kernel
const CASES: [[usize; 6]; 9] = [
    [2, 5, 7, 13, 3, 7],
    [1, 1, 1, 1, 1, 7],
    [3, 4, 4, 64, 4, 7],
    [1, 9, 2, 17, 2, 3],
    [2, 3, 5, 100, 6, 5],
    [1, 1, 6, 33, 1, 1],
    [1, 16, 16, 32, 2, 7],
    [2, 2, 2, 130, 8, 7],
    [0, 4, 4, 16, 1, 7],
];

#[test]
fn gates_residual_and_relu_agree_with_float64() {
    for precision in PRECISIONS {
        for which in [Which::Both, Which::Channel, Which::Spatial] {
            for [n, h, w, c, hidden, side] in CASES {
                for (with_residual, act) in
                    [(false, Activation::None), (true, Activation::Relu), (true, Activation::None)]
                {
                    let gates = Gates::new(which, c, hidden, side);
                    let (device, uploaded) = (host(), gates.upload());
                    let shape = [n, h, w, c];
                    let (x, r) = (values(n * h * w * c, 1, precision), values(n * h * w * c, 2, precision));
                    let (xt, rt) = (upload(&device, &shape, precision, &x), upload(&device, &shape, precision, &r));
                    let residual = with_residual.then_some(&rt);
                    let name = format!("{which:?} {precision:?} {shape:?} {side} {act:?}");

                    let image = h * w * c;
                    let mut want: Vec<f64> = wide(&x).chunks(image).flat_map(|x| gates.forward(x, h, w)).collect();
                    if with_residual {
                        want.iter_mut().zip(&r).for_each(|(y, &r)| *y += f64::from(r));
                    }
                    let pre = want.clone();
                    if act == Activation::Relu {
                        want.iter_mut().for_each(|y| *y = y.max(0.0));
                    }
                    let plain = cbam(&Graph::inference(&device, precision), &xt, &uploaded, residual, act).unwrap();
                    let plain = plain.to_f32(&device).unwrap();
                    close(&name, &plain, &want, limits(precision).0);

                    let g = recording(&device, precision);
                    let y = cbam(&g, &xt, &uploaded, residual, act).unwrap();
                    assert_eq!(y.to_f32(&device).unwrap(), plain, "{name}: recording changes nothing");
                    let dy = values(n * image, 3, precision);
                    let inputs: Vec<_> = [Some(&xt), residual].into_iter().flatten().collect();
                    let grads = g.backward_all(&y, upload(&device, &shape, precision, &dy), &inputs).unwrap();
                    let masked: Vec<f64> = wide(&dy)
                        .iter()
                        .zip(&pre)
                        .map(|(&d, &y)| if act == Activation::Relu && y <= 0.0 { 0.0 } else { d })
                        .collect();
                    if with_residual {
                        close(
                            &format!("{name} dresidual"),
                            &grads[1].to_f32(&device).unwrap(),
                            &masked,
                            limits(precision).1,
                        );
                    }
                    // Every image: the gradient along random directions against difference quotients in float64.
                    let dx = wide(&grads[0].to_f32(&device).unwrap());
                    for i in 0..n {
                        let at = i * image..(i + 1) * image;
                        let (x, d, dx) = (&wide(&x)[at.clone()], &masked[at.clone()], &dx[at]);
                        for seed in 0..3 {
                            let direction = wide(&values(image, 40 + seed, Precision::F32));
                            let slope = directional(|x| dot(&gates.forward(x, h, w), d), x, &direction);
                            let scale = dot(dx, dx).sqrt() * dot(&direction, &direction).sqrt();
                            let err = (dot(dx, &direction) - slope).abs();
                            assert!(err <= limits(precision).1 * scale, "{name} image {i}: {err:e} of {scale:e}");
                        }
                    }
                }
            }
        }
    }
}

/// The whole gradient, value by value, at a small size.
#[test]
fn every_value_of_the_gradient_agrees_with_float64() {
    let (h, w, c) = (3, 4, 19);
    let gates = Gates::new(Which::Both, c, 2, 7);
    let uploaded = gates.upload();
    let (x, dy) = (values(h * w * c, 5, Precision::F32), values(h * w * c, 6, Precision::F32));
    let (x64, d) = (wide(&x), wide(&dy));
    let want_dx: Vec<f64> = (0..x.len())
        .map(|i| {
            let mut unit = vec![0.0; x.len()];
            unit[i] = 1.0;
            directional(|x| dot(&gates.forward(x, h, w), &d), &x64, &unit)
        })
        .collect();
    let op = |g: &Graph, x: &_| cbam(g, x, &uploaded, None, Activation::None);
    check("cbam", Precision::F32, (&[1, h, w, c], &x), &dy, op, &gates.forward(&x64, h, w), &want_dx);
}

/// Contributions of other consumers and the mask of the ReLU before are fused into the gradient.
#[test]
fn the_gradient_joins_what_others_left() {
    for precision in PRECISIONS {
        let device = host();
        let (shape, n) = ([2usize, 4, 3, 21], 2 * 4 * 3 * 21);
        let uploaded = Gates::new(Which::Both, 21, 2, 7).upload();
        let (x, dy) = (values(n, 1, precision), values(n, 2, precision));
        let xt = upload(&device, &shape, precision, &x);
        // The same input as residual, behind a ReLU; against the two gradients taken apart.
        let g = recording(&device, precision);
        let r = activation(&g, &xt, Activation::Relu).unwrap();
        let y = cbam(&g, &r, &uploaded, Some(&r), Activation::None).unwrap();
        let joined = g.backward(&y, upload(&device, &shape, precision, &dy), &xt).unwrap().to_f32(&device).unwrap();
        let relu = upload(&device, &shape, precision, &x.iter().map(|v| v.max(0.0)).collect::<Vec<_>>());
        let g = recording(&device, precision);
        let y = cbam(&g, &relu, &uploaded, None, Activation::None).unwrap();
        let alone = g.backward(&y, upload(&device, &shape, precision, &dy), &relu).unwrap().to_f32(&device).unwrap();
        let want: Vec<f64> =
            (0..n).map(|i| if x[i] > 0.0 { f64::from(alone[i]) + f64::from(dy[i]) } else { 0.0 }).collect();
        close("joined", &joined, &want, limits(precision).1);
    }
}

#[test]
fn the_first_of_equal_maxima_gets_the_gradient() {
    // One channel pixel pair of equal values per map; kernels and gates chosen so that only the maxima matter.
    let device = host();
    let (h, w, c) = (2, 2, 3);
    // The channel gate sees the maximum only: a mean of 0 hides behind a large negative bias only the maximum overcomes.
    let x = [2.0f32, 1.0, 1.0, 2.0, 1.0, 1.0, -2.0, 1.0, 1.0, -2.0, 1.0, 1.0];
    let gates = Cbam::channel_gate(&device, (&[1.0, 0.0, 0.0], &[-1.0]), (&[1.0, 1.0, 1.0], &[0.0; 3])).unwrap();
    let xt = upload_f32(&device, &[1, h, w, c], &x);
    let g = recording(&device, Precision::F32);
    let y = cbam(&g, &xt, &Arc::new(gates), None, Activation::None).unwrap();
    let dx = g.backward(&y, upload_f32(&device, &[1, h, w, c], &[1.0; 12]), &xt).unwrap().to_f32(&device).unwrap();
    let s = 1.0 / (1.0 + (-1f32).exp());
    // Pixels 0 and 1 both hold the maximum of channel 0; pixel 0 takes it: sum over all x * s(1-s) = 8 s(1-s).
    let extra = 8.0 * s * (1.0 - s);
    assert!((dx[0] - s - extra).abs() <= 1e-5 && (dx[3] - s).abs() <= 1e-6, "{dx:?}");

    // The spatial gate, 1x1 and the maximum only: of equal channels the first takes it.
    let gates = Cbam::spatial_gate(&device, &[1.0, 0.0], (1.0, 0.0)).unwrap();
    let xt = upload_f32(&device, &[1, 1, 1, 40], &[0.5; 40]);
    let g = recording(&device, Precision::F32);
    let y = cbam(&g, &xt, &Arc::new(gates), None, Activation::None).unwrap();
    let dx = g.backward(&y, upload_f32(&device, &[1, 1, 1, 40], &[1.0; 40]), &xt).unwrap().to_f32(&device).unwrap();
    let s = 1.0 / (1.0 + (-0.5f32).exp());
    assert!((dx[0] - s - 20.0 * s * (1.0 - s)).abs() <= 1e-5, "{dx:?}");
    assert!(dx[1..].iter().all(|d| (d - s).abs() <= 1e-6), "{dx:?}");
}

/// An image's result is the same in any batch.
#[test]
fn results_do_not_depend_on_the_batch() {
    for precision in PRECISIONS {
        let device = host();
        let (h, w, c, image) = (8, 8, 48, 8 * 8 * 48);
        let uploaded = Gates::new(Which::Both, c, 3, 7).upload();
        let (x, dy) = (values(9 * image, 1, precision), values(9 * image, 2, precision));
        let run = |n: usize| {
            let xt = upload(&device, &[n, h, w, c], precision, &x[..n * image]);
            let g = recording(&device, precision);
            let y = cbam(&g, &xt, &uploaded, None, Activation::Relu).unwrap();
            let dx = g.backward(&y, upload(&device, &[n, h, w, c], precision, &dy[..n * image]), &xt).unwrap();
            (y.to_f32(&device).unwrap(), dx.to_f32(&device).unwrap())
        };
        let all = run(9);
        for n in [1, 2, 7] {
            let (y, dx) = run(n);
            assert_eq!((&y[..], &dx[..]), (&all.0[..n * image], &all.1[..n * image]), "{n} images");
        }
    }
}

/// So large an image is cut into strips, whose halos overlap.
#[test]
fn images_larger_than_scratch_memory_agree_with_float64() {
    let (h, w, c) = (520, 600, 2);
    let gates = Gates::new(Which::Both, c, 1, 7);
    let uploaded = gates.upload();
    let device = host();
    let x = round(values(h * w * c, 1, Precision::F32), Precision::F32);
    let (x64, dy) = (wide(&x), values(h * w * c, 2, Precision::F32));
    let xt = upload_f32(&device, &[1, h, w, c], &x);
    let g = recording(&device, Precision::F32);
    let y = cbam(&g, &xt, &uploaded, None, Activation::None).unwrap();
    close("strips", &y.to_f32(&device).unwrap(), &gates.forward(&x64, h, w), 2e-6);
    let dx = g.backward(&y, upload_f32(&device, &[1, h, w, c], &dy), &xt).unwrap();
    let (dx, d, direction) =
        (wide(&dx.to_f32(&device).unwrap()), wide(&dy), wide(&values(h * w * c, 3, Precision::F32)));
    // A smaller step than elsewhere: among so many values some lie near a tie.
    let slope = {
        let moved = |s: f64| -> Vec<f64> { x64.iter().zip(&direction).map(|(x, d)| x + s * 1e-9 * d).collect() };
        (dot(&gates.forward(&moved(1.0), h, w), &d) - dot(&gates.forward(&moved(-1.0), h, w), &d)) / 2e-9
    };
    let scale = dot(&dx, &dx).sqrt() * dot(&direction, &direction).sqrt();
    assert!((dot(&dx, &direction) - slope).abs() <= 3e-6 * scale, "{} {slope}", dot(&dx, &direction));
}

#[test]
fn wrong_shapes_are_refused() {
    let device = host();
    let g = Graph::inference(&device, Precision::F32);
    let uploaded = Gates::new(Which::Both, 4, 1, 3).upload();
    let t = |shape: [usize; 4]| upload_f32(&device, &shape, &vec![0.0; shape.iter().product()]);
    let err = cbam(&g, &t([1, 2, 2, 5]), &uploaded, None, Activation::None).unwrap_err();
    assert_eq!(err.to_string(), "cbam: channels: expected 4, got 5");
    let x = t([1, 2, 2, 4]);
    assert!(matches!(cbam(&g, &x, &uploaded, Some(&t([1, 2, 1, 4])), Activation::None), Err(Error::Shape { .. })));
    assert!(matches!(cbam(&g, &x, &uploaded, None, Activation::Silu), Err(Error::Shape { .. })));
    assert!(cbam(&g, &t([1, 0, 2, 4]), &uploaded, None, Activation::None).is_err());
    assert!(Cbam::new(&device, (&[0.0; 3], &[0.0]), (&[0.0; 4], &[0.0; 4]), &[0.0; 98], (1.0, 0.0)).is_err());
    assert!(Cbam::spatial_gate(&device, &[0.0; 8], (1.0, 0.0)).is_err(), "an even kernel");
    assert!(Cbam::spatial_gate(&device, &[0.0; 97], (1.0, 0.0)).is_err());
    let wide_row = cbam(&g, &t([1, 1, 300_000, 4]), &uploaded, None, Activation::None);
    assert!(matches!(wide_row, Err(Error::Limit { .. })), "{wide_row:?}");
}
