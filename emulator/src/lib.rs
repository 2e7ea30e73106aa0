//! Executes NVIDIA PTX on the CPU, checks what it does, and counts it; behind a stand-in for the CUDA driver.

pub mod ops;
pub mod ptx;
pub mod registers;
pub mod finding;
pub mod machine;
pub mod address;
pub mod check;
pub mod compile;
pub mod count;
pub mod device;
pub mod exec;
pub mod memory;
pub mod program;
pub mod config;
pub mod driver;
pub mod fatbin;
