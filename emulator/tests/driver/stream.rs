//! Streams, events and functions of the host in them.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::common::*;
use ptx_emulator::driver::{context::*, event::*, memory::*, stream::*, types::*, unsupported::*};

fn event(flags: u32) -> CUevent {
    let mut event = null_mut();
    ok(unsafe { cuEventCreate(&mut event, flags) });
    event
}

#[test]
fn streams_have_flags_and_priorities() {
    let _session = Session::new();
    let (mut stream, mut flags, mut priority) = (null_mut(), 9, 9);
    unsafe {
        ok(cuStreamCreateWithPriority(&mut stream, 1, -9));
        ok(cuStreamGetFlags(stream, &mut flags));
        ok(cuStreamGetPriority(stream, &mut priority));
        assert_eq!((flags, priority), (1, -5));
        ok(cuStreamDestroy_v2(stream));
        ok(cuStreamGetPriority(null_mut(), &mut priority));
        assert_eq!(priority, 0);
        fails(cuStreamCreate(&mut stream, 2), ERROR_INVALID_VALUE, "flags 0x2");
        fails(cuStreamCreate(null_mut(), 0), ERROR_INVALID_VALUE, "null");
    }
}

#[test]
fn stale_and_foreign_handles_are_refused() {
    let session = Session::new();
    let (stream, first) = (session.stream(0), event(0));
    let fill = session.function("fill");
    unsafe {
        ok(cuStreamDestroy_v2(stream));
        ok(cuEventDestroy_v2(first));
        let later = session.stream(0);
        assert_ne!(later, stream, "a handle is never used again");
        for wrong in [stream, first, fill, session.context, 0x10 as CUstream, usize::MAX as CUstream] {
            fails(cuStreamSynchronize(wrong), ERROR_INVALID_HANDLE, "stream");
            fails(cuStreamQuery(wrong), ERROR_INVALID_HANDLE, "stream");
            fails(cuStreamDestroy_v2(wrong), ERROR_INVALID_HANDLE, "stream");
            fails(cuStreamWaitEvent(wrong, first, 0), ERROR_INVALID_HANDLE, "stream");
            fails(cuEventSynchronize(wrong), ERROR_INVALID_HANDLE, "event");
            fails(cuEventRecord(wrong, later), ERROR_INVALID_HANDLE, "event");
            fails(cuEventDestroy_v2(wrong), ERROR_INVALID_HANDLE, "event");
            fails(cuStreamWaitEvent(later, wrong, 0), ERROR_INVALID_HANDLE, "event");
        }
        for default in [0usize, 1, 2] {
            ok(cuStreamSynchronize(default as CUstream));
            fails(cuStreamDestroy_v2(default as CUstream), ERROR_INVALID_HANDLE, "default streams");
        }
        fails(cuEventSynchronize(null_mut()), ERROR_INVALID_HANDLE, "event");
    }
}

#[test]
fn work_is_done_in_the_order_of_calls() {
    let session = Session::new();
    let function = session.function("step");
    let at = session.upload(&[0; 32]);
    let streams = [session.stream(0), session.stream(1), null_mut(), 1 as CUstream, 2 as CUstream];
    let done = event(EVENT_DISABLE_TIMING);
    let mut expected = 0i32;
    for round in 0..10 {
        let (stream, next) = (streams[round % 5], streams[(round + 1) % 5]);
        ok(step(function, at, round as i32, 32, stream));
        expected = expected.wrapping_mul(round as i32).wrapping_add(1);
        unsafe {
            ok(cuEventRecord(done, stream));
            ok(cuStreamWaitEvent(next, done, 0));
            ok(cuEventQuery(done));
        }
    }
    assert_eq!(download(at, 32), [expected; 32]);
    free(at);
}

#[test]
fn events_know_their_time() {
    let session = Session::new();
    let stream = session.stream(1);
    let (start, end, untimed) = (event(0), event(1), event(2));
    let (mut forward, mut back) = (-1f32, 0f32);
    unsafe {
        ok(cuEventQuery(start));
        ok(cuEventSynchronize(start));
        fails(cuEventElapsedTime(&mut forward, start, end), ERROR_INVALID_HANDLE, "never recorded");
        ok(cuEventRecord(start, stream));
        std::thread::sleep(std::time::Duration::from_millis(5));
        ok(cuEventRecordWithFlags(end, stream, 0));
        ok(cuEventRecord(untimed, stream));
        ok(cuEventElapsedTime(&mut forward, start, end));
        ok(cuEventElapsedTime_v2(&mut back, end, start));
        assert!((5.0..60_000.0).contains(&forward), "{forward}");
        assert_eq!(forward, -back);
        fails(cuEventElapsedTime_v2(&mut forward, start, untimed), ERROR_INVALID_HANDLE, "without timing");
        fails(cuEventElapsedTime_v2(null_mut(), start, end), ERROR_INVALID_VALUE, "null");
        fails(cuEventCreate(&mut null_mut(), 4), ERROR_NOT_SUPPORTED, "processes");
        fails(cuEventCreate(&mut null_mut(), 64), ERROR_INVALID_VALUE, "flags 0x40");
        fails(cuEventRecordWithFlags(end, stream, 2), ERROR_INVALID_VALUE, "flags 0x2");
        fails(cuStreamWaitEvent(stream, end, 2), ERROR_INVALID_VALUE, "flags 0x2");
    }
}

#[test]
fn events_belong_to_their_context() {
    let session = Session::new();
    let (stream, ours) = (session.stream(0), event(0));
    let mut other = null_mut();
    unsafe {
        ok(cuCtxCreate_v2(&mut other, 0, 0));
        let theirs = event(0);
        fails(cuEventRecord(theirs, stream), ERROR_INVALID_HANDLE, "different contexts");
        fails(cuEventRecord(ours, null_mut()), ERROR_INVALID_HANDLE, "different contexts");
        ok(cuEventRecord(ours, stream));
        ok(cuStreamWaitEvent(session.stream(0), ours, 0));
        ok(cuCtxDestroy_v2(other));
        fails(cuEventQuery(theirs), ERROR_INVALID_HANDLE, "event");
    }
}

/// What a function of the host saw: calls, and what the driver told it.
#[derive(Default)]
struct Seen {
    calls: u32,
    driver: CUresult,
    status: CUresult,
}

unsafe extern "C" fn host_function(seen: *mut c_void) {
    let seen = unsafe { &mut *seen.cast::<Seen>() };
    seen.calls += 1;
    seen.driver = unsafe { cuMemAlloc_v2(&mut 0, 4) };
}

unsafe extern "C" fn callback(_: CUstream, status: CUresult, seen: *mut c_void) {
    unsafe {
        host_function(seen);
        (*seen.cast::<Seen>()).status = status;
    }
}

#[test]
fn functions_of_the_host_run_but_may_not_call_the_driver() {
    let session = Session::new();
    let (stream, trap) = (session.stream(1), session.function("trap"));
    let mut seen = Seen::default();
    let data = (&raw mut seen).cast();
    unsafe {
        ok(cuLaunchHostFunc(stream, Some(host_function), data));
        assert_eq!((seen.calls, seen.driver), (1, ERROR_NOT_PERMITTED));
        ok(cuStreamAddCallback(stream, Some(callback), data, 0));
        assert_eq!((seen.calls, seen.status), (2, SUCCESS));
        ok(cuCtxSynchronize());
        fails(cuLaunchHostFunc(stream, None, null_mut()), ERROR_INVALID_VALUE, "null");
        fails(cuStreamAddCallback(stream, None, null_mut(), 0), ERROR_INVALID_VALUE, "null");
        fails(cuStreamAddCallback(stream, Some(callback), data, 1), ERROR_INVALID_VALUE, "flags");
        ok(launch(trap, 1, stream, &mut []));
        fails(cuLaunchHostFunc(stream, Some(host_function), data), 719, "trap");
        ok(cuStreamAddCallback(stream, Some(callback), data, 0));
        assert_eq!((seen.calls, seen.status), (3, 719));
    }
}

#[test]
fn threads_share_the_driver() {
    let session = Session::new();
    let function = session.function("step");
    let at = session.upload(&[0; 32]);
    let (context, function) = (session.context as usize, function as usize);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(move || {
                ok(unsafe { cuCtxSetCurrent(context as CUcontext) });
                for _ in 0..25 {
                    ok(step(function as CUfunction, at, 1, 32, STREAM_PER_THREAD as CUstream));
                }
                ok(unsafe { cuStreamSynchronize(STREAM_PER_THREAD as CUstream) });
            });
        }
    });
    assert_eq!(download(at, 32), [100; 32]);
    free(at);
}

#[test]
fn profiler_switch_is_accepted() {
    let _session = Session::new();
    ok(unsafe { cuProfilerStart() });
    ok(unsafe { cuProfilerStop() });
}
