//! Rampart attacks image classifiers with PGD and measures denoised smoothing, on kernels of its own.
//!
//! Data flows one way: `cli -> experiment -> attack -> models -> ops -> device -> kernels`.

pub mod device;
mod error;
pub mod ops;
pub mod tape;
pub mod tensor;

pub use error::{Error, Result};
