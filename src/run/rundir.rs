//! The folder of one run: claimed before the work starts, recognised when it is resumed.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::lock::{Held, Lock};
use super::progress::note;
use super::shard::Shard;
use crate::choice::choice;
use crate::config::Config;
use crate::config::certify::Certify;
use crate::device::emulated::{self, Effective};
use crate::error::{Error, Result};
use crate::files::{self, write_whole_by};

const CONFIG: &str = "config.toml";
/// Seconds per phase of the processes that came to the end; a run without it did not.
pub const TIMES: &str = "timings.json";

/// What numbers depend on besides the settings, in the `[run]` table.
const PROCESSOR: &str = "processor";

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

/// What a run is computed on.
#[derive(Clone, Copy, Debug, Default)]
pub struct On<'a> {
    /// As `results.csv` says it.
    pub device: &'a str,
    /// The level of the host kernels or the GPU's name: others sum in another order. Nothing where that is not known.
    pub processor: &'a str,
}

/// The level of the host kernels that a run was begun at, if that is said.
///
/// # Errors
/// [`Error::Io`] where there is a config that cannot be read.
pub fn begun_at(out: Option<&Path>) -> Result<Option<String>> {
    #[derive(serde::Deserialize)]
    struct File {
        run: Option<Run>,
    }
    #[derive(serde::Deserialize)]
    struct Run {
        device: Option<String>,
        processor: Option<String>,
    }
    let Some(path) = out.map(|out| out.join(CONFIG)).filter(|path| path.is_file()) else { return Ok(None) };
    // A config that is damaged is told of by whoever reads all of it.
    let run = toml::from_str::<File>(&files::text(&path, "read the config")?).ok().and_then(|file| file.run);
    Ok(run.filter(|run| run.device.as_deref() == Some("host")).and_then(|run| run.processor))
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
        let shown = path.display();
        if path.exists() && !path.is_dir() {
            return Err(Error::usage("out", format!("{shown} exists and is no folder")));
        }
        fs::create_dir_all(&path).map_err(|e| Error::io(&path, "create the run directory", e))?;
        // Before looking at what is there: of two that start at once, one waits in vain.
        let lock = lock(&path, "out")?;
        let used = visible_entries(&path)?;
        if used && !resume {
            let way_out = "add --resume to continue that run, or choose another folder";
            return Err(Error::usage("out", format!("{shown} exists and is not empty: {way_out}")));
        }
        if used && !path.join(CONFIG).is_file() {
            return Err(Error::usage("resume", format!("{shown} holds files but no {CONFIG}: it is no run directory")));
        }
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
        if path.exists() && !path.is_dir() {
            return Err(Error::usage("out", format!("{} exists and is no folder", path.display())));
        }
        fs::create_dir_all(path).map_err(|e| Error::io(path, "create the run directory", e))?;
        if visible_entries(path)? && !path.join(CONFIG).is_file() {
            let problem = format!("{} holds files but no {CONFIG}: it is no run directory", path.display());
            return Err(Error::usage("out", problem));
        }
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
        self.alone(|| self.settled(config, on))
    }

    fn settled(&self, config: &Config, on: On) -> Result<()> {
        let device = on.device;
        let path = self.path.join(CONFIG);
        let emulator = if device == "emulated" { Some(emulated::effective()?) } else { None };
        let text = to_toml(config, on, emulator).map_err(|e| Error::file(&path, e.to_string()))?;
        let old = match files::text(&path, "read the config") {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return self.write(CONFIG, text.as_bytes());
            }
            old => old?,
        };
        // Without the line itself, which may be all of a file.
        let parse = |text: &str| {
            text.parse::<Table>().map_err(|e| {
                let line = 1 + e.span().map_or(0, |at| text[..at.start].matches('\n').count());
                Error::file(&path, format!("line {line}: no TOML: {}", e.message()))
            })
        };
        let (mut old, mut new) = (parse(&old)?, parse(&text)?);
        for table in [&mut old, &mut new] {
            table.remove("batch");
            table.remove("checks_budget");
            if let Some(Value::Table(run)) = table.get_mut("run") {
                run.remove("date");
                run.remove("command");
            }
        }
        // A run of before it was noted goes on anywhere, as it did.
        if let (Some(Value::Table(was)), Some(Value::Table(is))) = (old.get("run"), new.get_mut("run"))
            && !was.contains_key(PROCESSOR)
        {
            is.remove(PROCESSOR);
        }
        forget_moved(&mut old, &mut new);
        // Certificates may be added to what is there: no record depends on them.
        let added = !old.contains_key("certify") && new.remove("certify").is_some();
        let Some((field, was, is)) = difference(&Value::Table(old), &Value::Table(new)) else {
            return if added { self.add_certify(config) } else { Ok(()) };
        };
        let way_out = match field == format!("run.{PROCESSOR}") {
            true => {
                "other processors sum in another order: go on where that is to be had (--host-level names the level of host kernels; a build \
                 with RAMPART_HOST_ARCH=all has every level), or choose another --out"
            }
            false => "resume with the settings the run was started with, or choose another --out",
        };
        Err(Error::usage("resume", format!("{}: {field} is {was} there and {is} here: {way_out}", path.display())))
    }

    /// Adds the table `[certify]` to the config that began the run.
    fn add_certify(&self, config: &Config) -> Result<()> {
        #[derive(Serialize)]
        struct Added<'a> {
            certify: &'a Option<Certify>,
        }
        let path = self.path.join(CONFIG);
        let table =
            toml::to_string(&Added { certify: &config.certify }).map_err(|e| Error::file(&path, e.to_string()))?;
        let old = files::text(&path, "read the config")?;
        self.write(CONFIG, format!("{}\n\n{table}", old.trim_end()).as_bytes())
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
pub(super) fn part(shard: Shard) -> String {
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

fn to_toml(config: &Config, on: On, emulator: Option<Effective>) -> Result<String, toml::ser::Error> {
    #[derive(Serialize)]
    struct Found<'a> {
        run: Run<'a>,
    }
    #[derive(Serialize)]
    struct Run<'a> {
        device: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        processor: &'a str,
        version: &'a str,
        /// UTC, and as it was typed.
        date: String,
        command: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        emulator: Option<Effective>,
    }
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let On { device, processor } = on;
    let run = Run { device, processor, version: env!("CARGO_PKG_VERSION"), date, command: command(), emulator };
    Ok(format!("{}\n{}", toml::to_string(config)?, toml::to_string(&Found { run })?))
}

/// Takes away where files lie, in every table whose checksum is known and the same on either side: what moved is still what it was.
fn forget_moved(old: &mut Table, new: &mut Table) {
    const PLACES: [&str; 5] = ["path", "images", "labels", "classes", "weights"];
    let forget = |a: &mut Value, b: &mut Value| {
        let (Value::Table(a), Value::Table(b)) = (a, b) else { return };
        if a.get("crc32").is_some() && a.get("crc32") == b.get("crc32") {
            for place in PLACES {
                if a.get(place).is_some_and(Value::is_str) && b.get(place).is_some_and(Value::is_str) {
                    a.remove(place);
                    b.remove(place);
                }
            }
        }
    };
    for table in ["dataset", "defense"] {
        if let (Some(a), Some(b)) = (old.get_mut(table), new.get_mut(table)) {
            forget(a, b);
        }
    }
    if let (Some(Value::Array(a)), Some(Value::Array(b))) = (old.get_mut("models"), new.get_mut("models")) {
        a.iter_mut().zip(b).for_each(|(a, b)| forget(a, b));
    }
}

/// The command line of this process, quoted for a shell.
fn command() -> String {
    quoted(&std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>())
}

/// Words as a shell takes them.
pub fn quoted(words: &[String]) -> String {
    let quoted = shlex::Quoter::new().allow_nul(true).join(words.iter().map(String::as_str));
    quoted.unwrap_or_else(|_| words.join(" "))
}

/// The dotted name of the first field that differs, and its value on either side.
fn difference(a: &Value, b: &Value) -> Option<(String, String, String)> {
    let named = |name: &str, (field, a, b): (String, String, String)| {
        (if field.is_empty() { name.to_owned() } else { format!("{name}.{field}") }, a, b)
    };
    match (a, b) {
        (Value::Table(a), Value::Table(b)) => {
            // Plain settings first: a checksum that differs because of one of them says less.
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort_by_key(|&key| a.get(key).or(b.get(key)).is_some_and(|v| v.is_table() || v.is_array()));
            keys.into_iter().find_map(|key| match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => difference(a, b).map(|d| named(key, d)),
                (a, b) => Some((key.clone(), shown(a), shown(b))),
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().any(Value::is_table) => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(i, (a, b))| difference(a, b).map(|d| named(&i.to_string(), d)))
        }
        _ if a == b => None,
        _ => Some((String::new(), shown(Some(a)), shown(Some(b)))),
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or("not set".into(), Value::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    const HOST: On = On { device: "host", processor: "x86-64-v3" };

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
    fn the_field_that_differs_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(Some(dir.path()), "x", false).unwrap();
        let first = config(&Overrides::default());
        run.settle(&first, HOST).unwrap();
        let bytes = fs::read(dir.path().join(CONFIG)).unwrap();
        run.settle(&config(&Overrides { batch: Some(3), ..Default::default() }), HOST).unwrap();

        let message = |changed: &Config, device| run.settle(changed, On { device, ..HOST }).unwrap_err().to_string();
        let eps = config(&Overrides { eps: Some(vec![0.0, 0.5]), ..Default::default() });
        assert!(
            message(&eps, "host")
                .contains("attack.eps is [0.0, 0.005, 0.01, 0.02, 0.03, 0.06] there and [0.0, 0.5] here")
        );
        assert!(
            message(&config(&Overrides { seed: Some(7), ..Default::default() }), "host")
                .contains("seed is 0 there and 7")
        );
        let mut weights = first.clone();
        weights.models[1].crc32 = Some("00000000".into());
        assert!(message(&weights, "host").contains("models.1.crc32 is not set there"));
        assert!(message(&first, "cuda").contains("run.device is \"host\" there"));
        assert!(message(&first, "emulated").contains("run.device is \"host\" there"));
        assert_eq!(fs::read(dir.path().join(CONFIG)).unwrap(), bytes);
    }

    #[test]
    fn another_processor_is_named_with_the_one_that_began() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(Some(dir.path()), "x", false).unwrap();
        let config = config(&Overrides::default());
        run.settle(&config, HOST).unwrap();
        assert_eq!(begun_at(Some(dir.path())).unwrap().as_deref(), Some("x86-64-v3"));
        let error = run.settle(&config, On { processor: "x86-64-v4", ..HOST }).unwrap_err().to_string();
        for part in ["run.processor is \"x86-64-v3\" there and \"x86-64-v4\" here", "--host-level"] {
            assert!(error.contains(part), "{part}: {error}");
        }
        // A run of before it was noted.
        let text = fs::read_to_string(dir.path().join(CONFIG)).unwrap();
        fs::write(dir.path().join(CONFIG), text.replace("processor = \"x86-64-v3\"\n", "")).unwrap();
        run.settle(&config, On { processor: "x86-64-v4", ..HOST }).unwrap();
        assert_eq!(begun_at(Some(dir.path())).unwrap(), None);
    }

    #[test]
    fn what_moved_is_found_by_its_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(Some(dir.path()), "x", false).unwrap();
        let mut first = config(&Overrides::default());
        first.models[0].crc32 = Some("0000abcd".into());
        run.settle(&first, HOST).unwrap();
        let mut moved = first.clone();
        moved.models[0].weights = "elsewhere/net.safetensors".into();
        run.settle(&moved, HOST).unwrap();
        moved.models[0].crc32 = Some("0000abce".into());
        let message = run.settle(&moved, HOST).unwrap_err().to_string();
        assert!(message.contains("models.0.crc32 is \"0000abcd\" there"), "{message}");
        moved = first.clone();
        moved.models[1].weights = "elsewhere/net.safetensors".into();
        assert!(run.settle(&moved, HOST).unwrap_err().to_string().contains("models.1.weights"));
    }

    #[test]
    fn date_and_command_stay_those_of_the_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(Some(dir.path()), "x", false).unwrap();
        let config = config(&Overrides::default());
        run.settle(&config, HOST).unwrap();
        let text = fs::read_to_string(dir.path().join(CONFIG)).unwrap();
        let table: Table = text.parse().unwrap();
        let [date, command] = ["date", "command"].map(|key| table["run"][key].as_str().unwrap().to_owned());
        assert!(date.ends_with('Z') && date.len() == "2026-01-31T12:00:00Z".len(), "{date}");
        assert!(command.contains("rampart"), "{command}");
        let old = text.replace(&date, "2020-01-31T12:00:00Z").replace(&command, "rampart sweep");
        fs::write(dir.path().join(CONFIG), &old).unwrap();
        run.settle(&config, HOST).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join(CONFIG)).unwrap(), old);
        // A run of before there were any.
        let lines: Vec<&str> = old.lines().filter(|l| !l.starts_with("date") && !l.starts_with("command")).collect();
        fs::write(dir.path().join(CONFIG), lines.join("\n")).unwrap();
        run.settle(&config, HOST).unwrap();
    }

    #[test]
    fn a_run_config_can_be_run_again() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::open(Some(dir.path()), "x", false).unwrap();
        let overrides =
            Overrides { eps: Some(vec![8.0 / 255.0, 0.1]), seed: Some(i64::MAX as u64), ..Default::default() };
        run.settle(&config(&overrides), HOST).unwrap();
        let again = Config::load(Some(&dir.path().join(CONFIG)), &Overrides::default()).unwrap();
        assert_eq!(again, config(&overrides));
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
