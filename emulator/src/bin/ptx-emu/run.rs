//! Starts a program whose CUDA driver is the emulator.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use ptx_emulator::config::{self, ConfigError};
use ptx_emulator::machine::Options;

use super::Failure;

/// The names under which programs look for the driver.
const NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];
const LIBRARY: &str = "libptx_emulator.so";

/// Options that take a value, the key of the emulator's configuration, and their variables.
const VALUES: [(&str, &str, &str); 3] = [
    ("--model", "model", "PTX_EMULATOR_MODEL"),
    ("--seed", "seed", "PTX_EMULATOR_SEED"),
    ("--threads", "threads", "PTX_EMULATOR_THREADS"),
];
/// Switches, and what they set.
const SWITCHES: [(&str, &str, &str); 4] = [
    ("--no-checks", "PTX_EMULATOR_CHECKS", "0"),
    ("--counters", "PTX_EMULATOR_COUNTERS", "1"),
    ("--lints", "PTX_EMULATOR_LINTS", "1"),
    ("--lazy", "PTX_EMULATOR_LAZY", "1"),
];

pub fn run(arguments: &[OsString]) -> Result<ExitCode, Failure> {
    let mut variables: Vec<(&str, OsString)> = Vec::new();
    let mut findings: Option<PathBuf> = None;
    let mut rest = arguments.iter();
    let program = loop {
        let next = rest.next().ok_or_else(|| Failure::Usage("no program to run".into()))?;
        let text = next.to_string_lossy();
        let wrong = |e: ConfigError| Failure::Usage(e.to_string());
        if let Some((name, key, variable)) = VALUES.iter().find(|(name, ..)| *name == text) {
            let given = value(name, rest.next())?;
            config::check(key, name, &given.to_string_lossy()).map_err(wrong)?;
            variables.push((variable, given));
        } else if let Some((_, variable, on)) = SWITCHES.iter().find(|(name, ..)| *name == text) {
            variables.push((variable, on.into()));
        } else if text == "--findings" {
            findings = Some(value(&text, rest.next())?.into());
        } else if text == "--" {
            break rest.next().ok_or_else(|| Failure::Usage("no program behind --".into()))?;
        } else if text.starts_with('-') {
            return Err(Failure::Usage(format!("no option {text}")));
        } else {
            break next;
        }
    };
    // What the program inherits is checked before it starts, not when it first asks for a device.
    let inherited = |name: &str| std::env::var_os(name).filter(|_| variables.iter().all(|(set, _)| *set != name));
    config::apply_environment(&mut Options::default(), inherited).map_err(|e| Failure::Usage(e.to_string()))?;
    let folder = Folder::new()?;
    folder.link(&library()?)?;
    let found = findings.unwrap_or_else(|| folder.0.join("findings"));
    let found = std::path::absolute(&found).map_err(|e| Failure::Failed(format!("{}: {e}", found.display())))?;
    std::fs::write(&found, "").map_err(|e| Failure::Failed(format!("{}: {e}", found.display())))?;
    let mut command = Command::new(program);
    command.args(rest).envs(variables).env(config::FINDINGS, &found);
    command.env("LD_LIBRARY_PATH", before(&folder.0, std::env::var_os("LD_LIBRARY_PATH")));
    let status = command.status();
    let status = status.map_err(|e| Failure::Failed(format!("{} does not start: {e}", program.to_string_lossy())))?;
    let count = std::fs::read_to_string(&found).map_or(0, |text| text.lines().count());
    if count > 0 {
        eprintln!("ptx-emu: {count} finding{}", if count == 1 { "" } else { "s" });
    }
    Ok(match code(status) {
        0 if count > 0 => ExitCode::from(1),
        code => ExitCode::from(code),
    })
}

fn value(option: &str, value: Option<&OsString>) -> Result<OsString, Failure> {
    value.cloned().ok_or_else(|| Failure::Usage(format!("{option} takes a value")))
}

/// The exit code as a shell gives it: a signal is 128 and more.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or(status.signal().map(|n| 128 + n)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

/// A search path with one more folder at its head.
fn before(folder: &Path, path: Option<OsString>) -> OsString {
    let mut all = folder.as_os_str().to_owned();
    if let Some(path) = path.filter(|p| !p.is_empty()) {
        all.push(OsStr::new(":"));
        all.push(path);
    }
    all
}

/// The emulator's library: named by `PTX_EMULATOR_LIBRARY`, or beside this program as cargo builds both, or in `../lib`.
fn library() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(|e| Failure::Failed(format!("where this program is: {e}")))?;
    let own = own.canonicalize().unwrap_or(own);
    let beside = own.parent().unwrap_or(Path::new("/"));
    let given = std::env::var_os(config::LIBRARY).map(PathBuf::from);
    let places = match given {
        Some(given) => vec![given],
        None => vec![beside.join(LIBRARY), beside.join("../lib").join(LIBRARY)],
    };
    let found = places.iter().find_map(|p| p.canonicalize().ok());
    found.ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        let places = places.join(" or ");
        Failure::Failed(format!("no library at {places}: cargo build --release -p ptx-emulator makes it; PTX_EMULATOR_LIBRARY names one elsewhere"))
    })
}

/// A folder of this run, gone at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, Failure> {
        let base = std::env::temp_dir();
        for n in 0..1000 {
            let at = base.join(format!("ptx-emu-{}-{n}", std::process::id()));
            match std::fs::create_dir(&at) {
                Ok(()) => return Ok(Folder(at)),
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(Failure::Failed(format!("{}: {e}", at.display()))),
            }
        }
        Err(Failure::Failed(format!("no name is free in {}", base.display())))
    }

    fn link(&self, library: &Path) -> Result<(), Failure> {
        for name in NAMES {
            let at = self.0.join(name);
            std::os::unix::fs::symlink(library, &at).map_err(|e| Failure::Failed(format!("{}: {e}", at.display())))?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
