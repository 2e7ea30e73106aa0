//! What lies beside the records of the parts of a run: once for all of them what they have in common, and for each what it did.

use std::fs;
use std::io::{self, BufReader};
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::header::Header;
use super::super::ledger::Images;
use super::super::lock;
use super::super::rundir::RunDir;
use super::super::shard::{self, Shard};
use crate::error::{Error, Result};
use crate::files;

/// What all parts of a run have in common; hidden, and gone once they are joined.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// How many parts there are.
    pub of: u32,
    /// Of the settings.
    pub config: String,
    pub images: Images,
}

impl Split {
    pub const FILE: &str = ".shards.json";
    /// Bytes of it at most: a million images and more.
    const MOST: u64 = 256 << 20;

    /// Writes it, or compares what is there.
    ///
    /// # Errors
    /// [`Error::Usage`] where the run is split into another number of parts; [`Error::File`] for other images.
    pub fn settle(dir: &RunDir, shard: Shard, header: &Header, images: Images) -> Result<()> {
        let own = Split { of: shard.of, config: header.crc32().into(), images };
        dir.alone(|| match Split::read(dir.path())? {
            None => dir.store(Split::FILE, &own),
            Some(there) if there.of != own.of => Err(Error::usage(
                "shard",
                format!(
                    "{} is split into {} parts, and --shard {shard} is of {}: expected --shard I/{}; `rampart merge --partial` joins what is \
                     there, after which any number will do",
                    dir.path().display(),
                    there.of,
                    own.of,
                    there.of
                ),
            )),
            Some(there) if there != own => {
                Err(Error::file(&dir.path().join(Split::FILE), "expected the images and settings of this run, found others"))
            }
            Some(_) => Ok(()),
        })
    }

    /// What there is in a run directory.
    ///
    /// # Errors
    /// [`Error::File`] for a damaged one; [`Error::Io`].
    pub fn read(dir: &Path) -> Result<Option<Split>> {
        read(dir, Self::FILE, Self::MOST)
    }
}

/// What a part did: written when it begins and when it ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    pub shard: String,
    /// Of the settings.
    pub config: String,
    /// Whether every unit of the part is recorded.
    pub done: bool,
    /// Records of the part there will be, there are, and were when the last process began.
    pub of: u64,
    pub records: u64,
    pub before: u64,
    /// Of the file of records; while a process works on it, as it was found.
    pub bytes: u64,
    pub sha256: String,
    pub host: String,
    pub process: u32,
    /// When the last process began, seconds since 1970.
    pub begun: u64,
    /// Seconds per phase of all processes.
    pub seconds: Vec<(String, f64)>,
}

impl Card {
    const MOST: u64 = 1 << 20;

    pub fn name(shard: Shard) -> String {
        format!("records-{}.json", shard.named())
    }

    /// Of a part that begins now, with what an earlier process left.
    ///
    /// # Errors
    /// [`Error::Io`]; a damaged card is an error, too.
    pub fn begin(dir: &RunDir, shard: Shard, header: &Header, (records, of): (u64, u64)) -> Result<Card> {
        let old = Card::read(dir.path(), shard)?;
        let (bytes, sha256) = sum(&dir.path().join(shard::records(Some(shard))))?;
        let begun = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let card = Card {
            shard: shard.to_string(),
            config: header.crc32().into(),
            done: false,
            of,
            records,
            before: records,
            bytes,
            sha256,
            host: lock::host(),
            process: std::process::id(),
            begun,
            seconds: old.map_or(vec![], |old| old.seconds),
        };
        dir.store(&Card::name(shard), &card)?;
        Ok(card)
    }

    /// Notes what is there now.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn end(mut self, dir: &RunDir, shard: Shard, records: u64, seconds: &[(&str, f64)]) -> Result<()> {
        (self.bytes, self.sha256) = sum(&dir.path().join(shard::records(Some(shard))))?;
        self.records = records;
        self.done = records == self.of;
        add(&mut self.seconds, seconds.iter().copied());
        dir.store(&Card::name(shard), &self)
    }

    /// What there is of a part.
    ///
    /// # Errors
    /// [`Error::File`] for a damaged one; [`Error::Io`].
    pub fn read(dir: &Path, shard: Shard) -> Result<Option<Card>> {
        read(dir, &Self::name(shard), Self::MOST)
    }

    /// Whether a file of records is the one that a finished part left.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_of(&self, records: &Path) -> Result<bool> {
        Ok(!self.done || sum(records)? == (self.bytes, self.sha256.clone()))
    }
}

/// Adds seconds to those of the phases, which come in the order that they are first named in.
pub fn add<'a>(times: &mut Vec<(String, f64)>, seconds: impl Iterator<Item = (&'a str, f64)>) {
    for (phase, more) in seconds {
        match times.iter_mut().find(|(name, _)| name == phase) {
            Some((_, total)) => *total += more,
            None => times.push((phase.to_owned(), more)),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(dir: &Path, name: &str, most: u64) -> Result<Option<T>> {
    let path = dir.join(name);
    let bytes = match files::read(&path, "read", most) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::file(&path, format!("damaged: {e}")))
}

/// Length and checksum of a file.
fn sum(path: &Path) -> Result<(u64, String)> {
    let io = |e| Error::io(path, "read the records", e);
    let mut sha256 = Sha256::new();
    let mut reader = BufReader::with_capacity(1 << 20, fs::File::open(path).map_err(io)?);
    let bytes = io::copy(&mut reader, &mut sha256).map_err(io)?;
    Ok((bytes, sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}
