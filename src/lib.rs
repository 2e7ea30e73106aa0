//! Rampart attacks image classifiers with PGD and measures denoised smoothing, on kernels of its own.
//!
//! Data flows one way: `cli -> experiment -> attack, defense -> models -> ops -> device -> kernels`.

pub mod attack;
mod choice;
pub mod cli;
pub mod data;
pub mod defense;
pub mod device;
mod error;
pub mod experiment;
pub mod models;
pub mod ops;
pub mod parity;
pub mod report;
pub mod stats;
pub mod tape;
pub mod tensor;

pub use error::{Error, Result};
