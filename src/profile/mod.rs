//! What the emulated GPU counted: tables per kernel, launch or line, and the roofline drawn from them.

pub mod roofline;
pub mod tables;
