//! Keys that the command line sets, laid over the TOML of a config.

use std::path::{Path, absolute};

use toml::{Table, Value};

use super::defense::NO_DENOISER;
use super::file::File;
use super::keys::{self, Kind};
use super::wrong::Set;
use crate::error::{Error, Result};

/// What a run writes and never reads.
const FOUND: [&str; 2] = ["dataset.left_out", "certify.values"];

impl Set {
    /// What a flag or an argument gives.
    ///
    /// # Errors
    /// [`Error::Usage`] naming the flag, for a value that cannot be meant.
    pub fn flag(by: &str, name: &str, text: &str) -> Result<Set> {
        let key = keys::find(name).map_err(|problem| Error::usage(by, problem))?;
        let value = key.kind.parse(text).map_err(|problem| Error::usage(by, problem))?;
        Self::checked(Set { key: key.name, model: None, value, by: by.to_owned() }, key.kind)
    }

    /// What stands behind `--set`: `KEY=VALUE`.
    ///
    /// # Errors
    /// [`Error::Usage`] for another form, an unknown key and a value that cannot be meant.
    pub fn parse(text: &str) -> Result<Set> {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Error::usage("--set", format!("expected KEY=VALUE, as in attack.steps=50, found `{}`", short(text)))
        })?;
        let name = name.trim();
        let (model, plain) = match name.split('.').collect::<Vec<_>>()[..] {
            ["models", number, key] if number.parse::<usize>().is_ok() => {
                (number.parse().ok(), format!("models.{key}"))
            }
            _ => (None, name.to_owned()),
        };
        let key = keys::find(&plain).map_err(|problem| Error::usage("--set", problem))?;
        let by = format!("--set {name}");
        if FOUND.contains(&key.name) {
            return Err(Error::usage(by, "is what a run finds out and writes, and no setting: leave it out"));
        }
        let value = key.kind.typed(value.trim()).map_err(|problem| Error::usage(&by, problem))?;
        // A network may call two classes alike, and a run writes what it does; by hand it is a slip.
        if let (Value::Array(names), "dataset.class_order") = (&value, key.name)
            && let Some(at) = (1..names.len()).find(|&at| names[..at].contains(&names[at]))
        {
            return Err(Error::usage(by, format!("expected every class once, found {} twice", names[at])));
        }
        Self::checked(Set { key: key.name, model, value, by }, key.kind)
    }

    /// With its path as it is meant where one is; refused if a config that says this alone could not be read.
    fn checked(mut self, kind: Kind) -> Result<Set> {
        let paths = match (kind, &mut self.value) {
            (Kind::Path | Kind::Paths, Value::String(path)) => vec![path],
            (Kind::Paths, Value::Array(paths)) => paths
                .iter_mut()
                .filter_map(|path| match path {
                    Value::String(path) => Some(path),
                    _ => None,
                })
                .collect(),
            _ => vec![],
        };
        let own = |path: &str| path.starts_with("demo:") || (self.key == "defense.weights" && path == NO_DENOISER);
        for path in paths.into_iter().filter(|path| !own(path)) {
            let full = absolute(Path::new(path.as_str()));
            let full = full.map_err(|e| Error::usage(&self.by, format!("`{}`: {e}", short(path))))?;
            *path =
                full.into_os_string().into_string().map_err(|_| Error::usage(&self.by, "expected a path in UTF-8"))?;
        }
        let mut alone = Table::new();
        if self.key.starts_with("models.") && self.key != "models.weights" {
            alone.insert("models".into(), Value::Array(vec![Table::from_iter([("weights".into(), "".into())]).into()]));
        }
        let whole = Set { model: None, ..self.clone() };
        whole.lay_over(&mut alone)?;
        match alone.try_into::<File>() {
            Ok(_) => Ok(self),
            Err(e) => Err(Error::usage(&self.by, short(e.message()))),
        }
    }

    /// Puts the value where it belongs.
    fn lay_over(&self, table: &mut Table) -> Result<()> {
        let (name, key) = self.key.split_once('.').unwrap_or(("", self.key));
        let empty = || Value::Table(Table::new());
        let set = |value: &mut Value| {
            if let Value::Table(table) = value {
                table.insert(key.to_owned(), self.value.clone());
            }
        };
        match name {
            "" => {
                table.insert(key.to_owned(), self.value.clone());
            }
            "models" => {
                let Value::Array(models) = table.entry(name).or_insert_with(|| Value::Array(vec![])) else {
                    return Ok(());
                };
                let count = models.len();
                // Weights may be those of one more network.
                let next = self.model.unwrap_or(0);
                if key == "weights" && next == count {
                    models.push(empty());
                }
                if models.is_empty() {
                    let problem = "the config names no networks: expected models.weights beside it";
                    return Err(Error::usage(&self.by, problem));
                }
                match self.model {
                    Some(number) => {
                        let among = models.len();
                        let model = models.get_mut(number).ok_or_else(|| {
                            let problem =
                                format!("expected a number below {among}, the networks of the config, found {number}");
                            Error::usage(&self.by, problem)
                        })?;
                        set(model);
                    }
                    None => models.iter_mut().for_each(set),
                }
            }
            _ => set(table.entry(name).or_insert_with(empty)),
        }
        Ok(())
    }
}

/// Lays all of them over a config. Checksums of what they replace are forgotten, and so is how much of other images was left out.
///
/// # Errors
/// [`Error::Usage`] for a key that is set twice, and for a network that there is not.
pub(super) fn lay_over(table: &mut Table, sets: &[Set]) -> Result<()> {
    let mut ordered: Vec<&Set> = sets.iter().collect();
    // Networks before what is said of them, and checksums after what they are of.
    ordered.sort_by_key(|set| (set.key != "models.weights", set.key.ends_with(".crc32"), set.model));
    for (at, set) in ordered.iter().enumerate() {
        if let Some(other) = ordered[..at].iter().find(|other| other.key == set.key && other.model == set.model) {
            return Err(Error::usage(&set.by, format!("expected once, found as well: {}", other.by)));
        }
        let (name, key) = set.key.split_once('.').unwrap_or(("", set.key));
        let forget = |value: &mut Value, key: &str| value.as_table_mut().and_then(|table| table.remove(key));
        match (name, key) {
            ("dataset", "crc32" | "left_out") => {}
            ("dataset", _) | ("", "limit") => {
                if let Some(dataset) = table.get_mut("dataset") {
                    forget(dataset, "crc32");
                    forget(dataset, "left_out");
                }
            }
            ("defense", "weights") => {
                table.get_mut(name).and_then(|defense| forget(defense, "crc32"));
            }
            ("models", "weights") => {
                if let Some(Value::Array(models)) = table.get_mut(name) {
                    let one = models.iter_mut().enumerate().filter(|(i, _)| set.model.is_none_or(|own| own == *i));
                    one.for_each(|(_, model)| {
                        forget(model, "crc32");
                    });
                }
            }
            _ => {}
        }
        set.lay_over(table)?;
    }
    Ok(())
}

/// The beginning of a text, for a message.
pub(super) fn short(text: &str) -> String {
    const MOST: usize = 300;
    let shown: String = text.trim_end().chars().take(MOST).collect();
    if shown.len() < text.trim_end().len() { format!("{shown}..") } else { shown }
}
