//! What the tests of ops share: seeded values, and comparison with float64 arithmetic.
#![allow(dead_code, reason = "every test file uses its part")]

pub mod convolution;

use rampart::device::{DType, Device};
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

pub const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

/// The project's limits for one op, forward and gradient.
pub fn limits(precision: Precision) -> (f64, f64) {
    if precision == Precision::Bf16 { (1e-2, 1e-2) } else { (2e-6, 3e-6) }
}

pub fn host() -> Device {
    Device::host().expect("the host is always there")
}

/// A deterministic sequence in [-1, 1), as `precision` holds it.
pub fn values(n: usize, seed: u64, precision: Precision) -> Vec<f32> {
    round(
        (0..n as u64).map(|i| {
            let mut z =
                (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(i.wrapping_mul(0xbf58_476d_1ce4_e5b9));
            z ^= z >> 31;
            z = z.wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 29;
            (z >> 40) as f32 / (1 << 23) as f32 - 1.0
        }),
        precision,
    )
}

/// Values as `precision` holds them.
pub fn round(values: impl IntoIterator<Item = f32>, precision: Precision) -> Vec<f32> {
    let bf16 = precision == Precision::Bf16;
    values.into_iter().map(|v| if bf16 { half::bf16::from_f32(v).to_f32() } else { v }).collect()
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

pub fn upload(device: &Device, shape: &[usize], precision: Precision, values: &[f32]) -> Tensor {
    Tensor::from_f32(device, shape, precision.dtype(), values).expect("the test knows its shapes")
}

pub fn upload_f32(device: &Device, shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::from_f32(device, shape, DType::F32, values).expect("the test knows its shapes")
}

/// `||got - want|| / ||want||`, or `||got||` where the reference is zero.
pub fn relative(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "number of values");
    let d: f64 = got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).powi(2)).sum();
    let norm: f64 = want.iter().map(|w| w * w).sum();
    if norm == 0.0 { got.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt() } else { (d / norm).sqrt() }
}

/// Fails unless the error is within the limit; NaN fails.
#[track_caller]
pub fn close(what: &str, got: &[f32], want: &[f64], limit: f64) {
    let err = relative(got, want);
    assert!(err <= limit, "{what}: {err:.2e} of {limit:.0e}\n  got  {:?}\n  want {:?}", head(got), head(want));
}

fn head<T: Copy>(values: &[T]) -> Vec<T> {
    values.iter().copied().take(8).collect()
}

/// Runs an op of one input and the gradient that `dy` makes of it, and compares both with the truth.
#[track_caller]
pub fn check(
    what: &str,
    precision: Precision,
    (shape, x): (&[usize], &[f32]),
    dy: &[f32],
    op: impl Fn(&Graph, &Tensor) -> rampart::Result<Tensor>,
    want: &[f64],
    want_dx: &[f64],
) {
    let device = host();
    let (forward, gradient) = limits(precision);
    let xt = upload(&device, shape, precision, x);
    let plain = op(&Graph::inference(&device, precision), &xt).expect(what).to_f32(&device).expect(what);
    close(&format!("{what} {precision:?} {shape:?} forward"), &plain, want, forward);
    let g = Graph::recording(&device, precision);
    let y = op(&g, &xt).expect(what);
    assert_eq!(y.to_f32(&device).expect(what), plain, "{what}: recording changes nothing");
    let dyt = upload(&device, y.shape(), precision, dy);
    let dx = g.backward(&y, dyt, &xt).expect(what);
    assert_eq!(dx.shape(), shape, "{what}: shape of the gradient");
    close(&format!("{what} {precision:?} {shape:?} gradient"), &dx.to_f32(&device).expect(what), want_dx, gradient);
}

/// Directional derivative of the float64 function `f` at `x`, by central differences: what `<gradient, direction>` must be.
pub fn directional(f: impl Fn(&[f64]) -> f64, x: &[f64], direction: &[f64]) -> f64 {
    const H: f64 = 1e-5;
    let moved = |h: f64| -> Vec<f64> { x.iter().zip(direction).map(|(x, d)| x + h * d).collect() };
    (f(&moved(H)) - f(&moved(-H))) / (2.0 * H)
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
