//! Choices between two values of one number by how large it is, as exporters spell out some activations: `Where(x > c, x, y)`. Taken back
//! before shapes are inferred, since a condition by itself is nothing that a gradient goes through.
//!
//! A softmax that would be NaN where a mask hides everything, and is 0 there instead, is a softmax where none does (`masks.rs` looks).
//!
//! Understood are the softplus that is left alone where it equals its argument, ReLU and leaky ReLU, and a lower bound.

use super::ir::{Attr, Constant, Id, Ir, Node};

/// From here on log(1 + exp(x)) is x in float32: the difference, exp(-x), is less than half of the last digit.
const SATURATED: f32 = 17.0;

/// Runs the pass; what is not understood stays.
pub fn run(ir: &mut Ir) {
    let makers = ir.makers();
    let found: Vec<(usize, Node)> = (0..ir.nodes.len())
        .filter_map(|at| Some((at, Guarded { ir, makers: &makers }.instead(&ir.nodes[at])?)))
        .collect();
    let any = !found.is_empty();
    for (at, node) in found {
        // No node has moved, and a softmax is none that is replaced.
        ir.guarded |= node.op == "Identity"
            && node.input(0).and_then(|x| makers[x]).is_some_and(|at| ir.nodes[at].op == "Softmax");
        let old = &ir.nodes[at];
        ir.nodes[at] = Node { name: old.name.clone(), outputs: old.outputs.clone(), ..node };
    }
    if any {
        ir.prune();
    }
}

struct Guarded<'a> {
    ir: &'a Ir,
    makers: &'a [Option<usize>],
}

impl Guarded<'_> {
    fn made(&self, id: Option<Id>, op: &str) -> Option<&Node> {
        self.ir.nodes.get(self.makers[id?]?).filter(|node| node.op == op)
    }

    fn scalar(&self, id: Option<Id>) -> Option<f32> {
        // Of whole numbers it is arithmetic of shapes, which is folded.
        self.ir.constant(id).filter(|c| c.as_floats().is_some()).and_then(Constant::scalar)
    }

    /// Of a condition the number that is compared, with what, and whether it holds above that.
    fn compared(&self, id: Option<Id>) -> Option<(Id, f32, bool)> {
        let node = self.ir.nodes.get(self.makers[id?]?)?;
        let above = match node.op.as_str() {
            "Greater" | "GreaterOrEqual" => true,
            "Less" | "LessOrEqual" => false,
            _ => return None,
        };
        match (self.scalar(node.input(0)), self.scalar(node.input(1))) {
            (None, Some(c)) => Some((node.input(0)?, c, above)),
            (Some(c), None) => Some((node.input(1)?, c, !above)),
            _ => None,
        }
    }

    /// A product with one number: the other factor and that number.
    fn scaled(&self, id: Option<Id>) -> Option<(Id, f32)> {
        if let Some(node) = self.made(id, "Mul") {
            return match (self.scalar(node.input(0)), self.scalar(node.input(1))) {
                (None, Some(by)) => Some((node.input(0)?, by)),
                (Some(by), None) => Some((node.input(1)?, by)),
                _ => None,
            };
        }
        let node = self.made(id, "Div")?;
        Some((node.input(0)?, 1.0 / self.scalar(node.input(1))?))
    }

    fn instead(&self, node: &Node) -> Option<Node> {
        match node.op.as_str() {
            "Where" => self.shares(node).or_else(|| self.chosen(node)),
            "Mul" => self.gated(node),
            _ => None,
        }
    }

    /// `Where(IsNaN(y), 0, y)` of a softmax y.
    fn shares(&self, node: &Node) -> Option<Node> {
        let y = node.input(2)?;
        let zero = match self.made(node.input(1), "Constant").map(|node| node.attrs.get("value")) {
            Some(Some(Attr::Tensor(value))) => value.scalar(),
            _ => self.scalar(node.input(1)),
        };
        let guarded = self.made(node.input(0), "IsNaN")?.input(0) == Some(y) && zero == Some(0.0);
        (guarded && self.made(Some(y), "Softmax").is_some()).then(|| made("Identity", vec![Some(y)]))
    }

    fn chosen(&self, node: &Node) -> Option<Node> {
        let (x, c, is_above) = self.compared(node.input(0))?;
        let (above, below) = if is_above { (node.input(1)?, node.input(2)?) } else { (node.input(2)?, node.input(1)?) };
        if c >= SATURATED && self.is_softplus(below, x, above) {
            return Some(made("Identity", vec![Some(below)]));
        }
        if above != x {
            return None;
        }
        if self.scalar(Some(below)) == Some(c) {
            return Some(if c == 0.0 { made("Relu", vec![Some(x)]) } else { made("Max", vec![Some(x), Some(below)]) });
        }
        match self.scaled(Some(below)) {
            Some((of, slope)) if of == x && c == 0.0 => {
                let mut leaky = made("LeakyRelu", vec![Some(x)]);
                leaky.set("alpha", Attr::Float(slope));
                Some(leaky)
            }
            _ => None,
        }
    }

    /// Whether `y` is the softplus of `x`, above which `above` is chosen: x itself, or of a softplus with a slope x over that.
    fn is_softplus(&self, y: Id, x: Id, above: Id) -> bool {
        let is = |y: Id| self.made(Some(y), "Softplus").is_some_and(|node| node.input(0) == Some(x));
        if is(y) {
            return above == x;
        }
        match (self.scaled(Some(y)), self.scaled(Some(x))) {
            (Some((inner, by)), Some((own, slope))) => is(inner) && own == above && (by * slope - 1.0).abs() < 1e-6,
            _ => false,
        }
    }

    /// x * (x > 0) is a ReLU.
    fn gated(&self, node: &Node) -> Option<Node> {
        let pair = |x: usize, gate: usize| {
            let x = node.input(x)?;
            let cast = self.made(node.input(gate), "Cast").or_else(|| self.made(node.input(gate), "CastLike"))?;
            let (of, c, above) = self.compared(cast.input(0))?;
            (of == x && c == 0.0 && above).then(|| made("Relu", vec![Some(x)]))
        };
        pair(0, 1).or_else(|| pair(1, 0))
    }
}

fn made(op: &str, inputs: Vec<Option<Id>>) -> Node {
    Node { op: op.into(), inputs, ..Node::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::graph::ir::node;

    /// A graph whose image is value 0, with constants and nodes as built; the operators that are left.
    fn left(build: impl FnOnce(&mut Ir) -> Id) -> Vec<String> {
        let mut ir = Ir { opset: 18, ..Ir::default() };
        ir.input = ir.add("x", None);
        ir.output = build(&mut ir);
        run(&mut ir);
        ir.nodes.iter().map(|node| node.op.clone()).collect()
    }

    fn put(ir: &mut Ir, op: &str, inputs: &[Id]) -> Id {
        let y = ir.add(op, None);
        ir.nodes.push(node(op, inputs, y));
        y
    }

    fn number(ir: &mut Ir, value: f32) -> Id {
        ir.add_constant("c", Constant::floats(&[], vec![value]))
    }

    #[test]
    fn a_guarded_softplus_is_a_softplus() {
        let guarded = |threshold: f32| {
            left(|ir| {
                let (x, c) = (ir.input, number(ir, threshold));
                let (soft, above) = (put(ir, "Softplus", &[x]), put(ir, "Greater", &[x, c]));
                put(ir, "Where", &[above, x, soft])
            })
        };
        assert_eq!(guarded(20.0), ["Softplus", "Identity"]);
        // Below that the two differ.
        assert_eq!(guarded(5.0), ["Softplus", "Greater", "Where"]);
        let sloped = |by: f32| {
            left(|ir| {
                let (x, slope, c, by) = (ir.input, number(ir, 4.0), number(ir, 20.0), number(ir, by));
                let u = put(ir, "Mul", &[x, slope]);
                let soft = put(ir, "Softplus", &[u]);
                let (y, below) = (put(ir, "Div", &[soft, by]), put(ir, "Less", &[u, c]));
                put(ir, "Where", &[below, y, x])
            })
        };
        assert_eq!(sloped(4.0), ["Mul", "Softplus", "Div", "Identity"]);
        assert_eq!(sloped(3.0).last().unwrap(), "Where");
    }

    #[test]
    fn a_softmax_that_is_0_for_nan_is_a_softmax() {
        let guarded = |other: f32, of_constant: bool| {
            left(|ir| {
                let (x, zero) = (ir.input, number(ir, other));
                let y = put(ir, "Softmax", &[x]);
                let zero = if of_constant {
                    let made = put(ir, "Constant", &[]);
                    let value = Attr::Tensor(Constant::floats(&[], vec![other]));
                    ir.nodes.last_mut().unwrap().set("value", value);
                    made
                } else {
                    zero
                };
                let is = put(ir, "IsNaN", &[y]);
                put(ir, "Where", &[is, zero, y])
            })
        };
        assert_eq!(guarded(0.0, false), ["Softmax", "Identity"]);
        assert_eq!(guarded(0.0, true), ["Softmax", "Identity"]);
        assert_eq!(guarded(1.0, false), ["Softmax", "IsNaN", "Where"]);
    }

    #[test]
    fn what_is_chosen_by_sign_is_a_relu() {
        let of = |c: f32, below: &dyn Fn(&mut Ir, Id) -> Id| {
            left(|ir| {
                let (x, c) = (ir.input, number(ir, c));
                let above = put(ir, "Less", &[c, x]);
                let below = below(ir, x);
                put(ir, "Where", &[above, x, below])
            })
        };
        assert_eq!(of(0.0, &|ir, _| number(ir, 0.0)), ["Relu"]);
        assert_eq!(of(0.5, &|ir, _| number(ir, 0.5)), ["Max"]);
        let leaky = |ir: &mut Ir, x: Id| {
            let slope = number(ir, 0.1);
            put(ir, "Mul", &[slope, x])
        };
        assert_eq!(of(0.0, &leaky), ["LeakyRelu"]);
        // A hard shrink jumps.
        assert_eq!(of(0.5, &|ir, _| number(ir, 0.0)).last().unwrap(), "Where");
        let gated = left(|ir| {
            let (x, c) = (ir.input, number(ir, 0.0));
            let above = put(ir, "Greater", &[x, c]);
            let gate = put(ir, "Cast", &[above]);
            put(ir, "Mul", &[gate, x])
        });
        assert_eq!(gated, ["Relu"]);
    }
}
