//! What can be computed beforehand: shape arithmetic with the batch as an unknown factor, masks, tables of positions.

use half::{bf16, f16};

use super::ir::{Attr, Constant, Data, Dim, Ir, Node};
use super::operands::{
    MAX_VALUES, axes_of, axis, bounded, broadcast, expanded, gather, next, pads, parts, pick, slices, strides, times,
};
use super::tables::{einsum, gather_nd, matmul};

/// Functions of two operands that broadcast.
const BINARY: [&str; 15] = [
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "Pow",
    "Sub",
];

/// The results of a node whose inputs are known, `None` when they are not.
///
/// # Errors
/// What is wrong, in words without the node.
pub fn evaluate(ir: &Ir, node: &Node) -> Result<Option<Vec<Constant>>, String> {
    let one = |c: Constant| Ok(Some(vec![c]));
    match node.op.as_str() {
        "Constant" => return one(constant(node)?),
        "Shape" | "Size" => {
            let Some(shape) = node.input(0).and_then(|id| ir.shape(id)) else { return Ok(None) };
            if node.op == "Size" {
                let size = shape.iter().try_fold(Dim::fixed(1), |product, &d| times(product, d))?;
                return one(Constant::ints(&[], vec![size]));
            }
            let at = |key: &str, default: i64| {
                let n = shape.len() as i64;
                let v = node.int(key).unwrap_or(default);
                (if v < 0 { v + n } else { v }).clamp(0, n) as usize
            };
            let (start, end) = (at("start", 0), at("end", shape.len() as i64));
            let length = |d: &Dim| Dim::new(d.n, d.batch);
            let dims: Vec<Dim> = shape.get(start..end.max(start)).unwrap_or_default().iter().map(length).collect();
            return one(Constant::ints(&[dims.len()], dims));
        }
        _ => {}
    }
    let Some(inputs) = node.inputs.iter().flatten().map(|&id| ir.constant(Some(id))).collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let Some(&x) = inputs.first() else { return Ok(None) };
    let input = |i: usize| ir.known(node, i);
    let ints = |i: usize| input(i).and_then(Constant::as_ints);
    let result = match node.op.as_str() {
        "Identity" | "Dropout" => x.clone(),
        "ConstantOfShape" => {
            let Some(shape) = ints(0) else { return Ok(None) };
            let shape = sizes(&shape)?;
            let n: usize = shape.iter().product();
            match node.attrs.get("value") {
                Some(Attr::Tensor(Constant { data: Data::Ints(v), .. })) if v.len() == 1 => {
                    Constant::ints(&shape, vec![v[0]; n])
                }
                Some(Attr::Tensor(Constant { data: Data::Floats(v), .. })) if v.len() == 1 => {
                    Constant::floats(&shape, vec![v[0]; n])
                }
                None => Constant::floats(&shape, vec![0.0; n]),
                _ => return Err("expected one value to fill with".into()),
            }
        }
        "Cast" | "CastLike" => {
            let float = match node.op.as_str() {
                "Cast" => matches!(node.int("to"), Some(1 | 10 | 11 | 16)),
                _ => matches!(input(1).map(|c| &c.data), Some(Data::Floats(_))),
            };
            let boolean = node.int("to") == Some(9);
            let wrapped = |d: Dim| if d.batch { d } else { Dim::fixed(wrapped(d.n, node.int("to"))) };
            match (&x.data, float) {
                (Data::Floats(v), true) => match node.int("to") {
                    Some(10) => Constant::floats(&x.shape, v.iter().map(|&v| f16::from_f32(v).to_f32()).collect()),
                    Some(16) => Constant::floats(&x.shape, v.iter().map(|&v| bf16::from_f32(v).to_f32()).collect()),
                    _ => x.clone(),
                },
                (Data::Ints(v), true) => {
                    if v.iter().any(|d| d.batch) {
                        return Ok(None);
                    }
                    Constant::floats(&x.shape, v.iter().map(|d| d.n as f32).collect())
                }
                (Data::Floats(v), false) => {
                    let whole = |v: f32| if boolean { i64::from(v != 0.0) } else { v as i64 };
                    Constant::ints(&x.shape, v.iter().map(|&v| wrapped(Dim::fixed(whole(v)))).collect())
                }
                (Data::Ints(v), false) if boolean => {
                    Constant::ints(&x.shape, v.iter().map(|d| Dim::fixed(i64::from(d.n != 0))).collect())
                }
                (Data::Ints(v), false) => Constant::ints(&x.shape, v.iter().map(|&d| wrapped(d)).collect()),
            }
        }
        "Range" => {
            let step = |v: &Constant| v.scalar().ok_or("expected single numbers");
            let (Some(from), Some(to), Some(by)) = (input(0), input(1), input(2)) else {
                return Err("expected start, limit and delta".into());
            };
            if [from, to, by].iter().any(|c| c.as_dims().is_some_and(|d| d.iter().any(|d| d.batch))) {
                return Ok(None);
            }
            let float = from.as_floats().is_some();
            let (from, to, by) = (f64::from(step(from)?), f64::from(step(to)?), f64::from(step(by)?));
            let count = ((to - from) / by).ceil().max(0.0);
            if count.is_nan() || count > MAX_VALUES as f64 {
                return Err(format!("a range of {count} values"));
            }
            let values = (0..count as usize).map(|i| from + i as f64 * by);
            match float {
                true => Constant::floats(&[count as usize], values.map(|v| v as f32).collect()),
                false => Constant::ints(&[count as usize], values.map(|v| Dim::fixed(v as i64)).collect()),
            }
        }
        "Reshape" => {
            let Some(to) = ints(1) else { return Ok(None) };
            let shape = reshaped(&x.shape, &to, node.int("allowzero") == Some(1))?;
            Constant { shape, data: x.data.clone() }
        }
        "Flatten" => {
            let at = match node.int("axis").unwrap_or(1) {
                n if n < 0 => (n + x.shape.len() as i64).max(0) as usize,
                n => (n as usize).min(x.shape.len()),
            };
            let shape = vec![x.shape[..at].iter().product(), x.shape[at..].iter().product()];
            Constant { shape, data: x.data.clone() }
        }
        "Unsqueeze" => {
            let added = axes_of(ir, node).unwrap_or_default();
            let rank = x.shape.len() + added.len();
            let mut at: Vec<usize> = added.iter().map(|&a| axis(a, rank)).collect::<Result<_, _>>()?;
            at.sort_unstable();
            let mut shape = x.shape.clone();
            for a in at {
                shape.insert(a.min(shape.len()), 1);
            }
            Constant { shape, data: x.data.clone() }
        }
        "Squeeze" => {
            let all = || (0..x.shape.len() as i64).filter(|&i| x.shape[i as usize] == 1).collect();
            let gone = axes_of(ir, node).unwrap_or_else(all);
            let gone: Vec<usize> = gone.iter().map(|&a| axis(a, x.shape.len())).collect::<Result<_, _>>()?;
            let kept = |(i, &n): (usize, &usize)| (!gone.contains(&i)).then_some(n);
            Constant { shape: x.shape.iter().enumerate().filter_map(kept).collect(), data: x.data.clone() }
        }
        "Transpose" => {
            let rank = x.shape.len();
            let reversed: Vec<i64> = (0..rank as i64).rev().collect();
            let perm: Vec<usize> =
                node.ints("perm").unwrap_or(&reversed).iter().map(|&a| axis(a, rank)).collect::<Result<_, _>>()?;
            if perm.len() != rank {
                return Err(format!("a permutation of {} axes for {rank}", perm.len()));
            }
            let from = strides(&x.shape);
            let shape: Vec<usize> = perm.iter().map(|&a| x.shape[a]).collect();
            gather(x, &shape, |index| index.iter().zip(&perm).map(|(i, &a)| i * from[a]).sum())?
        }
        "Expand" => {
            let Some(to) = ints(1) else { return Ok(None) };
            let shape = broadcast(&x.shape, &sizes(&to)?)?;
            expanded(x, &shape)?
        }
        "Tile" => {
            let Some(repeats) = ints(1) else { return Ok(None) };
            let repeats = sizes(&repeats)?;
            if repeats.len() != x.shape.len() {
                return Err(format!("{} repeats for {} axes", repeats.len(), x.shape.len()));
            }
            let shape: Vec<usize> = x.shape.iter().zip(&repeats).map(|(n, r)| n * r).collect();
            let from = strides(&x.shape);
            gather(x, &shape, |index| index.iter().enumerate().map(|(a, i)| i % x.shape[a].max(1) * from[a]).sum())?
        }
        "Concat" => {
            let at = axis(node.int("axis").unwrap_or(0), x.shape.len())?;
            let outer: usize = x.shape[..at].iter().product();
            let mut shape = x.shape.clone();
            shape[at] = 0;
            for part in &inputs {
                if part.shape.len() != x.shape.len() {
                    return Err("parts of different rank".into());
                }
                shape[at] += part.shape[at];
            }
            if shape[at] > x.shape[at] {
                bounded(inputs.iter().map(|part| part.len()).fold(0, usize::saturating_add))?;
            }
            fn joined<T: Copy>(parts: &[&[T]], outer: usize) -> Vec<T> {
                let row = |o: usize| {
                    parts.iter().flat_map(move |p| p[o * p.len() / outer..(o + 1) * p.len() / outer].iter().copied())
                };
                (0..outer).flat_map(row).collect()
            }
            let floats: Option<Vec<&[f32]>> = inputs.iter().map(|c| c.as_floats()).collect();
            let dims: Option<Vec<&[Dim]>> = inputs.iter().map(|c| c.as_dims()).collect();
            match (floats, dims) {
                (Some(parts), _) => Constant::floats(&shape, joined(&parts, outer.max(1))),
                (_, Some(parts)) => Constant::ints(&shape, joined(&parts, outer.max(1))),
                _ => return Err("parts of different types".into()),
            }
        }
        "Gather" => {
            let Some(indices) = input(1) else { return Ok(None) };
            let Some(values) = indices.as_ints() else { return Ok(None) };
            let at = axis(node.int("axis").unwrap_or(0), x.shape.len())?;
            let n = x.shape[at];
            let places: Vec<usize> = values.iter().map(|&i| axis(i, n)).collect::<Result<_, _>>()?;
            let shape = [&x.shape[..at], &indices.shape, &x.shape[at + 1..]].concat();
            let (inner, outer): (usize, usize) = (x.shape[at + 1..].iter().product(), x.shape[..at].iter().product());
            bounded(
                shape.iter().try_fold(1usize, |p, &n| p.checked_mul(n)).unwrap_or(usize::MAX).saturating_sub(x.len()),
            )?;
            let picked = (0..outer)
                .flat_map(|o| places.iter().flat_map(move |&p| (0..inner).map(move |i| (o * n + p) * inner + i)));
            pick(x, &shape, picked)?
        }
        "Slice" => {
            let ranges = match slices(ir, node, &x.shape.iter().map(|&n| Dim::fixed(n as i64)).collect::<Vec<_>>())? {
                Some(ranges) => ranges,
                None => return Ok(None),
            };
            let from = strides(&x.shape);
            let shape: Vec<usize> = ranges.iter().map(|r| r.count).collect();
            gather(x, &shape, |index| {
                index
                    .iter()
                    .zip(&ranges)
                    .zip(&from)
                    .map(|((&i, r), s)| (r.start + i as i64 * r.step) as usize * s)
                    .sum()
            })?
        }
        "Split" => {
            let at = axis(node.int("axis").unwrap_or(0), x.shape.len())?;
            let counts = parts(ir, node, x.shape[at])?;
            let from = strides(&x.shape);
            let mut first = 0;
            let mut results = Vec::new();
            for count in counts {
                let mut shape = x.shape.clone();
                shape[at] = count;
                results.push(gather(x, &shape, |index| {
                    index.iter().enumerate().map(|(a, i)| (i + if a == at { first } else { 0 }) * from[a]).sum()
                })?);
                first += count;
            }
            return Ok(Some(results));
        }
        "Pad" => {
            let Some((before, after, mode)) = pads(ir, node, x.shape.len())? else { return Ok(None) };
            let fill = input(2).and_then(Constant::scalar).or(node.float("value")).unwrap_or(0.0);
            if mode != "constant" || before.iter().chain(&after).any(|&p| p < 0) {
                return Ok(None);
            }
            let shape: Vec<usize> = x
                .shape
                .iter()
                .zip(before.iter().zip(&after))
                .map(|(&n, (b, a))| n + *b as usize + *a as usize)
                .collect();
            let from = strides(&x.shape);
            let n: usize = shape.iter().product();
            bounded(n)?;
            let mut values = vec![fill; n];
            let Some(own) = x.as_floats() else { return Ok(None) };
            let mut index = vec![0; shape.len()];
            for value in &mut values {
                let at: Option<usize> = index.iter().enumerate().try_fold(0, |sum, (a, &i): (usize, &usize)| {
                    let i = i as i64 - before[a];
                    (i >= 0 && (i as usize) < x.shape[a]).then(|| sum + i as usize * from[a])
                });
                if let Some(at) = at {
                    *value = own[at];
                }
                next(&mut index, &shape);
            }
            Constant::floats(&shape, values)
        }
        "Where" => {
            let (Some(a), Some(b)) = (input(1), input(2)) else { return Err("expected three operands".into()) };
            let shape = broadcast(&broadcast(&x.shape, &a.shape)?, &b.shape)?;
            let (c, a, b) = (expanded(x, &shape)?, expanded(a, &shape)?, expanded(b, &shape)?);
            let Some(c) = c.as_ints() else { return Err("expected truth values first".into()) };
            match (&a.data, &b.data) {
                (Data::Floats(a), Data::Floats(b)) => Constant::floats(
                    &shape,
                    c.iter().zip(a.iter().zip(b.iter())).map(|(&c, (&a, &b))| if c != 0 { a } else { b }).collect(),
                ),
                (Data::Ints(a), Data::Ints(b)) => Constant::ints(
                    &shape,
                    c.iter().zip(a.iter().zip(b.iter())).map(|(&c, (&a, &b))| if c != 0 { a } else { b }).collect(),
                ),
                _ => return Err("operands of different types".into()),
            }
        }
        "GatherND" => {
            let Some(indices) = input(1) else { return Err("expected indices".into()) };
            match gather_nd(x, indices, node.int("batch_dims").unwrap_or(0))? {
                Some(c) => c,
                None => return Ok(None),
            }
        }
        "Einsum" => match einsum(node.text("equation").unwrap_or_default(), &inputs)? {
            Some(c) => c,
            None => return Ok(None),
        },
        "ScatterND" => {
            let (Some(places), Some(new)) = (input(1), input(2)) else {
                return Err("expected indices and updates".into());
            };
            match scattered(x, places, new, node.text("reduction").unwrap_or("none"))? {
                Some(c) => c,
                None => return Ok(None),
            }
        }
        "Trilu" => {
            let k = ints(1).and_then(|k| k.first().copied()).unwrap_or(0);
            let upper = node.int("upper").unwrap_or(1) == 1;
            let &[.., rows, cols] = x.shape.as_slice() else { return Err("expected matrices".into()) };
            let keep = |at: usize| {
                let (r, c) = ((at / cols.max(1) % rows.max(1)) as i64, (at % cols.max(1)) as i64);
                if upper { c >= r + k } else { c <= r + k }
            };
            match &x.data {
                Data::Floats(v) => Constant::floats(
                    &x.shape,
                    v.iter().enumerate().map(|(at, &v)| if keep(at) { v } else { 0.0 }).collect(),
                ),
                Data::Ints(v) => Constant::ints(
                    &x.shape,
                    v.iter().enumerate().map(|(at, &v)| if keep(at) { v } else { Dim::fixed(0) }).collect(),
                ),
            }
        }
        "ReduceProd" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceMean" => {
            let axes = axes_of(ir, node).unwrap_or_else(|| (0..x.shape.len() as i64).collect());
            let axes: Vec<usize> = axes.iter().map(|&a| axis(a, x.shape.len())).collect::<Result<_, _>>()?;
            reduce(&node.op, x, &axes, node.int("keepdims").unwrap_or(1) == 1)?
        }
        "MatMul" => {
            let Some(b) = input(1) else { return Err("expected two operands".into()) };
            match matmul(x, b)? {
                Some(c) => c,
                None => return Ok(None),
            }
        }
        "Not" => {
            let Some(v) = x.as_ints() else { return Ok(None) };
            Constant::ints(&x.shape, v.iter().map(|&v| Dim::fixed(i64::from(v == 0))).collect())
        }
        "Max" | "Min" | "Sum" | "Mean" => {
            let op = match node.op.as_str() {
                "Max" => "Max",
                "Min" => "Min",
                _ => "Add",
            };
            let mut total = x.clone();
            for other in &inputs[1..] {
                total = match binary(op, &total, other)? {
                    Some(c) => c,
                    None => return Ok(None),
                };
            }
            match (node.op.as_str(), &total.data) {
                ("Mean", Data::Floats(v)) => {
                    Constant::floats(&total.shape, v.iter().map(|v| v / inputs.len() as f32).collect())
                }
                _ => total,
            }
        }
        op if inputs.len() == 2 && BINARY.contains(&op) => match binary(op, x, inputs[1])? {
            Some(c) => c,
            None => return Ok(None),
        },
        op if inputs.len() == 1 => match (unary(op), &x.data) {
            (Some(f), Data::Floats(v)) => {
                Constant::floats(&x.shape, v.iter().map(|&v| f(f64::from(v)) as f32).collect())
            }
            (_, Data::Ints(v)) if op == "Neg" => {
                Constant::ints(&x.shape, v.iter().map(|d| Dim { n: -d.n, ..*d }).collect())
            }
            (_, Data::Ints(v)) if op == "Abs" => {
                Constant::ints(&x.shape, v.iter().map(|d| Dim { n: d.n.abs(), ..*d }).collect())
            }
            _ => return Ok(None),
        },
        _ => return Ok(None),
    };
    one(result)
}

fn constant(node: &Node) -> Result<Constant, String> {
    let (key, attr) = node.attrs.first_key_value().ok_or("it has no value")?;
    Ok(match attr {
        Attr::Tensor(c) => c.clone(),
        Attr::Float(v) => Constant::floats(&[], vec![*v]),
        Attr::Int(v) => Constant::ints(&[], vec![Dim::fixed(*v)]),
        Attr::Floats(v) => Constant::floats(&[v.len()], v.clone()),
        Attr::Ints(v) => Constant::list(v),
        _ => return Err(format!("its value `{key}` is no tensor of numbers")),
    })
}

/// Integers of shape arithmetic; `None` for what would need the size of the batch.
fn whole(op: &str, a: Dim, b: Dim) -> Result<Option<Dim>, String> {
    let truth = |t: bool| Some(Dim::fixed(i64::from(t)));
    let same = a.batch == b.batch;
    Ok(match op {
        "Mul" => Some(times(a, b)?),
        "Add" | "Sub" if same || a.n == 0 || b.n == 0 => {
            let n = if op == "Add" { a.n.checked_add(b.n) } else { a.n.checked_sub(b.n) };
            let n = n.ok_or_else(|| format!("{a} and {b} are too large"))?;
            Some(Dim::new(n, n != 0 && (a.batch && a.n != 0 || b.batch && b.n != 0)))
        }
        "Div" if b.n == 0 => return Err("divides by 0".into()),
        "Div" if same => Some(Dim::fixed(a.n.wrapping_div(b.n))),
        "Div" if !b.batch && a.n % b.n == 0 => Some(Dim::new(a.n / b.n, a.batch)),
        "Mod" if b.n == 0 => return Err("divides by 0".into()),
        "Mod" if same && !a.batch => Some(Dim::fixed(a.n.rem_euclid(b.n))),
        "Max" if same => Some(Dim { n: a.n.max(b.n), ..a }),
        "Min" if same => Some(Dim { n: a.n.min(b.n), ..a }),
        // No batch is -1 or 0 images, which is what lengths are compared with.
        "Equal" => truth(a == b),
        "Less" if same => truth(a.n < b.n),
        "LessOrEqual" if same => truth(a.n <= b.n),
        "Greater" if same => truth(a.n > b.n),
        "GreaterOrEqual" if same => truth(a.n >= b.n),
        "And" => truth(a.n != 0 && b.n != 0),
        "Or" => truth(a.n != 0 || b.n != 0),
        "Xor" => truth((a.n != 0) != (b.n != 0)),
        "Pow" if !a.batch && !b.batch => {
            let power = u32::try_from(b.n).ok().and_then(|e| a.n.checked_pow(e));
            Some(Dim::fixed(power.ok_or_else(|| format!("{a} to the power of {b}"))?))
        }
        _ => None,
    })
}

/// The sum of two constants.
///
/// # Errors
/// When their shapes or types do not fit.
pub fn sum(a: &Constant, b: &Constant) -> Result<Option<Constant>, String> {
    binary("Add", a, b)
}

/// `x` with parts of it, at `places (.., k)` along its first k axes, taken from `new` or combined with it; later ones come last.
fn scattered(x: &Constant, places: &Constant, new: &Constant, how: &str) -> Result<Option<Constant>, String> {
    let (Some(&k), Some(indices)) = (places.shape.last(), places.as_ints()) else { return Ok(None) };
    if k == 0 || k > x.shape.len() {
        return Err(format!("indices of {k} axes into {}", x.shape.len()));
    }
    let expected = [&places.shape[..places.shape.len() - 1], &x.shape[k..]].concat();
    if new.shape != expected {
        return Err(format!("expected updates of {expected:?}, found {:?}", new.shape));
    }
    let from = strides(&x.shape);
    let inner: usize = x.shape[k..].iter().product();
    let begin = |index: &[i64]| -> Result<usize, String> {
        index.iter().enumerate().map(|(a, &i)| Ok(axis(i, x.shape[a])? * from[a])).sum()
    };
    let begins: Vec<usize> = indices.chunks_exact(k).map(begin).collect::<Result<_, _>>()?;
    fn put<T: Copy>(all: &[T], new: &[T], begins: &[usize], inner: usize, with: impl Fn(T, T) -> T) -> Vec<T> {
        let mut all = all.to_vec();
        for (row, &begin) in begins.iter().enumerate() {
            for i in 0..inner {
                all[begin + i] = with(all[begin + i], new[row * inner + i]);
            }
        }
        all
    }
    Ok(Some(match (&x.data, &new.data) {
        (Data::Floats(all), Data::Floats(new)) => {
            let with: fn(f32, f32) -> f32 = match how {
                "none" => |_, b| b,
                "add" => |a, b| a + b,
                "mul" => |a, b| a * b,
                "max" => f32::max,
                "min" => f32::min,
                other => return Err(format!("reduction `{other}` is unknown")),
            };
            Constant::floats(&x.shape, put(all, new, &begins, inner, with))
        }
        (Data::Ints(all), Data::Ints(new)) if how == "none" => {
            Constant::ints(&x.shape, put(all, new, &begins, inner, |_, b| b))
        }
        _ => return Ok(None),
    }))
}

fn binary(op: &str, a: &Constant, b: &Constant) -> Result<Option<Constant>, String> {
    let shape = broadcast(&a.shape, &b.shape)?;
    let (a, b) = (expanded(a, &shape)?, expanded(b, &shape)?);
    let pair = |f: &dyn Fn(f64, f64) -> f64, a: &[f32], b: &[f32]| -> Vec<f32> {
        a.iter().zip(b).map(|(&a, &b)| f(f64::from(a), f64::from(b)) as f32).collect()
    };
    match (&a.data, &b.data) {
        (Data::Ints(a), Data::Ints(b)) => {
            let mut values = Vec::with_capacity(a.len());
            for (&a, &b) in a.iter().zip(b.iter()) {
                match whole(op, a, b)? {
                    Some(v) => values.push(v),
                    None => return Ok(None),
                }
            }
            Ok(Some(Constant::ints(&shape, values)))
        }
        (Data::Floats(a), Data::Floats(b)) => {
            let truth = |f: &dyn Fn(f32, f32) -> bool| {
                Constant::ints(&shape, a.iter().zip(b.iter()).map(|(&a, &b)| Dim::fixed(i64::from(f(a, b)))).collect())
            };
            let number = |f: &dyn Fn(f64, f64) -> f64| Constant::floats(&shape, pair(f, a, b));
            Ok(Some(match op {
                "Add" => number(&|a, b| a + b),
                "Sub" => number(&|a, b| a - b),
                "Mul" => number(&|a, b| a * b),
                "Div" => number(&|a, b| a / b),
                "Pow" => number(&f64::powf),
                "Max" => number(&f64::max),
                "Min" => number(&f64::min),
                "Mod" => number(&|a, b| a % b),
                "Equal" => truth(&|a, b| a == b),
                "Less" => truth(&|a, b| a < b),
                "LessOrEqual" => truth(&|a, b| a <= b),
                "Greater" => truth(&|a, b| a > b),
                "GreaterOrEqual" => truth(&|a, b| a >= b),
                _ => return Ok(None),
            }))
        }
        (Data::Floats(a), Data::Ints(b)) if op == "Pow" => {
            let exponents: Vec<f32> = b.iter().map(|d| d.n as f32).collect();
            Ok(Some(Constant::floats(&shape, pair(&f64::powf, a, &exponents))))
        }
        _ => Err("operands of different types".into()),
    }
}

/// A function of single numbers, if the operator is one.
fn unary(op: &str) -> Option<fn(f64) -> f64> {
    Some(match op {
        "Abs" => f64::abs,
        "Ceil" => f64::ceil,
        "Exp" => f64::exp,
        "Floor" => f64::floor,
        "Log" => f64::ln,
        "Neg" => |v| -v,
        "Reciprocal" => |v| 1.0 / v,
        "Relu" => |v| v.max(0.0),
        "Round" => f64::round_ties_even,
        "Sigmoid" => |v| 1.0 / (1.0 + (-v).exp()),
        "Sign" => |v| if v == 0.0 { 0.0 } else { v.signum() },
        "Sqrt" => f64::sqrt,
        "Tanh" => f64::tanh,
        _ => return None,
    })
}

fn reduce(op: &str, x: &Constant, axes: &[usize], keep: bool) -> Result<Constant, String> {
    let kept: Vec<usize> = x.shape.iter().enumerate().map(|(i, &n)| if axes.contains(&i) { 1 } else { n }).collect();
    let into = strides(&kept);
    let n: usize = kept.iter().product();
    let shape: Vec<usize> = match keep {
        true => kept.clone(),
        false => (0..kept.len()).filter(|i| !axes.contains(i)).map(|i| kept[i]).collect(),
    };
    let mut places = Vec::with_capacity(x.len());
    let mut index = vec![0; x.shape.len()];
    for _ in 0..x.len() {
        places.push(
            index.iter().enumerate().map(|(a, &i)| if axes.contains(&a) { 0 } else { i * into[a] }).sum::<usize>(),
        );
        next(&mut index, &x.shape);
    }
    match &x.data {
        Data::Floats(v) => {
            let start = match op {
                "ReduceProd" => 1.0,
                "ReduceMax" => f64::NEG_INFINITY,
                "ReduceMin" => f64::INFINITY,
                _ => 0.0,
            };
            let mut sums = vec![start; n];
            for (&v, &at) in v.iter().zip(&places) {
                let v = f64::from(v);
                sums[at] = match op {
                    "ReduceProd" => sums[at] * v,
                    "ReduceMax" => sums[at].max(v),
                    "ReduceMin" => sums[at].min(v),
                    _ => sums[at] + v,
                };
            }
            let count = if op == "ReduceMean" { (x.len() / n.max(1)) as f64 } else { 1.0 };
            Ok(Constant::floats(&shape, sums.into_iter().map(|s| (s / count) as f32).collect()))
        }
        Data::Ints(v) => {
            let name = match op {
                "ReduceProd" => "Mul",
                "ReduceSum" => "Add",
                "ReduceMax" => "Max",
                "ReduceMin" => "Min",
                _ => return Err("a mean of integers".into()),
            };
            let mut sums: Vec<Option<Dim>> = vec![None; n];
            for (&v, &at) in v.iter().zip(&places) {
                sums[at] = Some(match sums[at] {
                    None => v,
                    Some(sum) => whole(name, sum, v)?.ok_or("it needs the size of the batch")?,
                });
            }
            Ok(Constant::ints(&shape, sums.into_iter().map(|s| s.unwrap_or(Dim::fixed(0))).collect()))
        }
    }
}

/// Lengths that are not negative.
fn sizes(values: &[i64]) -> Result<Vec<usize>, String> {
    let sizes: Vec<usize> =
        values.iter().map(|&n| usize::try_from(n).map_err(|_| format!("a length of {n}"))).collect::<Result<_, _>>()?;
    bounded(sizes.iter().try_fold(1usize, |p, &n| p.checked_mul(n)).unwrap_or(usize::MAX))?;
    Ok(sizes)
}

fn reshaped(shape: &[usize], to: &[i64], zero: bool) -> Result<Vec<usize>, String> {
    let n: usize = shape.iter().product();
    let wrong = || format!("{shape:?} does not fit {to:?}");
    let mut found = Vec::new();
    for (i, &d) in to.iter().enumerate() {
        found.push(match d {
            0 if !zero => *shape.get(i).ok_or_else(wrong)? as i64,
            d => d,
        });
    }
    let known: i64 = found.iter().filter(|&&d| d != -1).try_fold(1i64, |p, &d| p.checked_mul(d)).ok_or_else(wrong)?;
    if let Some(open) = found.iter().position(|&d| d == -1) {
        if known <= 0 || n as i64 % known != 0 {
            return Err(wrong());
        }
        found[open] = n as i64 / known;
    }
    let found = found.into_iter().map(|d| usize::try_from(d).map_err(|_| wrong())).collect::<Result<Vec<_>, _>>()?;
    if found.iter().try_fold(1usize, |p, &d| p.checked_mul(d)) == Some(n) { Ok(found) } else { Err(wrong()) }
}

/// An integer as ONNX's type of this number holds it: what does not fit loses its high bits.
fn wrapped(v: i64, to: Option<i64>) -> i64 {
    match to {
        Some(2) => i64::from(v as u8),
        Some(3) => i64::from(v as i8),
        Some(4) => i64::from(v as u16),
        Some(5) => i64::from(v as i16),
        Some(6) => i64::from(v as i32),
        Some(12) => i64::from(v as u32),
        _ => v,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluated(op: &str, inputs: Vec<Constant>, attrs: &[(&str, Attr)]) -> Result<Option<Vec<Constant>>, String> {
        let mut ir = Ir { opset: 18, ..Ir::default() };
        let ids = inputs.into_iter().map(|c| Some(ir.add_constant("c", c))).collect();
        let mut node = Node { op: op.into(), inputs: ids, outputs: vec![0], ..Node::default() };
        attrs.iter().for_each(|(key, value)| node.set(key, value.clone()));
        evaluate(&ir, &node)
    }

    fn one(op: &str, inputs: Vec<Constant>, attrs: &[(&str, Attr)]) -> Constant {
        evaluated(op, inputs, attrs).unwrap().unwrap().remove(0)
    }

    #[test]
    fn shapes_are_computed_with_the_batch_as_a_factor() {
        let batch = Constant::ints(&[1], vec![Dim::BATCH]);
        let product = one("Mul", vec![batch.clone(), Constant::list(&[64])], &[]);
        assert_eq!(product.as_dims(), Some(&[Dim::new(64, true)][..]));
        assert_eq!(
            one("Div", vec![product.clone(), Constant::list(&[16])], &[]).as_dims(),
            Some(&[Dim::new(4, true)][..])
        );
        assert_eq!(one("Div", vec![product.clone(), batch.clone()], &[]).as_ints(), Some(vec![64]));
        let joined = one("Concat", vec![batch.clone(), Constant::list(&[3, -1])], &[("axis", Attr::Int(0))]);
        assert_eq!(joined.as_dims().unwrap()[0], Dim::BATCH);
        assert!(
            evaluated("Mul", vec![batch.clone(), batch.clone()], &[])
                .unwrap_err()
                .contains("multiplies the size of the batch")
        );
        assert_eq!(evaluated("Add", vec![batch, Constant::list(&[1])], &[]), Ok(None));
        assert!(evaluated("Div", vec![Constant::list(&[1]), Constant::list(&[0])], &[]).is_err());
    }

    #[test]
    fn casts_round_and_wrap_as_the_type_does() {
        let cast = |x: Constant, to: i64| one("Cast", vec![x], &[("to", Attr::Int(to))]);
        let numbers = || Constant::list(&[3, 300, -1, 1 << 33]);
        for (to, want) in [
            (2, [3, 44, 255, 0]),
            (3, [3, 44, -1, 0]),
            (4, [3, 300, 65_535, 0]),
            (6, [3, 300, -1, 0]),
            (7, [3, 300, -1, 1 << 33]),
            (9, [1, 1, 1, 1]),
            (12, [3, 300, 4_294_967_295, 0]),
        ] {
            assert_eq!(cast(numbers(), to).as_ints().unwrap(), want, "{to}");
        }
        let floats = || Constant::floats(&[3], vec![1.001, 65_504.0, 300.7]);
        assert_eq!(cast(floats(), 1).as_floats(), floats().as_floats());
        assert_eq!(cast(floats(), 10).as_floats().unwrap(), [1.000_976_6, 65_504.0, 300.75]);
        assert_eq!(cast(floats(), 16).as_floats().unwrap(), [1.0, 65_536.0, 300.0]);
        assert_eq!(cast(Constant::floats(&[2], vec![300.7, -2.5]), 2).as_ints().unwrap(), [44, 254]);
        // The size of a batch stays what it is.
        let batch = Constant::ints(&[1], vec![Dim::BATCH]);
        assert_eq!(cast(batch.clone(), 6).as_dims(), batch.as_dims());
    }

    #[test]
    fn values_move_as_defined() {
        let x = Constant::floats(&[2, 3], vec![0., 1., 2., 3., 4., 5.]);
        assert_eq!(one("Transpose", vec![x.clone()], &[]).as_floats().unwrap(), [0., 3., 1., 4., 2., 5.]);
        let sliced = vec![
            x.clone(),
            Constant::list(&[-1]),
            Constant::list(&[i64::MIN]),
            Constant::list(&[1]),
            Constant::list(&[-2]),
        ];
        assert_eq!(one("Slice", sliced, &[]).as_floats().unwrap(), [2., 0., 5., 3.]);
        assert_eq!(
            one("Expand", vec![Constant::floats(&[2, 1], vec![1., 2.]), Constant::list(&[2, 2])], &[])
                .as_floats()
                .unwrap(),
            [1., 1., 2., 2.]
        );
        let gathered = one("Gather", vec![x.clone(), Constant::list(&[-1, 0])], &[("axis", Attr::Int(1))]);
        assert_eq!((gathered.as_floats().unwrap(), &gathered.shape[..]), (&[2., 0., 5., 3.][..], &[2, 2][..]));
        assert_eq!(
            one("ReduceMean", vec![x.clone()], &[("axes", Attr::Ints(vec![0]))]).as_floats().unwrap(),
            [1.5, 2.5, 3.5]
        );
        assert!(evaluated("Gather", vec![x, Constant::list(&[2])], &[]).is_err());
    }

    #[test]
    fn a_constant_does_not_grow_beyond_measure() {
        let huge = Constant::list(&[1 << 20, 1 << 20]);
        assert!(evaluated("ConstantOfShape", vec![huge.clone()], &[]).is_err());
        assert!(evaluated("Expand", vec![Constant::floats(&[1, 1], vec![0.]), huge.clone()], &[]).is_err());
        assert!(evaluated("Tile", vec![Constant::floats(&[1, 1], vec![0.]), huge], &[]).is_err());
        let ends = [0.0, 1e30, 1.0].map(|v| Constant::floats(&[], vec![v]));
        assert!(evaluated("Range", ends.to_vec(), &[]).is_err());
    }

    #[test]
    fn parts_are_put_into_a_constant() {
        let x = || Constant::floats(&[3, 2], (0..6).map(|v| v as f32).collect());
        let rows = || Constant::ints(&[2, 1], [2, 0].map(Dim::fixed).to_vec());
        let new = || Constant::floats(&[2, 2], vec![10.0, 11.0, 12.0, 13.0]);
        let found = one("ScatterND", vec![x(), rows(), new()], &[]);
        assert_eq!(found, Constant::floats(&[3, 2], vec![12.0, 13.0, 2.0, 3.0, 10.0, 11.0]));
        // Single values, counted from the end too, and twice the same.
        let at = Constant::ints(&[3, 2], [0, 1, -1, 0, 0, 1].map(Dim::fixed).to_vec());
        let single = || Constant::floats(&[3], vec![5.0, 6.0, 7.0]);
        let add = [("reduction", Attr::Text("add".into()))];
        let found = one("ScatterND", vec![x(), at.clone(), single()], &add);
        assert_eq!(found, Constant::floats(&[3, 2], vec![0.0, 13.0, 2.0, 3.0, 10.0, 5.0]));
        let found = one("ScatterND", vec![x(), at, single()], &[]);
        assert_eq!(found, Constant::floats(&[3, 2], vec![0.0, 7.0, 2.0, 3.0, 6.0, 5.0]));
        let beyond = Constant::ints(&[2, 1], [3, 0].map(Dim::fixed).to_vec());
        assert!(evaluated("ScatterND", vec![x(), beyond, new()], &[]).is_err());
        assert!(evaluated("ScatterND", vec![x(), rows(), single()], &[]).is_err());
    }
}
