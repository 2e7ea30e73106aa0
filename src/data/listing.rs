//! What lies in a folder, by one rule for every format: what systems leave behind is passed over, what else is no image is named.

use std::fs;
use std::path::{Path, PathBuf};

use super::decode::{EXTENSIONS, is_image};
use super::skipped::Skipped;
use crate::error::{Error, Result};

/// Names that file managers and archives leave behind, in lower case; those that begin with a dot are passed over anyway.
const SYSTEM: [&str; 9] = [
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "__macosx",
    "icon\r",
    "@eadir",
    "$recycle.bin",
    "system volume information",
    "lost+found",
];

/// What `dir` holds, sorted by name, without hidden entries and what systems leave behind.
///
/// # Errors
/// [`Error::Io`].
pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|e| Error::io(dir, "list the folder", e))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| Error::io(dir, "list the folder", e))?.path();
        let name = name(&path);
        if !name.starts_with('.') && !SYSTEM.contains(&name.to_lowercase().as_str()) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The images of a folder by their names, and what else lies there: notes, folders, links to nothing, formats that are not read.
///
/// # Errors
/// [`Error::Io`].
pub fn images(dir: &Path) -> Result<(Vec<PathBuf>, Vec<Skipped>)> {
    let (files, strays): (Vec<_>, Vec<_>) = list(dir)?.into_iter().partition(|path| stray(path).is_none());
    Ok((files, strays.into_iter().map(|path| Skipped::new(&path, stray(&path).unwrap_or_default())).collect()))
}

/// The folders of a folder, one per class, and what lies beside them but for the files that the config itself names.
///
/// # Errors
/// [`Error::Io`].
pub fn classes(dir: &Path, known: &[&Path]) -> Result<(Vec<PathBuf>, Vec<Skipped>)> {
    let (folders, files): (Vec<_>, Vec<_>) = list(dir)?.into_iter().partition(|path| path.is_dir());
    let same =
        |a: &Path, b: &Path| a == b || fs::canonicalize(a).ok().is_some_and(|a| Some(a) == fs::canonicalize(b).ok());
    let beside = files.into_iter().filter(|file| !known.iter().any(|known| same(file, known)));
    let skipped = beside.map(|file| {
        let problem = if file.exists() { "lies beside the folders of the classes" } else { "a link to nothing" };
        Skipped::new(&file, problem)
    });
    Ok((folders, skipped.collect()))
}

/// Why an entry is no image, if its name and kind tell.
fn stray(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Some("a folder among images".into()),
        // What is neither may never end.
        Ok(found) if !found.is_file() => Some("not a regular file".into()),
        Ok(_) if is_image(path) => None,
        Ok(_) => Some(format!("expected an image ({})", EXTENSIONS.join(", "))),
        Err(_) => Some("a link to nothing".into()),
    }
}

pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_leave_things_behind_and_people_leave_notes() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for file in [
            "Thumbs.db",
            "desktop.ini",
            "DESKTOP.INI",
            ".DS_Store",
            "._a.png",
            "a.png",
            "b.WebP",
            "notes.txt",
            "c.heic",
        ] {
            fs::write(at(file), "").unwrap();
        }
        fs::create_dir_all(at("__MACOSX")).unwrap();
        fs::create_dir_all(at("more.png")).unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("nowhere", at("z.png")).unwrap();
        let (files, strays) = images(dir.path()).unwrap();
        assert_eq!(files.iter().map(|f| name(f)).collect::<Vec<_>>(), ["a.png", "b.WebP"]);
        let found: Vec<String> = strays.iter().map(|s| s.problem.clone()).collect();
        let parts =
            ["c.heic: expected an image", "more.png: a folder", "notes.txt: expected", "z.png: a link to nothing"];
        assert_eq!(found.len(), if cfg!(unix) { 4 } else { 3 });
        assert!(found.iter().zip(parts).all(|(found, part)| found.contains(part)), "{found:?}");

        let (folders, beside) = classes(dir.path(), &[&at("notes.txt")]).unwrap();
        assert_eq!(folders, [at("more.png")]);
        assert!(beside.iter().all(|s| s.file != at("notes.txt")) && beside.iter().any(|s| s.file == at("a.png")));
    }
}
