//! What is asked of a device or context beside its attributes; of peers there are none.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::border::{border, lock, out, text};
use super::device::{DRIVER_VERSION, known};
use super::failure::{fail, failure, invalid};
use super::texts;
use super::types::*;

/// Where a device would be plugged in.
fn bus(device: CUdevice) -> String {
    format!("0000:{:02x}:00.0", device + 1)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, device: CUdevice) -> CUresult {
    border("cuDeviceComputeCapability", || {
        let driver = lock()?;
        known(&driver, device)?;
        let capability = driver.device().compute_capability;
        // SAFETY: `major` and `minor` are null or room for the answer: the caller's promise.
        let (major, minor) = unsafe { (out(major)?, out(minor)?) };
        major.write(capability.0 as c_int);
        minor.write(capability.1 as c_int);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetPCIBusId(id: *mut c_char, length: c_int, device: CUdevice) -> CUresult {
    border("cuDeviceGetPCIBusId", || {
        known(&*lock()?, device)?;
        let bus = bus(device);
        if id.is_null() || usize::try_from(length).is_ok_and(|n| n <= bus.len()) || length < 0 {
            return fail(ERROR_INVALID_VALUE, format!("no room for the {} bytes of the name", bus.len() + 1));
        }
        // SAFETY: the caller's buffer holds `length` bytes, more than the name has.
        unsafe {
            id.cast::<u8>().copy_from_nonoverlapping(bus.as_ptr(), bus.len());
            id.add(bus.len()).write(0);
        }
        Ok(())
    })
}

/// The domain may be left out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetByPCIBusId(device: *mut CUdevice, id: *const c_char) -> CUresult {
    border("cuDeviceGetByPCIBusId", || {
        let devices = lock()?.devices();
        // SAFETY: `device` is null or room for the answer, and `id` is null or a string that ends in a NUL: the caller's promise.
        let (answer, id) = unsafe { (out(device)?, text(id)?) };
        let is_at =
            |device: &CUdevice| bus(*device).eq_ignore_ascii_case(id) || bus(*device)[5..].eq_ignore_ascii_case(id);
        let Some(found) = (0..devices as CUdevice).find(is_at) else {
            return fail(ERROR_INVALID_DEVICE, format!("no device is at {id}; one is at {}", bus(0)));
        };
        answer.write(found);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceCanAccessPeer(can: *mut c_int, device: CUdevice, peer: CUdevice) -> CUresult {
    border("cuDeviceCanAccessPeer", || {
        let driver = lock()?;
        known(&driver, device)?;
        known(&driver, peer)?;
        drop(driver);
        // SAFETY: `can` is null or room for the answer: the caller's promise.
        unsafe { out(can)? }.write(0);
        Ok(())
    })
}

/// The version of the interface that a context was made for; null means this thread's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetApiVersion(context: CUcontext, version: *mut c_uint) -> CUresult {
    border("cuCtxGetApiVersion", || {
        let driver = lock()?;
        // SAFETY: `version` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(version)? };
        match context.is_null() {
            true => drop(driver.current()?),
            false => drop(driver.contexts.get(context as usize).ok_or_else(|| invalid("context"))?),
        }
        // As drivers say since 3.2, whatever their own version.
        answer.write(if DRIVER_VERSION >= 3020 { 3020 } else { 3010 });
        Ok(())
    })
}

/// A number that no other context of the process has; null means this thread's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxGetId(context: CUcontext, id: *mut u64) -> CUresult {
    border("cuCtxGetId", || {
        let driver = lock()?;
        // SAFETY: `id` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(id)? };
        let handle = if context.is_null() { driver.current()? } else { context as usize };
        driver.contexts.get(handle).ok_or_else(|| failure(ERROR_INVALID_CONTEXT, "no such context"))?;
        answer.write(handle as u64);
        Ok(())
    })
}

/// The context of a stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetCtx(stream: CUstream, context: *mut CUcontext) -> CUresult {
    border("cuStreamGetCtx", || {
        let mut driver = lock()?;
        // SAFETY: `context` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(context)? };
        let stream = driver.stream(stream)?;
        answer.write(driver.context_of(stream)? as CUcontext);
        Ok(())
    })
}

/// The number of a stream, which no other has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetId(stream: CUstream, id: *mut u64) -> CUresult {
    border("cuStreamGetId", || {
        let mut driver = lock()?;
        // SAFETY: `id` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(id)? };
        answer.write(driver.stream(stream)? as u64);
        Ok(())
    })
}

/// Kernels are compiled when they are asked for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetLoadingMode(mode: *mut c_int) -> CUresult {
    const LAZY: c_int = 2;
    border("cuModuleGetLoadingMode", || {
        drop(lock()?);
        // SAFETY: `mode` is null or room for the answer: the caller's promise.
        unsafe { out(mode)? }.write(LAZY);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFuncGetModule(module: *mut CUmodule, function: CUfunction) -> CUresult {
    border("cuFuncGetModule", || {
        let driver = lock()?;
        // SAFETY: `module` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(module)? };
        answer.write(driver.function(function)?.module as CUmodule);
        Ok(())
    })
}

/// Tables of undocumented functions that are known by name, and which of them the CUDA runtime needs.
const TABLES: [(u128, &str, bool); 5] = [
    (0x6bd5fb6c_5bf4_e74a_8987_d93912fd9df9, "the CUDA runtime's interface", true),
    (0xd4082055_bde6_704b_8d34_ba123c66e1f2, "whether the driver is NVIDIA's", true),
    (0x42d85a81_23f6_cb47_8298_f6e78a3aecdc, "the tools' thread storage", false),
    (0xa094798c_2e74_2e74_93f2_0800200c0a66, "the tools' callbacks", false),
    (0xc693336e_1121_df11_a8c3_68f355d89593, "the contexts' storage", false),
];

/// Tables of undocumented functions, of which there are none: libraries that ask for one, as NVRTC does, go on without. The CUDA runtime
/// does not: among its tables is one by which a driver proves that it is NVIDIA's, which this one is not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetExportTable(table: *mut *const c_void, id: *const CUuuid) -> CUresult {
    border("cuGetExportTable", || {
        // SAFETY: `table` is null or room for the answer, and `id` is null or an identifier: the caller's promise.
        let (answer, id) = unsafe { (out(table)?, id.as_ref()) };
        answer.write(std::ptr::null());
        let id = id.ok_or_else(|| failure(ERROR_INVALID_VALUE, "the identifier is null"))?;
        let number = u128::from_be_bytes(id.bytes.map(|b| b as u8));
        let known = TABLES.iter().find(|(of, ..)| *of == number);
        let name = known.map_or(String::new(), |(_, name, _)| format!(" ({name})"));
        if known.is_some_and(|(.., needed)| *needed) {
            static TOLD: std::sync::Once = std::sync::Once::new();
            TOLD.call_once(|| {
                texts::tell(
                    "the CUDA runtime (libcudart, or what is linked into a program from libcudart_static) asks for tables of NVIDIA's \
                     driver that are not documented (cuGetExportTable), and does not run without them; programs of the driver's \
                     interface do: cuda-bindings, cudarc, numba-cuda, NVRTC, Triton's kernels",
                );
            });
        }
        fail(ERROR_NOT_FOUND, format!("the emulator has no table {number:032x}{name}"))
    })
}
