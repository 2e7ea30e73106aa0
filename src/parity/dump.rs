//! A dump: one operation's inputs, weights and expected outputs, as PyTorch computed them.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

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
    bytes: Vec<u8>,
    attrs: Map<String, Value>,
    used: RefCell<BTreeSet<String>>,
}

impl Dump {
    /// # Errors
    /// [`Error::Io`] or [`Error::File`] when the file cannot be read or lacks its metadata.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, "cannot read the dump", e))?;
        let bad = |e| Error::file(path, format!("expected a safetensors file, found one that does not parse: {e}"));
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(bad)?;
        let file = SafeTensors::deserialize(&bytes).map_err(bad)?;
        if !file.names().iter().any(|n| n.starts_with("out.")) {
            return Err(Error::file(path, "expected at least one tensor `out.NAME`, found none"));
        }
        let metadata = header.metadata().clone().unwrap_or_default();
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
        Ok(Dump { path: path.into(), op, rtol, bytes, attrs, used: RefCell::default() })
    }

    fn file(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes).map_err(|e| Error::file(&self.path, e.to_string()))
    }

    fn note(&self, name: &str) {
        self.used.borrow_mut().insert(name.into());
    }

    pub fn has(&self, name: &str) -> bool {
        self.file().is_ok_and(|f| f.tensor(name).is_ok())
    }

    /// A floating-point tensor.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is missing or of another type.
    pub fn array(&self, name: &str) -> Result<Array> {
        self.note(name);
        let file = self.file()?;
        let view =
            file.tensor(name).map_err(|_| Error::tensor(&self.path, name, "no such tensor, and the op needs it"))?;
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
            Dtype::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            Dtype::BF16 => data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            other => {
                return Err(Error::tensor(&self.path, name, format!("expected F32, F16 or BF16, found {other:?}")));
            }
        };
        Ok(Array { shape: view.shape().to_vec(), values })
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
        let file = self.file()?;
        match file.tensor(name) {
            Ok(view) if view.dtype() == Dtype::I64 => {
                let values = view.data().chunks_exact(8);
                let values =
                    values.map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32);
                Ok((Array { shape: view.shape().to_vec(), values: values.collect() }, true))
            }
            _ => Ok((self.array(name)?, false)),
        }
    }

    /// Non-negative integers, such as labels.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the tensor is missing, no I64, or holds a negative value.
    pub fn labels(&self, name: &str) -> Result<Vec<u32>> {
        self.note(name);
        let file = self.file()?;
        let view =
            file.tensor(name).map_err(|_| Error::tensor(&self.path, name, "no such tensor, and the op needs it"))?;
        if view.dtype() != Dtype::I64 {
            return Err(Error::tensor(&self.path, name, format!("expected I64, found {:?}", view.dtype())));
        }
        let values =
            view.data().chunks_exact(8).map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]));
        values
            .map(|v| {
                u32::try_from(v)
                    .map_err(|_| Error::tensor(&self.path, name, format!("expected a class index, found {v}")))
            })
            .collect()
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
    ///
    /// # Errors
    /// [`Error::File`] when the file does not parse.
    pub fn outputs(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> =
            self.file()?.names().iter().filter(|n| n.starts_with("out.")).map(ToString::to_string).collect();
        names.sort();
        Ok(names)
    }

    /// Inputs, weights and attributes no replay asked for: an op that ignores them would check something else.
    ///
    /// # Errors
    /// [`Error::File`] when the file does not parse.
    pub fn unread(&self, whole_network: bool) -> Result<Vec<String>> {
        let used = self.used.borrow();
        let mut left: Vec<String> = Vec::new();
        for name in self.file()?.names() {
            let weight = name.starts_with("w.");
            if (name.starts_with("in.") || weight && !whole_network)
                && !used.contains(name)
                && !name.ends_with("num_batches_tracked")
            {
                left.push(format!("tensor `{name}`"));
            }
        }
        left.extend(
            self.attrs.keys().filter(|k| !used.contains(&format!("attr {k}"))).map(|k| format!("attribute `{k}`")),
        );
        left.sort();
        Ok(left)
    }

    /// The file's bytes, for the loader of whole networks.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
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
