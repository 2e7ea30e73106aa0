//! What is recorded of every access, and what it must agree with: happens-before by barriers, initialisation, copies under way.

pub mod clock;
pub mod conflict;
pub mod global;
pub mod shared;
