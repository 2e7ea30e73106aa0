//! Named ranges for Nsight Systems; without its library they cost nothing.

/// Ends its range when dropped.
pub struct Range;

/// Opens a range.
pub fn range(_name: &str) -> Range {
    Range
}
