//! Drops what changes nothing, and spells alike what is alike.

use super::ir::{Attr, Dim, Ir, Node};
use super::operands::{pads, permutation, slices};

/// Runs the pass; the shapes have to be known.
pub fn run(ir: &mut Ir) {
    for at in 0..ir.nodes.len() {
        let mut node = std::mem::take(&mut ir.nodes[at]);
        spell(ir, &mut node);
        let same = node.input(0).filter(|_| does_nothing(ir, &node));
        if let (Some(from), Some(&to)) = (same, node.outputs.first()) {
            ir.replace(to, from);
        }
        ir.nodes[at] = node;
    }
    ir.prune();
}

/// Several operators for one thing become one.
fn spell(ir: &Ir, node: &mut Node) {
    match node.op.as_str() {
        "Flatten" | "Squeeze" | "Unsqueeze" => {
            node.op = "Reshape".into();
            node.inputs.truncate(1);
        }
        "GlobalAveragePool" | "GlobalMaxPool" => {
            node.op = if node.op == "GlobalMaxPool" { "ReduceMax" } else { "ReduceMean" }.into();
            node.set("axes", Attr::Ints(vec![2, 3]));
            node.set("keepdims", Attr::Int(1));
        }
        "Pow" => {
            if let Some(exponent) = ir.known(node, 1).and_then(|c| c.scalar()) {
                node.op = "Power".into();
                node.inputs.truncate(1);
                node.set("exponent", Attr::Float(exponent));
            }
        }
        "Sum" if node.inputs.len() == 2 => node.op = "Add".into(),
        // An Expand to what a binary operator would broadcast anyway still has to be done, but its shape is known by now.
        "Expand" => node.inputs.truncate(1),
        "Clip" => {
            let bound = |i: usize, key: &str| ir.known(node, i).and_then(|c| c.scalar()).or(node.float(key));
            let (low, high) = (bound(1, "min").unwrap_or(f32::NEG_INFINITY), bound(2, "max").unwrap_or(f32::INFINITY));
            let known = node.inputs[1..].iter().flatten().all(|&id| ir.constant(Some(id)).is_some());
            if !known {
                return;
            }
            node.inputs.truncate(1);
            node.set("min", Attr::Float(low));
            node.set("max", Attr::Float(high));
            if low == 0.0 && high == f32::INFINITY {
                node.op = "Relu".into();
            }
        }
        _ => {}
    }
}

fn does_nothing(ir: &Ir, node: &Node) -> bool {
    let Some(x) = node.input(0) else { return false };
    let (Some(from), Some(to)) = (ir.shape(x), node.outputs.first().and_then(|&id| ir.shape(id))) else { return false };
    match node.op.as_str() {
        "Identity" | "Dropout" => true,
        "Cast" => matches!(node.int("to"), Some(1 | 10 | 11 | 16)),
        "CastLike" => true,
        "Reshape" | "Expand" => from == to,
        "Transpose" => permutation(node, from.len()).is_ok_and(|perm| keeps_order(&perm, from) && from == to),
        "Pad" => {
            pads(ir, node, from.len()).is_ok_and(|p| p.is_some_and(|(a, b, _)| a.iter().chain(&b).all(|&p| p == 0)))
        }
        "Slice" => from == to && slices(ir, node, from).is_ok_and(|r| r.is_some_and(|r| r.iter().all(|r| r.step == 1))),
        "Concat" | "Sum" | "Mean" | "Max" | "Min" => node.inputs.len() == 1,
        "Clip" => node.float("min") == Some(f32::NEG_INFINITY) && node.float("max") == Some(f32::INFINITY),
        _ => false,
    }
}

/// Whether a permutation moves only axes of length 1.
fn keeps_order(perm: &[usize], shape: &[Dim]) -> bool {
    perm.iter().filter(|&&a| shape[a] != Dim::fixed(1)).is_sorted()
}
