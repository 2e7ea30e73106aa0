//! Convolution against a direct sum in float64, and the adjoint identity of its gradient.

use std::sync::Arc;

use crate::common::{host, limits, upload, values};
use crate::convolution::check;
use proptest::prelude::*;
use rampart::ops::Activation;
use rampart::ops::conv::{Conv2d, Window, conv2d};
use rampart::tape::{Graph, Precision};

const CASES: &[([usize; 4], [usize; 4], Window)] = &[
    ([2, 5, 7, 3], [5, 3, 3, 3], Window { stride: [1, 1], padding: [1; 4], dilation: [1, 1], groups: 1 }),
    ([2, 9, 8, 64], [64, 64, 3, 3], Window { stride: [2, 2], padding: [1; 4], dilation: [1, 1], groups: 1 }),
    ([1, 13, 11, 6], [10, 3, 5, 3], Window { stride: [2, 3], padding: [3, 1, 2, 0], dilation: [2, 3], groups: 2 }),
    ([3, 8, 8, 17], [33, 17, 1, 1], Window { stride: [2, 2], padding: [0; 4], dilation: [1, 1], groups: 1 }),
    ([1, 12, 10, 3], [64, 3, 7, 7], Window { stride: [2, 2], padding: [3; 4], dilation: [1, 1], groups: 1 }),
    ([1, 6, 5, 8], [16, 1, 3, 3], Window { stride: [2, 1], padding: [1; 4], dilation: [1, 1], groups: 8 }),
    ([1, 1, 1, 1], [1, 1, 1, 1], Window { stride: [1, 1], padding: [0; 4], dilation: [1, 1], groups: 1 }),
    ([5, 4, 4, 128], [100, 128, 3, 3], Window { stride: [1, 1], padding: [1; 4], dilation: [1, 1], groups: 1 }),
];

#[test]
fn float32_agrees_with_a_direct_sum() {
    for &(x, w, window) in CASES {
        check(x, w, window, Precision::F32, limits(Precision::F32).0);
    }
}

#[test]
fn bfloat16_agrees_with_a_direct_sum_of_rounded_values() {
    for &(x, w, window) in CASES {
        check(x, w, window, Precision::Bf16, limits(Precision::Bf16).0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_window_agrees_with_a_direct_sum(
        (n, h, w) in (1usize..3, 1usize..12, 1usize..12),
        (groups, c, o) in (1usize..4, 1usize..20, 1usize..24),
        (r, s) in (1usize..6, 1usize..6),
        stride in (1usize..4, 1usize..4),
        padding in (0usize..4, 0usize..4, 0usize..4, 0usize..4),
        dilation in (1usize..4, 1usize..4),
    ) {
        let window = Window {
            stride: [stride.0, stride.1],
            padding: [padding.0, padding.1, padding.2, padding.3],
            dilation: [dilation.0, dilation.1],
            groups,
        };
        prop_assume!(window.out(0, h, r).is_some() && window.out(1, w, s).is_some());
        check([n, h, w, groups * c], [groups * o, c, r, s], window, Precision::F32, limits(Precision::F32).0);
        check([n, h, w, groups * c], [groups * o, c, r, s], window, Precision::Bf16, limits(Precision::Bf16).0);
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let device = host();
    let window = Window::square(1, 0);
    let weights = values(5 * 4 * 9, 1, Precision::F32);
    let conv = Arc::new(Conv2d::new(&device, Precision::F32, &weights, [5, 4, 3, 3], None, window).unwrap());
    let g = Graph::inference(&device, Precision::F32);
    let run = |shape: &[usize]| {
        let x = upload(&device, shape, Precision::F32, &vec![0.0; shape.iter().product()]);
        conv2d(&g, &x, &conv, None, Activation::None).unwrap_err().to_string()
    };
    assert_eq!(run(&[1, 5, 5, 3]), "conv2d: input channels: expected 4, got 3");
    assert!(run(&[1, 2, 5, 4]).starts_with("conv2d: input: expected at least the 3x3 window, got 2x5"));
    let odd = Window { groups: 2, ..window };
    let e = Conv2d::new(&device, Precision::F32, &weights, [5, 4, 3, 3], None, odd).map(|_| ()).unwrap_err();
    assert_eq!(e.to_string(), "conv2d: output channels: expected a multiple of 2 groups, got 5");
}
