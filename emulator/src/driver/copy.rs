//! Copies and fills. Each has happened when its call returns, unless the stream captures.

use std::ffi::{c_uchar, c_uint, c_ushort, c_void};
use std::sync::Arc;

use super::border::{border, lock};
use super::failure::{Outcome, fail};
use super::submit::{run_and_wait, submit};
use super::types::*;
use super::work::{Copy, Direction, Fill, Work};
use crate::machine::Machine;

/// A call that returns when the work is done.
fn blocking(work: Work, call: &'static str) -> CUresult {
    border(call, || {
        let mut driver = lock()?;
        let context = driver.working()?;
        driver.may_block(context, call)?;
        driver.tally.synchronisations += 1;
        run_and_wait(driver, context, &[Arc::new(work)])
    })
}

fn queued(work: Work, stream: CUstream, call: &'static str) -> CUresult {
    border(call, || submit(lock()?, stream, work, call))
}

fn host_to_device(to: CUdeviceptr, from: *const c_void, bytes: usize) -> Work {
    Work::Copy(Copy { to, from: from as u64, bytes, direction: Direction::HostToDevice })
}

fn device_to_host(to: *mut c_void, from: CUdeviceptr, bytes: usize) -> Work {
    Work::Copy(Copy { to: to as u64, from, bytes, direction: Direction::DeviceToHost })
}

fn within_device(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) -> Work {
    Work::Copy(Copy { to, from, bytes, direction: Direction::DeviceToDevice })
}

/// The addresses tell which sides are device memory.
fn anywhere(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) -> Work {
    let direction = match (Machine::is_device_address(to), Machine::is_device_address(from)) {
        (true, true) => Direction::DeviceToDevice,
        (true, false) => Direction::HostToDevice,
        (false, true) => Direction::DeviceToHost,
        (false, false) => Direction::HostToHost,
    };
    Work::Copy(Copy { to, from, bytes, direction })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: CUdeviceptr, from: *const c_void, bytes: usize) -> CUresult {
    blocking(host_to_device(to, from, bytes), "cuMemcpyHtoD_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(
    to: CUdeviceptr,
    from: *const c_void,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    queued(host_to_device(to, from, bytes), stream, "cuMemcpyHtoDAsync_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize) -> CUresult {
    blocking(device_to_host(to, from, bytes), "cuMemcpyDtoH_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(
    to: *mut c_void,
    from: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    queued(device_to_host(to, from, bytes), stream, "cuMemcpyDtoHAsync_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoD_v2(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) -> CUresult {
    blocking(within_device(to, from, bytes), "cuMemcpyDtoD_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoDAsync_v2(
    to: CUdeviceptr,
    from: CUdeviceptr,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    queued(within_device(to, from, bytes), stream, "cuMemcpyDtoDAsync_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy(to: CUdeviceptr, from: CUdeviceptr, bytes: usize) -> CUresult {
    blocking(anywhere(to, from, bytes), "cuMemcpy")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyAsync(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream) -> CUresult {
    queued(anywhere(to, from, bytes), stream, "cuMemcpyAsync")
}

/// Contexts share the device's memory: a copy between two is a copy within the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyPeerAsync(
    to: CUdeviceptr,
    to_context: CUcontext,
    from: CUdeviceptr,
    from_context: CUcontext,
    bytes: usize,
    stream: CUstream,
) -> CUresult {
    border("cuMemcpyPeerAsync", || {
        let driver = lock()?;
        if [to_context, from_context].into_iter().any(|context| driver.contexts.get(context as usize).is_none()) {
            return fail(ERROR_INVALID_CONTEXT, "no such context: stale or foreign handle");
        }
        submit(driver, stream, within_device(to, from, bytes), "cuMemcpyPeerAsync")
    })
}

/// `count` elements of `N` bytes; the address must be a multiple of `N`.
fn fill<const N: usize>(to: CUdeviceptr, value: [u8; N], count: usize) -> Outcome<Work> {
    if !to.is_multiple_of(N as u64) {
        return fail(ERROR_INVALID_VALUE, format!("the address {to:#x} is not a multiple of {N}"));
    }
    let mut pattern = [0; 4];
    pattern[..N].copy_from_slice(&value);
    Ok(Work::Fill(Fill { to, pattern, width: N, count }))
}

fn blocking_fill<const N: usize>(to: CUdeviceptr, value: [u8; N], count: usize, call: &'static str) -> CUresult {
    match fill(to, value, count) {
        Ok(work) => blocking(work, call),
        Err(failure) => border(call, || Err(failure)),
    }
}

fn queued_fill<const N: usize>(
    to: CUdeviceptr,
    value: [u8; N],
    count: usize,
    stream: CUstream,
    call: &'static str,
) -> CUresult {
    match fill(to, value, count) {
        Ok(work) => queued(work, stream, call),
        Err(failure) => border(call, || Err(failure)),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8_v2(to: CUdeviceptr, value: c_uchar, count: usize) -> CUresult {
    blocking_fill(to, [value], count, "cuMemsetD8_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD16_v2(to: CUdeviceptr, value: c_ushort, count: usize) -> CUresult {
    blocking_fill(to, value.to_ne_bytes(), count, "cuMemsetD16_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD32_v2(to: CUdeviceptr, value: c_uint, count: usize) -> CUresult {
    blocking_fill(to, value.to_ne_bytes(), count, "cuMemsetD32_v2")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(to: CUdeviceptr, value: c_uchar, count: usize, stream: CUstream) -> CUresult {
    queued_fill(to, [value], count, stream, "cuMemsetD8Async")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD16Async(
    to: CUdeviceptr,
    value: c_ushort,
    count: usize,
    stream: CUstream,
) -> CUresult {
    queued_fill(to, value.to_ne_bytes(), count, stream, "cuMemsetD16Async")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD32Async(to: CUdeviceptr, value: c_uint, count: usize, stream: CUstream) -> CUresult {
    queued_fill(to, value.to_ne_bytes(), count, stream, "cuMemsetD32Async")
}
