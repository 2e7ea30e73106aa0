//! Runs programs: a warp at a time, an instruction for all its lanes.

pub mod async_copy;
pub mod atomic;
pub mod block;
mod copies;
pub mod cta;
mod elements;
mod format;
pub mod global;
pub mod grid;
pub mod matrix;
pub mod private;
mod report;
pub mod runtime;
pub mod shared;
mod touch;
pub mod warp;
