//! 3x3 convolutions in a quarter of the multiplications: against a direct sum in float64, and against the direct kernel.

use std::sync::Arc;

use rampart::data::{Select, demo};
use rampart::device::Device;
use rampart::models::weights::Weights;
use rampart::ops::Activation;
use rampart::ops::conv::{Conv2d, Window, conv2d};
use rampart::ops::group_norm::{GroupNorm, group_norm};
use rampart::ops::recording;
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;

use crate::common::{close, host, limits, upload, values, wide};
use crate::convolution::{check_on, direct};

const F32: Precision = Precision::F32;

/// Inputs, weights, padding. Sides that tiles of 4 divide and others, padding that differs from side to side, channels that end a
/// chunk of 32 early or fill no vector, columns that fill no panel, one image and many.
const CASES: &[([usize; 4], [usize; 4], [usize; 4])] = &[
    ([2, 8, 8, 64], [64, 64, 3, 3], [1; 4]),
    ([1, 7, 13, 65], [37, 65, 3, 3], [1; 4]),
    ([3, 6, 11, 130], [48, 130, 3, 3], [0; 4]),
    ([2, 9, 10, 50], [129, 50, 3, 3], [2, 0, 1, 2]),
    ([1, 4, 4, 200], [100, 200, 3, 3], [1; 4]),
    ([40, 4, 4, 40], [33, 40, 3, 3], [1; 4]),
    ([1, 21, 22, 48], [40, 48, 3, 3], [2; 4]),
    ([2, 6, 6, 1030], [64, 1030, 3, 3], [1; 4]),
];

fn window(padding: [usize; 4]) -> Window {
    Window { padding, ..Window::default() }
}

/// What `f` gives, and how often it launched the kernel.
fn launches<R>(device: &Device, f: impl FnOnce() -> R) -> (R, u64) {
    device.watch_launches();
    let result = f();
    (result, device.launches_watched().get("winograd_f32").map_or(0, |spent| spent.launches))
}

#[test]
fn forward_and_gradient_agree_with_a_direct_sum() {
    let device = host();
    for &(x, w, padding) in CASES {
        let ((), n) = launches(&device, || check_on(&device, x, w, window(padding), F32, limits(F32).0));
        assert_eq!(n, 2, "{x:?} {w:?}");
    }
}

/// A sum over 512 channels behind a ReLU, where the usual points are 1.5e-6 off.
#[test]
fn the_error_is_that_of_direct_sums() {
    let device = host();
    let (xs, ws) = ([1, 8, 8, 512], [32, 512, 3, 3]);
    let x: Vec<f32> = values(xs.iter().product(), 5, F32).iter().map(|v| v.max(0.0)).collect();
    let w = values(ws.iter().product(), 6, F32);
    let conv = Arc::new(Conv2d::new(&device, F32, &w, ws, None, window([1; 4])).unwrap());
    let g = Graph::inference(&device, F32);
    let (y, n) =
        launches(&device, || conv2d(&g, &upload(&device, &xs, F32, &x), &conv, None, Activation::None).unwrap());
    assert_eq!(n, 1);
    let (want, _) = direct(&x, xs, &w, ws, window([1; 4]));
    close("512 channels", &y.to_f32(&device).unwrap(), &want, 8e-7);
}

/// A window with a fourth column of zeros, which the direct kernel takes, computes the same.
#[test]
fn bias_residual_activation_and_masks_are_those_of_the_direct_kernel() {
    let device = host();
    let (n, h, v, c, o) = (3, 9, 14, 68, 43);
    // As large as a network's: sums stay near 1, where the slope of SiLU passes errors on as they are.
    let weights = |seed| -> Vec<f32> { values(o * c * 9, seed, F32).iter().map(|w| w / 16.0).collect() };
    let (w1, w2) = (weights(1), weights(2));
    let wider = |w: &[f32]| -> Vec<f32> { w.chunks(3).flat_map(|row| [row[0], row[1], row[2], 0.0]).collect() };
    let bias = values(o, 3, F32);
    let conv = |w: &[f32], [o, c]: [usize; 2], bias: Option<&[f32]>, wide: bool| {
        let (w, s, right) = if wide { (wider(w), 4, 2) } else { (w.to_vec(), 3, 1) };
        let window = window([1, 1, 1, right]);
        Arc::new(Conv2d::new(&device, F32, &w, [o, c, 3, s], bias, window).unwrap())
    };
    let x = upload(&device, &[n, h, v, c], F32, &values(n * h * v * c, 4, F32));
    let residual = upload(&device, &[n, h, v, o], F32, &values(n * h * v * o, 5, F32));
    let dy = values(n * h * v * c, 6, F32);
    let run = |wide: bool| -> [Vec<f32>; 3] {
        let (first, second) = (conv(&w1, [o, c], Some(&bias), wide), conv(&w2, [c, o], None, wide));
        let g = recording(&device, F32);
        let y = conv2d(&g, &x, &first, Some(&residual), Activation::Relu).unwrap();
        let z = conv2d(&g, &y, &second, Some(&x), Activation::Silu).unwrap();
        let (y, z_values) = (y.to_f32(&device).unwrap(), z.to_f32(&device).unwrap());
        let dx = g.backward(&z, upload(&device, &[n, h, v, c], F32, &dy), &x).unwrap();
        [y, z_values, dx.to_f32(&device).unwrap()]
    };
    let (here, count) = launches(&device, || run(false));
    let (there, none) = launches(&device, || run(true));
    assert_eq!((count, none), (4, 0));
    let ([forward, gradient], names) = (limits(F32).into(), ["masked", "behind", "gradient"]);
    for ((name, limit), (here, there)) in names.iter().zip([forward, forward, gradient]).zip(here.iter().zip(&there)) {
        close(name, here, &wide(there), limit);
    }
    // The same without a tape, where nothing is masked and the activation is fused.
    let g = Graph::inference(&device, F32);
    let plain = conv2d(&g, &x, &conv(&w1, [o, c], Some(&bias), false), Some(&residual), Activation::Relu).unwrap();
    assert_eq!(plain.to_f32(&device).unwrap(), here[0]);
}

#[test]
fn an_image_comes_out_alike_in_any_batch_and_on_any_number_of_threads() {
    let device = host();
    let (n, side, c, o) = (37, 12, 70, 64);
    let conv =
        Arc::new(Conv2d::new(&device, F32, &values(o * c * 9, 1, F32), [o, c, 3, 3], None, window([1; 4])).unwrap());
    let x = upload(&device, &[n, side, side, c], F32, &values(n * side * side * c, 2, F32));
    let run = |x: &Tensor| {
        let g = Graph::inference(&device, F32);
        conv2d(&g, x, &conv, None, Activation::None).unwrap().to_f32(&device).unwrap()
    };
    let (all, count) = launches(&device, || run(&x));
    assert_eq!(count, 1);
    let image = all.len() / n;
    for (first, images) in [(0, 1), (1, 2), (5, 17), (36, 1)] {
        let part = run(&x.rows(first, images).unwrap());
        assert!(part == all[first * image..(first + images) * image], "{images} images from {first} on");
    }
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(|| run(&x));
    assert!(alone == all, "one thread");
}

#[test]
fn what_is_no_such_convolution_stays_direct() {
    let device = host();
    let none = |xs: [usize; 4], ws: [usize; 4], window: Window, precision: Precision| {
        let conv =
            Arc::new(Conv2d::new(&device, precision, &vec![1.0; ws.iter().product()], ws, None, window).unwrap());
        let g = Graph::inference(&device, precision);
        let x = upload(&device, &xs, precision, &vec![1.0; xs.iter().product()]);
        launches(&device, || conv2d(&g, &x, &conv, None, Activation::None).unwrap()).1
    };
    let (xs, ws) = ([1, 16, 16, 64], [64, 64, 3, 3]);
    assert_eq!(none(xs, ws, window([1; 4]), F32), 1);
    assert_eq!(none(xs, ws, window([1; 4]), Precision::Tf32), 1);
    assert_eq!(none(xs, ws, window([1; 4]), Precision::Bf16), 0);
    assert_eq!(none(xs, ws, Window { stride: [1, 2], ..window([1; 4]) }, F32), 0);
    assert_eq!(none(xs, ws, Window { dilation: [2, 2], ..window([2; 4]) }, F32), 0);
    assert_eq!(none([1, 16, 16, 128], ws, Window { groups: 2, ..window([1; 4]) }, F32), 0);
    assert_eq!(none([1, 16, 16, 3], [64, 3, 3, 3], window([1; 4]), F32), 0);
    assert_eq!(none([0, 16, 16, 64], ws, window([1; 4]), F32), 0);
}

/// A trained layer on what it reads in the network: the demo's denoiser, images that are no noise, and means that are not 0.
#[test]
fn a_trained_layer_on_its_own_activations() {
    let device = host();
    let weights = Weights::embedded("unet-small", demo::weights("unet-small").unwrap()).unwrap();
    let get = |name: &str, shape: &[usize]| weights.get(name, shape).unwrap();
    let images = demo::dataset(Some(6), Select::First).unwrap().batch(&[0, 1, 2, 3, 4, 5]).unwrap();
    let images: Vec<f32> = images.iter().map(|v| 2.0 * v - 1.0).collect();
    let (c, first) = (32, get("input_blocks.0.0.weight", &[32, 3, 3, 3]));
    let bias = get("input_blocks.0.0.bias", &[c]);
    let first = Arc::new(Conv2d::new(&device, F32, &first, [c, 3, 3, 3], Some(&bias), window([1; 4])).unwrap());
    let [scale, bias] = ["weight", "bias"].map(|part| get(&format!("input_blocks.1.0.in_layers.0.{part}"), &[c]));
    let norm = Arc::new(GroupNorm::new(&device, 32, c, 1e-5, &scale, &bias).unwrap());
    let second = get("input_blocks.1.0.in_layers.2.weight", &[c, c, 3, 3]);
    let conv = Arc::new(Conv2d::new(&device, F32, &second, [c, c, 3, 3], None, window([1; 4])).unwrap());

    let g = Graph::inference(&device, F32);
    let h = conv2d(&g, &upload(&device, &[6, 32, 32, 3], F32, &images), &first, None, Activation::None).unwrap();
    let h = group_norm(&g, &h, &norm, Activation::Silu).unwrap();
    let (y, n) = launches(&device, || conv2d(&g, &h, &conv, None, Activation::None).unwrap());
    assert_eq!(n, 1);
    let (want, _) = direct(&h.to_f32(&device).unwrap(), [6, 32, 32, c], &second, [c, c, 3, 3], window([1; 4]));
    close("in_layers.2", &y.to_f32(&device).unwrap(), &want, 1e-6);
}
