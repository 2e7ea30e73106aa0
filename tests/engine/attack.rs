//! Whole attacks on small networks: against plain Rust, in any batch, with and without early stop, restarts and targets.

use std::sync::Arc;

use rampart::attack::{
    Classifier, Evaluation, Loss, Norm, Oracle, Outcome, Profile, Query, Said, StartKind, Starts, Target,
};
use rampart::device::{DType, Device};
use rampart::ops::conv::{Conv2d, Window, conv2d};
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;
use rampart::{Error, Result};

use crate::network::*;

/// What a plain loop in float32 finds for one image: last, best margin, first success, steps.
struct Plain {
    last: Vec<f32>,
    best: Vec<f32>,
    margin: f32,
    loss: f32,
    first_success: Option<u32>,
    prediction: u32,
}

fn plain(net: &Net, x0: &[f32], y: u32, start: &[f32], eps: f64, size: f64, steps: u32, decay: Option<f64>) -> Plain {
    let (eps, size) = (eps as f32, size as f32);
    let mut x = start.to_vec();
    let mut m = vec![0f32; D];
    let mut p = Plain {
        last: vec![],
        best: vec![],
        margin: f32::INFINITY,
        loss: f32::NEG_INFINITY,
        first_success: None,
        prediction: 0,
    };
    let mut broken = false;
    for k in 0..=steps {
        let (h, z) = net.forward(&x);
        let (loss, dz, margin, prediction) = losses(&z, y as usize, None, Loss::CrossEntropy);
        p.prediction = prediction;
        p.loss = p.loss.max(loss);
        let success = prediction != y;
        if success && !broken {
            p.first_success = Some(k);
            p.margin = f32::INFINITY;
        }
        broken |= success;
        if success == broken && margin < p.margin {
            (p.margin, p.best) = (margin, x.clone());
        }
        if k == steps {
            break;
        }
        let g = net.input_gradient(&h, &dz);
        let sum: f32 = g.iter().map(|g| g.abs()).sum();
        for i in 0..D {
            let direction = match decay {
                Some(decay) => {
                    m[i] = decay as f32 * m[i] + g[i] / sum;
                    m[i]
                }
                None => g[i],
            };
            let sign = f32::from(direction > 0.0) - f32::from(direction < 0.0);
            let z = x[i] + size * sign;
            x[i] = (x0[i] + (z - x0[i]).clamp(-eps, eps)).clamp(0.0, 1.0);
        }
    }
    p.last = x;
    p
}

#[test]
fn pgd_and_mim_agree_with_a_plain_loop_bit_for_bit() {
    let net = Net::new();
    let data = data(&net, 24);
    let noise: Vec<f32> = numbers(24 * D, 55).iter().map(|u| 0.06 * (2.0 * u - 1.0)).collect();
    let starts: Vec<f32> = data.0.iter().zip(&noise).map(|(x, e)| (x + e).clamp(0.0, 1.0)).collect();
    for method in ["pgd", "mim"] {
        let file = Starts::new(StartKind::Clipped, 1, &data.2, SHAPE, starts.clone(), vec![]).unwrap();
        let spec = Try {
            method,
            eps: 0.06,
            steps: 9,
            step_size: Some(0.013),
            decay: 0.7,
            starts: Some(file),
            ..Try::default()
        };
        let (outcomes, points) = attack(&net, &data, &spec);
        let mut successes = 0;
        for (i, o) in outcomes.iter().enumerate() {
            let row = i * D..(i + 1) * D;
            let decay = (method == "mim").then_some(0.7);
            let want = plain(&net, &data.0[row.clone()], data.1[i], &starts[row.clone()], 0.06, 0.013, 9, decay);
            assert_eq!(points.last[row.clone()], want.last[..], "image {i}");
            assert_eq!(points.best_margin[row], want.best[..], "image {i}");
            assert_eq!(
                (o.margin, o.loss, o.first_success, o.prediction),
                (want.margin, want.loss, want.first_success, want.prediction)
            );
            assert_eq!(o.steps, 9);
            successes += usize::from(want.first_success.is_some_and(|k| k > 0));
        }
        assert!((3..24).contains(&successes), "the test attacks too weakly or too strongly: {successes}");
    }
}

#[test]
fn what_is_handed_on_is_the_best_success_or_else_the_highest_loss() {
    let net = Net::new();
    let data = data(&net, 40);
    let (outcomes, points) = attack(&net, &data, &Try { eps: 0.05, ..Try::default() });
    let image = |v: &[f32], i: usize| v[i * D..(i + 1) * D].to_vec();
    let mut differ = 0;
    for (i, o) in outcomes.iter().enumerate() {
        let (_, z) = net.forward(&image(&points.best, i));
        let (loss, _, margin, prediction) = losses(&z, data.1[i] as usize, None, Loss::CrossEntropy);
        if o.first_success.is_some() {
            assert_ne!(prediction, data.1[i]);
            assert_eq!((margin, image(&points.best, i)), (o.margin, image(&points.best_margin, i)));
        } else {
            assert_eq!((prediction, loss), (data.1[i], o.loss));
        }
        differ += usize::from(image(&points.best, i) != image(&points.last, i));
    }
    assert!(differ > 0);
}

/// Outcomes and images by id must not depend on how images were batched or ordered.
fn assert_batch_invariant(net: &dyn Classifier, data: &(Vec<f32>, Vec<u32>, Vec<u64>), spec: &Try) {
    let (images, labels, ids) = data;
    let (n, d) = (labels.len(), images.len() / labels.len());
    let whole = attack(net, data, spec);
    let orders: [(usize, Vec<usize>); 3] =
        [(1, (0..n).collect()), (7, (0..n).rev().collect()), (n, (0..n).map(|i| i * 29 % n).collect())];
    for (batch, order) in orders {
        for part in order.chunks(batch) {
            let pick = |v: &[f32]| -> Vec<f32> { part.iter().flat_map(|&i| v[i * d..(i + 1) * d].to_vec()).collect() };
            let some =
                (pick(images), part.iter().map(|&i| labels[i]).collect(), part.iter().map(|&i| ids[i]).collect());
            let (outcomes, points) = attack(net, &some, spec);
            let expected: Vec<Outcome> = part.iter().map(|&i| whole.0[i]).collect();
            assert_eq!(outcomes, expected, "batches of {batch}, {spec:?}");
            for (got, all) in [
                (&points.last, &whole.1.last),
                (&points.best_margin, &whole.1.best_margin),
                (&points.best, &whole.1.best),
            ] {
                assert!(*got == pick(all), "batches of {batch}, {spec:?}");
            }
        }
    }
}

#[test]
fn batch_size_and_order_change_nothing() {
    let net = Net::new();
    let data = data(&net, 64);
    for norm in [Norm::Linf, Norm::L2] {
        for early_stop in [false, true] {
            for target in [Target::None, Target::Random] {
                let spec = Try {
                    norm,
                    eps: eps_of(norm),
                    steps: 6,
                    restarts: 3,
                    early_stop,
                    target,
                    seed: 5,
                    ..Try::default()
                };
                assert_batch_invariant(&net, &data, &spec);
            }
        }
    }
    assert_batch_invariant(
        &net,
        &data,
        &Try { method: "mim", random_start: false, early_stop: true, ..Try::default() },
    );
    for profile in [Profile::Foolbox, Profile::Art] {
        let spec = Try { profile, norm: Norm::L2, eps: 0.3, steps: 6, restarts: 2, ..Try::default() };
        assert_batch_invariant(&net, &data, &spec);
    }
}

/// Convolution, ReLU and a convolution over the whole image, on our own kernels.
struct ConvNet {
    device: Device,
    first: Arc<Conv2d>,
    second: Arc<Conv2d>,
}

impl ConvNet {
    fn new() -> Self {
        let device = Device::host().unwrap();
        let weights =
            |n, seed, scale: f32| -> Vec<f32> { numbers(n, seed).iter().map(|u| scale * (2.0 * u - 1.0)).collect() };
        let conv =
            |w: &[f32], shape, window| Arc::new(Conv2d::new(&device, Precision::F32, w, shape, None, window).unwrap());
        let first = conv(&weights(8 * 27, 201, 0.5), [8, 3, 3, 3], Window::square(1, 1));
        let second = conv(&weights(K * 8 * 20, 202, 0.5), [K, 8, 5, 4], Window::default());
        ConvNet { first, second, device }
    }

    fn look(
        &self,
        images: &Tensor,
        labels: &[u32],
        targets: Option<&[u32]>,
        loss: Loss,
        wanted: bool,
    ) -> Result<Evaluation> {
        let graph = if wanted { recording } else { Graph::inference };
        let g = graph(&self.device, Precision::F32);
        let h = conv2d(&g, images, &self.first, None, Activation::Relu)?;
        let z = conv2d(&g, &h, &self.second, None, Activation::None)?;
        let logits = z.to_f32(&self.device)?;
        let each: Vec<_> = logits
            .chunks_exact(K)
            .enumerate()
            .map(|(i, z)| losses(z, labels[i] as usize, targets.map(|t| t[i] as usize), loss))
            .collect();
        let dz: Vec<f32> = each.iter().flat_map(|e| e.1.clone()).collect();
        let gradient = if wanted {
            let dz = Tensor::from_f32(&self.device, z.shape(), DType::F32, &dz)?;
            Some(g.backward(&z, dz, images)?)
        } else {
            None
        };
        Ok(Evaluation {
            gradient,
            loss: each.iter().map(|e| e.0).collect(),
            margin: each.iter().map(|e| e.2).collect(),
            prediction: each.iter().map(|e| e.3).collect(),
        })
    }
}

impl Oracle for ConvNet {
    fn device(&self) -> &Device {
        &self.device
    }
    fn classes(&self) -> usize {
        K
    }
    fn image_shape(&self) -> [usize; 3] {
        SHAPE
    }
    fn logits(&self, _: &Tensor) -> Result<Tensor> {
        unreachable!("no rule of these tests asks for logits")
    }
    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.look(images, query.labels, query.targets, query.loss, false)
    }
}

impl Classifier for ConvNet {
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.look(images, query.labels, query.targets, query.loss, true)
    }
}

#[test]
fn a_network_of_our_own_kernels_is_batch_invariant_too() {
    let net = ConvNet::new();
    let images = numbers(64 * D, 7);
    let x = Tensor::from_f32(&net.device, &[64, 5, 4, 3], DType::F32, &images).unwrap();
    let labels = net.evaluate(&x, &Query::new(&[0; 64], Loss::CrossEntropy)).unwrap().prediction;
    let data = (images, labels, (0..64).collect());
    for norm in [Norm::Linf, Norm::L2] {
        for early_stop in [false, true] {
            let spec = Try { norm, eps: eps_of(norm), steps: 5, restarts: 2, early_stop, ..Try::default() };
            assert_batch_invariant(&net, &data, &spec);
        }
    }
}

#[test]
fn early_stop_finds_the_same_and_computes_less() {
    let net = Net::new();
    let data = data(&net, 64);
    for norm in [Norm::Linf, Norm::L2] {
        for restarts in [1, 3] {
            for target in [Target::None, Target::Next, Target::LeastLikely] {
                let spec = Try { norm, eps: eps_of(norm), steps: 12, restarts, target, ..Try::default() };
                net.gradients.set(0);
                let (full, points) = attack(&net, &data, &spec);
                assert_eq!(net.gradients.get(), points.work.gradients);
                let (stopped, saved) = attack(&net, &data, &Try { early_stop: true, ..spec.clone() });
                assert_eq!(net.gradients.get(), points.work.gradients + saved.work.gradients);
                for (f, s) in full.iter().zip(&stopped) {
                    assert_eq!(s.correct_clean, f.correct_clean);
                    // Aimed at a target, the iterates after the first success may be of any class.
                    if target == Target::None {
                        assert_eq!((s.correct_any, s.correct_last), (f.correct_any, s.correct_any));
                    }
                    // Whatever the network says of the clean image, it may be driven to the target.
                    let driven = s.correct_clean || target != Target::None;
                    if driven && s.first_success.is_some() {
                        assert_eq!(s.first_success, f.first_success);
                        assert_eq!(Some(s.steps), s.first_success);
                    }
                    assert!(driven || s.steps == 0);
                    if target != Target::None {
                        assert_eq!(s.first_success.is_some(), f.first_success.is_some());
                    }
                }
                let broken = count(&stopped, |o| o.correct_clean && o.first_success.is_some());
                assert!(broken > 0, "{spec:?}");
                assert!(saved.work.gradients < points.work.gradients, "{:?} {:?}", saved.work, points.work);
                // An image costs a gradient per step it takes, and one more where it was found to be done.
                let steps: u64 = stopped.iter().map(|o| u64::from(o.steps)).sum();
                let found =
                    stopped.iter().filter(|o| o.first_success.is_some_and(|k| k < restarts * 12)).count() as u64;
                assert!(
                    (steps..=steps + found).contains(&saved.work.gradients),
                    "{} {steps} {found}",
                    saved.work.gradients
                );
                assert_eq!(points.work.gradients, full.iter().map(|o| u64::from(o.steps)).sum::<u64>());
            }
        }
    }
}

#[test]
fn more_steps_of_one_size_only_help() {
    let net = Net::new();
    let data = data(&net, 64);
    for norm in [Norm::Linf, Norm::L2] {
        let mut before: Option<Vec<Outcome>> = None;
        for steps in [0, 1, 2, 4, 8, 16] {
            let spec =
                Try { norm, eps: eps_of(norm), steps, step_size: Some(eps_of(norm) / 6.0), seed: 2, ..Try::default() };
            let (now, _) = attack(&net, &data, &spec);
            if let Some(before) = &before {
                for (b, n) in before.iter().zip(&now) {
                    assert!(b.correct_any || !n.correct_any, "a longer run lost a success");
                    assert!(b.first_success.is_none() || b.first_success == n.first_success);
                }
            }
            before = Some(now);
        }
    }
}

#[test]
fn restarts_only_help() {
    let net = Net::new();
    let data = data(&net, 64);
    for norm in [Norm::Linf, Norm::L2] {
        for early_stop in [false, true] {
            let by = |restarts| {
                let spec =
                    Try { norm, eps: eps_of(norm) * 0.8, steps: 4, restarts, early_stop, seed: 3, ..Try::default() };
                attack(&net, &data, &spec)
            };
            let runs = [by(1), by(2), by(8)];
            for pair in runs.windows(2) {
                for (one, more) in pair[0].0.iter().zip(&pair[1].0) {
                    assert!(one.correct_any || !more.correct_any);
                    assert!(one.correct_last || !more.correct_last);
                    if !one.correct_last {
                        assert_eq!(one, more, "an image whose last point is a success enters no further restart");
                    }
                }
            }
            assert!(count(&runs[2].0, |o| o.correct_any) < count(&runs[0].0, |o| o.correct_any), "{norm:?}");
        }
    }
}

#[test]
fn fgsm_is_one_step_from_the_clean_image() {
    let net = Net::new();
    let data = data(&net, 30);
    for profile in PROFILES {
        for norm in [Norm::Linf, Norm::L2] {
            let spec = Try { profile, norm, eps: eps_of(norm), ..Try::default() };
            let fgsm = Try { method: "fgsm", ..spec.clone() };
            let one = Try { steps: 1, step_size: Some(spec.eps), random_start: false, ..spec };
            assert_eq!(attack(&net, &data, &fgsm), attack(&net, &data, &one), "{profile:?} {norm:?}");
        }
    }
}

#[test]
fn without_eps_there_is_no_attack() {
    let net = Net::new();
    let data = data(&net, 20);
    for norm in [Norm::Linf, Norm::L2] {
        for early_stop in [false, true] {
            let (outcomes, points) =
                attack(&net, &data, &Try { eps: 0.0, norm, early_stop, restarts: 4, ..Try::default() });
            assert_eq!((points.work.gradients, points.work.forwards), (0, 20));
            assert_eq!([&points.last, &points.best, &points.best_margin], [&data.0; 3]);
            for (o, &y) in outcomes.iter().zip(&data.1) {
                let correct = o.clean_prediction == y;
                assert_eq!((o.correct_clean, o.correct_last, o.correct_any), (correct, correct, correct));
                assert_eq!((o.prediction, o.first_success, o.steps), (o.clean_prediction, None, 0));
                assert_eq!((o.linf, o.l2), (0.0, 0.0));
            }
            assert!(count(&outcomes, |o| !o.correct_clean) >= 2);
        }
    }
}

#[test]
fn every_profile_stays_within_its_budget_and_breaks_images() {
    let mut net = Net::new();
    let data = data(&net, 48);
    for profile in PROFILES {
        for norm in [Norm::Linf, Norm::L2] {
            for scale in [1.0, 1e-4] {
                net.scale = scale;
                let spec = Try { profile, norm, eps: eps_of(norm) * 2.0, random_start: true, ..Try::default() };
                let (outcomes, _) = attack(&net, &data, &spec);
                let clean = count(&outcomes, |o| o.correct_clean);
                let robust = count(&outcomes, |o| o.correct_any);
                assert!(robust * 2 < clean, "{profile:?} {norm:?}: {robust} of {clean} robust");
                assert!(
                    outcomes
                        .iter()
                        .any(|o| if norm == Norm::Linf { f64::from(o.linf) } else { o.l2.into() } > 0.9 * spec.eps)
                );
            }
        }
    }
    net.scale = 0.0;
    for profile in PROFILES {
        for (norm, method) in [(Norm::Linf, "pgd"), (Norm::L2, "pgd"), (Norm::Linf, "mim")] {
            let spec = Try { profile, norm, method, eps: eps_of(norm), random_start: false, ..Try::default() };
            let (outcomes, points) = attack(&net, &data, &spec);
            assert_eq!(points.last, data.0, "a gradient of 0 moves nothing: {spec:?}");
            assert!(outcomes.iter().all(|o| o.correct_any == o.correct_clean));
        }
    }
}

#[test]
fn native_l2_does_not_feel_how_small_gradients_are() {
    let mut net = Net::new();
    let data = data(&net, 20);
    let spec = Try { norm: Norm::L2, eps: 0.3, ..Try::default() };
    let normal = attack(&net, &data, &spec).1.last;
    net.scale = 2f32.powi(-80); // squares underflow; a power of two keeps every digit
    assert_eq!(attack(&net, &data, &spec).1.last, normal);
}

#[test]
fn targets_follow_their_rules() {
    let net = Net::new();
    let data = data(&net, 60);
    let x = Tensor::from_f32(&net.device, &[60, 5, 4, 3], DType::F32, &data.0).unwrap();
    let logits = net.logits(&x).unwrap().to_f32(&net.device).unwrap();
    let order = |i: usize| {
        let mut o: Vec<u32> = (0..K as u32).collect();
        o.sort_by(|&a, &b| logits[i * K + b as usize].total_cmp(&logits[i * K + a as usize]));
        o
    };
    type Rule<'a> = (Target, &'a dyn Fn(usize) -> Option<u32>);
    let rules: [Rule; 5] = [
        (Target::Next, &|i| Some((data.1[i] + 1) % K as u32)),
        (Target::Class(3), &|_| Some(3)),
        (Target::LeastLikely, &|i| order(i).last().copied()),
        (Target::SecondLikely, &|i| Some(order(i)[1])),
        (Target::Random, &|_| None),
    ];
    for loss in [Loss::CrossEntropy, Loss::Margin] {
        for (target, rule) in rules {
            let (outcomes, _) = attack(&net, &data, &Try { target, loss, eps: 0.3, steps: 20, ..Try::default() });
            let mut reached = 0;
            for (i, o) in outcomes.iter().enumerate() {
                if target == Target::Class(3) && data.1[i] == 3 {
                    assert_eq!((o.steps, o.correct_any, o.correct_last), (0, o.correct_clean, o.correct_clean));
                } else if !o.correct_last && o.correct_clean {
                    reached += 1;
                    assert_ne!(o.prediction, data.1[i]);
                    assert!(o.margin < 0.0);
                    if let Some(t) = rule(i) {
                        assert_eq!(o.prediction, t, "{target:?}");
                    }
                }
            }
            assert!(reached > 15, "{target:?}: {reached}");
        }
    }
    // Random targets: every wrong class occurs, the seed matters, and so does the id.
    let by = |seed| attack(&net, &data, &Try { target: Target::Random, eps: 0.3, steps: 20, seed, ..Try::default() }).0;
    let (a, b) = (by(0), by(1));
    assert!(a.iter().zip(&b).any(|(a, b)| a.prediction != b.prediction));
    let hit: std::collections::HashSet<u32> = a.iter().filter(|o| !o.correct_last).map(|o| o.prediction).collect();
    assert_eq!(hit.len(), K);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let net = Net::new();
    let data = data(&net, 2);
    for (field, table) in [
        ("attack.method", "method = 'bim'"),
        ("attack.eps", "eps = [-0.1]"),
        ("attack.eps", "eps = [nan]"),
        ("attack.step_size", "step_size = 0"),
        ("attack.step_size", "profile = 'cleverhans'\nsteps = 9\nstep_size = 0.1"),
        ("attack.restarts", "restarts = 0"),
        ("attack.restarts", "restarts = 2\nrandom_start = false"),
        ("attack.norm", "method = 'mim'\nnorm = 'l2'"),
        ("attack.decay", "method = 'pgd'\ndecay = 1"),
        ("attack.steps", "method = 'fgsm'\nsteps = 1"),
        ("attack.restarts", "method = 'random'\nrestarts = 2"),
    ] {
        match toml::from_str::<Said>(table).unwrap().decided() {
            Err(Error::Usage { field: found, .. }) => assert_eq!(found, field, "{table}"),
            other => panic!("{table}: {other:?}"),
        }
    }
    for (field, bad) in [
        ("attack.targeted", Try { target: Target::Class(5), ..Try::default() }),
        (
            "attack.restarts",
            Try {
                restarts: 2,
                starts: Some(Starts::new(StartKind::Clipped, 1, &data.2, SHAPE, data.0.clone(), vec![]).unwrap()),
                ..Try::default()
            },
        ),
    ] {
        match bad.run(&net, &data.0, &data.1, &data.2) {
            Err(Error::Usage { field: found, .. }) => assert_eq!(found, field, "{bad:?}"),
            other => panic!("{bad:?}: {other:?}"),
        }
    }
    let shape = |images: &[f32], labels: &[u32], ids: &[u64]| {
        Try::default().run(&net, images, labels, ids).unwrap_err().to_string()
    };
    assert!(shape(&data.0[D..], &data.1, &data.2).contains("images"));
    assert!(shape(&data.0, &data.1, &data.2[1..]).contains("ids"));
    assert!(shape(&data.0, &[0, 5], &data.2).contains("label of image 1000020"));
    assert!(shape(&[&data.0[1..], &[1.5]].concat(), &data.1, &data.2).contains("0 to 1"));
    assert!(shape(&[&data.0[1..], &[f32::NAN]].concat(), &data.1, &data.2).contains("no numbers"));
    assert!(shape(&[], &[], &[]).contains("images"));
}

#[test]
fn what_is_decided_reads_back_the_same() {
    for table in [
        "",
        "method = 'fgsm'",
        "method = 'mim'\ndecay = 0.5",
        "method = 'random'\nsteps = 7\nearly_stop = true",
        "profile = 'foolbox'\nnorm = 'l2'",
        "eps = ['8/255']\nstep_size = '2/255'\nrestarts = 3\nloss = 'dlr'\ntargeted = 'next'",
        "space = 'normalised'",
        "method = 'fgsm'\nhand_over = '8-bit'",
    ] {
        let spec = toml::from_str::<Said>(table).unwrap().decided().unwrap();
        let text = toml::to_string(&spec).unwrap();
        assert_eq!(toml::from_str::<Said>(&text).unwrap().decided().unwrap(), spec, "{text}");
    }
}

#[test]
fn random_search_keeps_the_best_of_its_points_and_asks_for_no_gradient() {
    let net = Net::new();
    let data = data(&net, 64);
    for norm in [Norm::Linf, Norm::L2] {
        let by = |steps, early_stop| {
            let eps = 2.0 * eps_of(norm);
            attack(&net, &data, &Try { method: "random", norm, eps, steps, early_stop, ..Try::default() })
        };
        let ((few, first), (many, points)) = (by(4, false), by(40, false));
        assert_eq!((points.work.gradients, net.gradients.get()), (0, 0));
        assert_eq!((points.work.forwards, first.work.forwards), (41 * 64, 5 * 64));
        for (i, (few, many)) in few.iter().zip(&many).enumerate() {
            assert!(few.correct_any || !many.correct_any, "more points lost a success");
            assert!(many.loss >= few.loss);
            let (_, z) = net.forward(&points.best[i * D..][..D]);
            assert_eq!(
                losses(&z, data.1[i] as usize, None, Loss::CrossEntropy).3 != data.1[i],
                many.first_success.is_some()
            );
        }
        let broken = |o: &Outcome| o.correct_clean && !o.correct_any;
        assert!(count(&many, broken) > count(&few, broken), "{norm:?}");
        let (stopped, saved) = by(40, true);
        assert!(saved.work.forwards < points.work.forwards);
        assert!(stopped.iter().zip(&many).all(|(s, m)| s.correct_any == m.correct_any));
    }
    let weak = attack(&net, &data, &Try { method: "random", eps: 0.06, steps: 9, ..Try::default() }).0;
    let pgd = attack(&net, &data, &Try { eps: 0.06, steps: 9, ..Try::default() }).0;
    assert!(count(&pgd, |o| o.correct_any) < count(&weak, |o| o.correct_any), "a gradient is worth more than luck");
}

/// A network that answers with another loss at every step: no iterate of it comes round.
struct Restless<'a>(&'a Net);

impl Oracle for Restless<'_> {
    fn device(&self) -> &Device {
        self.0.device()
    }
    fn classes(&self) -> usize {
        self.0.classes()
    }
    fn image_shape(&self) -> [usize; 3] {
        self.0.image_shape()
    }
    fn repeats_itself(&self) -> bool {
        false
    }
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        self.0.logits(images)
    }
    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.0.evaluate(images, query)
    }
}

impl Classifier for Restless<'_> {
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.0.gradient(images, query)
    }
}

#[test]
fn circles_are_left_early_and_nothing_else_changes() {
    let net = Net::new();
    let data = data(&net, 64);
    let (mut periods_left, mut all) = (0, 0);
    for norm in [Norm::Linf, Norm::L2] {
        for (restarts, early_stop, target) in
            [(1, false, Target::None), (3, false, Target::None), (2, true, Target::None), (2, false, Target::Next)]
        {
            for steps in [1, 2, 3, 10, 77, 400] {
                let spec = Try {
                    norm,
                    eps: eps_of(norm),
                    steps,
                    step_size: Some(eps_of(norm) / 3.0),
                    restarts,
                    early_stop,
                    target,
                    stop_cycles: true,
                    ..Try::default()
                };
                let (stopped, points) = attack(&net, &data, &spec);
                let (full, whole) = attack(&net, &data, &Try { stop_cycles: false, ..spec.clone() });
                let saved: u64 = stopped.iter().map(|o| u64::from(o.steps_saved)).sum();
                let plain: Vec<Outcome> = stopped.iter().map(|&o| Outcome { steps_saved: 0, ..o }).collect();
                assert_eq!(plain, full, "{spec:?}");
                assert!(full.iter().all(|o| o.steps_saved == 0));
                let [a, b] = [&points, &whole].map(|p| Points { work: Default::default(), ..p.clone() });
                assert!(a == b, "the points of {spec:?}");
                // The last look at each circle asked for a gradient that led nowhere.
                let circles: u64 = whole.work.gradients - points.work.gradients;
                assert!(circles <= saved && (saved == 0 || circles > 0), "{circles} of {saved}");
                periods_left += saved;
                all += full.iter().map(|o| u64::from(o.steps)).sum::<u64>();
                assert_batch_invariant(&net, &data, &spec);
                // A further restart takes all images of a network that does not repeat itself.
                if restarts == 1 {
                    let (restless, _) = attack(&Restless(&net), &data, &spec);
                    assert_eq!(restless, full);
                }
            }
        }
    }
    // Otherwise the test proves nothing.
    assert!(periods_left > all / 10, "{periods_left} of {all} steps");
}
