//! The defence at another size than the classifier, and the switches that repeat a published study: each against its parts.

use rampart::attack::{
    self, Batch, Classifier as _, Loss, Normalised, Oracle as _, Purpose, Query, Spec, StepSize, Stream,
};
use rampart::config::{Config, Overrides};
use rampart::data::{Dataset, Select, demo};
use rampart::defense::denoise::{Denoiser, Gradient};
use rampart::defense::{Defended, Estimator};
use rampart::device::{DType, Device};
use rampart::models::classifier::Classifier;
use rampart::models::weights::Weights;
use rampart::ops::diffusion::Range;
use rampart::ops::philox::normal;
use rampart::ops::resize::{Filter, Resize, resize};
use rampart::run::Engine;
use rampart::run::engine::AttackEngine;
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

const SIGMA: f64 = 0.25;
/// Of the classifier and of the denoiser.
const LARGE: [usize; 2] = [48, 40];
const SMALL: [usize; 2] = [32, 24];

fn weights(name: &str) -> Weights {
    Weights::embedded(name, demo::weights(name).unwrap()).unwrap()
}

fn denoiser(device: &Device) -> Denoiser {
    Denoiser::load(device, Precision::F32, &weights(demo::DENOISER)).unwrap()
}

fn classifier(device: &Device, size: [usize; 2]) -> Classifier {
    Classifier::load(device, Precision::F32, &weights("resnet50-w16"), size).unwrap()
}

/// The demo's first images, enlarged.
fn images(device: &Device, n: usize, size: [usize; 2]) -> (Tensor, Dataset) {
    let data = demo::dataset(Some(n), Select::First).unwrap();
    let pixels = data.batch(&(0..n).collect::<Vec<_>>()).unwrap();
    let x = Tensor::from_f32(device, &[n, 32, 32, 3], DType::F32, &pixels).unwrap();
    (resized(device, &x, size, Filter::Bilinear), data)
}

fn resized(device: &Device, x: &Tensor, size: [usize; 2], filter: Filter) -> Tensor {
    let from = [x.shape()[1], x.shape()[2]];
    let tables = Resize::new(device, from, size, filter, true).unwrap().into();
    resize(&Graph::inference(device, Precision::F32), x, &tables).unwrap()
}

fn relative(got: &[f32], want: &[f32]) -> f64 {
    let d: f64 = got.iter().zip(want).map(|(g, w)| f64::from(g - w).powi(2)).sum();
    (d / want.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>()).sqrt()
}

#[test]
fn a_resized_defence_is_resize_denoise_resize() {
    let device = Device::host().unwrap();
    let (x, data) = images(&device, 3, LARGE);
    let stream = Stream::new(3, Purpose::Noise);
    for filter in [Filter::Bilinear, Filter::Bicubic] {
        let plain = denoiser(&device);
        let level = plain.level(SIGMA).unwrap();
        let inside = plain.images(&resized(&device, &x, SMALL, filter), &data.ids, &level, &stream).unwrap();
        let want = resized(&device, &inside, LARGE, filter).to_f32(&device).unwrap();

        let sized = denoiser(&device).at(SMALL, LARGE, filter).unwrap();
        assert_eq!(sized.noise_shape([48, 40, 3]), [32, 24, 3]);
        let found = sized.images(&x, &data.ids, &sized.level(SIGMA).unwrap(), &stream).unwrap();
        assert_eq!(found.shape(), x.shape());
        assert_eq!(found.to_f32(&device).unwrap(), want, "{filter:?}");
    }
    // At the size of the images it is the plain one.
    let same = denoiser(&device).at(LARGE, LARGE, Filter::Bicubic).unwrap();
    let plain = denoiser(&device);
    let run =
        |d: &Denoiser| d.images(&x, &data.ids, &d.level(SIGMA).unwrap(), &stream).unwrap().to_f32(&device).unwrap();
    assert_eq!(run(&same), run(&plain));
}

#[test]
fn gradients_run_through_the_resizes() {
    let device = Device::host().unwrap();
    let (x, data) = images(&device, 2, LARGE);
    let net = classifier(&device, LARGE);
    let defense = denoiser(&device).at(SMALL, LARGE, Filter::Bicubic).unwrap();
    let level = defense.level(SIGMA).unwrap();
    let target = Defended {
        classifier: &net,
        denoiser: &defense,
        level,
        estimator: Estimator::EotGrad,
        draws: 2,
        seed: 5,
        straight: false,
        antithetic: false,
        last_draw: false,
        fixed: None,
    };
    let query = Query { ids: &data.ids, step: 4, ..Query::new(&data.labels, Loss::CrossEntropy) };
    let gradient = target.gradient(&x, &query).unwrap().gradient.unwrap();
    assert_eq!(gradient.shape(), x.shape());
    let (pixels, gradient) = (x.to_f32(&device).unwrap(), gradient.to_f32(&device).unwrap());

    let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
    let loss = |sign: f64| {
        let step = |(x, g): (&f32, &f32)| x + (sign * 0.003 * f64::from(*g) / norm) as f32;
        let moved: Vec<f32> = pixels.iter().zip(&gradient).map(step).collect();
        let moved = Tensor::from_f32(&device, x.shape(), DType::F32, &moved).unwrap();
        // The gradient is summed over the draws, the loss is their mean.
        2.0 * target.evaluate(&moved, &query).unwrap().loss.iter().map(|&l| f64::from(l)).sum::<f64>()
    };
    let slope = (loss(1.0) - loss(-1.0)) / 0.006;
    assert!((slope - norm).abs() <= 0.02 * norm, "slope {slope:.5}, norm of the gradient {norm:.5}");
}

#[test]
fn what_is_not_rescaled_is_passed_as_it_is() {
    let device = Device::host().unwrap();
    let (x, data) = images(&device, 2, [32, 32]);
    let stream = Stream::new(3, Purpose::Noise);
    let run = |d: &Denoiser, x: &Tensor| {
        d.images(x, &data.ids, &d.level(SIGMA).unwrap(), &stream).unwrap().to_f32(&device).unwrap()
    };
    let plain = denoiser(&device);
    // [0, 1] taken for [-1, 1] is what (x + 1) / 2 would be, rescaled.
    let half: Vec<f32> = x.to_f32(&device).unwrap().iter().map(|v| 0.5 * v + 0.5).collect();
    let half = run(&plain, &Tensor::from_f32(&device, x.shape(), DType::F32, &half).unwrap());
    assert!(relative(&run(&denoiser(&device).rescaling(false, true), &x), &half) <= 1e-5);
    let signed: Vec<f32> = half.iter().map(|v| 2.0 * v - 1.0).collect();
    assert!(relative(&run(&denoiser(&device).rescaling(false, false), &x), &signed) <= 1e-5);
    let signed: Vec<f32> = run(&plain, &x).iter().map(|v| 2.0 * v - 1.0).collect();
    assert!(relative(&run(&denoiser(&device).rescaling(true, false), &x), &signed) <= 1e-5);
    assert_eq!(denoiser(&device).rescaling(true, true).output_range(), Range::TO_UNIT);

    // The attack on the pipeline sees the same: its forward is the classifier's loss on those images.
    let net = classifier(&device, [32, 32]);
    let odd = denoiser(&device).rescaling(false, false);
    let level = odd.level(SIGMA).unwrap();
    let target = Defended {
        classifier: &net,
        denoiser: &odd,
        level,
        estimator: Estimator::EotGrad,
        draws: 1,
        seed: 5,
        straight: false,
        antithetic: false,
        last_draw: false,
        fixed: None,
    };
    let query = Query { ids: &data.ids, step: 4, ..Query::new(&data.labels, Loss::CrossEntropy) };
    let noise = Stream { seed: 5, purpose: Purpose::AttackNoise, restart: 0, step: 4, draw: 0 };
    let noise = normal(&device, &noise, &data.ids, &[32, 32, 3]).unwrap();
    let g = Graph::inference(&device, Precision::F32);
    let denoised = odd.estimate(&g, &x, &noise, &target.level, Range::SAME, Gradient::Exact).unwrap();
    let want = net.evaluate(&denoised, &query).unwrap().loss;
    let found = target.evaluate(&x, &query).unwrap().loss;
    assert!(relative(&found, &want) <= 1e-5, "{found:?} {want:?}");
}

/// The loop of the study, in plain arithmetic: step, project, clip, all on the normalised tensor.
#[test]
fn the_normalised_attack_is_the_loop_of_the_study() {
    let device = Device::host().unwrap();
    let (x, data) = images(&device, 4, [32, 32]);
    let net = classifier(&device, [32, 32]);
    let (mean, std) = net.normalisation();
    let target = Normalised::new(&net, mean, std);
    let pixels = x.to_f32(&device).unwrap();
    let v0 = target.from_pixels(&pixels);
    assert!(v0.iter().any(|v| *v < 0.0) && v0.iter().any(|v| *v > 1.0));
    let (eps, step) = (0.05, 2.0 / 255.0);
    let spec = Spec { steps: 5, step: StepSize::Absolute(step), random_start: false, ..Spec::default() };
    let normalised = Tensor::from_f32(&device, x.shape(), DType::F32, &v0).unwrap();
    let batch = Batch { images: &normalised, labels: &data.labels, ids: &data.ids };
    let found = spec.build().unwrap().run(&target, batch, eps, 0).unwrap();
    let (outcomes, last) = (found.outcomes, found.last.to_f32(&device).unwrap());

    let (eps, step) = (eps as f32, step as f32);
    let mut v = v0.clone();
    let query = Query::new(&data.labels, Loss::CrossEntropy);
    for _ in 0..5 {
        let seen: Vec<f32> = v.iter().enumerate().map(|(i, v)| v * std[i % 3] + mean[i % 3]).collect();
        let seen = Tensor::from_f32(&device, x.shape(), DType::F32, &seen).unwrap();
        let gradient = net.gradient(&seen, &query).unwrap().gradient.unwrap().to_f32(&device).unwrap();
        for ((v, v0), g) in v.iter_mut().zip(&v0).zip(gradient) {
            let sign = if g == 0.0 { 0.0 } else { g.signum() };
            *v = (v0 + (*v + step * sign - v0).clamp(-eps, eps)).clamp(0.0, 1.0);
        }
    }
    let differ = v.iter().zip(&last).filter(|(a, b)| (**a - **b).abs() > 1e-5).count();
    assert!(differ * 200 <= v.len(), "{differ} of {} values differ", v.len());
    // What lay below the mean is lost, far beyond the budget, and that is reported.
    assert!(last.iter().all(|v| (0.0..=1.0).contains(v)));
    assert!(outcomes.iter().all(|o| o.violation && o.linf > 0.5), "{outcomes:?}");
    // Pixels are still refused outside [0, 1].
    assert!(spec.build().unwrap().run(&net, batch, f64::from(eps), 0).is_err());
}

fn engine_run(attack: &str, eps: f64, n: usize) -> (Config, Dataset, Vec<attack::Outcome>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("try.toml");
    let text = format!(
        "limit = {n}\ndevice = \"host\"\n[defense]\nsigma = []\n[[models]]\nweights = \"demo:resnet50-w16\"\n[attack]\n{attack}"
    );
    std::fs::write(&path, text).unwrap();
    let config = Config::load(Some(&path), &Overrides::default()).unwrap();
    let data = config.dataset.load(n).unwrap();
    let outcomes =
        AttackEngine::new(&config, &data).unwrap().run(0, eps, &(0..n).collect::<Vec<_>>()).unwrap().outcomes;
    (config, data, outcomes)
}

/// Images saved with 8 bits are scored as they were saved, so that a budget of less than half a level is none.
#[test]
fn images_handed_over_in_8_bits_are_scored_so() {
    const N: usize = 12;
    const PGD: &str = "steps = 5\nstep_size = \"2/255\"\nrandom_start = false\n";
    let (_, data, outcomes) = engine_run(&format!("{PGD}hand_over = \"8-bit\"\neps = [0.0015, 0.01]\n"), 0.0015, N);
    assert!(outcomes.iter().all(|o| o.prediction == o.clean_prediction && o.correct_last == o.correct_clean));
    let (_, _, free) = engine_run(&format!("{PGD}eps = [0.0015, 0.01]\n"), 0.0015, N);
    assert!(free.iter().zip(&outcomes).all(|(a, b)| a.margin == b.margin && a.linf > 0.0));
    // What is measured is what was scored.
    assert!(outcomes.iter().all(|o| o.linf == 0.0 && !o.violation));

    let (config, _, outcomes) = engine_run(&format!("{PGD}hand_over = \"8-bit\"\neps = [0.0015, 0.01]\n"), 0.01, N);
    assert_eq!(config.attack.label(), "pgd-8bit");
    let device = Device::host().unwrap();
    let net = classifier(&device, [32, 32]);
    let pixels = data.batch(&(0..N).collect::<Vec<_>>()).unwrap();
    let spec = Spec { steps: 5, step: StepSize::Absolute(2.0 / 255.0), random_start: false, ..Spec::default() };
    let images = Tensor::from_f32(&device, &[N, 32, 32, 3], DType::F32, &pixels).unwrap();
    let batch = Batch { images: &images, labels: &data.labels, ids: &data.ids };
    let last = spec.build().unwrap().run(&net, batch, 0.01, 0).unwrap().last.to_f32(&device).unwrap();
    let saved: Vec<f32> = last.iter().map(|v| (255.0 * v + 0.5).floor().clamp(0.0, 255.0) / 255.0).collect();
    let saved = Tensor::from_f32(&device, &[N, 32, 32, 3], DType::F32, &saved).unwrap();
    let want = net.evaluate(&saved, &Query::new(&data.labels, Loss::CrossEntropy)).unwrap().prediction;
    assert_eq!(outcomes.iter().map(|o| o.prediction).collect::<Vec<_>>(), want);
    for o in &outcomes {
        assert!(o.correct_any <= o.correct_last && o.correct_last <= o.correct_clean, "{o:?}");
        // 2.55 levels become 3.
        assert!(o.violation && (o.linf - 3.0 / 255.0).abs() < 1e-6, "{o:?}");
    }
    let (_, _, whole) = engine_run(&format!("{PGD}hand_over = \"8-bit\"\neps = [\"2/255\"]\n"), 2.0 / 255.0, N);
    assert!(whole.iter().all(|o| !o.violation && o.linf > 0.0), "{whole:?}");
}

/// The study's ImageNet attack end to end: what the classifier then sees is darker below the mean, so that accuracy falls even
/// where the budget alone would not do it.
#[test]
fn the_normalised_attack_is_scored_on_the_crushed_image() {
    const N: usize = 16;
    let how = "steps = 1\nstep_size = 1e-6\nrandom_start = false\nspace = \"normalised\"\nhand_over = \"8-bit\"\neps = [0, 1e-6]\n";
    let (config, data, outcomes) = engine_run(how, 1e-6, N);
    assert_eq!(config.attack.label(), "pgd-normalised-8bit");
    let device = Device::host().unwrap();
    let net = classifier(&device, [32, 32]);
    let (mean, std) = net.normalisation();
    let pixels = data.batch(&(0..N).collect::<Vec<_>>()).unwrap();
    let crushed = pixels.iter().enumerate().map(|(i, p)| ((p - mean[i % 3]) / std[i % 3]).clamp(0.0, 1.0));
    let crushed: Vec<f32> = crushed.map(|v| (255.0 * v + 0.5).floor() / 255.0).collect();
    let crushed = Tensor::from_f32(&device, &[N, 32, 32, 3], DType::F32, &crushed).unwrap();
    let want = net.evaluate(&crushed, &Query::new(&data.labels, Loss::CrossEntropy)).unwrap().prediction;
    let found: Vec<u32> = outcomes.iter().map(|o| o.prediction).collect();
    assert_eq!(found, want);
    // Without a budget nothing is crushed.
    let (_, _, none) = engine_run(how, 0.0, N);
    assert!(none.iter().all(|o| o.prediction == o.clean_prediction));
}
