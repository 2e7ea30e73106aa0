//! The host against the emulated GPU, every checker on, over random shapes: strides, groups, odd sizes, one element, no image.

use std::sync::{Arc, OnceLock};

use proptest::prelude::*;
use rampart::device::{Device, emulated};
use rampart::models::weights::uniform;
use rampart::ops::attention::attention;
use rampart::ops::conv::{Conv2d, Window, conv2d};
use rampart::ops::conv_upsampled::{UpsampledConv2d, conv2d_upsampled};
use rampart::ops::gemm::{Linear, linear};
use rampart::ops::group_norm::{GroupNorm, group_norm};
use rampart::ops::pgd::digest;
use rampart::ops::pool::{Pool, avg_pool2d, max_pool2d};
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

const PRECISIONS: [Precision; 2] = [Precision::F32, Precision::Bf16];

fn devices() -> &'static [Device; 2] {
    static DEVICES: OnceLock<[Device; 2]> = OnceLock::new();
    DEVICES.get_or_init(|| {
        emulated::configure(emulated::Settings { seed: Some(3), checks: Some(true), ..Default::default() });
        [Device::host().expect("the host is always there"), Device::emulated().expect("cargo builds it")]
    })
}

fn filled(device: &Device, precision: Precision, name: &str, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = uniform(name, shape.iter().product()).map(|v| half::bf16::from_f32(v).to_f32()).collect();
    Tensor::from_f32(device, shape, precision.dtype(), &values).expect("the test knows its shapes")
}

fn weights(name: &str, n: usize) -> Vec<f32> {
    uniform(name, n).map(|v| half::bf16::from_f32(v).to_f32()).collect()
}

/// An op of some inputs, whose constants it makes for the device.
type Op<'a> = &'a dyn Fn(&Device, Precision, &Graph, &[Tensor]) -> rampart::Result<Tensor>;

/// Output and input gradients of an op on one device.
fn run(device: &Device, precision: Precision, shapes: &[Vec<usize>], op: Op) -> Vec<Vec<f32>> {
    let names = ["a", "b", "c"];
    let inputs: Vec<Tensor> = shapes.iter().zip(names).map(|(s, name)| filled(device, precision, name, s)).collect();
    let g = recording(device, precision);
    let y = op(device, precision, &g, &inputs).expect("the shapes fit");
    let dy = filled(device, precision, "dy", y.shape());
    let mut all = vec![y.to_f32(device).expect("memory")];
    let gradients = g.backward_all(&y, dy, &inputs.iter().collect::<Vec<_>>()).expect("recorded");
    all.extend(gradients.iter().map(|dx| dx.to_f32(device).expect("memory")));
    all
}

fn agree(what: &str, shapes: &[Vec<usize>], op: Op) {
    let [host, gpu] = devices();
    for precision in PRECISIONS {
        let limit = if precision == Precision::Bf16 { 1e-2 } else { 4e-6 };
        let (want, got) = (run(host, precision, shapes, op), run(gpu, precision, shapes, op));
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let d: f64 = got.iter().zip(want).map(|(g, w)| f64::from(g - w).powi(2)).sum::<f64>().sqrt();
            let norm = want.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt();
            // What is 0 but for rounding has no digits to agree on.
            let floor = 1e-6 * (want.len() as f64).sqrt();
            assert!(d <= limit * norm.max(floor), "{what} {precision:?} {shapes:?} tensor {i}: {d:.2e} of {norm:.2e}");
        }
    }
    assert_eq!(emulated::findings().expect("it is open"), [], "{what} {shapes:?}");
}

/// Whole numbers: not nearly, but exactly the same.
#[test]
fn digests_are_the_same_bits() {
    for shape in [[0, 5], [1, 1], [3, 131], [8, 40], [17, 300]] {
        let [host, gpu] = devices()
            .each_ref()
            .map(|device| digest(device, &filled(device, Precision::F32, "x", &shape)).expect("the shapes fit"));
        assert_eq!(host, gpu, "{shape:?}");
        assert_eq!(host.len(), shape[0]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn convolutions(
        n in 0usize..3, h in 1usize..9, w in 1usize..9, c in 1usize..20, o in 1usize..40, k in 1usize..4,
        stride in 1usize..3, groups in 1usize..3,
    ) {
        let window = Window { groups, ..Window::square(stride, k / 2) };
        let (c, o) = (c * groups, o * groups);
        prop_assume!(window.out(0, h, k).is_some() && window.out(1, w, k).is_some());
        let (weight, bias) = (weights("w", o * c / groups * k * k), weights("bias", o));
        agree("conv2d", &[vec![n, h, w, c]], &|device, precision, g, x| {
            let conv = Conv2d::new(device, precision, &weight, [o, c / groups, k, k], Some(&bias), window)?;
            conv2d(g, &x[0], &Arc::new(conv), None, Activation::None)
        });
    }

    #[test]
    fn enlarged_convolutions(n in 0usize..3, h in 1usize..6, w in 1usize..6, c in 1usize..20, o in 1usize..20) {
        let (weight, bias) = (weights("w", o * c * 9), weights("bias", o));
        agree("conv2d_upsampled", &[vec![n, h, w, c]], &|device, precision, g, x| {
            conv2d_upsampled(g, &x[0], &Arc::new(UpsampledConv2d::new(device, precision, &weight, [o, c], &bias)?))
        });
    }

    #[test]
    fn linear_layers(n in 1usize..80, k in 1usize..70, o in 1usize..70) {
        let weight = weights("w", o * k);
        agree("linear", &[vec![n, k]], &|device, precision, g, x| {
            linear(g, &x[0], &Arc::new(Linear::new(device, precision, &weight, [o, k], None)?), Activation::None)
        });
    }

    #[test]
    fn group_norms(n in 1usize..3, h in 1usize..7, w in 2usize..7, groups in 1usize..5, size in 2usize..12) {
        let c = groups * size;
        let (scale, bias) = (weights("scale", c), weights("bias", c));
        agree("group_norm", &[vec![n, h, w, c]], &|device, _, g, x| {
            group_norm(g, &x[0], &Arc::new(GroupNorm::new(device, groups, c, 1e-5, &scale, &bias)?), Activation::Silu)
        });
    }

    #[test]
    fn attentions(batch in 1usize..3, heads in 1usize..3, n in 1usize..70, m in 2usize..70, d in 1usize..129) {
        let (q, kv) = (vec![batch, heads, n, d], vec![batch, heads, m, d]);
        agree("attention", &[q, kv.clone(), kv], &|_, _, g, x| attention(g, [&x[0], &x[1], &x[2]], None, None));
    }

    #[test]
    fn poolings(n in 0usize..3, h in 2usize..9, w in 2usize..9, c in 1usize..20, k in 1usize..4, stride in 1usize..3, most: bool) {
        prop_assume!(k <= h && k <= w);
        let pool = Pool { kernel: [k, k], stride: [stride, stride], padding: [k / 2, k / 2], ceil_mode: false };
        agree("pool", &[vec![n, h, w, c]], &|_, _, g, x| {
            if most { max_pool2d(g, &x[0], pool) } else { avg_pool2d(g, &x[0], pool, true) }
        });
    }
}
