//! Joins what belongs together: batch norms and scales into the weights before them, activations and residuals into convolutions, and
//! what exporters spell out (SiLU, GELU, hard-swish, layer norm, attention) into one node.
//!
//! Nodes of our own that result: `Affine` (attributes `scale`, `bias`, `axis`), `Attention` (q, k, v, bias?; `scale`), and the
//! attributes `act` of Conv, Gemm and Affine and an input `residual` (number 3) of Conv.

use std::sync::Arc;

use super::ir::{Attr, Constant, Data, Dim, Id, Ir, Node};
use super::operands::{axes_of, axis, pads};

type Rule = fn(&Ir, &Seen, usize) -> Option<Rewrite>;

/// In this order, each until it finds nothing more.
const RULES: [Rule; 16] = [
    padding,
    silu,
    gelu,
    gelu_tanh,
    hard_swish_spelt,
    hard_swish,
    layer_norm,
    attention,
    batch_norm,
    group_norm,
    affine,
    affine_pair,
    affine_into_norm,
    affine_into_weights,
    residual,
    activation,
];

/// Who makes and who reads the values.
pub struct Seen {
    makers: Vec<Option<usize>>,
    uses: Vec<usize>,
}

/// What becomes of the node that a rule was asked about: another one, which the nodes that only it read are dropped with.
pub struct Rewrite {
    node: Node,
    /// Constants that its inputs refer to beyond the values there are.
    constants: Vec<Constant>,
}

/// Runs the pass; shapes have to be known.
pub fn run(ir: &mut Ir) {
    for rule in RULES {
        let mut seen = Seen { makers: ir.makers(), uses: ir.uses() };
        let mut at = 0;
        while at < ir.nodes.len() {
            let Some(Rewrite { mut node, constants }) = rule(ir, &seen, at) else {
                at += 1;
                continue;
            };
            let first = ir.values.len();
            for constant in constants {
                ir.add_constant(format!("{}.{}", node.name, ir.values.len() - first), constant);
            }
            node.outputs = ir.nodes[at].outputs.clone();
            ir.nodes[at] = node;
            let before = ir.nodes.len();
            ir.prune();
            at = (at + ir.nodes.len()).saturating_sub(before);
            seen = Seen { makers: ir.makers(), uses: ir.uses() };
        }
    }
}

impl Seen {
    /// The node that makes a value, if it is of this kind.
    fn made<'a>(&self, ir: &'a Ir, id: Option<Id>, op: &str) -> Option<&'a Node> {
        ir.nodes.get(self.makers[id?]?).filter(|node| node.op == op)
    }

    /// The same if nobody else reads the value.
    fn only<'a>(&self, ir: &'a Ir, id: Option<Id>, op: &str) -> Option<&'a Node> {
        self.made(ir, id, op).filter(|_| self.uses[id.unwrap_or_default()] == 1)
    }
}

/// The operand of a binary node that is no constant, and the only value of the other.
fn with_scalar(ir: &Ir, node: &Node) -> Option<(Id, f32)> {
    let scalar = |i: usize| ir.known(node, i).and_then(Constant::scalar);
    match (node.input(0)?, node.input(1)?) {
        (x, _) if scalar(1).is_some() && ir.known(node, 0).is_none() => Some((x, scalar(1)?)),
        (_, x) if scalar(0).is_some() && ir.known(node, 1).is_none() => Some((x, scalar(0)?)),
        _ => None,
    }
}

fn close(a: f32, b: f64) -> bool {
    (f64::from(a) - b).abs() <= 1e-4 * b.abs()
}

/// A node in the place of another.
fn instead(old: &Node, op: &str, inputs: Vec<Option<Id>>) -> Node {
    Node { name: old.name.clone(), op: op.into(), inputs, ..Node::default() }
}

fn rewritten(node: Node) -> Option<Rewrite> {
    Some(Rewrite { node, constants: vec![] })
}

/// x * sigmoid(x)
fn silu(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    if node.op != "Mul" {
        return None;
    }
    let pair = |x: usize, s: usize| {
        let sigmoid = seen.made(ir, node.input(s), "Sigmoid")?;
        (sigmoid.input(0) == node.input(x)).then_some(node.input(x)?)
    };
    let x = pair(0, 1).or_else(|| pair(1, 0))?;
    rewritten(instead(node, "Swish", vec![Some(x)]))
}

/// x/2 * (1 + erf(x / sqrt 2)), in every order of its factors.
fn gelu(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    let x = halved_product(ir, node, seen, &|id| {
        let one = seen.made(ir, Some(id), "Add")?;
        let (inner, 1.0) = with_scalar(ir, one)? else { return None };
        let erf = seen.made(ir, Some(inner), "Erf")?;
        let arg = erf.input(0)?;
        if let Some(div) = seen.made(ir, Some(arg), "Div") {
            let (x, by) = (div.input(0)?, ir.known(div, 1)?.scalar()?);
            return close(by, 2f64.sqrt()).then_some(x);
        }
        let (x, by) = with_scalar(ir, seen.made(ir, Some(arg), "Mul")?)?;
        close(by, 0.5f64.sqrt()).then_some(x)
    })?;
    rewritten(instead(node, "Gelu", vec![Some(x)]))
}

/// x/2 * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
fn gelu_tanh(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    let x = halved_product(ir, node, seen, &|id| {
        let one = seen.made(ir, Some(id), "Add")?;
        let (inner, 1.0) = with_scalar(ir, one)? else { return None };
        let (sum, by) = with_scalar(ir, seen.made(ir, seen.made(ir, Some(inner), "Tanh")?.input(0), "Mul")?)?;
        if !close(by, (2.0 / std::f64::consts::PI).sqrt()) {
            return None;
        }
        let add = seen.made(ir, Some(sum), "Add")?;
        let cubic = |x: usize, other: usize| {
            let (cube, by) = with_scalar(ir, seen.made(ir, add.input(other), "Mul")?)?;
            let x = add.input(x)?;
            (close(by, 0.044_715) && is_power(ir, seen, cube, x, 3)).then_some(x)
        };
        cubic(0, 1).or_else(|| cubic(1, 0))
    })?;
    let mut gelu = instead(node, "Gelu", vec![Some(x)]);
    gelu.set("approximate", Attr::Text("tanh".into()));
    rewritten(gelu)
}

fn is_power(ir: &Ir, seen: &Seen, y: Id, x: Id, n: u32) -> bool {
    if n == 1 {
        return y == x;
    }
    if let Some(power) = seen.made(ir, Some(y), "Power") {
        return power.input(0) == Some(x) && power.float("exponent") == Some(n as f32);
    }
    let Some(mul) = seen.made(ir, Some(y), "Mul") else { return false };
    let (Some(a), Some(b)) = (mul.input(0), mul.input(1)) else { return false };
    (1..n).any(|i| is_power(ir, seen, a, x, i) && is_power(ir, seen, b, x, n - i))
}

/// The x of a product of 1/2, x and a factor that `inner` finds to be of the same x.
fn halved_product(ir: &Ir, node: &Node, seen: &Seen, inner: &dyn Fn(Id) -> Option<Id>) -> Option<Id> {
    // Up to three factors of nested products.
    let (mut half, mut factors, mut open) = (false, Vec::new(), vec![node]);
    while let Some(product) = open.pop() {
        match product.op.as_str() {
            "Mul" => {
                if let Some((x, by)) = with_scalar(ir, product) {
                    if by != 0.5 || half {
                        return None;
                    }
                    half = true;
                    match seen.only(ir, Some(x), "Mul") {
                        Some(deeper) => open.push(deeper),
                        None => factors.push(x),
                    }
                    continue;
                }
                for id in [product.input(0)?, product.input(1)?] {
                    match seen.only(ir, Some(id), "Mul") {
                        Some(deeper) if factors.len() + open.len() < 3 => open.push(deeper),
                        _ => factors.push(id),
                    }
                }
            }
            _ => return None,
        }
    }
    let &[a, b] = factors.as_slice() else { return None };
    let found = |x: Id, f: Id| (inner(f) == Some(x)).then_some(x);
    if half { found(a, b).or_else(|| found(b, a)) } else { None }
}

/// x * hard_sigmoid(x) with the slope 1/6
fn hard_swish(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    if node.op != "Mul" {
        return None;
    }
    let pair = |x: usize, s: usize| {
        let gate = seen.made(ir, node.input(s), "HardSigmoid")?;
        let usual = close(gate.float("alpha").unwrap_or(0.2), 1.0 / 6.0) && gate.float("beta").unwrap_or(0.5) == 0.5;
        (usual && gate.input(0) == node.input(x)).then_some(node.input(x)?)
    };
    let x = pair(0, 1).or_else(|| pair(1, 0))?;
    rewritten(instead(node, "HardSwish", vec![Some(x)]))
}

/// clip(x + 3, 0, 6) / 6 is a hard sigmoid.
fn hard_swish_spelt(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    let clipped = match node.op.as_str() {
        "Div" if ir.known(node, 1)?.scalar()? == 6.0 => node.input(0)?,
        "Mul" => {
            let (x, by) = with_scalar(ir, node)?;
            close(by, 1.0 / 6.0).then_some(x)?
        }
        _ => return None,
    };
    let clip = seen.only(ir, Some(clipped), "Clip")?;
    if clip.float("min") != Some(0.0) || clip.float("max") != Some(6.0) {
        return None;
    }
    let add = seen.only(ir, clip.input(0), "Add")?;
    let (x, 3.0) = with_scalar(ir, add)? else { return None };
    let mut hard = instead(node, "HardSigmoid", vec![Some(x)]);
    hard.set("alpha", Attr::Float(1.0 / 6.0));
    hard.set("beta", Attr::Float(0.5));
    rewritten(hard)
}

/// (x - mean) / sqrt(variance + eps) over the last axis.
fn layer_norm(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    if node.op != "Div" {
        return None;
    }
    let centred = seen.made(ir, node.input(0), "Sub")?;
    let x = centred.input(0)?;
    let last = ir.shape(x)?.len() - 1;
    let mean_of = |id: Option<Id>| {
        let mean = seen.made(ir, id, "ReduceMean")?;
        let axes = axes_of(ir, mean)?;
        let own = axes.len() == 1 && axis(axes[0], last + 1).ok()? == last && mean.int("keepdims").unwrap_or(1) == 1;
        own.then_some(mean.input(0)?)
    };
    if mean_of(centred.input(1))? != x {
        return None;
    }
    let add = seen.made(ir, seen.made(ir, node.input(1), "Sqrt")?.input(0), "Add")?;
    let (variance, eps) = with_scalar(ir, add)?;
    let square = mean_of(Some(variance))?;
    let same = |y: Id| {
        y == node.input(0).unwrap_or(usize::MAX)
            || seen
                .made(ir, Some(y), "Sub")
                .is_some_and(|sub| sub.input(0) == Some(x) && mean_of(sub.input(1)) == Some(x))
    };
    let squared = match seen.made(ir, Some(square), "Power") {
        Some(power) => power.float("exponent")? == 2.0 && same(power.input(0)?),
        None => {
            let mul = seen.made(ir, Some(square), "Mul")?;
            mul.input(0) == mul.input(1) && same(mul.input(0)?)
        }
    };
    let c = ir.shape(x)?[last].n as usize;
    if !squared || eps <= 0.0 {
        return None;
    }
    let first = ir.values.len();
    let mut norm = instead(node, "LayerNormalization", vec![Some(x), Some(first), Some(first + 1)]);
    norm.set("axis", Attr::Int(-1));
    norm.set("epsilon", Attr::Float(eps));
    let constants = vec![Constant::floats(&[c], vec![1.0; c]), Constant::floats(&[c], vec![0.0; c])];
    Some(Rewrite { node: norm, constants })
}

/// softmax(s * q k^T + bias) v; the bias must be a constant.
fn attention(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    if node.op != "MatMul" {
        return None;
    }
    let softmax = seen.only(ir, node.input(0), "Softmax")?;
    let v = node.input(1)?;
    let rank = ir.shape(v)?.len();
    if rank != 4 || ir.constant(Some(v)).is_some() {
        return None;
    }
    let default = if ir.opset < 13 { 1 } else { -1 };
    if ![-1, rank as i64 - 1].contains(&softmax.int("axis").unwrap_or(default)) {
        return None;
    }
    let (mut scale, mut bias, mut scores) = (1f32, None, softmax.input(0)?);
    let product = loop {
        if let Some(product) = seen.only(ir, Some(scores), "MatMul") {
            break product;
        }
        if let Some(add) = seen.only(ir, Some(scores), "Add") {
            let constant = (0..2).find(|&i| ir.known(add, i).is_some())?;
            if bias.is_some() || scale != 1.0 {
                return None;
            }
            (bias, scores) = (add.input(constant), add.input(1 - constant)?);
        } else if let Some(mul) = seen.only(ir, Some(scores), "Mul") {
            let (x, by) = with_scalar(ir, mul)?;
            (scale, scores) = (scale * by, x);
        } else {
            let div = seen.only(ir, Some(scores), "Div")?;
            let by = ir.known(div, 1)?.scalar()?;
            (scale, scores) = (scale / by, div.input(0)?);
        }
    };
    // Exporters put the root of the scale on both sides.
    let unscaled = |id: Id, scale: &mut f32| -> Option<Id> {
        let Some(mul) = seen.only(ir, Some(id), "Mul") else { return Some(id) };
        let Some((x, by)) = with_scalar(ir, mul) else { return Some(id) };
        *scale *= by;
        Some(x)
    };
    let q = unscaled(product.input(0)?, &mut scale)?;
    let turned = unscaled(product.input(1)?, &mut scale)?;
    let transposed = seen.made(ir, Some(turned), "Transpose");
    let (q_shape, v_shape) = (ir.shape(q)?, ir.shape(v)?);
    let (k, swapped) = match transposed {
        // (B, M, H, D) or (B, H, M, D), turned to (B, H, D, M)
        Some(t) if t.ints("perm") == Some(&[0, 1, 3, 2]) => (t.input(0)?, false),
        _ => (turned, true),
    };
    let d = q_shape.last()?.n;
    if q_shape.len() != 4 || d > 128 || v_shape.last()?.n != d || q_shape[..2] != v_shape[..2] {
        return None;
    }
    if let Some(b) = bias {
        let b = &ir.constant(Some(b))?.shape;
        // (1, H, N, M), or without the first, or one for all heads
        let m = v_shape[2].n as usize;
        let n = q_shape[2].n as usize;
        let good = b.len() >= 2 && b[b.len() - 1] == m && b[b.len() - 2] == n && b.len() <= 4;
        let heads = b.len() < 3 || [1, q_shape[1].n as usize].contains(&b[b.len() - 3]);
        if !good || !heads || b.len() == 4 && b[0] != 1 {
            return None;
        }
    }
    // Over a single key the softmax is 1 whatever is added to its score, and no gradient goes back: none is left to rounding.
    let finite =
        |id: &Id| ir.constant(Some(*id)).and_then(Constant::as_floats).is_some_and(|b| b.iter().all(|v| v.is_finite()));
    let bias = bias.filter(|id| v_shape[2] != Dim::fixed(1) || !finite(id));
    let mut fused = instead(node, "Attention", vec![Some(q), Some(k), Some(v), bias]);
    fused.set("scale", Attr::Float(scale));
    fused.set("turned", Attr::Int(i64::from(swapped)));
    rewritten(fused)
}

fn float_tensor(values: Vec<f32>) -> Attr {
    Attr::Tensor(Constant::floats(&[values.len()], values))
}

fn floats<'a>(node: &'a Node, key: &str) -> Option<&'a [f32]> {
    match node.attrs.get(key) {
        Some(Attr::Tensor(c)) => c.as_floats(),
        _ => None,
    }
}

fn affine_node(old: &Node, x: Id, axis: usize, scale: Vec<f32>, bias: Vec<f32>) -> Node {
    let mut node = instead(old, "Affine", vec![Some(x)]);
    node.set("axis", Attr::Int(axis as i64));
    node.set("scale", float_tensor(scale));
    node.set("bias", float_tensor(bias));
    node
}

/// Zeros around an image that a convolution reads are padding of its own; so are values below all others before a maximum.
fn padding(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    let pool = node.op == "MaxPool";
    if !pool && node.op != "Conv" || !matches!(node.text("auto_pad"), None | Some("NOTSET" | "")) {
        return None;
    }
    let pad = seen.only(ir, node.input(0), "Pad")?;
    let (before, after, mode) = pads(ir, pad, 4).ok()??;
    let fill = match pad.input(2) {
        None => pad.float("value").unwrap_or(0.0),
        Some(id) => ir.constant(Some(id))?.scalar()?,
    };
    let fits = if pool { fill == f32::NEG_INFINITY } else { fill == 0.0 };
    let inside = before[..2] == [0, 0] && after[..2] == [0, 0] && before.iter().chain(&after).all(|&p| p >= 0);
    if mode != "constant" || !fits || !inside {
        return None;
    }
    let own = node.ints("pads").map_or_else(|| vec![0; 4], <[i64]>::to_vec);
    let &[top, left, bottom, right] = own.as_slice() else { return None };
    let pads = vec![top + before[2], left + before[3], bottom + after[2], right + after[3]];
    // The kernel of the maximum takes windows that lie at least partly inside.
    if pool && node.ints("kernel_shape")?.iter().zip(&pads).any(|(k, p)| p >= k) {
        return None;
    }
    let mut merged = node.clone();
    merged.inputs[0] = pad.input(0);
    merged.set("pads", Attr::Ints(pads));
    rewritten(merged)
}

/// A batch norm with fixed statistics scales channels.
fn batch_norm(ir: &Ir, _: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    if node.op != "BatchNormalization" || node.int("training_mode") == Some(1) {
        return None;
    }
    let constant = |i: usize| ir.known(node, i)?.as_floats();
    let (scale, bias, mean, var) = (constant(1)?, constant(2)?, constant(3)?, constant(4)?);
    let eps = node.float("epsilon").unwrap_or(1e-5);
    let (scale, bias) = crate::ops::conv::fold_batch_norm(scale, bias, mean, var, eps).ok()?;
    if ir.shape(node.input(0)?)?.get(1)?.n as usize != scale.len() {
        return None;
    }
    let narrow = |v: Vec<f64>| v.into_iter().map(|v| v as f32).collect();
    rewritten(affine_node(node, node.input(0)?, 1, narrow(scale), narrow(bias)))
}

/// The axis that a constant varies along and its values, one for all of them if there is one.
fn along_one_axis(c: &Constant, shape: &[Dim]) -> Option<(Option<usize>, Vec<f32>)> {
    let values = c.as_floats()?;
    if values.len() == 1 {
        return Some((None, values.to_vec()));
    }
    let new = shape.len().checked_sub(c.shape.len())?;
    let mut long = (0..c.shape.len()).filter(|&i| c.shape[i] != 1);
    let at = long.next()?;
    if long.next().is_some() || shape[new + at] != Dim::fixed(values.len() as i64) {
        return None;
    }
    Some((Some(new + at), values.to_vec()))
}

/// Sums, differences, products and quotients with constants along one axis.
fn affine(ir: &Ir, _: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    if !matches!(node.op.as_str(), "Add" | "Sub" | "Mul" | "Div" | "Neg") {
        return None;
    }
    let y = ir.shape(*node.outputs.first()?)?;
    if y.len() < 2 {
        return None;
    }
    let usual = if y.len() == 4 { 1 } else { y.len() - 1 };
    if node.op == "Neg" {
        let c = y[usual].n as usize;
        return rewritten(affine_node(node, node.input(0)?, usual, vec![-1.0; c], vec![0.0; c]));
    }
    let constant = (0..2).find(|&i| ir.known(node, i).is_some())?;
    let x = node.input(1 - constant)?;
    if ir.shape(x)? != y {
        return None;
    }
    let (axis, values) = along_one_axis(ir.known(node, constant)?, y)?;
    let axis = axis.unwrap_or(usual);
    if y[axis].batch {
        return None;
    }
    let c = y[axis].n as usize;
    let values = if values.len() == 1 { vec![values[0]; c] } else { values };
    let (scale, bias) = match (node.op.as_str(), constant) {
        ("Add", _) => (vec![1.0; c], values),
        ("Sub", 1) => (vec![1.0; c], values.iter().map(|v| -v).collect()),
        ("Sub", _) => (vec![-1.0; c], values),
        ("Mul", _) => (values, vec![0.0; c]),
        ("Div", 1) => (values.iter().map(|v| (1.0 / f64::from(*v)) as f32).collect(), vec![0.0; c]),
        _ => return None,
    };
    rewritten(affine_node(node, x, axis, scale, bias))
}

/// Two of them along the same axis are one.
fn affine_pair(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    if node.op != "Affine" {
        return None;
    }
    let first = seen.only(ir, node.input(0), "Affine")?;
    let same = first.int("axis") == node.int("axis");
    let uniform = |v: &[f32]| v.iter().all(|&x| x == v[0]);
    let (s1, b1, s2, b2) =
        (floats(first, "scale")?, floats(first, "bias")?, floats(node, "scale")?, floats(node, "bias")?);
    // Constants that are the same everywhere fit every axis.
    let (axis, n) = match () {
        () if same || uniform(s2) && uniform(b2) => (first.int("axis")?, s1.len()),
        () if uniform(s1) && uniform(b1) => (node.int("axis")?, s2.len()),
        () => return None,
    };
    let at = |v: &[f32], i: usize| f64::from(if v.len() == n { v[i] } else { v[0] });
    let scale = (0..n).map(|i| (at(s1, i) * at(s2, i)) as f32).collect();
    let bias = (0..n).map(|i| (at(b1, i) * at(s2, i) + at(b2, i)) as f32).collect();
    rewritten(affine_node(node, first.input(0)?, axis as usize, scale, bias))
}

/// An instance norm of (N, G, all values of a group) between two reshapes, as exporters write a group norm.
fn group_norm(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    if node.op != "Reshape" {
        return None;
    }
    let norm = seen.only(ir, node.input(0), "InstanceNormalization")?;
    let grouped = seen.made(ir, norm.input(0), "Reshape")?;
    let x = grouped.input(0)?;
    let (shape, parts) = (ir.shape(x)?, ir.shape(grouped.outputs[0])?);
    if ir.shape(node.outputs[0])? != shape || shape.len() < 3 || parts.len() < 3 || parts[0] != shape[0] {
        return None;
    }
    let (c, groups) = (shape[1], parts[1]);
    if c.batch || groups.batch || groups.n < 1 || c.n % groups.n != 0 || shape[0] != Dim::BATCH {
        return None;
    }
    let per = (c.n / groups.n) as usize;
    let each = |i: usize| {
        let v = ir.known(norm, i)?.as_floats().filter(|v| v.len() == groups.n as usize)?;
        let v: Vec<f32> = v.iter().flat_map(|&v| std::iter::repeat_n(v, per)).collect();
        Some(Constant::floats(&[v.len()], v))
    };
    let first = ir.values.len();
    let mut fused = instead(node, "GroupNormalization", vec![Some(x), Some(first), Some(first + 1)]);
    fused.set("num_groups", Attr::Int(groups.n));
    fused.set("epsilon", Attr::Float(norm.float("epsilon").unwrap_or(1e-5)));
    Some(Rewrite { node: fused, constants: vec![each(1)?, each(2)?] })
}

/// A scale of channels after a group norm is its own.
fn affine_into_norm(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    if node.op != "Affine" {
        return None;
    }
    let norm = seen.only(ir, node.input(0), "GroupNormalization")?;
    let own = |i: usize| ir.known(norm, i)?.as_floats();
    let (s1, b1, s2, b2) = (own(1)?, own(2)?, floats(node, "scale")?, floats(node, "bias")?);
    let c = usize::try_from(ir.shape(norm.input(0)?)?.get(1)?.n).ok()?;
    // One value for all channels fits any axis.
    if s1.len() != c
        || b1.len() != c
        || s2.len() != b2.len()
        || s2.len() != 1 && (s2.len() != c || node.int("axis") != Some(1))
    {
        return None;
    }
    let at = |v: &[f32], i: usize| f64::from(v[i % v.len()]);
    let scale = (0..c).map(|i| (at(s1, i) * at(s2, i)) as f32).collect();
    let bias = (0..c).map(|i| (at(b1, i) * at(s2, i) + at(b2, i)) as f32).collect();
    let first = ir.values.len();
    let mut fused = norm.clone();
    fused.inputs = vec![norm.input(0), Some(first), Some(first + 1)];
    Some(Rewrite { node: fused, constants: vec![Constant::floats(&[c], scale), Constant::floats(&[c], bias)] })
}

/// A scale of what weights make goes into them.
fn affine_into_weights(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    if node.op != "Affine" {
        return None;
    }
    let x = node.input(0);
    let before = ["Conv", "Gemm", "MatMul"].iter().find_map(|op| seen.only(ir, x, op))?;
    let weight = ir.known(before, 1)?;
    let w = weight.as_floats()?;
    let (scale, bias) = (floats(node, "scale")?, floats(node, "bias")?);
    let rank = ir.shape(x?)?.len();
    let out_axis = if before.op == "Conv" { 1 } else { rank - 1 };
    let along = node.int("axis")? as usize;
    let uniform = |v: &[f32]| v.iter().all(|&x| x == v[0]);
    if along != out_axis && !(uniform(scale) && uniform(bias)) {
        return None;
    }
    let outputs = ir.shape(x?)?[out_axis].n as usize;
    let at = |v: &[f32], i: usize| if v.len() == outputs { v[i] } else { v[0] };
    let (alpha, beta) = match before.op.as_str() {
        "Gemm" => (before.float("alpha").unwrap_or(1.0), before.float("beta").unwrap_or(1.0)),
        _ => (1.0, 1.0),
    };
    if alpha != 1.0 || beta != 1.0 || before.attrs.contains_key("act") || before.input(3).is_some() {
        return None;
    }
    let columns = before.op == "MatMul" || before.op == "Gemm" && before.int("transB") != Some(1);
    if columns && weight.shape.len() != 2 {
        return None;
    }
    let each = w.len() / outputs.max(1);
    let scaled = w.iter().enumerate().map(|(i, &w)| {
        let o = if columns { i % outputs } else { i / each };
        (f64::from(w) * f64::from(at(scale, o))) as f32
    });
    let weight = Constant { shape: weight.shape.clone(), data: Data::Floats(Arc::new(scaled.collect())) };
    let old_bias = match before.input(2) {
        None => vec![0.0; outputs],
        Some(id) => match ir.constant(Some(id))?.as_floats()? {
            b if b.len() == outputs => b.to_vec(),
            [b] => vec![*b; outputs],
            _ => return None,
        },
    };
    let bias: Vec<f32> = (0..outputs)
        .map(|o| (f64::from(old_bias[o]) * f64::from(at(scale, o)) + f64::from(at(bias, o))) as f32)
        .collect();
    let first = ir.values.len();
    let mut fused = before.clone();
    fused.inputs = vec![before.input(0), Some(first), Some(first + 1)];
    Some(Rewrite { node: fused, constants: vec![weight, Constant::floats(&[outputs], bias)] })
}

/// A sum of a convolution and something of the same shape.
fn residual(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    if node.op != "Add" {
        return None;
    }
    let pair = |conv: usize, other: usize| {
        let (id, other) = (node.input(conv)?, node.input(other)?);
        let conv = seen.only(ir, Some(id), "Conv")?;
        let good = ir.shape(id)? == ir.shape(other)? && id != other && ir.constant(Some(other)).is_none();
        (good && conv.input(3).is_none() && !conv.attrs.contains_key("act") && ir.known(conv, 1).is_some())
            .then_some((conv, other))
    };
    // Of two convolutions the later one: the earlier is computed anyway by then.
    let (conv, other) = pair(0, 1).or_else(|| pair(1, 0))?;
    let mut fused = conv.clone();
    fused.inputs.resize(3, None);
    fused.inputs.push(Some(other));
    rewritten(fused)
}

/// An activation of what a convolution, a layer or an affine map makes.
fn activation(ir: &Ir, seen: &Seen, at: usize) -> Option<Rewrite> {
    let node = &ir.nodes[at];
    let act = activation_name(node)?;
    let before = ["Conv", "Gemm", "Affine", "MatMul"].iter().find_map(|op| seen.only(ir, node.input(0), op))?;
    let weights = before.op == "Affine" || ir.known(before, 1).is_some();
    if before.attrs.contains_key("act") || !weights || before.op == "MatMul" && ir.known(before, 1)?.shape.len() != 2 {
        return None;
    }
    let mut fused = before.clone();
    fused.set("act", Attr::Text(act.into()));
    rewritten(fused)
}

/// The activation that the epilogues of kernels know, if the node is one.
pub fn activation_name(node: &Node) -> Option<&'static str> {
    Some(match node.op.as_str() {
        "Relu" => "relu",
        "Sigmoid" => "sigmoid",
        "Tanh" => "tanh",
        "Swish" if node.float("alpha").unwrap_or(1.0) == 1.0 => "silu",
        "Gelu" if node.text("approximate") == Some("tanh") => "gelu_tanh",
        "Gelu" => "gelu",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::ir::node;
    use super::*;

    /// A graph over values of shape (N, 4), the first of which is the input and the last the output.
    fn graph(values: usize, nodes: Vec<Node>, scalars: &[(Id, f32)]) -> Ir {
        let mut ir = Ir { opset: 17, ..Ir::default() };
        for i in 0..values {
            match scalars.iter().find(|(id, _)| *id == i) {
                Some(&(_, v)) => ir.add_constant("c", Constant::floats(&[], vec![v])),
                None => ir.add(format!("v{i}"), Some(vec![Dim::BATCH, Dim::fixed(4)])),
            };
        }
        ir.nodes = nodes;
        ir.output = values - 1;
        ir
    }

    fn ops(ir: &Ir) -> Vec<&str> {
        ir.nodes.iter().map(|n| n.op.as_str()).collect()
    }

    #[test]
    fn silu_is_one_node_only_for_its_own_sigmoid() {
        let mut ir = graph(3, vec![node("Sigmoid", &[0], 1), node("Mul", &[1, 0], 2)], &[]);
        run(&mut ir);
        assert_eq!(ops(&ir), ["Swish"]);
        let mut ir = graph(4, vec![node("Relu", &[0], 1), node("Sigmoid", &[1], 2), node("Mul", &[2, 0], 3)], &[]);
        run(&mut ir);
        assert_eq!(ops(&ir), ["Relu", "Sigmoid", "Mul"]);
    }

    #[test]
    fn gelu_is_found_in_both_orders_and_not_with_other_constants() {
        for (root, found) in [(std::f32::consts::SQRT_2, true), (1.5, false)] {
            let scalars = [(1, root), (3, 1.0), (6, 0.5)];
            let start = || vec![node("Div", &[0, 1], 2), node("Erf", &[2], 4), node("Add", &[4, 3], 5)];
            let last = [node("Mul", &[0, 5], 7), node("Mul", &[7, 6], 8)];
            let mut ir = graph(9, [start(), last.to_vec()].concat(), &scalars);
            run(&mut ir);
            assert_eq!(ops(&ir) == ["Gelu"], found, "{:?}", ops(&ir));
            let last = [node("Mul", &[0, 6], 7), node("Mul", &[7, 5], 8)];
            let mut ir = graph(9, [start(), last.to_vec()].concat(), &scalars);
            run(&mut ir);
            assert_eq!(ops(&ir) == ["Gelu"], found, "{:?}", ops(&ir));
        }
    }

    #[test]
    fn a_group_norm_is_found_between_its_reshapes() {
        for (groups, channels, found) in [(2, 6, true), (1, 6, true), (4, 6, false)] {
            let mut ir = Ir { opset: 17, ..Ir::default() };
            let image = || vec![Dim::BATCH, Dim::fixed(channels), Dim::fixed(4), Dim::fixed(8)];
            let parts = || vec![Dim::BATCH, Dim::fixed(groups), Dim::fixed(channels * 32 / groups)];
            let (x, grouped, normed) =
                (ir.add("x", Some(image())), ir.add("g", Some(parts())), ir.add("n", Some(parts())));
            let [back, y] = ["b", "y"].map(|name| ir.add(name, Some(image())));
            let n = groups as usize;
            let scale = ir.add_constant("s", Constant::floats(&[n], (0..n).map(|i| i as f32 + 1.0).collect()));
            let bias = ir.add_constant("z", Constant::floats(&[n], vec![0.5; n]));
            let twice = ir.add_constant("two", Constant::floats(&[6, 1, 1], (0..6).map(|i| i as f32).collect()));
            ir.nodes = vec![
                node("Reshape", &[x], grouped),
                node("InstanceNormalization", &[grouped, scale, bias], normed),
                node("Reshape", &[normed], back),
                node("Mul", &[back, twice], y),
            ];
            (ir.input, ir.output) = (x, y);
            run(&mut ir);
            if !found {
                assert_eq!(ops(&ir), ["Reshape", "InstanceNormalization", "Reshape", "Affine"]);
                continue;
            }
            assert_eq!(ops(&ir), ["GroupNormalization"]);
            assert_eq!(ir.nodes[0].int("num_groups"), Some(groups));
            let per = 6 / n;
            let scales: Vec<f32> = (0..6).map(|i| (i / per + 1) as f32 * i as f32).collect();
            let biases: Vec<f32> = (0..6).map(|i| 0.5 * i as f32).collect();
            assert_eq!(ir.known(&ir.nodes[0], 1).and_then(Constant::as_floats), Some(&scales[..]));
            assert_eq!(ir.known(&ir.nodes[0], 2).and_then(Constant::as_floats), Some(&biases[..]));
        }
    }

    #[test]
    fn a_bias_on_a_single_key_is_none() {
        for (keys, value, kept) in [(1, -2.0, false), (1, f32::NEG_INFINITY, true), (3, -2.0, true)] {
            let mut ir = Ir { opset: 17, ..Ir::default() };
            let add = |ir: &mut Ir, n: i64, m: i64| {
                ir.add("v", Some(vec![Dim::BATCH, Dim::fixed(2), Dim::fixed(n), Dim::fixed(m)]))
            };
            let (q, k, v) = (add(&mut ir, 5, 8), add(&mut ir, 8, keys), add(&mut ir, keys, 8));
            let [scores, sums, shares] = [0; 3].map(|_| add(&mut ir, 5, keys));
            let y = add(&mut ir, 5, 8);
            let bias = Constant::floats(&[1, 1, 5, keys as usize], vec![value; 5 * keys as usize]);
            let bias = ir.add_constant("bias", bias);
            ir.nodes = vec![
                node("MatMul", &[q, k], scores),
                node("Add", &[scores, bias], sums),
                node("Softmax", &[sums], shares),
                node("MatMul", &[shares, v], y),
            ];
            ir.output = y;
            run(&mut ir);
            assert_eq!(ops(&ir), ["Attention"], "{keys} {value}");
            assert_eq!(ir.nodes[0].input(3).is_some(), kept, "{keys} {value}");
        }
    }

    #[test]
    fn scales_and_shifts_become_one_affine_map() {
        // ((x - 2) / 4) * -1
        let nodes = vec![node("Sub", &[0, 1], 2), node("Div", &[2, 3], 4), node("Neg", &[4], 5)];
        let mut ir = graph(6, nodes, &[(1, 2.0), (3, 4.0)]);
        run(&mut ir);
        assert_eq!(ops(&ir), ["Affine"]);
        assert_eq!(
            (floats(&ir.nodes[0], "scale"), floats(&ir.nodes[0], "bias")),
            (Some(&[-0.25; 4][..]), Some(&[0.5; 4][..]))
        );
    }
}
