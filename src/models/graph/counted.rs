//! Integers that count images: `Range` over the batch times a stride, which some exporters read images by. A Gather whose indices for
//! image `n` are `n` times the length of an image in one long axis, plus what is known, takes from each image alone.

use super::ir::{Attr, Constant, Counted, Dim, Id, Ir, Node};
use super::operands::{axes_of, axis};

/// What a node that only counts images computes; `None` for any other.
///
/// # Errors
/// What is wrong, in words without the node.
pub fn evaluate(ir: &Ir, node: &Node) -> Result<Option<Counted>, String> {
    let counted = |i: usize| node.input(i).and_then(|id| ir.values[id].counted.as_ref());
    let ints = |i: usize| ir.known(node, i).and_then(Constant::as_ints);
    if node.op == "Range" {
        let end = ir.known(node, 1).and_then(Constant::as_dims);
        let whole = ints(0).as_deref() == Some(&[0]) && ints(2).as_deref() == Some(&[1]) && end == Some(&[Dim::BATCH]);
        return Ok(whole.then(|| Counted { stride: 1, base: Constant::ints(&[1], vec![Dim::fixed(0)]) }));
    }
    let (Some(x), known) = (match (counted(0), counted(1)) {
        (Some(x), None) => (Some(x), 1),
        (None, Some(x)) => (Some(x), 0),
        _ => (None, 0),
    }) else {
        return Ok(None);
    };
    let values = |of: &dyn Fn(i64) -> Option<i64>| -> Result<Vec<Dim>, String> {
        let own = x.base.as_ints().unwrap_or_default();
        own.into_iter()
            .map(|v| of(v).map(Dim::fixed).ok_or_else(|| "a number of an image is too large".to_owned()))
            .collect()
    };
    Ok(Some(match node.op.as_str() {
        "Cast" if matches!(node.int("to"), Some(6 | 7)) => x.clone(),
        "Identity" => x.clone(),
        "Mul" => {
            let Some(&[by]) = ints(known).as_deref() else { return Ok(None) };
            let stride = x.stride.checked_mul(by).ok_or("a number of an image is too large")?;
            Counted { stride, base: Constant::ints(&x.base.shape, values(&|v| v.checked_mul(by))?) }
        }
        "Add" => {
            let Some(other) = ir.known(node, known).filter(|c| c.as_ints().is_some()) else { return Ok(None) };
            // One that is as long as the batch would be another for each image.
            let rank = x.base.shape.len();
            if other.shape.len() > rank || other.shape.len() == rank && other.shape.first() != Some(&1) {
                return Ok(None);
            }
            match super::fold::sum(&x.base, other)? {
                Some(base) => Counted { stride: x.stride, base },
                None => return Ok(None),
            }
        }
        "Unsqueeze" if known == 1 => {
            let added = axes_of(ir, node).unwrap_or_default();
            let rank = x.base.shape.len() + added.len();
            let mut at: Vec<usize> = added.iter().map(|&a| axis(a, rank)).collect::<Result<_, _>>()?;
            at.sort_unstable();
            if at.first() == Some(&0) {
                return Ok(None);
            }
            let mut shape = x.base.shape.clone();
            at.into_iter().for_each(|a| shape.insert(a.min(shape.len()), 1));
            Counted { stride: x.stride, base: Constant { shape, data: x.base.data.clone() } }
        }
        _ => return Ok(None),
    }))
}

/// The nodes in place of a Gather by such indices.
///
/// # Errors
/// When it would read from other images.
pub fn gather(ir: &mut Ir, node: &Node) -> Result<Option<[Node; 2]>, String> {
    let Some(counted) = node.input(1).filter(|_| node.op == "Gather").and_then(|id| ir.values[id].counted.clone())
    else {
        return Ok(None);
    };
    let data = node.input(0).ok_or("expected an input 0")?;
    let shape = ir.shape(data).ok_or("the shape of its input 0 is not known")?.to_vec();
    let at = axis(node.int("axis").unwrap_or(0), shape.len())?;
    let Dim { n: length, batch, outer } = shape[at];
    let inside = counted.base.as_ints().is_some_and(|all| all.iter().all(|v| (0..length).contains(v)));
    if at != 0 || !batch || outer != 1 || counted.stride != length || !inside {
        return Err(format!(
            "takes by the number of the image, {} values each from {length} of an image: images would be mixed",
            counted.stride
        ));
    }
    let mut split = vec![Dim::BATCH, Dim::fixed(length)];
    split.extend(&shape[1..]);
    let rank = split.len();
    let name = &ir.values[data].name;
    let named = format!("{name} by image");
    let target = ir.add_constant(format!("{named}, shape"), Constant::ints(&[rank], split));
    let parts: Id = ir.add(named, None);
    let base = Constant { shape: counted.base.shape[1..].to_vec(), data: counted.base.data.clone() };
    let indices = ir.add_constant(format!("{}, indices", node.name), base);
    let reshape = Node {
        name: node.name.clone(),
        op: "Reshape".into(),
        inputs: vec![Some(data), Some(target)],
        outputs: vec![parts],
        ..Node::default()
    };
    let mut gather = Node { inputs: vec![Some(parts), Some(indices)], ..node.clone() };
    gather.set("axis", Attr::Int(1));
    Ok(Some([reshape, gather]))
}

#[cfg(test)]
mod tests {
    use super::super::ir::node;
    use super::super::shapes;
    use super::*;

    /// `Gather(Reshape(x, [-1]), Range(N) * stride + base)` of images of 2x1x3.
    fn graph(stride: i64, base: &[i64]) -> Ir {
        let mut ir = Ir { opset: 18, ..Ir::default() };
        let x = ir.add("x", None);
        let one = |ir: &mut Ir, v: i64| ir.add_constant(format!("{v}"), Constant::ints(&[], vec![Dim::fixed(v)]));
        let (zero, step, times) = (one(&mut ir, 0), one(&mut ir, 1), one(&mut ir, stride));
        let flat = ir.add_constant("flat", Constant::list(&[-1]));
        let axes = ir.add_constant("axes", Constant::list(&[1]));
        let columns: Vec<Dim> = base.iter().map(|&v| Dim::fixed(v)).collect();
        let columns = ir.add_constant("columns", Constant::ints(&[1, base.len()], columns));
        let ids: Vec<Id> = (0..8).map(|i| ir.add(format!("v{i}"), None)).collect();
        let mut shape = node("Shape", &[x], ids[0]);
        shape.set("end", Attr::Int(1));
        ir.nodes = vec![
            shape,
            node("Squeeze", &[ids[0]], ids[1]),
            node("Range", &[zero, ids[1], step], ids[2]),
            node("Mul", &[ids[2], times], ids[3]),
            node("Unsqueeze", &[ids[3], axes], ids[4]),
            node("Add", &[ids[4], columns], ids[5]),
            node("Reshape", &[x, flat], ids[6]),
            node("Gather", &[ids[6], ids[5]], ids[7]),
        ];
        (ir.input, ir.output) = (x, ids[7]);
        ir
    }

    #[test]
    fn indices_by_image_take_from_each_image() {
        let mut ir = graph(6, &[0, 5, 2]);
        shapes::run(&mut ir, [2, 1, 3]).unwrap();
        assert_eq!(ir.shape(ir.output).unwrap(), [Dim::BATCH, Dim::fixed(3)]);
        let ops: Vec<&str> = ir.nodes.iter().map(|node| node.op.as_str()).collect();
        assert_eq!(ops, ["Reshape", "Reshape", "Gather"]);
        assert_eq!(ir.known(&ir.nodes[2], 1).unwrap().as_ints().unwrap(), [0, 5, 2]);
    }

    #[test]
    fn what_reads_from_other_images_is_refused() {
        for (stride, base) in [(5, [0, 1]), (6, [0, 6]), (6, [-1, 0]), (0, [0, 1])] {
            let error = shapes::run(&mut graph(stride, &base), [2, 1, 3]).unwrap_err();
            assert!(error.contains("images would be mixed"), "{error}");
        }
    }
}
