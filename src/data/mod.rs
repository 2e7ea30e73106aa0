//! Labelled images as `(N, H, W, 3)` floats in [0, 1], from the formats that evaluation sets come in.

pub mod cifar10;
pub mod classes;
pub mod dataset;
pub mod decode;
pub mod demo;
pub mod folder;
pub mod idx;
pub mod imagenet;
pub mod listing;
pub mod prepare;
mod prepared;
pub mod resize;
mod subset;
mod unit;

pub use dataset::Dataset;
pub use prepared::{Pixels, Skipped};
pub use subset::Select;
pub use unit::{to_bytes, unit};
