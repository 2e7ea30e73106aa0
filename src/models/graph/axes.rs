//! Which axis of its input a graph takes for the channels, told from what it does with it: convolutions and pools go over the last two
//! axes, and one that wants the channels last turns its images before.

use super::ir::{Id, Ir};
use super::read::Model;
use crate::models::metadata::MOST_CHANNELS;

/// Where the channels stand among the axes behind that of the images.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChannelAxis {
    First,
    Last,
}

use ChannelAxis::{First, Last};

/// Where the input has its channels, and whether nothing told it: then the other would do as well.
pub fn told(model: &Model) -> (ChannelAxis, bool) {
    if model.flat {
        return (First, false);
    }
    if let Some(channels) = by_first_step(&model.ir, model.ir.input) {
        return (channels, false);
    }
    let (first, last) = match model.image[..] {
        [_, first, _, last] => (first, last),
        _ => (None, None),
    };
    let few = |side: Option<i64>| side.is_some_and(|n| (1..=MOST_CHANNELS as i64).contains(&n));
    match (first, last) {
        // Colours and grey are the rule.
        (_, Some(1 | 3)) if !matches!(first, Some(1 | 3)) => (Last, few(first)),
        (_, Some(2 | 4)) if !few(first) => (Last, false),
        _ => (First, few(last) && few(first)),
    }
}

/// The order that the first step over the axes of images shows, behind steps that leave every axis where it is.
fn by_first_step(ir: &Ir, input: Id) -> Option<ChannelAxis> {
    let mut images = vec![false; ir.values.len()];
    images[input] = true;
    for node in &ir.nodes {
        if !node.input(0).is_some_and(|id| images[id]) && !node.input(1).is_some_and(|id| images[id]) {
            continue;
        }
        match node.op.as_str() {
            "Conv"
            | "MaxPool"
            | "AveragePool"
            | "GlobalAveragePool"
            | "GlobalMaxPool"
            | "BatchNormalization"
            | "InstanceNormalization"
            | "GroupNormalization"
            | "LRN"
            | "DepthToSpace"
            | "SpaceToDepth" => {
                return Some(First);
            }
            "Transpose" => match node.ints("perm") {
                Some([0, 3, 1, 2]) => return Some(Last),
                Some([0, 2, 3, 1]) => return Some(First),
                _ => {}
            },
            "Identity" | "Cast" | "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Clip" | "Neg" | "Pad" | "Gather"
            | "Slice" | "Resize" | "Upsample" | "Relu" | "Sigmoid" | "Tanh" => {
                node.outputs.iter().for_each(|&id| images[id] = true);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::ir::{Attr, node};
    use super::*;

    fn model(image: [i64; 4], ops: &[(&str, &[i64])]) -> Model {
        let mut ir = Ir { opset: 18, ..Ir::default() };
        let mut at = ir.add("x", None);
        ir.input = at;
        for (op, perm) in ops {
            let next = ir.add(*op, None);
            let mut made = node(op, &[at], next);
            made.set("perm", Attr::Ints(perm.to_vec()));
            ir.nodes.push(made);
            at = next;
        }
        ir.output = at;
        let (metadata, others, data) = (std::collections::BTreeMap::new(), vec![], vec![]);
        let image = image.map(|n| Some(n).filter(|&n| n > 0)).to_vec();
        let (origin, producer) = ("x.onnx".into(), String::new());
        Model { origin, ir, metadata, producer, image, flat: false, others, data, bytes: 0 }
    }

    #[test]
    fn what_a_graph_does_first_tells_its_layout() {
        let of = |image, ops: &[(&str, &[i64])]| told(&model(image, ops));
        // Two channels of width 3, one of width 2 or 4, colours of three pixels: the first step tells.
        for image in
            [[1, 2, 8, 3], [0, 2, 9, 1], [1, 1, 8, 2], [0, 3, 3, 3], [0, 4, 8, 4], [0, 0, 0, 0], [0, 32, 32, 3]]
        {
            assert_eq!(of(image, &[("Sub", &[]), ("Conv", &[])]), (First, false), "{image:?}");
            assert_eq!(
                of(image, &[("Mul", &[]), ("Pad", &[]), ("Transpose", &[0, 3, 1, 2])]),
                (Last, false),
                "{image:?}"
            );
            assert_eq!(of(image, &[("Transpose", &[0, 2, 3, 1])]), (First, false), "{image:?}");
        }
        // Where nothing tells, the sides do; a few either way are a guess.
        let unseen: &[(&str, &[i64])] = &[("Reshape", &[]), ("Conv", &[])];
        for (image, expected) in [
            ([1, 2, 8, 3], (Last, true)),
            ([0, 2, 9, 1], (Last, true)),
            ([1, 1, 8, 2], (First, true)),
            ([0, 3, 3, 3], (First, true)),
            ([0, 4, 8, 4], (First, true)),
            ([0, 0, 8, 2], (Last, false)),
            ([0, 32, 32, 3], (Last, false)),
            ([0, 32, 32, 4], (Last, false)),
            ([0, 0, 0, 3], (Last, false)),
            ([0, 3, 32, 32], (First, false)),
            ([0, 1, 28, 28], (First, false)),
            ([0, 3, 0, 0], (First, false)),
            ([0, 0, 0, 0], (First, false)),
        ] {
            assert_eq!(of(image, unseen), expected, "{image:?}");
        }
    }
}
