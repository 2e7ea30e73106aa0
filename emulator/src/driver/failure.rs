//! Why calls fail.

use super::types::*;

/// Why a call fails: the driver's number, and what `cuGetErrorString` adds to its usual text (may be empty).
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: CUresult,
    pub why: String,
}

pub type Outcome<T = ()> = Result<T, Failure>;

pub fn failure(code: CUresult, why: impl Into<String>) -> Failure {
    Failure { code, why: why.into() }
}

pub fn fail<T>(code: CUresult, why: impl Into<String>) -> Outcome<T> {
    Err(failure(code, why))
}

/// A handle that names nothing.
pub fn invalid(what: &str) -> Failure {
    failure(ERROR_INVALID_HANDLE, format!("no such {what}: stale or foreign handle"))
}
