//! What tables of positions are made with beside plain arithmetic: rows taken by their numbers, and sums of products spelt as an equation.

use super::ir::{Constant, Dim};
use super::operands::{MAX_VALUES, axis, bounded, broadcast, expanded, pick, strides};

/// Products of one node beyond which a file is not believed: a second's work. Tables of positions of 24 x 24 windows, as 16 heads
/// look them up by one-hot matrices, take 1 << 28.
const MAX_PRODUCTS: usize = 1 << 30;

/// `GatherND` without batch axes: the part of `x` that each row of indices names.
///
/// # Errors
/// What is wrong, in words without the node.
pub fn gather_nd(x: &Constant, indices: &Constant, batch_dims: i64) -> Result<Option<Constant>, String> {
    let Some(places) = indices.as_ints().filter(|_| batch_dims == 0) else { return Ok(None) };
    let Some((&depth, outer)) = indices.shape.split_last() else { return Err("indices without an axis".into()) };
    if depth == 0 || depth > x.shape.len() {
        return Err(format!("indices of {depth} numbers into {} axes", x.shape.len()));
    }
    let inner = &x.shape[depth..];
    let length: usize = inner.iter().product();
    let mut starts = Vec::new();
    for place in places.chunks_exact(depth) {
        let mut at = 0;
        for (&i, &n) in place.iter().zip(&x.shape) {
            at = at * n + axis(i, n)?;
        }
        starts.push(at * length);
    }
    bounded(starts.len().saturating_mul(length).saturating_sub(x.len()))?;
    let shape = [outer, inner].concat();
    pick(x, &shape, starts.iter().flat_map(|&start| start..start + length)).map(Some)
}

/// `Einsum` of floats; nothing where an equation has an ellipsis.
///
/// # Errors
/// What is wrong, in words without the node.
pub fn einsum(equation: &str, operands: &[&Constant]) -> Result<Option<Constant>, String> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let Some(values) = operands.iter().map(|c| c.as_floats()).collect::<Option<Vec<_>>>() else { return Ok(None) };
    if equation.contains('.') {
        return Ok(None);
    }
    let (left, right) = equation.split_once("->").map_or((equation.as_str(), None), |(l, r)| (l, Some(r)));
    let terms: Vec<Vec<char>> = left.split(',').map(|term| term.chars().collect()).collect();
    if terms.len() != operands.len() {
        return Err(format!("`{equation}` is of {} operands, found {}", terms.len(), operands.len()));
    }
    // Every letter with its length; those of the result first.
    let mut letters: Vec<(char, usize)> = Vec::new();
    let mut found: Vec<(char, usize)> = Vec::new();
    for (term, operand) in terms.iter().zip(operands) {
        if term.len() != operand.shape.len() {
            return Err(format!("`{equation}` and an operand of {} axes", operand.shape.len()));
        }
        for (&letter, &n) in term.iter().zip(&operand.shape) {
            match found.iter().find(|(known, _)| *known == letter) {
                Some(&(_, known)) if known != n => {
                    return Err(format!("`{letter}` of `{equation}` is {known} and {n}"));
                }
                Some(_) => {}
                None => found.push((letter, n)),
            }
        }
    }
    let result: Vec<char> = match right {
        Some(right) => right.chars().collect(),
        // Letters that come once, in their order.
        None => {
            let mut once: Vec<char> = found.iter().map(|&(letter, _)| letter).collect();
            once.retain(|letter| left.matches(*letter).count() == 1);
            once.sort_unstable();
            once
        }
    };
    for &letter in &result {
        let of = found.iter().find(|(known, _)| *known == letter);
        let &of = of.ok_or_else(|| format!("`{letter}` of `{equation}` is in no operand"))?;
        if letters.contains(&of) {
            return Err(format!("`{letter}` stands twice in the result of `{equation}`"));
        }
        letters.push(of);
    }
    let shape: Vec<usize> = letters.iter().map(|&(_, n)| n).collect();
    letters.extend(found.into_iter().filter(|of| !result.contains(&of.0)));
    let products = letters.iter().try_fold(1usize, |product, &(_, n)| product.checked_mul(n));
    let Some(products) = products.filter(|&n| n <= MAX_PRODUCTS) else {
        return Err(format!("`{equation}` is of more than {MAX_PRODUCTS} products"));
    };
    // How far a step along each letter goes in each operand.
    let steps: Vec<Vec<usize>> = terms
        .iter()
        .zip(operands)
        .map(|(term, operand)| {
            let own = strides(&operand.shape);
            let step = |letter| term.iter().zip(&own).filter(|(of, _)| **of == letter).map(|(_, step)| step).sum();
            letters.iter().map(|&(letter, _)| step(letter)).collect()
        })
        .collect();
    let size: usize = shape.iter().product();
    let summed = products.checked_div(size).unwrap_or(0);
    let mut index = vec![0usize; letters.len()];
    let mut sums = Vec::with_capacity(size);
    for _ in 0..size {
        let mut sum = 0f64;
        for _ in 0..summed {
            let factor = |(values, steps): (&&[f32], &Vec<usize>)| {
                let at: usize = index.iter().zip(steps).map(|(i, step)| i * step).sum();
                f64::from(values[at])
            };
            sum += values.iter().zip(&steps).map(factor).product::<f64>();
            for (i, &(_, n)) in index.iter_mut().zip(&letters).rev() {
                *i += 1;
                if *i < n {
                    break;
                }
                *i = 0;
            }
        }
        sums.push(sum as f32);
    }
    Ok(Some(Constant::floats(&shape, sums)))
}

/// `MatMul` of floats, of matrices or of stacks of them that broadcast; sums in float64. Zeros of either side cost nothing, as the
/// one-hot matrices that look tables up are almost nothing else; nothing where an operand is a vector or not finite, or the result is too much work to know beforehand.
///
/// # Errors
/// What is wrong, in words without the node.
pub fn matmul(a: &Constant, b: &Constant) -> Result<Option<Constant>, String> {
    let ([batch_a @ .., m, k], [batch_b @ .., k_b, n]) = (a.shape.as_slice(), b.shape.as_slice()) else {
        return Ok(None);
    };
    let (Some(av), Some(bv)) = (a.as_floats(), b.as_floats()) else { return Ok(None) };
    if av.iter().chain(bv).any(|v| !v.is_finite()) {
        return Ok(None);
    }
    let (&m, &k, &n) = (m, k, n);
    if k != *k_b {
        return Err(format!("shapes {:?} and {:?} do not fit", a.shape, b.shape));
    }
    let batch = broadcast(batch_a, batch_b)?;
    let count = |lengths: &[usize]| lengths.iter().try_fold(1usize, |p, &n| p.checked_mul(n)).unwrap_or(usize::MAX);
    let results = count(&batch).saturating_mul(count(&[m, n]));
    if results > MAX_VALUES || results.saturating_mul(k) > MAX_PRODUCTS {
        return Ok(None);
    }
    // Which matrix of an operand each of the result's takes.
    let taken = |own: &[usize]| {
        let numbers = Constant::ints(own, (0..own.iter().product::<usize>() as i64).map(Dim::fixed).collect());
        expanded(&numbers, &batch).map(|c| c.as_ints().unwrap_or_default())
    };
    let mut y = Vec::with_capacity(count(&batch) * m * n);
    for (at_a, at_b) in taken(batch_a)?.into_iter().zip(taken(batch_b)?) {
        let (a, b) = (&av[at_a as usize * m * k..][..m * k], &bv[at_b as usize * k * n..][..k * n]);
        // (column, value) of what is not zero in each row of b
        let rows: Vec<Vec<(usize, f64)>> = (0..k)
            .map(|i| {
                let row = b[i * n..(i + 1) * n].iter().enumerate();
                row.filter(|(_, v)| **v != 0.0).map(|(j, &v)| (j, f64::from(v))).collect()
            })
            .collect();
        for r in 0..m {
            let mut sums = vec![0f64; n];
            for (&v, row) in a[r * k..(r + 1) * k].iter().zip(&rows).filter(|(v, _)| **v != 0.0) {
                row.iter().for_each(|&(j, w)| sums[j] += f64::from(v) * w);
            }
            y.extend(sums.into_iter().map(|s| s as f32));
        }
    }
    Ok(Some(Constant::floats(&[batch.as_slice(), &[m, n]].concat(), y)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_single_values_are_taken() {
        let x = Constant::floats(&[3, 2], (0..6).map(|v| v as f32).collect());
        let at = |shape: &[usize], places: &[i64]| {
            let indices = Constant::ints(shape, places.iter().map(|&i| Dim::fixed(i)).collect());
            gather_nd(&x, &indices, 0)
        };
        assert_eq!(at(&[2, 1], &[2, -3]), Ok(Some(Constant::floats(&[2, 2], vec![4.0, 5.0, 0.0, 1.0]))));
        assert_eq!(at(&[1, 2, 2], &[0, 1, 2, 0]), Ok(Some(Constant::floats(&[1, 2], vec![1.0, 4.0]))));
        assert!(at(&[1, 1], &[3]).is_err() && at(&[1, 3], &[0, 0, 0]).is_err());
    }

    #[test]
    fn stacks_of_matrices_are_multiplied_as_they_broadcast() {
        let a = Constant::floats(&[2, 1, 1, 2], vec![1.0, 2.0, 0.0, 3.0]);
        let b = Constant::floats(&[3, 2, 1], vec![1.0, 1.0, 0.0, 1.0, 5.0, 0.0]);
        let y = Constant::floats(&[2, 3, 1, 1], vec![3.0, 2.0, 5.0, 3.0, 3.0, 0.0]);
        assert_eq!(matmul(&a, &b), Ok(Some(y)));
        let flat = |shape: &[usize]| Constant::floats(shape, vec![1.0; shape.iter().product()]);
        assert!(
            matmul(&flat(&[2, 3]), &flat(&[2, 3])).is_err() && matmul(&flat(&[2, 2, 3]), &flat(&[3, 3, 2])).is_err()
        );
        assert_eq!(matmul(&flat(&[3]), &flat(&[3, 2])), Ok(None));
        assert_eq!(matmul(&Constant::floats(&[1, 1], vec![f32::NAN]), &flat(&[1, 1])), Ok(None));
        for (m, k) in [(1 << 11, 1 << 11), (1 << 13, 1)] {
            assert_eq!(matmul(&flat(&[m, k]), &flat(&[k, m])), Ok(None), "too much");
        }
    }

    #[test]
    fn equations_sum_over_what_the_result_lacks() {
        let a = Constant::floats(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = Constant::floats(&[3, 2], vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        let product = Constant::floats(&[2, 2], vec![4.0, 5.0, 10.0, 11.0]);
        for equation in ["ab,bc->ac", "ij , jk"] {
            assert_eq!(einsum(equation, &[&a, &b]), Ok(Some(product.clone())), "{equation}");
        }
        assert_eq!(einsum("ab->ba", &[&a]), Ok(Some(Constant::floats(&[3, 2], vec![1.0, 4.0, 2.0, 5.0, 3.0, 6.0]))));
        assert_eq!(einsum("aa", &[&product]), Ok(Some(Constant::floats(&[], vec![15.0]))));
        assert_eq!(einsum("...a,a", &[&a, &b]), Ok(None));
        for (equation, part) in
            [("ab,ab->a", "is 2 and 3"), ("ab->a", "is of 1"), ("abc,b->a", "2 axes"), ("ab,bc->ad", "in no")]
        {
            assert!(einsum(equation, &[&a, &b]).unwrap_err().contains(part), "{equation}");
        }
    }
}
