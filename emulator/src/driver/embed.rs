//! For programs that embed the emulator: options without the environment, and what was found and counted as data.

use std::ffi::{CString, c_char};

use super::border::{border, text};
use super::failure::{Outcome, fail};
use super::state::locked;
use super::tally::Tally;
use super::texts;
use super::types::*;
use crate::config;
use crate::count::LaunchCounts;
use crate::finding::Finding;

/// Sets options by a JSON object with the keys `model`, `checks`, `counters`, `seed`, `threads`; they go before the environment.
/// `CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE` while there is a context, `CUDA_ERROR_INVALID_VALUE` for what is not understood.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptx_emulator_configure(json: *const c_char) -> i32 {
    border("ptx_emulator_configure", || {
        // SAFETY: `json` is null or a string that ends in a NUL: the caller's promise.
        let json = unsafe { text(json)? };
        apply(json)
    })
}

fn apply(json: &str) -> Outcome {
    let mut driver = locked();
    if !driver.contexts.is_empty() {
        return fail(ERROR_PRIMARY_CONTEXT_ACTIVE, "options are set before the first context");
    }
    // Before `cuInit` the environment is not read: only the JSON is checked.
    let mut options = driver.options.clone().unwrap_or_default();
    if let Err(e) = config::apply_json(&mut options, json) {
        texts::tell(&e.to_string());
        return fail(ERROR_INVALID_VALUE, e.to_string());
    }
    driver.configured.push(json.to_owned());
    if driver.options.is_some() {
        driver.options = Some(options);
    }
    Ok(())
}

/// [`ptx_emulator_configure`] for Rust.
///
/// # Errors
/// What it was refused for.
pub fn configure(json: &str) -> Result<(), String> {
    apply(json).map_err(|failure| failure.why)
}

/// [`ptx_emulator_findings`] for Rust.
pub fn findings() -> Vec<Finding> {
    std::mem::take(&mut locked().findings.recent)
}

/// [`ptx_emulator_profile`] for Rust.
pub fn profile() -> Vec<LaunchCounts> {
    locked().take_profile()
}

/// [`ptx_emulator_tally`] for Rust.
pub fn tally() -> Tally {
    std::mem::take(&mut locked().tally)
}

/// The findings since the last call, as a JSON array. The string is given back through [`ptx_emulator_free_string`]; null when there
/// is no memory for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptx_emulator_findings() -> *mut c_char {
    hand_over("ptx_emulator_findings", findings)
}

/// The launches counted since the last call, as a JSON array of [`crate::count::LaunchCounts`] in the order they ran; empty unless
/// `counters` is on. Contexts that are gone by now count too. The string is given back as that of [`ptx_emulator_findings`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptx_emulator_profile() -> *mut c_char {
    hand_over("ptx_emulator_profile", profile)
}

/// What the program asked of the driver since the last call, as the JSON of a [`super::tally::Tally`]. The string is given back as that
/// of [`ptx_emulator_findings`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptx_emulator_tally() -> *mut c_char {
    hand_over("ptx_emulator_tally", tally)
}

/// What `take` gives as JSON; null when there is no memory for it.
fn hand_over<T: serde::Serialize>(function: &'static str, take: impl FnOnce() -> T) -> *mut c_char {
    let mut json = None;
    border(function, || {
        json = serde_json::to_string(&take()).ok().and_then(|json| CString::new(json).ok());
        Ok(())
    });
    json.map_or(std::ptr::null_mut(), CString::into_raw)
}

/// Null is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ptx_emulator_free_string(string: *mut c_char) {
    if !string.is_null() {
        // SAFETY: made by `into_raw`, and given back once.
        drop(unsafe { CString::from_raw(string) });
    }
}
