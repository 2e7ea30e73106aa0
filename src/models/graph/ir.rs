//! A graph between the file and the ops: nodes in an order in which they can be computed, values with shapes and known constants.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A length or an integer of shape arithmetic: `n`, or `n` for every image of a batch, whose size is not known here.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Dim {
    pub n: i64,
    pub batch: bool,
    /// Of an axis that holds all images: how many of its values belong to each image in turn before the next image's come, `n / outer`;
    /// 1 where all of an image lies together.
    pub outer: i64,
}

impl Dim {
    pub const BATCH: Dim = Dim::new(1, true);

    /// `n`, for every image if `batch`, whose values lie together.
    pub const fn new(n: i64, batch: bool) -> Self {
        Dim { n, batch, outer: 1 }
    }

    pub const fn fixed(n: i64) -> Self {
        Dim::new(n, false)
    }

    /// Whether both are as long.
    pub fn as_long(self, other: Dim) -> bool {
        (self.n, self.batch) == (other.n, other.batch)
    }

    /// The length for a batch of `images`.
    pub fn of(self, images: usize) -> usize {
        self.n.max(0) as usize * if self.batch { images } else { 1 }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.batch, self.n) {
            (true, 1) => write!(f, "N"),
            (true, n) => write!(f, "{n}N"),
            (false, n) => write!(f, "{n}"),
        }
    }
}

/// A shape as it is written: `[N, 3, 32, 32]`.
pub fn written(shape: &[Dim]) -> String {
    format!("[{}]", shape.iter().map(Dim::to_string).collect::<Vec<_>>().join(", "))
}

/// Known values, row-major.
#[derive(Clone, PartialEq, Debug)]
pub enum Data {
    Floats(Arc<Vec<f32>>),
    /// Integers and truth values.
    Ints(Arc<Vec<Dim>>),
}

#[derive(Clone, PartialEq, Debug)]
pub struct Constant {
    pub shape: Vec<usize>,
    pub data: Data,
}

impl Constant {
    pub fn floats(shape: &[usize], values: Vec<f32>) -> Self {
        Constant { shape: shape.to_vec(), data: Data::Floats(Arc::new(values)) }
    }

    pub fn ints(shape: &[usize], values: Vec<Dim>) -> Self {
        Constant { shape: shape.to_vec(), data: Data::Ints(Arc::new(values)) }
    }

    /// A list of whole numbers.
    pub fn list(values: &[i64]) -> Self {
        Self::ints(&[values.len()], values.iter().map(|&n| Dim::fixed(n)).collect())
    }

    pub fn len(&self) -> usize {
        match &self.data {
            Data::Floats(v) => v.len(),
            Data::Ints(v) => v.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values, if they are floating-point.
    pub fn as_floats(&self) -> Option<&[f32]> {
        match &self.data {
            Data::Floats(v) => Some(v),
            Data::Ints(_) => None,
        }
    }

    /// The values, if they are integers.
    pub fn as_dims(&self) -> Option<&[Dim]> {
        match &self.data {
            Data::Ints(v) => Some(v),
            Data::Floats(_) => None,
        }
    }

    /// The values, if they are integers that no batch multiplies.
    pub fn as_ints(&self) -> Option<Vec<i64>> {
        self.as_dims()?.iter().map(|d| (!d.batch).then_some(d.n)).collect()
    }

    /// The only value.
    pub fn scalar(&self) -> Option<f32> {
        match &self.data {
            Data::Floats(v) if v.len() == 1 => v.first().copied(),
            Data::Ints(v) if v.len() == 1 && !v[0].batch => v.first().map(|d| d.n as f32),
            _ => None,
        }
    }
}

/// An attribute of a node.
#[derive(Clone, PartialEq, Debug)]
pub enum Attr {
    Float(f32),
    Int(i64),
    Text(String),
    Tensor(Constant),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Texts(Vec<String>),
    /// A nested graph.
    Graph,
}

/// Index of a value in [`Ir::values`].
pub type Id = usize;

#[derive(Clone, Debug, Default)]
pub struct Node {
    /// As the file has it; the first output's name where it has none.
    pub name: String,
    pub op: String,
    /// `None` where an optional input is left out.
    pub inputs: Vec<Option<Id>>,
    pub outputs: Vec<Id>,
    pub attrs: BTreeMap<String, Attr>,
}

impl Node {
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.attrs.get(key) {
            Some(Attr::Int(v)) => Some(*v),
            _ => None,
        }
    }

    pub fn float(&self, key: &str) -> Option<f32> {
        match self.attrs.get(key) {
            Some(Attr::Float(v)) => Some(*v),
            _ => None,
        }
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        match self.attrs.get(key) {
            Some(Attr::Text(v)) => Some(v),
            _ => None,
        }
    }

    pub fn ints(&self, key: &str) -> Option<&[i64]> {
        match self.attrs.get(key) {
            Some(Attr::Ints(v)) => Some(v),
            _ => None,
        }
    }

    pub fn set(&mut self, key: &str, value: Attr) {
        self.attrs.insert(key.into(), value);
    }

    pub fn input(&self, index: usize) -> Option<Id> {
        self.inputs.get(index).copied().flatten()
    }

    /// `name` (Op), for messages.
    pub fn title(&self) -> String {
        format!("node `{}` ({})", self.name, self.op)
    }
}

/// Integers of shape `(N, ..)`: `stride` times the number of the image, plus `base` of shape `(1, ..)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Counted {
    pub stride: i64,
    pub base: Constant,
}

impl Counted {
    /// With the batch first.
    pub fn shape(&self) -> Vec<Dim> {
        let rest = self.base.shape.iter().skip(1).map(|&n| Dim::fixed(n as i64));
        std::iter::once(Dim::BATCH).chain(rest).collect()
    }
}

#[derive(Clone, Debug, Default)]
pub struct Value {
    pub name: String,
    pub shape: Option<Vec<Dim>>,
    pub constant: Option<Constant>,
    /// Integers that are known but for the number of the image.
    pub counted: Option<Counted>,
}

/// A graph with one input of images and one output of logits.
#[derive(Clone, Debug, Default)]
pub struct Ir {
    pub nodes: Vec<Node>,
    pub values: Vec<Value>,
    pub input: Id,
    pub output: Id,
    /// Of the operators' definitions.
    pub opset: i64,
    /// Whether the file says that it takes one image at a time, so that a 1 of its shape arithmetic may mean the batch.
    pub single: bool,
    /// Whether a softmax was to be 0 where a mask hides everything.
    pub guarded: bool,
}

impl Ir {
    pub fn constant(&self, id: Option<Id>) -> Option<&Constant> {
        self.values[id?].constant.as_ref()
    }

    /// Input `index` of a node, if it is a constant.
    pub fn known(&self, node: &Node, index: usize) -> Option<&Constant> {
        self.constant(node.input(index))
    }

    /// The shape of a value, if it is known so far.
    pub fn shape(&self, id: Id) -> Option<&[Dim]> {
        self.values[id].shape.as_deref()
    }

    /// A new value.
    pub fn add(&mut self, name: impl Into<String>, shape: Option<Vec<Dim>>) -> Id {
        self.values.push(Value { name: name.into(), shape, ..Value::default() });
        self.values.len() - 1
    }

    /// A new constant.
    pub fn add_constant(&mut self, name: impl Into<String>, constant: Constant) -> Id {
        let shape = constant.shape.iter().map(|&n| Dim::fixed(n as i64)).collect();
        let shape = Some(shape);
        self.values.push(Value { name: name.into(), shape, constant: Some(constant), counted: None });
        self.values.len() - 1
    }

    /// How often every value is read, the output once more.
    pub fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.values.len()];
        for id in self.nodes.iter().flat_map(|node| node.inputs.iter().flatten()) {
            uses[*id] += 1;
        }
        uses[self.output] += 1;
        uses
    }

    /// The node that makes each value.
    pub fn makers(&self) -> Vec<Option<usize>> {
        let mut makers = vec![None; self.values.len()];
        for (at, node) in self.nodes.iter().enumerate() {
            for &id in &node.outputs {
                makers[id] = Some(at);
            }
        }
        makers
    }

    /// Lets everyone who reads `old` read `new` instead.
    pub fn replace(&mut self, old: Id, new: Id) {
        for id in self.nodes.iter_mut().flat_map(|node| node.inputs.iter_mut().flatten()) {
            if *id == old {
                *id = new;
            }
        }
        if self.output == old {
            self.output = new;
        }
    }

    /// Drops nodes that the output does not depend on.
    pub fn prune(&mut self) {
        let mut needed = vec![false; self.values.len()];
        needed[self.output] = true;
        let mut keep = vec![false; self.nodes.len()];
        for (at, node) in self.nodes.iter().enumerate().rev() {
            if node.outputs.iter().any(|&id| needed[id]) {
                keep[at] = true;
                node.inputs.iter().flatten().for_each(|&id| needed[id] = true);
            }
        }
        let mut keep = keep.into_iter();
        self.nodes.retain(|_| keep.next().unwrap_or(true));
    }

    /// Nodes by operator, the most frequent first.
    pub fn counts(&self) -> Vec<(String, usize)> {
        let mut counts = BTreeMap::new();
        for node in &self.nodes {
            *counts.entry(node.op.clone()).or_insert(0) += 1;
        }
        let mut counts: Vec<_> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        counts
    }
}

/// A node of one output for the tests of passes, named after that output.
#[cfg(test)]
pub fn node(op: &str, inputs: &[Id], output: Id) -> Node {
    Node {
        name: format!("n{output}"),
        op: op.into(),
        inputs: inputs.iter().map(|&i| Some(i)).collect(),
        outputs: vec![output],
        ..Node::default()
    }
}
