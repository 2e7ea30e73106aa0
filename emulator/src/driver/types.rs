//! Types and numbers of `cuda.h`. Handles are opaque; all are numbers of entries in the driver's tables.

use std::ffi::{c_char, c_int, c_uint, c_void};

pub type CUresult = i32;
pub type CUdevice = c_int;
pub type CUdeviceptr = u64;
pub type CUcontext = *mut c_void;
pub type CUmodule = *mut c_void;
pub type CUfunction = *mut c_void;
pub type CUstream = *mut c_void;
pub type CUevent = *mut c_void;
pub type CUgraph = *mut c_void;
pub type CUgraphNode = *mut c_void;
pub type CUgraphExec = *mut c_void;
pub type CUmemoryPool = *mut c_void;
/// `CUmemGenericAllocationHandle`
pub type CUmemHandle = u64;
pub type CUlinkState = *mut c_void;
pub type CUlibrary = *mut c_void;
pub type CUkernel = *mut c_void;

/// `CUhostFn`: runs in stream order.
pub type CUhostFn = Option<unsafe extern "C" fn(*mut c_void)>;
pub type CUstreamCallback = Option<unsafe extern "C" fn(CUstream, CUresult, *mut c_void)>;
/// Dynamic shared memory of a block of so many threads.
pub type CUoccupancyB2DSize = Option<unsafe extern "C" fn(c_int) -> usize>;

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CUuuid {
    pub bytes: [c_char; 16],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUlaunchConfig {
    pub gridDimX: c_uint,
    pub gridDimY: c_uint,
    pub gridDimZ: c_uint,
    pub blockDimX: c_uint,
    pub blockDimY: c_uint,
    pub blockDimZ: c_uint,
    pub sharedMemBytes: c_uint,
    pub hStream: CUstream,
    pub attrs: *const CUlaunchAttribute,
    pub numAttrs: c_uint,
}

/// The value is a union of 64 bytes; what of it counts depends on `id`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUlaunchAttribute {
    pub id: c_uint,
    pub pad: [c_char; 4],
    pub value: [u32; 16],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUmemLocation {
    pub kind: c_int,
    pub id: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUmemPoolProps {
    pub allocType: c_int,
    pub handleTypes: c_int,
    pub location: CUmemLocation,
    pub win32SecurityAttributes: *mut c_void,
    pub maxSize: usize,
    pub usage: u16,
    pub reserved: [u8; 54],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUmemAllocationProp {
    pub kind: c_int,
    pub requestedHandleTypes: c_int,
    pub location: CUmemLocation,
    pub win32HandleMetaData: *mut c_void,
    pub compressionType: u8,
    pub gpuDirectRDMACapable: u8,
    pub usage: u16,
    pub reserved: [u8; 4],
}

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUmemAccessDesc {
    pub location: CUmemLocation,
    pub flags: c_int,
}

const _: () = assert!(size_of::<CUmemAllocationProp>() == 32 && size_of::<CUmemAccessDesc>() == 12);
const _: () = assert!(
    size_of::<CUlaunchConfig>() == 56 && size_of::<CUlaunchAttribute>() == 72 && size_of::<CUmemPoolProps>() == 88
);

/// `CU_STREAM_LEGACY` (also null) and `CU_STREAM_PER_THREAD`.
pub const STREAM_LEGACY: usize = 1;
pub const STREAM_PER_THREAD: usize = 2;
pub const STREAM_NON_BLOCKING: u32 = 1;

pub const EVENT_BLOCKING_SYNC: u32 = 1;
pub const EVENT_DISABLE_TIMING: u32 = 2;
pub const EVENT_INTERPROCESS: u32 = 4;

/// `CU_LAUNCH_PARAM_*`, in the `extra` argument of a launch.
pub const LAUNCH_PARAM_END: usize = 0;
pub const LAUNCH_PARAM_BUFFER_POINTER: usize = 1;
pub const LAUNCH_PARAM_BUFFER_SIZE: usize = 2;

pub const CAPTURE_STATUS_NONE: c_int = 0;
pub const CAPTURE_STATUS_ACTIVE: c_int = 1;
pub const CAPTURE_STATUS_INVALIDATED: c_int = 2;

pub const SUCCESS: CUresult = 0;
pub const ERROR_INVALID_VALUE: CUresult = 1;
pub const ERROR_OUT_OF_MEMORY: CUresult = 2;
pub const ERROR_NOT_INITIALIZED: CUresult = 3;
pub const ERROR_INVALID_DEVICE: CUresult = 101;
pub const ERROR_INVALID_IMAGE: CUresult = 200;
pub const ERROR_INVALID_CONTEXT: CUresult = 201;
pub const ERROR_NO_BINARY_FOR_GPU: CUresult = 209;
pub const ERROR_UNSUPPORTED_LIMIT: CUresult = 215;
pub const ERROR_INVALID_PTX: CUresult = 218;
pub const ERROR_UNSUPPORTED_PTX_VERSION: CUresult = 222;
pub const ERROR_FILE_NOT_FOUND: CUresult = 301;
pub const ERROR_INVALID_HANDLE: CUresult = 400;
pub const ERROR_ILLEGAL_STATE: CUresult = 401;
pub const ERROR_NOT_FOUND: CUresult = 500;
pub const ERROR_NOT_READY: CUresult = 600;
pub const ERROR_PRIMARY_CONTEXT_ACTIVE: CUresult = 708;
pub const ERROR_CONTEXT_IS_DESTROYED: CUresult = 709;
pub const ERROR_HOST_MEMORY_ALREADY_REGISTERED: CUresult = 712;
pub const ERROR_HOST_MEMORY_NOT_REGISTERED: CUresult = 713;
pub const ERROR_NOT_PERMITTED: CUresult = 800;
pub const ERROR_NOT_SUPPORTED: CUresult = 801;
pub const ERROR_STREAM_CAPTURE_UNSUPPORTED: CUresult = 900;
pub const ERROR_STREAM_CAPTURE_INVALIDATED: CUresult = 901;
pub const ERROR_STREAM_CAPTURE_MERGE: CUresult = 902;
pub const ERROR_STREAM_CAPTURE_UNMATCHED: CUresult = 903;
pub const ERROR_STREAM_CAPTURE_UNJOINED: CUresult = 904;
pub const ERROR_STREAM_CAPTURE_ISOLATION: CUresult = 905;
pub const ERROR_STREAM_CAPTURE_IMPLICIT: CUresult = 906;
pub const ERROR_CAPTURED_EVENT: CUresult = 907;
pub const ERROR_STREAM_CAPTURE_WRONG_THREAD: CUresult = 908;
pub const ERROR_UNKNOWN: CUresult = 999;
