//! The shape of every value, with the size of the batch as an unknown factor, and on the way what can be computed beforehand.
//!
//! A dimension is `n` or `n` times the batch. The batch is outermost within its axis: a graph that leaves it so works on each image
//! alone, and may be run on any number of them, even if the file says one. What mixes images is refused here.

use std::collections::VecDeque;

use super::choice;
use super::counted;
use super::fold;
use super::ir::{Attr, Constant, Dim, Id, Ir, Node, written};
use super::operands::{Range, axes_of, axis, pads, parts, permutation, reduced, slices, softmax_axis, times};
use super::resample::{Asked, asked};
use super::single;

/// Gives every value its shape for images of `image` (C, H, W, or H, W, C if that is how the graph takes them).
///
/// # Errors
/// Which node cannot be run, and why, in words.
pub fn run(ir: &mut Ir, image: [usize; 3]) -> Result<(), String> {
    let mut shape = vec![Dim::BATCH];
    shape.extend(image.iter().map(|&n| Dim::fixed(n as i64)));
    let input = ir.input;
    ir.values[input].shape = Some(shape);
    let mut waiting = VecDeque::from(std::mem::take(&mut ir.nodes));
    while let Some(mut node) = waiting.pop_front() {
        if is_last(ir, &node) && (takes_the_image(ir, &node) || flattens_the_image(ir, &node)) {
            node.op = "Identity".into();
            node.inputs.truncate(1);
        }
        let title = node.title();
        let wrong = |problem: String| format!("{title}: {problem}");
        if ir.single && !is_last(ir, &node) {
            single::keep(ir, &mut node, &mut waiting).map_err(wrong)?;
        }
        if let Some(results) = fold::evaluate(ir, &node).map_err(wrong)? {
            for (&id, constant) in node.outputs.iter().zip(results) {
                ir.values[id].shape = Some(constant.shape.iter().map(|&n| Dim::fixed(n as i64)).collect());
                ir.values[id].constant = Some(constant);
            }
            continue;
        }
        if let Some(counted) = counted::evaluate(ir, &node).map_err(wrong)? {
            if let Some(&id) = node.outputs.first() {
                ir.values[id].shape = Some(counted.shape());
                ir.values[id].counted = Some(counted);
            }
            continue;
        }
        if let Some(gather) = by_first_axis(ir, &node) {
            waiting.push_front(gather);
            continue;
        }
        if let Some(nodes) = choice::arithmetic(ir, &node) {
            nodes.into_iter().rev().for_each(|node| waiting.push_front(node));
            continue;
        }
        if let Some(nodes) = counted::gather(ir, &node).map_err(wrong)? {
            nodes.into_iter().rev().for_each(|node| waiting.push_front(node));
            continue;
        }
        if let Some(&id) = node.inputs.iter().flatten().find(|&&id| ir.values[id].counted.is_some()) {
            let name = &ir.values[id].name;
            return Err(wrong(format!("`{name}` counts images: expected a Gather that takes from each image alone")));
        }
        let shapes = infer(ir, &node).map_err(wrong)?;
        if node.op == "Reshape" {
            // What it reads beside the data has done its work.
            node.inputs.truncate(1);
        }
        for (&id, shape) in node.outputs.iter().zip(shapes) {
            let size = shape.iter().try_fold(1i64, |p, d| p.checked_mul(d.n)).filter(|&n| n <= 1 << 31);
            if size.is_none() {
                return Err(format!("{}: a result of shape {} is too large", node.title(), written(&shape)));
            }
            ir.values[id].shape = Some(shape);
        }
        ir.nodes.push(node);
    }
    ir.prune();
    Ok(())
}

/// A `GatherND` by known numbers of the first axis alone, as exporters write indexing by a list, as the `Gather` of that axis.
fn by_first_axis(ir: &mut Ir, node: &Node) -> Option<Node> {
    let known = ir.known(node, 1).filter(|_| node.op == "GatherND" && node.int("batch_dims").unwrap_or(0) == 0)?;
    let (1, shape) = known.shape.split_last()? else { return None };
    let indices = Constant { shape: shape.to_vec(), data: known.data.clone() };
    let indices = ir.add_constant(format!("{}.indices", node.name), indices);
    let mut gather = Node { op: "Gather".into(), inputs: vec![node.input(0), Some(indices)], ..node.clone() };
    gather.set("axis", Attr::Int(0));
    Some(gather)
}

/// The common shape of two operands.
///
/// # Errors
/// When they do not fit.
pub fn broadcast(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, String> {
    let rank = a.len().max(b.len());
    let one = Dim::fixed(1);
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(rank).map_or(one, |i| s[i]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (a, b) if a == b => Ok(a),
            (a, b) if a == one => Ok(b),
            (a, b) if b == one => Ok(a),
            // What the file made for the one image that it takes serves every image.
            (a, b) if a.n == b.n && a.outer == b.outer => Ok(Dim::new(a.n, true)),
            _ => Err(format!("shapes {} and {} do not fit", written(a), written(b))),
        })
        .collect()
}

fn one_image(what: &str, dim: Dim) -> Result<i64, String> {
    if dim.batch { Err(format!("{what} goes over the batch: images would be mixed")) } else { Ok(dim.n) }
}

/// Lengths of windows over the axes from the third on: those of convolutions and pools.
struct Windows {
    kernel: Vec<i64>,
    stride: Vec<i64>,
    dilation: Vec<i64>,
    /// before and after
    pads: Vec<(i64, i64)>,
    ceil: bool,
}

/// Stride, dilation and padding of both axes of a window, as [`padding`] finds them.
pub type Window = ([usize; 2], [usize; 2], [[usize; 2]; 2]);

impl Windows {
    fn read(node: &Node, spatial: &[Dim], kernel: Vec<i64>) -> Result<Self, String> {
        let rank = spatial.len();
        if kernel.len() != rank {
            return Err(format!("a window of {} axes on an image of {rank}", kernel.len()));
        }
        let list = |key: &str| -> Result<Vec<i64>, String> {
            let values = node.ints(key).map_or_else(|| vec![1; rank], <[i64]>::to_vec);
            let good = values.len() == rank && values.iter().all(|&v| (1..=1 << 20).contains(&v));
            if good { Ok(values) } else { Err(format!("{key} {values:?}: expected {rank} numbers of at least 1")) }
        };
        let (stride, dilation) = (list("strides")?, list("dilations")?);
        if kernel.iter().any(|k| !(1..=1 << 20).contains(k)) {
            return Err(format!("a window of {kernel:?}"));
        }
        let pads = match node.text("auto_pad").unwrap_or("NOTSET") {
            "NOTSET" | "" => {
                let pads = node.ints("pads").map_or_else(|| vec![0; 2 * rank], <[i64]>::to_vec);
                if pads.len() != 2 * rank || pads.iter().any(|p| !(0..=1 << 20).contains(p)) {
                    return Err(format!("pads {pads:?}: expected {} numbers of at least 0", 2 * rank));
                }
                (0..rank).map(|i| (pads[i], pads[i + rank])).collect()
            }
            "VALID" => vec![(0, 0); rank],
            mode @ ("SAME_UPPER" | "SAME_LOWER") => (0..rank)
                .map(|i| {
                    let out = (spatial[i].n + stride[i] - 1) / stride[i];
                    let all = ((out - 1) * stride[i] + dilation[i] * (kernel[i] - 1) + 1 - spatial[i].n).max(0);
                    if mode == "SAME_UPPER" { (all / 2, all - all / 2) } else { (all - all / 2, all / 2) }
                })
                .collect(),
            other => return Err(format!("auto_pad `{other}` is unknown")),
        };
        Ok(Windows { kernel, stride, dilation, pads, ceil: node.int("ceil_mode") == Some(1) })
    }

    fn out(&self, i: usize, length: i64) -> Result<i64, String> {
        let reach = self.dilation[i] * (self.kernel[i] - 1) + 1;
        let space = length + self.pads[i].0 + self.pads[i].1 - reach;
        if space < 0 {
            return Err(format!("a window of {reach} does not fit {length} with pads {:?}", self.pads[i]));
        }
        let stride = self.stride[i];
        if !self.ceil {
            return Ok(space / stride + 1);
        }
        let count = (space + stride - 1) / stride + 1;
        // A last window must begin inside the image or the padding before it.
        Ok(if (count - 1) * stride >= length + self.pads[i].0 { count - 1 } else { count })
    }
}

/// Stride, dilation and the padding before and after, for windows of `kernel` on the images of the first input.
///
/// # Errors
/// When they are impossible.
pub fn window(ir: &Ir, node: &Node, kernel: [usize; 2]) -> Result<Window, String> {
    let shape = node.input(0).and_then(|id| ir.shape(id)).ok_or("its input has no shape")?;
    let w = Windows::read(node, shape.get(2..).unwrap_or_default(), kernel.iter().map(|&k| k as i64).collect())?;
    let pair = |v: &[i64]| [v[0] as usize, v[1] as usize];
    let pads = [w.pads[0], w.pads[1]].map(|(a, b)| [a as usize, b as usize]);
    Ok((pair(&w.stride), pair(&w.dilation), pads))
}

/// Window, stride, dilation and padding before and after, for every axis of a pool from the third on.
///
/// # Errors
/// When they are impossible.
pub fn windows(ir: &Ir, node: &Node) -> Result<Vec<[i64; 5]>, String> {
    let shape = node.input(0).and_then(|id| ir.shape(id)).ok_or("its input has no shape")?;
    let kernel = node.ints("kernel_shape").map(<[i64]>::to_vec).ok_or("expected kernel_shape")?;
    let w = Windows::read(node, shape.get(2..).unwrap_or_default(), kernel)?;
    Ok((0..w.kernel.len()).map(|i| [w.kernel[i], w.stride[i], w.dilation[i], w.pads[i].0, w.pads[i].1]).collect())
}

/// The shapes of a node's results.
fn infer(ir: &Ir, node: &Node) -> Result<Vec<Vec<Dim>>, String> {
    let shape_of =
        |id: Id| ir.shape(id).ok_or_else(|| format!("the shape of its input `{}` is not known", ir.values[id].name));
    let shape = |i: usize| node.input(i).ok_or_else(|| format!("expected an input {i}")).and_then(shape_of);
    let x = shape(0)?;
    let same = || Ok(vec![x.to_vec()]);
    let image = |x: &[Dim]| -> Result<(), String> {
        if x.len() != 4 {
            return Err(format!("expected images (N, C, H, W), found {}", written(x)));
        }
        if x[0].batch { x[1..].iter().try_for_each(|&d| one_image("it", d).map(|_| ())) } else { Err(mixed(x)) }
    };
    match node.op.as_str() {
        "Conv" | "ConvTranspose" => {
            image(x)?;
            let w = shape(1)?;
            if w.len() != 4 {
                return Err(format!("expected weights of 4 dimensions, found {}", written(w)));
            }
            let kernel: Vec<i64> = w[2..].iter().map(|d| d.n).collect();
            if let Some(said) = node.ints("kernel_shape").filter(|said| **said != kernel) {
                return Err(format!("kernel_shape {said:?} on weights {}", written(w)));
            }
            let windows = Windows::read(node, &x[2..], kernel)?;
            let groups = node.int("group").unwrap_or(1).clamp(1, 1 << 31);
            let expected = if node.op == "Conv" { w[1].n.saturating_mul(groups) } else { w[0].n };
            if expected != x[1].n {
                return Err(format!("weights {} in {groups} groups on {} channels", written(w), x[1]));
            }
            let mut out = vec![x[0], if node.op == "Conv" { w[0] } else { Dim::fixed(w[1].n.saturating_mul(groups)) }];
            for i in 0..2 {
                out.push(Dim::fixed(if node.op == "Conv" {
                    windows.out(i, x[2 + i].n)?
                } else {
                    let extra = node.ints("output_padding").and_then(|p| p.get(i)).copied().unwrap_or(0);
                    if !(0..1 << 20).contains(&extra) {
                        return Err(format!("output_padding {extra}"));
                    }
                    let reach = windows.dilation[i] * (windows.kernel[i] - 1) + 1;
                    (x[2 + i].n - 1) * windows.stride[i] + reach + extra - windows.pads[i].0 - windows.pads[i].1
                }));
            }
            if node.op == "ConvTranspose" && node.ints("output_shape").is_some() {
                return Err("output_shape is not understood: export it with pads".into());
            }
            positive(out)
        }
        "MaxPool" | "AveragePool" => {
            if x.len() < 3 || !x[0].batch {
                return Err(mixed(x));
            }
            if node.outputs.len() > 1 && ir.uses()[node.outputs[1]] > 0 {
                return Err("indices of maxima are not computed".into());
            }
            let kernel = node.ints("kernel_shape").map(<[i64]>::to_vec).ok_or("expected kernel_shape")?;
            let windows = Windows::read(node, &x[2..], kernel)?;
            let mut out = vec![x[0], x[1]];
            for (i, &d) in x[2..].iter().enumerate() {
                out.push(Dim::fixed(windows.out(i, one_image("it", d)?)?));
            }
            positive(out)
        }
        "GlobalAveragePool" | "GlobalMaxPool" => {
            image(x)?;
            Ok(vec![vec![x[0], x[1], Dim::fixed(1), Dim::fixed(1)]])
        }
        "DepthToSpace" | "SpaceToDepth" => {
            image(x)?;
            let b = node.int("blocksize").filter(|b| (1..=1 << 15).contains(b)).ok_or("expected a blocksize")?;
            let down = node.op == "SpaceToDepth";
            let fits = if down { x[2].n % b == 0 && x[3].n % b == 0 } else { x[1].n % (b * b) == 0 };
            if !fits {
                return Err(format!("blocks of {b} do not fit {}", written(x)));
            }
            let f = Dim::fixed;
            Ok(vec![match down {
                true => vec![x[0], f(x[1].n * b * b), f(x[2].n / b), f(x[3].n / b)],
                false => vec![x[0], f(x[1].n / b / b), f(x[2].n * b), f(x[3].n * b)],
            }])
        }
        "BatchNormalization" | "InstanceNormalization" | "GroupNormalization" | "LRN" => {
            if x.len() < 2 || !x[0].batch {
                return Err(format!("expected images, found {}", written(x)));
            }
            same()
        }
        "LayerNormalization" => {
            let from = axis(node.int("axis").unwrap_or(-1), x.len())?;
            x[from..].iter().try_for_each(|&d| one_image("it", d).map(|_| ()))?;
            if node.outputs[1..].iter().any(|&id| ir.uses()[id] > 0) {
                return Err("only its first result is computed".into());
            }
            same()
        }
        "Softmax" | "LogSoftmax" => {
            let at = softmax_axis(ir, node, x.len())?;
            if ir.opset < 13 {
                x[at..].iter().try_for_each(|&d| one_image("it", d).map(|_| ()))?;
            }
            one_image("it", x[at])?;
            same()
        }
        "Dropout" if drops(ir, node) => {
            Err("its training_mode is on, so that it drops values by chance whenever the network runs: \
                                             export it in evaluation mode (model.eval())"
                .into())
        }
        "Abs" | "Cast" | "CastLike" | "Celu" | "Ceil" | "Clip" | "Dropout" | "Elu" | "Erf" | "Exp" | "Floor"
        | "Gelu" | "HardSigmoid" | "HardSwish" | "Identity" | "LeakyRelu" | "Log" | "Mish" | "Neg" | "Reciprocal"
        | "Relu" | "Selu" | "Sigmoid" | "Softplus" | "Softsign" | "Sqrt" | "Swish" | "Tanh" | "ThresholdedRelu"
        | "Round" | "Sign" => same(),
        "Add" | "Div" | "Max" | "Mean" | "Min" | "Mul" | "PRelu" | "Pow" | "Sub" | "Sum" => {
            let mut out = x.to_vec();
            for i in 1..node.inputs.len() {
                out = broadcast(&out, shape(i)?)?;
            }
            Ok(vec![out])
        }
        "Expand" => {
            let to = ir.known(node, 1).and_then(|c| c.as_dims()).ok_or("its shape is not known beforehand")?;
            Ok(vec![broadcast(x, to)?])
        }
        "Gemm" => {
            let w = shape(1)?;
            if x.len() != 2 || w.len() != 2 {
                return Err(format!("expected matrices, found {} and {}", written(x), written(w)));
            }
            if node.int("transA") == Some(1) {
                return Err("transA turns the batch".into());
            }
            let (k, n) = if node.int("transB") == Some(1) { (w[1], w[0]) } else { (w[0], w[1]) };
            one_image("its sum", x[1])?;
            if k != x[1] || n.batch {
                return Err(format!("{} times {} do not fit", written(x), written(w)));
            }
            if let Some(bias) = node
                .input(2)
                .and_then(|id| ir.shape(id))
                .filter(|bias| bias.len() > 2 || bias.len() == 2 && bias[0].n != 1)
            {
                return Err(format!(
                    "its bias of shape {} is another for each row: expected (1, {n}) or ({n})",
                    written(bias)
                ));
            }
            Ok(vec![vec![x[0], n]])
        }
        "MatMul" => {
            let w = shape(1)?;
            if x.len() < 2 || w.len() < 2 {
                return Err(format!("expected matrices, found {} and {}", written(x), written(w)));
            }
            let (m, k) = (x[x.len() - 2], x[x.len() - 1]);
            let (k_w, n) = (w[w.len() - 2], w[w.len() - 1]);
            one_image("its sum", k)?;
            if k != k_w {
                return Err(format!("{} times {} do not fit", written(x), written(w)));
            }
            let mut out = broadcast(&x[..x.len() - 2], &w[..w.len() - 2])?;
            if n.batch || m.batch && out.iter().any(|d| d.batch) {
                return Err("multiplies images with each other".into());
            }
            out.extend([m, n]);
            Ok(vec![out])
        }
        "Flatten" => {
            let at = match node.int("axis").unwrap_or(1) {
                n if n < 0 => (n + x.len() as i64).max(0) as usize,
                n => (n as usize).min(x.len()),
            };
            let product = |dims: &[Dim]| dims.iter().try_fold(Dim::fixed(1), |p, &d| times(p, d));
            Ok(vec![vec![product(&x[..at])?, product(&x[at..])?]])
        }
        "Reshape" => {
            let to = ir.known(node, 1).and_then(|c| c.as_dims()).ok_or("its shape is not known beforehand")?;
            Ok(vec![reshape(x, to, node.int("allowzero") == Some(1), ir.single)?])
        }
        "Squeeze" => {
            let all = || (0..x.len() as i64).filter(|&i| x[i as usize] == Dim::fixed(1)).collect();
            let gone = axes_of(ir, node).unwrap_or_else(all);
            let gone: Vec<usize> = gone.iter().map(|&a| axis(a, x.len())).collect::<Result<_, _>>()?;
            // Of the one image that the file takes, the logits without the batch: that axis stays.
            let stays = |a: usize| x[a] == Dim::BATCH && is_last(ir, node);
            let gone: Vec<usize> = gone.into_iter().filter(|&a| !stays(a)).collect();
            if let Some(&a) = gone.iter().find(|&&a| x[a].batch) {
                return Err(format!("takes axis {a} off {}, which is the batch: expected it to stay", written(x)));
            }
            if let Some(&a) = gone.iter().find(|&&a| x[a] != Dim::fixed(1)) {
                return Err(format!("axis {a} of {} is not of length 1", written(x)));
            }
            Ok(vec![(0..x.len()).filter(|i| !gone.contains(i)).map(|i| x[i]).collect()])
        }
        "Unsqueeze" => {
            let added = axes_of(ir, node).ok_or("its axes are not known beforehand")?;
            let rank = x.len() + added.len();
            let mut at: Vec<usize> = added.iter().map(|&a| axis(a, rank)).collect::<Result<_, _>>()?;
            at.sort_unstable();
            let mut out = x.to_vec();
            for a in at {
                out.insert(a.min(out.len()), Dim::fixed(1));
            }
            Ok(vec![out])
        }
        "Transpose" => {
            let perm = permutation(node, x.len())?;
            Ok(vec![perm.iter().map(|&a| x[a]).collect()])
        }
        "Concat" => {
            let at = axis(node.int("axis").unwrap_or(0), x.len())?;
            let mut out = x.to_vec();
            for i in 1..node.inputs.len() {
                let part = shape(i)?;
                if part.len() != out.len() {
                    return Err(format!("parts {} and {} do not fit", written(&out), written(part)));
                }
                for a in 0..out.len() {
                    if a == at {
                        out[a] = Dim::fixed(one_image("it", out[a])? + one_image("it", part[a])?);
                    } else if out[a].n == part[a].n {
                        out[a].batch |= part[a].batch;
                    } else {
                        return Err(format!("parts {} and {} do not fit", written(&out), written(part)));
                    }
                }
            }
            one_image("it", out[at])?;
            Ok(vec![out])
        }
        "Split" => {
            let at = axis(node.int("axis").unwrap_or(0), x.len())?;
            let n = one_image("it", x[at])?;
            let part = |count: usize| {
                let mut out = x.to_vec();
                out[at] = Dim::fixed(count as i64);
                out
            };
            Ok(parts(ir, node, n as usize)?.into_iter().map(part).collect())
        }
        "Slice" => {
            let ranges = slices(ir, node, x)?.ok_or("where it cuts is not known beforehand")?;
            let cut = |(d, r): (&Dim, &Range)| Dim { n: r.count as i64, ..*d };
            positive(x.iter().zip(&ranges).map(cut).collect())
        }
        "Gather" => {
            let at = axis(node.int("axis").unwrap_or(0), x.len())?;
            one_image("it", x[at])?;
            let indices = ir.known(node, 1).ok_or("its indices are not known beforehand")?;
            let inner: Vec<Dim> = indices.shape.iter().map(|&n| Dim::fixed(n as i64)).collect();
            Ok(vec![[&x[..at], &inner, &x[at + 1..]].concat()])
        }
        "Pad" => {
            let (before, after, _) = pads(ir, node, x.len())?.ok_or("its pads are not known beforehand")?;
            let mut out = Vec::new();
            for (i, &d) in x.iter().enumerate() {
                if d.batch && (before[i] != 0 || after[i] != 0) {
                    return Err("pads the batch".into());
                }
                out.push(Dim { n: d.n + before[i] + after[i], ..d });
            }
            positive(out)
        }
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceL1" | "ReduceL2" | "ReduceSumSquare" => {
            let axes = reduced(ir, node, x.len())?;
            let keep = node.int("keepdims").unwrap_or(1) == 1;
            let mut out = Vec::new();
            for (i, &d) in x.iter().enumerate() {
                match (axes.contains(&i), keep) {
                    (false, _) => out.push(d),
                    (true, keep) => {
                        one_image("it", d)?;
                        if keep {
                            out.push(Dim::fixed(1));
                        }
                    }
                }
            }
            Ok(vec![out])
        }
        "Resize" | "Upsample" => {
            let Asked { scales, sizes } = asked(ir, node, x.len())?;
            let mut out = x.to_vec();
            for (i, size) in sizes.into_iter().flatten().enumerate() {
                let Some(size) = size else { continue };
                if x[i].batch && size.n != x[i].n {
                    return Err("resizes the batch".into());
                }
                out[i] = if x[i].batch { x[i] } else { size };
            }
            for (i, scale) in scales.into_iter().flatten().enumerate() {
                let n = (x[i].n as f32 * scale).floor();
                if !(1.0..=1e9).contains(&n) || x[i].batch && scale != 1.0 {
                    return Err(format!("a scale of {scale} for {}", x[i]));
                }
                out[i].n = n as i64;
            }
            positive(out)
        }
        op => {
            Err(format!("what `{op}` reads is not known beforehand: it is only understood as arithmetic of constants"))
        }
    }
}

fn mixed(x: &[Dim]) -> String {
    format!("expected the batch as its first dimension, found {}: images would be mixed", written(x))
}

fn positive(out: Vec<Dim>) -> Result<Vec<Vec<Dim>>, String> {
    if out.iter().all(|d| d.n > 0) { Ok(vec![out]) } else { Err(format!("nothing is left: {}", written(&out))) }
}

/// Whether a node gives the logits, of a file that takes one image.
fn is_last(ir: &Ir, node: &Node) -> bool {
    ir.single && node.outputs.first() == Some(&ir.output)
}

/// Whether a Gather takes the first of one image: `y[0]`.
fn takes_the_image(ir: &Ir, node: &Node) -> bool {
    if node.op != "Gather" {
        return false;
    }
    let Some(x) = node.input(0).and_then(|id| ir.shape(id)) else { return false };
    let first = ir.known(node, 1).and_then(|c| c.scalar()).is_some_and(|index| index == 0.0 || index == -1.0);
    first && axis(node.int("axis").unwrap_or(0), x.len()).is_ok_and(|at| x[at] == Dim::BATCH)
}

/// Whether a node makes the logits of one image a row without the batch: `y.flatten()`, `y.reshape(-1)`.
fn flattens_the_image(ir: &Ir, node: &Node) -> bool {
    let Some([Dim::BATCH, logits]) = node.input(0).and_then(|id| ir.shape(id)) else { return false };
    match node.op.as_str() {
        "Flatten" => node.int("axis") == Some(0),
        "Reshape" => {
            let to = ir.known(node, 1).and_then(|c| c.as_dims());
            to.is_some_and(|to| to.len() == 1 && (to[0].n == -1 || to[0] == *logits))
        }
        _ => false,
    }
}

/// The shape of a Reshape. Where the file takes one image (`single`), a plain number of its target may stand for the batch.
///
/// # Errors
/// When the elements do not fit.
pub fn reshape(x: &[Dim], to: &[Dim], zero: bool, single: bool) -> Result<Vec<Dim>, String> {
    let wrong = || format!("{} does not fit {}", written(x), written(to));
    let mut out = Vec::with_capacity(to.len());
    for (i, &d) in to.iter().enumerate() {
        out.push(if d.n == 0 && !zero { *x.get(i).ok_or_else(wrong)? } else { d });
    }
    let all = x.iter().try_fold(Dim::fixed(1), |p, &d| times(p, d))?;
    let open = out.iter().position(|d| d.n == -1);
    let known = out.iter().filter(|d| d.n != -1).try_fold(Dim::fixed(1), |p, &d| times(p, d))?;
    if known.batch && !all.batch {
        return Err(wrong());
    }
    if let Some(at) = open {
        if known.n <= 0 || all.n % known.n != 0 {
            return Err(wrong());
        }
        out[at] = Dim::fixed(all.n / known.n);
    }
    if out.iter().any(|d| d.n < 0) || out.iter().try_fold(1i64, |p, d| p.checked_mul(d.n)) != Some(all.n) {
        return Err(wrong());
    }
    if !all.batch {
        return Ok(out);
    }
    // Values before those of the next image: there the batch has to be found again.
    let mut before = 1i64;
    for d in x {
        if d.batch {
            before = before.saturating_mul(d.outer);
            break;
        }
        before = before.saturating_mul(d.n);
    }
    let (mut product, mut places) = (1i64, Vec::new());
    for (i, d) in out.iter().enumerate() {
        let outer = before / product.max(1);
        let fits = before % product.max(1) == 0 && outer > 0 && d.n % outer == 0;
        // Said to be the batch, left open, or, where the file takes one image, any number.
        let may = if known.batch { d.batch } else { single || open == Some(i) };
        if fits && may {
            places.push((i, outer));
        }
        product = product.saturating_mul(d.n);
    }
    // Of several an axis of its own, behind what stood before the batch: there the heads of attention are joined to it. In the last one it
    // would be among the values that layers sum over.
    let own = places.iter().find(|(i, outer)| *outer == 1 && i + 1 < out.len());
    let Some(&(at, outer)) = own.or(places.first()) else {
        return Err(format!("{} as {} puts values of several images into one", written(x), written(&out)));
    };
    out[at] = Dim { n: out[at].n, batch: true, outer };
    Ok(out)
}

/// Whether a Dropout does so in use: its third input is on, or not known beforehand, and its ratio is not 0.
fn drops(ir: &Ir, node: &Node) -> bool {
    let on = node.input(2).is_some() && ir.known(node, 2).and_then(Constant::scalar) != Some(0.0);
    on && !ir.known(node, 1).and_then(Constant::scalar).is_some_and(|ratio| ratio == 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::graph::ir::{Attr, node};

    fn dims(shape: &[i64]) -> Vec<Dim> {
        shape.iter().map(|&n| if n == 0 { Dim::BATCH } else { Dim::fixed(n) }).collect()
    }

    #[test]
    fn a_reshape_finds_the_batch_again() {
        let of = |x: &[i64], to: &[i64], single: bool| {
            let to: Vec<Dim> = to.iter().map(|&n| Dim::fixed(n)).collect();
            reshape(&dims(x), &to, false, single).map(|shape| written(&shape))
        };
        assert_eq!(of(&[0, 6, 4], &[-1, 24], false).unwrap(), "[N, 24]");
        assert_eq!(of(&[0, 6, 4], &[0, -1], false).unwrap(), "[N, 24]");
        // What a file that takes one image calls 1 is every image.
        assert_eq!(of(&[0, 6, 4], &[1, 24], true).unwrap(), "[N, 24]");
        assert_eq!(of(&[0, 6, 4], &[1, -1], true).unwrap(), "[N, 24]");
        assert!(of(&[0, 6, 4], &[1, 24], false).is_err());
        // Windows in the batch, and back.
        let windows = reshape(&dims(&[0, 2, 2, 9, 8]), &[4, 9, 8].map(Dim::fixed), false, true).unwrap();
        assert_eq!(written(&windows), "[4N, 9, 8]");
        assert_eq!(
            written(&reshape(&windows, &[1, 2, 2, 9, 8].map(Dim::fixed), false, true).unwrap()),
            "[N, 2, 2, 9, 8]"
        );
        assert!(of(&[0, 6, 4], &[-1, 7], false).is_err());
        // Tokens first, images inside: still every image alone, and found again.
        let inside = reshape(&dims(&[6, 0, 4]), &[-1, 4].map(Dim::fixed), false, false).unwrap();
        assert_eq!((written(&inside), inside[0].outer), ("[6N, 4]".into(), 6));
        let back = reshape(&inside, &[Dim::fixed(6), Dim::BATCH, Dim::fixed(4)], false, false).unwrap();
        assert_eq!(written(&back), "[6, N, 4]");
        // Attention of tokens first, from a file that takes one image: heads are joined to the images, values are not.
        assert_eq!(of(&[17, 0, 24], &[17, 3, 8], true).unwrap(), "[17, 3N, 8]");
        assert_eq!(of(&[17, 0, 3, 8], &[17, 24], true).unwrap(), "[17N, 24]");
        // Values of two images in one row.
        assert!(of(&[6, 0, 4], &[3, -1], true).is_ok());
        assert!(of(&[6, 0, 5], &[5, 6], true).unwrap_err().contains("values of several images"));
    }

    #[test]
    fn what_the_file_made_for_one_image_serves_all() {
        assert_eq!(written(&broadcast(&dims(&[0, 4, 8]), &dims(&[1, 1, 8])).unwrap()), "[N, 4, 8]");
        let windows = [Dim::new(4, true), Dim::fixed(9)];
        assert_eq!(written(&broadcast(&windows, &dims(&[4, 9])).unwrap()), "[4N, 9]");
        assert!(broadcast(&windows, &dims(&[3, 9])).is_err());
    }

    /// As `x[:, [2, 1, 0]]` comes from PyTorch's exporter.
    #[test]
    fn indexing_by_a_list_is_a_gather() {
        let mut ir = Ir { opset: 18, ..Ir::default() };
        let [x, first, turned, y] = ["x", "first", "turned", "y"].map(|name| ir.add(name, None));
        let list = |n: i64| Constant::ints(&[n as usize, 1], (0..n).rev().map(Dim::fixed).collect());
        let numbers = ir.add_constant("numbers", list(3));
        (ir.input, ir.output) = (x, y);
        let turn = |from: Id, to: Id| {
            let mut turn = node("Transpose", &[from], to);
            turn.set("perm", Attr::Ints(vec![1, 0, 2, 3]));
            turn
        };
        ir.nodes = vec![turn(x, first), node("GatherND", &[first, numbers], turned), turn(turned, y)];
        run(&mut ir, [3, 4, 6]).unwrap();
        assert_eq!(
            ir.nodes.iter().map(|node| node.op.as_str()).collect::<Vec<_>>(),
            ["Transpose", "Gather", "Transpose"]
        );
        assert_eq!(written(ir.shape(y).unwrap()), "[N, 3, 4, 6]");
        // Of images it takes some, and not of each its own.
        let problem = shaped("GatherND", &[Some(list(2))], &[]).unwrap_err();
        assert!(problem.contains("images"), "{problem}");
    }

    /// The shape that a node of this operator gives to images of 3 channels and 4x6 pixels.
    fn shaped(op: &str, inputs: &[Option<Constant>], attrs: &[(&str, Attr)]) -> Result<String, String> {
        shaped_in(Ir { opset: 18, ..Ir::default() }, op, inputs, attrs)
    }

    fn shaped_in(mut ir: Ir, op: &str, inputs: &[Option<Constant>], attrs: &[(&str, Attr)]) -> Result<String, String> {
        ir.input = ir.add("x", None);
        let rest: Vec<Option<Id>> =
            inputs.iter().map(|c| c.as_ref().map(|c| ir.add_constant("c", c.clone()))).collect();
        ir.output = ir.add("y", None);
        let mut made = node(op, &[ir.input], ir.output);
        made.inputs.extend(rest);
        attrs.iter().for_each(|(key, value)| made.set(key, value.clone()));
        ir.nodes.push(made);
        run(&mut ir, [3, 4, 6]).map(|()| written(ir.shape(ir.output).unwrap()))
    }

    /// Of a file that takes one image: `y.squeeze(0)`, `y[0]`.
    #[test]
    fn the_logits_of_the_one_image_are_those_of_each() {
        let of = |single: bool, op: &str, constant: Constant| {
            shaped_in(Ir { opset: 18, single, ..Ir::default() }, op, &[Some(constant)], &[])
        };
        let index = |i: i64| Constant::ints(&[], vec![Dim::fixed(i)]);
        assert_eq!(of(true, "Squeeze", Constant::list(&[0])).unwrap(), "[N, 3, 4, 6]");
        assert_eq!(of(true, "Gather", index(0)).unwrap(), "[N, 3, 4, 6]");
        assert_eq!(of(true, "Gather", index(-1)).unwrap(), "[N, 3, 4, 6]");
        assert!(of(true, "Reshape", Constant::list(&[-1])).unwrap().contains("72N"), "of pictures, not of logits");
        assert!(of(false, "Squeeze", Constant::list(&[0])).unwrap_err().contains("axis 0"));
        assert!(of(true, "Squeeze", Constant::list(&[1])).unwrap_err().contains("axis 1"));
        assert!(of(false, "Gather", index(0)).is_err());
        assert!(of(true, "Gather", index(1)).is_err());
    }

    #[test]
    fn a_resize_may_name_the_axes_it_is_for() {
        let of = |scales: Option<Constant>, sizes: Option<Constant>, axes: &[i64]| {
            shaped("Resize", &[None, scales, sizes], &[("axes", Attr::Ints(axes.to_vec()))])
        };
        assert_eq!(of(None, Some(Constant::list(&[5, 11])), &[2, 3]).unwrap(), "[N, 3, 5, 11]");
        assert_eq!(of(None, Some(Constant::list(&[5, 11])), &[-1, -2]).unwrap(), "[N, 3, 11, 5]");
        assert_eq!(of(Some(Constant::floats(&[1], vec![1.5])), None, &[3]).unwrap(), "[N, 3, 4, 9]");
        for (axes, part) in
            [(&[2, 2][..], "expected different ones"), (&[4], "expected different ones"), (&[3], "found 2")]
        {
            let problem = of(None, Some(Constant::list(&[5, 11])), axes).unwrap_err();
            assert!(problem.contains(part), "{problem}");
        }
        let policy = ("keep_aspect_ratio_policy", Attr::Text("not_larger".into()));
        let problem = shaped("Resize", &[None, None, Some(Constant::list(&[1, 3, 5, 11]))], &[policy]).unwrap_err();
        assert!(problem.contains("keep_aspect_ratio_policy `not_larger`"), "{problem}");
    }

    #[test]
    fn what_drops_values_by_chance_is_no_network_in_use() {
        let of = |ratio: f32, training: i64| {
            shaped(
                "Dropout",
                &[Some(Constant::floats(&[], vec![ratio])), Some(Constant::ints(&[], vec![Dim::fixed(training)]))],
                &[],
            )
        };
        assert_eq!(of(0.5, 0).unwrap(), "[N, 3, 4, 6]");
        assert_eq!(of(0.0, 1).unwrap(), "[N, 3, 4, 6]");
        assert_eq!(shaped("Dropout", &[], &[]).unwrap(), "[N, 3, 4, 6]");
        assert!(of(0.5, 1).unwrap_err().contains("training_mode is on"));
    }
}
