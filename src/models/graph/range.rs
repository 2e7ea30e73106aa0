//! Whether a graph takes bytes: one that begins by bringing pixels of 0 to 255 to a smaller range takes those of 0 to 1 for black.

use super::ir::{Constant, Id, Ir, Node};

/// Means of pixels in [0, 1] lie below this.
const UNIT: f32 = 1.5;
/// A divisor of pixels in [0, 1] lies below this: deviations are less than 1, and 255 and 127.5 are what bytes are divided by.
const SCALE: f32 = 16.0;

/// The first node that says so, and by what.
pub fn takes_bytes(ir: &Ir) -> Option<String> {
    let mut from = vec![ir.input];
    while let Some(x) = from.pop() {
        for node in ir.nodes.iter().filter(|node| node.inputs.contains(&Some(x))) {
            let told = |what: &str, value: f32| Some(format!("{} {what} {value}", node.title()));
            let found = match node.op.as_str() {
                // Still the image.
                "Identity" | "Cast" | "Transpose" | "Reshape" | "Pad" | "Resize" | "Unsqueeze" | "Squeeze" => {
                    from.extend(&node.outputs);
                    None
                }
                "Sub" if node.input(0) == Some(x) => largest(ir, node, 1, UNIT).and_then(|by| told("subtracts", by)),
                "Add" => beside(ir, node, x, UNIT).and_then(|by| told("adds", by)),
                "Div" if node.input(0) == Some(x) => largest(ir, node, 1, SCALE).and_then(|by| told("divides by", by)),
                "Mul" => {
                    let place = usize::from(node.input(0) == Some(x));
                    let values = ir.known(node, place).and_then(Constant::as_floats).unwrap_or_default();
                    let most = values.iter().fold(0.0f32, |most, v| most.max(v.abs()));
                    (most > 0.0 && most < 1.0 / SCALE).then_some(most).and_then(|by| told("multiplies by", by))
                }
                "BatchNormalization" if node.input(0) == Some(x) => {
                    largest(ir, node, 3, UNIT).and_then(|mean| told("takes off a mean of", mean))
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
