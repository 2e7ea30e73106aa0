//! What the parts of a run recorded becomes `records.jsonl`, byte for byte as one process would have written it. The files of the parts stay
//! until that is on the disk.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::super::header::Header;
use super::super::ledger::{Images, Ledger};
use super::super::records::{self, Record};
use super::super::rundir::{self, RunDir};
use super::super::shard::{self, Shard};
use super::card::{Card, Split, add};
use super::order::Order;
use crate::config::Config;
use crate::error::{Error, Result};

/// Where a line lies, and what decides its place.
#[derive(Clone, Copy)]
struct Line {
    key: u64,
    at: u64,
    file: u32,
    len: u32,
}

/// A file of records: of everything so far, or of a part.
struct Source {
    shard: Option<Shard>,
    path: PathBuf,
}

/// What there is of a run that is split.
pub struct Survey {
    /// What keeps the files from being joined: damaged, doubled, or of another run.
    pub wrong: Vec<String>,
    /// What is not done.
    pub missing: Vec<String>,
    /// Records there are, and will be.
    pub records: (u64, u64),
    pub run: Ledger,
    sources: Vec<Source>,
    lines: Vec<Line>,
    /// The keys of what was joined before.
    joined: HashSet<u64>,
    split: Split,
}

/// Reads what there is; `None` of a run that is not split.
///
/// # Errors
/// [`Error::File`] for what is not even readable as what it should be; [`Error::Io`].
pub fn survey(dir: &Path) -> Result<Option<Survey>> {
    let parts = shard::files(dir)?;
    let Some(split) = Split::read(dir)? else {
        return match parts.first() {
            None => Ok(None),
            Some((_, path)) => {
                let problem = format!(
                    "expected {} beside it, which says what the parts of this run are, found none",
                    Split::FILE
                );
                Err(Error::file(path, problem))
            }
        };
    };
    let config = Config::of_run(&dir.join("config.toml"))?;
    let header = Header::of(&config)?;
    let order = Order::of(&config, split.images.ids.len());
    let whole = dir.join(shard::records(None));
    let whole = whole.is_file().then_some(Source { shard: None, path: whole });
    let all = parts.into_iter().map(|(shard, path)| Source { shard: Some(shard), path });
    let mut survey = Survey {
        wrong: vec![],
        missing: vec![],
        records: (0, order.records().1 as u64),
        run: Ledger::over(dir, config, split.images.clone()),
        sources: whole.into_iter().chain(all).collect(),
        lines: vec![],
        joined: HashSet::new(),
        split,
    };
    if survey.split.config != header.crc32() {
        survey.wrong.push(format!("{}: of a run with other settings", Split::FILE));
    }
    let mut counts = vec![None; survey.split.of as usize];
    for number in 0..survey.sources.len() {
        let before = survey.lines.len();
        match survey.take(number, &header, order) {
            Ok(()) => {}
            Err(Error::File { file, problem }) => survey.wrong.push(format!("{}: {problem}", shown(&file))),
            Err(other) => return Err(other),
        }
        if let Some(part) = survey.sources[number].shard.filter(|shard| shard.of == survey.split.of) {
            counts[part.number as usize - 1] = Some(survey.lines.len() - before);
        }
    }
    survey.records.0 = survey.run.progress().0;
    survey.count(order, &counts);
    Ok(Some(survey))
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Survey {
    /// Reads one file.
    fn take(&mut self, number: usize, header: &Header, order: Order) -> Result<()> {
        let Source { shard, path } = &self.sources[number];
        let (shard, path) = (*shard, path.clone());
        let dir = path.parent().unwrap_or(Path::new("."));
        if let Some(shard) = shard {
            if shard.of != self.split.of {
                let problem = format!("part {shard} is of another split: expected parts of {}", self.split.of);
                return Err(Error::file(&path, problem));
            }
            if let Some(card) = Card::read(dir, shard)? {
                if card.config != header.crc32() {
                    let problem =
                        "of a run with other settings than config.toml has now: expected those that the part ran with";
                    return Err(Error::file(&dir.join(Card::name(shard)), problem));
                }
                if card.shard != shard.to_string() {
                    let problem = format!("expected what part {shard} of this run did, found that of {}", card.shard);
                    return Err(Error::file(&dir.join(Card::name(shard)), problem));
                }
                if !card.is_of(&path)? {
                    let problem = format!(
                        "torn or changed: its part ended with {} bytes of the checksum {}",
                        card.bytes,
                        &card.sha256[..card.sha256.len().min(16)]
                    );
                    return Err(Error::file(&path, problem));
                }
            }
        }
        // Before any record: one that does not fit says less than the field that was changed.
        match records::header(&path)? {
            Some(begun) => header.agrees(&begun).map_err(|problem| Error::file(&path, problem))?,
            None if fs::metadata(&path).is_ok_and(|file| file.len() > 0) && shard.is_some() => {
                return Err(Error::file(&path, "line 1: expected the settings that the records were made with"));
            }
            None => {}
        }
        let (run, lines, joined) = (&mut self.run, &mut self.lines, &self.joined);
        records::each_at(&path, |record: Record, bytes: Range<u64>| {
            if let (Some(shard), Some((cell, image))) = (shard, run.place(&record)) {
                if !shard.takes(order.unit(order.group(cell), image)) {
                    return Err(format!("image {} is not of part {shard}", record.image));
                }
                // Joined before, by a process that was killed before it took the parts away.
                if joined.contains(&order.key(cell, image, &record.found))
                    && run.found[cell][image].as_ref() == Some(&record.found)
                {
                    return Ok(());
                }
            }
            let (cell, image) = run.take(&record)?;
            let key = order.key(cell, image, &record.found);
            lines.push(Line { key, at: bytes.start, file: number as u32, len: (bytes.end - bytes.start) as u32 });
            Ok(())
        })?;
        // Without a card nobody knows whether these are the records that the part left.
        if let Some(shard) = shard.filter(|_| self.lines.last().is_some_and(|line| line.file == number as u32))
            && Card::read(dir, shard)?.is_none()
        {
            let problem = format!(
                "{} is missing, which has its checksum: start the part again (--shard {shard}), which writes it anew",
                Card::name(shard)
            );
            return Err(Error::file(&path, problem));
        }
        if shard.is_none() {
            self.joined = self.lines.iter().map(|line| line.key).collect();
        }
        Ok(())
    }

    /// Which parts are not done.
    fn count(&mut self, order: Order, counts: &[Option<usize>]) {
        if self.records.0 == self.records.1 {
            return;
        }
        let images = self.split.images.ids.len();
        let cells = self.run.cells.len();
        let mut left = vec![0_u64; counts.len()];
        for cell in 0..cells {
            for image in (0..images).filter(|&image| self.run.found[cell][image].is_none()) {
                left[order.unit(order.group(cell), image) % counts.len()] += 1;
            }
        }
        for (i, left) in left.into_iter().enumerate().filter(|(_, left)| *left > 0) {
            let shard = Shard { number: i as u32 + 1, of: counts.len() as u32 };
            self.missing.push(match counts[i] {
                None => format!("part {shard}: missing: no {}", shard::records(Some(shard))),
                Some(found) => format!("part {shard}: unfinished: {found} of {} records", found as u64 + left),
            });
        }
    }

    /// The run as far as it is recorded.
    pub fn run(&self) -> &Ledger {
        &self.run
    }

    /// What is wrong and what is missing, a line each; nothing where all can be joined.
    pub fn problems(&self) -> Vec<String> {
        self.wrong.iter().chain(&self.missing).cloned().collect()
    }

    /// Writes `records.jsonl` and takes the files of the parts away.
    ///
    /// # Errors
    /// [`Error::Failed`] where something is wrong with a file: nothing was changed then; [`Error::Io`].
    pub fn join(mut self, dir: &RunDir) -> Result<Ledger> {
        if !self.wrong.is_empty() {
            return Err(refused(dir.path(), &self.wrong));
        }
        let header = Header::of(&self.run.config)?;
        self.lines.sort_unstable_by_key(|line| line.key);
        let paths: Vec<&Path> = self.sources.iter().map(|source| source.path.as_path()).collect();
        write(dir, &header, &paths, &self.lines)?;
        let mut seconds: Vec<(String, f64)> = Vec::new();
        let parts: Vec<Shard> = self.sources.iter().filter_map(|source| source.shard).collect();
        for &part in &parts {
            let card = Card::read(dir.path(), part)?;
            add(&mut seconds, card.iter().flat_map(|card| &card.seconds).map(|(phase, s)| (phase.as_str(), *s)));
        }
        if !seconds.is_empty() {
            dir.add_times(&seconds.iter().map(|(phase, s)| (phase.as_str(), *s)).collect::<Vec<_>>())?;
        }
        // The cards first: what is counted once is not counted again by whoever is killed here and comes back.
        for part in &parts {
            remove(&dir.path().join(Card::name(*part)))?;
        }
        for part in parts {
            remove(&dir.path().join(shard::records(Some(part))))?;
            remove(&dir.path().join(rundir::part(part)))?;
        }
        remove(&dir.path().join(Split::FILE))?;
        Ok(self.run)
    }
}

/// The error that lists what is wrong.
pub fn refused(dir: &Path, problems: &[String]) -> Error {
    let list: Vec<String> = problems.iter().map(|problem| format!("\n  {problem}")).collect();
    Error::Failed(format!("{}: the parts cannot be joined; nothing was changed:{}", dir.display(), list.concat()))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "remove", e)),
        _ => Ok(()),
    }
}

/// Writes the lines in the order they have.
fn write(dir: &RunDir, header: &Header, paths: &[&Path], lines: &[Line]) -> Result<()> {
    let mut files = Vec::new();
    for path in paths {
        let file = File::open(path).map_err(|e| Error::io(path, "read the records", e))?;
        files.push(BufReader::with_capacity(1 << 16, file));
    }
    dir.write_by(&shard::records(None), |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        serde_json::to_writer(&mut out, header)?;
        out.write_all(b"\n")?;
        let mut at = vec![0_u64; files.len()];
        let mut bytes = Vec::new();
        for line in lines {
            let number = line.file as usize;
            // Nearly always the next one of its file, which is in the buffer.
            match i64::try_from(line.at).ok().zip(i64::try_from(at[number]).ok()) {
                Some((to, from)) => files[number].seek_relative(to - from)?,
                None => files[number].seek(SeekFrom::Start(line.at)).map(drop)?,
            }
            bytes.resize(line.len as usize, 0);
            files[number].read_exact(&mut bytes)?;
            at[number] = line.at + u64::from(line.len);
            out.write_all(&bytes)?;
        }
        out.flush()
    })
}

/// Puts the records of a run that nobody splits any more into the order of an undivided one.
///
/// # Errors
/// As reading and writing them.
pub fn sorted(dir: &RunDir, config: &Config, images: Images) -> Result<()> {
    let path = dir.path().join(shard::records(None));
    let order = Order::of(config, images.ids.len());
    let mut run = Ledger::over(dir.path(), config.clone(), images);
    let mut lines = Vec::new();
    records::each_at(&path, |record: Record, bytes: Range<u64>| {
        let (cell, image) = run.take(&record)?;
        let key = order.key(cell, image, &record.found);
        lines.push(Line { key, at: bytes.start, file: 0, len: (bytes.end - bytes.start) as u32 });
        Ok(())
    })?;
    lines.sort_unstable_by_key(|line| line.key);
    write(dir, &Header::of(config)?, &[&path], &lines)
}
