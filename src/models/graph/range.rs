//! Whether a graph takes bytes: one that begins by bringing pixels of 0 to 255 to a smaller range takes those of 0 to 1 for black.

use std::collections::BTreeSet;

use super::ir::{Constant, Id, Ir, Node};

/// Means of pixels in [0, 1] lie below this.
const UNIT: f32 = 1.5;
/// A divisor of pixels in [0, 1] lies below this: deviations are less than 1, and 255 and 127.5 are what bytes are divided by.
const SCALE: f32 = 16.0;

/// The first node that says so, and by what.
pub fn takes_bytes(ir: &Ir) -> Option<String> {
    let (mut from, mut seen) = (vec![ir.input], BTreeSet::new());
    while let Some(x) = from.pop() {
        // Parts that were split come together again: what stands behind is looked at once, not once for each way there.
        if !seen.insert(x) {
            continue;
        }
        for node in ir.nodes.iter().filter(|node| node.inputs.contains(&Some(x))) {
            let told = |what: &str, value: f32| Some(format!("{} {what} {value}", node.title()));
            let found = match node.op.as_str() {
                // Still the image.
                "Identity" | "Cast" | "Transpose" | "Reshape" | "Flatten" | "Pad" | "Resize" | "Unsqueeze"
                | "Squeeze" | "Slice" | "Split" | "Concat" => {
                    from.extend(&node.outputs);
                    None
                }
                "Gather" if node.input(0) == Some(x) => {
                    from.extend(&node.outputs);
                    None
                }
                "Clip" => {
                    from.extend(&node.outputs);
                    let most = ir.known(node, 2).and_then(Constant::scalar).or_else(|| node.float("max"));
                    most.filter(|most| (UNIT..1e6).contains(most)).and_then(|most| told("clips at", most))
                }
                "Sub" if node.input(0) == Some(x) => largest(ir, node, 1, UNIT).and_then(|by| told("subtracts", by)),
                "Add" => beside(ir, node, x, UNIT).and_then(|by| told("adds", by)),
                "Div" if node.input(0) == Some(x) => largest(ir, node, 1, SCALE).and_then(|by| told("divides by", by)),
                "Mul" => {
                    let place = usize::from(node.input(0) == Some(x));
                    small(ir.known(node, place).and_then(Constant::as_floats).unwrap_or_default())
                        .and_then(|by| told("multiplies by", by))
                }
                "BatchNormalization" if node.input(0) == Some(x) => {
                    let mean = largest(ir, node, 3, UNIT).and_then(|mean| told("takes off a mean of", mean));
                    mean.or_else(|| small(&scales(ir, node)?).and_then(|by| told("multiplies by", by)))
                }
                // Of one channel and pixel each: a normalisation that is spelt as a convolution.
                "Conv" if node.input(0) == Some(x) && is_pointwise(ir, node) => {
                    small(ir.known(node, 1).and_then(Constant::as_floats).unwrap_or_default())
                        .and_then(|by| told("multiplies by", by))
                }
                _ => None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

/// The largest of factors, if it is so small that they bring bytes to a smaller range.
fn small(factors: &[f32]) -> Option<f32> {
    let most = factors.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    (most > 0.0 && most < 1.0 / SCALE).then_some(most)
}

/// What a batch norm multiplies each channel by.
fn scales(ir: &Ir, node: &Node) -> Option<Vec<f32>> {
    let values = |index| ir.known(node, index).and_then(Constant::as_floats);
    let eps = node.float("epsilon").unwrap_or(1e-5);
    Some(values(1)?.iter().zip(values(4)?).map(|(scale, var)| scale / (var + eps).sqrt()).collect())
}

/// Whether a convolution takes one pixel and channel at a time, or mixes no more than the channels of a pixel.
fn is_pointwise(ir: &Ir, node: &Node) -> bool {
    let Some(weights) = ir.known(node, 1) else { return false };
    let &[outputs, own, ref kernel @ ..] = weights.shape.as_slice() else { return false };
    let groups = usize::try_from(node.int("group").unwrap_or(1)).unwrap_or(1);
    kernel.iter().all(|&side| side == 1) && outputs == own * groups
}

/// The largest of a constant's absolute values, if it is above a bound.
fn largest(ir: &Ir, node: &Node, index: usize, above: f32) -> Option<f32> {
    let values = ir.known(node, index).and_then(Constant::as_floats)?;
    let most = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    (most > above && most.is_finite()).then_some(most)
}

/// The same of whichever input is not the image.
fn beside(ir: &Ir, node: &Node, x: Id, above: f32) -> Option<f32> {
    largest(ir, node, usize::from(node.input(0) == Some(x)), above)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::graph::ir::node;

    /// Steps that take, turn or cut channels stand in front of the one that tells.
    #[test]
    fn what_stands_before_the_first_step_does_not_hide_it() {
        for before in ["Gather", "Slice", "Split", "Concat", "Transpose", "Flatten"] {
            let mut ir = Ir { opset: 18, ..Ir::default() };
            let (image, turned, y) = (ir.add("image", None), ir.add("turned", None), ir.add("y", None));
            let by = ir.add_constant("by", Constant::floats(&[], vec![255.0]));
            (ir.input, ir.output) = (image, y);
            ir.nodes = vec![node(before, &[image], turned), node("Div", &[turned, by], y)];
            assert!(takes_bytes(&ir).is_some_and(|told| told.contains("divides by 255")), "{before}");
        }
    }

    /// Sixty splits that come together again have 2^60 ways through them.
    #[test]
    fn every_value_is_looked_at_once() {
        let mut ir = Ir { opset: 18, ..Ir::default() };
        let mut x = ir.add("image", None);
        ir.input = x;
        for _ in 0..60 {
            let [a, b, y] = ["a", "b", "y"].map(|name| ir.add(name, None));
            let mut split = node("Split", &[x], a);
            split.outputs.push(b);
            ir.nodes.extend([split, node("Concat", &[a, b], y)]);
            x = y;
        }
        ir.output = x;
        assert_eq!(takes_bytes(&ir), None);
    }

    #[test]
    fn a_normalisation_may_be_a_layer() {
        let told = |op: &str, shape: &[usize], values: &[f32], group: i64| {
            let mut ir = Ir { opset: 18, ..Ir::default() };
            let (image, y) = (ir.add("image", None), ir.add("y", None));
            let first = ir.add_constant("first", Constant::floats(shape, values.to_vec()));
            let zero = ir.add_constant("zero", Constant::floats(&[3], vec![0.0; 3]));
            let one = ir.add_constant("one", Constant::floats(&[3], vec![1.0; 3]));
            let mut layer = node(op, &[image, first, zero, zero, one], y);
            layer.set("group", crate::models::graph::ir::Attr::Int(group));
            (ir.input, ir.output, ir.nodes) = (image, y, vec![layer]);
            takes_bytes(&ir)
        };
        let small = [1.0 / 58.0; 9];
        assert!(told("BatchNormalization", &[3], &small[..3], 1).is_some());
        assert!(told("BatchNormalization", &[3], &[4.3; 3], 1).is_none());
        assert!(told("Conv", &[3, 1, 1, 1], &small[..3], 3).is_some());
        assert!(told("Conv", &[3, 3, 1, 1], &small, 1).is_some());
        // Small weights of a first layer of their own are nothing unusual.
        assert!(told("Conv", &[1, 1, 3, 3], &small, 1).is_none());
    }

    #[test]
    fn the_first_steps_of_a_graph_say_what_it_takes() {
        let found = |op: &str, values: &[f32], index: usize| {
            let mut ir = Ir { opset: 18, ..Ir::default() };
            let (image, cast) = (ir.add("image", None), ir.add("cast", None));
            ir.input = image;
            ir.nodes.push(node("Cast", &[image], cast));
            let constant = ir.add_constant("c", Constant::floats(&[values.len()], values.to_vec()));
            let to = ir.add("y", None);
            let mut inputs = vec![constant; index.max(1) + 1];
            inputs[if index == 0 { 1 } else { 0 }] = cast;
            ir.nodes.push(node(op, &inputs, to));
            ir.output = to;
            takes_bytes(&ir)
        };
        for (op, values, index, says) in [
            ("Sub", &[123.675, 116.28, 103.53][..], 1, Some("subtracts 123.675")),
            ("Add", &[-103.939, -116.779, -123.68], 0, Some("adds 123.68")),
            ("Div", &[255.0], 1, Some("divides by 255")),
            ("Div", &[127.5], 1, Some("divides by 127.5")),
            ("Mul", &[1.0 / 255.0], 1, Some("multiplies by 0.003")),
            ("BatchNormalization", &[120.0, 110.0], 3, Some("mean of 120")),
            ("Clip", &[255.0], 2, Some("clips at 255")),
            ("Clip", &[1.0], 2, None),
            ("Sub", &[0.485, 0.456, 0.406], 1, None),
            ("Div", &[0.229, 0.224, 0.225], 1, None),
            ("Mul", &[2.0], 1, None),
            ("Mul", &[255.0], 1, None),
        ] {
            let told = found(op, values, index);
            assert_eq!(told.is_some(), says.is_some(), "{op} {values:?}: {told:?}");
            assert!(told.unwrap_or_default().contains(says.unwrap_or_default()), "{op} {values:?}");
        }
    }
}
