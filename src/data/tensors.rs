//! Safetensors files: checkpoints, dumps and starts. The header is parsed once, when the file is opened.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result};

/// Bytes of the length that a file begins with.
const LENGTH: usize = 8;

enum Bytes {
    Mapped(Mmap),
    Embedded(&'static [u8]),
    Owned(Vec<u8>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(m) => m,
            Bytes::Embedded(b) => b,
            Bytes::Owned(v) => v,
        }
    }
}

/// An open file.
pub struct TensorFile {
    origin: PathBuf,
    bytes: Bytes,
    header: Metadata,
    /// where the tensors begin
    begin: usize,
}

/// One tensor of a file.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub dtype: Dtype,
    pub shape: &'a [usize],
    data: &'a [u8],
}

impl TensorFile {
    /// Maps a file.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be opened, [`Error::File`] when it is no safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        // SAFETY: another process that shortens the file meanwhile makes a read fault, the usual price of mapping; nothing here relies
        // on the bytes staying the same.
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, "map", e))?;
        Self::parse(path, Bytes::Mapped(map))
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
        let bad = |e| Error::file(origin, format!("expected a safetensors file, found one that does not parse: {e}"));
        let (length, header) = SafeTensors::read_metadata(bytes.as_ref()).map_err(bad)?;
        Ok(TensorFile { origin: origin.into(), bytes, header, begin: LENGTH + length })
    }

    /// The file, for messages.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// The texts beside the tensors.
    pub fn metadata(&self) -> Option<&HashMap<String, String>> {
        self.header.metadata().as_ref()
    }

    /// In the order of their data.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    pub fn has(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    pub fn get(&self, name: &str) -> Option<View<'_>> {
        let info = self.header.info(name)?;
        let (from, to) = info.data_offsets;
        let data = self.bytes.as_ref().get(self.begin + from..self.begin + to)?;
        Some(View { dtype: info.dtype, shape: &info.shape, data })
    }
}

impl View<'_> {
    /// Floating-point values, widened to float32.
    ///
    /// # Errors
    /// What was found instead, in words.
    pub fn floats(&self) -> Result<Vec<f32>, String> {
        let pairs = || self.data.as_chunks::<2>().0.iter();
        Ok(match self.dtype {
            Dtype::F32 => self.data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F16 => pairs().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => pairs().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            other => return Err(format!("expected F32, F16 or BF16, found {other}")),
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
