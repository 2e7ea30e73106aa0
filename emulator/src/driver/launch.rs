//! Kernel launches. Illegal configurations are refused by the launch; what a kernel does wrong, by the calls after it.

use std::ffi::{c_uint, c_void};

use super::border::{border, lock};
use super::failure::{Outcome, fail};
use super::state::{Driver, Guard};
use super::submit::submit;
use super::types::*;
use super::work::{KernelLaunch, Work};
use crate::finding::{Finding, Kind};
use crate::machine::Machine;

/// What launches and kernel nodes have in common.
pub(super) struct Request {
    pub function: CUfunction,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: CUstream,
    /// Addresses of the arguments, one for each parameter.
    pub arguments: *const *const c_void,
    /// Or `CU_LAUNCH_PARAM_*` and their values.
    pub extra: *const *mut c_void,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: CUstream,
    arguments: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    border("cuLaunchKernel", || {
        let request = Request {
            function,
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            shared_bytes,
            stream,
            arguments: arguments.cast_const().cast(),
            extra,
        };
        // SAFETY: the caller gives arguments or extras as the driver's contract says.
        unsafe { launch(lock()?, &request) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx(
    config: *const CUlaunchConfig,
    function: CUfunction,
    arguments: *mut *mut c_void,
    extra: *mut *mut c_void,
) -> CUresult {
    border("cuLaunchKernelEx", || {
        let driver = lock()?;
        // SAFETY: null, or a configuration.
        let Some(c) = (unsafe { config.as_ref() }) else {
            return fail(ERROR_INVALID_VALUE, "the configuration is null");
        };
        if c.numAttrs > 0 && c.attrs.is_null() {
            return fail(ERROR_INVALID_VALUE, "the attributes are null");
        }
        for i in 0..c.numAttrs as usize {
            // SAFETY: within the array that the configuration states.
            supported(unsafe { &*c.attrs.add(i) })?;
        }
        let request = Request {
            function,
            grid: [c.gridDimX, c.gridDimY, c.gridDimZ],
            block: [c.blockDimX, c.blockDimY, c.blockDimZ],
            shared_bytes: c.sharedMemBytes,
            stream: c.hStream,
            arguments: arguments.cast_const().cast(),
            extra,
        };
        // SAFETY: the caller gives arguments or extras as the driver's contract says.
        unsafe { launch(driver, &request) }
    })
}

/// Refuses attributes that would change what a kernel computes or may do.
fn supported(attribute: &CUlaunchAttribute) -> Outcome {
    let [first, second, third, ..] = attribute.value;
    match attribute.id {
        0 | 8 => Ok(()), // ignored; priority
        2 if first == 0 => Ok(()),
        2 => fail(ERROR_NOT_SUPPORTED, "cooperative launches are not emulated"),
        4 if [first, second, third] == [1, 1, 1] => Ok(()),
        4 => fail(ERROR_NOT_SUPPORTED, "clusters are not emulated"),
        6 if first == 0 => Ok(()),
        other => fail(ERROR_NOT_SUPPORTED, format!("launch attribute {other} is not emulated")),
    }
}

/// # Safety
/// The arguments are as `cuLaunchKernel` describes them.
unsafe fn launch(mut driver: Guard, request: &Request) -> Outcome {
    let stream = driver.stream(request.stream)?;
    let of_stream = driver.context_of(stream)?;
    let handle = driver.resolve(request.function as usize)?;
    if driver.function(handle as CUfunction)?.context != of_stream {
        return fail(ERROR_INVALID_HANDLE, "the function and the stream are of different contexts");
    }
    // SAFETY: the same contract.
    let launch = unsafe { prepare(&mut driver, request)? };
    submit(driver, request.stream, Work::Launch(launch), "cuLaunchKernel")
}

/// The launch with its arguments.
///
/// # Safety
/// The arguments are as `cuLaunchKernel` describes them.
pub(super) unsafe fn prepare(driver: &mut Driver, request: &Request) -> Outcome<KernelLaunch> {
    let handle = driver.resolve(request.function as usize)?;
    let function = driver.function(handle as CUfunction)?;
    let (kernel, context, shared_limit) = (function.kernel.clone(), function.context, function.shared_limit);
    driver.healthy(context)?;
    let parameters = match (request.arguments.is_null(), request.extra.is_null()) {
        (false, false) => return fail(ERROR_INVALID_VALUE, "both kernelParams and extra are given"),
        (true, true) if kernel.parameters.is_empty() => Vec::new(),
        (true, true) => {
            return fail(ERROR_INVALID_VALUE, format!("{}: neither kernelParams nor extra is given", kernel.name));
        }
        // SAFETY: the caller's arguments are one address for each parameter of the kernel.
        (false, true) => unsafe { gathered(driver, request.arguments, &kernel)? },
        // SAFETY: the caller's list of extras is well formed and ends.
        (true, false) => unsafe { packed(driver, request.extra, &kernel)? },
    };
    let launch = KernelLaunch {
        function: handle,
        kernel,
        grid: request.grid,
        block: request.block,
        shared_bytes: request.shared_bytes,
        shared_limit,
        parameters,
    };
    Ok(launch)
}

fn wrong(kernel: &crate::machine::Kernel, kind: Kind, what: String) -> Finding {
    Finding { kernel: Some(kernel.name.clone()), ..Finding::new(kind, what) }
}

/// The argument bytes, from the address of each argument.
///
/// # Safety
/// `arguments` holds one address for each parameter; each is null or valid for reading as many bytes as the parameter has.
unsafe fn gathered(
    driver: &mut Driver,
    arguments: *const *const c_void,
    kernel: &crate::machine::Kernel,
) -> Outcome<Vec<u8>> {
    let mut bytes = vec![0u8; kernel.parameter_bytes];
    for (index, &(offset, size)) in kernel.parameters.iter().enumerate() {
        // SAFETY: one address for each parameter.
        let argument = unsafe { arguments.add(index).read() };
        if argument.is_null() {
            return fail(ERROR_INVALID_VALUE, format!("{}: the address of argument {index} is null", kernel.name));
        }
        if Machine::is_device_address(argument as u64) {
            let what = format!("the address of argument {index} is one of the device: pass the address of the pointer");
            return Err(driver.found(wrong(kernel, Kind::HostPointer, what)));
        }
        // SAFETY: valid for reading `size` bytes.
        bytes[offset..offset + size].copy_from_slice(unsafe { std::slice::from_raw_parts(argument.cast(), size) });
    }
    Ok(bytes)
}

/// The argument bytes, from one buffer.
///
/// # Safety
/// `extra` is a list of names and values that ends in `CU_LAUNCH_PARAM_END`; the buffer is as large as it says.
unsafe fn packed(driver: &mut Driver, extra: *const *mut c_void, kernel: &crate::machine::Kernel) -> Outcome<Vec<u8>> {
    let (mut buffer, mut size) = (std::ptr::null::<u8>(), None);
    let mut at = 0;
    loop {
        // SAFETY: the list has not ended.
        let name = unsafe { extra.add(at).read() } as usize;
        if name == LAUNCH_PARAM_END {
            break;
        }
        // SAFETY: a value follows each name.
        let value = unsafe { extra.add(at + 1).read() };
        match name {
            LAUNCH_PARAM_BUFFER_POINTER => buffer = value.cast_const().cast(),
            // SAFETY: null, or the address of a size.
            LAUNCH_PARAM_BUFFER_SIZE => size = unsafe { value.cast::<usize>().as_ref() }.copied(),
            _ => return fail(ERROR_INVALID_VALUE, format!("extra: there is no parameter {name}")),
        }
        at += 2;
    }
    let Some(size) = size else {
        return fail(ERROR_INVALID_VALUE, "extra: the size of the buffer is missing");
    };
    if size != kernel.parameter_bytes {
        let what = format!("{} takes {} bytes of arguments, found {size}", kernel.name, kernel.parameter_bytes);
        return Err(driver.found(wrong(kernel, Kind::ArgumentSize, what)));
    }
    if Machine::is_device_address(buffer as u64) {
        let what = "the argument buffer is at a device address".to_owned();
        return Err(driver.found(wrong(kernel, Kind::HostPointer, what)));
    }
    match size {
        0 => Ok(Vec::new()),
        _ if buffer.is_null() => fail(ERROR_INVALID_VALUE, "extra: the buffer is missing"),
        // SAFETY: the buffer has this size.
        _ => Ok(unsafe { std::slice::from_raw_parts(buffer, size) }.to_vec()),
    }
}
