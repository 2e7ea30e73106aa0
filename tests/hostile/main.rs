//! Input from outside that is damaged or made to do harm: read or refused, within limits of time and memory, never a panic.

mod corpora;
mod files;
#[path = "../common/listed.rs"]
mod listed;
mod mutate;
mod targets;
