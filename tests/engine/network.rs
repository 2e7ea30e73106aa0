//! A small network in plain Rust that an attack can work on, and images for it.
#![allow(dead_code, reason = "every test file uses its part")]

use std::cell::Cell;

use rampart::Result;
use rampart::attack::pgd::Pgd;
use rampart::attack::{
    Attack, Batch, Classifier, Evaluation, Loss, Norm, Oracle, Outcome, Profile, Query, Spec, Starts, StepSize, Target,
    Work,
};
use rampart::device::{DType, Device};
use rampart::ops::philox::{Purpose, Stream, uniform};
use rampart::tensor::Tensor;

pub const SHAPE: [usize; 3] = [5, 4, 3];
pub const D: usize = 60;
pub const K: usize = 5;
pub const PROFILES: [Profile; 5] =
    [Profile::Native, Profile::Torchattacks, Profile::Foolbox, Profile::Cleverhans, Profile::Art];

/// Numbers in [0, 1).
pub fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let device = Device::host().unwrap();
    uniform(&device, &Stream::new(seed, Purpose::Noise), &[0], &[n]).unwrap().to_f32(&device).unwrap()
}

/// Loss, its logit gradient and the margin of one image.
pub fn losses(z: &[f32], y: usize, target: Option<usize>, loss: Loss) -> (f32, Vec<f32>, f32, u32) {
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
pub struct Net {
    pub device: Device,
    pub first: Vec<f32>,
    pub second: Vec<f32>,
    pub gradients: Cell<u64>,
    /// what a gradient is multiplied by
    pub scale: f32,
}

pub const HIDDEN: usize = 16;

impl Net {
    pub fn new() -> Self {
        let centred = |n, seed, scale: f32| numbers(n, seed).iter().map(|u| scale * (2.0 * u - 1.0)).collect();
        Net {
            device: Device::host().unwrap(),
            first: centred(HIDDEN * D, 101, 0.8),
            second: centred(K * HIDDEN, 102, 2.0),
            gradients: Cell::new(0),
            scale: 1.0,
        }
    }

    pub fn forward(&self, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let h: Vec<f32> =
            self.first.chunks_exact(D).map(|w| (dot(w, x) - w.iter().sum::<f32>() / 2.0).tanh()).collect();
        let z = self.second.chunks_exact(HIDDEN).map(|w| dot(w, &h)).collect();
        (h, z)
    }

    pub fn input_gradient(&self, h: &[f32], dz: &[f32]) -> Vec<f32> {
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

    fn look(&self, images: &Tensor, query: &Query, wanted: bool) -> Result<Evaluation> {
        let &Query { labels, targets, loss, steered, .. } = query;
        let x = images.to_f32(&self.device)?;
        assert_eq!(images.shape(), [labels.len(), SHAPE[0], SHAPE[1], SHAPE[2]]);
        let mut e = Evaluation { gradient: None, loss: vec![], margin: vec![], prediction: vec![] };
        let mut gradient = Vec::new();
        for (i, x) in x.chunks_exact(D).enumerate() {
            let (h, z) = self.forward(x);
            let (y, target) = (labels[i] as usize, targets.map(|t| t[i] as usize));
            let (mut value, mut dz, margin, prediction) = losses(&z, y, target.filter(|_| !steered), loss);
            if let Some(t) = target.filter(|_| steered) {
                value = z[t] - z[y];
                dz = (0..K).map(|k| f32::from(k == t) - f32::from(k == y)).collect();
            }
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

impl Oracle for Net {
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
    fn evaluate(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.look(images, query, false)
    }
}

impl Classifier for Net {
    fn gradient(&self, images: &Tensor, query: &Query) -> Result<Evaluation> {
        self.look(images, query, true)
    }
}

/// Images, labels and ids: labels are the net's own predictions, but every ninth is wrong.
pub fn data(net: &Net, n: usize) -> (Vec<f32>, Vec<u32>, Vec<u64>) {
    let images: Vec<f32> = numbers(n * D, 7).iter().map(|u| (1.2 * u - 0.1).clamp(0.0, 1.0)).collect();
    let x = Tensor::from_f32(&net.device, &[n, SHAPE[0], SHAPE[1], SHAPE[2]], DType::F32, &images).unwrap();
    let predicted = net.evaluate(&x, &Query::new(&vec![0; n], Loss::CrossEntropy)).unwrap().prediction;
    let labels = predicted.iter().enumerate().map(|(i, p)| if i % 9 == 4 { (p + 1) % K as u32 } else { *p }).collect();
    let ids = (0..n as u64).map(|i| i * 1_000_003 + 17).collect();
    (images, labels, ids)
}

/// One attack at one budget, from start points at hand.
#[derive(Clone, Debug)]
pub struct Try {
    pub method: &'static str,
    pub profile: Profile,
    pub norm: Norm,
    pub eps: f64,
    pub steps: u32,
    /// 2.5 eps / steps without it
    pub step_size: Option<f64>,
    pub restarts: u32,
    pub random_start: bool,
    pub loss: Loss,
    pub target: Target,
    pub decay: f64,
    pub early_stop: bool,
    pub stop_cycles: bool,
    pub seed: u64,
    pub starts: Option<Starts>,
}

impl Default for Try {
    fn default() -> Self {
        let Spec { method, profile, norm, steps, restarts, random_start, loss, decay, .. } = Spec::default();
        Try {
            method,
            profile,
            norm,
            eps: 8.0 / 255.0,
            steps,
            step_size: None,
            restarts,
            random_start,
            loss,
            target: Target::None,
            decay,
            early_stop: false,
            stop_cycles: false,
            seed: 0,
            starts: None,
        }
    }
}

impl Try {
    pub fn spec(&self) -> Spec {
        let (steps, step, random_start) = match (self.method, self.step_size) {
            ("fgsm", _) => (1, StepSize::OfEps(1.0), false),
            (name, None) if name.starts_with("apgd") => (self.steps, StepSize::OfEps(2.0), true),
            (_, Some(size)) => (self.steps, StepSize::Absolute(size), self.random_start),
            (_, None) => (self.steps, StepSize::rule_of_thumb(self.steps), self.random_start),
        };
        Spec {
            method: self.method,
            profile: self.profile,
            norm: self.norm,
            eps: vec![self.eps],
            steps,
            step,
            restarts: self.restarts,
            random_start: random_start && self.starts.is_none(),
            loss: self.loss,
            targeted: self.target,
            decay: self.decay,
            early_stop: self.early_stop,
            stop_cycles: self.stop_cycles,
            ..Spec::default()
        }
    }

    pub fn run(
        &self,
        net: &dyn Classifier,
        images: &[f32],
        labels: &[u32],
        ids: &[u64],
    ) -> Result<(Vec<Outcome>, Points)> {
        let attack: Box<dyn Attack> = match &self.starts {
            Some(starts) => Box::new(Pgd::starting(&self.spec(), self.method == "mim", Some(starts.clone()))?),
            None => self.spec().build()?,
        };
        let [h, w, c] = net.image_shape();
        let device = net.device();
        let images = Tensor::from_f32(device, &[images.len() / (h * w * c), h, w, c], DType::F32, images)?;
        let found = attack.run(net, Batch { images: &images, labels, ids }, self.eps, self.seed)?;
        let [last, best_margin, best] = [&found.last, &found.best_margin, &found.best].map(|t| t.to_f32(device));
        Ok((found.outcomes, Points { last: last?, best_margin: best_margin?, best: best?, work: found.work }))
    }
}

/// The points of [`rampart::attack::Adversarial`] on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    pub last: Vec<f32>,
    pub best_margin: Vec<f32>,
    pub best: Vec<f32>,
    pub work: Work,
}

pub fn attack(
    net: &dyn Classifier,
    (images, labels, ids): &(Vec<f32>, Vec<u32>, Vec<u64>),
    spec: &Try,
) -> (Vec<Outcome>, Points) {
    let (outcomes, points) = spec.run(net, images, labels, ids).unwrap();
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
pub fn eps_of(norm: Norm) -> f64 {
    if norm == Norm::Linf { 0.06 } else { 0.3 }
}

pub fn count(outcomes: &[Outcome], f: impl Fn(&Outcome) -> bool) -> usize {
    outcomes.iter().filter(|o| f(o)).count()
}
