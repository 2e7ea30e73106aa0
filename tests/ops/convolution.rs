//! One convolution, whichever kernel runs it, against float64 arithmetic.

use std::sync::Arc;

use rampart::device::Device;
use rampart::ops::Activation;
use rampart::ops::conv::{Conv2d, Window, conv2d};
use rampart::ops::recording;
use rampart::tape::Precision;

use crate::common::{host, relative, upload, values};

/// A direct sum in float64, and its shape.
pub fn direct(
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

/// The forward against a direct sum, and the gradient by the adjoint identity.
#[track_caller]
pub fn check(xs: [usize; 4], ws: [usize; 4], window: Window, precision: Precision, limit: f64) {
    check_on(&host(), xs, ws, window, precision, limit);
}

/// The same on a device of the caller's.
#[track_caller]
pub fn check_on(device: &Device, xs: [usize; 4], ws: [usize; 4], window: Window, precision: Precision, limit: f64) {
    let (x, w) = (values(xs.iter().product(), 1, precision), values(ws.iter().product(), 2, precision));
    let (want, ys) = direct(&x, xs, &w, ws, window);
    let conv = Arc::new(Conv2d::new(device, precision, &w, ws, None, window).unwrap());
    let g = recording(device, precision);
    let xt = upload(device, &xs, precision, &x);
    let y = conv2d(&g, &xt, &conv, None, Activation::None).unwrap();
    assert_eq!(y.shape(), ys);
    let err = relative(&y.to_f32(device).unwrap(), &want);
    assert!(err <= limit, "forward {xs:?} {ws:?} {window:?}: {err:e}");
    // <conv x, dy> = <x, gradient of dy>
    let dy = values(want.len(), 3, precision);
    let dyt = upload(device, &ys, precision, &dy);
    let dx = g.backward(&y, dyt, &xt).unwrap().to_f32(device).unwrap();
    let left: f64 = want.iter().zip(&dy).map(|(a, &b)| a * f64::from(b)).sum();
    let right: f64 = x.iter().zip(&dx).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    let scale =
        want.iter().map(|w| w * w).sum::<f64>().sqrt() * dy.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>().sqrt();
    assert!((left - right).abs() <= limit * scale, "adjoint {xs:?} {ws:?} {window:?}: {left} {right}");
}
