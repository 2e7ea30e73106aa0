//! Errors that name a line.

/// What is wrong with a PTX file, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {problem}")]
pub struct PtxError {
    pub line: u32,
    pub problem: String,
}

impl PtxError {
    pub fn new(line: u32, problem: impl Into<String>) -> Self {
        PtxError { line, problem: problem.into() }
    }
}
