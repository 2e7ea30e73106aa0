//! The step of DDN and FMN against float64 arithmetic.

use rampart::ops::min_norm::{Onto, step};
use rampart::ops::pgd::Norm;

use crate::common::*;

fn norm2(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

/// Where image goes, its radius and the gradient's length.
fn want([x, x0, g]: [&[f64]; 3], [radius, gap]: [f64; 2], size: f64, onto: Onto) -> (Vec<f64>, f64, f64) {
    let linf = onto == Onto::Ball(Norm::Linf);
    let length = norm2(g);
    let dual = if linf { g.iter().map(|g| g.abs()).sum() } else { length };
    let corner: Vec<f64> = x0.iter().map(|&v| v.max(1.0 - v)).collect();
    let most = if linf { corner.iter().fold(0f64, |m, &v| m.max(v)) } else { norm2(&corner) };
    let radius = (if gap > 0.0 { radius + gap / dual } else { radius }).min(most);
    let moved = |i: usize| x[i] - x0[i] + if length > 0.0 { size * g[i] / length } else { 0.0 };
    let mut z: Vec<f64> = (0..x.len()).map(moved).collect();
    let far = norm2(&z);
    for v in &mut z {
        match onto {
            Onto::Sphere if far > 0.0 => *v *= radius / far,
            Onto::Ball(Norm::L2) if far > radius => *v *= radius / far,
            Onto::Ball(Norm::Linf) => *v = v.clamp(-radius, radius),
            _ => {}
        }
    }
    (z.iter().zip(x0).map(|(z, x0)| (x0 + z).clamp(0.0, 1.0)).collect(), radius, length)
}

#[test]
fn a_step_has_the_length_of_its_image_within_the_box() {
    let device = host();
    for (k, shape) in [[5, 5, 7, 3], [1, 1, 1, 1], [3, 33, 31, 3], [7, 2, 2, 3]].into_iter().enumerate() {
        let (n, d) = (shape[0], shape[1] * shape[2] * shape[3]);
        let draw = |seed: u64| values(n * d, seed + 100 * k as u64, PRECISIONS[0]);
        let x0: Vec<f32> = draw(1).iter().map(|v| (0.7 * v + 0.5).clamp(0.0, 1.0)).collect();
        let mut x: Vec<f32> = x0.iter().zip(draw(2)).map(|(x, v)| (x + 0.1 * v).clamp(0.0, 1.0)).collect();
        let mut g: Vec<f32> = draw(3).iter().map(|v| v * 1e-3).collect();
        // The third has no gradient, the fourth one whose squares underflow, the fifth is the clean image without one.
        (0..d).for_each(|i| [2, 4].into_iter().filter(|&k| k < n).for_each(|k| g[k * d + i] = 0.0));
        (0..d).for_each(|i| [3].into_iter().filter(|&k| k < n).for_each(|k| g[k * d + i] *= 1e-25));
        if n > 4 {
            x[4 * d..5 * d].copy_from_slice(&x0[4 * d..5 * d]);
        }
        // Known, estimated from the loss, within the ball, beyond the box, and none at all.
        let rows: [[f32; 2]; 7] =
            [[0.2, 0.0], [0.05, 3e-4], [0.01, 0.0], [0.3, 0.0], [0.1, 1e-3], [f32::INFINITY, 0.0], [0.0, 0.0]];
        let rows = &rows[..n];
        for onto in [Onto::Sphere, Onto::Ball(Norm::L2), Onto::Ball(Norm::Linf)] {
            let up = |v: &[f32]| upload_f32(&device, &shape, v);
            let (got, told) = step(&device, [&up(&x), &up(&x0), &up(&g)], rows, 0.4, onto).unwrap();
            let got = got.to_f32(&device).unwrap();
            for i in 0..n {
                let row = |v: &[f32]| wide(&v[i * d..(i + 1) * d]);
                let (y, radius, length) =
                    want([&row(&x), &row(&x0), &row(&g)], rows[i].map(f64::from), f64::from(0.4f32), onto);
                let what = format!("{onto:?} {shape:?} image {i}");
                close(&what, &got[i * d..(i + 1) * d], &y, 2e-6);
                close(&what, &[told[i].radius], &[radius], 2e-6);
                close(&what, &[told[i].gradient], &[length], 2e-6);
            }
        }
    }
}

#[test]
fn what_is_no_number_stays_and_shapes_are_minded() {
    let device = host();
    let up = |v: &[f32]| upload_f32(&device, &[1, 1, 1, 3], v);
    let (x, x0) = (up(&[0.5, 0.25, 1.0]), up(&[0.5, 0.5, 0.5]));
    for onto in [Onto::Sphere, Onto::Ball(Norm::L2), Onto::Ball(Norm::Linf)] {
        let g = up(&[f32::NAN, f32::NAN, f32::NAN]);
        let (y, _) = step(&device, [&x, &x0, &g], &[[0.75, 0.0]], 1.0, onto).unwrap();
        assert_eq!(y.to_f32(&device).unwrap(), [0.5, 0.25, 1.0], "{onto:?}");
        assert!(step(&device, [&x, &x0, &g], &[], 1.0, onto).is_err());
        let other = upload_f32(&device, &[1, 3, 1, 1], &[0.0; 3]);
        assert!(step(&device, [&x, &other, &g], &[[0.75, 0.0]], 1.0, onto).is_err());
        assert!(step(&device, [&x, &x0, &other], &[[0.75, 0.0]], 1.0, onto).is_err());
    }
}
