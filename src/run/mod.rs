//! What is done: models x epsilons x channels over the same images, recorded batch by batch and resumable at any point.

pub mod certify;
pub mod crew;
pub mod engine;
pub mod evaluate;
pub mod header;
mod intake;
pub mod interrupt;
pub mod ledger;
pub mod lock;
mod made;
pub mod packed;
pub mod parts;
mod probabilities;
pub mod progress;
pub mod records;
pub mod results;
pub mod rundir;
pub mod runner;
mod saving;
pub mod settled;
pub mod shard;
pub mod study;
mod through;
pub mod trials;

pub use records::{Found, Outcome, Record};
pub use runner::{Attacked, Engine, run};
