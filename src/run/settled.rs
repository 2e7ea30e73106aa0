//! What a run was begun with, and whether it may go on with what it is given now: `config.toml` of its folder.

use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use serde::Serialize;
use toml::{Table, Value};

use crate::config::Config;
use crate::config::certify::Certify;
use crate::device::emulated::{self, Effective};
use crate::error::{Error, Result};
use crate::files;

/// The settings of a run, in its folder.
pub(super) const CONFIG: &str = "config.toml";

/// What numbers depend on besides the settings, in the `[run]` table.
const PROCESSOR: &str = "processor";

/// What a run is computed on.
#[derive(Clone, Copy, Debug, Default)]
pub struct On<'a> {
    /// As `results.csv` says it.
    pub device: &'a str,
    /// The level of the host kernels or the GPU's name: others sum in another order. Nothing where that is not known.
    pub processor: &'a str,
    /// How many images there are; 0 where that is not known.
    pub images: usize,
    /// Whether the checks that attack are left out, also by those who go on with it.
    pub no_checks: bool,
}

/// The level of the host kernels that a run was begun at, if that is said.
///
/// # Errors
/// [`Error::Io`] where there is a config that cannot be read.
pub fn begun_at(out: Option<&Path>) -> Result<Option<String>> {
    Ok(noted(out)?.filter(|run| run.device.as_deref() == Some("host")).and_then(|run| run.processor))
}

/// Whether the run in this folder was begun without the checks that attack.
///
/// # Errors
/// As [`begun_at`].
pub fn begun_unchecked(out: Option<&Path>) -> Result<bool> {
    Ok(noted(out)?.is_some_and(|run| run.no_checks))
}

/// The table `[run]`, as far as those who go on heed it.
#[derive(serde::Deserialize)]
struct Noted {
    device: Option<String>,
    processor: Option<String>,
    #[serde(default)]
    no_checks: bool,
}

fn noted(out: Option<&Path>) -> Result<Option<Noted>> {
    #[derive(serde::Deserialize)]
    struct File {
        run: Option<Noted>,
    }
    let Some(path) = out.map(|out| out.join(CONFIG)).filter(|path| path.is_file()) else { return Ok(None) };
    // A config that is damaged is told of by whoever reads all of it.
    Ok(toml::from_str::<File>(&files::text(&path, "read the config")?).ok().and_then(|file| file.run))
}

/// As [`super::rundir::RunDir::settle`], which holds the folder meanwhile.
pub(super) fn settle(dir: &Path, config: &Config, on: On) -> Result<()> {
    let device = on.device;
    let path = dir.join(CONFIG);
    let emulator = if device == "emulated" { Some(emulated::effective()?) } else { None };
    let text = to_toml(config, on, emulator).map_err(|e| Error::file(&path, e.to_string()))?;
    let old = match files::text(&path, "read the config") {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return files::write_whole(&path, text.as_bytes());
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
            run.remove("no_checks");
        }
    }
    // Runs by older versions did not note it.
    if let (Some(Value::Table(was)), Some(Value::Table(is))) = (old.get("run"), new.get_mut("run"))
        && !was.contains_key("images")
    {
        is.remove("images");
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
        return if added { add_certify(dir, config) } else { Ok(()) };
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
fn add_certify(dir: &Path, config: &Config) -> Result<()> {
    #[derive(Serialize)]
    struct Added<'a> {
        certify: &'a Option<Certify>,
    }
    let path = dir.join(CONFIG);
    let table = toml::to_string(&Added { certify: &config.certify }).map_err(|e| Error::file(&path, e.to_string()))?;
    let old = files::text(&path, "read the config")?;
    files::write_whole(&path, format!("{}\n\n{table}", old.trim_end()).as_bytes())
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
        #[serde(skip_serializing_if = "is_0")]
        images: usize,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        no_checks: bool,
        /// UTC, and as it was typed.
        date: String,
        command: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        emulator: Option<Effective>,
    }
    let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let On { device, processor, images, no_checks } = on;
    let version = env!("CARGO_PKG_VERSION");
    let run = Run { device, processor, version, images, no_checks, date, command: command(), emulator };
    Ok(format!("{}\n{}", toml::to_string(config)?, toml::to_string(&Found { run })?))
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_0(n: &usize) -> bool {
    *n == 0
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
    use std::fs;

    use super::super::rundir::RunDir;
    use super::*;
    use crate::config::Overrides;

    const HOST: On = On { device: "host", processor: "x86-64-v3", images: 0, no_checks: false };

    fn config(overrides: &Overrides) -> Config {
        Config::load(None, overrides).unwrap()
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
}
