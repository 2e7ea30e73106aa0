//! `cuInit`, the driver's version, and the devices.

use std::ffi::{c_char, c_int, c_uint};

use super::border::{border, lock, out};
use super::failure::{Outcome, fail, failure};
use super::state::{Driver, locked};
use super::texts;
use super::types::*;
use crate::config;
use crate::device::Model;
use crate::machine::Options;

/// CUDA 13.0.
pub const DRIVER_VERSION: c_int = 13_000;

/// Reads the options; a wrong one fails, with a line on the standard error stream. A variable that is misspelt is told there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuInit(flags: c_uint) -> CUresult {
    border("cuInit", || {
        let mut driver = locked();
        if flags != 0 {
            return fail(ERROR_INVALID_VALUE, "the flags of cuInit must be 0");
        }
        if driver.options.is_none() {
            let mut options = Options::default();
            let read = config::apply_environment(&mut options, |name| std::env::var_os(name));
            let read = read
                .and_then(|()| driver.configured.iter().try_for_each(|json| config::apply_json(&mut options, json)));
            let read = read.map_err(|e| e.to_string()).and_then(|()| texts::findings_can_be_kept());
            if let Err(why) = read {
                texts::tell(&why);
                return fail(ERROR_INVALID_VALUE, why);
            }
            for name in config::unknown_variables(std::env::vars_os().map(|(name, _)| name)) {
                texts::tell(&format!("there is no variable {name}: it changes nothing"));
            }
            driver.options = Some(options);
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> CUresult {
    border("cuDriverGetVersion", || {
        // SAFETY: `version` is null or room for the answer: the caller's promise.
        unsafe { out(version)? }.write(DRIVER_VERSION);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> CUresult {
    border("cuDeviceGetCount", || {
        let devices = lock()?.devices();
        // SAFETY: `count` is null or room for the answer: the caller's promise.
        unsafe { out(count)? }.write(devices as c_int);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut CUdevice, ordinal: c_int) -> CUresult {
    border("cuDeviceGet", || {
        let driver = lock()?;
        // SAFETY: `device` is null or room for the answer: the caller's promise.
        let device = unsafe { out(device)? };
        known(&driver, ordinal)?;
        device.write(ordinal);
        Ok(())
    })
}

/// Refuses all devices but those there are.
pub(super) fn known(driver: &Driver, device: CUdevice) -> Outcome {
    match driver.devices() {
        count if (0..count as c_int).contains(&device) => Ok(()),
        1 => fail(ERROR_INVALID_DEVICE, format!("device {device}: only device 0 is emulated")),
        count => fail(ERROR_INVALID_DEVICE, format!("device {device}: only devices 0 to {} are emulated", count - 1)),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, length: c_int, device: CUdevice) -> CUresult {
    border("cuDeviceGetName", || {
        let driver = lock()?;
        known(&driver, device)?;
        let length = usize::try_from(length).ok().filter(|length| *length > 0 && !name.is_null());
        let length = length.ok_or_else(|| failure(ERROR_INVALID_VALUE, "no room for the name"))?;
        let text = driver.device().name.as_bytes();
        let kept = text.len().min(length - 1);
        // SAFETY: the caller's buffer holds `length` bytes.
        unsafe {
            name.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), kept);
            name.add(kept).write(0);
        }
        Ok(())
    })
}

/// A fixed number for each model, and for each device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut CUuuid, device: CUdevice) -> CUresult {
    border("cuDeviceGetUuid_v2", || {
        let driver = lock()?;
        known(&driver, device)?;
        let text = match driver.options.as_ref().map(|options| options.model) {
            Some(Model::H100) => b"ptx-emulator-H10",
            Some(Model::Rtx5090) => b"ptx-emulator-509",
            _ => b"ptx-emulator-A10",
        };
        // SAFETY: `uuid` is null or room for the answer: the caller's promise.
        let uuid = unsafe { out(uuid)? };
        let mut bytes = text.map(|byte| byte as c_char);
        bytes[0] = bytes[0].wrapping_add(device as c_char);
        uuid.write(CUuuid { bytes });
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid(uuid: *mut CUuuid, device: CUdevice) -> CUresult {
    // SAFETY: the same contract.
    unsafe { cuDeviceGetUuid_v2(uuid, device) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice) -> CUresult {
    border("cuDeviceTotalMem_v2", || {
        let driver = lock()?;
        known(&driver, device)?;
        // SAFETY: `bytes` is null or room for the answer: the caller's promise.
        unsafe { out(bytes)? }.write(driver.device().memory);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: CUdevice) -> CUresult {
    border("cuDeviceGetAttribute", || {
        let driver = lock()?;
        known(&driver, device)?;
        // SAFETY: `value` is null or room for the answer: the caller's promise.
        let value = unsafe { out(value)? };
        let d = driver.device();
        let number = match attribute {
            1 => d.max_threads,
            2..=4 => d.max_block[attribute as usize - 2],
            5..=7 => d.max_grid[attribute as usize - 5],
            8 => d.shared,
            9 => 64 << 10,         // constant memory
            10 => 32,              // threads of a warp
            11 => i32::MAX as u32, // pitch
            12 | 82 => d.registers_per_block,
            13 => d.clock_khz,
            14 | 30 => 512, // alignment of textures and surfaces
            15 => 1,        // copies and kernels overlap
            16 => d.multiprocessors,
            19 => 1,                 // mapped host memory
            31 => 1,                 // concurrent kernels
            32 => 1,                 // error correction
            33 => device as u32 + 1, // number of its PCI bus
            35 => 1,                 // no display
            36 => d.memory_clock_khz,
            37 => d.bus_bits,
            38 => d.l2_bytes,
            39 => d.threads_per_multiprocessor,
            40 => 3, // copy engines
            41 => 1, // unified addresses
            51 => 32,
            75 => d.compute_capability.0,
            76 => d.compute_capability.1,
            78..=80 => 1, // priorities, caching of global and local memory
            81 => d.shared_per_multiprocessor,
            83 | 89 => 1, // managed memory, of host and device at once
            87 => 2,      // single to double precision
            90 => 1,      // preemption
            97 => d.shared_optin,
            99 => 1,                                 // registering host memory
            102 => u32::from(driver.devices() == 1), // virtual memory management
            106 => super::occupancy::MAX_BLOCKS,
            111 => super::occupancy::RESERVED_SHARED,
            115 => 1, // memory pools
            126 => 1, // memory synchronisation domains
            // Textures, surfaces, cooperative and cluster launches, peers, sharing between
            // processes: not emulated.
            17..=18
            | 20..=29
            | 34
            | 42..=50
            | 52..=74
            | 77
            | 84..=86
            | 88
            | 91..=96
            | 98
            | 100..=101
            | 103..=105
            | 107..=110
            | 112..=114 => 0,
            116..=125 | 127..=147 => 0,
            _ => return fail(ERROR_INVALID_VALUE, format!("there is no device attribute {attribute}")),
        };
        value.write(number as c_int);
        Ok(())
    })
}
