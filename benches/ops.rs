//! Times the ops of a ResNet-50 (CIFAR stem, width 64), an attack's step, and the whole network.
//!
//! `cargo bench` runs all of it, `cargo bench -- conv/3x3` a part; a GPU is taken where there is one. For convolutions and
//! networks "elem/s" are floating-point operations per second, for all else values of the activation per second. A
//! `gradient` of an op is its backward pass alone, that of the network is forward, loss and backward.

use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rampart::Result;
use rampart::attack::{Classifier as _, Loss, Oracle as _, Query};
use rampart::device::{DType, Device, DeviceChoice};
use rampart::models::classifier::Classifier;
use rampart::models::resnet::{Attention, Config, Stem};
use rampart::models::weights::{Weights, fill, uniform};
use rampart::ops::cbam::{Cbam, cbam};
use rampart::ops::conv::{Conv2d, Window, conv2d};
use rampart::ops::loss::{LossKind, loss};
use rampart::ops::pgd::{self, Norm, Profile, Step};
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

const BATCH: usize = 32;
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// Side of the input, channels in, channels out, window, stride.
const LAYERS: [(usize, usize, usize, usize, usize); 13] = [
    (32, 3, 64, 3, 1),
    (32, 64, 64, 1, 1),
    (32, 64, 64, 3, 1),
    (32, 64, 256, 1, 1),
    (32, 256, 64, 1, 1),
    (32, 128, 128, 3, 2),
    (32, 256, 512, 1, 2),
    (16, 128, 128, 3, 1),
    (16, 512, 128, 1, 1),
    (8, 256, 256, 3, 1),
    (8, 1024, 256, 1, 1),
    (4, 512, 512, 3, 1),
    (4, 512, 2048, 1, 1),
];

fn device() -> Device {
    Device::open(DeviceChoice::Auto).expect("the host is always there")
}

fn activation(device: &Device, precision: Precision, name: &str, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = uniform(name, shape.iter().product()).collect();
    Tensor::from_f32(device, shape, precision.dtype(), &values).expect("memory")
}

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    group
}

/// Operations of the matrix products in `f`.
fn operations(device: &Device, f: impl FnOnce() -> Result<()>) -> Throughput {
    device.reset_flops();
    f().expect("an op that runs");
    Throughput::Elements(device.flops() as u64)
}

/// Times `op`, forward as `name/forward` and the gradient of its input as `name/gradient`, at every precision.
/// `work` is what one call amounts to; without it, the operations of its matrix products.
fn both_ways(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    precision: Precision,
    x: &Tensor,
    work: Option<Throughput>,
    op: impl Fn(&Graph, &Tensor) -> Result<Tensor>,
) {
    let device = device();
    let forward = || {
        op(&Graph::inference(&device, precision), x)?;
        device.synchronize()
    };
    let record = || {
        let g = recording(&device, precision);
        let y = op(&g, x).expect("an op that runs");
        (g, y)
    };
    let recorded = record();
    let dy = activation(&device, precision, "upstream", recorded.1.shape());
    let gradient = |(g, y): (Graph, Tensor)| {
        g.backward(&y, dy.clone(), x)?;
        device.synchronize()
    };
    group.throughput(work.clone().unwrap_or_else(|| operations(&device, forward)));
    group.bench_function(BenchmarkId::new(format!("{name}/forward"), precision), |b| b.iter(forward));
    group.throughput(work.unwrap_or_else(|| operations(&device, || gradient(recorded))));
    group.bench_function(BenchmarkId::new(format!("{name}/gradient"), precision), |b| {
        b.iter_batched(record, gradient, BatchSize::PerIteration);
    });
}

fn convolutions(c: &mut Criterion) {
    let mut group = group(c, "conv");
    let device = device();
    for (side, inputs, outputs, window, stride) in LAYERS {
        let shape = [outputs, inputs, window, window];
        let (weight, bias) = (fill("conv.weight", &shape), fill("conv.bias", &[outputs]));
        for precision in PRECISIONS {
            let square = Window::square(stride, window / 2);
            let conv = Conv2d::new(&device, precision, &weight, shape, Some(&bias), square).expect("a convolution");
            let conv = Arc::new(conv);
            let x = activation(&device, precision, "input", &[BATCH, side, side, inputs]);
            let name = format!("{window}x{window}/{side}x{side}x{inputs}-{outputs}/stride{stride}");
            both_ways(&mut group, &name, precision, &x, None, |g, x| conv2d(g, x, &conv, None, Activation::Relu));
        }
    }
}

fn attention(c: &mut Criterion) {
    let mut group = group(c, "cbam");
    let device = device();
    for (side, channels) in [(32, 256), (16, 512), (8, 1024), (4, 2048)] {
        let hidden = channels / 16;
        let gates = Cbam::new(
            &device,
            (&fill("1.weight", &[hidden, channels]), &fill("1.bias", &[hidden])),
            (&fill("3.weight", &[channels, hidden]), &fill("3.bias", &[channels])),
            &fill("conv.weight", &[1, 2, 7, 7]),
            (1.1, 0.2),
        );
        let gates = Arc::new(gates.expect("two gates"));
        for precision in PRECISIONS {
            let x = activation(&device, precision, "input", &[BATCH, side, side, channels]);
            let shortcut = activation(&device, precision, "shortcut", x.shape());
            let work = Throughput::Elements(x.len() as u64);
            both_ways(&mut group, &format!("{side}x{side}x{channels}"), precision, &x, Some(work), |g, x| {
                cbam(g, x, &gates, Some(&shortcut), Activation::Relu)
            });
        }
    }
}

fn losses(c: &mut Criterion) {
    let mut group = group(c, "loss");
    let device = device();
    for (name, kind) in [("ce", LossKind::CROSS_ENTROPY), ("dlr", LossKind::Dlr), ("margin", LossKind::Margin)] {
        for classes in [10, 1000] {
            let logits = activation(&device, Precision::F32, "logits", &[256, classes]);
            let labels: Vec<u32> = (0..256).map(|i| i % classes as u32).collect();
            let g = Graph::inference(&device, Precision::F32);
            group.throughput(Throughput::Elements(logits.len() as u64));
            group.bench_function(BenchmarkId::new(name, format!("256x{classes}")), |b| {
                b.iter(|| {
                    loss(&g, &logits, &labels, None, kind)?;
                    device.synchronize()
                });
            });
        }
    }
}

fn steps(c: &mut Criterion) {
    let mut group = group(c, "pgd_step");
    let device = device();
    for side in [32, 224] {
        let shape = [BATCH, side, side, 3];
        let pixels: Vec<f32> = uniform("pixels", shape.iter().product()).map(|v| 0.5 + 0.5 * v).collect();
        let images = Tensor::from_f32(&device, &shape, DType::F32, &pixels).expect("memory");
        let gradient = activation(&device, Precision::F32, "gradient", &shape);
        group.throughput(Throughput::Elements(images.len() as u64));
        for norm in [Norm::Linf, Norm::L2] {
            let step = Step { norm, profile: Profile::Native, eps: 8.0 / 255.0, size: 2.0 / 255.0, scale: 1.0 };
            group.bench_function(BenchmarkId::new(norm.to_string(), format!("{side}x{side}")), |b| {
                b.iter(|| {
                    pgd::step(&device, &images, &images, &gradient, &step)?;
                    device.synchronize()
                });
            });
        }
    }
}

fn networks(c: &mut Criterion) {
    let mut group = group(c, "resnet50");
    let device = device();
    let shape = [BATCH, 32, 32, 3];
    let pixels: Vec<f32> = uniform("input", shape.iter().product()).map(|v| 0.5 + 0.5 * v).collect();
    let images = Tensor::from_f32(&device, &shape, DType::F32, &pixels).expect("memory");
    let labels: Vec<u32> = (0..BATCH as u32).map(|i| i % 10).collect();
    for attention in [Attention::None, Attention::Cbam] {
        let config = Config { depth: 50, stem: Stem::Cifar, width: 64, attention, reduction: 16, classes: 10 };
        for precision in PRECISIONS {
            let weights = Weights::seeded();
            let net = Classifier::new(&device, precision, &weights, &config, &[0.5; 3], &[0.25; 3], [32, 32]);
            let net = net.expect("seeded weights fit any config");
            let forward = || {
                net.logits(&images)?;
                device.synchronize()
            };
            let gradient = || {
                net.gradient(&images, &Query::new(&labels, Loss::CrossEntropy))?;
                device.synchronize()
            };
            let name = if attention == Attention::Cbam { "cbam" } else { "plain" };
            group.throughput(operations(&device, forward));
            group.bench_function(BenchmarkId::new(format!("{name}/forward"), precision), |b| b.iter(forward));
            group.throughput(operations(&device, gradient));
            group.bench_function(BenchmarkId::new(format!("{name}/gradient"), precision), |b| b.iter(gradient));
        }
    }
}

criterion_group!(benches, convolutions, attention, losses, steps, networks);
criterion_main!(benches);
