//! Whole attacks on small networks: against plain Rust, in any batch, with and without early stop, restarts and targets.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use rampart::attack::{
    Adversarial, Classifier, Evaluation, Loss, Method, Norm, Outcome, Profile, Spec, StartKind, Starts, Target, run,
};
use rampart::device::{DType, Device};
use rampart::ops::Activation;
use rampart::ops::conv::{Conv2d, Window, conv2d};
use rampart::ops::philox::{Purpose, Stream, uniform};
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;
use rampart::{Error, Result};
use safetensors::tensor::{Dtype, TensorView};

const SHAPE: [usize; 3] = [5, 4, 3];
const D: usize = 60;
const K: usize = 5;
const PROFILES: [Profile; 5] =
    [Profile::Native, Profile::Torchattacks, Profile::Foolbox, Profile::Cleverhans, Profile::Art];

/// Numbers in [0, 1).
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let device = Device::host().unwrap();
    uniform(&device, &Stream::new(seed, Purpose::Noise), &[0], &[n]).unwrap().to_f32(&device).unwrap()
}

/// Loss, its logit gradient and the margin of one image.
fn losses(z: &[f32], y: usize, target: Option<usize>, loss: Loss) -> (f32, Vec<f32>, f32, u32) {
    let best_but = |k: usize| {
        (0..z.len())
            .filter(|&i| i != k)
            .fold(None, |b, i| if b.is_some_and(|b: usize| z[b] >= z[i]) { b } else { Some(i) })
    };
    let other = best_but(target.unwrap_or(y)).unwrap();
    let prediction = (0..z.len()).fold(0, |b, i| if z[i] > z[b] { i } else { b });
    let top = z[prediction];
    let sum: f32 = z.iter().map(|v| (v - top).exp()).sum();
    let p: Vec<f32> = z.iter().map(|v| (v - top).exp() / sum).collect();
    let margin = match target {
        Some(t) => z[other] - z[t],
        None => z[y] - z[other],
    };
    let (value, gradient) = match (loss, target) {
        (Loss::CrossEntropy, None) => (sum.ln() + top - z[y], (0..z.len()).map(|i| p[i] - f32::from(i == y)).collect()),
        (Loss::CrossEntropy, Some(t)) => {
            (z[t] - top - sum.ln(), (0..z.len()).map(|i| f32::from(i == t) - p[i]).collect())
        }
        _ => {
            let (up, down) = match target {
                Some(t) => (t, other),
                None => (other, y),
            };
            (-margin, (0..z.len()).map(|i| f32::from(i == up) - f32::from(i == down)).collect())
        }
    };
    (value, gradient, margin, prediction as u32)
}

/// Two layers with a tanh between, in plain Rust, one image at a time; counts the gradients it computes.
struct Net {
    device: Device,
    first: Vec<f32>,
    second: Vec<f32>,
    gradients: Cell<u64>,
    /// what a gradient is multiplied by
    scale: f32,
}

const HIDDEN: usize = 16;

impl Net {
    fn new() -> Self {
        let centred = |n, seed, scale: f32| numbers(n, seed).iter().map(|u| scale * (2.0 * u - 1.0)).collect();
        Net {
            device: Device::host().unwrap(),
            first: centred(HIDDEN * D, 101, 0.8),
            second: centred(K * HIDDEN, 102, 2.0),
            gradients: Cell::new(0),
            scale: 1.0,
        }
    }

    fn forward(&self, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let h: Vec<f32> =
            self.first.chunks_exact(D).map(|w| (dot(w, x) - w.iter().sum::<f32>() / 2.0).tanh()).collect();
        let z = self.second.chunks_exact(HIDDEN).map(|w| dot(w, &h)).collect();
        (h, z)
    }

    fn input_gradient(&self, h: &[f32], dz: &[f32]) -> Vec<f32> {
        let mut g = vec![0f32; D];
        for (j, h) in h.iter().enumerate() {
            let dh: f32 = (0..K).map(|k| self.second[k * HIDDEN + j] * dz[k]).sum();
            let da = dh * (1.0 - h * h) * self.scale;
            for (g, w) in g.iter_mut().zip(&self.first[j * D..]) {
                *g += da * w;
            }
        }
        g
    }

    fn look(
        &self,
        images: &Tensor,
        labels: &[u32],
        targets: Option<&[u32]>,
        loss: Loss,
        wanted: bool,
    ) -> Result<Evaluation> {
        let x = images.to_f32(&self.device)?;
        assert_eq!(images.shape(), [labels.len(), SHAPE[0], SHAPE[1], SHAPE[2]]);
        let mut e = Evaluation { gradient: None, loss: vec![], margin: vec![], prediction: vec![] };
        let mut gradient = Vec::new();
        for (i, x) in x.chunks_exact(D).enumerate() {
            let (h, z) = self.forward(x);
            let (value, dz, margin, prediction) = losses(&z, labels[i] as usize, targets.map(|t| t[i] as usize), loss);
            e.loss.push(value);
            e.margin.push(margin);
            e.prediction.push(prediction);
            if wanted {
                gradient.extend(self.input_gradient(&h, &dz));
            }
        }
        if wanted {
            self.gradients.set(self.gradients.get() + labels.len() as u64);
            e.gradient = Some(Tensor::from_f32(&self.device, images.shape(), DType::F32, &gradient)?);
        }
        Ok(e)
    }
}

impl Classifier for Net {
    fn device(&self) -> &Device {
        &self.device
    }
    fn classes(&self) -> usize {
        K
    }
    fn image_shape(&self) -> [usize; 3] {
        SHAPE
    }
    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let x = images.to_f32(&self.device)?;
        let z: Vec<f32> = x.chunks_exact(D).flat_map(|x| self.forward(x).1).collect();
        Tensor::from_f32(&self.device, &[z.len() / K, K], DType::F32, &z)
    }
    fn gradient(&self, images: &Tensor, labels: &[u32], targets: Option<&[u32]>, loss: Loss) -> Result<Evaluation> {
        self.look(images, labels, targets, loss, true)
    }
    fn evaluate(&self, images: &Tensor, labels: &[u32], targets: Option<&[u32]>, loss: Loss) -> Result<Evaluation> {
        self.look(images, labels, targets, loss, false)
    }
}

/// Images, labels and ids: labels are the net's own predictions, but every ninth is wrong.
fn data(net: &Net, n: usize) -> (Vec<f32>, Vec<u32>, Vec<u64>) {
    let images: Vec<f32> = numbers(n * D, 7).iter().map(|u| (1.2 * u - 0.1).clamp(0.0, 1.0)).collect();
    let x = Tensor::from_f32(&net.device, &[n, SHAPE[0], SHAPE[1], SHAPE[2]], DType::F32, &images).unwrap();
    let predicted = net.evaluate(&x, &vec![0; n], None, Loss::CrossEntropy).unwrap().prediction;
    let labels = predicted.iter().enumerate().map(|(i, p)| if i % 9 == 4 { (p + 1) % K as u32 } else { *p }).collect();
    let ids = (0..n as u64).map(|i| i * 1_000_003 + 17).collect();
    (images, labels, ids)
}

fn attack(
    net: &dyn Classifier,
    (images, labels, ids): &(Vec<f32>, Vec<u32>, Vec<u64>),
    spec: &Spec,
) -> (Vec<Outcome>, Adversarial) {
    let (outcomes, points) = run(net, images, labels, ids, spec).unwrap();
    for (i, o) in outcomes.iter().enumerate() {
        assert!(!o.violation, "image {i}: {o:?} {spec:?}");
        assert!(o.margin.is_finite() && o.loss.is_finite());
        assert!(!o.correct_any || o.correct_last, "{o:?}");
        assert!(!o.correct_last || o.correct_clean, "{o:?}");
        assert!(
            spec.target != Target::None || (o.prediction == labels[i]) == o.correct_last || !o.correct_clean,
            "{o:?}"
        );
    }
    (outcomes, points)
}

/// eps that breaks about half of the images.
fn eps_of(norm: Norm) -> f64 {
    if norm == Norm::Linf { 0.06 } else { 0.3 }
}

fn count(outcomes: &[Outcome], f: impl Fn(&Outcome) -> bool) -> usize {
    outcomes.iter().filter(|o| f(o)).count()
}

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
    for method in [Method::Pgd, Method::Mim] {
        let file = Starts::new(StartKind::Clipped, 1, &data.2, SHAPE, starts.clone(), vec![]).unwrap();
        let spec = Spec {
            method,
            eps: 0.06,
            steps: 9,
            step_size: Some(0.013),
            decay: 0.7,
            starts: Some(file),
            ..Spec::default()
        };
        let (outcomes, points) = attack(&net, &data, &spec);
        let mut successes = 0;
        for (i, o) in outcomes.iter().enumerate() {
            let row = i * D..(i + 1) * D;
            let decay = (method == Method::Mim).then_some(0.7);
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
    let (outcomes, points) = attack(&net, &data, &Spec { eps: 0.05, ..Spec::default() });
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
fn assert_batch_invariant(net: &dyn Classifier, data: &(Vec<f32>, Vec<u32>, Vec<u64>), spec: &Spec) {
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
                let spec = Spec {
                    norm,
                    eps: eps_of(norm),
                    steps: 6,
                    restarts: 3,
                    early_stop,
                    target,
                    seed: 5,
                    ..Spec::default()
                };
                assert_batch_invariant(&net, &data, &spec);
            }
        }
    }
    assert_batch_invariant(
        &net,
        &data,
        &Spec { method: Method::Mim, random_start: false, early_stop: true, ..Spec::default() },
    );
    for profile in [Profile::Foolbox, Profile::Art] {
        let spec = Spec { profile, norm: Norm::L2, eps: 0.3, steps: 6, restarts: 2, ..Spec::default() };
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
        let graph = if wanted { Graph::recording } else { Graph::inference };
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

impl Classifier for ConvNet {
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
    fn gradient(&self, images: &Tensor, labels: &[u32], targets: Option<&[u32]>, loss: Loss) -> Result<Evaluation> {
        self.look(images, labels, targets, loss, true)
    }
    fn evaluate(&self, images: &Tensor, labels: &[u32], targets: Option<&[u32]>, loss: Loss) -> Result<Evaluation> {
        self.look(images, labels, targets, loss, false)
    }
}

#[test]
fn a_network_of_our_own_kernels_is_batch_invariant_too() {
    let net = ConvNet::new();
    let images = numbers(64 * D, 7);
    let x = Tensor::from_f32(&net.device, &[64, 5, 4, 3], DType::F32, &images).unwrap();
    let labels = net.evaluate(&x, &[0; 64], None, Loss::CrossEntropy).unwrap().prediction;
    let data = (images, labels, (0..64).collect());
    for norm in [Norm::Linf, Norm::L2] {
        for early_stop in [false, true] {
            let spec = Spec { norm, eps: eps_of(norm), steps: 5, restarts: 2, early_stop, ..Spec::default() };
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
                let spec = Spec { norm, eps: eps_of(norm), steps: 12, restarts, target, ..Spec::default() };
                net.gradients.set(0);
                let (full, points) = attack(&net, &data, &spec);
                assert_eq!(net.gradients.get(), points.work.gradients);
                let (stopped, saved) = attack(&net, &data, &Spec { early_stop: true, ..spec.clone() });
                assert_eq!(net.gradients.get(), points.work.gradients + saved.work.gradients);
                for (f, s) in full.iter().zip(&stopped) {
                    assert_eq!((s.correct_clean, s.correct_any), (f.correct_clean, f.correct_any));
                    assert_eq!(s.correct_last, s.correct_any);
                    if s.correct_clean && s.first_success.is_some() {
                        assert_eq!(s.first_success, f.first_success);
                        assert_eq!(Some(s.steps), s.first_success);
                    }
                    assert!(s.correct_clean || s.steps == 0);
                }
                let broken = count(&stopped, |o| o.correct_clean && !o.correct_any);
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
            let spec = Spec {
                norm,
                eps: eps_of(norm),
                steps,
                step_size: Some(eps_of(norm) / 6.0),
                seed: 2,
                ..Spec::default()
            };
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
                    Spec { norm, eps: eps_of(norm) * 0.8, steps: 4, restarts, early_stop, seed: 3, ..Spec::default() };
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
            let spec = Spec { profile, norm, eps: eps_of(norm), ..Spec::default() };
            // What FGSM has no use for is ignored.
            let fgsm = Spec { method: Method::Fgsm, steps: 40, step_size: Some(1e-3), ..spec.clone() };
            let one = Spec { steps: 1, step_size: Some(spec.eps), random_start: false, ..spec };
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
                attack(&net, &data, &Spec { eps: 0.0, norm, early_stop, restarts: 4, ..Spec::default() });
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
                let spec = Spec { profile, norm, eps: eps_of(norm) * 2.0, random_start: true, ..Spec::default() };
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
        for (norm, method) in [(Norm::Linf, Method::Pgd), (Norm::L2, Method::Pgd), (Norm::Linf, Method::Mim)] {
            let spec = Spec { profile, norm, method, eps: eps_of(norm), random_start: false, ..Spec::default() };
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
    let spec = Spec { norm: Norm::L2, eps: 0.3, ..Spec::default() };
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
            let (outcomes, _) = attack(&net, &data, &Spec { target, loss, eps: 0.3, steps: 20, ..Spec::default() });
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
    let by =
        |seed| attack(&net, &data, &Spec { target: Target::Random, eps: 0.3, steps: 20, seed, ..Spec::default() }).0;
    let (a, b) = (by(0), by(1));
    assert!(a.iter().zip(&b).any(|(a, b)| a.prediction != b.prediction));
    let hit: std::collections::HashSet<u32> = a.iter().filter(|o| !o.correct_last).map(|o| o.prediction).collect();
    assert_eq!(hit.len(), K);
}

#[test]
fn seeds_and_restarts_give_other_starts() {
    let net = Net::new();
    let data = data(&net, 3);
    let start = |norm, profile, seed, restarts| {
        let spec =
            Spec { norm, profile, steps: 0, eps: 0.05, step_size: Some(0.01), seed, restarts, ..Spec::default() };
        attack(&net, &data, &spec).1.last
    };
    for norm in [Norm::Linf, Norm::L2] {
        for profile in PROFILES {
            let base = start(norm, profile, 0, 1);
            assert_eq!(base, start(norm, profile, 0, 1));
            assert_ne!(base, start(norm, profile, 1, 1));
            assert_ne!(base, start(norm, profile, 0, 2));
            assert_ne!(base, data.0);
        }
    }
}

/// Uniform in the ball: the radius is below r with probability (r / eps)^d. torchattacks: below r with r / eps.
#[test]
fn starts_in_the_ball_have_the_right_radius() {
    let net = Net::new();
    let n = 400;
    let data = (vec![0.5; n * D], vec![0; n], (0..n as u64).collect());
    let eps = 0.1;
    for (profile, power) in [
        (Profile::Native, D as i32),
        (Profile::Foolbox, D as i32),
        (Profile::Art, D as i32),
        (Profile::Torchattacks, 1),
    ] {
        let (outcomes, _) = attack(&net, &data, &Spec { norm: Norm::L2, profile, eps, steps: 0, ..Spec::default() });
        let mut u: Vec<f64> = outcomes.iter().map(|o| (f64::from(o.l2) / eps).powi(power)).collect();
        u.sort_by(f64::total_cmp);
        // Kolmogorov-Smirnov, one in a thousand: 1.95 / sqrt(n)
        let distance = u.iter().enumerate().map(|(i, u)| (u - i as f64 / n as f64).abs()).fold(0.0, f64::max);
        assert!(distance < 0.1, "{profile:?}: {distance}");
    }
    let sphere =
        Spec { norm: Norm::L2, profile: Profile::Cleverhans, eps, steps: 0, step_size: Some(0.01), ..Spec::default() };
    assert!(attack(&net, &data, &sphere).0.iter().all(|o| (f64::from(o.l2) - eps).abs() < 1e-6));
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Writes a file of starts from (restarts, N, H, W, C) values, channels first unless told otherwise.
fn write(
    path: &std::path::Path,
    shape: &[usize],
    values: &[f32],
    ids: Option<&[i64]>,
    extra: Option<(&[usize], &[f32])>,
    meta: &[(&str, &str)],
) {
    let ids_bytes: Vec<u8> = ids.unwrap_or(&[]).iter().flat_map(|v| v.to_le_bytes()).collect();
    let (values, extra_bytes) = (bytes(values), extra.map(|e| bytes(e.1)).unwrap_or_default());
    let mut tensors = vec![("start", TensorView::new(Dtype::F32, shape.to_vec(), &values).unwrap())];
    if let Some(ids) = ids {
        tensors.push(("ids", TensorView::new(Dtype::I64, vec![ids.len()], &ids_bytes).unwrap()));
    }
    if let Some((shape, _)) = extra {
        tensors.push(("extra", TensorView::new(Dtype::F32, shape.to_vec(), &extra_bytes).unwrap()));
    }
    let meta: HashMap<String, String> = meta.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    safetensors::serialize_to_file(tensors, Some(meta), path).unwrap();
}

fn channels_first(nhwc: &[f32]) -> Vec<f32> {
    let [h, w, c] = SHAPE;
    nhwc.chunks_exact(D).flat_map(|x| (0..c).flat_map(move |k| (0..h * w).map(move |p| x[p * c + k]))).collect()
}

#[test]
fn starts_come_from_a_file() {
    let net = Net::new();
    let data = data(&net, 4);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("starts.safetensors");
    let ids: Vec<i64> = data.2.iter().rev().map(|&id| id as i64).collect();
    let drawn = |seed: u64| -> Vec<f32> {
        data.0.iter().zip(numbers(4 * D, seed)).map(|(x, u)| (x + 0.05 * (2.0 * u - 1.0)).clamp(0.0, 1.0)).collect()
    };
    let reversed = |v: &[f32]| v.chunks_exact(D).rev().flatten().copied().collect::<Vec<f32>>();
    let (first, second) = (drawn(1), drawn(2));
    let spec = |restarts| Spec {
        eps: 0.05,
        steps: 0,
        restarts,
        starts: Some(Starts::load(&path).unwrap()),
        ..Spec::default()
    };

    let both = [channels_first(&reversed(&first)), channels_first(&reversed(&second))].concat();
    write(&path, &[2, 4, 3, 5, 4], &both, Some(&ids), None, &[]);
    assert_eq!(attack(&net, &data, &spec(1)).1.last, first);
    let done: Vec<bool> = attack(&net, &data, &spec(1)).0.iter().map(|o| o.first_success.is_some()).collect();
    let expected: Vec<f32> = (0..4 * D).map(|at| if done[at / D] { first[at] } else { second[at] }).collect();
    assert_eq!(attack(&net, &data, &spec(2)).1.last, expected, "only what still resists takes its second start");
    assert!(
        matches!(run(&net, &data.0, &data.1, &data.2, &spec(3)), Err(Error::Usage { .. })),
        "two starts, three restarts"
    );

    write(&path, &[4, 5, 4, 3], &reversed(&first), Some(&ids), None, &[("layout", "NHWC")]);
    assert_eq!(attack(&net, &data, &spec(1)).1.last, first);

    // An image without a start, a start outside the budget.
    write(&path, &[3, 5, 4, 3], &reversed(&first)[..3 * D], Some(&ids[..3]), None, &[("layout", "NHWC")]);
    let message = run(&net, &data.0, &data.1, &data.2, &spec(1)).unwrap_err().to_string();
    assert!(message.contains("no start for image 17"), "{message}");
    write(
        &path,
        &[4, 5, 4, 3],
        &first,
        Some(&data.2.iter().map(|&i| i as i64).collect::<Vec<_>>()),
        None,
        &[("layout", "NHWC")],
    );
    let near = Spec { eps: 0.04, ..spec(1) };
    assert!(run(&net, &data.0, &data.1, &data.2, &near).unwrap_err().to_string().contains("outside the budget"));
}

#[test]
fn raw_draws_from_a_file_become_the_starts_of_their_profile() {
    let net = Net::new();
    let data = (data(&net, 2).0, vec![0, 1], vec![0, 1]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("draws.safetensors");
    let draw: Vec<f32> = numbers(2 * D, 9).iter().map(|u| 3.0 * u - 1.5).collect();
    let unit = numbers(2 * D, 9);
    let norm2 = |v: &[f32], more: &[f32]| v.iter().chain(more).map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    for (norm, profile, name) in [
        (Norm::Linf, Profile::Foolbox, "foolbox"),
        (Norm::L2, Profile::Native, "native"),
        (Norm::L2, Profile::Torchattacks, "torchattacks"),
        (Norm::L2, Profile::Foolbox, "foolbox"),
        (Norm::L2, Profile::Cleverhans, "cleverhans"),
    ] {
        let eps = 0.2;
        let extras = Starts::extras(norm, profile);
        let extra = [0.3, -0.7, 0.6, 1.1].map(|v: f32| if extras == 1 { v.abs() } else { v });
        let uses_units = norm == Norm::Linf || profile == Profile::Cleverhans;
        let values = if uses_units { &unit } else { &draw };
        let meta = [("kind", "draw"), ("profile", name)];
        let shape = [2, extras];
        write(
            &path,
            &[2, 3, 5, 4],
            &channels_first(values),
            None,
            (extras > 0).then_some((&shape, &extra[..2 * extras])),
            &meta,
        );
        let starts = Some(Starts::load(&path).unwrap());
        let spec = Spec { norm, eps, steps: 0, starts, ..Spec::default() };
        let got = attack(&net, &data, &spec).1.last;
        for i in 0..2 {
            let (v, e) = (&values[i * D..(i + 1) * D], &extra[i * extras..(i + 1) * extras]);
            for k in 0..D {
                let u = f64::from(v[k]);
                let offset = match (norm, profile) {
                    (Norm::Linf, _) => eps * (2.0 * u - 1.0),
                    (_, Profile::Native) => eps * u / norm2(v, &[]) * f64::from(e[0]).powf(1.0 / D as f64),
                    (_, Profile::Torchattacks) => u * (f64::from(e[0]) / norm2(v, &[]) * eps),
                    (_, Profile::Foolbox) => eps * u / norm2(v, e),
                    _ => {
                        let raw: f64 = v.iter().map(|&u| (eps * (2.0 * f64::from(u) - 1.0)).powi(2)).sum();
                        eps * (2.0 * u - 1.0) * (eps / raw.sqrt()).min(1.0)
                    }
                };
                let want = (f64::from(data.0[i * D + k]) + offset).clamp(0.0, 1.0);
                assert!((f64::from(got[i * D + k]) - want).abs() < 1e-6, "{norm:?} {profile:?}");
            }
        }
    }
}

#[test]
fn bad_files_of_starts_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.safetensors");
    let ok = vec![0.5; 2 * D];
    let complaint = || Starts::load(&path).unwrap_err().to_string();
    assert!(complaint().contains("cannot read"), "{}", complaint());
    std::fs::write(&path, b"not a tensor file").unwrap();
    assert!(complaint().contains("not a safetensors file"), "{}", complaint());
    write(&path, &[2, D], &ok, None, None, &[]);
    assert!(complaint().contains("(N, C, H, W)"), "{}", complaint());
    write(&path, &[2, 3, 5, 4], &ok, Some(&[3, 3]), None, &[]);
    assert!(complaint().contains("each once"), "{}", complaint());
    write(&path, &[2, 3, 5, 4], &ok, None, None, &[("kind", "draw"), ("profile", "nobody")]);
    assert!(complaint().contains("nobody"), "{}", complaint());
    write(&path, &[2, 3, 5, 4], &[&ok[1..], &[f32::NAN]].concat(), None, None, &[]);
    assert!(complaint().contains("finite"), "{}", complaint());
    // A draw that lacks its radius is found when it is used.
    write(&path, &[2, 3, 5, 4], &ok, None, None, &[("kind", "draw"), ("profile", "torchattacks")]);
    let net = Net::new();
    let spec = Spec { norm: Norm::L2, starts: Some(Starts::load(&path).unwrap()), ..Spec::default() };
    let message = run(&net, &ok, &[0, 1], &[0, 1], &spec).unwrap_err().to_string();
    assert!(message.contains("extra numbers per image: expected 1"), "{message}");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let net = Net::new();
    let data = data(&net, 2);
    let problem = |spec: Spec| run(&net, &data.0, &data.1, &data.2, &spec).unwrap_err();
    let specs = [
        ("--eps", Spec { eps: -0.1, ..Spec::default() }),
        ("--eps", Spec { eps: f64::NAN, ..Spec::default() }),
        ("--step-size", Spec { step_size: Some(0.0), ..Spec::default() }),
        ("--step-size", Spec { step_size: Some(0.1), profile: Profile::Cleverhans, ..Spec::default() }),
        ("--restarts", Spec { restarts: 0, ..Spec::default() }),
        ("--restarts", Spec { restarts: 2, random_start: false, ..Spec::default() }),
        ("--norm", Spec { method: Method::Mim, norm: Norm::L2, ..Spec::default() }),
        ("--target", Spec { target: Target::Class(5), ..Spec::default() }),
    ];
    for (flag, spec) in specs {
        match problem(spec.clone()) {
            Error::Usage { flag: found, .. } => assert_eq!(found, flag, "{spec:?}"),
            other => panic!("{spec:?}: {other}"),
        }
    }
    let shape = |images: &[f32], labels: &[u32], ids: &[u64]| {
        run(&net, images, labels, ids, &Spec::default()).unwrap_err().to_string()
    };
    assert!(shape(&data.0[1..], &data.1, &data.2).contains("images"));
    assert!(shape(&data.0, &data.1, &data.2[1..]).contains("ids"));
    assert!(shape(&data.0, &[0, 5], &data.2).contains("label of image 1000020"));
    assert!(shape(&[&data.0[1..], &[1.5]].concat(), &data.1, &data.2).contains("0 to 1"));
    assert!(shape(&[&data.0[1..], &[f32::NAN]].concat(), &data.1, &data.2).contains("0 to 1"));
    assert_eq!(run(&net, &[], &[], &[], &Spec::default()).unwrap(), (vec![], Adversarial::default()));
}
