//! The first line of `records.jsonl`: the settings that the records below it come from, whatever becomes of `config.toml`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Settings, and the checksum of their text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    settings: Value,
    /// Of the settings with their keys in order.
    crc32: String,
}

/// What changes no record.
const NO_MATTER: [&str; 3] = ["batch", "certify", "checks_budget"];
/// Where files lie, which changes nothing while their checksums agree.
const PLACES: [&str; 6] = ["path", "images", "labels", "classes", "list", "weights"];

impl Header {
    /// Of a resolved config.
    ///
    /// # Errors
    /// [`Error::Failed`] for settings that JSON cannot hold.
    pub fn of(config: &impl Serialize) -> Result<Header> {
        let failed = |e: serde_json::Error| Error::Failed(format!("the settings are no JSON: {e}"));
        let mut settings = serde_json::to_value(config).map_err(failed)?;
        if let Value::Object(fields) = &mut settings {
            NO_MATTER.iter().for_each(|field| drop(fields.remove(*field)));
        }
        let settings = sorted(settings);
        Ok(Header { crc32: checksum(&settings), settings })
    }

    /// A checksum of the settings.
    pub fn crc32(&self) -> &str {
        &self.crc32
    }

    /// Whether it is as it was written.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let found = checksum(&sorted(self.settings.clone()));
        if self.crc32 == found {
            return Ok(());
        }
        let said: String = self.crc32.chars().take(16).collect();
        Err(format!("crc32: expected {said} of the settings, found {found}: the line was changed"))
    }

    /// The first field that both have and that differs, as it was begun with and as it is here.
    pub fn differs(&self, begun: &Header) -> Option<(String, String, String)> {
        difference(&begun.settings, &self.settings)
    }

    /// Whether the settings at hand are those that records were begun with. A field that only one of them has belongs to another version
    /// of the program.
    ///
    /// # Errors
    /// The first field that differs, with both values.
    pub fn agrees(&self, begun: &Header) -> Result<(), String> {
        match self.differs(begun) {
            None => Ok(()),
            Some((field, was, is)) => Err(format!(
                "{field} is {is} in config.toml, and these records were made with {field} {was}: put it back, or begin another run"
            )),
        }
    }
}

/// Keys in order, places of files of a known checksum left out.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let pinned = fields.get("crc32").is_some_and(Value::is_string);
            let mut fields: Vec<(String, Value)> = fields
                .into_iter()
                .filter(|(key, value)| !(pinned && value.is_string() && PLACES.contains(&key.as_str())))
                .collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn checksum(settings: &Value) -> String {
    let mut crc = flate2::Crc::new();
    crc.update(settings.to_string().as_bytes());
    format!("{:08x}", crc.sum())
}

/// The dotted name of the first field that both have and that differs, and its two values. Plain settings come before tables: a checksum
/// that differs because of one of them says less.
fn difference(a: &Value, b: &Value) -> Option<(String, String, String)> {
    let named = |name: &str, (field, a, b): (String, String, String)| {
        (if field.is_empty() { name.to_owned() } else { format!("{name}.{field}") }, a, b)
    };
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let plain = |fields: &Map<String, Value>, key: &str| {
                !fields.get(key).is_some_and(|value| value.is_object() || value.is_array())
            };
            let mut keys: Vec<&String> = a.keys().filter(|key| b.contains_key(*key)).collect();
            keys.sort_by_key(|key| (*key == "crc32", !plain(a, key)));
            keys.into_iter().find_map(|key| difference(&a[key], &b[key]).map(|found| named(key, found)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().any(Value::is_object) => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(i, (a, b))| difference(a, b).map(|found| named(&i.to_string(), found)))
        }
        // A whole number may be written as either kind.
        (Value::Number(x), Value::Number(y)) if x.as_f64() == y.as_f64() => None,
        _ if a == b => None,
        _ => Some((String::new(), a.to_string(), b.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Overrides};

    fn header(overrides: &Overrides) -> Header {
        Header::of(&Config::load(None, overrides).unwrap()).unwrap()
    }

    #[test]
    fn every_setting_counts_but_the_batch() {
        let begun = header(&Overrides::default());
        header(&Overrides { batch: Some(3), ..Default::default() }).agrees(&begun).unwrap();
        assert_eq!(header(&Overrides { batch: Some(3), ..Default::default() }), begun);
        for (overrides, field) in [
            (Overrides { seed: Some(5), ..Default::default() }, "seed is 5 in config.toml"),
            (Overrides { eps: Some(vec![0.5]), ..Default::default() }, "attack.eps is [0.0,0.5]"),
            (Overrides { limit: Some(7), ..Default::default() }, "limit is 7"),
            (Overrides { draws: Some(9), ..Default::default() }, "defense.draws is 9"),
            (Overrides { early_stop: true, ..Default::default() }, "score is \"any\""),
        ] {
            let problem = header(&overrides).agrees(&begun).unwrap_err();
            assert!(problem.contains(field) && problem.contains("were made with"), "{problem}");
        }
    }

    #[test]
    fn it_is_read_back_and_knows_when_it_was_changed() {
        let begun = header(&Overrides::default());
        let line = serde_json::to_string(&begun).unwrap();
        let read: Header = serde_json::from_str(&line).unwrap();
        read.check().unwrap();
        read.agrees(&begun).unwrap();
        assert!(!line.contains('\n'));
        let changed: Header = serde_json::from_str(&line.replace("\"seed\":0", "\"seed\":1")).unwrap();
        assert!(changed.check().unwrap_err().contains("crc32"));
    }

    #[test]
    fn files_may_move_while_their_checksums_agree() {
        let at = |path: &str, crc: Option<&str>| {
            Header::of(&serde_json::json!({ "dataset": { "path": path, "crc32": crc } })).unwrap()
        };
        at("/b", Some("12")).agrees(&at("/a", Some("12"))).unwrap();
        assert!(at("/b", Some("13")).agrees(&at("/a", Some("12"))).unwrap_err().contains("dataset.crc32"));
        assert!(at("/b", None).agrees(&at("/a", None)).unwrap_err().contains("dataset.path is \"/b\""));
    }
}
