//! What can go wrong, with the fields a caller or a test may want to match on.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use crate::shown::brief;

/// The result of anything that can fail in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Every failure names what it was about, what was expected, what was found and, where there is one, the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A dimension does not fit the operation.
    #[error("{op}: {what}: expected {expected}, got {got}")]
    Shape { op: &'static str, what: String, expected: String, got: String },

    /// More was asked of a device than it offers.
    #[error("{kernel}: {what}: requested {requested}, limit {max}")]
    Limit { kernel: String, what: &'static str, requested: u64, max: u64 },

    /// A tensor of a file is missing, superfluous, misshapen or not finite.
    #[error("tensor `{name}` in {}: {problem}", file.display())]
    Tensor { file: PathBuf, name: String, problem: String },

    /// A file is not what it should be.
    #[error("{}: {problem}", file.display())]
    File { file: PathBuf, problem: String },

    /// The operating system refused a file operation.
    #[error("{}: {action}", file.display())]
    Io { file: PathBuf, action: &'static str, source: std::io::Error },

    /// A setting is wrong: the only error that ends with exit code 2. `field` is the name in a config (`attack.step_size`); the
    /// command line puts its flag there.
    #[error("{field}: {problem}")]
    Usage { field: String, problem: String },

    /// A device is missing or failed.
    #[error("{problem}")]
    Device { problem: String, source: Option<Box<dyn StdError + Send + Sync>> },

    /// A check that the user asked for did not hold.
    #[error("{0}")]
    Failed(String),

    /// The work was left off between two batches because a signal or a time limit asked for it; `code` is the exit code that the user wants then.
    #[error("{words}")]
    Stopped { words: String, code: u8 },
}

impl Error {
    pub fn shape(op: &'static str, what: impl Into<String>, expected: impl ToString, got: impl ToString) -> Self {
        Error::Shape { op, what: what.into(), expected: expected.to_string(), got: got.to_string() }
    }

    pub fn tensor(file: &Path, name: impl Into<String>, problem: impl Into<String>) -> Self {
        Error::Tensor { file: file.into(), name: brief(name.into()), problem: brief(problem.into()) }
    }

    pub fn file(file: &Path, problem: impl Into<String>) -> Self {
        Error::File { file: file.into(), problem: brief(problem.into()) }
    }

    pub fn io(file: &Path, action: &'static str, source: std::io::Error) -> Self {
        Error::Io { file: file.into(), action, source }
    }

    pub fn usage(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Error::Usage { field: brief(field.into()), problem: brief(problem.into()) }
    }

    pub fn device(problem: impl Into<String>) -> Self {
        Error::Device { problem: brief(problem.into()), source: None }
    }

    /// The process exit code: 2 for usage, what the user chose where work was left off, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Usage { .. } => 2,
            Error::Stopped { code, .. } => *code,
            _ => 1,
        }
    }
}
