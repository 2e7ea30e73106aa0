//! The device, its attributes, errors as text, contexts and their limits.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ffi::{CStr, c_char};
use std::ptr::{null, null_mut};

use crate::common::*;
use ptx_emulator::driver::{
    context::*, copy::*, device::*, errors::*, memory::*, proc_address::*, rectangles::*, stream::*, types::*,
};

fn attribute(number: i32) -> i32 {
    let mut value = -1;
    ok(unsafe { cuDeviceGetAttribute(&mut value, number, 0) });
    value
}

#[test]
fn device_is_an_a100() {
    let _session = Session::new();
    let mut name = [0x7F as c_char; 64];
    let mut bytes = 0;
    unsafe {
        ok(cuDeviceGetName(name.as_mut_ptr(), 64, 0));
        assert!(CStr::from_ptr(name.as_ptr()).to_str().unwrap().contains("A100"));
        ok(cuDeviceGetName(name.as_mut_ptr(), 4, 0));
        assert_eq!(CStr::from_ptr(name.as_ptr()).count_bytes(), 3);
        fails(cuDeviceGetName(name.as_mut_ptr(), 0, 0), ERROR_INVALID_VALUE, "room");
        ok(cuDeviceTotalMem_v2(&mut bytes, 0));
        assert_eq!(bytes, 80 << 30);
        fails(cuDeviceGet(&mut 0, 1), ERROR_INVALID_DEVICE, "only device 0");
        fails(cuDeviceGet(&mut 0, -1), ERROR_INVALID_DEVICE, "only device 0");
        fails(cuDeviceGetAttribute(&mut 0, 1, 3), ERROR_INVALID_DEVICE, "device 3");
        fails(cuDeviceGetAttribute(&mut 0, 0, 0), ERROR_INVALID_VALUE, "attribute 0");
        fails(cuDeviceGetAttribute(&mut 0, 9999, 0), ERROR_INVALID_VALUE, "attribute 9999");
        fails(cuDeviceGetAttribute(null_mut(), 1, 0), ERROR_INVALID_VALUE, "null");
    }
    assert_eq!((attribute(75), attribute(76)), (8, 0));
    assert_eq!((attribute(1), attribute(10), attribute(16)), (1024, 32, 108));
    assert_eq!((attribute(5), attribute(6), attribute(7)), (i32::MAX, 65535, 65535));
    assert_eq!((attribute(8), attribute(97), attribute(81)), (48 << 10, 163 << 10, 164 << 10));
    assert_eq!((attribute(83), attribute(95), attribute(115), attribute(120)), (1, 0, 1, 0));
    for number in 1..=147 {
        assert!(attribute(number) >= 0, "{number}");
    }
}

#[test]
fn device_is_an_h100_when_asked() {
    let _session = Session::with(r#"{"model": "h100"}"#);
    assert_eq!((attribute(75), attribute(16), attribute(97)), (9, 132, 227 << 10));
    let mut uuids = [CUuuid { bytes: [0; 16] }; 2];
    ok(unsafe { cuDeviceGetUuid(&mut uuids[0], 0) });
    ok(unsafe { cuDeviceGetUuid_v2(&mut uuids[1], 0) });
    assert_eq!(uuids[0], uuids[1]);
    assert_ne!(uuids[0].bytes, [0; 16]);
}

/// Each has a context and memory of its own; a kernel of one that reaches for the other's is found, and the other goes on.
#[test]
fn two_devices_share_nothing_but_the_driver() {
    let session =
        Session::with(r#"{"model": "a100", "checks": true, "seed": 0, "threads": 1, "lazy": false, "devices": 2}"#);
    let (mut count, mut device, mut second) = (0, -1, null_mut());
    unsafe {
        ok(cuDeviceGetCount(&mut count));
        fails(cuDeviceGet(&mut device, 2), ERROR_INVALID_DEVICE, "only devices 0 to 1");
        ok(cuDeviceGet(&mut device, 1));
        ok(cuDevicePrimaryCtxRetain(&mut second, 1));
    }
    assert_eq!((count, device), (2, 1));
    assert_ne!(second, session.context);
    let on = |context| ok(unsafe { cuCtxSetCurrent(context) });
    let first = (session.function("step"), session.upload(&[1, 2, 3]));
    on(second);
    ok(unsafe { cuCtxGetDevice(&mut device) });
    assert_eq!(device, 1);
    let other = (session.function("step"), session.upload(&[10, 20, 30]));
    let mut memory = [(0, 0); 2];
    for (context, sizes) in [second, session.context].into_iter().zip(&mut memory) {
        on(context);
        ok(unsafe { cuMemGetInfo_v2(&mut sizes.0, &mut sizes.1) });
    }
    assert_eq!(memory[0], memory[1], "each has as much left");
    ok(step(first.0, first.1, 2, 3, null_mut()));
    assert_eq!(download(first.1, 3), [3, 5, 7]);
    on(second);
    ok(step(other.0, other.1, 2, 3, null_mut()));
    assert_eq!(download(other.1, 3), [21, 41, 61]);
    // A copy finds each side where it is, whichever context is current.
    unsafe {
        ok(cuMemcpyPeer(first.1, session.context, other.1, second, 8));
        ok(cuMemcpyPeerAsync(other.1 + 8, second, first.1, session.context, 4, null_mut()));
        ok(cuMemcpyDtoD_v2(first.1 + 4, first.1, 4));
    }
    assert_eq!(download(other.1, 3), [21, 41, 21]);
    on(session.context);
    assert_eq!(download(first.1, 3), [21, 21, 7]);
    ok(unsafe { cuMemcpyHtoD_v2(first.1, [3, 5, 7].as_ptr().cast(), 12) });
    on(second);
    // The launch is well formed; what the kernel does is not.
    ok(step(other.0, first.1, 2, 3, null_mut()));
    let code = unsafe { cuCtxSynchronize() };
    assert_ne!(code, SUCCESS, "the context has failed");
    assert_eq!(findings().len(), 1);
    on(session.context);
    ok(unsafe { cuCtxSynchronize() });
    assert_eq!(download(first.1, 3), [3, 5, 7]);
    free(first.1);
    ok(unsafe { cuDevicePrimaryCtxRelease_v2(1) });
}

#[test]
fn errors_have_names_and_texts() {
    let _alone = alone();
    let name = |error| unsafe {
        let mut name = null();
        let code = cuGetErrorName(error, &mut name);
        (code, (!name.is_null()).then(|| CStr::from_ptr(name).to_str().unwrap()))
    };
    assert_eq!(name(0), (SUCCESS, Some("CUDA_SUCCESS")));
    assert_eq!(name(700), (SUCCESS, Some("CUDA_ERROR_ILLEGAL_ADDRESS")));
    assert_eq!(name(999), (SUCCESS, Some("CUDA_ERROR_UNKNOWN")));
    assert_eq!(name(55), (ERROR_INVALID_VALUE, None));
    assert_eq!(message(46), "CUDA-capable device(s) is/are busy or unavailable");
    assert!(message(ERROR_INVALID_VALUE).starts_with("invalid argument"));
    unsafe {
        assert_eq!(cuGetErrorString(56, &mut null()), ERROR_INVALID_VALUE);
        assert_eq!(cuGetErrorString(1, null_mut()), ERROR_INVALID_VALUE);
        assert_eq!(cuGetErrorName(1, null_mut()), ERROR_INVALID_VALUE);
    }
}

/// A text handed out stays as it was when later failures have other texts.
#[test]
fn error_texts_stay_valid() {
    let _session = Session::new();
    fails(unsafe { cuDeviceGet(&mut 0, 5) }, ERROR_INVALID_DEVICE, "device 5");
    let mut text = null();
    ok(unsafe { cuGetErrorString(ERROR_INVALID_DEVICE, &mut text) });
    fails(unsafe { cuDeviceGet(&mut 0, 6) }, ERROR_INVALID_DEVICE, "device 6");
    assert!(unsafe { CStr::from_ptr(text) }.to_str().unwrap().contains("device 5"));
}

#[test]
fn primary_context_is_counted() {
    let session = Session::new();
    let (mut flags, mut active, mut again) = (1, 0, null_mut());
    unsafe {
        ok(cuDevicePrimaryCtxRetain(&mut again, 0));
        assert_eq!(again, session.context);
        ok(cuDevicePrimaryCtxRelease_v2(0));
        ok(cuDevicePrimaryCtxGetState(0, &mut flags, &mut active));
        assert_eq!((flags, active), (0, 1));
        ok(cuCtxSynchronize());

        ok(cuDevicePrimaryCtxRelease_v2(0));
        ok(cuDevicePrimaryCtxGetState(0, &mut flags, &mut active));
        assert_eq!(active, 0);
        fails(cuCtxSynchronize(), ERROR_CONTEXT_IS_DESTROYED, "released");
        fails(cuMemAlloc_v2(&mut 0, 4), ERROR_CONTEXT_IS_DESTROYED, "released");
        fails(cuDevicePrimaryCtxRelease_v2(0), ERROR_INVALID_CONTEXT, "not retained");
        fails(cuCtxSetCurrent(session.context), ERROR_INVALID_CONTEXT, "stale");
        let mut current = null_mut();
        ok(cuCtxGetCurrent(&mut current));
        assert_eq!(current, session.context);

        ok(cuDevicePrimaryCtxRetain(&mut again, 0));
        assert_ne!(again, session.context, "a handle is never used again");
        ok(cuCtxSetCurrent(again));
        ok(cuCtxSynchronize());
    }
}

#[test]
fn threads_have_contexts_of_their_own() {
    let session = Session::new();
    let context = session.context as usize;
    std::thread::spawn(move || unsafe {
        let mut current = null_mut();
        ok(cuCtxGetCurrent(&mut current));
        assert!(current.is_null());
        fails(cuMemAlloc_v2(&mut 0, 4), ERROR_INVALID_CONTEXT, "no current context");
        fails(cuStreamSynchronize(null_mut()), ERROR_INVALID_CONTEXT, "no current context");
        ok(cuCtxSetCurrent(context as CUcontext));
        free(allocate(4));
    })
    .join()
    .unwrap();
    for foreign in [1usize, 0xDEAD_0000, context + 8] {
        fails(unsafe { cuCtxSetCurrent(foreign as CUcontext) }, ERROR_INVALID_CONTEXT, "foreign");
        fails(unsafe { cuCtxDestroy_v2(foreign as CUcontext) }, ERROR_INVALID_CONTEXT, "foreign");
    }
}

#[test]
fn created_contexts_are_a_stack() {
    let session = Session::new();
    let (mut created, mut popped, mut current) = (null_mut(), null_mut(), null_mut());
    unsafe {
        ok(cuCtxCreate_v2(&mut created, 0, 0));
        ok(cuCtxGetCurrent(&mut current));
        assert_eq!(current, created);
        ok(cuCtxPopCurrent_v2(&mut popped));
        assert_eq!(popped, created);
        ok(cuCtxGetCurrent(&mut current));
        assert_eq!(current, session.context);
        ok(cuCtxPushCurrent_v2(created));
        let mut device = 9;
        ok(cuCtxGetDevice(&mut device));
        assert_eq!(device, 0);

        // A stream of another context is not this one's, and goes with its own.
        let stream = session.stream(0);
        ok(cuCtxDestroy_v2(created));
        ok(cuCtxGetCurrent(&mut current));
        assert_eq!(current, session.context);
        fails(cuStreamSynchronize(stream), ERROR_INVALID_HANDLE, "stream");
        fails(cuCtxDestroy_v2(created), ERROR_INVALID_CONTEXT, "stale");
        fails(cuCtxDestroy_v2(session.context), ERROR_INVALID_CONTEXT, "released, not destroyed");

        ok(cuCtxCreate_v4(&mut created, null(), 0, 0));
        ok(cuCtxDestroy_v2(created));
        ok(cuCtxCreate_v3(&mut created, null_mut(), 0, 0, 0));
        ok(cuCtxDestroy_v2(created));
        fails(cuCtxCreate_v4(&mut created, &[0, 0, 1], 0, 0), ERROR_NOT_SUPPORTED, "graphics");
        ok(cuCtxPopCurrent_v2(null_mut()));
        fails(cuCtxPopCurrent_v2(null_mut()), ERROR_INVALID_CONTEXT, "no current context");
        ok(cuCtxPushCurrent_v2(session.context));
    }
}

#[test]
fn limits_flags_and_preferences_are_kept() {
    let _session = Session::new();
    unsafe {
        let mut bytes = 0;
        ok(cuCtxGetLimit(&mut bytes, 0));
        assert_eq!(bytes, 1024);
        ok(cuCtxSetLimit(0, 4096));
        ok(cuCtxGetLimit(&mut bytes, 0));
        assert_eq!(bytes, 4096);
        fails(cuCtxGetLimit(&mut bytes, 7), ERROR_UNSUPPORTED_LIMIT, "limit 7");
        fails(cuCtxSetLimit(-1, 1), ERROR_UNSUPPORTED_LIMIT, "limit -1");
        let (mut flags, mut config, mut least, mut greatest) = (9, 9, 9, 9);
        ok(cuCtxSetFlags(4));
        ok(cuCtxGetFlags(&mut flags));
        ok(cuCtxSetCacheConfig(2));
        ok(cuCtxGetCacheConfig(&mut config));
        ok(cuCtxGetStreamPriorityRange(&mut least, &mut greatest));
        assert_eq!((flags, config, least, greatest), (4, 2, 0, -5));
        fails(cuCtxSetCacheConfig(4), ERROR_INVALID_VALUE, "preference 4");
    }
}

#[test]
fn functions_are_found_by_name() {
    let _alone = alone();
    let (mut address, mut status) = (null_mut(), 9);
    unsafe {
        ok(cuGetProcAddress_v2(c"cuMemAlloc".as_ptr(), &mut address, 13_000, 0, &mut status));
        assert_eq!((address, status), (cuMemAlloc_v2 as *mut _, 0));
        let missing = cuGetProcAddress_v2(c"cuNothing".as_ptr(), &mut address, 13_000, 0, &mut status);
        fails(missing, ERROR_NOT_FOUND, "cuNothing");
        assert_eq!((address, status), (null_mut(), 1));
        fails(cuGetProcAddress(null(), &mut address, 13_000, 0), ERROR_INVALID_VALUE, "null");
    }
}
