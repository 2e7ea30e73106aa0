//! The defended pipeline as the target of an attack: its gradient against finite differences and against its own parts.

use rampart::attack::{
    self, Batch, Classifier as _, Evaluation, Loss, Oracle as _, Purpose, Query, Spec, StepSize, Stream,
};
use rampart::data::{Select, demo};
use rampart::defense::denoise::{Denoiser, Gradient};
use rampart::defense::smoothing::{self, Scoring};
use rampart::defense::{Defended, Estimator, Vote};
use rampart::device::{DType, Device};
use rampart::models::classifier::Classifier;
use rampart::models::weights::Weights;
use rampart::ops::diffusion::Range;
use rampart::ops::philox::normal;
use rampart::ops::recording;
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

const SIGMA: f64 = 0.25;
const SEED: u64 = 5;

struct Pipeline {
    device: Device,
    classifier: Classifier,
    denoiser: Denoiser,
    pixels: Vec<f32>,
    labels: Vec<u32>,
    ids: Vec<u64>,
}

impl Pipeline {
    fn new(n: usize) -> Self {
        let device = Device::host().unwrap();
        let weights = |name: &str| Weights::embedded(name, demo::weights(name).unwrap()).unwrap();
        let data = demo::dataset(Some(n), Select::First).unwrap();
        Pipeline {
            classifier: Classifier::load(&device, Precision::F32, &weights("resnet50-w16"), [32, 32]).unwrap(),
            denoiser: Denoiser::load(&device, Precision::F32, &weights(demo::DENOISER)).unwrap(),
            pixels: data.batch(&(0..n).collect::<Vec<_>>()).unwrap(),
            labels: data.labels.clone(),
            ids: data.ids.iter().map(|id| id * 7 + 3).collect(),
            device,
        }
    }

    fn defended(&self, estimator: Estimator, draws: u32) -> Defended<'_> {
        let level = self.denoiser.level(SIGMA).unwrap();
        Defended {
            classifier: &self.classifier,
            denoiser: &self.denoiser,
            level,
            estimator,
            draws,
            seed: SEED,
            straight: false,
            antithetic: false,
            last_draw: false,
            fixed: None,
        }
    }

    fn images(&self, pixels: &[f32]) -> Tensor {
        Tensor::from_f32(&self.device, &[pixels.len() / 3072, 32, 32, 3], DType::F32, pixels).unwrap()
    }

    fn query(&self) -> Query<'_> {
        Query { ids: &self.ids, restart: 1, step: 4, ..Query::new(&self.labels, Loss::CrossEntropy) }
    }

    fn gradient(&self, target: &Defended, pixels: &[f32]) -> Vec<f32> {
        let e = target.gradient(&self.images(pixels), &self.query()).unwrap();
        e.gradient.unwrap().to_f32(&self.device).unwrap()
    }

    /// The noise of one draw as the pipeline takes it.
    fn noise(&self, draw: u32) -> Tensor {
        let stream = Stream { seed: SEED, purpose: Purpose::AttackNoise, restart: 1, step: 4, draw };
        normal(&self.device, &stream, &self.ids, &[32, 32, 3]).unwrap()
    }
}

fn relative(got: &[f32], want: &[f32]) -> f64 {
    let d: f64 = got.iter().zip(want).map(|(g, w)| f64::from(g - w).powi(2)).sum();
    (d / want.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>()).sqrt()
}

/// The slope along the gradient itself, by central differences of the estimator's loss.
fn slope_agrees(p: &Pipeline, target: &Defended, loss: impl Fn(&Evaluation) -> f64, scale: f64) {
    let gradient = p.gradient(target, &p.pixels);
    let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    let h = 0.003;
    let at = |sign: f64| {
        let moved: Vec<f32> =
            p.pixels.iter().zip(&gradient).map(|(x, g)| x + (sign * h * f64::from(*g) / norm) as f32).collect();
        loss(&target.evaluate(&p.images(&moved), &p.query()).unwrap())
    };
    let slope = (at(1.0) - at(-1.0)) / (2.0 * h);
    let want = norm / scale;
    assert!((slope - want).abs() <= 0.02 * want, "slope {slope}, gradient says {want}");
}

#[test]
fn the_gradient_is_the_slope_of_the_mean_loss() {
    let p = Pipeline::new(6);
    for draws in [1, 3] {
        let target = p.defended(Estimator::EotGrad, draws);
        let total = |e: &Evaluation| e.loss.iter().map(|&l| f64::from(l)).sum();
        slope_agrees(&p, &target, total, f64::from(draws));
    }
}

/// What joint estimators maximise, from the logits of the single draws.
fn maximised(estimator: Estimator, logits: &[Vec<f32>], label: usize) -> f64 {
    let draws = logits.len() as f64;
    let mean = |rows: Vec<Vec<f64>>| -> Vec<f64> {
        (0..rows[0].len()).map(|c| rows.iter().map(|row| row[c]).sum::<f64>() / draws).collect()
    };
    let softmax = |row: &Vec<f32>| -> Vec<f64> {
        let powers: Vec<f64> = row.iter().map(|&z| f64::from(z).exp()).collect();
        let total: f64 = powers.iter().sum();
        powers.into_iter().map(|p| p / total).collect()
    };
    match estimator {
        Estimator::EotProb => -mean(logits.iter().map(softmax).collect())[label].ln(),
        Estimator::EotLogit => {
            let z = mean(logits.iter().map(|row| row.iter().map(|&z| f64::from(z)).collect()).collect());
            z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[label]
        }
        Estimator::VoteMargin => {
            let p = mean(logits.iter().map(softmax).collect());
            let other = p.iter().enumerate().filter(|&(c, _)| c != label).map(|(_, &p)| p).fold(0.0, f64::max);
            other - p[label]
        }
        other => panic!("{other} sums over draws"),
    }
}

/// By central differences along the gradient, and the loss that is told is the one that rises; all draws at once, and in pieces.
#[test]
fn joint_estimators_are_slopes_of_what_all_draws_say_together() {
    for (estimator, draws, n) in [
        (Estimator::EotProb, 3, 4),
        (Estimator::EotLogit, 3, 4),
        (Estimator::VoteMargin, 3, 4),
        (Estimator::EotLogit, 30, 1),
        (Estimator::VoteMargin, 30, 1),
    ] {
        let p = Pipeline::new(n);
        let target = p.defended(estimator, draws);
        let gradient = p.gradient(&target, &p.pixels);
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let loss = |pixels: &[f32]| -> Vec<f64> {
            let all: Vec<Vec<f32>> = (0..draws)
                .map(|draw| {
                    let g = Graph::inference(&p.device, Precision::F32);
                    let (x, noise) = (p.images(pixels), p.noise(draw));
                    let h =
                        p.denoiser.estimate(&g, &x, &noise, &target.level, Range::TO_UNIT, Gradient::Exact).unwrap();
                    p.classifier.forward(&g, &h).unwrap().to_f32(&p.device).unwrap()
                })
                .collect();
            let of = |i: usize| all.iter().map(|z| z[i * 10..(i + 1) * 10].to_vec()).collect::<Vec<_>>();
            (0..n).map(|i| maximised(estimator, &of(i), p.labels[i] as usize)).collect()
        };
        let told = target.evaluate(&p.images(&p.pixels), &p.query()).unwrap().loss;
        for (told, want) in told.iter().zip(loss(&p.pixels)) {
            assert!((f64::from(*told) - want).abs() < 1e-4 * want.abs().max(1e-2), "{estimator}: {told} for {want}");
        }
        let h = 0.003;
        let moved = |sign: f64| -> Vec<f32> {
            p.pixels.iter().zip(&gradient).map(|(x, g)| x + (sign * h * f64::from(*g) / norm) as f32).collect()
        };
        let total = |sign: f64| loss(&moved(sign)).iter().sum::<f64>();
        let (slope, want) = ((total(1.0) - total(-1.0)) / (2.0 * h), norm / f64::from(draws));
        assert!((slope - want).abs() <= 0.02 * want, "{estimator}, {draws} draws: slope {slope}, gradient says {want}");
    }
}

/// What a clipped pixel says only reaches the image past the clip.
#[test]
fn a_straight_clip_lets_gradients_through() {
    let p = Pipeline::new(2);
    let exact = p.defended(Estimator::EotGrad, 2);
    let straight = Defended { straight: true, ..p.defended(Estimator::EotGrad, 2) };
    let mut want = vec![0f32; p.pixels.len()];
    for draw in 0..2 {
        let g = recording(&p.device, Precision::F32);
        let x = p.images(&p.pixels);
        let h = p.denoiser.estimate(&g, &x, &p.noise(draw), &exact.level, Range::TO_UNIT, Gradient::Straight).unwrap();
        let logits = p.classifier.forward(&g, &h).unwrap();
        let kind = rampart::ops::loss::LossKind::CROSS_ENTROPY;
        let out = rampart::ops::loss::loss(&g, &logits, &p.labels, None, kind).unwrap();
        let dx = g.backward(&logits, out.dlogits, &x).unwrap().to_f32(&p.device).unwrap();
        want.iter_mut().zip(&dx).for_each(|(w, d)| *w += d);
    }
    let found = p.gradient(&straight, &p.pixels);
    assert!(relative(&found, &want) < 2e-6);
    assert!(relative(&found, &p.gradient(&exact, &p.pixels)) > 1e-2, "no pixel is clipped");
}

/// A second draw that is the first one turned, and draws that are those of another stream at every step.
#[test]
fn draws_are_turned_or_fixed() {
    let p = Pipeline::new(2);
    let x = p.images(&p.pixels);
    let pair = Defended { antithetic: true, ..p.defended(Estimator::EotGrad, 2) };
    let g = Graph::inference(&p.device, Precision::F32);
    let noise = p.noise(0);
    let turned: Vec<f32> = noise.to_f32(&p.device).unwrap().iter().map(|v| -v).collect();
    let turned = Tensor::from_f32(&p.device, noise.shape(), DType::F32, &turned).unwrap();
    let mut want = vec![0f64; 2];
    for noise in [noise, turned] {
        let h = p.denoiser.estimate(&g, &x, &noise, &pair.level, Range::TO_UNIT, Gradient::Exact).unwrap();
        let e = p.classifier.evaluate(&h, &Query::new(&p.labels, Loss::CrossEntropy)).unwrap();
        want.iter_mut().zip(&e.loss).for_each(|(w, l)| *w += f64::from(*l) / 2.0);
    }
    for (told, want) in pair.evaluate(&x, &p.query()).unwrap().loss.iter().zip(want) {
        assert!((f64::from(*told) - want).abs() < 1e-5 * want.abs().max(1e-2), "{told} for {want}");
    }
    let stream = Stream::new(SEED, Purpose::Noise);
    let fixed = Defended { fixed: Some(stream), ..p.defended(Estimator::EotGrad, 2) };
    let at = |target: &Defended, step| target.evaluate(&x, &Query { step, ..p.query() }).unwrap().loss;
    assert_eq!(at(&fixed, 1), at(&fixed, 2));
    let fresh = p.defended(Estimator::EotGrad, 2);
    assert_ne!(at(&fresh, 1), at(&fresh, 2));
}

/// AutoAttack as published sums gradients over the draws and keeps books by the last: one batch of draws or several.
#[test]
fn books_are_kept_by_the_last_draw() {
    let p = Pipeline::new(2);
    let x = p.images(&p.pixels);
    for estimator in [Estimator::EotGrad, Estimator::Bpda] {
        let usual = p.defended(estimator, 3);
        let last = Defended { last_draw: true, ..p.defended(estimator, 3) };
        assert_eq!(p.gradient(&last, &p.pixels), p.gradient(&usual, &p.pixels));
        let told = last.gradient(&x, &p.query()).unwrap();
        let g = Graph::inference(&p.device, Precision::F32);
        let h = p.denoiser.estimate(&g, &x, &p.noise(2), &last.level, Range::TO_UNIT, Gradient::Exact).unwrap();
        let want = p.classifier.evaluate(&h, &Query::new(&p.labels, Loss::CrossEntropy)).unwrap();
        assert_eq!((&told.loss, &told.margin, &told.prediction), (&want.loss, &want.margin, &want.prediction));
        assert_ne!(told.loss, usual.gradient(&x, &p.query()).unwrap().loss);
    }
}

/// Draws in one batch are the sum of draws one by one, whatever else is in the batch.
#[test]
fn draws_add_up_and_images_do_not_meet() {
    let p = Pipeline::new(5);
    let together = p.gradient(&p.defended(Estimator::EotGrad, 3), &p.pixels);
    let mut sum = vec![0f32; together.len()];
    for draw in 0..3 {
        let g = recording(&p.device, Precision::F32);
        let x = p.images(&p.pixels);
        let level = p.denoiser.level(SIGMA).unwrap();
        let h = p.denoiser.estimate(&g, &x, &p.noise(draw), &level, Range::TO_UNIT, Gradient::Exact).unwrap();
        let logits = p.classifier.forward(&g, &h).unwrap();
        let kind = rampart::ops::loss::LossKind::CROSS_ENTROPY;
        let out = rampart::ops::loss::loss(&g, &logits, &p.labels, None, kind).unwrap();
        let dx = g.backward(&logits, out.dlogits, &x).unwrap().to_f32(&p.device).unwrap();
        sum.iter_mut().zip(&dx).for_each(|(s, d)| *s += d);
    }
    assert!(relative(&together, &sum) < 2e-6);

    let one = Pipeline {
        pixels: p.pixels[3072..6144].to_vec(),
        labels: vec![p.labels[1]],
        ids: vec![p.ids[1]],
        ..Pipeline::new(1)
    };
    assert_eq!(one.gradient(&one.defended(Estimator::EotGrad, 3), &one.pixels), together[3072..6144]);
}

#[test]
fn bpda_takes_the_denoiser_for_the_identity() {
    let p = Pipeline::new(3);
    let target = p.defended(Estimator::Bpda, 1);
    let g = Graph::inference(&p.device, Precision::F32);
    let h = p
        .denoiser
        .estimate(&g, &p.images(&p.pixels), &p.noise(0), &target.level, Range::TO_UNIT, Gradient::Exact)
        .unwrap();
    let want = p.classifier.gradient(&h, &p.query()).unwrap().gradient.unwrap().to_f32(&p.device).unwrap();
    assert!(relative(&p.gradient(&target, &p.pixels), &want) < 2e-6);
}

/// Without a resize nothing but the identity lies between the image and the classifier.
#[test]
fn bpda_through_the_noising_is_bpda_where_nothing_is_resized() {
    let p = Pipeline::new(2);
    let [whole, noising] = [Estimator::Bpda, Estimator::BpdaNoise].map(|e| p.gradient(&p.defended(e, 2), &p.pixels));
    assert!(relative(&noising, &whole) < 1e-5);
}

#[test]
fn a_blind_attack_sees_the_classifier_alone() {
    let p = Pipeline::new(3);
    let x = p.images(&p.pixels);
    let want = p.classifier.gradient(&x, &p.query()).unwrap().gradient.unwrap().to_f32(&p.device).unwrap();
    assert_eq!(p.gradient(&p.defended(Estimator::Blind, 2), &p.pixels), want);
}

/// What the sweep reports: images made through the defence fool it more often than transferred ones.
#[test]
fn an_attack_through_the_defence_beats_a_transferred_one() {
    let p = Pipeline::new(24);
    let attack = Spec { steps: 5, step: StepSize::rule_of_thumb(5), ..Spec::default() }.build().unwrap();
    let clean = p.images(&p.pixels);
    let level = p.denoiser.level(SIGMA).unwrap();
    let right = |target: &dyn attack::Classifier| {
        let batch = Batch { images: &clean, labels: &p.labels, ids: &p.ids };
        let images = attack.run(target, batch, 0.06, 1).unwrap().last;
        let known = (p.labels.as_slice(), p.ids.as_slice());
        let stream = Stream::new(9, Purpose::Noise);
        let told = |done: u64, of: u64| assert!(done <= of && of == 72, "{done} of {of}");
        let scoring = Scoring { vote: Vote::Majority, draws: 3, stream, remembered: None, told: &told };
        let found = smoothing::classify(&p.classifier, &p.denoiser, &images, known, &level, &scoring).unwrap();
        found.iter().filter(|s| s.correct).count()
    };
    let (transferred, through) = (right(&p.classifier), right(&p.defended(Estimator::EotGrad, 3)));
    assert!(through + 3 <= transferred, "through {through}, transferred {transferred} of 24");
}

#[test]
fn what_cannot_be_meant_is_refused() {
    let p = Pipeline::new(2);
    let x = p.images(&p.pixels);
    let target = p.defended(Estimator::EotProb, 2);
    let dlr = Query { loss: Loss::Dlr, ..p.query() };
    assert!(matches!(target.gradient(&x, &dlr), Err(rampart::Error::Usage { .. })));
    let nobody = Query { ids: &[], ..p.query() };
    assert!(matches!(target.gradient(&x, &nobody), Err(rampart::Error::Shape { .. })));
}

/// The picture of a noised image: the noise of sigma in units of pixels, at the denoiser's size where that differs.
#[test]
fn noised_pictures_show_the_noise_the_network_gets() {
    let p = Pipeline::new(4);
    let (level, stream) = (p.denoiser.level(SIGMA).unwrap(), Stream::new(SEED, Purpose::Noise));
    let x = p.images(&p.pixels);
    let noised = |d: &Denoiser| d.noised(&x, &p.ids, &level, &stream).unwrap().to_f32(&p.device).unwrap();
    let noise = normal(&p.device, &stream, &p.ids, &[32, 32, 3]).unwrap().to_f32(&p.device).unwrap();
    for ((got, x), noise) in noised(&p.denoiser).iter().zip(&p.pixels).zip(&noise) {
        let want = f64::from(*x) + level.step.ratio as f64 / 2.0 * f64::from(*noise);
        assert!((f64::from(*got) - want).abs() < 1e-5, "got {got}, want {want}");
    }
    assert!((f64::from(level.step.ratio) / 2.0 - SIGMA).abs() < 0.01 * SIGMA);

    // At half the size: the enlarged noise varies less than the noise itself.
    let half = Pipeline::new(4).denoiser.at([16, 16], [32, 32], rampart::ops::resize::Filter::Bilinear).unwrap();
    let deviation = |a: &[f32]| {
        let sum: f64 = a.iter().zip(&p.pixels).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        (sum / a.len() as f64).sqrt()
    };
    let (whole, small) = (deviation(&noised(&p.denoiser)), deviation(&noised(&half)));
    assert!((whole - SIGMA).abs() < 0.02 && small > 0.1 && small < 0.9 * whole, "{whole} and {small}");
}

/// More draws than are denoised at once: the gradients of all of them add up, for eot_prob by their share of the probability.
#[test]
fn many_draws_are_taken_in_pieces() {
    const DRAWS: u32 = 30;
    let p = Pipeline::new(1);
    let level = p.denoiser.level(SIGMA).unwrap();
    let (mut losses, mut gradients) = (Vec::new(), Vec::new());
    for draw in 0..DRAWS {
        let g = recording(&p.device, Precision::F32);
        let x = p.images(&p.pixels);
        let h = p.denoiser.estimate(&g, &x, &p.noise(draw), &level, Range::TO_UNIT, Gradient::Exact).unwrap();
        let logits = p.classifier.forward(&g, &h).unwrap();
        let kind = rampart::ops::loss::LossKind::CROSS_ENTROPY;
        let out = rampart::ops::loss::loss(&g, &logits, &p.labels, None, kind).unwrap();
        losses.push(f64::from(out.loss.to_f32(&p.device).unwrap()[0]));
        gradients.push(g.backward(&logits, out.dlogits, &x).unwrap().to_f32(&p.device).unwrap());
    }
    let total: f64 = losses.iter().map(|l| (-l).exp()).sum();
    for (estimator, prob) in [(Estimator::EotGrad, false), (Estimator::EotProb, true)] {
        let mut want = vec![0f64; 3072];
        for (loss, gradient) in losses.iter().zip(&gradients) {
            let weight = if prob { (-loss).exp() / total * f64::from(DRAWS) } else { 1.0 };
            want.iter_mut().zip(gradient).for_each(|(w, g)| *w += weight * f64::from(*g));
        }
        let want: Vec<f32> = want.into_iter().map(|v| v as f32).collect();
        let error = relative(&p.gradient(&p.defended(estimator, DRAWS), &p.pixels), &want);
        assert!(error < 1e-5, "{estimator}: {error}");
    }
    let e = p.defended(Estimator::EotGrad, DRAWS).evaluate(&p.images(&p.pixels), &p.query()).unwrap();
    let mean = losses.iter().sum::<f64>() / f64::from(DRAWS);
    assert!((f64::from(e.loss[0]) - mean).abs() < 1e-5 * mean.abs().max(1e-3), "{} and {mean}", e.loss[0]);
}
