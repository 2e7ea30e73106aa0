//! Checkpoints: tensors by their public PyTorch names, from a safetensors file or from a formula.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::graph::read::{self, Model};
use crate::data::tensors::TensorFile;
use crate::{Error, Result};

/// Where a network's parameters come from. A builder takes what it needs by name and finally calls [`Weights::finish`], so
/// that a checkpoint of another network is refused instead of half used.
pub struct Weights {
    file: Option<Arc<TensorFile>>,
    /// A graph that comes with its weights, instead of tensors for a network that is known.
    graph: Option<Arc<Model>>,
    /// In front of the names of the network's tensors in the file.
    prefix: String,
    /// The network's names, and what the file calls them.
    names: BTreeMap<String, String>,
    used: RefCell<BTreeSet<String>>,
    taken: Cell<usize>,
    /// What is said beside the file, in place of its metadata.
    said: BTreeMap<&'static str, String>,
}

impl Weights {
    /// Maps a file of tensors, or an ONNX graph where the name ends so.
    ///
    /// # Errors
    /// As [`TensorFile::open`] and [`read::open`].
    pub fn open(path: &Path) -> Result<Self> {
        if read::is_onnx(path) {
            return Ok(Self::of_graph(read::open(path)?));
        }
        Ok(Self::of(Arc::new(TensorFile::open(path)?), ""))
    }

    /// A graph that was read.
    pub fn of_graph(model: Model) -> Self {
        Weights { graph: Some(Arc::new(model)), ..Self::seeded() }
    }

    /// The graph, if that is what the file holds.
    pub fn graph(&self) -> Option<&Arc<Model>> {
        self.graph.as_ref()
    }

    /// Notes values that a graph took out of its own file.
    pub(super) fn take(&self, values: usize) {
        self.taken.set(self.taken.get() + values);
    }

    /// Reads safetensors bytes that are part of the program.
    ///
    /// # Errors
    /// As [`TensorFile::embedded`].
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Ok(Self::of(Arc::new(TensorFile::embedded(name, bytes)?), ""))
    }

    /// Only the tensors whose name starts with `prefix` belong to the network, without it.
    pub fn of(file: Arc<TensorFile>, prefix: &str) -> Self {
        let own = |name: String| Some((name.strip_prefix(prefix)?.to_owned(), name));
        let names = file.names().into_iter().filter_map(own).collect();
        Weights { file: Some(file), prefix: prefix.into(), names, ..Self::seeded() }
    }

    /// Every tensor by the fill of [`fill`]: networks without a checkpoint, for tests and timings.
    pub fn seeded() -> Self {
        Weights {
            file: None,
            graph: None,
            prefix: String::new(),
            names: BTreeMap::new(),
            used: RefCell::default(),
            taken: Cell::new(0),
            said: BTreeMap::new(),
        }
    }

    /// The same with a text in place of what the file's metadata says.
    pub fn saying(mut self, key: &'static str, text: String) -> Self {
        self.said.insert(key, text);
        self
    }

    /// The same without `prefix` in front of the names; what has it not belongs to something else.
    ///
    /// # Errors
    /// [`Error::Usage`] when no name has it.
    pub fn stripped(self, prefix: &str) -> Result<Self> {
        let own =
            |(name, original): (&String, &String)| Some((name.strip_prefix(prefix)?.to_owned(), original.clone()));
        let names: BTreeMap<String, String> = self.names.iter().filter_map(own).collect();
        if names.is_empty() {
            let first = self.names.keys().next().map_or("", String::as_str);
            let problem = format!(
                "expected what names of tensors begin with, found `{prefix}`: none of {} does, the first is `{first}`",
                self.origin().display()
            );
            return Err(Error::usage("models.strip", problem));
        }
        Ok(Weights { prefix: format!("{}{prefix}", self.prefix), names, ..self })
    }

    /// All that the file holds, under its own names.
    pub(super) fn whole(&self) -> Option<Self> {
        self.file.as_ref().map(|file| Self::of(file.clone(), ""))
    }

    /// The same without tensors of the file that are none of the network's.
    pub(super) fn without(mut self, originals: &[String]) -> Self {
        self.names.retain(|_, original| !originals.contains(original));
        self
    }

    /// The same with `from` in every name read as `to`.
    ///
    /// # Errors
    /// [`Error::Usage`] when no name has it, and when two would be called alike.
    pub fn renamed(self, from: &str, to: &str) -> Result<Self> {
        let wrong = |problem: String| Err(Error::usage("models.rename", problem));
        if from.is_empty() || !self.names.keys().any(|name| name.contains(from)) {
            let first = self.names.keys().next().map_or("", String::as_str);
            return wrong(format!(
                "expected a part of a tensor's name, found `{from}`: none of {} has it, the first is `{first}`",
                self.origin().display()
            ));
        }
        let mut names = BTreeMap::new();
        for (name, original) in &self.names {
            let new = name.replace(from, to);
            if let Some(other) = names.insert(new.clone(), original.clone()) {
                return wrong(format!("`{other}` and `{original}` would both be `{new}`"));
            }
        }
        Ok(Weights { names, ..self })
    }

    /// The names of the network's tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(String::as_str)
    }

    /// The names that were asked for.
    pub fn wanted(&self) -> BTreeSet<String> {
        self.used.borrow().clone()
    }

    /// The shape of a tensor, if there is one of this name.
    pub fn shape_of(&self, name: &str) -> Option<Vec<usize>> {
        let view = self.file.as_ref()?.get(self.names.get(name)?)?;
        Some(view.shape.to_vec())
    }

    /// Whether the file has texts beside its tensors.
    pub fn has_metadata(&self, key: &str) -> bool {
        self.said.contains_key(key)
            || self.graph.as_ref().is_some_and(|model| model.metadata.contains_key(key))
            || self.file.as_ref().and_then(|file| file.metadata()).is_some_and(|texts| texts.contains_key(key))
    }

    /// The file, for messages.
    pub fn origin(&self) -> &Path {
        let graph = self.graph.as_ref().map(|model| model.origin.as_path());
        graph.or_else(|| self.file.as_ref().map(|file| file.origin())).unwrap_or(Path::new("seeded weights"))
    }

    /// A text of the file's metadata.
    ///
    /// # Errors
    /// [`Error::File`] when there is none of that name.
    pub fn metadata(&self, key: &str) -> Result<&str> {
        if let Some(text) = self.said.get(key) {
            return Ok(text);
        }
        if let Some(model) = &self.graph {
            let none = || Error::file(&model.origin, format!("expected `{key}` in metadata_props, found none"));
            return model.metadata.get(key).map(String::as_str).ok_or_else(none);
        }
        let metadata = self.file.as_ref().and_then(|file| file.metadata());
        let found = || {
            let mut keys: Vec<&str> = metadata.into_iter().flatten().map(|(key, _)| key.as_str()).collect();
            keys.sort_unstable();
            keys.join(", ")
        };
        metadata.and_then(|texts| texts.get(key)).map(String::as_str).ok_or_else(|| {
            let way_out = match metadata {
                Some(_) => "",
                None => {
                    "; models.arch and models.config say what it is, or tools/import/convert_checkpoint.py IN OUT.safetensors --model NAME \
                     writes it (--list names the models)"
                }
            };
            Error::file(self.origin(), format!("expected `{key}` in the metadata, found only [{}]{way_out}", found()))
        })
    }

    /// A JSON value of the file's metadata.
    ///
    /// # Errors
    /// [`Error::File`] when it is missing or of another form.
    pub fn metadata_json<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<T> {
        let text = self.metadata(key)?;
        serde_json::from_str(text).map_err(|e| Error::file(self.origin(), format!("metadata `{key}` = `{text}`: {e}")))
    }

    /// The tensor `name` of the given shape as float32.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is missing (the nearest name is told), of another shape or type, or holds a value that is
    /// not finite.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.taken.set(self.taken.get() + shape.iter().product::<usize>());
        self.used.borrow_mut().insert(name.to_owned());
        let Some(file) = &self.file else { return Ok(fill(name, shape)) };
        let found = self.names.get(name);
        let full = found.cloned().unwrap_or_else(|| format!("{}{name}", self.prefix));
        let bad = |problem: String| Error::tensor(file.origin(), full.clone(), problem);
        let Some(view) = found.and_then(|name| file.get(name)) else {
            let names = file.names();
            let hint = nearest(&full, names.iter().map(String::as_str))
                .map_or(String::new(), |n| format!("; the nearest is `{n}`"));
            return Err(bad(format!("no such name{hint}")));
        };
        if view.shape != shape {
            return Err(bad(format!("expected shape {shape:?}, found {:?}", view.shape)));
        }
        let values = view.floats().map_err(bad)?;
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(bad(format!("expected finite values, found {} at index {at}", values[at])));
        }
        Ok(values)
    }

    /// How many values were taken so far.
    pub fn taken(&self) -> usize {
        self.taken.get()
    }

    /// Checks that nothing but counters was left unused.
    ///
    /// # Errors
    /// [`Error::Tensor`] that names the first superfluous tensor and the nearest name that was wanted.
    pub fn finish(&self) -> Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        let used = self.used.borrow();
        let mut extra: Vec<(&String, &String)> = self.names.iter().map(|(name, original)| (original, name)).collect();
        extra.sort_unstable();
        let extra = extra.into_iter().find(|(_, n)| !used.contains(*n) && !n.ends_with("num_batches_tracked"));
        let Some((original, extra)) = extra else { return Ok(()) };
        let nearest = nearest(extra, used.iter().map(String::as_str));
        let hint = nearest.map_or(String::new(), |n| format!("; the nearest it has is `{}{n}`", self.prefix));
        Err(Error::tensor(self.origin(), original, format!("the network has no such tensor{hint}")))
    }
}

/// The name that was probably meant: the fewest edits, but an index is rarely misspelt.
fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let digits = |name: &str| name.chars().filter(char::is_ascii_digit).collect::<String>();
    let indices = digits(wanted);
    names.into_iter().min_by_key(|name| (digits(name) != indices, strsim::levenshtein(name, wanted), *name))
}

/// Values in [-1, 1) that depend only on a name: FNV-1a of the name seeds SplitMix64, whose upper 24 bits become a float.
///
/// Source: Fowler, Noll & Vo; Steele, Lea & Flood 2014.
pub fn uniform(name: &str, n: usize) -> impl Iterator<Item = f32> {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for byte in name.bytes() {
        h = (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    (1..=n as u64).map(move |j| {
        let mut z = h.wrapping_add(j.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        ((z >> 40) as i64 - (1 << 23)) as f32 / (1 << 23) as f32
    })
}

/// A parameter by its name alone, scaled by its kind so that activations keep their size through a network.
pub fn fill(name: &str, shape: &[usize]) -> Vec<f32> {
    let n: usize = shape.iter().product();
    let values = uniform(name, n);
    if name.ends_with("running_var") {
        values.map(|v| 1.0 + 0.5 * v).collect()
    } else if name.ends_with("running_mean") || name.ends_with("bias") {
        values.map(|v| 0.2 * v).collect()
    } else if name.ends_with(".gamma") {
        values.map(|v| 0.5 + 0.2 * v).collect()
    } else if shape.len() >= 2 {
        let fan_in = n / shape[0];
        let scale = (3.0 / fan_in as f64).sqrt() as f32;
        values.map(|v| v * scale).collect()
    } else {
        values.map(|v| 1.0 + 0.2 * v).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fill_has_its_known_values() {
        let input: Vec<f32> = uniform("input", 4).collect();
        assert_eq!(input, [-0.804_363_37, 0.304_720_76, -0.592_751_5, -0.451_110_72]);
        let conv: Vec<f32> = uniform("conv1.weight", 3).collect();
        assert_eq!(conv, [0.090_149_88, 0.490_323_42, -0.954_156_64]);
    }
}
