//! The classes of a set: what its folders call them and what people call them.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// The classes of a set, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Classes {
    /// What folders and files of labels call them.
    pub(super) ids: Vec<String>,
    pub(super) names: Vec<String>,
}

impl Classes {
    /// The 1000 of ImageNet-1k, by WordNet id; the names are WordNet's (licence in `assets/imagenet/COPYRIGHT`).
    pub fn imagenet() -> Self {
        Self::parse(include_str!("../../assets/imagenet/classes.txt"))
    }

    /// One class per line: a WordNet id, and after a space its name. Without such an id the whole line is both.
    ///
    /// # Errors
    /// [`Error::Io`], and [`Error::File`] for a list that is empty or names an id twice.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| Error::io(path, "read the list of classes", e))?;
        let classes = Self::parse(&text);
        let mut sorted: Vec<&String> = classes.ids.iter().collect();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::file(path, format!("expected every class once, found `{}` twice", pair[0]))),
            None if sorted.is_empty() => Err(Error::file(path, "expected one class per line, found none")),
            None => Ok(classes),
        }
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let split = |line: &str| {
            let (id, name) = match line.split_once(char::is_whitespace) {
                Some((id, name)) if is_wordnet_id(id) => (id, name),
                _ => (line, line),
            };
            (id.to_owned(), name.trim().to_owned())
        };
        let (ids, names) = lines.map(split).unzip();
        Classes { ids, names }
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// In the order of the classes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// By id or by number.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        let number = || text.parse::<usize>().ok().filter(|&i| i < self.len());
        self.ids.iter().position(|id| id == text).or_else(number).map(|i| i as u32)
    }
}

fn is_wordnet_id(text: &str) -> bool {
    text.len() == 9 && text.starts_with('n') && text[1..].bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_classes_of_imagenet_are_sorted_and_named() {
        let classes = Classes::imagenet();
        assert_eq!((classes.len(), classes.find("n01440764"), classes.find("n15075141")), (1000, Some(0), Some(999)));
        assert!(
            classes.ids.windows(2).all(|pair| pair[0] < pair[1]) && classes.names.iter().all(|name| !name.is_empty())
        );
        assert_eq!((classes.names[0].as_str(), classes.find("999"), classes.find("1000")), ("tench", Some(999), None));
    }

    #[test]
    fn a_list_of_classes_has_each_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("classes.txt");
        let load = |text: &str| {
            fs::write(&path, text).unwrap();
            Classes::load(&path)
        };
        let classes = load("n00000002  two words\n\ngolden retriever\n").unwrap();
        assert_eq!(classes.names, ["two words", "golden retriever"]);
        assert_eq!(["n00000002", "golden retriever", "golden"].map(|id| classes.find(id)), [Some(0), Some(1), None]);
        assert!(load("a\nb\na\n").unwrap_err().to_string().contains("`a` twice"));
        assert!(load("\n").unwrap_err().to_string().contains("found none"));
    }
}
