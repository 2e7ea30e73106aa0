//! Masks of attention: -infinity that is added to scores, so that their softmax is 0, becomes a finite number that does the same. Ops take
//! finite constants only, and a row that is masked as a whole gives equal shares instead of NaN.

use super::ir::{Constant, Id, Ir, Node};

/// Far below any score, and finite in bfloat16.
const MASKED: f32 = -1e30;

/// Sums between a mask and its softmax.
const SUMS: u32 = 4;

/// Runs the pass; what is added to anything but scores stays.
///
/// # Errors
/// A mask that hides everything, where the graph says that such a row is 0.
pub fn run(ir: &mut Ir) -> Result<(), String> {
    for at in 0..ir.nodes.len() {
        let node = &ir.nodes[at];
        let masks = |input: &usize| ir.known(node, *input).is_some_and(is_mask);
        let masks: Vec<usize> = (0..node.inputs.len()).filter(masks).collect();
        if node.op != "Add" || masks.is_empty() || !node.outputs.iter().all(|&id| becomes_shares(ir, id, SUMS)) {
            continue;
        }
        for input in masks {
            let Some(mask) = ir.known(&ir.nodes[at], input) else { continue };
            let values = mask.as_floats().unwrap_or_default();
            let row = mask.shape.last().copied().unwrap_or(1).max(1);
            let hides_all = |row: &[f32]| row.iter().all(|&v| v == f32::NEG_INFINITY);
            if ir.guarded && row > 1 && values.chunks(row).any(hides_all) {
                let problem = "its mask hides every key of a query, whose shares are then 0 in this graph and equal here: expected one that leaves a key";
                return Err(format!("{}: {problem}", ir.nodes[at].title()));
            }
            let finite = values.iter().map(|&v| if v == f32::NEG_INFINITY { MASKED } else { v }).collect();
            let constant = Constant::floats(&mask.shape, finite);
            let finite = ir.add_constant(format!("{}.mask", ir.nodes[at].name), constant);
            ir.nodes[at].inputs[input] = Some(finite);
        }
    }
    Ok(())
}

/// Whether a value is read by softmax alone, if need be with more added to it before.
fn becomes_shares(ir: &Ir, id: Id, sums: u32) -> bool {
    let mut readers = ir.nodes.iter().filter(|node| node.inputs.contains(&Some(id))).peekable();
    let softmax = |node: &Node| match node.op.as_str() {
        "Softmax" => true,
        "Add" => sums > 0 && node.outputs.iter().all(|&sum| becomes_shares(ir, sum, sums - 1)),
        _ => false,
    };
    id != ir.output && readers.peek().is_some() && readers.all(softmax)
}

/// Numbers some of which are -infinity, and none another that is not finite.
fn is_mask(constant: &Constant) -> bool {
    let Some(values) = constant.as_floats() else { return false };
    values.contains(&f32::NEG_INFINITY) && values.iter().all(|v| v.is_finite() || *v == f32::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::super::ir::node;
    use super::*;

    /// `op(x + mask)` of two values.
    fn masked(op: &str, mask: [f32; 2]) -> Vec<f32> {
        let mut ir = Ir { opset: 18, ..Ir::default() };
        let (x, sum, out) = (ir.add("x", None), ir.add("sum", None), ir.add("out", None));
        let mask = ir.add_constant("mask", Constant::floats(&[2], mask.to_vec()));
        ir.nodes = vec![node("Add", &[x, mask], sum), node(op, &[sum], out)];
        (ir.input, ir.output) = (x, out);
        run(&mut ir).unwrap();
        ir.known(&ir.nodes[0], 1).and_then(Constant::as_floats).unwrap().to_vec()
    }

    #[test]
    fn a_row_that_is_hidden_is_refused_where_it_should_be_0() {
        let hidden = |guarded: bool| {
            let mut ir = Ir { opset: 18, guarded, ..Ir::default() };
            let (x, sum, out) = (ir.add("x", None), ir.add("sum", None), ir.add("out", None));
            let mask = ir
                .add_constant("mask", Constant::floats(&[2, 2], vec![0.0, 0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]));
            ir.nodes = vec![node("Add", &[x, mask], sum), node("Softmax", &[sum], out)];
            (ir.input, ir.output) = (x, out);
            run(&mut ir)
        };
        assert!(hidden(true).unwrap_err().contains("hides every key"));
        assert!(hidden(false).is_ok());
    }

    #[test]
    fn only_what_masks_scores_becomes_finite() {
        const INF: f32 = f32::INFINITY;
        assert_eq!(masked("Softmax", [-INF, 0.5]), [MASKED, 0.5]);
        assert_eq!(masked("Relu", [-INF, 0.5]), [-INF, 0.5]);
        assert_eq!(masked("Softmax", [-INF, INF]), [-INF, INF]);
        assert!(masked("Softmax", [-INF, f32::NAN])[1].is_nan());
    }
}
