//! Device memory, and what is known of an address.

use std::ffi::{c_int, c_uint, c_void};

use super::border::{border, lock, out};
use super::failure::{Outcome, fail, failure};
use super::state::{Driver, Guard};
use super::types::*;
use crate::finding::{Finding, Kind};

impl Driver {
    pub fn allocate(&mut self, context: usize, bytes: usize) -> Outcome<CUdeviceptr> {
        if bytes == 0 {
            return fail(ERROR_INVALID_VALUE, "an allocation of 0 bytes");
        }
        let Some(address) = self.machine_of(context).allocate(bytes) else {
            let (free, total) = self.machine_of(context).memory();
            return fail(ERROR_OUT_OF_MEMORY, format!("{bytes} bytes were asked, {free} of {total} are free"));
        };
        self.buffers.insert(address, context);
        Ok(address)
    }

    /// Frees also in a failed context, so that only what the program forgot counts as a leak.
    fn free(&mut self, address: CUdeviceptr) -> Outcome {
        if address == 0 {
            return fail(ERROR_INVALID_VALUE, "a free of a null address");
        }
        if self.free_managed(address)? {
            return Ok(());
        }
        // Memory is freed in any context, as addresses are of one space.
        let owner = self.buffers.remove(&address);
        if let Some(owner) = owner.filter(|owner| self.contexts.get(*owner).is_some()) {
            return self.machine_of(owner).free(address).map_err(|finding| self.found(finding));
        }
        if owner.is_none() && self.machine().buffer_at(address).is_some_and(|(base, _)| base == address) {
            let what = match self.virtual_memory.is_mapped(address) {
                true => "the address is mapped memory, which cuMemUnmap takes back",
                false => "the address is a module's variable",
            };
            return Err(self.found(Finding { address: Some(address), ..Finding::new(Kind::InvalidFree, what) }));
        }
        self.machine().free(address).map_err(|finding| self.found(finding))
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize) -> CUresult {
    border("cuMemAlloc_v2", || {
        let mut driver = lock()?;
        let context = driver.working()?;
        // SAFETY: `address` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(address)? };
        answer.write(driver.allocate(context, bytes)?);
        Ok(())
    })
}

/// Not in a capture: memory nodes are not emulated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocAsync(address: *mut CUdeviceptr, bytes: usize, stream: CUstream) -> CUresult {
    border("cuMemAllocAsync", || {
        // SAFETY: `address` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(address)? };
        answer.write(allocate_in(lock()?, bytes, stream)?);
        Ok(())
    })
}

/// Stream-ordered memory.
pub(super) fn allocate_in(mut driver: Guard, bytes: usize, stream: CUstream) -> Outcome<CUdeviceptr> {
    let stream = driver.stream(stream)?;
    let context = driver.context_of(stream)?;
    driver.healthy(context)?;
    driver.not_capturing(stream, "allocating stream-ordered memory")?;
    driver.allocate(context, bytes)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFree_v2(address: CUdeviceptr) -> CUresult {
    border("cuMemFree_v2", || {
        let mut driver = lock()?;
        let context = driver.current()?;
        driver.free(address)?;
        driver.healthy(context)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemFreeAsync(address: CUdeviceptr, stream: CUstream) -> CUresult {
    border("cuMemFreeAsync", || {
        let mut driver = lock()?;
        let stream = driver.stream(stream)?;
        let context = driver.context_of(stream)?;
        driver.not_capturing(stream, "freeing stream-ordered memory")?;
        driver.free(address)?;
        driver.healthy(context)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> CUresult {
    border("cuMemGetInfo_v2", || {
        let mut driver = lock()?;
        driver.working()?;
        // SAFETY: `free` and `total` are each null or room for the answer: the caller's promise.
        let (free, total) = unsafe { (out(free)?, out(total)?) };
        let sizes = driver.machine().memory();
        free.write(sizes.0);
        total.write(sizes.1);
        Ok(())
    })
}

/// Either answer may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetAddressRange_v2(
    base: *mut CUdeviceptr,
    bytes: *mut usize,
    address: CUdeviceptr,
) -> CUresult {
    border("cuMemGetAddressRange_v2", || {
        let mut driver = lock()?;
        driver.working()?;
        let found = driver.machine().buffer_at(address);
        let found = found.ok_or_else(|| failure(ERROR_NOT_FOUND, format!("no buffer is at {address:#x}")))?;
        // SAFETY: each is null or valid for writing.
        unsafe {
            if let Some(base) = base.as_mut() {
                *base = found.0;
            }
            if let Some(bytes) = bytes.as_mut() {
                *bytes = found.1;
            }
        }
        Ok(())
    })
}

/// For device buffers, managed and pinned memory: context (1), kind of memory (2), addresses (3, 4), synchronous operations (6), number
/// of the buffer (7), managed (8), device (9), range (11, 12), mapped (13), kinds of sharing (14), access (16), pool (17).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuPointerGetAttribute(value: *mut c_void, attribute: c_int, address: CUdeviceptr) -> CUresult {
    border("cuPointerGetAttribute", || {
        let mut driver = lock()?;
        driver.working()?;
        if value.is_null() {
            return fail(ERROR_INVALID_VALUE, "the address for the answer is null");
        }
        // SAFETY: the caller gives room for a value of the attribute's type.
        unsafe { driver.attribute_of(value, attribute, address) }
    })
}

/// Several attributes; what an address does not have is zero, also where it is none that the driver knows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuPointerGetAttributes(
    count: c_uint,
    attributes: *mut c_int,
    values: *mut *mut c_void,
    address: CUdeviceptr,
) -> CUresult {
    border("cuPointerGetAttributes", || {
        let mut driver = lock()?;
        driver.working()?;
        if count == 0 || attributes.is_null() || values.is_null() {
            return fail(ERROR_INVALID_VALUE, "no attributes, or the addresses are null");
        }
        for n in 0..count as usize {
            // SAFETY: the caller gives `count` attributes and addresses for the answers.
            let (attribute, value) = unsafe { (attributes.add(n).read(), values.add(n).read()) };
            let bytes = width_of(attribute)?;
            if value.is_null() {
                return fail(ERROR_INVALID_VALUE, "the address for an answer is null");
            }
            // SAFETY: the caller gives room for a value of each attribute's type.
            unsafe {
                value.cast::<u8>().write_bytes(0, bytes);
                if let Err(failure) = driver.attribute_of(value, attribute, address)
                    && failure.code != ERROR_INVALID_VALUE
                {
                    return Err(failure);
                }
            }
        }
        Ok(())
    })
}

/// Whether operations on the memory are synchronous (6), as all are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuPointerSetAttribute(
    value: *const c_void,
    attribute: c_int,
    address: CUdeviceptr,
) -> CUresult {
    border("cuPointerSetAttribute", || {
        let mut driver = lock()?;
        driver.working()?;
        if value.is_null() || attribute != 6 || driver.machine().buffer_at(address).is_none() {
            return fail(ERROR_INVALID_VALUE, format!("pointer attribute {attribute} of {address:#x} cannot be set"));
        }
        Ok(())
    })
}

/// Bytes of an attribute's value.
fn width_of(attribute: c_int) -> Outcome<usize> {
    match attribute {
        1 | 3 | 4 | 7 | 11 | 12 | 14 | 17 => Ok(8),
        2 | 6 | 8 | 9 | 10 | 13 | 16 => Ok(4),
        5..=21 => fail(ERROR_NOT_SUPPORTED, format!("pointer attribute {attribute} is not emulated")),
        _ => fail(ERROR_INVALID_VALUE, format!("there is no pointer attribute {attribute}")),
    }
}

impl Driver {
    /// # Safety
    /// `value` has room for a value of the attribute's type.
    unsafe fn attribute_of(&mut self, value: *mut c_void, attribute: c_int, address: CUdeviceptr) -> Outcome {
        const HOST: c_uint = 1;
        const DEVICE: c_uint = 2;
        let managed = self.managed_at(address).is_some();
        let pinned = self.pinned_at(address as usize).map(|(base, pinned)| (base as u64, pinned.bytes, pinned.mapped));
        let mapped = pinned.is_some_and(|(.., mapped)| mapped);
        let (base, bytes, kind) = match (pinned, self.machine().buffer_at(address)) {
            (Some((base, bytes, _)), _) => (base, bytes, HOST),
            (None, Some((base, bytes))) => (base, bytes, DEVICE),
            (None, None) => {
                return fail(
                    ERROR_INVALID_VALUE,
                    format!("{address:#x} is neither device memory nor pinned host memory"),
                );
            }
        };
        let context = match kind {
            DEVICE => self.buffers.get(&base).copied(),
            _ => self.pinned.get(&(base as usize)).map(|pinned| pinned.context),
        };
        // A module's variable belongs to the context of the module, which is not looked up here.
        let context = context.map_or_else(|| self.current(), Ok)?;
        width_of(attribute)?;
        // SAFETY: the caller gives room for a value of the attribute's type.
        unsafe {
            match attribute {
                1 => value.cast::<CUcontext>().write(context as CUcontext),
                2 => value.cast::<c_uint>().write(kind),
                3 if kind == DEVICE || mapped => value.cast::<CUdeviceptr>().write(address),
                4 if kind == HOST || managed => value.cast::<CUdeviceptr>().write(address),
                3 | 4 => return fail(ERROR_INVALID_VALUE, "the memory has no address on that side: it is not mapped"),
                // Operations are synchronous.
                6 => value.cast::<c_uint>().write(1),
                7 => value.cast::<u64>().write(base),
                8 => value.cast::<c_uint>().write(u32::from(managed)),
                9 => value.cast::<c_int>().write(self.device_of(context)),
                10 => value.cast::<c_uint>().write(0),
                11 => value.cast::<CUdeviceptr>().write(base),
                12 => value.cast::<usize>().write(bytes),
                13 => value.cast::<c_uint>().write(u32::from(kind == DEVICE || mapped)),
                14 | 17 => value.cast::<u64>().write(0),
                // Read and write.
                _ => value.cast::<c_uint>().write(3),
            }
        }
        Ok(())
    }
}
