//! The folder of one run: claimed before the work starts, recognised when it is resumed.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::lock::{Held, Lock};
use super::progress::note;
use super::settled::{self, CONFIG, On};
use super::shard::Shard;
use crate::choice::choice;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::files::{self, write_whole_by};

/// Seconds per phase of the processes that came to the end; a run without it did not.
pub const TIMES: &str = "timings.json";

/// Held by the process that works on a run; it names that process. The system lets go of it however the process ends.
const LOCK: &str = ".lock";

choice! {
    /// What becomes of a part that another process is working on.
    IfRunning {
        /// an error
        Refuse = "refuse",
        /// it is left to that process, and nothing is done
        Skip = "skip",
        /// until that process has ended, or has been silent for half a minute on another machine
        Wait = "wait",
    }
}

/// A folder that can be written to, by this process alone. It holds `config.toml`, `records.jsonl`, `results.csv` and `plots/`.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    /// Kept open as long as this process works on the run.
    _lock: Lock,
    /// Which part of it is this process's, where others have the rest.
    shard: Option<Shard>,
}

impl RunDir {
    /// Creates `out`, or with `resume` reopens it. Without `out`: the first free of `runs/NAME-1`, `runs/NAME-2`, ...
    ///
    /// # Errors
    /// [`Error::Usage`] when the folder holds something and `resume` is off, when it holds something else than a run,
    /// or is no folder; [`Error::Io`] when it cannot be created or written to.
    pub fn open(out: Option<&Path>, name: &str, resume: bool) -> Result<RunDir> {
        let path = match out {
            Some(out) => out.to_owned(),
            None if resume => return Err(Error::usage("resume", "expected --out DIR with the run to resume")),
            None => return create_numbered(name),
        };
        is_folder(&path)?;
        fs::create_dir_all(&path).map_err(|e| Error::io(&path, "create the run directory", e))?;
        // Before looking at what is there: of two that start at once, one waits in vain.
        let lock = lock(&path, "out")?;
        fits(&path, resume)?;
        no_part_is_held(&path, "out")?;
        RunDir { path, _lock: lock, shard: None }.probe()
    }

    /// A folder that several processes work on, each on its part of the run: made where it is not there yet, and gone on with where it is.
    /// `None` where another process has this part and may keep it.
    ///
    /// # Errors
    /// [`Error::Usage`] when another process has this part and `if_running` refuses that, or all of the run; else as [`RunDir::open`].
    pub fn join(out: Option<&Path>, shard: Shard, if_running: IfRunning) -> Result<Option<RunDir>> {
        let Some(path) = out else {
            return Err(Error::usage("shard", "expected --out DIR beside it, the folder that all parts share"));
        };
        is_folder(path)?;
        fs::create_dir_all(path).map_err(|e| Error::io(path, "create the run directory", e))?;
        is_run_or_empty(path, "out")?;
        let take = || lock_as(path, &part(shard), "shard");
        let own = match if if_running == IfRunning::Wait { patiently(Duration::MAX, take) } else { take() } {
            Err(Error::Usage { problem, .. }) if if_running == IfRunning::Skip => {
                note(format!("part {shard}: {problem}"));
                return Ok(None);
            }
            own => own?,
        };
        // Whoever has the whole run waits for nobody; whoever settles its config is soon done.
        let whole = patiently(PATIENCE, || lock(path, "out"))?;
        drop(whole);
        RunDir { path: path.into(), _lock: own, shard: Some(shard) }.probe().map(Some)
    }

    /// Whether [`RunDir::open`], or with a part [`RunDir::join`], would take what there is; makes and locks nothing.
    ///
    /// # Errors
    /// [`Error::Usage`] as these have it, but for another process that works on it.
    pub fn allows(out: Option<&Path>, resume: bool, part: bool) -> Result<()> {
        let path = out.unwrap_or(Path::new("runs"));
        if !path.exists() || out.is_none() {
            return can_be_made(path);
        }
        is_folder(path)?;
        if part { is_run_or_empty(path, "out") } else { fits(path, resume) }
    }

    /// A run directory that a page or an export is added to.
    ///
    /// # Errors
    /// [`Error::Usage`] when it is no run directory, or another process is working on it.
    pub fn beside(path: &Path) -> Result<RunDir> {
        if !path.join(CONFIG).is_file() {
            let problem = format!("{}: expected a run directory with {CONFIG}", path.display());
            return Err(Error::usage("RUN", problem));
        }
        RunDir { _lock: lock(path, "RUN")?, path: path.into(), shard: None }.probe()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which part of the run is this process's, where others have the rest.
    pub fn shard(&self) -> Option<Shard> {
        self.shard
    }

    /// Does what one part at a time may do: of parts that begin at once one writes what belongs to all, and the others compare.
    ///
    /// # Errors
    /// [`Error::Usage`] when another process has the whole run; what `act` returns.
    pub fn alone<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let _alone = self.shard.map(|_| patiently(PATIENCE, || lock(&self.path, "out"))).transpose()?;
        act()
    }

    /// Writes `config.toml`, or compares it with the one that is there. Only `batch` and `checks_budget` may differ, which change no result, and the
    /// places of files whose checksums agree. Date and command stay those that began the run.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the first field that differs; [`Error::File`] when the old config is no TOML;
    /// [`Error::Io`].
    pub fn settle(&self, config: &Config, on: On) -> Result<()> {
        self.alone(|| settled::settle(&self.path, config, on))
    }

    /// Writes a file so that it is either whole or as before. `name` may lie in a subfolder.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::File`] when the subfolder is a link to elsewhere.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.write_by(name, |file| file.write_all(bytes))
    }

    /// [`RunDir::write`] for what is made piece by piece.
    ///
    /// # Errors
    /// As [`RunDir::write`].
    pub fn write_by(&self, name: &str, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
        write_whole_by(&self.own(name)?, write)
    }

    /// The path of a file in the folder, none of whose folders is a link.
    ///
    /// # Errors
    /// [`Error::File`] when a subfolder is a link to elsewhere.
    pub fn own(&self, name: &str) -> Result<PathBuf> {
        for folder in Path::new(name).ancestors().skip(1).map(|folder| self.path.join(folder)) {
            if folder != self.path && folder.is_symlink() {
                return Err(Error::file(&folder, "expected a folder of the run, found a link to elsewhere: remove it"));
            }
        }
        Ok(self.path.join(name))
    }

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Failed`] for a value that JSON cannot hold.
    pub fn store(&self, name: &str, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_vec(value).map_err(|e| Error::Failed(format!("{name}: {e}")))?;
        self.write(name, &text)
    }

    /// Adds seconds to the phases of a run that may have begun in an earlier process.
    ///
    /// # Errors
    /// As [`RunDir::store`] and [`stored`].
    pub fn add_times(&self, seconds: &[(&str, f64)]) -> Result<()> {
        let mut times: Vec<(String, f64)> = stored(&self.path, TIMES)?.unwrap_or_default();
        for &(phase, more) in seconds {
            match times.iter_mut().find(|(name, _)| name == phase) {
                Some((_, total)) => *total += more,
                None => times.push((phase.to_owned(), more)),
            }
        }
        self.store(TIMES, &times)
    }

    /// Finds out now, not after the first batch, whether files can be written here.
    fn probe(self) -> Result<RunDir> {
        let path = self.path.join(self.shard.map_or(".probe".into(), |shard| format!(".probe-{}", shard.named())));
        let written = files::create(&path).and_then(|_| fs::remove_file(&path));
        written.map_err(|e| Error::io(&self.path, "write into the run directory", e))?;
        Ok(self)
    }
}

/// Bytes of a file of [`RunDir::store`] at most.
const STORED: u64 = 256 << 20;

/// Reads what [`RunDir::store`] wrote; `None` when there is no such file, or a damaged one, which is told: all such files are made
/// from what the records and the models say, and made again at the end of a sweep.
///
/// # Errors
/// [`Error::Io`].
pub fn stored<T: DeserializeOwned>(dir: &Path, name: &str) -> Result<Option<T>> {
    let path = dir.join(name);
    let bytes = match files::read(&path, "read", STORED) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e @ Error::Io { .. }) => return Err(e),
        bytes => bytes,
    };
    let found = bytes
        .map_err(|e| e.to_string())
        .and_then(|bytes| serde_json::from_slice(&bytes).map_err(|e| format!("{}: {e}", path.display())));
    if let Err(problem) = &found {
        note(format!(
            "warning: {problem}: damaged, taken for absent; the end of `rampart sweep --resume` makes it again"
        ));
    }
    Ok(found.ok())
}

/// The lock of a part.
pub fn part(shard: Shard) -> String {
    format!("{LOCK}-{}", shard.named())
}

/// Tries again for so long what another process may only just have in its hands.
fn patiently<T>(patience: Duration, mut take: impl FnMut() -> Result<T>) -> Result<T> {
    let begin = Instant::now();
    let mut told = false;
    loop {
        match take() {
            Err(Error::Usage { problem, .. }) if begin.elapsed() < patience => {
                if patience == Duration::MAX && !told {
                    note(problem);
                    told = true;
                }
                // A little longer each time: hundreds may wait.
                std::thread::sleep((begin.elapsed() / 8).clamp(Duration::from_millis(20), Duration::from_secs(2)));
            }
            other => return other,
        }
    }
}

/// How long others settle what belongs to all parts.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether no other process works on a part of the run.
fn no_part_is_held(folder: &Path, field: &str) -> Result<()> {
    let list = |e| Error::io(folder, "list the run directory", e);
    for entry in fs::read_dir(folder).map_err(list)? {
        let name = entry.map_err(list)?.file_name().to_string_lossy().into_owned();
        // Beside the locks lie files that stand for them where the file system has none.
        if name.strip_prefix(&format!("{LOCK}-")).is_some_and(|part| !part.contains('.')) {
            lock_as(folder, &name, field)?;
        }
    }
    Ok(())
}

/// Claims a folder for this process; `field` is what named the folder.
fn lock(folder: &Path, field: &str) -> Result<Lock> {
    lock_as(folder, LOCK, field)
}

fn lock_as(folder: &Path, name: &str, field: &str) -> Result<Lock> {
    Lock::take(folder, name).map_err(|held| match held {
        Held::By(owner) => {
            let way_out = match field {
                "RUN" => "--out FILE writes elsewhere",
                "shard" => "--if-running skip leaves it to that one",
                _ => "choose another --out",
            };
            Error::usage(field, format!("{owner} is working on {}: wait for it, or {way_out}", folder.display()))
        }
        Held::Error(e) => e,
    })
}

fn create_numbered(name: &str) -> Result<RunDir> {
    let runs = Path::new("runs");
    fs::create_dir_all(runs).map_err(|e| Error::io(runs, "create the folder of runs (--out chooses another)", e))?;
    for number in 1u32.. {
        let path = runs.join(format!("{name}-{number}"));
        match fs::create_dir(&path) {
            Ok(()) => return RunDir { _lock: lock(&path, "out")?, path, shard: None }.probe(),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io(&path, "create the run directory", e)),
        }
    }
    Err(Error::usage("out", format!("no number is left in runs/ for {name}")))
}

fn is_folder(path: &Path) -> Result<()> {
    match path.exists() && !path.is_dir() {
        true => Err(Error::usage("out", format!("{} exists and is no folder", path.display()))),
        false => Ok(()),
    }
}

/// Whether a folder can be made, as far as those above it tell.
fn can_be_made(path: &Path) -> Result<()> {
    let above = path.ancestors().map(|a| if a == Path::new("") { Path::new(".") } else { a }).find(|a| a.exists());
    let Some(above) = above else { return Ok(()) };
    let wrong = |what: &str| {
        let problem = format!("{} cannot be made: {} {what}", path.display(), above.display());
        Err(Error::usage("out", problem))
    };
    match above.metadata() {
        Ok(found) if !found.is_dir() => wrong("is no folder"),
        Ok(found) if found.permissions().readonly() => wrong("is read-only"),
        _ => Ok(()),
    }
}

/// Whether a run may begin in a folder, or with `resume` go on there.
fn fits(path: &Path, resume: bool) -> Result<()> {
    if visible_entries(path)? && !resume {
        let way_out = "add --resume to continue that run, or choose another folder";
        return Err(Error::usage("out", format!("{} exists and is not empty: {way_out}", path.display())));
    }
    is_run_or_empty(path, "resume")
}

fn is_run_or_empty(path: &Path, field: &str) -> Result<()> {
    if visible_entries(path)? && !path.join(CONFIG).is_file() {
        let problem = format!("{} holds files but no {CONFIG}: it is no run directory", path.display());
        return Err(Error::usage(field, problem));
    }
    Ok(())
}

/// Whether a folder holds anything but the dot files that a killed run may leave.
fn visible_entries(path: &Path) -> Result<bool> {
    let list = |e| Error::io(path, "list the run directory", e);
    for entry in fs::read_dir(path).map_err(list)? {
        if !entry.map_err(list)?.file_name().to_string_lossy().starts_with('.') {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    const HOST: On = On { device: "host", processor: "x86-64-v3", images: 0, no_checks: false };

    fn config(overrides: &Overrides) -> Config {
        Config::load(None, overrides).unwrap()
    }

    #[test]
    fn a_used_folder_needs_resume() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b");
        let open = |resume| RunDir::open(Some(&out), "x", resume);
        open(false).unwrap().settle(&config(&Overrides::default()), HOST).unwrap();
        let error = open(false).unwrap_err();
        assert!(error.to_string().contains("--resume") && error.exit_code() == 2, "{error}");
        open(true).unwrap();
        fs::remove_file(out.join(CONFIG)).unwrap();
        fs::write(out.join(".config.toml.tmp"), "").unwrap();
        open(false).unwrap();
        fs::write(out.join("letter.txt"), "").unwrap();
        assert!(open(true).unwrap_err().to_string().contains("no run directory"));
        assert!(RunDir::open(Some(&out.join("letter.txt")), "x", true).unwrap_err().to_string().contains("no folder"));
        assert!(RunDir::open(None, "x", true).unwrap_err().to_string().contains("--out DIR"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = RunDir::open(Some(&dir.path().join("file/run")), "x", false).unwrap_err();
        assert!(error.to_string().contains("create the run directory"), "{error}");
    }

    #[test]
    fn a_folder_belongs_to_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let first = RunDir::open(Some(dir.path()), "x", false).unwrap();
        first.settle(&config(&Overrides::default()), HOST).unwrap();
        for resume in [false, true] {
            let error = RunDir::open(Some(dir.path()), "x", resume).unwrap_err();
            let owner = format!("process {} on {} is working on", std::process::id(), super::super::lock::host());
            assert!(error.to_string().contains(&owner) && error.exit_code() == 2, "{error}");
        }
        let error = RunDir::beside(dir.path()).unwrap_err();
        assert!(error.to_string().contains("--out FILE") && error.exit_code() == 2, "{error}");
        drop(first);
        let beside = RunDir::beside(dir.path()).unwrap();
        beside.write("report.html", b"x").unwrap();
        RunDir::open(Some(dir.path()), "x", true).unwrap_err();
        drop(beside);
        RunDir::open(Some(dir.path()), "x", true).unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn nothing_is_written_through_a_link() {
        use std::os::unix::fs::symlink;
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("precious"), "precious").unwrap();
        for name in [".probe", ".report.html.tmp", "report.html"] {
            symlink(other.path().join("precious"), dir.path().join(name)).unwrap();
        }
        symlink(other.path(), dir.path().join("plots")).unwrap();
        fs::write(dir.path().join(CONFIG), "").unwrap();
        let run = RunDir::beside(dir.path()).unwrap();
        run.write("report.html", b"page").unwrap();
        let error = run.write("plots/a.svg", b"1").unwrap_err().to_string();
        assert!(error.contains("plots") && error.contains("found a link"), "{error}");
        assert_eq!(fs::read(other.path().join("precious")).unwrap(), b"precious");
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1);
        drop(run);
        fs::remove_file(dir.path().join(LOCK)).unwrap();
        symlink(other.path().join("precious"), dir.path().join(LOCK)).unwrap();
        RunDir::beside(dir.path()).unwrap_err();
        assert_eq!(fs::read(other.path().join("precious")).unwrap(), b"precious");
    }

    #[test]
    fn writes_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(Some(dir.path()), "x", false).unwrap();
        run.write("plots/a.svg", b"1").unwrap();
        run.write("plots/a.svg", b"2").unwrap();
        assert_eq!(fs::read(dir.path().join("plots/a.svg")).unwrap(), b"2");
        assert_eq!(fs::read_dir(dir.path().join("plots")).unwrap().count(), 1);
    }
}
