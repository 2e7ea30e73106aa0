//! Functions: what is known of a kernel, and what may be set.

use std::ffi::{c_char, c_int};

use super::border::{border, lock, out};
use super::failure::{fail, failure, invalid};
use super::types::*;

const MAX_DYNAMIC_SHARED: c_int = 8;
const CARVEOUT: c_int = 9;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: CUfunction) -> CUresult {
    border("cuFuncGetAttribute", || {
        let driver = lock()?;
        // SAFETY: `value` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(value)? };
        let function = driver.function(function)?;
        driver.healthy(function.context)?;
        let (kernel, device) = (&function.kernel, driver.device());
        let (major, minor) = device.compute_capability;
        answer.write(match attribute {
            0 => kernel.max_threads.min(device.max_threads) as c_int,
            1 => kernel.static_shared as c_int,
            // Constants are allocated by module; a kernel has none of its own.
            2 => 0,
            3 => kernel.local_bytes as c_int,
            4 => kernel.registers as c_int,
            5 => driver.modules.get(function.module).map_or(0, |module| module.target as c_int),
            6 => (major * 10 + minor) as c_int,
            7 => 0, // no option asked for caching
            MAX_DYNAMIC_SHARED => match function.shared_limit {
                0 => device.shared.saturating_sub(kernel.static_shared) as c_int,
                limit => limit as c_int,
            },
            CARVEOUT => function.carveout,
            10..=15 => 0, // no clusters
            _ => return fail(ERROR_INVALID_VALUE, format!("there is no function attribute {attribute}")),
        });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetAttribute(function: CUfunction, attribute: c_int, value: c_int) -> CUresult {
    border("cuFuncSetAttribute", || {
        let mut driver = lock()?;
        let optin = driver.device().shared_optin;
        let context = driver.function(function)?.context;
        driver.healthy(context)?;
        let function = driver.functions.get_mut(function as usize).ok_or_else(|| invalid("function"))?;
        match attribute {
            MAX_DYNAMIC_SHARED => {
                let most = optin.saturating_sub(function.kernel.static_shared);
                let value = u32::try_from(value).ok().filter(|value| *value <= most).ok_or_else(|| {
                    let name = &function.kernel.name;
                    failure(
                        ERROR_INVALID_VALUE,
                        format!("{name}: {value} bytes of dynamic shared memory, at most {most}"),
                    )
                })?;
                function.shared_limit = value;
            }
            CARVEOUT if (-1..=100).contains(&value) => function.carveout = value,
            CARVEOUT => return fail(ERROR_INVALID_VALUE, format!("a carveout of {value} percent")),
            11..=15 => return fail(ERROR_NOT_SUPPORTED, "clusters are not emulated"),
            _ => return fail(ERROR_INVALID_VALUE, format!("function attribute {attribute} cannot be set")),
        }
        Ok(())
    })
}

/// A preference; no cache is emulated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncSetCacheConfig(function: CUfunction, config: c_int) -> CUresult {
    border("cuFuncSetCacheConfig", || {
        let driver = lock()?;
        let function = driver.function(function)?;
        driver.healthy(function.context)?;
        match config {
            0..=3 => Ok(()),
            _ => fail(ERROR_INVALID_VALUE, format!("there is no cache preference {config}")),
        }
    })
}

/// The name is valid until the module is unloaded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetName(name: *mut *const c_char, function: CUfunction) -> CUresult {
    border("cuFuncGetName", || {
        let driver = lock()?;
        // SAFETY: `name` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(name)? };
        answer.write(driver.function(function)?.name.as_ptr());
        Ok(())
    })
}

/// The bytes may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetParamInfo(
    function: CUfunction,
    index: usize,
    offset: *mut usize,
    bytes: *mut usize,
) -> CUresult {
    border("cuFuncGetParamInfo", || {
        let driver = lock()?;
        // SAFETY: `offset` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(offset)? };
        let kernel = &driver.function(function)?.kernel;
        let found = kernel.parameters.get(index);
        let found = found.ok_or_else(|| {
            failure(ERROR_INVALID_VALUE, format!("{} has {} parameters", kernel.name, kernel.parameters.len()))
        })?;
        answer.write(found.0);
        // SAFETY: null, or valid for writing.
        if let Some(bytes) = unsafe { bytes.as_mut() } {
            *bytes = found.1;
        }
        Ok(())
    })
}
