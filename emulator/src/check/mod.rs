//! What is recorded of every access, and what it must agree with: happens-before by barriers, fences, releases and acquires; initialisation; copies under way.

pub mod clock;
pub mod conflict;
pub mod global;
pub mod order;
pub mod shared;
pub mod strong;
