//! Executes NVIDIA PTX on the CPU, checks what it does, and counts it; behind a stand-in for the CUDA driver.

pub mod address;
pub mod check;
pub mod compile;
pub mod config;
pub mod count;
pub mod device;
pub mod driver;
pub mod exec;
pub mod fatbin;
pub mod finding;
pub mod machine;
pub mod memory;
pub mod ops;
pub mod program;
pub mod ptx;
pub mod registers;
