//! The classes of a set: what its folders call them and what people call them.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;

use crate::error::{Error, Result};
use crate::files;

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
        let text = files::text(path, "read the list of classes")?;
        let classes = Self::parse(text.trim_start_matches('\u{feff}'));
        let mut sorted: Vec<&String> = classes.ids.iter().collect();
        sorted.sort();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::file(path, format!("expected every class once, found `{}` twice", pair[0]))),
            None if sorted.is_empty() => Err(Error::file(path, "expected one class per line, found none")),
            None => Ok(classes),
        }
    }

    /// Those of a list, or else a format's own.
    ///
    /// # Errors
    /// As [`Classes::load`].
    pub(super) fn or(list: Option<&Path>, own: &[&str]) -> Result<Self> {
        let own = || own.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        list.map_or_else(|| Ok(Classes { ids: own(), names: own() }), Classes::load)
    }

    /// What a list calls the classes, where there is one.
    ///
    /// # Errors
    /// As [`Classes::load`].
    pub(super) fn ids_of(list: Option<&Path>) -> Result<Option<Vec<String>>> {
        Ok(list.map(Classes::load).transpose()?.map(|classes| classes.ids))
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

    /// What folders call them, in the order of the classes.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// Whether [`Classes::find`] takes a text for an id or for a number.
    pub(super) fn how(&self, text: &str) -> Named {
        if self.ids.iter().any(|id| id == text) { Named::Id } else { Named::Number }
    }

    /// By id or by number.
    pub(super) fn find(&self, text: &str) -> Option<u32> {
        let number = || text.parse::<usize>().ok().filter(|&i| i < self.len());
        self.ids.iter().position(|id| id == text).or_else(number).map(|i| i as u32)
    }
}

/// What a class is named by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Named {
    Id,
    Number,
}

/// The names of a JSON list, or of an object from numbers, 0 on, to names.
pub fn from_json(text: &str) -> Option<Vec<String>> {
    if let Ok(names) = serde_json::from_str::<Vec<String>>(text) {
        return Some(names);
    }
    let mut numbered: Vec<(usize, String)> = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text)
        .ok()?
        .into_iter()
        .map(|(number, name)| Some((number.parse().ok()?, name.as_str()?.to_owned())))
        .collect::<Option<_>>()?;
    numbered.sort_unstable();
    let whole = numbered.iter().enumerate().all(|(i, (number, _))| i == *number);
    whole.then(|| numbered.into_iter().map(|(_, name)| name).collect())
}

/// A name without case and without what folders cannot hold: `T-shirt/top` and `t-shirt_top` are one.
pub fn plain(name: &str) -> String {
    let letters: String = name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    // Of signs alone nothing would be left.
    if letters.is_empty() { name.to_lowercase() } else { letters }
}

/// Which of `names` is called so: exactly, or else as [`plain`] has it, if no other is.
pub fn place(name: &str, names: &[String]) -> Option<usize> {
    let only = |fits: &dyn Fn(&str) -> bool| {
        let mut found = names.iter().enumerate().filter(|(_, known)| fits(known));
        found.next().map(|(i, _)| found.next().is_none().then_some(i))
    };
    only(&|known| known == name).or_else(|| only(&|known| plain(known) == plain(name))).flatten()
}

/// The order of names in which numbers count as numbers: 2 before 10.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    let digits = |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    loop {
        let lengths = (digits(left), digits(right));
        if lengths.0 > 0 && lengths.1 > 0 {
            let numbers = (left[..lengths.0].trim_start_matches('0'), right[..lengths.1].trim_start_matches('0'));
            let order = numbers.0.len().cmp(&numbers.1.len()).then(numbers.0.cmp(numbers.1));
            if order != Ordering::Equal {
                return order;
            }
            (left, right) = (&left[lengths.0..], &right[lengths.1..]);
            continue;
        }
        let (mut l, mut r) = (left.chars(), right.chars());
        match (l.next(), r.next()) {
            (Some(x), Some(y)) if x == y => (left, right) = (l.as_str(), r.as_str()),
            (None, None) => return a.cmp(b),
            (x, y) => return x.cmp(&y),
        }
    }
}

/// Whether a folder is called after one of ImageNet's classes.
pub(super) fn is_imagenet(folder: &Path) -> bool {
    static KNOWN: LazyLock<HashSet<String>> = LazyLock::new(|| Classes::imagenet().ids.into_iter().collect());
    folder.file_name().is_some_and(|name| KNOWN.contains(name.to_string_lossy().as_ref()))
}

fn is_wordnet_id(text: &str) -> bool {
    text.len() == 9 && text.starts_with('n') && text[1..].bytes().all(|b| b.is_ascii_digit())
}

/// The classes of a set whose labels are numbers: of a list, of the order settled before, else the numbers themselves.
///
/// # Errors
/// [`Error::File`] of `at`, where the labels were read, for one beyond the classes; what reading the list returns.
pub(super) fn numbered(
    labels: &[u32],
    list: Option<&Path>,
    order: Option<&[String]>,
    at: &Path,
) -> Result<Vec<String>> {
    let largest = labels.iter().copied().max().unwrap_or(0) as usize;
    let (classes, whose) = match (list, order) {
        (Some(file), _) => (Classes::load(file)?.names, file.display().to_string()),
        (None, Some(names)) => (names.to_vec(), "the network, the file or `class_order`".into()),
        (None, None) => ((0..=largest).map(|k| k.to_string()).collect(), String::new()),
    };
    if let Some(image) = labels.iter().position(|&label| label as usize >= classes.len()) {
        let (n, last) = (classes.len(), classes.len().saturating_sub(1));
        let found = format!("found {} for image {image}", labels[image]);
        return Err(Error::file(at, format!("expected labels of 0 to {last}, as {whose} has {n} classes, {found}")));
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use std::fs;

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
    fn names_are_found_whatever_folders_make_of_them() {
        let names = ["T-shirt/top", "Ankle boot", "C#", "C++", "+", "*"].map(String::from);
        let found = |name| place(name, &names);
        assert_eq!(["T-shirt_top", "ankle_boot", "t shirt top", "C#"].map(found), [Some(0), Some(1), Some(0), Some(2)]);
        // Of two alike neither is meant.
        assert_eq!(["c", "Boot", "+", "*"].map(found), [None, None, Some(4), Some(5)]);
    }

    #[test]
    fn numbers_sort_as_numbers() {
        let mut names = ["10", "9", "1", "b2", "b10", "B3", "02", "2", "a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["1", "02", "2", "9", "10", "B3", "a", "b2", "b10"]);
        let mut words = ["Ankle boot", "Bag", "bag", "Coat", "n02", "n01", "Trouser"];
        let mut text = words;
        words.sort_by(|a, b| natural(a, b));
        text.sort_unstable();
        assert_eq!(words, text);
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
