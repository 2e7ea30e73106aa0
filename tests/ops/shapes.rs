//! What an op is not made for is refused before a kernel runs: shapes, formats and numbers that would lead it out of its buffers.

use std::sync::Arc;

use crate::common::{close, host, upload, upload_f32, values};
use rampart::device::{DType, Device};
use rampart::ops::attention::attention;
use rampart::ops::conv::{Conv2d, Window, conv2d, fold_batch_norm};
use rampart::ops::conv_upsampled::{UpsampledConv2d, conv2d_upsampled};
use rampart::ops::diffusion::concat_channels;
use rampart::ops::gate::gate;
use rampart::ops::gemm::{Linear, linear, matmul};
use rampart::ops::loss::{LossKind, loss};
use rampart::ops::pointwise::{activation, add, softmax};
use rampart::ops::pool::{Pool, avg_pool2d, global_avg_pool, max_pool2d};
use rampart::ops::resize::{Filter, Resize, resize, upsample_nearest};
use rampart::ops::{Activation, recording};
use rampart::tape::{Graph, Precision};
use rampart::tensor::Tensor;
use rampart::{Error, Result};

#[track_caller]
fn refused<T>(what: &str, result: Result<T>) {
    match result.err() {
        Some(Error::Shape { .. } | Error::Limit { .. } | Error::Device { .. }) => {}
        Some(other) => panic!("{what}: {other}"),
        None => panic!("{what} was taken"),
    }
}

fn filled(device: &Device, shape: &[usize], precision: Precision) -> Tensor {
    upload(device, shape, precision, &values(shape.iter().product(), 1, precision))
}

fn convolution(device: &Device, precision: Precision, window: Window) -> Result<Arc<Conv2d>> {
    let (c, groups) = (4, window.groups);
    let weight = values(4 * c / groups * 9, 2, precision);
    Conv2d::new(device, precision, &weight, [4, c / groups, 3, 3], None, window).map(Arc::new)
}

/// An op of one input, and the same on an input of its own: its output and that input.
type Op = Box<dyn Fn(&Graph, &Tensor) -> Result<Tensor>>;
type Applied = Box<dyn Fn(&Graph) -> (Tensor, Tensor)>;

/// Every op that records a gradient, on an input of its own.
fn ops(device: &Device) -> Vec<(&'static str, Applied)> {
    let x = filled(device, &[2, 6, 5, 4], Precision::F32);
    let same = Window { padding: [1; 4], ..Window::default() };
    let conv = convolution(device, Precision::F32, same).unwrap();
    let deep = convolution(device, Precision::F32, Window { groups: 4, ..same }).unwrap();
    let strided = convolution(device, Precision::F32, Window { stride: [2, 3], ..same }).unwrap();
    let doubled = values(4 * 4 * 9, 3, Precision::F32);
    let up = Arc::new(UpsampledConv2d::new(device, Precision::F32, &doubled, [4, 4], &[0.0; 4]).unwrap());
    let layer = Arc::new(Linear::new(device, Precision::F32, &values(12, 4, Precision::F32), [3, 4], None).unwrap());
    let tables = Arc::new(Resize::new(device, [6, 5], [9, 3], Filter::Bilinear, true).unwrap());
    let pool = Pool { kernel: [3, 2], stride: [2, 1], padding: [1, 1], ceil_mode: false };
    let (rows, row) = (filled(device, &[5, 4], Precision::F32), filled(device, &[2, 4], Precision::F32));
    let tokens = filled(device, &[1, 2, 7, 4], Precision::F32);
    let batch = filled(device, &[2, 3, 3], Precision::F32);
    let one = |x: &Tensor, op: Op| {
        let x = x.clone();
        Box::new(move |g: &Graph| (op(g, &x).unwrap(), x.clone())) as Applied
    };
    vec![
        ("conv2d", one(&x, Box::new(move |g, x| conv2d(g, x, &conv, Some(x), Activation::Relu)))),
        ("strided", one(&x, Box::new(move |g, x| conv2d(g, x, &strided, None, Activation::None)))),
        ("depthwise", one(&x, Box::new(move |g, x| conv2d(g, x, &deep, None, Activation::None)))),
        ("upsampled", one(&x, Box::new(move |g, x| conv2d_upsampled(g, x, &up)))),
        ("linear", one(&rows, Box::new(move |g, x| linear(g, x, &layer, Activation::Relu)))),
        ("matmul", one(&batch, Box::new(|g, x| matmul(g, x, x)))),
        ("max_pool2d", one(&x, Box::new(move |g, x| max_pool2d(g, x, pool)))),
        ("avg_pool2d", one(&x, Box::new(move |g, x| avg_pool2d(g, x, pool, true)))),
        ("global_avg_pool", one(&x, Box::new(global_avg_pool))),
        ("upsample_nearest", one(&x, Box::new(|g, x| upsample_nearest(g, x, 3)))),
        ("resize", one(&x, Box::new(move |g, x| resize(g, x, &tables)))),
        ("concat_channels", one(&x, Box::new(|g, x| concat_channels(g, x, x)))),
        ("gate", one(&x, Box::new(move |g, x| gate(g, x, &row, Activation::Silu)))),
        ("attention", one(&tokens, Box::new(|g, x| attention(g, [x, x, x], None, None)))),
        ("softmax", one(&x, Box::new(softmax))),
        ("gelu", one(&x, Box::new(|g, x| activation(g, x, Activation::Gelu)))),
        ("relu", one(&x, Box::new(|g, x| activation(g, x, Activation::Relu)))),
        ("add", one(&x, Box::new(|g, x| add(g, x, x)))),
    ]
}

#[test]
fn the_gradient_of_an_output_has_its_shape_and_format() {
    let device = host();
    for (name, op) in ops(&device) {
        let shape = op(&recording(&device, Precision::F32)).0.shape().to_vec();
        let mut shapes: Vec<Vec<usize>> = (0..shape.len())
            .flat_map(|axis| [0, 1, shape[axis] + 1].map(|side| (axis, side)))
            .map(|(axis, side)| shape.iter().enumerate().map(|(i, &d)| if i == axis { side } else { d }).collect())
            .filter(|other| *other != shape)
            .collect();
        shapes.push(vec![]);
        shapes.push(vec![shape.iter().product()]);
        shapes.push([&[1], &shape[..]].concat());
        let backward = |shape: &[usize], dtype: DType| {
            let g = recording(&device, Precision::F32);
            let (y, x) = op(&g);
            let dy = Tensor::from_f32(&device, shape, dtype, &vec![1.0; shape.iter().product()]).unwrap();
            g.backward(&y, dy, &x)
        };
        for other in shapes {
            refused(&format!("{name}: {other:?} for {shape:?}"), backward(&other, DType::F32));
        }
        refused(name, backward(&shape, DType::BF16));
        assert!(backward(&shape, DType::F32).is_ok(), "{name}");
    }
}

#[test]
fn operands_of_another_format_are_refused() {
    let device = host();
    let (f32, bf16) = (Precision::F32, Precision::Bf16);
    let g = Graph::inference(&device, f32);
    let narrow = Graph::inference(&device, bf16);
    let (x, half) = (filled(&device, &[2, 6, 5, 4], f32), filled(&device, &[2, 6, 5, 4], bf16));
    let same = Window { padding: [1; 4], ..Window::default() };
    let conv = convolution(&device, f32, same).unwrap();
    refused("conv2d input", conv2d(&g, &half, &conv, None, Activation::None));
    refused("conv2d residual", conv2d(&g, &x, &conv, Some(&half), Activation::None));
    refused("conv2d weights", conv2d(&narrow, &half, &conv, None, Activation::None));
    refused("concat", concat_channels(&g, &x, &half));
    refused("concat", concat_channels(&narrow, &x, &half));
    refused("gate", gate(&g, &x, &filled(&device, &[2, 4], bf16), Activation::None));
    refused("add", add(&g, &x, &half));
    let (a, b) = (filled(&device, &[2, 3, 3], f32), filled(&device, &[2, 3, 3], bf16));
    refused("matmul", matmul(&g, &a, &b));
    refused("matmul", matmul(&narrow, &a, &b));
    let (q, k) = (filled(&device, &[1, 2, 7, 4], f32), filled(&device, &[1, 2, 7, 4], bf16));
    refused("attention", attention(&g, [&q, &k, &q], None, None));
    refused("attention", attention(&g, [&q, &q, &k], None, None));
    let layer = Arc::new(Linear::new(&device, bf16, &values(12, 4, bf16), [3, 4], None).unwrap());
    refused("linear", linear(&g, &filled(&device, &[5, 4], f32), &layer, Activation::None));

    let whole = Tensor::from_i32(&device, &[2, 4], &[1; 8]).unwrap();
    refused("softmax", softmax(&g, &whole));
    refused("relu", activation(&g, &whole, Activation::Relu));
    refused("loss", loss(&g, &whole, &[0, 1], None, LossKind::Margin));
    refused("concat", Tensor::concat(&device, &[whole.clone(), filled(&device, &[2, 4], f32)]));
}

#[test]
fn numbers_beyond_any_kernel_are_refused() {
    let device = host();
    let g = recording(&device, Precision::F32);
    let x = filled(&device, &[2, 6, 5, 4], Precision::F32);
    const HUGE: [usize; 6] = [1 << 20, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 63, usize::MAX];
    for n in HUGE {
        let conv = |window| convolution(&device, Precision::F32, window).map(drop);
        for window in [
            Window { stride: [n, 1], ..Window::default() },
            Window { dilation: [1, n], ..Window::default() },
            Window { padding: [0, 0, n, 0], ..Window::default() },
        ] {
            refused(&format!("{window:?}"), conv(window));
            assert!(window.out(0, n, n).is_none_or(|out| out > 0));
        }
        for pool in [
            Pool { kernel: [n, 2], stride: [1, 1], padding: [n / 2, 0], ceil_mode: false },
            Pool { kernel: [2, 2], stride: [1, n], padding: [0, 0], ceil_mode: true },
            Pool { kernel: [2, 2], stride: [1, 1], padding: [n, 0], ceil_mode: true },
        ] {
            refused(&format!("{pool:?}"), max_pool2d(&g, &x, pool));
            refused(&format!("{pool:?}"), avg_pool2d(&g, &x, pool, false));
        }
        refused("upsample", upsample_nearest(&g, &x, n));
        for (from, to) in [([6, 5], [n, 3]), ([6, n], [3, 3])] {
            refused("resize", Resize::new(&device, from, to, Filter::Bicubic, false).map(drop));
        }
        refused("tensor", Tensor::uninit(&device, &[n, n, n], DType::F32));
        refused("tensor", Tensor::from_f32(&device, &[n, 2], DType::F32, &[0.0; 4]));
        refused("rows", x.rows(1, n));
        refused("reshape", x.reshaped(&[n, 0]).and(x.reshaped(&[n])));
    }
    assert!(fold_batch_norm(&[1.0, 1.0], &[0.0], &[0.0, 0.0], &[1.0, 1.0], 1e-5).unwrap_err().contains("found 1"));
}

/// A mask has padded rows: one that is read under other dimensions is applied in its own.
#[test]
fn a_relu_is_read_under_other_dimensions() {
    let device = host();
    for c in [4, 16, 20, 32] {
        let (k, n) = (6 * c, 2);
        let weight = values(3 * k, 4, Precision::F32);
        let layer = Arc::new(Linear::new(&device, Precision::F32, &weight, [3, k], None).unwrap());
        let values = values(n * k, 1, Precision::F32);
        let g = recording(&device, Precision::F32);
        let x = upload_f32(&device, &[n, 3, 2, c], &values);
        let y = activation(&g, &x, Activation::Relu).unwrap();
        let y = linear(&g, &y.reshaped(&[n, k]).unwrap(), &layer, Activation::None).unwrap();
        let dy = [0.5, -1.0, 2.0, 1.5, 0.25, -0.75];
        let dx = g.backward(&y, upload_f32(&device, &[n, 3], &dy), &x).unwrap();
        assert_eq!(dx.shape(), [n, 3, 2, c]);
        let want: Vec<f64> = (0..n * k)
            .map(|i| {
                let sum: f64 = (0..3).map(|o| f64::from(dy[i / k * 3 + o]) * f64::from(weight[o * k + i % k])).sum();
                if values[i] > 0.0 { sum } else { 0.0 }
            })
            .collect();
        close(&format!("{c} channels"), &dx.to_f32(&device).unwrap(), &want, 3e-6);
    }
}
