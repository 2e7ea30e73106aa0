//! ONNX files: parsed, functions inlined, nodes put in order, constants decoded. Nothing is computed.
//!
//! A file is not trusted: lengths are compared with the bytes that are there before anything is allocated, external data stays in the
//! file's folder, and what the result does not depend on is not looked at.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use half::{bf16, f16};
use prost::Message;

use super::flat;
use super::ir::{Attr, Constant, Dim, Id, Ir, Node};
use super::known;
use super::proto;
use crate::{Error, Result, files};

/// Definitions of operators that are understood, first and last.
const OPSETS: (i64, i64) = (7, 25);
/// Nodes of a graph, functions inlined: more is no network.
const MAX_NODES: usize = 200_000;
/// How deep functions may call each other.
const MAX_DEPTH: usize = 16;

/// A file's graph, before anything is known of its shapes.
#[derive(Clone, Debug)]
pub struct Model {
    pub origin: PathBuf,
    pub ir: Ir,
    /// The texts beside the graph.
    pub metadata: BTreeMap<String, String>,
    /// Who wrote the file.
    pub producer: String,
    /// Of the images' dimensions those that the file fixes; of flat ones the batch, channels, height and width.
    pub image: Vec<Option<i64>>,
    /// Whether its input has not the four axes of images, but rows of all their values, or grey ones of two axes.
    pub flat: bool,
    /// Outputs beside the first, which are left out.
    pub others: Vec<String>,
    /// The files that hold its external data, in the order of their names.
    pub data: Vec<PathBuf>,
    /// Size of everything read: the file and its external data.
    pub bytes: usize,
}

/// Whether a file calls itself an ONNX model.
pub fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("onnx"))
}

/// Reads a file.
///
/// # Errors
/// [`Error::Io`] when it cannot be opened, [`Error::File`] and [`Error::Tensor`] for what is no network that can be run here.
pub fn open(path: &Path) -> Result<Model> {
    parse(path, whole(path)?)
}

/// A file's bytes. Not mapped: one that another process shortens meanwhile would end this one.
fn whole(path: &Path) -> Result<Bytes> {
    let bytes = files::read(path, "read", u64::MAX)?;
    match bytes.is_empty() {
        true => Err(Error::file(path, "expected an ONNX model, found an empty file")),
        false => Ok(bytes.into()),
    }
}

/// Reads a model whose external data, if any, lies in the folder of `origin`.
///
/// # Errors
/// As [`open`].
pub fn parse(origin: &Path, bytes: Bytes) -> Result<Model> {
    let bad = |problem: String| Error::file(origin, problem);
    let size = bytes.len();
    let model = proto::Model::decode(bytes)
        .map_err(|e| bad(format!("expected an ONNX model, found one that does not parse: {e}")))?;
    let graph = model.graph.ok_or_else(|| bad("expected an ONNX model, found none: no graph in it".into()))?;
    let opset = model
        .opset_import
        .iter()
        .find(|set| matches!(set.domain.as_deref(), None | Some("" | "ai.onnx")))
        .and_then(|set| set.version)
        .ok_or_else(|| bad("expected the version of its operators (opset_import), found none".into()))?;
    if opset < OPSETS.0 || opset > OPSETS.1 {
        let problem = format!("expected opset {} to {}, found {opset}: export it with another", OPSETS.0, OPSETS.1);
        return Err(bad(problem));
    }
    if !graph.sparse_initializer.is_empty() {
        return Err(bad("sparse initialisers are not read: export the weights dense".into()));
    }

    let functions: HashMap<(String, String), &proto::Function> = model
        .functions
        .iter()
        .map(|f| ((f.domain.clone().unwrap_or_default(), f.name.clone().unwrap_or_default()), f))
        .collect();
    let mut inliner = Inliner { origin, functions, nodes: Vec::new(), calls: 0 };
    inliner.expand(&graph.node, &Scope::default(), 0)?;

    let mut initialisers: HashMap<&str, &proto::Tensor> = HashMap::new();
    for tensor in &graph.initializer {
        let Some(name) = tensor.name.as_deref() else { continue };
        if initialisers.insert(name, tensor).is_some() {
            return Err(bad(format!("two initialisers are called `{name}`: which is meant would be a guess")));
        }
    }
    let output = graph.output.first().and_then(|o| o.name.clone());
    let output = output.ok_or_else(|| bad("expected an output of the graph, found none".into()))?;
    let others = graph.output.iter().skip(1).filter_map(|o| o.name.clone()).collect();
    let mut builder = Builder { origin, ir: Ir { opset, ..Ir::default() }, ids: HashMap::new() };
    builder.assemble(inliner.nodes, &output, &graph.input, &initialisers)?;
    let text = |e: proto::Entry| Some((e.key?, e.value.unwrap_or_default()));
    let metadata: BTreeMap<String, String> = model.metadata_props.into_iter().filter_map(text).collect();
    let (mut image, single) = builder.image(&graph.input, &initialisers)?;
    let flat = !matches!(image.len(), 0 | 4);
    if flat {
        let name = &builder.ir.values[builder.ir.input].name;
        let sides = flat::image(&image, &metadata).map_err(|problem| bad(format!("its input `{name}`: {problem}")))?;
        flat::reshaped(&mut builder.ir, &image);
        image = std::iter::once(image[0]).chain(sides.map(Some)).collect();
    }
    builder.ir.single = single;
    let mut external = External { folder: origin.parent().unwrap_or(Path::new("")), files: BTreeMap::new() };
    builder.constants(&initialisers, &mut external)?;

    let producer = [model.producer_name, model.producer_version].into_iter().flatten().collect::<Vec<_>>().join(" ");
    Ok(Model {
        origin: origin.into(),
        ir: builder.ir,
        metadata,
        producer,
        image,
        flat,
        others,
        bytes: size + external.files.values().map(Bytes::len).sum::<usize>(),
        data: external.files.into_keys().map(|file| external.folder.join(file)).collect(),
    })
}

/// What names and attributes mean inside a call of a function.
#[derive(Default)]
struct Scope {
    /// In front of names that are the call's own.
    prefix: String,
    names: HashMap<String, String>,
    attributes: HashMap<String, proto::Attribute>,
}

struct Inliner<'a> {
    origin: &'a Path,
    functions: HashMap<(String, String), &'a proto::Function>,
    nodes: Vec<proto::Node>,
    calls: usize,
}

impl Inliner<'_> {
    fn expand(&mut self, nodes: &[proto::Node], scope: &Scope, depth: usize) -> Result<()> {
        let bad = |problem: String| Error::file(self.origin, problem);
        if depth > MAX_DEPTH {
            return Err(bad(format!("functions call each other more than {MAX_DEPTH} deep")));
        }
        for node in nodes {
            if self.nodes.len() + self.calls >= MAX_NODES {
                return Err(Error::file(self.origin, format!("more than {MAX_NODES} nodes with functions inlined")));
            }
            let rename = |name: &String| match scope.names.get(name) {
                _ if name.is_empty() => String::new(),
                Some(outer) => outer.clone(),
                None if depth == 0 => name.clone(),
                None => format!("{}{name}", scope.prefix),
            };
            let attribute = node.attribute.iter().filter_map(|a| match &a.ref_attr_name {
                Some(from) if !from.is_empty() => {
                    let given = scope.attributes.get(from)?;
                    Some(proto::Attribute { name: a.name.clone(), ref_attr_name: None, ..given.clone() })
                }
                _ => Some(a.clone()),
            });
            let node = proto::Node {
                input: node.input.iter().map(rename).collect(),
                output: node.output.iter().map(rename).collect(),
                name: node.name.as_ref().map(|name| format!("{}{name}", scope.prefix)),
                attribute: attribute.collect(),
                ..node.clone()
            };
            let key = (node.domain.clone().unwrap_or_default(), node.op_type.clone().unwrap_or_default());
            let Some(function) = self.functions.get(&key).copied() else {
                self.nodes.push(node);
                continue;
            };
            self.calls += 1;
            let outer = |formal: &[String], actual: &[String]| -> Vec<(String, String)> {
                let given = |i: usize| actual.get(i).cloned().unwrap_or_default();
                formal.iter().enumerate().map(|(i, name)| (name.clone(), given(i))).collect()
            };
            let mut attributes: HashMap<String, proto::Attribute> =
                function.attribute_proto.iter().filter_map(|a| Some((a.name.clone()?, a.clone()))).collect();
            attributes.extend(node.attribute.iter().filter_map(|a| Some((a.name.clone()?, a.clone()))));
            let inner = Scope {
                prefix: format!("{}{}{}/", scope.prefix, key.1, self.calls),
                names: outer(&function.input, &node.input)
                    .into_iter()
                    .chain(outer(&function.output, &node.output).into_iter().filter(|(_, outer)| !outer.is_empty()))
                    .collect(),
                attributes,
            };
            self.expand(&function.node, &inner, depth + 1)?;
        }
        Ok(())
    }
}

struct Builder<'a> {
    origin: &'a Path,
    ir: Ir,
    ids: HashMap<String, Id>,
}

impl Builder<'_> {
    fn bad(&self, problem: impl Into<String>) -> Error {
        Error::file(self.origin, problem)
    }

    fn id(&mut self, name: &str) -> Id {
        if let Some(&id) = self.ids.get(name) {
            return id;
        }
        let id = self.ir.add(name, None);
        self.ids.insert(name.into(), id);
        id
    }

    /// The nodes that the output depends on, each after those that it reads.
    fn assemble(
        &mut self,
        nodes: Vec<proto::Node>,
        output: &str,
        inputs: &[proto::ValueInfo],
        initialisers: &HashMap<&str, &proto::Tensor>,
    ) -> Result<()> {
        let mut makers: HashMap<&str, usize> = HashMap::new();
        for (at, node) in nodes.iter().enumerate() {
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                if makers.insert(name, at).is_some() {
                    return Err(self.bad(format!("two nodes make the value `{name}`")));
                }
                if initialisers.contains_key(name.as_str()) {
                    return Err(self.bad(format!("a node makes the value `{name}`, which is an initialiser too")));
                }
            }
        }
        let inputs: HashSet<&str> = inputs.iter().filter_map(|i| i.name.as_deref()).collect();
        let title = |node: &proto::Node| {
            let name = node.name.as_deref().filter(|name| !name.is_empty());
            let name = name.or(node.output.first().map(String::as_str)).unwrap_or_default();
            format!("node `{name}` ({})", node.op_type.as_deref().unwrap_or_default())
        };
        // Depth first from the output, without recursion: a chain may be as long as the file. 1: begun, 2: done.
        let mut state = vec![0u8; nodes.len()];
        let mut order = Vec::new();
        let Some(&last) = makers.get(output) else {
            let problem = if inputs.contains(output) || initialisers.contains_key(output) {
                format!("its output `{output}` is an input or a constant: there is nothing to run")
            } else {
                format!("no node makes its output `{output}`")
            };
            return Err(self.bad(problem));
        };
        let mut stack = vec![(last, 0usize)];
        state[last] = 1;
        while let Some((at, next)) = stack.pop() {
            let Some(name) = nodes[at].input.get(next) else {
                state[at] = 2;
                order.push(at);
                continue;
            };
            stack.push((at, next + 1));
            if name.is_empty() || initialisers.contains_key(name.as_str()) || inputs.contains(name.as_str()) {
                continue;
            }
            let Some(&from) = makers.get(name.as_str()) else {
                let problem = format!(
                    "{} reads `{name}`, which is no input, no initialiser and made by no node",
                    title(&nodes[at])
                );
                return Err(self.bad(problem));
            };
            match state[from] {
                0 => {
                    state[from] = 1;
                    stack.push((from, 0));
                }
                1 => return Err(self.bad(format!("{} depends on itself: a cycle", title(&nodes[from])))),
                _ => {}
            }
        }
        let unknown: Vec<&proto::Node> = order
            .iter()
            .map(|&at| &nodes[at])
            .filter(|node| {
                let own = matches!(node.domain.as_deref(), None | Some("" | "ai.onnx"));
                !own || !known::is_known(node.op_type.as_deref().unwrap_or_default())
            })
            .collect();
        if let Some(first) = unknown.first() {
            let mut kinds: Vec<String> = unknown
                .iter()
                .map(|node| match node.domain.as_deref() {
                    None | Some("" | "ai.onnx") => node.op_type.clone().unwrap_or_default(),
                    Some(domain) => format!("{domain}.{}", node.op_type.as_deref().unwrap_or_default()),
                })
                .collect();
            kinds.sort();
            kinds.dedup();
            let problem = format!(
                "{} is of an unknown kind, and the output `{output}` depends on it; unknown here: {}; known are {}",
                title(first),
                kinds.join(", "),
                known::listed()
            );
            return Err(self.bad(problem));
        }
        for at in order {
            let node = &nodes[at];
            let mut attrs = BTreeMap::new();
            for a in &node.attribute {
                if let Some(name) = &a.name {
                    attrs.insert(name.clone(), self.attribute(&title(node), a)?);
                }
            }
            let inputs = node.input.iter().map(|name| (!name.is_empty()).then(|| self.id(name))).collect();
            // An output that nobody wants still has its place.
            let outputs =
                node.output.iter().map(|name| if name.is_empty() { self.ir.add("", None) } else { self.id(name) });
            let outputs: Vec<Id> = outputs.collect();
            let name = node.name.clone().filter(|name| !name.is_empty());
            let name = name.or_else(|| node.output.first().cloned()).unwrap_or_default();
            let op = node.op_type.clone().unwrap_or_default();
            self.ir.nodes.push(Node { name, op, inputs, outputs, attrs });
        }
        self.ir.output = self.id(output);
        Ok(())
    }

    fn attribute(&self, node: &str, a: &proto::Attribute) -> Result<Attr> {
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        // Old files leave the type out.
        let kind = a.r#type.filter(|&kind| kind != 0).unwrap_or_else(|| match a {
            _ if a.f.is_some() => 1,
            _ if a.i.is_some() => 2,
            _ if a.s.is_some() => 3,
            _ if a.t.is_some() => 4,
            _ if a.g.is_some() => 5,
            _ if !a.floats.is_empty() => 6,
            _ if !a.strings.is_empty() => 8,
            _ => 7,
        });
        Ok(match kind {
            1 => Attr::Float(a.f.unwrap_or_default()),
            2 => Attr::Int(a.i.unwrap_or_default()),
            3 => Attr::Text(a.s.as_ref().map(text).unwrap_or_default()),
            4 => {
                let tensor = a.t.as_ref().ok_or_else(|| self.bad(format!("{node}: a tensor that is not there")))?;
                let mut none = External { folder: Path::new(""), files: BTreeMap::new() };
                Attr::Tensor(decode(tensor, &mut none).map_err(|problem| self.bad(format!("{node}: {problem}")))?)
            }
            6 => Attr::Floats(a.floats.clone()),
            7 => Attr::Ints(a.ints.clone()),
            8 => Attr::Texts(a.strings.iter().map(text).collect()),
            _ => Attr::Graph,
        })
    }

    /// Finds the input of images; its fixed dimensions, and whether the first of them is 1.
    fn image(
        &mut self,
        inputs: &[proto::ValueInfo],
        initialisers: &HashMap<&str, &proto::Tensor>,
    ) -> Result<(Vec<Option<i64>>, bool)> {
        let read: Vec<(&str, &proto::ValueInfo)> = inputs
            .iter()
            .filter_map(|input| Some((input.name.as_deref()?, input)))
            .filter(|(name, _)| !initialisers.contains_key(name) && self.ids.contains_key(*name))
            .collect();
        let (name, info) = match read[..] {
            [one] => one,
            [] => return Err(self.bad("its output depends on no input: there is nothing to attack")),
            _ => {
                let names: Vec<&str> = read.iter().map(|(name, _)| *name).collect();
                return Err(self.bad(format!("expected one input of images, found {}", names.join(", "))));
            }
        };
        self.ir.input = self.id(name);
        let tensor = info.r#type.as_ref().and_then(|t| t.tensor_type.as_ref());
        if let Some(kind) = tensor.and_then(|t| t.elem_type).filter(|kind| !matches!(kind, 0 | 1 | 10 | 11 | 16)) {
            let problem = format!("its input `{name}`: expected floating-point images, found {}", type_name(kind));
            return Err(self.bad(problem));
        }
        let dims = tensor.and_then(|t| t.shape.as_ref()).map(|shape| &shape.dim[..]).unwrap_or_default();
        if !matches!(dims.len(), 0 | 2..=4) {
            let problem =
                format!("its input `{name}`: expected images of 4 dimensions, or flat ones of 2, found {}", dims.len());
            return Err(self.bad(problem));
        }
        let fixed: Vec<Option<i64>> = dims.iter().map(|d| d.dim_value.filter(|&n| n > 0)).collect();
        let single = fixed.first() == Some(&Some(1));
        if let Some(Some(n)) = fixed.first().filter(|n| n.is_some_and(|n| n != 1)) {
            let problem = format!(
                "its input `{name}` is fixed at {n} images: export it with 1 image or with a dynamic first dimension"
            );
            return Err(self.bad(problem));
        }
        Ok((fixed, single))
    }

    fn constants(&mut self, initialisers: &HashMap<&str, &proto::Tensor>, external: &mut External) -> Result<()> {
        for id in 0..self.ir.values.len() {
            let Some(tensor) = initialisers.get(self.ir.values[id].name.as_str()) else { continue };
            let constant = decode(tensor, external)
                .map_err(|problem| Error::tensor(self.origin, &self.ir.values[id].name, problem))?;
            self.ir.values[id].shape = Some(constant.shape.iter().map(|&n| Dim::fixed(n as i64)).collect());
            self.ir.values[id].constant = Some(constant);
        }
        Ok(())
    }
}

/// Files beside the model that hold its weights.
struct External<'a> {
    folder: &'a Path,
    files: BTreeMap<PathBuf, Bytes>,
}

impl External<'_> {
    fn slice(&mut self, entries: &[proto::Entry], length: usize) -> Result<Bytes, String> {
        let entry = |key: &str| entries.iter().find(|e| e.key.as_deref() == Some(key)).and_then(|e| e.value.as_deref());
        let location = entry("location").ok_or("external data without a location")?;
        let relative = Path::new(location);
        if location.is_empty() || !relative.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir))
        {
            return Err(format!("its data lies in `{location}`: expected a file in the folder of the model"));
        }
        if !self.files.contains_key(relative) {
            let path = self.folder.join(relative);
            let bytes = whole(&path).map_err(|e| format!("its data: {}", chained(&e)))?;
            self.files.insert(relative.into(), bytes);
        }
        let bytes = &self.files[relative];
        let number = |key: &str, default: usize| match entry(key) {
            None => Ok(default),
            Some(text) => text.parse::<usize>().map_err(|_| format!("external data: `{key}` is `{text}`, no number")),
        };
        let (offset, said) = (number("offset", 0)?, number("length", length)?);
        if said != length {
            return Err(format!("expected {length} bytes of external data, found {said} said"));
        }
        let end = offset.checked_add(length).filter(|&end| end <= bytes.len());
        let end = end.ok_or_else(|| {
            format!("expected {length} bytes from {offset} on in `{location}`, found a file of {}", bytes.len())
        })?;
        Ok(bytes.slice(offset..end))
    }
}

fn chained(e: &Error) -> String {
    use std::error::Error as _;
    e.source().map_or_else(|| e.to_string(), |source| format!("{e}: {source}"))
}

fn type_name(kind: i32) -> String {
    const NAMES: [&str; 17] = [
        "UNDEFINED",
        "FLOAT",
        "UINT8",
        "INT8",
        "UINT16",
        "INT16",
        "INT32",
        "INT64",
        "STRING",
        "BOOL",
        "FLOAT16",
        "DOUBLE",
        "UINT32",
        "UINT64",
        "COMPLEX64",
        "COMPLEX128",
        "BFLOAT16",
    ];
    usize::try_from(kind).ok().and_then(|k| NAMES.get(k)).map_or_else(|| format!("type {kind}"), |&name| name.into())
}

/// Values of a tensor: raw, typed or in a file beside the model.
fn decode(tensor: &proto::Tensor, external: &mut External) -> Result<Constant, String> {
    let mut shape = Vec::with_capacity(tensor.dims.len().min(16));
    for &n in &tensor.dims {
        shape.push(usize::try_from(n).map_err(|_| format!("a dimension of {n}"))?);
    }
    let count = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    let count =
        count.filter(|&n| n <= isize::MAX as usize / 16).ok_or_else(|| format!("an impossible shape {shape:?}"))?;
    let kind = tensor.data_type.unwrap_or(0);
    let size = match kind {
        2 | 3 | 9 => 1,
        4 | 5 | 10 | 16 => 2,
        1 | 6 | 12 => 4,
        7 | 11 | 13 => 8,
        _ => return Err(format!("expected numbers of 8 to 64 bits, found {}", type_name(kind))),
    };
    let raw = match tensor.data_location {
        Some(1) => Some(external.slice(&tensor.external_data, count * size)?),
        _ => tensor.raw_data.clone(),
    };
    let short = |found: usize| format!("expected {count} values for shape {shape:?}, found {found}");
    if let Some(raw) = raw {
        if raw.len() != count * size {
            return Err(format!(
                "expected {} bytes for shape {shape:?} of {}, found {}",
                count * size,
                type_name(kind),
                raw.len()
            ));
        }
        let ints = |f: &dyn Fn(&[u8]) -> i64| {
            Constant::ints(&shape, raw.chunks_exact(size).map(|b| Dim::fixed(f(b))).collect())
        };
        let two = |b: &[u8]| [b[0], b[1]];
        let four = |b: &[u8]| [b[0], b[1], b[2], b[3]];
        let eight = |b: &[u8]| [b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]];
        let floats = |f: &dyn Fn(&[u8]) -> f32| Constant::floats(&shape, raw.chunks_exact(size).map(f).collect());
        return Ok(match kind {
            1 => floats(&|b| f32::from_le_bytes(four(b))),
            10 => floats(&|b| f16::from_le_bytes(two(b)).to_f32()),
            16 => floats(&|b| bf16::from_le_bytes(two(b)).to_f32()),
            11 => floats(&|b| f64::from_le_bytes(eight(b)) as f32),
            2 | 9 => ints(&|b| i64::from(b[0])),
            3 => ints(&|b| i64::from(b[0] as i8)),
            4 => ints(&|b| i64::from(u16::from_le_bytes(two(b)))),
            5 => ints(&|b| i64::from(i16::from_le_bytes(two(b)))),
            6 => ints(&|b| i64::from(i32::from_le_bytes(four(b)))),
            12 => ints(&|b| i64::from(u32::from_le_bytes(four(b)))),
            13 => ints(&|b| i64::try_from(u64::from_le_bytes(eight(b))).unwrap_or(i64::MAX)),
            _ => ints(&|b| i64::from_le_bytes(eight(b))),
        });
    }
    let checked = |found: usize| if found == count { Ok(()) } else { Err(short(found)) };
    let ints = |values: Vec<i64>| Constant::ints(&shape, values.into_iter().map(Dim::fixed).collect());
    let halves =
        |f: &dyn Fn(u16) -> f32| Constant::floats(&shape, tensor.int32_data.iter().map(|&v| f(v as u16)).collect());
    match kind {
        1 => {
            checked(tensor.float_data.len())?;
            Ok(Constant { shape: shape.clone(), data: super::ir::Data::Floats(Arc::new(tensor.float_data.clone())) })
        }
        11 => {
            checked(tensor.double_data.len())?;
            Ok(Constant::floats(&shape, tensor.double_data.iter().map(|&v| v as f32).collect()))
        }
        10 | 16 => {
            checked(tensor.int32_data.len())?;
            Ok(if kind == 10 {
                halves(&|bits| f16::from_bits(bits).to_f32())
            } else {
                halves(&|bits| bf16::from_bits(bits).to_f32())
            })
        }
        7 => {
            checked(tensor.int64_data.len())?;
            Ok(ints(tensor.int64_data.clone()))
        }
        12 | 13 => {
            checked(tensor.uint64_data.len())?;
            Ok(ints(tensor.uint64_data.iter().map(|&v| i64::try_from(v).unwrap_or(i64::MAX)).collect()))
        }
        _ => {
            checked(tensor.int32_data.len())?;
            Ok(ints(tensor.int32_data.iter().map(|&v| i64::from(v)).collect()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, shape: &[i64]) -> proto::ValueInfo {
        let dim = |&n: &i64| match n {
            0 => proto::Dimension { dim_value: None, dim_param: Some("batch".into()) },
            n => proto::Dimension { dim_value: Some(n), dim_param: None },
        };
        let shape = proto::Shape { dim: shape.iter().map(dim).collect() };
        let tensor = proto::TensorType { elem_type: Some(1), shape: Some(shape) };
        proto::ValueInfo { name: Some(name.into()), r#type: Some(proto::Type { tensor_type: Some(tensor) }) }
    }

    fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> proto::Node {
        let strings = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
        proto::Node {
            input: strings(inputs),
            output: strings(outputs),
            op_type: Some(op.into()),
            ..proto::Node::default()
        }
    }

    fn tensor(name: &str, dims: &[i64], values: &[f32]) -> proto::Tensor {
        proto::Tensor {
            dims: dims.to_vec(),
            data_type: Some(1),
            float_data: values.to_vec(),
            name: Some(name.into()),
            ..proto::Tensor::default()
        }
    }

    /// A pooled linear classifier of two classes.
    fn small() -> proto::Model {
        let graph = proto::Graph {
            node: vec![
                node("GlobalAveragePool", &["x"], &["pooled"]),
                node("Flatten", &["pooled"], &["flat"]),
                node("Gemm", &["flat", "w"], &["y"]),
            ],
            initializer: vec![tensor("w", &[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])],
            input: vec![value("x", &[0, 3, 8, 8])],
            output: vec![value("y", &[0, 2])],
            sparse_initializer: vec![],
        };
        let opset = proto::OperatorSet { domain: None, version: Some(18) };
        proto::Model { graph: Some(graph), opset_import: vec![opset], ..proto::Model::default() }
    }

    fn read(model: &proto::Model) -> Result<Model> {
        parse(Path::new("net.onnx"), model.encode_to_vec().into())
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut proto::Model, &mut proto::Graph), part: &str) {
        let mut model = small();
        let mut graph = model.graph.take().unwrap();
        change(&mut model, &mut graph);
        model.graph = Some(graph);
        let error = read(&model).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("net.onnx") && error.contains(part), "{error}\nexpected `{part}`");
    }

    #[test]
    fn a_graph_is_read_in_order() {
        let mut model = small();
        model.graph.as_mut().unwrap().node.reverse();
        let read = read(&model).unwrap();
        let ops: Vec<&str> = read.ir.nodes.iter().map(|n| n.op.as_str()).collect();
        assert_eq!(ops, ["GlobalAveragePool", "Flatten", "Gemm"]);
        assert_eq!(read.image, [None, Some(3), Some(8), Some(8)]);
        assert!(!read.ir.single);
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_reason() {
        refused(|_, g| g.node.push(node("Relu", &["y"], &["y"])), "two nodes make the value `y`");
        refused(|_, g| g.node[0].input[0] = "flat".into(), "depends on itself: a cycle");
        refused(|_, g| g.initializer.push(g.initializer[0].clone()), "two initialisers are called `w`");
        refused(|_, g| g.node[1].output[0] = "w".into(), "the value `w`, which is an initialiser too");
        refused(|_, g| g.initializer.clear(), "node `y` (Gemm) reads `w`, which is no input, no initialiser");
        refused(
            |_, g| g.node[1].op_type = Some("NonMaxSuppression".into()),
            "node `flat` (NonMaxSuppression) is of an unknown kind",
        );
        refused(
            |_, g| g.node[1].domain = Some("com.example".into()),
            "unknown here: com.example.Flatten; known are Abs, Add",
        );
        refused(|_, g| g.output.clear(), "expected an output of the graph, found none");
        refused(|_, g| g.input.clear(), "reads `x`, which is no input");
        refused(|_, g| g.input[0] = value("x", &[4, 3, 8, 8]), "is fixed at 4 images");
        refused(
            |_, g| g.input[0] = value("x", &[0, 3, 8, 8, 8]),
            "expected images of 4 dimensions, or flat ones of 2, found 5",
        );
        refused(|_, g| g.input[0] = value("x", &[0, 0]), "of a fixed length");
        refused(|m, _| m.opset_import.clear(), "expected the version of its operators");
        refused(|m, _| m.opset_import[0].version = Some(6), "expected opset 7 to 25, found 6");
        refused(|_, g| g.output[0] = value("x", &[0, 2]), "is an input or a constant");
        refused(
            |_, g| {
                g.input.push(value("z", &[0, 2]));
                g.node.push(node("Add", &["y", "z"], &["sum"]));
                g.output[0] = value("sum", &[0, 2]);
            },
            "expected one input of images, found x, z",
        );
    }

    #[test]
    fn tensors_are_believed_only_as_far_as_their_bytes_go() {
        refused(|_, g| g.initializer[0].dims = vec![3, 3], "expected 9 values for shape [3, 3], found 6");
        refused(|_, g| g.initializer[0].dims = vec![i64::MAX, i64::MAX], "an impossible shape");
        refused(|_, g| g.initializer[0].dims = vec![1 << 40, 1], "expected 1099511627776 values");
        refused(|_, g| g.initializer[0].dims = vec![-1, 6], "a dimension of -1");
        refused(|_, g| g.initializer[0].data_type = Some(8), "found STRING");
        refused(
            |_, g| {
                g.initializer[0].raw_data = Some(Bytes::from_static(&[0; 23]));
            },
            "expected 24 bytes for shape [3, 2] of FLOAT, found 23",
        );
    }

    #[test]
    fn external_data_stays_in_the_folder() {
        let folder = std::env::temp_dir().join(format!("rampart-external-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("inside")).unwrap();
        std::fs::write(folder.join("outside.bin"), [0; 64]).unwrap();
        std::fs::write(folder.join("inside/weights.bin"), [0; 40]).unwrap();
        let at = |location: &str, offset: &str| {
            let mut model = small();
            let entry = |key: &str, value: &str| proto::Entry { key: Some(key.into()), value: Some(value.into()) };
            let w = &mut model.graph.as_mut().unwrap().initializer[0];
            w.float_data.clear();
            w.data_location = Some(1);
            w.external_data = vec![entry("location", location), entry("offset", offset)];
            parse(&folder.join("inside/net.onnx"), model.encode_to_vec().into())
        };
        assert_eq!(at("weights.bin", "16").unwrap().ir.values.iter().filter(|v| v.constant.is_some()).count(), 1);
        let absolute = folder.join("outside.bin").display().to_string();
        for (location, offset, part) in [
            ("../outside.bin", "0", "expected a file in the folder of the model"),
            (absolute.as_str(), "0", "expected a file in the folder of the model"),
            ("a/../../outside.bin", "0", "expected a file in the folder of the model"),
            ("weights.bin", "17", "expected 24 bytes from 17 on in `weights.bin`, found a file of 40"),
            ("weights.bin", "18446744073709551615", "expected 24 bytes"),
            ("weights.bin", "-1", "`offset` is `-1`, no number"),
            ("missing.bin", "0", "its data: "),
        ] {
            let error = at(location, offset).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains("tensor `w`") && error.contains(part), "{location}: {error}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn no_cut_and_no_changed_byte_of_a_file_panics() {
        let bytes = small().encode_to_vec();
        for length in 0..bytes.len() {
            let _ = parse(Path::new("net.onnx"), Bytes::copy_from_slice(&bytes[..length]));
        }
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                if let Ok(model) = parse(Path::new("net.onnx"), changed.into()) {
                    let mut ir = model.ir;
                    let _ = super::super::shapes::run(&mut ir, [3, 8, 8]);
                }
            }
        }
        let error = parse(Path::new("net.onnx"), Bytes::from_static(b"PK\x03\x04 no model")).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("expected an ONNX model, found one that does not parse"), "{error}");
    }

    #[test]
    fn functions_are_inlined_with_their_attributes() {
        let attribute = |name: &str| proto::Attribute { name: Some(name.into()), ..proto::Attribute::default() };
        let number = |name: &str, i: i64| proto::Attribute { i: Some(i), r#type: Some(2), ..attribute(name) };
        let mut flatten = node("Flatten", &["a"], &["b"]);
        flatten.attribute.push(proto::Attribute { ref_attr_name: Some("from".into()), ..attribute("axis") });
        let function = proto::Function {
            name: Some("Squash".into()),
            domain: Some("mine".into()),
            input: vec!["in".into()],
            output: vec!["b".into()],
            node: vec![node("Relu", &["in"], &["a"]), flatten],
            attribute_proto: vec![number("from", 1)],
        };
        let mut model = small();
        model.functions.push(function.clone());
        let graph = model.graph.as_mut().unwrap();
        graph.node[1] = proto::Node {
            domain: Some("mine".into()),
            attribute: vec![number("from", -3)],
            ..node("Squash", &["pooled"], &["flat"])
        };
        let read_model = read(&model).unwrap();
        let nodes = &read_model.ir.nodes;
        assert_eq!(
            nodes.iter().map(|n| n.op.as_str()).collect::<Vec<_>>(),
            ["GlobalAveragePool", "Relu", "Flatten", "Gemm"]
        );
        assert_eq!(nodes[2].int("axis"), Some(-3));
        // A function that calls itself twice would be exponential.
        model.functions[0].node = vec![
            proto::Node { domain: Some("mine".into()), ..node("Squash", &["in"], &["a"]) },
            proto::Node { domain: Some("mine".into()), ..node("Squash", &["a"], &["b"]) },
        ];
        let error = read(&model).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("functions call each other more than 16 deep"), "{error}");
    }
}
