//! Times the ops of the diffusion U-Net for CIFAR-10 and its one-shot defence: `cargo bench --bench denoiser`.
//!
//! "elem/s" are values of the activation per second for group norm, multiplications and additions for attention, images for the
//! defence. A `gradient` is the backward pass alone.

use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rampart::defense::denoise::Denoiser;
use rampart::defense::schedule::{Kind, Schedule};
use rampart::device::{DType, Device, DeviceChoice};
use rampart::models::unet::Config;
use rampart::models::weights::{Weights, uniform};
use rampart::ops::attention::self_attention;
use rampart::ops::group_norm::{GroupNorm, group_norm};
use rampart::ops::philox::{Purpose, Stream};
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

const BATCH: usize = 8;
const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

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

/// Forward and backward of an op of one input.
fn both(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    precision: Precision,
    x: &Tensor,
    op: impl Fn(&Graph, &Tensor) -> rampart::Result<Tensor>,
) {
    let device = device();
    group.bench_function(BenchmarkId::new(format!("{name}/forward"), precision), |b| {
        let g = Graph::inference(&device, precision);
        b.iter(|| op(&g, x).and_then(|_| device.synchronize()));
    });
    group.bench_function(BenchmarkId::new(format!("{name}/gradient"), precision), |b| {
        let recorded = || {
            let g = recording(&device, precision);
            let y = op(&g, x).expect("the shapes fit");
            (g, y)
        };
        let backward = |(g, y): (Graph, Tensor)| {
            g.backward(&y, y.clone(), x)?;
            device.synchronize()
        };
        b.iter_batched(recorded, backward, BatchSize::PerIteration);
    });
}

fn norms(c: &mut Criterion) {
    let mut group = group(c, "group_norm");
    let device = device();
    for (side, channels) in [(32, 128), (32, 384), (16, 256), (8, 512)] {
        let (scale, bias) = (vec![1.0; channels], vec![0.0; channels]);
        let norm = Arc::new(GroupNorm::new(&device, 32, channels, 1e-5, &scale, &bias).expect("32 groups fit"));
        for precision in PRECISIONS {
            let x = activation(&device, precision, "x", &[BATCH, side, side, channels]);
            group.throughput(Throughput::Elements(x.len() as u64));
            let name = format!("{side}x{side}x{channels}");
            both(&mut group, &name, precision, &x, |g, x| group_norm(g, x, &norm, Activation::Silu));
        }
    }
}

fn attentions(c: &mut Criterion) {
    let mut group = group(c, "attention");
    let device = device();
    for (side, heads, d) in [(16, 4, 64), (8, 4, 64), (16, 4, 16), (24, 16, 32)] {
        for precision in PRECISIONS {
            let x = activation(&device, precision, "qkv", &[BATCH, side, side, 3 * heads * d]);
            group.throughput(Throughput::Elements((4 * BATCH * heads * side.pow(4) * d) as u64));
            let name = format!("{} tokens, {heads} x {d}", side * side);
            both(&mut group, &name, precision, &x, |g, x| self_attention(g, x, heads, None));
        }
    }
}

fn defence(c: &mut Criterion) {
    let mut group = group(c, "denoise");
    let device = device();
    let config = Config {
        channels: 128,
        channel_mult: vec![1, 2, 2, 2],
        res_blocks: 3,
        attention_factors: vec![2, 4],
        heads: Some(4),
        head_channels: None,
        resblock_updown: false,
        out_channels: 6,
    };
    let pixels: Vec<f32> = uniform("input", BATCH * 3072).map(|v| 0.5 + 0.5 * v).collect();
    let images = Tensor::from_f32(&device, &[BATCH, 32, 32, 3], DType::F32, &pixels).expect("memory");
    let ids: Vec<u64> = (0..BATCH as u64).collect();
    for precision in PRECISIONS {
        let schedule = Schedule::new(Kind::Cosine, 4000).expect("4000 steps");
        let denoiser = Denoiser::new(&device, precision, &Weights::seeded(), &config, schedule, 0.25);
        let denoiser = denoiser.expect("seeded weights fit any config");
        let level = denoiser.level(0.25).expect("the schedule reaches it");
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(BenchmarkId::new("cifar", precision), |b| {
            b.iter(|| denoiser.images(&images, &ids, &level, &Stream::new(0, Purpose::Noise)));
        });
    }
}

criterion_group!(benches, norms, attentions, defence);
criterion_main!(benches);
