//! Events: complete when recorded, with the time of that.

use std::ffi::c_uint;

use super::border::{border, lock, out};
use super::failure::{Outcome, fail, failure, invalid};
use super::handles::{Event, Recorded};
use super::progress::wait_for;
use super::types::*;
use super::work::Work;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventCreate(event: *mut CUevent, flags: c_uint) -> CUresult {
    border("cuEventCreate", || {
        let mut driver = lock()?;
        let context = driver.working()?;
        // SAFETY: `event` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(event)? };
        if flags & EVENT_INTERPROCESS != 0 {
            return fail(ERROR_NOT_SUPPORTED, "events between processes are not emulated");
        }
        if flags & !(EVENT_BLOCKING_SYNC | EVENT_DISABLE_TIMING) != 0 {
            return fail(ERROR_INVALID_VALUE, format!("there are no event flags {flags:#x}"));
        }
        answer.write(driver.events.insert(Event { context, flags, recorded: Recorded::Never }) as CUevent);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventDestroy_v2(event: CUevent) -> CUresult {
    border("cuEventDestroy_v2", || {
        let mut driver = lock()?;
        let event = driver.events.remove(event as usize).ok_or_else(|| invalid("event"))?;
        driver.healthy(event.context)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecord(event: CUevent, stream: CUstream) -> CUresult {
    border("cuEventRecord", || record(event, stream, 0))
}

/// Flags: `CU_EVENT_RECORD_EXTERNAL` (1) makes a node of the record while the stream captures.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventRecordWithFlags(event: CUevent, stream: CUstream, flags: c_uint) -> CUresult {
    border("cuEventRecordWithFlags", || record(event, stream, flags))
}

fn record(event: CUevent, stream: CUstream, flags: c_uint) -> Outcome {
    let mut driver = lock()?;
    let stream = driver.stream(stream)?;
    // A kernel that failed here would fail later on a GPU: whoever waits for it is told.
    let context = driver.context_of(stream)?;
    let event = event as usize;
    match driver.events.get(event) {
        Some(event) if event.context == context => {}
        Some(_) => return fail(ERROR_INVALID_HANDLE, "the event and the stream are of different contexts"),
        None => return Err(invalid("event")),
    }
    if flags & !1 != 0 {
        return fail(ERROR_INVALID_VALUE, format!("there are no record flags {flags:#x}"));
    }
    driver.no_implicit_dependency(stream, "cuEventRecord")?;
    let recorded = match driver.capture_of(stream) {
        Some(capture) if flags & 1 != 0 => return driver.record(capture, stream, [Work::Record(event).into()]),
        Some(capture) => driver.mark(capture, stream)?,
        None => match driver.pending(stream) {
            pending if pending.is_empty() => Recorded::At(driver.ready(stream)),
            pending => Recorded::Behind(pending),
        },
    };
    if let Some(event) = driver.events.get_mut(event) {
        event.recorded = recorded;
    }
    Ok(())
}

/// A recorded event has passed, unless functions of the host come before it; so has one never recorded.
fn passed(event: CUevent, wait: bool) -> Outcome {
    loop {
        let mut driver = lock()?;
        let event = driver.events.get(event as usize).ok_or_else(|| invalid("event"))?;
        driver.healthy(event.context)?;
        match event.recorded.clone() {
            Recorded::Captured(..) => return fail(ERROR_CAPTURED_EVENT, "the event was last recorded in a capture"),
            Recorded::Never => return Ok(()),
            Recorded::At(time) => {
                driver.host_waited(time);
                return Ok(());
            }
            Recorded::Behind(pending) if pending.iter().all(|pending| pending.done().is_some()) => return Ok(()),
            Recorded::Behind(pending) if wait => {
                drop(driver);
                wait_for(&pending);
            }
            Recorded::Behind(_) => return fail(ERROR_NOT_READY, "a function of the host runs before the event"),
        }
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventQuery(event: CUevent) -> CUresult {
    border("cuEventQuery", || passed(event, false))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventSynchronize(event: CUevent) -> CUresult {
    border("cuEventSynchronize", || {
        lock()?.tally.synchronisations += 1;
        passed(event, true)
    })
}

/// Milliseconds that the emulator took, reckoned as if streams ran beside each other.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(milliseconds: *mut f32, start: CUevent, end: CUevent) -> CUresult {
    border("cuEventElapsedTime_v2", || {
        let driver = lock()?;
        // SAFETY: `milliseconds` is null or room for the answer: the caller's promise.
        let answer = unsafe { out(milliseconds)? };
        let time = |event: CUevent| {
            let event = driver.events.get(event as usize).ok_or_else(|| invalid("event"))?;
            driver.healthy(event.context)?;
            match event.recorded {
                _ if event.flags & EVENT_DISABLE_TIMING != 0 => {
                    fail(ERROR_INVALID_HANDLE, "the event was created without timing")
                }
                Recorded::Never => fail(ERROR_INVALID_HANDLE, "the event was never recorded"),
                Recorded::Captured(..) => fail(ERROR_CAPTURED_EVENT, "the event was last recorded in a capture"),
                Recorded::At(time) => Ok(time),
                Recorded::Behind(ref pending) => {
                    let times: Option<Vec<_>> = pending.iter().map(|pending| pending.done()).collect();
                    let last = times.and_then(|times| times.into_iter().max());
                    last.ok_or_else(|| failure(ERROR_NOT_READY, "a function of the host runs before the event"))
                }
            }
        };
        let (start, end) = (time(start)?, time(end)?);
        let seconds = match end.checked_duration_since(start) {
            Some(forward) => forward.as_secs_f64(),
            None => -start.duration_since(end).as_secs_f64(),
        };
        answer.write((seconds * 1e3) as f32);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, start: CUevent, end: CUevent) -> CUresult {
    // SAFETY: the same contract.
    unsafe { cuEventElapsedTime_v2(milliseconds, start, end) }
}
