//! Cuts what turns logits into probabilities off the end of a graph: attacks go by logits, and where a softmax or a sigmoid is saturated
//! it passes no gradient on. The classes keep their order, so that predictions stay what they are.

use super::ir::{Id, Ir, Node};
use super::operands::permutation;

/// What was taken off the end of a graph, in words; nothing where it ends in logits.
pub fn cut(ir: &mut Ir) -> Option<String> {
    let mut cut = Vec::new();
    while let Some((name, logits)) = found(ir) {
        cut.push(name);
        ir.output = logits;
        ir.prune();
    }
    // The last comes first.
    (!cut.is_empty()).then(|| cut.join(" after "))
}

/// The last squashing function, and what it squashes.
fn found(ir: &Ir) -> Option<(String, Id)> {
    let makers = ir.makers();
    let maker = |id: Id| makers[id].map(|at| &ir.nodes[at]);
    let mut at = ir.output;
    loop {
        let node = maker(at)?;
        if let Some(found) = squashes(ir, &maker, node) {
            return Some(found);
        }
        at = keeps_order(ir, &maker, node)?;
    }
}

type Maker<'m, 'i> = &'m dyn Fn(Id) -> Option<&'i Node>;

fn squashes<'i>(ir: &Ir, maker: Maker<'_, 'i>, node: &'i Node) -> Option<(String, Id)> {
    let x = node.input(0)?;
    match node.op.as_str() {
        "Softmax" | "LogSoftmax" => {
            let last = ir.shape(x)?.len().checked_sub(1)? as i64;
            let default = if ir.opset < 13 { 1 } else { -1 };
            let classes = ir.shape(x)?.last()?.n > 1;
            (classes && [last, -1].contains(&node.int("axis").unwrap_or(default))).then(|| (node.op.clone(), x))
        }
        // Of several classes each by itself: of one there is nothing to compare.
        // A hard sigmoid makes classes alike that the values before it tell apart.
        "Sigmoid" => (ir.shape(x)?.last()?.n > 1).then(|| (node.op.clone(), x)),
        "Div" => spelt(ir, maker, node).map(|logits| ("Softmax".into(), logits)),
        _ => None,
    }
}

/// The logits of `exp(z) / sum(exp(z))`, where `z` may be the logits less their maximum.
fn spelt<'i>(ir: &Ir, maker: Maker<'_, 'i>, node: &'i Node) -> Option<Id> {
    let (powers, sum) = (node.input(0)?, maker(node.input(1)?)?);
    let exp = maker(powers).filter(|node| node.op == "Exp")?;
    let rank = ir.shape(powers)?.len();
    let over_classes = |node: &Node| {
        let axes = node.ints("axes").map(<[i64]>::to_vec).or_else(|| ir.known(node, 1)?.as_ints());
        axes.is_some_and(|axes| matches!(axes[..], [axis] if axis == -1 || axis == rank as i64 - 1))
    };
    if sum.op != "ReduceSum" || sum.input(0) != Some(powers) || !over_classes(sum) {
        return None;
    }
    let z = exp.input(0)?;
    let less = maker(z).filter(|node| node.op == "Sub");
    let largest = |node: &&Node| {
        let most = node.input(1).and_then(maker);
        most.is_some_and(|most| most.op == "ReduceMax" && most.input(0) == node.input(0) && over_classes(most))
    };
    less.filter(largest).map_or(Some(z), |node| node.input(0))
}

/// What goes into a node that leaves the classes in their order.
fn keeps_order<'i>(ir: &Ir, maker: Maker<'_, 'i>, node: &'i Node) -> Option<Id> {
    let scalar = |index: usize| ir.known(node, index).and_then(|c| c.scalar());
    let x = node.input(0)?;
    match node.op.as_str() {
        "Identity" | "Dropout" | "Cast" | "CastLike" | "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => Some(x),
        "Log" | "Exp" | "Sqrt" => Some(x),
        // Around all probabilities but the last hair, so that no two classes become alike that could be the first.
        "Clip" => {
            let bound = |index: usize, key: &str, none: f32| scalar(index).or_else(|| node.float(key)).unwrap_or(none);
            (bound(1, "min", 0.0) <= 1e-2 && bound(2, "max", 1.0) >= 0.99).then_some(x)
        }
        "Mul" if scalar(1).is_some_and(|by| by > 0.0) => Some(x),
        "Mul" if scalar(0).is_some_and(|by| by > 0.0) => node.input(1),
        "Div" if scalar(1).is_some_and(|by| by > 0.0) => Some(x),
        "Pow" if scalar(1).is_some_and(|to| to > 0.0) => Some(x),
        "Add" | "Sub" if scalar(1).is_some() => Some(x),
        "Add" if scalar(0).is_some() => node.input(1),
        "Transpose" => {
            let rank = ir.shape(x)?.len();
            let here = permutation(node, rank).ok()?;
            if here.iter().copied().eq(0..rank) {
                return Some(x);
            }
            let before = maker(x).filter(|node| node.op == "Transpose")?;
            let there = permutation(before, rank).ok()?;
            here.iter().map(|&axis| there[axis]).eq(0..rank).then(|| before.input(0))?
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::graph::ir::{Attr, Constant, Dim, node};

    /// Logits are value 0 of shape (N, 5); each further node takes the value before it, and what `with` gives.
    fn graph(build: impl FnOnce(&mut Ir)) -> Ir {
        let mut ir = Ir { opset: 18, ..Ir::default() };
        let shape = || Some(vec![Dim::BATCH, Dim::fixed(5)]);
        let image = ir.add("image", shape());
        let logits = ir.add("logits", shape());
        ir.nodes.push(node("Conv", &[image], logits));
        (ir.input, ir.output) = (image, logits);
        build(&mut ir);
        ir
    }

    fn then(ir: &mut Ir, op: &str, constant: Option<f32>) {
        let to = ir.add(op, Some(vec![Dim::BATCH, Dim::fixed(5)]));
        let mut inputs = vec![ir.output];
        inputs.extend(constant.map(|c| ir.add_constant("c", Constant::floats(&[], vec![c]))));
        ir.nodes.push(node(op, &inputs, to));
        ir.output = to;
    }

    #[test]
    fn what_squashes_logits_is_cut_from_under_what_keeps_their_order() {
        for (ops, cut) in [
            (&[("Softmax", None)][..], Some("Softmax")),
            (&[("Sigmoid", None)], Some("Sigmoid")),
            (&[("LogSoftmax", None), ("Exp", None)], Some("LogSoftmax")),
            (&[("Softmax", None), ("Clip", None), ("Identity", None), ("Mul", Some(10.0))], Some("Softmax")),
            (&[("Softmax", None), ("Add", Some(1e-7)), ("Log", None)], Some("Softmax")),
            (&[("Sigmoid", None), ("Softmax", None)], Some("Softmax after Sigmoid")),
            (&[("Mul", Some(2.0))], None),
            (&[("Clip", None)], None),
            // Values beyond its bounds are one class's as much as another's.
            (&[("HardSigmoid", None)], None),
            // Turned over, and squashed in the middle of the network.
            (&[("Softmax", None), ("Mul", Some(-1.0))], None),
            (&[("Sigmoid", None), ("Gemm", None)], None),
        ] {
            let mut ir = graph(|ir| ops.iter().for_each(|(op, constant)| then(ir, op, *constant)));
            let before = ir.output;
            assert_eq!(super::cut(&mut ir).as_deref(), cut, "{ops:?}");
            assert_eq!(ir.output, if cut.is_some() { 1 } else { before }, "{ops:?}");
        }
    }

    #[test]
    fn a_softmax_that_is_spelt_out_is_one() {
        for shifted in [false, true] {
            for axis in [-1, 1, 0] {
                let mut ir = graph(|ir| {
                    let value = |ir: &mut Ir, n| ir.add("v", Some(vec![Dim::BATCH, Dim::fixed(n)]));
                    let reduce = |op: &str, from, to| {
                        let mut reduced = node(op, &[from], to);
                        reduced.set("axes", Attr::Ints(vec![axis]));
                        reduced
                    };
                    let (mut z, most) = (ir.output, value(ir, 1));
                    if shifted {
                        ir.nodes.push(reduce("ReduceMax", z, most));
                        let less = value(ir, 5);
                        ir.nodes.push(node("Sub", &[z, most], less));
                        z = less;
                    }
                    let (exp, sum, y) = (value(ir, 5), value(ir, 1), value(ir, 5));
                    ir.nodes.extend([
                        node("Exp", &[z], exp),
                        reduce("ReduceSum", exp, sum),
                        node("Div", &[exp, sum], y),
                    ]);
                    ir.output = y;
                });
                let expected = (axis != 0).then_some("Softmax");
                assert_eq!(super::cut(&mut ir).as_deref(), expected, "{shifted} {axis}");
                assert!(axis == 0 || ir.output == 1, "{shifted} {axis}");
            }
        }
    }

    #[test]
    fn transposes_that_cancel_are_none() {
        let mut ir = graph(|ir| {
            then(ir, "Softmax", None);
            then(ir, "Transpose", None);
            then(ir, "Transpose", None);
        });
        assert_eq!(super::cut(&mut ir).as_deref(), Some("Softmax"));
        let mut turned = graph(|ir| {
            then(ir, "Softmax", None);
            then(ir, "Transpose", None);
        });
        assert_eq!(super::cut(&mut turned), None);
    }
}
