//! `cuLink*`: several PTX texts become one, which a module can be loaded from.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::border::{border, lock, out, text};
use super::failure::{Outcome, fail, failure, invalid};
use super::handles::Link;
use super::module::Logs;
use super::types::*;
use crate::fatbin;
use crate::ptx;

/// `CUjitInputType`: a cubin, PTX, a fat binary.
const CUBIN: c_int = 0;
const PTX: c_int = 1;
const FATBIN: c_int = 2;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLinkCreate_v2(
    count: c_uint,
    options: *const c_int,
    values: *mut *mut c_void,
    state: *mut CUlinkState,
) -> CUresult {
    border("cuLinkCreate_v2", || {
        let mut driver = lock()?;
        driver.working()?;
        // SAFETY: the caller gives `count` options and values.
        unsafe { Logs::read(count as usize, options, values)? };
        // SAFETY: `state` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(state)? };
        answer.write(driver.links.insert(Link::default()) as CUlinkState);
        Ok(())
    })
}

/// PTX, alone or in a fat binary.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLinkAddData_v2(
    state: CUlinkState,
    kind: c_int,
    data: *mut c_void,
    bytes: usize,
    _name: *const c_char,
    _count: c_uint,
    _options: *const c_int,
    _values: *mut *mut c_void,
) -> CUresult {
    border("cuLinkAddData_v2", || {
        if data.is_null() {
            return fail(ERROR_INVALID_VALUE, "the data are null");
        }
        // SAFETY: the caller gives this many bytes.
        add(state, kind, unsafe { std::slice::from_raw_parts(data.cast(), bytes) })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLinkAddFile_v2(
    state: CUlinkState,
    kind: c_int,
    path: *const c_char,
    _count: c_uint,
    _options: *const c_int,
    _values: *mut *mut c_void,
) -> CUresult {
    border("cuLinkAddFile_v2", || {
        // SAFETY: `path` is null or a string that ends in a NUL: the caller's promise.
        let path = unsafe { text(path)? };
        let bytes = std::fs::read(path).map_err(|e| failure(ERROR_FILE_NOT_FOUND, format!("{path}: {e}")))?;
        add(state, kind, &bytes)
    })
}

fn add(state: CUlinkState, kind: c_int, bytes: &[u8]) -> Outcome {
    let mut driver = lock()?;
    let compute_capability = driver.device().compute_capability;
    let ptx = match kind {
        PTX => {
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            let text = std::str::from_utf8(&bytes[..end]);
            text.map_err(|_| failure(ERROR_INVALID_PTX, "the PTX is not UTF-8"))?.to_owned()
        }
        FATBIN => fatbin::ptx_of_bytes(bytes, compute_capability)?,
        CUBIN => return fail(ERROR_NO_BINARY_FOR_GPU, "machine code is not executed: link PTX"),
        _ => {
            return fail(
                ERROR_NOT_SUPPORTED,
                format!("inputs of kind {kind} are not linked: only PTX and fat binaries"),
            );
        }
    };
    // An error of the text is one of this call.
    ptx::parse(&ptx)?;
    let link = driver.links.get_mut(state as usize).ok_or_else(|| invalid("link state"))?;
    if link.image.is_some() {
        return fail(ERROR_INVALID_VALUE, "the link is complete");
    }
    link.parts.push(ptx);
    Ok(())
}

/// One text: the head of the first, and the bodies of all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLinkComplete(state: CUlinkState, image: *mut *mut c_void, bytes: *mut usize) -> CUresult {
    border("cuLinkComplete", || {
        let mut driver = lock()?;
        // SAFETY: `image` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(image)? };
        let link = driver.links.get_mut(state as usize).ok_or_else(|| invalid("link state"))?;
        if link.parts.is_empty() {
            return fail(ERROR_INVALID_VALUE, "nothing was given to link");
        }
        let joined = joined(&link.parts);
        ptx::parse(&joined)?;
        let image = link.image.insert(format!("{joined}\0").into_bytes().into());
        answer.write(image.as_mut_ptr().cast());
        // SAFETY: null, or valid for writing.
        if let Some(bytes) = unsafe { bytes.as_mut() } {
            *bytes = image.len();
        }
        Ok(())
    })
}

/// What stands at the head of a text stands in the first one alone; numbers of source files may repeat, of which the first counts.
fn joined(parts: &[String]) -> String {
    let mut all = String::new();
    for (n, part) in parts.iter().enumerate() {
        for line in part.lines() {
            let word = line.split_whitespace().next().unwrap_or("");
            if n == 0 || ![".version", ".target", ".address_size"].contains(&word) {
                all.push_str(line);
                all.push('\n');
            }
        }
    }
    all
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLinkDestroy(state: CUlinkState) -> CUresult {
    border("cuLinkDestroy", || lock()?.links.remove(state as usize).map(drop).ok_or_else(|| invalid("link state")))
}
