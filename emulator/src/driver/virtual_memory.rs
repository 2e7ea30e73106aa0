//! Virtual memory management: addresses are reserved, memory is created, and the one is mapped at the other.
//!
//! Mapped memory can be used once access was given, as on a GPU: without it, it is an address where no buffer is. All of it goes with
//! the last context of the device.

use std::ffi::{c_int, c_uint, c_ulonglong, c_void};

use super::border::{border, lock, out};
use super::device::known;
use super::failure::{Outcome, fail, failure};
use super::mappings::{Mapping, Physical};
use super::state::{Driver, Guard};
use super::types::*;

/// Sizes and addresses of mappings are multiples of it, 2 MiB.
const GRANULARITY: usize = 2 << 20;
/// Reserved ranges are multiples of a page of the host.
const PAGE: usize = 4096;
/// `CU_MEM_LOCATION_TYPE_DEVICE`, `CU_MEM_ALLOCATION_TYPE_PINNED`, `CU_MEM_ACCESS_FLAGS_PROT_READWRITE`.
const DEVICE: c_int = 1;
const PINNED: c_int = 1;
const READ_WRITE: c_int = 3;

impl Driver {
    /// Gives memory back that nobody has a handle of and that is not mapped.
    fn settle(&mut self, handle: CUmemHandle) {
        if self.virtual_memory.memory.get(&handle).is_some_and(|m| m.handles == 0 && m.mappings == 0) {
            self.virtual_memory.memory.remove(&handle);
            self.machine().drop_chunk(handle);
        }
    }
}

/// The driver, where virtual memory is emulated.
fn driver() -> Outcome<Guard> {
    let driver = lock()?;
    driver.sole("virtual memory management is not emulated")?;
    if driver.machines.is_empty() {
        return fail(ERROR_INVALID_CONTEXT, "virtual memory is emulated as long as the device has a context");
    }
    Ok(driver)
}

/// Multiples of the granularity, not 0.
fn granular(what: &str, number: u64) -> Outcome {
    if number == 0 || !number.is_multiple_of(GRANULARITY as u64) {
        return fail(
            ERROR_INVALID_VALUE,
            format!("{what} {number:#x} is no multiple of {GRANULARITY}, the granularity"),
        );
    }
    Ok(())
}

/// Only a device's memory is emulated.
fn on_device(driver: &Driver, location: CUmemLocation, what: &str) -> Outcome {
    if location.kind != DEVICE {
        return fail(ERROR_NOT_SUPPORTED, format!("{what} at a location of type {} is not emulated", location.kind));
    }
    known(driver, location.id)
}

/// The least and the recommended one are the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetAllocationGranularity(
    granularity: *mut usize,
    properties: *const CUmemAllocationProp,
    option: c_int,
) -> CUresult {
    border("cuMemGetAllocationGranularity", || {
        let driver = lock()?;
        // SAFETY: `granularity` is null or room for the answer, and `properties` is null or holds them: the caller's promise.
        let (answer, properties) = unsafe { (out(granularity)?, properties.as_ref()) };
        let Some(properties) = properties.filter(|p| p.kind == PINNED && (0..2).contains(&option)) else {
            return fail(ERROR_INVALID_VALUE, format!("no properties of pinned memory, or option {option}"));
        };
        on_device(&driver, properties.location, "memory")?;
        answer.write(GRANULARITY);
        Ok(())
    })
}

/// The wished-for address is not taken up: addresses are never handed out twice.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAddressReserve(
    address: *mut CUdeviceptr,
    bytes: usize,
    alignment: usize,
    _wish: CUdeviceptr,
    flags: c_ulonglong,
) -> CUresult {
    border("cuMemAddressReserve", || {
        let mut driver = driver()?;
        // SAFETY: `address` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(address)? };
        if flags != 0 || bytes == 0 || !bytes.is_multiple_of(PAGE) {
            return fail(ERROR_INVALID_VALUE, format!("{bytes} bytes of addresses with flags {flags:#x}"));
        }
        if alignment != 0 && !alignment.is_power_of_two() {
            return fail(ERROR_INVALID_VALUE, format!("the alignment {alignment} is no power of two"));
        }
        let Some(at) = driver.machine().reserve(bytes, alignment.max(GRANULARITY) as u64) else {
            return fail(ERROR_OUT_OF_MEMORY, format!("no {bytes} addresses are left"));
        };
        driver.virtual_memory.reserved.insert(at, bytes);
        answer.write(at);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAddressFree(address: CUdeviceptr, bytes: usize) -> CUresult {
    border("cuMemAddressFree", || {
        let mut driver = driver()?;
        let space = &mut driver.virtual_memory;
        if space.reserved.get(&address) != Some(&bytes) {
            return fail(ERROR_INVALID_VALUE, format!("no {bytes} bytes were reserved at {address:#x}"));
        }
        if let Some((at, _)) = space.mapped.range(address..address + bytes as u64).next() {
            return fail(ERROR_INVALID_VALUE, format!("memory is still mapped at {at:#x}"));
        }
        space.reserved.remove(&address);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemCreate(
    handle: *mut CUmemHandle,
    bytes: usize,
    properties: *const CUmemAllocationProp,
    flags: c_ulonglong,
) -> CUresult {
    border("cuMemCreate", || {
        let mut driver = driver()?;
        // SAFETY: `handle` is null or room for the answer, and `properties` is null or holds them: the caller's promise.
        let (answer, properties) = unsafe { (out(handle)?, properties.as_ref()) };
        let Some(&properties) = properties.filter(|p| p.kind == PINNED && flags == 0) else {
            return fail(ERROR_INVALID_VALUE, "the properties are not those of pinned memory, or the flags are not 0");
        };
        on_device(&driver, properties.location, "memory")?;
        granular("the size", bytes as u64)?;
        let Some(chunk) = driver.machine().chunk(bytes) else {
            let (free, total) = driver.machine().memory();
            return fail(ERROR_OUT_OF_MEMORY, format!("{bytes} bytes were asked, {free} of {total} are free"));
        };
        let context = driver.current().ok();
        let memory = Physical { bytes, properties, context, handles: 1, mappings: 0 };
        driver.virtual_memory.memory.insert(chunk, memory);
        answer.write(chunk);
        Ok(())
    })
}

/// The memory stays as long as it is mapped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemRelease(handle: CUmemHandle) -> CUresult {
    border("cuMemRelease", || {
        let mut driver = driver()?;
        driver.virtual_memory.physical(handle)?.handles -= 1;
        driver.settle(handle);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemMap(
    address: CUdeviceptr,
    bytes: usize,
    offset: usize,
    handle: CUmemHandle,
    flags: c_ulonglong,
) -> CUresult {
    border("cuMemMap", || {
        let mut driver = driver()?;
        let space = &mut driver.virtual_memory;
        let size = space.physical(handle)?.bytes;
        if flags != 0 || offset != 0 {
            return fail(ERROR_INVALID_VALUE, "the offset and the flags of cuMemMap must be 0");
        }
        granular("the address", address)?;
        granular("the size", bytes as u64)?;
        if bytes > size {
            return fail(ERROR_INVALID_VALUE, format!("{bytes} bytes are to be mapped, the memory has {size}"));
        }
        let range = space.reserved.range(..=address).next_back();
        if range.is_none_or(|(at, reserved)| *reserved < bytes || address - at > (reserved - bytes) as u64) {
            return fail(ERROR_INVALID_VALUE, format!("the {bytes} bytes at {address:#x} are not all reserved"));
        }
        let end = address + bytes as u64;
        if space.is_mapped(address) || space.mapped.range(address..end).next().is_some() {
            return fail(ERROR_INVALID_VALUE, format!("something is mapped in the {bytes} bytes at {address:#x}"));
        }
        space.mapped.insert(address, Mapping { bytes, handle, accessible: false });
        space.physical(handle)?.mappings += 1;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemUnmap(address: CUdeviceptr, bytes: usize) -> CUresult {
    border("cuMemUnmap", || {
        let mut driver = driver()?;
        for (at, mapping) in driver.virtual_memory.covering(address, bytes)? {
            driver.virtual_memory.mapped.remove(&at);
            if mapping.accessible {
                driver.machine().free(at).map_err(|finding| driver.found(finding))?;
            }
            if let Some(memory) = driver.virtual_memory.memory.get_mut(&mapping.handle) {
                memory.mappings -= 1;
            }
            driver.settle(mapping.handle);
        }
        Ok(())
    })
}

/// Reading and writing, or nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemSetAccess(
    address: CUdeviceptr,
    bytes: usize,
    access: *const CUmemAccessDesc,
    count: usize,
) -> CUresult {
    border("cuMemSetAccess", || {
        let mut driver = driver()?;
        if access.is_null() || count == 0 {
            return fail(ERROR_INVALID_VALUE, "no access is described");
        }
        // SAFETY: the caller gives `count` descriptions.
        for wanted in unsafe { std::slice::from_raw_parts(access, count) } {
            on_device(&driver, wanted.location, "access")?;
            let accessible = match wanted.flags {
                0 => false,
                READ_WRITE => true,
                1 => return fail(ERROR_NOT_SUPPORTED, "memory that can only be read is not emulated"),
                flags => return fail(ERROR_INVALID_VALUE, format!("there is no access {flags:#x}")),
            };
            for (at, mapping) in driver.virtual_memory.covering(address, bytes)? {
                match (mapping.accessible, accessible) {
                    (false, true) => driver.machine().map(at, mapping.bytes, mapping.handle),
                    (true, false) => driver.machine().free(at).map_err(|finding| driver.found(finding))?,
                    _ => continue,
                }
                driver.virtual_memory.mapped.insert(at, Mapping { accessible, ..mapping });
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetAccess(
    flags: *mut c_ulonglong,
    location: *const CUmemLocation,
    address: CUdeviceptr,
) -> CUresult {
    border("cuMemGetAccess", || {
        let driver = driver()?;
        // SAFETY: `flags` is null or room for the answer, and `location` is null or holds one: the caller's promise.
        let (answer, location) = unsafe { (out(flags)?, location.as_ref()) };
        let location = location.ok_or_else(|| failure(ERROR_INVALID_VALUE, "the location is null"))?;
        on_device(&driver, *location, "access")?;
        let Some((_, mapping)) = driver.virtual_memory.around(address) else {
            return fail(ERROR_INVALID_VALUE, format!("nothing is mapped at {address:#x}"));
        };
        answer.write(if mapping.accessible { READ_WRITE as c_ulonglong } else { 0 });
        Ok(())
    })
}

/// One more handle of mapped memory, to be released like the first.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemRetainAllocationHandle(handle: *mut CUmemHandle, address: *mut c_void) -> CUresult {
    border("cuMemRetainAllocationHandle", || {
        let mut driver = driver()?;
        // SAFETY: `handle` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(handle)? };
        let Some((_, mapping)) = driver.virtual_memory.around(address as CUdeviceptr) else {
            return fail(ERROR_INVALID_VALUE, format!("nothing is mapped at {:#x}", address as usize));
        };
        if let Some(memory) = driver.virtual_memory.memory.get_mut(&mapping.handle) {
            memory.handles += 1;
        }
        answer.write(mapping.handle);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetAllocationPropertiesFromHandle(
    properties: *mut CUmemAllocationProp,
    handle: CUmemHandle,
) -> CUresult {
    border("cuMemGetAllocationPropertiesFromHandle", || {
        let mut driver = driver()?;
        // SAFETY: `properties` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(properties)? };
        answer.write(driver.virtual_memory.physical(handle)?.properties);
        Ok(())
    })
}

/// Memory is not shared between processes here.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemExportToShareableHandle(
    _shareable: *mut c_void,
    _handle: CUmemHandle,
    _kind: c_int,
    _flags: c_ulonglong,
) -> CUresult {
    border("cuMemExportToShareableHandle", || {
        drop(lock()?);
        fail(ERROR_NOT_SUPPORTED, "sharing memory between processes is not emulated")
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemImportFromShareableHandle(
    _handle: *mut CUmemHandle,
    _shareable: *mut c_void,
    _kind: c_uint,
) -> CUresult {
    border("cuMemImportFromShareableHandle", || {
        drop(lock()?);
        fail(ERROR_NOT_SUPPORTED, "sharing memory between processes is not emulated")
    })
}
