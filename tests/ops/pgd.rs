//! Steps, momentum, starts, budgets and row moves against plain Rust, for every profile.

use proptest::prelude::*;
use rampart::device::{DType, Device};
use rampart::ops::pgd::{
    Budget, Norm, Profile, Step, budget, digest, draws_normals, gather, momentum, momentum_in_place, start, step,
    step_into,
};
use rampart::ops::philox::{Purpose, Stream, normal, uniform};
use rampart::tensor::Tensor;

const PROFILES: [Profile; 5] =
    [Profile::Native, Profile::Torchattacks, Profile::Foolbox, Profile::Cleverhans, Profile::Art];
const NORMS: [Norm; 2] = [Norm::Linf, Norm::L2];

struct Case {
    device: Device,
    n: usize,
    d: usize,
    x0: Vec<f32>,
    x: Vec<f32>,
    g: Vec<f32>,
}

impl Case {
    /// Images with values at both ends of the box, iterates near them, gradients of very different sizes.
    fn new(n: usize, d: usize, spread: f32, seed: u64) -> Self {
        let device = Device::host().unwrap();
        let ids: Vec<u64> = (0..n as u64).collect();
        let draw = |k, normals: bool| {
            let stream = Stream { draw: k, ..Stream::new(seed, Purpose::Noise) };
            let t = if normals { normal(&device, &stream, &ids, &[d]) } else { uniform(&device, &stream, &ids, &[d]) };
            t.unwrap().to_f32(&device).unwrap()
        };
        let x0: Vec<f32> = draw(0, false).iter().map(|u| (1.4 * u - 0.2).clamp(0.0, 1.0)).collect();
        let x = x0.iter().zip(draw(1, false)).map(|(x, u)| (x + spread * (2.0 * u - 1.0)).clamp(0.0, 1.0)).collect();
        let mut g = draw(2, true);
        for (row, values) in g.chunks_exact_mut(d).enumerate() {
            let scale = [1.0, 1e-3, 1e-9, 1e6][row % 4];
            values.iter_mut().for_each(|v| *v *= scale);
        }
        g[0] = 0.0;
        Case { device, n, d, x0, x, g }
    }

    fn tensor(&self, values: &[f32]) -> Tensor {
        Tensor::from_f32(&self.device, &[self.n, self.d], DType::F32, values).unwrap()
    }

    fn step(&self, s: &Step) -> Vec<f32> {
        let y = step(&self.device, &self.tensor(&self.x), &self.tensor(&self.x0), &self.tensor(&self.g), s).unwrap();
        y.to_f32(&self.device).unwrap()
    }

    fn budgets(&self, y: &[f32]) -> Vec<Budget> {
        budget(&self.device, &self.tensor(y), &self.tensor(&self.x0)).unwrap()
    }
}

fn sgn(v: f32) -> f32 {
    if v > 0.0 {
        1.0
    } else if v < 0.0 {
        -1.0
    } else {
        0.0
    }
}

fn clip(v: f32) -> f32 {
    v.clamp(0.0, 1.0)
}

/// sqrt of the sum of squares, in float64.
fn norm2(v: &[f32]) -> f64 {
    v.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// One image, L-inf, in float32 exactly as each library writes it.
fn linf(profile: Profile, x: &[f32], x0: &[f32], g: &[f32], eps: f64, a: f64) -> Vec<f32> {
    let (eps32, a) = (eps as f32, a as f32);
    let one = |((&x, &x0), &g): ((&f32, &f32), &f32)| match profile {
        Profile::Native | Profile::Torchattacks | Profile::Foolbox => {
            let z = x + a * sgn(g);
            clip(x0 + (z - x0).clamp(-eps32, eps32))
        }
        Profile::Cleverhans => {
            let z = clip(x + a * sgn(g));
            clip(x0 + (z - x0).clamp(-eps32, eps32))
        }
        Profile::Art => {
            let e = clip(x + a * sgn(g)) - x0;
            let e = f64::from(sgn(e)) * f64::from(e.abs()).min(eps);
            x0 + e as f32
        }
    };
    x.iter().zip(x0).zip(g).map(one).collect()
}

/// One image, L2, with norms in float64.
fn l2(profile: Profile, x: &[f32], x0: &[f32], g: &[f32], eps: f64, a: f64) -> Vec<f64> {
    let n = norm2(g);
    let direction: Vec<f64> = g
        .iter()
        .map(|&g| f64::from(g))
        .map(|g| match profile {
            Profile::Native | Profile::Art => {
                if n > 0.0 {
                    g / n
                } else {
                    0.0
                }
            }
            Profile::Torchattacks => g / (n + 1e-10),
            Profile::Foolbox => g * (1.0 / n.max(1e-12)),
            Profile::Cleverhans => g / (n * n).max(1e-12).sqrt(),
        })
        .collect();
    let shrinks_first = matches!(profile, Profile::Torchattacks | Profile::Foolbox);
    let e: Vec<f64> = (0..x.len())
        .map(|i| {
            let z = f64::from(x[i]) + a * direction[i];
            (if shrinks_first { z } else { z.clamp(0.0, 1.0) }) - f64::from(x0[i])
        })
        .collect();
    let reach = e.iter().map(|e| e * e).sum::<f64>().sqrt();
    let shrink = if reach > eps { eps / reach } else { 1.0 };
    let y = e.iter().zip(x0).map(|(e, &x0)| f64::from(x0) + e * shrink);
    y.map(|v| if shrinks_first { v.clamp(0.0, 1.0) } else { v }).collect()
}

#[test]
fn linf_steps_agree_bit_for_bit() {
    for (n, d) in [(1, 1), (5, 147), (3, 9000)] {
        for (spread, eps, a) in [(0.03, 8.0 / 255.0, 2.0 / 255.0), (0.02, 0.03, 0.05), (0.1, 0.3, 0.01)] {
            let case = Case::new(n, d, spread, 3);
            for profile in PROFILES {
                let got = case.step(&Step { norm: Norm::Linf, profile, eps, size: a, scale: 1.0 });
                for i in 0..n {
                    let row = i * d..(i + 1) * d;
                    let want = linf(profile, &case.x[row.clone()], &case.x0[row.clone()], &case.g[row.clone()], eps, a);
                    for (k, (g, w)) in got[row].iter().zip(want).enumerate() {
                        assert_eq!(g.to_bits(), w.to_bits(), "{profile:?} {n}x{d} image {i} element {k}: {g} for {w}");
                    }
                }
            }
        }
    }
}

#[test]
fn linf_profiles_that_clip_at_the_end_agree_with_each_other() {
    let case = Case::new(4, 3000, 0.03, 5);
    let by = |profile| case.step(&Step { norm: Norm::Linf, profile, eps: 8.0 / 255.0, size: 2.0 / 255.0, scale: 1.0 });
    let native = by(Profile::Native);
    assert_eq!(native, by(Profile::Torchattacks));
    assert_eq!(native, by(Profile::Foolbox));
    assert_eq!(native, by(Profile::Cleverhans));
}

#[test]
fn l2_steps_agree_to_a_millionth() {
    for (n, d) in [(1, 1), (8, 147), (3, 9000)] {
        for (eps, a) in [(0.5, 0.125), (0.25, 1.0), (40.0, 0.3)] {
            let case = Case::new(n, d, 0.02, 4);
            for profile in PROFILES {
                let got = case.step(&Step { norm: Norm::L2, profile, eps, size: a, scale: 1.0 });
                for i in 0..n {
                    let row = i * d..(i + 1) * d;
                    let want = l2(profile, &case.x[row.clone()], &case.x0[row.clone()], &case.g[row.clone()], eps, a);
                    for (k, (&g, w)) in got[row].iter().zip(want).enumerate() {
                        let err = (f64::from(g) - w).abs();
                        assert!(err <= 1e-6, "{profile:?} {n}x{d} eps {eps} image {i} element {k}: {g} for {w}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_averaged_loss_matters_only_below_the_floor_of_a_profile() {
    let mut case = Case::new(2, 500, 0.02, 6);
    case.g.truncate(500);
    case.g.extend_from_within(..);
    case.g[500..].iter_mut().for_each(|g| *g *= 1e-7); // a norm near 2e-6: over 32 below cleverhans' floor of 1e-6
    let step = |profile, scale| case.step(&Step { norm: Norm::L2, profile, eps: 0.5, size: 0.1, scale });
    for profile in PROFILES {
        let (sum, mean) = (step(profile, 1.0), step(profile, 1.0 / 32.0));
        let moved = |row: std::ops::Range<usize>| {
            sum[row.clone()].iter().zip(&mean[row]).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
        };
        assert!(moved(0..500) <= 1e-6, "{profile:?}");
        assert_eq!(moved(500..1000) > 1e-3, profile == Profile::Cleverhans, "{profile:?}: {}", moved(500..1000));
    }
}

#[test]
fn momentum_agrees_with_its_formulas() {
    let case = Case::new(4, 777, 0.02, 8);
    let previous: Vec<f32> = case.x.iter().zip(&case.x0).map(|(a, b)| 10.0 * (a - b)).collect();
    for profile in PROFILES {
        for m in [None, Some(&previous)] {
            let mt = m.map(|m| case.tensor(m));
            let got = momentum(&case.device, mt.as_ref(), &case.tensor(&case.g), profile, 0.9, 1.0).unwrap();
            let got = got.to_f32(&case.device).unwrap();
            for i in 0..case.n {
                let g = &case.g[i * case.d..(i + 1) * case.d];
                let sum: f64 = g.iter().map(|&g| f64::from(g.abs())).sum();
                let mean = sum / case.d as f64;
                for (k, &g) in g.iter().enumerate() {
                    let ghat = match profile {
                        Profile::Native | Profile::Art => f64::from(g) / sum,
                        Profile::Torchattacks | Profile::Cleverhans => f64::from(g) / mean,
                        Profile::Foolbox => f64::from(sgn(g)),
                    };
                    let at = i * case.d + k;
                    let want = 0.9 * m.map_or(0.0, |m| f64::from(m[at])) + ghat;
                    let err = (f64::from(got[at]) - want).abs();
                    assert!(
                        err <= 1e-6 * (1.0 + want.abs()),
                        "{profile:?} image {i} element {k}: {} for {want}",
                        got[at]
                    );
                }
            }
        }
    }
}

#[test]
fn in_place_means_the_same_and_what_is_done_stays() {
    let c = Case::new(5, 4099, 0.05, 41);
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let done = [0, 1, 0, 0, 7];
    let flags = Tensor::from_i32(&c.device, &[5], &done).unwrap();
    let (x0, g) = (c.tensor(&c.x0), c.tensor(&c.g));
    for norm in NORMS {
        for profile in PROFILES {
            let s = Step { norm, profile, eps: 0.03, size: 0.01, scale: 0.5 };
            let want = c.step(&s);
            for flags in [None, Some(&flags)] {
                let x = c.tensor(&c.x);
                step_into(&c.device, [&x, &x0, &g, &x], &s, flags).unwrap();
                for (i, got) in x.to_f32(&c.device).unwrap().chunks_exact(c.d).enumerate() {
                    let from = if flags.is_some() && done[i] != 0 { &c.x } else { &want };
                    assert_eq!(bits(got), bits(&from[i * c.d..][..c.d]), "{s:?} image {i}");
                }
            }
        }
    }
    let refused = |flags: &Tensor| {
        let s = Step { norm: Norm::Linf, profile: Profile::Native, eps: 0.03, size: 0.01, scale: 1.0 };
        let x = c.tensor(&c.x);
        step_into(&c.device, [&x, &x0, &g, &x], &s, Some(flags)).unwrap_err().to_string()
    };
    let short = Tensor::from_i32(&c.device, &[4], &[0; 4]).unwrap();
    assert!(refused(&short).contains("done") && refused(&c.tensor(&c.x)).contains("I32"));
    for profile in PROFILES {
        let m = c.tensor(&c.x);
        let want = momentum(&c.device, Some(&m), &g, profile, 0.7, 0.5).unwrap().to_f32(&c.device).unwrap();
        momentum_in_place(&c.device, &m, &g, profile, 0.7, 0.5).unwrap();
        assert_eq!(bits(&m.to_f32(&c.device).unwrap()), bits(&want), "{profile:?}");
    }
}

#[test]
fn gradients_that_say_nothing_leave_no_nan_behind() {
    let d = 100;
    let kinds: Vec<Vec<f32>> = vec![
        vec![0.0; d],
        vec![f32::NAN; d],
        vec![f32::INFINITY; d],
        (0..d).map(|i| [f32::NAN, 1.0, f32::NEG_INFINITY, -2.0][i % 4]).collect(),
        vec![1e-40; d],
        vec![-3e38; d],
        vec![-0.0; d],
    ];
    let mut case = Case::new(kinds.len(), d, 0.02, 9);
    case.g = kinds.concat();
    for norm in NORMS {
        for profile in PROFILES {
            for eps in [0.03, 1e-30, 10.0] {
                let s = Step { norm, profile, eps, size: 0.01, scale: 1.0 };
                let y = case.step(&s);
                assert!(y.iter().all(|v| (0.0..=1.0).contains(v)), "{s:?}");
                if eps == 10.0 && norm == Norm::Linf {
                    assert_eq!(
                        &y[..d],
                        &linf(profile, &case.x[..d], &case.x0[..d], &case.g[..d], eps, 0.01)[..],
                        "a step of 0"
                    );
                }
            }
            let m = momentum(&case.device, None, &case.tensor(&case.g), profile, 1.0, 1.0).unwrap();
            let s = Step { norm: Norm::Linf, profile, eps: 0.03, size: 0.01, scale: 1.0 };
            let y = step(&case.device, &case.tensor(&case.x), &case.tensor(&case.x0), &m, &s).unwrap();
            assert!(y.to_f32(&case.device).unwrap().iter().all(|v| (0.0..=1.0).contains(v)), "{s:?}");
        }
    }
    // torchattacks divides 0 by 0: its momentum is NaN for good, and the image stands still.
    let m = momentum(&case.device, None, &case.tensor(&case.g), Profile::Torchattacks, 1.0, 1.0).unwrap();
    assert!(m.to_f32(&case.device).unwrap()[..d].iter().all(|v| v.is_nan()));
    let m = momentum(&case.device, None, &case.tensor(&case.g), Profile::Native, 1.0, 1.0).unwrap();
    assert!(m.to_f32(&case.device).unwrap()[..2 * d].iter().all(|&v| v == 0.0));
}

/// The offset each library adds to the clean image, before clipping, in float64.
fn offset(norm: Norm, profile: Profile, u: &[f32], extra: [f32; 2], eps: f64) -> Vec<f64> {
    let u: Vec<f64> = u.iter().map(|&u| u.into()).collect();
    let [a, b] = extra.map(f64::from);
    if norm == Norm::Linf {
        return u.iter().map(|u| eps * (2.0 * u - 1.0)).collect();
    }
    let square: f64 = u.iter().map(|u| u * u).sum();
    let n = square.sqrt();
    let factor = match profile {
        Profile::Native => eps / n * a,
        Profile::Torchattacks => a / n * eps,
        Profile::Foolbox => eps / (square + a * a + b * b).sqrt(),
        Profile::Art => a + b,
        Profile::Cleverhans => {
            let e: Vec<f64> = u.iter().map(|u| eps * (2.0 * u - 1.0)).collect();
            let n = e.iter().map(|e| e * e).sum::<f64>().sqrt();
            return e.iter().map(|e| e * (eps / n.max(1e-6)).min(1.0)).collect();
        }
    };
    u.iter().map(|u| u * factor).collect()
}

#[test]
fn starts_agree_with_their_formulas() {
    let (n, d, eps) = (3, 600, 0.4);
    let case = Case::new(n, d, 0.0, 11);
    let ids = [4, 5, 6];
    let stream = Stream::new(1, Purpose::Start);
    for norm in NORMS {
        for profile in PROFILES {
            let draw = if draws_normals(norm, profile) { normal } else { uniform };
            let draw = draw(&case.device, &stream, &ids, &[d]).unwrap();
            let extra = [[0.25, 1e-9], [0.5, -1.5], [1.0 / 3.0, 2.0]];
            let x0 = case.tensor(&case.x0);
            let got =
                start(&case.device, &x0, &draw, &extra, norm, profile, eps).unwrap().to_f32(&case.device).unwrap();
            let draw = draw.to_f32(&case.device).unwrap();
            for i in 0..n {
                let want = offset(norm, profile, &draw[i * d..(i + 1) * d], extra[i], eps);
                for (k, e) in want.iter().enumerate() {
                    let at = i * d + k;
                    let want = (f64::from(case.x0[at]) + e).clamp(0.0, 1.0);
                    assert!((f64::from(got[at]) - want).abs() <= 3e-7, "{norm:?} {profile:?}: {} for {want}", got[at]);
                }
            }
        }
    }
}

#[test]
fn budgets_are_measured_and_nan_violates() {
    let device = Device::host().unwrap();
    let x0 = vec![0.5f32; 3 * 5];
    let mut x = x0.clone();
    x[1] = 0.75;
    x[3] = 0.25;
    x[7] = f32::NAN;
    x[14] = 1.0 + f32::EPSILON;
    let t = |v: &[f32]| Tensor::from_f32(&device, &[3, 5], DType::F32, v).unwrap();
    let b = budget(&device, &t(&x), &t(&x0)).unwrap();
    assert_eq!(b[0], Budget { linf: 0.25, l2: 0.125f32.sqrt(), low: 0.25, high: 0.75 });
    assert!(!b[0].violates(Norm::Linf, 0.25) && b[0].violates(Norm::Linf, 0.2499));
    assert!(!b[0].violates(Norm::L2, 0.35356) && b[0].violates(Norm::L2, 0.3535));
    assert!(b[1].violates(Norm::Linf, 9.0) && b[1].violates(Norm::L2, 9.0), "NaN");
    assert!(b[2].violates(Norm::Linf, 9.0), "outside the box");
}

#[test]
fn rows_are_picked_and_put_back() {
    let device = Device::host().unwrap();
    let d = 5000; // more than one block
    let rows = |n: usize, base: f32| -> Vec<f32> {
        (0..n * d).map(|i| base + (i / d) as f32 + (i % d) as f32 / 8192.0).collect()
    };
    let (a, b) = (rows(3, 0.0), rows(4, 100.0));
    let t = |n: usize, v: &[f32]| Tensor::from_f32(&device, &[n, d], DType::F32, v).unwrap();
    let row = |v: &[f32], i: usize| v[i * d..(i + 1) * d].to_vec();
    let picked = gather(&device, &t(3, &a), &[Some(2), Some(0), Some(2)], None).unwrap();
    assert_eq!(picked.to_f32(&device).unwrap(), [row(&a, 2), row(&a, 0), row(&a, 2)].concat());
    let merged = gather(&device, &t(3, &a), &[None, Some(1), None, Some(0)], Some(&t(4, &b))).unwrap();
    assert_eq!(merged.to_f32(&device).unwrap(), [row(&b, 0), row(&a, 1), row(&b, 2), row(&a, 0)].concat());
    assert!(gather(&device, &t(3, &a), &[Some(3)], None).is_err(), "out of range");
    assert!(gather(&device, &t(3, &a), &[None], None).is_err(), "nothing to fall back on");
    assert!(gather(&device, &t(3, &a), &[None], Some(&t(4, &b))).is_err(), "another number of rows");
}

fn mix(v: u64) -> u64 {
    let v = (v ^ (v >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let v = (v ^ (v >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    v ^ (v >> 31)
}

#[test]
fn digests_are_those_of_a_plain_loop_and_tell_single_bits_apart() {
    let device = Device::host().unwrap();
    let of = |n: usize, values: &[f32]| {
        let x = Tensor::from_f32(&device, &[n, values.len() / n], DType::F32, values).unwrap();
        digest(&device, &x).unwrap()
    };
    for (n, d) in [(1, 1), (3, 7), (9, 131), (17, 3072)] {
        let case = Case::new(n, d, 0.1, 11);
        let want: Vec<u128> = case
            .x
            .chunks_exact(d)
            .map(|row| {
                let sum = |start: u64| {
                    let each =
                        |(i, v): (usize, &f32)| mix(((i as u64) << 32 | u64::from(v.to_bits())).wrapping_add(start));
                    row.iter().enumerate().map(each).fold(0u64, u64::wrapping_add)
                };
                u128::from(sum(0x3C6E_F372_FE94_F82A)) << 64 | u128::from(sum(0x9E37_79B9_7F4A_7C15))
            })
            .collect();
        assert_eq!(of(n, &case.x), want, "{n} x {d}");
    }
    let (n, d) = (65, 64);
    let mut values = vec![0.5f32; n * d];
    for i in 0..d {
        // Row i differs from the last one in the lowest bit of element i.
        values[i * d + i] = f32::from_bits(0.5f32.to_bits() + 1);
    }
    let mut found = of(n, &values);
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), n);
    assert_ne!(of(1, &[0.0]), of(1, &[-0.0]));
    let half = Tensor::from_f32(&device, &[2, 6], DType::BF16, &[0.5; 12]).unwrap();
    assert!(digest(&device, &half).is_err());
}

#[test]
fn mismatched_tensors_are_refused() {
    let device = Device::host().unwrap();
    let t = |shape: &[usize]| Tensor::from_f32(&device, shape, DType::F32, &vec![0.5; shape.iter().product()]).unwrap();
    let half = Tensor::from_f32(&device, &[2, 6], DType::BF16, &[0.5; 12]).unwrap();
    let s = Step { norm: Norm::Linf, profile: Profile::Native, eps: 0.1, size: 0.1, scale: 1.0 };
    assert!(step(&device, &t(&[2, 6]), &t(&[2, 5]), &t(&[2, 6]), &s).is_err());
    assert!(step(&device, &t(&[2, 6]), &t(&[2, 6]), &half, &s).is_err());
    assert!(budget(&device, &half, &t(&[2, 6])).is_err());
    assert!(start(&device, &t(&[2, 6]), &t(&[2, 6]), &[[0.0; 2]], Norm::L2, Profile::Native, 0.1).is_err());
}

proptest! {
    /// Ten steps from a random start: in the box, in the ball, whatever the gradients.
    #[test]
    fn iterates_stay_in_box_and_ball(
        profile in 0usize..5, l2: bool, eps in 1e-4f64..2.0, share in 0.01f64..3.0, d in 1usize..300, seed: u64,
    ) {
        let (norm, profile) = (NORMS[usize::from(l2)], PROFILES[profile]);
        let mut case = Case::new(3, d, 0.0, seed);
        let (ids, stream) = ([1, 2, 3], Stream::new(seed, Purpose::Start));
        let draw = if draws_normals(norm, profile) { normal } else { uniform };
        let draw = draw(&case.device, &stream, &ids, &[d]).unwrap();
        // ART's factor is worked out by the attack; here the sphere itself.
        let raw = draw.to_f32(&case.device).unwrap();
        let sphere = |i: usize| (eps / norm2(&raw[i * d..(i + 1) * d]).max(1e-9)) as f32;
        let extra = [0, 1, 2].map(|i| if profile == Profile::Art { [sphere(i), 0.0] } else { [0.9, 0.3] });
        let x0 = case.tensor(&case.x0);
        case.x = start(&case.device, &x0, &draw, &extra, norm, profile, eps).unwrap().to_f32(&case.device).unwrap();
        for k in 0..10 {
            for b in case.budgets(&case.x) {
                prop_assert!(!b.violates(norm, eps), "step {}: {:?}", k, b);
            }
            case.g = Case::new(3, d, 0.0, seed ^ (k + 1)).g;
            case.x = case.step(&Step { norm, profile, eps, size: share * eps, scale: 1.0 });
        }
    }

    /// An image's step does not depend on the images beside it.
    #[test]
    fn steps_do_not_depend_on_the_batch(profile in 0usize..5, l2: bool, d in 1usize..200, seed: u64) {
        let case = Case::new(5, d, 0.02, seed);
        let s = Step { norm: NORMS[usize::from(l2)], profile: PROFILES[profile], eps: 0.05, size: 0.02, scale: 1.0 };
        let all = case.step(&s);
        for i in 0..5 {
            let row = |v: &[f32]| v[i * d..(i + 1) * d].to_vec();
            let alone = Case { device: case.device.clone(), n: 1, d, x0: row(&case.x0), x: row(&case.x), g: row(&case.g) };
            prop_assert_eq!(alone.step(&s), row(&all));
        }
    }
}
