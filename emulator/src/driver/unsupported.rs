//! What cudarc may call and the emulator does not do, refused with the reason; and the profiler's switch, which has no effect.

use std::ffi::{c_int, c_uint, c_void};

use super::border::{border, lock};
use super::failure::fail;
use super::texts;
use super::types::*;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuProfilerStart() -> CUresult {
    border("cuProfilerStart", || lock().map(drop))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuProfilerStop() -> CUresult {
    border("cuProfilerStop", || lock().map(drop))
}

macro_rules! unsupported {
    ($($name:ident($($argument:ty),*) $what:literal;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($(_: $argument),*) -> CUresult {
            border(stringify!($name), || {
                drop(lock()?);
                fail(ERROR_NOT_SUPPORTED, concat!($what, " not emulated"))
            })
        }
    )*};
}

/// Functions of cuda.h that nothing more is known of: whatever they are given, they answer `CUDA_ERROR_NOT_SUPPORTED`, and the first
/// call of each says its name.
macro_rules! not_emulated {
    ($($name:ident)*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name() -> $crate::driver::types::CUresult {
                static TOLD: std::sync::Once = std::sync::Once::new();
                $crate::driver::unsupported::refuse(stringify!($name), &TOLD)
            }
        )*

        /// Names and addresses of these functions.
        pub(super) fn functions() -> Vec<(&'static str, *mut std::ffi::c_void)> {
            vec![$((stringify!($name), $name as *mut std::ffi::c_void)),*]
        }
    };
}
pub(super) use not_emulated;

pub(super) fn refuse(name: &'static str, told: &std::sync::Once) -> CUresult {
    told.call_once(|| texts::tell(&format!("{name} is not emulated: it answers CUDA_ERROR_NOT_SUPPORTED")));
    border(name, || fail(ERROR_NOT_SUPPORTED, format!("{name} is not emulated")))
}

unsupported! {
    cuLaunchCooperativeKernel(CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void)
        "cooperative launches are";
    cuOccupancyMaxActiveClusters(*mut c_int, CUfunction, *const CUlaunchConfig) "clusters are";
    cuOccupancyMaxPotentialClusterSize(*mut c_int, CUfunction, *const CUlaunchConfig) "clusters are";
    cuImportExternalMemory(*mut *mut c_void, *const c_void) "memory of other APIs is";
    cuExternalMemoryGetMappedBuffer(*mut CUdeviceptr, *mut c_void, *const c_void) "memory of other APIs is";
    cuDestroyExternalMemory(*mut c_void) "memory of other APIs is";
}
