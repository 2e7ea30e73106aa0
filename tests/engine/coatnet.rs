//! CoAtNet at full size against golden values computed in float64 from the deterministic fill of `models::weights`.

use rampart::device::{DType, Device};
use rampart::models::coatnet::rollout::rollout;
use rampart::models::coatnet::{CoAtNet, Config, position_table};
use rampart::models::network::Network as _;
use rampart::models::probe::Probe;
use rampart::models::weights::{Weights, fill, uniform};
use rampart::ops::attention::Positions;
use rampart::ops::loss::{LossKind, loss};
use rampart::ops::recording;
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

fn full() -> Config {
    Config {
        stem: [64, 128],
        dims: vec![128, 256, 512, 1024],
        depths: vec![2, 6, 14, 2],
        types: "CCTT".into(),
        head_dim: 32,
        rel_pos_hidden: 512,
        image: 384,
        classes: 1000,
    }
}

/// The deterministic input, channels last.
fn input(size: usize) -> Vec<f32> {
    let nchw: Vec<f32> = uniform("input", 3 * size * size).collect();
    (0..size * size * 3).map(|i| nchw[i % 3 * size * size + i / 3]).collect()
}

#[track_caller]
fn near(what: &str, got: f64, want: f64, relative: f64) {
    assert!((got - want).abs() <= relative * want.abs(), "{what}: got {got:.8}, want {want:.8}");
}

#[test]
fn the_full_network() {
    let device = Device::host().unwrap();
    let weights = Weights::seeded();
    let net = CoAtNet::new(&device, Precision::F32, &weights, &full(), [384, 384]).unwrap();
    let x = Tensor::from_f32(&device, &[1, 384, 384, 3], DType::F32, &input(384)).unwrap();
    let g = recording(&device, Precision::F32);
    let logits = net.forward(&g, &x).unwrap();
    let out = loss(&g, &logits, &[3], None, LossKind::CROSS_ENTROPY).unwrap();
    let values: Vec<f64> = logits.to_f32(&device).unwrap().iter().map(|&v| f64::from(v)).collect();
    let want = [
        0.48987495,
        -1.15438643,
        -0.56136803,
        -2.47306807,
        -0.95518668,
        -1.29714756,
        1.04585022,
        0.72637393,
        -0.30850573,
        1.45300774,
    ];
    for (i, (got, want)) in values.iter().zip(want).enumerate() {
        assert!((got - want).abs() <= 5e-6, "logit {i}: got {got:.8}, want {want:.8}");
    }
    let top = (0..1000).fold(0, |best, i| if values[i] > values[best] { i } else { best });
    assert_eq!(top, 228);
    near("sum", values.iter().sum(), -31.23692045, 1e-5);
    near("squares", values.iter().map(|v| v * v).sum(), 1078.47142858, 1e-6);
    near("loss", f64::from(out.loss.to_f32(&device).unwrap()[0]), 9.8715357017, 1e-6);

    let dx = g.backward(&logits, out.dlogits, &x).unwrap().to_f32(&device).unwrap();
    let wide = || dx.iter().map(|&v| f64::from(v));
    near("gradient L1", wide().map(f64::abs).sum(), 9.5390133290, 1e-5);
    near("gradient L2", wide().map(|v| v * v).sum::<f64>().sqrt(), 1.9372567912e-02, 1e-5);
    near("gradient sum", wide().sum(), -6.5382786996e-01, 1e-4);
    let signs: f64 = wide().map(f64::signum).sum();
    assert!((signs + 1006.0).abs() <= 8.0, "sum of signs {signs}");
    for (i, want) in [-3.71266086e-05, 3.52023658e-05, -4.34398810e-05, 1.16096839e-05].into_iter().enumerate() {
        // Channel 0 of the first pixels.
        let got = f64::from(dx[3 * i]);
        assert!((got - want).abs() <= 1e-9, "gradient {i}: got {got:e}, want {want:e}");
    }
}

/// Root mean square of every block's output.
#[test]
fn the_trace_of_its_blocks() {
    let want: [(&str, f64); 26] = [
        ("stem", 0.360680),
        ("stages.0.blocks.0", 0.224687),
        ("stages.0.blocks.1", 0.234135),
        ("stages.1.blocks.0", 0.196962),
        ("stages.1.blocks.1", 0.204901),
        ("stages.1.blocks.2", 0.211119),
        ("stages.1.blocks.3", 0.216933),
        ("stages.1.blocks.4", 0.222021),
        ("stages.1.blocks.5", 0.224698),
        ("stages.2.blocks.0", 0.677896),
        ("stages.2.blocks.1", 0.943848),
        ("stages.2.blocks.2", 1.083160),
        ("stages.2.blocks.3", 1.270518),
        ("stages.2.blocks.4", 1.443959),
        ("stages.2.blocks.5", 1.601131),
        ("stages.2.blocks.6", 1.717987),
        ("stages.2.blocks.7", 1.818535),
        ("stages.2.blocks.8", 1.949635),
        ("stages.2.blocks.9", 2.034311),
        ("stages.2.blocks.10", 2.130187),
        ("stages.2.blocks.11", 2.211773),
        ("stages.2.blocks.12", 2.304870),
        ("stages.2.blocks.13", 2.396853),
        ("stages.3.blocks.0", 2.461839),
        ("stages.3.blocks.1", 2.566986),
        ("norm", 1.009952),
    ];
    let device = Device::host().unwrap();
    let net = CoAtNet::new(&device, Precision::F32, &Weights::seeded(), &full(), [384, 384]).unwrap();
    let x = Tensor::from_f32(&device, &[1, 384, 384, 3], DType::F32, &input(384)).unwrap();
    let mut seen = Vec::new();
    let mut probe = Probe::every(|name, t| {
        let values = t.to_f32(&device).unwrap();
        let squares: f64 = values.iter().map(|&v| f64::from(v).powi(2)).sum();
        seen.push((name.to_owned(), (squares / values.len() as f64).sqrt()));
    });
    net.probe(&Graph::inference(&device, Precision::F32), &x, &mut probe).unwrap();
    drop(probe);
    for ((name, got), (want_name, want)) in seen.iter().zip(want) {
        assert_eq!(name, want_name);
        assert!((got - want).abs() <= 4e-6, "{name}: got {got:.6}, want {want:.6}");
    }
    assert!(seen.len() > want.len());
}

#[test]
fn it_has_its_public_size() {
    let weights = Weights::seeded();
    CoAtNet::new(&Device::host().unwrap(), Precision::F32, &weights, &full(), [384, 384]).unwrap();
    // 73,881,264 parameters, and the running mean and variance of the 25 batch norms.
    assert_eq!(weights.taken(), 73_881_264 + statistics());
}

/// Means and variances of the stem's norm and of three norms per MBConv.
fn statistics() -> usize {
    let block = |c: usize| 2 * (c + 4 * c + 4 * c);
    2 * 64 + 2 * block(128) + block(128) + 5 * block(256)
}

#[test]
fn the_position_bias_of_a_block() {
    let name = |part: &str| format!("stages.2.blocks.1.attn.rel_pos.mlp.{part}");
    let get = |part: &str, shape: &[usize]| fill(&name(part), shape);
    let (w1, b1) = (get("fc1.weight", &[512, 2]), get("fc1.bias", &[512]));
    let (w2, b2) = (get("fc2.weight", &[16, 512]), get("fc2.bias", &[16]));
    let table = position_table([24, 24], 16, (&w1, &b1), (&w2, &b2));
    let device = Device::host().unwrap();
    let bias = Positions::new(&device, 16, [24, 24], &table).unwrap().expanded(&device).unwrap();
    let at = |h: usize, q: usize, k: usize| f64::from(bias[(h * 576 + q) * 576 + k]);
    for (k, want) in [-0.29852251, -0.75330436, -1.06908522, -1.29481039].into_iter().enumerate() {
        assert!((at(0, 0, k) - want).abs() <= 1e-6);
    }
    for (k, want) in [4.67415538, 4.61623005, 4.55633061].into_iter().enumerate() {
        assert!((at(15, 575, k) - want).abs() <= 2e-6);
    }
    assert!((at(3, 100, 200) - 1.61316686).abs() <= 1e-6);
}

fn small() -> Config {
    Config {
        stem: [4, 8],
        dims: vec![8, 16, 24],
        depths: vec![1, 2, 1],
        types: "CTT".into(),
        head_dim: 8,
        rel_pos_hidden: 16,
        image: 48,
        classes: 5,
    }
}

#[test]
fn attention_is_computed_for_whoever_asks() {
    let device = Device::host().unwrap();
    let net = CoAtNet::new(&device, Precision::F32, &Weights::seeded(), &small(), [48, 32]).unwrap();
    let values: Vec<f32> = uniform("two images", 2 * 48 * 32 * 3).collect();
    let x = Tensor::from_f32(&device, &[2, 48, 32, 3], DType::F32, &values).unwrap();
    let look = |modules: &[&str]| {
        let g = Graph::inference(&device, Precision::F32);
        let mut probe = Probe::several(&modules.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let logits = net.probe(&g, &x, &mut probe).unwrap().to_f32(&device).unwrap();
        (logits, probe.all())
    };
    let (first, second) = ("stages.1.blocks.0.attn.weights", "stages.1.blocks.1.attn.weights");
    let (logits, seen) = look(&[second, "stages.1.attention_rollout", first, "stages.2.attention_rollout"]);
    let seen = seen.unwrap();
    assert_eq!(
        seen.iter().map(Tensor::shape).collect::<Vec<_>>(),
        [&[2, 24, 24][..], &[2, 6, 4, 1], &[2, 24, 24], &[2, 3, 2, 1]]
    );
    let seen: Vec<Vec<f32>> = seen.iter().map(|t| t.to_f32(&device).unwrap()).collect();
    for row in seen[0].chunks_exact(24).chain(seen[2].chunks_exact(24)) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
    }
    for image in 0..2 {
        let of_image = |t: &'_ Vec<f32>| t[image * 576..(image + 1) * 576].to_vec();
        let (first, second) = (of_image(&seen[2]), of_image(&seen[0]));
        let map = rollout([first.as_slice(), second.as_slice()].into_iter(), 24);
        assert_eq!(seen[1][image * 24..][..24], map);
        assert!((map.iter().sum::<f32>() - 1.0).abs() < 1e-5);
    }
    assert_ne!(seen[1][..24], seen[1][24..], "two images");
    assert_eq!(logits, look(&[]).0, "looking must not change what is seen");

    let (missing, known) = look(&[first, "stages.0.attention_rollout"]).1.err().unwrap();
    assert_eq!(missing, "stages.0.attention_rollout");
    for name in [first, second, "stages.1.attention_rollout", "stages.2.attention_rollout", "stages.0.blocks.0"] {
        assert_eq!(known.iter().filter(|known| *known == name).count(), 1, "{name} in {known:?}");
    }
}
