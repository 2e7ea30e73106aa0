//! Votes against a plain count.

use crate::common::{PRECISIONS, host, upload, upload_f32, values, wide};
use rampart::Error;
use rampart::ops::vote::Votes;
use rampart::tape::{Graph, Precision};

#[test]
fn counts_are_those_of_a_loop_and_add_up() {
    for precision in PRECISIONS {
        for (k, rows) in [(10, vec![3usize, 0, 5, 1]), (1, vec![2]), (3, vec![0, 0]), (1000, vec![1, 2]), (257, vec![])]
        {
            let device = host();
            let g = Graph::inference(&device, precision);
            let n: usize = rows.iter().sum();
            let votes = Votes::new(&device, rows.len(), k).unwrap();
            let mut want = vec![vec![0u64; k]; rows.len()];
            for seed in [1, 2] {
                let logits = values(n * k, seed, precision);
                votes.add(&g, &upload(&device, &[n, k], precision, &logits), &rows).unwrap();
                let wide = wide(&logits);
                let mut each = wide.chunks_exact(k);
                for (image, &count) in rows.iter().enumerate() {
                    for row in each.by_ref().take(count) {
                        let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                        want[image][row.iter().position(|&z| z == top).unwrap()] += 1;
                    }
                }
            }
            assert_eq!(votes.counts(&device).unwrap(), want, "{k} classes, {precision:?}");
        }
    }
}

#[test]
fn equals_go_to_the_lowest_class_and_nan_to_none() {
    let (device, inf) = (host(), f32::INFINITY);
    let g = Graph::inference(&device, Precision::F32);
    let rows = [[2.0, 5.0, 5.0], [f32::NAN, 1.0, 9.0], [1.0, 9.0, f32::NAN], [-inf, -inf, -inf], [0.0, inf, inf]];
    let votes = Votes::new(&device, 2, 3).unwrap();
    votes.add(&g, &upload_f32(&device, &[5, 3], &rows.concat()), &[2, 3]).unwrap();
    assert_eq!(votes.counts(&device).unwrap(), [[0, 1, 0], [1, 1, 0]]);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let device = host();
    let g = Graph::inference(&device, Precision::F32);
    let votes = Votes::new(&device, 2, 3).unwrap();
    let logits = |n: usize, k: usize| upload_f32(&device, &[n, k], &vec![0.0; n * k]);
    for (logits, rows) in [(logits(2, 4), vec![1, 1]), (logits(2, 3), vec![2]), (logits(2, 3), vec![1, 2])] {
        let refused = votes.add(&g, &logits, &rows);
        assert!(matches!(refused, Err(Error::Shape { .. })), "{refused:?}");
    }
    assert_eq!(votes.counts(&device).unwrap(), [[0, 0, 0], [0, 0, 0]]);
}
