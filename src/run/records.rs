//! `records.jsonl`: one line per image and cell, only ever appended to.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use crate::attack::Outcome;
use crate::defense::Smoothed;
use crate::error::{Error, Result};

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub model: String,
    pub dataset: String,
    pub attack: String,
    pub norm: String,
    pub eps: f64,
    /// Of the denoiser; `None` in channel 1.
    pub sigma: Option<f64>,
    /// 1 undefended, 2 denoised.
    pub channel: u8,
    /// [`crate::data::Dataset::ids`] of the image.
    pub image: u64,
    pub label: u32,
    #[serde(flatten)]
    pub found: Found,
}

/// What a channel found about one image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Found {
    Attacked(Outcome),
    Denoised(Smoothed),
}

impl Record {
    /// JSON has no word for NaN or infinity: an engine that produced one is broken.
    fn check_finite(&self) -> Result<()> {
        let values = match &self.found {
            Found::Attacked(o) => vec![("margin", o.margin), ("loss", o.loss), ("linf", o.linf), ("l2", o.l2)],
            Found::Denoised(s) => vec![("confidence", s.confidence)],
        };
        match values.into_iter().find(|(_, value)| !value.is_finite()) {
            Some((name, value)) => {
                let Record { model, eps, image, .. } = self;
                Err(Error::Failed(format!("model {model}, eps {eps}, image {image}: {name} is {value}")))
            }
            None => Ok(()),
        }
    }
}

/// The open file, positioned behind its last whole record.
pub struct Records {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Records {
    /// Opens the file, which may be new, and returns what it holds. A last line that a killed run left unfinished is
    /// cut off.
    ///
    /// # Errors
    /// [`Error::File`] naming the line when any other line is no record; [`Error::Io`].
    pub fn open(path: &Path) -> Result<(Self, Vec<Record>)> {
        let io = |action| move |e| Error::io(path, action, e);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io("open the records for writing"))?;
        let (records, len) = parse(path, &file)?;
        if file.metadata().map_err(io("read the records"))?.len() != len {
            file.set_len(len).and_then(|()| file.sync_data()).map_err(io("cut off an unfinished record"))?;
        }
        file.seek(SeekFrom::Start(len)).map_err(io("read the records"))?;
        Ok((Records { path: path.into(), file, len }, records))
    }

    /// Writes a batch in one piece and waits until it is on disk.
    ///
    /// # Errors
    /// [`Error::Io`] on a full disk and the like: the file then ends with the batch before. [`Error::Failed`] when a
    /// value is not finite: nothing is written.
    pub fn append(&mut self, batch: &[Record]) -> Result<()> {
        let mut lines = Vec::new();
        for record in batch {
            record.check_finite()?;
            let line = serde_json::to_writer(&mut lines, record);
            line.map_err(|e| Error::io(&self.path, "write a record", e.into()))?;
            lines.push(b'\n');
        }
        if let Err(e) = self.file.write_all(&lines).and_then(|()| self.file.sync_data()) {
            // What got through of this batch would only be cut off later; when even this fails, resuming does it.
            let _ = self.file.set_len(self.len).and_then(|()| self.file.seek(SeekFrom::Start(self.len)));
            return Err(Error::io(
                &self.path,
                "append records (the earlier ones are intact: --resume goes on there)",
                e,
            ));
        }
        self.len += lines.len() as u64;
        Ok(())
    }
}

/// Reads a file without changing it, record by record, each with its line number; a last line that is unfinished is left out.
///
/// # Errors
/// As [`Records::open`]; what `take` finds wrong, with the line.
pub fn each(path: &Path, take: impl FnMut(Record) -> Result<(), String>) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::io(path, "read the records", e))?;
    walk(path, &file, take).map(drop)
}

/// The records of a file and the length of the part that holds them.
fn parse(path: &Path, file: &File) -> Result<(Vec<Record>, u64)> {
    let mut records = Vec::new();
    let len = walk(path, file, |record| {
        records.push(record);
        Ok(())
    })?;
    Ok((records, len))
}

fn walk(path: &Path, file: &File, mut take: impl FnMut(Record) -> Result<(), String>) -> Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut count, mut len, mut line) = (0, 0, Vec::new());
    let mut broken: Option<String> = None;
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).map_err(|e| Error::io(path, "read the records", e))?;
        if read == 0 {
            return Ok(len);
        }
        if let Some(problem) = broken {
            return Err(Error::file(path, format!("line {}: not a record: {problem}", count + 1)));
        }
        match serde_json::from_slice(&line) {
            Ok(record) if line.ends_with(b"\n") => {
                count += 1;
                take(record).map_err(|problem| Error::file(path, format!("line {count}: {problem}")))?;
                len += read as u64;
            }
            Ok(_) => broken = Some("no end of line".into()),
            Err(e) => broken = Some(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(image: u64) -> Record {
        let outcome = Outcome {
            prediction: 3,
            clean_prediction: 4,
            correct_clean: true,
            correct_last: false,
            correct_any: false,
            first_success: Some(2),
            steps: 10,
            margin: -0.1,
            loss: 1.0 / 3.0,
            linf: f32::MIN_POSITIVE,
            l2: 1e30,
            violation: false,
            target: None,
            stage: None,
            target_reached: None,
            top5: None,
            clean_top5: None,
        };
        Record {
            model: "m".into(),
            dataset: "d".into(),
            attack: "pgd".into(),
            norm: "linf".into(),
            eps: 8.0 / 255.0,
            sigma: None,
            channel: 1,
            image,
            label: 4,
            found: Found::Attacked(outcome),
        }
    }

    #[test]
    fn both_channels_have_their_form() {
        let smoothed = Smoothed {
            prediction: 4,
            correct: true,
            draws: 3,
            correct_draws: 2,
            confidence: 0.7,
            top5: None,
            target_reached: None,
        };
        let denoised = Record { sigma: Some(0.25), channel: 2, found: Found::Denoised(smoothed), ..record(3) };
        for record in [record(3), denoised] {
            let line = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record, "{line}");
        }
    }

    fn file_with(content: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.jsonl");
        std::fs::write(&path, content).unwrap();
        (dir, path)
    }

    fn lines(count: u64) -> Vec<u8> {
        let line = |i| serde_json::to_string(&record(i)).unwrap() + "\n";
        (0..count).map(line).collect::<String>().into_bytes()
    }

    #[test]
    fn appends_and_reads_back() {
        let (_dir, path) = file_with(b"");
        let (mut file, found) = Records::open(&path).unwrap();
        assert!(found.is_empty());
        file.append(&[record(0), record(1)]).unwrap();
        file.append(&[record(2)]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), lines(3));
        assert_eq!(Records::open(&path).unwrap().1, [record(0), record(1), record(2)]);
    }

    #[test]
    fn an_unfinished_last_line_is_cut_off() {
        let whole = lines(2);
        let tails: [&[u8]; 4] = [b"{\"model\":\"m", b"{\"model\":\"m\"}\n", &lines(1)[..lines(1).len() - 1], b"\0\0\0"];
        for tail in tails {
            let (_dir, path) = file_with(&[&whole[..], tail].concat());
            let (mut file, found) = Records::open(&path).unwrap();
            assert_eq!(found.len(), 2);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
            file.append(&[record(2)]).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), lines(3));
        }
    }

    #[test]
    fn any_other_broken_line_is_an_error() {
        let (_dir, path) = file_with(&[&lines(1)[..], b"oops\n", &lines(1)].concat());
        let error = Records::open(&path).map(|(_, found)| found).unwrap_err().to_string();
        assert!(error.contains("records.jsonl: line 2: not a record"), "{error}");
    }

    #[test]
    fn what_is_not_finite_is_never_written() {
        let (_dir, path) = file_with(b"");
        let mut file = Records::open(&path).unwrap().0;
        for spoil in [|o: &mut Outcome| o.margin = f32::NAN, |o: &mut Outcome| o.l2 = f32::INFINITY] {
            let mut bad = record(7);
            let Found::Attacked(outcome) = &mut bad.found else { unreachable!("made above") };
            spoil(outcome);
            let error = file.append(&[record(6), bad]).unwrap_err().to_string();
            assert!(error.contains("image 7"), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error() {
        let file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut full = Records { path: "records.jsonl".into(), file, len: 0 };
        let error = full.append(&[record(0)]).unwrap_err();
        assert!(error.to_string().contains("the earlier ones are intact"), "{error}");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("No space left"), "{source}");
    }

    proptest::proptest! {
        #[test]
        fn floats_round_trip(eps in 0.0f64..1.0, bits in proptest::prelude::any::<u32>()) {
            let mut before = record(0);
            before.eps = eps;
            let Found::Attacked(outcome) = &mut before.found else { unreachable!("made above") };
            outcome.margin = f32::from_bits(bits);
            let margin = outcome.margin;
            proptest::prop_assume!(margin.is_finite());
            let after: Record = serde_json::from_str(&serde_json::to_string(&before).unwrap()).unwrap();
            proptest::prop_assert_eq!(after.eps.to_bits(), eps.to_bits());
            let Found::Attacked(after) = after.found else { unreachable!("as before") };
            proptest::prop_assert_eq!(after.margin.to_bits(), bits);
        }
    }
}
