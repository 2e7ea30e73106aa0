//! What to emulate and how strictly, from the environment or from the program that embeds the emulator.
//!
//! | variable | key | values | |
//! |---|---|---|---|
//! | `PTX_EMULATOR_MODEL` | `model` | `a100` (unless set), `h100`, `rtx5090` | which GPU |
//! | `PTX_EMULATOR_CHECKS` | `checks` | 0, 1 (unless set) | memory, race, initialisation and synchronisation checks |
//! | `PTX_EMULATOR_COUNTERS` | `counters` | 0 (unless set), 1 | counts instructions, sectors, bank conflicts; copies, launches and waits are told at the end |
//! | `PTX_EMULATOR_LINTS` | `lints` | 0 (unless set), 1 | reports what is legal but seldom meant: barriers after warps have exited |
//! | `PTX_EMULATOR_LAZY` | `lazy` | 0 (unless set), 1 | compiles a kernel when it is asked for, not when its module is loaded |
//! | `PTX_EMULATOR_SEED` | `seed` | number | shuffles warps and blocks; 0 (unless set) keeps them in order |
//! | `PTX_EMULATOR_THREADS` | `threads` | 0 to 1024 | host threads; 0 (unless set) takes all |
//! | `PTX_EMULATOR_DEVICES` | `devices` | 1 (unless set) to 16 | how many such GPUs; each reaches its own memory alone |

use crate::device::Model;
use crate::machine::{MAX_THREADS, Options};

/// The variable of each key.
const VARIABLES: [(&str, &str); 8] = [
    ("model", "PTX_EMULATOR_MODEL"),
    ("checks", "PTX_EMULATOR_CHECKS"),
    ("counters", "PTX_EMULATOR_COUNTERS"),
    ("seed", "PTX_EMULATOR_SEED"),
    ("threads", "PTX_EMULATOR_THREADS"),
    ("devices", "PTX_EMULATOR_DEVICES"),
    ("lints", "PTX_EMULATOR_LINTS"),
    ("lazy", "PTX_EMULATOR_LAZY"),
];

/// Variables that are no options: where findings go, and, for the launcher, which library it starts.
pub const FINDINGS: &str = "PTX_EMULATOR_FINDINGS";
pub const LIBRARY: &str = "PTX_EMULATOR_LIBRARY";

/// A value or key that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{name}: {value:?} is not {expected}")]
    Value { name: String, value: String, expected: &'static str },
    #[error("the configuration has no key {0:?}; it has model, checks, counters, seed, threads, devices, lints, lazy")]
    Key(String),
    #[error("the configuration is not a JSON object: {0}")]
    Json(String),
}

/// Applies `PTX_EMULATOR_*`, as `variable` returns their values.
///
/// # Errors
/// [`ConfigError::Value`] for the first that is not understood; the options are then incomplete.
pub fn apply_environment(
    options: &mut Options,
    variable: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<(), ConfigError> {
    for (key, name) in VARIABLES {
        if let Some(value) = variable(name) {
            set(options, key, name, &value.to_string_lossy())?;
        }
    }
    Ok(())
}

/// Applies an object such as `{"model": "h100", "checks": false, "seed": 3}`. Numbers and truth values may also be given as the
/// environment gives them.
///
/// # Errors
/// [`ConfigError`] for the first key or value that is not understood; the options are then incomplete.
pub fn apply_json(options: &mut Options, json: &str) -> Result<(), ConfigError> {
    use serde_json::Value;
    let object: serde_json::Map<String, Value> =
        serde_json::from_str(json).map_err(|e| ConfigError::Json(e.to_string()))?;
    for (key, value) in object {
        let text = match value {
            Value::String(text) => text,
            Value::Bool(on) => u8::from(on).to_string(),
            other => other.to_string(),
        };
        set(options, &key, &key, &text)?;
    }
    Ok(())
}

/// Whether a value is one of a key, which the user calls `name`.
///
/// # Errors
/// [`ConfigError`] for a key or value that is not understood.
pub fn check(key: &str, name: &str, value: &str) -> Result<(), ConfigError> {
    set(&mut Options::default(), key, name, value)
}

/// Of the names of all variables those that look like the emulator's and are none, which a slip of the pen would otherwise leave
/// without effect.
pub fn unknown_variables(names: impl Iterator<Item = std::ffi::OsString>) -> Vec<String> {
    let known = |name: &str| VARIABLES.iter().any(|(_, known)| *known == name) || [FINDINGS, LIBRARY].contains(&name);
    let names = names.map(|name| name.to_string_lossy().into_owned());
    let mut unknown: Vec<String> = names.filter(|name| name.starts_with("PTX_EMULATOR_") && !known(name)).collect();
    unknown.sort();
    unknown
}

/// `name` is what the user calls `key`.
fn set(options: &mut Options, key: &str, name: &str, value: &str) -> Result<(), ConfigError> {
    let wrong = |expected| ConfigError::Value { name: name.into(), value: value.into(), expected };
    let switch = || match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(wrong("0 or 1")),
    };
    match key {
        "model" => {
            let named = Model::ALL.into_iter().find(|model| model.name().eq_ignore_ascii_case(value));
            options.model = named.ok_or_else(|| wrong("a100, h100 or rtx5090"))?;
        }
        "checks" => options.checks = switch()?,
        "counters" => options.counters = switch()?,
        "lints" => options.lints = switch()?,
        "lazy" => options.lazy = switch()?,
        "seed" => options.seed = value.parse().map_err(|_| wrong("a number from 0 to 2^64 - 1"))?,
        "devices" => {
            let count = value.parse().ok().filter(|count| (1..=16).contains(count));
            options.devices = count.ok_or_else(|| wrong("a number of GPUs from 1 to 16"))?;
        }
        "threads" => {
            let count = value.parse().ok().filter(|count| *count <= MAX_THREADS);
            options.threads = count.ok_or_else(|| wrong("a number of threads from 1 to 1024, or 0 for all cores"))?;
        }
        _ => return Err(ConfigError::Key(name.into())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &[(&str, &str)]) -> Result<Options, ConfigError> {
        let mut options = Options::default();
        let find = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into());
        apply_environment(&mut options, find).map(|()| options)
    }

    #[test]
    fn environment_sets_every_option() {
        let options = environment(&[
            ("PTX_EMULATOR_MODEL", "H100"),
            ("PTX_EMULATOR_CHECKS", "0"),
            ("PTX_EMULATOR_COUNTERS", "1"),
            ("PTX_EMULATOR_SEED", "18446744073709551615"),
            ("PTX_EMULATOR_THREADS", "3"),
            ("PTX_EMULATOR_DEVICES", "2"),
        ])
        .unwrap();
        assert_eq!(options.model, Model::H100);
        assert!(!options.checks && options.counters);
        assert_eq!((options.seed, options.threads, options.devices), (u64::MAX, 3, 2));
    }

    #[test]
    fn unset_means_a100_with_checks() {
        let options = environment(&[]).unwrap();
        assert_eq!(options.model, Model::A100);
        assert!(options.checks && !options.counters);
        assert_eq!((options.seed, options.threads), (0, 0));
    }

    #[test]
    fn wrong_values_are_refused_by_name() {
        for (name, value) in [
            ("PTX_EMULATOR_MODEL", "v100"),
            ("PTX_EMULATOR_CHECKS", "yes"),
            ("PTX_EMULATOR_COUNTERS", ""),
            ("PTX_EMULATOR_SEED", "-1"),
            ("PTX_EMULATOR_SEED", "18446744073709551616"),
            ("PTX_EMULATOR_THREADS", "two"),
            ("PTX_EMULATOR_THREADS", "1025"),
            ("PTX_EMULATOR_THREADS", "-1"),
            ("PTX_EMULATOR_THREADS", "99999999999999999999"),
            ("PTX_EMULATOR_LINTS", "on"),
            ("PTX_EMULATOR_LAZY", "true"),
            ("PTX_EMULATOR_DEVICES", "0"),
            ("PTX_EMULATOR_DEVICES", "17"),
        ] {
            let message = environment(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(value), "{message}");
        }
    }

    #[test]
    fn a_misspelt_variable_is_noticed() {
        let names =
            ["PTX_EMULATOR_THREAD", "PTX_EMULATOR_SEED", "PTX_EMULATOR_FINDINGS", "PATH", "PTX_EMULATOR_LIBRARY"];
        assert_eq!(unknown_variables(names.into_iter().map(Into::into)), ["PTX_EMULATOR_THREAD"]);
    }

    #[test]
    fn json_has_the_same_keys() {
        let mut options = Options::default();
        apply_json(&mut options, r#"{"model":"h100","checks":false,"counters":1,"seed":7,"threads":"2"}"#).unwrap();
        assert_eq!(options.model, Model::H100);
        assert!(!options.checks && options.counters);
        assert_eq!((options.seed, options.threads), (7, 2));
        let fails = |json| apply_json(&mut Options::default(), json).unwrap_err();
        assert_eq!(fails(r#"{"sead": 1}"#), ConfigError::Key("sead".into()));
        assert!(matches!(fails(r#"{"seed": 1.5}"#), ConfigError::Value { .. }));
        assert!(matches!(fails(r#"{"threads": 99999999}"#), ConfigError::Value { .. }));
        assert!(matches!(fails(r#"{"checks": null}"#), ConfigError::Value { .. }));
        assert!(matches!(fails("[]"), ConfigError::Json(_)));
    }
}
