//! Launches: arguments, limits, and errors that stay.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use crate::common::*;
use ptx_emulator::driver::{
    context::*, copy::*, event::*, function::*, launch::*, memory::*, module::*, stream::*, types::*, unsupported::*,
};
use ptx_emulator::finding::Kind;

#[test]
fn arguments_of_every_size_arrive() {
    let session = Session::new();
    let mixed = session.function("mixed");
    let out = session.upload(&[0]);
    let (a, b, c) = (-3i8, 40.9f64, 1000i16);
    ok(launch(mixed, 1, null_mut(), &mut arguments![a, b, c, out]));
    assert_eq!(download(out, 1), [-3 + 40 + 1000]);

    // The same from one buffer.
    let mut buffer = [0u8; 32];
    buffer[0] = 5;
    buffer[8..16].copy_from_slice(&2.5f64.to_le_bytes());
    buffer[16..18].copy_from_slice(&(-1i16).to_le_bytes());
    buffer[24..].copy_from_slice(&out.to_le_bytes());
    let packed = |bytes: usize| {
        let mut extra = [
            std::ptr::without_provenance_mut(1),
            buffer.as_ptr() as *mut c_void,
            std::ptr::without_provenance_mut(2),
            &raw const bytes as *mut c_void,
            null_mut(),
        ];
        unsafe { cuLaunchKernel(mixed, 1, 1, 1, 1, 1, 1, 0, null_mut(), null_mut(), extra.as_mut_ptr()) }
    };
    ok(packed(32));
    assert_eq!(download(out, 1), [5 + 2 - 1]);
    for wrong in [31, 33, 0] {
        fails(packed(wrong), ERROR_INVALID_VALUE, "mixed takes 32 bytes of arguments");
        let found = findings();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].kind, found[0].kernel.as_deref()), (Kind::ArgumentSize, Some("mixed")));
    }
    ok(unsafe { cuCtxSynchronize() });
    free(out);
}

#[test]
fn wrong_arguments_are_refused() {
    let session = Session::new();
    let module = session.module();
    let fill = function_of(module, "fill");
    let at = session.upload(&[0; 4]);
    let n = 4;
    let raw = |arguments: *mut *mut c_void, extra| unsafe {
        cuLaunchKernel(fill, 1, 1, 1, 4, 1, 1, 0, null_mut(), arguments, extra)
    };
    let mut good = arguments![at, n, n];
    fails(raw(null_mut(), null_mut()), ERROR_INVALID_VALUE, "neither");
    fails(raw(good.as_mut_ptr(), [null_mut()].as_mut_ptr()), ERROR_INVALID_VALUE, "both");
    fails(raw(null_mut(), [9 as *mut c_void, null_mut(), null_mut()].as_mut_ptr()), ERROR_INVALID_VALUE, "parameter 9");
    fails(raw(null_mut(), [null_mut()].as_mut_ptr()), ERROR_INVALID_VALUE, "size of the buffer");
    fails(launch(fill, 4, null_mut(), &mut [good[0], null_mut(), good[2]]), ERROR_INVALID_VALUE, "argument 1 is null");
    assert!(findings().is_empty());
    // The pointer itself in place of its address.
    fails(launch(fill, 4, null_mut(), &mut [at as *mut c_void, good[1], good[2]]), ERROR_INVALID_VALUE, "argument 0");
    assert_eq!(findings()[0].kind, Kind::HostPointer);
    for handle in [0usize, 1, module as usize, at as usize] {
        fails(launch(handle as CUfunction, 4, null_mut(), &mut good), ERROR_INVALID_HANDLE, "function");
    }
    fails(launch(fill, 4, fill, &mut good), ERROR_INVALID_HANDLE, "stream");
    ok(launch(function_of(module, "nothing"), 4, null_mut(), &mut []));
    ok(raw(good.as_mut_ptr(), null_mut()));
    assert_eq!(download(at, 4), [4; 4]);
    free(at);
}

#[test]
fn limits_are_those_of_the_device() {
    let session = Session::new();
    let module = session.module();
    let (nothing, reverse, bounded) =
        (function_of(module, "nothing"), function_of(module, "reverse"), function_of(module, "bounded"));
    let run = |grid, block, shared| launch_with(nothing, grid, block, shared, null_mut(), &mut []);
    ok(run([1, 1, 1], [1024, 1, 1], 0));
    ok(run([1, 1, 1], [1, 16, 64], 48 << 10));
    ok(run([1, 3, 2], [8, 4, 2], 0));
    for (grid, block) in [
        ([1, 1, 1], [1025, 1, 1]),
        ([1, 1, 1], [1024, 2, 1]),
        ([1, 1, 1], [1, 1, 65]),
        ([1, 1, 1], [0, 1, 1]),
        ([0, 1, 1], [1, 1, 1]),
        ([1, 65536, 1], [1, 1, 1]),
        ([1, 1, 65536], [1, 1, 1]),
        ([1 << 31, 1, 1], [1, 1, 1]),
    ] {
        fails(run(grid, block, 0), ERROR_INVALID_VALUE, "nothing: ");
    }
    let at = session.upload(&[0; 64]);
    ok(launch(bounded, 64, null_mut(), &mut arguments![at]));
    fails(launch(bounded, 65, null_mut(), &mut arguments![at]), ERROR_INVALID_VALUE, "compiled for 64");

    // Dynamic shared memory beyond 48 KiB must be asked for.
    let shared = |bytes| launch_with(reverse, [1, 1, 1], [64, 1, 1], bytes, null_mut(), &mut arguments![at]);
    ok(shared(48 << 10));
    fails(shared((48 << 10) + 4), ERROR_INVALID_VALUE, "shared memory");
    ok(unsafe { cuFuncSetAttribute(reverse, 8, 100 << 10) });
    ok(shared(100 << 10));
    fails(shared((100 << 10) + 4), ERROR_INVALID_VALUE, "shared memory");
    ok(unsafe { cuFuncSetAttribute(reverse, 8, 163 << 10) });
    ok(shared(163 << 10));
    // A refused launch fails nothing else.
    ok(unsafe { cuCtxSynchronize() });
    assert_eq!(download(at, 64), (0..64).rev().collect::<Vec<_>>(), "reversed three times");
    free(at);
    assert!(findings().is_empty());
}

#[test]
fn extended_launches_take_what_changes_nothing() {
    let session = Session::new();
    let fill = session.function("fill");
    let at = session.upload(&[0; 4]);
    let n = 4;
    let run = |id: u32, value: [u32; 3]| {
        let mut all = [0; 16];
        all[..3].copy_from_slice(&value);
        let attributes = [CUlaunchAttribute { id, pad: [0; 4], value: all }];
        let config = CUlaunchConfig {
            gridDimX: 1,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: 4,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: 0,
            hStream: null_mut(),
            attrs: attributes.as_ptr(),
            numAttrs: 1,
        };
        unsafe { cuLaunchKernelEx(&config, fill, arguments![at, n, n].as_mut_ptr(), null_mut()) }
    };
    for (id, value) in [(0, [9, 9, 9]), (8, [1, 0, 0]), (2, [0, 0, 0]), (4, [1, 1, 1]), (6, [0, 0, 0])] {
        ok(run(id, value));
    }
    assert_eq!(download(at, 4), [4; 4]);
    fails(run(4, [2, 1, 1]), ERROR_NOT_SUPPORTED, "clusters");
    fails(run(2, [1, 0, 0]), ERROR_NOT_SUPPORTED, "cooperative");
    for id in [1, 3, 5, 6, 7, 9, 10, 12, 99] {
        fails(run(id, [1, 0, 0]), ERROR_NOT_SUPPORTED, "attribute");
    }
    fails(unsafe { cuLaunchKernelEx(null(), fill, null_mut(), null_mut()) }, ERROR_INVALID_VALUE, "null");
    let cooperative = unsafe { cuLaunchCooperativeKernel(fill, 1, 1, 1, 1, 1, 1, 0, null_mut(), null_mut()) };
    fails(cooperative, ERROR_NOT_SUPPORTED, "cooperative");
    free(at);
}

/// After a kernel's error every call of the context returns it, with the finding; giving the context back ends that.
#[test]
fn a_kernels_error_stays() {
    let session = Session::new();
    let module = session.module();
    let (beyond, fill) = (function_of(module, "beyond"), function_of(module, "fill"));
    let at = session.upload(&[0; 64]);
    let (n, mut host) = (64, [0i32; 64]);
    let stream = session.stream(1);
    let mut event = null_mut();
    unsafe {
        ok(cuEventCreate(&mut event, 0));
        ok(launch(beyond, 1, stream, &mut arguments![at, n]));
        let found = findings();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].kind, found[0].kernel.as_deref()), (Kind::OutOfBounds, Some("beyond")));
        assert!(found[0].source.as_ref().unwrap().0.ends_with("kernels.cu"));
        let text = found[0].to_string();

        let failed = |code| fails(code, 700, &text);
        failed(cuStreamSynchronize(stream));
        assert!(message(700).starts_with("an illegal memory access was encountered: "));
        failed(cuStreamSynchronize(null_mut()));
        failed(cuStreamQuery(stream));
        failed(cuCtxSynchronize());
        failed(cuMemcpyDtoH_v2(host.as_mut_ptr().cast(), at, 256));
        failed(cuMemcpyHtoDAsync_v2(at, host.as_ptr().cast(), 256, stream));
        failed(cuMemsetD8Async(at, 0, 1, stream));
        failed(cuMemAlloc_v2(&mut 0, 4));
        failed(launch(fill, 32, null_mut(), &mut arguments![at, n, n]));
        // The kernel would fail later: what is queued behind it is taken.
        ok(cuEventRecord(event, stream));
        failed(cuEventSynchronize(event));
        failed(cuEventQuery(event));
        failed(cuStreamWaitEvent(stream, event, 0));
        failed(cuStreamCreate(&mut null_mut(), 0));
        failed(cuModuleLoadData(&mut null_mut(), KERNELS.as_ptr().cast()));
        failed(cuMemFree_v2(at));
        failed(cuStreamDestroy_v2(stream));
        failed(cuEventDestroy_v2(event));
        failed(cuModuleUnload(module));
        // Asking is allowed, and the context can be made current.
        ok(cuCtxSetCurrent(session.context));
        assert!(findings().is_empty());
        // What was destroyed in spite of the error is gone.
        fails(cuStreamDestroy_v2(stream), ERROR_INVALID_HANDLE, "stream");

        ok(cuDevicePrimaryCtxReset_v2(0));
        ok(cuCtxSynchronize());
        let at = session.upload(&[1]);
        assert_eq!(download(at, 1), [1]);
        free(at);
        assert!(findings().is_empty(), "a failed context reports no leaks");
    }
}

#[test]
fn each_kind_of_error_has_its_number() {
    for (name, code, kind) in [("misaligned", 716, Kind::Misaligned), ("trap", 719, Kind::Trap)] {
        let session = Session::new();
        let function = session.function(name);
        let at = session.upload(&[0; 4]);
        let two = &mut arguments![at, at];
        ok(launch(function, 1, null_mut(), two));
        assert_eq!(findings().iter().map(|f| f.kind).collect::<Vec<_>>(), [kind]);
        fails(unsafe { cuCtxSynchronize() }, code, kind.title());
        drop(session);
        // The next session has a new context.
        let session = Session::new();
        free(session.upload(&[1]));
    }
}

#[test]
fn freed_and_host_memory_are_named() {
    for freed in [true, false] {
        let session = Session::new();
        let fill = session.function("fill");
        let mut host = [0i32; 32];
        let at = if freed { session.upload(&[0; 32]) } else { host.as_mut_ptr() as u64 };
        if freed {
            free(at);
        }
        let n = 32;
        ok(launch(fill, 32, null_mut(), &mut arguments![at, n, n]));
        let kind = if freed { Kind::UseAfterFree } else { Kind::HostPointer };
        fails(unsafe { cuCtxSynchronize() }, 700, kind.title());
        assert_eq!(host, [0; 32]);
    }
}

/// Another context of the process goes on.
#[test]
fn an_error_stays_in_its_context() {
    let session = Session::new();
    let trap = session.function("trap");
    let mut other = null_mut();
    unsafe {
        ok(launch(trap, 1, null_mut(), &mut []));
        fails(cuCtxSynchronize(), 719, "trap");
        ok(cuCtxCreate_v2(&mut other, 0, 0));
        ok(cuCtxSynchronize());
        let fill = session.function("fill");
        let at = session.upload(&[0; 4]);
        let n = 4;
        ok(launch(fill, 4, null_mut(), &mut arguments![at, n, n]));
        assert_eq!(download(at, 4), [4; 4]);
        fails(launch(trap, 1, null_mut(), &mut []), ERROR_INVALID_HANDLE, "different contexts");
        free(at);
        ok(cuCtxDestroy_v2(other));
        fails(cuCtxSynchronize(), 719, "trap");
    }
}
