//! What cudarc may call and the emulator does not do, refused with the reason; and the profiler's switch, which has no effect.

use std::ffi::{c_int, c_uint, c_void};

use super::border::{border, lock};
use super::failure::fail;
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

unsupported! {
    cuMemAllocManaged(*mut CUdeviceptr, usize, c_uint) "managed memory is";
    cuMemPrefetchAsync_v2(CUdeviceptr, usize, CUmemLocation, c_uint, CUstream) "managed memory is";
    cuMemAdvise_v2(CUdeviceptr, usize, c_int, CUmemLocation) "managed memory is";
    cuStreamAttachMemAsync(CUstream, CUdeviceptr, usize, c_uint) "managed memory is";
    cuMemcpy2D_v2(*const c_void) "copies of rectangles are";
    cuMemcpy2DAsync_v2(*const c_void, CUstream) "copies of rectangles are";
    cuLaunchCooperativeKernel(CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void)
        "cooperative launches are";
    cuOccupancyMaxActiveClusters(*mut c_int, CUfunction, *const CUlaunchConfig) "clusters are";
    cuOccupancyMaxPotentialClusterSize(*mut c_int, CUfunction, *const CUlaunchConfig) "clusters are";
    cuImportExternalMemory(*mut *mut c_void, *const c_void) "memory of other APIs is";
    cuExternalMemoryGetMappedBuffer(*mut CUdeviceptr, *mut c_void, *const c_void) "memory of other APIs is";
    cuDestroyExternalMemory(*mut c_void) "memory of other APIs is";
}
