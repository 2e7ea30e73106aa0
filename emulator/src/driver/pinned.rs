//! Page-locked host memory. Kernels reach what is mapped, at the address that the host has.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{c_uint, c_void};

use super::border::{border, lock, out};
use super::failure::{Failure, Outcome, fail, failure};
use super::handles::Pinned;
use super::state::Driver;
use super::types::*;
use crate::finding::{Finding, Kind};
use crate::machine::Machine;

const PAGE: usize = 4096;
/// `CU_MEMHOSTALLOC_DEVICEMAP` and `CU_MEMHOSTREGISTER_DEVICEMAP`.
const DEVICE_MAP: c_uint = 2;

impl Driver {
    /// The pinned memory around an address.
    pub fn pinned_at(&self, address: usize) -> Option<(usize, &Pinned)> {
        let (base, pinned) = self.pinned.range(..=address).next_back()?;
        (address - base < pinned.bytes).then_some((*base, pinned))
    }

    /// Bytes from an address to the end of the pinned memory around it.
    pub fn pinned_bytes_from(&self, address: usize) -> Option<usize> {
        self.pinned_at(address).map(|(base, pinned)| pinned.bytes - (address - base))
    }

    /// What to say of an address that is not the start of pinned memory.
    fn not_pinned(&mut self, address: usize) -> Failure {
        let (kind, what) = if self.freed_pinned.contains(&address) {
            (Kind::DoubleFree, "this pinned memory was freed before")
        } else if Machine::is_device_address(address as u64) {
            (Kind::HostPointer, "a device address freed as pinned memory")
        } else {
            (Kind::InvalidFree, "no allocation of pinned memory returned this address")
        };
        self.found(Finding { address: Some(address as u64), ..Finding::new(kind, what) })
    }
}

fn allocate(answer: *mut *mut c_void, bytes: usize, flags: c_uint) -> Outcome {
    let mut driver = lock()?;
    let context = driver.working()?;
    // SAFETY: `answer` is null or room for the answer: the caller's promise.
    let answer = unsafe { out(answer)? };
    if flags & !7 != 0 || bytes == 0 {
        return fail(ERROR_INVALID_VALUE, format!("{bytes} bytes with flags {flags:#x}"));
    }
    let refused = || failure(ERROR_OUT_OF_MEMORY, format!("{bytes} bytes of pinned memory"));
    let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| refused())?;
    // SAFETY: the size is not 0.
    let memory = unsafe { alloc(layout) };
    if memory.is_null() {
        return Err(refused());
    }
    // Undefined on hardware. NaN in every float format, so that a program that reads before writing shows it.
    // SAFETY: just allocated with this size.
    unsafe { memory.write_bytes(0xFF, bytes) };
    driver.freed_pinned.remove(&(memory as usize));
    driver.pinned.insert(memory as usize, Pinned { context, bytes, layout: Some(layout), flags, mapped: false });
    if flags & DEVICE_MAP != 0 {
        driver.map_pinned(memory as usize)?;
    }
    answer.write(memory.cast());
    Ok(())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostAlloc(memory: *mut *mut c_void, bytes: usize, flags: c_uint) -> CUresult {
    border("cuMemHostAlloc", || allocate(memory, bytes, flags))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocHost_v2(memory: *mut *mut c_void, bytes: usize) -> CUresult {
    border("cuMemAllocHost_v2", || allocate(memory, bytes, 0))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeHost(memory: *mut c_void) -> CUresult {
    border("cuMemFreeHost", || {
        let mut driver = lock()?;
        let context = driver.current()?;
        if memory.is_null() {
            return fail(ERROR_INVALID_VALUE, "a free of a null address");
        }
        let address = memory as usize;
        let Some(layout) = driver.pinned.get(&address).and_then(|pinned| pinned.layout) else {
            return Err(driver.not_pinned(address));
        };
        driver.unmap_pinned(address);
        driver.pinned.remove(&address);
        driver.freed_pinned.insert(address);
        // SAFETY: allocated by `allocate` with this layout; leaving the table, it is freed once.
        unsafe { dealloc(memory.cast(), layout) };
        driver.healthy(context)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostRegister_v2(memory: *mut c_void, bytes: usize, flags: c_uint) -> CUresult {
    border("cuMemHostRegister_v2", || {
        let mut driver = lock()?;
        let context = driver.working()?;
        let address = memory as usize;
        let end = address.checked_add(bytes).filter(|_| !memory.is_null() && bytes > 0 && flags & !0xF == 0);
        let end = end
            .ok_or_else(|| failure(ERROR_INVALID_VALUE, format!("{bytes} bytes at {address:#x}, flags {flags:#x}")))?;
        if Machine::is_device_address(address as u64) {
            let what = "a device address registered as host memory";
            return Err(
                driver.found(Finding { address: Some(address as u64), ..Finding::new(Kind::HostPointer, what) })
            );
        }
        let overlaps = driver.pinned_at(address).is_some() || driver.pinned.range(address..end).next().is_some();
        if overlaps {
            return fail(ERROR_HOST_MEMORY_ALREADY_REGISTERED, "part of the memory is pinned already");
        }
        driver.pinned.insert(address, Pinned { context, bytes, layout: None, flags, mapped: false });
        if flags & DEVICE_MAP != 0 {
            driver.map_pinned(address)?;
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostUnregister(memory: *mut c_void) -> CUresult {
    border("cuMemHostUnregister", || {
        let mut driver = lock()?;
        let context = driver.current()?;
        let address = memory as usize;
        if driver.pinned.get(&address).is_none_or(|pinned| pinned.layout.is_some()) {
            return fail(ERROR_HOST_MEMORY_NOT_REGISTERED, format!("{address:#x} was not registered"));
        }
        driver.unmap_pinned(address);
        driver.pinned.remove(&address);
        driver.healthy(context)
    })
}
