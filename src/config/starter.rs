//! A config to begin with: what was found out about a network and its images, every other key as a comment.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::Config;
use super::keys::{KEYS, Key, TABLES};
use super::wrong::{Overrides, Set};
use crate::error::{Error, Result};
use crate::number::eps_label;

/// Keys that are written with their values, where they have one.
const WRITTEN: [&str; 24] = [
    "limit",
    "dataset.kind",
    "dataset.path",
    "dataset.images",
    "dataset.labels",
    "dataset.classes",
    "dataset.select",
    "dataset.size",
    "dataset.fit",
    "dataset.shorter",
    "dataset.filter",
    "models.name",
    "models.weights",
    "models.strip",
    "models.rename",
    "models.mean",
    "models.std",
    "models.clean_test_accuracy",
    "attack.method",
    "attack.norm",
    "attack.eps",
    "attack.steps",
    "defense.weights",
    "defense.sigma",
];

/// `config` as TOML that can be run and edited, with what `overrides` said of it; the lines of `head` come first, as comments.
///
/// # Errors
/// None for a config that was resolved.
pub fn commented(config: &Config, overrides: &Overrides, head: &[String]) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("the config as TOML: {e}"));
    let whole = Table::try_from(config).map_err(|e| failed(&e))?;
    let given: Vec<&str> = overrides.given().map(|(key, _)| key).collect();
    let is_written = |key: &Key| match key.name {
        // Beside an input range they would be of pixels in [0, 1], whatever it says.
        "models.mean" | "models.std" if given.contains(&"models.input_range") => given.contains(&key.name),
        name => WRITTEN.contains(&name) || given.contains(&name),
    };
    // What is as where nothing is said may be left out of what was resolved.
    let said = |key: &Key, model: usize| {
        let of = |set: &&Set| set.key == key.name && set.model.is_none_or(|number| number == model);
        overrides.set.iter().rfind(of).map(|set| &set.value)
    };
    let mut out = String::new();
    for line in head {
        let _ = writeln!(out, "# {line}");
    }
    for (table, _) in TABLES {
        let places: Vec<Option<&Table>> = match (table, whole.get(table)) {
            ("", _) => vec![Some(&whole)],
            (_, Some(Value::Array(tables))) => tables.iter().map(Value::as_table).collect(),
            (_, found) => vec![found.and_then(Value::as_table)],
        };
        for (model, found) in places.into_iter().enumerate() {
            match table {
                "" => {}
                "models" => out.push_str("\n[[models]]"),
                // Its presence asks for certificates.
                "certify" if found.is_none() => out.push_str("\n#[certify]"),
                _ => {
                    let _ = write!(out, "\n[{table}]");
                }
            }
            out.push('\n');
            for key in KEYS.iter().filter(|key| key.split().0 == table) {
                let value = found.and_then(|found| found.get(key.split().1)).or_else(|| said(key, model));
                line(&mut out, key, value.filter(|_| is_written(key)));
            }
        }
    }
    Ok(out)
}

fn line(out: &mut String, key: &Key, value: Option<&Value>) {
    // What a run writes itself is nothing to begin with.
    if key.name.ends_with("crc32") || ["dataset.left_out", "dataset.class_order", "certify.values"].contains(&key.name)
    {
        return;
    }
    let _ = writeln!(out, "# {}: {}", key.help, key.kind.described());
    let name = key.split().1;
    let _ = match value {
        Some(value) => writeln!(out, "{name} = {}", shown(key, value)),
        None => match key.literal() {
            Some(default) => writeln!(out, "#{name} = {default}"),
            None => writeln!(out, "#{name} =    (default: {})", key.default),
        },
    };
}

/// Budgets as people write them.
fn shown(key: &Key, value: &Value) -> String {
    let number = |value: &Value| match value.as_float().map(eps_label) {
        Some(label) if label.contains('/') => format!("\"{label}\""),
        // An integer above 1 would be asked about.
        Some(label) if label.bytes().all(|b| b.is_ascii_digit()) => format!("{label}.0"),
        Some(label) => label,
        None => value.to_string(),
    };
    match value {
        Value::Array(values) if ["attack.eps", "defense.sigma"].contains(&key.name) => {
            format!("[{}]", values.iter().map(number).collect::<Vec<_>>().join(", "))
        }
        _ => value.to_string(),
    }
}
