//! Whole networks against golden values computed in float64 from the deterministic fill of `models::weights`.

use rampart::device::{DType, Device};
use rampart::models::network::Network as _;
use rampart::models::resnet::{Attention, Config, ResNet, Stem};
use rampart::models::resnet_study;
use rampart::models::weights::{Weights, uniform};
use rampart::ops::loss::{LossKind, loss};
use rampart::ops::recording;
use rampart::tape::Precision;
use rampart::tensor::Tensor;

/// The deterministic input `(N, 3, H, W)`, channels last.
fn input(n: usize, size: usize) -> Vec<f32> {
    let nchw: Vec<f32> = uniform("input", n * 3 * size * size).collect();
    to_channels_last(&nchw, n, size)
}

fn to_channels_last(nchw: &[f32], n: usize, size: usize) -> Vec<f32> {
    let plane = size * size;
    let at = |i: usize, p: usize, c: usize| nchw[(i * 3 + c) * plane + p];
    (0..n)
        .flat_map(|i| (0..plane).flat_map(move |p| (0..3).map(move |c| (i, p, c))))
        .map(|(i, p, c)| at(i, p, c))
        .collect()
}

fn to_channels_first(nhwc: &[f32], n: usize, size: usize) -> Vec<f32> {
    let plane = size * size;
    let at = |i: usize, c: usize, p: usize| nhwc[(i * plane + p) * 3 + c];
    (0..n)
        .flat_map(|i| (0..3).flat_map(move |c| (0..plane).map(move |p| (i, c, p))))
        .map(|(i, c, p)| at(i, c, p))
        .collect()
}

struct Run {
    logits: Vec<f32>,
    /// mean cross-entropy
    loss: f64,
    /// of the mean cross-entropy, NCHW
    gradient: Vec<f32>,
}

fn run(config: &Config, precision: Precision, size: usize, labels: &[u32]) -> Run {
    let device = Device::host().unwrap();
    let net = ResNet::new(&device, precision, &Weights::seeded(), config).unwrap();
    run_network(&device, &net, precision, size, labels)
}

fn run_network(device: &Device, net: &ResNet, precision: Precision, size: usize, labels: &[u32]) -> Run {
    let n = labels.len();
    let x = Tensor::from_f32(device, &[n, size, size, 3], precision.dtype(), &input(n, size)).unwrap();
    let g = recording(device, precision);
    let logits = net.forward(&g, &x).unwrap();
    let out = loss(&g, &logits, labels, None, LossKind::CrossEntropy { label_smoothing: 0.0 }).unwrap();
    let values = logits.to_f32(device).unwrap();
    let loss = out.loss.to_f32(device).unwrap().iter().map(|&l| f64::from(l)).sum::<f64>() / n as f64;
    let dx = g.backward(&logits, out.dlogits, &x).unwrap();
    assert_eq!(dx.dtype(), if precision == Precision::Bf16 { DType::BF16 } else { DType::F32 });
    let mut gradient = to_channels_first(&dx.to_f32(device).unwrap(), n, size);
    gradient.iter_mut().for_each(|v| *v /= n as f32);
    Run { logits: values, loss, gradient }
}

fn relative(got: &[f32], want: &[f64]) -> f64 {
    let d: f64 = got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).powi(2)).sum();
    (d / want.iter().map(|w| w * w).sum::<f64>()).sqrt()
}

fn close(what: &str, got: f64, want: f64, limit: f64) {
    let err = (got - want).abs() / want.abs();
    assert!(err <= limit, "{what}: got {got}, want {want}, relative error {err:.1e}, limit {limit:.1e}");
}

/// Sum, L1 norm, L2 norm, sum of signs and first values of a gradient.
struct Golden<'a> {
    logits: &'a [f64],
    loss: f64,
    l1: f64,
    l2: f64,
    signs: i64,
    first: &'a [f64],
}

fn check(name: &str, r: &Run, want: &Golden, output: f64, gradient: f64, signs: i64) {
    assert!(r.logits.iter().chain(&r.gradient).all(|v| v.is_finite()), "{name}: not finite");
    let err = relative(&r.logits[..want.logits.len()], want.logits);
    assert!(err <= output, "{name} logits: relative error {err:.1e}, limit {output:.1e}");
    close(&format!("{name} loss"), r.loss, want.loss, output);
    let l1: f64 = r.gradient.iter().map(|v| f64::from(v.abs())).sum();
    let l2: f64 = r.gradient.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    close(&format!("{name} gradient L1"), l1, want.l1, gradient);
    close(&format!("{name} gradient L2"), l2, want.l2, gradient);
    let sum: i64 = r
        .gradient
        .iter()
        .map(|&v| {
            if v > 0.0 {
                1
            } else if v < 0.0 {
                -1
            } else {
                0
            }
        })
        .sum();
    assert!((sum - want.signs).abs() <= signs, "{name} signs: got {sum}, want {} up to {signs}", want.signs);
    let scale = l2 / (r.gradient.len() as f64).sqrt();
    for (got, want) in r.gradient.iter().zip(want.first) {
        assert!((f64::from(*got) - want).abs() <= 50.0 * gradient * scale, "{name} gradient: got {got}, want {want}");
    }
}

fn cifar(attention: Attention) -> Config {
    Config { depth: 50, stem: Stem::Cifar, width: 64, attention, reduction: 16, classes: 10 }
}

const PLAIN: Golden = Golden {
    logits: &[
        -1.09792680,
        -1.44352970,
        1.71093318,
        -1.70643584,
        -2.18303551,
        2.07351144,
        -0.41299150,
        2.63088814,
        2.00142394,
        -0.10041855,
        -1.03264336,
        -1.42894625,
        1.72558410,
        -1.76083897,
        -2.19196823,
        2.01740956,
        -0.44047754,
        2.63286608,
        1.90448053,
        -0.08416625,
    ],
    loss: 3.1395902427,
    l1: 5.9654331442,
    l2: 1.0454663801e-1,
    signs: -132,
    first: &[-3.64456930e-4, -1.85589468e-3, 9.79614303e-5, -9.45761058e-4],
};

const CBAM: Golden = Golden {
    logits: &[
        -0.29635303,
        -0.06372332,
        0.14376961,
        -0.60420894,
        -0.33036120,
        0.33549745,
        0.03536109,
        0.40084854,
        0.11602757,
        -0.22309891,
        -0.31404283,
        -0.10655054,
        0.14911883,
        -0.61694286,
        -0.30010531,
        0.35962846,
        0.02234426,
        0.37356899,
        0.11996429,
        -0.19525078,
    ],
    loss: 2.4119522000,
    l1: 1.5146609280,
    l2: 3.7123085508e-2,
    signs: -36,
    first: &[-2.03162460e-3, -1.01868174e-3, 1.75255754e-4, 5.55816827e-4],
};

#[test]
fn cifar_resnet50_has_its_golden_values() {
    check("plain", &run(&cifar(Attention::None), Precision::F32, 32, &[3, 7]), &PLAIN, 5e-6, 2e-5, 8);
}

#[test]
fn cifar_resnet50_with_cbam_has_its_golden_values() {
    check("cbam", &run(&cifar(Attention::Cbam), Precision::F32, 32, &[3, 7]), &CBAM, 5e-6, 2e-5, 8);
}

#[test]
fn bfloat16_stays_within_its_limits() {
    // Norms only: the sign of a small gradient entry is not bfloat16's to decide.
    check("plain bf16", &run(&cifar(Attention::None), Precision::Bf16, 32, &[3, 7]), &PLAIN, 3e-2, 8e-2, 1000);
    check("cbam bf16", &run(&cifar(Attention::Cbam), Precision::Bf16, 32, &[3, 7]), &CBAM, 3e-2, 8e-2, 1000);
}

#[test]
fn torchvision_resnet50_has_its_golden_values() {
    let config =
        Config { depth: 50, stem: Stem::Imagenet, width: 64, attention: Attention::None, reduction: 16, classes: 1000 };
    let r = run(&config, Precision::F32, 224, &[3]);
    let want = Golden {
        logits: &[
            -1.72270256,
            -2.16012604,
            2.54466348,
            -2.34772841,
            -4.02047626,
            2.86269280,
            -0.50419815,
            3.55460491,
            3.16773491,
            -0.09364437,
        ],
        loss: 11.1433369030,
        l1: 45.305065485,
        l2: 0.15366960211,
        signs: -2652,
        first: &[],
    };
    check("torchvision", &r, &want, 5e-6, 2e-5, 40);
    let sum: f64 = r.logits.iter().map(|&v| f64::from(v)).sum();
    let squares: f64 = r.logits.iter().map(|&v| f64::from(v).powi(2)).sum();
    close("sum of logits", sum, -60.37374615, 1e-5);
    close("sum of squares", squares, 4322.06264318, 1e-5);
}

#[test]
fn variant_s_with_cbam_has_its_golden_values() {
    let device = Device::host().unwrap();
    let config = resnet_study::Config { attention: Attention::Cbam, classes: 10, width: 64 };
    let net = resnet_study::build(&device, Precision::F32, &Weights::seeded(), &config).unwrap();
    let r = run_network(&device, &net, Precision::F32, 224, &[3]);
    let want = Golden {
        logits: &[
            -0.09468608,
            -0.05172758,
            -0.45344595,
            0.63437250,
            0.18964601,
            0.42040890,
            -0.08102549,
            -0.17202564,
            0.69153391,
            0.12468067,
        ],
        loss: 1.8510019690,
        l1: 7.1966301431,
        l2: 3.8815490386e-2,
        signs: -398,
        first: &[-4.47447545e-4, -4.76873957e-4, -3.74399674e-5, -1.29526474e-5],
    };
    check("variant S", &r, &want, 5e-6, 2e-5, 20);
}

#[test]
fn variant_s_has_its_public_size() {
    let device = Device::host().unwrap();
    // Parameters, and the running mean and variance of every batch norm.
    for (attention, parameters, norms) in [(Attention::None, 15_434_314, 36_224), (Attention::Cbam, 17_010_150, 36_246)]
    {
        let weights = Weights::seeded();
        let config = resnet_study::Config { attention, classes: 10, width: 64 };
        resnet_study::build(&device, Precision::F32, &weights, &config).unwrap();
        assert_eq!(weights.taken(), parameters + norms);
    }
}
