//! Streams: in order by construction, since work runs when it is submitted.

use std::ffi::{c_int, c_uint, c_void};

use super::border::{border, lock, out};
use super::failure::{Outcome, fail, invalid};
use super::handles::{Mode, Recorded, Stream, StreamKind};
use super::progress::{call_host, unblocked};
use super::submit::submit;
use super::types::*;
use super::work::Work;

/// The least and the greatest priority; they have no effect.
pub const PRIORITIES: (c_int, c_int) = (0, -5);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreate(stream: *mut CUstream, flags: c_uint) -> CUresult {
    // SAFETY: the same contract.
    unsafe { cuStreamCreateWithPriority(stream, flags, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamCreateWithPriority(stream: *mut CUstream, flags: c_uint, priority: c_int) -> CUresult {
    border("cuStreamCreateWithPriority", || {
        let mut driver = lock()?;
        let context = driver.working()?;
        // SAFETY: `stream` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(stream)? };
        if flags & !STREAM_NON_BLOCKING != 0 {
            return fail(ERROR_INVALID_VALUE, format!("there are no stream flags {flags:#x}"));
        }
        let priority = priority.clamp(PRIORITIES.1, PRIORITIES.0);
        let entry = Stream { flags, priority, ..Stream::new(context, StreamKind::Created) };
        answer.write(driver.streams.insert(entry) as CUstream);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamDestroy_v2(stream: CUstream) -> CUresult {
    border("cuStreamDestroy_v2", || {
        let mut driver = lock()?;
        if (stream as usize) <= STREAM_PER_THREAD {
            return fail(ERROR_INVALID_HANDLE, "default streams are not destroyed");
        }
        let handle = driver.stream(stream)?;
        driver.abandon_capture(handle);
        driver.streams.remove(handle).map(|entry| driver.healthy(entry.context)).unwrap_or(Ok(()))
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamSynchronize(stream: CUstream) -> CUresult {
    border("cuStreamSynchronize", || {
        lock()?.tally.synchronisations += 1;
        settled(stream, "cuStreamSynchronize", true)
    })
}

/// All work is done whenever it is asked, unless a function of the host still runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamQuery(stream: CUstream) -> CUresult {
    border("cuStreamQuery", || settled(stream, "cuStreamQuery", false))
}

fn settled(stream: CUstream, call: &str, wait: bool) -> Outcome {
    let mut driver = lock()?;
    let stream = driver.stream(stream)?;
    let context = driver.context_of(stream)?;
    driver.healthy(context)?;
    driver.not_capturing(stream, call)?;
    driver.no_implicit_dependency(stream, call)?;
    if !wait && !driver.pending(stream).is_empty() {
        return fail(ERROR_NOT_READY, "a function of the host runs in the stream");
    }
    let mut driver = unblocked(driver, stream)?;
    let until = driver.ready(stream);
    driver.host_waited(until);
    driver.healthy(context)
}

/// Flags: `CU_EVENT_WAIT_EXTERNAL` (1) makes a node of the wait while the stream captures.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: c_uint) -> CUresult {
    border("cuStreamWaitEvent", || {
        let mut driver = lock()?;
        let stream = driver.stream(stream)?;
        let context = driver.context_of(stream)?;
        driver.healthy(context)?;
        let recorded = driver.events.get(event as usize).ok_or_else(|| invalid("event"))?.recorded.clone();
        if flags & !1 != 0 {
            return fail(ERROR_INVALID_VALUE, format!("there are no wait flags {flags:#x}"));
        }
        match (recorded, driver.capture_of(stream)) {
            (Recorded::Captured(capture, clock), _) => driver.join(stream, capture, &clock),
            (_, Some(capture)) if flags & 1 != 0 => driver.record(capture, stream, [Work::Wait.into()]),
            (Recorded::At(_) | Recorded::Behind(_), Some(_)) => {
                // Which also invalidates the capture.
                let _ = driver.not_capturing(stream, "cuStreamWaitEvent");
                fail(
                    ERROR_STREAM_CAPTURE_ISOLATION,
                    "the stream captures, and the event was recorded outside the capture",
                )
            }
            (Recorded::At(time), None) => {
                driver.go_on(stream, time);
                Ok(())
            }
            (Recorded::Behind(pending), None) => {
                driver.comes_after(stream, &pending);
                Ok(())
            }
            (Recorded::Never, _) => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetFlags(stream: CUstream, flags: *mut c_uint) -> CUresult {
    border("cuStreamGetFlags", || {
        let mut driver = lock()?;
        let stream = driver.stream(stream)?;
        // SAFETY: `flags` is null or room for the answer: the caller's promise.
        unsafe { out(flags)? }.write(driver.streams.get(stream).map_or(0, |stream| stream.flags));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamGetPriority(stream: CUstream, priority: *mut c_int) -> CUresult {
    border("cuStreamGetPriority", || {
        let mut driver = lock()?;
        let stream = driver.stream(stream)?;
        // SAFETY: `priority` is null or room for the answer: the caller's promise.
        unsafe { out(priority)? }.write(driver.streams.get(stream).map_or(0, |stream| stream.priority));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamBeginCapture_v2(stream: CUstream, mode: c_int) -> CUresult {
    border("cuStreamBeginCapture_v2", || {
        let mut driver = lock()?;
        let stream = driver.stream(stream)?;
        let context = driver.context_of(stream)?;
        driver.healthy(context)?;
        let mode = match mode {
            0 => Mode::Global,
            1 => Mode::ThreadLocal,
            2 => Mode::Relaxed,
            _ => return fail(ERROR_INVALID_VALUE, format!("there is no capture mode {mode}")),
        };
        driver.begin_capture(stream, mode)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph) -> CUresult {
    border("cuStreamEndCapture", || {
        let mut driver = lock()?;
        let stream = driver.stream(stream)?;
        let context = driver.context_of(stream)?;
        driver.healthy(context)?;
        // SAFETY: `graph` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(graph)? };
        let ended = driver.end_capture(stream);
        answer.write(ended.as_ref().map_or(0, |graph| *graph) as CUgraph);
        ended.map(|_| ())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamIsCapturing(stream: CUstream, status: *mut c_int) -> CUresult {
    border("cuStreamIsCapturing", || {
        let mut driver = lock()?;
        let stream = driver.stream(stream)?;
        // SAFETY: `status` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(status)? };
        driver.no_implicit_dependency(stream, "cuStreamIsCapturing")?;
        let capture = driver.capture_of(stream).and_then(|capture| driver.captures.get(capture));
        answer.write(match capture {
            None => CAPTURE_STATUS_NONE,
            Some(capture) if capture.invalid => CAPTURE_STATUS_INVALIDATED,
            Some(_) => CAPTURE_STATUS_ACTIVE,
        });
        Ok(())
    })
}

/// Runs the function at once, in another thread. It may not call the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchHostFunc(stream: CUstream, function: CUhostFn, data: *mut c_void) -> CUresult {
    border("cuLaunchHostFunc", || {
        let driver = lock()?;
        match function {
            Some(function) => submit(driver, stream, Work::Host(function, data as usize), "cuLaunchHostFunc"),
            None => fail(ERROR_INVALID_VALUE, "the function is null"),
        }
    })
}

/// Calls back at once, in another thread, also in a failed context.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamAddCallback(
    stream: CUstream,
    callback: CUstreamCallback,
    data: *mut c_void,
    flags: c_uint,
) -> CUresult {
    border("cuStreamAddCallback", || {
        let mut driver = lock()?;
        let entry = driver.stream(stream)?;
        let context = driver.context_of(entry)?;
        let Some(callback) = callback.filter(|_| flags == 0) else {
            return fail(ERROR_INVALID_VALUE, "the callback is null, or the flags are not 0");
        };
        driver.not_capturing(entry, "cuStreamAddCallback")?;
        driver.no_implicit_dependency(entry, "cuStreamAddCallback")?;
        let status = driver.healthy(context).map_or_else(|failure| failure.code, |()| SUCCESS);
        let driver = unblocked(driver, entry)?;
        let (stream, data) = (stream as usize, data as usize);
        // SAFETY: the program gave the function together with its argument.
        let call = move || unsafe { callback(stream as CUstream, status, data as *mut c_void) };
        call_host(driver, entry, call).map(drop)
    })
}
