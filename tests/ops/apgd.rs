//! APGD's step and start against their formulas in float64.

use rampart::ops::apgd::{Course, Iterate, Memory, start, step};
use rampart::ops::pgd::{Norm, budget};
use rampart::tensor::Tensor;

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

/// What is remembered of an image, in the words of the paper.
struct Image {
    eta: f32,
    best: f32,
    looked: f32,
    halved: bool,
    losses: Vec<f32>,
}

impl Image {
    /// Whether the step is halved after step number `step`.
    fn look(&mut self, step: usize, window: usize) -> bool {
        let n = self.losses.len();
        let before = |j: usize| self.losses[(j + n - 1) % n];
        let rises = (step + 1 - window..=step).filter(|&j| self.losses[j] > before(j)).count();
        self.halved = rises as f64 <= 0.75 * window as f64 || !self.halved && self.looked >= self.best;
        self.looked = self.best;
        if self.halved {
            self.eta /= 2.0;
        }
        self.halved
    }
}

/// A run over losses that rise, fall, stall and are no numbers, beside single steps whose points and sizes are kept here.
#[test]
fn memory_steps_from_where_single_steps_would() {
    let device = host();
    let (shape, share, steps) = ([5, 3, 7, 2], 0.75, 9);
    let (n, d) = (shape[0], shape[1] * shape[2] * shape[3]);
    let up = |v: &[f32]| upload_f32(&device, &shape, v);
    let down = |t: &Tensor| t.to_f32(&device).unwrap();
    let loss = |i: usize, step: usize| match i {
        0 => step as f32,
        1 => -(step as f32),
        2 => 1.0,
        3 if step == 4 => f32::NAN,
        _ => values(n * (steps + 1), 9, PRECISIONS[0])[i * (steps + 1) + step],
    };
    let (mut went_back, mut went_on) = (0, 0);
    for (norm, eps) in [(Norm::Linf, 0.03f32), (Norm::L2, 0.4)] {
        for in_place in [false, true] {
            let course = Course { norm, eps: f64::from(eps), windows: vec![0, 0, 3, 0, 2, 1, 1, 0, 1], share };
            let x0 = unit(n * d, 1);
            let t0 = up(&x0);
            let mut x = up(&near(&x0, 0.3 * eps, 2));
            let memory = Memory::new(&device, &x, &course).unwrap();
            let mut images: Vec<Image> = Vec::new();
            let (mut at, mut prev, mut best, mut best_g) = (down(&x), down(&x), vec![0.0; n * d], vec![0.0; n * d]);
            for step_number in 0..steps {
                let losses: Vec<f32> = (0..n).map(|i| loss(i, step_number)).collect();
                let mut g = values(n * d, 20 + step_number as u64, PRECISIONS[0]);
                let tg = up(&g);
                for i in 0..n {
                    let row = i * d..(i + 1) * d;
                    let l = losses[i];
                    if step_number == 0 {
                        images.push(Image {
                            eta: 2.0 * eps,
                            best: l,
                            looked: l,
                            halved: true,
                            losses: vec![0.0; steps],
                        });
                    } else {
                        images[i].losses[step_number - 1] = l;
                    }
                    if step_number == 0 || l > images[i].best {
                        images[i].best = l;
                        best[row.clone()].copy_from_slice(&at[row.clone()]);
                        best_g[row.clone()].copy_from_slice(&g[row.clone()]);
                    }
                    let window = if step_number == 0 { 0 } else { course.windows[step_number - 1] as usize };
                    if window > 0 {
                        if images[i].look(step_number - 1, window) {
                            at[row.clone()].copy_from_slice(&best[row.clone()]);
                            g[row.clone()].copy_from_slice(&best_g[row]);
                            went_back += 1;
                        } else {
                            went_on += 1;
                        }
                    }
                }
                let eta: Vec<f32> = images.iter().map(|image| image.eta).collect();
                let (tx, tp) = (up(&at), up(&prev));
                let from = Iterate { x: &tx, prev: &tp, x0: &t0 };
                let share = if step_number == 0 { 1.0 } else { share };
                let want = step(&device, from, &up(&g), &eta, (norm, f64::from(eps)), share).unwrap();
                let y = if in_place { x.clone() } else { up(&vec![0.0; n * d]) };
                let loss = upload_f32(&device, &[n], &losses);
                memory.step(&device, &course, (&x, &t0, &y), &loss, &tg).unwrap();
                assert_eq!(down(&y), down(&want), "{norm}, step {step_number}");
                x = y;
                prev = std::mem::replace(&mut at, down(&want));
            }
        }
    }
    assert!(went_back > 20 && went_on > 20, "{went_back} {went_on}");
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
