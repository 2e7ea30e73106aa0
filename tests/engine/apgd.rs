//! APGD on a small network: against the authors' pseudo-code as a plain loop, and in any batch.

use rampart::attack::{Classifier as _, Loss, Norm, Outcome, Query};
use rampart::device::{DType, Device};
use rampart::ops::apgd;
use rampart::ops::philox::{self, Purpose, Stream};
use rampart::tensor::Tensor;

use crate::network::*;

/// Loss, gradient and prediction of one image.
struct Seen {
    loss: f32,
    g: Vec<f32>,
    prediction: u32,
}

struct Problem<'a> {
    net: &'a Net,
    x0: &'a [f32],
    y: u32,
    target: Option<u32>,
    loss: Loss,
    norm: Norm,
    eps: f32,
}

fn length(v: &[f32]) -> f32 {
    v.iter().map(|v| v * v).sum::<f32>().sqrt()
}

impl Problem<'_> {
    fn look(&self, x: &[f32]) -> Seen {
        let x = Tensor::from_f32(&self.net.device, &[1, SHAPE[0], SHAPE[1], SHAPE[2]], DType::F32, x).unwrap();
        let (labels, targets) = ([self.y], self.target.map(|t| [t]));
        let query = Query {
            targets: targets.as_ref().map(|t| &t[..]),
            steered: targets.is_some(),
            ..Query::new(&labels, self.loss)
        };
        let e = self.net.gradient(&x, &query).unwrap();
        Seen { loss: e.loss[0], g: e.gradient.unwrap().to_f32(&self.net.device).unwrap(), prediction: e.prediction[0] }
    }

    fn project(&self, v: &[f32]) -> Vec<f32> {
        let clip = |v: f32| v.clamp(0.0, 1.0);
        match self.norm {
            Norm::Linf => v.iter().zip(self.x0).map(|(v, x0)| clip(v.max(x0 - self.eps).min(x0 + self.eps))).collect(),
            Norm::L2 => {
                let w: Vec<f32> = v.iter().zip(self.x0).map(|(v, x0)| v - x0).collect();
                let n = length(&w);
                w.iter().zip(self.x0).map(|(w, x0)| clip(x0 + w / (n + 1e-12) * n.min(self.eps))).collect()
            }
        }
    }

    fn direction(&self, g: &[f32]) -> Vec<f32> {
        match self.norm {
            Norm::Linf => g.iter().map(|&g| f32::from(g > 0.0) - f32::from(g < 0.0)).collect(),
            Norm::L2 => {
                let n = length(g) + 1e-12;
                g.iter().map(|g| g / n).collect()
            }
        }
    }

    /// The latest wrong iterate, or the clean image; its class; the highest loss.
    fn attack(&self, start: &[f32], steps: usize) -> (Vec<f32>, u32, f32) {
        let (mut window, least) = (((0.22 * steps as f64) as usize).max(1), ((0.06 * steps as f64) as usize).max(1));
        let less = ((0.03 * steps as f64) as usize).max(1);
        let mut checkpoint = window;
        let mut x = start.to_vec();
        let mut at = self.look(&x);
        let mut adversarial = (self.x0.to_vec(), self.y);
        if at.prediction != self.y {
            adversarial = (x.clone(), at.prediction);
        }
        let (mut best, mut best_loss, mut best_g) = (x.clone(), at.loss, at.g.clone());
        let (mut eta, mut prev, mut losses) = (2.0 * self.eps, x.clone(), vec![0f32; steps]);
        let (mut looked, mut reduced) = (best_loss, true);
        for i in 0..steps {
            let momentum: Vec<f32> = x.iter().zip(&prev).map(|(x, p)| x - p).collect();
            prev.clone_from(&x);
            let a = if i == 0 { 1.0f32 } else { 0.75 };
            let moved: Vec<f32> = x.iter().zip(self.direction(&at.g)).map(|(x, d)| x + eta * d).collect();
            let z = self.project(&moved);
            let mixed: Vec<f32> = (0..D).map(|k| (x[k] + (z[k] - x[k]) * a) + momentum[k] * (1.0 - a)).collect();
            x = self.project(&mixed);
            at = self.look(&x);
            if at.prediction != self.y {
                adversarial = (x.clone(), at.prediction);
            }
            losses[i] = at.loss;
            if at.loss > best_loss {
                (best, best_loss, best_g) = (x.clone(), at.loss, at.g.clone());
            }
            if i + 1 == checkpoint {
                let before = |j: usize| if j == 0 { losses[steps - 1] } else { losses[j - 1] };
                let rises = (i + 1 - window..=i).filter(|&j| losses[j] > before(j)).count();
                let halve = rises as f64 <= 0.75 * window as f64 || (!reduced && looked >= best_loss);
                (reduced, looked) = (halve, best_loss);
                if halve {
                    eta /= 2.0;
                    x.clone_from(&best);
                    at.g.clone_from(&best_g);
                }
                window = window.saturating_sub(less).max(least);
                checkpoint += window;
            }
        }
        (adversarial.0, adversarial.1, best_loss)
    }
}

fn start(device: &Device, x0: &[f32], id: u64, (norm, eps): (Norm, f64), restart: u32) -> Vec<f32> {
    let shape = [1, SHAPE[0], SHAPE[1], SHAPE[2]];
    let x0 = Tensor::from_f32(device, &shape, DType::F32, x0).unwrap();
    let stream = Stream { restart, ..Stream::new(0, Purpose::Start) };
    let draw = match norm {
        Norm::Linf => philox::uniform(device, &stream, &[id], &shape[1..]).unwrap(),
        Norm::L2 => philox::normal(device, &stream, &[id], &shape[1..]).unwrap(),
    };
    apgd::start(device, &x0, &draw, (norm, eps)).unwrap().to_f32(device).unwrap()
}

fn broken(outcomes: &[Outcome]) -> usize {
    count(outcomes, |o| o.correct_clean && !o.correct_any)
}

#[test]
fn apgd_agrees_with_a_plain_loop() {
    let net = Net::new();
    let data = data(&net, 24);
    for (method, loss) in [("apgd-ce", Loss::CrossEntropy), ("apgd-dlr", Loss::Dlr)] {
        for (norm, eps) in [(Norm::Linf, 0.05), (Norm::L2, 0.25)] {
            let (outcomes, points) = attack(&net, &data, &Try { method, loss, norm, eps, steps: 40, ..Try::default() });
            assert!((3..24).contains(&broken(&outcomes)), "{method} {norm}: {}", broken(&outcomes));
            for (i, o) in outcomes.iter().enumerate() {
                let x0 = &data.0[i * D..(i + 1) * D];
                let last = &points.last[i * D..(i + 1) * D];
                if !o.correct_clean {
                    assert_eq!((last, o.steps), (x0, 0), "what is wrong when clean is not attacked");
                    continue;
                }
                let problem = Problem { net: &net, x0, y: data.1[i], target: None, loss, norm, eps: eps as f32 };
                let first = start(&net.device, x0, data.2[i], (norm, eps), 0);
                let (want, prediction, best) = problem.attack(&first, 40);
                // Sums of squares are taken in another order.
                let limit = if norm == Norm::Linf { 0.0 } else { 2e-4 };
                let off = last.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
                assert!(off <= limit, "{method} {norm} image {i}: {off}");
                assert_eq!((o.prediction, o.steps), (prediction, 40));
                assert!((o.loss - best).abs() <= limit, "{method} {norm} image {i}: {} {best}", o.loss);
            }
        }
    }
}

/// Each class in turn, for the images that still stand, from a start of its own.
#[test]
fn apgd_t_takes_the_likeliest_wrong_classes_in_turn() {
    let net = Net::new();
    let data = data(&net, 60);
    let (norm, eps) = (Norm::Linf, 0.03);
    let spec = Try { method: "apgd-t", loss: Loss::Dlr, norm, eps, steps: 20, ..Try::default() };
    let (outcomes, points) = attack(&net, &data, &spec);
    let mut later = 0;
    for (i, o) in outcomes.iter().enumerate().filter(|(_, o)| o.correct_clean) {
        let x0 = &data.0[i * D..(i + 1) * D];
        let (_, z) = net.forward(x0);
        let mut classes: Vec<usize> = (0..K).collect();
        classes.sort_by(|&a, &b| z[b].total_cmp(&z[a]));
        let mut steps = 0;
        for (rank, &class) in classes.iter().enumerate().skip(1) {
            let target = Some(class as u32);
            let problem = Problem { net: &net, x0, y: data.1[i], target, loss: Loss::Dlr, norm, eps: eps as f32 };
            let first = start(&net.device, x0, data.2[i], (norm, eps), rank as u32 - 1);
            let (want, prediction, _) = problem.attack(&first, 20);
            steps += 20;
            if prediction != data.1[i] || rank + 1 == K {
                assert_eq!(points.last[i * D..(i + 1) * D], want[..], "image {i} towards {target:?}");
                assert_eq!((o.prediction, o.steps), (prediction, steps));
                later += usize::from(rank > 1 && prediction != data.1[i]);
                break;
            }
        }
    }
    assert!(broken(&outcomes) > 3 && later > 0, "{} broken, {later} of them not by the likeliest", broken(&outcomes));
}

#[test]
fn an_image_that_leaves_at_its_first_success_changes_no_flag() {
    let net = Net::new();
    let data = data(&net, 48);
    for (method, loss) in [("apgd-ce", Loss::CrossEntropy), ("apgd-t", Loss::Dlr)] {
        for norm in [Norm::Linf, Norm::L2] {
            let spec = Try { method, loss, norm, eps: eps_of(norm), steps: 15, restarts: 2, ..Try::default() };
            let whole = attack(&net, &data, &spec);
            let short = attack(&net, &data, &Try { early_stop: true, ..spec.clone() });
            let flags = |outcomes: &[Outcome]| outcomes.iter().map(|o| o.correct_any).collect::<Vec<_>>();
            assert_eq!(flags(&whole.0), flags(&short.0), "{method} {norm}");
            assert!(short.1.work.gradients < whole.1.work.gradients, "{:?} {:?}", short.1.work, whole.1.work);
            // One by one, and all together: the same points.
            for i in [0, 13, 47] {
                let one = (data.0[i * D..(i + 1) * D].to_vec(), vec![data.1[i]], vec![data.2[i]]);
                let alone = attack(&net, &one, &spec);
                assert_eq!(alone.0[0], whole.0[i]);
                assert_eq!(alone.1.last, whole.1.last[i * D..(i + 1) * D]);
            }
        }
    }
}
