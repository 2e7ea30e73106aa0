//! Tensors: a shape, an element type and device memory. Activations are `(N, H, W, C)`, contiguous.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use half::bf16;

use crate::device::{Buffer, DType, Device};
use crate::{Error, Result};

/// Identifies a tensor on a tape.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TensorId(u64);

impl TensorId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        TensorId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A contiguous tensor on a device. Clones share memory; nothing writes to a tensor once an op returned it, but for ops that say `in_place`.
#[derive(Clone)]
pub struct Tensor {
    shape: Vec<usize>,
    dtype: DType,
    buffer: Arc<Buffer>,
    /// bytes from the start of the buffer
    offset: usize,
    id: TensorId,
}

impl Tensor {
    /// Memory for `shape`, to be written by a kernel.
    ///
    /// # Errors
    /// [`Error::Limit`] for a dimension or a size that kernels cannot count, [`Error::Device`] when the device is out of memory.
    pub fn uninit(device: &Device, shape: &[usize], dtype: DType) -> Result<Self> {
        let buffer = Arc::new(device.alloc(bytes(shape, dtype)?)?);
        Ok(Tensor { shape: shape.to_vec(), dtype, buffer, offset: 0, id: TensorId::next() })
    }

    /// Uploads values, rounding to `dtype` (`F32` or `BF16`).
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of values is not that of the shape.
    pub fn from_f32(device: &Device, shape: &[usize], dtype: DType, values: &[f32]) -> Result<Self> {
        if !matches!(dtype, DType::F32 | DType::BF16) {
            return Err(Error::shape("tensor", "element type", "F32 or BF16", format!("{dtype:?}")));
        }
        holds(shape, dtype, values.len())?;
        let t = Self::uninit(device, shape, dtype)?;
        match dtype {
            DType::BF16 => {
                let rounded: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
                device.upload(&t.buffer, bytemuck::cast_slice(&rounded))?;
            }
            _ => device.upload(&t.buffer, bytemuck::cast_slice(values))?,
        }
        Ok(t)
    }

    /// Uploads integers.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of values is not that of the shape.
    pub fn from_i32(device: &Device, shape: &[usize], values: &[i32]) -> Result<Self> {
        holds(shape, DType::I32, values.len())?;
        let t = Self::uninit(device, shape, DType::I32)?;
        device.upload(&t.buffer, bytemuck::cast_slice(values))?;
        Ok(t)
    }

    /// Values that never change, by their bytes, uploaded once per device: see [`Device::constant`].
    ///
    /// # Errors
    /// [`Error::Shape`] when they are not as many as the shape says.
    pub fn constant(device: &Device, shape: &[usize], dtype: DType, values: &[u8]) -> Result<Self> {
        holds(shape, dtype, values.len() / dtype.size())?;
        let buffer = Arc::new(device.constant(values)?);
        Ok(Tensor { shape: shape.to_vec(), dtype, buffer, offset: 0, id: TensorId::next() })
    }

    /// A tensor of its own with the same values.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is out of memory.
    pub fn copied(&self, device: &Device) -> Result<Self> {
        let copy = Self::uninit(device, &self.shape, self.dtype)?;
        device.copy((&copy.buffer, 0), (&self.buffer, self.offset), self.len() * self.dtype.size())?;
        Ok(copy)
    }

    /// Sets all values to 0: of a tensor that kernels write to in place.
    ///
    /// # Errors
    /// [`Error::Shape`] for rows of a larger tensor.
    pub fn clear(&self, device: &Device) -> Result<()> {
        if self.offset > 0 {
            return Err(Error::shape("clear", "tensor", "a whole one", format!("{self:?} of a larger one")));
        }
        device.zero(&self.buffer, self.len() * self.dtype.size())
    }

    /// Values as float32, after everything launched before.
    ///
    /// # Errors
    /// [`Error::Device`] when an earlier launch failed.
    pub fn to_f32(&self, device: &Device) -> Result<Vec<f32>> {
        match self.dtype {
            DType::BF16 => {
                let mut raw = vec![bf16::ZERO; self.len()];
                device.download(&self.buffer, self.offset, bytemuck::cast_slice_mut(&mut raw))?;
                Ok(raw.into_iter().map(bf16::to_f32).collect())
            }
            DType::F32 => {
                let mut raw = vec![0f32; self.len()];
                device.download(&self.buffer, self.offset, bytemuck::cast_slice_mut(&mut raw))?;
                Ok(raw)
            }
            other => Err(Error::shape("tensor", "element type", "F32 or BF16", format!("{other:?}"))),
        }
    }

    /// Integer values.
    ///
    /// # Errors
    /// [`Error::Shape`] when the tensor does not hold integers.
    pub fn to_i32(&self, device: &Device) -> Result<Vec<i32>> {
        if self.dtype != DType::I32 {
            return Err(Error::shape("tensor", "element type", "I32", format!("{:?}", self.dtype)));
        }
        let mut raw = vec![0i32; self.len()];
        device.download(&self.buffer, self.offset, bytemuck::cast_slice_mut(&mut raw))?;
        Ok(raw)
    }

    /// The same memory under another shape, still the same tensor to a tape. For ops that only rename dimensions.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of elements differs.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Self> {
        if bytes(shape, self.dtype)? != self.len() * self.dtype.size() {
            return Err(Error::shape("reshape", "elements", format!("{:?}", self.shape), format!("{shape:?}")));
        }
        Ok(Tensor { shape: shape.to_vec(), ..self.clone() })
    }

    /// The same memory under another shape and an identity of its own, for an op that records how it came about.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of elements differs.
    pub fn renamed(&self, shape: &[usize]) -> Result<Self> {
        Ok(Tensor { id: TensorId::next(), ..self.reshaped(shape)? })
    }

    /// Rows `first..first + count` of the first dimension, sharing memory.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are not that many.
    pub fn rows(&self, first: usize, count: usize) -> Result<Self> {
        let n = self.shape.first().copied().unwrap_or(0);
        if self.shape.is_empty() || first.checked_add(count).is_none_or(|end| end > n) {
            return Err(Error::shape("rows", "rows", format!("at most {n}"), first.saturating_add(count)));
        }
        let row = self.len() / n.max(1) * self.dtype.size();
        let mut shape = self.shape.clone();
        shape[0] = count;
        Ok(Tensor { shape, offset: self.offset + first * row, ..self.clone() })
    }

    /// Tensors of one shape but for the first dimension, in one.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are none or they differ.
    pub fn concat(device: &Device, parts: &[Tensor]) -> Result<Self> {
        let Some(first) = parts.first() else { return Err(Error::shape("concat", "parts", "at least one", 0)) };
        if parts.len() == 1 {
            return Ok(first.clone());
        }
        if first.shape.is_empty() {
            return Err(Error::shape("concat", "part", "(N, ..)", format!("{first:?}")));
        }
        let mut shape = first.shape.clone();
        shape[0] = 0;
        for part in parts {
            if part.shape.get(1..) != first.shape.get(1..) || part.dtype != first.dtype {
                return Err(Error::shape("concat", "part", format!("{first:?}"), format!("{part:?}")));
            }
            shape[0] += part.shape[0];
        }
        let all = Self::uninit(device, &shape, first.dtype)?;
        let mut at = 0;
        for part in parts {
            let bytes = part.len() * part.dtype.size();
            device.copy((&all.buffer, at), (&part.buffer, part.offset), bytes)?;
            at += bytes;
        }
        Ok(all)
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn id(&self) -> TensorId {
        self.id
    }

    /// The tensor without its memory.
    pub fn outline(&self) -> Outline {
        Outline { shape: self.shape.clone(), dtype: self.dtype, id: self.id }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its address means something to `device`.
    pub fn is_of(&self, device: &Device) -> bool {
        self.buffer.is_of(device)
    }

    /// Address of the first element on the device.
    pub fn address(&self) -> u64 {
        self.buffer.address() + self.offset as u64
    }

    /// The four dimensions of an activation `(N, H, W, C)`.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are not four.
    pub fn dims4(&self, op: &'static str) -> Result<[usize; 4]> {
        self.shape
            .as_slice()
            .try_into()
            .map_err(|_| Error::shape(op, "dimensions", "(N, H, W, C)", format!("{:?}", self.shape)))
    }

    /// The two dimensions of a matrix `(N, K)`.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are not two.
    pub fn dims2(&self, op: &'static str) -> Result<[usize; 2]> {
        self.shape
            .as_slice()
            .try_into()
            .map_err(|_| Error::shape(op, "dimensions", "(N, K)", format!("{:?}", self.shape)))
    }
}

/// Bytes of a tensor. Kernels count along a dimension in 32 bits.
fn bytes(shape: &[usize], dtype: DType) -> Result<usize> {
    let limit = |what, requested: usize, max: usize| Error::Limit {
        kernel: "tensor".into(),
        what,
        requested: requested as u64,
        max: max as u64,
    };
    const LONGEST: usize = i32::MAX as usize;
    if let Some(&long) = shape.iter().find(|&&d| d > LONGEST) {
        return Err(limit("length of a dimension", long, LONGEST));
    }
    const MOST: usize = isize::MAX as usize;
    let all = shape.iter().try_fold(dtype.size(), |all, &d| all.checked_mul(d)).filter(|&all| all <= MOST);
    all.ok_or_else(|| limit("bytes", usize::MAX, MOST))
}

/// Whether a shape is one of so many values.
fn holds(shape: &[usize], dtype: DType, values: usize) -> Result<()> {
    let len = bytes(shape, dtype)? / dtype.size();
    if values != len {
        return Err(Error::shape("tensor", format!("values of {shape:?}"), len, values));
    }
    Ok(())
}

/// What a gradient knows of a tensor whose values it does not read: identity and form, without the memory.
#[derive(Clone, Debug)]
pub struct Outline {
    shape: Vec<usize>,
    dtype: DType,
    id: TensorId,
}

impl Outline {
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn dtype(&self) -> DType {
        self.dtype
    }

    pub fn id(&self) -> TensorId {
        self.id
    }
}

impl From<&Tensor> for TensorId {
    fn from(t: &Tensor) -> Self {
        t.id
    }
}

impl From<&Outline> for TensorId {
    fn from(t: &Outline) -> Self {
        t.id
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}{:?}", self.dtype, self.shape)
    }
}
