//! Where values lie in memory: an order of logical axes for every value, and what of it a renaming of axes keeps.
//!
//! A value of logical shape (N, C, H, W) usually lies as (N, H, W, C): order `[0, 2, 3, 1]`. A Transpose then changes the order and
//! moves nothing.

use super::ir::{Attr, Constant, Data, Dim, Ir, Node};

/// Axes of an image as the ops have it.
pub const NHWC: [usize; 4] = [0, 2, 3, 1];

/// The order in memory after a Transpose by `perm`.
pub fn transposed(order: &[usize], perm: &[usize]) -> Vec<usize> {
    order.iter().map(|&a| perm.iter().position(|&p| p == a).unwrap_or(a)).collect()
}

/// Whether both orders are the same memory, since axes of length 1 may stand anywhere.
pub fn same(a: &[usize], b: &[usize], shape: &[Dim]) -> bool {
    let long =
        |order: &[usize]| -> Vec<usize> { order.iter().copied().filter(|&i| shape[i] != Dim::fixed(1)).collect() };
    long(a) == long(b)
}

/// The order after a Reshape that moves nothing; `None` when it would.
pub fn reshaped(order: &[usize], from: &[Dim], to: &[Dim]) -> Option<Vec<usize>> {
    let one = Dim::fixed(1);
    // Groups of axes with the same product on both sides.
    let mut groups: Vec<(Vec<usize>, Vec<usize>)> = Vec::new();
    let (mut i, mut j) = (0, 0);
    while i < from.len() || j < to.len() {
        let (mut group, mut a, mut b) = ((vec![], vec![]), one, one);
        loop {
            if a == b && !(group.0.is_empty() && group.1.is_empty()) {
                break;
            }
            // The smaller side takes the next axis; N counts as more than any number.
            let behind = (a.batch, a.n) <= (b.batch, b.n);
            if i < from.len() && (behind || j == to.len()) {
                a = Dim::new(a.n.checked_mul(from[i].n)?, a.batch || from[i].batch);
                group.0.push(i);
                i += 1;
            } else if j < to.len() {
                b = Dim::new(b.n.checked_mul(to[j].n)?, b.batch || to[j].batch);
                group.1.push(j);
                j += 1;
            } else {
                return None;
            }
        }
        groups.push(group);
    }
    let mut result = Vec::new();
    let memory: Vec<usize> = order.iter().copied().filter(|&a| from[a] != one).collect();
    let mut at = 0;
    while at < memory.len() {
        let group = groups.iter().find(|(f, _)| f.contains(&memory[at]))?;
        let long: Vec<usize> = group.0.iter().copied().filter(|&a| from[a] != one).collect();
        if memory.get(at..at + long.len())? != long {
            return None;
        }
        result.extend(group.1.iter().copied().filter(|&a| to[a] != one));
        at += long.len();
    }
    result.extend((0..to.len()).filter(|&a| to[a] == one));
    (result.len() == to.len()).then_some(result)
}

/// Where images (N, C, H, W) are flattened before fully connected layers, the layers' columns are put into the order in which the images
/// lie, once, instead of the images into the order of the columns.
pub fn run(ir: &mut Ir) {
    let mut at = 0;
    while at < ir.nodes.len() {
        at += 1 + usize::from(turn(ir, at));
    }
}

/// Whether the node at `at` was such a flattening, which then stands one further.
fn turn(ir: &mut Ir, at: usize) -> bool {
    let node = &ir.nodes[at];
    let (Some(x), Some(&y)) = (node.input(0), node.outputs.first()) else { return false };
    let (Some(&[n, c, h, w]), Some(&[rows, k])) = (ir.shape(x), ir.shape(y)) else { return false };
    if node.op != "Reshape" || rows != n || [c, h, w, k].iter().any(|d| d.batch) || c.n == 1 || h.n * w.n == 1 {
        return false;
    }
    let readers: Vec<usize> = (0..ir.nodes.len()).filter(|&i| ir.nodes[i].inputs.contains(&Some(y))).collect();
    let layers = readers.iter().all(|&i| {
        let layer = &ir.nodes[i];
        let weights = ir.known(layer, 1).is_some_and(|w| w.shape.len() == 2 && w.as_floats().is_some());
        matches!(layer.op.as_str(), "Gemm" | "MatMul") && layer.input(0) == Some(y) && weights
    });
    if !layers || readers.is_empty() || ir.output == y {
        return false;
    }
    for i in readers {
        let layer = &ir.nodes[i];
        let Some(weight) = ir.known(layer, 1) else { continue };
        let rows_are_outputs = layer.op == "Gemm" && layer.int("transB") == Some(1);
        let turned = turned(weight, rows_are_outputs, [c.n as usize, (h.n * w.n) as usize]);
        let id = ir.add_constant(format!("{}.turned", ir.nodes[i].name), turned);
        ir.nodes[i].inputs[1] = Some(id);
    }
    // (N, C, H, W) -> (N, H, W, C) moves nothing for images that lie so.
    let view = ir.add(format!("{}.channels_last", ir.nodes[at].name), Some(vec![n, h, w, c]));
    let mut transpose = Node {
        name: format!("{}.channels_last", ir.nodes[at].name),
        op: "Transpose".into(),
        inputs: vec![Some(x)],
        outputs: vec![view],
        ..Node::default()
    };
    transpose.set("perm", Attr::Ints(vec![0, 2, 3, 1]));
    ir.nodes[at].inputs[0] = Some(view);
    ir.nodes.insert(at, transpose);
    true
}

/// Weights whose inputs come as (pixels, channels) instead of (channels, pixels).
fn turned(weight: &Constant, rows_are_outputs: bool, [channels, pixels]: [usize; 2]) -> Constant {
    let Data::Floats(values) = &weight.data else { return weight.clone() };
    let k = channels * pixels;
    let outputs = values.len() / k.max(1);
    let mut moved = Vec::with_capacity(values.len());
    let from = |i: usize| i % channels * pixels + i / channels;
    if rows_are_outputs {
        (0..outputs).for_each(|o| moved.extend((0..k).map(|i| values[o * k + from(i)])));
    } else {
        (0..k).for_each(|i| moved.extend_from_slice(&values[from(i) * outputs..(from(i) + 1) * outputs]));
    }
    Constant::floats(&weight.shape, moved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(shape: &[i64]) -> Vec<Dim> {
        shape.iter().map(|&n| if n == 0 { Dim::BATCH } else { Dim::fixed(n) }).collect()
    }

    #[test]
    fn a_reshape_moves_nothing_where_groups_stay_together() {
        let images = dims(&[0, 6, 4, 5]);
        // pixels in a row: (N, C, H W), still channels last
        assert_eq!(reshaped(&NHWC, &images, &dims(&[0, 6, 20])), Some(vec![0, 2, 1]));
        // channels in two
        assert_eq!(reshaped(&NHWC, &images, &dims(&[0, 2, 3, 4, 5])), Some(vec![0, 3, 4, 1, 2]));
        // all in one: only if they lie so
        assert_eq!(reshaped(&NHWC, &images, &dims(&[0, 120])), None);
        assert_eq!(reshaped(&[0, 1, 2, 3], &images, &dims(&[0, 120])), Some(vec![0, 1]));
        // pooled images lie as they should
        assert_eq!(reshaped(&NHWC, &dims(&[0, 6, 1, 1]), &dims(&[0, 6])), Some(vec![0, 1]));
        assert_eq!(reshaped(&[0, 1], &dims(&[0, 6]), &dims(&[0, 6, 1, 1])), Some(vec![0, 1, 2, 3]));
    }

    #[test]
    fn a_transpose_renames() {
        assert_eq!(transposed(&NHWC, &[0, 2, 3, 1]), [0, 1, 2, 3]);
        assert!(same(&NHWC, &[0, 1, 2, 3], &dims(&[0, 6, 1, 1])) && !same(&NHWC, &[0, 1, 2, 3], &dims(&[0, 6, 2, 1])));
    }

    #[test]
    fn weights_are_turned_like_the_images() {
        // two outputs over 2 channels of 3 pixels
        let rows = Constant::floats(&[2, 6], vec![0., 1., 2., 3., 4., 5., 10., 11., 12., 13., 14., 15.]);
        let want = [0., 3., 1., 4., 2., 5., 10., 13., 11., 14., 12., 15.];
        assert_eq!(turned(&rows, true, [2, 3]).as_floats(), Some(&want[..]));
        let columns = Constant::floats(&[6, 2], (0..6).flat_map(|i| [i as f32, 10. + i as f32]).collect());
        let want = [0., 10., 3., 13., 1., 11., 4., 14., 2., 12., 5., 15.];
        assert_eq!(turned(&columns, false, [2, 3]).as_floats(), Some(&want[..]));
    }
}
