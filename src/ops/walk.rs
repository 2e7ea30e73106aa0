//! Tensors as kernels walk them: rows over at most five axes and runs along a sixth, axes that lie together joined.

use crate::device::{Divisor, Steps, Walk};
use crate::{Error, Result};

/// Axes of a walk over rows.
const AXES: usize = 5;

/// A walk over a result, and where `N` operands lie along it.
pub(super) struct Route<const N: usize> {
    pub rows: usize,
    pub c: usize,
    pub walk: Walk,
    pub steps: [Steps; N],
    /// along `c`
    pub step: [i64; N],
}

impl<const N: usize> Route<N> {
    /// The walk over a result of `shape`, whose axes lie `strides` apart in each operand, 0 for repeated ones.
    ///
    /// # Errors
    /// [`Error::Shape`] for more than six axes that do not lie together, or more rows than 2^31.
    pub fn new(op: &'static str, shape: &[usize], strides: [&[i64]; N]) -> Result<Self> {
        // Axes, the last first, those of length 1 left out and neighbours joined where every operand allows it.
        let mut axes: Vec<(usize, [i64; N])> = Vec::new();
        for (i, &n) in shape.iter().enumerate().rev().filter(|&(_, &n)| n != 1) {
            let own: [i64; N] = std::array::from_fn(|k| strides[k][i]);
            match axes.last_mut() {
                Some((length, inner)) if (0..N).all(|k| own[k] == inner[k] * *length as i64) => *length *= n,
                _ => axes.push((n, own)),
            }
        }
        if axes.len() > AXES + 1 {
            return Err(Error::shape(op, "axes", format!("at most {} that do not lie together", AXES + 1), axes.len()));
        }
        let (c, step) = axes.first().copied().unwrap_or((1, [1; N]));
        let outer = |i: usize| axes.get(1 + i).copied().unwrap_or((1, [0; N]));
        let rows: usize = axes.iter().skip(1).map(|(n, _)| n).product();
        if rows >= 1 << 31 || c >= 1 << 31 {
            return Err(Error::shape(op, "rows", "fewer than 2^31", format!("{rows} of {c}")));
        }
        let divisor = |i: usize| Divisor::new(outer(i).0);
        Ok(Route {
            rows,
            c,
            walk: Walk { n1: divisor(3), n2: divisor(2), n3: divisor(1), n4: divisor(0) },
            steps: std::array::from_fn(|k| {
                let at = |i: usize| outer(i).1[k];
                Steps { s0: at(4), s1: at(3), s2: at(2), s3: at(1), s4: at(0) }
            }),
            step,
        })
    }
}

/// Row-major strides of a shape, 0 for axes of length 1, so that they repeat.
pub(super) fn repeating(shape: &[usize]) -> Vec<i64> {
    let mut strides = vec![0; shape.len()];
    let mut product = 1i64;
    for (stride, &n) in strides.iter_mut().zip(shape).rev() {
        if n != 1 {
            *stride = product;
        }
        product *= n as i64;
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_that_lie_together_are_one() {
        let route = Route::new("test", &[2, 3, 4, 5], [&[60, 20, 5, 1]]).unwrap();
        assert_eq!((route.rows, route.c, route.step), (1, 120, [1]));
        // the last two change places
        let route = Route::new("test", &[2, 3, 5, 4], [&[60, 20, 1, 5]]).unwrap();
        assert_eq!((route.rows, route.c, route.step, route.walk.n4.value), (30, 4, [5], 5));
        assert_eq!((route.steps[0].s4, route.steps[0].s3), (1, 20));
        assert!(Route::new("test", &[2; 7], [&[64, 1, 32, 2, 16, 4, 8]]).is_err());
    }
}
