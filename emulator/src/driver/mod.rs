//! The stand-in CUDA driver: the functions of `libcuda` that cudarc and most hosts of kernels call, on top of [`Machine`].
//!
//! Names, types and numbers are those of `cuda.h` 13.0, where the contract of each function is described (CUDA Driver API
//! Reference); the comments here say only what is particular to the emulator.
//!
//! - Work runs at once in the calling thread: streams are in order by construction, events are complete when recorded, an
//!   asynchronous copy has happened when its call returns. Everything is behind one lock.
//! - A handle is a number that is never used again. A stale or foreign one is an error, never a crash.
//! - What a checker finds in a kernel leaves the context failed, as a device fault does: the launch returns success, later calls
//!   return the error. What it finds in a call of the host (a free, a copy, an argument buffer) is `CUDA_ERROR_INVALID_VALUE` from
//!   that call alone. Each finding is printed once, and `cuGetErrorString` tells it.
//! - What is not emulated is `CUDA_ERROR_NOT_SUPPORTED`, with the reason in `cuGetErrorString`.
//!
//! The functions are found by `dlsym` in the `cdylib`. They are also in programs that link the `rlib`, which do not export them: the
//! real driver, opened in such a program, still binds to its own. [`stand_in`] makes them a library there.
//!
//! [`Machine`]: crate::machine::Machine
#![allow(non_snake_case, clippy::missing_safety_doc)] // the driver's names; the safety contract of each function is the driver's

pub mod context;
pub mod copy;
pub mod device;
pub mod embed;
pub mod errors;
pub mod event;
pub mod function;
pub mod graph;
pub mod header;
pub mod launch;
pub mod library;
pub mod link;
pub mod managed;
pub mod memory;
pub mod module;
pub mod occupancy;
pub mod peer;
pub mod pinned;
pub mod pool;
pub mod proc_address;
pub mod rectangles;
pub mod stand_in;
pub mod stream;
pub mod tally;
pub mod types;
pub mod unsupported;
pub mod virtual_memory;

mod border;
mod capture;
mod failure;
mod handles;
mod leaks;
mod mappings;
mod pending;
mod progress;
mod state;
mod submit;
mod table;
mod texts;
mod work;
