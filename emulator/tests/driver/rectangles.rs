//! Copies and fills of rectangles and boxes.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ptr::{null, null_mut};

use crate::common::*;
use ptx_emulator::driver::{rectangles::*, types::*};
use ptx_emulator::finding::Kind;

const NONE_2D: CUDA_MEMCPY2D = CUDA_MEMCPY2D {
    srcXInBytes: 0,
    srcY: 0,
    srcMemoryType: 2,
    srcHost: null(),
    srcDevice: 0,
    srcArray: null_mut(),
    srcPitch: 0,
    dstXInBytes: 0,
    dstY: 0,
    dstMemoryType: 2,
    dstHost: null_mut(),
    dstDevice: 0,
    dstArray: null_mut(),
    dstPitch: 0,
    WidthInBytes: 0,
    Height: 0,
};

#[test]
fn a_rectangle_out_of_a_larger_one() {
    let session = Session::new();
    // 4 rows of 5; rows 1 and 2, columns 1 to 3.
    let from = session.upload(&(0..20).collect::<Vec<i32>>());
    let mut to = [-1i32; 8];
    let copy = CUDA_MEMCPY2D {
        srcXInBytes: 4,
        srcY: 1,
        srcDevice: from,
        srcPitch: 20,
        dstMemoryType: 1,
        dstHost: to.as_mut_ptr().cast(),
        dstPitch: 16,
        WidthInBytes: 12,
        Height: 2,
        ..NONE_2D
    };
    unsafe {
        ok(cuMemcpy2D_v2(&copy));
        assert_eq!(to, [6, 7, 8, -1, 11, 12, 13, -1]);
        ok(cuMemcpy2DAsync_v2(&CUDA_MEMCPY2D { Height: 1, ..copy }, session.stream(1)));
        fails(cuMemcpy2D_v2(null()), ERROR_INVALID_VALUE, "null");
        fails(cuMemcpy2D_v2(&CUDA_MEMCPY2D { srcPitch: 8, ..copy }), ERROR_INVALID_VALUE, "rows of 8 bytes");
        fails(cuMemcpy2D_v2(&CUDA_MEMCPY2D { srcMemoryType: 3, ..copy }), ERROR_NOT_SUPPORTED, "array");
        fails(cuMemcpy2D_v2(&CUDA_MEMCPY2D { srcY: 3, ..copy }), ERROR_INVALID_VALUE, "buffer");
    }
    assert_eq!(findings()[0].kind, Kind::OutOfBounds);
    free(from);
}

#[test]
fn padded_rows_are_filled_and_copied() {
    let _session = Session::new();
    let (mut at, mut pitch) = (0, 0);
    unsafe {
        ok(cuMemAllocPitch_v2(&mut at, &mut pitch, 12, 3, 4));
        assert_eq!(pitch, 512);
        ok(cuMemsetD2D32_v2(at, pitch, 7, 3, 3));
        ok(cuMemsetD2D8Async(at + 4, pitch, 1, 4, 2, null_mut()));
        let mut to = [0i32; 9];
        let copy = CUDA_MEMCPY2D {
            srcDevice: at,
            srcPitch: pitch,
            dstMemoryType: 1,
            dstHost: to.as_mut_ptr().cast(),
            dstPitch: 12,
            WidthInBytes: 12,
            Height: 3,
            ..NONE_2D
        };
        ok(cuMemcpy2DUnaligned_v2(&copy));
        assert_eq!(to, [7, 0x0101_0101, 7, 7, 0x0101_0101, 7, 7, 7, 7]);
        fails(cuMemsetD2D32_v2(at, 3, 7, 3, 3), ERROR_INVALID_VALUE, "3 bytes apart");
    }
    free(at);
}

#[test]
fn a_box_of_planes() {
    let session = Session::new();
    // 2 planes of 3 rows of 4.
    let from = session.upload(&(0..24).collect::<Vec<i32>>());
    let to = allocate(2 * 2 * 2 * 4);
    let copy = CUDA_MEMCPY3D {
        srcXInBytes: 8,
        srcY: 1,
        srcZ: 0,
        srcLOD: 0,
        srcMemoryType: 2,
        srcHost: null(),
        srcDevice: from,
        srcArray: null_mut(),
        reserved0: null_mut(),
        srcPitch: 16,
        srcHeight: 3,
        dstXInBytes: 0,
        dstY: 0,
        dstZ: 0,
        dstLOD: 0,
        dstMemoryType: 2,
        dstHost: null_mut(),
        dstDevice: to,
        dstArray: null_mut(),
        reserved1: null_mut(),
        dstPitch: 8,
        dstHeight: 2,
        WidthInBytes: 8,
        Height: 2,
        Depth: 2,
    };
    unsafe {
        ok(cuMemcpy3D_v2(&copy));
        assert_eq!(download(to, 8), [6, 7, 10, 11, 18, 19, 22, 23]);
        ok(cuMemcpy3DAsync_v2(&CUDA_MEMCPY3D { srcZ: 1, Depth: 1, ..copy }, null_mut()));
    }
    assert_eq!(download(to, 4), [18, 19, 22, 23]);
    free(from);
    free(to);
}
