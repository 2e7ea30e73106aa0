//! Records of a run that is over, compressed: `records.jsonl.zst`. Frames of a few megabytes each follow one another, so that neither writing nor
//! reading holds more than one; `zstd -d` reads them as any other file.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use ruzstd::decoding::StreamingDecoder;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use sha2::{Digest, Sha256};

use super::rundir::RunDir;
use crate::error::{Error, Result};
use crate::files;

/// Bytes of a frame before they are compressed.
const FRAME: u64 = 4 << 20;

/// Where the records of a file lie compressed.
pub fn name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".zst");
    name.into()
}

/// The file, or what is left of it compressed, if either is there.
pub fn existing(path: &Path) -> Option<PathBuf> {
    [path.to_owned(), name(path)].into_iter().find(|path| path.is_file())
}

/// Opens a file, compressed or not, for reading.
///
/// # Errors
/// As [`files::open`].
pub fn open(path: &Path, action: &'static str) -> Result<Box<dyn Read>> {
    match existing(path) {
        Some(found) if found != path || path.extension().is_some_and(|e| e == "zst") => {
            Ok(Box::new(Frames::Between(BufReader::with_capacity(1 << 20, files::open(&found, action)?))))
        }
        _ => Ok(Box::new(files::open(path, action)?)),
    }
}

/// One frame after the other.
enum Frames<R: BufRead> {
    Between(R),
    Within(Box<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>),
    /// Something was wrong: what follows is not to be had.
    Lost,
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(self, Frames::Lost) {
                Frames::Between(mut reader) => {
                    if reader.fill_buf()?.is_empty() {
                        *self = Frames::Between(reader);
                        return Ok(0);
                    }
                    *self = Frames::Within(Box::new(StreamingDecoder::new(reader).map_err(io::Error::other)?));
                }
                Frames::Within(mut decoder) => match decoder.read(to)? {
                    0 if !to.is_empty() => *self = Frames::Between(decoder.into_inner()),
                    n => {
                        *self = Frames::Within(decoder);
                        return Ok(n);
                    }
                },
                Frames::Lost => return Err(io::Error::other("the frames before this one are damaged")),
            }
        }
    }
}

/// Compresses a file of the run, looks whether what comes out is what went in, and takes the file away. Bytes before and after.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] where it comes out otherwise: the file then stays.
pub fn pack(dir: &RunDir, file: &str) -> Result<(u64, u64)> {
    let path = dir.path().join(file);
    let packed = name(&path);
    let io = |e| Error::io(&path, "compress the records", e);
    let packed_name = format!("{file}.zst");
    dir.write_by(&packed_name, |out| {
        let mut reader = File::open(&path)?;
        loop {
            let mut bytes = Vec::new();
            if (&mut reader).take(FRAME).read_to_end(&mut bytes)? == 0 {
                return Ok(());
            }
            out.write_all(&compress_to_vec(&bytes[..], CompressionLevel::Fastest))?;
        }
    })?;
    let sum = |reader: &mut dyn Read| -> io::Result<(u64, Vec<u8>)> {
        let mut sha256 = Sha256::new();
        Ok((io::copy(reader, &mut sha256)?, sha256.finalize().to_vec()))
    };
    let before = sum(&mut File::open(&path).map_err(io)?).map_err(io)?;
    let after = open(&packed, "read the records")
        .and_then(|mut reader| sum(&mut reader).map_err(|e| Error::io(&packed, "read the records", e)))?;
    if before != after {
        let _ = fs::remove_file(&packed);
        return Err(Error::file(&path, "compressed it reads otherwise: it stays as it is"));
    }
    fs::remove_file(&path).map_err(io)?;
    Ok((before.0, fs::metadata(&packed).map_err(io)?.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_is_read_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(Some(dir.path()), "x", false).unwrap();
        let line = |i: u64| format!("{{\"image\":{i},\"margin\":{}}}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // More than two frames.
        let text: String = (0..260_000).map(line).collect();
        let path = dir.path().join("records.jsonl");
        fs::write(&path, &text).unwrap();
        let (before, after) = pack(&run, "records.jsonl").unwrap();
        assert!(before == text.len() as u64 && before > 2 * FRAME && after < before * 2 / 3, "{before} {after}");
        assert!(!path.exists() && existing(&path) == Some(name(&path)));
        let mut read = String::new();
        open(&path, "read").unwrap().read_to_string(&mut read).unwrap();
        assert!(read == text);
        // Cut off, it is an error and not a shorter file.
        let bytes = fs::read(name(&path)).unwrap();
        fs::write(name(&path), &bytes[..bytes.len() - 5]).unwrap();
        assert!(open(&path, "read").unwrap().read_to_string(&mut read).is_err());
    }
}
