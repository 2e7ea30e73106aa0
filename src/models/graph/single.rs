//! A file that takes one image may take its batch off: `y[0].softmax(0)`, `squeeze(0) * 2 + 1`. Where all that follows works on any number
//! of axes, or puts the batch back, the batch stays instead, and the graph is that of each image.

use std::collections::{HashSet, VecDeque};

use super::ir::{Attr, Constant, Dim, Id, Ir, Node, written};
use super::operands::{axes_of, axis};

/// How a node takes the batch off.
struct Off {
    /// Axes that are left.
    rank: usize,
    /// Axes beside the batch that it takes off.
    rest: Vec<i64>,
    /// Whether it names the batch; a Squeeze of whatever has length 1 may leave it as well.
    named: bool,
}

/// Turns a node that takes the batch off into one that leaves it, and those of `waiting` that follow, in order, with it.
///
/// # Errors
/// What goes on without the batch, in words.
pub fn keep(ir: &Ir, node: &mut Node, waiting: &mut VecDeque<Node>) -> Result<(), String> {
    let Some(Off { rank, rest, named }) = off(ir, node) else { return Ok(()) };
    match follow(ir, node.outputs[0], rank, waiting) {
        Ok(changes) => {
            changes.into_iter().for_each(|(at, changed)| waiting[at] = changed);
            node.inputs.truncate(1);
            if rest.is_empty() {
                node.op = "Identity".into();
            } else {
                node.set("axes", Attr::Ints(rest));
            }
            Ok(())
        }
        Err(reader) if named => {
            let shape = node.input(0).and_then(|id| ir.shape(id)).map(written).unwrap_or_default();
            Err(format!(
                "takes the batch off {shape}, the one image of the file, and {reader} goes on without it: expected it to stay in front"
            ))
        }
        Err(_) => Ok(()),
    }
}

fn off(ir: &Ir, node: &Node) -> Option<Off> {
    let x = ir.shape(node.input(0)?)?;
    if x.first() != Some(&Dim::BATCH) {
        return None;
    }
    match node.op.as_str() {
        "Squeeze" => {
            let said = axes_of(ir, node);
            let named = said.is_some();
            let ones = || (0..x.len() as i64).filter(|&a| a == 0 || x[a as usize] == Dim::fixed(1)).collect();
            let gone: Vec<usize> =
                said.unwrap_or_else(ones).iter().map(|&a| axis(a, x.len()).ok()).collect::<Option<_>>()?;
            let rest: Vec<i64> = gone.iter().filter(|&&a| a > 0).map(|&a| a as i64).collect();
            gone.contains(&0).then(|| Off { rank: x.len() - gone.len(), rest, named })
        }
        "Gather" => {
            let index = ir.known(node, 1).filter(|index| index.shape.is_empty())?.scalar()?;
            let first = axis(node.int("axis").unwrap_or(0), x.len()) == Ok(0) && (index == 0.0 || index == -1.0);
            first.then(|| Off { rank: x.len() - 1, rest: vec![], named: true })
        }
        _ => None,
    }
}

/// Nodes of `waiting` that have to be others so that all that follows `y`, of `rank` axes, is the same behind the batch.
fn follow(ir: &Ir, y: Id, rank: usize, waiting: &VecDeque<Node>) -> Result<Vec<(usize, Node)>, String> {
    let (mut without, mut changes) = (HashSet::from([y]), Vec::new());
    for (at, node) in waiting.iter().enumerate() {
        let read = |i: usize| node.input(i).is_some_and(|id| without.contains(&id));
        if !(0..node.inputs.len()).any(read) {
            continue;
        }
        let known = |i: usize| node.input(i).and_then(|id| constant(ir, waiting, id));
        let fits = |i: usize| read(i) || known(i).is_some_and(|c| c.shape.len() <= rank);
        let goes_on = match node.op.as_str() {
            "Identity" | "Cast" | "Relu" | "LeakyRelu" | "Elu" | "Selu" | "Gelu" | "Sigmoid" | "HardSigmoid"
            | "HardSwish" | "Softplus" | "Tanh" | "Neg" | "Abs" | "Exp" | "Log" | "Sqrt" | "Erf" | "Clip" => {
                read(0) && !(1..3).any(read)
            }
            "Add" | "Sub" | "Mul" | "Div" | "Pow" => fits(0) && fits(1),
            "MatMul" => read(0) && known(1).is_some_and(|weights| weights.shape.len() == 2),
            "Softmax" | "LogSoftmax" => {
                let axis = node.int("axis").unwrap_or(if ir.opset < 13 { 1 } else { -1 });
                let mut behind = node.clone();
                behind.set("axis", Attr::Int(if axis < 0 { axis } else { axis + 1 }));
                changes.push((at, behind));
                true
            }
            // The batch is back.
            "Unsqueeze" if read(0) => {
                let axes = node.ints("axes").map(<[i64]>::to_vec).or_else(|| known(1)?.as_ints());
                if !axes.is_some_and(|axes| axes == [0] || axes == [-(rank as i64) - 1]) {
                    return Err(node.title());
                }
                let inputs = node.inputs[..1].to_vec();
                changes.push((at, Node { op: "Identity".into(), inputs, ..node.clone() }));
                continue;
            }
            _ => false,
        };
        if !goes_on {
            return Err(node.title());
        }
        without.extend(&node.outputs);
    }
    Ok(changes)
}

/// What a value is, known already or by a node that is to come.
fn constant(ir: &Ir, waiting: &VecDeque<Node>, id: Id) -> Option<Constant> {
    if let Some(known) = ir.constant(Some(id)) {
        return Some(known.clone());
    }
    let maker = waiting.iter().find(|node| node.op == "Constant" && node.outputs.first() == Some(&id))?;
    match maker.attrs.iter().next()? {
        (_, Attr::Tensor(tensor)) => Some(tensor.clone()),
        (_, Attr::Float(value)) => Some(Constant::floats(&[], vec![*value])),
        (_, Attr::Floats(values)) => Some(Constant::floats(&[values.len()], values.clone())),
        (_, Attr::Int(value)) => Some(Constant::ints(&[], vec![Dim::fixed(*value)])),
        (_, Attr::Ints(values)) => Some(Constant::list(values)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ir::node;
    use super::super::{ending, shapes};
    use super::*;

    /// `build` makes the nodes from the images of 2x3x4 on and gives the output.
    fn shaped(build: impl FnOnce(&mut Ir, Id) -> Id) -> Result<(String, Vec<String>, Ir), String> {
        let mut ir = Ir { opset: 18, single: true, ..Ir::default() };
        ir.input = ir.add("x", None);
        let x = ir.input;
        ir.output = build(&mut ir, x);
        shapes::run(&mut ir, [2, 3, 4])?;
        let ops = ir.nodes.iter().map(|node| node.op.clone()).filter(|op| op != "Identity").collect();
        Ok((written(ir.shape(ir.output).unwrap()), ops, ir))
    }

    fn then(ir: &mut Ir, op: &str, inputs: &[Id]) -> Id {
        let y = ir.add(format!("{op} of {inputs:?}"), None);
        ir.nodes.push(node(op, inputs, y));
        y
    }

    fn list(ir: &mut Ir, values: &[i64]) -> Id {
        ir.add_constant("list", Constant::list(values))
    }

    fn number(ir: &mut Ir, value: f32) -> Id {
        // As exporters write it, in its place among the nodes.
        let y = ir.add("number", None);
        let mut made = node("Constant", &[], y);
        made.set("value", Attr::Tensor(Constant::floats(&[], vec![value])));
        ir.nodes.push(made);
        y
    }

    fn logits(ir: &mut Ir, x: Id) -> Id {
        let to = list(ir, &[1, 24]);
        then(ir, "Reshape", &[x, to])
    }

    fn squeezed(ir: &mut Ir, x: Id, axes: &[i64]) -> Id {
        let axes = list(ir, axes);
        then(ir, "Squeeze", &[x, axes])
    }

    #[test]
    fn logits_without_the_batch_are_those_of_each_image() {
        // y[0].softmax(0): the softmax is over the classes and is cut.
        let (shape, ops, mut ir) = shaped(|ir, x| {
            let (y, zero) = (logits(ir, x), ir.add_constant("0", Constant::ints(&[], vec![Dim::fixed(0)])));
            let y = then(ir, "Gather", &[y, zero]);
            let y = then(ir, "Softmax", &[y]);
            ir.nodes.last_mut().unwrap().set("axis", Attr::Int(0));
            y
        })
        .unwrap();
        assert_eq!((shape.as_str(), ops), ("[N, 24]", vec!["Reshape".to_owned(), "Softmax".to_owned()]));
        assert_eq!(ending::cut(&mut ir).as_deref(), Some("Softmax"));
        // y.squeeze(0) * 2 + 1
        let (shape, ops, _) = shaped(|ir, x| {
            let y = logits(ir, x);
            let y = squeezed(ir, y, &[0]);
            let two = number(ir, 2.0);
            let y = then(ir, "Mul", &[y, two]);
            let one = number(ir, 1.0);
            then(ir, "Add", &[y, one])
        })
        .unwrap();
        assert_eq!((shape.as_str(), ops.join(" ")), ("[N, 24]", "Reshape Mul Add".into()));
    }

    #[test]
    fn an_image_without_the_batch_gets_it_back() {
        let (shape, ops, _) = shaped(|ir, x| {
            let x = squeezed(ir, x, &[0]);
            let x = then(ir, "Relu", &[x]);
            let zero = list(ir, &[0]);
            let x = then(ir, "Unsqueeze", &[x, zero]);
            then(ir, "GlobalAveragePool", &[x])
        })
        .unwrap();
        assert_eq!((shape.as_str(), ops.join(" ")), ("[N, 2, 1, 1]", "Relu GlobalAveragePool".into()));
        // Of several axes of length 1 the others go.
        let (shape, ..) = shaped(|ir, x| {
            let x = then(ir, "GlobalAveragePool", &[x]);
            let y = squeezed(ir, x, &[0, 2, 3]);
            then(ir, "Relu", &[y])
        })
        .unwrap();
        assert_eq!(shape, "[N, 2]");
    }

    #[test]
    fn what_needs_other_axes_is_named() {
        let problem = shaped(|ir, x| {
            let x = squeezed(ir, x, &[0]);
            then(ir, "Transpose", &[x])
        })
        .unwrap_err();
        assert!(problem.contains("(Squeeze): takes the batch off [N, 2, 3, 4]"), "{problem}");
        assert!(problem.contains("(Transpose) goes on without it"), "{problem}");
    }
}
