//! DDN and FMN on a small network: against foolbox, and image by image.

use rampart::attack::{Classifier, Loss, Norm, Oracle, Outcome, Profile, Query};
use rampart::device::DType;
use rampart::ops::min_norm::{Onto, step};
use rampart::ops::pgd::budget;
use rampart::tensor::Tensor;

use crate::network::*;

const IMAGES: usize = 12;

/// What foolbox 3.3.4 finds in float64: `tools/baseline/min_norm_torch.py --known`.
const DDN_L2: [f64; IMAGES] = [
    0.216659, 0.103489, 0.011315, 0.409927, 0.0522109, 0.0132628, 0.207449, 0.00679859, 0.241002, 0.0908415, 0.0223705,
    0.0386239,
];
const FMN_L2: [f64; IMAGES] = [
    0.873693, 0.895067, 0.885663, 0.904974, 0.947739, 0.923482, 0.904718, 0.941073, 0.9386, 0.901155, 0.903455,
    0.898248,
];
const FMN_LINF: [f64; IMAGES] = [
    0.0364288,
    0.0169453,
    0.0017799,
    0.071834,
    0.00853835,
    0.00220988,
    0.0364603,
    0.000718855,
    0.0376447,
    0.0149386,
    0.00360187,
    0.00642143,
];

fn of(method: &'static str, norm: Norm, profile: Profile) -> Try {
    let loss = if method == "ddn" { Loss::CrossEntropy } else { Loss::Margin };
    let eps = if norm == Norm::Linf { 1.0 } else { 8.0 };
    Try { method, norm, profile, loss, eps, steps: 100, step_size: Some(1.0), random_start: false, ..Try::default() }
}

/// Images with the labels that the network gives them.
fn right(net: &Net, n: usize) -> (Vec<f32>, Vec<u32>, Vec<u64>) {
    let (images, _, ids) = data(net, n);
    let x = Tensor::from_f32(&net.device, &[n, SHAPE[0], SHAPE[1], SHAPE[2]], DType::F32, &images).unwrap();
    let labels = net.evaluate(&x, &Query::new(&vec![0; n], Loss::Margin)).unwrap().prediction;
    (images, labels, ids)
}

fn radius(outcome: &Outcome) -> f64 {
    outcome.radius.unwrap_or(f64::INFINITY)
}

#[test]
fn the_smallest_perturbations_are_those_of_foolbox() {
    let net = Net::new();
    let data = right(&net, IMAGES);
    for (spec, known) in [
        (of("ddn", Norm::L2, Profile::Native), DDN_L2),
        (of("fmn", Norm::L2, Profile::Foolbox), FMN_L2),
        (of("fmn", Norm::Linf, Profile::Foolbox), FMN_LINF),
    ] {
        let (outcomes, _) = attack(&net, &data, &spec);
        for (i, (outcome, known)) in outcomes.iter().zip(known).enumerate() {
            let apart = (radius(outcome) / known - 1.0).abs();
            assert!(apart < 1e-3, "{} {} image {i}: {} beside {known}", spec.method, spec.norm, radius(outcome));
        }
    }
}

#[test]
fn the_projection_finds_in_l2_what_ddn_finds() {
    let net = Net::new();
    let data = right(&net, IMAGES);
    let [ddn, fmn] = ["ddn", "fmn"].map(|method| attack(&net, &data, &of(method, Norm::L2, Profile::Native)).0);
    for (i, (a, b)) in ddn.iter().zip(&fmn).enumerate() {
        let ratio = radius(b) / radius(a);
        // DDN comes from 1 by a twentieth a step: in 100 steps it is hardly below 0.006, where FMN goes on.
        let least = if radius(a) > 0.03 { 0.9 } else { 0.5 };
        assert!((least..1.02).contains(&ratio), "image {i}: DDN {}, FMN {}", radius(a), radius(b));
    }
    let (own, _) = attack(&net, &data, &of("fmn", Norm::Linf, Profile::Native));
    for (i, (outcome, known)) in own.iter().zip(FMN_LINF).enumerate() {
        assert!((0.98..1.02).contains(&(radius(outcome) / known)), "image {i}: {} beside {known}", radius(outcome));
    }
}

/// One image on its own, as the papers write it.
fn alone(net: &Net, (image, label): (&[f32], u32), spec: &Try) -> Option<(f64, Vec<f32>)> {
    let up = |v: &[f32]| Tensor::from_f32(&net.device, &[1, SHAPE[0], SHAPE[1], SHAPE[2]], DType::F32, v).unwrap();
    let (x0, mut x) = (up(image), up(image));
    let ddn = spec.method == "ddn";
    let onto = if ddn { Onto::Sphere } else { Onto::Ball(spec.norm) };
    let (mut radius, mut nearest) = (if ddn { 1f32 } else { f32::INFINITY }, f32::INFINITY);
    let mut found = None;
    for k in 0..spec.steps {
        let cosine = (1.0 + (std::f64::consts::PI * f64::from(k) / f64::from(spec.steps)).cos()) / 2.0;
        let gamma = if ddn { 0.05 } else { 0.001 + (0.05 - 0.001) * cosine };
        let told = net.gradient(&x, &Query::new(&[label], spec.loss)).unwrap();
        let size = budget(&net.device, &x, &x0).unwrap()[0];
        let length = if spec.norm == Norm::Linf { size.linf } else { size.l2 };
        let wrong = told.prediction[0] != label;
        if wrong && length <= nearest {
            nearest = length;
            found = Some((f64::from(length), x.to_f32(&net.device).unwrap()));
        }
        if k + 1 == spec.steps {
            break;
        }
        let times = |factor: f64| (f64::from(radius) * factor) as f32;
        let row = if wrong && ddn {
            [times(1.0 - gamma), 0.0]
        } else if wrong {
            [times(1.0 - gamma).min(nearest), 0.0]
        } else if ddn || nearest < f32::INFINITY {
            [times(1.0 + gamma), 0.0]
        } else if radius < f32::INFINITY {
            [times(1.0 + gamma), told.loss[0].abs()]
        } else {
            [length, told.loss[0].abs()]
        };
        let stepped = (0.01 + 0.99 * cosine) as f32;
        let (next, told) = step(&net.device, [&x, &x0, &told.gradient.unwrap()], &[row], stepped, onto).unwrap();
        (x, radius) = (next, told[0].radius);
    }
    found
}

#[test]
fn batches_change_nothing_and_a_smaller_budget_leaves_more() {
    let net = Net::new();
    let data = data(&net, 20);
    for (method, norm) in [("ddn", Norm::L2), ("fmn", Norm::L2), ("fmn", Norm::Linf)] {
        let spec = of(method, norm, Profile::Native);
        let (all, points) = attack(&net, &data, &spec);
        for (i, outcome) in all.iter().enumerate() {
            let own = i * D..(i + 1) * D;
            let image = &data.0[own.clone()];
            let (far, at) = match outcome.correct_clean {
                true => alone(&net, (image, data.1[i]), &spec).unwrap_or_else(|| panic!("{method} {norm} image {i}")),
                false => (f64::INFINITY, image.to_vec()),
            };
            assert_eq!((radius(outcome), &points.last[own]), (far, &at[..]), "{method} {norm} image {i}");
        }
        // Within half of the largest of the radii.
        let largest = all.iter().map(radius).filter(|r| r.is_finite()).fold(0.0, f64::max);
        let eps = largest / 2.0;
        let (some, within) = attack(&net, &data, &Try { eps, ..spec });
        for (i, outcome) in all.iter().enumerate() {
            let own = i * D..(i + 1) * D;
            let broken = radius(outcome) <= eps;
            assert_eq!(some[i].radius, outcome.radius.filter(|_| broken), "{method} {norm} image {i}");
            assert_eq!(some[i].correct_any, some[i].correct_clean && !broken, "{method} {norm} image {i}");
            let last = if broken { &points.last } else { &data.0 };
            assert_eq!(within.last[own.clone()], last[own], "{method} {norm} image {i}");
        }
        assert!((1..18).contains(&count(&some, |o| o.correct_any)), "{method} {norm}");
    }
}

/// Where the gradient is 0, DDN goes some way all the same, and every image another.
#[test]
fn a_plateau_is_left_in_a_random_direction() {
    let net = Net { scale: 0.0, ..Net::new() };
    let data = right(&net, 4);
    let spec = Try { steps: 3, ..of("ddn", Norm::L2, Profile::Native) };
    let (once, points) = attack(&net, &data, &spec);
    let (_, again) = attack(&net, &data, &spec);
    assert_eq!(points, again);
    // Half the unit sphere of 60 dimensions is enough for one of these: 0.4 at most breaks each along its gradient.
    assert!(once.iter().any(|o| o.steps == 2 && o.margin < f32::INFINITY), "{once:?}");
    let (_, other) = attack(&net, &data, &Try { seed: 1, ..spec });
    assert!(points.best_margin != other.best_margin || points.best != other.best);
}
