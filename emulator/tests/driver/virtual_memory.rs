//! Addresses that are reserved, memory that is created, and mappings of the one at the other.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ptr::null_mut;

use crate::common::*;
use ptx_emulator::driver::{context::*, copy::*, device::*, memory::*, types::*, virtual_memory::*};
use ptx_emulator::finding::Kind;

const DEVICE: CUmemLocation = CUmemLocation { kind: 1, id: 0 };
const PINNED: CUmemAllocationProp = CUmemAllocationProp {
    kind: 1,
    requestedHandleTypes: 0,
    location: DEVICE,
    win32HandleMetaData: null_mut(),
    compressionType: 0,
    gpuDirectRDMACapable: 0,
    usage: 0,
    reserved: [0; 4],
};

fn granularity() -> usize {
    let mut found = [0, 0];
    ok(unsafe { cuMemGetAllocationGranularity(&mut found[0], &PINNED, 0) });
    ok(unsafe { cuMemGetAllocationGranularity(&mut found[1], &PINNED, 1) });
    assert!(found[0] == found[1] && found[0].is_power_of_two());
    found[0]
}

fn reserve(bytes: usize) -> CUdeviceptr {
    let mut at = 0;
    ok(unsafe { cuMemAddressReserve(&mut at, bytes, 0, 0, 0) });
    assert!(at.is_multiple_of(granularity() as u64));
    at
}

fn create(bytes: usize) -> CUmemHandle {
    let mut handle = 0;
    ok(unsafe { cuMemCreate(&mut handle, bytes, &PINNED, 0) });
    handle
}

fn access(at: CUdeviceptr, bytes: usize, flags: i32) -> CUresult {
    unsafe { cuMemSetAccess(at, bytes, &CUmemAccessDesc { location: DEVICE, flags }, 1) }
}

fn free_bytes() -> usize {
    let (mut free, mut total) = (0, 0);
    ok(unsafe { cuMemGetInfo_v2(&mut free, &mut total) });
    free
}

/// A range that grows by a second piece: copies and kernels see one array.
#[test]
fn pieces_side_by_side_are_one_array() {
    let session = Session::new();
    let function = session.function("step");
    let (g, before) = (granularity(), free_bytes());
    let mut supported = 0;
    ok(unsafe { cuDeviceGetAttribute(&mut supported, 102, 0) });
    assert_eq!(supported, 1);
    let at = reserve(4 * g);
    let (first, second) = (create(g), create(2 * g));
    assert_eq!(free_bytes(), before - 3 * g);
    unsafe {
        ok(cuMemMap(at, g, 0, first, 0));
        ok(access(at, g, 3));
        ok(cuMemMap(at + g as u64, 2 * g, 0, second, 0));
        ok(access(at, 3 * g, 3));
        // Over the boundary, in each way of copying.
        let edge = at + g as u64 - 8;
        ok(cuMemcpyHtoD_v2(edge, [1, 2, 3, 4].as_ptr().cast(), 16));
        assert_eq!(download(edge, 4), [1, 2, 3, 4]);
        ok(step(function, edge, 10, 4, null_mut()));
        assert_eq!(download(edge, 4), [11, 21, 31, 41]);
        ok(cuMemcpyDtoD_v2(edge + 4, edge, 12));
        assert_eq!(download(edge, 4), [11, 11, 21, 31]);
        let plain = session.upload(&[7, 8, 9]);
        ok(cuMemcpyDtoD_v2(edge, plain, 12));
        ok(cuMemcpyDtoD_v2(plain, edge + 4, 12));
        assert_eq!(download(plain, 3), [8, 9, 31]);
        ok(cuMemsetD32_v2(edge, 5, 3));
        assert_eq!(download(edge, 4), [5, 5, 5, 31]);
        free(plain);
        let mut flags = 0;
        ok(cuMemGetAccess(&mut flags, &DEVICE, edge + 4));
        assert_eq!(flags, 3);
        // Released, the memory stays as long as it is mapped.
        ok(cuMemRelease(first));
        ok(cuMemRelease(second));
        assert_eq!((download(edge, 1)[0], free_bytes()), (5, before - 3 * g));
        ok(cuMemUnmap(at, 3 * g));
        assert_eq!(free_bytes(), before);
        ok(cuMemAddressFree(at, 4 * g));
    }
    assert!(findings().is_empty());
}

/// Memory keeps what was written when it is mapped elsewhere, and can be at two addresses at once.
#[test]
fn memory_moves_between_addresses() {
    let _session = Session::new();
    let g = granularity();
    let (a, b) = (reserve(g), reserve(g));
    let handle = create(g);
    unsafe {
        ok(cuMemMap(a, g, 0, handle, 0));
        ok(cuMemMap(b, g, 0, handle, 0));
        ok(access(a, g, 3));
        ok(cuMemsetD32_v2(a, 6, 4));
        ok(access(b, g, 3));
        assert_eq!(download(b, 4), [6; 4]);
        ok(cuMemUnmap(a, g));
        ok(cuMemsetD32_v2(b, 7, 2));
        ok(cuMemMap(a, g, 0, handle, 0));
        ok(access(a, g, 3));
        assert_eq!(download(a, 4), [7, 7, 6, 6]);
        let (mut again, mut properties) = (0, CUmemAllocationProp { kind: 0, ..PINNED });
        ok(cuMemRetainAllocationHandle(&mut again, (a + 100) as *mut _));
        assert_eq!(again, handle);
        ok(cuMemGetAllocationPropertiesFromHandle(&mut properties, handle));
        assert_eq!((properties.kind, properties.location.kind), (1, 1));
        ok(cuMemUnmap(a, g));
        ok(cuMemUnmap(b, g));
        ok(cuMemRelease(handle));
        ok(cuMemRelease(again));
        fails(cuMemRelease(handle), ERROR_INVALID_VALUE, "stale");
        ok(cuMemAddressFree(a, g));
        ok(cuMemAddressFree(b, g));
    }
    assert!(findings().is_empty());
}

#[test]
fn wrong_calls_say_what_is_wrong() {
    let _session = Session::new();
    let g = granularity();
    let mut at = 0;
    unsafe {
        fails(cuMemAddressReserve(&mut at, 0, 0, 0, 0), ERROR_INVALID_VALUE, "0 bytes");
        fails(cuMemAddressReserve(&mut at, g, 3, 0, 0), ERROR_INVALID_VALUE, "power of two");
        fails(cuMemAddressReserve(&mut at, 1 << 50, 0, 0, 0), ERROR_OUT_OF_MEMORY, "addresses");
        let mut handle = 0;
        fails(cuMemCreate(&mut handle, g + 1, &PINNED, 0), ERROR_INVALID_VALUE, "granularity");
        fails(cuMemCreate(&mut handle, 1 << 40, &PINNED, 0), ERROR_OUT_OF_MEMORY, "free");
        let host = CUmemAllocationProp { location: CUmemLocation { kind: 2, id: 0 }, ..PINNED };
        fails(cuMemCreate(&mut handle, g, &host, 0), ERROR_NOT_SUPPORTED, "type 2");
        let other = CUmemAllocationProp { location: CUmemLocation { kind: 1, id: 5 }, ..PINNED };
        fails(cuMemCreate(&mut handle, g, &other, 0), ERROR_INVALID_DEVICE, "device 5");

        let (at, handle) = (reserve(2 * g), create(g));
        let second = at + g as u64;
        fails(cuMemMap(at, 2 * g, 0, handle, 0), ERROR_INVALID_VALUE, "the memory has");
        fails(cuMemMap(at + 4096, g, 0, handle, 0), ERROR_INVALID_VALUE, "granularity");
        fails(cuMemMap(second + g as u64, g, 0, handle, 0), ERROR_INVALID_VALUE, "not all reserved");
        fails(cuMemMap(at, g, g, handle, 0), ERROR_INVALID_VALUE, "offset");
        fails(cuMemMap(at, g, 0, handle + 999, 0), ERROR_INVALID_VALUE, "stale");
        fails(access(at, g, 3), ERROR_INVALID_VALUE, "nothing is mapped");
        ok(cuMemMap(at, g, 0, handle, 0));
        fails(cuMemMap(at, g, 0, handle, 0), ERROR_INVALID_VALUE, "something is mapped");
        fails(access(at, g / 2, 3), ERROR_INVALID_VALUE, "cuts");
        fails(access(at, 2 * g, 3), ERROR_INVALID_VALUE, "nothing is mapped");
        fails(access(at, g, 1), ERROR_NOT_SUPPORTED, "only be read");
        fails(cuMemAddressFree(at, 2 * g), ERROR_INVALID_VALUE, "still mapped");
        fails(cuMemAddressFree(at, g), ERROR_INVALID_VALUE, "were reserved");
        fails(cuMemUnmap(second, g), ERROR_INVALID_VALUE, "nothing is mapped");
        fails(cuMemFree_v2(at), ERROR_INVALID_VALUE, "no allocation");
        ok(access(at, g, 3));
        fails(cuMemFree_v2(at), ERROR_INVALID_VALUE, "cuMemUnmap");
        findings();
        ok(cuMemUnmap(at, g));
        ok(cuMemRelease(handle));
        ok(cuMemAddressFree(at, 2 * g));
    }
}

/// As on a GPU, what is mapped cannot be used before access is given, nor after it is taken or unmapped.
#[test]
fn without_access_it_is_no_memory() {
    for stage in 0..3 {
        let session = Session::new();
        let g = granularity();
        let (at, handle) = (reserve(g), create(g));
        unsafe {
            ok(cuMemMap(at, g, 0, handle, 0));
            if stage > 0 {
                ok(access(at, g, 3));
                ok(cuMemsetD32_v2(at, 1, 4));
                ok(if stage == 1 { access(at, g, 0) } else { cuMemUnmap(at, g) });
            }
            ok(step(session.function("step"), at, 1, 4, null_mut()));
        }
        let found = findings();
        let expected = if stage == 0 { Kind::OutOfBounds } else { Kind::UseAfterFree };
        assert!(found.len() == 1 && found[0].kind == expected && found[0].address == Some(at), "{stage}: {found:?}");
    }
}

#[test]
fn what_is_never_released_is_a_leak() {
    let _session = Session::new();
    let mut other = null_mut();
    ok(unsafe { cuCtxCreate_v2(&mut other, 0, 0) });
    create(granularity());
    findings();
    ok(unsafe { cuCtxDestroy_v2(other) });
    let found = findings();
    assert!(found.len() == 1 && found[0].kind == Kind::Leak && found[0].what.contains("cuMemCreate"), "{found:?}");
}
