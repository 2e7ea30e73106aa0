//! Memory that host and device share: managed memory, and pinned memory that is mapped. Its addresses are those of the host, on both
//! sides. Work runs while the host waits, so nothing needs to move: advice and prefetches are checked and change nothing.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::{c_int, c_uint, c_void};

use super::border::{border, lock, out};
use super::failure::{Outcome, fail, failure};
use super::handles::Managed;
use super::state::Driver;
use super::types::*;

const PAGE: usize = 4096;
/// `CU_MEM_ATTACH_GLOBAL`, `_HOST` and `_SINGLE`.
const ATTACH: [c_uint; 3] = [1, 2, 4];

impl Driver {
    /// The managed memory around an address: its first one, and what it is.
    pub fn managed_at(&self, address: u64) -> Option<(u64, &Managed)> {
        let (base, managed) = self.managed.range(..=address).next_back()?;
        (address - base < managed.bytes as u64).then_some((*base, managed))
    }

    /// Gives managed memory back; whether there was any that begins at the address.
    pub fn free_managed(&mut self, address: u64) -> Outcome<bool> {
        let Some(managed) = self.managed.remove(&address) else { return Ok(false) };
        self.buffers.remove(&address);
        let freed = self.machine().free(address).map(drop).map_err(|finding| self.found(finding));
        // SAFETY: allocated by `cuMemAllocManaged` with this layout; leaving the table, it is freed once.
        unsafe { dealloc(address as *mut u8, managed.layout) };
        freed.map(|()| true)
    }

    /// Lets kernels reach pinned memory, at the address that the host has.
    pub fn map_pinned(&mut self, base: usize) -> Outcome {
        let Some(pinned) = self.pinned.get(&base) else { return Ok(()) };
        let (bytes, mapped) = (pinned.bytes, pinned.mapped);
        if mapped {
            return Ok(());
        }
        self.sole("mapped memory is not emulated")?;
        if !self.machine().share(base as u64, bytes) {
            return fail(ERROR_OUT_OF_MEMORY, format!("no memory to map {bytes} bytes"));
        }
        if let Some(pinned) = self.pinned.get_mut(&base) {
            pinned.mapped = true;
        }
        Ok(())
    }

    /// Takes pinned memory from the device again.
    pub fn unmap_pinned(&mut self, base: usize) {
        if self.pinned.get(&base).is_some_and(|pinned| pinned.mapped) {
            // It is live: the table is kept in step with the machine.
            let _ = self.machine().free(base as u64);
        }
    }

    /// A range must lie in one piece of managed memory.
    fn in_managed(&self, address: u64, bytes: usize) -> Outcome {
        let found = self.managed_at(address).filter(|(base, m)| address - base + bytes as u64 <= m.bytes as u64);
        found
            .map(drop)
            .ok_or_else(|| failure(ERROR_INVALID_VALUE, format!("{bytes} bytes at {address:#x} are no managed memory")))
    }
}

/// Zero, until something writes it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocManaged(address: *mut CUdeviceptr, bytes: usize, flags: c_uint) -> CUresult {
    border("cuMemAllocManaged", || {
        let mut driver = lock()?;
        let context = driver.working()?;
        driver.sole("managed memory is not emulated")?;
        // SAFETY: `address` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(address)? };
        if bytes == 0 || !ATTACH[..2].contains(&flags) {
            return fail(ERROR_INVALID_VALUE, format!("{bytes} bytes of managed memory with flags {flags:#x}"));
        }
        let refused = || failure(ERROR_OUT_OF_MEMORY, format!("{bytes} bytes of managed memory"));
        let layout = Layout::from_size_align(bytes, PAGE).map_err(|_| refused())?;
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            return Err(refused());
        }
        let at = memory as u64;
        if !driver.machine().share(at, bytes) {
            // SAFETY: just allocated with this layout.
            unsafe { dealloc(memory, layout) };
            return Err(refused());
        }
        driver.managed.insert(at, Managed { bytes, layout });
        driver.buffers.insert(at, context);
        answer.write(at);
        Ok(())
    })
}

/// Which stream may use it is not kept: work of all streams runs at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamAttachMemAsync(
    stream: CUstream,
    address: CUdeviceptr,
    bytes: usize,
    flags: c_uint,
) -> CUresult {
    border("cuStreamAttachMemAsync", || {
        let mut driver = lock()?;
        let stream = driver.stream(stream)?;
        let context = driver.context_of(stream)?;
        driver.healthy(context)?;
        driver.not_capturing(stream, "cuStreamAttachMemAsync")?;
        if !ATTACH.contains(&flags) {
            return fail(ERROR_INVALID_VALUE, format!("there are no attach flags {flags:#x}"));
        }
        match driver.managed_at(address) {
            Some((base, managed)) if base == address && (bytes == 0 || bytes == managed.bytes) => Ok(()),
            Some(_) => fail(ERROR_INVALID_VALUE, "managed memory is attached whole"),
            None => fail(ERROR_INVALID_VALUE, format!("{address:#x} is no managed memory")),
        }
    })
}

fn prefetch(call: &'static str, address: CUdeviceptr, bytes: usize, device: c_int, stream: CUstream) -> CUresult {
    border(call, || {
        let mut driver = lock()?;
        let stream = driver.stream(stream)?;
        let context = driver.context_of(stream)?;
        driver.healthy(context)?;
        // Device -1 is the host.
        if !(-1..=0).contains(&device) {
            return fail(ERROR_INVALID_DEVICE, format!("device {device}: only device 0 is emulated"));
        }
        driver.in_managed(address, bytes)
    })
}

/// The device that a place names, the host being -1: kinds 1 (device), 2 to 4 (host).
fn place(location: CUmemLocation) -> c_int {
    if location.kind == 1 { location.id } else { -1 }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPrefetchAsync_v2(
    address: CUdeviceptr,
    bytes: usize,
    location: CUmemLocation,
    _flags: c_uint,
    stream: CUstream,
) -> CUresult {
    prefetch("cuMemPrefetchAsync_v2", address, bytes, place(location), stream)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPrefetchAsync(
    address: CUdeviceptr,
    bytes: usize,
    device: CUdevice,
    stream: CUstream,
) -> CUresult {
    prefetch("cuMemPrefetchAsync", address, bytes, device.max(-1), stream)
}

fn advise(call: &'static str, address: CUdeviceptr, bytes: usize, advice: c_int) -> CUresult {
    border(call, || {
        let driver = lock()?;
        driver.working()?;
        if !(1..=6).contains(&advice) {
            return fail(ERROR_INVALID_VALUE, format!("there is no advice {advice}"));
        }
        driver.in_managed(address, bytes)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAdvise_v2(
    address: CUdeviceptr,
    bytes: usize,
    advice: c_int,
    _location: CUmemLocation,
) -> CUresult {
    advise("cuMemAdvise_v2", address, bytes, advice)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAdvise(address: CUdeviceptr, bytes: usize, advice: c_int, _device: CUdevice) -> CUresult {
    advise("cuMemAdvise", address, bytes, advice)
}

/// Maps the memory, if it is not: as with unified addresses, all pinned memory can be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostGetDevicePointer_v2(
    address: *mut CUdeviceptr,
    memory: *mut c_void,
    flags: c_uint,
) -> CUresult {
    border("cuMemHostGetDevicePointer_v2", || {
        let mut driver = lock()?;
        driver.working()?;
        // SAFETY: `address` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(address)? };
        if flags != 0 {
            return fail(ERROR_INVALID_VALUE, "the flags of cuMemHostGetDevicePointer must be 0");
        }
        let base = driver.pinned_at(memory as usize).map(|(base, _)| base);
        let base =
            base.ok_or_else(|| failure(ERROR_INVALID_VALUE, format!("{:#x} is no pinned memory", memory as usize)))?;
        driver.map_pinned(base)?;
        answer.write(memory as CUdeviceptr);
        Ok(())
    })
}

/// Whether it was allocated as portable, mapped or write-combined.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemHostGetFlags(flags: *mut c_uint, memory: *mut c_void) -> CUresult {
    border("cuMemHostGetFlags", || {
        let driver = lock()?;
        driver.working()?;
        // SAFETY: `flags` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(flags)? };
        let pinned = driver.pinned_at(memory as usize).map(|(_, pinned)| pinned.flags);
        let found = pinned.ok_or_else(|| failure(ERROR_INVALID_VALUE, "the address is no pinned memory"))?;
        answer.write(found);
        Ok(())
    })
}
