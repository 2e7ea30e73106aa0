//! Rampart attacks image classifiers and measures denoised smoothing, on kernels of its own.
//!
//! Data flows one way: `cli -> report -> run -> config -> defense -> models -> attack -> ops -> tape, tensor -> device -> kernels`,
//! with `draw` and `data` beside `device`. `docs/architecture.md` says what each layer is for; `tests/layers.rs` holds it.

pub mod attack;
mod choice;
pub mod cli;
pub mod config;
pub mod data;
pub mod defense;
pub mod device;
pub mod draw;
mod error;
pub mod files;
pub mod models;
pub mod number;
pub mod ops;
pub mod parity;
pub mod profile;
pub mod report;
pub mod run;
pub mod shown;
pub mod stats;
pub mod tape;
pub mod tensor;

pub use error::{Error, Result};
