//! PyTorch's checkpoints: tensors out of a `.pt` or `.pth`, in the zip format since 1.6 or the one before it. No code of the file runs.
//!
//! Tensors lie in dictionaries, whose keys become the names, joined by dots: `state_dict.conv1.weight`.

use std::collections::HashMap;

use safetensors::Dtype;

use super::pickle::{Id, Pickle, Value};

/// Where a tensor's values are.
pub enum Place {
    /// First byte of the file, and the one after the last.
    At(usize, usize),
    /// Brought into order.
    Copied(Vec<u8>),
}

/// A tensor of a file.
pub struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub place: Place,
}

/// Dictionaries within each other, and values that are looked at, at most.
const DEPTH: usize = 12;
const LOOKED: usize = 1 << 18;
const TENSORS: usize = 1 << 16;
const SIDES: usize = 16;

/// What the format before the zip begins with: a pickle of this number.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";

/// Whether bytes are of one of the two formats, by what they begin with.
pub fn is_torch(bytes: &[u8]) -> bool {
    bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(MAGIC)
}

/// The tensors of a file with their names, in the order of the file.
///
/// # Errors
/// What it is instead, or what is wrong with it, in words.
pub fn read(bytes: &[u8]) -> Result<Vec<(String, Stored)>, String> {
    let container = if bytes.starts_with(MAGIC) { legacy(bytes)? } else { zip(bytes)? };
    let mut walk = Walk { container, bytes, found: Vec::new(), others: Vec::new(), looked: 0, copied: 0 };
    let root = walk.container.pickle.root;
    walk.enter("", root, 0)?;
    if walk.found.is_empty() {
        return Err(match (walk.container.pickle.root(), walk.others.first()) {
            (Value::Call(..), Some(class)) => format!("a pickled `{class}`, not its tensors: save its state_dict()"),
            (_, Some(class)) => format!("no tensors, but a `{class}`: save a network's state_dict()"),
            (_, None) => "no tensors".into(),
        });
    }
    Ok(walk.found)
}

/// A storage: where it lies, and how many values of which kind it has.
#[derive(Clone, Copy)]
struct Storage {
    dtype: Dtype,
    from: usize,
    bytes: usize,
}

struct Container {
    pickle: Pickle,
    /// By key: where and how many bytes.
    storages: HashMap<String, (usize, usize)>,
}

struct Walk<'a> {
    container: Container,
    bytes: &'a [u8],
    found: Vec<(String, Stored)>,
    /// Classes of what is no tensor.
    others: Vec<String>,
    looked: usize,
    /// Bytes that were brought into order.
    copied: usize,
}

impl Walk<'_> {
    fn enter(&mut self, name: &str, id: Id, depth: usize) -> Result<(), String> {
        self.looked += match &self.container.pickle.values[id] {
            Value::Dict(entries) => 1 + entries.len(),
            _ => 1,
        };
        if self.looked > LOOKED || self.found.len() > TENSORS {
            return Err(format!("more than {LOOKED} values or {TENSORS} tensors"));
        }
        let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
        let inner: Vec<(String, Id)> = match &self.container.pickle.values[id] {
            Value::Dict(entries) if depth < DEPTH => {
                let key = |&(key, value): &(Id, Id)| {
                    let text = match &self.container.pickle.values[key] {
                        Value::Text(text) if text.len() <= 256 => text.clone(),
                        Value::Int(Some(number)) => number.to_string(),
                        _ => return None,
                    };
                    Some((below(&text), value))
                };
                entries.iter().filter_map(key).collect()
            }
            Value::List(items) | Value::Tuple(items) if depth < DEPTH => {
                items.iter().enumerate().map(|(i, &item)| (below(&i.to_string()), item)).collect()
            }
            Value::Call(..) => match self.tensor(id, 0) {
                Ok(Some(tensor)) => {
                    if let Place::Copied(values) = &tensor.place {
                        self.copied += values.len();
                    }
                    if self.copied > self.bytes.len() {
                        return Err("its tensors overlap to more than the file holds".into());
                    }
                    self.found.push((name.to_owned(), tensor));
                    return Ok(());
                }
                Ok(None) => {
                    if let Some((class, _)) = self.container.pickle.call(id).filter(|_| self.others.len() < 8) {
                        self.others.push(class.chars().take(80).collect());
                    }
                    return Ok(());
                }
                Err(problem) => {
                    return Err(format!("tensor `{}`: {problem}", name.chars().take(120).collect::<String>()));
                }
            },
            _ => return Ok(()),
        };
        inner.into_iter().try_for_each(|(name, id)| self.enter(&name, id, depth + 1))
    }

    /// The tensor that a call would make, if it is one of those that make tensors.
    fn tensor(&self, id: Id, depth: usize) -> Result<Option<Stored>, String> {
        let pickle = &self.container.pickle;
        let Some((name, arguments)) = pickle.call(id).filter(|_| depth < 4) else { return Ok(None) };
        match (name, arguments) {
            ("torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state", [data, ..]) => {
                self.tensor(*data, depth + 1)
            }
            ("torch._tensor._rebuild_from_type_v2", [function, _, arguments, ..]) => match &pickle.values[*function] {
                Value::Global(name) => self.rebuilt(name, pickle.items(*arguments).unwrap_or_default()),
                _ => Ok(None),
            },
            _ => self.rebuilt(name, arguments),
        }
    }

    fn rebuilt(&self, name: &str, arguments: &[Id]) -> Result<Option<Stored>, String> {
        let pickle = &self.container.pickle;
        let kind = match (name, arguments) {
            ("torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", [_, _, _, _, ..]) => None,
            ("torch._utils._rebuild_tensor_v3", [_, _, _, _, _, _, kind, ..]) => match &pickle.values[*kind] {
                Value::Global(kind) => Some(dtype(kind).ok_or_else(|| format!("values of {kind} are not read"))?),
                _ => return Err("its type has no name".into()),
            },
            _ => return Ok(None),
        };
        let mut storage = self.storage(arguments[0])?;
        storage.dtype = kind.unwrap_or(storage.dtype);
        let numbers = |id: Id| -> Result<Vec<usize>, String> {
            let items =
                pickle.items(id).filter(|items| items.len() <= SIDES).ok_or("its sides are no list of numbers")?;
            items
                .iter()
                .map(|&item| {
                    pickle
                        .int(item)
                        .and_then(|v| usize::try_from(v).ok())
                        .ok_or_else(|| "a side is no number from 0".into())
                })
                .collect()
        };
        let offset =
            pickle.int(arguments[1]).and_then(|v| usize::try_from(v).ok()).ok_or("its offset is no number from 0")?;
        let (shape, strides) = (numbers(arguments[2])?, numbers(arguments[3])?);
        self.view(storage, offset, shape, &strides).map(Some)
    }

    /// The storage of a persistent id: `('storage', class, key, location, values)`, and before the zip format perhaps a view of it.
    fn storage(&self, id: Id) -> Result<Storage, String> {
        let pickle = &self.container.pickle;
        let Value::Persistent(id) = pickle.values[id] else { return Err("its storage is no part of the file".into()) };
        let Some([kind, class, key, _, _, rest @ ..]) = pickle.items(id) else {
            return Err("its storage is described in an unknown way".into());
        };
        let (Some("storage"), Value::Global(class), Some(key)) =
            (pickle.text(*kind), &pickle.values[*class], pickle.text(*key))
        else {
            return Err("its storage is described in an unknown way".into());
        };
        if rest.first().is_some_and(|&view| pickle.values[view] != Value::None) {
            return Err("its storage is a view of another".into());
        }
        let dtype = dtype(class)
            .ok_or_else(|| format!("values of {} are not read", class.chars().take(80).collect::<String>()))?;
        let (from, bytes) =
            *self.container.storages.get(key).ok_or_else(|| {
                format!("its storage `{}` is not in the file", key.chars().take(40).collect::<String>())
            })?;
        Ok(Storage { dtype, from, bytes })
    }

    fn view(&self, storage: Storage, offset: usize, shape: Vec<usize>, strides: &[usize]) -> Result<Stored, String> {
        let size = bytes_of(storage.dtype);
        let values = storage.bytes / size;
        if shape.len() != strides.len() {
            return Err(format!("expected a stride per side, found {} of {}", strides.len(), shape.len()));
        }
        let count = shape.iter().try_fold(1usize, |n, &side| n.checked_mul(side)).filter(|&n| n <= values);
        let count = count.ok_or_else(|| format!("shape {shape:?} is more than the {values} values of its storage"))?;
        // The place of the last value.
        let steps = shape.iter().zip(strides).map(|(&side, &stride)| side.saturating_sub(1).checked_mul(stride));
        let last = steps.into_iter().try_fold(offset, |at, step| at.checked_add(step?));
        if count > 0 && last.is_none_or(|last| last >= values) {
            return Err(format!(
                "shape {shape:?} from {offset} on, strides {strides:?}, leaves its storage of {values} values"
            ));
        }
        let mut run = 1;
        let dense = shape.iter().zip(strides).rev().all(|(&side, &stride)| {
            let fits = side == 1 || stride == run;
            run *= side;
            fits
        });
        let place = if dense || count == 0 {
            let from = storage.from + if count == 0 { 0 } else { offset * size };
            Place::At(from, from + count * size)
        } else {
            let mut copy = Vec::with_capacity(count * size);
            let mut index = vec![0; shape.len()];
            for _ in 0..count {
                let at = offset + index.iter().zip(strides).map(|(i, s)| i * s).sum::<usize>();
                copy.extend_from_slice(&self.bytes[storage.from + at * size..][..size]);
                for axis in (0..shape.len()).rev() {
                    index[axis] += 1;
                    if index[axis] < shape[axis] {
                        break;
                    }
                    index[axis] = 0;
                }
            }
            Place::Copied(copy)
        };
        Ok(Stored { dtype: storage.dtype, shape, place })
    }
}

/// By the class of a storage or the name of a type.
fn dtype(name: &str) -> Option<Dtype> {
    Some(match name.strip_prefix("torch.")? {
        "FloatStorage" | "float32" => Dtype::F32,
        "HalfStorage" | "float16" => Dtype::F16,
        "BFloat16Storage" | "bfloat16" => Dtype::BF16,
        "DoubleStorage" | "float64" => Dtype::F64,
        "LongStorage" | "int64" => Dtype::I64,
        "IntStorage" | "int32" => Dtype::I32,
        "ShortStorage" | "int16" => Dtype::I16,
        "CharStorage" | "int8" => Dtype::I8,
        "ByteStorage" | "uint8" | "UntypedStorage" | "storage.UntypedStorage" => Dtype::U8,
        "BoolStorage" | "bool" => Dtype::BOOL,
        _ => return None,
    })
}

fn bytes_of(dtype: Dtype) -> usize {
    (dtype.bitsize() / 8).max(1)
}

/// Pickles one after the other: a magic number, a version, how numbers are stored, the content, the keys of the storages; then those,
/// each behind how many values it has.
fn legacy(bytes: &[u8]) -> Result<Container, String> {
    let mut at = MAGIC.len();
    let mut next = || -> Result<Pickle, String> {
        let pickle = Pickle::read(bytes.get(at..).unwrap_or_default())?;
        at += pickle.len;
        Ok(pickle)
    };
    let (_, system, pickle, keys) = (next()?, next()?, next()?, next()?);
    if let Value::Dict(entries) = system.root()
        && entries
            .iter()
            .any(|&(k, v)| system.text(k) == Some("little_endian") && system.values[v] == Value::Bool(false))
    {
        return Err("values of a big-endian machine".into());
    }
    let mut sizes: HashMap<&str, usize> = HashMap::new();
    for value in &pickle.values {
        let Value::Persistent(id) = *value else { continue };
        if let Some([_, class, key, ..]) = pickle.items(id)
            && let (Value::Global(class), Some(key)) = (&pickle.values[*class], pickle.text(*key))
            && let Some(dtype) = dtype(class)
        {
            sizes.insert(key, bytes_of(dtype));
        }
    }
    let mut storages = HashMap::new();
    for &key in keys.items(keys.root).ok_or("its list of storages is missing")? {
        let key = keys.text(key).ok_or("a storage without a name")?;
        let size = sizes.get(key).ok_or_else(|| format!("values of an unknown type in storage {key}"))?;
        let ends = || format!("truncated: storage {key} ends beyond the file");
        let count = bytes.get(at..).and_then(<[u8]>::first_chunk).map(|&b| u64::from_le_bytes(b)).ok_or_else(ends)?;
        let len = usize::try_from(count).ok().and_then(|n| n.checked_mul(*size)).ok_or_else(ends)?;
        let end = (at + 8).checked_add(len).filter(|&end| end <= bytes.len()).ok_or_else(ends)?;
        storages.insert(key.to_owned(), (at + 8, len));
        at = end;
    }
    Ok(Container { pickle, storages })
}

/// A record of a zip archive that is stored as it is.
struct Record {
    name: String,
    from: usize,
    len: usize,
    crc: u32,
    stored: bool,
}

fn zip(bytes: &[u8]) -> Result<Container, String> {
    let records = records(bytes)?;
    let pickle = records.iter().find(|r| r.name == "data.pkl" || r.name.ends_with("/data.pkl"));
    let Some(pickle) = pickle else {
        let has = |end: &str| records.iter().any(|r| r.name.ends_with(end));
        return Err(match () {
            () if has(".npy") => "a NumPy archive".into(),
            () if has(".safetensors") || has(".pth") || has(".pt") => {
                "a zip archive with checkpoints in it: unpack it".into()
            }
            () => "a zip archive, but none of PyTorch: it has no data.pkl".to_owned(),
        });
    };
    let root = pickle.name.trim_end_matches("data.pkl");
    if records.iter().any(|r| r.name.strip_prefix(root).is_some_and(|name| name.starts_with("code/"))) {
        return Err("a TorchScript archive: load it with torch.jit.load and save its state_dict()".into());
    }
    let whole = |record: &Record| -> Result<(), String> {
        if !record.stored {
            return Err(format!("the record {} is compressed, which PyTorch never does", record.name));
        }
        let mut crc = flate2::Crc::new();
        crc.update(&bytes[record.from..record.from + record.len]);
        // PyTorch can be told to leave it out.
        if record.crc != 0 && record.crc != crc.sum() {
            return Err(format!("damaged: the checksum of the record {} is wrong", record.name));
        }
        Ok(())
    };
    whole(pickle)?;
    if let Some(order) = records.iter().find(|r| r.name.strip_prefix(root) == Some("byteorder"))
        && bytes[order.from..order.from + order.len].starts_with(b"big")
    {
        return Err("values of a big-endian machine".into());
    }
    let mut storages = HashMap::new();
    for record in &records {
        if let Some(key) = record.name.strip_prefix(root).and_then(|name| name.strip_prefix("data/")) {
            whole(record)?;
            storages.insert(key.to_owned(), (record.from, record.len));
        }
    }
    Ok(Container { pickle: Pickle::read(&bytes[pickle.from..pickle.from + pickle.len])?, storages })
}

/// Of an archive that may be larger than 4 GB.
fn records(bytes: &[u8]) -> Result<Vec<Record>, String> {
    let damaged = || "a zip archive that is damaged or truncated".to_owned();
    let number = |at: usize, n: usize| -> Option<u64> {
        let field = bytes.get(at..at.checked_add(n)?)?;
        Some(field.iter().rev().fold(0, |all, &b| all << 8 | u64::from(b)))
    };
    let place = |at: usize, n: usize| number(at, n).and_then(|v| usize::try_from(v).ok());
    let read = || -> Option<Vec<Record>> {
        let first = bytes.len().saturating_sub(22 + 0xffff);
        let end = (first..=bytes.len().checked_sub(22)?).rev().find(|&at| bytes[at..].starts_with(b"PK\x05\x06"))?;
        let (mut count, mut at) = (place(end + 10, 2)?, place(end + 16, 4)?);
        if count == 0xffff || at == 0xffff_ffff {
            let locator = end.checked_sub(20).filter(|&at| bytes[at..].starts_with(b"PK\x06\x07"))?;
            let wide = place(locator + 8, 8)?;
            if number(wide, 4)? != 0x0606_4b50 {
                return None;
            }
            (count, at) = (place(wide + 32, 8)?, place(wide + 48, 8)?);
        }
        let mut records = Vec::new();
        for _ in 0..count.min(bytes.len() / 46) {
            if number(at, 4)? != 0x0201_4b50 {
                return None;
            }
            let [name, extra, comment] = [28, 30, 32].map(|field| place(at + field, 2));
            let (name, extra, comment) = (name?, extra?, comment?);
            let mut wide = [place(at + 24, 4)?, place(at + 20, 4)?, place(at + 42, 4)?];
            // Fields that did not fit are in a block of their own, in this order.
            let (mut field, stop) = (at + 46 + name, at + 46 + name + extra);
            while field + 4 <= stop {
                let (id, len) = (number(field, 2)?, place(field + 2, 2)?);
                if id == 1 {
                    let mut next = field + 4;
                    for value in wide.iter_mut().filter(|value| **value == 0xffff_ffff) {
                        *value = place(next, 8)?;
                        next += 8;
                    }
                }
                field += 4 + len;
            }
            let [len, _, header] = wide;
            if number(header, 4)? != 0x0403_4b50 {
                return None;
            }
            let from = header.checked_add(30 + place(header + 26, 2)? + place(header + 28, 2)?)?;
            bytes.get(from..from.checked_add(len)?)?;
            records.push(Record {
                name: String::from_utf8_lossy(bytes.get(at + 46..at + 46 + name)?).into_owned(),
                from,
                len,
                crc: number(at + 16, 4)? as u32,
                stored: number(at + 10, 2)? == 0,
            });
            at += 46 + name + extra + comment;
        }
        Some(records)
    };
    read().ok_or_else(damaged)
}
