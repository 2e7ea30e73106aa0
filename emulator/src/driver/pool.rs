//! Pools of stream-ordered memory. All take from the device's memory; their settings are kept and change nothing.

use std::ffi::{c_int, c_void};

use super::border::{border, lock, out};
use super::device::known;
use super::failure::{Outcome, fail, invalid};
use super::handles::Pool;
use super::memory::allocate_in;
use super::state::Driver;
use super::types::*;

impl Driver {
    fn default_pool(&mut self) -> usize {
        match self.default_pool {
            Some(pool) => pool,
            None => *self.default_pool.insert(self.pools.insert(Pool::new())),
        }
    }

    fn pool(&mut self, handle: CUmemoryPool) -> Outcome<&mut Pool> {
        self.pools.get_mut(handle as usize).ok_or_else(|| invalid("memory pool"))
    }
}

impl Pool {
    /// Reuse is allowed in every way, and freed memory goes back at once.
    fn new() -> Self {
        Pool { settings: [1, 1, 1, 0] }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetDefaultMemPool(pool: *mut CUmemoryPool, device: CUdevice) -> CUresult {
    border("cuDeviceGetDefaultMemPool", || {
        let mut driver = lock()?;
        known(&driver, device)?;
        driver.sole("memory pools are not emulated")?;
        // SAFETY: `pool` is null or room for the answer: the caller's promise.
        unsafe { out(pool)? }.write(driver.default_pool() as CUmemoryPool);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetMemPool(pool: *mut CUmemoryPool, device: CUdevice) -> CUresult {
    border("cuDeviceGetMemPool", || {
        let mut driver = lock()?;
        known(&driver, device)?;
        driver.sole("memory pools are not emulated")?;
        // SAFETY: `pool` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(pool)? };
        let pool = driver.device_pool.unwrap_or_else(|| driver.default_pool());
        answer.write(pool as CUmemoryPool);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceSetMemPool(device: CUdevice, pool: CUmemoryPool) -> CUresult {
    border("cuDeviceSetMemPool", || {
        let mut driver = lock()?;
        known(&driver, device)?;
        driver.sole("memory pools are not emulated")?;
        driver.pool(pool)?;
        driver.device_pool = Some(pool as usize);
        Ok(())
    })
}

/// Pinned memory of the device (allocation type 1, location type 1), not shared with other processes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolCreate(pool: *mut CUmemoryPool, properties: *const CUmemPoolProps) -> CUresult {
    border("cuMemPoolCreate", || {
        let mut driver = lock()?;
        // SAFETY: `pool` is null or room for the answer, and `properties` is null or holds them: the caller's promise.
        let (answer, properties) = unsafe { (out(pool)?, properties.as_ref()) };
        let Some(p) = properties.filter(|p| p.allocType == 1 && p.location.kind == 1) else {
            return fail(ERROR_INVALID_VALUE, "the properties are null, or not those of device memory");
        };
        known(&driver, p.location.id)?;
        driver.sole("memory pools are not emulated")?;
        if p.handleTypes != 0 || p.maxSize != 0 || p.usage != 0 {
            return fail(ERROR_NOT_SUPPORTED, "shared or bounded memory pools are not emulated");
        }
        answer.write(driver.pools.insert(Pool::new()) as CUmemoryPool);
        Ok(())
    })
}

/// The device's pool in use becomes its default pool again if it is this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolDestroy(pool: CUmemoryPool) -> CUresult {
    border("cuMemPoolDestroy", || {
        let mut driver = lock()?;
        driver.pool(pool)?;
        let handle = pool as usize;
        if driver.default_pool == Some(handle) {
            return fail(ERROR_NOT_PERMITTED, "the default pool cannot be destroyed");
        }
        driver.device_pool = driver.device_pool.filter(|pool| *pool != handle);
        driver.pools.remove(handle);
        Ok(())
    })
}

/// A pool holds nothing that is not in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolTrimTo(pool: CUmemoryPool, _bytes_to_keep: usize) -> CUresult {
    border("cuMemPoolTrimTo", || lock()?.pool(pool).map(|_| ()))
}

/// Attributes 1 to 3 (kinds of reuse) are 32-bit, 4 (the release threshold) 64-bit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolGetAttribute(pool: CUmemoryPool, attribute: c_int, value: *mut c_void) -> CUresult {
    border("cuMemPoolGetAttribute", || {
        let mut driver = lock()?;
        let setting = *setting(driver.pool(pool)?, attribute, value)?;
        // SAFETY: the caller gives room for a value of the attribute's type.
        unsafe {
            match attribute {
                4 => value.cast::<u64>().write(setting),
                _ => value.cast::<c_int>().write(setting as c_int),
            }
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemPoolSetAttribute(pool: CUmemoryPool, attribute: c_int, value: *mut c_void) -> CUresult {
    border("cuMemPoolSetAttribute", || {
        let mut driver = lock()?;
        let setting = setting(driver.pool(pool)?, attribute, value)?;
        // SAFETY: the caller gives a value of the attribute's type.
        *setting = unsafe {
            match attribute {
                4 => value.cast::<u64>().read(),
                _ => value.cast::<c_int>().read() as u64,
            }
        };
        Ok(())
    })
}

fn setting(pool: &mut Pool, attribute: c_int, value: *mut c_void) -> Outcome<&mut u64> {
    match attribute {
        _ if value.is_null() => fail(ERROR_INVALID_VALUE, "the address of the value is null"),
        1..=4 => Ok(&mut pool.settings[attribute as usize - 1]),
        _ => fail(ERROR_NOT_SUPPORTED, format!("memory pool attribute {attribute}: what a pool uses is not counted")),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocFromPoolAsync(
    address: *mut CUdeviceptr,
    bytes: usize,
    pool: CUmemoryPool,
    stream: CUstream,
) -> CUresult {
    border("cuMemAllocFromPoolAsync", || {
        let mut driver = lock()?;
        // SAFETY: `address` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(address)? };
        driver.pool(pool)?;
        answer.write(allocate_in(driver, bytes, stream)?);
        Ok(())
    })
}
