//! Files of tensors: checkpoints, dumps and starts, as safetensors or as PyTorch saves them. The header is parsed once, when the file
//! is opened.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensors};

use super::recognise::recognise;
use super::torch::{self, Place, Stored};
use crate::error::{Error, Result};
use crate::files;

/// Bytes of the length that a safetensors file begins with.
const LENGTH: usize = 8;

enum Bytes {
    Embedded(&'static [u8]),
    Owned(Vec<u8>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Embedded(b) => b,
            Bytes::Owned(v) => v,
        }
    }
}

/// Bytes of a safetensors header: that of a network of a thousand layers is a hundredth of it. What is made of one is ten times as large.
const HEADER: u64 = files::TEXT;

/// Bytes that show what a file is.
const START: u64 = 1 << 16;

/// The end of a safetensors header, by the length at its beginning.
fn header_end(start: &[u8]) -> Option<u64> {
    let length = u64::from_le_bytes(*start.first_chunk()?);
    (start.get(LENGTH) == Some(&b'{')).then_some(length.checked_add(LENGTH as u64)?)
}

/// Refuses a header that no network needs.
fn of_a_network(path: &Path, start: &[u8]) -> Result<()> {
    match header_end(start).map(|end| end - LENGTH as u64) {
        Some(length) if length > HEADER => {
            let found = format!("one whose header has {length} bytes, more than {HEADER}");
            Err(Error::file(path, format!("expected a safetensors file or a .pth of PyTorch, found {found}")))
        }
        _ => Ok(()),
    }
}

/// An open file.
pub struct TensorFile {
    origin: PathBuf,
    bytes: Bytes,
    metadata: Option<HashMap<String, String>>,
    /// In the order of their data.
    names: Vec<String>,
    tensors: HashMap<String, Stored>,
}

/// One tensor of a file.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    data: &'a [u8],
}

impl TensorFile {
    /// Reads a file. Not mapped: one that another process shortens meanwhile would end this one.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened or is more than memory holds, [`Error::File`] when it is neither a safetensors file nor a
    /// checkpoint of PyTorch.
    pub fn open(path: &Path) -> Result<Self> {
        let mut start = Vec::new();
        let file = files::open(path, "open")?;
        let len = file.metadata().map_err(|e| Error::io(path, "open", e))?.len();
        file.take(START).read_to_end(&mut start).map_err(|e| Error::io(path, "read", e))?;
        // What its beginning shows to be something else is not read to the end, whatever its size.
        if len > START && !torch::is_torch(&start) && header_end(&start).is_none_or(|end| end > len) {
            let found = recognise(path, &start).unwrap_or("one that does not parse: no header of its length");
            return Err(Error::file(path, format!("expected a safetensors file or a .pth of PyTorch, found {found}")));
        }
        if !torch::is_torch(&start) {
            of_a_network(path, &start)?;
        }
        Self::parse(path, Bytes::Owned(files::read(path, "read", u64::MAX)?))
    }

    /// Bytes that are part of the program.
    ///
    /// # Errors
    /// [`Error::File`] when they are no safetensors file.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Self::parse(Path::new(name), Bytes::Embedded(bytes))
    }

    /// Bytes that were read or made; `name` is for messages.
    ///
    /// # Errors
    /// [`Error::File`] when they are no safetensors file.
    pub fn owned(name: &Path, bytes: Vec<u8>) -> Result<Self> {
        Self::parse(name, Bytes::Owned(bytes))
    }

    fn parse(origin: &Path, bytes: Bytes) -> Result<Self> {
        let content = bytes.as_ref();
        if torch::is_torch(content) {
            let tensors = torch::read(content).map_err(|problem| {
                let way_out = "tools/import/convert_checkpoint.py IN OUT.safetensors --model NAME reads more";
                Error::file(origin, format!("expected a checkpoint of PyTorch, found {problem}; {way_out}"))
            })?;
            let names = tensors.iter().map(|(name, _)| name.clone()).collect();
            return Ok(TensorFile {
                origin: origin.into(),
                bytes,
                metadata: None,
                names,
                tensors: tensors.into_iter().collect(),
            });
        }
        of_a_network(origin, content)?;
        let (length, header) = SafeTensors::read_metadata(content).map_err(|e| {
            let found =
                recognise(origin, content).map_or_else(|| format!("one that does not parse: {e}"), str::to_owned);
            Error::file(origin, format!("expected a safetensors file or a .pth of PyTorch, found {found}"))
        })?;
        let begin = LENGTH + length;
        let names = header.offset_keys();
        let tensors = names.iter().filter_map(|name| {
            let info = header.info(name)?;
            let (from, to) = info.data_offsets;
            let place = Place::At(begin + from, begin + to);
            Some((name.clone(), Stored { dtype: info.dtype, shape: info.shape.clone(), place }))
        });
        let (tensors, metadata) = (tensors.collect(), header.metadata().clone());
        Ok(TensorFile { origin: origin.into(), bytes, metadata, names, tensors })
    }

    /// The file, for messages.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The texts beside the tensors.
    pub fn metadata(&self) -> Option<&HashMap<String, String>> {
        self.metadata.as_ref()
    }

    /// In the order of their data.
    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    pub fn get(&self, name: &str) -> Option<View<'_>> {
        let Stored { dtype, shape, place } = self.tensors.get(name)?;
        let data = match place {
            Place::At(from, to) => self.bytes.as_ref().get(*from..*to)?,
            Place::Copied(values) => values,
        };
        Some(View { dtype: *dtype, shape, data })
    }
}

impl<'a> View<'a> {
    /// The values as they lie in the file, little-endian.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Floating-point values, widened to float32.
    ///
    /// # Errors
    /// What was found instead, in words.
    pub fn floats(&self) -> Result<Vec<f32>, String> {
        let pairs = || self.data.as_chunks::<2>().0.iter();
        Ok(match self.dtype {
            Dtype::F64 => self.data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
            Dtype::F32 => self.data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => pairs().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => pairs().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            other => return Err(format!("expected F64, F32, F16 or BF16, found {other}")),
        })
    }

    /// Integer values.
    ///
    /// # Errors
    /// What was found instead, in words.
    pub fn integers(&self) -> Result<Vec<i64>, String> {
        let values = || self.data.as_chunks().0.iter();
        match self.dtype {
            Dtype::I64 => Ok(values().map(|&b| i64::from_le_bytes(b)).collect()),
            Dtype::U64 => values()
                .map(|&b| u64::from_le_bytes(b))
                .map(|v| i64::try_from(v).map_err(|_| format!("expected at most {}, found {v}", i64::MAX)))
                .collect(),
            other => Err(format!("expected I64 or U64, found {other}")),
        }
    }
}
