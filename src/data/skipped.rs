//! Files that were left out.

use std::path::{Path, PathBuf};

/// A file that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    pub file: PathBuf,
    /// What is wrong with it; names the file.
    pub problem: String,
}

impl Skipped {
    pub fn new(file: &Path, problem: impl AsRef<str>) -> Self {
        Skipped { file: file.into(), problem: format!("{}: {}", file.display(), problem.as_ref()) }
    }

    /// An error of a file with its causes, on one line.
    pub fn of(file: &Path, error: &dyn std::error::Error) -> Self {
        let mut problem = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            problem = format!("{problem}: {cause}");
            source = cause.source();
        }
        Skipped { file: file.into(), problem }
    }
}
