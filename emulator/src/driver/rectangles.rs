//! Copies and fills of rectangles and boxes in linear memory, row by row, and memory whose rows are padded. Arrays are not emulated.

use std::ffi::{c_int, c_uchar, c_uint, c_ushort, c_void};
use std::sync::Arc;

use super::border::{border, lock, out};
use super::failure::{Outcome, fail, failure};
use super::submit::{run_and_wait, submit_all};
use super::types::*;
use super::work::{Copy, Direction, Fill, Work};
use crate::machine::Machine;

/// Bytes that rows of `cuMemAllocPitch` are a multiple of.
const PITCH: usize = 512;

/// One side of a copy, and its place in it.
#[derive(Clone, Copy)]
struct Side {
    kind: c_int,
    host: u64,
    device: CUdeviceptr,
    pitch: usize,
    height: usize,
    at: [usize; 3],
}

impl Side {
    /// Address of the first byte, and whether it is the device's.
    fn start(&self, name: &str) -> Outcome<(u64, bool)> {
        let (base, device) = match self.kind {
            1 => (self.host, false),
            2 => (self.device, true),
            // Unified: the address says.
            4 => (self.device, Machine::is_device_address(self.device)),
            3 => return fail(ERROR_NOT_SUPPORTED, format!("the {name} is an array, which is not emulated")),
            other => return fail(ERROR_INVALID_VALUE, format!("the {name}: there is no kind of memory {other}")),
        };
        let [x, y, z] = self.at;
        let rows = z.checked_mul(self.height).and_then(|rows| rows.checked_add(y));
        let offset = rows.and_then(|rows| rows.checked_mul(self.pitch)).and_then(|bytes| bytes.checked_add(x));
        let start = offset.and_then(|offset| base.checked_add(offset as u64));
        let start =
            start.ok_or_else(|| failure(ERROR_INVALID_VALUE, format!("the {name} begins beyond all memory")))?;
        Ok((start, device))
    }
}

/// Rows and planes of a copy as copies of bytes.
fn rows(from: &Side, to: &Side, [width, height, depth]: [usize; 3]) -> Outcome<Vec<Arc<Work>>> {
    for (side, name) in [(from, "source"), (to, "destination")] {
        if (height > 1 || depth > 1) && side.pitch < width {
            let pitch = side.pitch;
            return fail(ERROR_INVALID_VALUE, format!("the {name} has rows of {pitch} bytes, and {width} are copied"));
        }
    }
    let ((source, from_device), (target, to_device)) = (from.start("source")?, to.start("destination")?);
    let direction = match (from_device, to_device) {
        (true, true) => Direction::DeviceToDevice,
        (true, false) => Direction::DeviceToHost,
        (false, true) => Direction::HostToDevice,
        (false, false) => Direction::HostToHost,
    };
    let mut work = Vec::new();
    for z in 0..depth {
        for y in 0..height {
            let row = |side: &Side| ((z * side.height.max(height) + y) * side.pitch) as u64;
            let copy = Copy { to: target + row(to), from: source + row(from), bytes: width, direction };
            work.push(Arc::new(Work::Copy(copy)));
        }
    }
    Ok(work)
}

fn rectangle(copy: *const CUDA_MEMCPY2D) -> Outcome<Vec<Arc<Work>>> {
    // SAFETY: `copy` is null or describes a copy: the caller's promise.
    let c = unsafe { copy.as_ref() }.ok_or_else(|| failure(ERROR_INVALID_VALUE, "the copy is null"))?;
    let from = Side {
        kind: c.srcMemoryType,
        host: c.srcHost as u64,
        device: c.srcDevice,
        pitch: c.srcPitch,
        height: c.Height,
        at: [c.srcXInBytes, c.srcY, 0],
    };
    let to = Side {
        kind: c.dstMemoryType,
        host: c.dstHost as u64,
        device: c.dstDevice,
        pitch: c.dstPitch,
        height: c.Height,
        at: [c.dstXInBytes, c.dstY, 0],
    };
    rows(&from, &to, [c.WidthInBytes, c.Height, 1])
}

fn solid(copy: *const CUDA_MEMCPY3D) -> Outcome<Vec<Arc<Work>>> {
    // SAFETY: `copy` is null or describes a copy: the caller's promise.
    let c = unsafe { copy.as_ref() }.ok_or_else(|| failure(ERROR_INVALID_VALUE, "the copy is null"))?;
    let from = Side {
        kind: c.srcMemoryType,
        host: c.srcHost as u64,
        device: c.srcDevice,
        pitch: c.srcPitch,
        height: c.srcHeight,
        at: [c.srcXInBytes, c.srcY, c.srcZ],
    };
    let to = Side {
        kind: c.dstMemoryType,
        host: c.dstHost as u64,
        device: c.dstDevice,
        pitch: c.dstPitch,
        height: c.dstHeight,
        at: [c.dstXInBytes, c.dstY, c.dstZ],
    };
    rows(&from, &to, [c.WidthInBytes, c.Height, c.Depth])
}

fn blocking(call: &'static str, work: impl FnOnce() -> Outcome<Vec<Arc<Work>>>) -> CUresult {
    border(call, || {
        let mut driver = lock()?;
        let context = driver.working()?;
        let work = work()?;
        driver.may_block(context, call)?;
        driver.tally.synchronisations += 1;
        run_and_wait(driver, context, &work)
    })
}

fn queued(call: &'static str, stream: CUstream, work: impl FnOnce() -> Outcome<Vec<Arc<Work>>>) -> CUresult {
    border(call, || submit_all(lock()?, stream, work()?, call))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy2D_v2(copy: *const CUDA_MEMCPY2D) -> CUresult {
    blocking("cuMemcpy2D_v2", || rectangle(copy))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy2DUnaligned_v2(copy: *const CUDA_MEMCPY2D) -> CUresult {
    blocking("cuMemcpy2DUnaligned_v2", || rectangle(copy))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy2DAsync_v2(copy: *const CUDA_MEMCPY2D, stream: CUstream) -> CUresult {
    queued("cuMemcpy2DAsync_v2", stream, || rectangle(copy))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy3D_v2(copy: *const CUDA_MEMCPY3D) -> CUresult {
    blocking("cuMemcpy3D_v2", || solid(copy))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpy3DAsync_v2(copy: *const CUDA_MEMCPY3D, stream: CUstream) -> CUresult {
    queued("cuMemcpy3DAsync_v2", stream, || solid(copy))
}

/// Rows are padded to a multiple of 512 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAllocPitch_v2(
    address: *mut CUdeviceptr,
    pitch: *mut usize,
    width: usize,
    height: usize,
    element: c_uint,
) -> CUresult {
    border("cuMemAllocPitch_v2", || {
        let mut driver = lock()?;
        let context = driver.working()?;
        // SAFETY: `address` and `pitch` are null or room for the answer: the caller's promise.
        let (answer, row) = unsafe { (out(address)?, out(pitch)?) };
        if ![4, 8, 16].contains(&element) || width == 0 || height == 0 {
            return fail(ERROR_INVALID_VALUE, format!("{height} rows of {width} bytes, elements of {element}"));
        }
        let too_many = || failure(ERROR_OUT_OF_MEMORY, format!("{height} rows of {width} bytes"));
        let padded = width.checked_next_multiple_of(PITCH).ok_or_else(too_many)?;
        let bytes = padded.checked_mul(height).ok_or_else(too_many)?;
        answer.write(driver.allocate(context, bytes)?);
        row.write(padded);
        Ok(())
    })
}

/// `height` rows of `width` elements of `N` bytes.
fn fills<const N: usize>(
    to: CUdeviceptr,
    pitch: usize,
    value: [u8; N],
    width: usize,
    height: usize,
) -> Outcome<Vec<Arc<Work>>> {
    if !to.is_multiple_of(N as u64) || height > 1 && (!pitch.is_multiple_of(N) || pitch < width.saturating_mul(N)) {
        return fail(
            ERROR_INVALID_VALUE,
            format!("{height} rows of {width} elements of {N} bytes, {pitch} bytes apart"),
        );
    }
    let mut pattern = [0; 4];
    pattern[..N].copy_from_slice(&value);
    let fill = |y: usize| Work::Fill(Fill { to: to + (y * pitch) as u64, pattern, width: N, count: width });
    Ok((0..height).map(|y| Arc::new(fill(y))).collect())
}

macro_rules! fills_2d {
    ($($name:ident, $queued:ident: $value:ty;)*) => {$(
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            to: CUdeviceptr,
            pitch: usize,
            value: $value,
            width: usize,
            height: usize,
        ) -> CUresult {
            blocking(stringify!($name), || fills(to, pitch, value.to_ne_bytes(), width, height))
        }

        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $queued(
            to: CUdeviceptr,
            pitch: usize,
            value: $value,
            width: usize,
            height: usize,
            stream: CUstream,
        ) -> CUresult {
            queued(stringify!($queued), stream, || fills(to, pitch, value.to_ne_bytes(), width, height))
        }
    )*};
}

fills_2d! {
    cuMemsetD2D8_v2, cuMemsetD2D8Async: c_uchar;
    cuMemsetD2D16_v2, cuMemsetD2D16Async: c_ushort;
    cuMemsetD2D32_v2, cuMemsetD2D32Async: c_uint;
}

/// Contexts share the device's memory: a copy between two is a copy within the device.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyPeer(
    to: CUdeviceptr,
    to_context: CUcontext,
    from: CUdeviceptr,
    from_context: CUcontext,
    bytes: usize,
) -> CUresult {
    border("cuMemcpyPeer", || {
        let driver = lock()?;
        let context = driver.working()?;
        if [to_context, from_context].into_iter().any(|context| driver.contexts.get(context as usize).is_none()) {
            return fail(ERROR_INVALID_CONTEXT, "no such context: stale or foreign handle");
        }
        let copy = Work::Copy(Copy { to, from, bytes, direction: Direction::DeviceToDevice });
        run_and_wait(driver, context, &[Arc::new(copy)])
    })
}

/// `CUDA_MEMCPY2D_v2`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUDA_MEMCPY2D {
    pub srcXInBytes: usize,
    pub srcY: usize,
    pub srcMemoryType: c_int,
    pub srcHost: *const c_void,
    pub srcDevice: CUdeviceptr,
    pub srcArray: *mut c_void,
    pub srcPitch: usize,
    pub dstXInBytes: usize,
    pub dstY: usize,
    pub dstMemoryType: c_int,
    pub dstHost: *mut c_void,
    pub dstDevice: CUdeviceptr,
    pub dstArray: *mut c_void,
    pub dstPitch: usize,
    pub WidthInBytes: usize,
    pub Height: usize,
}

/// `CUDA_MEMCPY3D_v2`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct CUDA_MEMCPY3D {
    pub srcXInBytes: usize,
    pub srcY: usize,
    pub srcZ: usize,
    pub srcLOD: usize,
    pub srcMemoryType: c_int,
    pub srcHost: *const c_void,
    pub srcDevice: CUdeviceptr,
    pub srcArray: *mut c_void,
    pub reserved0: *mut c_void,
    pub srcPitch: usize,
    pub srcHeight: usize,
    pub dstXInBytes: usize,
    pub dstY: usize,
    pub dstZ: usize,
    pub dstLOD: usize,
    pub dstMemoryType: c_int,
    pub dstHost: *mut c_void,
    pub dstDevice: CUdeviceptr,
    pub dstArray: *mut c_void,
    pub reserved1: *mut c_void,
    pub dstPitch: usize,
    pub dstHeight: usize,
    pub WidthInBytes: usize,
    pub Height: usize,
    pub Depth: usize,
}

const _: () = assert!(size_of::<CUDA_MEMCPY2D>() == 128 && size_of::<CUDA_MEMCPY3D>() == 200);
