//! What a recording graph keeps.

use std::sync::Arc;

use crate::common::{host, upload_f32, values};
use rampart::device::Device;
use rampart::ops::conv::{Conv2d, Window, conv2d};
use rampart::ops::pool::global_avg_pool;
use rampart::ops::{Activation, recording};
use rampart::tape::Precision;
use rampart::tensor::Tensor;

const SHAPE: [usize; 4] = [2, 16, 16, 32];
const BYTES: usize = 2 * 16 * 16 * 32 * 4;

/// Bytes that the tape holds after eight convolutions, and how many the input and the result take.
fn held(device: &Device, act: Activation) -> usize {
    let weight = values(32 * 32, 1, Precision::F32);
    let conv = Conv2d::new(device, Precision::F32, &weight, [32, 32, 1, 1], None, Window::default()).unwrap();
    let conv = Arc::new(conv);
    let x = upload_f32(device, &SHAPE, &values(BYTES / 4, 2, Precision::F32));
    let g = recording(device, Precision::F32);
    let before = device.memory().live;
    let mut h = x.clone();
    for _ in 0..8 {
        h = conv2d(&g, &h, &conv, None, act).unwrap();
    }
    let y: Tensor = global_avg_pool(&g, &h).unwrap();
    drop(h);
    let held = device.memory().live - before;
    let dy = upload_f32(device, &[2, 32], &values(64, 3, Precision::F32));
    assert_eq!(g.backward(&y, dy, &x).unwrap().shape(), SHAPE);
    held
}

/// A linear op needs nothing of its input but the shape, a ReLU one bit per value, any other activation its argument.
#[test]
fn only_what_a_gradient_reads_is_kept() {
    let device = host();
    let linear = held(&device, Activation::None);
    assert!(linear < BYTES, "{linear} bytes for convolutions alone, of {BYTES} per activation");
    let relu = held(&device, Activation::Relu);
    assert!((8 * BYTES / 32..BYTES).contains(&relu), "{relu} bytes with ReLU, of {BYTES} per activation");
    let silu = held(&device, Activation::Silu);
    assert!((8 * BYTES..9 * BYTES).contains(&silu), "{silu} bytes with SiLU, of {BYTES} per activation");
}
