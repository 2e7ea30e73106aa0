//! An experiment from its config to its results: models x epsilons x channels over the same images, resumable at any point.

mod attack_config;
pub mod checks;
pub mod config;
mod dataset_config;
mod defense_config;
pub mod engine;
mod file;
pub mod finished;
pub mod maps;
pub mod page;
pub mod paired;
pub(crate) mod progress;
pub mod records;
pub mod results;
pub mod rundir;
pub mod runner;
pub mod samples;
pub mod settings;
mod strips;
mod summary;
pub mod trials;

pub use config::{Config, Overrides};
pub use records::{Found, Outcome, Record};
pub use runner::{Attacked, Engine, Summary, run};
