//! Errors that name a line.

use std::fmt;

/// What is wrong with a PTX file, and where.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct PtxError {
    /// Of the PTX.
    pub line: u32,
    pub problem: String,
    /// The kernel that cannot be compiled, and where its source has the line, as far as `.loc` says.
    pub kernel: Option<String>,
    /// The function that cannot be compiled, where no kernel calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    pub source: Option<(String, u32)>,
    /// It is the `.version` that is not known: a driver has a number of its own for that.
    #[serde(skip)]
    pub unknown_version: bool,
}

impl PtxError {
    pub fn new(line: u32, problem: impl Into<String>) -> Self {
        PtxError { line, problem: problem.into(), kernel: None, function: None, source: None, unknown_version: false }
    }

    /// A `.version` that is not known.
    pub fn of_version(line: u32, problem: impl Into<String>) -> Self {
        PtxError { unknown_version: true, ..PtxError::new(line, problem) }
    }

    /// The same, in a kernel.
    pub fn of_kernel(self, kernel: &str, source: Option<(String, u32)>) -> Self {
        PtxError { kernel: Some(kernel.into()), source, ..self }
    }
}

impl fmt::Display for PtxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}: {}", self.line, self.problem)?;
        if let Some(kernel) = &self.kernel {
            write!(f, "; kernel {kernel}")?;
        }
        if let Some(function) = &self.function {
            write!(f, "; function {function}")?;
        }
        if let Some((file, line)) = &self.source {
            write!(f, ", {file}:{line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PtxError {}
