//! The stand-in driver through its C interface. What comes before a context is `driver_init`'s, in a process of its own.

mod common;
mod context;
mod fatbin;
mod graph;
mod launch;
mod leaks;
mod library;
mod managed;
mod memory;
mod module;
mod profile;
mod rectangles;
mod stream;
mod virtual_memory;
