//! `Where` by a condition that is known, as of masks that are filled in, is arithmetic: with c as 1 and 0, a c + b (1 - c). What is known of
//! a and b is chosen beforehand, and -infinity is added to what it hides, which is only right in front of a softmax (`masks.rs`).

use super::ir::{Constant, Dim, Id, Ir, Node};

/// The nodes that take a choice's place, or `None` where the condition is not known or everything is.
pub fn arithmetic(ir: &mut Ir, choice: &Node) -> Option<Vec<Node>> {
    if choice.op != "Where" {
        return None;
    }
    let condition = ir.known(choice, 0)?;
    let holds: Vec<bool> = condition.as_dims()?.iter().map(|d| *d != Dim::fixed(0)).collect();
    let shape = condition.shape.clone();
    let (a, b, out) = (choice.input(1)?, choice.input(2)?, *choice.outputs.first()?);
    if ir.constant(Some(a)).is_some() && ir.constant(Some(b)).is_some() {
        return None;
    }
    let mut nodes = Vec::new();
    let mut sum = Vec::new();
    for (from, when) in [(a, true), (b, false)] {
        let part = ir.add(format!("{}.{}", choice.name, if when { "chosen" } else { "else" }), None);
        let floats = |yes: f32, no: f32| holds.iter().map(|&is| if is == when { yes } else { no }).collect();
        match ir.constant(Some(from)).map(|constant| constant.as_floats().map(<[f32]>::to_vec)) {
            // Folded next.
            Some(Some(_)) => {
                let zero = ir.add_constant("zero", Constant::floats(&[], vec![0.0]));
                let (first, second) = if when { (from, zero) } else { (zero, from) };
                nodes.push(named(choice, "Where", &[choice.input(0)?, first, second], part));
                sum.push(part);
            }
            Some(None) => return None,
            None if hidden(ir, if when { b } else { a }) => sum.push(from),
            None => {
                let share = ir.add_constant("share", Constant::floats(&shape, floats(1.0, 0.0)));
                nodes.push(named(choice, "Mul", &[from, share], part));
                sum.push(part);
            }
        }
    }
    nodes.push(named(choice, "Add", &sum, out));
    Some(nodes)
}

/// Whether all of a constant is -infinity.
fn hidden(ir: &Ir, id: Id) -> bool {
    let values = ir.constant(Some(id)).and_then(Constant::as_floats);
    values.is_some_and(|values| values.iter().all(|&v| v == f32::NEG_INFINITY))
}

fn named(like: &Node, op: &str, inputs: &[Id], output: Id) -> Node {
    let inputs = inputs.iter().map(|&id| Some(id)).collect();
    Node { name: like.name.clone(), op: op.into(), inputs, outputs: vec![output], ..Node::default() }
}

#[cfg(test)]
mod tests {
    use super::super::ir::node;
    use super::*;

    /// `Where(condition, x, c)`, or with `turned` the other way round: the operators, and the constants among the inputs of the last.
    fn instead(c: f32, turned: bool) -> Vec<String> {
        let mut ir = Ir { opset: 18, ..Ir::default() };
        let (x, out) = (ir.add("x", None), ir.add("out", None));
        let truth = Constant::ints(&[2], vec![Dim::fixed(1), Dim::fixed(0)]);
        let condition = ir.add_constant("condition", truth);
        let c = ir.add_constant("c", Constant::floats(&[], vec![c]));
        let choice = node("Where", &if turned { [condition, c, x] } else { [condition, x, c] }, out);
        let nodes = arithmetic(&mut ir, &choice).unwrap();
        nodes.iter().map(|node| node.op.clone()).collect()
    }

    #[test]
    fn a_choice_is_a_sum_and_what_is_hidden_no_product() {
        assert_eq!(instead(2.0, false), ["Mul", "Where", "Add"]);
        assert_eq!(instead(2.0, true), ["Where", "Mul", "Add"]);
        // 0 times -infinity would be no number.
        assert_eq!(instead(f32::NEG_INFINITY, false), ["Where", "Add"]);
    }

    #[test]
    fn what_is_not_known_stays() {
        let mut ir = Ir { opset: 18, ..Ir::default() };
        let [x, condition, y, out] = ["x", "condition", "y", "out"].map(|name| ir.add(name, None));
        assert!(arithmetic(&mut ir, &node("Where", &[condition, x, y], out)).is_none());
        assert!(arithmetic(&mut ir, &node("Add", &[x, y], out)).is_none());
    }
}
