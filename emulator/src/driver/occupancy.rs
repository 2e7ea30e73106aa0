//! Occupancy: how many blocks of a kernel a multiprocessor holds, by threads, registers and shared memory.
//!
//! Source: CUDA C++ Programming Guide, "Compute Capabilities", and the occupancy calculator of Nsight Compute, for 8.0 and 9.0. The
//! registers of a kernel are an estimate of what ptxas would use.

use std::ffi::{c_int, c_uint};
use std::sync::Arc;

use super::border::{border, lock, out};
use super::failure::{Outcome, fail, failure};
use super::types::*;
use crate::device::Device;
use crate::machine::Kernel;

/// Blocks per multiprocessor.
pub const MAX_BLOCKS: u32 = 32;
/// Bytes of shared memory that the driver keeps in each block.
pub const RESERVED_SHARED: u32 = 1024;
const WARP: u32 = 32;
/// Registers are handed out to a warp in multiples of this, to multiples of `WARP_STEP` warps.
const REGISTER_STEP: u32 = 256;
const WARP_STEP: u32 = 4;
/// Shared memory is handed out in multiples of this, bytes.
const SHARED_STEP: u32 = 128;

/// Blocks of `threads` threads with `shared` bytes of dynamic shared memory that fit one multiprocessor.
fn blocks(device: &Device, kernel: &Kernel, threads: u32, shared: usize) -> u32 {
    if threads == 0 || threads > device.max_threads.min(kernel.max_threads) {
        return 0;
    }
    let warps = threads.div_ceil(WARP);
    let by_threads = device.threads_per_multiprocessor / WARP / warps;
    let by_registers = match kernel.registers.min(255) {
        0 => MAX_BLOCKS,
        registers => {
            let of_a_warp = (registers * WARP).next_multiple_of(REGISTER_STEP);
            device.registers_per_block / of_a_warp / WARP_STEP * WARP_STEP / warps
        }
    };
    let shared = u64::from(kernel.static_shared) + shared as u64;
    if shared > u64::from(device.shared_optin) {
        return 0;
    }
    let of_a_block = (shared as u32 + RESERVED_SHARED).next_multiple_of(SHARED_STEP);
    let by_shared = device.shared_per_multiprocessor / of_a_block;
    by_threads.min(by_registers).min(by_shared).min(MAX_BLOCKS)
}

fn looked_up(function: CUfunction) -> Outcome<(&'static Device, Arc<Kernel>)> {
    let driver = lock()?;
    let found = driver.function(function)?;
    driver.healthy(found.context)?;
    Ok((driver.device(), found.kernel.clone()))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    count: *mut c_int,
    function: CUfunction,
    block: c_int,
    shared: usize,
) -> CUresult {
    // SAFETY: the same contract.
    unsafe { cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(count, function, block, shared, 0) }
}

/// Flag 1 concerns caching, which does not matter to these devices.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    count: *mut c_int,
    function: CUfunction,
    block: c_int,
    shared: usize,
    flags: c_uint,
) -> CUresult {
    border("cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags", || {
        let (device, kernel) = looked_up(function)?;
        // SAFETY: `count` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(count)? };
        if flags & !1 != 0 {
            return fail(ERROR_INVALID_VALUE, format!("there are no occupancy flags {flags:#x}"));
        }
        answer.write(blocks(device, &kernel, positive(block)?, shared) as c_int);
        Ok(())
    })
}

fn positive(count: c_int) -> Outcome<u32> {
    let count = u32::try_from(count).ok().filter(|count| *count > 0);
    count.ok_or_else(|| failure(ERROR_INVALID_VALUE, "a count must be positive"))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxPotentialBlockSize(
    grid: *mut c_int,
    block: *mut c_int,
    function: CUfunction,
    shared_of_block: CUoccupancyB2DSize,
    shared: usize,
    limit: c_int,
) -> CUresult {
    // SAFETY: the same contract.
    unsafe { cuOccupancyMaxPotentialBlockSizeWithFlags(grid, block, function, shared_of_block, shared, limit, 0) }
}

/// The block that keeps most threads resident, the largest of equals, and the grid that fills the device with it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    grid: *mut c_int,
    block: *mut c_int,
    function: CUfunction,
    shared_of_block: CUoccupancyB2DSize,
    shared: usize,
    limit: c_int,
    flags: c_uint,
) -> CUresult {
    border("cuOccupancyMaxPotentialBlockSizeWithFlags", || {
        // The lock is free again here: the program's function may call the driver.
        let (device, kernel) = looked_up(function)?;
        // SAFETY: `grid` and `block` are each null or room for the answer: the caller's promise.
        let (grid, block) = unsafe { (out(grid)?, out(block)?) };
        if flags & !1 != 0 || limit < 0 {
            return fail(ERROR_INVALID_VALUE, format!("flags {flags:#x}, limit {limit}"));
        }
        let most = device.max_threads.min(kernel.max_threads);
        let most = if limit == 0 { most } else { most.min(limit as u32) };
        // The largest size itself, then multiples of a warp.
        let sizes = std::iter::once(most).chain((1..=most / WARP).rev().map(|warps| warps * WARP));
        let mut best = (0, 0, 0); // resident threads, block, blocks
        for threads in sizes {
            // SAFETY: the program's function, given for this.
            let shared = shared_of_block.map_or(shared, |of| unsafe { of(threads as c_int) });
            let count = blocks(device, &kernel, threads, shared);
            if count * threads > best.0 {
                best = (count * threads, threads, count);
            }
        }
        grid.write((best.2 * device.multiprocessors) as c_int);
        block.write(best.1 as c_int);
        Ok(())
    })
}

/// Dynamic shared memory for each of `count` resident blocks; 0 when so many do not fit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyAvailableDynamicSMemPerBlock(
    bytes: *mut usize,
    function: CUfunction,
    count: c_int,
    block: c_int,
) -> CUresult {
    border("cuOccupancyAvailableDynamicSMemPerBlock", || {
        let (device, kernel) = looked_up(function)?;
        // SAFETY: `bytes` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(bytes)? };
        let (count, threads) = (positive(count)?, positive(block)?);
        let each = device.shared_per_multiprocessor / count / SHARED_STEP * SHARED_STEP;
        let each = each.saturating_sub(RESERVED_SHARED).min(device.shared_optin).saturating_sub(kernel.static_shared);
        answer.write(if blocks(device, &kernel, threads, each as usize) >= count { each as usize } else { 0 });
        Ok(())
    })
}
