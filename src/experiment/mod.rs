//! An experiment from its config to its results: models x epsilons over the same images, resumable at any point.

mod attack_config;
pub mod config;
pub mod engine;
mod file;
pub(crate) mod progress;
pub mod records;
pub mod results;
pub mod rundir;
pub mod runner;
pub mod settings;

pub use config::{Config, Overrides};
pub use records::{Outcome, Record};
pub use runner::{Engine, Summary, run};
