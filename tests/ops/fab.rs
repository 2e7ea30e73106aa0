//! FAB's step against the exact projection, found by sorting where coordinates meet the box.

use rampart::ops::fab::{retreat, step};
use rampart::ops::pgd::Norm;

use crate::common::*;

/// The shortest way from `v` to the plane where `w.(v + s) = w.v - r`, within the box.
fn projection(norm: Norm, w: &[f64], v: &[f64], r: f64) -> Vec<f64> {
    let turn = if r < 0.0 { -1.0 } else { 1.0 };
    let weight = |w: f64| if norm == Norm::L2 && w.abs() <= 1e-8 { 0.0 } else { w.abs() };
    let room: Vec<f64> = w.iter().zip(v).map(|(&w, &v)| if turn * w > 0.0 { v } else { 1.0 - v }).collect();
    let given = |lam: f64| -> f64 {
        let one = |(&w, &room): (&f64, &f64)| match weight(w) {
            0.0 => 0.0,
            size => size * (if norm == Norm::L2 { lam * size } else { lam }).min(room),
        };
        w.iter().zip(&room).map(one).sum()
    };
    // Where each coordinate meets its wall; between two of them the sum is linear.
    let mut corners: Vec<f64> = w
        .iter()
        .zip(&room)
        .filter(|(w, _)| weight(**w) > 0.0)
        .map(|(&w, &room)| if norm == Norm::L2 { room / weight(w) } else { room })
        .collect();
    corners.sort_by(f64::total_cmp);
    let wanted = r.abs();
    let mut low = 0.0;
    let mut lam = f64::INFINITY;
    for corner in corners {
        if given(corner) >= wanted {
            let (a, b) = (given(low), given(corner));
            lam = if b > a { low + (wanted - a) / (b - a) * (corner - low) } else { corner };
            break;
        }
        low = corner;
    }
    let sign = |w: f64| f64::from(turn * w > 0.0) - f64::from(turn * w < 0.0);
    w.iter()
        .zip(&room)
        .map(|(&w, &room)| match weight(w) {
            0.0 => 0.0,
            size => -sign(w) * (if norm == Norm::L2 { lam * size } else { lam }).min(room),
        })
        .collect()
}

fn want(norm: Norm, x: &[f64], x0: &[f64], w: &[f64], df: f64) -> Vec<f64> {
    let there = df + w.iter().zip(x0.iter().zip(x)).map(|(w, (x0, x))| w * (x0 - x)).sum::<f64>();
    let (s1, s2) = (projection(norm, w, x, df), projection(norm, w, x0, there));
    let length = |s: &[f64]| match norm {
        Norm::Linf => s.iter().fold(0f64, |m, s| m.max(s.abs())),
        Norm::L2 => s.iter().map(|s| s * s).sum::<f64>().sqrt(),
    };
    let (a1, a2) = (length(&s1).max(1e-8), length(&s2).max(1e-8));
    let al = (a1 / (a1 + a2)).min(0.1);
    (0..x.len()).map(|i| ((x[i] + 1.05 * s1[i]) * (1.0 - al) + (x0[i] + 1.05 * s2[i]) * al).clamp(0.0, 1.0)).collect()
}

#[test]
fn a_step_is_the_exact_projection_within_the_box() {
    let device = host();
    for (k, shape) in [[4, 5, 7, 3], [1, 1, 1, 1], [3, 33, 31, 3], [6, 2, 2, 3]].into_iter().enumerate() {
        let (n, d) = (shape[0], shape[1] * shape[2] * shape[3]);
        let draw = |seed: u64| values(n * d, seed + 100 * k as u64, PRECISIONS[0]);
        // Many values at the walls: there the projection bends.
        let x0: Vec<f32> = draw(1).iter().map(|v| (0.9 * v + 0.5).clamp(0.0, 1.0)).collect();
        let x: Vec<f32> = x0.iter().zip(draw(2)).map(|(x, v)| (x + 0.1 * v).clamp(0.0, 1.0)).collect();
        let mut w: Vec<f32> = draw(3);
        if d > 1 {
            (0..n).for_each(|i| w[i * d] = 0.0);
        }
        // Near, far on either side, out of reach, and on the plane.
        let reach: f32 = w[..d].iter().map(|w| w.abs()).sum();
        let df: Vec<f32> = (0..n).map(|i| [-0.05, 0.4, -0.2, 10.0, 0.0, -10.0][i % 6] * reach).collect();
        for norm in [Norm::Linf, Norm::L2] {
            let up = |v: &[f32]| upload_f32(&device, &shape, v);
            let got = step(&device, &up(&x), &up(&x0), &up(&w), &df, norm).unwrap().to_f32(&device).unwrap();
            for i in 0..n {
                let row = |v: &[f32]| wide(&v[i * d..(i + 1) * d]);
                let want = want(norm, &row(&x), &row(&x0), &row(&w), f64::from(df[i]));
                close(&format!("{norm} {shape:?} image {i}"), &got[i * d..(i + 1) * d], &want, 3e-6);
            }
        }
    }
}

#[test]
fn some_go_back_a_tenth_of_the_way() {
    let device = host();
    let (x, x0) = ([0.5f32, 1.0, 0.25, 0.0], [0.0f32, 0.5, 0.25, 1.0]);
    let up = |v: &[f32]| upload_f32(&device, &[2, 1, 1, 2], v);
    let y = retreat(&device, &up(&x), &up(&x0), &[true, false]).unwrap().to_f32(&device).unwrap();
    assert_eq!(y, [0.45, 0.95, 0.25, 0.0]);
    assert!(retreat(&device, &up(&x), &up(&x0), &[true]).is_err());
}
