//! Arrays of numbers in MAT-files of level 5, read one after another and never held whole: a small file may unpack to any size.
//!
//! Source of the format: MathWorks, "MAT-File Format" (level 5). By hand: the library there is for it unpacks without a bound.

use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};

use flate2::read::ZlibDecoder;

/// Arrays of a file and bytes of a name at most.
const MOST: usize = 64;
const HEADER: u64 = 128;

/// Types of elements.
const INT32: u32 = 5;
const UINT32: u32 = 6;
const INT8: u32 = 1;
const UINT8: u32 = 2;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;

/// An array: what it is called, its sides, of which the first varies fastest, and where in the file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Array {
    pub name: String,
    pub dims: Vec<u64>,
    at: u64,
}

/// The arrays of a file, without their values.
///
/// # Errors
/// What was expected and found, in words.
pub(super) fn arrays(from: &mut (impl Read + Seek)) -> Result<Vec<Array>, String> {
    let failed = |e: io::Error| format!("cannot be read: {e}");
    let end = from.seek(SeekFrom::End(0)).map_err(failed)?;
    from.rewind().map_err(failed)?;
    let mut header = [0; HEADER as usize];
    from.read_exact(&mut header).map_err(|_| format!("expected a MAT-file, found {end} bytes"))?;
    match &header[124..] {
        [0x00, 0x01, b'I', b'M'] => {}
        [0x01, 0x00, b'M', b'I'] => return Err("expected a little-endian MAT-file, found a big-endian one".into()),
        _ if header.starts_with(b"MATLAB 7.3") => {
            return Err("expected a MAT-file of level 5, found one of version 7.3 (HDF5): save it with -v7".into());
        }
        _ => return Err("expected a MAT-file of level 5, found no such header".into()),
    }
    let (mut found, mut at) = (Vec::new(), HEADER);
    while at + 8 <= end {
        if found.len() == MOST {
            return Err(format!("expected at most {MOST} arrays, found more"));
        }
        from.seek(SeekFrom::Start(at)).map_err(failed)?;
        let (kind, length) = long_tag(&mut *from)?;
        if let Some(Head { name, dims, .. }) = opened(&mut *from, (kind, length), head)?.flatten() {
            found.push(Array { name, dims, at });
        }
        // Compressed elements are not padded.
        at += 8 + if kind == COMPRESSED { length } else { length.next_multiple_of(8) };
    }
    Ok(found)
}

/// The values of an array as numbers, at most `most`.
///
/// # Errors
/// As [`arrays`].
pub(super) fn numbers(from: &mut (impl Read + Seek), array: &Array, most: u64) -> Result<Vec<f64>, String> {
    let count = array.dims.iter().try_fold(1u64, |n, &side| n.checked_mul(side)).filter(|&n| n <= most);
    let count =
        count.ok_or_else(|| format!("{}: expected at most {most} values, found {:?}", array.name, array.dims))?;
    values(from, array, |reader, kind| {
        let size = size(kind).ok_or_else(|| format!("{}: expected numbers, found type {kind}", array.name))?;
        let mut value = [0; 8];
        let mut all = Vec::new();
        for _ in 0..count {
            let bytes = &mut value[..size];
            reader.read_exact(bytes).map_err(|e| format!("{}: {}", array.name, said(e)))?;
            all.push(number(kind, bytes));
        }
        Ok(all)
    })
}

/// Calls `each` with block after block of `length` bytes of an array of bytes, until it says that it has enough.
///
/// # Errors
/// As [`arrays`], and what `each` returns.
pub(super) fn blocks(
    from: &mut (impl Read + Seek),
    array: &Array,
    length: usize,
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<(), String> {
    values(from, array, |reader, kind| {
        if kind != UINT8 {
            return Err(format!("{}: expected bytes (uint8), found type {kind}", array.name));
        }
        let mut block = vec![0; length];
        loop {
            reader.read_exact(&mut block).map_err(|e| format!("{}: {}", array.name, said(e)))?;
            if !each(&block) {
                return Ok(());
            }
        }
    })
}

/// Hands on a reader that stands at the values of an array, and their type.
fn values<T>(
    from: &mut (impl Read + Seek),
    array: &Array,
    take: impl FnOnce(&mut dyn Read, u32) -> Result<T, String>,
) -> Result<T, String> {
    from.seek(SeekFrom::Start(array.at)).map_err(|e| format!("cannot be read: {e}"))?;
    let tag = long_tag(&mut *from)?;
    let taken = opened(from, tag, |reader| match head(reader)? {
        Some(Head { kind, small: Some(bytes), .. }) => take(&mut &bytes[..], kind).map(Some),
        Some(Head { kind, small: None, .. }) => take(reader, kind).map(Some),
        None => Ok(None),
    })?;
    taken.flatten().ok_or_else(|| format!("{}: is there no more", array.name))
}

/// Hands on a reader of what is in a matrix element, compressed or not; of other elements nothing.
fn opened<T>(
    from: &mut impl Read,
    (kind, length): (u32, u64),
    take: impl FnOnce(&mut dyn Read) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match kind {
        MATRIX => take(&mut BufReader::new(from.take(length))).map(Some),
        COMPRESSED => {
            let mut reader = BufReader::new(ZlibDecoder::new(BufReader::new(from.take(length))));
            let (kind, _) = long_tag(&mut reader)?;
            if kind == MATRIX { take(&mut reader).map(Some) } else { Ok(None) }
        }
        _ => Ok(None),
    }
}

/// What stands before the values of an array.
struct Head {
    name: String,
    dims: Vec<u64>,
    /// The type of its values, and these themselves where they are few enough to stand in their tag.
    kind: u32,
    small: Option<Vec<u8>>,
}

/// `None` for what is no array of numbers.
fn head(reader: &mut dyn Read) -> Result<Option<Head>, String> {
    let flags = element(reader, 8)?;
    let &[class, marks, ..] = &flags.1[..] else { return Err("an array without flags".into()) };
    // Cells, structures, objects, text and sparse arrays; and those of complex numbers.
    if flags.0 != UINT32 || !(6..=15).contains(&class) || marks & 0x08 != 0 {
        return Ok(None);
    }
    let (kind, dims) = element(reader, 8 * 4)?;
    if kind != INT32 {
        return Err(format!("expected the sides of an array, found type {kind}"));
    }
    let dims: Option<Vec<u64>> =
        dims.chunks_exact(4).map(|side| u64::try_from(number(INT32, side) as i64).ok()).collect();
    let dims = dims.ok_or("an array with a negative side")?;
    let (kind, name) = element(reader, MOST as u64)?;
    if kind != INT8 {
        return Err(format!("expected the name of an array, found type {kind}"));
    }
    let name = String::from_utf8_lossy(&name).into_owned();
    let (kind, length, small) = tag(reader)?;
    Ok(Some(Head { name, dims, kind, small: small.map(|bytes| bytes[..length as usize].to_vec()) }))
}

/// A short element whole: its type and its bytes, with what pads them passed over.
fn element(reader: &mut dyn Read, most: u64) -> Result<(u32, Vec<u8>), String> {
    let (kind, length, small) = tag(reader)?;
    if let Some(bytes) = small {
        return Ok((kind, bytes[..length as usize].to_vec()));
    }
    if length > most {
        return Err(format!("expected at most {most} bytes of an array's head, found {length}"));
    }
    let mut bytes = vec![0; length.next_multiple_of(8) as usize];
    reader.read_exact(&mut bytes).map_err(said)?;
    bytes.truncate(length as usize);
    Ok((kind, bytes))
}

/// Type and length of an element, and its bytes where they stand in the tag itself.
fn tag(reader: &mut dyn Read) -> Result<(u32, u64, Option<[u8; 4]>), String> {
    let mut words = [[0; 4]; 2];
    words.iter_mut().try_for_each(|word| reader.read_exact(word)).map_err(said)?;
    let [first, second] = words.map(u32::from_le_bytes);
    match first >> 16 {
        0 => Ok((first, second.into(), None)),
        length @ 1..=4 => Ok((first & 0xffff, length.into(), Some(words[1]))),
        length => Err(format!("expected at most 4 bytes in the tag of an element, found {length}")),
    }
}

fn long_tag(reader: &mut dyn Read) -> Result<(u32, u64), String> {
    match tag(reader)? {
        (kind, length, None) => Ok((kind, length)),
        (kind, ..) => Err(format!("expected an array, found an element of type {kind}")),
    }
}

fn said(e: io::Error) -> String {
    match e.kind() {
        ErrorKind::UnexpectedEof => "the file ends within an array".into(),
        _ => format!("damaged: {e}"),
    }
}

/// Bytes of a value.
fn size(kind: u32) -> Option<usize> {
    Some(match kind {
        INT8 | UINT8 => 1,
        3 | 4 => 2,
        INT32 | UINT32 | 7 => 4,
        9 | 12 | 13 => 8,
        _ => return None,
    })
}

/// A value of `size(kind)` bytes.
fn number(kind: u32, bytes: &[u8]) -> f64 {
    let mut all = [0; 8];
    all[..bytes.len()].copy_from_slice(bytes);
    let word = u64::from_le_bytes(all);
    match kind {
        INT8 => f64::from(word as i8),
        3 => f64::from(word as i16),
        INT32 => f64::from(word as i32),
        7 => f64::from(f32::from_bits(word as u32)),
        9 => f64::from_bits(word),
        12 => word as i64 as f64,
        _ => word as f64,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::{Cursor, Write};

    use flate2::Compression;
    use flate2::write::ZlibEncoder;

    use super::*;

    fn padded(kind: u32, bytes: &[u8]) -> Vec<u8> {
        let mut all = [kind.to_le_bytes(), (bytes.len() as u32).to_le_bytes()].concat();
        all.extend(bytes);
        all.resize(all.len().next_multiple_of(8), 0);
        all
    }

    /// A matrix element as MATLAB writes it: short names stand in their tag.
    pub fn matrix(name: &str, class: u8, dims: &[i32], kind: u32, values: &[u8]) -> Vec<u8> {
        let sides: Vec<u8> = dims.iter().flat_map(|side| side.to_le_bytes()).collect();
        let mut short = [0; 4];
        short[..name.len()].copy_from_slice(name.as_bytes());
        let own = [(INT8 | (name.len() as u32) << 16).to_le_bytes(), short].concat();
        let parts =
            [padded(UINT32, &[class, 0, 0, 0, 0, 0, 0, 0]), padded(INT32, &sides), own, padded(kind, values)].concat();
        padded(MATRIX, &parts)
    }

    pub fn compressed(element: &[u8]) -> Vec<u8> {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
        zlib.write_all(element).unwrap();
        let bytes = zlib.finish().unwrap();
        [&COMPRESSED.to_le_bytes()[..], &(bytes.len() as u32).to_le_bytes(), &bytes].concat()
    }

    pub fn file(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut header = b"MATLAB 5.0 MAT-file".to_vec();
        header.resize(124, b' ');
        header.extend([0x00, 0x01, b'I', b'M']);
        [header, elements.concat()].concat()
    }

    #[test]
    fn arrays_are_read_packed_or_not() {
        let doubles: Vec<u8> = [1.5f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let bytes: Vec<u8> = (0..12).collect();
        let elements = [
            matrix("X", 9, &[2, 2, 3], UINT8, &bytes),
            matrix("t", 4, &[1, 8], 4, &[0; 16]),
            matrix("y", 6, &[2, 1], 9, &doubles),
        ];
        for packed in [false, true] {
            let elements = elements.clone().map(|e| if packed { compressed(&e) } else { e });
            let mut from = Cursor::new(file(&elements));
            let found = arrays(&mut from).unwrap();
            let names: Vec<(&str, &[u64])> = found.iter().map(|a| (a.name.as_str(), &a.dims[..])).collect();
            assert_eq!(names, [("X", &[2, 2, 3][..]), ("y", &[2, 1])]);
            assert_eq!(numbers(&mut from, &found[1], 2).unwrap(), [1.5, -2.0]);
            assert!(numbers(&mut from, &found[1], 1).unwrap_err().contains("at most 1 values"));
            let mut taken = Vec::new();
            blocks(&mut from, &found[0], 4, |block| (taken.push(block.to_vec()), taken.len() < 3).1).unwrap();
            assert_eq!(taken.concat(), bytes);
            assert!(blocks(&mut from, &found[0], 5, |_| true).unwrap_err().contains("ends within"));
            assert!(blocks(&mut from, &found[1], 4, |_| true).unwrap_err().contains("expected bytes"));
        }
    }

    #[test]
    fn whatever_is_cut_or_changed_is_an_error_or_another_array() {
        let good =
            file(&[compressed(&matrix("X", 9, &[2, 2, 3], UINT8, &[7; 12])), matrix("y", 9, &[3, 1], UINT8, &[1; 3])]);
        for length in 0..good.len() {
            let mut from = Cursor::new(&good[..length]);
            let Ok(found) = arrays(&mut from) else { continue };
            for array in found {
                let _ = numbers(&mut from, &array, 100);
            }
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let mut from = Cursor::new(bad);
                let Ok(found) = arrays(&mut from) else { continue };
                for array in found {
                    let _ = numbers(&mut from, &array, 100);
                    let _ = blocks(&mut from, &array, 4, |_| true);
                }
            }
        }
        for (text, part) in [(&b"MATLAB 7.3 MAT-file, HDF5"[..], "save it with -v7"), (b"x", "no such header")] {
            let mut bytes = text.to_vec();
            bytes.resize(200, 0);
            assert!(arrays(&mut Cursor::new(bytes)).unwrap_err().contains(part));
        }
    }
}
