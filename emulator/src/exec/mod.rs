//! Runs programs: a warp at a time, an instruction for all its lanes.

pub mod async_copy;
pub mod atomic;
pub mod block;
pub mod bulk;
mod copies;
pub mod cta;
mod diverge;
mod elements;
mod format;
pub mod fragment;
pub mod global;
pub mod grid;
pub mod matrix;
pub mod mbarrier;
mod phases;
pub mod private;
mod report;
pub mod runtime;
pub mod shared;
mod strong;
mod touch;
mod waiting;
pub mod warp;
