//! Device and pinned memory, copies, fills, pools: what is right and what the checkers say of the rest.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::common::*;
use ptx_emulator::driver::{copy::*, memory::*, pinned::*, pool::*, stream::*, types::*};
use ptx_emulator::finding::Kind;

/// The one finding since the last look.
#[track_caller]
fn found(kind: Kind) -> ptx_emulator::finding::Finding {
    let mut all = findings();
    assert_eq!(all.iter().map(|f| f.kind).collect::<Vec<_>>(), [kind], "{all:?}");
    all.remove(0)
}

#[test]
fn copies_in_every_direction() {
    let session = Session::new();
    let stream = session.stream(1);
    let a = session.upload(&[1, 2, 3, 4]);
    let b = allocate(16);
    let mut host = [0i32; 4];
    unsafe {
        ok(cuMemcpyDtoD_v2(b, a, 16));
        assert_eq!(download(b, 4), [1, 2, 3, 4]);
        ok(cuMemcpyHtoDAsync_v2(a + 4, [7i32, 8].as_ptr().cast(), 8, stream));
        ok(cuMemcpyDtoDAsync_v2(b, a, 16, stream));
        ok(cuMemcpyDtoHAsync_v2(host.as_mut_ptr().cast(), b, 16, stream));
        assert_eq!(host, [1, 7, 8, 4]);
        // Within a buffer, overlapping.
        ok(cuMemcpyDtoD_v2(a, a + 4, 12));
        assert_eq!(download(a, 4), [7, 8, 4, 4]);
        // The addresses tell the direction.
        let source = [9i32, 10];
        ok(cuMemcpy(a, source.as_ptr() as u64, 8));
        ok(cuMemcpyAsync(b, a, 8, stream));
        ok(cuMemcpyAsync(host.as_mut_ptr() as u64, b, 8, null_mut()));
        assert_eq!(host[..2], source);
        ok(cuMemcpy(host[2..].as_mut_ptr() as u64, source.as_ptr() as u64, 8));
        assert_eq!(host, [9, 10, 9, 10]);
        ok(cuMemcpyPeerAsync(b, session.context, a, session.context, 16, stream));
        fails(cuMemcpyPeerAsync(b, null_mut(), a, session.context, 16, stream), ERROR_INVALID_CONTEXT, "context");
        ok(cuMemcpyHtoD_v2(a, std::ptr::null(), 0));
        fails(cuMemcpyHtoD_v2(a, std::ptr::null(), 4), ERROR_INVALID_VALUE, "null");
        fails(cuMemcpyDtoHAsync_v2(host.as_mut_ptr().cast(), a, 4, 77 as CUstream), ERROR_INVALID_HANDLE, "stream");
    }
    free(a);
    free(b);
    assert!(findings().is_empty());
}

#[test]
fn fills_of_every_width() {
    let session = Session::new();
    let stream = session.stream(0);
    let at = session.upload(&[-1; 4]);
    unsafe {
        ok(cuMemsetD8_v2(at, 0xAB, 3));
        ok(cuMemsetD16_v2(at + 6, 0x1234, 1));
        ok(cuMemsetD32_v2(at + 8, 0xDEAD_BEEF, 2));
        let bits: Vec<u32> = download(at, 4).into_iter().map(|v| v as u32).collect();
        assert_eq!(bits, [0xFFAB_ABAB, 0x1234_FFFF, 0xDEAD_BEEF, 0xDEAD_BEEF]);
        ok(cuMemsetD8Async(at, 0, 16, stream));
        ok(cuMemsetD16Async(at + 2, 7, 1, stream));
        ok(cuMemsetD32Async(at + 12, 8, 1, stream));
        assert_eq!(download(at, 4), [7 << 16, 0, 0, 8]);
        fails(cuMemsetD32_v2(at + 2, 0, 1), ERROR_INVALID_VALUE, "multiple of 4");
        fails(cuMemsetD16Async(at + 1, 0, 1, stream), ERROR_INVALID_VALUE, "multiple of 2");
        assert!(findings().is_empty());
        fails(cuMemsetD32_v2(at, 0, 5), ERROR_INVALID_VALUE, "copy size");
    }
    found(Kind::CopySize);
    free(at);
}

#[test]
fn wrong_copies_fail_alone() {
    let session = Session::new();
    let at = session.upload(&[1, 2, 3, 4]);
    let mut host = [0i32; 8];
    let host_at = host.as_mut_ptr();
    unsafe {
        fails(cuMemcpyDtoH_v2(host_at.cast(), at, 20), ERROR_INVALID_VALUE, "copy from the device of 20 bytes");
        assert_eq!(found(Kind::CopySize).buffer.unwrap().base, at);
        fails(cuMemcpyHtoD_v2(at + 8, host_at.cast(), 12), ERROR_INVALID_VALUE, "only 8 are left");
        found(Kind::CopySize);
        fails(cuMemcpyHtoD_v2(host_at as u64, host_at.cast(), 4), ERROR_INVALID_VALUE, "destination");
        found(Kind::HostPointer);
        fails(cuMemcpyHtoD_v2(at, at as *const c_void, 4), ERROR_INVALID_VALUE, "source");
        found(Kind::HostPointer);
        fails(cuMemcpyDtoH_v2(at as *mut c_void, at, 4), ERROR_INVALID_VALUE, "destination");
        found(Kind::HostPointer);
        fails(cuMemcpyDtoD_v2(at, host_at as u64, 4), ERROR_INVALID_VALUE, "source");
        found(Kind::HostPointer);
        free(at);
        fails(cuMemcpyDtoH_v2(host_at.cast(), at, 16), ERROR_INVALID_VALUE, "freed");
        assert!(found(Kind::UseAfterFree).buffer.unwrap().freed);
        fails(cuMemcpyHtoD_v2(16, host_at.cast(), 4), ERROR_INVALID_VALUE, "null pointer");
        found(Kind::OutOfBounds);
    }
    // Nothing of this failed the context.
    let again = session.upload(&[5]);
    assert_eq!(download(again, 1), [5]);
    free(again);
}

#[test]
fn wrong_frees_fail_alone() {
    let session = Session::new();
    let at = allocate(64);
    unsafe {
        fails(cuMemFree_v2(at + 4), ERROR_INVALID_VALUE, "inside a buffer");
        found(Kind::InvalidFree);
        free(at);
        fails(cuMemFree_v2(at), ERROR_INVALID_VALUE, "double free");
        assert_eq!(found(Kind::DoubleFree).address, Some(at));
        fails(cuMemFreeAsync(at, null_mut()), ERROR_INVALID_VALUE, "double free");
        found(Kind::DoubleFree);
        fails(cuMemFree_v2(0x1234), ERROR_INVALID_VALUE, "not allocated");
        found(Kind::InvalidFree);
        fails(cuMemFree_v2(0), ERROR_INVALID_VALUE, "null");
        let (mut variable, module) = (0, session.module());
        ok(ptx_emulator::driver::module::cuModuleGetGlobal_v2(&mut variable, null_mut(), module, c"counter".as_ptr()));
        fails(cuMemFree_v2(variable), ERROR_INVALID_VALUE, "module's variable");
        found(Kind::InvalidFree);
    }
}

#[test]
fn allocations_are_counted_and_limited() {
    let session = Session::new();
    let (mut free_before, mut free_after, mut total, mut at) = (0, 0, 0, 0);
    unsafe {
        fails(cuMemAlloc_v2(&mut at, 0), ERROR_INVALID_VALUE, "0 bytes");
        fails(cuMemAlloc_v2(null_mut(), 4), ERROR_INVALID_VALUE, "null");
        fails(cuMemAlloc_v2(&mut at, 81 << 30), ERROR_OUT_OF_MEMORY, "are free");
        ok(cuMemGetInfo_v2(&mut free_before, &mut total));
        assert_eq!(total, 80 << 30);
        ok(cuMemAllocAsync(&mut at, 1 << 20, session.stream(1)));
        assert_eq!(at % 256, 0);
        ok(cuMemGetInfo_v2(&mut free_after, &mut total));
        assert_eq!(free_before - free_after, 1 << 20);
        let (mut base, mut bytes) = (0, 0);
        ok(cuMemGetAddressRange_v2(&mut base, &mut bytes, at + 99));
        assert_eq!((base, bytes), (at, 1 << 20));
        ok(cuMemGetAddressRange_v2(null_mut(), &mut bytes, at));
        fails(cuMemGetAddressRange_v2(&mut base, &mut bytes, 0x5000), ERROR_NOT_FOUND, "0x5000");
        ok(cuMemFreeAsync(at, null_mut()));
        fails(cuMemGetAddressRange_v2(&mut base, &mut bytes, at), ERROR_NOT_FOUND, "no buffer");
    }
}

#[test]
fn pinned_memory_is_tracked() {
    let session = Session::new();
    let device = allocate(64);
    let (mut a, mut b) = (null_mut(), null_mut());
    unsafe {
        ok(cuMemHostAlloc(&mut a, 64, 4));
        ok(cuMemAllocHost_v2(&mut b, 32));
        assert_eq!(a as usize % 4096, 0);
        assert!(a.cast::<f32>().read().is_nan(), "what is not written shows");
        a.cast::<u8>().write_bytes(3, 64);
        ok(cuMemcpyHtoDAsync_v2(device, a, 64, null_mut()));
        assert_eq!(download(device, 1), [0x0303_0303]);
        fails(cuMemcpyDtoH_v2(b, device, 64), ERROR_INVALID_VALUE, "32 bytes left");
        found(Kind::CopySize);
        fails(cuMemcpyHtoD_v2(device, a.add(60), 8), ERROR_INVALID_VALUE, "4 bytes left");
        found(Kind::CopySize);

        fails(cuMemFreeHost(a.add(8)), ERROR_INVALID_VALUE, "not allocated");
        found(Kind::InvalidFree);
        fails(cuMemFreeHost(device as *mut c_void), ERROR_INVALID_VALUE, "device address");
        found(Kind::HostPointer);
        ok(cuMemFreeHost(a));
        fails(cuMemFreeHost(a), ERROR_INVALID_VALUE, "double free");
        found(Kind::DoubleFree);
        ok(cuMemFreeHost(b));
        fails(cuMemFreeHost(null_mut()), ERROR_INVALID_VALUE, "null");
        fails(cuMemHostAlloc(&mut a, 0, 0), ERROR_INVALID_VALUE, "0 bytes");
        fails(cuMemHostAlloc(&mut a, 64, 8), ERROR_INVALID_VALUE, "flags 0x8");
    }
    free(device);
    drop(session);
    assert!(findings().is_empty());
}

#[test]
fn host_memory_is_registered_once() {
    let _session = Session::new();
    let mut own = vec![0u8; 100];
    let at = own.as_mut_ptr().cast::<c_void>();
    unsafe {
        ok(cuMemHostRegister_v2(at, 100, 0));
        fails(cuMemHostRegister_v2(at.add(50), 10, 0), ERROR_HOST_MEMORY_ALREADY_REGISTERED, "pinned already");
        fails(cuMemFreeHost(at), ERROR_INVALID_VALUE, "no allocation of pinned memory");
        found(Kind::InvalidFree);
        ok(cuMemHostUnregister(at));
        fails(cuMemHostUnregister(at), ERROR_HOST_MEMORY_NOT_REGISTERED, "not registered");
        fails(cuMemHostRegister_v2(null_mut(), 4, 0), ERROR_INVALID_VALUE, "bytes");
    }
    assert!(findings().is_empty());
}

#[test]
fn addresses_are_known() {
    let session = Session::new();
    let device = allocate(64);
    let mut pinned = null_mut();
    let number = |attribute, at| {
        let mut value = 0u64;
        ok(unsafe { cuPointerGetAttribute((&raw mut value).cast(), attribute, at) });
        value
    };
    ok(unsafe { cuMemHostAlloc(&mut pinned, 64, 0) });
    assert_eq!(number(1, device), session.context as u64);
    assert_eq!((number(2, device + 5), number(2, pinned as u64)), (2, 1));
    assert_eq!((number(3, device + 5), number(4, pinned as u64 + 5)), (device + 5, pinned as u64 + 5));
    assert_eq!((number(11, device + 5), number(12, device + 5)), (device, 64));
    assert_eq!((number(8, device), number(9, device)), (0, 0));
    let mut value = 0u64;
    let mut get = |attribute, at| unsafe { cuPointerGetAttribute((&raw mut value).cast(), attribute, at) };
    fails(get(3, pinned as u64), ERROR_INVALID_VALUE, "not mapped");
    fails(get(2, 0x5000), ERROR_INVALID_VALUE, "neither device memory");
    fails(get(5, device), ERROR_NOT_SUPPORTED, "attribute 5");
    fails(get(99, device), ERROR_INVALID_VALUE, "attribute 99");
    ok(unsafe { cuMemFreeHost(pinned) });
    free(device);
}

#[test]
fn pools_give_the_devices_memory() {
    let session = Session::new();
    let stream = session.stream(1);
    let (mut default, mut used, mut own, mut at) = (null_mut(), null_mut(), null_mut(), 0);
    let location = CUmemLocation { kind: 1, id: 0 };
    let properties = CUmemPoolProps {
        allocType: 1,
        handleTypes: 0,
        location,
        win32SecurityAttributes: null_mut(),
        maxSize: 0,
        usage: 0,
        reserved: [0; 54],
    };
    unsafe {
        ok(cuDeviceGetDefaultMemPool(&mut default, 0));
        ok(cuMemPoolCreate(&mut own, &properties));
        ok(cuDeviceSetMemPool(0, own));
        ok(cuDeviceGetMemPool(&mut used, 0));
        assert!(used == own && own != default);
        ok(cuMemAllocFromPoolAsync(&mut at, 256, own, stream));
        ok(cuMemFreeAsync(at, stream));
        let mut threshold = u64::MAX;
        ok(cuMemPoolSetAttribute(own, 4, (&raw mut threshold).cast()));
        threshold = 0;
        ok(cuMemPoolGetAttribute(own, 4, (&raw mut threshold).cast()));
        assert_eq!(threshold, u64::MAX);
        fails(cuMemPoolGetAttribute(own, 7, (&raw mut threshold).cast()), ERROR_NOT_SUPPORTED, "attribute 7");
        ok(cuMemPoolTrimTo(own, 0));
        ok(cuMemPoolDestroy(own));
        fails(cuMemPoolDestroy(own), ERROR_INVALID_HANDLE, "pool");
        fails(cuMemAllocFromPoolAsync(&mut at, 256, own, stream), ERROR_INVALID_HANDLE, "pool");
        ok(cuDeviceGetMemPool(&mut used, 0));
        assert_eq!(used, default);
        fails(cuMemPoolDestroy(default), ERROR_NOT_PERMITTED, "default");
        fails(cuMemPoolCreate(&mut own, std::ptr::null()), ERROR_INVALID_VALUE, "properties");
        ok(cuStreamDestroy_v2(stream));
    }
}
