//! Why an instruction cannot be compiled.

use crate::ptx::PtxError;

/// What is wrong with an instruction: said of it, or of something inside a call.
pub(super) enum Problem {
    Here(String),
    Inside(PtxError),
}

impl From<String> for Problem {
    fn from(text: String) -> Self {
        Problem::Here(text)
    }
}

impl From<&str> for Problem {
    fn from(text: &str) -> Self {
        Problem::Here(text.into())
    }
}

impl From<PtxError> for Problem {
    fn from(e: PtxError) -> Self {
        Problem::Inside(e)
    }
}

pub(super) type Lower<T> = Result<T, Problem>;
