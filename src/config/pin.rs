//! Checksums of what a run reads, noted in its config: a resumed run tells by them whether all is still the same.

use std::io::{self, BufReader};
use std::path::Path;

use super::wrong::Weights;
use crate::error::{Error, Result};
use crate::files;
use crate::models::graph::read::{self, is_onnx};

/// Notes the checksum of weights, or compares it with the one that is known. An ONNX graph's is that of its external data, too.
pub(super) fn weights(weights: &str, known: &mut Option<String>) -> Result<()> {
    let path = Path::new(weights);
    let found = match Weights::named(weights) {
        Weights::Embedded(bytes) => checksum(bytes),
        Weights::File(path) => {
            let data = if is_onnx(path) { read::open(path)?.data } else { vec![] };
            let open = |path: &Path| Ok::<_, Error>(BufReader::new(files::open(path, "read the weights")?));
            let all = data.iter().try_fold(Box::new(open(path)?) as Box<dyn io::Read>, |all, file| {
                Ok::<_, Error>(Box::new(io::Read::chain(all, open(file)?)) as Box<dyn io::Read>)
            })?;
            checksum(all)
        }
    };
    note(known, found.map_err(|e| Error::io(path, "read the weights", e))?, path)
}

/// Notes a checksum, or compares it with the one that is known.
pub(super) fn note(known: &mut Option<String>, found: u32, file: &Path) -> Result<()> {
    let found = format!("{found:08x}");
    match known.replace(found.clone()) {
        Some(expected) if expected != found => {
            Err(Error::file(file, format!("crc32: the config expects {expected}, found {found}")))
        }
        _ => Ok(()),
    }
}

fn checksum(reader: impl io::Read) -> io::Result<u32> {
    let mut reader = flate2::CrcReader::new(reader);
    io::copy(&mut reader, &mut io::sink())?;
    Ok(reader.crc().sum())
}
