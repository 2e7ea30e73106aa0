//! A session with the emulated driver for a test: one at a time, since the process has one driver.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]
#![allow(dead_code)] // each test file uses its part

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ptx_emulator::count::LaunchCounts;
use ptx_emulator::driver::tally::Tally;
use ptx_emulator::driver::{
    context::*, copy::*, device::*, embed::*, errors::*, launch::*, memory::*, module::*, stream::*, types::*,
};
use ptx_emulator::finding::Finding;

pub const KERNELS: &CStr = match CStr::from_bytes_with_nul(concat!(include_str!("kernels.ptx"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => panic!(),
};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Keeps other tests out.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The primary context, current in this thread and released at the end.
pub struct Session {
    pub context: CUcontext,
    _alone: MutexGuard<'static, ()>,
}

impl Session {
    pub fn new() -> Self {
        Session::with(r#"{"model": "a100", "checks": true, "seed": 0, "threads": 1, "devices": 1, "lazy": false}"#)
    }

    /// With options, as a JSON object.
    pub fn with(options: &str) -> Self {
        let alone = alone();
        let options = CString::new(options).unwrap();
        let mut context = null_mut();
        unsafe {
            ok(cuInit(0));
            ok(ptx_emulator_configure(options.as_ptr()));
            ok(cuDevicePrimaryCtxRetain(&mut context, 0));
            ok(cuCtxSetCurrent(context));
        }
        findings();
        Session { context, _alone: alone }
    }

    pub fn stream(&self, flags: u32) -> CUstream {
        let mut stream = null_mut();
        ok(unsafe { cuStreamCreate(&mut stream, flags) });
        stream
    }

    pub fn module(&self) -> CUmodule {
        let mut module = null_mut();
        ok(unsafe { cuModuleLoadData(&mut module, KERNELS.as_ptr().cast()) });
        module
    }

    pub fn function(&self, name: &str) -> CUfunction {
        function_of(self.module(), name)
    }

    /// A buffer with these values.
    pub fn upload(&self, values: &[i32]) -> CUdeviceptr {
        let at = allocate(4 * values.len());
        ok(unsafe { cuMemcpyHtoD_v2(at, values.as_ptr().cast(), 4 * values.len()) });
        at
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        unsafe {
            cuDevicePrimaryCtxRelease_v2(0);
            cuCtxSetCurrent(null_mut());
        }
    }
}

pub fn function_of(module: CUmodule, name: &str) -> CUfunction {
    let name = CString::new(name).unwrap();
    let mut function = null_mut();
    ok(unsafe { cuModuleGetFunction(&mut function, module, name.as_ptr()) });
    function
}

pub fn allocate(bytes: usize) -> CUdeviceptr {
    let mut at = 0;
    ok(unsafe { cuMemAlloc_v2(&mut at, bytes) });
    at
}

pub fn download(at: CUdeviceptr, count: usize) -> Vec<i32> {
    let mut values = vec![0i32; count];
    ok(unsafe { cuMemcpyDtoH_v2(values.as_mut_ptr().cast(), at, 4 * count) });
    values
}

pub fn free(at: CUdeviceptr) {
    ok(unsafe { cuMemFree_v2(at) });
}

/// Addresses of arguments, as a launch takes them.
macro_rules! arguments {
    ($($argument:expr),*) => { [$(&raw const $argument as *mut std::ffi::c_void),*] };
}
#[allow(unused_imports)]
pub(crate) use arguments;

/// One block of so many threads, without shared memory.
pub fn launch(function: CUfunction, threads: u32, stream: CUstream, arguments: &mut [*mut c_void]) -> CUresult {
    launch_with(function, [1, 1, 1], [threads, 1, 1], 0, stream, arguments)
}

pub fn launch_with(
    function: CUfunction,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: CUstream,
    arguments: &mut [*mut c_void],
) -> CUresult {
    let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
    let arguments = arguments.as_mut_ptr();
    unsafe { cuLaunchKernel(function, gx, gy, gz, bx, by, bz, shared, stream, arguments, null_mut()) }
}

/// `x[i] = x[i] * factor + 1`
pub fn step(function: CUfunction, x: CUdeviceptr, factor: i32, n: i32, stream: CUstream) -> CUresult {
    launch(function, 32, stream, &mut arguments![x, factor, n])
}

#[track_caller]
pub fn ok(code: CUresult) {
    assert_eq!(code, SUCCESS, "{}", message(code));
}

/// Fails with this error, whose text contains these words.
#[track_caller]
pub fn fails(code: CUresult, expected: CUresult, words: &str) {
    assert_eq!(code, expected, "{}", message(code));
    assert!(message(code).contains(words), "{:?} without {words:?}", message(code));
}

pub fn message(code: CUresult) -> String {
    let mut text = null();
    unsafe {
        assert_eq!(cuGetErrorString(code, &mut text), SUCCESS);
        CStr::from_ptr(text).to_str().unwrap().to_owned()
    }
}

/// What was found since the last call.
pub fn findings() -> Vec<Finding> {
    parsed(unsafe { ptx_emulator_findings() })
}

/// The launches counted since the last call.
pub fn profile() -> Vec<LaunchCounts> {
    parsed(unsafe { ptx_emulator_profile() })
}

/// What was asked of the driver since the last call.
pub fn tally() -> Tally {
    parsed(unsafe { ptx_emulator_tally() })
}

fn parsed<T: serde::de::DeserializeOwned>(json: *mut c_char) -> T {
    unsafe {
        let value = serde_json::from_slice(CStr::from_ptr(json).to_bytes()).unwrap();
        ptx_emulator_free_string(json);
        value
    }
}
