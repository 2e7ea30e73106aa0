//! Finds the PTX in a module image: text, or a fatbin as nvcc writes it.
//!
//! An image has no length parameter, so its first bytes decide: PTX text ends in a NUL, a fatbin states its size, an ELF cubin is
//! refused. The layout below was worked out from what `nvcc` 13.0 writes for each `--compress-mode`; all numbers are little-endian.
//!
//! | fatbin header | bytes | |
//! |---|---|---|
//! | 0 | 4 | magic `0xBA55ED50` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | bytes of this header, 16 |
//! | 8 | 8 | bytes of all entries, which follow |
//!
//! | entry header | bytes | |
//! |---|---|---|
//! | 0 | 2 | kind: 1 PTX, 2 ELF cubin |
//! | 2 | 2 | version, `0x0101` |
//! | 4 | 4 | bytes of this header: 64, for PTX 80 or more (the options given to ptxas follow) |
//! | 8 | 8 | bytes of the payload, padded to a multiple of 8 |
//! | 16 | 4 | bytes of the payload that are compressed data; 0 when it is not compressed |
//! | 20 | 4 | offset in this header of the ptxas options, or 0 |
//! | 24 | 2 + 2 | minor and major version of the format of the payload: PTX 9.0 |
//! | 28 | 4 | target, ten times the compute capability |
//! | 32 | 4 + 4 | offset and bytes of the source name, or 0 |
//! | 40 | 8 | flags: `0x1` 64-bit, `0x2` debug, `0x10` Linux, `0x2000` LZ4, `0x8000` zstd |
//! | 48 | 8 | 0 |
//! | 56 | 8 | bytes once decompressed; 0 when it is not compressed |
//!
//! `--compress-mode=speed` (and older toolkits) writes one raw LZ4 block without a frame, `default`, `balance` and `size` one zstd frame.
//! Decompressed text ends in a NUL or at its size.

use std::io::Read;

/// First four bytes of a fatbin.
const FATBIN: [u8; 4] = 0xBA55_ED50_u32.to_le_bytes();
/// First four bytes of the descriptor that host code holds (`__fatBinC_Wrapper_t`); the address of the fatbin is its third field, at 8.
const WRAPPER: [u8; 4] = 0x4662_43B1_u32.to_le_bytes();
const ELF: [u8; 4] = *b"\x7fELF";

const KIND_PTX: u16 = 1;
const KIND_ELF: u16 = 2;
const FLAG_LZ4: u64 = 0x2000;
const FLAG_ZSTD: u64 = 0x8000;
/// More PTX than this in one entry is taken for a corrupt size.
const MOST_TEXT: u64 = 1 << 30;

/// Why an image holds nothing to run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("cubin needs a GPU; build with PTX in the fatbin")]
    Cubin,
    #[error("the oldest PTX in the image is for compute capability {oldest}, the device has {device} (tenfold)")]
    TooNew { oldest: u32, device: u32 },
    #[error("the module image is corrupt: {0}")]
    Corrupt(String),
}

fn corrupt(what: impl Into<String>) -> ImageError {
    ImageError::Corrupt(what.into())
}

/// The PTX of a module image that a device of this compute capability can run: of a fatbin the entry with the highest target that
/// is not above it.
///
/// # Errors
/// [`ImageError`] when there is none or the image is damaged.
///
/// # Safety
/// `image` is null, or points to PTX text that ends in a NUL, to a fatbin as long as its header says, to a wrapper of one, or to
/// an ELF file.
pub unsafe fn ptx_of_image(image: *const u8, compute_capability: (u32, u32)) -> Result<String, ImageError> {
    if image.is_null() {
        return Err(corrupt("the address is null"));
    }
    // No magic number contains a NUL: comparing stops within a text, however short.
    // SAFETY: each byte is read only when those before it were not the end of a text.
    let starts = |magic: [u8; 4]| (0..4).all(|i| unsafe { image.add(i).read() } == magic[i]);
    if starts(ELF) {
        return Err(ImageError::Cubin);
    }
    if starts(WRAPPER) {
        // SAFETY: a wrapper is four words: magic and version (32 bits each), the address of the fatbin, a file name.
        let inner = unsafe { image.add(8).cast::<*const u8>().read_unaligned() };
        // SAFETY: the wrapper's field points to a fatbin; reading its first four bytes is the least it has.
        if inner.is_null() || (0..4).any(|i| unsafe { inner.add(i).read() } != FATBIN[i]) {
            return Err(corrupt("the wrapper points to no fatbin"));
        }
        // SAFETY: `inner` is a fatbin.
        return unsafe { stated_fatbin(inner) }.and_then(|bytes| ptx_of_fatbin(bytes, compute_capability));
    }
    if starts(FATBIN) {
        // SAFETY: `image` is a fatbin.
        return unsafe { stated_fatbin(image) }.and_then(|bytes| ptx_of_fatbin(bytes, compute_capability));
    }
    // SAFETY: what is left is text that ends in a NUL.
    let text = unsafe { std::ffi::CStr::from_ptr(image.cast()) };
    text_of(text.to_bytes())
}

fn text_of(bytes: &[u8]) -> Result<String, ImageError> {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(corrupt("a text in UTF-16, by its byte order mark; PTX is ASCII"));
    }
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| corrupt("neither PTX text, nor a fatbin, nor a cubin"))
}

/// As [`ptx_of_image`], for an image whose bytes are known, such as a file: text needs no NUL.
///
/// # Errors
/// As there.
pub fn ptx_of_bytes(bytes: &[u8], compute_capability: (u32, u32)) -> Result<String, ImageError> {
    if bytes.starts_with(&ELF) {
        return Err(ImageError::Cubin);
    }
    if bytes.starts_with(&FATBIN) {
        return ptx_of_fatbin(bytes, compute_capability);
    }
    text_of(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// The bytes of a fatbin, by the size in its header.
///
/// # Safety
/// `image` points to a fatbin as long as its header says.
unsafe fn stated_fatbin<'a>(image: *const u8) -> Result<&'a [u8], ImageError> {
    // SAFETY: a fatbin is at least its header of 16 bytes.
    let header = unsafe { std::slice::from_raw_parts(image, 16) };
    let bytes = u64::from(u16_at(header, 6))
        .checked_add(u64_at(header, 8))
        .and_then(|bytes| isize::try_from(bytes).ok())
        .ok_or_else(|| corrupt("the size in the header is impossible"))?;
    // SAFETY: the header states this size, and the caller vouches for it.
    Ok(unsafe { std::slice::from_raw_parts(image, bytes as usize) })
}

/// As [`ptx_of_image`], for a fatbin whose bytes are known.
///
/// # Errors
/// As there.
pub fn ptx_of_fatbin(bytes: &[u8], compute_capability: (u32, u32)) -> Result<String, ImageError> {
    let device = compute_capability.0 * 10 + compute_capability.1;
    let entries = entries(bytes)?;
    let ptx = || entries.iter().filter(|entry| entry.kind == KIND_PTX);
    // `max_by_key` takes the last of equals; entries of the same target are equivalent.
    match ptx().filter(|entry| entry.target <= device).max_by_key(|entry| entry.target) {
        Some(entry) => entry.text(),
        None => Err(match ptx().map(|entry| entry.target).min() {
            Some(oldest) => ImageError::TooNew { oldest, device },
            None if entries.iter().any(|entry| entry.kind == KIND_ELF) => ImageError::Cubin,
            None => corrupt("the fatbin has no PTX"),
        }),
    }
}

/// The target of PTX text, ten times a compute capability; `None` without a `.target sm_NN`.
pub fn target_of(ptx: &str) -> Option<u32> {
    let digits = target_name(ptx)?.strip_prefix("sm_")?;
    digits.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse().ok()
}

/// `sm_90a` of `.target sm_90a, debug`.
pub fn target_name(ptx: &str) -> Option<&str> {
    let line = ptx.lines().map(str::trim_start).find_map(|line| line.strip_prefix(".target"))?;
    let word = &line[line.find("sm_")?..];
    Some(word.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or(word))
}

struct Entry<'a> {
    kind: u16,
    target: u32,
    flags: u64,
    /// Bytes once decompressed.
    raw: u64,
    /// Without the padding when compressed.
    payload: &'a [u8],
}

fn entries(bytes: &[u8]) -> Result<Vec<Entry<'_>>, ImageError> {
    if bytes.len() < 16 || bytes[..4] != FATBIN {
        return Err(corrupt("no fatbin header"));
    }
    let header = usize::from(u16_at(bytes, 6));
    if header < 16 {
        return Err(corrupt("the fatbin header is too short"));
    }
    let end = usize::try_from(u64_at(bytes, 8)).ok().and_then(|payload| header.checked_add(payload));
    let end = end.filter(|end| *end <= bytes.len()).ok_or_else(|| corrupt("the entries do not fit the image"))?;
    let mut entries = Vec::new();
    let mut rest = &bytes[header..end];
    while !rest.is_empty() {
        if rest.len() < 64 {
            return Err(corrupt("an entry header does not fit"));
        }
        let header = u32_at(rest, 4) as usize;
        let padded = usize::try_from(u64_at(rest, 8)).ok();
        let next = padded.and_then(|padded| header.checked_add(padded)).filter(|next| *next <= rest.len());
        let next = next.filter(|_| header >= 64).ok_or_else(|| corrupt("an entry does not fit"))?;
        let mut payload = &rest[header..next];
        let flags = u64_at(rest, 40);
        if flags & (FLAG_LZ4 | FLAG_ZSTD) != 0 {
            let compressed = u32_at(rest, 16) as usize;
            payload = payload.get(..compressed).ok_or_else(|| corrupt("the compressed data does not fit"))?;
        }
        entries.push(Entry { kind: u16_at(rest, 0), target: u32_at(rest, 28), flags, raw: u64_at(rest, 56), payload });
        rest = &rest[next..];
    }
    Ok(entries)
}

impl Entry<'_> {
    fn text(&self) -> Result<String, ImageError> {
        let mut text = if self.flags & FLAG_ZSTD != 0 {
            self.zstd()?
        } else if self.flags & FLAG_LZ4 != 0 {
            self.lz4()?
        } else {
            self.payload.to_vec()
        };
        if let Some(end) = text.iter().position(|byte| *byte == 0) {
            text.truncate(end);
        }
        String::from_utf8(text).map_err(|_| corrupt("the PTX is not text"))
    }

    fn zstd(&self) -> Result<Vec<u8>, ImageError> {
        if self.raw > MOST_TEXT {
            return Err(corrupt("the decompressed size is impossible"));
        }
        let failed = |e: &dyn std::fmt::Display| corrupt(format!("zstd: {e}"));
        let decoder = ruzstd::decoding::StreamingDecoder::new(self.payload).map_err(|e| failed(&e))?;
        let mut text = Vec::new();
        decoder.take(self.raw + 1).read_to_end(&mut text).map_err(|e| failed(&e))?;
        self.complete(text)
    }

    fn lz4(&self) -> Result<Vec<u8>, ImageError> {
        // One byte of LZ4 makes at most 255: a larger size is corrupt, and would only take memory.
        if self.raw > MOST_TEXT.min(self.payload.len() as u64 * 255 + 64) {
            return Err(corrupt("the decompressed size is impossible"));
        }
        let text = lz4_flex::block::decompress(self.payload, self.raw as usize);
        self.complete(text.map_err(|e| corrupt(format!("LZ4: {e}")))?)
    }

    fn complete(&self, text: Vec<u8>) -> Result<Vec<u8>, ImageError> {
        match text.len() as u64 == self.raw {
            true => Ok(text),
            false => Err(corrupt(format!("decompressed to other than the {} bytes that it states", self.raw))),
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
