//! Convolution with one channel per group against a direct sum in float64, and the adjoint identity of its gradient.

use crate::common::limits;
use crate::convolution::check;
use proptest::prelude::*;
use rampart::ops::conv::Window;
use rampart::tape::Precision;

const CASES: &[([usize; 4], [usize; 4], Window)] = &[
    ([2, 6, 6, 8], [8, 1, 3, 3], Window { stride: [1, 1], padding: [1; 4], dilation: [1, 1], groups: 8 }),
    ([2, 9, 7, 19], [19, 1, 3, 5], Window { stride: [2, 3], padding: [1, 2, 0, 3], dilation: [2, 1], groups: 19 }),
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
        (n, h, w, c) in (1usize..3, 1usize..12, 1usize..12, 2usize..40),
        (r, s) in (1usize..6, 1usize..6),
        stride in (1usize..4, 1usize..4),
        padding in (0usize..4, 0usize..4, 0usize..4, 0usize..4),
        dilation in (1usize..4, 1usize..4),
    ) {
        let window = Window {
            stride: [stride.0, stride.1],
            padding: [padding.0, padding.1, padding.2, padding.3],
            dilation: [dilation.0, dilation.1],
            groups: c,
        };
        prop_assume!(window.out(0, h, r).is_some() && window.out(1, w, s).is_some());
        check([n, h, w, c], [c, 1, r, s], window, Precision::F32, limits(Precision::F32).0);
        check([n, h, w, c], [c, 1, r, s], window, Precision::Bf16, limits(Precision::Bf16).0);
    }
}
