//! APGD's step and start against their formulas in float64.

use rampart::ops::apgd::{Iterate, start, step};
use rampart::ops::pgd::{Norm, budget};

use crate::common::*;

const SHAPES: [[usize; 4]; 4] = [[3, 5, 7, 3], [1, 1, 1, 1], [2, 40, 41, 3], [5, 3, 2, 4]];

fn unit(n: usize, seed: u64) -> Vec<f32> {
    values(n, seed, PRECISIONS[0]).iter().map(|v| (0.7 * v + 0.5).clamp(0.0, 1.0)).collect()
}

fn near(x0: &[f32], eps: f32, seed: u64) -> Vec<f32> {
    x0.iter().zip(values(x0.len(), seed, PRECISIONS[0])).map(|(x, v)| (x + eps * v).clamp(0.0, 1.0)).collect()
}

fn length(v: &[f64]) -> f64 {
    v.iter().map(|v| v * v).sum::<f64>().sqrt()
}

fn project(norm: Norm, eps: f64, v: &[f64], x0: &[f64]) -> Vec<f64> {
    let w: Vec<f64> = v.iter().zip(x0).map(|(v, x0)| v - x0).collect();
    let n = length(&w);
    let kept = |w: f64| match norm {
        Norm::Linf => w.clamp(-eps, eps),
        Norm::L2 => w / (n + 1e-12) * n.min(eps),
    };
    w.iter().zip(x0).map(|(&w, x0)| (x0 + kept(w)).clamp(0.0, 1.0)).collect()
}

#[test]
fn a_step_is_that_of_the_formula_and_stays_in_the_ball() {
    let device = host();
    for shape in SHAPES {
        let (n, d) = (shape[0], shape[1] * shape[2] * shape[3]);
        for (norm, eps) in [(Norm::Linf, 0.03f32), (Norm::L2, 0.4), (Norm::Linf, 0.5)] {
            let spread = if norm == Norm::Linf { eps } else { eps / (d as f32).sqrt() };
            let x0 = unit(n * d, 1);
            let (x, prev) = (near(&x0, spread, 2), near(&x0, spread, 3));
            let mut g: Vec<f32> = values(n * d, 4, PRECISIONS[0]).iter().map(|v| 1e-3 * v).collect();
            g[0] = 0.0;
            let eta: Vec<f32> = (0..n).map(|i| 2.0 * eps / (1 << i) as f32).collect();
            for share in [1.0f32, 0.75] {
                let up = |v: &[f32]| upload_f32(&device, &shape, v);
                let (tx, tp, t0) = (up(&x), up(&prev), up(&x0));
                let at = Iterate { x: &tx, prev: &tp, x0: &t0 };
                let y = step(&device, at, &up(&g), &eta, (norm, f64::from(eps)), share).unwrap();
                let got = y.to_f32(&device).unwrap();
                let mut want = Vec::new();
                for i in 0..n {
                    let row = |v: &[f32]| wide(&v[i * d..(i + 1) * d]);
                    let (x, prev, x0, g) = (row(&x), row(&prev), row(&x0), row(&g));
                    let size = length(&g) + 1e-12;
                    let direction = |g: f64| match norm {
                        Norm::Linf => f64::from(g > 0.0) - f64::from(g < 0.0),
                        Norm::L2 => g / size,
                    };
                    let moved: Vec<f64> = (0..d).map(|k| x[k] + f64::from(eta[i]) * direction(g[k])).collect();
                    let z = project(norm, f64::from(eps), &moved, &x0);
                    let (a, b) = (f64::from(share), f64::from(1.0 - share));
                    let mixed: Vec<f64> = (0..d).map(|k| x[k] + (z[k] - x[k]) * a + (x[k] - prev[k]) * b).collect();
                    want.extend(project(norm, f64::from(eps), &mixed, &x0));
                }
                close(&format!("{norm} {shape:?} {share}"), &got, &want, 1e-6);
                let costs = budget(&device, &y, &t0).unwrap();
                assert!(costs.iter().all(|b| !b.violates(norm, f64::from(eps))), "{norm} {shape:?}: {costs:?}");
            }
        }
    }
}

#[test]
fn a_start_lies_on_the_sphere_before_it_is_clipped() {
    let device = host();
    for shape in SHAPES {
        let (n, d) = (shape[0], shape[1] * shape[2] * shape[3]);
        for (norm, eps) in [(Norm::Linf, 0.03), (Norm::L2, 0.2)] {
            let x0 = upload_f32(&device, &shape, &vec![0.5; n * d]);
            let draw: Vec<f32> = values(n * d, 5, PRECISIONS[0])
                .iter()
                .map(|v| if norm == Norm::Linf { 0.5 * v + 0.5 } else { 2.0 * v })
                .collect();
            let y = start(&device, &x0, &upload_f32(&device, &shape, &draw), (norm, eps)).unwrap();
            for cost in budget(&device, &y, &x0).unwrap() {
                let size = f64::from(if norm == Norm::Linf { cost.linf } else { cost.l2 });
                assert!((size - eps).abs() < 1e-6 * eps + 1e-7, "{norm} {shape:?}: {size} of {eps}");
            }
            // Each draw keeps its direction.
            let got = y.to_f32(&device).unwrap();
            let turn = |u: f32| if norm == Norm::Linf { 2.0 * u - 1.0 } else { u };
            assert!(got.iter().zip(&draw).all(|(y, &u)| (y - 0.5) * turn(u) >= 0.0));
        }
    }
}

#[test]
fn shapes_that_differ_are_refused() {
    let device = host();
    let make = |shape: &[usize]| upload_f32(&device, shape, &vec![0.5; shape.iter().product()]);
    let (a, b) = (make(&[2, 3, 3, 3]), make(&[2, 3, 2, 3]));
    let at = |x0| Iterate { x: &a, prev: &a, x0 };
    let budget = (Norm::L2, 0.1);
    assert!(step(&device, at(&b), &a, &[0.1, 0.1], budget, 1.0).is_err());
    assert!(step(&device, at(&a), &b, &[0.1, 0.1], budget, 1.0).is_err());
    assert!(step(&device, at(&a), &a, &[0.1], budget, 1.0).is_err());
    assert!(start(&device, &a, &b, budget).is_err());
    step(&device, at(&a), &a, &[0.1, 0.1], budget, 1.0).unwrap();
}
