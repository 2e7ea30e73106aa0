//! Where the heads of an attention lie in what its operands were cut out of, so that they are read there and nothing is moved: ViTs
//! make q, k and v by one product and hand them over by reshapes, transposes and slices alone.

use super::ir::Dim;
use super::plan::{Call, Register, Spread, Step};
use crate::ops::attention::Heads;

/// A length in memory, and the distance from one value to the next.
type Run = (usize, usize);

/// An axis: runs within runs, the innermost last; none where it has one value.
type Axis = Vec<Run>;

/// Where an operand comes from, and how it lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub register: Register,
    pub at: Spread,
}

/// What is known of registers: the steps so far, and the shape in memory of their results.
pub struct Known<'a> {
    pub steps: &'a [Step],
    pub memory: &'a [Option<Vec<Dim>>],
}

impl Known<'_> {
    /// Where an operand lies of which the axes in memory are, in this order, `order[..]` of (batch, head, token, value).
    pub fn place(&self, register: Register, order: &[usize; 4]) -> Option<Place> {
        // Steps are products of lengths, of which one is the batch, or none.
        let (base, two) = self.place_of(register, order, 2)?;
        let at = Spread::between(two, self.place_of(register, order, 3)?.1)?;
        (at.of(5) == self.place_of(register, order, 5)?.1).then_some(Place { register: base, at })
    }

    fn place_of(&self, register: Register, order: &[usize; 4], images: usize) -> Option<(Register, Heads)> {
        let (base, first, axes) = self.strided(register, images)?;
        if axes.len() != 4 {
            return None;
        }
        let step = |axis: usize| match axes[order.iter().position(|&a| a == axis)?].as_slice() {
            [] => Some(0),
            &[(_, step)] => Some(step),
            _ => None,
        };
        if step(3)? > 1 {
            return None;
        }
        Some((base, Heads { first, batch: step(0)?, head: step(1)?, token: step(2)? }))
    }

    /// The register that was computed last on the way to this one, and the first value and the axes of this one in it.
    fn strided(&self, register: Register, images: usize) -> Option<(Register, usize, Vec<Axis>)> {
        let mut moves = Vec::new();
        let mut base = register;
        // Registers are numbered as the steps make them.
        while let Ok(i) = self.steps.binary_search_by_key(&base, |step| step.output) {
            let Step { call: call @ (Call::View(_) | Call::Permute(_) | Call::Slice(..)), inputs, .. } = &self.steps[i]
            else {
                break;
            };
            moves.push(call);
            base = *inputs.first()?;
        }
        let of = |shape: &[Dim]| -> Vec<usize> { shape.iter().map(|d| d.of(images)).collect() };
        let (mut first, mut axes) = (0, contiguous(&of(self.memory.get(base)?.as_ref()?)));
        for call in moves.into_iter().rev() {
            match call {
                Call::View(shape) => axes = reshaped(&axes, &of(shape))?,
                Call::Permute(order) => axes = order.iter().map(|&a| axes.get(a).cloned()).collect::<Option<_>>()?,
                Call::Slice(axis, from, count) => {
                    let cut = axes.get_mut(*axis)?;
                    let &[(_, step)] = cut.as_slice() else { return None };
                    *cut = if *count == 1 { vec![] } else { vec![(*count, step)] };
                    first += from * step;
                }
                _ => return None,
            }
        }
        Some((base, first, axes))
    }

    /// Whether operands of these sizes (batch, heads, tokens, values; the batch for one image) are, each or together, all of what they
    /// lie in, and no value is part of two.
    pub fn covered(&self, places: &[Place; 3], sizes: [[Dim; 4]; 3]) -> bool {
        const IMAGES: usize = 2;
        let lengths = sizes.map(|lengths| lengths.map(|d| d.of(IMAGES)));
        let count = |i: usize| lengths[i].iter().product::<usize>();
        (0..3).all(|i| {
            let register = places[i].register;
            let Some(Some(memory)) = self.memory.get(register) else { return false };
            let all: usize = memory.iter().map(|d| d.of(IMAGES)).product();
            if all > 1 << 26 {
                return false;
            }
            let same: Vec<usize> = (0..3).filter(|&j| places[j].register == register).collect();
            let together: usize = same.iter().map(|&j| count(j)).sum();
            if together != all {
                // By itself, an operand that is cut out and turned has every value once.
                return count(i) == all;
            }
            let mut taken = vec![false; all];
            same.iter().all(|&j| {
                each(places[j].at.of(IMAGES), lengths[j], |at| {
                    taken.get_mut(at).is_some_and(|t| !std::mem::replace(t, true))
                })
            })
        })
    }
}

/// Whether something holds of every value's place.
fn each(at: Heads, [batch, heads, tokens, values]: [usize; 4], mut holds: impl FnMut(usize) -> bool) -> bool {
    (0..batch).all(|b| {
        (0..heads).all(|h| {
            (0..tokens).all(|t| {
                let first = at.first + b * at.batch + h * at.head + t * at.token;
                (first..first + values).all(&mut holds)
            })
        })
    })
}

/// A table of differences of places `(heads, 2 H - 1, 2 W - 1)`, and its map H x W, if that is all that biases `(heads, n, m)` of scores
/// are made of; as [`Positions`](crate::ops::attention::Positions) has it. The squarest map is tried first.
pub fn by_places(bias: &[f32], heads: usize, n: usize, m: usize) -> Option<([usize; 2], Vec<f32>)> {
    /// Below this many tokens in a row of the map the whole bias is as fast.
    const LEAST: usize = 12;
    if n != m || bias.len() != heads * n * n {
        return None;
    }
    let root = n.isqrt();
    let maps = (1..=root).rev().filter(|h| n.is_multiple_of(*h)).flat_map(|h| [[h, n / h], [n / h, h]]);
    maps.filter(|map| map[1] >= LEAST).find_map(|[h, w]| {
        let (rows, columns) = (2 * h - 1, 2 * w - 1);
        let mut table: Vec<Option<f32>> = vec![None; heads * rows * columns];
        for (i, &value) in bias.iter().enumerate() {
            let (key, query, head) = (i % n, i / n % n, i / n / n);
            let (down, across) = (key / w + h - 1 - query / w, key % w + w - 1 - query % w);
            let known = table[(head * rows + down) * columns + across].get_or_insert(value);
            if known.to_bits() != value.to_bits() {
                return None;
            }
        }
        // Every difference is that of some pair.
        Some(([h, w], table.into_iter().flatten().collect()))
    })
}

/// Axes of values that lie one after the other.
fn contiguous(lengths: &[usize]) -> Vec<Axis> {
    let mut step = 1;
    let mut axes: Vec<Axis> = Vec::with_capacity(lengths.len());
    for &n in lengths.iter().rev() {
        axes.push(if n == 1 { vec![] } else { vec![(n, step)] });
        step *= n;
    }
    axes.reverse();
    axes
}

/// The same values in the same order as axes of other lengths; `None` where a new axis begins within a step of an old one.
fn reshaped(axes: &[Axis], lengths: &[usize]) -> Option<Vec<Axis>> {
    let mut runs: Vec<Run> = axes.iter().flatten().copied().collect();
    let mut result = Vec::with_capacity(lengths.len());
    for &n in lengths.iter().rev() {
        let (mut axis, mut left): (Axis, usize) = (vec![], n);
        while left != 1 {
            let (length, step) = runs.pop()?;
            let taken = if left.is_multiple_of(length) { length } else { left };
            if taken == 0 || !length.is_multiple_of(taken) {
                return None;
            }
            if taken < length {
                runs.push((length / taken, step * taken));
            }
            left /= taken;
            // Runs that are walked like one are one.
            match axis.last_mut() {
                Some((inner, apart)) if step == *inner * *apart => *inner *= taken,
                _ => axis.push((taken, step)),
            }
        }
        axis.reverse();
        result.push(axis);
    }
    result.reverse();
    runs.is_empty().then_some(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(call: Call, input: Register, output: Register) -> Step {
        Step { name: String::new(), call, inputs: vec![input], output, done: vec![] }
    }

    fn fixed(lengths: &[i64]) -> Vec<Dim> {
        let mut dims = vec![Dim::BATCH];
        dims.extend(lengths.iter().map(|&n| Dim::fixed(n)));
        dims
    }

    /// (N, T, 3, H, D) as a transposition to (3, N, H, T, D) and three slices.
    #[test]
    fn the_parts_of_one_projection_are_found_and_cover_it() {
        let (t, h, d) = (5, 2, 4);
        let mut steps =
            vec![step(Call::View(fixed(&[t, 3, h, d])), 0, 1), step(Call::Permute(vec![2, 0, 3, 1, 4]), 1, 2)];
        for i in 0..3 {
            steps.push(step(Call::Slice(0, i, 1), 2, 3 + 2 * i));
            steps.push(step(Call::View([fixed(&[h, t, d])].concat()), 3 + 2 * i, 4 + 2 * i));
        }
        let mut memory = vec![None; 16];
        memory[0] = Some(fixed(&[t, 3 * h * d]));
        let known = Known { steps: &steps, memory: &memory };
        let place = |i: usize| known.place(4 + 2 * i, &[0, 1, 2, 3]).unwrap();
        let c = 3 * 2 * 4;
        for i in 0..3 {
            let at = Heads { first: i * 8, batch: 5 * c, head: 4, token: c };
            assert_eq!(place(i), Place { register: 0, at: Spread::fixed(at) }, "{i}");
        }
        let sizes = [Dim::BATCH, Dim::fixed(h), Dim::fixed(t), Dim::fixed(d)];
        let places = [place(0), place(1), place(2)];
        assert!(known.covered(&places, [sizes; 3]));
        let twice = [place(0), place(1), place(1)];
        assert!(!known.covered(&twice, [sizes; 3]), "a part is left out");
        // With heads as the last axis the values of one are no neighbours.
        assert_eq!(known.place(4, &[0, 3, 2, 1]), None);
    }

    /// With the images within the tokens the step from token to token grows with the batch.
    #[test]
    fn steps_may_depend_on_the_batch() {
        let steps = vec![step(Call::Permute(vec![1, 0, 2, 3]), 0, 1)];
        let memory = [5, 2, 4].map(Dim::fixed);
        let memory = vec![Some(vec![memory[0], Dim::BATCH, memory[1], memory[2]]), None];
        let place = Known { steps: &steps, memory: &memory }.place(1, &[0, 2, 1, 3]).unwrap();
        for images in [1, 7] {
            assert_eq!(place.at.of(images), Heads { first: 0, batch: 8, head: 4, token: 8 * images });
        }
    }

    /// A file may be as long as it likes.
    #[test]
    fn a_long_way_is_walked_without_a_stack() {
        let count = 200_000;
        let there = |i: usize| Call::Permute(if i.is_multiple_of(2) { vec![0, 2, 1, 3] } else { vec![0, 1, 2, 3] });
        let steps: Vec<Step> = (0..count).map(|i| step(there(i), i, i + 1)).collect();
        let mut memory = vec![None; count + 1];
        memory[0] = Some(fixed(&[3, 2, 4]));
        let known = Known { steps: &steps, memory: &memory };
        assert_eq!(known.place(count, &[0, 1, 2, 3]).map(|place| place.register), Some(0));
    }

    #[test]
    fn axes_split_and_join_where_steps_allow() {
        let one = |runs: &[Run]| -> Vec<Axis> { runs.iter().map(|&run| vec![run]).collect() };
        assert_eq!(reshaped(&one(&[(6, 4), (4, 1)]), &[2, 3, 4]), Some(one(&[(2, 12), (3, 4), (4, 1)])));
        assert_eq!(reshaped(&one(&[(6, 4), (4, 1)]), &[3, 1, 8]), Some(vec![vec![(3, 8)], vec![], vec![(8, 1)]]));
        // Two axes that are turned join for a while.
        let turned = one(&[(4, 1), (6, 4)]);
        let joined = reshaped(&turned, &[24]).unwrap();
        assert_eq!(joined, [[(4, 1), (6, 4)]]);
        assert_eq!(reshaped(&joined, &[4, 6]), Some(turned));
        assert_eq!(reshaped(&joined, &[2, 2, 6]), Some(one(&[(2, 2), (2, 1), (6, 4)])));
        assert_eq!(reshaped(&joined, &[3, 8]), None);
        assert_eq!(reshaped(&one(&[(6, 1)]), &[4]), None);
        assert_eq!(reshaped(&one(&[(6, 1)]), &[3]), None);
        assert_eq!(reshaped(&one(&[(6, 1)]), &[0]), None);
    }

    #[test]
    fn biases_of_places_become_a_table() {
        let (heads, [h, w]) = (2, [3, 12]);
        let n = h * w;
        let place = |head: usize, down: usize, across: usize| (head * 1000 + down * 100 + across) as f32;
        let mut bias = Vec::new();
        for i in 0..heads * n * n {
            let (key, query) = (i % n, i / n % n);
            bias.push(place(i / n / n, key / w + h - 1 - query / w, key % w + w - 1 - query % w));
        }
        let table: Vec<f32> = (0..heads * 5 * 23).map(|i| place(i / 115, i / 23 % 5, i % 23)).collect();
        assert_eq!(by_places(&bias, heads, n, n), Some(([h, w], table)));
        bias[7] += 1.0;
        assert_eq!(by_places(&bias, heads, n, n), None);
        assert_eq!(by_places(&bias[..n * (n - 1)], 1, n, n - 1), None);
    }
}
