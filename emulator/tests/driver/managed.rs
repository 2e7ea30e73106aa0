//! Memory that host and device share.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ptr::null_mut;

use crate::common::*;
use ptx_emulator::driver::{context::*, managed::*, memory::*, pinned::*, types::*};
use ptx_emulator::finding::Kind;

#[test]
fn managed_memory_is_one_for_host_and_kernels() {
    let session = Session::new();
    let function = session.function("step");
    let mut at = 0;
    unsafe {
        ok(cuMemAllocManaged(&mut at, 16, 1));
        let host = std::slice::from_raw_parts_mut(at as *mut i32, 4);
        assert_eq!(host, [0; 4]);
        host.copy_from_slice(&[1, 2, 3, 4]);
        ok(step(function, at, 10, 4, null_mut()));
        assert_eq!(host, [11, 21, 31, 41]);
        // Copies take it for either side.
        assert_eq!(download(at, 4), [11, 21, 31, 41]);
        let device = session.upload(&[7, 8]);
        ok(ptx_emulator::driver::copy::cuMemcpyDtoD_v2(at + 8, device, 8));
        assert_eq!(host, [11, 21, 7, 8]);
        let (mut managed, mut kind) = (0u32, 0u32);
        ok(cuPointerGetAttribute((&raw mut managed).cast(), 8, at + 4));
        ok(cuPointerGetAttribute((&raw mut kind).cast(), 2, at + 4));
        assert_eq!((managed, kind), (1, 2));

        let (host_place, place) = (CUmemLocation { kind: 2, id: 0 }, CUmemLocation { kind: 1, id: 0 });
        ok(cuMemPrefetchAsync_v2(at, 16, place, 0, null_mut()));
        ok(cuMemPrefetchAsync_v2(at + 4, 8, host_place, 0, null_mut()));
        ok(cuMemPrefetchAsync(at, 16, -1, null_mut()));
        ok(cuMemAdvise_v2(at, 16, 1, place));
        ok(cuStreamAttachMemAsync(session.stream(1), at, 0, 4));
        fails(cuMemPrefetchAsync_v2(at + 8, 16, place, 0, null_mut()), ERROR_INVALID_VALUE, "no managed memory");
        fails(cuMemPrefetchAsync(at, 16, 3, null_mut()), ERROR_INVALID_DEVICE, "device 3");
        fails(cuMemAdvise_v2(at, 16, 9, place), ERROR_INVALID_VALUE, "advice 9");
        fails(cuStreamAttachMemAsync(null_mut(), at, 4, 1), ERROR_INVALID_VALUE, "whole");
        fails(cuMemAllocManaged(&mut at, 4, 9), ERROR_INVALID_VALUE, "0x9");
        fails(cuMemAllocManaged(&mut at, 0, 1), ERROR_INVALID_VALUE, "0 bytes");
        free(device);
        free(at);
        fails(cuMemAdvise_v2(at, 16, 1, place), ERROR_INVALID_VALUE, "no managed memory");
    }
    assert!(findings().is_empty());
}

#[test]
fn a_kernel_that_leaves_managed_memory_is_noticed() {
    let session = Session::new();
    let mut at = 0;
    ok(unsafe { cuMemAllocManaged(&mut at, 16, 1) });
    let n = 4;
    ok(launch(session.function("beyond"), 1, null_mut(), &mut arguments![at, n]));
    let found = findings();
    assert!(found.len() == 1 && found[0].kind != Kind::Leak && found[0].address == Some(at + 16), "{found:?}");
}

#[test]
fn managed_memory_never_freed_is_a_leak() {
    // In a context of its own: what a session leaves may be taken by the next test.
    let _session = Session::new();
    let mut other = null_mut();
    ok(unsafe { cuCtxCreate_v2(&mut other, 0, 0) });
    ok(unsafe { cuMemAllocManaged(&mut 0, 16, 1) });
    findings();
    ok(unsafe { cuCtxDestroy_v2(other) });
    let found = findings();
    assert!(found.len() == 1 && found[0].kind == Kind::Leak, "{found:?}");
}

#[test]
fn mapped_memory_has_one_address() {
    let session = Session::new();
    let function = session.function("step");
    let (mut memory, mut at, mut flags) = (null_mut(), 0, 0);
    unsafe {
        ok(cuMemHostAlloc(&mut memory, 16, 2));
        let host = std::slice::from_raw_parts_mut(memory.cast::<i32>(), 4);
        host.copy_from_slice(&[1, 2, 3, 4]);
        ok(cuMemHostGetDevicePointer_v2(&mut at, memory, 0));
        assert_eq!(at, memory as u64);
        ok(cuMemHostGetFlags(&mut flags, memory));
        assert_eq!(flags, 2);
        ok(step(function, at, 10, 4, null_mut()));
        assert_eq!(host, [11, 21, 31, 41]);
        let mut address = 0u64;
        ok(cuPointerGetAttribute((&raw mut address).cast(), 3, at + 4));
        assert_eq!(address, at + 4);
        ok(cuMemFreeHost(memory));
        fails(cuMemHostGetDevicePointer_v2(&mut at, memory, 0), ERROR_INVALID_VALUE, "no pinned memory");

        // Memory of the program, registered.
        let mut own = [5i32; 4];
        ok(cuMemHostRegister_v2(own.as_mut_ptr().cast(), 16, 2));
        ok(step(function, own.as_ptr() as u64, 2, 4, null_mut()));
        assert_eq!(own, [11; 4]);
        ok(cuMemHostUnregister(own.as_mut_ptr().cast()));
        ok(step(function, own.as_ptr() as u64, 2, 4, null_mut()));
        assert_eq!((own, findings()[0].kind), ([11; 4], Kind::HostPointer));
    }
}

#[test]
fn several_attributes_at_once() {
    let _session = Session::new();
    let device = allocate(64);
    let mut attributes = [2, 8, 11, 12];
    let (mut kind, mut managed, mut base, mut bytes) = (9u32, 9u32, 9u64, 9u64);
    let mut values = [
        (&raw mut kind).cast(),
        (&raw mut managed).cast(),
        (&raw mut base).cast(),
        (&raw mut bytes).cast::<std::ffi::c_void>(),
    ];
    let mut get = |at| unsafe { cuPointerGetAttributes(4, attributes.as_mut_ptr(), values.as_mut_ptr(), at) };
    ok(get(device + 8));
    assert_eq!((kind, managed, base, bytes), (2, 0, device, 64));
    ok(get(0x5000));
    assert_eq!((kind, managed, base, bytes), (0, 0, 0, 0));
    free(device);
}
