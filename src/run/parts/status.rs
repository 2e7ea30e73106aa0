//! How far the parts of a run are, from what lies in its folder alone.

use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::super::lock;
use super::super::rundir;
use super::super::shard::{self, Shard};
use super::card::{Card, Split};
use crate::error::{Error, Result};
use crate::files;

/// What became of a part.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Done,
    /// By whom.
    Running(String),
    /// It was begun, and nobody works on it: killed, failed or left off.
    Stopped,
    Waiting,
}

/// A part and how far it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub shard: Shard,
    pub state: State,
    /// Records there are, and will be where that is known.
    pub records: u64,
    pub of: Option<u64>,
    /// Records per second of the process that works on it, or did last.
    pub rate: Option<f64>,
    /// Since the last record.
    pub silent: Option<Duration>,
}

/// All parts of a run that is split.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub parts: Vec<Part>,
}

impl Status {
    /// `None` of a run that is not split.
    ///
    /// # Errors
    /// [`Error::File`] for damaged files; [`Error::Io`].
    pub fn read(dir: &Path) -> Result<Option<Status>> {
        let Some(split) = Split::read(dir)? else { return Ok(None) };
        let parts = (1..=split.of).map(|number| Part::read(dir, Shard { number, of: split.of }));
        Ok(Some(Status { parts: parts.collect::<Result<_>>()? }))
    }

    /// The parts that are not done.
    pub fn left(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().filter(|part| part.state != State::Done)
    }

    /// Seconds until the last part is done if those that run go on as they do: a part that waits takes the place of one that ends. `None` where
    /// none has a speed yet.
    pub fn seconds_left(&self) -> Option<f64> {
        let speeds: Vec<f64> = self.parts.iter().filter_map(|part| part.rate).filter(|rate| *rate > 0.0).collect();
        let usual = speeds.iter().sum::<f64>() / speeds.len().max(1) as f64;
        let of = self.parts.iter().filter_map(|part| part.of).max()?;
        if speeds.is_empty() {
            return None;
        }
        let seconds = |part: &Part| {
            let left = part.of.unwrap_or(of).saturating_sub(part.records);
            left as f64 / part.rate.filter(|rate| *rate > 0.0).unwrap_or(usual)
        };
        let running = self.parts.iter().filter(|part| matches!(part.state, State::Running(_)));
        let mut ends: Vec<f64> = running.map(seconds).collect();
        if ends.is_empty() {
            ends.push(0.0);
        }
        for part in self.left().filter(|part| !matches!(part.state, State::Running(_))) {
            let next = ends.iter().enumerate().min_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(at, _)| at);
            ends[next] += seconds(part);
        }
        ends.into_iter().reduce(f64::max)
    }
}

impl Part {
    fn read(dir: &Path, shard: Shard) -> Result<Part> {
        let path = dir.join(shard::records(Some(shard)));
        let card = Card::read(dir, shard)?;
        let mut part = Part {
            shard,
            state: State::Waiting,
            records: 0,
            of: card.as_ref().map(|card| card.of),
            rate: None,
            silent: None,
        };
        if path.is_file() {
            // Below the settings.
            part.records = lines(&path)?.saturating_sub(1);
            part.state = State::Stopped;
            let written = std::fs::metadata(&path).and_then(|file| file.modified()).ok();
            part.silent = written.and_then(|at| SystemTime::now().duration_since(at).ok());
            if let (Some(card), Some(written)) = (&card, written) {
                let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(card.begun);
                let seconds = written.duration_since(begun).unwrap_or_default().as_secs_f64();
                let new = part.records.saturating_sub(card.before);
                part.rate = (new > 0 && seconds > 0.0).then(|| new as f64 / seconds);
            }
        }
        if card.is_some_and(|card| card.done) {
            part.state = State::Done;
        } else if let Some(owner) = lock::holder(dir, &rundir::part(shard)) {
            part.state = State::Running(owner);
        }
        Ok(part)
    }
}

/// Whole lines of a file.
fn lines(path: &Path) -> Result<u64> {
    let io = |e| Error::io(path, "read the records", e);
    let mut file = files::open(path, "read the records")?;
    let (mut bytes, mut count) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut bytes).map_err(io)? {
            0 => return Ok(count),
            n => count += bytes[..n].iter().filter(|&&byte| byte == b'\n').count() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_wait_take_the_place_of_those_that_end() {
        let part = |number, state, records, rate| Part {
            shard: Shard { number, of: 3 },
            state,
            records,
            of: Some(100),
            rate,
            silent: None,
        };
        let running = |number, records| part(number, State::Running("process 1".into()), records, Some(1.0));
        let mut status = Status { parts: vec![running(1, 80), running(2, 40), part(3, State::Waiting, 0, None)] };
        // The third begins when the first ends, 20 s from now, and takes 100 s.
        assert_eq!(status.seconds_left(), Some(120.0));
        status.parts[2] = part(3, State::Done, 100, None);
        assert_eq!((status.seconds_left(), status.left().count()), (Some(60.0), 2));
        status.parts = vec![part(1, State::Waiting, 0, None)];
        assert_eq!(status.seconds_left(), None);
    }
}
