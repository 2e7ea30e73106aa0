//! `cuGetErrorName` and `cuGetErrorString`: the driver's names and usual texts, and after them the reason of the latest failure.

use std::ffi::{CStr, c_char};

use super::border::{border, out};
use super::failure::fail;
use super::texts;
use super::types::*;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(error: CUresult, name: *mut *const c_char) -> CUresult {
    border("cuGetErrorName", || {
        // SAFETY: `name` is null or room for the answer: the caller's promise.
        let name = unsafe { out(name)? };
        let found = texts::name(error);
        name.write(found.map_or(std::ptr::null(), CStr::as_ptr));
        found.map(|_| ()).map_or_else(|| fail(ERROR_INVALID_VALUE, format!("there is no error {error}")), Ok)
    })
}

/// The usual text, followed by the reason of the latest failure with this error: for what a checker found, the whole finding.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: CUresult, string: *mut *const c_char) -> CUresult {
    border("cuGetErrorString", || {
        // SAFETY: `string` is null or room for the answer: the caller's promise.
        let string = unsafe { out(string)? };
        let found = texts::text(error);
        string.write(found.map_or(std::ptr::null(), CStr::as_ptr));
        found.map(|_| ()).map_or_else(|| fail(ERROR_INVALID_VALUE, format!("there is no error {error}")), Ok)
    })
}
