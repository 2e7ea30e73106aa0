//! Images that a list names, in its order: a subset that somebody published, as RobustBench's of ImageNet.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::listing::name;
use crate::error::{Error, Result};
use crate::files;

/// Characters of a line that a message shows.
const SHOWN: usize = 80;

/// The places in `found` of the images that a file lists, one `FILE` or `CLASS/FILE` per line; all of them without a list. In a flat
/// folder the class of a line is passed over, elsewhere it must be that of the image.
///
/// # Errors
/// [`Error::Io`], and [`Error::File`] for a line that names no image, one of several, or one for the second time.
pub(super) fn chosen(list: Option<&Path>, found: &[PathBuf]) -> Result<Vec<usize>> {
    let Some(list) = list else { return Ok((0..found.len()).collect()) };
    let text = files::text(list, "read the list of images")?;
    let folder = |path: &Path| path.parent().map(name).unwrap_or_default();
    let flat = found.iter().map(|path| path.parent()).collect::<HashSet<_>>().len() < 2;
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, path) in found.iter().enumerate() {
        by_name.entry(name(path)).or_default().push(i);
    }
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let mut parts = line.rsplit(['/', '\\']);
        let (file, class) = (parts.next().unwrap_or_default(), parts.next());
        let of_class = |&&i: &&usize| flat || class.is_none_or(|class| folder(&found[i]) == class);
        let fits: Vec<usize> = by_name.get(file).into_iter().flatten().filter(of_class).copied().collect();
        let problem = match fits[..] {
            [one] if seen.insert(one) => {
                all.push(one);
                continue;
            }
            [_] => "is listed twice",
            [] => "is no image of the set",
            _ => "is in several folders: expected CLASS/FILE",
        };
        let shown: String = line.chars().take(SHOWN).collect();
        return Err(Error::file(list, format!("line {}: `{shown}` {problem}", number + 1)));
    }
    if all.is_empty() {
        return Err(Error::file(list, "expected one image per line, found none"));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_in_its_order() {
        let dir = tempfile::tempdir().unwrap();
        let list = dir.path().join("ids.txt");
        let by_class: Vec<PathBuf> = ["n1/a.JPEG", "n1/b.JPEG", "n2/a.JPEG"].map(|p| dir.path().join(p)).into();
        let flat: Vec<PathBuf> = ["a.JPEG", "b c.JPEG"].map(|p| dir.path().join(p)).into();
        let read = |text: &str, found: &[PathBuf]| {
            std::fs::write(&list, text).unwrap();
            chosen(Some(&list), found).map_err(|e| e.to_string())
        };
        assert_eq!(read("\u{feff}n2/a.JPEG\r\n\r\nval\\n1\\b.JPEG\n", &by_class), Ok(vec![2, 1]));
        assert_eq!(read("b.JPEG", &by_class), Ok(vec![1]));
        assert_eq!(read("n9/b c.JPEG\na.JPEG", &flat), Ok(vec![1, 0]));
        assert_eq!(chosen(None, &by_class).unwrap(), [0, 1, 2]);
        for (text, part) in [
            ("n2/b.JPEG", "line 1: `n2/b.JPEG` is no image"),
            ("n1/b.JPEG\na.JPEG", "line 2: `a.JPEG` is in several"),
            ("b.JPEG\nn1/b.JPEG", "line 2: `n1/b.JPEG` is listed twice"),
            ("\n", "found none"),
        ] {
            let error = read(text, &by_class).unwrap_err();
            assert!(error.contains("ids.txt") && error.contains(part), "{error}");
        }
    }
}
