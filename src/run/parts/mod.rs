//! A run that several processes share: which records there are of whom, and how they become those of one.

pub mod card;
pub mod join;
pub mod order;
pub mod status;
