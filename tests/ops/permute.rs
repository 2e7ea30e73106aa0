//! The same values elsewhere: every result is compared with its indices written out, every gradient with the transposed map.

use std::sync::Arc;

use crate::common::{PRECISIONS, check, host, upload, values, wide};
use rampart::ops::permute::{concat, permute, slice, view};
use rampart::ops::recording;
use rampart::ops::resize::{Along, along};
use rampart::tape::Precision;

/// Runs a map that only moves values: `from[i]` is the place in x that result i has.
fn moves(
    what: &str,
    shape: &[usize],
    from: &[usize],
    op: impl Fn(&rampart::tape::Graph, &rampart::tensor::Tensor) -> rampart::Result<rampart::tensor::Tensor>,
) {
    for precision in PRECISIONS {
        let x = values(shape.iter().product(), 1, precision);
        let dy = values(from.len(), 2, precision);
        let want: Vec<f64> = from.iter().map(|&i| wide(&x)[i]).collect();
        let mut want_dx = vec![0.0; x.len()];
        from.iter().zip(&dy).for_each(|(&i, &d)| want_dx[i] += f64::from(d));
        check(what, precision, (shape, &x), &dy, &op, &want, &want_dx);
    }
}

/// The places of a permutation, index by index.
fn places(shape: &[usize], axes: &[usize]) -> Vec<usize> {
    let to: Vec<usize> = axes.iter().map(|&a| shape[a]).collect();
    let stride = |a: usize| shape[a + 1..].iter().product::<usize>();
    (0..shape.iter().product())
        .map(|mut i| {
            let mut place = 0;
            for (&n, &a) in to.iter().zip(axes).rev() {
                place += i % n * stride(a);
                i /= n;
            }
            place
        })
        .collect()
}

#[test]
fn axes_change_places() {
    let cases: [(&[usize], &[usize]); 8] = [
        (&[2, 3, 5, 7], &[0, 2, 3, 1]),
        (&[2, 3, 5, 7], &[0, 3, 1, 2]),
        (&[2, 3, 5, 7], &[3, 2, 1, 0]),
        (&[2, 1, 5, 1], &[1, 2, 3, 0]),
        (&[33, 40], &[1, 0]),
        (&[2, 3, 4, 2, 5], &[0, 1, 4, 3, 2]),
        (&[2, 2, 3, 2, 3, 17], &[0, 1, 3, 2, 4, 5]),
        (&[2, 3, 2, 3, 2, 5], &[5, 1, 3, 0, 4, 2]),
    ];
    for (shape, axes) in cases {
        moves(&format!("permute {axes:?}"), shape, &places(shape, axes), |g, x| permute(g, x, axes));
    }
}

#[test]
fn neighbours_are_cut_out() {
    for (shape, axis, first, count) in
        [([3, 5, 4], 1, 1, 3), ([3, 5, 37], 2, 20, 17), ([3, 5, 4], 0, 2, 1), ([3, 5, 4], 2, 0, 4)]
    {
        let mut to = shape;
        to[axis] = count;
        let inner: usize = shape[axis + 1..].iter().product();
        let from: Vec<usize> = (0..to.iter().product::<usize>())
            .map(|i| (i / (inner * count) * shape[axis] + i / inner % count + first) * inner + i % inner)
            .collect();
        moves("slice", &shape, &from, |g, x| slice(g, x, axis, first, count));
    }
}

#[test]
fn parts_come_one_after_the_other_and_each_gets_its_gradient() {
    let device = host();
    for precision in PRECISIONS {
        for axis in 0..3 {
            let mut shapes = [[2, 3, 5]; 3];
            (shapes[1][axis], shapes[2][axis]) = (1, 4);
            let parts: Vec<_> = shapes
                .iter()
                .enumerate()
                .map(|(i, shape)| {
                    upload(&device, shape, precision, &values(shape.iter().product(), i as u64, precision))
                })
                .collect();
            let g = recording(&device, precision);
            let y = concat(&g, &parts.iter().collect::<Vec<_>>(), axis).unwrap();
            let dy = upload(&device, y.shape(), precision, &values(y.len(), 7, precision));
            let all = g.backward_all(&y, dy.clone(), &parts.iter().collect::<Vec<_>>()).unwrap();
            let cut = rampart::tape::Graph::inference(&device, precision);
            let mut first = 0;
            for ((part, dx), shape) in parts.iter().zip(&all).zip(&shapes) {
                let own = |t| slice(&cut, t, axis, first, shape[axis]).unwrap().to_f32(&device).unwrap();
                assert_eq!(own(&y), part.to_f32(&device).unwrap(), "axis {axis}");
                assert_eq!(own(&dy), dx.to_f32(&device).unwrap(), "axis {axis}");
                first += shape[axis];
            }
        }
    }
}

#[test]
fn values_are_gathered_by_index() {
    let indices = [Some(4), None, Some(0), Some(0), Some(2)];
    for axis in 0..3 {
        let shape = [[5, 2, 3], [2, 5, 3], [2, 3, 5]][axis];
        let map = Arc::new(Along::gather(&host(), 5, &indices).unwrap());
        let inner: usize = shape[axis + 1..].iter().product();
        for precision in PRECISIONS {
            let (x, dy) = (values(30, 1, precision), values(30, 2, precision));
            let from = |i: usize| indices[i / inner % 5].map(|j| (i / (inner * 5) * 5 + j) * inner + i % inner);
            let want: Vec<f64> = (0..30).map(|i| from(i).map_or(0.0, |j| wide(&x)[j])).collect();
            let mut want_dx = vec![0.0; 30];
            (0..30).for_each(|i| {
                if let Some(j) = from(i) {
                    want_dx[j] += wide(&dy)[i]
                }
            });
            check("along", precision, (&shape, &x), &dy, |g, x| along(g, x, axis, &map), &want, &want_dx);
        }
    }
    let far = Along::new(&host(), 1 << 20, &vec![vec![(0, 1.0), ((1 << 20) - 1, 1.0)]; 100]);
    assert!(matches!(far, Err(rampart::Error::Limit { .. })));
    assert!(Along::gather(&host(), 3, &[Some(3)]).is_err());
}

#[test]
fn a_view_is_the_same_memory_and_passes_the_gradient_on() {
    let from: Vec<usize> = (0..30).collect();
    moves("view", &[2, 15], &from, |g, x| view(g, &view(g, x, &[5, 6])?, &[3, 5, 2]));
    let device = host();
    let g = recording(&device, Precision::F32);
    let x = upload(&device, &[2, 3], Precision::F32, &[0.0; 6]);
    assert_eq!(view(&g, &x, &[6]).unwrap().address(), x.address());
    assert!(view(&g, &x, &[7]).is_err() && permute(&g, &x, &[0, 0]).is_err() && slice(&g, &x, 1, 2, 2).is_err());
}
