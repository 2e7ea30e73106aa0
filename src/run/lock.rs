//! Who works on a run directory, or on a part of it: one process at a time, on this machine or another.
//!
//! Where the file system has locks the system decides (flock), and lets go however the process ends. Some network file systems have none, and
//! some keep them to one machine. So the file of a lock also says who holds it, on which machine, and its owner writes it anew every few
//! seconds: a process elsewhere waits until that has stopped for a while. Without locks a second file, made exclusively, takes their
//! place.

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::files;

/// How often an owner shows that it lives, and after how long a silence on another machine it does not.
const BEAT: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(30);

/// `files` does without the system's locks, for file systems that only seem to have them.
const VARIABLE: &str = "RAMPART_LOCKS";

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// Locked, where the file system can.
    file: File,
    /// Made exclusively, where it cannot.
    claim: Option<PathBuf>,
    beat: Option<(Sender<()>, JoinHandle<()>)>,
}

/// The process that holds a lock, as its file says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub process: u32,
    pub host: String,
    /// When the process began, in the system's own unit: a number that is used again is another process.
    begun: String,
}

impl Owner {
    fn own() -> Owner {
        let process = std::process::id();
        Owner { process, host: host(), begun: begun(process).unwrap_or_default() }
    }

    fn read(text: &str) -> Option<Owner> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let ["process", process, "on", host, rest @ ..] = words.as_slice() else { return None };
        let begun = rest.last().copied().unwrap_or_default().to_owned();
        Some(Owner { process: process.parse().ok()?, host: (*host).into(), begun })
    }

    fn line(&self) -> String {
        format!("process {} on {} begun {}\n", self.process, self.host, self.begun)
    }

    /// Whether it is a process of this machine that has ended. Of other machines nothing is known.
    fn is_gone(&self) -> bool {
        self.host == host() && begun(self.process).is_none_or(|begun| begun != self.begun)
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "process {} on {}", self.process, self.host)
    }
}

/// Why a lock was not to be had.
pub(super) enum Held {
    By(String),
    Error(Error),
}

impl Lock {
    /// Takes the lock `name` of a folder at once or not at all.
    ///
    /// # Errors
    /// Who has it; [`Error::Io`].
    pub fn take(folder: &Path, name: &str) -> Result<Lock, Held> {
        let by_files = std::env::var_os(VARIABLE).is_some_and(|value| value == "files");
        Self::by(folder, name, by_files)
    }

    fn by(folder: &Path, name: &str, by_files: bool) -> Result<Lock, Held> {
        let path = folder.join(name);
        let io = |action| move |e| Held::Error(Error::io(folder, action, e));
        let open = files::own().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = open.map_err(io("write into the run directory"))?;
        let locked = match by_files {
            true => false,
            false => match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => return Err(Held::By(told(&mut file))),
                Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => false,
                Err(TryLockError::Error(e)) => return Err(io("lock the run directory")(e)),
            },
        };
        // A lock that is this machine's alone says nothing of others.
        if let Some(other) = owner(&mut file)
            && other.host != host()
            && lives(folder, &path).map_err(io("write into the run directory"))?
        {
            return Err(Held::By(other.to_string()));
        }
        let claim = if locked { None } else { Some(claimed(folder, name).map_err(|held| held.in_folder(folder))?) };
        let line = Owner::own().line();
        let written = rewrite(&mut file, &line);
        let mut lock = Lock { file, claim, beat: None };
        written.map_err(io("write into the run directory"))?;
        lock.beats(&path, line);
        Ok(lock)
    }

    /// Starts to show that this process lives. Without a thread for it others only wait less long.
    fn beats(&mut self, path: &Path, line: String) {
        let Ok(mut file) = self.file.try_clone() else { return };
        let claim = self.claim.clone();
        let (end, ends): (Sender<()>, Receiver<()>) = channel();
        let path = path.to_owned();
        let beat = move || {
            while ends.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                // Whoever clears a folder away ends the beat, too.
                if !path.exists() || rewrite(&mut file, &line).is_err() {
                    return;
                }
                if let Some(claim) = &claim {
                    let _ = files::own().write(true).open(claim).and_then(|mut file| file.write_all(line.as_bytes()));
                }
            }
        };
        self.beat = std::thread::Builder::new().name("lock".into()).spawn(beat).ok().map(|thread| (end, thread));
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.beat.take() {
            drop(end);
            let _ = thread.join();
        }
        // Nobody owns it from here on, and nobody elsewhere needs to wait.
        let _ = self.file.set_len(0);
        if let Some(claim) = &self.claim {
            let _ = fs::remove_file(claim);
        }
    }
}

impl Held {
    fn in_folder(self, folder: &Path) -> Held {
        match self {
            Held::Error(Error::Io { source, action, .. }) => Held::Error(Error::io(folder, action, source)),
            other => other,
        }
    }
}

/// Who holds a lock, without taking it; nobody where it is free.
pub fn holder(folder: &Path, name: &str) -> Option<String> {
    let path = folder.join(name);
    let own = owner(&mut files::own().read(true).open(&path).ok()?)?;
    // Not by trying to take it: somebody who starts at this moment would be refused.
    let lives = if own.host == host() { !own.is_gone() } else { lives(folder, &path).unwrap_or(false) };
    lives.then(|| own.to_string())
}

fn rewrite(file: &mut File, line: &str) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    file.write_all(line.as_bytes())?;
    file.set_len(line.len() as u64)
}

fn owner(file: &mut File) -> Option<Owner> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    Owner::read(&text)
}

fn told(file: &mut File) -> String {
    owner(file).map_or("another process".into(), |owner| owner.to_string())
}

/// Makes the file that stands for a lock, in place of one whose owner is gone.
fn claimed(folder: &Path, name: &str) -> Result<PathBuf, Held> {
    let path = folder.join(format!("{name}.claim"));
    let takeover = folder.join(format!("{name}.takeover"));
    let io = |e| Held::Error(Error::io(folder, "lock the run directory", e));
    let make = |path: &Path| -> std::io::Result<()> {
        let mut file = files::own().write(true).create_new(true).open(path)?;
        file.write_all(Owner::own().line().as_bytes())?;
        file.sync_all()
    };
    match make(&path) {
        Ok(()) => return Ok(path),
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(io(e)),
        Err(_) => {}
    }
    let others = || files::text(&path, "read").ok().as_deref().and_then(Owner::read);
    let held = || Held::By(others().map_or("another process".into(), |owner| owner.to_string()));
    let stale =
        || Ok::<bool, Held>(others().is_some_and(|owner| owner.is_gone()) || !lives(folder, &path).map_err(io)?);
    if !stale()? {
        return Err(held());
    }
    // Of several that find the owner gone one looks again and takes its place; what the others saw is old by then.
    match make(&takeover) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            if !lives(folder, &takeover).map_err(io)? {
                let _ = fs::remove_file(&takeover);
            }
            return Err(held());
        }
        made => made.map_err(io)?,
    }
    let taken = match stale() {
        Ok(true) => fs::remove_file(&path).and_then(|()| make(&path)).map_err(io),
        Ok(false) => Err(held()),
        Err(e) => Err(e),
    };
    let _ = fs::remove_file(&takeover);
    taken.map(|()| path)
}

/// Whether a file was written a moment ago, by the clock of its file system.
fn lives(folder: &Path, path: &Path) -> std::io::Result<bool> {
    let written = match fs::metadata(path) {
        Ok(found) => found.modified()?,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let probe = folder.join(format!(".clock-{}-{}-{number}", host(), std::process::id()));
    let mut file = files::create(&probe)?;
    let now = file.write_all(b"x").and_then(|()| file.metadata()?.modified());
    let _ = fs::remove_file(&probe);
    Ok(now?.duration_since(written).unwrap_or_default() < SILENCE)
}

/// The name of this machine.
pub fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
    let name = name.filter(|name| !name.is_empty()).or_else(|| std::env::var("HOSTNAME").ok());
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    name.unwrap_or("unknown".into()).chars().map(plain).collect()
}

/// When a process of this machine began; `None` of one that there is not.
fn begun(process: u32) -> Option<String> {
    let Ok(text) = fs::read_to_string(format!("/proc/{process}/stat")) else {
        // Without /proc only whether it is there can be known.
        #[cfg(unix)]
        if !Path::new("/proc/self/stat").exists() {
            // SAFETY: signal 0 is sent to nobody.
            let there = unsafe { libc::kill(process as i32, 0) } == 0;
            return there.then(String::new);
        }
        return None;
    };
    // The name of the program, in parentheses, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    let state = rest.split_whitespace().next()?;
    // One that ended and is only waited for works on nothing.
    if matches!(state, "Z" | "X") {
        return None;
    }
    rest.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn by(found: Result<Lock, Held>) -> String {
        match found {
            Ok(_) => panic!("taken"),
            Err(Held::By(owner)) => owner,
            Err(Held::Error(e)) => panic!("{e}"),
        }
    }

    fn take(dir: &Path, by_files: bool) -> Result<Lock, Held> {
        Lock::by(dir, ".lock", by_files)
    }

    #[test]
    fn one_owner_at_a_time_with_the_systems_locks_and_without() {
        for by_files in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let first = take(dir.path(), by_files).ok().unwrap();
            let own = format!("process {} on {}", std::process::id(), host());
            assert_eq!(by(take(dir.path(), by_files)), own);
            assert_eq!(holder(dir.path(), ".lock"), Some(own));
            drop(first);
            assert_eq!(holder(dir.path(), ".lock"), None);
            drop(take(dir.path(), by_files).ok().unwrap());
            let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left, [".lock"], "nothing else stays");
        }
    }

    /// What a process leaves that was killed: of this machine it is known to be gone, of another when it has been silent.
    #[test]
    fn an_owner_that_is_gone_has_nothing() {
        let old = SystemTime::now() - 2 * SILENCE;
        let here = Owner { process: 4_000_000_000, host: host(), begun: "1".into() };
        let there = Owner { host: "node17".into(), ..here.clone() };
        for (owner, silent, free) in [(&here, false, true), (&there, false, false), (&there, true, true)] {
            for by_files in [true, false] {
                let dir = tempfile::tempdir().unwrap();
                for name in [".lock", ".lock.claim"] {
                    let path = dir.path().join(name);
                    fs::write(&path, owner.line()).unwrap();
                    if silent {
                        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
                    }
                }
                match free {
                    true => drop(take(dir.path(), by_files).ok().unwrap()),
                    false => assert_eq!(by(take(dir.path(), by_files)), "process 4000000000 on node17"),
                }
            }
        }
    }

    /// Many that find a dead owner at one moment: one has it.
    #[test]
    fn one_of_many_takes_the_place_of_a_dead_owner() {
        for round in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let dead = Owner { process: 4_000_000_000, host: host(), begun: "1".into() };
            for name in [".lock", ".lock.claim"] {
                fs::write(dir.path().join(name), dead.line()).unwrap();
            }
            let got = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| take(dir.path(), true).ok())).collect();
                threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
            });
            assert!(got.len() <= 1, "round {round}: {} have it", got.len());
            drop(got);
            drop(take(dir.path(), true).ok().unwrap());
        }
    }

    #[test]
    fn a_number_that_is_used_again_is_another_process() {
        let own = Owner::own();
        assert!(!own.is_gone());
        assert!(Owner { begun: "1".into(), ..own.clone() }.is_gone());
        assert_eq!(Owner::read(&own.line()), Some(own));
        assert_eq!(Owner::read("process 12\n"), None);
    }
}
