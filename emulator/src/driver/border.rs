//! The border to C: the lock, what calls are given, and how they answer.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::failure::{Outcome, fail, failure};
use super::state::{Guard, locked};
use super::texts;
use super::types::*;

thread_local! {
    /// Whether this thread is in a host function of a stream, which may not call the driver.
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// The border to C: no panic crosses it, and every failure leaves its reason for `cuGetErrorString`.
pub fn border(function: &'static str, body: impl FnOnce() -> Outcome) -> CUresult {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        texts::tell(&format!("{function} panicked: {message}"));
        locked().panicked = true;
        fail(ERROR_UNKNOWN, format!("{function} panicked: {message}"))
    });
    match outcome {
        Ok(()) => SUCCESS,
        Err(mut failure) => {
            if failure.why.is_empty() {
                failure.why = format!("in {function}");
            }
            texts::note(&failure);
            failure.code
        }
    }
}

/// The driver, once `cuInit` has succeeded.
pub fn lock() -> Outcome<Guard> {
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
pub unsafe fn out<'a, T>(at: *mut T) -> Outcome<&'a mut MaybeUninit<T>> {
    // SAFETY: `MaybeUninit` has the layout of `T`, and is never read through.
    unsafe { at.cast::<MaybeUninit<T>>().as_mut() }
        .ok_or_else(|| failure(ERROR_INVALID_VALUE, "the address for the answer is null"))
}

/// A C string that a call was given.
///
/// # Safety
/// `at` is null or points to a string that ends in a NUL.
pub unsafe fn text<'a>(at: *const std::ffi::c_char) -> Outcome<&'a str> {
    if at.is_null() {
        return fail(ERROR_INVALID_VALUE, "a string is null");
    }
    // SAFETY: not null, and ends in a NUL.
    let text = unsafe { std::ffi::CStr::from_ptr(at) };
    text.to_str().map_err(|_| failure(ERROR_INVALID_VALUE, "a string is not UTF-8"))
}

/// Calls a host function without the lock, marked so that it cannot call the driver.
pub fn call_back(call: impl FnOnce()) {
    IN_CALLBACK.set(true);
    call();
    IN_CALLBACK.set(false);
}
