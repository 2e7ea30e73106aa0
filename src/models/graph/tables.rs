//! What tables of positions are made with beside plain arithmetic: rows taken by their numbers, and sums of products spelt as an equation.

use super::ir::Constant;
use super::operands::{axis, bounded, pick, strides};

/// Products of one equation beyond which a file is not believed.
const MAX_PRODUCTS: usize = 1 << 26;

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

#[cfg(test)]
mod tests {
    use super::super::ir::Dim;
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
