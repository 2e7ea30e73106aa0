//! `records.jsonl`: one line per image and cell, only ever appended to, below a line that says which settings they come from. Other files of
//! lines are kept the same way.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::marker::PhantomData;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::header::Header;
use super::packed;
pub use crate::attack::Outcome;
use crate::defense::Smoothed;
use crate::error::{Error, Result};
use crate::files;

/// Bytes of a line at most: of the first one above all, which may list thousands of classes.
const LINE: u64 = 4 << 20;

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

impl Found {
    /// Of the attacked image, or of the vote over its denoised draws.
    pub fn prediction(&self) -> u32 {
        match self {
            Found::Attacked(outcome) => outcome.prediction,
            Found::Denoised(smoothed) => smoothed.prediction,
        }
    }
}

/// What such a file has a line per.
pub trait Line: Serialize + DeserializeOwned {
    /// JSON has no word for NaN or infinity: an engine that produced one is broken.
    ///
    /// # Errors
    /// [`Error::Failed`] with the value that is none.
    fn check_finite(&self) -> Result<()>;
}

impl Line for Record {
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
pub struct Records<L = Record> {
    path: PathBuf,
    file: File,
    len: u64,
    /// Whether the first line is a header: a run of an older version has none, and gets none.
    headed: bool,
    _line: PhantomData<L>,
}

impl<L: Line> Records<L> {
    /// Opens the file, which may be new, and returns what it holds. A last line that a killed run left unfinished is
    /// cut off. The caller holds the run directory, so that nobody else writes the line meanwhile.
    ///
    /// # Errors
    /// [`Error::File`] naming the line when any other line is no record, or the first says other settings than `header`;
    /// [`Error::Io`].
    pub fn open(path: &Path, header: &Header) -> Result<(Self, Vec<L>)> {
        let io = |action| move |e| Error::io(path, action, e);
        if packed::existing(path).is_some_and(|found| found != path) {
            let problem = format!(
                "compressed: `zstd -d --rm {}` makes a file of it that can be added to",
                packed::name(path).display()
            );
            return Err(Error::file(path, problem));
        }
        let mut options = files::own();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(io("open the records for writing"))?;
        if !file.metadata().map_err(io("read the records"))?.is_file() {
            return Err(Error::file(path, "expected a regular file, found a pipe or a device"));
        }
        let mut records = Vec::new();
        let mut found = None;
        let len = walk(path, &file, &mut found, |record, _| {
            records.push(record);
            Ok(())
        })?;
        if let Some(begun) = &found {
            header.agrees(begun).map_err(|problem| Error::file(path, problem))?;
        }
        if file.metadata().map_err(io("read the records"))?.len() != len {
            file.set_len(len).and_then(|()| file.sync_data()).map_err(io("cut off an unfinished record"))?;
        }
        file.seek(SeekFrom::Start(len)).map_err(io("read the records"))?;
        let mut opened = Records { path: path.into(), file, len, headed: found.is_some(), _line: PhantomData };
        if len == 0 {
            let mut line = serde_json::to_vec(header).map_err(|e| Error::io(path, "write the settings", e.into()))?;
            line.push(b'\n');
            opened.write(&line)?;
            opened.headed = true;
            // The name of a new file is on the disk when its folder is.
            files::sync_folder(path.parent().unwrap_or(Path::new("."))).map_err(io("open the records for writing"))?;
        }
        Ok((opened, records))
    }

    /// The number of the line that the first record stands in.
    pub fn first_line(&self) -> usize {
        1 + usize::from(self.headed)
    }

    /// Writes a batch in one piece and waits until it is on disk.
    ///
    /// # Errors
    /// [`Error::Io`] on a full disk and the like: the file then ends with the batch before. [`Error::Failed`] when a
    /// value is not finite: nothing is written.
    pub fn append(&mut self, batch: &[L]) -> Result<()> {
        let mut lines = Vec::new();
        for record in batch {
            record.check_finite()?;
            let line = serde_json::to_writer(&mut lines, record);
            line.map_err(|e| Error::io(&self.path, "write a record", e.into()))?;
            lines.push(b'\n');
        }
        self.write(&lines)
    }

    fn write(&mut self, lines: &[u8]) -> Result<()> {
        // The lock keeps others out; a file system without locks, or somebody's editor, does not.
        let end = self.file.metadata().map_err(|e| Error::io(&self.path, "append records", e))?.len();
        if end != self.len {
            let problem =
                format!("expected the {} bytes of this process, found {end}: somebody else writes it", self.len);
            return Err(Error::file(&self.path, problem));
        }
        if let Err(e) = self.file.write_all(lines).and_then(|()| self.file.sync_data()) {
            // What got through of this batch would only be cut off later; when even this fails, resuming does it.
            let _ = self.take_back(lines);
            return Err(Error::io(
                &self.path,
                "append records (the earlier ones are intact: --resume goes on there)",
                e,
            ));
        }
        self.len += lines.len() as u64;
        Ok(())
    }

    /// Cuts off what a failed write left, if it is nothing but that.
    fn take_back(&mut self, lines: &[u8]) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(self.len))?;
        let mut left = Vec::new();
        (&mut self.file).take(lines.len() as u64 + 1).read_to_end(&mut left)?;
        if lines.starts_with(&left) {
            self.file.set_len(self.len)?;
        }
        self.file.seek(SeekFrom::Start(self.len)).map(drop)
    }
}

/// What the first line of a file says of its settings, if it does.
///
/// # Errors
/// [`Error::Io`]; [`Error::File`] when the line was changed.
pub fn header(path: &Path) -> Result<Option<Header>> {
    let (mut reader, mut line) = (BufReader::new(packed::open(path, "read the records")?), Vec::new());
    let read = (&mut reader).take(LINE + 1).read_until(b'\n', &mut line);
    read.map_err(|e| Error::io(path, "read the records", e))?;
    of_line(path, &line)
}

/// A header, whole, if it is one.
fn of_line(path: &Path, line: &[u8]) -> Result<Option<Header>> {
    let found = line.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<Header>(line).ok());
    if let Some(header) = &found {
        header.check().map_err(|problem| Error::file(path, format!("line 1: {problem}")))?;
    }
    Ok(found)
}

/// Reads a file without changing it, record by record; a last line that is unfinished is left out. What its first line says of its
/// settings, if it does.
///
/// # Errors
/// As [`Records::open`]; what `take` finds wrong, with the line.
pub fn each<L: Line>(path: &Path, mut take: impl FnMut(L) -> Result<(), String>) -> Result<Option<Header>> {
    each_at(path, |record, _| take(record)).map(|(header, _)| header)
}

/// [`each`], with the bytes that each line takes, and the length of the part that holds whole lines.
///
/// # Errors
/// As [`each`].
pub fn each_at<L: Line>(
    path: &Path,
    take: impl FnMut(L, Range<u64>) -> Result<(), String>,
) -> Result<(Option<Header>, u64)> {
    let file = packed::open(path, "read the records")?;
    let mut header = None;
    let len = walk(path, file, &mut header, take)?;
    Ok((header, len))
}

/// The length of the part that holds whole lines.
fn walk<L: Line>(
    path: &Path,
    file: impl Read,
    header: &mut Option<Header>,
    mut take: impl FnMut(L, Range<u64>) -> Result<(), String>,
) -> Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let (mut count, mut len, mut line) = (0, 0, Vec::new());
    let mut broken: Option<String> = None;
    loop {
        line.clear();
        let read = (&mut reader).take(LINE + 1).read_until(b'\n', &mut line);
        let read = read.map_err(|e| Error::io(path, "read the records", e))? as u64;
        if read == 0 {
            return Ok(len);
        }
        if let Some(problem) = broken {
            return Err(Error::file(path, format!("line {}: not a record: {problem}", count + 1)));
        }
        if read > LINE {
            return Err(Error::file(path, format!("line {}: longer than {LINE} bytes", count + 1)));
        }
        let whole = line.ends_with(b"\n");
        if count == 0
            && let Some(found) = of_line(path, &line)?
        {
            *header = Some(found);
            (count, len) = (1, read);
            continue;
        }
        match serde_json::from_slice(&line) {
            Ok(record) if whole => {
                count += 1;
                take(record, len..len + read)
                    .map_err(|problem| Error::file(path, format!("line {count}: {problem}")))?;
                len += read;
            }
            Ok(_) => broken = Some("no end of line".into()),
            // What a killed process left has no end; a line that has one was written by somebody else.
            Err(e) if whole => return Err(Error::file(path, format!("line {}: not a record: {e}", count + 1))),
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
            steps_saved: 0,
            margin: -0.1,
            loss: 1.0 / 3.0,
            linf: f32::MIN_POSITIVE,
            l2: 1e30,
            violation: false,
            target: None,
            stage: None,
            nested: None,
            radius: None,
            asked: None,
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
            again: None,
        };
        let denoised = Record { sigma: Some(0.25), channel: 2, found: Found::Denoised(smoothed), ..record(3) };
        for record in [record(3), denoised] {
            let line = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record, "{line}");
        }
    }

    fn header() -> Header {
        Header::of(&serde_json::json!({ "seed": 4, "steps": 10 })).unwrap()
    }

    fn head() -> Vec<u8> {
        [serde_json::to_vec(&header()).unwrap(), b"\n".to_vec()].concat()
    }

    fn open(path: &Path) -> Result<(Records, Vec<Record>)> {
        Records::open(path, &header())
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
        let (mut file, found) = open(&path).unwrap();
        assert!(found.is_empty());
        file.append(&[record(0), record(1)]).unwrap();
        file.append(&[record(2)]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [head(), lines(3)].concat());
        assert_eq!(open(&path).unwrap().1, [record(0), record(1), record(2)]);
        assert_eq!(each(&path, |_: Record| Ok(())).unwrap(), Some(header()));
    }

    /// A run of an older version.
    #[test]
    fn records_without_a_header_are_read_and_get_none() {
        let (_dir, path) = file_with(&lines(2));
        let (mut file, found) = open(&path).unwrap();
        assert_eq!((found.len(), file.first_line()), (2, 1));
        file.append(&[record(2)]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), lines(3));
        assert_eq!(each(&path, |_: Record| Ok(())).unwrap(), None);
    }

    #[test]
    fn a_header_of_other_settings_or_a_damaged_one_is_refused() {
        let (_dir, path) = file_with(&[head(), lines(1)].concat());
        let other = Header::of(&serde_json::json!({ "seed": 5, "steps": 10 })).unwrap();
        let error = Records::<Record>::open(&path, &other).map(drop).unwrap_err().to_string();
        assert!(error.contains("seed is 5") && error.contains("with seed 4"), "{error}");
        let damaged = String::from_utf8(head()).unwrap().replace("\"seed\":4", "\"seed\":5");
        let (_dir, path) = file_with(damaged.as_bytes());
        let error = open(&path).map(drop).unwrap_err().to_string();
        assert!(error.contains("line 1: crc32: expected"), "{error}");
        // Anywhere else it is no record.
        let (_dir, path) = file_with(&[lines(1), head(), lines(1)].concat());
        let error = open(&path).map(drop).unwrap_err().to_string();
        assert!(error.contains("line 2: not a record"), "{error}");
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let (_dir, path) = file_with(&vec![b' '; LINE as usize + 2]);
        let error = open(&path).map(drop).unwrap_err().to_string();
        assert!(error.contains("line 1: longer than"), "{error}");
    }

    /// Somebody else's records stay, whatever becomes of this process's.
    #[test]
    fn what_another_process_wrote_is_never_cut() {
        let (_dir, path) = file_with(b"");
        let (mut file, _) = open(&path).unwrap();
        file.append(&[record(0)]).unwrap();
        let mut other = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        other.write_all(&lines(1)).unwrap();
        let before = std::fs::read(&path).unwrap();
        let error = file.append(&[record(1)]).unwrap_err().to_string();
        assert!(error.contains("somebody else writes it"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        file.take_back(&lines(2)[..20]).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), before);
        // A part of the batch itself goes.
        let (_dir, path) = file_with(&[head(), lines(1)].concat());
        let (mut file, _) = open(&path).unwrap();
        file.file.write_all(&lines(2)[..20]).unwrap();
        file.take_back(&lines(2)).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [head(), lines(1)].concat());
    }

    #[test]
    #[cfg(unix)]
    fn a_link_in_place_of_the_records_is_not_followed() {
        let (dir, other) = file_with(b"precious");
        let path = dir.path().join("linked.jsonl");
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(matches!(open(&path).map(drop), Err(Error::Io { .. })));
        assert_eq!(std::fs::read(&other).unwrap(), b"precious");
    }

    #[test]
    fn a_last_line_that_has_an_end_was_written_by_somebody_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("records.jsonl");
        for text in ["precious\n", "{\"x\":1}\n", "\n"] {
            std::fs::write(&path, text).unwrap();
            let error = each(&path, |_: Record| Ok(())).unwrap_err().to_string();
            assert!(error.contains("line 1: not a record"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn an_unfinished_last_line_is_cut_off() {
        let whole = [head(), lines(2)].concat();
        let tails: [&[u8]; 3] = [b"{\"model\":\"m", &lines(1)[..lines(1).len() - 1], b"\0\0\0"];
        for tail in tails {
            let (_dir, path) = file_with(&[&whole[..], tail].concat());
            let (mut file, found) = open(&path).unwrap();
            assert_eq!(found.len(), 2);
            assert_eq!(std::fs::read(&path).unwrap(), whole);
            file.append(&[record(2)]).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), [head(), lines(3)].concat());
        }
    }

    #[test]
    fn any_other_broken_line_is_an_error() {
        let (_dir, path) = file_with(&[&lines(1)[..], b"oops\n", &lines(1)].concat());
        let error = open(&path).map(|(_, found)| found).unwrap_err().to_string();
        assert!(error.contains("records.jsonl: line 2: not a record"), "{error}");
    }

    #[test]
    fn what_is_not_finite_is_never_written() {
        let (_dir, path) = file_with(b"");
        let mut file = open(&path).unwrap().0;
        for spoil in [|o: &mut Outcome| o.margin = f32::NAN, |o: &mut Outcome| o.l2 = f32::INFINITY] {
            let mut bad = record(7);
            let Found::Attacked(outcome) = &mut bad.found else { unreachable!("made above") };
            spoil(outcome);
            let error = file.append(&[record(6), bad]).unwrap_err().to_string();
            assert!(error.contains("image 7"), "{error}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), head());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error() {
        let file = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut full = Records { path: "records.jsonl".into(), file, len: 0, headed: true, _line: PhantomData };
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
