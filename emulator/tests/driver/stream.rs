//! Streams, events and functions of the host in them.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "every block is a call of the driver's C interface with what the test made"
)]

use std::ffi::c_void;
use std::ptr::null_mut;

use crate::common::*;
use ptx_emulator::driver::{context::*, copy::*, event::*, memory::*, stream::*, types::*, unsupported::*};

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
        ok(cuStreamSynchronize(stream));
        assert_eq!((seen.calls, seen.driver), (1, ERROR_NOT_PERMITTED));
        ok(cuStreamAddCallback(stream, Some(callback), data, 0));
        ok(cuCtxSynchronize());
        assert_eq!((seen.calls, seen.status), (2, SUCCESS));
        fails(cuLaunchHostFunc(stream, None, null_mut()), ERROR_INVALID_VALUE, "null");
        fails(cuStreamAddCallback(stream, None, null_mut(), 0), ERROR_INVALID_VALUE, "null");
        fails(cuStreamAddCallback(stream, Some(callback), data, 1), ERROR_INVALID_VALUE, "flags");
        ok(launch(trap, 1, stream, &mut []));
        fails(cuLaunchHostFunc(stream, Some(host_function), data), 719, "trap");
        ok(cuStreamAddCallback(stream, Some(callback), data, 0));
        assert_eq!((seen.calls, seen.status), (3, 719));
    }
}

extern "C" fn wait_for_release(data: *mut std::ffi::c_void) {
    let receiver = unsafe { Box::from_raw(data.cast::<std::sync::mpsc::Receiver<()>>()) };
    let _ = receiver.recv_timeout(std::time::Duration::from_secs(60));
}

/// A function of the host may wait for what the program does after submitting it; until then, what is behind it is not ready.
#[test]
fn a_host_function_may_wait_for_the_program() {
    let session = Session::new();
    let (stream, other, behind, after) = (session.stream(1), session.stream(1), event(0), event(0));
    let at = session.upload(&[1; 4]);
    let function = session.function("step");
    let (release, receiver) = std::sync::mpsc::channel();
    let mut elapsed = 0.0;
    unsafe {
        ok(cuLaunchHostFunc(stream, Some(wait_for_release), Box::into_raw(Box::new(receiver)).cast()));
        ok(cuEventRecord(behind, stream));
        fails(cuEventQuery(behind), ERROR_NOT_READY, "function of the host");
        fails(cuStreamQuery(stream), ERROR_NOT_READY, "function of the host");
        // Another stream goes on, until it waits for the event.
        ok(step(function, at, 2, 4, other));
        ok(cuStreamSynchronize(other));
        ok(cuStreamWaitEvent(other, behind, 0));
        fails(cuStreamQuery(other), ERROR_NOT_READY, "function of the host");
        ok(cuEventRecord(after, other));
        fails(cuEventElapsedTime(&mut elapsed, behind, after), ERROR_NOT_READY, "function of the host");
        release.send(()).unwrap();
        ok(cuEventSynchronize(after));
        ok(cuEventQuery(behind));
        ok(step(function, at, 2, 4, other));
        ok(cuStreamSynchronize(stream));
        ok(cuCtxSynchronize());
        ok(cuEventElapsedTime(&mut elapsed, behind, after));
    }
    assert_eq!(download(at, 4), [7; 4]);
    free(at);
}

/// Work of two streams is reckoned beside each other, that of one stream one after another.
#[test]
fn times_are_those_of_streams_beside_each_other() {
    let session = Session::new();
    let function = session.function("step");
    let n = 2048 * 256;
    let (a, b) = (allocate(4 * n), allocate(4 * n));
    let (one, two) = (session.stream(1), session.stream(1));
    let [begin_one, end_one, begin_two, end_two] = [0; 4].map(event);
    let run = |at: CUdeviceptr, stream| {
        let (factor, n) = (1, n as i32);
        ok(launch_with(function, [2048, 1, 1], [256, 1, 1], 0, stream, &mut arguments![at, factor, n]));
    };
    let elapsed = |from, to| {
        let mut milliseconds = 0.0;
        ok(unsafe { cuEventElapsedTime(&mut milliseconds, from, to) });
        milliseconds
    };
    unsafe {
        ok(cuMemsetD32_v2(a, 0, n));
        ok(cuMemsetD32_v2(b, 0, n));
        ok(cuEventRecord(begin_one, one));
        run(a, one);
        ok(cuEventRecord(end_one, one));
        ok(cuEventRecord(begin_two, two));
        run(b, two);
        ok(cuEventRecord(end_two, two));
        ok(cuCtxSynchronize());
        assert!(
            elapsed(begin_one, end_one) > 0.0 && elapsed(begin_two, end_one) > 0.0 && elapsed(begin_two, end_two) > 0.0
        );
        // A stream that waits for an event begins behind it, and so does the null stream behind one that it waits for.
        ok(cuEventRecord(begin_one, one));
        run(a, one);
        ok(cuEventRecord(end_one, one));
        ok(cuStreamWaitEvent(two, end_one, 0));
        ok(cuEventRecord(begin_two, two));
        assert!(elapsed(end_one, begin_two) >= 0.0);
        let blocking = session.stream(0);
        run(a, blocking);
        ok(cuEventRecord(end_one, blocking));
        ok(cuEventRecord(begin_two, null_mut()));
        assert!(elapsed(end_one, begin_two) >= 0.0);
    }
    free(a);
    free(b);
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
