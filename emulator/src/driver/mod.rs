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
//! real driver, opened in such a program, still binds to its own.
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
pub mod launch;
pub mod memory;
pub mod module;
pub mod occupancy;
pub mod pinned;
pub mod pool;
pub mod proc_address;
pub mod stream;
pub mod types;
pub mod unsupported;

mod capture;
mod leaks;
mod state;
mod table;
mod work;

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use state::{Guard, locked};
use types::*;

/// Why a call fails: the driver's number, and what `cuGetErrorString` adds to its usual text (may be empty).
#[derive(Clone, Debug)]
struct Failure {
    code: CUresult,
    why: String,
}

type Outcome<T = ()> = Result<T, Failure>;

fn failure(code: CUresult, why: impl Into<String>) -> Failure {
    Failure { code, why: why.into() }
}

fn fail<T>(code: CUresult, why: impl Into<String>) -> Outcome<T> {
    Err(failure(code, why))
}

thread_local! {
    /// Whether this thread is in a host function of a stream, which may not call the driver.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// The border to C: no panic crosses it, and every failure leaves its reason for `cuGetErrorString`.
fn border(function: &'static str, body: impl FnOnce() -> Outcome) -> CUresult {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        eprintln!("emulator: {function} panicked: {message}");
        locked().panicked = true;
        fail(ERROR_UNKNOWN, format!("{function} panicked: {message}"))
    });
    match outcome {
        Ok(()) => SUCCESS,
        Err(mut failure) => {
            if failure.why.is_empty() {
                failure.why = format!("in {function}");
            }
            errors::note(&failure);
            failure.code
        }
    }
}

/// The driver, once `cuInit` has succeeded.
fn lock() -> Outcome<Guard> {
    if IN_CALLBACK.get() {
        return fail(ERROR_NOT_PERMITTED, "a host function of a stream calls the driver");
    }
    let driver = locked();
    if driver.panicked {
        return fail(ERROR_UNKNOWN, "an earlier call panicked");
    }
    match driver.options.is_some() {
        true => Ok(driver),
        false => fail(ERROR_NOT_INITIALIZED, "cuInit was not called, or failed"),
    }
}

/// Where a call puts its answer.
///
/// # Safety
/// `at` is null or valid for writing a `T`.
unsafe fn out<'a, T>(at: *mut T) -> Outcome<&'a mut MaybeUninit<T>> {
    // SAFETY: `MaybeUninit` has the layout of `T`, and is never read through.
    unsafe { at.cast::<MaybeUninit<T>>().as_mut() }
        .ok_or_else(|| failure(ERROR_INVALID_VALUE, "the address for the answer is null"))
}

/// A C string that a call was given.
///
/// # Safety
/// `at` is null or points to a string that ends in a NUL.
unsafe fn text<'a>(at: *const std::ffi::c_char) -> Outcome<&'a str> {
    if at.is_null() {
        return fail(ERROR_INVALID_VALUE, "a string is null");
    }
    // SAFETY: not null, and ends in a NUL.
    let text = unsafe { std::ffi::CStr::from_ptr(at) };
    text.to_str().map_err(|_| failure(ERROR_INVALID_VALUE, "a string is not UTF-8"))
}

/// Calls a host function without the lock, marked so that it cannot call the driver.
fn call_back(call: impl FnOnce()) {
    IN_CALLBACK.set(true);
    call();
    IN_CALLBACK.set(false);
}
