//! A dump: one operation's inputs, weights and expected outputs, as PyTorch computed them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::data::tensors::{TensorFile, View};
use crate::{Error, Result};

/// A tensor of a dump in PyTorch's layout.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// One `.safetensors` file. What a replay reads is noted, so that what it does not know can be named.
pub struct Dump {
    pub path: PathBuf,
    pub op: String,
    /// Overrides the default limits.
    pub rtol: Option<f64>,
    file: Arc<TensorFile>,
    attrs: Map<String, Value>,
    used: RefCell<BTreeSet<String>>,
}

impl Dump {
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] when the file cannot be read or lacks its metadata.
    pub fn open(path: &Path) -> Result<Self> {
        let file = Arc::new(TensorFile::open(path)?);
        if !file.names().iter().any(|n| n.starts_with("out.")) {
            return Err(Error::file(path, "expected at least one tensor `out.NAME`, found none"));
        }
        let metadata = file.metadata().cloned().unwrap_or_default();
        let op =
            metadata.get("op").ok_or_else(|| Error::file(path, "expected `op` in the metadata, found none"))?.clone();
        let attrs = metadata.get("attrs").map_or("{}", String::as_str);
        let attrs = serde_json::from_str(attrs).map_err(|e| Error::file(path, format!("metadata `attrs`: {e}")))?;
        let rtol = match metadata.get("rtol") {
            None => None,
            Some(text) => match text.parse::<f64>() {
                Ok(v) if v.is_finite() && v > 0.0 => Some(v),
                _ => {
                    return Err(Error::file(
                        path,
                        format!("metadata `rtol`: expected a positive number, found `{text}`"),
                    ));
                }
            },
        };
        Ok(Dump { path: path.into(), op, rtol, file, attrs, used: RefCell::default() })
    }

    fn view(&self, name: &str) -> Result<View<'_>> {
        self.note(name);
        self.file.get(name).ok_or_else(|| Error::tensor(&self.path, name, "no such tensor, and the op needs it"))
    }

    fn note(&self, name: &str) {
        self.used.borrow_mut().insert(name.into());
    }

    pub fn has(&self, name: &str) -> bool {
        self.file.has(name)
    }

    /// A floating-point tensor.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is missing or of another type.
    pub fn array(&self, name: &str) -> Result<Array> {
        let view = self.view(name)?;
        // A tensor of nothing may be of any shape: loops over its dimensions would have no end.
        if view.shape.contains(&0) {
            let found = format!("expected at least one value, found the shape {:?}", view.shape);
            return Err(Error::tensor(&self.path, name, found));
        }
        let values = view.floats().map_err(|problem| Error::tensor(&self.path, name, problem))?;
        Ok(Array { shape: view.shape.to_vec(), values })
    }

    /// The same, `None` when the dump has none.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is of another type.
    pub fn optional(&self, name: &str) -> Result<Option<Array>> {
        self.has(name).then(|| self.array(name)).transpose()
    }

    /// An expected output, and whether it is to be met exactly: integers are.
    ///
    /// # Errors
    /// As [`Dump::array`].
    pub fn reference(&self, name: &str) -> Result<(Array, bool)> {
        match self.file.get(name).map(|view| (view, view.integers())) {
            Some((view, Ok(values))) => {
                let values = values.into_iter().map(|v| v as f32).collect();
                Ok((Array { shape: view.shape.to_vec(), values }, true))
            }
            _ => Ok((self.array(name)?, false)),
        }
    }

    /// The shape of a tensor, if there is one of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.file.get(name).map(|view| view.shape)
    }

    /// Non-negative integers, such as labels.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the tensor is missing, no I64, or holds a negative value.
    pub fn labels(&self, name: &str) -> Result<Vec<u32>> {
        let bad = |problem: String| Error::tensor(&self.path, name, problem);
        let values = self.view(name)?.integers().map_err(bad)?;
        let class = |v: i64| u32::try_from(v).map_err(|_| bad(format!("expected a class index, found {v}")));
        values.into_iter().map(class).collect()
    }

    /// Integers in the shape of their tensor.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the tensor is missing or of another type.
    pub fn integers(&self, name: &str) -> Result<(Vec<usize>, Vec<i64>)> {
        let view = self.view(name)?;
        let values = view.integers().map_err(|problem| Error::tensor(&self.path, name, problem))?;
        Ok((view.shape.to_vec(), values))
    }

    /// The attribute `name`.
    ///
    /// # Errors
    /// [`Error::File`] when it is missing or of another form.
    pub fn attr<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        match self.attr_opt(name)? {
            Some(value) => Ok(value),
            None => Err(Error::file(&self.path, format!("expected the attribute `{name}`, found none"))),
        }
    }

    /// The same, `None` when absent or null.
    ///
    /// # Errors
    /// [`Error::File`] when it is of another form.
    pub fn attr_opt<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        self.note(&format!("attr {name}"));
        match self.attrs.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|e| Error::file(&self.path, format!("attribute `{name}` = {value}: {e}"))),
        }
    }

    /// Names of the expected outputs.
    pub fn outputs(&self) -> Vec<String> {
        let mut names: Vec<String> = self.file.names().into_iter().filter(|n| n.starts_with("out.")).collect();
        names.sort();
        names
    }

    /// Inputs, weights and attributes no replay asked for: an op that ignores them would check something else.
    pub fn unread(&self, whole_network: bool) -> Vec<String> {
        let used = self.used.borrow();
        let mut left: Vec<String> = Vec::new();
        for name in self.file.names() {
            let weight = name.starts_with("w.");
            if (name.starts_with("in.") || weight && !whole_network)
                && !used.contains(&name)
                && !name.ends_with("num_batches_tracked")
            {
                left.push(format!("tensor `{name}`"));
            }
        }
        left.extend(
            self.attrs.keys().filter(|k| !used.contains(&format!("attr {k}"))).map(|k| format!("attribute `{k}`")),
        );
        left.sort();
        left
    }

    /// The file, for the loader of whole networks.
    pub fn file(&self) -> Arc<TensorFile> {
        self.file.clone()
    }
}

impl Array {
    /// `(N, C, H, W)` as `(N, H, W, C)`.
    pub fn channels_last(&self) -> Option<([usize; 4], Vec<f32>)> {
        let [n, c, h, w]: [usize; 4] = self.shape.as_slice().try_into().ok()?;
        Some(([n, h, w, c], transpose(&self.values, n, c, h * w)))
    }
}

/// `(N, H, W, C)` values as `(N, C, H, W)`.
pub fn channels_first(values: &[f32], [n, h, w, c]: [usize; 4]) -> Vec<f32> {
    transpose(values, n, h * w, c)
}

/// `(batch, rows, cols)` as `(batch, cols, rows)`.
fn transpose(values: &[f32], batch: usize, rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    for b in 0..batch {
        let at = b * rows * cols;
        for r in 0..rows {
            for c in 0..cols {
                out[at + c * rows + r] = values[at + r * cols + c];
            }
        }
    }
    out
}
